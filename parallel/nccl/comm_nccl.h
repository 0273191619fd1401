/* comm_nccl.h: the NCCL backend of comm.h, for buffers in GPU memory.  Built with CUDA=1.  No NCCL type appears
 * here. */
#ifndef MOAI_COMM_NCCL_H
#define MOAI_COMM_NCCL_H

#include "parallel/comm/grid.h"
#include "src/ops/ops.h"

/* Replaces the device comms of the grid (tp, cp, dp, pp, kv, embed) by NCCL ones over the same ranks; they are
 * bootstrapped by the MPI comms, which are then freed.  host_* stay MPI.  A collective runs on a stream of its
 * axis: it starts when what the compute stream has been given so far is done, and end makes the compute stream wait
 * for it.  Collective over all ranks. */
void grid_use_nccl(moai_grid *, moai_device *);

#endif
