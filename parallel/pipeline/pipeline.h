/* pipeline.h: the stages of the pipe.  A schedule is data: the list of forwards and backwards of one stage in one
 * step; pipeline_run executes any list whose forwards and backwards are each in micro-batch order. */
#ifndef MOAI_PIPELINE_H
#define MOAI_PIPELINE_H

#include "src/model/model.h"

typedef enum { PIPE_FORWARD, PIPE_BACKWARD } pipe_kind;
typedef struct pipe_action {
    pipe_kind kind;
    int micro_batch;
} pipe_action;

typedef struct pipe_schedule {
    pipe_action *list;
    int n;
    int n_micro, n_slots;               /* of a step; of those a stage holds at once (slot = micro_batch % n_slots) */
} pipe_schedule;

/* 1F1B (PipeDream-Flush, arXiv 2006.09503): warm-up forwards, then one forward and one backward in turn, then the
 * last backwards.  Stage s of pp holds at most pp - s micro-batches.  The caller frees with schedule_free. */
pipe_schedule schedule_1f1b(int pp, int stage, int n_micro);
pipe_schedule schedule_forward(int n_micro);  /* evaluation: forwards only */
void schedule_free(pipe_schedule *);

/* Fills slot's ids for a micro-batch; called before its forward on the first and last stages only. */
typedef void (*pipe_feed)(void *arg, moai_model *, int micro_batch, int slot);

/* Runs the list on this stage: gradients accumulate, token losses add up in totals[0] on the last stage; scale is the
 * factor of the loss's gradient (0 with a schedule without backwards).  Collective over tp and pp. */
void pipeline_run(moai_model *, const pipe_schedule *, float scale, pipe_feed feed, void *arg);

#endif
