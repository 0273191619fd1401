/* lora_config.h: low-rank adapters (LoRA, arXiv 2106.09685) beside the linear maps of the layers:
 * y = W x + scale B A x, A (rank, in), B (out, rank), while W is frozen. */
#ifndef MOAI_LORA_CONFIG_H
#define MOAI_LORA_CONFIG_H

#include "src/base/base.h"

typedef enum { LORA_Q, LORA_K, LORA_V, LORA_O, LORA_GATE, LORA_UP, LORA_DOWN, N_LORA_MAPS } lora_map;
enum {
    LORA_QKV = 1 << LORA_Q | 1 << LORA_K | 1 << LORA_V,
    LORA_GATE_UP = 1 << LORA_GATE | 1 << LORA_UP,
    LORA_ALL = (1 << N_LORA_MAPS) - 1,
    MOST_LORA_RANK = 4096
};

typedef struct lora_config {
    int64_t rank;                             /* 0: no adapters, the whole model is trained */
    double alpha;
    bool use_rslora;                          /* arXiv 2312.03732 */
    double dropout;                           /* of the adapters' input while they are trained */
    unsigned targets;                         /* the maps that have one: bits 1 << lora_map */
    bool trains_embedding, trains_head;       /* as they are, beside the adapters (PEFT's modules_to_save) */
} lora_config;

/* alpha / rank, or alpha / sqrt(rank) */
double lora_scale(const lora_config *);
/* How many of `maps` have an adapter. */
int lora_count(const lora_config *, unsigned maps);
/* Columns behind a matrix for what their adapters add to it, a multiple of 64: rows that begin within a cache line cost
 * Hopper's products 1 %. */
int64_t lora_room(const lora_config *, unsigned maps);
/* A list "embed_tokens,lm_head" of what is trained as it is; "" names none.  -1 naming what is neither. */
int lora_saved_read(lora_config *, const char *list, moai_error *err);
/* A list "q_proj,v_proj" or "all-linear" into bits; -1 naming what is none of them, and the nearest that is. */
int lora_targets_read(unsigned *targets, const char *list, moai_error *err);
const char *lora_map_name(lora_map);          /* "q_proj" */

/* PEFT's adapter_config.json.  *base, NULL or the caller's to free, is what it names as the base model.  What is not
 * implemented is refused by its key (DoRA, ranks that differ, biases, layers left out, targets by a pattern, starts
 * that change the base); keys that only matter to training are passed over. */
int adapter_config_read(lora_config *, char **base, const char *path, moai_error *err);
int adapter_config_write(const lora_config *, const char *base, const char *path, moai_error *err);
/* -1 naming the key in which they differ. */
int lora_config_same(const lora_config *a, const lora_config *b, moai_error *err);

#endif
