/* comm.h: collectives over one axis of the process grid.
 *
 * A comm is the group of ranks that differ in one coordinate only.  Every collective has a begin and an end; the end
 * is where computation waits (on a GPU: where the compute stream waits; the host goes on).  Between the two the
 * buffers belong to the collective.  Results are the same bits whenever the same layout runs again.  A comm of size
 * 1 does no communication: gathers and scatters copy unless `out` is `in`.  A failing transport is a broken rank
 * (die).  No MPI type appears here. */
#ifndef MOAI_COMM_H
#define MOAI_COMM_H

#include "src/base/tensor.h"

typedef struct comm comm;
typedef struct comm_request {
    void *impl[2];                            /* the backend's own; {0} is a finished request */
    const comm *on;
    const char *what;                         /* "all_gather", for reports */
    void *stream;                             /* where it runs (a cudaStream_t), for timelines; NULL: on the host */
} comm_request;

typedef enum { REDUCE_SUM, REDUCE_MAX } reduce_op;

typedef struct comm_ops {
    const char *name;                         /* "mpi", "nccl" */
    /* Collective over the comm.  n_elem counts the elements of ONE rank's share; the whole has size * n_elem.  The
     * share may lie in the whole, at rank * n_elem (in place). */
    comm_request (*all_gather)(const comm *, void *out, const void *in, size_t n_elem, dtype);
    comm_request (*reduce_scatter)(const comm *, void *out, const void *in, size_t n_elem, dtype); /* sum      */
    comm_request (*all_reduce)(const comm *, void *buf, size_t n_elem, dtype, reduce_op);          /* in place  */
    comm_request (*broadcast)(const comm *, void *buf, size_t n_elem, dtype, int root);
    /* Point to point.  Messages of one pair and lane arrive in order; what goes in one lane never waits for what goes
     * in another.  NCCL has two on the axis pp, and one elsewhere. */
    comm_request (*send)(const comm *, const void *buf, size_t n_elem, dtype, int to, int lane);
    comm_request (*recv)(const comm *, void *buf, size_t n_elem, dtype, int from, int lane);
    void (*end)(comm_request *);              /* on return (of the compute stream) the buffers are the caller's again */
    void (*free)(comm *);
} comm_ops;

extern const comm comm_alone;                 /* of this process, and no MPI */

struct comm {
    const comm_ops *ops;
    const char *axis;                         /* "tp", "pp", ... for reports */
    int rank, size;
    void *impl;
};

/* Thin callers, so that the text of the model reads as verbs.  All collective over c. */
static inline comm_request all_gather_begin(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    return c->ops->all_gather(c, out, in, n_elem, dt);
}
static inline comm_request reduce_scatter_begin(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    return c->ops->reduce_scatter(c, out, in, n_elem, dt);
}
static inline comm_request all_reduce_begin(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    return c->ops->all_reduce(c, buf, n_elem, dt, op);
}
static inline comm_request broadcast_begin(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    return c->ops->broadcast(c, buf, n_elem, dt, root);
}
static inline comm_request send_begin(const comm *c, const void *buf, size_t n_elem, dtype dt, int to, int lane)
{
    return c->ops->send(c, buf, n_elem, dt, to, lane);
}
static inline comm_request recv_begin(const comm *c, void *buf, size_t n_elem, dtype dt, int from, int lane)
{
    return c->ops->recv(c, buf, n_elem, dt, from, lane);
}
static inline void comm_end(comm_request *r)
{
    if (r->on) r->on->ops->end(r);
}

/* Host-side conveniences, blocking.  all_reduce and broadcast of host memory only make sense on
 * a host comm (grid.host_*). */
void comm_all_reduce(const comm *, void *buf, size_t n_elem, dtype, reduce_op);
void comm_broadcast(const comm *, void *buf, size_t n_elem, dtype, int root);
void comm_barrier(const comm *);
/* As many bytes as the root has: the others' become a copy, malloc'd, with a NUL behind. */
void comm_broadcast_bytes(const comm *, char **bytes, size_t *n_bytes, int root);
/* All ranks' bytes in the order of the ranks, on rank 0 (malloc'd), up a tree; NULL on the others. */
char *comm_gather_bytes(const comm *, const char *bytes, size_t n_bytes, size_t *n_all);

/* Situation 3: `failed` on any rank is a failure on all.  Collective over a host comm.  Returns 0 when
 * all are well; else -1 on every rank with the error of the lowest failing rank, its text prefixed by that rank's
 * identity when more than one rank takes part. */
int comm_agree(const comm *, bool failed, moai_error *err);

#endif
