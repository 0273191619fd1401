/* schedule.c: see schedule.h */
#include "src/train/schedule.h"

#include <math.h>

double learning_rate(const run_config *run, int64_t step)
{
    const double least = run->min_lr_ratio, pi = 3.14159265358979323846;
    const int64_t warm_up = run->warmup_steps, end = run->max_steps;

    if (step < warm_up) return run->learning_rate * (double)(step + 1) / (double)warm_up;
    double done = end > warm_up ? (double)(step - warm_up) / (double)(end - warm_up) : 1, factor = 1;
    switch (run->lr_scheduler_type) {
    case SCHEDULE_COSINE: factor = least + (1 - least) * 0.5 * (1 + cos(pi * fmin(done, 1))); break;
    case SCHEDULE_LINEAR: factor = least + (1 - least) * (1 - fmin(done, 1)); break;
    case SCHEDULE_WSD:
        done = run->decay_steps > 0 ? (double)(step + 1 - (end - run->decay_steps)) / (double)run->decay_steps : 0;
        factor = least + (1 - least) * (1 - fmin(fmax(done, 0), 1));
        break;
    case SCHEDULE_CONSTANT: break;
    }
    return run->learning_rate * factor;
}
