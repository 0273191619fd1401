/* schedule.h: the learning rate, step by step. */
#ifndef MOAI_SCHEDULE_H
#define MOAI_SCHEDULE_H

#include "src/config/keys.h"

typedef enum { SCHEDULE_COSINE, SCHEDULE_WSD, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } schedule_kind;

typedef struct schedule_options {
    double learning_rate, min_lr_ratio;
    schedule_kind lr_scheduler_type;
    int64_t max_steps, warmup_steps, decay_steps;       /* decay_steps: WSD's last part */
    double num_train_epochs, warmup_ratio;              /* 0: max_steps and warmup_steps say it */
} schedule_options;
extern const key_table schedule_keys;
int schedule_check(const schedule_options *, moai_error *err);         /* what no single key can see */
/* max_steps from num_train_epochs, of n_samples each with `global` of them a step, and warmup_steps from warmup_ratio;
 * both rounded up.  Then checks them again. */
int schedule_settle(schedule_options *, int64_t n_samples, int64_t global, moai_error *err);

/* The learning rate of the update that follows `step` done steps, as the table of configs/README.md has it: linear
 * warm-up, then cosine or linear towards min_lr_ratio, or none; WSD (arXiv 2404.06395) stays flat and falls linearly in
 * the last decay_steps. */
double learning_rate(const schedule_options *, int64_t step);

#endif
