/* model_run.h: the model as a stage of the pipe: all micro-batches of a step. */
#ifndef MOAI_MODEL_RUN_H
#define MOAI_MODEL_RUN_H

#include "parallel/pipeline/pipeline.h"
#include "src/model/model.h"

/* Fills the batch for a micro-batch; called before its forward where a chunk embeds or has the head, or everywhere
 * (model_options). */
typedef void (*model_feed)(void *arg, const moai_model *, int micro_batch, token_batch *);

/* Runs the list on this stage: gradients accumulate, token losses add up in totals[0] on the last stage; scale is the
 * factor of the loss's gradient (0 with a schedule without backwards).  Collective over tp and pp, and in the last
 * micro-batch over what the sums of its buckets are (buckets.h). */
void model_run(moai_model *, const pipe_schedule *, float scale, model_feed feed, void *arg);

#endif
