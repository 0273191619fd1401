/* gather_slow.c: a rank that takes its time.  Preloaded into all (LD_PRELOAD), rank SLOW_RANK sleeps for
 * SLOW_MILLISECONDS before each MPI_Iallgather, from its call SLOW_AFTER on. */
#include <mpi.h>
#include <stdlib.h>
#include <time.h>

int MPI_Iallgather(const void *in, int n_in, MPI_Datatype in_type, void *out, int n_out, MPI_Datatype out_type,
                   MPI_Comm comm, MPI_Request *request)
{
    static int n_calls;
    int rank;

    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == atoi(getenv("SLOW_RANK")) && ++n_calls >= atoi(getenv("SLOW_AFTER"))) {
        const long ms = atol(getenv("SLOW_MILLISECONDS"));
        nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
    }
    return PMPI_Iallgather(in, n_in, in_type, out, n_out, out_type, comm, request);
}
