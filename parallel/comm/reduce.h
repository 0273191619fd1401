/* reduce.h: sums and maxima of arrays on the host, behind the collectives that reduce.  Two-byte numbers are added in
 * fp32 and rounded to nearest even. */
#ifndef MOAI_REDUCE_H
#define MOAI_REDUCE_H

#include "src/base/tensor.h"

/* out[i] = in[0][i] + in[1][i] + ... in this order, rounded once; in (parts, n), out may be in. */
void reduce_parts(void *out, const void *in, int parts, size_t n, dtype);

/* acc[i] = acc[i] + x[i], or the greater of both (NaN wins); bf16 and fp16, which MPI does not know. */
void reduce_sum_bf16(void *acc, const void *x, size_t n);
void reduce_max_bf16(void *acc, const void *x, size_t n);
void reduce_sum_f16(void *acc, const void *x, size_t n);
void reduce_max_f16(void *acc, const void *x, size_t n);

#endif
