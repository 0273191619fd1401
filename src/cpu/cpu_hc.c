/* cpu_hc.c: the streams of hyper-connections: coefficients, reading, merging, and backwards (hc.h) */
#include "src/cpu/cpu.h"

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

void hc_coefficients_cpu(moai_device *dev, tensor coef, float *r, tensor x, tensor raw, tensor base, tensor scale,
                         hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s);
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

void hc_read_cpu(moai_device *dev, tensor u, tensor x, tensor coef, int n)
{
    const int64_t H = u.cols;
    float *scratch = scratch_floats(dev, dev->n_threads * (x.cols + H));

    check_shape(x, coef, n, n);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + omp_get_thread_num() * (x.cols + H);
        const float *xi = row_load(x, i, buf), *pre = coef_of(coef, i);
        float *ui = row_target(u, i, buf + x.cols);
        for (int64_t c = 0; c < H; c++) {
            float sum = 0;
            for (int k = 0; k < n; k++) sum += pre[k] * xi[k * H + c];
            ui[c] = sum;
        }
        row_store(u, i, ui);
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

void hc_coefficients_backward_cpu(moai_device *dev, tensor dx, tensor dh, tensor draw, tensor dcoef, tensor du,
                                  tensor x, tensor raw, const float *r, tensor coef, tensor base, tensor scale,
                                  hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s), H = du.cols, wide = 2 * x.cols + H + n_raw;
    float *scratch = scratch_floats(dev, n_raw + 4 + dev->n_threads * wide), *rows = scratch + n_raw + 4;
    const float *b = row_load(base, 0, scratch), *a = row_load(scale, 0, scratch + n_raw);

    check_shape(x, coef, s.n, hc_n_coef(s));
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float sums[MOST_SUMS], *buf = rows + omp_get_thread_num() * wide, *dhi = tensor_at(dh, i, 0),
                               *dci = coef_of(dcoef, i);
        const float *xi = row_load(x, i, buf), *dui = row_load(du, i, buf + x.cols),
                    *dres = row_load(dx, i, buf + x.cols + H), *pre = coef_of(coef, i);
        const hc_token t = {tensor_at(raw, i, 0), b, a, r[i], sums, 1};
        for (int k = 0; k < s.n; k++) dci[k] = dot(xi + k * H, dui, H);
        const float along = r[i] * r[i] * r[i] / (float)x.cols * hc_token_backward(dhi, dci, &t, s);
        float *dxi = row_target(dx, i, buf + x.cols + H), *drawi = row_target(draw, i, buf + 2 * x.cols + H);
        for (int k = 0; k < s.n; k++)
            for (int64_t c = 0; c < H; c++) dxi[k * H + c] = dres[k * H + c] + pre[k] * dui[c] - along * xi[k * H + c];
        for (int64_t k = 0; k < n_raw; k++) drawi[k] = a[hc_group(s.n, k)] * r[i] * dhi[k];
        row_store(dx, i, dxi);
        row_store(draw, i, drawi);
    }
}

void hc_parameters_backward_cpu(moai_device *dev, tensor dbase, tensor dscale, tensor dh, tensor raw, const float *r,
                                hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s), n_blocks = sum_blocks(dh.rows);
    float *partial = scratch_floats(dev, n_blocks * (n_raw + 3));

    #pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < n_blocks; block++) {
        float *base = partial + block * (n_raw + 3), *scale = base + n_raw;
        memset(base, 0, (size_t)(n_raw + 3) * sizeof(float));
        for (int64_t i = block * SUM_ROWS; i < min_i64((block + 1) * SUM_ROWS, dh.rows); i++) {
            const float *dhi = tensor_at(dh, i, 0), *rawi = tensor_at(raw, i, 0);
            for (int64_t k = 0; k < n_raw; k++) {
                base[k] += dhi[k];
                scale[hc_group(s.n, k)] += dhi[k] * r[i] * rawi[k];
            }
        }
    }
    sum_add_blocks(dbase, partial, n_blocks, n_raw + 3);
    sum_add_blocks(dscale, partial + n_raw, n_blocks, n_raw + 3);
}
