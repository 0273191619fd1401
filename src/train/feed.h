/* feed.h: micro-batches from the loader to the ranks that take ids. */
#ifndef MOAI_FEED_H
#define MOAI_FEED_H

#include "io/data/loader.h"
#include "parallel/comm/grid.h"

/* The next micro-batch as in loader_next: the rank of the tensor axis that reads has a loader and gets `samples`, the
 * others have none (NULL) and get the same n_ids ids.  Collective over the tensor axis of a stage that takes ids; a
 * rank that cannot read is broken (die). */
void feed_next(loader *, const moai_grid *, int32_t *ids, int64_t n_ids, int64_t *samples, double *waited);

#endif
