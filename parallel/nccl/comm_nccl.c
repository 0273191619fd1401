/* comm_nccl.c: see comm_nccl.h.
 *
 * An axis has lanes, each an NCCL communicator with its own stream: collectives take the first, messages the one that
 * they name.  With one, stage s could wait to send forward while stage s + 1 waits to send backward.
 *
 * Kernels of several lanes are on the GPU at once, and each holds its multiprocessors while it waits for its peers.
 * That they cannot wait for each other in a circle rests on four things:
 *   order   The ranks of a lane begin its collectives in one order, that of the schedule, and what a rank's compute
 *           stream waits for has been begun by its peers without waiting for this rank's later work: a stage sends
 *           before it waits, and a receive is begun where its sender's data depend on nothing behind it.
 *   room    All lanes' kernels fit beside each other: a lane takes at most n_sm / lanes multiprocessors
 *           (max_multiprocessors).  Products, attention and the rest end by themselves, and the lanes' streams have
 *           priority, so what has been launched comes to its place however much computation is queued.
 *   launch  NCCL starts the kernels of different communicators in the order of the host's calls
 *           (NCCL_LAUNCH_ORDER_IMPLICIT), so none takes a place that an earlier one, whose peer already waits, needs.
 *   host    No call of a step waits for the whole device, which is what growing scratch, loading a kernel or making a
 *           plan of cuDNN's may do: the host would then sit in it behind a collective whose peer waits for what this
 *           host has not launched yet.  model_rehearse has made all of these calls before the first step.
 *
 * The collectives of a lane have numbers, and the last RING of them are kept: the watchdog's thread finds the oldest
 * one that the GPU has not completed. */
#include "parallel/nccl/comm_nccl.h"

#include "cuda/cuda_device.h"
#include "parallel/watch/watchdog.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>

enum { N_LANES = 2 };                         /* of the axis pp: each takes memory and multiprocessors */
enum { RING = 1024 };                         /* collectives that a host may be ahead of its GPU */
enum { NCCL_OWN_LIMIT = 32 };                 /* multiprocessors that a kernel of NCCL takes at most by itself */

/* A collective from its begin on. */
typedef struct pending {
    cudaEvent_t done;
    watch_note note;
    int64_t order;                            /* among the collectives of all lanes */
    bool open;                                /* begun and not ended */
} pending;

typedef struct lane {
    ncclComm_t handle;
    cudaStream_t stream;
    pending *ring;                            /* number n at n % RING */
    _Atomic int64_t begun;                    /* the last number whose event is recorded */
    int64_t complete;                         /* the watchdog's: all up to this one are */
} lane;

typedef struct nccl_comm {
    lane lanes[N_LANES];
    int n_lanes;                              /* 0 for a comm of one rank, 2 where messages go both ways */
    cudaStream_t compute;
    cudaEvent_t ready;                        /* what the compute stream had been given when a collective began */
} nccl_comm;

/* What the watchdog's thread looks at: the comms of the one grid. */
static struct {
    const comm *comms[6];
    atomic_int n;
    int gpu;
} watched;

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

/* The lane's stream goes on from where the compute stream is now.  The call that follows waits for the others where
 * NCCL has not met them yet. */
static lane *begin(const comm *c, int which, const char *what, int peer, size_t n_elem)
{
    nccl_comm *n = c->impl;
    lane *l = &n->lanes[which];

    CHECK(which < n->n_lanes, "%s over axis %s: lane %d of %d", what, c->axis, which, n->n_lanes);
    CHECK_CUDA(cudaEventRecord(n->ready, n->compute));
    CHECK_CUDA(cudaStreamWaitEvent(l->stream, n->ready, 0));
    watch_enter(&(watch_op){what, c->axis, l->begun + 1, (int64_t)n_elem, peer}, WATCH_WAITS);
    return l;
}

static comm_request started(const comm *c, lane *l, const char *what, int peer, size_t n_elem)
{
    static int64_t order;
    const int64_t number = l->begun + 1;
    pending *p = &l->ring[number % RING];

    CHECK(!p->open, "%s over axis %s: %d collectives begun and not ended", what, c->axis, RING);
    if (!p->done) CHECK_CUDA(cudaEventCreateWithFlags(&p->done, cudaEventDisableTiming));
    CHECK_CUDA(cudaEventSynchronize(p->done)); /* of RING collectives ago: the watchdog may still look at it */
    CHECK_CUDA(cudaEventRecord(p->done, l->stream));
    watch_enter(&(watch_op){what, c->axis, number, (int64_t)n_elem, peer}, WATCH_BEGAN);
    p->note = watch_last();
    p->note.state = WATCH_WAITS;
    p->order = ++order;
    p->open = true;
    atomic_store_explicit(&l->begun, number, memory_order_release);
    return (comm_request){.impl = {p}, .on = c, .what = what, .stream = l->stream};
}

static void end_nccl(comm_request *r)
{
    nccl_comm *n = r->on->impl;
    pending *p = r->impl[0];

    CHECK_CUDA(cudaStreamWaitEvent(n->compute, p->done, 0));
    p->open = false; /* the wait has taken its picture of the event: it may be recorded again */
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
    lane *l = begin(c, 0, what, -1, n_elem);
    check(ncclAllGather(in, out, n_elem, type_of(dt), l->handle, l->stream), c, what, n_elem);
    return started(c, l, what, -1, n_elem);
}

static comm_request reduce_scatter_nccl(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    static const char what[] = "reduce_scatter";

    if (c->size == 1 || n_elem == 0) return copy_alone(c, out, in, n_elem * dtype_size(dt));
    lane *l = begin(c, 0, what, -1, n_elem);
    check(ncclReduceScatter(in, out, n_elem, type_of(dt), ncclSum, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what, -1, n_elem);
}

static comm_request all_reduce_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    static const char what[] = "all_reduce";

    if (c->size == 1 || n_elem == 0) return (comm_request){0};
    lane *l = begin(c, 0, what, -1, n_elem);
    check(ncclAllReduce(buf, buf, n_elem, type_of(dt), op == REDUCE_SUM ? ncclSum : ncclMax, l->handle, l->stream), c,
          what, n_elem);
    return started(c, l, what, -1, n_elem);
}

static comm_request broadcast_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    static const char what[] = "broadcast";

    if (c->size == 1 || n_elem == 0) return (comm_request){0};
    lane *l = begin(c, 0, what, -1, n_elem);
    check(ncclBroadcast(buf, buf, n_elem, type_of(dt), root, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what, -1, n_elem);
}

static comm_request send_nccl(const comm *c, const void *buf, size_t n_elem, dtype dt, int to, int lane_number)
{
    static const char what[] = "send";

    if (n_elem == 0) return (comm_request){0};
    lane *l = begin(c, lane_number, what, to, n_elem);
    check(ncclSend(buf, n_elem, type_of(dt), to, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what, to, n_elem);
}

static comm_request recv_nccl(const comm *c, void *buf, size_t n_elem, dtype dt, int from, int lane_number)
{
    static const char what[] = "recv";

    if (n_elem == 0) return (comm_request){0};
    lane *l = begin(c, lane_number, what, from, n_elem);
    check(ncclRecv(buf, n_elem, type_of(dt), from, l->handle, l->stream), c, what, n_elem);
    return started(c, l, what, from, n_elem);
}

static void free_lane(lane *l, const comm *c)
{
    for (int i = 0; i < RING; i++)
        if (l->ring[i].done) CHECK_CUDA(cudaEventDestroy(l->ring[i].done));
    free(l->ring);
    check(ncclCommDestroy(l->handle), c, "destroy", 0);
    CHECK_CUDA(cudaStreamDestroy(l->stream));
}

static void free_nccl(comm *c)
{
    nccl_comm *n = c->impl;

    watched.n = 0;
    for (int i = 0; i < n->n_lanes; i++) free_lane(&n->lanes[i], c);
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

static void open_lane(lane *l, const comm *over, int max_multiprocessors)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclUniqueId id;
    int least, greatest;

    if (max_multiprocessors < NCCL_OWN_LIMIT) config.maxCTAs = max_multiprocessors;

    if (over->rank == 0) check(ncclGetUniqueId(&id), over, "unique id", 0);
    comm_broadcast(over, &id, sizeof id, DT_U8, 0);
    l->ring = xmalloc(RING * sizeof *l->ring);
    watch_enter(&(watch_op){"nccl_init", over->axis, 1, 0, -1}, WATCH_WAITS);
    check(ncclCommInitRankConfig(&l->handle, over->size, id, over->rank, &config), over, "init", 0);
    watch_enter(&(watch_op){"nccl_init", over->axis, 1, 0, -1}, WATCH_ENDED);
    CHECK_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    CHECK_CUDA(cudaStreamCreateWithPriority(&l->stream, cudaStreamNonBlocking, greatest));
}

/* ---- for the watchdog's thread ---------------------------------------------------------------------------------- */
/* The oldest of the lane that is not complete, or NULL.  They complete in their order. */
static const pending *oldest_of(lane *l)
{
    const int64_t begun = atomic_load_explicit(&l->begun, memory_order_acquire);
    int64_t end = begun + 1;                  /* complete < the oldest <= end */

    if (l->complete < begun - RING + 1) l->complete = begun - RING + 1;
    while (l->complete + 1 < end) {
        const int64_t middle = l->complete + (end - l->complete) / 2;
        if (cudaEventQuery(l->ring[middle % RING].done) == cudaErrorNotReady)
            end = middle;
        else
            l->complete = middle;
    }
    return end <= begun ? &l->ring[end % RING] : NULL;
}

static void look_for_error(const lane *l, const comm *c, moai_error *error)
{
    ncclResult_t state = ncclSuccess;

    if (ncclCommGetAsyncError(l->handle, &state) == ncclSuccess && (state == ncclSuccess || state == ncclInProgress))
        return;
    error_set(error, "NCCL over axis %s (rank %d of %d): %s: %s", c->axis, c->rank, c->size, ncclGetErrorString(state),
              ncclGetLastError(l->handle));
}

static bool watch_nccl(watch_note *oldest, moai_error *error)
{
    const int n = atomic_load_explicit(&watched.n, memory_order_acquire);
    int64_t order = INT64_MAX;

    for (int i = 0; i < n; i++) {
        nccl_comm *m = watched.comms[i]->impl;
        CHECK_CUDA(cudaSetDevice(watched.gpu));
        for (int k = 0; k < m->n_lanes; k++) {
            const pending *p = oldest_of(&m->lanes[k]);
            look_for_error(&m->lanes[k], watched.comms[i], error);
            if (p && p->order < order) order = p->order, *oldest = p->note;
        }
    }
    return order < INT64_MAX;
}

/* ---- how they are made ------------------------------------------------------------------------------------------ */
static int n_lanes(const comm *c) { return c->size == 1 ? 0 : strcmp(c->axis, "pp") == 0 ? N_LANES : 1; }

/* c, an MPI comm, becomes an NCCL comm of the same ranks. */
static void replace(comm *c, moai_device *dev, int max_multiprocessors)
{
    nccl_comm *n = xmalloc(sizeof *n);
    comm host = *c;

    *n = (nccl_comm){.compute = device_stream_cuda(dev)};
    CHECK_CUDA(cudaEventCreateWithFlags(&n->ready, cudaEventDisableTiming));
    n->n_lanes = n_lanes(c);
    for (int i = 0; i < n->n_lanes; i++) open_lane(&n->lanes[i], c, max_multiprocessors);
    c->ops = &comm_ops_nccl;
    c->impl = n;
    host.ops->free(&host);
}

void grid_use_nccl(moai_grid *g, moai_device *dev)
{
    comm *const device_comms[] = {&g->tp, &g->cp, &g->data, &g->pp, &g->kv, &g->embed};
    enum { N = sizeof device_comms / sizeof *device_comms };
    _Static_assert(N == sizeof watched.comms / sizeof *watched.comms, "all are watched");
    int lanes = 0, n_sm;

    CHECK_CUDA(cudaGetDevice(&watched.gpu));
    CHECK_CUDA(cudaDeviceGetAttribute(&n_sm, cudaDevAttrMultiProcessorCount, watched.gpu));
    for (int i = 0; i < N; i++) lanes += n_lanes(device_comms[i]);
    if (lanes > 1) setenv("NCCL_LAUNCH_ORDER_IMPLICIT", "1", 0);              /* read when the first lane opens */
    for (int i = 0; i < N; i++) {
        replace(device_comms[i], dev, n_sm / (lanes ? lanes : 1));
        watched.comms[i] = device_comms[i];
    }
    atomic_store_explicit(&watched.n, N, memory_order_release);
    watchdog_device = watch_nccl;
}
