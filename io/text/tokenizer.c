/* tokenizer.c: see tokenizer.h: which kind of tokenizer a file is, and what all kinds have in common. */
#include "io/text/tokenizer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/text/tokenizer_kind.h"
#include "src/base/utf8.h"

struct tokenizer {
    const tokenizer_kind *kind;
    void *model;
    tokenizer_facts facts;
};

/* What is no tokenizer is named before a library says less. */
static const tokenizer_kind *look_at(const char *path, moai_error *err)
{
    char head[64] = "";
    struct stat st;

    if (stat(path, &st) != 0) return error_set(err, "%s: %s", path, strerror(errno)), NULL;
    FILE *f = S_ISREG(st.st_mode) ? fopen(path, "rb") : NULL;
    if (f) head[fread(head, 1, sizeof head - 1, f)] = '\0';
    if (f) fclose(f);
    if (S_ISDIR(st.st_mode))
        error_config(err, "%s: is a directory: the tokenizer.model or tokenizer.json in it is meant?", path);
    else if (S_ISREG(st.st_mode) && st.st_size == 0)
        error_config(err, "%s: is empty: no tokenizer", path);
    else if (strncmp(head, "version https://git-lfs", 23) == 0)
        error_config(err, "%s: is a Git LFS pointer: git lfs pull fetches the file itself", path);
    else
        return head[utf8_mark(head, strlen(head)) + strspn(head, " \t\r\n")] == '{' ? &tokenizer_byte_level
                                                                                    : &tokenizer_sentencepiece;
    return NULL;
}

tokenizer *tokenizer_open(const char *path, moai_error *err)
{
    tokenizer *t = xmalloc(sizeof *t);

    t->kind = look_at(path, err);
    t->model = t->kind ? t->kind->open(path, &t->facts, err) : NULL;
    if (t->model) return t;
    free(t);
    return NULL;
}

void tokenizer_free(tokenizer *t)
{
    if (!t) return;
    t->kind->free(t->model);
    free(t);
}

bool tokenizer_is_json(const tokenizer *t) { return t->kind == &tokenizer_byte_level; }
int64_t tokenizer_vocab_size(const tokenizer *t) { return t->facts.vocab_size; }
int32_t tokenizer_eos(const tokenizer *t) { return t->facts.eos; }
int32_t tokenizer_pad(const tokenizer *t) { return t->facts.pad; }
int32_t tokenizer_unknown(const tokenizer *t) { return t->facts.unknown; }
bool tokenizer_is_byte_pair(const tokenizer *t) { return t->facts.is_byte_pair; }
bool tokenizer_gives_back(const tokenizer *t) { return t->facts.gives_back; }
int32_t tokenizer_id(const tokenizer *t, const char *piece) { return t->kind->id(t->model, piece); }

bool tokenizer_find_unknown(const tokenizer *t, const char *text, size_t n_bytes, char *found, size_t room)
{
    return t->kind->find_unknown && t->kind->find_unknown(t->model, text, n_bytes, found, room);
}

int32_t tokenizer_special(const tokenizer *t, const char *text)
{
    const int32_t id = tokenizer_id(t, text);
    piece_kind kind;

    return id >= 0 && tokenizer_piece(t, id, &kind) && kind == PIECE_SPECIAL ? id : -1;
}

const char *tokenizer_piece(const tokenizer *t, int32_t id, piece_kind *kind)
{
    return t->kind->piece(t->model, id, kind);
}

const char *tokenizer_bytes(const tokenizer *t, int32_t id, size_t *n_bytes)
{
    *n_bytes = 0;
    return id < 0 || id >= t->facts.vocab_size ? "" : t->kind->bytes(t->model, id, n_bytes);
}

static int check_text(const char *text, size_t n_bytes, moai_error *err)
{
    const int64_t bad = utf8_find_invalid(text, n_bytes);

    if (bad < 0) return 0;
    return error_set(err, "byte 0x%02x at %lld of the text is not UTF-8", (unsigned char)text[bad], (long long)bad);
}

int tokenizer_normalize(const tokenizer *t, const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err)
{
    if (check_text(text, n_bytes, err) != 0) return -1;
    if (t->kind->normalize) return t->kind->normalize(t->model, text, n_bytes, to, n_to, err);
    *to = xmalloc(n_bytes + 1);
    memcpy(*to, text, n_bytes);
    *n_to = n_bytes;
    return 0;
}

int tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, int64_t *n, int64_t *capacity,
                     moai_error *err)
{
    if (check_text(text, n_bytes, err) != 0) return -1;
    return t->kind->encode(t->model, text, n_bytes, false, (token_row){ids, n, capacity}, err);
}

int tokenizer_encode_special(const tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, int64_t *n,
                             int64_t *capacity, moai_error *err)
{
    if (check_text(text, n_bytes, err) != 0) return -1;
    return t->kind->encode(t->model, text, n_bytes, true, (token_row){ids, n, capacity}, err);
}

int tokenizer_encode_plain(const tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, int64_t *n,
                           int64_t *capacity, moai_error *err)
{
    return t->kind->encode_plain(t->model, text, n_bytes, (token_row){ids, n, capacity}, err);
}

char *tokenizer_decode(const tokenizer *t, const int32_t *ids, int64_t n, size_t *n_bytes)
{
    return t->kind->decode(t->model, ids, n, n_bytes);
}
