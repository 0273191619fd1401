/* files_slow.c: a slow disk.  Preloaded into all (LD_PRELOAD), rank SLOW_RANK sleeps once for SLOW_SECONDS in its call
 * SLOW_AFTER (1: the first) of SLOW_CALL (fsync, pread or fflush) for a file whose path has SLOW_PART in it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void rest(const char *call, int fd)
{
    static int n_calls;
    const char *rank = getenv("OMPI_COMM_WORLD_RANK"), *after = getenv("SLOW_AFTER");
    char link[64], path[4096];

    if (!rank || strcmp(rank, getenv("SLOW_RANK")) != 0 || strcmp(call, getenv("SLOW_CALL")) != 0) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    if (strstr(path, getenv("SLOW_PART")) && __atomic_add_fetch(&n_calls, 1, __ATOMIC_RELAXED) == (after ? atoi(after) : 1))
        sleep((unsigned)atoi(getenv("SLOW_SECONDS")));
}

int fsync(int fd)
{
    rest("fsync", fd);
    return (int)syscall(SYS_fsync, fd);
}

ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
    rest("pread", fd);
    return syscall(SYS_pread64, fd, buf, n, at);
}

ssize_t pread64(int fd, void *buf, size_t n, off_t at) { return pread(fd, buf, n, at); }

int fflush(FILE *f)
{
    static int (*real)(FILE *);

    if (!real) real = (int (*)(FILE *))dlsym(RTLD_NEXT, "fflush");
    if (f) rest("fflush", fileno(f));
    return real(f);
}
