/* tensorboard.h: scalars in TensorBoard's event files: TFRecord frames around protobuf messages
 * (tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto), written by hand.  Not thread-safe. */
#ifndef MOAI_TENSORBOARD_H
#define MOAI_TENSORBOARD_H

#include "src/base/base.h"

typedef struct tensorboard_scalar {
    const char *tag;                          /* "train/loss" */
    double value;
} tensorboard_scalar;

typedef struct tensorboard tensorboard;
/* A new DIR/events.out.tfevents.*; TensorBoard forgets the scalars that older files of DIR hold for steps past
 * `resume_step`.  NULL on failure. */
tensorboard *tensorboard_open(const char *dir, int64_t resume_step, moai_error *err);
/* One event.  Returns -1 when the file cannot take it. */
int tensorboard_write(tensorboard *, int64_t step, const tensorboard_scalar *, int n, moai_error *err);
void tensorboard_close(tensorboard *);

#endif
