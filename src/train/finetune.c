/* finetune.c: see finetune.h */
#include "src/train/finetune.h"

#include "src/config/choices.h"
#include "src/params/params.h"

#include <stdio.h>
#include <string.h>

#define KEYS_OF finetune_options
#include "src/config/key_rows.h"


static const key_spec rows[] = {
    PATH(model_name_or_path, "",
         "start from these weights: a Hugging Face directory or a checkpoint, whose config.json is then the model file",
         CONTENT),
    INT(lora_rank, "0", 0, MOST_LORA_RANK,
        "train adapters of this rank beside the frozen weights (LoRA); 0: train the whole model", FIXED),
    REAL(lora_alpha, "0", 0, 1e6, "adapters are added times this over the rank; 0: twice the rank", FIXED),
    BOOL(use_rslora, "false", "times lora_alpha over the root of the rank", FIXED),
    REAL(lora_dropout, "0", 0, 0.999, "share of the adapters' inputs that a step leaves out, other ones in each",
         FIXED),
    TEXT(lora_target_modules, "all-linear",
         "linear maps that have adapters: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj, or all-linear",
         FIXED),
    TEXT(modules_to_save, "", "trained as they are, beside the adapters: embed_tokens, lm_head", FIXED),
    CHOICE(quantization, "none", weight_quantizations,
           "of the frozen linear maps: none, or nf4, 4 bits an element (QLoRA)", FIXED),
    BOOL(double_quantization, "true", "nf4: the scales of the blocks in 8 bits", FIXED),
};
const key_table finetune_keys = KEY_TABLE(rows);

/* A key that says something of adapters, where there are none; NULL: none. */
static const char *given_alone(const finetune_options *o)
{
    if (o->lora_alpha != 0) return "lora_alpha";
    if (o->use_rslora) return "use_rslora";
    if (o->lora_dropout != 0) return "lora_dropout";
    if (*o->modules_to_save) return "modules_to_save";
    return strcmp(o->lora_target_modules, "all-linear") ? "lora_target_modules" : NULL;
}

int finetune_settle(model_config *model, const finetune_options *o, moai_error *err)
{
    lora_config *l = &model->lora;
    moai_error why;

    model->quantization.nf4 = o->quantization == QUANTIZATION_NF4;
    model->quantization.nested = model->quantization.nf4 && o->double_quantization;
    *l = (lora_config){.rank = o->lora_rank, .use_rslora = o->use_rslora, .dropout = o->lora_dropout,
                       .alpha = o->lora_alpha != 0 ? o->lora_alpha : 2 * (double)o->lora_rank};
    if (!l->rank && model->quantization.nf4)
        return error_set(err, "quantization is nf4, and lora_rank is 0: what is quantized cannot be trained");
    if (!l->rank) {
        const char *alone = given_alone(o);
        *l = (lora_config){0};
        return alone ? error_set(err, "%s is given, and lora_rank is 0: there are no adapters", alone) : 0;
    }
    if (lora_targets_read(&l->targets, o->lora_target_modules, &why))
        return error_set(err, "lora_target_modules: %s", why.text);
    if (lora_saved_read(l, o->modules_to_save, &why)) return error_set(err, "modules_to_save: %s", why.text);
    if (l->trains_head && model->tie_word_embeddings)
        return error_set(err, "modules_to_save: lm_head is the embedding in this model (tie_word_embeddings): name "
                         "embed_tokens");
    return 0;
}

static int64_t count(const model_config *model, params_part part)
{
    param_table t;
    int64_t n = 0;

    params_init(&t, model, part, (grid_shape){1, 1, 1, 1}, (grid_shape){0, 0, 0, 0}, 1);
    for (int i = 0; i < t.n; i++) n += t.list[i].rows * t.list[i].cols;
    params_free(&t);
    return n;
}

void finetune_describe(char *text, const model_config *model)
{
    const int64_t trained = count(model, PARAMS_TRAINED), all = trained + count(model, PARAMS_FROZEN);
    char a[32], b[32];

    snprintf(text, 160, "trainable params: %s || all params: %s || trainable%%: %.4f", with_commas(a, trained),
             with_commas(b, all), 100 * (double)trained / (double)all);
}
