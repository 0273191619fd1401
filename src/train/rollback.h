/* rollback.h: what a run does about a step that spiked (spike.h) or whose gradient norm was not finite, decided from
 * numbers that are the same on all ranks.
 *
 *   skip       the step's update was left out, and that is all, until there are too many in a row (skips.h).  So it is
 *              for a norm that is not finite, whatever loss_spike_action says.
 *   rollback   the state of the last checkpoint is loaded again (of the very start, when there is none), and the step's
 *              samples are left out from there on (left_out_list.h). */
#ifndef MOAI_ROLLBACK_H
#define MOAI_ROLLBACK_H

#include "src/train/trainer.h"

/* After a step that ended with t->spike, or whose norm was not finite.  0: the run goes on; -1 on every rank when it
 * cannot, or when loss_spike_limit says that the samples are not to blame.  Collective over all ranks. */
int spike_answer(trainer *, moai_error *err);

#endif
