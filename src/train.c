/* train.c: see train.h */
#include "train.h"

#include "checkpoint.h"
#include "device.h"
#include "evaluate.h"
#include "loader.h"
#include "metrics.h"
#include "optimizer.h"
#include "pipeline.h"
#include "profile.h"
#include "replicas.h"
#include "resume.h"
#include "run_state.h"
#include "saver.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct trainer {
    const run_config *run;
    const model_config *cfg;
    batch_plan batch;
    moai_grid grid;
    device device;
    moai_model model;
    pipe_schedule schedule;

    dataset *train_set, *eval_set;            /* headers checked on every rank; eval_set NULL when nothing is evaluated */
    loader *loader;                           /* first and last stages only: the others need no ids */
    int32_t *ids;                             /* (micro_batch, seq_len + 1) */
    int64_t *samples_read;                    /* (accumulation, micro_batch): this rank's sample numbers of the step */
    double waited;                            /* for data, in this step */

    int64_t step, samples, updates, skipped;  /* as in checkpoint_meta */
    run_state state;
    int64_t first_step;                       /* where this start began, and when */
    double began;
    int64_t evaluated_step;                   /* the last one, -1: none */
    resume_point from;                        /* dir NULL: a new start */
    saver *saver;
    char *tokenizer;                          /* path, or NULL */
    char tokenizer_sha256[65];
    metrics *metrics;                         /* rank 0 only */
} trainer;

/* Signals: finish the step, checkpoint, leave. */
static volatile sig_atomic_t signal_seen;
static void on_signal(int number) { signal_seen = number; }

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

/* What the ranks tell each other when a step is done: the signal that any of them has seen, the same answer on all, and
 * how far a save under way is. */
static int step_boundary(const trainer *t)
{
    int32_t news[1 + SAVER_NEWS] = {signal_seen};

    saver_news(t->saver, news + 1);
    comm_all_reduce(&t->grid.host_world, news, 1 + SAVER_NEWS, DT_I32, REDUCE_MAX);
    saver_advance(t->saver, news + 1);
    return news[0];
}

static int make_output_dir(const char *dir, moai_error *err)
{
    char *probe = xasprintf("%s/.writable", dir), *at = xstrdup(dir);
    int status = 0;

    for (char *slash = strchr(at + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(at, 0777);
        *slash = '/';
    }
    mkdir(dir, 0777);                         /* whatever failed shows in the probe */
    FILE *f = fopen(probe, "w");
    if (!f || fclose(f) != 0) status = error_set(err, "output_dir %s is not writable: %s", dir, strerror(errno));
    unlink(probe);
    free(probe);
    free(at);
    return status;
}

/* A new start would mix its checkpoints with those of the run before, and save_total_limit would delete them. */
static int check_new_start(const run_config *run, moai_error *err)
{
    char *latest = run->resume_from_checkpoint[0] ? NULL : checkpoint_latest(run->output_dir);

    if (!latest) return 0;
    error_set(
        err,
        "output_dir %s holds %s of an earlier run: go on with --resume_from_checkpoint auto, or name another directory",
        run->output_dir, strrchr(latest, '/') + 1);
    free(latest);
    return -1;
}

static int open_data(trainer *t, moai_error *err)
{
    const run_config *run = t->run;
    char given[65];
    const char *sha256 = run->tokenizer[0] ? given : NULL;

    if (sha256 && file_sha256(run->tokenizer, given, err)) return -1;
    t->train_set = dataset_open(run->data, "train", t->cfg->vocab_size, sha256, err);
    if (!t->train_set) return -1;
    const manifest *m = dataset_manifest(t->train_set);
    if (run->tokenizer[0] || m->tokenizer) t->tokenizer = xstrdup(run->tokenizer[0] ? run->tokenizer : m->tokenizer);
    memcpy(t->tokenizer_sha256, m->info.tokenizer_sha256, sizeof t->tokenizer_sha256);
    if (t->cfg->eos_token_id >= 0 && t->cfg->eos_token_id != m->info.eos)
        return error_set(err, "%s: documents end with token %lld, eos_token_id of %s is %lld", run->data,
                         (long long)m->info.eos, run->model, (long long)t->cfg->eos_token_id);
    if (run->eval_steps == 0) return 0;
    t->eval_set = dataset_open(run->data, "validation", t->cfg->vocab_size, t->tokenizer_sha256, err);
    if (!t->eval_set) return -1;
    if (dataset_samples(t->eval_set, run->seq_length) < 1)
        return error_set(err,
                         "%s: the validation split has %lld tokens, fewer than one sample of seq_length %lld + 1; "
                         "eval_steps needs it",
                         run->data, (long long)dataset_tokens(t->eval_set), (long long)run->seq_length);
    return 0;
}

static loader_plan plan_of(const trainer *t, int64_t first)
{
    return (loader_plan){.seq_len = t->run->seq_length, .batch = t->batch.micro_batch,
                         .accumulation = t->batch.accumulation, .dp_size = t->grid.dp.size,
                         .dp_rank = t->grid.dp.rank, .seed = (uint64_t)t->run->seed, .shuffle = true, .first = first,
                         .n_workers = (int)t->run->dataloader_num_workers,
                         .prefetch = (int)t->run->dataloader_prefetch_factor};
}

static checkpoint_state state_of(trainer *t)
{
    checkpoint_state s = {.params = &t->model.params, .grid = &t->grid, .ops = t->model.ctx.ops, .dev = t->device.dev};

    for (int i = 0; i < N_STATES; i++) s.own[i] = t->model.own[i];
    return s;
}

/* The state as a checkpoint describes it; checkpoint_meta_free frees. */
static checkpoint_meta meta_of(const trainer *t)
{
    checkpoint_meta meta = {.step = t->step, .samples = t->samples, .updates = t->updates, .skipped = t->skipped,
                            .layout = t->grid.size, .seed = (uint64_t)t->run->seed, .seq_length = t->run->seq_length,
                            .global_batch_size = t->batch.global, .model = *t->cfg,
                            .run_json = run_config_json(t->run), .state_json = run_state_json(&t->state, t->run)};

    memcpy(meta.tokenizer_sha256, t->tokenizer_sha256, sizeof meta.tokenizer_sha256);
    return meta;
}

static int start_weights(trainer *t, moai_error *err)
{
    const checkpoint_state state = state_of(t);
    checkpoint_meta now = meta_of(t);
    const int failed = resume_load(&t->from, t->run, &now, &state, err);
    const checkpoint_meta *meta = &t->from.meta;

    checkpoint_meta_free(&now);
    if (failed) return -1;
    if (!t->from.dir) model_init_weights(&t->model, (uint64_t)t->run->seed);
    weights_from_master(&t->model);
    if (!t->from.dir) return 0;
    if (run_state_read(&t->state, t->run, meta->state_json, t->from.dir, err)) return -1;
    t->step = meta->step, t->samples = meta->samples, t->updates = meta->updates, t->skipped = meta->skipped;
    say("resumed    %s: step %lld, %lld samples consumed", t->from.dir, (long long)t->step, (long long)t->samples);
    return 0;
}

/* Only saves on the way are worth the memory of a copy: the one at the end is waited for anyhow. */
static int open_saver(trainer *t, moai_error *err)
{
    char *same = xasprintf("%s/checkpoint-%lld", t->run->output_dir, (long long)t->step);
    const bool there = t->from.dir && strcmp(t->from.dir, same) == 0;
    const saver_options o = {.output_dir = t->run->output_dir, .tokenizer = t->tokenizer, .state = state_of(t),
                             .async = plan_copies(t->run), .keep = (int)t->run->save_total_limit,
                             .metrics = t->metrics, .saved_step = there ? t->step : -1, .damaged = t->from.damaged,
                             .n_damaged = t->from.n_damaged};

    t->from.damaged = NULL;
    free(same);
    t->saver = saver_open(&o, err);
    return t->saver ? 0 : -1;
}

static int open_loader(trainer *t, moai_error *err)
{
    const loader_plan plan = plan_of(t, t->samples);

    t->ids = xmalloc((size_t)(t->batch.micro_batch * (t->run->seq_length + 1)) * sizeof *t->ids);
    t->samples_read = xmalloc((size_t)(t->batch.micro_batch * t->batch.accumulation) * sizeof *t->samples_read);
    t->loader = loader_start(t->train_set, &plan, err);
    return t->loader ? 0 : -1;
}

static int open_metrics(trainer *t, moai_error *err)
{
    if (check_new_start(t->run, err)) return -1;
    t->metrics = metrics_open(t->run->output_dir, t->run->tensorboard, t->run->progress, t->step, err);
    return t->metrics ? 0 : -1;
}

/* Everything that can be wrong is found here, one part after another, agreed by all ranks before the next. */
static int trainer_open(trainer *t, moai_error *err)
{
    const comm *world = &t->grid.host_world;
    const model_options opt = model_options_of(t->run, &t->batch, t->grid.size, t->grid.at.pp);
    const device_options wanted = {.name = t->run->device, .deterministic = t->run->deterministic,
                                   .n_threads = t->run->num_threads ? (int)t->run->num_threads : process_cores()};
    int failed = 0;

    failed = device_open(&t->device, &wanted, err);
    if (comm_agree(world, failed, err)) return -1;
    device_connect(&t->device, &t->grid);
    say("device     %s", t->device.text);
    if (t->grid.rank == 0) failed = make_output_dir(t->run->output_dir, err);
    if (comm_agree(world, failed, err)) return -1;
    failed = open_data(t, err);
    if (comm_agree(world, failed, err)) return -1;
    model_plan(&t->model, t->cfg, &t->grid, &opt);
    failed = model_alloc(&t->model, t->device.ops, t->device.dev, &t->grid, err);
    if (comm_agree(world, failed, err)) return -1;
    if (start_weights(t, err)) return -1;
    if (grid_first_stage(&t->grid) || grid_last_stage(&t->grid)) failed = open_loader(t, err);
    if (comm_agree(world, failed, err)) return -1;
    if (t->grid.rank == 0) failed = open_metrics(t, err);
    if (comm_agree(world, failed, err)) return -1;
    return open_saver(t, err);
}

static void trainer_close(trainer *t)
{
    if (t->loader) loader_stop(t->loader);
    if (t->train_set) dataset_free(t->train_set);
    if (t->eval_set) dataset_free(t->eval_set);
    saver_close(t->saver);
    resume_free(&t->from);
    if (t->metrics) metrics_close(t->metrics);
    if (t->model.slots) model_free(&t->model);
    schedule_free(&t->schedule);
    grid_free(&t->grid);
    device_close(&t->device);
    free(t->ids);
    free(t->samples_read);
    free(t->tokenizer);
}

static void feed_train(void *arg, moai_model *m, int micro_batch, int slot)
{
    trainer *t = arg;
    moai_error err;

    CHECK(loader_next(t->loader, t->ids, t->samples_read + micro_batch * t->batch.micro_batch, &t->waited, &err) == 0,
          "%s", err.text);
    model_set_ids(m, slot, t->ids);
}

/* Rank 0 gets the sample numbers of the whole step, as the first stage's ranks read them;
 * others get NULL.  Caller frees. */
static int64_t *gather_samples(trainer *t)
{
    const comm *dp = &t->grid.host_dp;
    const size_t n = (size_t)(t->batch.micro_batch * t->batch.accumulation);

    if (!t->run->log_samples || t->grid.at.pp != 0 || t->grid.at.tp != 0) return NULL;
    int64_t *all = xmalloc(n * (size_t)dp->size * sizeof *all);
    comm_request r = all_gather_begin(dp, all, t->samples_read, n * sizeof *all, DT_U8);
    comm_end(&r);
    if (t->grid.rank == 0) return all;
    free(all);
    return NULL;
}

static step_result train_step(trainer *t)
{
    moai_model *m = &t->model;
    const moai_ctx *c = &m->ctx;
    const double tokens = (double)(t->batch.global * t->run->seq_length), scale = t->state.scale.value;

    gradients_begin(m);
    c->ops->zero(c->dev, m->totals, 2 * sizeof *m->totals);
    pipeline_run(m, &t->schedule, (float)(scale / tokens), feed_train, t);
    step_result r = optimizer_step(m, t->run, learning_rate(t->run, t->step), t->updates + 1, scale);
    t->step++;
    t->samples += t->batch.global;
    if (r.skipped)
        t->skipped++;
    else
        t->updates++;
    loss_scale_update(&t->state.scale, t->run, r.skipped);
    return r;
}

/* A step that leaves its timeline.  A trace that cannot be written is no reason to stop. */
static step_result profiled_step(trainer *t)
{
    profile *p = profile_begin(&t->model.ctx, t->device.clock, t->schedule.n_micro);
    step_result r = train_step(t);
    moai_error err;

    profile_end(p);
    int failed = profile_write(p, t->run->output_dir, &err);
    if (comm_agree(&t->grid.host_world, failed, &err)) warn("the profile of step %lld: %s", (long long)t->step, err.text);
    if (t->grid.rank == 0) timeline_print(profile_timeline(p), stderr);
    profile_free(p);
    return r;
}

/* A step whose update was left out: why, and what follows. */
static void report_skipped(trainer *t, double scale)
{
    const double next = t->state.scale.value;
    char *text = t->run->fp16
                     ? xasprintf("the gradient norm is not finite: weights left as they were; loss scale %g, %s %g",
                                 scale, next < scale ? "now" : "its least is", next)
                     : xstrdup("the gradient norm is not finite: weights left as they were");

    metrics_event(t->metrics, "skipped", t->step, text);
    free(text);
}

static void report_step(trainer *t, step_result r, double lr, double scale, double seconds)
{
    const double tokens = (double)(t->batch.global * t->run->seq_length);
    const double flops = model_flops_products(t->cfg) + model_flops_attention(t->cfg, t->run->seq_length);
    const double peak = t->device.peak_flops * t->grid.world, mfu = peak > 0 ? tokens / seconds * flops / peak : -1;
    int64_t *samples = gather_samples(t);

    if (t->grid.rank == 0 && (t->step % t->run->logging_steps == 0 || t->step == t->run->max_steps || r.skipped)) {
        metrics_step(t->metrics,
                     &(step_metrics){.step = t->step, .max_steps = t->run->max_steps, .loss = r.loss_sum / tokens,
                                     .lr = lr, .grad_norm = r.grad_norm, .tokens_per_second = tokens / seconds,
                                     .mfu = mfu, .step_seconds = seconds, .data_wait_seconds = t->waited,
                                     .eta_seconds = (now_seconds() - t->began) / (double)(t->step - t->first_step) *
                                                    (double)(t->run->max_steps - t->step),
                                     .loss_scale = t->run->fp16 ? scale : 0, .samples = t->samples, .skipped = t->skipped, .sample_numbers = samples,
                                     .n_sample_numbers = samples ? t->batch.global : 0});
        if (r.skipped) report_skipped(t, scale);
    }
    free(samples);
}

static void evaluate(trainer *t)
{
    eval_metrics e;
    const double begin = now_seconds();

    if (t->run->eval_steps == 0 || t->evaluated_step == t->step) return;
    e.loss = evaluation_loss(&t->model, t->eval_set, t->run, &t->batch, &e.tokens);
    e.step = t->step;
    e.perplexity = exp(e.loss);
    e.seconds = now_seconds() - begin;
    t->evaluated_step = t->step;
    if (t->metrics) metrics_eval(t->metrics, &e);
}

static void save(trainer *t)
{
    checkpoint_meta meta = meta_of(t);

    saver_save(t->saver, &meta);
    checkpoint_meta_free(&meta);
}

static bool every(int64_t step, int64_t interval) { return interval > 0 && step % interval == 0; }

/* Copies of a weight that differ: the run ends, and nothing more is saved of it. */
static int check_replicas(trainer *t)
{
    moai_error err;

    if (!every(t->step, t->run->replica_check_steps) || replicas_check(&t->model, &err) == 0) return 0;
    if (t->metrics) metrics_event(t->metrics, "replicas_differ", t->step, err.text);
    if (t->grid.rank == 0) fprintf(stderr, "moai: step %lld: %s\n", (long long)t->step, err.text);
    return -1;
}

/* The loop; returns the exit status. */
static int train(trainer *t)
{
    const run_config *run = t->run;
    const int64_t end = run->stop_at_step > 0 ? min_i64(run->stop_at_step, run->max_steps) : run->max_steps;
    int stop = 0;

    t->first_step = t->step;
    t->began = now_seconds();
    while (t->step < end && !stop) {
        const double begin = now_seconds(), lr = learning_rate(run, t->step), scale = t->state.scale.value;
        base_step = t->step + 1;
        t->waited = 0;
        step_result r = t->step + 1 == run->profile_step ? profiled_step(t) : train_step(t);
        report_step(t, r, lr, scale, now_seconds() - begin);
        if (check_replicas(t)) return STATUS_FAILED;
        if (every(t->step, run->eval_steps)) evaluate(t);
        if (every(t->step, run->save_steps)) save(t);
        stop = step_boundary(t);
    }
    if (!stop) evaluate(t);
    if (stop && t->metrics) metrics_event(t->metrics, "stop", t->step, stop == SIGUSR1 ? "SIGUSR1" : "SIGTERM");
    if (run->save_on_exit && t->step > 0) save(t);
    saver_wait(t->saver);
    base_step = -1;
    const bool failed = run->save_on_exit && t->step > 0 && saver_saved_step(t->saver) != t->step;
    return failed ? STATUS_FAILED : STATUS_OK;
}

int train_run(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch)
{
    trainer t = {.run = run, .cfg = cfg, .batch = *batch, .state = run_state_start(run), .evaluated_step = -1};
    moai_error err;

    grid_init(&t.grid, size, (int)cfg->num_key_value_heads);
    t.schedule = schedule_1f1b(size.pp, t.grid.at.pp, (int)batch->accumulation);
    catch_signals();
    int failed = trainer_open(&t, &err), status = STATUS_FAILED;
    if (failed && t.grid.rank == 0) fprintf(stderr, "moai: %s\n", err.text);
    if (!failed) status = train(&t);
    trainer_close(&t);
    return status;
}
