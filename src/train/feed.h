/* feed.h: micro-batches from the loader to the ranks that take ids. */
#ifndef MOAI_FEED_H
#define MOAI_FEED_H

#include "io/data/loader.h"
#include "parallel/comm/grid.h"
#include "src/model/batch.h"
#include "src/train/batch_plan.h"

/* Inputs go into the first stage and targets into the last; where documents are kept apart all stages ask who sees
 * whom.  The first rank of the tensor and context axes reads for all of them: they take the same samples. */
static inline bool feed_takes(const batch_options *o, const moai_grid *g)
{
    return batch_is_divided(o) || grid_first_stage(g) || grid_last_stage(g);
}
static inline bool feed_reads(const batch_options *o, const moai_grid *g)
{
    return feed_takes(o, g) && g->host_samples.rank == 0;
}

typedef struct feed {
    const batch_options *options;
    const moai_grid *grid;
    loader *loader;                           /* where feed_reads, else NULL */
    int64_t batch, seq_len, eos;              /* samples of a micro-batch; what ends a document */
    int32_t *ids;                             /* (batch, seq_len + 1), where feed_takes */
    uint8_t *marks;                           /* the same, where samples are packed */
    token_batch whole;                        /* whole samples, where there is a context axis to cut them for */
    double waited;                            /* seconds, added up */
} feed;

/* Takes the memory for a dataset's micro-batches; the loader, which it does not own, comes later. */
void feed_init(feed *, const batch_options *, const moai_grid *, const dataset *, int64_t batch, int64_t seq_len);
void feed_free(feed *);
/* The next micro-batch, of which `rows` are this rank's; samples from n_counted on are padding.  The rank that reads
 * gets the numbers of the `samples`, and the others the same tokens.  Collective over grid.host_samples of a stage that
 * takes ids; a rank that cannot read is broken (die). */
void feed_next(feed *, token_batch *rows, int64_t n_counted, int64_t *samples);

#endif
