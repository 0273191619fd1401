/* cpu_optim.c: sums in double over fixed blocks, gradient clipping, AdamW */
#include "src/cpu/cpu.h"

enum { SUM_ELEMS = 1 << 15 };                 /* elements of a block */

static double block_sum(const float *x, int64_t n)
{
    double sum = 0.0;

    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += (double)x[j];
    return sum;
}

static double block_sum_squares(const float *x, int64_t n)
{
    double sum = 0.0;

    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += (double)x[j] * (double)x[j];
    return sum;
}

static void sum_by_blocks(moai_device *dev, double *acc, const float *x, int64_t n,
                          double (*of_block)(const float *, int64_t))
{
    int64_t n_blocks = (n + SUM_ELEMS - 1) / SUM_ELEMS;
    double *partial = device_scratch(dev, (size_t)n_blocks * sizeof *partial);

    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n_blocks; b++)
        partial[b] = of_block(x + b * SUM_ELEMS, min_i64(SUM_ELEMS, n - b * SUM_ELEMS));
    for (int64_t b = 0; b < n_blocks; b++) *acc += partial[b];
}

void sum_cpu(moai_device *dev, double *acc, const float *x, int64_t n) { sum_by_blocks(dev, acc, x, n, block_sum); }
void sum_squares_cpu(moai_device *dev, double *acc, const float *x, int64_t n)
{
    sum_by_blocks(dev, acc, x, n, block_sum_squares);
}

void clip_cpu(moai_device *dev, float *grad_scale, const double *sumsq, float max_norm, float unscale)
{
    (void)dev;
    double norm = (double)unscale * sqrt(*sumsq);

    if (!isfinite(norm))
        *grad_scale = NAN;
    else if (max_norm <= 0.0f)
        *grad_scale = unscale;
    else
        *grad_scale = (float)(unscale * fmin(1.0, max_norm / (norm + 1e-6)));
}

/* w *= 1 - lr weight_decay, then w -= lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps), of [begin, end) */
static void adamw_range(const adamw_args *a, int64_t begin, int64_t end, float decay)
{
    float *w = a->master, *m = a->m, *v = a->v, scale = *a->grad_scale;
    const float *grad = a->grad;
    const float beta1 = a->beta1, beta2 = a->beta2, eps = a->eps, one_minus1 = 1.0f - beta1, one_minus2 = 1.0f - beta2;
    const float step = (float)(a->lr / (1.0 - pow(beta1, (double)a->t)));
    const float v_root = (float)sqrt(1.0 - pow(beta2, (double)a->t)), keep = 1.0f - a->lr * decay;

    #pragma omp simd
    for (int64_t j = begin; j < end; j++) {
        float g = grad[j] * scale;
        m[j] = beta1 * m[j] + one_minus1 * g;
        v[j] = beta2 * v[j] + one_minus2 * g * g;
        w[j] = keep * w[j] - step * m[j] / (sqrtf(v[j]) / v_root + eps);
    }
}

void adamw_cpu(moai_device *dev, const adamw_args *a)
{
    (void)dev;
    if (!isfinite(*a->grad_scale)) return;
    #pragma omp parallel
    {
        int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
        int64_t begin = share_begin(a->n, parts, part), end = share_begin(a->n, parts, part + 1);
        int64_t decay_end = max_i64(begin, min_i64(end, a->n_decay));

        adamw_range(a, begin, decay_end, a->weight_decay);
        adamw_range(a, decay_end, end, 0.0f);
        if (a->param != (void *)a->master) {
            tensor param = tensor_of(a->param, a->param_dt, 1, a->n);
            row_store(tensor_cols(param, begin, end - begin), 0, a->master + begin);
        }
    }
}
