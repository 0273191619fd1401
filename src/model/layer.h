/* layer.h: one decoder layer of Qwen3 (pre-norm, grouped-query attention with QK-norm and RoPE,
 * SwiGLU), forward and backward.
 *
 *     h = x + Wo attend(rope(qknorm(Wqkv norm(x))))
 *     y = h + Wdown swiglu(Wgate_up norm(h))
 *
 * N tokens of the micro-batch, H hidden, Q = n_heads*head_dim, K = n_kv_heads*head_dim, I intermediate; "/tp" marks a
 * dimension split over the tensor axis.  Every function here is collective over grid.tp, and those that attend over
 * grid.cp. */
#ifndef MOAI_LAYER_H
#define MOAI_LAYER_H

#include "src/model/block.h"

/* The layer's weights and their gradients: views of the flat buffers. */
typedef struct layer_weights {
    stream_weights before_attention, before_mlp;
    linear qkv;                               /* ((Q+2K)/tp, H)    rows of q, k, v heads  */
    norm_weight q_norm, k_norm;               /* (1, head_dim)                            */
    linear o;                                 /* (H, Q/tp)                                */
    linear gate_up;                           /* (2I/tp, H)        rows of gate, up       */
    linear down;                              /* (H, I/tp)                                */
} layer_weights;

layer_weights layer_view(const flat_params *, int64_t layer);

/* What a forward leaves for the backward.  By recompute mode the marked ones are shared by all layers of the stage
 * and computed again: s from selective on, f from keep_attention on, a in full.  The same is done with x and h of n > 1
 * streams in every mode but none, by groups of c->stream_layers layers: of a group its first x is kept, and the others
 * lie in memory that all groups share, where the backward of the group's last layer merges them again. */
typedef struct layer_acts {
    tensor x;                                 /* (N/tp, nH)        input: n streams, see stream.h   */
    tensor n1;                                /* (N/tp, H)       s                                  */
    float *r1;                                /* (N/tp)          s of one stream; reciprocal norms  */
    tensor qkv;                               /* (N, (Q+2K)/tp)  f                                  */
    tensor qk;                                /* (N, (Q+K)/tp)   s normed and rotated               */
    float *rqk;                               /* (N, heads)      s                                  */
    tensor att;                               /* (N, Q/tp)       a                                  */
    float *lse;                               /* (N, n_heads)    a                                  */
    tensor h;                                 /* (N/tp, nH)      f of one stream; after attention's */
    tensor n2;                                /* (N/tp, H)       s                                  */
    float *r2;                                /* (N/tp)          s of one stream                    */
    tensor gate_up;                           /* (N, 2I/tp)      f                                  */
    tensor act;                               /* (N, I/tp)       s                                  */
    linear_acts for_qkv, for_o, for_gate_up, for_down; /*        f of the adapters                  */
    stream_acts attention, mlp;
    int64_t place;                            /* in its group, from 0; all are 0 where there are none */
    struct layer_acts *before;                /* in its group; NULL: this is the first */
    bool ends_group;
} layer_acts;

/* Lays out the kept tensors in `saved` and the recomputed ones in `shared`.  before: the layer before's; NULL: none. */
void layer_acts_plan(layer_acts *, const moai_ctx *, arena *saved, arena *shared, layer_acts *before);

/* x is a->x; y (N/tp, nH) must not be a->x where a backward follows.  *owed as block.h has it. */
void layer_forward(const moai_ctx *, const device_batch *, const layer_weights *, layer_acts *a, tensor y,
                   stream_owed *owed);
/* Its halves, for those who attend to more than the rows at hand: from x to the heads' q, k (a->qk) and v (in a->qkv),
 * and from their a->att to y, or what y is owed. */
void layer_to_heads(const moai_ctx *, const device_batch *, const layer_weights *, layer_acts *a, stream_owed owed);
stream_owed layer_from_heads(const moai_ctx *, const layer_weights *, layer_acts *a, tensor y);
/* As block.h has it.  Recomputes what the mode did not keep; the activations are spent afterwards, but for what is due
 * of d. */
void layer_backward(const moai_ctx *, const device_batch *, layer_weights *, layer_acts *a, stream_gradient *d,
                    bool gather);

extern const block_kind layer_block;          /* of layer_weights and layer_acts */

#endif
