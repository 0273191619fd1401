/* comm_mpi.h: the MPI backend of comm.h, for the other files of parallel/.  No MPI type appears here. */
#ifndef MOAI_COMM_MPI_H
#define MOAI_COMM_MPI_H

#include "parallel/comm/comm.h"

extern const comm_ops comm_ops_mpi;

/* Splits the world: ranks that name the same color form a comm, ordered by key.  color -1: a comm of this rank alone.
 * Collective over all ranks. */
comm comm_mpi_split(int color, int key, const char *axis);

/* How a rank waits: true when ranks (or their threads) share cores, so that a waiting one should leave its core. */
void comm_mpi_share_cores(bool shared);

/* Elements that one MPI call may count; INT_MAX, and less only in tests of what happens beyond it. */
extern size_t comm_mpi_max_count;

#endif
