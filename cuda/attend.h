/* attend.h: the implementations behind attend, attend_backward and attend_cached, private to cuda/attend*. */
#ifndef MOAI_ATTEND_H
#define MOAI_ATTEND_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One query, or one key, at a time: any dtype and head_dim up to 256, the same bits every time.  What the fast ones are compared with, and
 * what runs fp32.                                                                                                     */
void attend_plain(moai_device *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape);
void attend_plain_backward(moai_device *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v, tensor att,
                           const float *lse, attend_shape);

#ifdef __cplusplus
}
#endif

#endif
