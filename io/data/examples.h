/* examples.h: the documents of a split as examples to tune on, and the samples that they are packed into. */
#ifndef MOAI_EXAMPLES_H
#define MOAI_EXAMPLES_H

#include "io/data/loader.h"
#include "io/data/packing.h"
#include "io/data/shard_pool.h"

typedef struct examples {
    int64_t n;                                /* documents of the split */
    int64_t *begin;                           /* (n + 1) first token of each, in the split */
    int32_t *counted;                         /* (n) tokens of each that count */
    packing packing;
} examples;

/* Rank 0 reads what the shards say of their documents, for all; each packs them.  Collective over the world: -1 on
 * every rank, with the shard's path. */
int examples_read(examples *, const struct manifest_split *, bool is_marked, shard_pool *, const pack_plan *,
                  const comm *world, moai_error *err);
void examples_free(examples *);
sample_size examples_size(const examples *, int64_t sample, int64_t seq_len);

#endif
