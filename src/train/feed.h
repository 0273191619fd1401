/* feed.h: micro-batches from the loader to the ranks that take ids. */
#ifndef MOAI_FEED_H
#define MOAI_FEED_H

#include "io/data/loader.h"
#include "parallel/comm/grid.h"
#include "src/train/batch_plan.h"

/* Inputs go into the first stage and targets into the last; where documents are kept apart all stages ask who sees
 * whom.  The tensor axis's first rank reads for all of it. */
static inline bool feed_takes(const batch_options *o, const moai_grid *g)
{
    return o->document_mask || grid_first_stage(g) || grid_last_stage(g);
}
static inline bool feed_reads(const batch_options *o, const moai_grid *g) { return feed_takes(o, g) && g->at.tp == 0; }

/* The next micro-batch as in loader_next: the rank of the tensor axis that reads has a loader and gets `samples`, the
 * others have none (NULL) and get the same n_ids ids.  Collective over the tensor axis of a stage that takes ids; a
 * rank that cannot read is broken (die). */
void feed_next(loader *, const moai_grid *, int32_t *ids, int64_t n_ids, int64_t *samples, double *waited);

#endif
