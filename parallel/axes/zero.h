/* zero.h: data parallelism with sharded optimizer state (ZeRO-1, arXiv 1910.02054), and the few gradients that the
 * tensor and pipeline axes share.  Once a step, for each bucket as soon as the last backward is through it:
 *
 *     bucket_reduce_begin   sums what is replicated over tp, kv, embed; reduce-scatters over data, in place
 *     (norm, clip, AdamW on the own shares)
 *     bucket_gather_begin   all-gathers over data, beside the next forward
 *
 * grid.data is the data axis with the context axis in it: ranks of either have the same weights and other tokens. */
#ifndef MOAI_ZERO_H
#define MOAI_ZERO_H

#include "parallel/comm/grid.h"
#include "src/params/params.h"

/* grads: flat fp32 on the device.  After the end only bucket b's own range (params_own) holds the sums.  Collective
 * over tp, kv, embed, data: the ranks of a stage begin their buckets in one order. */
comm_request bucket_reduce_begin(const param_table *, const moai_grid *, float *grads, int b);
/* weights: flat; bucket b's own ranges are gathered to all.  Collective over data. */
comm_request bucket_gather_begin(const param_table *, const moai_grid *, void *weights, dtype, int b);

/* The part [begin, end) of the own range of bucket b (flat elements) whose squares this rank adds to the global norm:
 * each element of the model counts on exactly one rank.  May be empty. */
own_range params_counted(const param_table *, const moai_grid *, int b);

#endif
