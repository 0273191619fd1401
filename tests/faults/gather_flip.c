/* gather_flip.c: a link or a memory that turns one bit.  Preloaded into a rank (LD_PRELOAD), it changes the lowest bit
 * of the last float that rank FLIP_RANK gets from its neighbour in each MPI_Iallgather, from its call FLIP_AFTER on. */
#include <mpi.h>
#include <stdint.h>
#include <stdlib.h>

int MPI_Iallgather(const void *in, int n_in, MPI_Datatype in_type, void *out, int n_out, MPI_Datatype out_type,
                   MPI_Comm comm, MPI_Request *request)
{
    static int n_calls;
    int world_rank, rank, size;

    if (out_type != MPI_FLOAT) return PMPI_Iallgather(in, n_in, in_type, out, n_out, out_type, comm, request);
    int status = PMPI_Allgather(in, n_in, in_type, out, n_out, out_type, comm);
    *request = MPI_REQUEST_NULL;
    MPI_Comm_rank(MPI_COMM_WORLD, &world_rank);
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &size);
    if (status || world_rank != atoi(getenv("FLIP_RANK")) || ++n_calls < atoi(getenv("FLIP_AFTER"))) return status;
    uint32_t *from_neighbour = (uint32_t *)out + (int64_t)((rank + 1) % size) * n_out;
    from_neighbour[n_out - 1] ^= 1;
    return status;
}
