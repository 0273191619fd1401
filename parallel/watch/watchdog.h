/* watchdog.h: a run that hangs says who is late, and ends.
 *
 * Every rank has a thread that looks at the rank's note (watch.h) and answers the other ranks' threads over UDP, which
 * needs neither MPI nor the main thread.  When a rank waits in one operation for longer than the timeout, the lowest
 * rank that answers asks all the others, prints one report and aborts the job:
 *
 *     moai: hang: rank 3 is late; 3 of 4 ranks wait, the longest for 600.2 s (hang_timeout 600)
 *       late   rank 3 tp1 cp0 pp0 dp1 host node7 pid 4242: does not answer, it is stopped or dead; last seen 600.4 s
 *              ago in step 12, forward of micro-batch 1; its last operation: all_gather 118 over tp of 1440 elements,
 *              ended
 *       waits  rank 2 tp0 cp0 pp0 dp1 host node7 pid 4241: for rank 3, 600.2 s in reduce_scatter 119 over tp of ...
 *
 * The records of a host's ranks are memory that they share, so what a stopped rank did last is told by a neighbour.
 * A rank that does not answer is late.  One that answers is when somebody waits for it and its own note is as old as
 * the timeout, but never while it starts, loads or saves, or is within watch_files: how long files take is not for us
 * to say.  While a process is stopped its own waiting does not count: a job that was suspended as a whole goes on. */
#ifndef MOAI_WATCHDOG_H
#define MOAI_WATCHDOG_H

#include "parallel/comm/grid.h"
#include "src/base/watch.h"

/* A device whose collectives run beside the host is asked by the thread: true and the note of the oldest that is not
 * complete, or false.  Its wait counts from when the host began it.  An asynchronous error of the transport fills
 * `error`: it is reported at once.  Whoever sets it keeps it callable until watchdog_stop. */
extern bool (*_Atomic watchdog_device)(watch_note *oldest, moai_error *error);

/* hang_timeout in seconds; 0: nobody watches, but the ranks know each other's hosts.  Collective over all ranks; -1 on
 * all when one has no thread or socket.  One at a time; nothing is started in a world of one. */
int watchdog_start(const moai_grid *, double hang_timeout, moai_error *err);
void watchdog_stop(void);                     /* collective over all ranks; may be called without a start */

#endif
