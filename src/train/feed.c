/* feed.c: see feed.h */
#include "src/train/feed.h"

#include "src/base/watch.h"

#include <stdlib.h>

void feed_init(feed *f, const batch_options *o, const moai_grid *grid, const dataset *d, int64_t batch,
               int64_t seq_len)
{
    const size_t n = (size_t)(batch * (seq_len + 1));

    *f = (feed){.options = o, .grid = grid, .batch = batch, .seq_len = seq_len, .eos = dataset_manifest(d)->info.eos};
    if (!feed_takes(o, grid)) return;
    f->ids = xmalloc(n * sizeof *f->ids);
    if (dataset_is_packed(d)) f->marks = xmalloc(n);
    if (grid->size.cp > 1) batch_init(&f->whole, batch * seq_len);
}

void feed_free(feed *f)
{
    free(f->ids);
    free(f->marks);
    batch_free(&f->whole);
    *f = (feed){0};
}

static void read_next(feed *f, int64_t *samples)
{
    const comm *all = &f->grid->host_samples;
    const size_t n = (size_t)(f->batch * (f->seq_len + 1));
    moai_error err;

    watch_files(true);
    const int failed = f->loader ? loader_next(f->loader, f->ids, f->marks, samples, &f->waited, &err) : 0;
    watch_files(false);
    CHECK(!failed, "%s", err.text);
    comm_broadcast(all, f->ids, n, DT_I32, 0);
    if (f->marks) comm_broadcast(all, f->marks, n, DT_U8, 0);
}

void feed_next(feed *f, token_batch *rows, int64_t n_counted, int64_t *samples)
{
    const batch_options *o = f->options;
    const moai_grid *g = f->grid;
    token_batch *whole = g->size.cp > 1 ? &f->whole : rows;

    read_next(f, samples);
    batch_samples(whole, f->ids, f->batch, n_counted, f->seq_len);
    if (f->marks)
        batch_examples(whole, f->marks, f->batch, f->seq_len, o->reset_positions);
    else if (o->document_mask)
        batch_documents(whole, f->batch, f->seq_len, f->eos, o->reset_positions);
    if (g->size.cp > 1) batch_cut(rows, whole, f->batch, f->seq_len, g->size.cp, g->at.cp);
    if (f->marks) batch_pick(rows);
}
