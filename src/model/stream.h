/* stream.h: the residual connection of a layer: what a branch reads of it, and how the branch's result is added.
 *
 *     n1 = norm(x);  h = x + Wo att;  n2 = norm(h);  y = h + Wdown act
 *
 * With hyper-connections (hc.h) x, h and y (N/tp, nH) are n streams, and what a branch reads is norm(u) of one that is
 * made of them; the branch's result goes to all of them, which are mixed meanwhile:
 *
 *     n1 = norm(sum_i pre_i x_i);  h_j = post_j Wo att + sum_i comb_ij x_i;  ...
 *
 * The streams are passed over once between one branch and the next, where the one's result is merged to them and the
 * other reads them, forward and backward, across layers, too: what a branch hands on is what it owes.
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
    tensor raw, coef;                         /* (N/tp, n_raw), (N/tp, 2n + n^2) fp32            */
    float *r;                                 /* (N/tp)          reciprocal norms of all streams */
    tensor y;                                 /* (N/tp, H)       the branch's result             */
} stream_acts;

/* Streams to which a branch's result is still to be merged; {0}: nothing, whoever is owed them has them. */
typedef struct stream_owed {
    tensor x, y, coef;                        /* (N/tp, nH), (N/tp, H), (N/tp, 2n + n^2) fp32 */
} stream_owed;

/* The gradient at streams on its way back: rows.part (N/tp, nH); where there is one stream its gather goes on beside
 * other work.  Of n > 1 it lacks, while a reading of the streams is due, what comes through that; of `due` dn, draw and
 * along are memory for all readings, one after another. */
typedef struct stream_gradient {
    tp_rows rows;
    bool is_due;
    hc_reading due;
} stream_gradient;

/* `name` is that of the norm's weight, `hc` that of the others without what follows the last dot. */
stream_weights stream_view(const flat_params *, const char *name, const char *hc);
void stream_begin(stream_weights *);          /* of a step: see block.h */
void stream_acts_plan(stream_acts *, const moai_ctx *, arena *saved);

/* -- forward -- */

/* x becomes what is owed, and then n (N/tp, H) = norm(x, or u), r (N/tp) the reciprocal norms.  Not collective. */
void stream_read(const moai_ctx *, tensor n, float *r, tensor x, const stream_weights *, stream_acts *, stream_owed);
/* n and r again, of x as it was left. */
void stream_read_again(const moai_ctx *, tensor n, float *r, tensor x, const stream_weights *, const stream_acts *);
/* y = x + branch W^T, the branch (N, in/tp).  A rank that holds all of W adds inside the product, to one stream;
 * otherwise the partial products of the tensor axis are summed first.  Of n > 1 streams y is owed.  Collective over
 * tp. */
stream_owed stream_add(const moai_ctx *, tensor y, tensor x, tensor branch, const linear *, const linear_acts *,
                       stream_acts *);
/* Both: h = x + branch W^T, of a branch that `from` belongs to, and n = norm(h), as the next one reads it. */
void stream_add_read(const moai_ctx *, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *,
                     const linear_acts *, stream_acts *from, const stream_weights *next, stream_acts *to);
/* x becomes what is owed, and nothing is any more. */
void stream_settle(const moai_ctx *, tensor x, stream_owed *);
/* Of n > 1 streams: y again, that of x and of the result of its branch, which has been kept.  Not collective. */
void stream_add_again(const moai_ctx *, tensor y, tensor x, const stream_acts *);

/* -- backward -- */

/* Of dx, with memory in scratch for the readings. */
stream_gradient stream_gradient_begin(const moai_ctx *, tensor dx);
/* Begins the gather again, after d->rows.part has changed. */
void stream_gradient_gather(const moai_ctx *, stream_gradient *d);
/* d->rows.part gains what is due. */
void stream_gradient_settle(const moai_ctx *, stream_gradient *d);
/* From the gradient at y to that at the branch's result (N, H), gathered, in scratch or in d; d becomes x's without
 * what goes through the branch, and nothing is due.  *dcoef, in scratch, is for stream_read_backward.  Collective over
 * tp. */
tensor stream_add_backward(const moai_ctx *, stream_gradient *d, tensor *dcoef, tensor x, const stream_acts *);
/* Where the gradient at a branch's n (N/tp, H) goes: scratch, or d's memory, when nothing is due any more. */
tensor stream_norm_gradient(const moai_ctx *, const stream_gradient *d);
/* d gains what goes through norm(x, or u), dn in stream_norm_gradient's memory; the weights' gradients += .  Of n > 1
 * streams it is due then: x, r, the weights and acts stay as they are until it is settled. */
void stream_read_backward(const moai_ctx *, stream_gradient *d, tensor dcoef, tensor dn, tensor x, const float *r,
                          stream_weights *, const stream_acts *);

/* -- the ends -- */

/* The ends of the model: each stream is the embedding's row, and the head reads their mean, or one that is made by
 * coefficients as a branch's is.  one (N/tp, H).  With one stream `all` is `one`, and nothing is done. */
tensor stream_one(const moai_ctx *, tensor all);                                /* scratch for it; or `all` itself  */
void stream_spread(const moai_ctx *, tensor all, tensor one);
/* From the gradient at all to that at one (N, H), gathered, in scratch or in d.  Collective over tp. */
tensor stream_spread_backward(const moai_ctx *, stream_gradient *d);

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
