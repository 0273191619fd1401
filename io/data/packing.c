/* packing.c: see packing.h */
#include "io/data/packing.h"

#include <stdlib.h>
#include <string.h>

/* A set of the numbers [0, n): a tree of words, each bit of a level saying whether a word of the one below has any. */
typedef struct number_set {
    uint64_t *levels[11];                     /* of 2^63 numbers at most */
    int n_levels;
} number_set;

static number_set set_new(int64_t n)
{
    number_set s = {0};

    do {
        n = (n + 63) / 64;
        s.levels[s.n_levels++] = xmalloc((size_t)n * sizeof(uint64_t));
    } while (n > 1);
    return s;
}

static void set_free(number_set *s)
{
    for (int i = 0; i < s->n_levels; i++) free(s->levels[i]);
}

static void set_add(number_set *s, int64_t number)
{
    for (int i = 0; i < s->n_levels; i++, number /= 64) s->levels[i][number / 64] |= 1ull << number % 64;
}

static void set_remove(number_set *s, int64_t number)
{
    for (int i = 0; i < s->n_levels; i++, number /= 64)
        if ((s->levels[i][number / 64] &= ~(1ull << number % 64)) != 0) break;
}

/* The least number of the set, of [0, n), that is not below `least`; -1: none. */
static int64_t set_find(const number_set *s, int64_t least, int64_t n)
{
    for (int i = 0; i < s->n_levels; i++, least = least / 64 + 1, n = (n + 63) / 64) {
        if (least >= n) return -1;
        uint64_t bits = s->levels[i][least / 64] >> least % 64;
        if (!bits) continue;
        for (least += __builtin_ctzll(bits); i > 0; i--)
            least = least * 64 + __builtin_ctzll(s->levels[i - 1][least]);
        return least;
    }
    return -1;
}

/* The samples that are open, by the room that is left in them. */
typedef struct rooms {
    int64_t capacity;
    number_set sizes;                         /* rooms that a sample has */
    int64_t *newest;                          /* (capacity + 1) the sample of this room put there last, or -1 */
    int64_t *before;                          /* (samples) the one put there before it */
} rooms;

static rooms rooms_new(int64_t capacity, int64_t most_samples)
{
    rooms r = {.capacity = capacity, .sizes = set_new(capacity + 1),
               .newest = xmalloc((size_t)(capacity + 1) * sizeof *r.newest),
               .before = xmalloc((size_t)most_samples * sizeof *r.before)};

    for (int64_t i = 0; i <= capacity; i++) r.newest[i] = -1;
    return r;
}

static void rooms_free(rooms *r)
{
    set_free(&r->sizes);
    free(r->newest);
    free(r->before);
}

static void rooms_put(rooms *r, int64_t sample, int64_t room)
{
    r->before[sample] = r->newest[room];
    r->newest[room] = sample;
    set_add(&r->sizes, room);
}

/* The sample with the least room of at least `length`, which is used; -1: none. */
static int64_t rooms_take(rooms *r, int64_t length)
{
    const int64_t room = set_find(&r->sizes, length, r->capacity + 1);

    if (room < 0) return -1;
    const int64_t sample = r->newest[room];
    r->newest[room] = r->before[sample];
    if (r->newest[room] < 0) set_remove(&r->sizes, room);
    rooms_put(r, sample, room - length);
    return sample;
}

/* Examples by falling length, equal ones in their order; returns how many. */
static int64_t sort_examples(int64_t *sorted, const int32_t *lengths, int64_t n, int64_t capacity)
{
    int64_t *begin = xmalloc((size_t)(capacity + 2) * sizeof *begin);

    for (int64_t i = 0; i < n; i++) {
        CHECK(lengths[i] >= 0 && lengths[i] <= capacity, "an example of %d tokens in samples of %lld", lengths[i],
              (long long)capacity);
        begin[lengths[i]]++;
    }
    begin[0] = 0;
    for (int64_t length = capacity, at = 0; length >= 0; length--) {
        const int64_t count = begin[length];
        begin[length] = at;
        at += count;
    }
    const int64_t n_placed = begin[0];
    for (int64_t i = 0; i < n; i++)
        if (lengths[i] > 0) sorted[begin[lengths[i]]++] = i;
    free(begin);
    return n_placed;
}

/* The list from each example's sample, in the order of `placed`. */
static void fill_list(packing *p, const int64_t *placed, const int64_t *sample_of, int64_t n)
{
    p->begin = xmalloc((size_t)(p->n_samples + 1) * sizeof *p->begin);
    p->list = xmalloc((size_t)n * sizeof *p->list);
    for (int64_t i = 0; i < n; i++) p->begin[sample_of[i] + 1]++;
    for (int64_t s = 0; s < p->n_samples; s++) p->begin[s + 1] += p->begin[s];
    for (int64_t i = 0; i < n; i++) p->list[p->begin[sample_of[i]]++] = placed[i];
    for (int64_t s = p->n_samples; s > 0; s--) p->begin[s] = p->begin[s - 1];
    p->begin[0] = 0;
}

packing packing_make(const int32_t *lengths, int64_t n, int64_t capacity, bool together)
{
    int64_t *placed = xmalloc((size_t)n * sizeof *placed), *sample_of = xmalloc((size_t)n * sizeof *sample_of);
    packing p = {0};
    int64_t n_placed = 0;

    if (together) {
        rooms open = rooms_new(capacity, n);
        n_placed = sort_examples(placed, lengths, n, capacity);
        for (int64_t i = 0; i < n_placed; i++) {
            const int64_t length = lengths[placed[i]];
            sample_of[i] = rooms_take(&open, length);
            if (sample_of[i] < 0) rooms_put(&open, sample_of[i] = p.n_samples++, capacity - length);
        }
        rooms_free(&open);
    } else {
        for (int64_t i = 0; i < n; i++)
            if (lengths[i] > 0) placed[n_placed] = i, sample_of[n_placed++] = p.n_samples++;
    }
    fill_list(&p, placed, sample_of, n_placed);
    free(placed);
    free(sample_of);
    return p;
}

void packing_free(packing *p)
{
    free(p->begin);
    free(p->list);
    *p = (packing){0};
}
