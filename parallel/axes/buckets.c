/* buckets.c: see buckets.h */
#include "parallel/axes/buckets.h"

#include <stdlib.h>

void buckets_init(buckets *k, const param_table *t, const moai_grid *g, dtype dt)
{
    *k = (buckets){.params = t, .grid = g, .dt = dt, .of = xmalloc((size_t)t->n_buckets * sizeof *k->of)};
}

void buckets_free(buckets *k)
{
    for (int b = 0; k->of && b < k->params->n_buckets; b++) comm_end(&k->of[b].sum), comm_end(&k->of[b].gather);
    free(k->of);
    *k = (buckets){0};
}

static void expect(const buckets *k, int b, bool well, const char *call)
{
    static const char *const names[] = {"filling", "summing", "summed"};
    const bucket_life *l = &k->of[b];

    CHECK(well, "%s: bucket %s: its gradient is %s, its weights have %d readers%s", call, k->params->buckets[b].name,
          names[l->state], l->n_readers, l->is_updating ? " and are being updated" : "");
}

void buckets_begin(buckets *k)
{
    k->is_last = false;
    for (int b = 0; b < k->params->n_buckets; b++) {
        expect(k, b, k->of[b].state != GRADIENT_SUMMING, __func__);
        k->of[b].state = GRADIENT_FILLING;
    }
}

static void sum_begin(buckets *k, int b)
{
    k->of[b].sum = bucket_reduce_begin(k->params, k->grid, k->grads, b);
    k->of[b].state = GRADIENT_SUMMING;
}

void bucket_filled(buckets *k, int b)
{
    expect(k, b, k->of[b].state == GRADIENT_FILLING, __func__);
    if (!k->is_last || k->params->buckets[b].tied) return;
    if (b + 2 < k->params->n_buckets && k->of[b + 2].state == GRADIENT_SUMMING && !k->of[b + 2].sum.stream)
        bucket_summed(k, b + 2);
    sum_begin(k, b);
}

void buckets_end(buckets *k)
{
    for (int b = k->params->n_buckets - 1; b >= 0; b--)
        if (k->of[b].state == GRADIENT_FILLING) sum_begin(k, b);
}

void bucket_summed(buckets *k, int b)
{
    expect(k, b, k->of[b].state != GRADIENT_FILLING, __func__);
    comm_end(&k->of[b].sum);
    k->of[b].state = GRADIENT_SUMMED;
}

void bucket_acquire(buckets *k, int b)
{
    expect(k, b, !k->of[b].is_updating, __func__);
    comm_end(&k->of[b].gather);
    k->of[b].n_readers++;
}

void bucket_release(buckets *k, int b)
{
    expect(k, b, k->of[b].n_readers > 0, __func__);
    k->of[b].n_readers--;
}

void bucket_updating(buckets *k, int b)
{
    expect(k, b, k->of[b].n_readers == 0 && !k->of[b].is_updating, __func__);
    comm_end(&k->of[b].gather);               /* of the step before, if no forward has waited for it */
    k->of[b].is_updating = true;
}

void bucket_updated(buckets *k, int b)
{
    expect(k, b, k->of[b].is_updating, __func__);
    k->of[b].is_updating = false;
    k->of[b].gather = bucket_gather_begin(k->params, k->grid, k->weights, k->dt, b);
}
