/* lora_backward.cu: both thin products of an adapter's backward in one reading of dy (thin.cuh), for ranks of 8, 16 and
 * 32 in 16-bit types. */
#include "cuda/thin.cuh"

namespace {

bool takes(const moai_device *dev, tensor dlow, tensor db, tensor dy, tensor b, tensor low)
{
    const int64_t rank = b.cols;
    const bool same = dy.dt == b.dt && dy.dt == low.dt && dy.dt == dlow.dt && (dy.dt == DT_BF16 || dy.dt == DT_F16);

    return same && (rank == 8 || rank == 16 || rank == 32) && dy.cols >= FEWEST_COLS && dy.rows >= TILE_ROWS &&
           dy.rows < INT32_MAX && dy.cols < INT32_MAX && is_packed(dy, low, dlow) && db.stride % 4 == 0 &&
           (uintptr_t)db.data % 16 == 0 && dev->max_shared >= sizeof(room<4, true>);
}

}  // namespace

void lora_backward_cuda(moai_device *dev, tensor dlow, tensor db, tensor dy, tensor b, tensor low, bool accumulate)
{
    if (!takes(dev, dlow, db, dy, b, low)) {
        matmul_dx_cuda(dev, dlow, dy, b, false);
        matmul_dw_cuda(dev, db, dy, low, accumulate);
        return;
    }
    for_type("lora_backward", dy.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        if constexpr (sizeof(T) == 2) {
            auto run = b.cols == 8    ? thin_products<1, true, T>
                       : b.cols == 16 ? thin_products<2, true, T>
                                      : thin_products<4, true, T>;
            run(dev, "lora_backward", dlow, db, dy, b, low, accumulate);
        }
    });
}
