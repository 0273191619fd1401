/* shard_pool.h: the shards of a split, of which few are open at a time.
 *
 * A shard is opened, and its header compared with the manifest, when it is first read.  Where more are in use than may
 * be open, the one not read for longest (the clock algorithm) sleeps until it is read again. */
#ifndef MOAI_SHARD_POOL_H
#define MOAI_SHARD_POOL_H

#include "io/data/shard.h"

typedef struct shard_pool shard_pool;

/* `list` and `info` are the caller's and outlive the pool.  `most` at least 1: open at a time, but for those that more
 * threads than that read at once. */
shard_pool *shard_pool_new(const manifest_shard *list, int n, const shard_info *info, int most);
/* Can shard i be opened, and is its header as the manifest says?  Thread-safe. */
int shard_pool_check(shard_pool *, int i, moai_error *err);
/* n tokens of shard i from `begin` on, and, unless NULL, their flags.  Thread-safe.  What fails is tried twice more, on
 * the file opened anew and from the disk: shard_pool_pause seconds later, and 5 times that; each with a warning. */
int shard_pool_read(shard_pool *, int i, int64_t begin, int64_t n, int32_t *ids, uint8_t *trained, moai_error *err);
/* In the same way all offsets of its documents (n_documents + 1), and, unless NULL, their counts (n_documents). */
int shard_pool_read_documents(shard_pool *, int i, uint64_t *offsets, uint64_t *counted, moai_error *err);
extern double shard_pool_pause;               /* 1; the tests' own */
void shard_pool_free(shard_pool *);

#endif
