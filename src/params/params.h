/* params.h: the one table of the model's parameters: sizes, shard rules, memory, checkpoint
 * names and tests come from it.
 *
 * Each rank keeps its parameters in one flat buffer of buckets (embedding; each layer; final norm and head), and
 * gradients and optimizer state follow the same order.  Inside a bucket the order is
 *     [ held by this rank alone | k, v rows, maybe replicated over grid.kv | replicated over tp: matrices | vectors ]
 * so "which elements count in the norm", "which are decayed" and "which are summed over tp" are ranges, not tests.
 * Rank d of grid.data owns elements [d, d+1) * n_padded/data of every bucket (ZeRO-1, arXiv 1910.02054).
 *
 * Fused matrices are neighbours: q, k, v make wqkv; gate, up make wgate_up; so are the A of their adapters.
 *
 * With adapters (lora_config.h) a rank has two tables with as many buckets: of what is trained, and of what is frozen,
 * which has no gradients and no states. */
#ifndef MOAI_PARAMS_H
#define MOAI_PARAMS_H

#include "parallel/comm/grid.h"
#include "src/base/tensor.h"
#include "src/config/model_config.h"

typedef enum { PARAM_UNIQUE, PARAM_KV, PARAM_TP_REPLICATED } param_sharing;

/* Kaiming: U(-1, 1) / sqrt(cols), of adapters' A, whose B are zeros; base and scale are hyper-connections', zeros and
 * hc_init_alpha */
typedef enum { INIT_NORMAL, INIT_ONES, INIT_ZEROS, INIT_KAIMING, INIT_BASE, INIT_SCALE } param_init;

typedef enum { STORE_DENSE, STORE_NF4 } param_storage;

typedef struct param {
    char name[88];                      /* Hugging Face's: "model.layers.0.self_attn.q_proj.weight" */
    param_init init;
    param_storage storage;
    int ndim;                           /* 1 or 2, as in the file; a vector is one row in memory */
    int64_t rows, cols;                 /* global shape; a vector has rows = 1 */
    int64_t row0, n_rows, col0, n_cols; /* the block that this rank holds */
    int64_t offset;                     /* of the block in the flat buffers of its storage, elements */
    int64_t stride;                     /* of its rows: n_cols, and behind frozen ones room for adapters (linear.h) */
    int bucket;
    param_sharing sharing;
} param;

typedef struct bucket {
    char name[32];                      /* "embedding", "layer 3", "head" */
    int64_t offset;                     /* in the flat buffers, elements */
    int64_t n_unique, n_kv, n_decayed, n;   /* ends of the four ranges, counted from offset */
    int64_t n_padded;                   /* n rounded up so that each rank of grid.data has an equal, aligned share */
    bool tied;                          /* a tied embedding on the first and last of several stages, see grid.embed */
    bool tied_copy;                     /* the last stage's copy of it: neither counted nor saved */
} bucket;

typedef struct param_table {
    param *list;
    int n;
    bucket *buckets;
    int n_buckets;
    int64_t n_elem;                     /* of a flat buffer, padding included */
    int64_t n_nf4;                      /* of the flat codes, two a byte */
    int64_t n_own;                      /* n_elem / ranks of grid.data */
} param_table;

/* The layers of a stage: [stage_begin(cfg, pp, s), stage_begin(cfg, pp, s + 1)).  Uneven splits weigh embedding and
 * head by their FLOPs against a layer's. */
int64_t stage_begin(const model_config *, int pp, int stage, int64_t seq_len);

/* Heads, columns and stages divide?  Returns -1 naming key and values.  Not collective, allocates nothing. */
int params_check(const model_config *, grid_shape, moai_error *err);
/* Without adapters and quantization everything is trained. */
typedef enum { PARAMS_TRAINED, PARAMS_FROZEN } params_part;

/* The rank's table of a part; `at` need not be this process (the plan of another rank is a matter of
 * coordinates).  params_free frees. */
void params_init(param_table *, const model_config *, params_part, grid_shape size, grid_shape at, int64_t seq_len);
/* The trained ones in the table of a single rank, which holds every parameter whole: what a checkpoint consists of. */
void params_whole(param_table *, const model_config *);
void params_free(param_table *);
tensor param_block(const param *, tensor flat);                         /* its rows in a flat buffer, n_cols wide */
bool param_is_adapter(const param *);         /* one half of an adapter */
const param *params_find(const param_table *, const char *name);        /* NULL when this rank does not hold it */

/* The rank's share of bucket b under ZeRO-1: elements [begin, end) of the flat buffer, and where it lies in the
 * own-state buffers (master, moments), whose buckets are n_padded/data long. */
typedef struct own_range {
    int64_t begin, end;                 /* flat */
    int64_t own;                        /* offset in the own-state buffers */
} own_range;
own_range params_own(const param_table *, int b, int data_size, int data_rank);

#endif
