/* cpu_matmul.c: the three products of a linear map y = x W^T, W (out, in) */
#include "cpu.h"

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

static int64_t copy_size(tensor t) { return t.dt == DT_F32 ? 0 : tensor_n_elem(t); }

static tensor fp32_view(tensor t, float *copy) { return t.dt == DT_F32 ? t : tensor_of(copy, DT_F32, t.rows, t.cols); }

static void fp32_load(tensor to, tensor from)
{
    if (to.data == from.data) return;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < from.rows; i++) row_load(from, i, tensor_at(to, i, 0));
}

void product_by_copies(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is,
                       bool accumulate, product_fn *fp32_product)
{
    float *copies = scratch_floats(dev, copy_size(a) + copy_size(b) + copy_size(c));
    tensor a32 = fp32_view(a, copies), b32 = fp32_view(b, copies + copy_size(a));
    tensor c32 = fp32_view(c, copies + copy_size(a) + copy_size(b));

    fp32_load(a32, a);
    fp32_load(b32, b);
    if (accumulate) fp32_load(c32, c);
    fp32_product(dev, c32, a32, a_is, b32, b_is, accumulate);
    if (c32.data == c.data) return;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < c.rows; i++) row_store(c, i, tensor_at(c32, i, 0));
}

void matmul_cpu(moai_device *dev, tensor y, tensor x, tensor w)
{
    check_product("matmul", y, x, w);
    product_or_zero(dev, y, x, AS_STORED, w, TRANSPOSED, false);
}

void matmul_add_cpu(moai_device *dev, tensor y, tensor x, tensor w, tensor z)
{
    check_product("matmul_add", y, x, w);
    cast_cpu(dev, y, z);
    product_or_zero(dev, y, x, AS_STORED, w, TRANSPOSED, true);
}

void matmul_dx_cpu(moai_device *dev, tensor dx, tensor dy, tensor w)
{
    check_product("matmul_dx", dy, dx, w);
    product_or_zero(dev, dx, dy, AS_STORED, w, AS_STORED, false);
}

void matmul_dw_cpu(moai_device *dev, tensor dw, tensor dy, tensor x, bool accumulate)
{
    check_product("matmul_dw", dy, x, dw);
    CHECK(dw.dt == DT_F32, "matmul_dw: gradients of weights are fp32, not %s", dtype_name(dw.dt));
    product_or_zero(dev, dw, dy, TRANSPOSED, x, AS_STORED, accumulate);
}
