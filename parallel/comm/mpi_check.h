/* mpi_check.h: no return of MPI goes unseen; for the files of parallel/ that include mpi.h.
 *
 * Communicators return their errors (process_start sets that), and a rank whose MPI has failed is broken: its peers
 * wait for what it cannot do, or hold values that it does not. */
#ifndef MOAI_MPI_CHECK_H
#define MOAI_MPI_CHECK_H

/* CHECK_MPI(MPI_Bcast(...)): dies naming the call and MPI's reason. */
#define CHECK_MPI(call) mpi_check(call, #call, __FILE__, __LINE__)
void mpi_check(int code, const char *call, const char *file, int line);
/* "" for MPI_SUCCESS.  Valid until the next call. */
const char *mpi_reason(int code);

#endif
