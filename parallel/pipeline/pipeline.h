/* pipeline.h: the stages of the pipe.  Nothing here knows what a stage computes.
 *
 * A schedule is data: the list of a stage's forwards and backwards in one step.  pipeline_run executes any list whose
 * forwards and backwards are each in micro-batch order. */
#ifndef MOAI_PIPELINE_H
#define MOAI_PIPELINE_H

#include "parallel/comm/comm.h"

typedef enum { PIPE_FORWARD, PIPE_BACKWARD } pipe_kind;
typedef struct pipe_action {
    pipe_kind kind;
    int micro_batch, slot;              /* slot: which of the memories that a stage has for micro-batches in flight */
} pipe_action;

typedef struct pipe_schedule {
    pipe_action *list;
    int n;
    int n_micro, n_slots;               /* of a step; of those a stage holds at once */
} pipe_schedule;

/* 1F1B (PipeDream-Flush, arXiv 2006.09503): warm-up forwards, then one forward and one backward in turn, then the
 * last backwards.  Stage s of pp holds at most pp - s micro-batches.  The caller frees with schedule_free. */
pipe_schedule schedule_1f1b(int pp, int stage, int n_micro);
pipe_schedule schedule_forward(int n_micro);  /* evaluation: forwards only */
void schedule_free(pipe_schedule *);

/* What a stage does for the pipe.  output and gradient are two buffers each, by the parity of micro_batch: one may be
 * on its way to a neighbour while the next micro-batch writes the other, and with one action under way at a time a
 * third is never needed. */
typedef struct pipe_stage {
    void *of;                           /* the first argument of all */
    void (*begin)(void *of, pipe_action);     /* before anything of the action is received: its data is read */
    /* PIPE_FORWARD: from `input` to `output`, and on the last stage on to the gradient there, where a backward follows.
     * PIPE_BACKWARD: `gradient`, that at the output, becomes the one at the input. */
    void (*run)(void *of, pipe_action);
    tensor (*input)(void *of, pipe_action);   /* (N/tp, H) what the stage before sends */
    tensor (*output)(void *of, pipe_action);
    tensor (*gradient)(void *of, pipe_action);
} pipe_stage;

/* Runs the list on this rank, stage pp->rank of pp->size.  Collective over pp, and over what `run` is. */
void pipeline_run(const comm *pp, const pipe_schedule *, const pipe_stage *);

#endif
