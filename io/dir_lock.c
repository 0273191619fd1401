/* dir_lock.c: see dir_lock.h */
#include "dir_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEXT_BYTES = 256 };

static const double patience = 5;             /* seconds */

static const char *own_job(void)
{
    const char *job = getenv("SLURM_JOB_ID");
    return job && job[0] ? job : "-";
}

static void own_host(char host[64])
{
    if (gethostname(host, 63) != 0) strcpy(host, "?");
    host[63] = '\0';
}

/* 0, or why not. */
static int try_lock(int fd)
{
    /* of the open file, not of the process: another descriptor of the same file does not end it when closed */
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno;
}

static bool is_held(int reason) { return reason == EAGAIN || reason == EACCES; }

/* Who is inside is told by a text: a network file system does not pass on who holds a lock. */
static void write_holder(int fd)
{
    char text[TEXT_BYTES], host[64];

    own_host(host);
    const int n = snprintf(text, sizeof text, "host %s pid %d job %.64s\n", host, (int)getpid(), own_job());
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) warn("cannot write who holds the lock");
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

    own_host(own);
    return sscanf(holder, "host %63s pid %*d job %64s", host, job) == 2 && strcmp(own_job(), "-") != 0 &&
           strcmp(job, own_job()) == 0 && strcmp(host, own) != 0;
}

static int check_holder(int fd, const char *dir, const char *path, moai_error *err)
{
    char holder[TEXT_BYTES];

    read_holder(fd, holder);
    if (!is_own_past(holder))
        return error_set(err,
                         "output_dir %s: another job is writing there (%s).  If its node was lost and holds the lock "
                         "still, remove %s",
                         dir, holder, path);
    warn("output_dir %s is still locked by an earlier start of this job (%s)", dir, holder);
    return 0;
}

int dir_lock(const char *dir, moai_error *err)
{
    const double until = now_seconds() + patience;
    char *path = xasprintf("%s/.lock", dir);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666), reason = fd < 0 ? 0 : try_lock(fd);

    while (fd >= 0 && is_held(reason) && now_seconds() < until) {
        usleep(100000);
        reason = try_lock(fd);
    }
    if (fd < 0)
        error_set(err, "%s: %s", path, strerror(errno));
    else if (reason == 0)
        write_holder(fd);
    else if (!is_held(reason))
        warn("output_dir %s: its file system knows no locks (%s): nothing keeps a second job out", dir,
             strerror(reason));
    else if (check_holder(fd, dir, path, err) != 0)
        close(fd), fd = -1;
    free(path);
    return fd;
}

void dir_unlock(int lock)
{
    if (lock >= 0) close(lock);
}
