/* data_order.h: which sample comes when: a pure function of (seed, count) and of the list of samples left out.
 *
 * A count is a place in the order, from 0 on: epoch = count / n_samples, sample = permute(count % n_samples), by a
 * permutation keyed by (seed, epoch).  A sample that is left out from count f on keeps its places, but from f on they
 * are passed over.  A run's position is therefore one number, and what lies before it does not change when the list
 * grows. */
#ifndef MOAI_DATA_ORDER_H
#define MOAI_DATA_ORDER_H

#include "src/base/base.h"

typedef struct left_out {
    int64_t sample, from;                     /* passed over at counts >= from */
} left_out;

typedef struct data_order {
    uint64_t seed;
    bool shuffle;                             /* false: sample = count % n_samples */
    int64_t n_samples;                        /* of an epoch, at least 1 */
    const left_out *left_out;                 /* the owner's; by rising sample, each once, fewer than n_samples */
    int64_t n_left_out;
} data_order;

int64_t order_sample(const data_order *, int64_t count);
/* The first count at or after this one that is not passed over. */
int64_t order_next(const data_order *, int64_t count);
/* The count behind n samples that begin at `count`: count + n when none is left out. */
int64_t order_after(const data_order *, int64_t count, int64_t n);
/* The n samples themselves, into `samples`; returns the count behind them. */
int64_t order_take(const data_order *, int64_t count, int64_t n, int64_t *samples);

#endif
