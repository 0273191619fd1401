/* attend_cudnn.h: fused attention of cuDNN, private to cuda/attend*. */
#ifndef MOAI_ATTEND_CUDNN_H
#define MOAI_ATTEND_CUDNN_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attend_cudnn attend_cudnn; /* the library's handle and the plans built so far, one a shape */

#ifdef MOAI_CUDNN
attend_cudnn *attend_cudnn_open(moai_device *);
void attend_cudnn_close(attend_cudnn *);
const char *attend_cudnn_version(void); /* "cuDNN 9.14.0" */

/* As attend and attend_backward of ops.h, without the padding rows.  False: cuDNN has no plan for this shape and dtype,
 * or a view is not at multiples of 16 bytes; nothing was queued, and `why` (not NULL) tells.  The workspace of a plan
 * is taken when the plan is built. */
bool attend_cudnn_forward(attend_cudnn *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape,
                          const char **why);
bool attend_cudnn_backward(attend_cudnn *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape, const char **why);
/* The same for segments of any lengths, in one launch; lse is then (N, n_heads).  Plans are made for numbers and
 * lengths of segments rounded up, so that there are few. */
bool attend_cudnn_forward_ragged(attend_cudnn *, const attend_args *, const char **why);
bool attend_cudnn_backward_ragged(attend_cudnn *, const attend_args *, tensor dq, tensor dk, tensor dv, tensor datt,
                                  const char **why);
#else
static inline attend_cudnn *attend_cudnn_open(moai_device *dev) { return (void)dev, (attend_cudnn *)NULL; }
static inline void attend_cudnn_close(attend_cudnn *a) { (void)a; }
static inline const char *attend_cudnn_version(void) { return ""; }
static inline bool attend_cudnn_forward(attend_cudnn *a, tensor att, float *lse, tensor q, tensor k, tensor v,
                                        attend_shape s, const char **why)
{
    (void)a, (void)att, (void)lse, (void)q, (void)k, (void)v, (void)s;
    *why = "cuDNN is not built in";
    return false;
}
static inline bool attend_cudnn_backward(attend_cudnn *a, tensor dq, tensor dk, tensor dv, tensor datt, tensor q,
                                         tensor k, tensor v, tensor att, const float *lse, attend_shape s,
                                         const char **why)
{
    (void)dq, (void)dk, (void)dv, (void)datt;
    return attend_cudnn_forward(a, att, (float *)lse, q, k, v, s, why);
}
static inline bool attend_cudnn_forward_ragged(attend_cudnn *a, const attend_args *args, const char **why)
{
    return attend_cudnn_forward(a, args->att, args->lse, args->q, args->k, args->v, (attend_shape){0}, why);
}
static inline bool attend_cudnn_backward_ragged(attend_cudnn *a, const attend_args *args, tensor dq, tensor dk,
                                                tensor dv, tensor datt, const char **why)
{
    (void)dq, (void)dk, (void)dv, (void)datt;
    return attend_cudnn_forward_ragged(a, args, why);
}
#endif

#ifdef __cplusplus
}
#endif

#endif
