/* dir_lock.h: one job at a time where something is written. */
#ifndef MOAI_DIR_LOCK_H
#define MOAI_DIR_LOCK_H

#include "src/base/base.h"

/* Held by way of the kernel's lock on a file that tells host, process and job.  It ends with the process, however that
 * ends; a file that a killed process left stands in nobody's way. */
typedef struct job_lock job_lock;

/* Lock DIR/.lock and PATH.lock.  `name` is what the user calls the place ("output_dir", "--output").  Who finds it held
 * waits so many seconds for a process that is about to end; then NULL, naming the holder.
 *
 * Taken all the same, with a warning: on a file system that knows no locks (there a holder on this host is told by its
 * process), and where the holder is an earlier start of the same Slurm job on another host, which may be a node that
 * was lost. */
job_lock *dir_lock(const char *dir, const char *name, double patience, moai_error *err);
job_lock *file_lock(const char *path, const char *name, double patience, moai_error *err);
void job_unlock(job_lock *); /* the file goes; NULL: nothing */

/* A file that another may take the place of: its readers lock it as they open it, and whoever has replaced it can tell
 * from the old one, under another name, whether it is still read.  A file system without locks says no. */
void read_lock(int fd); /* until fd is closed */
bool is_read_locked(const char *path);

#endif
