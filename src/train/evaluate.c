/* evaluate.c: see evaluate.h */
#include "src/train/evaluate.h"

#include "src/base/watch.h"
#include "src/model/model_run.h"
#include "src/train/feed.h"
#include "src/train/optimizer.h"

#include <stdlib.h>

typedef struct evaluation {
    loader *loader;
    int32_t *ids;                             /* (micro_batch, seq_len + 1) */
    int64_t *samples;                         /* (micro_batch) */
    int64_t n;                                /* samples of the whole evaluation */
    const batch_options *options;
    int64_t eos;
} evaluation;

static void feed(void *arg, const moai_model *m, int micro_batch, token_batch *rows)
{
    evaluation *e = arg;
    const int64_t B = m->opt.micro_batch, T = m->opt.seq_len;
    const comm *dp = &m->ctx.grid->dp;
    const int64_t first = ((int64_t)micro_batch * dp->size + dp->rank) * B;
    double waited = 0;

    feed_next(e->loader, m->ctx.grid, e->ids, B * (T + 1), e->samples, &waited);
    batch_samples(rows, e->ids, B, e->n - first, T);
    if (e->options->document_mask) batch_documents(rows, B, T, e->eos, e->options->reset_positions);
}

double evaluation_loss(moai_model *m, dataset *set, const run_config *run, const batch_plan *batch, int64_t eos,
                       int64_t *n_tokens)
{
    const moai_ctx *c = &m->ctx;
    const int64_t B = m->opt.micro_batch, T = m->opt.seq_len, all = dataset_samples(set, T),
                  once = B * c->grid->dp.size;
    evaluation e = {.n = run->eval_batches ? min_i64(all, run->eval_batches * batch->global) : all,
                    .options = &run->batch, .eos = eos};
    const int64_t n_micro = (e.n + once - 1) / once;
    const loader_plan plan = {.seq_len = T, .batch = B, .accumulation = n_micro, .dp_size = c->grid->dp.size,
                              .dp_rank = c->grid->dp.rank, .n_workers = (int)run->dataloader_num_workers,
                              .prefetch = (int)run->dataloader_prefetch_factor};
    pipe_schedule schedule = schedule_forward((int)n_micro);
    moai_error err;

    if (feed_takes(&run->batch, c->grid)) e.ids = xmalloc((size_t)(B * (T + 1)) * sizeof *e.ids);
    if (feed_reads(&run->batch, c->grid)) {
        e.samples = xmalloc((size_t)B * sizeof *e.samples);
        watch_files(true);
        e.loader = loader_start(set, &plan, &err);
        watch_files(false);
        CHECK(e.loader, "%s", err.text);
    }
    c->ops->zero(c->dev, m->totals, 2 * sizeof *m->totals);
    model_run(m, &schedule, 0, feed, &e);
    totals_reduce(m);
    double totals[2];
    c->ops->copy(c->dev, totals, m->totals, sizeof totals, COPY_TO_HOST);
    c->ops->sync(c->dev);

    watch_files(true);
    if (e.loader) loader_stop(e.loader);      /* which waits for reads under way */
    watch_files(false);
    free(e.ids);
    free(e.samples);
    schedule_free(&schedule);
    *n_tokens = e.n * T;
    return totals[0] / (double)*n_tokens;
}
