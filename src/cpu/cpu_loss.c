/* cpu_loss.c: cross-entropy over a vocabulary that may be split: statistics of the part, then loss and gradient */
#include "src/cpu/cpu.h"

enum { STAT_MAX, STAT_SUM, STAT_TARGET, N_STATS };

static void row_stats(float *stats, const float *logit, int64_t n, int64_t target)
{
    float max = -INFINITY, sum = 0.0f;

    #pragma omp simd reduction(max : max)
    for (int64_t j = 0; j < n; j++) max = logit[j] > max ? logit[j] : max;
    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += exp_fast(logit[j] - max);
    stats[STAT_MAX] = max;
    stats[STAT_SUM] = sum;
    stats[STAT_TARGET] = target >= 0 && target < n ? logit[target] : -INFINITY;
}

static int64_t local_target(int32_t target, int64_t vocab_begin) { return target < 0 ? -1 : target - vocab_begin; }

void softmax_stats_cpu(moai_device *dev, float *stats, tensor logits, const int32_t *targets, int64_t vocab_begin)
{
    float *all = scratch_floats(dev, dev->n_threads * logits.cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < logits.rows; i++) {
        const float *logit = row_load(logits, i, all + omp_get_thread_num() * logits.cols);
        row_stats(stats + i * N_STATS, logit, logits.cols, local_target(targets[i], vocab_begin));
    }
}

typedef struct row_total {
    float max, sum, target;                   /* over the whole vocabulary */
} row_total;

static row_total combine_parts(const float *stats_all, int n_parts, int64_t n_rows, int64_t i)
{
    row_total t = {-INFINITY, 0.0f, -INFINITY};

    for (int p = 0; p < n_parts; p++) {
        const float *part = stats_all + (p * n_rows + i) * N_STATS;
        t.max = fmaxf(t.max, part[STAT_MAX]);
        t.target = fmaxf(t.target, part[STAT_TARGET]);
    }
    for (int p = 0; p < n_parts; p++) {
        const float *part = stats_all + (p * n_rows + i) * N_STATS;
        t.sum += part[STAT_SUM] * expf(part[STAT_MAX] - t.max);
    }
    return t;
}

static void row_gradient(tensor logits, int64_t i, row_total t, int64_t target, float scale, float *buf)
{
    const float *logit = row_load(logits, i, buf);
    float *grad = row_target(logits, i, buf), factor = scale / t.sum;

    #pragma omp simd
    for (int64_t j = 0; j < logits.cols; j++) grad[j] = factor * exp_fast(logit[j] - t.max);
    if (target >= 0 && target < logits.cols) grad[target] -= scale;
    row_store(logits, i, grad);
}

void cross_entropy_cpu(moai_device *dev, float *nll, tensor logits, const float *stats_all, int n_parts,
                       const int32_t *targets, const float *weights, int64_t vocab_begin, float scale)
{
    float *all = scratch_floats(dev, dev->n_threads * logits.cols);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < logits.rows; i++) {
        const float weight = weights ? weights[i] : 1.0f;
        if (targets[i] < 0 || weight == 0.0f) {
            nll[i] = 0.0f;
            if (scale != 0.0f) memset(tensor_at(logits, i, 0), 0, (size_t)logits.cols * dtype_size(logits.dt));
            continue;
        }
        row_total t = combine_parts(stats_all, n_parts, logits.rows, i);
        nll[i] = weight * (logf(t.sum) + (t.max - t.target));
        if (scale != 0.0f)
            row_gradient(logits, i, t, local_target(targets[i], vocab_begin), weight * scale,
                         all + omp_get_thread_num() * logits.cols);
    }
}
