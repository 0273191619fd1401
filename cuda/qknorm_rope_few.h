/* qknorm_rope_few.h: QK-norm and rotation of few rows, private to cuda/qknorm_rope*. */
#ifndef MOAI_QKNORM_ROPE_FEW_H
#define MOAI_QKNORM_ROPE_FEW_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* qknorm_rope of ops.h for up to 64 rows and head_dim up to 256; false, and nothing done, for more. */
bool qknorm_rope_few(moai_device *, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table,
                     const int32_t *positions, head_shape, float eps);

#ifdef __cplusplus
}
#endif

#endif
