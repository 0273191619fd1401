/* decode.h: the model as a writer: forward only, over a cache of keys and values.
 *
 * The same weights, views and operations as training (params.h, layer.h, ops.h) in another arrangement: a row is
 * one token at one position of one sequence, and a forward takes any rows, so that a chunk of a prompt, one new
 * token of each of several sequences, and a mixture of both are the same call.  Rows are few, so they are not split
 * over the tensor axis: every rank holds all of them, and the partial sums behind wo and wdown are all-reduced.
 *
 * Rotation angles: dynamic NTK adapts its base to one length, which here is the planned one, max(max_len,
 * max_position_embeddings), for the whole of a run.  (Transformers adapts it anew whenever a sequence grows, and
 * leaves the cached keys as they were turned; the two agree up to max_position_embeddings, and for a prompt of
 * max_len read at once.) */
#ifndef MOAI_DECODE_H
#define MOAI_DECODE_H

#include "io/hf/weights.h"
#include "src/model/embedding.h"
#include "src/model/head.h"
#include "src/model/layer.h"

typedef struct decoder_options {
    dtype dt;                     /* DT_F32, DT_BF16, DT_F16: weights, activations and cache */
    int64_t n_sequences, max_len; /* the cache: sequences, positions of each */
    int64_t max_rows, max_wanted; /* of one forward: rows, and rows whose logits are wanted */
} decoder_options;

enum { DECODER_WEIGHTS, DECODER_CACHE, DECODER_SCRATCH, N_DECODER_ARENAS };

/* Keys, normed and rotated, and values of one layer: position p of sequence s is row s*max_len + p. */
typedef struct kv_cache {
    tensor k, v; /* (n_sequences*max_len, K/tp) */
} kv_cache;

/* The rows of a forward, arrays of n: token ids[i] stands at position pos[i] of sequence seq[i].  All earlier
 * positions of the sequence are in the cache or among the rows.  n_wanted rows, wanted[], need logits. */
typedef struct decode_rows {
    int64_t n;
    const int32_t *ids, *seq, *pos;
    int64_t n_wanted;
    const int32_t *wanted;
} decode_rows;

/* How a row's attention runs: a prompt's beginning by tiles, as in training, everything else over the cache. */
typedef struct decode_stretch {
    int64_t row, n;
    bool is_beginning; /* row + i is position i of one sequence */
} decode_stretch;

typedef struct decoder {
    moai_ctx ctx;
    model_config cfg;
    decoder_options opt;
    param_table params, frozen; /* of one stage with all layers: the model's, or the adapters' and the model's */

    arena arenas[N_DECODER_ARENAS];
    void *weights, *frozen_weights; /* flat (n_elem of its table), zero until filled */
    uint8_t *codes;                 /* of the frozen in 4 bits, as in model.h */
    float *absmax;
    layer_weights *layers; /* views, one a layer */
    embedding_weights embedding;
    head_weights head;
    kv_cache *cache; /* one a layer */

    /* the forward under way; u, ids, seq and pos lie in device memory one behind the other, as in `inputs` */
    void *device_inputs, *inputs;
    double *u;                /* (n_wanted) */
    int32_t *ids, *seq, *pos; /* (n) */
    int32_t *drawn;           /* (max_wanted) on the device */
    decode_stretch *stretches;
    int64_t n_stretches;
} decoder;

/* The longest sequence that the model's positions reach: max_position_embeddings, what linear scaling and yarn
 * stretch them to, or any length with dynamic NTK, which adapts to it. */
int64_t decoder_reach(const model_config *);

/* Plans and takes all memory; -1 with the bytes when the device has not enough.  The grid, borrowed, has pp = cp =
 * 1; ranks along dp decode each for itself.  The decoder may not be moved afterwards.  Not collective. */
int decoder_init(decoder *, const model_config *, const decoder_options *, const moai_ops *, moai_device *,
                 const moai_grid *, moai_error *err);
/* This rank's blocks of the weights, whatever they were trained or stored as, and of the adapters', where the model has
 * any (else NULL).  Not collective; the caller agrees. */
int decoder_load(decoder *, weights *, weights *adapters, moai_error *err);
void decoder_free(decoder *);

/* Runs the rows (host arrays) through the model and puts their keys and values into the cache.  logits (n_wanted,
 * vocab_size), fp32 on the host of every rank, are those of the wanted rows; the same bits on all ranks.  Waits for
 * the device.  Collective over tp. */
void decoder_forward(decoder *, decode_rows, float *logits);
/* The same, but draws from the logits where they are: ids[i] < n_vocab is the token that u[i], in [0, 1), draws for
 * the i-th wanted row (ops.h, sample).  Dies of logits that are not numbers. */
void decoder_sample(decoder *, decode_rows, sample_options, int64_t n_vocab, const double *u, int32_t *ids);

#endif
