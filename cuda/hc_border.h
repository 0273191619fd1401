/* hc_border.h: the passages between two branches of hyper-connections, each in one reading and writing of the streams:
 * what hc.cu takes where it can, which is 2 to 4 streams of 16 bits whose columns are multiples of 32. */
#ifndef MOAI_HC_BORDER_H
#define MOAI_HC_BORDER_H

#include "cuda/kernels.cuh"

enum { BORDER_STEP = 32, BORDER_MOST_RAW = 32, BORDER_MOST_COLS = 8192 };

/* Streams x, read by fn of n_raw rows.  Packed is then to be all that has x's type, but for draw, whose rows begin at
 * even elements. */
static inline bool border_takes(tensor x, int n, int64_t n_raw)
{
    return n >= 2 && n <= 4 && n_raw > n && n_raw <= BORDER_MOST_RAW && x.dt != DT_F32 && is_packed(x) &&
           x.cols / n % BORDER_STEP == 0 && x.cols / n <= BORDER_MOST_COLS;
}

/* As in ops.def; y.data NULL: nothing is merged, and out is x. */
void border_coefficients(moai_device *, tensor out, tensor coef, tensor raw, float *r, tensor x, tensor y,
                         tensor merging, tensor fn, tensor base, tensor scale, hc_shape);
void border_read_norm(moai_device *, tensor n1, float *rn, tensor x, tensor coef, tensor w, float eps, int n);
void border_read_backward(moai_device *, tensor dw, tensor dbase, tensor dscale, tensor dcoef, const hc_reading *,
                          tensor raw, const float *r, tensor base, tensor scale, hc_shape);
void border_backward(moai_device *, tensor dx, tensor dy, tensor dcoef, const hc_reading *later, tensor x, tensor y,
                     tensor coef, int n);

#endif
