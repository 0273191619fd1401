/* bigram.c: see bigram.h */
#include "src/corpus/bigram.h"

#include <stdlib.h>
#include <string.h>

typedef struct pair {
    int32_t a, b;
    int64_t count;                            /* 0: the place is free */
} pair;

struct bigram {
    int64_t vocab_size, n_pairs, n_places;    /* n_places: a power of two */
    pair *pairs;                              /* open addressing */
    int64_t *after;                           /* (vocab_size) c(a.) */
    int64_t *before;                          /* (vocab_size) k(b) */
    double *backoff;                          /* (vocab_size) the mass that a leaves to p(b), over 1 */
    double *unigram;                          /* (vocab_size) p(b) */
    double discount[4];                       /* by min(count, 3) */
};

bigram *bigram_new(int64_t vocab_size)
{
    bigram *m = xmalloc(sizeof *m);
    size_t n = (size_t)vocab_size;

    *m = (bigram){.vocab_size = vocab_size, .n_places = 1 << 16, .pairs = xmalloc((1 << 16) * sizeof *m->pairs),
                  .after = xmalloc(n * sizeof *m->after), .before = xmalloc(n * sizeof *m->before),
                  .backoff = xmalloc(n * sizeof *m->backoff), .unigram = xmalloc(n * sizeof *m->unigram)};
    return m;
}

void bigram_free(bigram *m)
{
    free(m->pairs);
    free(m->after);
    free(m->before);
    free(m->backoff);
    free(m->unigram);
    free(m);
}

int64_t bigram_kinds(const bigram *m) { return m->n_pairs; }

/* The place of the pair, or the free one where it would go. */
static pair *find_pair(const bigram *m, int32_t a, int32_t b)
{
    uint64_t h = ((uint64_t)(uint32_t)a << 32 | (uint32_t)b) * 0x9E3779B97F4A7C15u, mask = (uint64_t)m->n_places - 1;

    for (h = (h ^ h >> 29) & mask;; h = (h + 1) & mask) {
        pair *p = &m->pairs[h];
        if (p->count == 0 || (p->a == a && p->b == b)) return p;
    }
}

static void grow(bigram *m)
{
    pair *old = m->pairs;
    int64_t n = m->n_places;

    m->n_places = 2 * n;
    m->pairs = xmalloc((size_t)m->n_places * sizeof *m->pairs);
    for (int64_t i = 0; i < n; i++)
        if (old[i].count) *find_pair(m, old[i].a, old[i].b) = old[i];
    free(old);
}

void bigram_add(bigram *m, int32_t a, int32_t b)
{
    pair *p = find_pair(m, a, b);

    if (p->count == 0) {
        if (2 * ++m->n_pairs > m->n_places) {
            grow(m);
            p = find_pair(m, a, b);
        }
        p->a = a, p->b = b;
        m->before[b]++;
    }
    p->count++;
    m->after[a]++;
}

static void fit_discounts(bigram *m)
{
    double n[5] = {0};                        /* pairs seen exactly 1, 2, 3, 4 times */

    for (int64_t i = 0; i < m->n_places; i++)
        if (m->pairs[i].count >= 1 && m->pairs[i].count <= 4) n[m->pairs[i].count]++;
    double y = n[1] / (n[1] + 2 * n[2]);
    for (int c = 1; c <= 3; c++) {
        bool known = n[1] > 0 && n[c] > 0 && n[c + 1] > 0;
        double d = known ? c - (c + 1) * y * n[c + 1] / n[c] : 0.75;
        m->discount[c] = d > 0 ? d : 0;       /* d <= c as it stands: nothing below zero is left of a count */
    }
}

static void fit_unigram(bigram *m)
{
    double once = 0, twice = 0, seen = 0, kinds = (double)m->n_pairs;

    for (int64_t b = 0; b < m->vocab_size; b++) {
        once += m->before[b] == 1;
        twice += m->before[b] == 2;
        seen += m->before[b] > 0;
    }
    double d = once > 0 && twice > 0 ? once / (once + 2 * twice) : 0.75;
    for (int64_t b = 0; b < m->vocab_size; b++) {
        double left = (double)m->before[b] - d;
        m->unigram[b] =
            kinds > 0 ? ((left > 0 ? left : 0) + d * seen / (double)m->vocab_size) / kinds : 1 / (double)m->vocab_size;
    }
}

static double discount_of(const bigram *m, int64_t count) { return m->discount[count < 3 ? count : 3]; }

void bigram_fit(bigram *m)
{
    fit_discounts(m);
    fit_unigram(m);
    memset(m->backoff, 0, (size_t)m->vocab_size * sizeof *m->backoff);
    for (int64_t i = 0; i < m->n_places; i++)
        if (m->pairs[i].count) m->backoff[m->pairs[i].a] += discount_of(m, m->pairs[i].count);
    for (int64_t a = 0; a < m->vocab_size; a++) m->backoff[a] = m->after[a] ? m->backoff[a] / (double)m->after[a] : 1;
}

double bigram_probability(const bigram *m, int32_t a, int32_t b)
{
    int64_t count = m->after[a] ? find_pair(m, a, b)->count : 0;
    double direct = count ? ((double)count - discount_of(m, count)) / (double)m->after[a] : 0;

    return direct + m->backoff[a] * m->unigram[b];
}
