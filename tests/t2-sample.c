/* Sampling: which tokens are kept, with what probabilities, and that draws follow them. */
#include "src/base/rng.h"
#include "src/ops/sample.h"
#include "tests/lib/tap.h"

#include <stdlib.h>

enum { N = 6 };
static const double known[N] = {0.06, 0.4, 0.2, 0.04, 0.3, 0}; /* token 5 never comes */

static void logits_of(float *logits, const double *p)
{
    for (int i = 0; i < N; i++) logits[i] = p[i] > 0 ? (float)log(p[i]) + 3 : -INFINITY;
}

/* The kept tokens with any order of the list: expected[i] is 0 for a token that must not come. */
static void expect(const char *what, sample_options opt, const double *p, const double *expected)
{
    float logits[N];
    double got[N] = {0}, worst = 0;
    sampler s;

    logits_of(logits, p);
    sampler_init(&s, opt, N);
    int64_t n = sampler_candidates(&s, logits);
    for (int64_t i = 0; i < n; i++) got[s.list[i].id] += s.list[i].p;
    for (int i = 0; i < N; i++) worst = fmax(worst, fabs(got[i] - expected[i]));
    ok(worst < 1e-6, "%s: probabilities %.4f %.4f %.4f %.4f %.4f %.4f", what, got[0], got[1], got[2], got[3], got[4],
       got[5]);
    sampler_free(&s);
}

static void test_kept(void)
{
    const double half = 1 / (0.16 + 0.09 + 0.04 + 0.0036 + 0.0016); /* temperature 1/2 squares the probabilities */

    expect("all", (sample_options){1, 0, 1}, known, known);
    expect("temperature 0.5", (sample_options){0.5, 0, 1}, known,
           (double[N]){0.0036 * half, 0.16 * half, 0.04 * half, 0.0016 * half, 0.09 * half, 0});
    expect("greedy", (sample_options){0, 0, 1}, known, (double[N]){0, 1});
    expect("top-k 2", (sample_options){1, 2, 1}, known, (double[N]){0, 4 / 7.0, 0, 0, 3 / 7.0, 0});
    expect("top-k beyond the vocabulary", (sample_options){1, 99, 1}, known, known);
    expect("top-p below a sum", (sample_options){1, 0, 0.699}, known, (double[N]){0, 4 / 7.0, 0, 0, 3 / 7.0, 0});
    expect("top-p above a sum", (sample_options){1, 0, 0.701}, known, (double[N]){0, 4 / 9.0, 2 / 9.0, 0, 3 / 9.0, 0});
    expect("top-p keeps at least one", (sample_options){1, 0, 1e-9}, known, (double[N]){0, 1});
    expect("top-p counts among what top-k kept", (sample_options){1, 3, 0.75}, known,
           (double[N]){0, 4 / 7.0, 0, 0, 3 / 7.0, 0});
    expect("the temperature comes before top-p", (sample_options){0.5, 0, 0.8}, known,
           (double[N]){0, 16 / 25.0, 0, 0, 9 / 25.0, 0});
    const double ties[N] = {0.25, 0.1, 0.25, 0.1, 0.25, 0.05};
    expect("top-k keeps what ties with the last", (sample_options){1, 2, 1}, ties,
           (double[N]){1 / 3.0, 0, 1 / 3.0, 0, 1 / 3.0, 0});
    expect("top-p takes lower ids first among equals", (sample_options){1, 0, 0.4}, ties, (double[N]){0.5, 0, 0.5});
    expect("greedy takes the lowest id among equals", (sample_options){0, 0, 1}, ties, (double[N]){1});
}

/* Pearson's statistic of n draws against `p`. */
static double chi_square(sample_options opt, const double *p, int n)
{
    float logits[N];
    int64_t count[N] = {0};
    double sum = 0;
    sampler s;

    logits_of(logits, known);
    sampler_init(&s, opt, N);
    const uint64_t key = rng_key(7, "draws");
    for (int i = 0; i < n; i++) count[sampler_draw(&s, logits, rng_uniform(key, (uint64_t)i))]++;
    for (int i = 0; i < N; i++) {
        if (p[i] == 0 && count[i]) sum = INFINITY;
        if (p[i] > 0) sum += pow((double)count[i] - n * p[i], 2) / (n * p[i]);
    }
    sampler_free(&s);
    return sum;
}

static void test_draws(void)
{
    const double kept[N] = {0, 4 / 9.0, 2 / 9.0, 0, 3 / 9.0, 0};
    double same = chi_square((sample_options){1, 0, 1}, known, 50000),
           warm = chi_square((sample_options){1.1, 0, 1}, known, 50000);

    ok(same < 25, "50000 draws follow the probabilities: chi-square %.2f of 4 degrees of freedom",
       same); /* 25: p = 5e-5 */
    ok(warm > 25, "and the statistic tells a temperature of 1.1: %.2f", warm);
    same = chi_square((sample_options){1, 0, 0.85}, kept, 50000);
    ok(same < 25, "draws of a nucleus stay in it: chi-square %.2f", same);
}

static void test_ends(void)
{
    float logits[N];
    sampler s;

    logits_of(logits, known);
    sampler_init(&s, (sample_options){1, 0, 1}, N);
    ok(sampler_draw(&s, logits, 0) == 0, "u = 0 is the first token");
    ok(sampler_draw(&s, logits, 1 - 0x1p-53) == 4, "the largest u is the last token that can come");
    sampler_free(&s);
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x < y) - (x > y);
}

/* A large vocabulary against the definitions worked out by sorting everything. */
static void test_large(void)
{
    enum { V = 20000 };
    const int64_t ks[] = {1, 2, 50, 4000, V - 1, V};
    const double ps[] = {0.1, 0.5, 0.9, 0.999};
    float *logits = xmalloc(V * sizeof *logits), *sorted = xmalloc(V * sizeof *sorted);
    const uint64_t key = rng_key(3, "logits");
    sampler s;

    for (int i = 0; i < V; i++)
        sorted[i] = logits[i] = floorf(400 * rng_normal(key, (uint64_t)i)) / 100; /* with many ties */
    qsort(sorted, V, sizeof *sorted, by_value);
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        int64_t n = 0;
        while (n < V && sorted[n] >= sorted[ks[i] - 1]) n++;
        sampler_init(&s, (sample_options){1, ks[i], 1}, V);
        int64_t got = sampler_candidates(&s, logits);
        ok(got == n, "top-k %lld of %d keeps %lld tokens, by sorting %lld", (long long)ks[i], V, (long long)got,
           (long long)n);
        sampler_free(&s);
    }
    double total = 0;
    for (int i = 0; i < V; i++) total += exp((double)sorted[i]);
    for (size_t i = 0; i < sizeof ps / sizeof *ps; i++) {
        int64_t n = 0;
        for (double sum = 0; sum < ps[i] * total; n++) sum += exp((double)sorted[n]);
        sampler_init(&s, (sample_options){1, 0, ps[i]}, V);
        int64_t got = sampler_candidates(&s, logits);
        ok(got == n, "top-p %g keeps %lld tokens, by sorting %lld", ps[i], (long long)got, (long long)n);
        sampler_free(&s);
    }
    free(logits);
    free(sorted);
}

static void test_broken_logits(void)
{
    const float nan[N] = {0, 1, NAN, 2}, infinite[N] = {0, INFINITY}, none[3] = {-INFINITY, -INFINITY, -INFINITY};
    sampler s;

    for (int temperature = 0; temperature < 2; temperature++) {
        sampler_init(&s, (sample_options){temperature, 0, 1}, 3);
        ok(sampler_draw(&s, nan, 0.5) == -1 && sampler_draw(&s, infinite, 0.5) == -1 &&
               sampler_draw(&s, none, 0.5) == -1,
           "temperature %d: nothing is drawn where a logit is not a number, or the largest not finite", temperature);
        sampler_free(&s);
    }
}

int main(void)
{
    test_kept();
    test_draws();
    test_ends();
    test_large();
    test_broken_logits();
    return tap_done();
}
