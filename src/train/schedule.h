/* schedule.h: the learning rate, step by step. */
#ifndef MOAI_SCHEDULE_H
#define MOAI_SCHEDULE_H

#include "src/train/run_config.h"

/* The learning rate of the update that follows `step` done steps, as the table of configs/README.md has it: linear
 * warm-up, then cosine or linear towards min_lr_ratio, or none; WSD (arXiv 2404.06395) stays flat and falls linearly in
 * the last decay_steps. */
double learning_rate(const run_config *, int64_t step);

#endif
