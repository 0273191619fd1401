/* comm_mpi.c: collectives over MPI, for tensors in host memory.
 *
 * Everything is nonblocking and ends in wait_for, the one place where a rank waits.  MPI calls progress all that is
 * outstanding, whichever request is waited for.
 *
 * A reduce-scatter is MPI_Ialltoall and a sum in rank order at the end: every rank moves (size - 1)/size of the
 * buffer, where Open MPI's own nonblocking one reduces the whole to rank 0 first, and bf16 sums are rounded
 * once instead of once a tree level. */
#include "parallel/comm/comm_mpi.h"

#include "parallel/comm/mpi_check.h"
#include "parallel/comm/reduce.h"
#include "src/base/watch.h"

#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A collective between its begin and its end.  Kept on a list of the comm when idle, so that the step loop allocates
 * nothing once it has seen every size. */
typedef struct pending {
    struct pending *next;
    MPI_Request request;
    void *out;                                /* reduce_scatter: where the sum of `parts` goes at the end; else NULL */
    watch_op op;
    size_t n_elem;
    dtype dt;
    void *parts;                              /* (size, n_elem) as received */
    size_t parts_bytes;
} pending;

typedef struct mpi_comm {
    MPI_Comm handle;
    pending *idle;
    int64_t n_begun;
} mpi_comm;

size_t comm_mpi_max_count = INT_MAX;
static bool cores_shared;

void comm_mpi_share_cores(bool shared) { cores_shared = shared; }

const char *mpi_reason(int code)
{
    static _Thread_local char text[MPI_MAX_ERROR_STRING];
    int len;

    if (code == MPI_SUCCESS) return "";
    return MPI_Error_string(code, text, &len) == MPI_SUCCESS ? text : "?";
}

void mpi_check(int code, const char *call, const char *file, int line)
{
    if (code != MPI_SUCCESS) die_at(file, line, "%s: %s", call, mpi_reason(code));
}

/* What the run consists of is told with its sizes. */
static void check(int code, const comm *c, const char *what, size_t n_elem)
{
    if (code == MPI_SUCCESS) return;
    die("%s of %zu elements over axis %s (rank %d of %d): %s", what, n_elem, c->axis, c->rank, c->size,
        mpi_reason(code));
}

/* Leaves the core to whoever works: first for as long as nobody else is ready, then for a moment of sleep, short
 * against a layer's computation (process_start asks the kernel for exact timers). */
static void step_aside(int64_t tries)
{
    enum { YIELDS = 16, SLEEP_NANOSECONDS = 30000 };

    if (!cores_shared) {
        if (tries > 4096) sched_yield();
    } else if (tries < YIELDS) {
        sched_yield();
    } else {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NANOSECONDS}, NULL);
    }
}

static bool is_done(const comm *c, pending *p)
{
    int done = 0;

    check(MPI_Test(&p->request, &done, MPI_STATUS_IGNORE), c, p->op.what, p->n_elem);
    return done;
}

static void wait_for(const comm *c, pending *p)
{
    if (!is_done(c, p)) {
        watch_enter(&p->op, WATCH_WAITS);
        for (int64_t tries = 0; !is_done(c, p); tries++) step_aside(tries);
    }
    watch_enter(&p->op, WATCH_ENDED);
}

/* What an operation needs from here to its end.  `peer`: of a message; else -1. */
static pending *pending_take(const comm *c, const char *what, int peer, size_t n_elem, dtype dt)
{
    mpi_comm *m = c->impl;
    pending *p = m->idle;

    if (p)
        m->idle = p->next;
    else
        p = xmalloc(sizeof *p);
    p->out = NULL;
    p->op = (watch_op){what, c->axis, ++m->n_begun, (int64_t)n_elem, peer};
    p->n_elem = n_elem;
    p->dt = dt;
    watch_enter(&p->op, WATCH_BEGAN);
    return p;
}

static void pending_reserve(pending *p, size_t n_bytes)
{
    if (n_bytes <= p->parts_bytes) return;
    free(p->parts);
    p->parts = xmalloc(n_bytes);
    p->parts_bytes = n_bytes;
}

static comm_request started(const comm *c, pending *p, const char *what)
{
    return (comm_request){.impl = {p}, .on = c, .what = what};
}

static void end_mpi(comm_request *r)
{
    const comm *c = r->on;
    pending *p = r->impl[0];
    mpi_comm *m = c->impl;

    wait_for(c, p);
    if (p->out) reduce_parts(p->out, p->parts, c->size, p->n_elem, p->dt);
    p->next = m->idle;
    m->idle = p;
    *r = (comm_request){0};
}

static MPI_Datatype type_of(dtype dt)
{
    switch (dt) {
    case DT_F32: return MPI_FLOAT;
    case DT_BF16:
    case DT_F16: return MPI_UINT16_T;         /* carried as bits; their sums have operators of their own */
    case DT_F64: return MPI_DOUBLE;
    case DT_I32: return MPI_INT32_T;
    case DT_U8: return MPI_UINT8_T;
    }
    die("no MPI type for dtype %d", (int)dt);
}

/* n_elem elements as an MPI count and type.  Beyond what a count holds, one derived type is the whole span; it may be
 * freed as soon as the operation has begun. */
typedef struct span {
    MPI_Datatype type;
    int count;
    bool derived;
} span;

static span span_of(const comm *c, size_t n_elem, dtype dt)
{
    size_t limit = comm_mpi_max_count;
    MPI_Datatype base = type_of(dt), types[2] = {MPI_DATATYPE_NULL, base};
    span s = {base, (int)n_elem, false};

    if (n_elem <= limit) return s;
    int lengths[2] = {(int)(n_elem / limit), (int)(n_elem % limit)};
    MPI_Aint at[2] = {0, (MPI_Aint)(n_elem / limit * limit * dtype_size(dt))};
    check(MPI_Type_contiguous((int)limit, base, &types[0]), c, "type", n_elem);
    check(MPI_Type_create_struct(2, lengths, at, types, &s.type), c, "type", n_elem);
    check(MPI_Type_commit(&s.type), c, "type", n_elem);
    CHECK_MPI(MPI_Type_free(&types[0]));
    s.count = 1;
    s.derived = true;
    return s;
}

static void span_free(span *s)
{
    if (s->derived) CHECK_MPI(MPI_Type_free(&s->type));
}

static MPI_Comm handle_of(const comm *c) { return ((mpi_comm *)c->impl)->handle; }

static void copy_alone(void *out, const void *in, size_t n_elem, dtype dt)
{
    if (out != in) memcpy(out, in, n_elem * dtype_size(dt));
}

static comm_request all_gather_mpi(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    static const char what[] = "all_gather";

    if (n_elem == 0) return (comm_request){0};
    if (c->size == 1) return copy_alone(out, in, n_elem, dt), (comm_request){0};
    span s = span_of(c, n_elem, dt);
    pending *p = pending_take(c, what, -1, n_elem, dt);
    bool in_place = (const char *)out + (size_t)c->rank * n_elem * dtype_size(dt) == in;
    check(
        MPI_Iallgather(in_place ? MPI_IN_PLACE : in, s.count, s.type, out, s.count, s.type, handle_of(c), &p->request),
        c, what, n_elem);
    span_free(&s);
    return started(c, p, what);
}

static comm_request reduce_scatter_mpi(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    static const char what[] = "reduce_scatter";

    if (n_elem == 0) return (comm_request){0};
    if (c->size == 1) return copy_alone(out, in, n_elem, dt), (comm_request){0};
    span s = span_of(c, n_elem, dt);
    pending *p = pending_take(c, what, -1, n_elem, dt);
    pending_reserve(p, (size_t)c->size * n_elem * dtype_size(dt));
    p->out = out;
    check(MPI_Ialltoall(in, s.count, s.type, p->parts, s.count, s.type, handle_of(c), &p->request), c, what, n_elem);
    span_free(&s);
    return started(c, p, what);
}

static void op_sum_bf16(void *x, void *acc, int *n, MPI_Datatype *t) { (void)t, reduce_sum_bf16(acc, x, (size_t)*n); }
static void op_max_bf16(void *x, void *acc, int *n, MPI_Datatype *t) { (void)t, reduce_max_bf16(acc, x, (size_t)*n); }
static void op_sum_f16(void *x, void *acc, int *n, MPI_Datatype *t) { (void)t, reduce_sum_f16(acc, x, (size_t)*n); }
static void op_max_f16(void *x, void *acc, int *n, MPI_Datatype *t) { (void)t, reduce_max_f16(acc, x, (size_t)*n); }

/* Own operators are made at their first use and live as long as MPI. */
static MPI_Op op_of(dtype dt, reduce_op op)
{
    static MPI_Op own[2][2];
    static bool made;
    static MPI_User_function *const function[2][2] = {{op_sum_bf16, op_max_bf16}, {op_sum_f16, op_max_f16}};

    if (dt != DT_BF16 && dt != DT_F16) return op == REDUCE_SUM ? MPI_SUM : MPI_MAX;
    for (int i = 0; i < 4 && !made; i++)
        CHECK_MPI(MPI_Op_create(function[i / 2][i % 2], 1, &own[i / 2][i % 2]));
    made = true;
    return own[dt == DT_F16][op == REDUCE_MAX];
}

static comm_request all_reduce_mpi(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    static const char what[] = "all_reduce";

    if (n_elem == 0 || c->size == 1) return (comm_request){0};
    pending *p = pending_take(c, what, -1, n_elem, dt);
    for (size_t at = 0; at < n_elem; at += comm_mpi_max_count) {
        size_t left = n_elem - at, n = left < comm_mpi_max_count ? left : comm_mpi_max_count;
        if (at > 0) wait_for(c, p);   /* operators take no derived types: piece by piece */
        check(MPI_Iallreduce(MPI_IN_PLACE, (char *)buf + at * dtype_size(dt), (int)n, type_of(dt), op_of(dt, op),
                             handle_of(c), &p->request), c, what, n_elem);
    }
    return started(c, p, what);
}

static comm_request broadcast_mpi(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    static const char what[] = "broadcast";

    if (n_elem == 0 || c->size == 1) return (comm_request){0};
    span s = span_of(c, n_elem, dt);
    pending *p = pending_take(c, what, -1, n_elem, dt);
    check(MPI_Ibcast(buf, s.count, s.type, root, handle_of(c), &p->request), c, what, n_elem);
    span_free(&s);
    return started(c, p, what);
}

static comm_request send_mpi(const comm *c, const void *buf, size_t n_elem, dtype dt, int to, int lane)
{
    static const char what[] = "send";

    if (n_elem == 0) return (comm_request){0};
    CHECK(to >= 0 && to < c->size && to != c->rank, "send over axis %s (rank %d of %d) to rank %d", c->axis, c->rank,
          c->size, to);
    span s = span_of(c, n_elem, dt);
    pending *p = pending_take(c, what, to, n_elem, dt);
    check(MPI_Isend(buf, s.count, s.type, to, lane, handle_of(c), &p->request), c, what, n_elem);
    span_free(&s);
    return started(c, p, what);
}

static comm_request recv_mpi(const comm *c, void *buf, size_t n_elem, dtype dt, int from, int lane)
{
    static const char what[] = "recv";

    if (n_elem == 0) return (comm_request){0};
    CHECK(from >= 0 && from < c->size && from != c->rank, "recv over axis %s (rank %d of %d) from rank %d", c->axis,
          c->rank, c->size, from);
    span s = span_of(c, n_elem, dt);
    pending *p = pending_take(c, what, from, n_elem, dt);
    check(MPI_Irecv(buf, s.count, s.type, from, lane, handle_of(c), &p->request), c, what, n_elem);
    span_free(&s);
    return started(c, p, what);
}

static void free_mpi(comm *c)
{
    mpi_comm *m = c->impl;

    if (m) {
        for (pending *p = m->idle, *next; p; p = next) {
            next = p->next;
            free(p->parts);
            free(p);
        }
        CHECK_MPI(MPI_Comm_free(&m->handle));
        free(m);
    }
    *c = (comm){0};
}

const comm_ops comm_ops_mpi = {
    .name = "mpi",
    .all_gather = all_gather_mpi,
    .reduce_scatter = reduce_scatter_mpi,
    .all_reduce = all_reduce_mpi,
    .broadcast = broadcast_mpi,
    .send = send_mpi,
    .recv = recv_mpi,
    .end = end_mpi,
    .free = free_mpi,
};

comm comm_mpi_split(int color, int key, const char *axis)
{
    comm c = {.ops = &comm_ops_mpi, .axis = axis, .rank = 0, .size = 1};
    MPI_Comm handle;

    check(MPI_Comm_split(MPI_COMM_WORLD, color < 0 ? MPI_UNDEFINED : color, key, &handle), &c, "split", 0);
    if (handle == MPI_COMM_NULL) return c;
    CHECK_MPI(MPI_Comm_rank(handle, &c.rank));
    CHECK_MPI(MPI_Comm_size(handle, &c.size));
    if (c.size == 1) {                        /* does no communication, so needs no communicator */
        CHECK_MPI(MPI_Comm_free(&handle));
        return c;
    }
    mpi_comm *m = xmalloc(sizeof *m);
    m->handle = handle;
    c.impl = m;
    return c;
}
