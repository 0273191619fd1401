/* schedule.c: see schedule.h */
#include "src/train/schedule.h"

#include <math.h>

#define KEYS_OF schedule_options
#include "src/config/key_rows.h"

static const key_choice kinds[] = {{"cosine", SCHEDULE_COSINE},
                                   {"wsd", SCHEDULE_WSD},
                                   {"linear", SCHEDULE_LINEAR},
                                   {"constant", SCHEDULE_CONSTANT},
                                   {"warmup_stable_decay", SCHEDULE_WSD},
                                   {"constant_with_warmup", SCHEDULE_CONSTANT},
                                   {NULL, 0}};
static const key_spec rows[] = {
    REAL(learning_rate, "3e-4", 0, 1e3, "peak learning rate", RATE),
    REAL(min_lr_ratio, "0.1", 0, 1, "the schedule ends at this much of the peak rate", RATE),
    CHOICE(lr_scheduler_type, "cosine", kinds,
           "cosine, wsd (also warmup_stable_decay), linear, constant (also constant_with_warmup), each after the "
           "warm-up; configs/README.md has the formulas", RATE),
    INT(max_steps, "1000", 0, 1ll << 40, "steps of the whole run; 0: the initial weights are saved", RATE),
    REAL(num_train_epochs, "0", 0, 1e9,
         "passes over the data instead of max_steps, rounded up to whole steps; 0: max_steps says how long", RATE),
    INT(warmup_steps, "0", 0, 1ll << 40, "steps of linear warm-up; the first has 1/warmup_steps of the peak rate",
        RATE),
    REAL(warmup_ratio, "0", 0, 1, "warm-up as a share of the run's steps, rounded up; 0: warmup_steps says it", RATE),
    INT(decay_steps, "0", 0, 1ll << 40, "last steps of the wsd schedule, in which the rate falls; the last has "
        "min_lr_ratio of the peak", RATE),
};
const key_table schedule_keys = KEY_TABLE(rows);

int schedule_settle(schedule_options *o, int64_t n_samples, int64_t global, moai_error *err)
{
    if (o->num_train_epochs > 0) {
        const double steps = ceil(o->num_train_epochs * (double)n_samples / (double)global);
        if (steps > 0x1p40) return error_config(err, "num_train_epochs %g are %g steps", o->num_train_epochs, steps);
        o->max_steps = (int64_t)steps;
    }
    if (o->warmup_ratio > 0) o->warmup_steps = (int64_t)ceil(o->warmup_ratio * (double)o->max_steps);
    if (schedule_check(o, err) == 0) return 0;
    err->config = true;
    return -1;
}

int schedule_check(const schedule_options *o, moai_error *err)
{
    if (o->max_steps && o->warmup_steps > o->max_steps)
        return error_set(err, "warmup_steps is %lld, must not exceed max_steps %lld", (long long)o->warmup_steps,
                         (long long)o->max_steps);
    if (o->max_steps && o->lr_scheduler_type == SCHEDULE_WSD && o->warmup_steps + o->decay_steps > o->max_steps)
        return error_set(err, "warmup_steps %lld and decay_steps %lld together exceed max_steps %lld",
                         (long long)o->warmup_steps, (long long)o->decay_steps, (long long)o->max_steps);
    return 0;
}

double learning_rate(const schedule_options *o, int64_t step)
{
    const double least = o->min_lr_ratio, pi = 3.14159265358979323846;
    const int64_t warm_up = o->warmup_steps, end = o->max_steps;

    if (step < warm_up) return o->learning_rate * (double)(step + 1) / (double)warm_up;
    double done = end > warm_up ? (double)(step - warm_up) / (double)(end - warm_up) : 1, factor = 1;
    switch (o->lr_scheduler_type) {
    case SCHEDULE_COSINE: factor = least + (1 - least) * 0.5 * (1 + cos(pi * fmin(done, 1))); break;
    case SCHEDULE_LINEAR: factor = least + (1 - least) * (1 - fmin(done, 1)); break;
    case SCHEDULE_WSD:
        done = o->decay_steps > 0 ? (double)(step + 1 - (end - o->decay_steps)) / (double)o->decay_steps : 0;
        factor = least + (1 - least) * (1 - fmin(fmax(done, 0), 1));
        break;
    case SCHEDULE_CONSTANT: break;
    }
    return o->learning_rate * factor;
}
