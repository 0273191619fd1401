/* cpu_norm.c: RMSNorm (arXiv 1910.07467) over the columns, alone and after the residual sum, and its backward
 *
 *     n = w x r,  r = (mean(x^2) + eps)^(-1/2)
 *     dx = r (g - x r^2 mean(g x)),  g = w dn;     dw = sum over rows of dn x r */
#include "src/cpu/cpu.h"

void sum_add_blocks(tensor total, const float *partial, int64_t n_blocks, int64_t stride)
{
    float *sum = total.data;

    for (int64_t b = 0; b < n_blocks; b++)
        for (int64_t j = 0; j < total.cols; j++) sum[j] += partial[b * stride + j];
}

enum { SUM_COLS = 128 };                      /* columns summed at once: long rows keep the accuracy of short ones */

static float reciprocal_rms(const float *x, int64_t n, float eps)
{
    float squares = 0.0f;

    for (int64_t begin = 0; begin < n; begin += SUM_COLS) {
        const int64_t end = min_i64(begin + SUM_COLS, n);
        float part = 0.0f;
        #pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) part += x[j] * x[j];
        squares += part;
    }
    return 1.0f / sqrtf(squares / (float)n + eps);
}

static void normalize_row(tensor n, int64_t i, const float *x, const float *w, float r, float *buf)
{
    float *y = row_target(n, i, buf);

    #pragma omp simd
    for (int64_t j = 0; j < n.cols; j++) y[j] = x[j] * r * w[j];
    row_store(n, i, y);
}

void rmsnorm_cpu(moai_device *dev, tensor n, float *r, tensor x, tensor w, float eps)
{
    int64_t cols = x.cols;
    float *scratch = scratch_floats(dev, (1 + 2 * dev->n_threads) * cols);
    const float *weight = row_load(w, 0, scratch);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + (1 + 2 * omp_get_thread_num()) * cols;
        const float *xi = row_load(x, i, buf);
        r[i] = reciprocal_rms(xi, cols, eps);
        normalize_row(n, i, xi, weight, r[i], buf + cols);
    }
}

/* The norm is taken of h as stored, so that the backward, which reads h again, sees the same numbers. */
void residual_rmsnorm_cpu(moai_device *dev, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps)
{
    int64_t cols = x.cols;
    float *scratch = scratch_floats(dev, (1 + 2 * dev->n_threads) * cols);
    const float *weight = row_load(w, 0, scratch);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) {
        float *buf = scratch + (1 + 2 * omp_get_thread_num()) * cols;
        const float *xi = row_load(x, i, buf), *oi = row_load(o, i, buf + cols);
        float *sum = row_target(h, i, buf);
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) sum[j] = xi[j] + oi[j];
        row_store(h, i, sum);
        const float *hi = row_load(h, i, buf);
        r[i] = reciprocal_rms(hi, cols, eps);
        normalize_row(n, i, hi, weight, r[i], buf + cols);
    }
}

/* One row: dx, and dn x r added to dw_sum.  buf holds three rows. */
static void backward_row(tensor dx, float *dw_sum, tensor dn, tensor dres, tensor x, int64_t i, float r, const float *w,
                         float *buf)
{
    int64_t cols = x.cols;
    const float *xi = row_load(x, i, buf), *dni = row_load(dn, i, buf + cols);
    const float *dresi = dres.data ? row_load(dres, i, buf + 2 * cols) : NULL;
    float dot = 0.0f;

    for (int64_t begin = 0; begin < cols; begin += SUM_COLS) {
        const int64_t end = min_i64(begin + SUM_COLS, cols);
        float part = 0.0f;
        #pragma omp simd reduction(+ : part)
        for (int64_t j = begin; j < end; j++) {
            part += w[j] * dni[j] * xi[j];
            dw_sum[j] += dni[j] * xi[j] * r;
        }
        dot += part;
    }
    float along_x = r * r * r * dot / (float)cols;
    float *dxi = row_target(dx, i, buf + cols);
    if (dresi) {
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) dxi[j] = dresi[j] + r * w[j] * dni[j] - along_x * xi[j];
    } else {
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) dxi[j] = r * w[j] * dni[j] - along_x * xi[j];
    }
    row_store(dx, i, dxi);
}

void rmsnorm_backward_cpu(moai_device *dev, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r,
                          tensor w)
{
    int64_t cols = x.cols, n_blocks = sum_blocks(x.rows);
    float *scratch = scratch_floats(dev, (1 + n_blocks + 3 * dev->n_threads) * cols);
    float *partial = scratch + cols, *rows = partial + n_blocks * cols;
    const float *weight = row_load(w, 0, scratch);

    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n_blocks; b++) {
        float *dw_sum = partial + b * cols, *buf = rows + 3 * omp_get_thread_num() * cols;
        memset(dw_sum, 0, (size_t)cols * sizeof(float));
        for (int64_t i = b * SUM_ROWS; i < min_i64((b + 1) * SUM_ROWS, x.rows); i++)
            backward_row(dx, dw_sum, dn, dres, x, i, r[i], weight, buf);
    }
    if (dw.data) sum_add_blocks(dw, partial, n_blocks, cols);
}
