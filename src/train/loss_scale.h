/* loss_scale.h: dynamic loss scaling for fp16 (arXiv 1710.03740).
 *
 * fp16 ends at 65504 and counts nothing below 6e-8, where many gradients of activations lie.  The loss's gradient is
 * multiplied by a scale, and with it every gradient; the optimizer divides by it.  A step whose gradient norm is not
 * finite overflowed: it is skipped and the scale halved, never below min_loss_scale; after loss_scale_window steps
 * without that it doubles.  The norm is the same on all ranks, so the scale is. */
#ifndef MOAI_LOSS_SCALE_H
#define MOAI_LOSS_SCALE_H

#include "src/config/keys.h"

#include <jansson.h>

typedef struct loss_scale_options {
    double initial_loss_scale, min_loss_scale;
    int64_t loss_scale_window;                /* steps without overflow until the scale doubles */
} loss_scale_options;
extern const key_table loss_scale_keys;
int loss_scale_check(const loss_scale_options *, moai_error *err);     /* what no single key can see */

typedef struct loss_scale {
    double value;                             /* 1 where nothing is scaled */
    int64_t clean_steps;                      /* since it last changed */
} loss_scale;

/* initial_loss_scale; 1 where nothing is scaled: without fp16 */
loss_scale loss_scale_start(const loss_scale_options *, bool fp16);
/* After each step; changes nothing without fp16. */
void loss_scale_update(loss_scale *, const loss_scale_options *, bool fp16, bool overflowed);

json_t *loss_scale_json(const loss_scale *);          /* a new reference */
int loss_scale_read(loss_scale *, const json_t *, moai_error *err);

#endif
