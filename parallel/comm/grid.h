/* grid.h: the process grid.  world = TP x CP x DP x PP, tp varying fastest, then cp, dp, pp.
 *
 *     rank = tp + TP * (cp + CP * (dp + DP * pp))
 *
 * Neighbours on the tensor axis are therefore neighbours on a node, and stages are the farthest apart. */
#ifndef MOAI_GRID_H
#define MOAI_GRID_H

#include "parallel/comm/comm.h"

typedef struct grid_shape {
    int tp, cp, dp, pp;
} grid_shape;

typedef struct moai_grid {
    grid_shape size, at;            /* extents, and this rank's coordinates */
    int rank, world;
    /* device memory; the backend is the device's (MPI for cpu, NCCL for cuda) */
    comm tp, cp, pp;
    comm data;                      /* cp x dp, rank cp + CP * dp: those with the same weights and other tokens, over
                                       which gradients are summed and states are divided */
    comm kv;                        /* the tp ranks that hold a copy of the same KV head; size 1 unless TP > KV heads */
    comm embed;                     /* first and last stage, same tp/cp/dp: sums the gradient of a tied embedding;
                                       size 1 on every other stage and when PP = 1 */
    /* host memory, always MPI */
    comm host_world, host_dp;
    comm host_samples;              /* tp x cp, rank tp + TP * cp: those that read the same samples */
} moai_grid;

/* Starts MPI and installs base_process (identity, abort, leave).  Collective over all ranks; call once, first.
 * Returns this process's world size; a program started without mpirun is a world of 1.  One of several tasks of a
 * launcher that this MPI does not know would be one too: it leaves with STATUS_CONFIG. */
int process_start(int *argc, char ***argv);
/* For a command that starts no MPI: started N times by a launcher, all but the first leave with STATUS_CONFIG. */
void process_alone(const char *what);
int process_rank(void);
int process_world(void);
/* Threads that this rank may use: `num_threads`; where that is 0 what OMP_NUM_THREADS says, and where that is not set
 * the rank's share of its host's cores, by affinity and the quotas of control groups.  *from: which of them it was, for
 * the report; "" the key or the cores.  -1: OMP_NUM_THREADS makes no sense.  Not collective; also for a program that
 * has not started MPI, which then is alone on its host. */
int process_threads(int64_t num_threads, const char **from, moai_error *err);
int process_host_rank(void);                  /* this rank among those of its host, from 0: picks its GPU */
int process_host_ranks(void);
int64_t process_host_sum(int64_t);            /* over this host's ranks; collective over them */
enum { PROCESS_ID = 16 };
/* Is each rank's another?  Collective over the host's ranks. */
bool process_host_differ(const char id[PROCESS_ID]);
int64_t process_least(int64_t);                   /* of all ranks' values; collective */
/* comm_agree before there is a grid: -1 on every rank when any has `failed`, with the error of the lowest of them.
 * Where others are well it is that host's fault: its identity comes first, and another start may do better.
 * Collective. */
int process_agree(bool failed, moai_error *err);
/* What rank 0 has read, or how it has failed, on every rank: the others' bytes become a copy, malloc'd, with a NUL
 * behind.  Before there is a grid; collective, but for a process without MPI, which keeps its own. */
int process_share(bool failed, char **bytes, size_t *n_bytes, moai_error *err);
void process_finish(void);                    /* collective; MPI_Finalize */

enum { GRID_RANKS = 1 << 24 };                /* at most */
/* The product of the extents; -1: more than GRID_RANKS. */
int grid_ranks(grid_shape);
/* Fills a 0 in one extent (dp) from the world size and checks that the product is `world`.  Returns 0, or -1 with
 * "world size 6 is not tensor_parallel 4 x pipeline_parallel 1 x data_parallel ...".  Not collective. */
int grid_factor(grid_shape *size, int world, moai_error *err);
/* Where a rank stands. */
grid_shape grid_coordinates(grid_shape size, int rank);
/* Splits the world.  n_kv_heads decides the kv groups.  Collective over all ranks; the shape
 * must have passed grid_factor. */
void grid_init(moai_grid *, grid_shape size, int n_kv_heads);
void grid_free(moai_grid *);
/* A grid as seen by the rank at `at`, whose collectives do nothing: for planning.  Not collective, needs no MPI. */
void grid_dry(moai_grid *, grid_shape size, grid_shape at, int n_kv_heads);
/* The size of grid.data, and a rank in it. */
static inline int grid_data_size(grid_shape size) { return size.cp * size.dp; }
static inline int grid_data_rank(grid_shape size, grid_shape at) { return at.cp + size.cp * at.dp; }
static inline bool grid_first_stage(const moai_grid *g) { return g->at.pp == 0; }
static inline bool grid_last_stage(const moai_grid *g) { return g->at.pp == g->size.pp - 1; }

#endif
