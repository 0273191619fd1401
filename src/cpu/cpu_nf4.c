/* cpu_nf4.c: weights in 4 bits, back to numbers */
#include "src/cpu/cpu.h"
#include "src/ops/nf4.h"

void dequantize_nf4_cpu(moai_device *dev, tensor w, const uint8_t *codes, const float *absmax)
{
    const int64_t cols = w.cols, blocks = cols / NF4_BLOCK;
    float *rows = scratch_floats(dev, dev->n_threads * cols);

    CHECK(cols % NF4_BLOCK == 0, "dequantize_nf4: rows of %lld are not whole blocks", (long long)cols);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < w.rows; i++) {
        float *x = row_target(w, i, rows + omp_get_thread_num() * cols);
        nf4_dequantize(x, codes + i * cols / 2, absmax + i * blocks, cols);
        row_store(w, i, x);
    }
}

/* The 16 values as they are in a type. */
static void values_in(dtype dt, float values[16])
{
    float narrow[16];                         /* room for either type */
    const tensor t = tensor_of(narrow, dt, 1, 16);

    memcpy(values, nf4_values, sizeof nf4_values);
    if (dt == DT_F32) return;
    row_store(t, 0, nf4_values);
    row_load(t, 0, values);
}

static float sum_block(const float *x, const uint8_t *codes, const float values[16])
{
    float sum = 0;

    for (int k = 0; k < NF4_BLOCK / 2; k++)
        sum += values[codes[k] >> 4] * x[2 * k] + values[codes[k] & 15] * x[2 * k + 1];
    return sum;
}

/* sums (N, out) of x (N, in). */
static void sum_products(float *sums, const float *x, int64_t n_rows, int64_t out, int64_t cols, const uint8_t *codes,
                         const float *absmax, const float values[16])
{
    const int64_t blocks = cols / NF4_BLOCK;

    #pragma omp parallel for schedule(static)
    for (int64_t j = 0; j < out; j++)
        for (int64_t i = 0; i < n_rows; i++) {
            float sum = 0;
            for (int64_t b = j * blocks; b < (j + 1) * blocks; b++)
                sum += absmax[b] * sum_block(x + i * cols + (b - j * blocks) * NF4_BLOCK,
                                             codes + b * (NF4_BLOCK / 2), values);
            sums[i * out + j] = sum;
        }
}

void matmul_nf4_cpu(moai_device *dev, tensor y, tensor x, const uint8_t *codes, const float *absmax, tensor z)
{
    const int64_t n = x.rows, cols = x.cols, out = y.cols;
    float *sums = scratch_floats(dev, n * (out + cols) + out), *rows = sums + n * out, *buffer = rows + n * cols;
    float values[16];

    CHECK(cols % NF4_BLOCK == 0 && y.rows == n && (!z.data || (z.rows == n && z.cols == out)),
          "matmul_nf4: (%lld, %lld) = (%lld, %lld) W^T", (long long)y.rows, (long long)out, (long long)n,
          (long long)cols);
    for (int64_t i = 0; i < n; i++) {
        const float *from = row_load(x, i, rows + i * cols);
        if (from != rows + i * cols) memcpy(rows + i * cols, from, (size_t)cols * sizeof *rows);
    }
    values_in(x.dt, values);
    sum_products(sums, rows, n, out, cols, codes, absmax, values);
    for (int64_t i = 0; i < n; i++) {
        const float *more = z.data ? row_load(z, i, buffer) : NULL;
        for (int64_t j = 0; more && j < out; j++) sums[i * out + j] += more[j];
        row_store(y, i, sums + i * out);
    }
}
