/* ops_timed.c: see ops_timed.h.  The words of ops.def's events: shape, and FLOPs or bytes moved. */
#include "src/observe/ops_timed.h"

static double bytes(tensor t) { return t.data ? (double)tensor_n_elem(t) * (double)dtype_size(t.dt) : 0; }

/* Of a product, with `depth` the sum's length. */
static timed_event product(tensor y, int64_t depth)
{
    return (timed_event){.family = FAMILY_PRODUCTS, .shape = {y.rows, y.cols, depth}, .dt = y.dt,
                         .work = 2.0 * (double)y.rows * (double)y.cols * (double)depth};
}

/* Two products over half the positions (causal) in the forward, five in the backward. */
static timed_event attention(const attend_args *a, int n_products)
{
    double pairs = 0;
    int64_t longest = 0;

    for (int i = 0; i < a->n_segments; i++) {
        const int64_t n = a->segments[i].n_rows, n_keys = a->segments[i].n_keys;
        pairs += (double)a->heads.n_heads * (double)n * ((double)n_keys - (double)n / 2);
        longest = max_i64(longest, n_keys);
    }
    return (timed_event){.family = FAMILY_ATTENTION, .shape = {a->att.rows, a->att.cols, longest}, .dt = a->att.dt,
                         .work = 2.0 * pairs * (double)a->heads.head_dim * n_products};
}

static timed_event rows_of(event_family family, tensor x, double n_bytes)
{
    return (timed_event){.family = family, .shape = {x.rows, x.cols}, .dt = x.dt, .work = n_bytes};
}

static timed_event flat(event_family family, int64_t n, dtype dt, double n_bytes)
{
    return (timed_event){.family = family, .shape = {n}, .dt = dt, .work = n_bytes};
}

static int begin(timed_device *t, const char *name, timed_event e)
{
    e.name = name;
    t->line->clock->range(name);
    return timeline_begin(t->line, e);
}

static void end(timed_device *t, int event)
{
    timeline_end(t->line, event, NULL);
    t->line->clock->range(NULL);
}

static void *alloc_timed(moai_device *d, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    return t->ops->alloc(t->dev, n_bytes);
}

static void *alloc_host_timed(moai_device *d, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    return t->ops->alloc_host(t->dev, n_bytes);
}

static void free_host_timed(moai_device *d, void *p, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    t->ops->free_host(t->dev, p, n_bytes);
}

static void free_timed(moai_device *d, void *p)
{
    timed_device *t = (timed_device *)d;
    t->ops->free(t->dev, p);
}

static void sync_timed(moai_device *d)
{
    timed_device *t = (timed_device *)d;
    t->ops->sync(t->dev);
}

static void phase_timed(moai_device *d, const char *name, int number)
{
    timed_device *t = (timed_device *)d;
    timeline_phase(t->line, name, number);
    t->ops->phase(t->dev, name, number);
}

/* Arguments in brackets, (d, y, x), without the device. */
#define BEHIND(d, ...) __VA_ARGS__
#define REQUIRED(op, parameters, arguments, event)     \
    static void op##_timed parameters                  \
    {                                                  \
        timed_device *t = (timed_device *)d;           \
        const int noted = begin(t, #op, event);        \
        t->ops->op(t->dev, BEHIND arguments);          \
        end(t, noted);                                 \
    }
#include "src/ops/ops.def"

const moai_ops ops_timed = {
    .name = "timed",
    .alloc = alloc_timed,
    .free = free_timed,
    .alloc_host = alloc_host_timed,
    .free_host = free_host_timed,
    .sync = sync_timed,
    .phase = phase_timed,
#define REQUIRED(op, ...) .op = op##_timed,
#include "src/ops/ops.def"
};
