/* Hyper-connections: coefficients, reading, merging, and their backwards, against fp64 formulas and central differences
 * of them; -d names the device. */
#include "tests/lib/battery.h"

/* One token in fp64. */
typedef struct token {
    hc_shape s;
    int64_t H;
    double *x, *raw, *base, *scale, *y, *coef; /* coef: of merging alone */
    const double *du, *dcoef, *dout;
} token;

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

static void merge(double *out, const double *x, const double *y, const double *coef, int n, int64_t H)
{
    for (int j = 0; j < n; j++)
        for (int64_t c = 0; c < H; c++) {
            out[j * H + c] = coef[n + j] * y[c];
            for (int i = 0; i < n; i++) out[j * H + c] += coef[2 * n + i * n + j] * x[i * H + c];
        }
}

/* <du, u> and <dcoef, post and comb> */
static double loss_of_coefficients(const void *problem)
{
    const token *t = problem;
    const int n = t->s.n;
    double *coef = doubles(2 * n + n * n), *u = doubles(t->H);

    coefficients(coef, t);
    read_streams(u, t->x, coef, n, t->H);
    const double sum = dot(u, t->du, t->H) + dot(coef + n, t->dcoef + n, hc_n_coef(t->s) - n);
    free(coef), free(u);
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
    for (int64_t i = 0; i < n; i++) {
        const double at = x[i], step = x == t->raw ? 1e-6 : 1e-4; /* a norm of zeros multiplies raw by 1000 */
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

/* What there is of zeros is nothing. */
static field raw_of(int64_t rows, int64_t n_raw, bool strided, kind k)
{
    double *values = random_doubles(rows * n_raw);

    if (k == ZERO) memset(values, 0, (size_t)(rows * n_raw) * sizeof *values);
    field f = field_make("raw", DT_F32, rows, n_raw, strided, values);
    free(values);
    return f;
}

static void check_coefficients(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided, kind k)
{
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s);
    field x = streams_of(dt, rows, n, H, strided, k), base = base_of(dt, n_raw, k),
          raw = raw_of(rows, n_raw, strided, k), scale = field_random("scale", dt, 1, n_scales(s), false),
          coef = field_output("coef", DT_F32, rows, n_coef, strided),
          r = field_output("r", DT_F32, 1, rows, false), u = field_output("u", dt, rows, H, strided);
    double *ref = doubles(rows * n_coef), *ref_r = doubles(rows), *ref_u = doubles(rows * H);
    char what[96];

    snprintf(what, sizeof what, "%d streams, %s %d%s", n, mixing_name(s), s.iters,
             kind_names[k]);
    for (int64_t i = 0; i < rows; i++) {
        const token t = {.s = s, .H = H, .x = x.v + i * n * H, .raw = raw.v + i * n_raw, .base = base.v,
                         .scale = scale.v};
        coefficients(ref + i * n_coef, &t);
        ref_r[i] = rms(t.x, n * H, s.norm_eps);
    }
    TWICE(dut.ops->hc_coefficients(dut.dev, coef.t, r.t.data, x.t, raw.t, base.t, scale.t, s), &coef, &r);
    ok_field(&coef, ref, 3e-6, what);
    ok_field(&r, ref_r, 5e-7, what);
    for (int64_t i = 0; i < rows; i++) {      /* read with what the device has made */
        for (int64_t c = 0; c < n_coef; c++) ref[i * n_coef + c] = field_at(&coef, i, c);
        read_streams(ref_u + i * H, x.v + i * n * H, ref + i * n_coef, n, H);
    }
    TWICE(dut.ops->hc_read(dut.dev, u.t, x.t, coef.t, n), &u);
    ok_field(&u, ref_u, 1e-6, what);
    FREE(&x, &base, &raw, &scale, &coef, &r, &u);
    free(ref), free(ref_r), free(ref_u);
}

static void check_coefficients_backward(dtype dt, hc_shape s, int64_t rows, int64_t H, bool strided, kind k)
{
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), wide = n * H;
    field x = streams_of(dt, rows, n, H, strided, k), base = base_of(dt, n_raw, k),
          raw = raw_of(rows, n_raw, strided, k), scale = field_random("scale", dt, 1, n_scales(s), false),
          du = field_random("du", dt, rows, H, strided), dcoef = field_random("dcoef", DT_F32, rows, n_coef, strided),
          dx = field_random("dx", dt, rows, wide, strided), dh = field_output("dh", DT_F32, rows, n_raw, strided),
          draw = field_output("draw", dt, rows, n_raw, strided), dbase = field_random("dbase", DT_F32, 1, n_raw, false),
          dscale = field_random("dscale", DT_F32, 1, n_scales(s), false);
    double *coef = doubles(rows * n_coef), *r = doubles(rows), *ref_dx = doubles(rows * wide),
           *ref_dh = doubles(rows * n_raw), *ref_draw = doubles(rows * n_raw), *ref_dcoef = doubles(rows * n_coef),
           *ref_dbase = doubles(n_raw), *ref_dscale = doubles(3), *of_scale = doubles(3);
    char what[96];

    snprintf(what, sizeof what, "backward of %d streams, %s %d%s", n, mixing_name(s), s.iters,
             kind_names[k]);
    memcpy(ref_dbase, dbase.v, (size_t)n_raw * sizeof *ref_dbase);
    memcpy(ref_dscale, dscale.v, (size_t)n_scales(s) * sizeof *ref_dscale);
    for (int64_t i = 0; i < rows; i++) {
        token t = {.s = s, .H = H, .x = x.v + i * wide, .raw = raw.v + i * n_raw, .base = base.v, .scale = scale.v,
                   .du = du.v + i * H, .dcoef = dcoef.v + i * n_coef};
        coefficients(coef + i * n_coef, &t);
        r[i] = rms(t.x, wide, s.norm_eps);
        differences(loss_of_coefficients, &t, t.x, wide, ref_dx + i * wide);
        differences(loss_of_coefficients, &t, t.base, n_raw, ref_dh + i * n_raw);
        differences(loss_of_coefficients, &t, t.raw, n_raw, ref_draw + i * n_raw);
        differences(loss_of_coefficients, &t, t.scale, n_scales(s), of_scale);
        for (int64_t c = 0; c < wide; c++) ref_dx[i * wide + c] += dx.v[i * wide + c];
        for (int64_t c = 0; c < n_raw; c++) ref_dbase[c] += ref_dh[i * n_raw + c];
        for (int g = 0; g < n_scales(s); g++) ref_dscale[g] += of_scale[g];
        memcpy(ref_dcoef + i * n_coef, t.dcoef, (size_t)n_coef * sizeof *ref_dcoef);
        for (int j = 0; j < n; j++) ref_dcoef[i * n_coef + j] = dot(t.du, t.x + j * H, H);
    }
    field made = field_make("coef", DT_F32, rows, n_coef, strided, coef),
          rs = field_make("r", DT_F32, 1, rows, false, r);
    TWICE(dut.ops->hc_coefficients_backward(dut.dev, dx.t, dh.t, draw.t, dcoef.t, du.t, x.t, raw.t, rs.t.data, made.t,
                                            base.t, scale.t, s), &dx, &dh, &draw, &dcoef);
    ok_field(&dx, ref_dx, 1e-5, what);
    ok_field(&dh, ref_dh, 1e-5, what);
    ok_field(&draw, ref_draw, 1e-5, what);
    ok_field(&dcoef, ref_dcoef, 1e-6, what);
    TWICE(dut.ops->hc_parameters_backward(dut.dev, dbase.t, dscale.t, dh.t, raw.t, rs.t.data, s), &dbase, &dscale);
    ok_field(&dbase, ref_dbase, 1e-5, what);
    ok_field(&dscale, ref_dscale, 1e-5, what);
    FREE(&x, &base, &raw, &scale, &du, &dcoef, &dx, &dh, &draw, &dbase, &dscale, &made, &rs);
    free(coef), free(r), free(ref_dx), free(ref_dh), free(ref_draw), free(ref_dcoef), free(ref_dbase), free(ref_dscale),
        free(of_scale);
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
    field x = field_random("x", DT_F32, 1, n * 4, false), raw = field_random("raw", DT_F32, 1, n_raw, false),
          base = field_random("base", DT_F32, 1, n_raw, false), scale = field_random("scale", DT_F32, 1, 3, false),
          coef = field_output("coef", DT_F32, 1, 2 * n + n * n, false), r = field_output("r", DT_F32, 1, 1, false);
    double *m = doubles(n * n), rr = rms(x.v, 4 * n, 1e-6), most = 0, rows = 0;

    for (int i = 0; i < n; i++)               /* m[j][i] of L[i][j] */
        for (int j = 0; j < n; j++)
            m[j * n + i] = exp(scale.v[2] * rr * raw.v[2 * n + i * n + j] + base.v[2 * n + i * n + j]);
    for (int step = 0; step < 2 * iters; step++)
        for (int a = 0; a < n; a++) {
            double sum = 0;
            for (int k = 0; k < n; k++) sum += step % 2 ? m[a * n + k] : m[k * n + a];
            for (int k = 0; k < n; k++) *(step % 2 ? &m[a * n + k] : &m[k * n + a]) /= sum;
        }
    dut.ops->hc_coefficients(dut.dev, coef.t, r.t.data, x.t, raw.t, base.t, scale.t, s);
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
    FREE(&x, &raw, &base, &scale, &coef, &r);
    free(m);
}

int main(int argc, char **argv)
{
    static const int streams[] = {1, 2, 3, 4, 8}, iterations[] = {1, 2, 5, 20};

    battery_open(argc, argv);
    for (size_t i = 0; i < sizeof streams / sizeof *streams; i++) {
        const int n = streams[i];
        for (int dt = 0; dt < 3; dt++) check_merge((dtype[]){DT_F32, DT_BF16, DT_F16}[dt], n, 3, 40, dt == 1);
        for (int k = 0; k < 4; k++) {
            const hc_shape s = {.n = n, .iters = iterations[k], .eps = 1e-6f, .norm_eps = 1e-6f};
            for (kind what = ANY; what < N_KINDS; what++) {
                check_coefficients(DT_F32, s, 5, 24, k % 2, what);
                check_coefficients_backward(DT_F32, s, 3, 8, k % 2, what);
            }
            check_coefficients(DT_BF16, s, 70, 40, true, ANY);
            check_coefficients_backward(DT_BF16, s, 3, 8, true, ANY);
            check_paper(n, iterations[k]);
        }
        const hc_shape reads = {.n = n, .reads_only = true, .eps = 1e-6f, .norm_eps = 1e-6f};
        for (kind what = ANY; what < N_KINDS; what++) {
            check_coefficients(DT_F32, reads, 5, 24, what % 2, what);
            check_coefficients_backward(DT_F32, reads, 3, 8, what % 2, what);
        }
        check_coefficients_backward(DT_BF16, reads, 3, 8, true, ANY);
        const hc_shape s = {.n = n, .permutes = true, .eps = 1e-6f, .norm_eps = 1e-6f};
        for (kind what = ANY; what < N_KINDS; what++) {
            check_coefficients(DT_F32, s, 3, 24, false, what);
            if (n <= 4) check_coefficients_backward(DT_F32, s, 3, 8, true, what);
        }
        if (n <= 4) check_coefficients_backward(DT_F16, s, 3, 8, false, ANY);
    }
    return battery_done();
}
