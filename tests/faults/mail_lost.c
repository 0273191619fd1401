/* mail_lost.c: two hosts, and no datagrams between them.  Preloaded into all (LD_PRELOAD): once MPI runs, each two
 * ranks have a host of their own, and letters (parallel/watch/mail.c) of 280 bytes from one to the other are lost. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LETTER = 280, FROM = 16, TO = 20 };    /* its size, and where the ranks stand in it */

static int rank = -1;

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
    const int status = PMPI_Init_thread(argc, argv, required, provided);

    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return status;
}

int gethostname(char *name, size_t n)
{
    int (*real)(char *, size_t) = (int (*)(char *, size_t))dlsym(RTLD_NEXT, "gethostname");

    return rank < 0 ? real(name, n) : (snprintf(name, n, "other%d", rank / 2), 0);
}

ssize_t sendto(int fd, const void *data, size_t n, int flags, const struct sockaddr *to, socklen_t n_to)
{
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
        (ssize_t(*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "sendto");
    int32_t ranks[2];

    if (n == LETTER) {
        memcpy(ranks, (const char *)data + FROM, sizeof ranks);
        if (ranks[0] / 2 != ranks[1] / 2) return (ssize_t)n;
    }
    return real(fd, data, n, flags, to, n_to);
}
