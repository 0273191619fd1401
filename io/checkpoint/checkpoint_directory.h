/* checkpoint_directory.h: how a checkpoint gets its name. */
#ifndef MOAI_CHECKPOINT_DIRECTORY_H
#define MOAI_CHECKPOINT_DIRECTORY_H

#include "io/checkpoint/checkpoint.h"

/* The directory of a save, single-process parts.  save_begin removes what killed runs left and makes
 * output_dir/checkpoint-STEP.tmp; save_describe puts config.json and the other files there; save_commit gives it its
 * name, and a checkpoint that had it is checkpoint-STEP.old until save_prune removes it, or save_withdraw puts it
 * back in the place of a new one that turned out bad.  Prune keeps the `keep` newest (0: all). */
char *save_path(const char *output_dir, int64_t step, const char *suffix);
/* "checkpoint-120" and suffix "", or with ".tmp" or ".old" behind it, give the step, another name -1. */
int64_t checkpoint_step_of(const char *name, const char *suffix);
int save_begin(const char *output_dir, int64_t step, moai_error *err);
int save_describe(const char *output_dir, const checkpoint_meta *, const checkpoint_files *, moai_error *err);
int save_commit(const char *output_dir, int64_t step, moai_error *err);
void save_abandon(const char *output_dir, int64_t step);
void save_withdraw(const char *output_dir, int64_t step);
void save_prune(const char *output_dir, int64_t written, int keep);

#endif
