/* gather.h: what the ranks of grid.data own, gathered to all. */
#ifndef GATHER_H
#define GATHER_H

#include "parallel/axes/zero.h"

/* flat (n_elem): weights, or gradients that are summed; one bucket after another.  Collective over data. */
static inline void flat_gather(const param_table *t, const moai_grid *g, void *flat, dtype dt)
{
    for (int b = 0; b < t->n_buckets; b++) {
        comm_request r = bucket_gather_begin(t, g, flat, dt, b);
        comm_end(&r);
    }
}

#endif
