/* layer.h: one decoder layer of Qwen3 (pre-norm, grouped-query attention with QK-norm and RoPE,
 * SwiGLU), forward and backward.
 *
 *     h = x + Wo attend(rope(qknorm(Wqkv norm(x))))
 *     y = h + Wdown swiglu(Wgate_up norm(h))
 *
 * N tokens of the micro-batch, H hidden, Q = n_heads*head_dim, K = n_kv_heads*head_dim, I intermediate; "/tp" marks a
 * dimension split over the tensor axis.  Every function here is collective over grid.tp. */
#ifndef MOAI_LAYER_H
#define MOAI_LAYER_H

#include "parallel/axes/tensor_parallel.h"
#include "src/params/params.h"

/* Views of the flat buffers, borrowed.  The same struct holds weights (dtype of the model) and
 * their gradients (fp32). */
typedef struct layer_weights {
    tensor norm1, norm2;                      /* (1, H)                                   */
    tensor wqkv;                              /* ((Q+2K)/tp, H)    rows of q, k, v heads  */
    tensor q_norm, k_norm;                    /* (1, head_dim)                            */
    tensor wo;                                /* (H, Q/tp)                                */
    tensor wgate_up;                          /* (2I/tp, H)        rows of gate, up       */
    tensor wdown;                             /* (H, I/tp)                                */
} layer_weights;

layer_weights layer_view(const param_table *, int64_t layer, void *flat, dtype);

/* What a forward leaves for the backward.  By recompute mode the marked ones are shared by all layers of the stage
 * and computed again: s in selective and full, f in full. */
typedef struct layer_acts {
    tensor x;                                 /* (N/tp, H)         input                            */
    tensor n1;                                /* (N/tp, H)       s                                  */
    float *r1;                                /* (N/tp)          s reciprocal norms                 */
    tensor qkv;                               /* (N, (Q+2K)/tp)  f                                  */
    tensor qk;                                /* (N, (Q+K)/tp)   s normed and rotated               */
    float *rqk;                               /* (N, heads)      s                                  */
    tensor att;                               /* (N, Q/tp)       f                                  */
    float *lse;                               /* (N, n_heads)    f                                  */
    tensor h;                                 /* (N/tp, H)       f after attention's residual       */
    tensor n2;                                /* (N/tp, H)       s                                  */
    float *r2;                                /* (N/tp)          s                                  */
    tensor gate_up;                           /* (N, 2I/tp)      f                                  */
    tensor act;                               /* (N, I/tp)       s                                  */
} layer_acts;

/* Lays out the kept tensors in `saved` and the recomputed ones in `shared` (the caller releases and plans `shared`
 * again for each layer, so that all layers meet in the same memory). */
void layer_acts_plan(layer_acts *, const moai_ctx *, arena *saved, arena *shared);

/* x is a->x; y (N/tp, H) must not be a->x. */
void layer_forward(const moai_ctx *, const layer_weights *w, layer_acts *a, tensor y);
/* d: the gradient at y, whose gather the caller has begun, becomes that at x, whose gather is then under way if
 * `gather`; g's tensors += (matrices = where the context does not accumulate).  Recomputes what the mode did not keep;
 * the activations are spent afterwards. */
void layer_backward(const moai_ctx *, const layer_weights *w, const layer_weights *g, layer_acts *a, tp_rows *d,
                    bool gather);

#endif
