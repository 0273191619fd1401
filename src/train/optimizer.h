/* optimizer.h: the end of a step: gradients summed over the grid, global-norm clipping, AdamW on
 * the own shares, weights gathered. */
#ifndef MOAI_OPTIMIZER_H
#define MOAI_OPTIMIZER_H

#include "src/config/keys.h"
#include "src/model/model.h"

typedef struct adamw_options {
    double weight_decay, adam_beta1, adam_beta2, adam_epsilon, max_grad_norm;
} adamw_options;
extern const key_table adamw_keys;
int adamw_check(const adamw_options *, moai_error *err);

typedef struct step_result {
    double loss_sum;                          /* sum of the token losses of all ranks */
    double grad_norm;                         /* global, before clipping */
    bool skipped;                             /* the norm was not finite: nothing was changed */
} step_result;

/* A step's end in three parts, after the last backward, whose gradients are loss_scale times the loss's.  Each is
 * collective over all ranks.
 *   gradients_finish   gradients summed over the grid; totals[] the loss and the squared norm of all ranks
 *   optimizer_update   clipping, AdamW, gathers begun; nothing changes when the norm is not finite.  `update` counts
 *                      from 1
 *   step_totals        what totals[] say, the same on every rank; waits for the device */
void gradients_finish(moai_model *);
void optimizer_update(moai_model *, const adamw_options *, double lr, int64_t update, double loss_scale);
step_result step_totals(moai_model *, double loss_scale);
step_result optimizer_step(moai_model *, const adamw_options *, double lr, int64_t update, double loss_scale); /* all */

/* totals[] = their sums over all ranks; of the ranks that hold the same loss one counts.  Collective over all axes. */
void totals_reduce(moai_model *);

/* The working weights of all ranks from the masters, as after a load.  Collective over data. */
void weights_from_master(moai_model *);

#endif
