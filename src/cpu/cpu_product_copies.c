/* cpu_product_copies.c: products of bf16 and fp16 by a library that only knows fp32 */
#include "src/cpu/cpu.h"

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
