/* loss_scale.h: dynamic loss scaling for fp16 (arXiv 1710.03740).
 *
 * fp16 ends at 65504 and counts nothing below 6e-8, where many gradients of activations lie.  The loss's gradient is
 * multiplied by a scale, and with it every gradient; the optimizer divides by it.  A step whose gradient norm is not
 * finite overflowed: it is skipped and the scale halved, never below min_loss_scale; after loss_scale_window steps
 * without that it doubles.  The norm is the same on all ranks, so the scale is. */
#ifndef MOAI_LOSS_SCALE_H
#define MOAI_LOSS_SCALE_H

#include "src/train/run_config.h"

#include <jansson.h>

typedef struct loss_scale {
    double value;                             /* 1 where nothing is scaled */
    int64_t clean_steps;                      /* since it last changed */
} loss_scale;

loss_scale loss_scale_start(const run_config *);      /* initial_loss_scale; 1 without fp16 */
/* After each step; changes nothing without fp16. */
void loss_scale_update(loss_scale *, const run_config *, bool overflowed);

json_t *loss_scale_json(const loss_scale *);          /* a new reference */
int loss_scale_read(loss_scale *, const json_t *, moai_error *err);

#endif
