/* zero.c: see zero.h */
#include "zero.h"

static void sum_range(const comm *c, float *grads, int64_t begin, int64_t end)
{
    if (c->size == 1 || begin == end) return;
    comm_request r = all_reduce_begin(c, grads + begin, (size_t)(end - begin), DT_F32, REDUCE_SUM);
    comm_end(&r);
}

void gradients_reduce(const param_table *t, const moai_grid *g, float *grads)
{
    for (int b = 0; b < t->n_buckets; b++) {
        const bucket *k = &t->buckets[b];
        sum_range(&g->kv, grads, k->offset + k->n_unique, k->offset + k->n_matrix);
        sum_range(&g->tp, grads, k->offset + k->n_matrix, k->offset + k->n);
        if (k->tied) sum_range(&g->embed, grads, k->offset, k->offset + k->n);
        if (g->dp.size > 1) {
            const int64_t share = k->n_padded / g->dp.size;
            float *whole = grads + k->offset;
            comm_request r = reduce_scatter_begin(&g->dp, whole + g->dp.rank * share, whole, (size_t)share, DT_F32);
            comm_end(&r);
        }
    }
}

void weights_gather(const param_table *t, const moai_grid *g, void *weights, dtype dt)
{
    const tensor flat = tensor_of(weights, dt, 1, t->n_elem);

    for (int b = 0; b < t->n_buckets && g->dp.size > 1; b++) {
        const own_range r = params_own(t, b, g->dp.size, g->dp.rank);
        comm_request q = all_gather_begin(&g->dp, tensor_at(flat, 0, t->buckets[b].offset), tensor_at(flat, 0, r.begin),
                                          (size_t)(r.end - r.begin), dt);
        comm_end(&q);
    }
}

own_range params_counted(const param_table *t, const moai_grid *g, int b)
{
    const bucket *k = &t->buckets[b];
    own_range r = params_own(t, b, g->dp.size, g->dp.rank);
    int64_t end = k->n_unique; /* what other ranks hold as well counts on the first of them */

    if (g->kv.rank == 0) end = k->n_matrix;
    if (g->tp.rank == 0) end = k->n;
    if (k->tied_copy) end = 0;
    r.end = max_i64(r.begin, min_i64(r.end, k->offset + end));
    return r;
}
