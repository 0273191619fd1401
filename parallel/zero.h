/* zero.h: data parallelism with sharded optimizer state (ZeRO-1, arXiv 1910.02054), and the few gradients that the
 * tensor and pipeline axes share.  Once a step, after the last micro-batch's backward:
 *
 *     gradients_reduce      sums what is replicated over tp, kv, embed; reduce-scatters each bucket over dp, in place
 *     (norm, clip, AdamW on the own shares)
 *     weights_gather        all-gathers each bucket over dp */
#ifndef MOAI_ZERO_H
#define MOAI_ZERO_H

#include "grid.h"
#include "params.h"

/* grads: flat fp32 on the device.  Afterwards only the own ranges (params_own) hold the sums.
 * Collective over tp, kv, embed, dp. */
void gradients_reduce(const param_table *, const moai_grid *, float *grads);
/* weights: flat; the own ranges are gathered to all.  Collective over dp. */
void weights_gather(const param_table *, const moai_grid *, void *weights, dtype);

/* The part [begin, end) of the own range of bucket b (flat elements) whose squares this rank adds to the global norm:
 * each element of the model counts on exactly one rank.  May be empty. */
own_range params_counted(const param_table *, const moai_grid *, int b);

#endif
