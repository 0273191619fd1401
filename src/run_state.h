/* run_state.h: what a run remembers from step to step beside weights, moments and counters.  It is part of every
 * checkpoint, so that a resumed run decides as the uninterrupted one would have. */
#ifndef MOAI_RUN_STATE_H
#define MOAI_RUN_STATE_H

#include "loss_scale.h"

typedef struct run_state {
    loss_scale scale;
} run_state;

run_state run_state_start(const run_config *);
char *run_state_json(const run_state *, const run_config *);    /* for checkpoint_meta; caller frees */
/* What the text holds; a part that is missing (another run kept none) stays as run_state_start made it.  `label` names
 * the checkpoint in messages. */
int run_state_read(run_state *, const run_config *, const char *text, const char *label, moai_error *err);

#endif
