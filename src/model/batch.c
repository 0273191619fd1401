/* batch.c: see batch.h */
#include "src/model/batch.h"

#include <stdlib.h>
#include <string.h>

void batch_init(token_batch *b, int64_t n_rows)
{
    *b = (token_batch){.n_rows = n_rows,
                       .ids = xmalloc((size_t)n_rows * sizeof *b->ids),
                       .targets = xmalloc((size_t)n_rows * sizeof *b->targets),
                       .weights = xmalloc((size_t)n_rows * sizeof *b->weights),
                       .positions = xmalloc((size_t)n_rows * sizeof *b->positions),
                       .segments = xmalloc((size_t)n_rows * sizeof *b->segments)};
}

void batch_free(token_batch *b)
{
    free(b->ids);
    free(b->targets);
    free(b->weights);
    free(b->positions);
    free(b->segments);
    *b = (token_batch){0};
}

void batch_whole_samples(token_batch *b, int64_t n_samples, int64_t seq_len)
{
    CHECK(n_samples * seq_len <= b->n_rows, "%lld samples of %lld tokens in a batch of %lld rows",
          (long long)n_samples, (long long)seq_len, (long long)b->n_rows);
    for (int64_t row = 0; row < b->n_rows; row++) b->positions[row] = (int32_t)(row % seq_len);
    b->n_segments = (int)n_samples;
    for (int i = 0; i < b->n_segments; i++) b->segments[i] = (attend_segment){i * seq_len, seq_len};
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
    b->n_counted = 0;
    for (int64_t row = 0; row < n_real; row++) b->n_counted += b->targets[row] >= 0;
}

void batch_documents(token_batch *b, int64_t n_samples, int64_t seq_len, int64_t eos, bool restart)
{
    b->n_segments = 0;
    for (int64_t row = 0, begin = 0; row < n_samples * seq_len; row++) {
        const bool sample_ends = (row + 1) % seq_len == 0;
        if (restart) b->positions[row] = (int32_t)(row - begin);
        if (!sample_ends && b->ids[row] != eos) continue;
        b->segments[b->n_segments++] = (attend_segment){begin, row + 1 - begin};
        begin = row + 1;
    }
}
