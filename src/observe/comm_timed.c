/* comm_timed.c: see comm_timed.h */
#include "src/observe/comm_timed.h"

#include <stdlib.h>

/* A collective between its begin and its end; kept on a list of the comm when idle. */
typedef struct pending {
    struct pending *next;
    comm_request inner;
    int event;
} pending;

typedef struct timed_comm {
    const comm *inner;
    timeline *line;
    pending *idle;
} timed_comm;

/* The begin of a collective, in two halves around the real one. */
typedef struct start {
    timed_comm *t;
    int event, own;                           /* on the lane of the axis; the host's work on the compute lane, or -1 */
} start;

static start begin(const comm *c, const char *what, size_t n_elem, dtype dt)
{
    timed_comm *t = c->impl;
    timed_event e = {.name = what, .axis = c->axis, .family = FAMILY_COLLECTIVE, .shape = {(int64_t)n_elem}, .dt = dt,
                     .work = (double)n_elem * (double)dtype_size(dt)};
    start s = {t, timeline_begin(t->line, e), -1};

    e.family = FAMILY_EXPOSED;
    if (!t->line->clock->asynchronous) s.own = timeline_begin(t->line, e);
    t->line->clock->range(what);
    return s;
}

static comm_request started(const comm *c, start s, comm_request inner)
{
    timed_comm *t = s.t;
    pending *p = t->idle;

    t->line->clock->range(NULL);
    if (s.own >= 0) timeline_end(t->line, s.own, NULL);
    if (inner.stream || !inner.on) timeline_end(t->line, s.event, inner.stream);
    if (!inner.on) return inner;
    if (p)
        t->idle = p->next;
    else
        p = xmalloc(sizeof *p);
    *p = (pending){.inner = inner, .event = s.event};
    return (comm_request){.impl = {p}, .on = c, .what = inner.what, .stream = inner.stream};
}

static void end_timed(comm_request *r)
{
    timed_comm *t = r->on->impl;
    pending *p = r->impl[0];
    const int wait = timeline_begin(t->line, (timed_event){.name = r->what, .axis = r->on->axis,
                                                           .family = FAMILY_EXPOSED, .wait = true});

    comm_end(&p->inner);
    timeline_end(t->line, wait, NULL);
    if (!r->stream) timeline_end(t->line, p->event, NULL);
    p->next = t->idle;
    t->idle = p;
    *r = (comm_request){0};
}

static const comm *inner_of(const comm *c) { return ((timed_comm *)c->impl)->inner; }

static comm_request all_gather_timed(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    start s = begin(c, "all_gather", n_elem, dt);
    return started(c, s, all_gather_begin(inner_of(c), out, in, n_elem, dt));
}

static comm_request reduce_scatter_timed(const comm *c, void *out, const void *in, size_t n_elem, dtype dt)
{
    start s = begin(c, "reduce_scatter", n_elem, dt);
    return started(c, s, reduce_scatter_begin(inner_of(c), out, in, n_elem, dt));
}

static comm_request all_reduce_timed(const comm *c, void *buf, size_t n_elem, dtype dt, reduce_op op)
{
    start s = begin(c, "all_reduce", n_elem, dt);
    return started(c, s, all_reduce_begin(inner_of(c), buf, n_elem, dt, op));
}

static comm_request broadcast_timed(const comm *c, void *buf, size_t n_elem, dtype dt, int root)
{
    start s = begin(c, "broadcast", n_elem, dt);
    return started(c, s, broadcast_begin(inner_of(c), buf, n_elem, dt, root));
}

static comm_request send_timed(const comm *c, const void *buf, size_t n_elem, dtype dt, int to, int lane)
{
    start s = begin(c, "send", n_elem, dt);
    return started(c, s, send_begin(inner_of(c), buf, n_elem, dt, to, lane));
}

static comm_request recv_timed(const comm *c, void *buf, size_t n_elem, dtype dt, int from, int lane)
{
    start s = begin(c, "recv", n_elem, dt);
    return started(c, s, recv_begin(inner_of(c), buf, n_elem, dt, from, lane));
}

static void free_timed(comm *c)
{
    timed_comm *t = c->impl;

    for (pending *p = t->idle, *next; p; p = next) {
        next = p->next;
        free(p);
    }
    free(t);
    *c = (comm){0};
}

static const comm_ops comm_ops_timed = {
    .name = "timed",
    .all_gather = all_gather_timed,
    .reduce_scatter = reduce_scatter_timed,
    .all_reduce = all_reduce_timed,
    .broadcast = broadcast_timed,
    .send = send_timed,
    .recv = recv_timed,
    .end = end_timed,
    .free = free_timed,
};

comm comm_timed(const comm *inner, timeline *line)
{
    timed_comm *t = xmalloc(sizeof *t);

    *t = (timed_comm){.inner = inner, .line = line};
    return (comm){.ops = &comm_ops_timed, .axis = inner->axis, .rank = inner->rank, .size = inner->size, .impl = t};
}
