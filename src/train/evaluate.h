/* evaluate.h: the loss of the model on text that it is not trained on. */
#ifndef MOAI_EVALUATE_H
#define MOAI_EVALUATE_H

#include "io/data/loader.h"
#include "src/model/model.h"
#include "src/train/plan.h"

/* Mean loss (nats per token) over the first samples of the split in order, the same ones on every layout:
 * eval_batches times a step's samples, 0: all.  `set` is read where feed_reads says.  Collective over all ranks, every
 * rank gets the loss and the number of tokens that count. */
double evaluation_loss(moai_model *, dataset *set, const run_config *, const batch_plan *, int64_t *n_tokens);

#endif
