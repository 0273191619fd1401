/* ops.h: the arithmetic of the model on one device.  No entry communicates.  ops.def is the list of operations.
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
#include "src/ops/hc.h"
#include "src/ops/sample.h"

typedef struct moai_device moai_device;       /* the backend's own: stream, scratch, thread count */

typedef enum { COPY_TO_DEVICE, COPY_TO_HOST, COPY_ON_DEVICE } copy_kind;

/* The heads of a rank. */
typedef struct head_shape {
    int64_t n_heads, n_kv_heads, head_dim; /* local to the rank; n_heads % n_kv_heads == 0 */
    float scale;                      /* 1 / sqrt(head_dim) */
} head_shape;

/* The last n_rows queries of a causal sequence of n_keys >= n_rows > 0: query row + i sees the keys from `key` up to
 * key + n_keys - n_rows + i. */
typedef struct attend_segment {
    int64_t row, n_rows;              /* of q */
    int64_t key, n_keys;              /* of k and v; segments may share keys */
} attend_segment;

/* Rows that attend to each other: [row, row + n_rows) are one whole sequence. */
static inline attend_segment attend_whole(int64_t row, int64_t n_rows)
{
    return (attend_segment){row, n_rows, row, n_rows};
}

/* What attend and attend_backward work on (ops.def). */
typedef struct attend_args {
    tensor att;                       /* (N, Q) */
    float *lse;                       /* (N * n_heads) */
    tensor q, k, v;                   /* (N, Q), (M, K), (M, K); M is N unless keys come from elsewhere */
    head_shape heads;
    const attend_segment *segments;   /* host memory, read before the call returns; by ascending rows, none overlap */
    int n_segments;
} attend_args;
bool attend_is_whole(const attend_args *);    /* is every segment a whole sequence, and M = N? */

/* Sequences of one length, one behind another: row = sequence * seq_len + position. */
typedef struct attend_shape {
    int64_t batch, seq_len;
    int64_t n_heads, n_kv_heads, head_dim;
    float scale;
} attend_shape;
static inline attend_shape attend_shape_of(head_shape h, int64_t batch, int64_t seq_len)
{
    return (attend_shape){batch, seq_len, h.n_heads, h.n_kv_heads, h.head_dim, h.scale};
}
/* For backends: the segments from `first` on that are equally long and one behind another, and so are their keys.
 * *run: they, their rows and their keys alone, from segments[first].row and .key on; the rows are *s.  Dies of segments
 * that overlap or lie outside the rows, or whose keys do. */
void attend_run(const attend_args *, int first, attend_args *run, attend_shape *s);
/* The rows [*begin, end) of no segment that lie before segment i, or behind the last for i = n_segments; returns
 * end. */
static inline int64_t attend_gap(const attend_args *a, int i, int64_t *begin)
{
    *begin = i ? a->segments[i - 1].row + a->segments[i - 1].n_rows : 0;
    return i < a->n_segments ? a->segments[i].row : a->att.rows;
}

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

/* A branch's reading of the streams x on its way back (hc.h): dn is the gradient at norm(u), u = sum_i pre_i x_i, or,
 * where w has no data, at u itself.  Of
 *
 *     along[1] = rn^3/H sum_c(w dn u),  du = rn w dn - along[1] u;     without w: 0, dn
 *     along[0] = r^3/(nH) sum_k(scale dh raw),  draw = scale r dh
 *
 * du is made again of the others by whoever needs it, in fp32. */
typedef struct hc_reading {
    tensor dn;                        /* (N, H) */
    tensor x, coef;                   /* (N, nH), (N, 2n + n^2) fp32 */
    tensor w;                         /* (1, H) */
    const float *rn;                  /* (N) of hc_read_norm; not read without w */
    tensor fn;                        /* (n_raw, nH) */
    tensor draw, along;               /* (N, n_raw), (N, 2) fp32: hc_read_backward writes what these hold */
} hc_reading;

/* Rotation angles, computed once by rope_init on the host: cos and sin of (position, frequency), already multiplied by
 * yarn's attention factor.  Pairs are (i, i + head_dim/2), Hugging Face's rotate_half. */
typedef struct rope_table {
    tensor cos, sin;                  /* (n_positions, head_dim/2) fp32 */
} rope_table;

/* rng_below's, of a probability of dropout in [0, 1). */
static inline uint32_t dropout_below(float p) { return (uint32_t)((double)p * 0x1p32); }

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

    void *(*alloc)(moai_device *, size_t n_bytes);                   /* NULL when it does not fit */
    void (*free)(moai_device *, void *);
    /* host memory that copies to the host reach at the link's full speed (pinned), its pages taken at once; NULL when
     * it does not fit */
    void *(*alloc_host)(moai_device *, size_t n_bytes);
    void (*free_host)(moai_device *, void *, size_t n_bytes);
    void (*sync)(moai_device *);
    /* For timelines alone: what follows is of this phase ("forward", of micro-batch `number`; -1: none), up to the
     * next call; name NULL: of none. */
    void (*phase)(moai_device *, const char *name, int number);

#define REQUIRED(op, parameters, ...) void (*op) parameters;
#include "src/ops/ops.def"
} moai_ops;

static inline int ops_support(const moai_ops *ops, const op_needs *needs, moai_error *err)
{
    return ops->supports ? ops->supports(needs, err) : 0;
}

extern const moai_ops ops_cpu;
extern const moai_ops ops_dry; /* computes nothing: memory is planned by running on it; alloc and its like are NULL */

/* n_threads 0: OpenMP's own choice.  `products` names the library behind matmul ("oneDNN
 * 2.6.3", "CBLAS OpenBLAS ..."). */
moai_device *device_open_cpu(int n_threads);
void device_close_cpu(moai_device *);
const char *device_products_cpu(const moai_device *);

#endif
