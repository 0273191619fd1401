/* hc_border.h: the passages between two branches of hyper-connections, each in one reading and writing of the streams:
 * what hc.cu takes where it can, which is 2 to 4 streams of 16 bits whose columns are multiples of 32. */
#ifndef MOAI_HC_BORDER_H
#define MOAI_HC_BORDER_H

#include "cuda/kernels.cuh"

enum { BORDER_STEP = 32, BORDER_MOST_RAW = 32, BORDER_MOST_COLS = 8192 };
enum { BORDER_SHARED = 160 << 10 };           /* bytes of shared memory that a block may take */

/* Streams x, read by fn of n_raw rows.  Packed is then to be all that has x's type, but for draw, whose rows are
 * apart by multiples of PACK. */
static inline bool border_takes(const moai_device *dev, tensor x, int n, int64_t n_raw)
{
    return dev->max_shared >= BORDER_SHARED && n >= 2 && n <= 4 && n_raw > n && n_raw <= BORDER_MOST_RAW &&
           x.dt != DT_F32 && is_packed(x) && x.cols / n % BORDER_STEP == 0 && x.cols / n <= BORDER_MOST_COLS;
}

/* Coefficients of merging are copied by twos where n is even. */
static inline bool border_takes_merging(tensor coef, int n)
{
    return n % 2 != 0 || ((uintptr_t)coef.data % 8 == 0 && coef.stride % 2 == 0);
}

/* As in ops.def; y.data NULL: nothing is merged, and out is x. */
void border_coefficients(moai_device *, tensor out, tensor coef, tensor raw, float *r, tensor x, tensor y,
                         tensor merging, tensor fn, tensor base, tensor scale, hc_shape);
void border_read_norm(moai_device *, tensor n1, float *rn, tensor x, tensor coef, tensor w, float eps, int n);
void border_read_backward(moai_device *, tensor dw, tensor dbase, tensor dscale, tensor dcoef, const hc_reading *,
                          tensor raw, const float *r, tensor base, tensor scale, hc_shape);
/* dx in place.  later NULL: nothing is due, and dx is the gradient at what is merged; y.data NULL: nothing is merged,
 * and it stays the one at later->x. */
void border_backward(moai_device *, const char *op, tensor dx, tensor dy, tensor dcoef, const hc_reading *later,
                     tensor x, tensor y, tensor coef, int n);
/* Is it for what is due? */
static inline bool border_takes_due(const moai_device *dev, const hc_reading *a, int n)
{
    return a->w.data && border_takes(dev, a->x, n, a->fn.rows) && is_packed(a->dn, a->fn, a->w) &&
           (uintptr_t)a->draw.data % 16 == 0 && a->draw.stride % PACK == 0;
}

#endif
