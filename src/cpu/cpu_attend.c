/* cpu_attend.c: causal grouped-query attention, tile by tile (arXiv 2205.14135, 2307.08691).
 *
 * With S = scale Q K^T masked to keys at or before the query, P = softmax(S) by rows, O = P V:
 *     dV = P^T dO;  dP = dO V^T;  dS = P (dP - rowsum(dO O));  dQ = scale dS K;  dK = scale dS^T Q
 * Only TILE x TILE pieces of S and P exist; the backward makes P again from the saved log-sum-exp.  T queries and
 * U >= T keys of one (sequence, head), of which query i sees the first U - T + i + 1; d = head_dim; columns of fp32
 * copies are padded with zeros to a multiple of TILE_COLS. */
#include "src/cpu/cpu.h"
#include "src/cpu/cpu_tile.h"

enum { TILE = 96 };                           /* queries and keys of a tile: a multiple of TILE_ROWS and TILE_COLS */

typedef struct attend_dims {
    int64_t t, u, d, group;                   /* queries, keys, head_dim, q heads per kv head */
    int64_t lead;                             /* U - T: keys before the first query's own */
    int64_t t_padded, u_padded, d_padded;
    int64_t n_items, n_kv_items;              /* batch * heads, batch * kv heads */
} attend_dims;

static attend_dims dims_of(const attend_shape *s, int64_t n_keys)
{
    return (attend_dims){
        .t = s->seq_len,
        .u = n_keys,
        .d = s->head_dim,
        .group = s->n_heads / s->n_kv_heads,
        .lead = n_keys - s->seq_len,
        .t_padded = round_up(s->seq_len, TILE_COLS),
        .u_padded = round_up(n_keys, TILE_COLS),
        .d_padded = round_up(s->head_dim, TILE_COLS),
        .n_items = s->batch * s->n_heads,
        .n_kv_items = s->batch * s->n_kv_heads,
    };
}

/* Head `head` of sequence `batch`: (T, d) of queries, (U, d) of keys */
static tensor head_view(tensor t, int64_t batch, int64_t head, const attend_dims *n)
{
    return tensor_rows(tensor_cols(t, head * n->d, n->d), batch * n->t, n->t);
}
static tensor key_view(tensor t, int64_t batch, int64_t head, const attend_dims *n)
{
    return tensor_rows(tensor_cols(t, head * n->d, n->d), batch * n->u, n->u);
}

/* How many of the keys [key, key + n_keys) does query i see? */
static int64_t n_seen(const attend_dims *n, int64_t i, int64_t key, int64_t n_keys)
{
    return max_i64(0, min_i64(n_keys, n->lead + i - key + 1));
}

/* -- fp32 copies -- */

/* rows (x.rows, d_padded) = factor x */
static void pack_rows(float *rows, tensor x, float factor, int64_t d_padded)
{
    for (int64_t i = 0; i < x.rows; i++) {
        float *row = rows + i * d_padded;
        const float *xi = row_load(x, i, row);
        for (int64_t j = 0; j < x.cols; j++) row[j] = factor * xi[j];
        for (int64_t j = x.cols; j < d_padded; j++) row[j] = 0.0f;
    }
}

/* cols (d, u_padded) = rows^T, rows (U, d_padded) */
static void pack_transposed(float *cols, const float *rows, const attend_dims *n)
{
    for (int64_t j = 0; j < n->d; j++) {
        float *col = cols + j * n->u_padded;
        for (int64_t i = 0; i < n->u; i++) col[i] = rows[i * n->d_padded + j];
        for (int64_t i = n->u; i < n->u_padded; i++) col[i] = 0.0f;
    }
}

/* -- forward -- */

typedef struct softmax_state {
    float max[TILE], sum[TILE];
} softmax_state;

/* Row i of S becomes exp(S - max), masked columns 0; the running max and sum move on, O's row is rescaled to them. */
static void softmax_row(float *s, int64_t n_valid, int64_t n_cols, softmax_state *run, int64_t i, float *o,
                        int64_t d_padded)
{
    float max = run->max[i];

    #pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < n_valid; j++) max = s[j] > max ? s[j] : max;
    #pragma omp simd
    for (int64_t j = 0; j < n_valid; j++) s[j] = exp_fast(s[j] - max);
    for (int64_t j = n_valid; j < n_cols; j++) s[j] = 0.0f;
    if (max > run->max[i]) {
        float shrink = exp_fast(run->max[i] - max);           /* 0 at the first tile */
        run->sum[i] *= shrink;
        for (int64_t j = 0; j < d_padded; j++) o[j] *= shrink;
    }
    run->max[i] = max;
    run->sum[i] += tile_row_sum(s, n_cols);
}

/* Floats that one thread needs for forward_tile: Q, S, O. */
static int64_t forward_floats(const attend_dims *n) { return TILE * (2 * n->d_padded + TILE); }

/* Queries [first, first + rows of the tile) of one head.  kt (d, u_padded), v (U, d_padded). */
static void forward_tile(tensor att, float *lse, tensor q, const float *kt, const float *v, int64_t first, float scale,
                         const attend_dims *n, float *buf)
{
    int64_t rows = min_i64(TILE, n->t - first), dp = n->d_padded;
    float *qs = buf, *s = qs + TILE * dp, *o = s + TILE * TILE;
    softmax_state run;

    pack_rows(qs, tensor_rows(q, first, rows), scale, dp);
    memset(o, 0, (size_t)(rows * dp) * sizeof(float));
    for (int64_t i = 0; i < rows; i++) run.max[i] = -INFINITY, run.sum[i] = 0.0f;

    for (int64_t key = 0, end = n->lead + first + rows; key < end; key += TILE) {
        int64_t n_keys = min_i64(TILE, end - key), n_cols = round_up(n_keys, TILE_COLS);
        tile_product(rows, n_cols, n->d, (tile_operand){qs, dp, 1}, kt + key, n->u_padded, s, TILE, false);
        for (int64_t i = 0; i < rows; i++)
            softmax_row(s + i * TILE, n_seen(n, first + i, key, n_keys), n_cols, &run, i, o + i * dp, dp);
        tile_product(rows, dp, n_keys, (tile_operand){s, TILE, 1}, v + key * dp, dp, o, dp, true);
    }
    for (int64_t i = 0; i < rows; i++) {
        float *out = row_target(att, first + i, o + i * dp), whole = 1.0f / run.sum[i];
        for (int64_t j = 0; j < n->d; j++) out[j] = o[i * dp + j] * whole;
        row_store(att, first + i, out);
        lse[first + i] = run.max[i] + logf(run.sum[i]);
    }
}

static void attend_sequences(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v,
                             attend_shape shape, int64_t keys)
{
    attend_dims n = dims_of(&shape, keys);
    int64_t n_tiles = (n.t + TILE - 1) / TILE, kt_size = n.d * n.u_padded, v_size = n.u * n.d_padded;
    int64_t each = forward_floats(&n);
    float *kt = scratch_floats(dev, n.n_kv_items * (kt_size + v_size) + dev->n_threads * (each + v_size));
    float *v32 = kt + n.n_kv_items * kt_size, *thread_tiles = v32 + n.n_kv_items * v_size;
    float *thread_k = thread_tiles + dev->n_threads * each;

    #pragma omp parallel
    {
        float *k32 = thread_k + omp_get_thread_num() * v_size, *buf = thread_tiles + omp_get_thread_num() * each;

        #pragma omp for schedule(static)
        for (int64_t item = 0; item < n.n_kv_items; item++) {
            int64_t batch = item / shape.n_kv_heads, head = item % shape.n_kv_heads;
            pack_rows(k32, key_view(k, batch, head, &n), 1.0f, n.d_padded);
            pack_transposed(kt + item * kt_size, k32, &n);
            pack_rows(v32 + item * v_size, key_view(v, batch, head, &n), 1.0f, n.d_padded);
        }
        #pragma omp for schedule(dynamic)
        for (int64_t work = 0; work < n_tiles * n.n_items; work++) {
            int64_t tile = n_tiles - 1 - work / n.n_items, item = work % n.n_items;   /* the longest rows first */
            int64_t batch = item / shape.n_heads, head = item % shape.n_heads;
            int64_t kv = batch * shape.n_kv_heads + head / n.group;
            forward_tile(head_view(att, batch, head, &n), lse + item * n.t, head_view(q, batch, head, &n),
                         kt + kv * kt_size, v32 + kv * v_size, tile * TILE, shape.scale, &n, buf);
        }
    }
}

static void zero_gaps(tensor t, const attend_args *a)
{
    for (int i = 0; i <= a->n_segments; i++) {
        int64_t begin, end = attend_gap(a, i, &begin);
        if (end > begin) rows_zero(tensor_rows(t, begin, end - begin), 0);
    }
}

void attend_cpu(moai_device *dev, const attend_args *a)
{
    attend_args run;
    attend_shape s;

    for (int i = 0; i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        attend_sequences(dev, run.att, run.lse, run.q, run.k, run.v, s, run.segments->n_keys);
    }
    zero_gaps(a->att, a);
}

/* -- backward -- */

/* One kv head, shared by its group: K by rows, K and V by columns. */
typedef struct kv_pack {
    float *k, *kt, *vt;
} kv_pack;

static int64_t kv_floats(const attend_dims *n) { return n->u * n->d_padded + 2 * n->d * n->u_padded; }

static kv_pack kv_pack_at(float *base, const attend_dims *n)
{
    return (kv_pack){.k = base, .kt = base + n->u * n->d_padded, .vt = base + n->u * n->d_padded + n->d * n->u_padded};
}

/* What a thread holds of the head it works on: (T, d_padded) each, then delta (T) and two tiles. */
typedef struct head_work {
    float *q, *dout, *dq, *delta, *p, *ds;    /* q is scaled; dout is the gradient of att */
} head_work;

static int64_t head_floats(const attend_dims *n) { return 3 * n->t * n->d_padded + n->t_padded + 2 * TILE * TILE; }

static head_work head_work_at(float *base, const attend_dims *n)
{
    int64_t size = n->t * n->d_padded;
    float *tiles = base + 3 * size;
    return (head_work){base, base + size, base + 2 * size, tiles + 2 * TILE * TILE, tiles, tiles + TILE * TILE};
}

/* delta = rowsum(dO O) */
static void row_products(float *delta, const float *dout, tensor att, const attend_dims *n, float *buf)
{
    for (int64_t i = 0; i < n->t; i++) {
        const float *o = row_load(att, i, buf), *g = dout + i * n->d_padded;
        float sum = 0.0f;
        #pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < n->d; j++) sum += o[j] * g[j];
        delta[i] = sum;
    }
}

/* S to P and dP to dS, one row; columns past n_valid are 0 in both. */
static void backward_row(float *p, float *ds, int64_t n_valid, int64_t n_cols, float lse, float delta)
{
    #pragma omp simd
    for (int64_t j = 0; j < n_valid; j++) {
        p[j] = exp_fast(p[j] - lse);
        ds[j] = p[j] * (ds[j] - delta);
    }
    for (int64_t j = n_valid; j < n_cols; j++) p[j] = ds[j] = 0.0f;
}

/* Keys [key, ...) against the queries [first, ...): adds to dq, and to dk, dv, which are at row `key`. */
static void backward_tile(const head_work *w, const kv_pack *kv, float *dk, float *dv, const float *lse, int64_t first,
                          int64_t key, const attend_dims *n)
{
    int64_t rows = min_i64(TILE, n->t - first), n_keys = min_i64(TILE, n->u - key), dp = n->d_padded;
    int64_t n_cols = round_up(n_keys, TILE_COLS);
    const float *q = w->q + first * dp, *dout = w->dout + first * dp;

    tile_product(rows, n_cols, n->d, (tile_operand){q, dp, 1}, kv->kt + key, n->u_padded, w->p, TILE, false);
    tile_product(rows, n_cols, n->d, (tile_operand){dout, dp, 1}, kv->vt + key, n->u_padded, w->ds, TILE, false);
    for (int64_t i = 0; i < rows; i++)
        backward_row(w->p + i * TILE, w->ds + i * TILE, n_seen(n, first + i, key, n_keys), n_cols, lse[first + i],
                     w->delta[first + i]);
    tile_product(n_keys, dp, rows, (tile_operand){w->p, 1, TILE}, dout, dp, dv, dp, true);
    tile_product(n_keys, dp, rows, (tile_operand){w->ds, 1, TILE}, q, dp, dk, dp, true);
    tile_product(rows, dp, n_keys, (tile_operand){w->ds, TILE, 1}, kv->k + key * dp, dp, w->dq + first * dp, dp, true);
}

/* The first tile of queries of which one sees `key`. */
static int64_t first_tile(int64_t key, const attend_dims *n)
{
    return key > n->lead ? (key - n->lead) / TILE * TILE : 0;
}

/* One head: dq is stored; dk, dv (U, d_padded) fp32 wait for the other heads of the group. */
static void backward_head(tensor dq, float *dk, float *dv, tensor datt, tensor q, tensor att, const float *lse,
                          const kv_pack *kv, const head_work *w, float scale, const attend_dims *n)
{
    int64_t dp = n->d_padded;
    size_t n_bytes = (size_t)(n->t * dp) * sizeof(float), key_bytes = (size_t)(n->u * dp) * sizeof(float);

    pack_rows(w->q, q, scale, dp);
    pack_rows(w->dout, datt, 1.0f, dp);
    row_products(w->delta, w->dout, att, n, w->p);
    memset(w->dq, 0, n_bytes);
    memset(dk, 0, key_bytes);
    memset(dv, 0, key_bytes);
    for (int64_t key = 0; key < n->u; key += TILE)
        for (int64_t first = first_tile(key, n); first < n->t; first += TILE)
            backward_tile(w, kv, dk + key * dp, dv + key * dp, lse, first, key, n);
    for (int64_t i = 0; i < n->t; i++) {
        float *from = w->dq + i * dp, *to = row_target(dq, i, from);
        for (int64_t j = 0; j < n->d; j++) to[j] = scale * from[j];
        row_store(dq, i, to);
    }
}

/* grad (U, d) = the sum over the group's heads of parts[head] (U, d_padded), in their order; fp32 += if `adds` */
static void sum_group(tensor grad, bool adds, float *parts, int64_t part_size, const attend_dims *n)
{
    for (int64_t i = 0; i < n->u; i++) {
        float *sum = parts + i * n->d_padded;
        for (int64_t h = 1; h < n->group; h++) {
            const float *part = parts + h * part_size + i * n->d_padded;
            for (int64_t j = 0; j < n->d; j++) sum[j] += part[j];
        }
        float *at = adds ? tensor_at(grad, i, 0) : NULL;
        for (int64_t j = 0; adds && j < n->d; j++) at[j] += sum[j];
        if (!adds) row_store(grad, i, sum);
    }
}

static int64_t backward_floats(const moai_device *dev, const attend_dims *n)
{
    return n->n_kv_items * kv_floats(n) + n->n_items * 2 * n->u * n->d_padded + dev->n_threads * head_floats(n);
}

/* Of a run's rows and keys: dq is written, and so are dk, dv, or if `adds` they are fp32 +=.  packs: room for
 * backward_floats. */
static void backward_sequences(float *packs, tensor dq, tensor dk, tensor dv, bool adds, tensor datt,
                               const attend_args *run, attend_shape shape)
{
    const tensor q = run->q, k = run->k, v = run->v, att = run->att;
    const float *lse = run->lse;
    attend_dims n = dims_of(&shape, run->segments->n_keys);
    int64_t kv_each = kv_floats(&n), head_each = head_floats(&n), size = n.u * n.d_padded;
    float *dk_parts = packs + n.n_kv_items * kv_each, *dv_parts = dk_parts + n.n_items * size;
    float *thread_work = dv_parts + n.n_items * size;

    #pragma omp parallel
    {
        head_work work = head_work_at(thread_work + omp_get_thread_num() * head_each, &n);

        #pragma omp for schedule(static)
        for (int64_t item = 0; item < n.n_kv_items; item++) {
            int64_t batch = item / shape.n_kv_heads, head = item % shape.n_kv_heads;
            kv_pack kv = kv_pack_at(packs + item * kv_each, &n);
            pack_rows(kv.k, key_view(v, batch, head, &n), 1.0f, n.d_padded);      /* V by rows only on the way */
            pack_transposed(kv.vt, kv.k, &n);
            pack_rows(kv.k, key_view(k, batch, head, &n), 1.0f, n.d_padded);
            pack_transposed(kv.kt, kv.k, &n);
        }
        #pragma omp for schedule(dynamic)
        for (int64_t item = 0; item < n.n_items; item++) {
            int64_t batch = item / shape.n_heads, head = item % shape.n_heads;
            kv_pack kv = kv_pack_at(packs + (batch * shape.n_kv_heads + head / n.group) * kv_each, &n);
            backward_head(head_view(dq, batch, head, &n), dk_parts + item * size, dv_parts + item * size,
                          head_view(datt, batch, head, &n), head_view(q, batch, head, &n),
                          head_view(att, batch, head, &n), lse + item * n.t, &kv, &work, shape.scale, &n);
        }
        #pragma omp for schedule(static)
        for (int64_t item = 0; item < n.n_kv_items; item++) {
            int64_t batch = item / shape.n_kv_heads, head = item % shape.n_kv_heads, first = item * n.group;
            sum_group(key_view(dk, batch, head, &n), adds, dk_parts + first * size, size, &n);
            sum_group(key_view(dv, batch, head, &n), adds, dv_parts + first * size, size, &n);
        }
    }
}

static void backward_whole(moai_device *dev, const attend_args *a, tensor dq, tensor dk, tensor dv, tensor datt)
{
    attend_args run;
    attend_shape s;

    for (int i = 0; i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        const int64_t row = a->segments[i].row, n = run.att.rows;
        const attend_dims dims = dims_of(&s, run.segments->n_keys);
        backward_sequences(scratch_floats(dev, backward_floats(dev, &dims)), tensor_rows(dq, row, n),
                           tensor_rows(dk, row, n), tensor_rows(dv, row, n), false, tensor_rows(datt, row, n), &run, s);
    }
    zero_gaps(dk, a);
    zero_gaps(dv, a);
}

/* Keys that several segments share: dk and dv (M, K) are summed in fp32. */
static void backward_shared(moai_device *dev, const attend_args *a, tensor dq, tensor dk, tensor dv, tensor datt)
{
    const int64_t size = round_up(dk.rows * dk.cols, TILE_COLS);
    int64_t most = 0;
    attend_args run;
    attend_shape s;

    for (int i = 0; i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        const attend_dims n = dims_of(&s, run.segments->n_keys);
        most = max_i64(most, backward_floats(dev, &n));
    }
    float *sums = scratch_floats(dev, 2 * size + most);
    const tensor sum_k = tensor_of(sums, DT_F32, dk.rows, dk.cols),
                 sum_v = tensor_of(sums + size, DT_F32, dv.rows, dv.cols);
    memset(sums, 0, (size_t)(2 * size) * sizeof *sums);
    for (int i = 0; i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        const int64_t row = a->segments[i].row, n = run.att.rows, key = a->segments[i].key, n_keys = run.k.rows;
        backward_sequences(sums + 2 * size, tensor_rows(dq, row, n), tensor_rows(sum_k, key, n_keys),
                           tensor_rows(sum_v, key, n_keys), true, tensor_rows(datt, row, n), &run, s);
    }
    for (int64_t i = 0; i < dk.rows; i++) row_store(dk, i, tensor_at(sum_k, i, 0));
    for (int64_t i = 0; i < dv.rows; i++) row_store(dv, i, tensor_at(sum_v, i, 0));
}

void attend_backward_cpu(moai_device *dev, const attend_args *a, tensor dq, tensor dk, tensor dv, tensor datt)
{
    if (attend_is_whole(a))
        backward_whole(dev, a, dq, dk, dv, datt);
    else
        backward_shared(dev, a, dq, dk, dv, datt);
    zero_gaps(dq, a);
}
