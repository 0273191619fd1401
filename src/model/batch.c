/* batch.c: see batch.h */
#include "src/model/batch.h"

#include "parallel/axes/context_parallel.h"

#include <stdlib.h>
#include <string.h>

void batch_init(token_batch *b, int64_t n_rows)
{
    *b = (token_batch){.n_rows = n_rows,
                       .ids = xmalloc((size_t)n_rows * sizeof *b->ids),
                       .targets = xmalloc((size_t)n_rows * sizeof *b->targets),
                       .weights = xmalloc((size_t)n_rows * sizeof *b->weights),
                       .positions = xmalloc((size_t)n_rows * sizeof *b->positions),
                       .segments = xmalloc((size_t)n_rows * sizeof *b->segments),
                       .picked = xmalloc((size_t)n_rows * sizeof *b->picked),
                       .places = xmalloc((size_t)n_rows * sizeof *b->places)};
}

void batch_free(token_batch *b)
{
    free(b->ids);
    free(b->targets);
    free(b->weights);
    free(b->positions);
    free(b->segments);
    free(b->picked);
    free(b->places);
    *b = (token_batch){0};
}

void batch_whole_samples(token_batch *b, int64_t n_samples, int64_t seq_len)
{
    CHECK(n_samples * seq_len <= b->n_rows, "%lld samples of %lld tokens in a batch of %lld rows",
          (long long)n_samples, (long long)seq_len, (long long)b->n_rows);
    for (int64_t row = 0; row < b->n_rows; row++) b->positions[row] = (int32_t)(row % seq_len);
    b->n_segments = (int)n_samples;
    for (int i = 0; i < b->n_segments; i++) b->segments[i] = attend_whole(i * seq_len, seq_len);
}

static int64_t count_targets(const token_batch *b)
{
    int64_t n = 0;

    for (int64_t row = 0; row < b->n_rows; row++) n += b->targets[row] >= 0;
    return n;
}

void batch_samples(token_batch *b, const int32_t *samples, int64_t n_samples, int64_t n_counted, int64_t seq_len)
{
    const int64_t n = max_i64(0, min_i64(n_samples, n_counted)), n_real = n * seq_len;

    batch_whole_samples(b, n_samples, seq_len);
    for (int64_t i = 0; i < n; i++) {
        const int32_t *sample = samples + i * (seq_len + 1);
        memcpy(b->ids + i * seq_len, sample, (size_t)seq_len * sizeof *sample);
        memcpy(b->targets + i * seq_len, sample + 1, (size_t)seq_len * sizeof *sample);
    }
    for (int64_t row = n_real; row < b->n_rows; row++) b->ids[row] = b->targets[row] = -1;
    b->is_weighted = false;
    b->n_picked = 0;
    b->n_counted = count_targets(b);
}

void batch_documents(token_batch *b, int64_t n_samples, int64_t seq_len, int64_t eos, bool restart)
{
    b->n_segments = 0;
    for (int64_t row = 0, begin = 0; row < n_samples * seq_len; row++) {
        const bool sample_ends = (row + 1) % seq_len == 0;
        if (restart) b->positions[row] = (int32_t)(row - begin);
        if (!sample_ends && b->ids[row] != eos) continue;
        b->segments[b->n_segments++] = attend_whole(begin, row + 1 - begin);
        begin = row + 1;
    }
}

void batch_examples(token_batch *b, const uint8_t *marks, int64_t n_samples, int64_t seq_len, bool restart)
{
    b->n_segments = 0;
    for (int64_t row = 0; row < n_samples * seq_len; row++) {
        const int64_t at = row % seq_len;
        const uint8_t *mark = marks + row / seq_len * (seq_len + 1) + at;
        if (mark[1] != 1) b->targets[row] = -1;
        if (b->ids[row] < 0) continue;
        if (at == 0 || mark[0] == 2) b->segments[b->n_segments++] = attend_whole(row, 0);
        attend_segment *last = &b->segments[b->n_segments - 1];
        if (restart) b->positions[row] = (int32_t)last->n_rows;
        last->n_rows++, last->n_keys++;
    }
    b->n_counted = count_targets(b);
}

/* The rows [row, row + n) of `whole` from row `to` on; its segments before `first` end before them. */
static void copy_rows(token_batch *b, int64_t to, const token_batch *whole, int64_t row, int64_t n, int first)
{
    const size_t bytes = (size_t)n * sizeof(int32_t);

    memcpy(b->ids + to, whole->ids + row, bytes);
    memcpy(b->targets + to, whole->targets + row, bytes);
    memcpy(b->positions + to, whole->positions + row, bytes);
    memcpy(b->weights + to, whole->weights + row, (size_t)n * sizeof *b->weights);
    for (int i = first; i < whole->n_segments && whole->segments[i].row < row + n; i++) {
        const attend_segment s = whole->segments[i];
        const int64_t begin = max_i64(s.row, row), end = min_i64(s.row + s.n_rows, row + n);
        if (begin < end)
            b->segments[b->n_segments++] = (attend_segment){to + begin - row, end - begin, s.row, end - s.row};
    }
}

void batch_cut(token_batch *b, const token_batch *whole, int64_t n_samples, int64_t seq_len, int cp, int rank)
{
    const int64_t chunk = seq_len / (2 * cp);
    int64_t to = 0;
    int segment = 0;                          /* the sample's first: none reaches into the next one */

    CHECK(chunk * 2 * cp == seq_len && n_samples * 2 * chunk <= b->n_rows,
          "%lld samples of %lld tokens: %d ranks with %lld rows each", (long long)n_samples, (long long)seq_len, cp,
          (long long)b->n_rows);
    b->n_segments = 0;
    for (int64_t i = 0; i < n_samples; i++) {
        while (segment < whole->n_segments && whole->segments[segment].row < i * seq_len) segment++;
        for (int half = 0; half < 2; half++, to += chunk)
            copy_rows(b, to, whole, i * seq_len + cp_chunk_of(cp, rank, half) * chunk, chunk, segment);
    }
    for (; to < b->n_rows; to++) b->ids[to] = b->targets[to] = -1, b->positions[to] = 0;
    b->is_weighted = whole->is_weighted;
    b->n_picked = 0;
    b->n_counted = count_targets(b);
}

int64_t batch_most_picked(int64_t n_rows) { return min_i64(n_rows, round_up(n_rows - n_rows / 8, BATCH_PICK)); }

void batch_pick(token_batch *b)
{
    int64_t n = 0;

    b->n_picked = 0;
    if (b->n_counted > b->n_rows - b->n_rows / 8) return;
    b->n_picked = min_i64(b->n_rows, max_i64(BATCH_PICK, round_up(b->n_counted, BATCH_PICK)));
    for (int64_t row = 0; row < b->n_rows; row++) {
        b->places[row] = -1;
        if (b->targets[row] < 0) continue;
        b->picked[n] = (int32_t)row;
        b->places[row] = (int32_t)n;
        b->targets[n] = b->targets[row];
        b->weights[n++] = b->weights[row];
    }
    for (int64_t i = n; i < b->n_rows; i++) b->targets[i] = -1;
    for (int64_t i = n; i < b->n_picked; i++) b->picked[i] = -1;
}
