/* zero.c: see zero.h
 *
 * The order of axes in a sum: first kv, tp and embed, over the ranges that are copies there, then data.
 *   - After the reduce-scatter a rank holds the sum of its share of the bucket alone; shares are cut at elements of the
 *     bucket, not of a range.  Where the tensor axis does not divide a matrix evenly its ranks' ranges of KV
 *     rows and norms begin at different elements, so that a share of one rank is not the share of its neighbour: these
 *     sums need the whole range, hence come before it is scattered.
 *   - The ranges of kv and tp do not overlap, and a tied embedding has neither.  Which comes first changes no bit, but
 *     all ranks must take them in one order, since each waits for its peers.
 *   - Those of kv and tp are small, and a tied embedding is one bucket, whose sum begins last: they are waited for
 *     here, while the scatter over data is left under way. */
#include "parallel/axes/zero.h"

static void sum_range(const comm *c, float *grads, int64_t begin, int64_t end)
{
    if (c->size == 1 || begin == end) return;
    comm_request r = all_reduce_begin(c, grads + begin, (size_t)(end - begin), DT_F32, REDUCE_SUM);
    comm_end(&r);
}

comm_request bucket_reduce_begin(const param_table *t, const moai_grid *g, float *grads, int b)
{
    const bucket *k = &t->buckets[b];
    const int64_t share = k->n_padded / g->data.size;
    float *whole = grads + k->offset;

    sum_range(&g->kv, grads, k->offset + k->n_unique, k->offset + k->n_kv);
    sum_range(&g->tp, grads, k->offset + k->n_kv, k->offset + k->n);
    if (k->tied) sum_range(&g->embed, grads, k->offset, k->offset + k->n);
    if (g->data.size == 1 || share == 0) return (comm_request){0};
    return reduce_scatter_begin(&g->data, whole + g->data.rank * share, whole, (size_t)share, DT_F32);
}

comm_request bucket_gather_begin(const param_table *t, const moai_grid *g, void *weights, dtype dt, int b)
{
    const tensor flat = tensor_of(weights, dt, 1, t->n_elem);
    const own_range r = params_own(t, b, g->data.size, g->data.rank);

    if (g->data.size == 1 || r.end == r.begin) return (comm_request){0};
    return all_gather_begin(&g->data, tensor_at(flat, 0, t->buckets[b].offset), tensor_at(flat, 0, r.begin),
                            (size_t)(r.end - r.begin), dt);
}

own_range params_counted(const param_table *t, const moai_grid *g, int b)
{
    const bucket *k = &t->buckets[b];
    own_range r = params_own(t, b, g->data.size, g->data.rank);
    int64_t end = k->n_unique; /* what other ranks hold as well counts on the first of them */

    if (g->kv.rank == 0) end = k->n_kv;
    if (g->tp.rank == 0) end = k->n;
    if (k->tied_copy) end = 0;
    r.end = max_i64(r.begin, min_i64(r.end, k->offset + end));
    return r;
}
