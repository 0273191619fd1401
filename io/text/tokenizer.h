/* tokenizer.h: tokens of a text, by SentencePiece's tokenizer.model or by Hugging Face's tokenizer.json of the
 * byte-level byte-pair kind (bpe_file.h says what of it is read), behind one interface. */
#ifndef MOAI_TOKENIZER_H
#define MOAI_TOKENIZER_H

#include "io/text/text.h"

typedef struct tokenizer tokenizer;

typedef struct tokenizer_train_options {
    int64_t vocab_size;
    double character_coverage;                /* 0.9995 */
    int64_t input_sentence_size;              /* lines sampled for training, 0: all */
    int n_threads;
    uint64_t seed;
    bool overwrite;                           /* a model of this name may go */
    const char *text_key;                     /* the rest as in text_format (text.h) */
    bool replace_invalid;
    text_content content;
    bool skip_bad_lines;
} tokenizer_train_options;

/* BPE with byte fallback, pad id 0, <|endoftext|> (eos), <|im_start|>, <|im_end|>, digits split, no normalization
 * (decode(encode(text)) is text, but for U+2581, which is a space to SentencePiece).  Writes PREFIX.model and
 * PREFIX.vocab, whole or not at all, and locks PREFIX.model.lock meanwhile.  Inputs are files of text.h, looked at
 * first and read once, from the front; what was left out of them is warned about. */
int tokenizer_train(const char *const *inputs, int n_inputs, const char *prefix, const tokenizer_train_options *,
                    moai_error *err);

/* Either file, told by its first byte.  NULL on failure; what another kind of tokenizer.json asks for is refused by
 * name. */
tokenizer *tokenizer_open(const char *path, moai_error *err);
void tokenizer_free(tokenizer *);
bool tokenizer_is_json(const tokenizer *);
int64_t tokenizer_vocab_size(const tokenizer *);                       /* the greatest id + 1 */
int32_t tokenizer_eos(const tokenizer *);
int32_t tokenizer_pad(const tokenizer *);
int32_t tokenizer_unknown(const tokenizer *);                          /* what stands for text that no piece has */
#define UNKNOWN_SHARE 0.001 /* of unknown tokens, above which a text has lost what matters, and is warned about */
/* What the first unknown token of the text stands for, as much as `room` takes; false: there is none.  Slow. */
bool tokenizer_find_unknown(const tokenizer *, const char *text, size_t n_bytes, char *found, size_t room);
int32_t tokenizer_id(const tokenizer *, const char *piece);            /* -1: no such piece */
int32_t tokenizer_special(const tokenizer *, const char *text);        /* the special token of this name; -1: none */
/* Piece id as SentencePiece writes it (a space is U+2581, a byte "<0x0A>"), or of tokenizer.json its bytes; valid as
 * long as the tokenizer. */
typedef enum { PIECE_TEXT, PIECE_BYTE, PIECE_SPECIAL } piece_kind;
const char *tokenizer_piece(const tokenizer *, int32_t id, piece_kind *);
bool tokenizer_is_byte_pair(const tokenizer *); /* BPE with byte fallback that only writes U+2581 for a space */
/* What the id decodes to, "" for a special token; n_bytes of it. */
const char *tokenizer_bytes(const tokenizer *, int32_t id, size_t *n_bytes);
/* Of each text: tokenizer_bytes of its ids, end to end, are what tokenizer_normalize makes of it. */
bool tokenizer_gives_back(const tokenizer *);
/* Malloc'd and NUL-terminated: form C where tokenizer.json asks for it, else the text. */
int tokenizer_normalize(const tokenizer *, const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err);
/* Appends to *ids, growing it with realloc; *n counts, *capacity is its room.  Thread-safe.  The tokens are those that
 * SentencePiece, or Hugging Face's tokenizers, gives the whole text; of a SentencePiece model that is not BPE, or
 * normalizes, at its own rate and memory (some hundred bytes a byte).  Special tokens in text are text: only the
 * program itself puts eos there.  Of tokenizer.json the added tokens that are not special (Qwen3's <think>) are found in
 * it.  Nothing is put around a text (Llama 3's bos). */
int tokenizer_encode(const tokenizer *, const char *text, size_t n_bytes, int32_t **ids, int64_t *n, int64_t *capacity,
                     moai_error *err);
/* The same, but the names of special tokens in the text are these tokens, as for Hugging Face. */
int tokenizer_encode_special(const tokenizer *, const char *text, size_t n_bytes, int32_t **ids, int64_t *n,
                             int64_t *capacity, moai_error *err);
/* tokenizer_encode through SentencePiece alone, the text whole, or with each word merged anew: what tests and the bench
 * compare with. */
int tokenizer_encode_plain(const tokenizer *, const char *text, size_t n_bytes, int32_t **ids, int64_t *n,
                           int64_t *capacity, moai_error *err);
char *tokenizer_decode(const tokenizer *, const int32_t *ids, int64_t n,
                       size_t *n_bytes); /* malloc'd, NUL-terminated */

#endif
