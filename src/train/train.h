/* train.h: the training run: data, model, optimizer, evaluation, checkpoints and signals put together. */
#ifndef MOAI_TRAIN_H
#define MOAI_TRAIN_H

#include "parallel/comm/grid.h"
#include "src/config/model_config.h"
#include "src/train/plan.h"
#include "src/train/run_config.h"

/* Runs to max_steps, stop_at_step or a signal (signals.h), whichever is first.  The configuration has passed every
 * check that needs no data.  Collective over all ranks.  Returns the exit status, the same on all ranks. */
int train_run(const run_config *, const model_config *, grid_shape size, const batch_plan *);

#endif
