/* model.h: one pipeline stage of the model on one rank: its parameters, its activations,
 * forward and backward of a micro-batch.
 *
 * Life: model_plan lays everything out in arenas without memory (the plan of any rank of any layout, on any machine);
 * model_alloc takes the memory and lays out again, with pointers.  Nothing is allocated afterwards. */
#ifndef MOAI_MODEL_H
#define MOAI_MODEL_H

#include "parallel/axes/buckets.h"
#include "src/model/batch.h"
#include "src/model/layer.h"
#include "src/params/ctx.h"
#include "src/params/opt_state.h"
#include "src/params/params.h"

/* One arena a lifetime; the memory report prints them by name. */
enum { ARENA_WEIGHTS, ARENA_GRADIENTS, ARENA_OPTIMIZER, ARENA_ACTIVATIONS, ARENA_SCRATCH, N_ARENAS };

typedef struct model_options {
    dtype dt;                               /* DT_F32, DT_BF16, DT_F16 */
    recompute_mode recompute;
    int64_t micro_batch, seq_len;           /* samples, tokens of a sample */
    int n_slots;                            /* micro-batches in flight on this stage, see schedule_slots */
    bool train;                             /* false: forward only, no gradients or optimizer state */
} model_options;

/* Model weights that are not a layer's. */
typedef struct outer_weights {
    tensor embed, dembed;                   /* (V/tp, H)   first stage; the gradient fp32 */
    norm_weight norm;                       /* (1, H)      last stage  */
    linear head;                            /* (V/tp, H)   last stage; the embedding itself when tied */
} outer_weights;

/* {0} where the stage holds none; `grads` NULL: there are none */
outer_weights outer_view(const param_table *, const model_config *, void *weights, dtype, float *grads, bool trains);

/* One micro-batch's memory on the stage: its activations and its ids. */
typedef struct model_slot {
    layer_acts *layers;
    int32_t *inputs, *targets;              /* (N) on the device; -1 past batch * seq_len */
} model_slot;

typedef struct moai_model {
    moai_ctx ctx;
    model_options opt;
    model_config cfg;
    param_table params;
    int64_t first_layer, n_layers;
    int64_t vocab_begin;                    /* of this rank's share of the vocabulary */

    arena arenas[N_ARENAS];
    void *weights;                          /* flat (n_elem), dtype of the model */
    float *grads;                           /* flat (n_elem) fp32, accumulating over a step */
    opt_state states;                       /* this rank's share under ZeRO-1 */
    double *totals;                         /* device: [0] sum of token losses, [1] sum of squared gradients */
    float *grad_scale;                      /* device: what clip says */
    float *nll;                             /* (N) */

    buckets buckets;                        /* what gradients and weights are at */

    layer_weights *layers;                  /* views, one a layer of the stage */
    outer_weights outer;
    model_slot *slots;
    tensor out[2];                          /* (N/tp, H) what goes to the next stage, by micro-batch parity      */
    tensor dout[2];                         /* (N/tp, H) the gradient that comes back, and dx that goes further back */
} moai_model;

/* grid supplies coordinates and sizes (grid_dry makes one for any rank); cfg is copied.  Takes no device memory. */
void model_plan(moai_model *, const model_config *, const moai_grid *, const model_options *);
/* Takes the planned memory; -1 with the arena's name and bytes when the device has not enough.  Not collective. */
int model_alloc(moai_model *, const moai_ops *, moai_device *, const moai_grid *, moai_error *err);
/* Two micro-batches of made-up tokens on this rank alone, with the weights it has; of activations and gradients nothing
 * is left.  Whatever a first call of a shape does that may wait for the whole device is then done: kernels loaded,
 * scratch grown, algorithms of products tried, plans of attention made.  In step 1 another rank could be waiting for
 * what this rank's host has not come to yet (comm_nccl.c).  Not collective. */
void model_rehearse(moai_model *);
void model_free(moai_model *);
/* Initial weights, N(0, initializer_range) by (seed, name, global index), norms 1; into master
 * and weights.  Not collective. */
void model_init_weights(moai_model *, uint64_t seed);

/* What the slot's rows hold and are to predict; the batch is free again at return. */
void model_set_batch(moai_model *, int slot, const token_batch *);

/* Before a step's first micro-batch: gradients that are added to become zero; those that come from a product alone are
 * left for its first micro-batch to write over. */
void gradients_begin(moai_model *);

/* Forward of one micro-batch through the stage.  The first stage reads slot's inputs, another its
 * slots[slot].layers[0].x, which the pipeline has filled.  The result is in `out`.  Collective over tp. */
void stage_forward(moai_model *, int slot, tensor out);
/* Last stage only: final norm, head and loss of x, chunked over tokens so that the full logits never exist; adds the
 * token losses to totals[0].  With scale != 0 also their backward: gradients of norm and head += scale * ..., dx =
 * gradient at x; with scale 0 only the loss, and dx is not touched.  Collective over tp. */
void head_forward_backward(moai_model *, int slot, tensor dx, tensor x, float scale);
int64_t head_rows(const moai_model *);        /* the tokens of a chunk */
/* The gradients of the stage's weights, from dy, which becomes dx.  Collective over tp. */
void stage_backward(moai_model *, int slot, tensor dy);

/* The logits of the last micro-batch's rows [row0, row0 + n) for tests, fp32 on the host, this rank's
 * columns of the vocabulary: x (N/tp, H) is stage_forward's result on the last stage.  Collective over tp. */
void model_logits(moai_model *, tensor x, int64_t row0, int64_t n, float *logits);

/* Bytes by arena. */
size_t model_bytes(const moai_model *, int which);

#endif
