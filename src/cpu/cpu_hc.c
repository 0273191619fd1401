/* cpu_hc.c: the streams of hyper-connections: coefficients, reading, merging, and backwards (hc.h) */
#include "src/cpu/cpu.h"
#include "src/ops/ops_default.h"

enum { SUM_COLS = 128, MOST_SUMS = (2 * HC_MOST_ITERS - 1) * HC_MOST_STREAMS }; /* columns summed at once */

static float *coef_of(tensor coef, int64_t row) { return tensor_at(coef, row, 0); }

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0;

    for (int64_t begin = 0; begin < n; begin += SUM_COLS) {
        float part = 0;
        #pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < min_i64(begin + SUM_COLS, n); j++) part += a[j] * b[j];
        sum += part;
    }
    return sum;
}

static void check_shape(tensor x, tensor coef, int n, int64_t n_coef)
{
    CHECK(n >= 1 && n <= HC_MOST_STREAMS && x.cols % n == 0 && coef.cols >= n_coef && coef.dt == DT_F32,
          "%d streams of (%lld, %lld), %lld coefficients", n, (long long)x.rows, (long long)x.cols,
          (long long)coef.cols);
}

void hc_coefficients_cpu(moai_device *dev, tensor coef, tensor raw, float *r, tensor x, tensor fn, tensor base,
                         tensor scale, hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s);

    matmul_cpu(dev, raw, x, fn);
    float *scratch = scratch_floats(dev, n_raw + 4 + dev->n_threads * x.cols), *rows = scratch + n_raw + 4;
    const float *b = row_load(base, 0, scratch), *a = row_load(scale, 0, scratch + n_raw);

    check_shape(x, coef, s.n, hc_n_coef(s));
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float sums[MOST_SUMS];
        const float *xi = row_load(x, i, rows + omp_get_thread_num() * x.cols);
        r[i] = 1 / sqrtf(dot(xi, xi, x.cols) / (float)x.cols + s.norm_eps);
        const hc_token t = {tensor_at(raw, i, 0), b, a, r[i], sums, 1};
        hc_token_forward(coef_of(coef, i), &t, s);
    }
}

/* u (H) = sum_i pre_i x_i */
static void read_row(float *u, const float *x, const float *pre, int n, int64_t H)
{
    for (int64_t c = 0; c < H; c++) {
        float sum = 0;
        for (int k = 0; k < n; k++) sum += pre[k] * x[k * H + c];
        u[c] = sum;
    }
}

void hc_read_cpu(moai_device *dev, tensor u, tensor x, tensor coef, int n)
{
    const int64_t H = u.cols;
    float *scratch = scratch_floats(dev, dev->n_threads * (x.cols + H));

    check_shape(x, coef, n, n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + omp_get_thread_num() * (x.cols + H), *ui = row_target(u, i, buf + x.cols);
        read_row(ui, row_load(x, i, buf), coef_of(coef, i), n, H);
        row_store(u, i, ui);
    }
}

void hc_read_norm_cpu(moai_device *dev, tensor n1, float *rn, tensor x, tensor coef, tensor w, float eps, int n)
{
    const int64_t H = n1.cols;
    float *scratch = scratch_floats(dev, H + dev->n_threads * (x.cols + H));
    const float *weight = row_load(w, 0, scratch);

    check_shape(x, coef, n, n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + H + omp_get_thread_num() * (x.cols + H), *u = row_target(n1, i, buf + x.cols);
        read_row(u, row_load(x, i, buf), coef_of(coef, i), n, H);
        rn[i] = 1 / sqrtf(dot(u, u, H) / (float)H + eps);
        #pragma omp simd
        for (int64_t c = 0; c < H; c++) u[c] = u[c] * rn[i] * weight[c];
        row_store(n1, i, u);
    }
}

void hc_merge_cpu(moai_device *dev, tensor out, tensor x, tensor y, tensor coef, int n)
{
    const int64_t H = y.cols;
    float *scratch = scratch_floats(dev, dev->n_threads * (2 * x.cols + H));

    check_shape(x, coef, n, 2 * n + n * n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + omp_get_thread_num() * (2 * x.cols + H), *to = buf + x.cols + H;
        const float *xi = row_load(x, i, buf), *yi = row_load(y, i, buf + x.cols), *post = coef_of(coef, i) + n,
                    *comb = post + n;
        for (int j = 0; j < n; j++)
            for (int64_t c = 0; c < H; c++) {
                float sum = post[j] * yi[c];
                for (int k = 0; k < n; k++) sum += comb[k * n + j] * xi[k * H + c];
                to[j * H + c] = sum;
            }
        row_store(out, i, to);
    }
}

HC_MERGE_COEFFICIENTS_BY_PARTS(cpu)

void hc_merge_backward_cpu(moai_device *dev, tensor dx, tensor dy, tensor dcoef, tensor dout, tensor x, tensor y,
                           tensor coef, int n)
{
    const int64_t H = y.cols, wide = 3 * x.cols + 2 * H;
    float *scratch = scratch_floats(dev, dev->n_threads * wide);

    check_shape(x, coef, n, 2 * n + n * n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + omp_get_thread_num() * wide, *to = buf + 2 * x.cols + 2 * H;
        const float *g = row_load(dout, i, buf), *xi = row_load(x, i, buf + x.cols),
                    *yi = row_load(y, i, buf + 2 * x.cols), *post = coef_of(coef, i) + n, *comb = post + n;
        float *dyi = row_target(dy, i, buf + 2 * x.cols + H), *dpost = coef_of(dcoef, i) + n, *dcomb = dpost + n;
        for (int64_t c = 0; c < H; c++) {
            float sum = 0;
            for (int j = 0; j < n; j++) sum += post[j] * g[j * H + c];
            dyi[c] = sum;
        }
        for (int k = 0; k < n; k++)
            for (int64_t c = 0; c < H; c++) {
                float sum = 0;
                for (int j = 0; j < n; j++) sum += comb[k * n + j] * g[j * H + c];
                to[k * H + c] = sum;
            }
        for (int j = 0; j < n; j++) {
            dpost[j] = dot(yi, g + j * H, H);
            for (int k = 0; k < n; k++) dcomb[k * n + j] = dot(xi + k * H, g + j * H, H);
        }
        row_store(dy, i, dyi);
        row_store(dx, i, to);
    }
}

/* What a row's backward computes in, fp32: of x, dn, u and du, and of draw. */
typedef struct reading_row {
    const float *x, *dn;                      /* (nH), (H) */
    float *u, *du, *draw;                     /* (H), (H), (n_raw) */
    const float *w;                           /* (H), NULL: none */
    float rn;
} reading_row;

static int64_t reading_floats(const hc_reading *a) { return a->x.cols + 3 * a->dn.cols + a->draw.cols; }

/* Row i, its u made.  buf holds reading_floats. */
static reading_row reading_load(const hc_reading *a, int64_t i, const float *w, float *buf, int n)
{
    const int64_t H = a->dn.cols;
    float *rest = buf + a->x.cols;
    const reading_row row = {row_load(a->x, i, buf), row_load(a->dn, i, rest), rest + H, rest + 2 * H, rest + 3 * H,
                             w, w ? a->rn[i] : 0};

    read_row(row.u, row.x, coef_of(a->coef, i), n, H);
    return row;
}

static void reading_du(const reading_row *row, float along, int64_t H)
{
    #pragma omp simd
    for (int64_t c = 0; c < H; c++)
        row->du[c] = row->w ? row->rn * row->w[c] * row->dn[c] - along * row->u[c] : row->dn[c];
}

/* along[1] of the row, whose dn u rn is added to dw_sum. */
static float norm_backward(const reading_row *row, float *dw_sum, int64_t H)
{
    float sum = 0;

    for (int64_t begin = 0; begin < H && row->w; begin += SUM_COLS) {
        float part = 0;
        #pragma omp simd reduction(+ : part)
        for (int64_t c = begin; c < min_i64(begin + SUM_COLS, H); c++) {
            part += row->w[c] * row->dn[c] * row->u[c];
            dw_sum[c] += row->dn[c] * row->u[c] * row->rn;
        }
        sum += part;
    }
    return row->rn * row->rn * row->rn / (float)H * sum;
}

/* base and scale of hc_token_backward's dh, which are added to sums (n_raw + 3) of a row. */
static void add_parameters(float *sums, const float *dh, const hc_token *t, hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s);

    for (int64_t k = 0; k < n_raw; k++) {
        sums[k] += dh[k];
        sums[n_raw + hc_group(s.n, k)] += dh[k] * t->r * t->raw[k];
    }
}

void hc_read_backward_cpu(moai_device *dev, tensor dw, tensor dbase, tensor dscale, tensor dcoef, const hc_reading *a,
                          tensor raw, const float *r, tensor base, tensor scale, hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s), H = a->dn.cols, n_blocks = sum_blocks(a->x.rows), n_sums = H + n_raw + 3,
                  wide = reading_floats(a) + n_raw;
    float *scratch = scratch_floats(dev, n_raw + 4 + H + n_blocks * n_sums + dev->n_threads * wide),
          *partial = scratch + n_raw + 4 + H, *rows = partial + n_blocks * n_sums;
    const float *b = row_load(base, 0, scratch), *of_group = row_load(scale, 0, scratch + n_raw),
                *w = a->w.data ? row_load(a->w, 0, partial - H) : NULL;

    check_shape(a->x, a->coef, s.n, hc_n_coef(s));
    #pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < n_blocks; block++) {
        float sums[MOST_SUMS], *dw_sum = partial + block * n_sums, *buf = rows + omp_get_thread_num() * wide,
                               *dh = buf + reading_floats(a);
        memset(dw_sum, 0, (size_t)n_sums * sizeof(float));
        for (int64_t i = block * SUM_ROWS; i < min_i64((block + 1) * SUM_ROWS, a->x.rows); i++) {
            const reading_row row = reading_load(a, i, w, buf, s.n);
            const hc_token t = {tensor_at(raw, i, 0), b, of_group, r[i], sums, 1};
            float *dci = coef_of(dcoef, i), *along = tensor_at(a->along, i, 0),
                  *draw = row_target(a->draw, i, row.draw);
            along[1] = norm_backward(&row, dw_sum, H);
            reading_du(&row, along[1], H);
            for (int k = 0; k < s.n; k++) dci[k] = dot(row.x + k * H, row.du, H);
            along[0] = r[i] * r[i] * r[i] / (float)a->x.cols * hc_token_backward(dh, dci, &t, s);
            for (int64_t k = 0; k < n_raw; k++) draw[k] = of_group[hc_group(s.n, k)] * r[i] * dh[k];
            add_parameters(dw_sum + H, dh, &t, s);
            row_store(a->draw, i, draw);
        }
    }
    if (dw.data) sum_add_blocks(dw, partial, n_blocks, n_sums);
    if (dbase.data) sum_add_blocks(dbase, partial + H, n_blocks, n_sums);
    if (dscale.data) sum_add_blocks(dscale, partial + H + n_raw, n_blocks, n_sums);
}

void hc_streams_backward_cpu(moai_device *dev, tensor dx, const hc_reading *a, int n)
{
    const int64_t H = a->dn.cols, wide = reading_floats(a) + dx.cols;
    float *scratch = scratch_floats(dev, H + dev->n_threads * wide);
    const float *w = a->w.data ? row_load(a->w, 0, scratch) : NULL;

    check_shape(a->x, a->coef, n, n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < dx.rows; i++) {
        float *buf = scratch + H + omp_get_thread_num() * wide, *gained = buf + reading_floats(a);
        const reading_row row = reading_load(a, i, w, buf, n);
        const float *dres = row_load(dx, i, gained), *pre = coef_of(a->coef, i), *along = tensor_at(a->along, i, 0);
        float *dxi = row_target(dx, i, gained);
        reading_du(&row, along[1], H);
        for (int k = 0; k < n; k++)
            for (int64_t c = 0; c < H; c++)
                dxi[k * H + c] = dres[k * H + c] + pre[k] * row.du[c] - along[0] * row.x[k * H + c];
        row_store(dx, i, dxi);
    }
    matmul_dx_cpu(dev, dx, a->draw, a->fn, true);
}

HC_BORDER_BACKWARD_BY_PARTS(cpu)
