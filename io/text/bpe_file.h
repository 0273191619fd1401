/* bpe_file.h: tokenizer.json of Hugging Face's tokenizers, of the byte-level byte-pair kind (GPT-2, Qwen, Llama 3): its
 * model, how a text is cut before, and the tokens that are found in it as they are. */
#ifndef MOAI_BPE_FILE_H
#define MOAI_BPE_FILE_H

#include "io/text/bpe.h"
#include "io/text/split_pattern.h"

enum { MOST_SPLITS = 8 };

typedef struct bpe_file {
    bpe *model;
    bool is_nfc;                              /* a text is normalized, after the added tokens of `raw` are found */
    bool ignores_merges;                      /* a word that is a token is that token */
    bool adds_space;                          /* in front of a piece that does not begin with one */
    split_pattern *splits[MOST_SPLITS];       /* one after another; what does not match is a piece, too */
    int n_splits;
    int32_t *raw, *normalized;                /* added tokens, found before and after the normalization */
    int n_raw, n_normalized;
    int32_t eos, pad;                         /* -1: none is named */
} bpe_file;

/* What tokens depend on and is not implemented is refused by name (status 2).  What a post-processor would put around a
 * text is left to the caller.  eos and pad are those of tokenizer_config.json beside it, else of
 * generation_config.json and config.json, else <|endoftext|>.  Free it in either case. */
int bpe_file_read(bpe_file *, const char *path, moai_error *err);
void bpe_file_free(bpe_file *);

#endif
