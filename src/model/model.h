/* model.h: one pipeline stage of the model on one rank: its parameters, its activations,
 * forward and backward of a micro-batch.
 *
 * Life: model_plan lays everything out in arenas without memory (the plan of any rank of any layout, on any machine);
 * model_alloc takes the memory and lays out again, with pointers.  Nothing is allocated afterwards. */
#ifndef MOAI_MODEL_H
#define MOAI_MODEL_H

#include "parallel/axes/buckets.h"
#include "src/model/batch.h"
#include "src/model/block.h"
#include "src/params/opt_state.h"

/* One arena a lifetime; the memory report prints them by name. */
enum { ARENA_WEIGHTS, ARENA_GRADIENTS, ARENA_OPTIMIZER, ARENA_ACTIVATIONS, ARENA_SCRATCH, N_ARENAS };

typedef struct model_options {
    dtype dt;                               /* DT_F32, DT_BF16, DT_F16 */
    recompute_mode recompute;
    int64_t micro_batch, seq_len;           /* samples, tokens of a sample */
    int n_slots;                            /* micro-batches in flight on this stage, see schedule_slots */
    bool train;                             /* false: forward only, no gradients or optimizer state */
    bool feeds_all;                         /* middle stages are fed, too: who sees whom is in the data */
    bool picks;                             /* the head may be given the rows that count alone (batch_pick) */
} model_options;

/* One micro-batch's memory in a chunk. */
typedef struct model_slot {
    device_batch rows;
    void **acts;                            /* one a block */
} model_slot;

/* Blocks that a stage runs one behind the other: the input of the first comes from another stage, unless it is the
 * embedding, and the result of the last goes to one, unless it is the head. */
typedef struct model_chunk {
    model_block *blocks;
    int n_blocks;
    model_slot *slots;                      /* n_slots */
} model_chunk;

typedef struct moai_model {
    moai_ctx ctx;
    model_options opt;
    model_config cfg;
    param_table params, frozen;             /* of what is trained; of the rest, where there are adapters */
    int64_t first_layer, n_layers;

    arena arenas[N_ARENAS];
    void *weights, *frozen_weights;         /* flat (n_elem of its table), dtype of the model */
    uint8_t *codes;                         /* of the frozen in 4 bits: flat (n_nf4 / 2), and their */
    float *absmax;                          /* absmax (n_nf4 / 64) */
    float *grads;                           /* flat (n_elem) fp32, accumulating over a step */
    opt_state states;                       /* this rank's share under ZeRO-1 */
    double *totals;                         /* device: [0] sum of token losses, [1] sum of squared gradients */
    float *grad_scale;                      /* device: what clip says */

    buckets buckets;                        /* what gradients and weights are at */

    model_chunk *chunks;
    int n_chunks;                           /* 1 */
    token_batch batch;                      /* of the host: for those who feed, on its way to a slot */
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
/* Initial weights, N(0, initializer_range) by (seed, name, global index), norms 1, of adapters A by Kaiming's rule and
 * B zero; into master and weights.  Not collective. */
void model_init_weights(moai_model *, uint64_t seed);
/* The same for what is frozen, where no weights are there for it: tests, benchmarks. */
void model_init_frozen(moai_model *, uint64_t seed);

/* What the rows of a chunk's slot hold and are to predict; the batch is free again at return. */
void model_set_batch(moai_model *, int chunk, int slot, const token_batch *);

/* Before a step's first micro-batch: gradients that are added to become zero; those that come from a product alone are
 * left for its first micro-batch to write over. */
void gradients_begin(moai_model *);

bool chunk_embeds(const model_chunk *);     /* its first block is the embedding */
bool chunk_has_head(const model_chunk *);   /* its last one is the head */
/* (N/tp, H) where the stage before leaves a chunk's input.  Not for one that embeds. */
tensor chunk_input(const model_chunk *, int slot);
/* Where a micro-batch's result goes: to the next stage, or, of a chunk with the head, the gradient at its input. */
tensor chunk_output(const moai_model *, int chunk, int micro_batch);
/* One micro-batch through a chunk, from its ids or its input to y (N/tp, H): what the next chunk gets, or, of one with
 * the head, the gradient that chunk_backward begins with; `scale` is the factor of the loss's gradient, 0: there is
 * none, and nothing is written.  Token losses are added to totals[0].  Collective over tp. */
void chunk_forward(moai_model *, int chunk, int slot, tensor y, float scale);
/* The gradients of the chunk's weights, from dy, which becomes dx.  Collective over tp. */
void chunk_backward(moai_model *, int chunk, int slot, tensor dy);

/* The logits of the rows [row0, row0 + n) of the last forward in a slot, for tests, fp32 on the host, this rank's
 * columns of the vocabulary.  On a stage with the head.  Collective over tp. */
void model_logits(moai_model *, int slot, int64_t row0, int64_t n, float *logits);

/* Bytes by arena. */
size_t model_bytes(const moai_model *, int which);

#endif
