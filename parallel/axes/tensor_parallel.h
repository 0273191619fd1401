/* tensor_parallel.h: the collectives of a layer over the tensor axis (Megatron-LM, arXiv 1909.08053; sequence
 * parallelism, arXiv 2205.05198).  Between the products a rank holds n_rows = N/tp rows of all features; inside
 * attention and MLP it holds all N rows of its heads and columns.  Where rows are too few to be split (decoding), a
 * rank holds all of them everywhere: n_rows = N, nothing is gathered and sums are all-reduced.  All are collective over
 * tp. */
#ifndef MOAI_TENSOR_PARALLEL_H
#define MOAI_TENSOR_PARALLEL_H

#include "src/params/ctx.h"

static inline bool tp_splits_rows(const moai_ctx *c) { return c->n_rows != c->n_tokens; }

/* full (N, H) = the rows of all ranks; part (N/tp, H).  Where rows are not split, full and part are the same memory. */
static inline comm_request tp_all_gather_begin(const moai_ctx *c, tensor full, tensor part)
{
    if (!tp_splits_rows(c)) return (comm_request){0};
    return all_gather_begin(&c->grid->tp, full.data, part.data, (size_t)tensor_n_elem(part), part.dt);
}
/* part (N/tp, H) = this rank's rows of the sum of all ranks' full (N, H) */
static inline comm_request tp_reduce_scatter_begin(const moai_ctx *c, tensor part, tensor full)
{
    return reduce_scatter_begin(&c->grid->tp, part.data, full.data, (size_t)tensor_n_elem(part), part.dt);
}
static inline void tp_all_gather(const moai_ctx *c, tensor full, tensor part)
{
    comm_request r = tp_all_gather_begin(c, full, part);
    comm_end(&r);
}
static inline void tp_reduce_scatter(const moai_ctx *c, tensor part, tensor full)
{
    comm_request r = tp_reduce_scatter_begin(c, part, full);
    comm_end(&r);
}
/* Rows of all ranks, whose gather may be under way: `full` is read after comm_end(&ready). */
typedef struct tp_rows {
    tensor part, full;                        /* (N/tp, H), (N, H) */
    comm_request ready;
} tp_rows;

static inline void tp_rows_gather(const moai_ctx *c, tp_rows *x)
{
    x->ready = tp_all_gather_begin(c, x->full, x->part);
}
/* Every rank's `full` becomes the sum of all. */
static inline void tp_all_reduce(const moai_ctx *c, tensor full)
{
    comm_request r = all_reduce_begin(&c->grid->tp, full.data, (size_t)tensor_n_elem(full), full.dt, REDUCE_SUM);
    comm_end(&r);
}
/* Scratch for the full counterpart of `part`: part itself where rows are not split, so that nothing is copied. */
static inline tensor tp_full(const moai_ctx *c, tensor part)
{
    return tp_splits_rows(c) ? arena_tensor(c->scratch, part.dt, c->n_tokens, part.cols) : part;
}

#endif
