/* Causal grouped-query attention, its backward, and decoding over a cache, against fp64; -d names the device.  On a GPU
 * each implementation runs. */
#include "src/base/rng.h"
#include "tests/lib/battery.h"

static bool on_tensor_cores; /* may 16-bit types be computed there? */

/* Tensor cores take weights, and the gradients of scores, rounded to the type of q: the error, of the largest value. */
static double rounded_weights(dtype dt)
{
    if (!on_tensor_cores || dt == DT_F32) return 0.0;
    return dt == DT_BF16 ? 0x1p-9 : 0x1p-12;
}

typedef struct attend_problem {
    head_shape s;
    const attend_segment *segments;
    int n_segments;
    int64_t n_rows, n_keys;                   /* of q, and of k and v */
    const double *q, *k, *v, *datt;
} attend_problem;

static int64_t q_width(const attend_problem *p) { return p->s.n_heads * p->s.head_dim; }
static int64_t k_width(const attend_problem *p) { return p->s.n_kv_heads * p->s.head_dim; }
static int64_t kv_col(const attend_problem *p, int64_t h)
{
    return h / (p->s.n_heads / p->s.n_kv_heads) * p->s.head_dim;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0.0;
    for (int64_t j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

/* The keys that query i of a segment sees. */
static int64_t n_seen(attend_segment g, int64_t i) { return g.n_keys - g.n_rows + i + 1; }

/* Weights of query i of a segment on the keys up to its own; returns the log-sum-exp. */
static double weights_of(const attend_problem *p, attend_segment g, int64_t i, int64_t h, double *weight)
{
    int64_t d = p->s.head_dim, row = g.row + i, n = n_seen(g, i);
    double max = -INFINITY, sum = 0.0;

    for (int64_t j = 0; j < n; j++) {
        weight[j] =
            p->s.scale * dot(p->q + row * q_width(p) + h * d, p->k + (g.key + j) * k_width(p) + kv_col(p, h), d);
        max = fmax(max, weight[j]);
    }
    for (int64_t j = 0; j < n; j++) sum += weight[j] = exp(weight[j] - max);
    for (int64_t j = 0; j < n; j++) weight[j] /= sum;
    return max + log(sum);
}

/* Its row of att; weight is room for a sequence.  Returns the log-sum-exp. */
static double attend_row(const attend_problem *p, attend_segment g, int64_t i, int64_t h, double *weight, double *att)
{
    int64_t d = p->s.head_dim;
    double *out = att + (g.row + i) * q_width(p) + h * d, total = weights_of(p, g, i, h, weight);

    for (int64_t c = 0; c < d; c++) out[c] = 0.0;
    for (int64_t j = 0; j < n_seen(g, i); j++)
        for (int64_t c = 0; c < d; c++) out[c] += weight[j] * p->v[(g.key + j) * k_width(p) + kv_col(p, h) + c];
    return total;
}

static void attend_reference(const attend_problem *p, double *att, double *lse)
{
    double *weight = doubles(p->n_keys);

    for (int i = 0; i < p->n_segments; i++) {
        const attend_segment g = p->segments[i];
        for (int64_t at = 0; at < g.n_rows; at++)
            for (int64_t h = 0; h < p->s.n_heads; h++) {
                double total = attend_row(p, g, at, h, weight, att);
                if (lse) lse[g.row * p->s.n_heads + h * g.n_rows + at] = total;
            }
    }
    free(weight);
}

/* att: what the device is given, rounded to its dtype */
static void row_backward(const attend_problem *p, attend_segment g, int64_t i, const double *att, double *dq,
                         double *dk, double *dv, double *weight)
{
    int64_t d = p->s.head_dim;

    for (int64_t h = 0; h < p->s.n_heads; h++) {
        int64_t at = (g.row + i) * q_width(p) + h * d;
        weights_of(p, g, i, h, weight);
        for (int64_t j = 0; j < n_seen(g, i); j++) {
            int64_t kv = (g.key + j) * k_width(p) + kv_col(p, h);
            double dweight = dot(p->datt + at, p->v + kv, d) - dot(p->datt + at, att + at, d),
                   ds = p->s.scale * weight[j] * dweight;
            for (int64_t c = 0; c < d; c++) {
                dv[kv + c] += weight[j] * p->datt[at + c];
                dq[at + c] += ds * p->k[kv + c];
                dk[kv + c] += ds * p->q[at + c];
            }
        }
    }
}

static void attend_backward_reference(const attend_problem *p, const double *att, double *dq, double *dk, double *dv)
{
    double *weight = doubles(p->n_keys);

    for (int i = 0; i < p->n_segments; i++)
        for (int64_t at = 0; at < p->segments[i].n_rows; at++)
            row_backward(p, p->segments[i], at, att, dq, dk, dv, weight);
    free(weight);
}

static double attend_loss(const void *problem)
{
    const attend_problem *p = problem;
    int64_t n = p->n_rows * q_width(p);
    double *att = doubles(n);
    attend_reference(p, att, NULL);
    double sum = dot(att, p->datt, n);
    free(att);
    return sum;
}

static double *scaled_randoms(int64_t n, double scale)
{
    double *x = random_doubles(n);
    for (int64_t i = 0; i < n; i++) x[i] *= scale;
    return x;
}

/* Of segments that differ a device may give lse by rows. */
static void order_by_rows(double *lse, const attend_problem *p)
{
    const int64_t heads = p->s.n_heads;
    double *by_heads = doubles(p->n_rows * heads);

    memcpy(by_heads, lse, (size_t)(p->n_rows * heads) * sizeof *lse);
    for (int i = 0; i < p->n_segments; i++) {
        const attend_segment g = p->segments[i];
        for (int64_t row = 0; row < g.n_rows; row++)
            for (int64_t h = 0; h < heads; h++)
                lse[(g.row + row) * heads + h] = by_heads[g.row * heads + h * g.n_rows + row];
    }
    free(by_heads);
}

static double farthest(field *f, const double *x, int64_t n)
{
    double most = 0;

    field_fetch(f);
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(field_at(f, 0, i) - x[i]));
    return most;
}

/* Rows of no segment are padding.  q and k are views of one matrix, as in the model. */
static void check_segments(dtype dt, head_shape s, const attend_segment *segments, int n_segments, int64_t all,
                           int64_t keys, double spread, bool strided, const char *what)
{
    double tolerance =
        2e-6 * fmax(1.0, spread / 4.0) + rounded_weights(dt); /* exp turns absolute errors into relative */
    int64_t qw = s.n_heads * s.head_dim, kw = s.n_kv_heads * s.head_dim, n_lse = all * s.n_heads;
    double *start = scaled_randoms(all * qw, spread), *ref = doubles(all * qw), *ref_lse = doubles(n_lse);
    field q = field_make("q", dt, all, qw, strided, start), k = field_random("k", dt, keys, kw, strided),
          v = field_random("v", dt, keys, kw, strided);
    field datt = field_random("datt", dt, all, qw, strided);
    field att = field_output("att", dt, all, qw, strided), lse = field_make("lse", DT_F32, 1, n_lse, false, ref_lse);
    field dq = field_output("dq", dt, all, qw, strided), dk = field_output("dk", dt, keys, kw, strided),
          dv = field_output("dv", dt, keys, kw, strided);
    attend_problem p = {s, segments, n_segments, all, keys, q.v, k.v, v.v, datt.v};
    double *ref_dq = doubles(all * qw), *ref_dk = doubles(keys * kw), *ref_dv = doubles(keys * kw);
    attend_args a = {att.t, lse.t.data, q.t, k.t, v.t, s, segments, n_segments};

    attend_reference(&p, ref, ref_lse);
    attend_backward_reference(&p, ref, ref_dq, ref_dk, ref_dv);
    if (all <= 40 && keys <= 40) {
        ok_gradient(attend_loss, &p, q.v, all * qw, ref_dq, "attention's reference dq");
        ok_gradient(attend_loss, &p, k.v, keys * kw, ref_dk, "attention's reference dk");
        ok_gradient(attend_loss, &p, v.v, keys * kw, ref_dv, "attention's reference dv");
    }
    TWICE(dut.ops->attend(dut.dev, &a), &att, &lse);
    ok_field(&att, ref, tolerance, what);
    double *by_rows = doubles(n_lse);
    memcpy(by_rows, ref_lse, (size_t)n_lse * sizeof *by_rows);
    order_by_rows(by_rows, &p);
    if (farthest(&lse, by_rows, n_lse) < farthest(&lse, ref_lse, n_lse))
        memcpy(ref_lse, by_rows, (size_t)n_lse * sizeof *by_rows);
    free(by_rows);
    ok_field(&lse, ref_lse, 1e-6, what);

    field att_given = field_make("att", dt, all, qw, strided, ref),
          lse_given = field_make("lse", DT_F32, 1, n_lse, false, ref_lse);
    memset(ref_dq, 0, (size_t)(all * qw) * sizeof *ref_dq);
    memset(ref_dk, 0, (size_t)(keys * kw) * sizeof *ref_dk);
    memset(ref_dv, 0, (size_t)(keys * kw) * sizeof *ref_dv);
    attend_backward_reference(&p, att_given.v, ref_dq, ref_dk, ref_dv);
    a.att = att_given.t, a.lse = lse_given.t.data;
    TWICE(dut.ops->attend_backward(dut.dev, &a, dq.t, dk.t, dv.t, datt.t), &dq, &dk, &dv);
    ok_field(&dq, ref_dq, 3.0 * tolerance, what);
    ok_field(&dk, ref_dk, 3.0 * tolerance, what);
    ok_field(&dv, ref_dv, 3.0 * tolerance, what);
    FREE(&q, &k, &v, &datt, &att, &lse, &dq, &dk, &dv, &att_given, &lse_given);
    free(start), free(ref), free(ref_lse), free(ref_dq), free(ref_dk), free(ref_dv);
}

/* Sequences of one length; `padding` rows follow the last. */
static void check_attend(dtype dt, attend_shape s, int64_t padding, double spread, bool strided)
{
    attend_segment segments[8];
    char what[96];

    CHECK(s.batch <= 8, "%lld sequences", (long long)s.batch);
    for (int i = 0; i < s.batch; i++) segments[i] = attend_whole(i * s.seq_len, s.seq_len);
    snprintf(what, sizeof what, "attend %lld x %lld, heads %lld:%lld, d %lld, padding %lld", (long long)s.batch,
             (long long)s.seq_len, (long long)s.n_heads, (long long)s.n_kv_heads, (long long)s.head_dim,
             (long long)padding);
    check_segments(dt, (head_shape){s.n_heads, s.n_kv_heads, s.head_dim, s.scale}, segments, (int)s.batch,
                   s.batch * s.seq_len + padding, s.batch * s.seq_len + padding, spread, strided, what);
}

/* Documents of any lengths, some rows between them of none. */
static void check_documents(dtype dt, head_shape s, int64_t rows, uint64_t seed, bool strided)
{
    enum { MOST = 300 };
    attend_segment segments[MOST];
    char what[96];
    int n = 0;

    for (int64_t at = 0, draw = 0; at < rows && n < MOST; draw++) {
        const double u = rng_uniform(seed, (uint64_t)draw);
        const int64_t length = min_i64(rows - at, u < 0.3 ? 1 : u < 0.5 ? 2 : (int64_t)(u * u * 150) + 1);
        if (rng_uniform(seed + 1, (uint64_t)draw) < 0.85) segments[n++] = attend_whole(at, length);
        at += length;
    }
    snprintf(what, sizeof what, "attend %d documents in %lld rows, heads %lld:%lld, d %lld", n, (long long)rows,
             (long long)s.n_heads, (long long)s.n_kv_heads, (long long)s.head_dim);
    check_segments(dt, s, segments, n, rows, rows, 1.0, strided, what);
}

/* Queries of any place in sequences of other rows: segments see keys before their own, and share them. */
static void check_keys_beyond(dtype dt, head_shape s, int64_t rows, int64_t keys, uint64_t seed, bool strided)
{
    enum { MOST = 60 };
    attend_segment segments[MOST];
    char what[96];
    int n = 0;

    for (uint64_t at = 0, draw = 0; (int64_t)at < rows && n < MOST; draw++) {
        const double u = rng_uniform(seed, 3 * draw), w = rng_uniform(seed, 3 * draw + 1);
        const int64_t most = min_i64(rows - (int64_t)at, keys),
                      length = min_i64(most, u < 0.3 ? 1 : (int64_t)(u * u * 150) + 1);
        const int64_t n_keys = length + (int64_t)(w * w * (double)(keys - length + 1));
        const int64_t key = (int64_t)(rng_uniform(seed, 3 * draw + 2) * (double)(keys - n_keys + 1));
        if (rng_uniform(seed + 1, draw) < 0.85) segments[n++] = (attend_segment){(int64_t)at, length, key, n_keys};
        at += (uint64_t)length;
    }
    snprintf(what, sizeof what, "attend %d segments of %lld rows in %lld keys, heads %lld:%lld, d %lld", n,
             (long long)rows, (long long)keys, (long long)s.n_heads, (long long)s.n_kv_heads, (long long)s.head_dim);
    check_segments(dt, s, segments, n, rows, keys, 1.0, strided, what);
}

/* Two chunks of a sample, the earlier part of whose keys both see, and as many of the next; no segments at all. */
static void check_chunks(dtype dt, head_shape s, int64_t chunk, bool strided)
{
    const attend_segment chunks[] = {{0, chunk, chunk, 2 * chunk},         {chunk, chunk, 0, 3 * chunk},
                                     {2 * chunk, chunk, 5 * chunk, chunk}, {3 * chunk, chunk, 4 * chunk, 4 * chunk}};

    check_segments(dt, s, chunks, 4, 4 * chunk + 3, 8 * chunk, 1.0, strided, "attend chunks of two samples");
    check_segments(dt, s, NULL, 0, 5, 7, 1.0, strided, "attend nothing");
}

/* Rows one at a time give the bits that they gave together. */
static void check_rows_alone(field *att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                             const int32_t *pos, int64_t max_len, head_shape s)
{
    field_fetch(att);
    memcpy(att->kept, att->now, att->n_bytes);
    field_restart(att);
    for (int64_t i = 0; i < q.rows; i++)
        dut.ops->attend_cached(dut.dev, tensor_rows(att->t, i, 1), tensor_rows(q, i, 1), k_cache, v_cache, seq + i,
                               pos + i, max_len, s);
    field_fetch(att);
    ok(memcmp(att->now, att->kept, att->n_bytes) == 0, "attend_cached: a row alone has the bits it has among others");
}

/* Queries at several positions of three sequences, more of them from the second's beginning on; their keys are appended
 * first, the rest of the cache is kept. */
static void check_cached(dtype dt, head_shape s, int32_t max_len, int n_rows, bool strided)
{
    enum { N_SEQUENCES = 3, N_APART = 5, MAX_ROWS = 200 };
    const int32_t last = max_len - 1, middle = max_len * 7 / 10;
    int32_t seq[MAX_ROWS] = {2, 0, 1, 0, 0}, pos[MAX_ROWS] = {0, middle, last, middle + 1, middle + 2};
    int64_t qw = s.n_heads * s.head_dim, kw = s.n_kv_heads * s.head_dim;
    for (int i = N_APART; i < n_rows; i++) seq[i] = 1, pos[i] = i - N_APART;
    field q = field_random("q", dt, n_rows, qw, strided), k = field_random("k", dt, n_rows, kw, strided),
          v = field_random("v", dt, n_rows, kw, strided);
    field k_cache = field_random("k_cache", dt, N_SEQUENCES * max_len, kw, strided),
          v_cache = field_random("v_cache", dt, N_SEQUENCES * max_len, kw, strided);
    field att = field_output("att", dt, n_rows, qw, strided);
    int32_t *seq_d = to_device(seq, sizeof seq), *pos_d = to_device(pos, sizeof pos);
    double *ref = doubles(n_rows * qw), *whole_q = doubles(max_len * qw), *whole_att = doubles(max_len * qw),
           *weight = doubles(max_len);

    for (int i = 0; i < n_rows; i++) {
        memcpy(k_cache.v + (seq[i] * max_len + pos[i]) * kw, k.v + i * kw, (size_t)kw * sizeof(double));
        memcpy(v_cache.v + (seq[i] * max_len + pos[i]) * kw, v.v + i * kw, (size_t)kw * sizeof(double));
    }
    for (int i = 0; i < n_rows; i++) { /* the last row of the row's sequence up to there */
        attend_problem p = {.s = s, .n_rows = max_len, .n_keys = max_len, .q = whole_q,
                            .k = k_cache.v + seq[i] * max_len * kw, .v = v_cache.v + seq[i] * max_len * kw};
        memcpy(whole_q + pos[i] * qw, q.v + i * qw, (size_t)qw * sizeof(double));
        for (int64_t h = 0; h < s.n_heads; h++) attend_row(&p, attend_whole(0, max_len), pos[i], h, weight, whole_att);
        memcpy(ref + i * qw, whole_att + pos[i] * qw, (size_t)qw * sizeof(double));
    }
    dut.ops->kv_append(dut.dev, k_cache.t, v_cache.t, k.t, v.t, seq_d, pos_d, max_len);
    ok_field(&k_cache, k_cache.v, 0.0, "kv_append");
    ok_field(&v_cache, v_cache.v, 0.0, "kv_append");
    TWICE(dut.ops->attend_cached(dut.dev, att.t, q.t, k_cache.t, v_cache.t, seq_d, pos_d, max_len, s), &att);
    ok_field(&att, ref, 2e-6 + rounded_weights(dt), "attend_cached");
    check_rows_alone(&att, q.t, k_cache.t, v_cache.t, seq_d, pos_d, max_len, s);
    FREE(&q, &k, &v, &k_cache, &v_cache, &att);
    dut.ops->free(dut.dev, seq_d), dut.ops->free(dut.dev, pos_d);
    free(ref), free(whole_q), free(whole_att), free(weight);
}

static void check_all(const dtype *types, int n_types)
{
    const head_shape crooked = {6, 3, 20, 0.3f}, wide = {14, 2, 128, 0.0884f}, many = {20, 1, 64, 0.125f},
                     groups = {34, 2, 24, 0.204f}, narrow = {4, 2, 80, 0.112f}, widest = {2, 1, 256, 0.0625f};

    for (int strided = 0; strided < 2; strided++) {
        for (int i = 0; i < n_types; i++) {
            check_attend(types[i], (attend_shape){1, 1, 1, 1, 8, 0.35f}, 0, 1.0, strided);
            check_attend(types[i], (attend_shape){2, 17, 4, 2, 16, 0.25f}, 3, 1.0, strided);
            check_attend(types[i], (attend_shape){1, 96, 2, 2, 32, 0.177f}, 0, 1.0, strided);
            check_attend(types[i], (attend_shape){2, 201, 7, 1, 24, 0.204f}, 6, 1.0, strided);
            check_attend(types[i], (attend_shape){1, 300, 3, 1, 64, 0.125f}, 0, 40.0,
                         strided); /* weights near 0 and 1 */
            check_attend(types[i], (attend_shape){2, 259, 6, 2, 128, 0.0884f}, 1, 4.0, strided);
            check_attend(types[i], (attend_shape){1, 128, 2, 1, 80, 0.112f}, 0, 1.0, strided);
            check_attend(types[i], (attend_shape){2, 50, 4, 2, 20, 0.224f}, 1, 1.0, strided); /* not by tiles */
            check_attend(types[i], (attend_shape){1, 50, 2, 1, 256, 0.0625f}, 0, 1.0, strided);
            check_documents(types[i], (head_shape){2, 1, 8, 0.35f}, 33, 1, strided);
            check_documents(types[i], (head_shape){6, 2, 64, 0.125f}, 400, 5, strided);
            check_documents(types[i], (head_shape){2, 2, 20, 0.224f}, 150, 9, strided);       /* not by tiles */
            check_cached(types[i], crooked, 100, 5, strided);
            check_cached(types[i], wide, 1000, 5, strided);
            check_cached(types[i], groups, 100, 5, strided);
            check_cached(types[i], narrow, 300, 5, strided);
            check_cached(types[i], widest, 40, 5, strided);
        }
    }
    for (int i = 0; i < n_types; i++) check_cached(types[i], many, 9000, 200, false); /* two launches on a GPU */
    fields_crooked = true;                                    /* not by cuDNN, nor by tiles */
    for (int i = 0; i < n_types; i++) {
        check_attend(types[i], (attend_shape){2, 65, 4, 2, 64, 0.125f}, 1, 1.0, true);
        check_cached(types[i], wide, 100, 5, true);
    }
    fields_crooked = false;
}

/* What the context axis asks for; on the CPU alone. */
static void check_beyond(void)
{
    static const dtype types[] = {DT_F32, DT_BF16, DT_F16};

    for (int strided = 0; strided < 2; strided++)
        for (int i = 0; i < 3; i++) {
            check_keys_beyond(types[i], (head_shape){2, 1, 8, 0.35f}, 12, 33, 1, strided);
            check_keys_beyond(types[i], (head_shape){6, 2, 64, 0.125f}, 400, 700, 5, strided);
            check_keys_beyond(types[i], (head_shape){2, 2, 20, 0.224f}, 300, 150, 9, strided);
            check_chunks(types[i], (head_shape){4, 2, 16, 0.25f}, 1, strided);
            check_chunks(types[i], (head_shape){7, 1, 24, 0.204f}, 97, strided);
            check_chunks(types[i], (head_shape){3, 3, 32, 0.177f}, 192, strided);
        }
}

int main(int argc, char **argv)
{
    static const dtype types[] = {DT_F32, DT_BF16, DT_F16};

    battery_open_device(battery_device(argc, argv), true); /* so that cuDNN, too, gives the same bits twice */
    if (dut.ops == &ops_cpu) check_all(types, 2);
    if (dut.ops == &ops_cpu) check_beyond();
#ifdef MOAI_CUDA
    static const struct {
        const char *name;
        attend_choice choice;
    } all[] = {{"plain", ATTEND_PLAIN}, {"own", ATTEND_OWN}, {"auto", ATTEND_AUTO}};

    for (int i = 0; i < 3 && dut.ops == &ops_cuda; i++) {
        attend_use_cuda(dut.dev, all[i].choice);
        on_tensor_cores = all[i].choice != ATTEND_PLAIN;
        check_all(types, 3);
        printf("# %s: the last by %s\n", all[i].name, attend_backend_cuda(dut.dev));
    }
#endif
    return battery_done();
}
