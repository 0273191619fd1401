/* saver.c: see saver.h
 *
 *     IDLE -> WRITING -> COMMITTING -> PRUNING -> IDLE      a failure: back to IDLE, and nothing of the save is left
 *
 * A phase is work that a rank can do alone, so the thread needs no MPI: WRITING is its file, fsynced; COMMITTING rank
 * 0's manifest and rename, then on all a reading back; PRUNING the removal of older checkpoints.  What needs all ranks
 * lies between two phases: to know that all have written, the list of all pieces for the manifest, to know that all
 * have read back what they wrote.  There the main threads meet anyway, at a step's end: each puts in whether its thread
 * still works and whether it failed, the maximum is the same on all, and so all take the same step or none does.  A
 * phase therefore lasts whole steps, and training waits for no disk.  The order is what keeps a run safe: no manifest
 * before all files are whole, and no older checkpoint goes before the new one has been read. */
#include "src/train/saver.h"

#include "src/base/watch.h"
#include "src/host/host_memory.h"

#include <errno.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { RETRY_STEPS = 10, FAILURES_IN_A_ROW = 3 };

/* What the thread is at, and what the ranks agree on before they go on to the next. */
typedef enum { IDLE, WRITING, COMMITTING, PRUNING } saver_phase;

struct saver {
    saver_options opt;
    const comm *world;
    checkpoint_state copy;                    /* async: host memory */

    int keep;                                 /* of the save under way; 0: all */
    saver_phase phase;                        /* the same on every rank */
    checkpoint_saving *saving;
    bool spoiled;
    int64_t step, saved_step, n_failed;       /* n_failed: in a row */
    double began, stall;                      /* of the save under way: when; seconds that training waited for it */

    pthread_t thread;
    bool has_thread;
    pthread_mutex_t lock;                     /* of what follows */
    pthread_cond_t changed;
    bool working, stopping;                   /* working: the thread has `phase` to do */
    int status;                               /* of what it did last */
    moai_error err;
};

static int do_phase(saver *s, saver_phase phase)
{
    if (phase == WRITING) return checkpoint_write(s->saving, &s->err);
    if (phase == COMMITTING) return checkpoint_commit(s->saving, &s->err);
    checkpoint_prune(s->saving, s->keep);
    return 0;
}

static void *work(void *arg)
{
    saver *s = arg;

    omp_set_num_threads(1);                   /* of this thread: the cores are training's */
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->working && !s->stopping) pthread_cond_wait(&s->changed, &s->lock);
        if (!s->working) break;
        const saver_phase phase = s->phase;
        pthread_mutex_unlock(&s->lock);
        const int status = do_phase(s, phase);
        pthread_mutex_lock(&s->lock);
        s->status = status;
        s->working = false;
        pthread_cond_broadcast(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Has the phase done: by the thread, or here and now. */
static void start(saver *s, saver_phase phase)
{
    pthread_mutex_lock(&s->lock);
    s->phase = phase;
    s->working = s->has_thread;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (!s->has_thread) s->status = do_phase(s, phase);
}

static int check_room(const saver *s, moai_error *err)
{
    const size_t need = opt_state_bytes(&s->copy.states), have = host_memory_available();
    const int ranks = process_host_ranks();

    if (need * (size_t)ranks <= have) return 0;
    return error_set(err,
                     "async_save copies the training state to host memory: %.4f GiB for each of %d ranks on this host, "
                     "where %.4f GiB are available; --no_async_save saves without a copy",
                     gib(need), ranks, gib(have));
}

static int take_memory(saver *s, moai_error *err)
{
    const checkpoint_state *live = &s->opt.state;
    moai_error why;

    if (opt_state_take_host(&s->copy.states, live->ops, live->dev, &why) == 0) return 0;
    return error_set(err, "async_save: %s; --no_async_save saves without them", why.text);
}

static int start_thread(saver *s, moai_error *err)
{
    const int failed = pthread_create(&s->thread, NULL, work, s);

    if (failed) return error_set(err, "async_save: a thread cannot be started: %s", strerror(failed));
    s->has_thread = true;
    return 0;
}

saver *saver_open(const saver_options *o, moai_error *err)
{
    saver *s = xmalloc(sizeof *s);
    int failed = 0;

    *s = (saver){.opt = *o, .world = &o->state.grid->host_world, .saved_step = o->saved_step,
                 .copy = o->state};
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    if (!o->async) return s;
    s->copy.ops = NULL;
    s->copy.states = opt_state_on_host(o->state.states);
    failed = comm_agree(s->world, check_room(s, err) != 0, err);
    if (!failed) failed = comm_agree(s->world, take_memory(s, err) != 0, err);
    if (!failed) failed = comm_agree(s->world, start_thread(s, err) != 0, err);
    if (!failed) return s;
    saver_close(s);
    return NULL;
}

/* Gives up or ends the save under way. */
static void finish(saver *s, bool failed)
{
    watch_files(true);
    checkpoint_end(s->saving, failed);
    watch_files(false);
    s->saving = NULL;
    s->phase = IDLE;
}

static void report_failure(saver *s, const moai_error *err)
{
    warn("checkpoint of step %lld not saved: %s", (long long)s->step, err->text);
    metrics_event(s->opt.metrics, "save_failed", s->step, err->text);
    if (++s->n_failed < FAILURES_IN_A_ROW) return;
    char *since = s->saved_step < 0 ? xstrdup("this run began") : xasprintf("step %lld", (long long)s->saved_step);
    char *text = xasprintf("nothing has been saved since %s: %lld saves in a row have failed", since,
                           (long long)s->n_failed);
    warn("%s; whatever ends the run now loses all of it", text);
    metrics_event(s->opt.metrics, "not_saved", s->step, text);
    free(text);
    free(since);
}

bool saver_retries(const saver *s, int64_t step)
{
    return s->phase == IDLE && s->n_failed > 0 && step >= s->step + RETRY_STEPS;
}

static void report_success(saver *s)
{
    metrics_save(s->opt.metrics, &(save_metrics){.step = s->step, .seconds = now_seconds() - s->began,
                                                 .stall_seconds =
                                                     s->has_thread ? s->stall : now_seconds() - s->began});
}

void saver_progress(saver *s, int32_t progress[SAVER_PROGRESS])
{
    pthread_mutex_lock(&s->lock);
    progress[0] = s->working;
    progress[1] = !s->working && s->phase != IDLE && s->status != 0 ? s->world->size - s->world->rank : 0;
    pthread_mutex_unlock(&s->lock);
}

/* Every rank has done the phase; `failed` on any of them. */
static void next_phase(saver *s, bool failed)
{
    if (failed) {
        moai_error err = s->err;
        const bool own = s->status == CHECKPOINT_NOT_FINITE;
        int32_t spoiled = own;
        comm_all_reduce(s->world, &spoiled, 1, DT_I32, REDUCE_MAX);
        s->spoiled = s->spoiled || spoiled;
        comm_agree(s->world, spoiled ? own : s->status != 0, &err);   /* the words of who found that, or who failed */
        finish(s, true);
        report_failure(s, &err);
    } else if (s->phase == WRITING) {
        checkpoint_gather(s->saving);
        start(s, COMMITTING);
    } else if (s->phase == COMMITTING) {
        s->saved_step = s->step;
        s->n_failed = 0;
        report_success(s);
        start(s, PRUNING);
    } else {
        finish(s, false);
    }
}

void saver_advance(saver *s, const int32_t progress[SAVER_PROGRESS])
{
    const double begin = now_seconds();

    if (s->phase == IDLE || progress[0]) return;
    next_phase(s, progress[1] != 0);
    s->stall += now_seconds() - begin;
}

void saver_wait(saver *s)
{
    while (s->phase != IDLE) {
        int32_t progress[SAVER_PROGRESS];
        pthread_mutex_lock(&s->lock);
        while (s->working) pthread_cond_wait(&s->changed, &s->lock);
        pthread_mutex_unlock(&s->lock);
        saver_progress(s, progress);
        comm_all_reduce(s->world, progress, SAVER_PROGRESS, DT_I32, REDUCE_MAX);
        saver_advance(s, progress);
    }
}

static void copy_state(const saver *s)
{
    const checkpoint_state *live = &s->opt.state;

    for (int i = 0; i < live->states.n; i++)
        live->ops->copy(live->dev, s->copy.states.data[i], live->states.data[i],
                        state_bytes(&live->states.spec[i], live->states.n_own), COPY_TO_HOST);
    live->ops->sync(live->dev);
}

void saver_save(saver *s, const checkpoint_meta *meta, bool prune)
{
    const double begin = now_seconds();
    moai_error err;

    saver_wait(s);
    if (s->saved_step == meta->step) return;
    s->step = meta->step;
    s->keep = prune ? s->opt.keep : 0;
    s->began = begin;
    s->saving = checkpoint_begin(s->opt.output_dir, meta, &s->copy, s->opt.files, &err);
    if (!s->saving) {
        report_failure(s, &err);
        return;
    }
    if (s->has_thread) copy_state(s);
    start(s, WRITING);
    s->stall = now_seconds() - begin;
    if (!s->has_thread) saver_wait(s);
}

bool saver_spoiled(const saver *s) { return s->spoiled; }

int64_t saver_saved_step(const saver *s) { return s->saved_step; }

void saver_close(saver *s)
{
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->has_thread) pthread_join(s->thread, NULL);
    if (s->saving) finish(s, s->phase != PRUNING);
    if (s->opt.async) opt_state_free_host(&s->copy.states, s->opt.state.ops, s->opt.state.dev);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
