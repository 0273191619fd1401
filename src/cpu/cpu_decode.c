/* cpu_decode.c: attention of single rows over a cache of keys and values */
#include "src/cpu/cpu.h"

enum { KEY_BLOCK = 64 };

void kv_append_cpu(moai_device *dev, tensor k_cache, tensor v_cache, tensor k, tensor v, const int32_t *seq,
                   const int32_t *pos, int64_t max_len)
{
    const size_t bytes = (size_t)k.cols * dtype_size(k.dt);

    (void)dev;
    CHECK(k_cache.dt == k.dt && v_cache.dt == v.dt, "kv_append: %s and %s rows into caches of %s and %s",
          dtype_name(k.dt), dtype_name(v.dt), dtype_name(k_cache.dt), dtype_name(v_cache.dt));
    for (int64_t i = 0; i < k.rows; i++) {
        const int64_t row = seq[i] * max_len + pos[i];
        memcpy(tensor_at(k_cache, row, 0), tensor_at(k, i, 0), bytes);
        memcpy(tensor_at(v_cache, row, 0), tensor_at(v, i, 0), bytes);
    }
}

static float dot(const float *a, const float *b, int64_t n)
{
    float sum = 0.0f;

    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n; j++) sum += a[j] * b[j];
    return sum;
}

/* out = softmax(scale q K^T) V over n_keys rows of k and v, by blocks with a running maximum.  buf holds one row. */
static void attend_row(float *out, const float *q, tensor k, tensor v, int64_t n_keys, float scale, float *buf)
{
    float max = -INFINITY, sum = 0.0f, p[KEY_BLOCK];
    int64_t d = k.cols;

    memset(out, 0, (size_t)d * sizeof(float));
    for (int64_t first = 0; first < n_keys; first += KEY_BLOCK) {
        int64_t n = min_i64(KEY_BLOCK, n_keys - first);
        float new_max = max;
        for (int64_t j = 0; j < n; j++) {
            p[j] = scale * dot(q, row_load(k, first + j, buf), d);
            new_max = fmaxf(new_max, p[j]);
        }
        float shrink = exp_fast(max - new_max);               /* 0 at the first block */
        max = new_max;
        sum *= shrink;
        for (int64_t c = 0; c < d; c++) out[c] *= shrink;
        for (int64_t j = 0; j < n; j++) {
            const float *vj = row_load(v, first + j, buf);
            float pj = exp_fast(p[j] - max);
            sum += pj;
            #pragma omp simd
            for (int64_t c = 0; c < d; c++) out[c] += pj * vj[c];
        }
    }
    for (int64_t c = 0; c < d; c++) out[c] /= sum;
}

void attend_cached_cpu(moai_device *dev, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                       const int32_t *pos, int64_t max_len, head_shape s)
{
    int64_t d = s.head_dim, group = s.n_heads / s.n_kv_heads;
    float *all = scratch_floats(dev, dev->n_threads * 3 * d);

    #pragma omp parallel for collapse(2) schedule(static)
    for (int64_t i = 0; i < q.rows; i++) {
        for (int64_t h = 0; h < s.n_heads; h++) {
            float *buf = all + omp_get_thread_num() * 3 * d;
            int64_t n_keys = pos[i] + 1, first = seq[i] * max_len;
            tensor qh = tensor_cols(q, h * d, d), out = tensor_cols(att, h * d, d);
            tensor k = tensor_rows(tensor_cols(k_cache, h / group * d, d), first, n_keys);
            tensor v = tensor_rows(tensor_cols(v_cache, h / group * d, d), first, n_keys);
            float *o = row_target(out, i, buf + d);
            attend_row(o, row_load(qh, i, buf + 2 * d), k, v, n_keys, s.scale, buf);
            row_store(out, i, o);
        }
    }
}
