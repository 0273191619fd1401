/* context_parallel.h: the collectives of attention over the context axis.  Each sample of T tokens is 2 CP equal
 * chunks, of which rank r holds r and 2 CP - 1 - r, so that all attend to about as many keys (arXiv 2407.21783, 3.3.2);
 * K and V of all are gathered, of the KV heads alone, and brought into the samples' order: M = micro_batch T rows, where
 * a rank has N (ctx.h). */
#ifndef MOAI_CONTEXT_PARALLEL_H
#define MOAI_CONTEXT_PARALLEL_H

#include "src/params/ctx.h"

/* The chunk of each sample that is rank's first (half 0) or second. */
static inline int cp_chunk_of(int size, int rank, int half) { return half ? 2 * size - 1 - rank : rank; }

/* Where is row i of a rank's N in the M of whole samples?  -1: nowhere, it is padding. */
static inline int64_t cp_whole_row(const moai_ctx *c, int rank, int64_t i)
{
    const int size = c->grid->cp.size;
    const int64_t chunk = c->seq_len / (2 * size), sample = i / (2 * chunk),
                  row = sample * c->seq_len + cp_chunk_of(size, rank, (int)(i / chunk % 2)) * chunk + i % chunk;

    return row < c->n_keys ? row : -1;
}

/* The lists of rows (ctx.h) into their memory on the device; nothing on a context axis of one rank. */
void cp_rows_load(const moai_ctx *);

/* whole (M, 2K) = [k | v] of all ranks, in the samples' order; k, v (N, K) are this rank's.  Takes scratch and gives it
 * back.  Collective over cp. */
void cp_gather(const moai_ctx *, tensor whole, tensor k, tensor v);
/* dk, dv (N, K) = this rank's rows of the sum of all ranks' dwhole (M, 2K).  Each rank's part is rounded to its type
 * before it is sent, and so is the sum: two roundings of 16 bits where one rank alone has one.  Collective over cp. */
void cp_scatter(const moai_ctx *, tensor dk, tensor dv, tensor dwhole);

#endif
