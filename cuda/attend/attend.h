/* attend.h: the implementations behind attend, attend_backward and attend_cached, private to cuda/attend*. */
#ifndef MOAI_ATTEND_H
#define MOAI_ATTEND_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One query, or one key, at a time: any dtype and head_dim up to 256, the same bits every time.  What the fast ones are
 * compared with, and what runs fp32. */
void attend_plain(moai_device *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape);
void attend_plain_backward(moai_device *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape);
void attend_plain_cached(moai_device *, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                         const int32_t *pos, int64_t max_len, head_shape);

/* Tiles on the tensor cores: bf16 and fp16, head_dim up to 128 in multiples of 8, rows that can be moved 16 bytes at a
 * time; the same bits every time.  False, and nothing done, for everything else. */
bool attend_flash(moai_device *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape);
bool attend_flash_backward(moai_device *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape);
bool attend_flash_cached(moai_device *, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                         const int32_t *pos, int64_t max_len, head_shape);

#ifdef __cplusplus
}
#endif

#endif
