/* faulty_io.c: a library to preload (LD_PRELOAD) that makes calls of the C library on some files fail.
 *
 *   FAULTY_IO="pwrite:7:ENOSPC,fsync:3:EIO"    every 7th pwrite has no space, every 3rd fsync an I/O error
 *   FAULTY_IO="flip:5"                         every 5th pwrite succeeds and writes one bit wrong
 *   FAULTY_IO="short:2"                        every 2nd write and pwrite writes half
 *   FAULTY_IO="stale:5"                        every 5th pread finds its descriptor stale, and so do all that follow on
 * it
 *
 * Only files whose path contains FAULTY_PATH, or else "/checkpoint-", count; each process counts for itself.
 * tests/t9-io-faults.sh builds it. */
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WRITE, PWRITE, PREAD, FSYNC, RENAME, FLIP, SHORT, STALE, N_KINDS };
static const char *const kinds[N_KINDS] = {"write", "pwrite", "pread", "fsync", "rename", "flip", "short", "stale"};
static const char *counted = "/checkpoint-";
static struct fault {
    int every, error;                         /* 0: never */
    atomic_int n;
} faults[N_KINDS];

__attribute__((constructor)) static void read_faults(void)
{
    char *list = strdup(getenv("FAULTY_IO") ? getenv("FAULTY_IO") : ""), *next = list, *item;

    while ((item = strsep(&next, ",")) && item[0]) {
        char *name = strsep(&item, ":"), *every = strsep(&item, ":");
        int kind = 0;
        while (kind < N_KINDS && strcmp(kinds[kind], name) != 0) kind++;
        if (kind == N_KINDS || !every || atoi(every) < 1) {
            fprintf(stderr, "faulty_io: what is \"%s\"?\n", name);
            abort();
        }
        faults[kind].every = atoi(every);
        faults[kind].error = item && strcmp(item, "ENOSPC") == 0 ? ENOSPC : EIO;
    }
    free(list);
    if (getenv("FAULTY_PATH")) counted = getenv("FAULTY_PATH");
}

static bool is_due(int kind)
{
    struct fault *f = &faults[kind];
    return f->every && (atomic_fetch_add(&f->n, 1) + 1) % f->every == 0;
}

static bool fails(int kind)
{
    if (!is_due(kind)) return false;
    errno = faults[kind].error;
    return true;
}

static bool counts(int fd)
{
    char link[64], path[4096];

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    return strstr(path, counted) != NULL;
}

#define REAL(name) (__typeof__(&name)) dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *data, size_t n)
{
    __typeof__(&write) real = REAL(write);

    if (!counts(fd)) return real(fd, data, n);
    if (fails(WRITE)) return -1;
    return real(fd, data, n > 1 && is_due(SHORT) ? n / 2 : n);
}

ssize_t pwrite(int fd, const void *data, size_t n, off_t at)
{
    __typeof__(&pwrite) real = REAL(pwrite);

    if (!counts(fd)) return real(fd, data, n, at);
    if (fails(PWRITE)) return -1;
    if (is_due(FLIP)) {
        char *wrong = malloc(n);
        memcpy(wrong, data, n);
        wrong[n / 2] ^= 4;
        const ssize_t done = real(fd, wrong, n, at);
        free(wrong);
        return done;
    }
    return real(fd, data, n > 1 && is_due(SHORT) ? n / 2 : n, at);
}

/* As NFS has it once the file was replaced on the server: only another open helps. */
static atomic_bool stale[1024];

ssize_t pread(int fd, void *data, size_t n, off_t at)
{
    if (counts(fd) && fails(PREAD)) return -1;
    if (fd < 1024 && counts(fd) && is_due(STALE)) stale[fd] = true;
    if (fd >= 1024 || !stale[fd]) return (REAL(pread))(fd, data, n, at);
    errno = ESTALE;
    return -1;
}

int close(int fd)
{
    if (fd >= 0 && fd < 1024) stale[fd] = false;
    return (REAL(close))(fd);
}

int fsync(int fd) { return counts(fd) && fails(FSYNC) ? -1 : (REAL(fsync))(fd); }

int rename(const char *from, const char *to)
{
    return strstr(from, counted) && fails(RENAME) ? -1 : (REAL(rename))(from, to);
}

/* the same calls under the names that 64-bit offsets give them */
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return pwrite(fd, data, n, at); }
ssize_t pread64(int fd, void *data, size_t n, off_t at) { return pread(fd, data, n, at); }
