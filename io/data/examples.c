/* examples.c: see examples.h */
#include "io/data/examples.h"

#include <stdlib.h>

void examples_free(examples *e)
{
    free(e->begin);
    free(e->counted);
    packing_free(&e->packing);
    *e = (examples){0};
}

/* The documents of one shard, which begins at token `begin` of the split, behind the n that are there. */
static int add_shard(examples *e, const manifest_shard *s, int64_t begin, const uint64_t *offsets,
                     const uint64_t *counted, moai_error *err)
{
    for (int64_t d = 0; d < s->documents; d++) {
        const int64_t length = (int64_t)(offsets[d + 1] - offsets[d]),
                      n_counted = counted ? (int64_t)counted[d] : length - 1;
        if (offsets[d + 1] <= offsets[d] || offsets[d + 1] > (uint64_t)s->tokens || length > INT32_MAX)
            return error_set(err, "%s: document %lld runs from token %llu to %llu", s->path, (long long)d,
                             (unsigned long long)offsets[d], (unsigned long long)offsets[d + 1]);
        if (n_counted < 0 || n_counted >= length)
            return error_set(err, "%s: document %lld of %lld tokens has %lld that count", s->path, (long long)d,
                             (long long)length, (long long)n_counted);
        e->begin[e->n] = begin + (int64_t)offsets[d];
        e->counted[e->n++] = (int32_t)n_counted;
    }
    if (offsets[0] == 0 && offsets[s->documents] == (uint64_t)s->tokens) return 0;
    return error_set(err, "%s: its documents are tokens %llu to %llu of %lld", s->path, (unsigned long long)offsets[0],
                     (unsigned long long)offsets[s->documents], (long long)s->tokens);
}

static int read_shards(examples *e, const struct manifest_split *split, bool is_marked, shard_pool *shards,
                       moai_error *err)
{
    int64_t begin = 0;
    int status = 0;

    for (int i = 0; status == 0 && i < split->n; i++) {
        const manifest_shard *s = &split->list[i];
        uint64_t *offsets = xmalloc((size_t)(s->documents + 1) * sizeof *offsets),
                 *counted = is_marked ? xmalloc((size_t)s->documents * sizeof *counted) : NULL;
        status = shard_pool_read_documents(shards, i, offsets, counted, err);
        if (status == 0) status = add_shard(e, s, begin, offsets, counted, err);
        begin += s->tokens;
        free(offsets);
        free(counted);
    }
    return status;
}

/* What goes into samples: its length; 0: it is left out. */
static int32_t *lengths_of(const examples *e, int64_t most, pack_said *said)
{
    int32_t *lengths = xmalloc((size_t)e->n * sizeof *lengths);

    *said = (pack_said){.n_examples = e->n};
    for (int64_t i = 0; i < e->n; i++) {
        const int64_t length = e->begin[i + 1] - e->begin[i];
        if (e->counted[i] == 0) {
            said->n_untrained++;
        } else if (length > most) {
            said->n_long++;
        } else {
            lengths[i] = (int32_t)length;
            said->n_tokens += length;
            said->n_counted += e->counted[i];
        }
    }
    return lengths;
}

int examples_read(examples *e, const struct manifest_split *split, bool is_marked, shard_pool *shards,
                  const pack_plan *p, const comm *world, moai_error *err)
{
    int64_t n = 0;

    for (int i = 0; i < split->n; i++) n += split->list[i].documents;
    *e = (examples){.begin = xmalloc((size_t)(n + 1) * sizeof *e->begin),
                    .counted = xmalloc((size_t)n * sizeof *e->counted)};
    const int failed = world->rank == 0 ? read_shards(e, split, is_marked, shards, err) : 0;
    if (comm_agree(world, failed, err)) return -1;
    e->n = n;
    e->begin[n] = split->tokens;
    comm_broadcast(world, e->begin, (size_t)n * sizeof *e->begin, DT_U8, 0);
    comm_broadcast(world, e->counted, (size_t)n, DT_I32, 0);
    int32_t *lengths = lengths_of(e, p->seq_len + 1, p->said);
    e->packing = packing_make(lengths, n, p->seq_len + 1, p->together);
    free(lengths);
    return 0;
}

sample_size examples_size(const examples *e, int64_t sample, int64_t seq_len)
{
    sample_size s = {0};

    for (int64_t k = e->packing.begin[sample]; k < e->packing.begin[sample + 1]; k++) {
        const int64_t i = e->packing.list[k], n = e->begin[i + 1] - e->begin[i];
        s.tokens += n;
        s.counted += e->counted[i];
        s.pairs += (double)n * (double)n;
    }
    s.tokens = min_i64(s.tokens, seq_len);    /* the last of seq_len + 1 is only predicted */
    return s;
}
