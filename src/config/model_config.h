/* model_config.h: the model file, a Hugging Face config.json. */
#ifndef MOAI_MODEL_CONFIG_H
#define MOAI_MODEL_CONFIG_H

#include "src/config/lora_config.h"

typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN } rope_kind;

enum { MAX_EOS = 16 };
typedef struct token_list {
    int64_t id[MAX_EOS + 2];                            /* a file's, the tokenizer's, a turn's */
    int n;
} token_list;
bool token_list_has(const token_list *, int64_t id);
struct json_t *token_list_json(const token_list *);      /* null, a number or a list, as config.json has it */

/* How the linear maps of the layers are stored. */
typedef enum { QUANTIZATION_NONE, QUANTIZATION_NF4 } weight_quantization;

/* What mixes the streams of hyper-connections. */
typedef enum { HC_SINKHORN, HC_PERMUTATION } hc_mixing;

/* Qwen3ForCausalLM.  Field names are config.json's. */
typedef struct model_config {
    int64_t num_hidden_layers, hidden_size, intermediate_size;
    int64_t num_attention_heads, num_key_value_heads, head_dim;
    int64_t vocab_size, max_position_embeddings;
    int64_t pad_token_id, bos_token_id;                 /* -1: none */
    token_list eos_token_id;                            /* a text ends at each of them */
    bool tie_word_embeddings;
    double rms_norm_eps, initializer_range, rope_theta;
    struct {
        rope_kind kind;
        double factor, beta_fast, beta_slow;            /* `beta`, `alpha` are read as beta_fast, beta_slow */
        double attention_factor, mscale, mscale_all_dim;/* 0: not given */
        int64_t original_max_position_embeddings;       /* 0: max_position_embeddings */
        bool truncate;                                  /* yarn: round the correction range, default true */
    } rope;
    struct {                                            /* hyper-connections (src/ops/hc.h), of Transformers' names */
        int64_t mult, sinkhorn_iters;                   /* streams, 1: the plain residual; iterations */
        hc_mixing mixing;
        bool head;                                      /* the head reads them by coefficients, else their mean */
        double eps, init_alpha;                         /* init_alpha: what the three scales begin with */
    } hc;
    lora_config lora;                                   /* of no config.json: what the run or the adapter's file says */
    struct {
        bool nf4, nested;                               /* the linear maps of the layers in 4 bits, and frozen; double */
                                                        /* quantization (nf4.h).  Of no config.json either */
        bool stored;                                    /* they are so in the files (quantization_config) */
    } quantization;
} model_config;

/* Reads a config.json as Transformers does (4: `rope_theta` and `rope_scaling`, 5: `rope_parameters`): null is absence,
 * and keys that do not count may hold anything.  Another architecture, a key that would change the model and is not
 * implemented (model_refused.h), two values for one meaning, a missing or wrong value fail with the file, key and
 * value named.  configs/README.md has the keys.  Not collective. */
int model_config_read(model_config *, const char *path, moai_error *err);
/* Warns about rope keys without effect or without their original length. */
void model_config_remark(const model_config *, const char *path);
/* Warns about what some versions of Transformers take for another model, and names them. */
void model_config_remark_export(const model_config *, const char *path);
/* eos_token_id of a generation_config.json, without those that the vocabulary does not hold; none where there is no
 * file. */
int generation_config_read_eos(token_list *, const char *path, int64_t vocab_size, moai_error *err);
/* Writes a config.json that Transformers 4 and 5 both load.  torch_dtype is "float32" or "bfloat16". */
int model_config_write(const model_config *, const char *path, const char *torch_dtype, moai_error *err);
/* true parameter count: 5,167,084,288 for MOAI-3B */
int64_t model_n_params(const model_config *);
int64_t model_hc_rows(const model_config *);             /* of a layer's hyper-connections: rows of fn, of base */
/* model FLOPs per token, forward and backward, at sequence length T: 6 * (products + causal attention), 4 * those of
 * frozen matrices, embedding look-up and recomputation excluded; the two parts separately for the report
 * (configs/README.md, "The model") */
double model_flops_products(const model_config *);
double model_flops_attention(const model_config *, int64_t seq_len);
/* compares every field; on a difference returns -1 naming key and both values */
int model_config_same(const model_config *a, const model_config *b, moai_error *err);

#endif
