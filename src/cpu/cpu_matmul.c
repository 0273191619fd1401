/* cpu_matmul.c: the three products of a linear map y = x W^T, W (out, in) */
#include "src/cpu/cpu.h"
#include "src/ops/ops_default.h"

static void check_product(const char *op, tensor y, tensor x, tensor w)
{
    CHECK(y.rows == x.rows && x.cols == w.cols && y.cols == w.rows,
          "%s: (%lld, %lld) = (%lld, %lld) with W (%lld, %lld)", op, (long long)y.rows, (long long)y.cols,
          (long long)x.rows, (long long)x.cols, (long long)w.rows, (long long)w.cols);
}

/* The libraries see no empty operand: a sum over nothing is zero. */
static void product_or_zero(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is,
                            bool accumulate)
{
    if (tensor_n_elem(c) == 0) return;
    if (tensor_n_elem(a) > 0)
        product(dev, c, a, a_is, b, b_is, accumulate);
    else if (!accumulate)
        rows_zero(c, 0);
}

void matmul_cpu(moai_device *dev, tensor y, tensor x, tensor w)
{
    check_product("matmul", y, x, w);
    product_or_zero(dev, y, x, AS_STORED, w, TRANSPOSED, false);
}

void matmul_add_cpu(moai_device *dev, tensor y, tensor x, tensor w, tensor z)
{
    check_product("matmul_add", y, x, w);
    if (y.data != z.data) cast_cpu(dev, y, z);
    product_or_zero(dev, y, x, AS_STORED, w, TRANSPOSED, true);
}

void matmul_dx_cpu(moai_device *dev, tensor dx, tensor dy, tensor w, bool accumulate)
{
    check_product("matmul_dx", dy, dx, w);
    product_or_zero(dev, dx, dy, AS_STORED, w, AS_STORED, accumulate);
}

void matmul_dw_cpu(moai_device *dev, tensor dw, tensor dy, tensor x, bool accumulate)
{
    check_product("matmul_dw", dy, x, dw);
    CHECK(dw.dt == DT_F32, "matmul_dw: gradients of weights are fp32, not %s", dtype_name(dw.dt));
    product_or_zero(dev, dw, dy, TRANSPOSED, x, AS_STORED, accumulate);
}

LORA_BACKWARD_BY_PARTS(cpu)
