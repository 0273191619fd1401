/* matmul_few.h: products of few rows or columns, private to cuda/matmul*. */
#ifndef MOAI_MATMUL_FEW_H
#define MOAI_MATMUL_FEW_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y (n, out) = z + x W^T, z of y's form, NULL for none: up to 8 rows of x, bf16 or fp16, features a multiple of 32.
 * False, and nothing done, for everything else. */
bool matmul_few(moai_device *, tensor y, tensor x, tensor w, const void *z);
/* dw (8, 16, 24 or 32, in) = dy^T x, or += , of many rows: one reading of x.  False, and nothing done, for everything
 * else. */
bool matmul_dw_few(moai_device *, tensor dw, tensor dy, tensor x, bool accumulate);

#ifdef __cplusplus
}
#endif

#endif
