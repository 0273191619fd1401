/* comm_nccl.c: see comm_nccl.h.
 *
 * An axis has lanes, each an NCCL communicator with its own stream: collectives and messages to higher ranks
 * take the first, messages to lower ranks the second.  With one, stage s could wait to send forward while
 * stage s + 1 waits to send backward. */
#include "comm_nccl.h"

#include "cuda_device.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>

enum { FORWARD, BACKWARD, N_LANES };

typedef struct lane {
    ncclComm_t handle;
    cudaStream_t stream;
} lane;

/* A collective between its begin and its end. */
typedef struct pending {
    struct pending *next;
    cudaEvent_t done;
} pending;

typedef struct nccl_comm {
    lane lanes[N_LANES];
    int n_lanes;                              /* 0 for a comm of one rank, 2 where messages go both ways */
    cudaStream_t compute;
    cudaEvent_t ready;                        /* what the compute stream had been given when a collective began */
    pending *idle;
} nccl_comm;

#define CHECK_CUDA(call)                                                                    \
    do {                                                                                    \
        cudaError_t e_ = (call);                                                            \
        CHECK(e_ == cudaSuccess, "%s: %s", #call, cudaGetErrorString(e_));                  \
    } while (0)

static void check(ncclResult_t code, const comm *c, const char *what, size_t n_elem)
{
    CHECK(code == ncclSuccess, "%s of %zu elements over axis %s (rank %d of %d): %s: %s", what, n_elem, c->axis,
          c->rank, c->size, ncclGetErrorString(code), ncclGetLastError(NULL));
}

static ncclDataType_t type_of(dtype dt)
{
    switch (dt) {
    case DT_F32: return ncclFloat32;
    case DT_BF16: return ncclBfloat16;
    case DT_F16: return ncclFloat16;
    case DT_F64: return ncclFloat64;
    case DT_I32: return ncclInt32;
    case DT_U8: return ncclUint8;
    }
    die("no NCCL type for dtype %d", (int)dt);
}

/* The lane's stream goes on from where the compute stream is now. */
static lane *begin(const comm *c, int which)
{
    nccl_comm *n = c->impl;
    lane *l = &n->lanes[which];

    CHECK_CUDA(cudaEventRecord(n->ready, n->compute));
    CHECK_CUDA(cudaStreamWaitEvent(l->stream, n->ready, 0));
    return l;
}

static comm_request started(const comm *c, const lane *l, const char *what)
{
    nccl_comm *n = c->impl;
    pending *p = n->idle;

    if (p) {
        n->idle = p->next;
    } else {
        p = xmalloc(sizeof *p);
        CHECK_CUDA(cudaEventCreateWithFlags(&p->done, cudaEventDisableTiming));
    }
    CHECK_CUDA(cudaEventRecord(p->done, l->stream));
    return (comm_request){.impl = {p}, .on = c, .what = what, .stream = l->stream};
}

static void end_nccl(comm_request *r)
{
    nccl_comm *n = r->on->impl;
    pending *p = r->impl[0];

    CHECK_CUDA(cudaStreamWaitEvent(n->compute, p->done, 0));
    p->next = n->idle; /* the wait has taken its picture of the event: it may be recorded again */
    n->idle = p;
    *r = (comm_request){0};
}

static comm_request copy_alone(const comm *c, void *out, const void *in, size_t n_bytes)
{
    nccl_comm *n = c->impl;

    if (out != in) CHECK_CUDA(cudaMemcpyAsync(out, in, n_bytes, cudaMemcpyDeviceToDevice, n->compute));
    return (comm_request){0};
}

static comm_request all_gather_nccl(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    static const char what[] = "all_gather";

    if (c->size == 1 || n_elem == 0) return copy_alone(c, out, in, n_elem * dtype_size(dt));
    lane *l = begin(c, FORWARD);
    check(ncclAllGather(in, out, n_elem, type_of(dt), l->handle, l->stream), c, what, n_elem);
    return started(c, l, what);
}

static comm_request reduce_scatter_nccl(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    static const char what[] = "reduce_scatter";

    if (c->size == 1 || n_elem == 0) return copy_alone(c, out, in, n_elem * dtype_size(dt));
    lane *l = begin(c, FORWARD);
    check(ncclReduceScatter(in, out, n_elem, type_of(dt), ncclSum, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what);
}

static comm_request all_reduce_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    static const char what[] = "all_reduce";

    if (c->size == 1 || n_elem == 0) return (comm_request){0};
    lane *l = begin(c, FORWARD);
    check(ncclAllReduce(buf, buf, n_elem, type_of(dt), op == REDUCE_SUM ? ncclSum : ncclMax, l->handle, l->stream), c,
          what, n_elem);
    return started(c, l, what);
}

static comm_request broadcast_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    static const char what[] = "broadcast";

    if (c->size == 1 || n_elem == 0) return (comm_request){0};
    lane *l = begin(c, FORWARD);
    check(ncclBroadcast(buf, buf, n_elem, type_of(dt), root, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what);
}

static comm_request send_nccl(const comm *c, const void *buf, size_t n_elem, dtype dt, int to)
{
    static const char what[] = "send";

    if (n_elem == 0) return (comm_request){0};
    lane *l = begin(c, to > c->rank ? FORWARD : BACKWARD);
    check(ncclSend(buf, n_elem, type_of(dt), to, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what);
}

static comm_request recv_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, int from)
{
    static const char what[] = "recv";

    if (n_elem == 0) return (comm_request){0};
    lane *l = begin(c, from < c->rank ? FORWARD : BACKWARD);
    check(ncclRecv(buf, n_elem, type_of(dt), from, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what);
}

static void free_nccl(comm *c)
{
    nccl_comm *n = c->impl;

    for (pending *p = n->idle, *next; p; p = next) {
        next = p->next;
        CHECK_CUDA(cudaEventDestroy(p->done));
        free(p);
    }
    for (int i = 0; i < n->n_lanes; i++) {
        check(ncclCommDestroy(n->lanes[i].handle), c, "destroy", 0);
        CHECK_CUDA(cudaStreamDestroy(n->lanes[i].stream));
    }
    CHECK_CUDA(cudaEventDestroy(n->ready));
    free(n);
    *c = (comm){0};
}

static const comm_ops comm_ops_nccl = {
    .name = "nccl",
    .all_gather = all_gather_nccl,
    .reduce_scatter = reduce_scatter_nccl,
    .all_reduce = all_reduce_nccl,
    .broadcast = broadcast_nccl,
    .send = send_nccl,
    .recv = recv_nccl,
    .end = end_nccl,
    .free = free_nccl,
};

static void open_lane(lane *l, const comm *over)
{
    ncclUniqueId id;
    int least, greatest;

    if (over->rank == 0) check(ncclGetUniqueId(&id), over, "unique id", 0);
    comm_broadcast(over, &id, sizeof id, DT_U8, 0);
    check(ncclCommInitRank(&l->handle, over->size, id, over->rank), over, "init", 0);
    CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CHECK_CUDA(cudaStreamCreateWithPriority(&l->stream, cudaStreamNonBlocking, greatest));
}

/* c, an MPI comm, becomes an NCCL comm of the same ranks. */
static void replace(comm *c, moai_device *dev)
{
    nccl_comm *n = xmalloc(sizeof *n);
    comm host = *c;

    *n = (nccl_comm){.compute = device_stream_cuda(dev)};
    CHECK_CUDA(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming));
    n->n_lanes = c->size == 1 ? 0 : strcmp(c->axis, "pp") == 0 ? N_LANES : 1;
    for (int i = 0; i < n->n_lanes; i++) open_lane(&n->lanes[i], c);
    c->ops = &comm_ops_nccl;
    c->impl = n;
    host.ops->free(&host);
}

void grid_use_nccl(moai_grid *g, moai_device *dev)
{
    comm *const device_comms[] = {&g->tp, &g->cp, &g->dp, &g->pp, &g->kv, &g->embed};

    for (size_t i = 0; i < sizeof device_comms / sizeof *device_comms; i++) replace(device_comms[i], dev);
}
