/* dir_lock.h: one job at a time in a directory. */
#ifndef MOAI_DIR_LOCK_H
#define MOAI_DIR_LOCK_H

#include "base.h"

/* Locks DIR/.lock, which then tells host, process and job.  The kernel's lock ends with the process, however that ends;
 * the file stays.  Waits some seconds for a process that is about to end.  Returns a descriptor for dir_unlock, or -1
 * naming the holder.  A file system that knows no locks is warned about, and the directory taken all the same; so is a
 * lock of another host's start of the same Slurm job, which may be of a node that was lost. */
int dir_lock(const char *dir, moai_error *err);
void dir_unlock(int lock);                    /* -1: nothing */

#endif
