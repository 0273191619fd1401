/* plan.h: what a run will be, before it is: shape, true parameter count, bytes per rank by
 * arena, and whether it fits. */
#ifndef MOAI_PLAN_H
#define MOAI_PLAN_H

#include "parallel/comm/grid.h"
#include "src/config/model_config.h"
#include "src/model/model.h"
#include "src/train/run_config.h"

const char *recompute_name(recompute_mode);     /* "none", ... as the key has it */
/* There is something for the mode to compute again. */
static inline bool recompute_applies(recompute_mode mode, const model_config *cfg)
{
    return mode != RECOMPUTE_STREAMS || cfg->hc.mult > 1;
}

model_options model_options_of(const run_config *, const batch_plan *, grid_shape size, int stage);

/* Bytes of the rank of a stage that takes most: its first, as shares differ by at most a row. */
typedef struct plan_memory {
    int64_t first_layer, n_layers;
    int64_t stream_layers;                    /* see ctx.h */
    size_t arenas[N_ARENAS];
    size_t backend;                           /* a GPU's context, workspaces and transport buffers, by experience */
    size_t copy;                              /* host memory for saves on the way */
    size_t total;                             /* of the device: arenas, backend, on the CPU the copy too */
} plan_memory;
void plan_stage(plan_memory *, const run_config *, const model_config *, grid_shape size, const batch_plan *, int stage,
                bool gpu);

/* Saves on the way are made from a copy of the state in host memory. */
static inline bool plan_copies(const run_config *run) { return run->async_save && run->save_steps > 0; }

/* A line of the plan, by the printing rank: on standard output where --plan asked for it, else, ahead of a run, on
 * standard error. */
void plan_say(const run_config *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Layout, counts, FLOPs, the table of bytes by arena and stage, and the memory that is free. */
void plan_print(const run_config *, const model_config *, grid_shape size, const batch_plan *, bool gpu,
                size_t free_bytes);

#endif
