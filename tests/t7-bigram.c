/* t7-bigram.c: the bigram model is a distribution, and finds the entropy of a source that is a bigram. */
#include "src/base/rng.h"
#include "src/corpus/bigram.h"
#include "tests/lib/tap.h"

enum { V = 50, TOKENS = 400000 };

/* p(b|a) of the source: half on a's favourite, the rest falling off from it. */
static double source(int a, int b)
{
    double sum = 0, here = 0;

    for (int k = 0; k < V; k++) {
        double weight = k == 0 ? V : 1.0 / k;
        sum += weight;
        if ((a * 7 + k) % V == b) here = weight;
    }
    return here / sum;
}

static int draw(int a, double u)
{
    for (int b = 0; b < V; b++)
        if ((u -= source(a, b)) < 0) return b;
    return V - 1;
}

static double sum_after(const bigram *m, int32_t a, int64_t vocab_size)
{
    double sum = 0;
    for (int32_t b = 0; b < vocab_size; b++) sum += bigram_probability(m, a, b);
    return sum;
}

static void test_source(void)
{
    bigram *m = bigram_new(V);
    double entropy = 0, loss = 0;
    int a = 0;

    for (uint64_t i = 0; i < TOKENS; i++) {
        int b = draw(a, rng_uniform(1, i));
        bigram_add(m, a, b);
        a = b;
    }
    bigram_fit(m);
    for (uint64_t i = 0; i < TOKENS / 4; i++) {
        int b = draw(a, rng_uniform(2, i));
        entropy -= log(source(a, b)) / (TOKENS / 4);
        loss -= log(bigram_probability(m, a, b)) / (TOKENS / 4);
        a = b;
    }
    ok_close(loss, entropy, 0.01, 0, "loss on a bigram source, nats, against its own");
    bigram_free(m);
}

static void test_sums(void)
{
    enum { LARGE = 3000 };
    bigram *m = bigram_new(LARGE);

    for (uint64_t i = 0; i < 200000; i++) { /* enough kinds for the table to grow; the upper tokens stay unseen */
        double u = rng_uniform(3, 2 * i), v = rng_uniform(3, 2 * i + 1);
        bigram_add(m, (int32_t)(u * u * 2000), (int32_t)(v * v * v * 2500));
    }
    bigram_fit(m);
    ok_close(sum_after(m, 0, LARGE), 1, 1e-9, 0, "probabilities after a common token sum to");
    ok_close(sum_after(m, 1990, LARGE), 1, 1e-9, 0, "after a rare token");
    ok_close(sum_after(m, 2999, LARGE), 1, 1e-9, 0, "after a token never seen");
    ok(bigram_probability(m, 0, 2999) > 0, "a token never seen has a probability: %g", bigram_probability(m, 0, 2999));
    ok(bigram_kinds(m) > 65536, "%lld kinds of pairs", (long long)bigram_kinds(m));
    bigram_free(m);
}

static void test_tiny(void)
{
    bigram *m = bigram_new(10);

    bigram_add(m, 1, 2);
    bigram_fit(m);
    ok_close(sum_after(m, 1, 10), 1, 1e-9, 0, "with one pair seen, probabilities sum to");
    ok(bigram_probability(m, 1, 2) > bigram_probability(m, 1, 3) && bigram_probability(m, 1, 3) > 0,
       "the pair seen is the likeliest");
    bigram_free(m);
}

int main(void)
{
    test_source();
    test_sums();
    test_tiny();
    return tap_done();
}
