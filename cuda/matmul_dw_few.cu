/* matmul_dw_few.cu: dw = dy^T x for a W of few rows (matmul_few.h, thin.cuh) */
#include "cuda/matmul_few.h"
#include "cuda/thin.cuh"

enum { FEWEST_ROWS = 256 };

bool matmul_dw_few(moai_device *dev, tensor dw, tensor dy, tensor x, bool accumulate)
{
    const bool is = dy.dt == x.dt && x.dt != DT_F32 && dy.cols % 8 == 0 && dy.cols <= 32 && x.cols >= FEWEST_COLS &&
                    x.rows >= FEWEST_ROWS && x.rows < INT32_MAX && x.cols < INT32_MAX && is_packed(dy, x) &&
                    dw.stride % 4 == 0 && (uintptr_t)dw.data % 16 == 0 && dev->max_shared >= sizeof(room<4, false>);

    if (!is) return false;
    for_type("matmul_dw", x.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        if constexpr (sizeof(T) == 2) {
            auto run = dy.cols == 8    ? thin_products<1, false, T>
                       : dy.cols == 16 ? thin_products<2, false, T>
                       : dy.cols == 24 ? thin_products<3, false, T>
                                       : thin_products<4, false, T>;
            run(dev, "matmul_dw", tensor(), dw, x, tensor(), dy, accumulate);
        }
    });
    return true;
}
