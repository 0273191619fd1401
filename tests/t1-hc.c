/* Hyper-connections: coefficients, reading, merging, both at once, and their backwards, against fp64 formulas and
 * central differences of them; -d names the device. */
#include "tests/lib/battery.h"

/* One token in fp64. */
typedef struct token {
    hc_shape s;
    int64_t H;
    double *x, *raw, *base, *scale, *w, *y, *coef; /* w NULL: what is read is not normed; coef: of merging, or given */
    const double *fn, *dn, *dcoef, *dout;
} token;

static const double norm_eps = 1e-6;

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

static void softmax(double *p, const double *h, int64_t n)
{
    double most = h[0], sum = 0;

    for (int64_t k = 1; k < n; k++) most = fmax(most, h[k]);
    for (int64_t k = 0; k < n; k++) sum += p[k] = exp(h[k] - most);
    for (int64_t k = 0; k < n; k++) p[k] /= sum;
}

/* DeepSeek's: softmax first, then columns and rows by turns. */
static void sinkhorn(double *m, const double *h, hc_shape s)
{
    const int n = s.n;

    for (int i = 0; i < n; i++) softmax(m + i * n, h + i * n, n);
    for (int i = 0; i < n * n; i++) m[i] += s.eps;
    for (int step = 1; step < 2 * s.iters; step++)
        for (int a = 0; a < n; a++) {
            double sum = s.eps;
            for (int k = 0; k < n; k++) sum += step % 2 ? m[k * n + a] : m[a * n + k];
            for (int k = 0; k < n; k++) *(step % 2 ? &m[k * n + a] : &m[a * n + k]) /= sum;
        }
}

/* All orders of what is left, the least first. */
static void permute(double *m, const double *share, int64_t *at, int n, int stream, unsigned used, int *from)
{
    if (stream == n) {
        for (int j = 0; j < n; j++) m[from[j] * n + j] += share[*at];
        ++*at;
        return;
    }
    for (int i = 0; i < n; i++)
        if (!(used & 1u << i)) from[stream] = i, permute(m, share, at, n, stream + 1, used | 1u << i, from);
}

static double rms(const double *x, int64_t n, double eps)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
    return 1 / sqrt(sum / (double)n + eps);
}

static void coefficients(double *coef, const token *t)
{
    const int n = t->s.n;
    const int64_t n_raw = hc_n_raw(t->s), n_mixing = n_raw - 2 * n;
    const double r = rms(t->x, n * t->H, t->s.norm_eps);
    double *h = doubles(n_raw), *m = coef + 2 * n;
    int64_t at = 0;
    int from[HC_MOST_STREAMS];

    for (int64_t k = 0; k < n_raw; k++) h[k] = t->scale[k < n ? 0 : k < 2 * n ? 1 : 2] * r * t->raw[k] + t->base[k];
    for (int i = 0; i < n; i++) coef[i] = sigmoid(h[i]) + t->s.eps;
    for (int i = n; i < 2 * n && !t->s.reads_only; i++) coef[i] = 2 * sigmoid(h[i]);
    if (t->s.reads_only) {
        free(h);
        return;
    }
    if (t->s.permutes) {
        memset(m, 0, (size_t)(n * n) * sizeof *m);
        softmax(h + 2 * n, h + 2 * n, n_mixing);
        permute(m, h + 2 * n, &at, n, 0, 0, from);
    } else {
        sinkhorn(m, h + 2 * n, t->s);
    }
    free(h);
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

static void read_streams(double *u, const double *x, const double *pre, int n, int64_t H)
{
    for (int64_t c = 0; c < H; c++) {
        u[c] = 0;
        for (int i = 0; i < n; i++) u[c] += pre[i] * x[i * H + c];
    }
}

/* n = w u rn; returns rn */
static double norm(double *n, const double *u, const double *w, int64_t H)
{
    const double rn = rms(u, H, norm_eps);

    for (int64_t c = 0; c < H; c++) n[c] = w[c] * u[c] * rn;
    return rn;
}

/* raw = fn x */
static void map(double *raw, const double *fn, const double *x, int64_t n_raw, int64_t wide)
{
    for (int64_t k = 0; k < n_raw; k++) raw[k] = dot(fn + k * wide, x, wide);
}

static void merge(double *out, const double *x, const double *y, const double *coef, int n, int64_t H)
{
    for (int j = 0; j < n; j++)
        for (int64_t c = 0; c < H; c++) {
            out[j * H + c] = coef[n + j] * y[c];
            for (int i = 0; i < n; i++) out[j * H + c] += coef[2 * n + i * n + j] * x[i * H + c];
        }
}

/* <dn, norm(u)>, or <dn, u>, of what coef reads */
static double loss_of_coef(const token *t, const double *coef)
{
    double *u = doubles(t->H);

    read_streams(u, t->x, coef, t->s.n, t->H);
    if (t->w) norm(u, u, t->w, t->H);
    const double sum = dot(u, t->dn, t->H);
    free(u);
    return sum;
}

static double loss_of_reading(const void *problem)
{
    const token *t = problem;
    return loss_of_coef(t, t->coef);
}

/* and <dcoef, post and comb> */
static double loss_of_coefficients(const void *problem)
{
    const token *t = problem;
    const int n = t->s.n;
    double *coef = doubles(2 * n + n * n);

    coefficients(coef, t);
    const double sum = loss_of_coef(t, coef) + dot(coef + n, t->dcoef + n, hc_n_coef(t->s) - n);
    free(coef);
    return sum;
}

/* of raw = fn x */
static double loss_of_streams(const void *problem)
{
    token t = *(const token *)problem;

    t.raw = doubles(hc_n_raw(t.s));
    map(t.raw, t.fn, t.x, hc_n_raw(t.s), t.s.n * t.H);
    const double sum = loss_of_coefficients(&t);
    free(t.raw);
    return sum;
}

static double loss_of_merging(const void *problem)
{
    const token *t = problem;
    double *out = doubles(t->s.n * t->H);

    merge(out, t->x, t->y, t->coef, t->s.n, t->H);
    const double sum = dot(out, t->dout, t->s.n * t->H);
    free(out);
    return sum;
}

/* d loss / dx, of four points each. */
static void differences(double (*loss)(const void *), const token *t, double *x, int64_t n, double *grad)
{
    const double step = loss == loss_of_merging ? 1e-4 : 1e-6;  /* a norm of zeros multiplies by 1000 */

    for (int64_t i = 0; i < n; i++) {
        const double at = x[i];
        double moved[4];
        for (int k = 0; k < 4; k++) x[i] = at + step * (double[]){-2, -1, 1, 2}[k], moved[k] = loss(t);
        x[i] = at;
        grad[i] = (8 * (moved[2] - moved[1]) - (moved[3] - moved[0])) / (12 * step);
    }
}

typedef enum { ANY, EXTREME, EQUAL, ZERO, N_KINDS } kind;       /* logits of 60 and -60; all streams alike; none */
static const char *const kind_names[] = {"", ", extreme logits", ", equal streams", ", streams of zeros"};

static int64_t n_scales(hc_shape s) { return s.reads_only ? 1 : 3; }

static const char *mixing_name(hc_shape s)
{
    return s.reads_only ? "reading only" : s.permutes ? "permutations" : "Sinkhorn";
}

static field base_of(dtype dt, int64_t n_raw, kind k)
{
    double *values = random_doubles(n_raw);

    for (int64_t i = 0; k == EXTREME && i < n_raw; i++) values[i] = uniform(0, 1) < 0.5 ? 60 : -60;
    field f = field_make("base", dt, 1, n_raw, false, values);
    free(values);
    return f;
}

static field streams_of(dtype dt, int64_t rows, int n, int64_t H, bool strided, kind k)
{
    double *values = random_doubles(rows * n * H);

    for (int64_t i = 0; k == EQUAL && i < rows * n * H; i++) values[i] = values[i / (n * H) * n * H + i % H];
    if (k == ZERO) memset(values, 0, (size_t)(rows * n * H) * sizeof *values);
    field f = field_make("x", dt, rows, n * H, strided, values);
    free(values);
    return f;
}

/* What is stored is rounded once more than the result. */
/* Of many columns it is as small as leaves fn x of order 10. */
static field fn_of(dtype dt, int64_t n_raw, int64_t wide)
{
    double *values = random_doubles(n_raw * wide);

    for (int64_t i = 0; i < n_raw * wide; i++) values[i] *= fmin(1, sqrt(96 / (double)wide));
    field f = field_make("fn", dt, n_raw, wide, false, values);
    free(values);
    return f;
}

/* Of sums of so many products. */
static double summing(int64_t n) { return 1e-6 * fmax(1, sqrt((double)n / 96)); }

static double rounding(dtype dt) { return dt == DT_F32 ? 1e-5 : dt == DT_BF16 ? 0x1p-7 : 0x1p-10; }

/* The reference of hc_coefficients, from x (rows, nH). */
static void coefficients_of(double *coef, double *raw, double *r, const double *x, const field *fn, const field *base,
                            const field *scale, hc_shape s, int64_t rows)
{
    const int64_t n_raw = fn->t.rows, wide = fn->t.cols;

    for (int64_t i = 0; i < rows; i++) {
        const token t = {.s = s, .H = wide / s.n, .x = (double *)x + i * wide, .raw = raw + i * n_raw, .base = base->v,
                         .scale = scale->v};
        map(t.raw, fn->v, t.x, n_raw, wide);
        coefficients(coef + i * hc_n_coef(s), &t);
        r[i] = rms(t.x, wide, s.norm_eps);
    }
}

static void check_coefficients(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided, kind k)
{
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s);
    field x = streams_of(dt, rows, n, H, strided, k), base = base_of(dt, n_raw, k),
          fn = fn_of(dt, n_raw, n * H), scale = field_random("scale", dt, 1, n_scales(s), false),
          w = field_random("w", dt, 1, H, false), raw = field_output("raw", DT_F32, rows, n_raw, strided),
          coef = field_output("coef", DT_F32, rows, n_coef, strided), r = field_output("r", DT_F32, 1, rows, false),
          u = field_output("u", dt, rows, H, strided), n1 = field_output("n1", dt, rows, H, strided),
          rn = field_output("rn", DT_F32, 1, rows, false);
    double *ref = doubles(rows * n_coef), *ref_raw = doubles(rows * n_raw), *ref_r = doubles(rows),
           *ref_u = doubles(rows * H), *ref_n1 = doubles(rows * H), *ref_rn = doubles(rows);
    char what[96];

    snprintf(what, sizeof what, "%d streams, %s %d%s", n, mixing_name(s), s.iters,
             kind_names[k]);
    coefficients_of(ref, ref_raw, ref_r, x.v, &fn, &base, &scale, s, rows);
    TWICE(dut.ops->hc_coefficients(dut.dev, coef.t, raw.t, r.t.data, x.t, fn.t, base.t, scale.t, s), &coef, &raw, &r);
    ok_field(&raw, ref_raw, summing(n * H), what);
    ok_field(&coef, ref, 3 * summing(n * H), what);
    ok_field(&r, ref_r, 5e-7, what);
    for (int64_t i = 0; i < rows; i++) {      /* read with what the device has made */
        for (int64_t c = 0; c < n_coef; c++) ref[i * n_coef + c] = field_at(&coef, i, c);
        read_streams(ref_u + i * H, x.v + i * n * H, ref + i * n_coef, n, H);
        ref_rn[i] = norm(ref_n1 + i * H, ref_u + i * H, w.v, H);
    }
    TWICE(dut.ops->hc_read(dut.dev, u.t, x.t, coef.t, n), &u);
    ok_field(&u, ref_u, 1e-6, what);
    TWICE(dut.ops->hc_read_norm(dut.dev, n1.t, rn.t.data, x.t, coef.t, w.t, (float)norm_eps, n), &n1, &rn);
    ok_field(&n1, ref_n1, 1e-6, what);
    ok_field(&rn, ref_rn, 1e-6, what);
    FREE(&x, &base, &fn, &scale, &w, &raw, &coef, &r, &u, &n1, &rn);
    free(ref), free(ref_raw), free(ref_r), free(ref_u), free(ref_n1), free(ref_rn);
}

/* Of what is merged as it is stored. */
static void check_merged_coefficients(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided)
{
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), wide = n * H;
    field x = field_random("x", dt, rows, wide, strided), y = field_random("y", dt, rows, H, strided),
          merging = field_random("merging", DT_F32, rows, n_coef, strided), base = base_of(dt, n_raw, ANY),
          fn = fn_of(dt, n_raw, wide), scale = field_random("scale", dt, 1, 3, false),
          raw = field_output("raw", DT_F32, rows, n_raw, strided), out = field_output("out", dt, rows, wide, strided),
          coef = field_output("coef", DT_F32, rows, n_coef, strided), r = field_output("r", DT_F32, 1, rows, false),
          alone = field_output("alone", dt, rows, wide, strided);
    double *ref = doubles(rows * n_coef), *ref_raw = doubles(rows * n_raw), *ref_r = doubles(rows),
           *ref_out = doubles(rows * wide), *stored = doubles(rows * wide);
    char what[96];

    for (int64_t i = 0; i < rows; i++)
        merge(ref_out + i * wide, x.v + i * wide, y.v + i * H, merging.v + i * n_coef, n, H);
    TWICE(dut.ops->hc_merge(dut.dev, alone.t, x.t, y.t, merging.t, n), &alone);
    for (int in_place = 0; in_place < 2; in_place++) {
        field *to = in_place ? &x : &out;
        bool same = true;
        snprintf(what, sizeof what, "merged%s, %d streams, %s %d", in_place ? " in place" : "", n, mixing_name(s),
                 s.iters);
        TWICE(dut.ops->hc_merge_coefficients(dut.dev, to->t, coef.t, raw.t, r.t.data, x.t, y.t, merging.t, fn.t, base.t,
                                             scale.t, s), to, &coef, &raw, &r);
        ok_field(to, ref_out, 1e-6, what);
        for (int64_t i = 0; i < rows * wide; i++) {
            stored[i] = field_at(to, i / wide, i % wide);
            same = same && stored[i] == field_at(&alone, i / wide, i % wide);
        }
        ok(same, "%s: hc_merge's bits", what);
        coefficients_of(ref, ref_raw, ref_r, stored, &fn, &base, &scale, s, rows);
        ok_field(&raw, ref_raw, summing(wide), what);
        ok_field(&coef, ref, 3 * summing(wide), what);
        ok_field(&r, ref_r, 5e-7, what);
    }
    FREE(&x, &y, &merging, &base, &fn, &scale, &raw, &out, &coef, &r, &alone);
    free(ref), free(ref_raw), free(ref_r), free(ref_out), free(stored);
}

/* -- a reading on its way back -- */

typedef struct reading {
    char what[96];
    hc_shape s;
    bool is_normed;
    field x, fn, base, scale, w, dn, dcoef, coef, raw, r, rn; /* given */
    field draw, along, dw;                                    /* made */
    hc_reading call;
} reading;

static token token_of(const reading *a, int64_t i)
{
    const int64_t wide = a->x.t.cols;

    return (token){.s = a->s, .H = a->dn.t.cols, .x = a->x.v + i * wide, .raw = a->raw.v + i * a->raw.t.cols,
                   .base = a->base.v, .scale = a->scale.v, .w = a->is_normed ? a->w.v : NULL,
                   .coef = a->coef.v + i * a->coef.t.cols, .fn = a->fn.v, .dn = a->dn.v + i * a->dn.t.cols,
                   .dcoef = a->dcoef.v + i * a->dcoef.t.cols};
}

/* Its rows are apart by multiples of 8; what is behind n_raw stays zero. */
static field draw_of(dtype dt, int64_t rows, int64_t n_raw, bool strided)
{
    const int64_t cols = round_up(n_raw, 8);
    double *zeros = doubles(rows * cols);
    field f = field_make("draw", dt, rows, cols, strided, zeros);

    free(zeros);
    return f;
}

/* Of the streams x, which then belong to it. */
static reading reading_make(field x, hc_shape s, bool strided, kind k, bool is_normed)
{
    const dtype dt = x.t.dt;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), rows = x.t.rows, H = x.t.cols / s.n;
    double *coef = doubles(rows * n_coef), *raw = doubles(rows * n_raw), *r = doubles(rows), *rn = doubles(rows),
           *u = doubles(H);
    reading a = {.s = s, .is_normed = is_normed, .x = x, .base = base_of(dt, n_raw, k),
                 .fn = fn_of(dt, n_raw, s.n * H), .w = field_random("w", dt, 1, H, false),
                 .scale = field_random("scale", dt, 1, n_scales(s), false),
                 .dn = field_random("dn", dt, rows, H, strided),
                 .dcoef = field_random("dcoef", DT_F32, rows, n_coef, strided),
                 .draw = draw_of(dt, rows, n_raw, strided),
                 .along = field_output("along", DT_F32, rows, 2, strided),
                 .dw = field_random("dw", DT_F32, 1, H, false)};

    snprintf(a.what, sizeof a.what, "backward of %d streams, %s %d%s%s", s.n, mixing_name(s), s.iters, kind_names[k],
             is_normed ? "" : ", not normed");
    coefficients_of(coef, raw, r, x.v, &a.fn, &a.base, &a.scale, s, rows);
    for (int64_t i = 0; i < rows; i++) {
        read_streams(u, x.v + i * s.n * H, coef + i * n_coef, s.n, H);
        rn[i] = rms(u, H, norm_eps);
    }
    a.coef = field_make("coef", DT_F32, rows, n_coef, strided, coef);
    a.raw = field_make("raw", DT_F32, rows, n_raw, strided, raw);
    a.r = field_make("r", DT_F32, 1, rows, false, r);
    a.rn = field_make("rn", DT_F32, 1, rows, false, rn);
    a.call = (hc_reading){.dn = a.dn.t, .x = x.t, .coef = a.coef.t, .w = is_normed ? a.w.t : (tensor){0},
                          .rn = is_normed ? a.rn.t.data : NULL, .fn = a.fn.t, .draw = tensor_cols(a.draw.t, 0, n_raw),
                          .along = a.along.t};
    free(coef), free(raw), free(r), free(rn), free(u);
    return a;
}

static void reading_free(reading *a)
{
    FREE(&a->x, &a->fn, &a->base, &a->scale, &a->w, &a->dn, &a->dcoef, &a->coef, &a->raw, &a->r, &a->rn,
         &a->draw, &a->along, &a->dw);
}

/* hc_read_backward */
static void check_reading(reading *a)
{
    const hc_shape s = a->s;
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), rows = a->x.t.rows, H = a->dn.t.cols;
    field dbase = field_random("dbase", DT_F32, 1, n_raw, false),
          dscale = field_random("dscale", DT_F32, 1, n_scales(s), false);
    double *of_base = doubles(n_raw), *ref_draw = doubles(n_raw), *ref_draws = doubles(rows * a->draw.t.cols),
           *ref_along = doubles(rows * 2),
           *ref_dw = doubles(H), *ref_dcoef = doubles(rows * n_coef), *ref_dbase = doubles(n_raw),
           *ref_dscale = doubles(3), *of_row = doubles(H), *of_scale = doubles(3), *u = doubles(H);

    memcpy(ref_dbase, dbase.v, (size_t)n_raw * sizeof *ref_dbase);
    memcpy(ref_dscale, dscale.v, (size_t)n_scales(s) * sizeof *ref_dscale);
    memcpy(ref_dw, a->dw.v, (size_t)H * sizeof *ref_dw);
    memcpy(ref_dcoef, a->dcoef.v, (size_t)(rows * n_coef) * sizeof *ref_dcoef);
    for (int64_t i = 0; i < rows; i++) {
        token t = token_of(a, i);
        double *along = ref_along + 2 * i;
        differences(loss_of_coefficients, &t, t.base, n_raw, of_base);
        differences(loss_of_coefficients, &t, t.raw, n_raw, ref_draw);
        memcpy(ref_draws + i * a->draw.t.cols, ref_draw, (size_t)n_raw * sizeof *ref_draw);
        differences(loss_of_coefficients, &t, t.scale, n_scales(s), of_scale);
        differences(loss_of_reading, &t, t.coef, n, ref_dcoef + i * n_coef);
        for (int64_t c = 0; c < n_raw; c++) ref_dbase[c] += of_base[c];
        for (int g = 0; g < n_scales(s); g++) ref_dscale[g] += of_scale[g];
        along[0] = pow(rms(t.x, n * H, s.norm_eps), 2) / (double)(n * H) * dot(ref_draw, t.raw, n_raw);
        along[1] = 0;
        read_streams(u, t.x, t.coef, n, H);
        const double rn = rms(u, H, norm_eps);
        for (int64_t c = 0; c < H && t.w; c++) along[1] += pow(rn, 3) / (double)H * t.w[c] * t.dn[c] * u[c];
        if (t.w) differences(loss_of_reading, &t, t.w, H, of_row);
        for (int64_t c = 0; c < H && t.w; c++) ref_dw[c] += of_row[c];
    }
    TWICE(dut.ops->hc_read_backward(dut.dev, a->is_normed ? a->dw.t : (tensor){0}, dbase.t, dscale.t, a->dcoef.t,
                                    &a->call, a->raw.t, a->r.t.data, a->base.t, a->scale.t, s),
          &a->draw, &a->along, &a->dw, &a->dcoef, &dbase, &dscale);
    ok_field(&a->draw, ref_draws, 1e-5, a->what);
    ok_field(&a->along, ref_along, 1e-5, a->what);
    ok_field(&a->dw, ref_dw, 1e-5, a->what);
    ok_field(&a->dcoef, ref_dcoef, 1e-5, a->what);
    ok_field(&dbase, ref_dbase, 1e-5, a->what);
    ok_field(&dscale, ref_dscale, 1e-5, a->what);
    FREE(&dbase, &dscale);
    free(of_base), free(ref_draw), free(ref_draws), free(ref_along), free(ref_dw), free(ref_dcoef), free(ref_dbase),
        free(ref_dscale), free(of_row), free(of_scale), free(u);
}

/* dx (rows, nH) gains what comes through a reading that check_reading was given: differences of all of it, or, where
 * draw is rounded, those of the reading alone and what follows of the device's draw and along. */
static void add_streams_gradient(double *dx, reading *a)
{
    const int64_t wide = a->x.t.cols, n_raw = a->call.draw.cols;
    double *through = doubles(wide);

    field_fetch(&a->draw), field_fetch(&a->along);
    for (int64_t i = 0; i < a->x.t.rows; i++) {
        const token t = token_of(a, i);
        const bool is_exact = a->x.t.dt == DT_F32;
        differences(is_exact ? loss_of_streams : loss_of_reading, &t, t.x, wide, through);
        for (int64_t c = 0; c < wide; c++) {
            dx[i * wide + c] += through[c];
            if (is_exact) continue;
            dx[i * wide + c] -= field_at(&a->along, i, 0) * t.x[c];
            for (int64_t k = 0; k < n_raw; k++) dx[i * wide + c] += field_at(&a->draw, i, k) * t.fn[k * wide + c];
        }
    }
    free(through);
}

static void check_reading_backward(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided, kind k, bool is_normed)
{
    const int64_t wide = s.n * H;
    reading a = reading_make(streams_of(dt, rows, s.n, H, strided, k), s, strided, k, is_normed);
    field dx = field_random("dx", dt, rows, wide, strided);
    double *ref_dx = doubles(rows * wide);

    check_reading(&a);
    memcpy(ref_dx, dx.v, (size_t)(rows * wide) * sizeof *ref_dx);
    add_streams_gradient(ref_dx, &a);
    TWICE(dut.ops->hc_streams_backward(dut.dev, dx.t, &a.call, s.n), &dx);
    ok_field(&dx, ref_dx, rounding(dt), a.what);
    field_free(&dx);
    free(ref_dx);
    reading_free(&a);
}

/* The reading of streams that are merged of others. */
static void check_border_backward(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided, bool is_normed)
{
    const int n = s.n;
    const int64_t n_coef = 2 * n + n * n, wide = n * H;
    field x = field_random("x", dt, rows, wide, strided), y = field_random("y", dt, rows, H, strided),
          coef = field_random("coef", DT_F32, rows, n_coef, strided), dx = field_output("dx", dt, rows, wide, strided),
          dy = field_output("dy", dt, rows, H, strided), dcoef = field_random("dcoef", DT_F32, rows, n_coef, strided);
    double *merged = doubles(rows * wide), *dmerged = doubles(rows * wide), *ref_dx = doubles(rows * wide),
           *ref_dy = doubles(rows * H), *ref_dcoef = doubles(rows * n_coef);
    char what[112];

    dut.ops->hc_merge(dut.dev, dx.t, x.t, y.t, coef.t, n);     /* as the device rounds it */
    field_fetch(&dx);
    for (int64_t i = 0; i < rows * wide; i++) merged[i] = field_at(&dx, i / wide, i % wide);
    field_free(&dx);
    dx = field_random("dx", dt, rows, wide, strided);
    reading later = reading_make(field_make("merged", dt, rows, wide, strided, merged), s, strided, ANY, is_normed);
    snprintf(what, sizeof what, "border, %s", later.what);
    check_reading(&later);
    memcpy(dmerged, dx.v, (size_t)(rows * wide) * sizeof *dmerged);
    memcpy(ref_dcoef, dcoef.v, (size_t)(rows * n_coef) * sizeof *ref_dcoef);
    add_streams_gradient(dmerged, &later);
    for (int64_t i = 0; i < rows; i++) {
        const token t = {.s.n = n, .H = H, .x = x.v + i * wide, .y = y.v + i * H, .coef = coef.v + i * n_coef,
                         .dout = dmerged + i * wide};
        differences(loss_of_merging, &t, t.x, wide, ref_dx + i * wide);
        differences(loss_of_merging, &t, t.y, H, ref_dy + i * H);
        differences(loss_of_merging, &t, t.coef + n, n_coef - n, ref_dcoef + i * n_coef + n);
    }
    TWICE(dut.ops->hc_border_backward(dut.dev, dx.t, dy.t, dcoef.t, &later.call, x.t, y.t, coef.t, n), &dx, &dy,
          &dcoef);
    const double allowed = dt == DT_F32 ? rounding(dt) : 2 * rounding(dt); /* of a sum of what was rounded before */
    ok_field(&dx, ref_dx, allowed, what);
    ok_field(&dy, ref_dy, allowed, what);
    ok_field(&dcoef, ref_dcoef, allowed, what);
    FREE(&x, &y, &coef, &dx, &dy, &dcoef);
    reading_free(&later);
    free(merged), free(dmerged), free(ref_dx), free(ref_dy), free(ref_dcoef);
}

static void check_merge(dtype dt, int n, int64_t rows, int64_t H, bool strided)
{
    const int64_t n_coef = 2 * n + n * n, wide = n * H;
    field x = field_random("x", dt, rows, wide, strided), y = field_random("y", dt, rows, H, strided),
          coef = field_random("coef", DT_F32, rows, n_coef, strided),
          out = field_output("out", dt, rows, wide, strided), dout = field_random("dout", dt, rows, wide, strided),
          dx = field_output("dx", dt, rows, wide, strided), dy = field_output("dy", dt, rows, H, strided),
          dcoef = field_random("dcoef", DT_F32, rows, n_coef, strided);
    double *ref = doubles(rows * wide), *ref_dx = doubles(rows * wide), *ref_dy = doubles(rows * H),
           *ref_dcoef = doubles(rows * n_coef);
    char what[64];

    snprintf(what, sizeof what, "merging %d streams", n);
    memcpy(ref_dcoef, dcoef.v, (size_t)(rows * n_coef) * sizeof *ref_dcoef);
    for (int64_t i = 0; i < rows; i++) {
        token t = {.s.n = n, .H = H, .x = x.v + i * wide, .y = y.v + i * H, .coef = coef.v + i * n_coef,
                   .dout = dout.v + i * wide};
        merge(ref + i * wide, t.x, t.y, t.coef, n, H);
        differences(loss_of_merging, &t, t.x, wide, ref_dx + i * wide);
        differences(loss_of_merging, &t, t.y, H, ref_dy + i * H);
        differences(loss_of_merging, &t, t.coef + n, n_coef - n, ref_dcoef + i * n_coef + n);
    }
    TWICE(dut.ops->hc_merge(dut.dev, out.t, x.t, y.t, coef.t, n), &out);
    ok_field(&out, ref, 1e-6, what);
    TWICE(dut.ops->hc_merge_backward(dut.dev, dx.t, dy.t, dcoef.t, dout.t, x.t, y.t, coef.t, n), &dx, &dy, &dcoef);
    ok_field(&dx, ref_dx, 1e-6, what);
    ok_field(&dy, ref_dy, 1e-6, what);
    ok_field(&dcoef, ref_dcoef, 1e-6, what);
    TWICE(dut.ops->hc_merge_backward(dut.dev, dout.t, dy.t, dcoef.t, dout.t, x.t, y.t, coef.t, n), &dout, &dy, &dcoef);
    ok_field(&dout, ref_dx, 1e-6, "in place");
    ok_field(&dcoef, ref_dcoef, 1e-6, "in place");
    TWICE(dut.ops->hc_merge(dut.dev, x.t, x.t, y.t, coef.t, n), &x);
    ok_field(&x, ref, 1e-6, "in place");
    FREE(&x, &y, &coef, &out, &dout, &dx, &dy, &dcoef);
    free(ref), free(ref_dx), free(ref_dy), free(ref_dcoef);
}

/* The paper's (arXiv 2512.24880): of exp(L), T_r of T_c, R times, rows last; ours is that of L transposed. */
static void check_paper(int n, int iters)
{
    const hc_shape s = {.n = n, .iters = iters, .eps = 1e-12f, .norm_eps = 1e-6f};
    const int64_t n_raw = hc_n_raw(s);
    field x = field_random("x", DT_F32, 1, n * 4, false), fn = field_random("fn", DT_F32, n_raw, n * 4, false),
          raw = field_output("raw", DT_F32, 1, n_raw, false),
          base = field_random("base", DT_F32, 1, n_raw, false), scale = field_random("scale", DT_F32, 1, 3, false),
          coef = field_output("coef", DT_F32, 1, 2 * n + n * n, false), r = field_output("r", DT_F32, 1, 1, false);
    double *m = doubles(n * n), *h = doubles(n_raw), rr = rms(x.v, 4 * n, 1e-6), most = 0, rows = 0;

    map(h, fn.v, x.v, n_raw, n * 4);
    for (int i = 0; i < n; i++)               /* m[j][i] of L[i][j] */
        for (int j = 0; j < n; j++)
            m[j * n + i] = exp(scale.v[2] * rr * h[2 * n + i * n + j] + base.v[2 * n + i * n + j]);
    for (int step = 0; step < 2 * iters; step++)
        for (int a = 0; a < n; a++) {
            double sum = 0;
            for (int k = 0; k < n; k++) sum += step % 2 ? m[a * n + k] : m[k * n + a];
            for (int k = 0; k < n; k++) *(step % 2 ? &m[a * n + k] : &m[k * n + a]) /= sum;
        }
    dut.ops->hc_coefficients(dut.dev, coef.t, raw.t, r.t.data, x.t, fn.t, base.t, scale.t, s);
    field_fetch(&coef);
    for (int j = 0; j < n; j++) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            const double got = field_at(&coef, 0, 2 * n + i * n + j);
            most = fmax(most, fabs(got - m[j * n + i]));
            sum += got;
        }
        rows = fmax(rows, fabs(sum - 1));
    }
    ok(most < 1e-6 && rows < 1e-6, "%d streams, %d iterations: the paper's matrix to %.1e, what a stream gets adds to 1",
       n, iters, most);
    FREE(&x, &fn, &raw, &base, &scale, &coef, &r);
    free(m), free(h);
}

/* Rows and columns of more than one tile and strip of cuda/hc_border.cu, and of a part of one. */
static void check_borders(int n)
{
    for (int k = 0; k < 4; k++) {
        const dtype dt = k % 2 ? DT_F16 : DT_BF16;
        const hc_shape s = {.n = n, .permutes = k > 1, .iters = 3, .eps = 1e-6f, .norm_eps = 1e-6f};
        check_coefficients(dt, s, 37, 288, k == 1, ANY);
        check_merged_coefficients(dt, s, 37, 288, k == 2);
        check_reading_backward(dt, s, 21, 288, k == 1, ANY, true);
        check_border_backward(dt, s, 21, 288, k == 2, true);
    }
    const hc_shape s = {.n = n, .iters = 2, .eps = 1e-6f, .norm_eps = 1e-6f};
    reading wide = reading_make(streams_of(DT_BF16, 2, n, 4352, false, ANY), s, false, ANY, true);
    check_coefficients(DT_BF16, s, 3, 4352, false, ANY);
    check_reading(&wide);
    reading_free(&wide);
}

int main(int argc, char **argv)
{
    static const int streams[] = {1, 2, 3, 4, 8}, iterations[] = {1, 2, 5, 20};

    battery_open(argc, argv);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        const int n = streams[i];
        const bool is_normed = n > 1;         /* of one stream <x, du> is what rounding leaves of nothing */
        for (int dt = 0; dt < 3; dt++) check_merge((dtype[]){DT_F32, DT_BF16, DT_F16}[dt], n, 3, 40, dt == 1);
        for (int k = 0; k < 4; k++) {
            const hc_shape s = {.n = n, .iters = iterations[k], .eps = 1e-6f, .norm_eps = 1e-6f};
            for (kind what = ANY; what < N_KINDS; what++) {
                check_coefficients(DT_F32, s, 5, 24, k % 2, what);
                check_reading_backward(DT_F32, s, 3, 8, k % 2, what, is_normed);
            }
            check_coefficients(DT_BF16, s, 70, 40, true, ANY);
            check_merged_coefficients(k % 2 ? DT_F32 : DT_BF16, s, 5, 24, k % 2);
            check_reading_backward(DT_F32, s, 3, 8, true, k, false);
            check_reading_backward(DT_BF16, s, 3, 8, true, ANY, is_normed);
            check_border_backward(DT_F32, s, 3, 8, k % 2, is_normed && k != 1);
            check_paper(n, iterations[k]);
        }
        const hc_shape reads = {.n = n, .reads_only = true, .eps = 1e-6f, .norm_eps = 1e-6f};
        for (kind what = ANY; what < N_KINDS; what++) {
            check_coefficients(DT_F32, reads, 5, 24, what % 2, what);
            check_reading_backward(DT_F32, reads, 3, 8, what % 2, what, false);
            check_reading_backward(DT_F32, reads, 3, 8, what % 2, what, is_normed);
        }
        check_reading_backward(DT_BF16, reads, 3, 8, true, ANY, false);
        const hc_shape s = {.n = n, .permutes = true, .eps = 1e-6f, .norm_eps = 1e-6f};
        for (kind what = ANY; what < N_KINDS; what++) {
            check_coefficients(DT_F32, s, 3, n <= 4 ? 24 : 2, false, what);
            if (n <= 4) check_reading_backward(DT_F32, s, 3, 8, true, what, is_normed);
        }
        check_merged_coefficients(DT_F16, s, 3, n <= 4 ? 24 : 2, true);
        if (n <= 4) check_reading_backward(DT_F16, s, 3, 8, false, ANY, is_normed);
        if (n <= 4) check_border_backward(DT_F16, s, 3, 8, false, is_normed);
        check_reading_backward(DT_F32, reads, 150, 40, true, ANY, is_normed); /* more rows than are summed at once */
        const hc_shape three = {.n = n, .iters = 3, .eps = 1e-6f, .norm_eps = 1e-6f};
        check_border_backward(DT_BF16, three, 3, 8, true, is_normed);
        if (n > 1 && n <= 4) check_borders(n);
    }
    return battery_done();
}
