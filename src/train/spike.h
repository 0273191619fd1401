/* spike.h: a step whose loss, or gradient norm, stands out from the steps before it.
 *
 *   z = (value - mean) / deviation,   over the last loss_spike_window steps that were applied
 *
 * A spike is z > loss_spike_zscore (0: nobody looks).  Nothing is judged before the window is full, and the deviation
 * counts as at least 0.1 % of the mean, so that a loss that has come to rest does not spike on noise.  A spike does not
 * enter the window.  The window is part of the run's state: a resumed run judges as the uninterrupted one. */
#ifndef MOAI_SPIKE_H
#define MOAI_SPIKE_H

#include "src/config/keys.h"

#include <jansson.h>

typedef enum { SPIKE_LOSS, SPIKE_GRAD_NORM, SPIKE_EITHER } spike_measure;
typedef enum { SPIKE_SKIP, SPIKE_ROLLBACK } spike_action;

typedef struct spike_options {
    double loss_spike_zscore;                 /* 0: no step is judged */
    int64_t loss_spike_window, loss_spike_limit;
    spike_measure loss_spike_measure;
    spike_action loss_spike_action;           /* what rollback.h does about one */
} spike_options;
extern const key_table spike_keys;

typedef struct spike_watch {
    double *loss, *norm;                      /* rings of `window`; value i is at i % window */
    int64_t window, n;                        /* n: values ever remembered; window 0: off */
} spike_watch;

typedef struct spike {
    const char *measure;                      /* "loss" or "grad_norm"; NULL: none */
    double value, mean, zscore;
} spike;

spike_watch spike_watch_start(const spike_options *);
void spike_watch_free(spike_watch *);
/* Is the step that ends with these a spike?  Remembers nothing. */
spike spike_judge(const spike_watch *, const spike_options *, double loss, double norm);
/* A step was applied.  A loss or norm that is not finite enters no window. */
void spike_remember(spike_watch *, double loss, double norm);

json_t *spike_watch_json(const spike_watch *);          /* a new reference; the values oldest first */
/* Keeps the newest when the text holds more than the window. */
int spike_watch_read(spike_watch *, const json_t *, moai_error *err);

#endif
