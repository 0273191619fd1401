/* replicas.c: see replicas.h */
#include "src/train/replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { CHUNK_BYTES = 16 << 20 };              /* on the host at a time */

/* What a rank tells the others of one of its blocks. */
typedef struct held {
    uint64_t block;                           /* parameter and place in it; 0: none, the rank holds fewer blocks */
    uint64_t bytes;                           /* hash of the weights */
} held;

static uint64_t block_of(const param *p)
{
    const int64_t place[] = {p->row0, p->n_rows, p->col0, p->n_cols};
    const uint64_t hash = XXH3_64bits_withSeed(place, sizeof place, XXH3_64bits(p->name, strlen(p->name)));

    return hash ? hash : 1;
}

static uint64_t bytes_of(moai_model *m, const param *p, char *chunk, XXH3_state_t *state)
{
    const moai_ctx *c = &m->ctx;
    const size_t size = dtype_size(c->dt), n_bytes = (size_t)(p->n_rows * p->n_cols) * size;
    const char *weights = (const char *)m->weights + (size_t)p->offset * size;

    bucket_acquire(&m->buckets, p->bucket);
    XXH3_64bits_reset(state);
    for (size_t at = 0; at < n_bytes; at += CHUNK_BYTES) {
        const size_t n = n_bytes - at < CHUNK_BYTES ? n_bytes - at : CHUNK_BYTES;
        c->ops->copy(c->dev, chunk, weights + at, n, COPY_TO_HOST);
        c->ops->sync(c->dev);
        XXH3_64bits_update(state, chunk, n);
    }
    bucket_release(&m->buckets, p->bucket);
    return XXH3_64bits_digest(state);
}

/* (world, *n_each): every rank's blocks in the order of its parameters.  Caller frees. */
static held *gather_held(moai_model *m, int32_t *n_each)
{
    const comm *world = &m->ctx.grid->host_world;
    char *chunk = xmalloc(CHUNK_BYTES);
    XXH3_state_t *state = XXH3_createState();

    *n_each = m->params.n;
    comm_all_reduce(world, n_each, 1, DT_I32, REDUCE_MAX);
    held *own = xmalloc((size_t)*n_each * sizeof *own), *all = xmalloc((size_t)(*n_each * world->size) * sizeof *all);
    for (int i = 0; i < m->params.n; i++)
        own[i] = (held){block_of(&m->params.list[i]), bytes_of(m, &m->params.list[i], chunk, state)};
    comm_request r = all_gather_begin(world, all, own, (size_t)*n_each * sizeof *all, DT_U8);
    comm_end(&r);
    XXH3_freeState(state);
    free(chunk);
    free(own);
    return all;
}

static int by_block(const void *a, const void *b, void *table)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    const uint64_t p = ((const held *)table)[x].block, q = ((const held *)table)[y].block;

    return p != q ? (p > q) - (p < q) : (x > y) - (x < y);
}

/* The first entry, by rank and then by parameter, of a block of which somebody holds other bytes; -1: none.
 * Entries of one block are neighbours in `order`, the lowest rank's first. */
static int32_t first_difference(const held *all, const int32_t *order, int32_t n)
{
    int32_t first = -1;

    for (int32_t i = 1, begin = 0; i < n; i++) {
        const held *leader = &all[order[begin]], *h = &all[order[i]];
        if (h->block != leader->block)
            begin = i;
        else if (h->block && h->bytes != leader->bytes && (first < 0 || order[begin] < first)) first = order[begin];
    }
    return first;
}

/* "rank 2 (tp0 dp1 pp0)", or "(tp0 cp1 dp1 pp0)" where there are several, of all that hold these bytes of the block */
static void append_ranks(char *text, size_t room, const held *all, int32_t n_each, const moai_grid *g, held what)
{
    enum { SHOWN = 8 };
    int n = 0;

    for (int rank = 0; rank < g->world; rank++)
        for (int32_t i = 0; i < n_each; i++) {
            const held *h = &all[(int64_t)rank * n_each + i];
            if (h->block != what.block || h->bytes != what.bytes || n++ >= SHOWN) continue;
            const grid_shape at = grid_coordinates(g->size, rank);
            char cp[16] = "";
            if (g->size.cp > 1) snprintf(cp, sizeof cp, " cp%d", at.cp);
            snprintf(text + strlen(text), room - strlen(text), "%s rank %d (tp%d%s dp%d pp%d)", n > 1 ? "," : "", rank,
                     at.tp, cp, at.dp, at.pp);
        }
    if (n > SHOWN) snprintf(text + strlen(text), room - strlen(text), " and %d more", n - SHOWN);
    snprintf(text + strlen(text), room - strlen(text), " %s %016llx", n > 1 ? "hold" : "holds",
             (unsigned long long)what.bytes);
}

/* `name` and then each group of ranks that agree, in the order of their first. */
static void describe(moai_error *err, const held *all, int32_t n_each, const moai_grid *g, const param *p, held first)
{
    const int64_t n = (int64_t)g->world * n_each;

    error_set(err, "copies of %s, rows %lld-%lld, columns %lld-%lld, differ:", p->name, (long long)p->row0,
              (long long)(p->row0 + p->n_rows - 1), (long long)p->col0, (long long)(p->col0 + p->n_cols - 1));
    for (int64_t i = 0; i < n; i++) {
        bool is_shown = all[i].block != first.block;
        for (int64_t j = 0; j < i && !is_shown; j++)
            is_shown = all[j].block == first.block && all[j].bytes == all[i].bytes;
        if (is_shown) continue;
        if (all[i].bytes != first.bytes) strncat(err->text, ";", sizeof err->text - strlen(err->text) - 1);
        append_ranks(err->text, sizeof err->text, all, n_each, g, all[i]);
    }
}

int replicas_check(moai_model *m, moai_error *err)
{
    const moai_grid *g = m->ctx.grid;
    int32_t n_each;
    held *all = gather_held(m, &n_each);
    const int32_t n = n_each * g->world;
    int32_t *order = xmalloc((size_t)n * sizeof *order);

    for (int32_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, (size_t)n, sizeof *order, by_block, all);
    const int32_t first = first_difference(all, order, n);
    if (first >= 0) {                         /* its holder knows the parameter's name */
        const int holder = first / n_each;
        if (g->rank == holder) describe(err, all, n_each, g, &m->params.list[first % n_each], all[first]);
        comm_broadcast(&g->host_world, err->text, sizeof err->text, DT_U8, holder);
    }
    free(order);
    free(all);
    return first >= 0 ? -1 : 0;
}
