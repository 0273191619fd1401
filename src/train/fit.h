/* fit.h: does a run fit into memory, and what would make it fit, before anything is allocated. */
#ifndef MOAI_FIT_H
#define MOAI_FIT_H

#include "src/host/host_memory.h"
#include "src/train/plan.h"

/* What a rank may take of the device that the run asks for. */
typedef struct fit_memory {
    bool gpu;
    size_t bytes, all;                        /* of its GPU, or its host's over the ranks: free now; in all */
    host_memory host;                         /* of this rank's host */
} fit_memory;

/* The least of all ranks; -1 on all when some have a GPU and some have none.  Collective. */
int fit_find_memory(fit_memory *, const run_config *, moai_error *err);

/* What the rank that needs most takes. */
size_t fit_need(const run_config *, const model_config *, grid_shape size, const batch_plan *, bool gpu);

/* gradient_checkpointing auto becomes the mode that recomputes least and fits, full if none does.  Then -1 on all ranks
 * when the run does not fit: err has both figures and what would fit, and is a matter of the configuration where it
 * would not fit into the whole memory either.  Host memory is shared: there it is the sum of a host's ranks that has to
 * fit, with the copies for saves.  Collective. */
int fit_settle(run_config *, const model_config *, grid_shape size, const batch_plan *, fit_memory, moai_error *err);

#endif
