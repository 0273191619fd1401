/* cpu_qknorm.c: RMSNorm of every q and k head, then the rotation of its pairs (i, i + head_dim/2)
 *
 *     n = w x r;   y1 = n1 cos - n2 sin,  y2 = n2 cos + n1 sin
 * The rotation's transpose undoes it in the backward; the rest is RMSNorm's (cpu_norm.c) with head_dim columns. */
#include "src/cpu/cpu.h"

/* Vectors of one op as fp32: the two norm weights, then rows for each thread. */
typedef struct head_scratch {
    const float *q_norm, *k_norm;
    float *rows, *partial;
    int64_t row_floats;
} head_scratch;

static head_scratch heads_begin(moai_device *dev, tensor q_norm, tensor k_norm, int64_t row_floats,
                                int64_t partial_floats)
{
    int64_t head_dim = q_norm.cols;
    float *scratch = scratch_floats(dev, 2 * head_dim + dev->n_threads * row_floats + partial_floats);

    return (head_scratch){
        .q_norm = row_load(q_norm, 0, scratch),
        .k_norm = row_load(k_norm, 0, scratch + head_dim),
        .rows = scratch + 2 * head_dim,
        .partial = scratch + 2 * head_dim + dev->n_threads * row_floats,
        .row_floats = row_floats,
    };
}

static float *thread_row(const head_scratch *s) { return s->rows + omp_get_thread_num() * s->row_floats; }

static float head_forward(float *y, const float *x, const float *w, const float *cos, const float *sin,
                          int64_t head_dim, float eps)
{
    int64_t half = head_dim / 2;
    float squares = 0.0f;

    #pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < head_dim; j++) squares += x[j] * x[j];
    float r = 1.0f / sqrtf(squares / (float)head_dim + eps);
    #pragma omp simd
    for (int64_t j = 0; j < half; j++) {
        float n1 = x[j] * r * w[j], n2 = x[half + j] * r * w[half + j];
        y[j] = n1 * cos[j] - n2 * sin[j];
        y[half + j] = n2 * cos[j] + n1 * sin[j];
    }
    return r;
}

void qknorm_rope_cpu(moai_device *dev, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                     const int32_t *positions, head_shape s, float eps)
{
    int64_t d = s.head_dim, n_heads = s.n_heads + s.n_kv_heads, width = n_heads * d;
    head_scratch scratch = heads_begin(dev, q_norm, k_norm, 2 * width, 0);
    tensor x = tensor_cols(qkv, 0, width);

    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < qk.rows; i++) {
        float *buf = thread_row(&scratch);
        const float *xi = row_load(x, i, buf);
        const float *cos = tensor_at(rope.cos, positions[i], 0), *sin = tensor_at(rope.sin, positions[i], 0);
        float *y = row_target(qk, i, buf + width);
        for (int64_t h = 0; h < n_heads; h++) {
            const float *w = h < s.n_heads ? scratch.q_norm : scratch.k_norm;
            r[i * n_heads + h] = head_forward(y + h * d, xi + h * d, w, cos, sin, d, eps);
        }
        row_store(qk, i, y);
    }
}

/* dy may be dx.  dn is head_dim floats of room. */
static void head_backward(float *dx, float *dw_sum, const float *dy, const float *x, const float *w, const float *cos,
                          const float *sin, float r, int64_t head_dim, float *dn)
{
    int64_t half = head_dim / 2;
    float dot = 0.0f;

    #pragma omp simd
    for (int64_t j = 0; j < half; j++) {
        dn[j] = dy[j] * cos[j] + dy[half + j] * sin[j];
        dn[half + j] = dy[half + j] * cos[j] - dy[j] * sin[j];
    }
    #pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < head_dim; j++) {
        dot += w[j] * dn[j] * x[j];
        dw_sum[j] += dn[j] * x[j] * r;
    }
    float along_x = r * r * r * dot / (float)head_dim;
    #pragma omp simd
    for (int64_t j = 0; j < head_dim; j++) dx[j] = r * w[j] * dn[j] - along_x * x[j];
}

void qknorm_rope_backward_cpu(moai_device *dev, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                              const float *r, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions,
                              head_shape s)
{
    int64_t d = s.head_dim, n_heads = s.n_heads + s.n_kv_heads, width = n_heads * d, n_blocks = sum_blocks(dqk.rows);
    head_scratch scratch = heads_begin(dev, q_norm, k_norm, 3 * width + d, n_blocks * 2 * d);
    tensor x = tensor_cols(qkv, 0, width), dx = tensor_cols(dqkv, 0, width);

    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n_blocks; b++) {
        float *buf = thread_row(&scratch), *dn = buf + 3 * width, *dw_sum = scratch.partial + b * 2 * d;
        memset(dw_sum, 0, (size_t)(2 * d) * sizeof(float));
        for (int64_t i = b * SUM_ROWS; i < min_i64((b + 1) * SUM_ROWS, dqk.rows); i++) {
            const float *xi = row_load(x, i, buf), *dyi = row_load(dqk, i, buf + width);
            const float *cos = tensor_at(rope.cos, positions[i], 0), *sin = tensor_at(rope.sin, positions[i], 0);
            float *dxi = row_target(dx, i, buf + 2 * width);
            for (int64_t h = 0; h < n_heads; h++) {
                bool is_q = h < s.n_heads;
                head_backward(dxi + h * d, is_q ? dw_sum : dw_sum + d, dyi + h * d, xi + h * d,
                              is_q ? scratch.q_norm : scratch.k_norm, cos, sin, r[i * n_heads + h], d, dn);
            }
            row_store(dx, i, dxi);
        }
    }
    if (!dq_norm.data) return;
    sum_add_blocks(dq_norm, scratch.partial, n_blocks, 2 * d);
    sum_add_blocks(dk_norm, scratch.partial + d, n_blocks, 2 * d);
}
