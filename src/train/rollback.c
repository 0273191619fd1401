/* rollback.c: see rollback.h
 *
 * No rank asks another: loss, norm and the window of steps before are the same bits on all ranks, so each comes to the
 * same decision by itself.  A rollback has an order.  A save under way is waited for: the newest checkpoint may be just
 * that one.  Then the state is loaded, which brings back step, sample count, loss scale and window, but only adds to
 * the list of samples left out, or the second rollback would forget the first.  Then the decision is added, counted
 * from the sample count that was loaded, and written beside the checkpoints, since a run killed now would else meet the
 * same samples again; then metrics drop what will be told again, and the loader begins anew with the longer list. */
#include "src/train/rollback.h"

#include "src/base/watch.h"

#include <stdio.h>
#include <stdlib.h>

/* "loss 9.81 is 14.2 deviations above the mean 5.6 of the 100 steps before"; caller frees. */
static char *spike_text(const trainer *t)
{
    const spike *s = &t->spike;

    return xasprintf("%s %.6g is %.3g deviations above the mean %.6g of the %lld steps before", s->measure, s->value,
                     s->zscore, s->mean, (long long)t->run->spike.loss_spike_window);
}

/* The first of a row is a warning, more than loss_spike_limit are the end. */
static int look_at_row(const trainer *t, const char *what, moai_error *err)
{
    const skip_row *row = &t->state.skips;
    const int64_t limit = t->run->spike.loss_spike_limit;

    if (row->n_counted == 1)
        warn("step %lld: %s: its update is left out; the run ends when more than %lld in a row are (loss_spike_limit)",
             (long long)t->step, what, (long long)limit);
    if (row->n_counted <= limit) return 0;
    char *text = skip_row_text(row);
    error_set(err, "step %lld: %s; %s, and loss_spike_limit is %lld", (long long)t->step, what, text, (long long)limit);
    metrics_event(t->metrics, "no_progress", t->step, text);
    free(text);
    return -1;
}

static int skip(trainer *t, const char *what, const int64_t *samples, moai_error *err)
{
    char *text = xasprintf("%s: weights left as they were", what);

    metrics_event_samples(t->metrics, "spike", t->step, text, samples, t->batch.global);
    free(text);
    return look_at_row(t, what, err);
}

/* The newest checkpoint of this run, or the one it began from; NULL: it began anew.  Caller frees. */
static char *last_checkpoint(trainer *t)
{
    watch_phase("saving", -1);
    saver_wait(t->saver);
    const int64_t step = saver_saved_step(t->saver);

    if (step >= 0) return xasprintf("%s/checkpoint-%lld", t->run->output_dir, (long long)step);
    return t->from.dir ? xstrdup(t->from.dir) : NULL;
}

/* The record is in the next checkpoint too: a disk that is full now is no reason to stop. */
static void write_record(const trainer *t)
{
    char *path = trainer_left_out_path(t);
    const left_out_data data = trainer_left_out_data(t);
    moai_error err;

    watch_files(true);
    if (t->grid.rank == 0 && left_out_write(&t->state.left_out, &data, path, &err)) warn("%s", err.text);
    watch_files(false);
    free(path);
}

/* Adds the decision; the state is that of the checkpoint already. */
static int leave_out(trainer *t, int64_t spiked, const char *what, const int64_t *samples, moai_error *err)
{
    const int times = left_out_times(&t->state.left_out, t->samples);

    if (times >= t->run->spike.loss_spike_limit)
        return error_set(err, "step %lld: %s; the run has gone back to step %lld %d times (loss_spike_limit)",
                         (long long)spiked, what, (long long)t->step, times);
    left_out_add(&t->state.left_out, &(left_out_decision){.step = spiked, .back_to = t->step, .from = t->samples,
                                                          .why = t->spike, .samples = samples,
                                                          .n_samples = t->batch.global});
    if (t->state.left_out.n >= dataset_samples(t->train_set, t->run->seq_length))
        return error_set(err, "step %lld: %s; nothing is left of the data", (long long)spiked, what);
    write_record(t);
    return 0;
}

static int roll_back(trainer *t, const char *what, const int64_t *samples, moai_error *err)
{
    const int64_t spiked = t->step;
    char *dir = last_checkpoint(t);
    const int failed = trainer_load(t, dir, err);

    free(dir);
    if (failed || leave_out(t, spiked, what, samples, err)) return -1;
    metrics_go_back(t->metrics, t->step);
    char *text = xasprintf("step %lld: %s; back to step %lld, its samples left out from here on", (long long)spiked,
                           what, (long long)t->step);
    metrics_event_samples(t->metrics, "rollback", t->step, text, samples, t->batch.global);
    free(text);
    t->first_step = t->step;
    t->evaluated_step = t->checked_step = -1;
    t->began = now_seconds();
    return trainer_read_data(t, err);
}

int spike_answer(trainer *t, moai_error *err)
{
    if (!t->spike.measure) return look_at_row(t, "the gradient norm is not finite", err);

    int64_t *samples = xmalloc((size_t)t->batch.global * sizeof *samples);
    char *what = spike_text(t);
    const data_order order = trainer_order(t);
    int status;

    order_take(&order, t->step_began_at, t->batch.global, samples);
    if (t->run->spike.loss_spike_action == SPIKE_SKIP)
        status = skip(t, what, samples, err);
    else
        status = roll_back(t, what, samples, err);
    free(what);
    free(samples);
    return status;
}
