/* cpu_product_cblas.c: products through CBLAS where oneDNN is missing */
#ifndef MOAI_ONEDNN
#include "src/cpu/cpu.h"

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

    snprintf(p->name, sizeof p->name, "CBLAS %s (bf16 and fp16 through fp32 copies)",
             openblas_get_config ? openblas_get_config() : "(unnamed)");
    if (openblas_set_num_threads) openblas_set_num_threads(omp_get_max_threads());
    return p;
}

void products_close(struct products *p) { free(p); }
const char *products_name(const struct products *p) { return p->name; }

static void multiply(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is,
                     bool accumulate)
{
    int64_t inner = a_is == TRANSPOSED ? a.rows : a.cols;

    (void)dev;
    cblas_sgemm(CblasRowMajor, a_is == TRANSPOSED ? CblasTrans : CblasNoTrans,
                b_is == TRANSPOSED ? CblasTrans : CblasNoTrans, (int)c.rows, (int)c.cols, (int)inner, 1.0f, a.data,
                (int)a.stride, b.data, (int)b.stride, accumulate ? 1.0f : 0.0f, c.data, (int)c.stride);
}

void product(moai_device *dev, tensor c, tensor a, orientation a_is, tensor b, orientation b_is, bool accumulate)
{
    product_by_copies(dev, c, a, a_is, b, b_is, accumulate, multiply);
}
#endif
