/* The learning rate of every schedule, step by step, against values worked out by hand from configs/README.md's
 * table. */
#include "src/train/schedule.h"
#include "tests/lib/tap.h"

static void check(const char *what, const schedule_options *run, const double *want, int n)
{
    for (int step = 0; step < n; step++) {
        char text[64];
        snprintf(text, sizeof text, "%s, step %d", what, step + 1);
        ok_close(learning_rate(run, step), want[step], 1e-14, 0, text);
    }
}

int main(void)
{
    schedule_options run = {.learning_rate = 8, .min_lr_ratio = 0.25, .max_steps = 10, .warmup_steps = 4};

    /* warm-up 2 4 6 8, then 2 + 6 (1 + cos(pi k/6)) / 2 */
    run.lr_scheduler_type = SCHEDULE_COSINE;
    check("cosine", &run,
          (const double[]){2, 4, 6, 8, 8, 7.598076211353316, 6.5, 5, 3.5, 2.401923788646684}, 10);
    run.lr_scheduler_type = SCHEDULE_LINEAR;
    check("linear", &run, (const double[]){2, 4, 6, 8, 8, 7, 6, 5, 4, 3}, 10);
    run.lr_scheduler_type = SCHEDULE_CONSTANT;
    check("constant", &run, (const double[]){2, 4, 6, 8, 8, 8, 8, 8, 8, 8}, 10);
    run.lr_scheduler_type = SCHEDULE_WSD, run.decay_steps = 3;
    check("wsd, 3 of decay", &run, (const double[]){2, 4, 6, 8, 8, 8, 8, 6, 4, 2}, 10);
    run.decay_steps = 1;
    check("wsd, 1 of decay", &run, (const double[]){2, 4, 6, 8, 8, 8, 8, 8, 8, 2}, 10);
    run.decay_steps = 6;
    check("wsd, decay after the warm-up", &run, (const double[]){2, 4, 6, 8, 7, 6, 5, 4, 3, 2}, 10);
    run.decay_steps = 0;
    check("wsd without decay", &run, (const double[]){2, 4, 6, 8, 8, 8, 8, 8, 8, 8}, 10);

    run.warmup_steps = 10, run.lr_scheduler_type = SCHEDULE_COSINE;
    check("nothing but warm-up", &run, (const double[]){0.8, 1.6, 2.4, 3.2, 4, 4.8, 5.6, 6.4, 7.2, 8}, 10);
    run.warmup_steps = 0, run.max_steps = 1;
    check("one step", &run, (const double[]){8}, 1);
    /* a step past the end, as when stop_at_step and max_steps change hands */
    ok(learning_rate(&run, 1) == 2 && learning_rate(&run, 100) == 2, "past the end the rate stays at its least");
    return tap_done();
}
