/* ops.h: the arithmetic of the model on one device.  No entry communicates.
 *
 * The CPU table (ops_cpu) is the truth; another device's table is right when the battery in tests/t1-* passes.  Every
 * op is asynchronous on the device's compute stream; `sync` is the only one that waits.  Matrices are row-major
 * views; N counts tokens (rows).  Unless said otherwise all floating tensors of a call share one dtype (fp32,
 * bf16 or fp16), statistics and gradients of weights are fp32, and arithmetic inside an op is fp32.  Weight gradients
 * accumulate (+=; matmul_dw where it is told to), activation gradients overwrite (=).  Outputs may not overlap inputs
 * except where it says "in place".  An op cannot fail: a failing library or device call is a broken rank (die). */
#ifndef MOAI_OPS_H
#define MOAI_OPS_H

#include "src/base/tensor.h"
#include "src/ops/sample.h"

typedef struct moai_device moai_device;       /* the backend's own: stream, scratch, thread count */

typedef enum { COPY_TO_DEVICE, COPY_TO_HOST, COPY_ON_DEVICE } copy_kind;

/* The heads of this rank over a micro-batch.  Rows of a sequence are consecutive: row =
 * sequence * seq_len + position. */
typedef struct attend_shape {
    int64_t batch, seq_len;
    int64_t n_heads, n_kv_heads, head_dim; /* local to the rank; n_heads % n_kv_heads == 0 */
    float scale;                      /* 1 / sqrt(head_dim) */
} attend_shape;

/* cuDNN's deterministic backward keeps the gradients of all scores, 2 bytes each (cudnn_frontend's "dP workspace"):
 * does it do this shape?  Where they would take more than 2 GiB, our own kernels for heads up to 128 wide do it, which
 * keep none. */
static inline size_t attend_score_bytes(attend_shape s)
{
    return 2 * (size_t)(s.batch * s.n_heads * round_up(s.seq_len, 64) * round_up(s.seq_len, 128));
}
static inline bool attend_keeps_scores(attend_shape s)
{
    return s.head_dim > 128 || attend_score_bytes(s) <= (size_t)2 << 30;
}

/* Rotation angles, computed once by rope_init on the host: cos and sin of (position, frequency), already multiplied by
 * yarn's attention factor.  Pairs are (i, i + head_dim/2), Hugging Face's rotate_half. */
typedef struct rope_table {
    tensor cos, sin;                  /* (n_positions, head_dim/2) fp32 */
} rope_table;

typedef struct adamw_args {
    float *master, *m, *v;            /* (n) fp32; updated */
    void *param;                      /* (n) of param_dt, receives the rounded master; may be master itself in fp32 */
    dtype param_dt;
    const float *grad;                /* (n) fp32 */
    int64_t n, n_decay;               /* elements [0, n_decay) are decayed */
    const float *grad_scale;          /* one device float: clip and unscale factor; not finite means: change nothing */
    float lr, beta1, beta2, eps, weight_decay;
    int64_t t;                        /* 1 at the first update */
} adamw_args;

/* What a model asks of the operations. */
typedef struct op_needs {
    dtype dt;                                 /* of weights and activations */
    int64_t hidden, head_dim;
    int64_t sampled;                          /* columns of the logits that tokens are drawn from; 0: none are drawn */
} op_needs;

typedef struct moai_ops {
    const char *name;                 /* "cpu", "cuda" */
    /* -1 with the key that is beyond this backend named (config), 0 where every op of such a model runs; NULL: no
     * limits. Asked before memory is taken, so that nobody learns it in step 1. */
    int (*supports)(const op_needs *, moai_error *err);

    /* memory */
    void *(*alloc)(moai_device *, size_t n_bytes);                   /* NULL when it does not fit */
    void (*free)(moai_device *, void *);
    /* host memory that copies to the host reach at the link's full speed (pinned), its pages taken at once; NULL when
     * it does not fit */
    void *(*alloc_host)(moai_device *, size_t n_bytes);
    void (*free_host)(moai_device *, void *, size_t n_bytes);
    void (*copy)(moai_device *, void *dst, const void *src, size_t n_bytes, copy_kind);
    void (*zero)(moai_device *, void *, size_t n_bytes);
    void (*sync)(moai_device *);
    /* For timelines alone: what follows is of this phase ("forward", of micro-batch `number`; -1: none), up to the
     * next call; name NULL: of none. */
    void (*phase)(moai_device *, const char *name, int number);

    /* elementwise */
    void (*cast)(moai_device *, tensor y, tensor x);                 /* y = x, any two of fp32/bf16/fp16, any strides */
    void (*add)(moai_device *, tensor y, tensor a, tensor b);        /* y = a + b, in place allowed                   */
    void (*fill)(moai_device *, tensor y, float value);
    /* y[i][j] ~ N(0, std): element (row0 + i, col0 + j) of the global matrix with global_cols columns, a pure
     * function of (key, global index), see rng.h */
    void (*fill_normal)(moai_device *, tensor y, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                        float std);

    /* products, W (out, in) as Hugging Face stores it */
    void (*matmul)(moai_device *, tensor y, tensor x, tensor w);     /* y (N, out) = x (N, in) W^T                    */
    void (*matmul_add)(moai_device *, tensor y, tensor x, tensor w, tensor z);  /* y (N, out) = z + x W^T, z not y   */
    void (*matmul_dx)(moai_device *, tensor dx, tensor dy, tensor w);/* dx (N, in) = dy (N, out) W                    */
    /* dw (out, in) fp32 = dy^T x, or += where it accumulates */
    void (*matmul_dw)(moai_device *, tensor dw, tensor dy, tensor x, bool accumulate);

    /* embedding; this rank holds rows [vocab_begin, vocab_begin + table.rows) of the table, other ids give zero rows,
     * as does id -1 (padding).  ids are (N) int32 on the device.  The backward is deterministic. */
    void (*embed)(moai_device *, tensor y, const int32_t *ids, tensor table, int64_t vocab_begin);
    void (*embed_backward)(moai_device *, tensor dtable, const int32_t *ids, tensor dy, int64_t vocab_begin);

    /* RMSNorm (arXiv 1910.07467): n = w * x * r, r = 1/sqrt(mean(x^2) + eps).  w (1, H); r (N) fp32 */
    void (*rmsnorm)(moai_device *, tensor n, float *r, tensor x, tensor w, float eps);
    /* h = x + o; n = rmsnorm(h) */
    void (*residual_rmsnorm)(moai_device *, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps);
    /* dx = dres + d rmsnorm(dn); dw (1, H) += .  dres.data NULL means none; dx may be dres or dn (in place) */
    void (*rmsnorm_backward)(moai_device *, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r,
                             tensor w);

    /* Per-head RMSNorm of q and k, then the rotation.  qkv (N, (Q + 2K)) raw, qk (N, Q + K) result, r
     * (N, n_heads + n_kv_heads) fp32 the reciprocal norms, positions (N) int32 rows of the rope
     * table.  q_norm, k_norm (1, head_dim) */
    void (*qknorm_rope)(moai_device *, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table,
                        const int32_t *positions, attend_shape, float eps);
    /* q and k columns of dqkv = ; dq_norm, dk_norm (1, head_dim) fp32 += */
    void (*qknorm_rope_backward)(moai_device *, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                                 const float *r, tensor q_norm, tensor k_norm, rope_table, const int32_t *positions,
                                 attend_shape);

    /* Causal grouped-query attention by tiles with an online softmax (arXiv 2205.14135, 2307.08691): memory O(N), not
     * O(T^2).  q (N, Q), k and v (N, K), att (N, Q), lse (batch * n_heads * seq_len) fp32: log of the sum of
     * exponentials.  Rows past batch*seq_len (sequence-parallel padding) of att, dq, dk, dv are set to zero. */
    void (*attend)(moai_device *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape);
    void (*attend_backward)(moai_device *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                            tensor att, const float *lse, attend_shape);
    /* Decoding.  Row i of q is position pos[i] of sequence seq[i] and sees rows [0, pos[i]] of that
     * sequence's cache, rows [seq[i]*max_len, ...) of k_cache and v_cache (n_sequences*max_len, K).
     * kv_append puts row i of k and v there first. */
    void (*kv_append)(moai_device *, tensor k_cache, tensor v_cache, tensor k, tensor v, const int32_t *seq,
                      const int32_t *pos, int64_t max_len);
    void (*attend_cached)(moai_device *, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                          const int32_t *pos, int64_t max_len, attend_shape);

    /* SwiGLU: act (N, I) = silu(gate) * up, gate_up (N, 2I) = [gate | up].  dgate_up may be gate_up (in place).  The
     * backward gives act again where act.data is not NULL: whoever keeps gate_up need not keep act */
    void (*swiglu)(moai_device *, tensor act, tensor gate_up);
    void (*swiglu_backward)(moai_device *, tensor dgate_up, tensor act, tensor dact, tensor gate_up);

    /* Cross-entropy over a vocabulary split in n_parts: each part first gives stats (n, 3) fp32 = max, sum of
     * exp(logit - max), the target's logit or -inf when another part holds it; the gathered stats (n_parts, n, 3)
     * then give loss and gradient.  targets (n) int32 global ids, -1 is ignored (loss 0, gradient 0).  nll (n) fp32;
     * logits become dlogits = scale * (softmax - onehot) in place; scale 0 leaves them as they are */
    void (*softmax_stats)(moai_device *, float *stats, tensor logits, const int32_t *targets, int64_t vocab_begin);
    void (*cross_entropy)(moai_device *, float *nll, tensor logits, const float *stats_all, int n_parts,
                          const int32_t *targets, int64_t vocab_begin, float scale);

    /* ids[i] (n) int32 = the token that u[i] (n) draws from row i of logits (n, V) fp32, as in sample.h; -1 where there
     * is none to draw: a NaN among the logits, or a largest that is not finite.  ids and u are on the device.
     * Tokens less probable than 2^-44 of the most probable one may count as impossible. */
    void (*sample)(moai_device *, int32_t *ids, tensor logits, const double *u, sample_options);

    /* reductions into one device double, fixed order */
    void (*sum)(moai_device *, double *acc, const float *x, int64_t n); /* *acc += sum x */
    void (*sum_squares)(moai_device *, double *acc, const float *x, int64_t n);

    /* optimizer.  clip: *grad_scale = unscale * min(1, max_norm / (norm + 1e-6)), norm = unscale * sqrt(*sumsq); NaN
     * when the norm is not finite; max_norm <= 0 does not clip (torch.nn.utils.clip_grad_norm_) */
    void (*clip)(moai_device *, float *grad_scale, const double *sumsq, float max_norm, float unscale);
    void (*adamw)(moai_device *, const adamw_args *); /* arXiv 1711.05101, torch.optim.AdamW */
} moai_ops;

static inline int ops_support(const moai_ops *ops, const op_needs *needs, moai_error *err)
{
    return ops->supports ? ops->supports(needs, err) : 0;
}

extern const moai_ops ops_cpu;
extern const moai_ops ops_dry; /* computes nothing: memory is planned by running on it; some entries are NULL */

/* n_threads 0: OpenMP's own choice.  `products` names the library behind matmul ("oneDNN
 * 2.6.3", "CBLAS OpenBLAS ..."). */
moai_device *device_open_cpu(int n_threads);
void device_close_cpu(moai_device *);
const char *device_products_cpu(const moai_device *);

#endif
