/* run_state.h: what a run remembers from step to step beside weights, moments and counters.  It is part of every
 * checkpoint, so that a resumed run decides as the uninterrupted one would have. */
#ifndef MOAI_RUN_STATE_H
#define MOAI_RUN_STATE_H

#include "src/train/left_out_list.h"
#include "src/train/loss_scale.h"
#include "src/train/skips.h"
#include "src/train/run_config.h"
#include "src/train/spike.h"

typedef struct run_state {
    loss_scale scale;
    spike_watch spikes;
    skip_row skips;
    left_out_list left_out;
} run_state;

run_state run_state_start(const run_config *);
void run_state_free(run_state *);
/* As at the first step, but for what is left out of the data, which stays. */
void run_state_reset(run_state *, const run_config *);
char *run_state_json(const run_state *, const run_config *);    /* for checkpoint_meta; caller frees */
/* What the text holds; a part that is missing (another run kept none) stays as it is, and what is left out is added.
 * `label` names the checkpoint in messages. */
int run_state_read(run_state *, const run_config *, const char *text, const char *label, moai_error *err);

#endif
