/* sample.c: see sample.h */
#include "src/ops/sample.h"

#include <math.h>
#include <stdlib.h>

void sampler_init(sampler *s, sample_options opt, int64_t n_vocab)
{
    CHECK(opt.temperature >= 0 && opt.top_k >= 0 && opt.top_p > 0 && opt.top_p <= 1,
          "temperature %g, top_k %lld, top_p %g", opt.temperature, (long long)opt.top_k, opt.top_p);
    *s = (sampler){.opt = opt, .n_vocab = n_vocab};
    s->list = xmalloc((size_t)n_vocab * sizeof *s->list);
    s->spare = xmalloc((size_t)n_vocab * sizeof *s->spare);
}

void sampler_free(sampler *s)
{
    free(s->list);
    free(s->spare);
    *s = (sampler){0};
}

/* -1: there is none to speak of */
static int32_t largest(const float *x, int64_t n)
{
    int32_t best = 0;

    for (int64_t i = 0; i < n; i++) {
        if (isnan(x[i])) return -1;
        if (x[i] > x[best]) best = (int32_t)i;
    }
    return isfinite(x[best]) ? best : -1;
}

/* The k-th largest of x, k in [1, n]; x is left in another order (quickselect, Hoare 1961). */
static float kth_largest(float *x, int64_t n, int64_t k)
{
    int64_t first = 0, last = n - 1, wanted = k - 1;

    while (first < last) {
        const float pivot = x[first + (last - first) / 2];
        int64_t i = first, j = last;
        while (i <= j) {
            while (x[i] > pivot) i++;
            while (x[j] < pivot) j--;
            if (i > j) break;
            const float swap = x[i];
            x[i++] = x[j];
            x[j--] = swap;
        }
        if (wanted <= j)
            last = j;
        else if (wanted >= i)
            first = i;
        else
            break;
    }
    return x[wanted];
}

/* Tokens whose logit is at least `floor`, their probabilities among themselves. */
static int64_t softmax_above(sampler *s, const float *logits, float floor, float max)
{
    int64_t n = 0;
    double sum = 0;

    for (int64_t i = 0; i < s->n_vocab; i++) {
        if (logits[i] < floor) continue;
        const double p = exp(((double)logits[i] - max) / s->opt.temperature);
        s->list[n++] = (candidate){.p = p, .id = (int32_t)i};
        sum += p;
    }
    for (int64_t i = 0; i < n; i++) s->list[i].p /= sum;
    return n;
}

static int more_probable_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;

    if (x->p != y->p) return x->p < y->p ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}

/* Tokens below (1 - top_p) / n have less than 1 - top_p together, so the others suffice, and only they need sorting. */
static int64_t nucleus(sampler *s, int64_t n)
{
    const double negligible = (1 - s->opt.top_p) / (double)n;
    int64_t n_large = 0, n_kept = 0;
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        if (s->list[i].p >= negligible) s->list[n_large++] = s->list[i];
    qsort(s->list, (size_t)n_large, sizeof *s->list, more_probable_first);
    while (n_kept < n_large && sum < s->opt.top_p) sum += s->list[n_kept++].p;
    for (int64_t i = 0; i < n_kept; i++) s->list[i].p /= sum;
    return n_kept;
}

int64_t sampler_candidates(sampler *s, const float *logits)
{
    const int32_t best = largest(logits, s->n_vocab);
    float floor = -INFINITY;

    if (best < 0) return 0;
    if (s->opt.temperature == 0) {
        s->list[0] = (candidate){.p = 1, .id = best};
        return 1;
    }
    if (s->opt.top_k > 0 && s->opt.top_k < s->n_vocab) {
        for (int64_t i = 0; i < s->n_vocab; i++) s->spare[i] = logits[i];
        floor = kth_largest(s->spare, s->n_vocab, s->opt.top_k);
    }
    const int64_t n = softmax_above(s, logits, floor, logits[best]);
    return s->opt.top_p < 1 ? nucleus(s, n) : n;
}

int32_t sampler_draw(sampler *s, const float *logits, double u)
{
    const int64_t n = sampler_candidates(s, logits);
    int64_t i = 0;

    if (n == 0) return -1;
    for (double below = s->list[0].p; i < n - 1 && below <= u; below += s->list[i].p) i++;
    while (s->list[i].p == 0 && i > 0) i--; /* a sum short of 1 must not end at a token that cannot come */
    return s->list[i].id;
}
