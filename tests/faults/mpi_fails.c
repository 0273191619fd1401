/* mpi_fails.c: an MPI that fails.  Preloaded into all (LD_PRELOAD), call FAIL_AT (1: the first) of the function
 * FAIL_CALL returns MPI_ERR_OTHER on rank FAIL_RANK, having done nothing. */
#include <mpi.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static bool fails(const char *call)
{
    static int n_calls;
    int rank;

    if (strcmp(call, getenv("FAIL_CALL")) != 0) return false;
    PMPI_Comm_rank(MPI_COMM_WORLD, &rank);
    return rank == atoi(getenv("FAIL_RANK")) && ++n_calls == atoi(getenv("FAIL_AT"));
}

#define FAILING(name, parameters, arguments)                                                                           \
    int MPI_##name parameters { return fails(#name) ? MPI_ERR_OTHER : PMPI_##name arguments; }

FAILING(Allreduce, (const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c), (in, out, n, t, op, c))
FAILING(Bcast, (void *buf, int n, MPI_Datatype t, int root, MPI_Comm c), (buf, n, t, root, c))
FAILING(Allgather, (const void *in, int n, MPI_Datatype t, void *out, int m, MPI_Datatype u, MPI_Comm c),
        (in, n, t, out, m, u, c))
FAILING(Comm_split_type, (MPI_Comm c, int type, int key, MPI_Info info, MPI_Comm *out), (c, type, key, info, out))
FAILING(Comm_split, (MPI_Comm c, int color, int key, MPI_Comm *out), (c, color, key, out))
FAILING(Comm_size, (MPI_Comm c, int *n), (c, n))
FAILING(Comm_free, (MPI_Comm * c), (c))
FAILING(Win_shared_query, (MPI_Win w, int rank, MPI_Aint *n, int *unit, void *base), (w, rank, n, unit, base))
FAILING(Win_free, (MPI_Win * w), (w))
FAILING(Iallreduce, (const void *in, void *out, int n, MPI_Datatype t, MPI_Op op, MPI_Comm c, MPI_Request *r),
        (in, out, n, t, op, c, r))
FAILING(Finalize, (void), ())
