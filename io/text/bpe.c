/* bpe.c: see bpe.h */
#include "io/text/bpe.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { SHORT = 48 }; /* a word up to this long is searched again for each pair */
#define NO_RANK UINT32_MAX

typedef struct pair_row {
    uint64_t pair; /* left << 32 | right */
    uint32_t rank; /* NO_RANK: the row is empty */
    int32_t whole;
} pair_row;

struct bpe {
    bpe_token *tokens;
    int32_t n_tokens, room;
    int32_t *ids; /* hash of bytes to id, -1: empty; a power of two */
    size_t n_ids;
    pair_row *pairs;
    size_t n_pair_rows, n_pairs;
    uint32_t rank;
    int32_t byte_ids[256];
};

bpe *bpe_new(void) { return xmalloc(sizeof(bpe)); }

void bpe_free(bpe *b)
{
    if (!b) return;
    for (int32_t i = 0; i < b->n_tokens; i++) free((char *)b->tokens[i].bytes);
    free(b->tokens);
    free(b->ids);
    free(b->pairs);
    free(b);
}

int32_t bpe_n_tokens(const bpe *b) { return b->n_tokens; }
bpe_token *bpe_token_of(const bpe *b, int32_t id) { return &b->tokens[id]; }

/* The row of these bytes, or the empty one where they would stand. */
static size_t id_row(const bpe *b, const char *bytes, size_t n_bytes)
{
    size_t row = XXH3_64bits(bytes, n_bytes) & (b->n_ids - 1);

    for (; b->ids[row] >= 0; row = (row + 1) & (b->n_ids - 1)) {
        const bpe_token *t = &b->tokens[b->ids[row]];
        if (t->n_bytes == n_bytes && memcmp(t->bytes, bytes, n_bytes) == 0) break;
    }
    return row;
}

int32_t bpe_find(const bpe *b, const char *bytes, size_t n_bytes)
{
    return b->n_ids ? b->ids[id_row(b, bytes, n_bytes)] : -1;
}

static void grow_ids(bpe *b)
{
    free(b->ids);
    b->n_ids = b->n_ids ? 2 * b->n_ids : 1 << 12;
    b->ids = xmalloc(b->n_ids * sizeof *b->ids);
    memset(b->ids, 0xFF, b->n_ids * sizeof *b->ids);
    for (int32_t i = 0; i < b->n_tokens; i++)
        if (b->tokens[i].is_there) b->ids[id_row(b, b->tokens[i].bytes, b->tokens[i].n_bytes)] = i;
}

bool bpe_add(bpe *b, int32_t id, const char *bytes, size_t n_bytes)
{
    if ((size_t)b->n_tokens * 2 >= b->n_ids) grow_ids(b);
    if (id >= b->room) {
        const int32_t room = id < INT32_MAX / 2 ? 2 * id + 1024 : INT32_MAX;
        b->tokens = realloc(b->tokens, (size_t)room * sizeof *b->tokens);
        CHECK(b->tokens, "out of host memory: %d tokens", room);
        memset(b->tokens + b->room, 0, (size_t)(room - b->room) * sizeof *b->tokens);
        b->room = room;
    }
    const size_t row = id_row(b, bytes, n_bytes);
    if (b->tokens[id].is_there || b->ids[row] >= 0) return false;
    char *copy = xmalloc(n_bytes + 1);
    memcpy(copy, bytes, n_bytes);
    b->tokens[id] = (bpe_token){.bytes = copy, .n_bytes = (uint32_t)n_bytes, .is_there = true};
    b->ids[row] = id;
    if (id >= b->n_tokens) b->n_tokens = id + 1;
    return true;
}

static pair_row *find_pair(const bpe *b, int32_t left, int32_t right)
{
    const uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    size_t row = (size_t)((pair * 0x9E3779B97F4A7C15u) >> 20) & (b->n_pair_rows - 1);

    while (b->pairs[row].rank != NO_RANK && b->pairs[row].pair != pair) row = (row + 1) & (b->n_pair_rows - 1);
    return &b->pairs[row];
}

static void grow_pairs(bpe *b)
{
    pair_row *old = b->pairs;
    const size_t n = b->n_pair_rows;

    b->n_pair_rows = n ? 2 * n : 1 << 12;
    b->pairs = xmalloc(b->n_pair_rows * sizeof *b->pairs);
    for (size_t i = 0; i < b->n_pair_rows; i++) b->pairs[i].rank = NO_RANK;
    for (size_t i = 0; i < n; i++)
        if (old[i].rank != NO_RANK) *find_pair(b, (int32_t)(old[i].pair >> 32), (int32_t)old[i].pair) = old[i];
    free(old);
}

/* Of a pair that comes twice the later rank holds, as in `tokenizers`. */
void bpe_add_pair(bpe *b, int32_t left, int32_t right, int32_t whole)
{
    if (b->n_pairs * 2 >= b->n_pair_rows) grow_pairs(b);
    pair_row *p = find_pair(b, left, right);
    b->n_pairs += p->rank == NO_RANK;
    *p = (pair_row){(uint64_t)(uint32_t)left << 32 | (uint32_t)right, b->rank++, whole};
}

int bpe_seal(bpe *b)
{
    int missing = -1;

    if (!b->n_pair_rows) grow_pairs(b);
    for (int i = 255; i >= 0; i--) {
        const char byte = (char)i;
        b->byte_ids[i] = bpe_find(b, &byte, 1);
        if (b->byte_ids[i] < 0) missing = i;
    }
    return missing;
}

static uint32_t rank_of(const bpe *b, int32_t left, int32_t right) { return find_pair(b, left, right)->rank; }

/* Joins in place: the ranks of all neighbours are kept, and the least is looked for again after each. */
static size_t encode_short(const bpe *b, const char *word, size_t n, int32_t *ids)
{
    uint32_t ranks[SHORT]; /* of ids i and i + 1 */

    for (size_t i = 0; i < n; i++) ids[i] = b->byte_ids[(unsigned char)word[i]];
    for (size_t i = 0; i + 1 < n; i++) ranks[i] = rank_of(b, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) break;
        ids[best] = find_pair(b, ids[best], ids[best + 1])->whole;
        n--;
        memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
        if (best + 1 < n) memmove(ranks + best, ranks + best + 1, (n - best - 1) * sizeof *ranks);
        if (best > 0) ranks[best - 1] = rank_of(b, ids[best - 1], ids[best]);
        if (best + 1 < n) ranks[best] = rank_of(b, ids[best], ids[best + 1]);
    }
    return n;
}

/* A pair in a heap: the least rank, the leftmost of equals, on top. */
typedef struct candidate {
    uint32_t rank, at;   /* at: of its left symbol */
    int32_t left, right; /* as they were: one that has changed is passed over */
} candidate;

typedef struct heap {
    candidate *list;
    size_t n, room;
} heap;

static bool is_before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(heap *h, candidate c)
{
    if (h->n == h->room) {
        h->room = 2 * h->room + 64;
        CHECK(h->list = realloc(h->list, h->room * sizeof *h->list), "out of host memory: %zu pairs", h->room);
    }
    size_t i = h->n++;
    for (; i > 0 && is_before(&c, &h->list[(i - 1) / 2]); i = (i - 1) / 2) h->list[i] = h->list[(i - 1) / 2];
    h->list[i] = c;
}

static candidate heap_pop(heap *h)
{
    const candidate top = h->list[0], last = h->list[--h->n];
    size_t i = 0;

    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && is_before(&h->list[child + 1], &h->list[child])) child++;
        if (!is_before(&h->list[child], &last)) break;
        h->list[i] = h->list[child];
    }
    h->list[i] = last;
    return top;
}

static void propose(const bpe *b, heap *h, const int32_t *ids, uint32_t at, uint32_t next)
{
    const uint32_t rank = rank_of(b, ids[at], ids[next]);

    if (rank != NO_RANK) heap_push(h, (candidate){rank, at, ids[at], ids[next]});
}

/* Symbols stay where they began, -1 where one was joined to its left; next and before lead over these. */
static size_t encode_long(const bpe *b, const char *word, size_t n, int32_t *ids)
{
    uint32_t *next = xmalloc(n * sizeof *next), *before = xmalloc(n * sizeof *before);
    heap h = {0};
    size_t n_ids = 0;

    CHECK(n < UINT32_MAX, "a word of %zu bytes", n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = b->byte_ids[(unsigned char)word[i]];
        next[i] = (uint32_t)i + 1;
        before[i] = (uint32_t)i - 1;
    }
    for (uint32_t i = 0; i + 1 < n; i++) propose(b, &h, ids, i, i + 1);
    while (h.n > 0) {
        const candidate c = heap_pop(&h);
        const uint32_t right = next[c.at];
        if (ids[c.at] != c.left || right >= n || ids[right] != c.right) continue;
        ids[c.at] = find_pair(b, c.left, c.right)->whole;
        ids[right] = -1;
        next[c.at] = next[right];
        if (next[c.at] < n) before[next[c.at]] = c.at, propose(b, &h, ids, c.at, next[c.at]);
        if (c.at > 0) propose(b, &h, ids, before[c.at], c.at);
    }
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0) ids[n_ids++] = ids[i];
    free(h.list);
    free(next);
    free(before);
    return n_ids;
}

size_t bpe_encode(const bpe *b, const char *word, size_t n_bytes, int32_t *ids)
{
    return n_bytes <= SHORT ? encode_short(b, word, n_bytes, ids) : encode_long(b, word, n_bytes, ids);
}
