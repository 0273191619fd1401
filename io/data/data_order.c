/* data_order.c: see data_order.h */
#include "io/data/data_order.h"

#include "src/base/rng.h"

#include <stdio.h>

int64_t order_sample(const data_order *o, int64_t count)
{
    const int64_t epoch = count / o->n_samples, at = count % o->n_samples;
    char name[40];

    if (!o->shuffle) return at;
    snprintf(name, sizeof name, "shuffle of epoch %lld", (long long)epoch);
    return (int64_t)rng_permute(rng_key(o->seed, name), (uint64_t)o->n_samples, (uint64_t)at);
}

static bool passed_over(const data_order *o, int64_t count)
{
    if (o->n_left_out == 0) return false;
    const int64_t sample = order_sample(o, count);
    int64_t low = 0, high = o->n_left_out;

    while (low < high) {
        const int64_t middle = (low + high) / 2;
        if (o->left_out[middle].sample < sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low < o->n_left_out && o->left_out[low].sample == sample && o->left_out[low].from <= count;
}

int64_t order_next(const data_order *o, int64_t count)
{
    while (passed_over(o, count)) count++;
    return count;
}

int64_t order_after(const data_order *o, int64_t count, int64_t n)
{
    if (o->n_left_out == 0) return count + n;
    for (; n > 0; n--) count = order_next(o, count) + 1;
    return count;
}

int64_t order_take(const data_order *o, int64_t count, int64_t n, int64_t *samples)
{
    for (int64_t i = 0; i < n; i++) {
        count = order_next(o, count);
        samples[i] = order_sample(o, count++);
    }
    return count;
}
