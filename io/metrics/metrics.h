/* metrics.h: what the user sees of a run: the line or bar on the terminal, metrics.jsonl, TensorBoard event files. */
#ifndef MOAI_METRICS_H
#define MOAI_METRICS_H

#include "src/base/base.h"

/* Over the ranks: seconds of a step in which they did not wait for others. */
typedef struct step_spread {
    double min, median, max;                  /* max 0: not known */
    int slowest;
} step_spread;

typedef struct step_metrics {
    int64_t step, max_steps;                  /* steps done, of */
    double loss, lr, grad_norm;
    int64_t tokens, trained_tokens;           /* of this step; trained_tokens 0: all are, not printed */
    double tokens_per_second, mfu;            /* mfu < 0: the device's peak is not known, not printed */
    double step_seconds, data_wait_seconds, eta_seconds;
    step_spread busy;
    double loss_scale;                        /* of this step; 0: nothing is scaled, not printed */
    int64_t samples, skipped;                 /* place in the data order; steps whose update was left out */
    const int64_t *sample_numbers;            /* of this step, n of them, when --log_samples; else NULL */
    int64_t n_sample_numbers;
} step_metrics;

typedef struct eval_metrics {
    int64_t step;
    double loss, perplexity, seconds;
    int64_t tokens;
} eval_metrics;

typedef struct save_metrics {
    int64_t step;                             /* of the checkpoint, which is in place */
    double stall_seconds, seconds;            /* that training waited, and from the start to the last hash read back */
} save_metrics;

typedef struct metrics metrics;
/* Makes OUTPUT_DIR, opens OUTPUT_DIR/metrics.jsonl for appending and OUTPUT_DIR/runs/events.out.tfevents.*.  A resume
 * drops lines of steps past `resume_step`, so the files tell one story; 0 is a new start and drops all; what is
 * dropped stays in metrics.jsonl.old.  NULL with err filled on failure.  Printing rank only; others pass NULL
 * around. */
metrics *metrics_open(const char *output_dir, bool tensorboard, bool progress, int64_t resume_step, moai_error *err);
/* One line a step on a pipe or file; a live bar where stdout is a terminal.  Every numeric field
 * goes to jsonl with %.9g or better. */
void metrics_step(metrics *, const step_metrics *);
void metrics_eval(metrics *, const eval_metrics *);
void metrics_save(metrics *, const save_metrics *);                              /* the event `saved` */
void metrics_event(metrics *, const char *kind, int64_t step, const char *text); /* stop, ... */
/* An event that is about these samples: all of them in jsonl, the first few on the terminal. */
void metrics_event_samples(metrics *, const char *kind, int64_t step, const char *text, const int64_t *numbers,
                           int64_t n);
/* The run went back to `step`: what comes later is dropped as by a resume; where that fails, it stays, with a
 * warning. */
void metrics_go_back(metrics *, int64_t step);
void metrics_close(metrics *);

#endif
