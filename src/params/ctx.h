/* ctx.h: what every part of the model's text needs to know: the device, the grid, the shape of a micro-batch. */
#ifndef MOAI_CTX_H
#define MOAI_CTX_H

#include "parallel/comm/grid.h"
#include "src/config/model_config.h"
#include "src/ops/ops.h"

/* Which activations the backward pass computes again: each mode those of the one before, too (layer.h); STREAMS is none
 * with one stream.  AUTO is settled before there is a context (fit.h). */
typedef enum {
    RECOMPUTE_NONE, RECOMPUTE_STREAMS, RECOMPUTE_SELECTIVE, RECOMPUTE_KEEP_ATTENTION, RECOMPUTE_FULL, RECOMPUTE_AUTO
} recompute_mode;

typedef struct moai_ctx {
    const moai_ops *ops;
    moai_device *dev;
    const model_config *cfg;
    const moai_grid *grid;
    dtype dt;                         /* of weights and activations: fp32, bf16 or fp16 */
    recompute_mode recompute;
    int64_t stream_layers;            /* of a group whose streams are merged again from those at its beginning; 0: all
                                         streams are kept */
    head_shape heads;                 /* of this rank */
    hc_shape hc;                      /* n streams between layers: 1, the plain residual */
    int64_t n_tokens;                 /* N: tokens of a micro-batch / CP, rounded up to a multiple of TP with padding
                                         rows */
    int64_t seq_len, n_keys;          /* T; M: rows of K and V that attention reads, N or of CP > 1 micro_batch T */
    int32_t *whole_rows, *gathered_rows;  /* (CP N), (M) of CP > 1: a row of all ranks' among the whole samples', -1:
                                             none, and back (context_parallel.h) */
    int64_t n_rows;                   /* N/tp: this rank's rows where the sequence is split over the tensor axis */
    rope_table rope;
    uint64_t dropout_key;             /* of this step; 0: nothing is dropped */
    int64_t first_row;                /* of the micro-batch at work among the rows of the step */
    bool folds_adapters;              /* inputs of linear maps are kept with room for what adapters make of them */
    arena *scratch;                   /* a stack: what a function takes it gives back */
} moai_ctx;

static inline hc_shape hc_shape_of(const model_config *cfg)
{
    return (hc_shape){.n = (int)max_i64(cfg->hc.mult, 1), .permutes = cfg->hc.mixing == HC_PERMUTATION,
                      .iters = (int)cfg->hc.sinkhorn_iters, .eps = (float)cfg->hc.eps,
                      .norm_eps = (float)cfg->rms_norm_eps};
}
/* The columns of x (N/tp, nH), what is between blocks. */
static inline int64_t ctx_x_cols(const moai_ctx *c) { return c->hc.n * c->cfg->hidden_size; }

static inline int64_t ctx_q_cols(const moai_ctx *c) { return c->heads.n_heads * c->heads.head_dim; }
static inline int64_t ctx_kv_cols(const moai_ctx *c) { return c->heads.n_kv_heads * c->heads.head_dim; }

/* The packed columns of qkv, or of qk. */
static inline tensor q_of(const moai_ctx *c, tensor packed) { return tensor_cols(packed, 0, ctx_q_cols(c)); }
static inline tensor k_of(const moai_ctx *c, tensor packed)
{
    return tensor_cols(packed, ctx_q_cols(c), ctx_kv_cols(c));
}
static inline tensor v_of(const moai_ctx *c, tensor packed)
{
    return tensor_cols(packed, ctx_q_cols(c) + ctx_kv_cols(c), ctx_kv_cols(c));
}

#endif
