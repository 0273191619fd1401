/* ops_timed.c: see ops_timed.h.  A line an op: what its event says (shape, and FLOPs or bytes moved), and the call. */
#include "src/observe/ops_timed.h"

static double bytes(tensor t) { return t.data ? (double)tensor_n_elem(t) * (double)dtype_size(t.dt) : 0; }

/* Of a product, with `depth` the sum's length. */
static timed_event product(tensor y, int64_t depth)
{
    return (timed_event){.family = FAMILY_PRODUCTS, .shape = {y.rows, y.cols, depth}, .dt = y.dt,
                         .work = 2.0 * (double)y.rows * (double)y.cols * (double)depth};
}

/* Two products over half the positions (causal) in the forward, five in the backward. */
static timed_event attention(tensor att, attend_shape s, int n_products)
{
    const double pairs = (double)s.batch * (double)s.n_heads * (double)s.seq_len * (double)s.seq_len / 2;

    return (timed_event){.family = FAMILY_ATTENTION, .shape = {att.rows, att.cols, s.seq_len}, .dt = att.dt,
                         .work = 2.0 * pairs * (double)s.head_dim * n_products};
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

/* op_timed: the op's parameters in brackets, its event, the arguments it is forwarded with. */
#define FORWARD(op, parameters, event, ...)            \
    static void op##_timed parameters                  \
    {                                                  \
        timed_device *t = (timed_device *)d;           \
        const int noted = begin(t, #op, event);        \
        t->ops->op(t->dev, __VA_ARGS__);               \
        end(t, noted);                                 \
    }
typedef moai_device device;

static void *alloc_timed(device *d, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    return t->ops->alloc(t->dev, n_bytes);
}

static void *alloc_host_timed(device *d, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    return t->ops->alloc_host(t->dev, n_bytes);
}

static void free_host_timed(device *d, void *p, size_t n_bytes)
{
    timed_device *t = (timed_device *)d;
    t->ops->free_host(t->dev, p, n_bytes);
}

static void free_timed(device *d, void *p)
{
    timed_device *t = (timed_device *)d;
    t->ops->free(t->dev, p);
}

static void sync_timed(device *d)
{
    timed_device *t = (timed_device *)d;
    t->ops->sync(t->dev);
}

static void phase_timed(device *d, const char *name, int number)
{
    timed_device *t = (timed_device *)d;
    timeline_phase(t->line, name, number);
    t->ops->phase(t->dev, name, number);
}

FORWARD(copy, (device *d, void *dst, const void *src, size_t n, copy_kind kind),
        flat(FAMILY_MEMORY, (int64_t)n, DT_U8, (double)n * (kind == COPY_ON_DEVICE ? 2 : 1)), dst, src, n, kind)
FORWARD(zero, (device *d, void *p, size_t n), flat(FAMILY_MEMORY, (int64_t)n, DT_U8, (double)n), p, n)

FORWARD(cast, (device *d, tensor y, tensor x), rows_of(FAMILY_ELEMENTWISE, y, bytes(y) + bytes(x)), y, x)
FORWARD(add, (device *d, tensor y, tensor a, tensor b), rows_of(FAMILY_ELEMENTWISE, y, 3 * bytes(y)), y, a, b)
FORWARD(fill, (device *d, tensor y, float value), rows_of(FAMILY_ELEMENTWISE, y, bytes(y)), y, value)
FORWARD(fill_normal,
        (device *d, tensor y, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols, float std),
        rows_of(FAMILY_ELEMENTWISE, y, bytes(y)), y, key, row0, col0, global_cols, std)

FORWARD(matmul, (device *d, tensor y, tensor x, tensor w), product(y, x.cols), y, x, w)
FORWARD(matmul_add, (device *d, tensor y, tensor x, tensor w, tensor z), product(y, x.cols), y, x, w, z)
FORWARD(matmul_dx, (device *d, tensor dx, tensor dy, tensor w), product(dx, dy.cols), dx, dy, w)
FORWARD(matmul_dw, (device *d, tensor dw, tensor dy, tensor x, bool accumulate), product(dw, x.rows), dw, dy, x,
        accumulate)

FORWARD(embed, (device *d, tensor y, const int32_t *ids, tensor table, int64_t vocab_begin),
        rows_of(FAMILY_EMBEDDING, y, 2 * bytes(y)), y, ids, table, vocab_begin)
FORWARD(embed_backward, (device *d, tensor dtable, const int32_t *ids, tensor dy, int64_t vocab_begin),
        rows_of(FAMILY_EMBEDDING, dy, bytes(dy) + 8.0 * (double)tensor_n_elem(dy)), dtable, ids, dy, vocab_begin)

FORWARD(rmsnorm, (device *d, tensor n, float *r, tensor x, tensor w, float eps),
        rows_of(FAMILY_RMSNORM, x, 2 * bytes(x)), n, r, x, w, eps)
FORWARD(residual_rmsnorm, (device *d, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps),
        rows_of(FAMILY_RMSNORM, x, 4 * bytes(x)), h, n, r, x, o, w, eps)
FORWARD(rmsnorm_backward,
        (device *d, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r, tensor w),
        rows_of(FAMILY_RMSNORM, x, 3 * bytes(x) + bytes(dres)), dx, dw, dn, dres, x, r, w)

FORWARD(qknorm_rope,
        (device *d, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
         const int32_t *positions, attend_shape s, float eps),
        rows_of(FAMILY_QKNORM_ROPE, qk, 2 * bytes(qk)), qk, r, qkv, q_norm, k_norm, rope, positions, s, eps)
FORWARD(qknorm_rope_backward,
        (device *d, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv, const float *r,
         tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions, attend_shape s),
        rows_of(FAMILY_QKNORM_ROPE, dqk, 3 * bytes(dqk)), dqkv, dq_norm, dk_norm, dqk, qkv, r, q_norm, k_norm, rope,
        positions, s)

FORWARD(attend, (device *d, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s),
        attention(att, s, 2), att, lse, q, k, v, s)
FORWARD(attend_backward,
        (device *d, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v, tensor att,
         const float *lse, attend_shape s),
        attention(att, s, 5), dq, dk, dv, datt, q, k, v, att, lse, s)
FORWARD(kv_append,
        (device *d, tensor k_cache, tensor v_cache, tensor k, tensor v, const int32_t *seq, const int32_t *pos,
         int64_t max_len),
        rows_of(FAMILY_ATTENTION, k, 2 * (bytes(k) + bytes(v))), k_cache, v_cache, k, v, seq, pos, max_len)
FORWARD(attend_cached,
        (device *d, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq, const int32_t *pos,
         int64_t max_len, attend_shape s),
        rows_of(FAMILY_ATTENTION, att, 0), att, q, k_cache, v_cache, seq, pos, max_len, s)

FORWARD(swiglu, (device *d, tensor act, tensor gate_up), rows_of(FAMILY_SWIGLU, act, 3 * bytes(act)), act, gate_up)
FORWARD(swiglu_backward, (device *d, tensor dgate_up, tensor act, tensor dact, tensor gate_up),
        rows_of(FAMILY_SWIGLU, dact, 5 * bytes(dact) + bytes(act)), dgate_up, act, dact, gate_up)

FORWARD(softmax_stats,
        (device *d, float *stats, tensor logits, const int32_t *targets, int64_t vocab_begin),
        rows_of(FAMILY_CROSS_ENTROPY, logits, bytes(logits)), stats, logits, targets, vocab_begin)
FORWARD(cross_entropy,
        (device *d, float *nll, tensor logits, const float *stats_all, int n_parts, const int32_t *targets,
         int64_t vocab_begin, float scale),
        rows_of(FAMILY_CROSS_ENTROPY, logits, scale != 0 ? 2 * bytes(logits) : 0), nll, logits, stats_all, n_parts,
        targets, vocab_begin, scale)

FORWARD(sample, (device *d, int32_t *ids, tensor logits, const double *u, sample_options how),
        rows_of(FAMILY_CROSS_ENTROPY, logits, bytes(logits)), ids, logits, u, how)

FORWARD(sum, (device *d, double *acc, const float *x, int64_t n),
        flat(FAMILY_CROSS_ENTROPY, n, DT_F32, 4.0 * (double)n), acc, x, n)
FORWARD(sum_squares, (device *d, double *acc, const float *x, int64_t n),
        flat(FAMILY_OPTIMIZER, n, DT_F32, 4.0 * (double)n), acc, x, n)
FORWARD(clip, (device *d, float *grad_scale, const double *sumsq, float max_norm, float unscale),
        flat(FAMILY_OPTIMIZER, 1, DT_F32, 0), grad_scale, sumsq, max_norm, unscale)
/* master, m and v are read and written, the gradient read, the parameter written */
FORWARD(adamw, (device *d, const adamw_args *a),
        flat(FAMILY_OPTIMIZER, a->n, DT_F32,
             (double)a->n * (28 + (a->param == a->master ? 0 : (double)dtype_size(a->param_dt)))), a)

const moai_ops ops_timed = {
    .name = "timed",
    .alloc = alloc_timed,
    .free = free_timed,
    .alloc_host = alloc_host_timed,
    .free_host = free_host_timed,
    .copy = copy_timed,
    .zero = zero_timed,
    .sync = sync_timed,
    .phase = phase_timed,
    .cast = cast_timed,
    .add = add_timed,
    .fill = fill_timed,
    .fill_normal = fill_normal_timed,
    .matmul = matmul_timed,
    .matmul_add = matmul_add_timed,
    .matmul_dx = matmul_dx_timed,
    .matmul_dw = matmul_dw_timed,
    .embed = embed_timed,
    .embed_backward = embed_backward_timed,
    .rmsnorm = rmsnorm_timed,
    .residual_rmsnorm = residual_rmsnorm_timed,
    .rmsnorm_backward = rmsnorm_backward_timed,
    .qknorm_rope = qknorm_rope_timed,
    .qknorm_rope_backward = qknorm_rope_backward_timed,
    .attend = attend_timed,
    .attend_backward = attend_backward_timed,
    .kv_append = kv_append_timed,
    .attend_cached = attend_cached_timed,
    .swiglu = swiglu_timed,
    .swiglu_backward = swiglu_backward_timed,
    .softmax_stats = softmax_stats_timed,
    .cross_entropy = cross_entropy_timed,
    .sample = sample_timed,
    .sum = sum_timed,
    .sum_squares = sum_squares_timed,
    .clip = clip_timed,
    .adamw = adamw_timed,
};
