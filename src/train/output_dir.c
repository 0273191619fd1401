/* output_dir.c: see output_dir.h */
#include "src/train/output_dir.h"

#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/place.h"
#include "src/base/files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double patience = 5;             /* seconds: a run that was just ended may still be leaving */

/* The run's directory of a checkpoint's.  Caller frees. */
static char *parent_of(const char *checkpoint)
{
    size_t n = strlen(checkpoint);

    while (n > 1 && checkpoint[n - 1] == '/') n--;
    while (n > 0 && checkpoint[n - 1] != '/') n--;
    while (n > 1 && checkpoint[n - 1] == '/') n--;
    return n ? xasprintf("%.*s", (int)n, checkpoint) : xstrdup(".");
}

/* What may have been meant by a checkpoint or a model. */
static int check_place(const char *dir, moai_error *err)
{
    if (place_is_model(dir))
        return error_config(err,
                            "output_dir %s is a Hugging Face model: `moai_checkpoint import %s RUN` makes "
                            "RUN/checkpoint-0 of it, from which --output_dir RUN --resume_from_checkpoint auto goes on",
                            dir, dir);
    if (!place_is_checkpoint(dir)) return place_check("output_dir", dir, err);
    char *run = parent_of(dir);
    error_config(err, "output_dir %s is a checkpoint; to go on from it: --output_dir %s --resume_from_checkpoint %s",
                 dir, run, dir);
    free(run);
    return -1;
}

static int write_probe(const char *dir, const char *path, moai_error *err)
{
    FILE *f = fopen(path, "w");

    if (f && fclose(f) == 0) return 0;
    return error_set(err, "output_dir %s is not writable: %s", dir, strerror(errno));
}

static int make(const char *dir, const char *probe, moai_error *err)
{
    moai_error why;

    if (check_place(dir, err)) return -1;
    if (dir_make(dir, &why) != 0) return error_set(err, "output_dir %s is not writable: %s", dir, why.text);
    return write_probe(dir, probe, err);
}

/* A name that no host has looked up before, so none remembers that it is not there. */
static char *probe_path(const char *dir, const comm *world)
{
    struct timespec now;
    int64_t nonce[2];

    clock_gettime(CLOCK_REALTIME, &now);
    nonce[0] = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec, nonce[1] = getpid();
    comm_broadcast(world, nonce, sizeof nonce, DT_U8, 0);
    return xasprintf("%s/.probe-%llx-%llx", dir, (long long)nonce[0], (long long)nonce[1]);
}

/* On the ranks after the first: its file is there, and another can be written. */
static int look(const char *dir, const char *probe, int rank, moai_error *err)
{
    if (file_missing(dir) || file_missing(probe))
        return error_set(err,
                         "output_dir %s is not the directory that rank 0 sees: it must be on a file system that all "
                         "hosts share",
                         dir);
    char *own = xasprintf("%s-%d", probe, rank);
    const int failed = write_probe(dir, own, err);
    unlink(own);
    free(own);
    return failed;
}

int output_dir_open(const run_config *run, const comm *world, job_lock **lock, moai_error *err)
{
    char *probe = probe_path(run->output_dir, world);
    int failed = world->rank == 0 ? make(run->output_dir, probe, err) : 0;

    *lock = NULL;
    failed = comm_agree(world, failed, err);
    if (!failed) {
        if (world->rank != 0) failed = look(run->output_dir, probe, world->rank, err);
        failed = comm_agree(world, failed, err);
    }
    if (world->rank == 0) unlink(probe);
    free(probe);
    if (failed) return -1;
    if (world->rank == 0) failed = !(*lock = dir_lock(run->output_dir, "output_dir", patience, err));
    return comm_agree(world, failed, err);
}

static int refuse(const run_config *run, const char *later, moai_error *err)
{
    if (!run->resume_from_checkpoint[0])
        return error_config(err,
                            "output_dir %s holds %s of an earlier run: go on with --resume_from_checkpoint auto, "
                            "or name another directory",
                            run->output_dir, later);
    return error_config(err,
                        "output_dir %s holds %s, later than %s: move them away, name another directory, or go on "
                        "from the newest with --resume_from_checkpoint auto",
                        run->output_dir, later, run->resume_from_checkpoint);
}

int output_dir_check(const run_config *run, int64_t step, const comm *world, moai_error *err)
{
    char *later = NULL;
    int failed = world->rank == 0 ? checkpoint_later(run->output_dir, step, &later, err) : 0;

    if (!failed && later) failed = refuse(run, later, err);
    free(later);
    return comm_agree(world, failed, err);
}
