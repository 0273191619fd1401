/* rope.h: rotation angles with Hugging Face's scalings (transformers/modeling_rope_utils:
 * default, linear, dynamic, yarn). */
#ifndef MOAI_ROPE_H
#define MOAI_ROPE_H

#include "src/config/model_config.h"
#include "src/params/ctx.h"

/* cos, sin: host arrays (n_positions, head_dim/2).  seq_len is the length that dynamic NTK adapts its base to. */
void rope_fill(float *cos, float *sin, int64_t n_positions, int64_t seq_len, const model_config *);
/* ctx.rope from them, of positions [0, n), which is the length, too.  Waits for the device. */
void rope_load(const moai_ctx *, int64_t n);

#endif
