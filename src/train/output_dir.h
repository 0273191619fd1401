/* output_dir.h: the directory that a run writes to, before it writes anything. */
#ifndef MOAI_OUTPUT_DIR_H
#define MOAI_OUTPUT_DIR_H

#include "parallel/comm/comm.h"
#include "src/base/dir_lock.h"
#include "src/train/run_config.h"

/* Makes it, but for a checkpoint, what lies in one, and a Hugging Face model, and sees that every rank can write to the
 * same directory, and that no other job writes to it until job_unlock(*lock); *lock is NULL on the ranks after the
 * first.  -1 with the reason on every rank.  Collective over the world. */
int output_dir_open(const run_config *, const comm *world, job_lock **lock, moai_error *err);
/* A run that begins anew (step -1), or goes on from a checkpoint by name, finds no later checkpoints there:
 * save_total_limit would delete its own for them, and the next start go on from them.  Rank 0 looks; collective over
 * the world. */
int output_dir_check(const run_config *, int64_t step, const comm *world, moai_error *err);

#endif
