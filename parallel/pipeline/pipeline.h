/* pipeline.h: the stages of the pipe.  Nothing here knows what a stage computes.
 *
 * A rank of the axis pp is a stage, and has one chunk of what is computed or several: chunk c of stage s is number
 * c * pp + s of all, so that with several each micro-batch goes round the stages so many times (arXiv 2104.04473).  A
 * schedule is data: the list of a stage's actions in one step.  pipeline_run executes any list in which the actions of
 * one kind and chunk are in micro-batch order, and those of neighbours fit. */
#ifndef MOAI_PIPELINE_H
#define MOAI_PIPELINE_H

#include "parallel/comm/comm.h"

/* PIPE_BACKWARD gives the gradient of the chunk's input, PIPE_WEIGHTS those of its weights, later (zero bubble, arXiv
 * 2401.10241): it sends nothing.  A list without PIPE_WEIGHTS wants both of PIPE_BACKWARD. */
typedef enum { PIPE_FORWARD, PIPE_BACKWARD, PIPE_WEIGHTS } pipe_kind;
typedef struct pipe_action {
    pipe_kind kind;
    int chunk, micro_batch;
    int slot;                           /* which of the memories that a chunk has for micro-batches in flight */
} pipe_action;

typedef struct pipe_schedule {
    pipe_action *list;
    int n;
    int n_chunks, n_micro, n_slots;     /* of a stage; of a step; of those a chunk holds at once */
} pipe_schedule;

/* 1F1B (PipeDream-Flush, arXiv 2006.09503): warm-up forwards, then one forward and one backward in turn, then the
 * last backwards.  Stage s of pp holds at most pp - s micro-batches.  The caller frees with schedule_free. */
pipe_schedule schedule_1f1b(int pp, int stage, int n_micro);
pipe_schedule schedule_forward(int n_micro);  /* evaluation: forwards only */
void schedule_free(pipe_schedule *);

/* What a stage does for the pipe.  The buffers behind output and gradient are the stage's, as many as it likes: before
 * one is written again, pipeline_run waits until what was sent from it has gone. */
typedef struct pipe_stage {
    void *of;                           /* the first argument of all */
    void (*begin)(void *of, pipe_action);     /* before anything of the action is received: its data is read */
    /* PIPE_FORWARD: from `input` to `output`; of the last chunk, where a backward follows, output is the gradient that
     * it begins with.  PIPE_BACKWARD: `gradient`, that at the output, becomes the one at the input. */
    void (*run)(void *of, pipe_action);
    tensor (*input)(void *of, pipe_action);   /* what the chunk before sends; with pp 1, that chunk's output itself */
    tensor (*output)(void *of, pipe_action);
    tensor (*gradient)(void *of, pipe_action);        /* with pp 1, that of the chunk behind, as its backward left it */
} pipe_stage;

/* Runs the list on this rank, stage pp->rank of pp->size.  Collective over pp, and over what `run` is. */
void pipeline_run(const comm *pp, const pipe_schedule *, const pipe_stage *);

#endif
