/* stream.h: the residual connection of a layer: what a branch reads of it, and how the branch's result is added.
 *
 *     n1 = norm(x);  h = x + Wo att;  n2 = norm(h);  y = h + Wdown act
 *
 * With hyper-connections (hc.h) x, h and y (N/tp, nH) are n streams, and what a branch reads is norm(u) of one that is
 * made of them; the branch's result goes to all of them, which are mixed meanwhile:
 *
 *     n1 = norm(sum_i pre_i x_i);  h_j = post_j Wo att + sum_i comb_ij x_i;  ...
 *
 * Streams are split over the tensor axis by rows as the residual is, and only what branches read and write is gathered
 * and summed: the axis carries no more than for one. */
#ifndef MOAI_STREAM_H
#define MOAI_STREAM_H

#include "parallel/axes/tensor_parallel.h"
#include "src/model/linear.h"

/* Of a branch. */
typedef struct stream_weights {
    norm_weight norm;                         /* (1, H)                                          */
    linear fn;                                /* (n_raw, nH)   of n > 1 streams, as are the next */
    norm_weight base, scale;                  /* (1, n_raw), (1, 3)                              */
} stream_weights;

/* What a branch's forward leaves, of n > 1 streams; {0} of one. */
typedef struct stream_acts {
    tensor u;                                 /* (N/tp, H)       what is normed                  */
    tensor raw, coef;                         /* (N/tp, n_raw), (N/tp, 2n + n^2) fp32            */
    float *r;                                 /* (N/tp)          reciprocal norms of all streams */
    tensor y;                                 /* (N/tp, H)       the branch's result             */
} stream_acts;

/* `name` is that of the norm's weight, `hc` that of the others without what follows the last dot. */
stream_weights stream_view(const flat_params *, const char *name, const char *hc);
void stream_begin(stream_weights *);          /* of a step: see block.h */
/* Lays out in `again` what a backward can make again of x, and in `kept` the branch's result. */
void stream_acts_plan(stream_acts *, const moai_ctx *, arena *again, arena *kept);

/* n (N/tp, H) = norm(x, or u), r (N/tp) the reciprocal norms.  Not collective. */
void stream_read(const moai_ctx *, tensor n, float *r, tensor x, const stream_weights *, stream_acts *);
/* y = x + branch W^T, the branch (N, in/tp).  A rank that holds all of W adds inside the product, to one stream;
 * otherwise the partial products of the tensor axis are summed first.  Collective over tp. */
void stream_add(const moai_ctx *, tensor y, tensor x, tensor branch, const linear *, const linear_acts *,
                stream_acts *);
/* Both: h = x + branch W^T, of a branch that `from` belongs to, and n = norm(h), as the next one reads it. */
void stream_add_read(const moai_ctx *, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *,
                     const linear_acts *, stream_acts *from, const stream_weights *next, stream_acts *to);

/* The gradient at streams (N/tp, nH) on its way back: dx (d->part); where there is one stream its gather goes on beside
 * other work. */
tp_rows stream_gradient(const moai_ctx *, tensor dx);
/* Begins it again, after d->part has changed. */
void stream_gradient_gather(const moai_ctx *, tp_rows *d);
/* From the gradient at y to that at the branch's result (N, H), gathered, in scratch or in d; d->part becomes x's
 * without what goes through the branch.  *dcoef, in scratch, is for stream_read_backward.  Collective over tp. */
tensor stream_add_backward(const moai_ctx *, tp_rows *d, tensor *dcoef, tensor x, const stream_acts *);
/* d->part gains what goes through norm(x, or u); the weights' gradients += . */
void stream_read_backward(const moai_ctx *, tp_rows *d, tensor dcoef, tensor dn, tensor x, const float *r,
                          stream_weights *, const stream_acts *);

/* The ends of the model: each stream is the embedding's row, and the head reads their mean, or one that is made by
 * coefficients as a branch's is.  one (N/tp, H).  With one stream `all` is `one`, and nothing is done. */
tensor stream_one(const moai_ctx *, tensor all);                                /* scratch for it; or `all` itself  */
void stream_spread(const moai_ctx *, tensor all, tensor one);
/* From the gradient at all to that at one (N, H), gathered, in scratch or in d.  Collective over tp. */
tensor stream_spread_backward(const moai_ctx *, tp_rows *d);

/* fn (n, nH), base (1, n), scale (1, 1); {0}: the mean */
typedef struct stream_head {
    linear fn;
    norm_weight base, scale;
} stream_head;
stream_head stream_head_view(const flat_params *);
/* Its acts, in scratch. */
stream_acts stream_head_acts(const moai_ctx *, const stream_head *, int64_t n_rows);
void stream_join(const moai_ctx *, tensor one, tensor all, const stream_head *, stream_acts *);
void stream_join_backward(const moai_ctx *, tensor dall, tensor done, tensor all, stream_head *, const stream_acts *);

#endif
