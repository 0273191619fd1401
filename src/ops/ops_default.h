/* ops_default.h: OPTIONAL operations of ops.def made of the others, for a backend that has none of its own:
 *
 *     RESIDUAL_RMSNORM_BY_PARTS(cuda)        defines residual_rmsnorm_cuda by add_cuda and rmsnorm_cuda
 *
 * The numbers are those of the parts: in 16 bits a sum is rounded where an op of its own may keep it in fp32. */
#ifndef MOAI_OPS_DEFAULT_H
#define MOAI_OPS_DEFAULT_H

#include "src/ops/ops.h"

#define RESIDUAL_RMSNORM_BY_PARTS(backend)                                                                        \
    void residual_rmsnorm_##backend(moai_device *d, tensor h, tensor n, float *r, tensor x, tensor o, tensor w,   \
                                    float eps)                                                                    \
    {                                                                                                             \
        add_##backend(d, h, x, o);                                                                                \
        rmsnorm_##backend(d, n, r, h, w, eps);                                                                    \
    }

#define LORA_BACKWARD_BY_PARTS(backend)                                                                          \
    void lora_backward_##backend(moai_device *d, tensor dlow, tensor db, tensor dy, tensor b, tensor low,         \
                                 bool accumulate)                                                                 \
    {                                                                                                             \
        matmul_dx_##backend(d, dlow, dy, b, false);                                                               \
        matmul_dw_##backend(d, db, dy, low, accumulate);                                                          \
    }

#define HC_MERGE_COEFFICIENTS_BY_PARTS(backend)                                                                   \
    void hc_merge_coefficients_##backend(moai_device *d, tensor out, tensor coef, tensor raw, float *r, tensor x, \
                                         tensor y, tensor merging, tensor fn, tensor base, tensor scale,          \
                                         hc_shape s)                                                              \
    {                                                                                                             \
        hc_merge_##backend(d, out, x, y, merging, s.n);                                                           \
        hc_coefficients_##backend(d, coef, raw, r, out, fn, base, scale, s);                                      \
    }

#define HC_BORDER_BACKWARD_BY_PARTS(backend)                                                                      \
    void hc_border_backward_##backend(moai_device *d, tensor dx, tensor dy, tensor dcoef, const hc_reading *later,\
                                      tensor x, tensor y, tensor coef, int n)                                     \
    {                                                                                                             \
        hc_streams_backward_##backend(d, dx, later, n);                                                           \
        hc_merge_backward_##backend(d, dx, dy, dcoef, dx, x, y, coef, n);                                         \
    }

#endif
