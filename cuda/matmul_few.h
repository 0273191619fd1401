/* matmul_few.h: products for few rows, private to cuda/matmul*. */
#ifndef MOAI_MATMUL_FEW_H
#define MOAI_MATMUL_FEW_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y (n, out) = z + x W^T, z of y's form, NULL for none: up to 8 rows of x, bf16 or fp16, features a multiple of 32.
 * False, and nothing done, for everything else. */
bool matmul_few(moai_device *, tensor y, tensor x, tensor w, const void *z);

#ifdef __cplusplus
}
#endif

#endif
