/* cpu_product_cblas.c: products through CBLAS where oneDNN is missing.  bf16 operands go through fp32 copies. */
#ifndef MOAI_ONEDNN
#include "cpu.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>

/* OpenBLAS says what it is and takes a thread count; another CBLAS need not have either. */
extern char *openblas_get_config(void) __attribute__((weak));
extern void openblas_set_num_threads(int) __attribute__((weak));

struct products {
    char name[160];
};

struct products *products_open(void)
{
    struct products *p = xmalloc(sizeof *p);

    snprintf(p->name, sizeof p->name, "CBLAS %s", openblas_get_config ? openblas_get_config() : "(unnamed)");
    if (openblas_set_num_threads) openblas_set_num_threads(omp_get_max_threads());
    return p;
}

void products_close(struct products *p) { free(p); }
const char *products_name(const struct products *p) { return p->name; }

static int64_t copy_size(tensor t) { return t.dt == DT_F32 ? 0 : tensor_n_elem(t); }

static tensor fp32_view(tensor t, float *copy) { return t.dt == DT_F32 ? t : tensor_of(copy, DT_F32, t.rows, t.cols); }

static void fp32_load(tensor to, tensor from)
{
    if (to.data == from.data) return;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < from.rows; i++) row_load(from, i, tensor_at(to, i, 0));
}

void product(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is, bool accumulate)
{
    float *copies = scratch_floats(dev, copy_size(a) + copy_size(b) + copy_size(c));
    tensor a32 = fp32_view(a, copies), b32 = fp32_view(b, copies + copy_size(a));
    tensor c32 = fp32_view(c, copies + copy_size(a) + copy_size(b));
    int64_t inner = a_is == TRANSPOSED ? a.rows : a.cols;

    fp32_load(a32, a);
    fp32_load(b32, b);
    cblas_sgemm(CblasRowMajor, a_is == TRANSPOSED ? CblasTrans : CblasNoTrans,
                b_is == TRANSPOSED ? CblasTrans : CblasNoTrans, (int)c.rows, (int)c.cols, (int)inner, 1.0f, a32.data,
                (int)a32.stride, b32.data, (int)b32.stride, accumulate ? 1.0f : 0.0f, c32.data, (int)c32.stride);
    if (c32.data == c.data) return;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < c.rows; i++) row_store(c, i, tensor_at(c32, i, 0));
}
#endif
