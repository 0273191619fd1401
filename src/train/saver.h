/* saver.h: checkpoints while training goes on.
 *
 * With `async` a save copies this rank's state into host memory that was taken at the start (pinned, on a GPU), and a
 * thread writes it, reads it back and removes old checkpoints, one save at a time.  The thread needs no MPI: the ranks
 * tell each other how far they are with two numbers in the reduction at every step's end, and take the steps that are
 * collective there.  Without `async` training waits for the whole save.
 *
 * A save that fails for want of a disk is no reason to stop: it is a warning and the event `save_failed`, the run goes
 * on and the checkpoints from before are whole.  It is tried again 10 steps later; after the third failure in a row a
 * warning and the event `not_saved` say since when nothing is saved. */
#ifndef MOAI_SAVER_H
#define MOAI_SAVER_H

#include "io/checkpoint/checkpoint.h"
#include "io/metrics/metrics.h"

typedef struct saver_options {
    const char *output_dir;
    const checkpoint_files *files;            /* rank 0's; the caller's, as long as the saver */
    checkpoint_state state;                   /* of the device */
    bool async;
    int keep;                                 /* save_total_limit */
    metrics *metrics;                         /* of the rank that has it, else NULL */
    int64_t saved_step;                       /* the checkpoint of this step is there already; -1: none */
} saver_options;

typedef struct saver saver;

/* NULL, on every rank, when the memory is not there.  Collective over the world. */
saver *saver_open(const saver_options *, moai_error *err);
/* Starts a save of the state as it is now; waits first for one under way.  The state may change once it returns.
 * Nothing when this step is saved already.  `prune`: older checkpoints than save_total_limit go when it is in place.
 * Collective over the world. */
void saver_save(saver *, const checkpoint_meta *, bool prune);
/* Every rank at every step's end: what goes into an all-reduce (maximum), and what is done about its result. */
enum { SAVER_PROGRESS = 2 };
void saver_progress(saver *, int32_t progress[SAVER_PROGRESS]);
void saver_advance(saver *, const int32_t progress[SAVER_PROGRESS]); /* collective when there is something to do */
/* The last save failed, and this step is one to try again at: the caller saves.  The same on every rank. */
bool saver_retries(const saver *, int64_t step);
/* Waits until nothing is under way.  Collective over the world. */
void saver_wait(saver *);
/* A weight or moment was found not to be finite when it was to be saved: the run must end, since no checkpoint will be
 * good any more.  The same on every rank. */
bool saver_spoiled(const saver *);
/* The step of the newest checkpoint that this run has in place, -1: none; the same on every rank. */
int64_t saver_saved_step(const saver *);
/* May be NULL.  Of a save under way the thread ends the phase that it is in; unless that is the removal of older ones,
 * nothing of it is left then. */
void saver_close(saver *);

#endif
