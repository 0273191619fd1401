/* fsync_slow.c: a slow disk.  Preloaded into all (LD_PRELOAD), rank SLOW_RANK sleeps for SLOW_SECONDS before it flushes its file
 * of a checkpoint. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int fsync(int fd)
{
    const char *rank = getenv("OMPI_COMM_WORLD_RANK");
    char link[64], path[4096];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    if (rank && strcmp(rank, getenv("SLOW_RANK")) == 0 && strstr(path, "/checkpoint-") && strstr(path, ".h5"))
        sleep((unsigned)atoi(getenv("SLOW_SECONDS")));
    return (int)syscall(SYS_fsync, fd);
}
