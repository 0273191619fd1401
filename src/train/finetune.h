/* finetune.h: what a run starts from, and what of it is trained: the weights of a model that is there, all of them or
 * adapters beside them. */
#ifndef MOAI_FINETUNE_H
#define MOAI_FINETUNE_H

#include "src/config/keys.h"
#include "src/config/model_config.h"

typedef struct finetune_options {
    char *model_name_or_path;                 /* a Hugging Face directory or a checkpoint; "": initial weights */
    int64_t lora_rank;                        /* 0: the whole model is trained */
    double lora_alpha;                        /* 0: twice the rank */
    bool use_rslora;
    double lora_dropout;
    char *lora_target_modules, *modules_to_save;
    weight_quantization quantization;
    bool double_quantization;
} finetune_options;
extern const key_table finetune_keys;

/* Into model->lora.  -1 naming the key.  Not collective. */
int finetune_settle(model_config *model, const finetune_options *, moai_error *err);
/* "trainable params: 29,474,816 || all params: 5,196,559,104 || trainable%: 0.5672", as PEFT has it; room for 160. */
void finetune_describe(char *text, const model_config *);

#endif
