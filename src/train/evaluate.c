/* evaluate.c: see evaluate.h */
#include "src/train/evaluate.h"

#include "src/base/watch.h"
#include "src/model/model_run.h"
#include "src/train/feed.h"
#include "src/train/optimizer.h"

#include <stdlib.h>

typedef struct evaluation {
    feed feed;
    int64_t *samples;                         /* (micro_batch) */
    int64_t n;                                /* samples of the whole evaluation */
} evaluation;

static void feed_evaluation(void *arg, const moai_model *m, int micro_batch, token_batch *rows)
{
    evaluation *e = arg;
    const moai_grid *g = m->ctx.grid;
    const int64_t first = ((int64_t)micro_batch * g->size.dp + g->at.dp) * m->opt.micro_batch;

    feed_next(&e->feed, rows, e->n - first, e->samples);
}

static int64_t count_targets(const dataset *set, int64_t n_samples, int64_t seq_len)
{
    int64_t n = 0;

    for (int64_t i = 0; i < n_samples; i++) n += dataset_sample_size(set, i, seq_len).counted;
    return n;
}

double evaluation_loss(moai_model *m, dataset *set, const run_config *run, const batch_plan *batch, int64_t *n_tokens)
{
    const moai_ctx *c = &m->ctx;
    const int64_t B = m->opt.micro_batch, T = m->opt.seq_len, all = dataset_samples(set, T),
                  once = B * c->grid->size.dp;
    evaluation e = {.n = run->eval_batches ? min_i64(all, run->eval_batches * batch->global) : all};
    const int64_t n_micro = (e.n + once - 1) / once;
    const loader_plan plan = {.seq_len = T, .batch = B, .accumulation = n_micro, .dp_size = c->grid->size.dp,
                              .dp_rank = c->grid->at.dp, .n_workers = (int)run->dataloader_num_workers,
                              .prefetch = (int)run->dataloader_prefetch_factor};
    pipe_schedule schedule = schedule_forward((int)n_micro);
    moai_error err;

    feed_init(&e.feed, &run->batch, c->grid, set, B, T);
    if (feed_reads(&run->batch, c->grid)) {
        e.samples = xmalloc((size_t)B * sizeof *e.samples);
        watch_files(true);
        e.feed.loader = loader_start(set, &plan, &err);
        watch_files(false);
        CHECK(e.feed.loader, "%s", err.text);
    }
    c->ops->zero(c->dev, m->totals, 2 * sizeof *m->totals);
    model_run(m, &schedule, 0, feed_evaluation, &e);
    totals_reduce(m);
    double totals[2];
    c->ops->copy(c->dev, totals, m->totals, sizeof totals, COPY_TO_HOST);
    c->ops->sync(c->dev);

    watch_files(true);
    if (e.feed.loader) loader_stop(e.feed.loader);      /* which waits for reads under way */
    watch_files(false);
    feed_free(&e.feed);
    free(e.samples);
    schedule_free(&schedule);
    *n_tokens = count_targets(set, e.n, T);
    return totals[0] / (double)*n_tokens;
}
