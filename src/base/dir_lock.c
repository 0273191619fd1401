/* dir_lock.c: see dir_lock.h
 *
 * The lock is the kernel's, on an open file: it ends with the process whatever ends that, so nothing has to be cleaned
 * up and no pid is believed that may be another's by now.  It belongs to the open file (F_OFD_SETLK), not to the
 * process: closing another descriptor of the same file, as a library may, would end a lock of the older kind.
 *
 * The holder removes the file while it holds the lock.  Between a second process's open and its lock the file may thus
 * have lost its name, and a third may have made a new one under it: both would hold a lock.  So whoever gets a lock
 * looks whether the name still stands for the file that it locked, and else opens the name anew: two never hold two
 * files of one name. */
#include "src/base/dir_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TEXT_BYTES = 256 };

struct job_lock {
    char *path;
    int fd;
    bool held;             /* by the kernel's lock */
    char text[TEXT_BYTES]; /* what the file says of this process */
};

static const char *job_variable(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && value[0] ? value : otherwise;
}

static const char *own_job(void) { return job_variable("SLURM_JOB_ID", "-"); }
static int own_start(void) { return atoi(job_variable("SLURM_RESTART_COUNT", "0")); }

static void own_host(char host[64])
{
    if (gethostname(host, 63) != 0) strcpy(host, "?");
    host[63] = '\0';
}

/* 0, or why not. */
static int try_lock(int fd, short type)
{
    /* of the open file, not of the process: another descriptor of the same file does not end it when closed */
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

static bool is_held(int reason) { return reason == EAGAIN || reason == EACCES; }

/* Does the name still stand for the open file?  Opened again, since a network file system then looks anew. */
static bool has_name(int fd, const char *path)
{
    struct stat ours, named;
    const int again = open(path, O_RDONLY | O_CLOEXEC);
    const bool same = again >= 0 && fstat(fd, &ours) == 0 && fstat(again, &named) == 0 && ours.st_dev == named.st_dev &&
                      ours.st_ino == named.st_ino;

    if (again >= 0) close(again);
    return same;
}

/* A file that another user's killed process left cannot be opened for writing, but removed where nobody holds it. */
static void remove_foreign(const char *path)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) return;
    if (try_lock(fd, F_RDLCK) == 0 && has_name(fd, path)) unlink(path);
    close(fd);
}

static int open_file(const char *path)
{
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

    if (fd >= 0 || errno != EACCES) return fd;
    remove_foreign(path);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
}

/* Who is inside is told by a text: a network file system does not pass on who holds a lock. */
static void write_holder(job_lock *l)
{
    char host[64], start[24] = "";

    own_host(host);
    if (strcmp(own_job(), "-") != 0) snprintf(start, sizeof start, " start %d", own_start());
    const int n =
        snprintf(l->text, sizeof l->text, "host %s pid %d job %.64s%s\n", host, (int)getpid(), own_job(), start);
    if (ftruncate(l->fd, 0) != 0 || pwrite(l->fd, l->text, (size_t)n, 0) != n)
        warn("%s: cannot write who holds the lock: %s", l->path, strerror(errno));
}

static void read_holder(int fd, char text[TEXT_BYTES])
{
    const ssize_t n = pread(fd, text, TEXT_BYTES - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (!text[0]) strcpy(text, "unknown");
}

/* An earlier start of this job on another host: it has ended, or Slurm would not have started this one. */
static bool is_own_past(const char *holder)
{
    char host[64], own[64], job[65];
    int start = -1;

    own_host(own);
    return sscanf(holder, "host %63s pid %*d job %64s start %d", host, job, &start) >= 2 && start < own_start() &&
           strcmp(own_job(), "-") != 0 && strcmp(job, own_job()) == 0 && strcmp(host, own) != 0;
}

/* One of these programs on this host, alive. */
static bool lives_here(const char *holder)
{
    char host[64], own[64], path[64], name[16] = "";
    int pid;

    own_host(own);
    if (sscanf(holder, "host %63s pid %d", host, &pid) != 2 || strcmp(host, own) != 0 || pid == getpid()) return false;
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    FILE *f = fopen(path, "r");
    const bool found = f && fgets(name, sizeof name, f) && strncmp(name, "moai_", 5) == 0;
    if (f) fclose(f);
    return found;
}

static int refuse(const job_lock *l, const char *name, const char *place, const char *holder, moai_error *err)
{
    return error_set(err,
                     "%s %s: another job is writing there (%s).  If its node was lost and holds the lock still, "
                     "remove %s",
                     name, place, holder, l->path);
}

/* The lock was not to be had for `reason`: may this process go on without? */
static int without_lock(const job_lock *l, const char *name, const char *place, int reason, moai_error *err)
{
    char holder[TEXT_BYTES];

    usleep(20000); /* who has just taken it first writes that */
    read_holder(l->fd, holder);
    if (is_held(reason) ? !is_own_past(holder) : lives_here(holder)) return refuse(l, name, place, holder, err);
    if (is_held(reason))
        warn("%s %s is still locked by an earlier start of this job (%s)", name, place, holder);
    else
        warn("%s %s: its file system knows no locks (%s): nothing keeps a second job out", name, place,
             strerror(reason));
    return 0;
}

/* Opens and locks the file of that name; 0, or why it has no lock.  fd < 0: it does not open, for errno. */
static int take(job_lock *l, double until)
{
    for (;;) {
        l->fd = open_file(l->path);
        if (l->fd < 0) return 0;
        const int reason = try_lock(l->fd, F_WRLCK);
        const bool is_gone = reason == ESTALE || (reason == 0 && !has_name(l->fd, l->path));
        l->held = reason == 0;
        if (!is_gone && (!is_held(reason) || now_seconds() >= until)) return reason;
        close(l->fd);
        if (!is_gone) usleep(100000);
    }
}

static void lock_free(job_lock *l)
{
    if (l->fd >= 0) close(l->fd);
    free(l->path);
    free(l);
}

/* Takes lock_path. */
static job_lock *lock(char *lock_path, const char *name, const char *place, double patience, moai_error *err)
{
    job_lock *l = xmalloc(sizeof *l);

    *l = (job_lock){.path = lock_path};
    const int reason = take(l, now_seconds() + patience);
    int failed = 0;
    if (l->fd < 0)
        failed = error_set(err, "%s %s: %s: %s", name, place, l->path, strerror(errno));
    else if (!l->held)
        failed = without_lock(l, name, place, reason, err);
    if (failed) {
        lock_free(l);
        return NULL;
    }
    write_holder(l);
    return l;
}

job_lock *dir_lock(const char *dir, const char *name, double patience, moai_error *err)
{
    return lock(xasprintf("%s/.lock", dir), name, dir, patience, err);
}

job_lock *file_lock(const char *path, const char *name, double patience, moai_error *err)
{
    return lock(xasprintf("%s.lock", path), name, path, patience, err);
}

/* Without the kernel's lock the file may be another's by now: its text tells. */
static bool is_own(const job_lock *l)
{
    char text[TEXT_BYTES] = "";

    return has_name(l->fd, l->path) &&
           (l->held || (pread(l->fd, text, TEXT_BYTES - 1, 0) > 0 && strcmp(text, l->text) == 0));
}

void read_lock(int fd) { try_lock(fd, F_RDLCK); }

bool is_read_locked(const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const bool locked = fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;

    if (fd >= 0) close(fd);
    return locked;
}

void job_unlock(job_lock *l)
{
    if (!l) return;
    if (is_own(l)) unlink(l->path);
    lock_free(l);
}
