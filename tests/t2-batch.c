/* What a micro-batch of samples means (batch.h): each token predicts the next and sees its own sample; rows past the
 * samples that count are padding, whatever the batch held before.  Cut for the context axis it means what it meant. */
#include "parallel/axes/context_parallel.h"
#include "src/base/rng.h"
#include "src/model/batch.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_ROWS = 512, EOS = 9 };

/* seen (n_rows, n_keys): does each row see each key, and once? */
static void mark_seen(uint8_t *seen, int64_t n_keys, const token_batch *b)
{
    for (int i = 0; i < b->n_segments; i++) {
        const attend_segment s = b->segments[i];
        for (int64_t q = 0; q < s.n_rows; q++)
            for (int64_t k = 0; k < s.n_keys - s.n_rows + q + 1; k++) seen[(s.row + q) * n_keys + s.key + k]++;
    }
}

/* Documents of lengths 1, 2, a whole sample, those that end at a chunk's edge or a row beside it, and any others; or
 * examples with padding behind them. */
static void fill_sample(int32_t *ids, uint8_t *marks, int64_t seq_len, int64_t chunk, bool examples, uint64_t seed)
{
    uint64_t draw = 0;

    for (int64_t i = 0; i <= seq_len; i++) ids[i] = 10 + (int32_t)(rng_uniform(seed, draw++) * 80), marks[i] = 0;
    for (int64_t at = 0, n; at <= seq_len; at += n) {
        const double u = rng_uniform(seed, draw++), w = rng_uniform(seed, draw++);
        n = u < 0.2   ? 1
            : u < 0.4 ? 2
            : u < 0.5 ? seq_len + 1
            : u < 0.7 ? chunk - at % chunk + (int64_t)(w * 3) - 1
                      : 1 + (int64_t)(w * (double)seq_len / 2);
        n = max_i64(1, min_i64(n, seq_len + 1 - at));
        marks[at] = 2;
        ids[at + n - 1] = EOS;
        for (int64_t i = at + 1; i < at + n; i++) marks[i] = w < 0.3 ? 0 : rng_uniform(seed, draw++) < 0.7;
        if (examples && u > 0.85)
            for (; at + n <= seq_len; n++) ids[at + n] = -1;
    }
}

/* Are the rows of all ranks those of the whole samples, each once, and do they see the same? */
static bool cut_alike(const token_batch *whole, token_batch *part, int64_t n_samples, int64_t seq_len, int cp)
{
    const int64_t M = n_samples * seq_len, chunk = seq_len / (2 * cp);
    uint8_t *seen = xmalloc((size_t)(M * M)), *cut_seen = xmalloc((size_t)(part->n_rows * M)),
            *found = xmalloc((size_t)M);
    int64_t n_counted = 0;
    bool same = true;

    mark_seen(seen, M, whole);
    for (int rank = 0; rank < cp && same; rank++) {
        int64_t to = 0;
        memset(cut_seen, 0, (size_t)(part->n_rows * M));
        memset(part->ids, 7, (size_t)part->n_rows * sizeof *part->ids);
        batch_cut(part, whole, n_samples, seq_len, cp, rank);
        mark_seen(cut_seen, M, part);
        n_counted += part->n_counted;
        for (int64_t i = 0; i < n_samples; i++)
            for (int64_t at = 0; at < 2 * chunk; at++, to++) {
                const int64_t from = i * seq_len + cp_chunk_of(cp, rank, at >= chunk) * chunk + at % chunk;
                found[from]++;
                same &= part->ids[to] == whole->ids[from] && part->targets[to] == whole->targets[from] &&
                        part->positions[to] == whole->positions[from] && part->weights[to] == whole->weights[from] &&
                        memcmp(cut_seen + to * M, seen + from * M, (size_t)M) == 0;
            }
        for (; to < part->n_rows; to++) {
            same &= part->ids[to] == -1 && part->targets[to] == -1 && part->positions[to] == 0;
            for (int64_t k = 0; k < M; k++) same &= !cut_seen[to * M + k];
        }
        for (int i = 1; i < part->n_segments; i++)
            same &= part->segments[i].row >= part->segments[i - 1].row + part->segments[i - 1].n_rows;
    }
    for (int64_t i = 0; i < M; i++) same &= found[i] == 1;
    free(seen), free(cut_seen), free(found);
    return same && n_counted == whole->n_counted;
}

/* Two samples of eight tokens on the second of two ranks. */
static void check_order(void)
{
    static const int32_t held[] = {2, 3, 4, 5, 10, 11, 12, 13, -1}, predicted[] = {3, 4, 5, 6, 11, 12, 13, 14, -1};
    static const attend_segment seen[] = {{0, 2, 0, 4}, {2, 2, 0, 6}, {4, 2, 8, 4}, {6, 2, 8, 6}};
    const int32_t ids[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    token_batch whole, part;

    batch_init(&whole, 16);
    batch_init(&part, 9);
    batch_samples(&whole, ids, 2, 2, 8);
    batch_cut(&part, &whole, 2, 8, 2, 1);
    ok(!memcmp(part.ids, held, sizeof held) && !memcmp(part.targets, predicted, sizeof predicted) &&
           part.n_segments == 4 && !memcmp(part.segments, seen, sizeof seen) && part.n_counted == 8,
       "rank 1 of 2 holds chunks 1 and 2 of each sample, and each sees all before it");
    batch_free(&whole);
    batch_free(&part);
}

static void check_cut(void)
{
    enum { LAYOUTS = 300, KINDS = 3 };
    int n_wrong = 0, n_segments = 0, n_crossing = 0;

    for (uint64_t i = 0; i < LAYOUTS; i++) {
        const int cp = 1 + (int)(rng_uniform(1, i) * 5);
        const int64_t chunk = 1 + (int64_t)(rng_uniform(2, i) * 9), seq_len = 2 * cp * chunk,
                      n = 1 + (int64_t)(rng_uniform(3, i) * 3), more = (int64_t)(rng_uniform(4, i) * 3);
        int32_t ids[3 * (MOST_ROWS + 1)];
        uint8_t marks[3 * (MOST_ROWS + 1)];
        token_batch whole, part;

        batch_init(&whole, n * seq_len);
        batch_init(&part, 2 * chunk * n + more);
        for (int64_t s = 0; s < n; s++)
            fill_sample(ids + s * (seq_len + 1), marks + s * (seq_len + 1), seq_len, chunk, i % KINDS == 2,
                        100 * i + (uint64_t)s);
        batch_samples(&whole, ids, n, n - (more == 2), seq_len);
        for (int64_t row = 0; row < n * seq_len; row++) whole.weights[row] = (float)row;
        if (i % KINDS == 1) batch_documents(&whole, n, seq_len, EOS, more);
        if (i % KINDS == 2) batch_examples(&whole, marks, n, seq_len, more);
        n_wrong += !cut_alike(&whole, &part, n, seq_len, cp);
        for (int k = 0; k < part.n_segments; k++) n_crossing += part.segments[k].n_keys > part.segments[k].n_rows;
        n_segments += part.n_segments;
        batch_free(&whole);
        batch_free(&part);
    }
    ok(n_wrong == 0 && n_crossing > 200, "%d of %d micro-batches, cut, mean something else; %d of the last rank's %d "
       "segments begin in an earlier chunk", n_wrong, LAYOUTS, n_crossing, n_segments);
}

int main(void)
{
    const int32_t samples[] = {1, 2, 3, 4, 5, 6, -1, 8};
    const int32_t ids[] = {1, 2, 3, 5, 6, -1, -1, -1}, targets[] = {2, 3, 4, 6, -1, 8, -1, -1};
    token_batch b;

    batch_init(&b, 8);
    memset(b.ids, 7, 8 * sizeof *b.ids);
    memset(b.targets, 7, 8 * sizeof *b.targets);
    batch_samples(&b, samples, 2, 2, 3);
    ok(!memcmp(b.ids, ids, sizeof ids) && !memcmp(b.targets, targets, sizeof targets), "two samples of three tokens");
    ok(b.n_counted == 5, "five of their targets count (%lld)", (long long)b.n_counted);
    const int32_t positions[] = {0, 1, 2, 0, 1, 2, 0, 1};
    ok(!memcmp(b.positions, positions, sizeof positions) && b.n_segments == 2 && b.segments[0].row == 0 &&
           b.segments[0].n_rows == 3 && b.segments[1].row == 3 && b.segments[1].n_rows == 3,
       "positions begin anew with each, and each sees itself alone");
    batch_samples(&b, samples, 2, 1, 3);
    ok(b.ids[2] == 3 && b.ids[3] == -1 && b.targets[2] == 4 && b.targets[3] == -1 && b.n_counted == 3,
       "the second is padding");
    batch_samples(&b, samples, 2, -4, 3);
    ok(b.ids[0] == -1 && b.targets[0] == -1 && b.targets[7] == -1 && b.n_counted == 0, "nothing counts");
    const int32_t documents[] = {4, 9, 5, 6, 6, 9, 9, 3};       /* of two samples; 9 ends a document */
    const int32_t restarted[] = {0, 1, 0, 0, 1, 2}, as_before[] = {0, 1, 2, 0, 1, 2};
    const attend_segment apart[] = {{0, 2, 0, 2}, {2, 1, 2, 1}, {3, 3, 3, 3}};
    batch_samples(&b, documents, 2, 2, 3);
    b.ids[3] = 6, b.ids[4] = 6, b.ids[5] = 9;
    batch_documents(&b, 2, 3, 9, false);
    ok(!memcmp(b.positions, as_before, sizeof as_before), "documents apart, positions as they were");
    batch_documents(&b, 2, 3, 9, true);
    ok(b.n_segments == 3 && !memcmp(b.segments, apart, sizeof apart) &&
           !memcmp(b.positions, restarted, sizeof restarted),
       "a document ends with its end, or with the sample; the next begins at position 0");
    batch_free(&b);
    check_order();
    check_cut();
    return tap_done();
}
