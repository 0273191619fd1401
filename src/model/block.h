/* block.h: what the model is a list of: the embedding, decoder layers, the head.  A kind of block is a table of
 * functions over its own two structs, one of weights and one of what a micro-batch leaves for the backward, and model.c
 * runs lists of blocks without knowing which they are.
 *
 * N tokens of a micro-batch, H hidden; between blocks a rank holds x (N/tp, nH), its rows of the sequence
 * in each of n streams, or what it is to be merged of (stream.h). */
#ifndef MOAI_BLOCK_H
#define MOAI_BLOCK_H

#include "src/model/stream.h"

/* A micro-batch as all blocks of the rank see it (batch.h): on the device but for the segments. */
typedef struct device_batch {
    int32_t *inputs, *targets;                /* (N) */
    float *weights;                           /* (N) where is_weighted */
    bool is_weighted;
    int32_t *positions;                       /* (N) */
    attend_segment *segments;
    int n_segments;
    int32_t *picked, *places, *host_picked;   /* (N) of batch_pick; where there is a head, and the model picks */
    int64_t n_picked;
    int64_t first_row;                        /* among the rows of the step, those of all micro-batches and ranks */
    double *loss_sum;                         /* gains the losses of the counted targets */
    float scale;                              /* of the loss's gradient; 0: no backward follows */
} device_batch;

typedef struct block_kind {
    const char *name;
    size_t weights_bytes, acts_bytes;         /* of the structs */
    /* `layer` counts from the model's first; of no meaning to a block that is no layer */
    void (*view)(void *weights, const flat_params *, int64_t layer);
    /* Lays out what every micro-batch keeps for itself in `saved`, and in `shared` what all layers and micro-batches
     * may meet in: the caller plans it again for each.  before: of the block before, laid out already; NULL where there
     * is none or it is of another kind. */
    void (*plan)(void *acts, const moai_ctx *, arena *saved, arena *shared, void *before);
    /* A step begins: gradients that the first product writes over are as they were, others are zero.  Norms' the caller
     * has zeroed. */
    void (*begin)(const moai_ctx *, void *weights);
    tensor (*input)(const void *acts);        /* x (N/tp, nH), where the block before leaves it; NULL: it reads ids */
    /* From the input to y (N/tp, nH), the input of the next block; y of the head is the gradient at its input.  *owed:
     * what the block before owes the input, and then what this one owes y.  Collective over tp, as is backward. */
    void (*forward)(const moai_ctx *, const device_batch *, void *weights, void *acts, tensor y, stream_owed *owed);
    /* d: the gradient at y, whose gather the caller has begun, becomes that at the input, whose gather is then under
     * way if `gather`; the weights' gradients gain this micro-batch's.  What is due of d needs the weights of the block
     * that left it.  NULL: the forward has done it. */
    void (*backward)(const moai_ctx *, const device_batch *, void *weights, void *acts, stream_gradient *d,
                     bool gather);
} block_kind;

typedef struct model_block {
    const block_kind *kind;
    int64_t layer;
    int bucket, n_buckets;                    /* its parameters, see params.h */
    void *weights;
} model_block;

#endif
