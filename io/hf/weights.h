/* weights.h: named weights from a directory, whoever wrote it: a MOAI checkpoint, a Hugging Face directory
 * (config.json and safetensors, sharded or not), or adapters: a checkpoint of a run that trains them, or PEFT's
 * adapter_config.json and adapter_model.safetensors.  One interface for resume, export, import and generation. */
#ifndef MOAI_WEIGHTS_H
#define MOAI_WEIGHTS_H

#include "io/checkpoint/checkpoint.h"

typedef struct weights weights;

/* Opens and checks headers (sizes, ranges, names against config.json); reads no data, but for a head beside a tied
 * embedding, which must be the same.  Says which tensors are left out.  NULL on failure.  Not collective. */
weights *weights_open(const char *dir, moai_error *err);
/* The adapters in a directory, for that base; names are those of params.h's trained part ("....q_proj.lora_A.weight").
 * A checkpoint's base must be of the same shape; of one `base` may be NULL.  NULL on failure. */
weights *weights_open_adapter(const char *dir, const model_config *base, moai_error *err);
/* From now on the weights are read with the adapters of that directory folded in: W + scale B A, and what these train
 * as it is in its place. */
int weights_merge(weights *, const char *adapters, moai_error *err);
/* From now on a plain model is read as one of so many streams with the same function: fn is drawn, N(0,
 * initializer_range), base and scale are zero.  -1 (status 2): it has streams already, or `mult` is not 2 to 8. */
int weights_add_streams(weights *, int64_t mult, hc_mixing, moai_error *err);
/* What the adapters in a directory name as their base, and how its weights hashed ("" when nobody knows); caller frees
 * *base, which may be "". */
int weights_base(const char *dir, char **base, char xxh3[33], moai_error *err);
/* A hash of all weights, of their files' bytes or of what a checkpoint's manifest says of them: another one is another
 * model.  Reads a Hugging Face directory whole. */
int weights_xxh3(const weights *, char xxh3[33], moai_error *err);
bool weights_has_adapters(const weights *);   /* weights_merge has folded some in */
const model_config *weights_config(const weights *);       /* with adapters: of the base, and what they are */
/* What ends a text: eos_token_id of the directory's generation_config.json, or else of config.json. */
const token_list *weights_ends(const weights *);
/* Adds the files of carried.h in the directory. */
int weights_carry(const weights *, checkpoint_files *, moai_error *err);
/* The path of its tokenizer.model, else of a tokenizer.json that is read (tokenizer.h); NULL: none, and why. */
const char *weights_tokenizer(const weights *, moai_error *why);
/* Of the tokenizer that the model was trained with; "" where nobody knows. */
int weights_tokenizer_sha256(const weights *, char hex[65], moai_error *err);
/* The block [row0, row0+n_rows) x [col0, col0+n_cols) of the named tensor (a vector has one row)
 * as fp32, row i at dst + i*stride.  An element that is not finite is an error. */
int weights_read(weights *, const char *name, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, float *dst,
                 int64_t stride, moai_error *err);
/* Where a rank's blocks of a table's parameters go on the device: rounded to `dt`, or in 4 bits. */
typedef struct weights_target {
    const param_table *table;
    void *flat;                               /* (n_elem) */
    dtype dt;
    uint8_t *codes;                           /* (n_nf4 / 2) */
    float *absmax;                            /* (n_nf4 / 64) */
    bool nested;                              /* double quantization; the absmax are what they are after it (nf4.h), */
                                              /* as those of weights stored in 4 bits are already                    */
} weights_target;
int weights_to_device(weights *, const weights_target *, const moai_ops *, moai_device *, moai_error *err);
void weights_free(weights *);

#endif
