/* stream.h: the residual stream of a layer, x (N/tp, H): what a branch reads of it, and how the branch's result is
 * added.  Whatever is done to the residual connection (more streams than one, mixed token by token) is done in these
 * calls.
 *
 *     n1 = norm(x);  h = x + Wo att;  n2 = norm(h);  y = h + Wdown act */
#ifndef MOAI_STREAM_H
#define MOAI_STREAM_H

#include "parallel/axes/tensor_parallel.h"
#include "src/model/linear.h"

/* n (N/tp, H) = norm(x), r (N/tp) the reciprocal norms.  Not collective. */
void stream_read(const moai_ctx *, tensor n, float *r, tensor x, const norm_weight *);
/* y = x + branch W^T, the branch (N, in/tp).  A rank that holds all of W adds inside the product; otherwise the partial
 * products of the tensor axis are summed first.  Collective over tp. */
void stream_add(const moai_ctx *, tensor y, tensor x, tensor branch, const linear *, const linear_acts *);
/* Both: h = x + branch W^T, n = norm(h). */
void stream_add_read(const moai_ctx *, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *,
                     const linear_acts *, const norm_weight *);
/* dx, the gradient of whoever reads x later, gains that through norm(x); the norm's own gradient += . */
void stream_read_backward(const moai_ctx *, tensor dx, tensor dn, tensor x, const float *r, norm_weight *);

#endif
