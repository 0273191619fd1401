/* train.c: see train.h */
#include "src/train/train.h"

#include "src/base/rng.h"
#include "src/base/watch.h"
#include "src/host/signals.h"
#include "src/model/model_run.h"
#include "src/train/evaluate.h"
#include "src/train/feed.h"
#include "src/train/optimizer.h"
#include "src/train/profile.h"
#include "src/train/replicas.h"
#include "src/train/rollback.h"
#include "src/train/schedule.h"
#include "src/train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* What the ranks tell each other when a step is done, and before the first: the signal that any of them has seen, the
 * same answer on all, and how far a save under way is. */
static int step_boundary(const trainer *t)
{
    int32_t agreed[1 + SAVER_PROGRESS] = {signals_seen()};

    saver_progress(t->saver, agreed + 1);
    comm_all_reduce(&t->grid.host_world, agreed, 1 + SAVER_PROGRESS, DT_I32, REDUCE_MAX);
    saver_advance(t->saver, agreed + 1);
    return agreed[0];
}

/* What the step that begins at t->samples reads, on all ranks: its loss is divided by what counts of it. */
static sample_size size_of_step(const trainer *t)
{
    const int64_t n = t->batch.global, T = t->run->seq_length;
    const data_order order = trainer_order(t);
    int64_t *samples = xmalloc((size_t)n * sizeof *samples);
    sample_size all = {0};

    order_take(&order, t->samples, n, samples);
    for (int64_t i = 0; i < n; i++) {
        const sample_size s = dataset_sample_size(t->train_set, samples[i], T);
        all.tokens += s.tokens, all.counted += s.counted, all.pairs += s.pairs;
    }
    free(samples);
    return all;
}

static void feed_train(void *arg, const moai_model *m, int micro_batch, token_batch *rows)
{
    trainer *t = arg;

    feed_next(&t->feed, rows, m->opt.micro_batch, t->samples_read + micro_batch * t->batch.micro_batch);
}

/* Rank 0 gets the sample numbers of the whole step, as the first stage's ranks read them;
 * others get NULL.  Caller frees. */
static int64_t *gather_samples(trainer *t)
{
    const comm *dp = &t->grid.host_dp;
    const size_t n = (size_t)(t->batch.micro_batch * t->batch.accumulation);

    if (!t->run->log_samples || t->grid.at.pp != 0 || t->grid.at.tp != 0 || t->grid.at.cp != 0) return NULL;
    int64_t *all = xmalloc(n * (size_t)dp->size * sizeof *all);
    comm_request r = all_gather_begin(dp, all, t->samples_read, n * sizeof *all, DT_U8);
    comm_end(&r);
    if (t->grid.rank == 0) return all;
    free(all);
    return NULL;
}

/* The step's sums, rank 0's to the last bit: all ranks must judge alike. */
static step_result agreed_totals(trainer *t, double scale)
{
    step_result r = step_totals(&t->model, scale);
    double sums[] = {r.loss_sum, r.grad_norm};

    comm_broadcast(&t->grid.host_world, sums, 2, DT_F64, 0);
    r.loss_sum = sums[0], r.grad_norm = sums[1];
    return r;
}

/* The update, unless the step is a spike. */
static step_result judged_update(trainer *t, double tokens, double lr, double scale)
{
    spike_watch *watch = &t->state.spikes;
    step_result r = agreed_totals(t, scale);

    t->spike = spike_judge(watch, &t->run->spike, r.loss_sum / tokens, r.grad_norm);
    if (t->spike.measure || r.skipped) return r;
    optimizer_update(&t->model, &t->run->adamw, lr, t->updates + 1, scale);
    spike_remember(watch, r.loss_sum / tokens, r.grad_norm);
    t->model.ctx.ops->sync(t->model.ctx.dev);
    return r;
}

static step_result update(trainer *t, double tokens, double scale)
{
    const double lr = learning_rate(&t->run->schedule, t->step);
    step_result r;

    watch_phase("optimizer", -1);
    gradients_finish(&t->model);
    if (t->state.spikes.window) {
        r = judged_update(t, tokens, lr, scale);
    } else {
        optimizer_update(&t->model, &t->run->adamw, lr, t->updates + 1, scale);
        r = step_totals(&t->model, scale);
    }
    t->model.ctx.ops->phase(t->model.ctx.dev, NULL, -1);
    return r;
}

static step_result train_step(trainer *t)
{
    moai_model *m = &t->model;
    const moai_ctx *c = &m->ctx;
    const double scale = t->state.scale.value;
    const data_order order = trainer_order(t);

    t->size = size_of_step(t);
    const double tokens = (double)t->size.counted;
    m->ctx.dropout_key = rng_key((uint64_t)t->run->seed ^ (uint64_t)t->step << 32, "dropout");
    gradients_begin(m);
    c->ops->zero(c->dev, m->totals, 2 * sizeof *m->totals);
    model_run(m, &t->schedule, (float)(scale / tokens), feed_train, t);
    m->ctx.dropout_key = 0;                   /* an evaluation drops nothing */
    step_result r = update(t, tokens, scale);
    t->step++;
    t->step_began_at = t->samples;
    t->samples = order_after(&order, t->samples, t->batch.global);
    loss_scale_update(&t->state.scale, &t->run->loss_scale, t->run->fp16, r.skipped);
    if (r.skipped || t->spike.measure) {
        t->skipped++;
        skip_row_add(&t->state.skips, t->step, t->state.scale.value >= scale);
    } else {
        t->updates++;
        t->state.skips = (skip_row){0};
    }
    return r;
}

/* The step that leaves its timeline, and the one before.  A trace that cannot be written is no reason to stop. */
static step_result observed_step(trainer *t, bool note)
{
    moai_error err;

    if (!t->profile) t->profile = profile_open(&t->model.ctx, t->device.clock, t->schedule.n_micro);
    profile_enter(t->profile, note);
    step_result r = train_step(t);
    profile_leave(t->profile);
    if (!note) return r;
    watch_files(true);
    int failed = profile_write(t->profile, t->run->output_dir, &err);
    watch_files(false);
    if (comm_agree(&t->grid.host_world, failed, &err))
        warn("the profile of step %lld: %s", (long long)t->step, err.text);
    if (t->grid.rank == 0) timeline_print(profile_timeline(t->profile), stderr);
    return r;
}

static step_result next_step(trainer *t)
{
    const int64_t until = t->run->profile_step - base_step;

    return t->run->profile_step > 0 && (until == 0 || until == 1) ? observed_step(t, until == 0) : train_step(t);
}

/* A step whose norm is not finite: what follows, and its samples. */
static void report_skipped(trainer *t, double scale)
{
    int64_t *samples = xmalloc((size_t)t->batch.global * sizeof *samples);
    const data_order order = trainer_order(t);
    const double next = t->state.scale.value;
    char *text = t->run->fp16
                     ? xasprintf("the gradient norm is not finite: weights left as they were; loss scale %g, %s %g",
                                 scale, next < scale ? "now" : "its least is", next)
                     : xstrdup("the gradient norm is not finite: weights left as they were");

    order_take(&order, t->step_began_at, t->batch.global, samples);
    metrics_event_samples(t->metrics, "skipped", t->step, text, samples, t->batch.global);
    free(samples);
    free(text);
}

static void report_step(trainer *t, step_result r, double lr, double scale, double seconds)
{
    const double counted = (double)t->size.counted, tokens = (double)t->size.tokens;
    const double flops = model_flops_products(t->cfg) +
                         model_flops_attention(t->cfg, (int64_t)(t->size.pairs / tokens + 0.5));
    const double peak = t->device.peak_flops * t->grid.world, mfu = peak > 0 ? tokens / seconds * flops / peak : -1;
    int64_t *samples = gather_samples(t);

    const bool wanted = t->step % t->run->logging_steps == 0 || t->step == t->run->schedule.max_steps;
    step_spread busy = {0};

    /* a GPU's collectives wait where the host does not see it */
    if (wanted && t->grid.world > 1 && !t->device.clock->asynchronous)
        busy = stragglers_note(&t->stragglers, t->busy, t->step, t->metrics);
    if (t->grid.rank == 0 && (wanted || r.skipped || t->spike.measure)) {
        metrics_step(t->metrics,
                     &(step_metrics){.step = t->step, .max_steps = t->run->schedule.max_steps,
                                     .loss = r.loss_sum / counted, .lr = lr, .grad_norm = r.grad_norm,
                                     .tokens_per_second = tokens / seconds,
                                     .tokens = t->size.tokens,
                                     .trained_tokens = dataset_is_packed(t->train_set) ? t->size.counted : 0,
                                     .mfu = mfu, .step_seconds = seconds, .data_wait_seconds = t->feed.waited,
                                     .eta_seconds = (now_seconds() - t->began) / (double)(t->step - t->first_step) *
                                                    (double)(t->run->schedule.max_steps - t->step),
                                     .busy = busy, .loss_scale = t->run->fp16 ? scale : 0, .samples = t->samples,
                                     .skipped = t->skipped, .sample_numbers = samples,
                                     .n_sample_numbers = samples ? t->batch.global : 0});
        if (r.skipped) report_skipped(t, scale);
    }
    free(samples);
}

/* The plan's figure against the card's. */
static void report_memory(const trainer *t)
{
    const size_t in_use = device_in_use(&t->device);
    plan_memory p;

    if (!in_use) return;
    plan_stage(&p, t->run, t->cfg, t->grid.size, &t->batch, t->grid.at.pp, true);
    say("memory     %.2f GiB of the first rank's GPU in use, planned %.2f", gib(in_use), gib(p.total));
}

static void evaluate(trainer *t)
{
    eval_metrics e;
    const double begin = now_seconds();

    if (t->run->eval_steps == 0 || t->evaluated_step == t->step) return;
    watch_phase("evaluation", -1);
    e.loss = evaluation_loss(&t->model, t->eval_set, t->run, &t->batch, &e.tokens);
    e.step = t->step;
    e.perplexity = exp(e.loss);
    e.seconds = now_seconds() - begin;
    t->evaluated_step = t->step;
    if (t->metrics) metrics_eval(t->metrics, &e);
    t->evaluation_failed = !isfinite(e.loss);
    if (t->evaluation_failed) warn("evaluation at step %lld: the loss is not finite", (long long)t->step);
}

static bool every(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

/* Copies of a weight that differ: the run ends, and nothing more is saved of it. */
static int check_replicas(trainer *t)
{
    moai_error err;

    if (t->checked_step == t->step) return 0;
    t->checked_step = t->step;
    if (replicas_check(&t->model, &err) == 0) return 0;
    if (t->metrics) metrics_event(t->metrics, "replicas_differ", t->step, err.text);
    if (t->grid.rank == 0) fprintf(stderr, "moai: step %lld: %s\n", (long long)t->step, err.text);
    return -1;
}

/* -1: the run must end.  A run that looks at its replicas saves none that differ.  While nothing comes of its steps it
 * removes no checkpoint from before. */
static int save(trainer *t)
{
    if (t->run->replica_check_steps > 0 && check_replicas(t)) return -1;
    checkpoint_meta meta = trainer_meta(t);

    watch_phase("saving", -1);
    saver_save(t->saver, &meta, t->state.skips.n == 0 && !t->evaluation_failed);
    watch_phase("", -1);
    checkpoint_meta_free(&meta);
    return 0;
}

/* A row of steps that change nothing leaves nothing to save: what is due waits for its end. */
static bool is_save_due(trainer *t)
{
    if (every(t->step, t->run->save_steps) || saver_retries(t->saver, t->step)) t->save_due = true;
    if (!t->save_due || t->state.skips.n_counted > 0) return false;
    t->save_due = false;
    return true;
}

/* What follows from a step that is done: 0, or -1 when the run must end. */
static int finish_step(trainer *t)
{
    const run_config *run = t->run;
    const int64_t step = t->step;
    moai_error err;

    if (t->state.skips.n > 0 && spike_answer(t, &err)) {
        if (t->grid.rank == 0) fprintf(stderr, "moai: %s\n", err.text);
        return -1;
    }
    if (every(t->step, run->replica_check_steps) && check_replicas(t)) return -1;
    if (t->step != step) return 0;            /* it went back */
    if (every(step, run->eval_steps)) evaluate(t);
    return is_save_due(t) ? save(t) : 0;
}

/* What was copied before may still be whole. */
static int give_up(trainer *t)
{
    watch_phase("end", -1);
    saver_wait(t->saver);
    return STATUS_FAILED;
}

/* With max_steps 0 what is wanted is the initial weights. */
static bool is_saved_at_end(const trainer *t)
{
    return t->run->save_on_exit && (t->step > 0 || t->run->schedule.max_steps == 0);
}

static void say_nothing_to_do(const trainer *t, int64_t end)
{
    const char *key = end == t->run->schedule.max_steps ? "max_steps" : "stop_at_step";

    if (t->from.dir)
        say("nothing to do: %s %lld is reached, %s is of step %lld", key, (long long)end, t->from.dir,
            (long long)t->step);
    else
        say("nothing to do: %s is %lld%s", key, (long long)end,
            t->run->save_on_exit ? "; the initial weights are saved" : "");
}

/* The loop; returns the exit status. */
static int train(trainer *t)
{
    const run_config *run = t->run;
    const int64_t last = run->schedule.max_steps, end = run->stop_at_step > 0 ? min_i64(run->stop_at_step, last) : last;
    int stop = step_boundary(t);              /* a signal that came while the run was opened */

    t->first_step = t->step;
    t->began = now_seconds();
    if (t->step >= end) say_nothing_to_do(t, end);
    while (t->step < end && !stop) {
        const double begin = now_seconds(), lr = learning_rate(&run->schedule, t->step), scale = t->state.scale.value;
        const double waited = watch_waited();
        base_step = t->step + 1;
        t->feed.waited = 0;
        step_result r = next_step(t);
        const double seconds = now_seconds() - begin;
        t->busy = seconds - (watch_waited() - waited);
        watch_phase("", -1);
        report_step(t, r, lr, scale, seconds);
        if (t->step == t->first_step + 1) report_memory(t);
        if (finish_step(t)) return give_up(t);
        stop = step_boundary(t);
        if (saver_spoiled(t->saver)) {
            if (t->grid.rank == 0)
                fprintf(stderr, "moai: step %lld: weights or moments are not finite: no later checkpoint will be "
                        "good\n", (long long)t->step);
            return give_up(t);
        }
    }
    if (!stop) evaluate(t);
    watch_phase("end", -1);
    if (stop && t->metrics) metrics_event(t->metrics, "stop", t->step, signals_name(stop));
    if (is_saved_at_end(t)) save(t);
    watch_phase("end", -1);
    saver_wait(t->saver);
    base_step = -1;
    const bool unsaved = is_saved_at_end(t) && saver_saved_step(t->saver) != t->step,
               failed = t->evaluation_failed && t->evaluated_step == t->step;
    return unsaved || failed ? STATUS_FAILED : STATUS_OK;
}

int train_run(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch)
{
    trainer t = {.settled = *run, .run = &t.settled, .cfg = cfg, .batch = *batch, .state = run_state_start(run),
                 .evaluated_step = -1, .checked_step = -1};
    moai_error err;

    grid_init(&t.grid, size, (int)cfg->num_key_value_heads);
    t.schedule = schedule_1f1b(size.pp, t.grid.at.pp, (int)batch->accumulation);
    signals_catch();
    const int failed = trainer_open(&t, &err);
    if (failed && t.grid.rank == 0) fprintf(stderr, "moai: %s\n", err.text);
    const int status = failed ? error_status(&err) : train(&t);
    trainer_close(&t);
    return status;
}
