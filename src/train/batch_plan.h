/* batch_plan.h: the samples of a step, settled from the keys and the layout. */
#ifndef MOAI_BATCH_PLAN_H
#define MOAI_BATCH_PLAN_H

#include "src/config/keys.h"

/* What is trained on: all tokens of a running text, or examples, of which the marked tokens count (shard.h). */
typedef enum { MODE_PRETRAIN, MODE_SFT } batch_mode;

/* In samples of seq_length tokens. */
typedef struct batch_options {
    int64_t per_device_train_batch_size, gradient_accumulation_steps;
    int64_t global_batch_size;                /* 0: per_device * accumulation * dp; else fixes accumulation */
    batch_mode mode;
    bool packing;                             /* MODE_SFT: several examples in a sample */
    bool document_mask, reset_positions;      /* each document of a sample by itself; its positions from 0 on */
} batch_options;
extern const key_table batch_keys;

/* Who sees whom is in the data. */
static inline bool batch_is_divided(const batch_options *o) { return o->document_mask || o->mode == MODE_SFT; }

typedef struct batch_plan {
    int64_t micro_batch, accumulation, global;/* samples, micro-batches of a step, samples of a step */
} batch_plan;

/* Fills the batch; -1 when global_batch_size is not a multiple of micro_batch * dp.  Not collective. */
int batch_settle(batch_plan *, const batch_options *, int dp, moai_error *err);

#endif
