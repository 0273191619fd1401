/* straggler.h: ranks that take longer than their like over their own part of a step.
 *
 * A rank is busy for a step's time less what it waited in host collectives (watch.h).  Its like are the ranks of its
 * pipeline stage, whose parts are equal: one that is slower than their median by SLOW_SHARE in SLOW_STEPS logged steps
 * in a row is named, once for as long as that lasts, in a warning and the event `straggler`. */
#ifndef MOAI_STRAGGLER_H
#define MOAI_STRAGGLER_H

#include "io/metrics/metrics.h"
#include "parallel/comm/grid.h"

enum { SLOW_STEPS = 10 };
#define SLOW_SHARE 0.2

typedef struct stragglers {
    const moai_grid *grid;
    double *busy, *stage;                     /* (world) of the last step; room for one stage's */
    int *slow_for;                            /* (world): logged steps in a row */
} stragglers;

void stragglers_open(stragglers *, const moai_grid *);
/* This rank was busy for so long in `step`; `metrics` of the rank that has it, else NULL.  The watchdog knows the
 * ranks' names.  Collective over all ranks. */
step_spread stragglers_note(stragglers *, double busy, int64_t step, metrics *);
void stragglers_free(stragglers *);

#endif
