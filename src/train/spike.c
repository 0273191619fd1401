/* spike.c: see spike.h */
#include "src/train/spike.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define KEYS_OF spike_options
#include "src/config/key_rows.h"

static const key_choice measures[] = {
    {"loss", SPIKE_LOSS}, {"grad_norm", SPIKE_GRAD_NORM}, {"either", SPIKE_EITHER}, {NULL, 0}};
static const key_choice actions[] = {{"skip", SPIKE_SKIP}, {"rollback", SPIKE_ROLLBACK}, {NULL, 0}};

static const key_spec rows[] = {
    REAL(loss_spike_zscore, "0", 0, 1e9, "deviations above the mean that make a step a spike; 0: no step is judged"),
    INT(loss_spike_window, "100", 2, 100000,
        "steps before it that a step is judged by; none is before there are so many"),
    CHOICE(loss_spike_measure, "loss", measures, "loss, grad_norm or either"),
    CHOICE(loss_spike_action, "skip", actions,
           "skip: no update; rollback: to the last checkpoint, the step's samples left out for good"),
    INT(loss_spike_limit, "5", 1, 1 << 20,
        "the run stops after more steps in a row than this left out (spikes, norms not finite), or rollbacks to one "
        "checkpoint"),
};
const key_table spike_keys = KEY_TABLE(rows);

static const double least_deviation = 1e-3;   /* of the mean */

spike_watch spike_watch_start(const spike_options *o)
{
    spike_watch w = {.window = o->loss_spike_zscore > 0 ? o->loss_spike_window : 0};

    w.loss = xmalloc((size_t)w.window * sizeof *w.loss);
    w.norm = xmalloc((size_t)w.window * sizeof *w.norm);
    return w;
}

void spike_watch_free(spike_watch *w)
{
    free(w->loss);
    free(w->norm);
    *w = (spike_watch){0};
}

/* The ring is full, so the order of its values changes nothing but rounding; they are added oldest first all the same,
 * as after a resume they lie elsewhere. */
static spike judge_one(const spike_watch *w, const char *measure, const double *ring, double value)
{
    double sum = 0, squares = 0;

    for (int64_t i = w->n - w->window; i < w->n; i++) sum += ring[i % w->window];
    const double mean = sum / (double)w->window;
    for (int64_t i = w->n - w->window; i < w->n; i++) {
        const double off = ring[i % w->window] - mean;
        squares += off * off;
    }
    const double deviation = fmax(sqrt(squares / (double)(w->window - 1)), least_deviation * fabs(mean));
    const double zscore = (value - mean) / deviation;     /* of zeros alone: infinite, not in JSON, or no number */
    return (spike){
        .measure = measure, .value = value, .mean = mean, .zscore = zscore > DBL_MAX ? DBL_MAX : zscore};
}

spike spike_judge(const spike_watch *w, const spike_options *o, double loss, double norm)
{
    const spike none = {0};

    if (w->window == 0 || w->n < w->window || !isfinite(loss) || !isfinite(norm)) return none;
    const spike of_loss = judge_one(w, "loss", w->loss, loss), of_norm = judge_one(w, "grad_norm", w->norm, norm);
    if (o->loss_spike_measure != SPIKE_GRAD_NORM && of_loss.zscore > o->loss_spike_zscore) return of_loss;
    if (o->loss_spike_measure != SPIKE_LOSS && of_norm.zscore > o->loss_spike_zscore) return of_norm;
    return none;
}

void spike_remember(spike_watch *w, double loss, double norm)
{
    if (w->window == 0) return;
    if (!isfinite(loss) || !isfinite(norm)) return;
    w->loss[w->n % w->window] = loss;
    w->norm[w->n % w->window] = norm;
    w->n++;
}

json_t *spike_watch_json(const spike_watch *w)
{
    json_t *loss = json_array(), *norm = json_array();

    for (int64_t i = w->n > w->window ? w->n - w->window : 0; i < w->n; i++) {
        json_array_append_new(loss, json_real(w->loss[i % w->window]));
        json_array_append_new(norm, json_real(w->norm[i % w->window]));
    }
    return json_pack("{s:o, s:o}", "loss", loss, "grad_norm", norm);
}

int spike_watch_read(spike_watch *w, const json_t *object, moai_error *err)
{
    const json_t *loss = json_object_get(object, "loss"), *norm = json_object_get(object, "grad_norm");
    const size_t n = json_array_size(loss);

    if (!json_is_array(loss) || json_array_size(norm) != n)
        return error_set(err, "spikes: no window of as many losses as gradient norms");
    w->n = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *l = json_array_get(loss, i), *g = json_array_get(norm, i);
        if (!json_is_number(l) || !json_is_number(g)) return error_set(err, "spikes: value %zu is not a number", i);
        spike_remember(w, json_number_value(l), json_number_value(g));
    }
    return 0;
}
