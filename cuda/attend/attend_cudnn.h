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
#endif

#ifdef __cplusplus
}
#endif

#endif
