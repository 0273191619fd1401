/* tokenizer_kind.h: what a kind of tokenizer is to tokenizer.c: functions over a model of its own.  See tokenizer.h for
 * what each does; texts are well-formed UTF-8 by then. */
#ifndef MOAI_TOKENIZER_KIND_H
#define MOAI_TOKENIZER_KIND_H

#include "io/text/tokenizer.h"

/* Tokens so far: *ids, which grows, *n of them, room for *capacity. */
typedef struct token_row {
    int32_t **ids;
    int64_t *n, *capacity;
} token_row;

/* Room for so many more. */
static inline void token_row_reserve(token_row r, int64_t more)
{
    if (*r.n + more <= *r.capacity) return;
    *r.capacity = max_i64(*r.n + more, 2 * *r.capacity + 64);
    *r.ids = (int32_t *)realloc(*r.ids, (size_t)*r.capacity * sizeof **r.ids);
    CHECK(*r.ids, "out of host memory: %lld tokens", (long long)*r.capacity);
}

static inline void token_row_add(token_row r, const int32_t *ids, int64_t n)
{
    if (n == 0) return;
    token_row_reserve(r, n);
    memcpy(*r.ids + *r.n, ids, (size_t)n * sizeof *ids);
    *r.n += n;
}

typedef struct tokenizer_facts {
    int64_t vocab_size;
    int32_t eos, pad, unknown;
    bool is_byte_pair, gives_back;            /* tokenizer_is_byte_pair, tokenizer_gives_back */
} tokenizer_facts;

typedef struct tokenizer_kind {
    void *(*open)(const char *path, tokenizer_facts *, moai_error *err);
    void (*free)(void *model);
    int (*encode)(const void *model, const char *text, size_t n_bytes, bool special, token_row, moai_error *err);
    int (*encode_plain)(const void *model, const char *text, size_t n_bytes, token_row, moai_error *err);
    char *(*decode)(const void *model, const int32_t *ids, int64_t n, size_t *n_bytes);
    bool (*find_unknown)(const void *model, const char *text, size_t n_bytes, char *found, size_t room);
    int32_t (*id)(const void *model, const char *piece);
    const char *(*piece)(const void *model, int32_t id, piece_kind *);
    const char *(*bytes)(const void *model, int32_t id, size_t *n_bytes);
    int (*normalize)(const void *model, const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err);
} tokenizer_kind;

extern const tokenizer_kind tokenizer_sentencepiece, tokenizer_byte_level;

#endif
