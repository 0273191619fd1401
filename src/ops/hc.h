/* hc.h: hyper-connections: n residual streams instead of one, read, written and mixed by coefficients that each token
 * makes (HC, arXiv 2409.19606; mHC, arXiv 2512.24880; mHC-lite, arXiv 2601.05732), as Transformers' deepseek_v4 has
 * them.
 *
 * x (nH) are a token's streams, one behind the other; raw = fn x is what it is mapped to, in three groups: n to read, n
 * to write, and what mixes the streams, n x n for Sinkhorn or n! for permutations.
 *
 *     z = raw / sqrt(mean(x^2) + norm_eps),  h = scale_group z + base
 *     pre_i = sigmoid(h_i) + eps,  post_j = 2 sigmoid(h_(n+j))
 *     comb by Sinkhorn: softmax of each row of h, + eps; every column divided by its sum + eps; then iters - 1 times
 *     rows and columns so.  By permutations: the sum of softmax(h)_k P_k, k in lexicographic order, and P_k takes
 *     stream k(j) to stream j.
 *
 * The model's head may read the streams likewise, by coefficients that are pre alone (reads_only).
 *
 *     u = sum_i pre_i x_i,  y the branch of u,  x'_j = post_j y + sum_i comb[i][j] x_i
 *
 * The arithmetic of one token's coefficients is here, for both devices; all in fp32. */
#ifndef MOAI_HC_H
#define MOAI_HC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

enum { HC_MOST_STREAMS = 8, HC_MOST_ITERS = 64 };

typedef struct hc_shape {
    int n;                                    /* streams, up to HC_MOST_STREAMS */
    bool reads_only;                          /* raw, base and coef have n elements, scale has one */
    bool permutes;                            /* else Sinkhorn */
    int iters;                                /* of Sinkhorn, 1 to HC_MOST_ITERS */
    float eps, norm_eps;
} hc_shape;

#ifdef __CUDACC__
#define HC_INLINE static __host__ __device__ inline
#else
#define HC_INLINE static inline
#endif

HC_INLINE int64_t hc_n_mixing(hc_shape s)     /* of h: n^2 or n! */
{
    int64_t n = s.permutes ? 1 : s.n * s.n;

    if (s.reads_only) return 0;
    for (int k = 2; s.permutes && k <= s.n; k++) n *= k;
    return n;
}
HC_INLINE int64_t hc_n_raw(hc_shape s) { return s.reads_only ? s.n : 2 * s.n + hc_n_mixing(s); }
HC_INLINE int64_t hc_n_coef(hc_shape s) { return s.reads_only ? s.n : 2 * s.n + s.n * s.n; }
/* Which of the three an element of raw, base and h belongs to: its scale. */
HC_INLINE int hc_group(int n, int64_t k) { return k < n ? 0 : k < 2 * n ? 1 : 2; }
HC_INLINE int hc_n_sums(hc_shape s) { return s.permutes || s.reads_only ? 0 : (2 * s.iters - 1) * s.n; }

/* What a token's coefficients are made of. */
typedef struct hc_token {
    const float *raw, *base, *scale;          /* (n_raw), (n_raw), (3) */
    float r;                                  /* 1 / sqrt(mean(x^2) + norm_eps) */
    float *sums;                              /* of Sinkhorn's steps, hc_n_sums of them, `stride` apart; a backward's,
                                                 else NULL will do */
    int64_t stride;
} hc_token;

/* 1 / x to the last bit or the next, without a GPU's detour for numbers that no sum of shares is. */
HC_INLINE float hc_reciprocal(float x)
{
#ifdef __CUDA_ARCH__
    const float y = __fdividef(1, x);
    return fmaf(fmaf(-x, y, 1), y, y);
#else
    return 1 / x;
#endif
}
HC_INLINE float hc_sigmoid(float x) { return 1 / (1 + expf(-x)); }
HC_INLINE float hc_logit(const hc_token *t, int group, int64_t k)
{
    return t->scale[group] * (t->r * t->raw[k]) + t->base[k];
}

/* The greatest of h[0, n), and the sum of exp(h - it). */
HC_INLINE float hc_softmax_sum(const hc_token *t, int64_t first, int64_t n, float *most)
{
    float sum = 0;

    *most = hc_logit(t, 2, first);
    for (int64_t k = 1; k < n; k++) *most = fmaxf(*most, hc_logit(t, 2, first + k));
    for (int64_t k = 0; k < n; k++) sum += expf(hc_logit(t, 2, first + k) - *most);
    return sum;
}

/* Divides the rows, or columns, by their sums, which are kept where there is room for them. */
HC_INLINE void hc_divide(float *m, int n, bool rows, float eps, float *sums, int64_t stride)
{
    const int along = rows ? 1 : n, across = rows ? n : 1;

    for (int a = 0; a < n; a++) {
        float sum = eps;
        for (int k = 0; k < n; k++) sum += m[a * across + k * along];
        const float by = hc_reciprocal(sum);
        for (int k = 0; k < n; k++) m[a * across + k * along] *= by;
        if (sums) sums[a * stride] = sum;
    }
}

HC_INLINE void hc_sinkhorn(float *m, const hc_token *t, hc_shape s)
{
    const int n = s.n;
    const int64_t step = t->sums ? n * t->stride : 0;
    float *sums = t->sums, most;

    for (int i = 0; i < n; i++) {
        const float by = hc_reciprocal(hc_softmax_sum(t, 2 * n + i * n, n, &most));
        for (int j = 0; j < n; j++) m[i * n + j] = expf(hc_logit(t, 2, 2 * n + i * n + j) - most) * by + s.eps;
    }
    hc_divide(m, n, false, s.eps, sums, t->stride);
    for (int i = 1; i < s.iters; i++) {
        hc_divide(m, n, true, s.eps, sums += step, t->stride);
        hc_divide(m, n, false, s.eps, sums += step, t->stride);
    }
}

/* The next of 0, ..., n - 1 in lexicographic order; none behind the last. */
HC_INLINE void hc_next_permutation(int *p, int n)
{
    int i = n - 2, j = n - 1;

    while (i >= 0 && p[i] > p[i + 1]) i--;
    if (i < 0) return;
    while (p[j] < p[i]) j--;
    int swap = p[i];
    p[i] = p[j], p[j] = swap;
    for (i++, j = n - 1; i < j; i++, j--) swap = p[i], p[i] = p[j], p[j] = swap;
}

HC_INLINE void hc_permutations(float *m, const hc_token *t, hc_shape s)
{
    const int n = s.n;
    const int64_t n_mixing = hc_n_mixing(s);
    float most;
    const float sum = hc_softmax_sum(t, 2 * n, n_mixing, &most);
    int p[HC_MOST_STREAMS];

    for (int i = 0; i < n; i++) p[i] = i;
    for (int i = 0; i < n * n; i++) m[i] = 0;
    for (int64_t k = 0; k < n_mixing; k++, hc_next_permutation(p, n)) {
        const float share = expf(hc_logit(t, 2, 2 * n + k) - most) / sum;
        for (int j = 0; j < n; j++) m[p[j] * n + j] += share;
    }
}

/* coef: pre (n), post (n), comb (n, n) */
HC_INLINE void hc_token_forward(float *coef, const hc_token *t, hc_shape s)
{
    const int n = s.n;

    for (int i = 0; i < n; i++) coef[i] = hc_sigmoid(hc_logit(t, 0, i)) + s.eps;
    if (s.reads_only) return;
    for (int i = n; i < 2 * n; i++) coef[i] = 2 * hc_sigmoid(hc_logit(t, 1, i));
    if (s.permutes)
        hc_permutations(coef + 2 * n, t, s);
    else
        hc_sinkhorn(coef + 2 * n, t, s);
}

/* g, the gradient at y = x / sum, becomes that at x, and y becomes x. */
HC_INLINE void hc_divide_backward(float *g, float *y, int n, bool rows, const float *sums, int64_t stride)
{
    const int along = rows ? 1 : n, across = rows ? n : 1;

    for (int a = 0; a < n; a++) {
        const float sum = sums[a * stride], by = hc_reciprocal(sum);
        float dot = 0;
        for (int k = 0; k < n; k++) dot += g[a * across + k * along] * y[a * across + k * along];
        for (int k = 0; k < n; k++) {
            g[a * across + k * along] = (g[a * across + k * along] - dot) * by;
            y[a * across + k * along] *= sum;
        }
    }
}

HC_INLINE void hc_sinkhorn_backward(float *dh, const float *dcomb, const hc_token *t, hc_shape s)
{
    const int n = s.n;
    const int64_t step = n * t->stride;
    float m[HC_MOST_STREAMS * HC_MOST_STREAMS], g[HC_MOST_STREAMS * HC_MOST_STREAMS], most;

    hc_sinkhorn(m, t, s);
    for (int i = 0; i < n * n; i++) g[i] = dcomb[i];
    const float *sums = t->sums + (2 * s.iters - 2) * step;
    for (int i = 1; i < s.iters; i++, sums -= 2 * step) {
        hc_divide_backward(g, m, n, false, sums, t->stride);
        hc_divide_backward(g, m, n, true, sums - step, t->stride);
    }
    hc_divide_backward(g, m, n, false, sums, t->stride);
    for (int i = 0; i < n; i++) {
        const float sum = hc_softmax_sum(t, 2 * n + i * n, n, &most);
        float dot = 0;
        for (int j = 0; j < n; j++) {
            m[i * n + j] = expf(hc_logit(t, 2, 2 * n + i * n + j) - most) / sum;
            dot += g[i * n + j] * m[i * n + j];
        }
        for (int j = 0; j < n; j++) dh[i * n + j] = (g[i * n + j] - dot) * m[i * n + j];
    }
}

HC_INLINE void hc_permutations_backward(float *dh, const float *dcomb, const hc_token *t, hc_shape s)
{
    const int n = s.n;
    const int64_t n_mixing = hc_n_mixing(s);
    float most, dot = 0;
    const float sum = hc_softmax_sum(t, 2 * n, n_mixing, &most);
    int p[HC_MOST_STREAMS];

    for (int i = 0; i < n; i++) p[i] = i;
    for (int64_t k = 0; k < n_mixing; k++, hc_next_permutation(p, n)) {
        float g = 0;
        for (int j = 0; j < n; j++) g += dcomb[p[j] * n + j];
        dh[k] = g;
        dot += g * (expf(hc_logit(t, 2, 2 * n + k) - most) / sum);
    }
    for (int64_t k = 0; k < n_mixing; k++) dh[k] = (dh[k] - dot) * (expf(hc_logit(t, 2, 2 * n + k) - most) / sum);
}

/* dh (n_raw), from dcoef as coef is.  Returns sum_k scale dh_k raw_k, with which the norm's part of dx begins. */
HC_INLINE float hc_token_backward(float *dh, const float *dcoef, const hc_token *t, hc_shape s)
{
    const int n = s.n;
    const int64_t n_raw = hc_n_raw(s);
    float along = 0;

    for (int i = 0; i < n; i++) {
        const float pre = hc_sigmoid(hc_logit(t, 0, i));
        dh[i] = dcoef[i] * pre * (1 - pre);
    }
    for (int i = n; i < 2 * n && !s.reads_only; i++) {
        const float post = hc_sigmoid(hc_logit(t, 1, i));
        dh[i] = dcoef[i] * 2 * post * (1 - post);
    }
    if (s.reads_only)
        ;
    else if (s.permutes)
        hc_permutations_backward(dh + 2 * n, dcoef + 2 * n, t, s);
    else
        hc_sinkhorn_backward(dh + 2 * n, dcoef + 2 * n, t, s);
    for (int64_t k = 0; k < n_raw; k++) along += t->scale[hc_group(n, k)] * dh[k] * t->raw[k];
    return along;
}

#endif
