/* skips.h: steps in a row whose update was left out, since the gradient norm was not finite or the step was a spike
 * (spike.h).  One of them is an accident; a row of them is a run that no longer learns, and it ends when there are more
 * than loss_spike_limit.  An fp16 step that brought the loss scale down is on its way to one that fits: it is part of
 * the row, but does not count.
 *
 * The row is part of the run's state: a job that is started again and again does not begin to count anew. */
#ifndef MOAI_SKIPS_H
#define MOAI_SKIPS_H

#include "src/base/base.h"

#include <jansson.h>

typedef struct skip_row {
    int64_t since;                            /* the first of them */
    int64_t n, n_counted;                     /* n 0: the last step was applied */
} skip_row;

/* Step `step` was left out; `counts`: nothing has come of it. */
void skip_row_add(skip_row *, int64_t step, bool counts);
/* "steps 22 to 27 in a row have left the weights as they were"; caller frees. */
char *skip_row_text(const skip_row *);

json_t *skip_row_json(const skip_row *);      /* a new reference */
int skip_row_read(skip_row *, const json_t *, moai_error *err);

#endif
