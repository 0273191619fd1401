/* cpu_elementwise.c: casts, sums, fills, SwiGLU */
#include "src/cpu/cpu.h"
#include "src/base/rng.h"

/* Every thread gets n_rows fp32 rows of `cols` for tensors that are not fp32. */
static float *thread_rows(float *all, int n_rows, int64_t cols)
{
    return all + (int64_t)omp_get_thread_num() * n_rows * cols;
}

void cast_cpu(moai_device *dev, tensor y, tensor x)
{
    float *all = scratch_floats(dev, dev->n_threads * x.cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < x.rows; i++) row_store(y, i, row_load(x, i, thread_rows(all, 1, x.cols)));
}

void add_cpu(moai_device *dev, tensor y, tensor a, tensor b)
{
    int64_t cols = y.cols;
    float *all = scratch_floats(dev, dev->n_threads * 2 * cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) {
        float *buf = thread_rows(all, 2, cols);
        const float *ai = row_load(a, i, buf), *bi = row_load(b, i, buf + cols);
        float *yi = row_target(y, i, buf);
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) yi[j] = ai[j] + bi[j];
        row_store(y, i, yi);
    }
}

void scale_cpu(moai_device *dev, tensor y, tensor x, float factor)
{
    int64_t cols = y.cols;
    float *all = scratch_floats(dev, dev->n_threads * cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) {
        float *buf = thread_rows(all, 1, cols), *yi = row_target(y, i, buf);
        const float *xi = row_load(x, i, buf);
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) yi[j] = factor * xi[j];
        row_store(y, i, yi);
    }
}

void dropout_cpu(moai_device *dev, tensor y, tensor x, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                 float p)
{
    const int64_t cols = y.cols;
    const uint32_t below = dropout_below(p);
    const float factor = 1 / (1 - p);
    float *all = scratch_floats(dev, dev->n_threads * cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) {
        float *buf = thread_rows(all, 1, cols), *yi = row_target(y, i, buf);
        const float *xi = row_load(x, i, buf);
        const uint64_t first = (uint64_t)((row0 + i) * global_cols + col0);
        for (int64_t j = 0; j < cols; j++) yi[j] = rng_below(key, first + (uint64_t)j, below) ? 0 : factor * xi[j];
        row_store(y, i, yi);
    }
}

void fill_cpu(moai_device *dev, tensor y, float value)
{
    float *row = scratch_floats(dev, y.cols);

    for (int64_t j = 0; j < y.cols; j++) row[j] = value;
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) row_store(y, i, row);
}

void fill_normal_cpu(moai_device *dev, tensor y, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                     float std)
{
    float *all = scratch_floats(dev, dev->n_threads * y.cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) {
        float *yi = row_target(y, i, thread_rows(all, 1, y.cols));
        uint64_t first = (uint64_t)((row0 + i) * global_cols + col0);
        for (int64_t j = 0; j < y.cols; j++) yi[j] = std * rng_normal(key, first + (uint64_t)j);
        row_store(y, i, yi);
    }
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

void swiglu_cpu(moai_device *dev, tensor act, tensor gate_up)
{
    int64_t cols = act.cols;
    float *all = scratch_floats(dev, dev->n_threads * 3 * cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < act.rows; i++) {
        float *buf = thread_rows(all, 3, cols);
        const float *gate = row_load(gate_up, i, buf), *up = gate + cols;
        float *a = row_target(act, i, buf + 2 * cols);
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) a[j] = gate[j] * sigmoid(gate[j]) * up[j];
        row_store(act, i, a);
    }
}

void swiglu_backward_cpu(moai_device *dev, tensor dgate_up, tensor act, tensor dact, tensor gate_up)
{
    int64_t cols = dact.cols;
    float *all = scratch_floats(dev, dev->n_threads * 6 * cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < dact.rows; i++) {
        float *buf = thread_rows(all, 6, cols);
        const float *gate = row_load(gate_up, i, buf), *up = gate + cols, *da = row_load(dact, i, buf + 2 * cols);
        float *dgate = row_target(dgate_up, i, buf + 3 * cols), *dup = dgate + cols;
        if (act.data) {
            float *a = row_target(act, i, buf + 5 * cols);
            #pragma omp simd
            for (int64_t j = 0; j < cols; j++) a[j] = gate[j] * sigmoid(gate[j]) * up[j];
            row_store(act, i, a);
        }
        #pragma omp simd
        for (int64_t j = 0; j < cols; j++) {
            float g = gate[j], u = up[j], s = sigmoid(g);
            dgate[j] = da[j] * u * s * (1.0f + g * (1.0f - s));
            dup[j] = da[j] * g * s;
        }
        row_store(dgate_up, i, dgate);
    }
}
