/* hf.h: Hugging Face directories: config.json, model.safetensors or its shards with
 * model.safetensors.index.json, tokenizer.model or tokenizer.json. */
#ifndef MOAI_HF_H
#define MOAI_HF_H

#include "io/hf/safetensors.h"
#include "io/text/tokenizer.h"
#include "src/config/model_config.h"
#include "src/params/params.h"

#define HF_ADAPTER_PREFIX "base_model.model."          /* of an adapter's tensors in PEFT's files */

typedef struct hf_files hf_files;
/* Opens model.safetensors, or else every file that the directory's index names, and checks the headers.  Without
 * either, says what the directory holds in their place. */
hf_files *hf_open(const char *dir, moai_error *err);
/* adapter_model.safetensors of a PEFT directory. */
hf_files *hf_open_adapter(const char *dir, moai_error *err);
/* NULL when there is no such tensor; *file is where safetensors_read finds it: the file that the index names, where it
 * names one.  `name` is that of params.h; a saved Qwen3Model's lack the "model.", an adapter's have
 * HF_ADAPTER_PREFIX before it. */
const safetensors_entry *hf_find(const hf_files *, const char *name, safetensors **file);
/* Why a tensor of the model cannot be read: another type, another name that is like it, an index that is wrong. */
int hf_refuse(const hf_files *, const char *name, moai_error *err);
/* How many stored tensors are neither the table's nor a head beside a tied embedding; *first is the name of one. */
int hf_unknown(const hf_files *, const param_table *, const char **first);
/* How many the index names that are neither the table's nor in the file that it says; *first is the name of one. */
int hf_lacking(const hf_files *, const param_table *, const char **first);
/* Of all bytes of all files that hold weights. */
int hf_xxh3(const hf_files *, char hex[33], moai_error *err);
void hf_close(hf_files *);
/* What weights a directory has that are not read, and what makes some of them that are: "holds pytorch_model.bin, ...".
 * NULL: none.  Caller frees. */
char *hf_other_weights(const char *dir);

/* Writes what Transformers' Qwen3ForCausalLM.from_pretrained loads (with hyper-connections what AutoModelForCausalLM
 * does with trust_remote_code, hf_streams.h): config.json, generation_config.json, the
 * tokenizer (both made, but where an imported model brought its own: then those as they came), and the weights in one
 * model.safetensors or in shards of at most max_shard_bytes (one tensor at least) with their index.  `dir` is a
 * checkpoint, or again a Hugging Face directory; `torch_dtype` "float32" or "bfloat16".  hf_dir must not exist, or be
 * empty, or with `overwrite` hold an earlier export and nothing else, and not lie in a checkpoint.  It appears whole,
 * by the rename of hf_dir.tmp; one that it replaces is there until then.  hf_dir.lock is held meanwhile.  Holds one
 * block of a tensor in memory, not the model. */
typedef struct hf_export_options {
    const char *dir, *to;
    const char *adapters;                     /* folded into the weights of `dir` (weights_merge); NULL: none */
    bool is_adapter;                          /* `dir` is a checkpoint of adapters, and PEFT's two files are written */
    const char *torch_dtype;
    bool nf4, nested;                         /* the layers' linear maps in 4 bits, as bitsandbytes stores them */
    int64_t max_shard_bytes;
    bool overwrite;
} hf_export_options;
int hf_export(const hf_export_options *, moai_error *err);
/* Part of an export: tokenizer.model itself, and tokenizer.json and tokenizer_config.json, by which AutoTokenizer
 * makes the same tokens of a text (one that holds the name of a special token excepted). */
int hf_write_tokenizer(const char *dir, const char *model_path, const model_config *, moai_error *err);
/* The text of a tokenizer.json, `name` in messages, against a tokenizer: ids of text pieces (no bytes, nothing special)
 * that both have, and those under which they have other pieces.  Without a vocabulary in it n_both is 0. */
typedef struct token_difference {
    int64_t n_both, n_different;
    char first[192];                          /* "300 is "a" there and "b" here" */
} token_difference;
int hf_compare_tokens(token_difference *, const char *name, const char *text, size_t n_bytes, const tokenizer *,
                      moai_error *err);
/* output_dir/checkpoint-0 from a Hugging Face directory (also one made by Transformers, fp32, bf16 or fp16):
 * step 0, zero moments, which take no room on disk.  Seed, sequence length and batch of its metadata are 0:
 * not known.  The files of carried.h go along, and what stays behind is said.  output_dir is locked meanwhile.  One
 * that exists is replaced when it is whole and `overwrite` is given, else refused.  So is an output_dir with later
 * checkpoints, which a resume would take, and one that place.h does not let be written to. */
typedef struct hf_import_options {
    const char *dir, *output_dir;
    const char *base;                         /* dir holds PEFT's adapters of this model, and the checkpoint theirs */
                                              /* alone; NULL: a model */
    int64_t hc_mult;                          /* the model gains so many streams (weights_add_streams); 0: it does not */
    hc_mixing hc_mixing;
    bool overwrite;
} hf_import_options;
int hf_import(const hf_import_options *, moai_error *err);

#endif
