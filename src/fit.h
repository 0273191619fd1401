/* fit.h: does a run fit into memory, and what would make it fit, before anything is allocated. */
#ifndef MOAI_FIT_H
#define MOAI_FIT_H

#include "plan.h"

/* What a rank may take of the device that the run asks for. */
typedef struct fit_room {
    bool gpu;
    size_t bytes;                             /* the GPU's free memory, or this host's over its ranks */
} fit_room;

/* The least room of all ranks; -1 on all when some have a GPU and some have none.  Collective. */
int fit_find_room(fit_room *, const run_config *, moai_error *err);

/* What the rank that needs most takes. */
size_t fit_need(const run_config *, const model_config *, grid_shape size, const batch_plan *, bool gpu);

/* gradient_checkpointing auto becomes the mode that recomputes least and fits, full if none does.  Then -1 when the run
 * does not fit: err has both figures and what would fit.  Not collective. */
int fit_settle(run_config *, const model_config *, grid_shape size, const batch_plan *, fit_room, moai_error *err);

#endif
