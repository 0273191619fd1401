/* chat_encode.c: tokens of a rendered conversation and their flags; see chat_template.h */
#include "src/chat/chat_template.h"

#include <stdlib.h>
#include <string.h>

typedef struct tokens {
    const tokenizer *tokenizer;
    int32_t **ids;
    uint8_t **trained;
    int64_t *n, *capacity;
} tokens;

/* Room in both for what the ids have. */
static void match_room(tokens *t, int64_t wanted)
{
    if (wanted > *t->capacity) {
        *t->capacity = 2 * wanted + 64;
        CHECK(*t->ids = realloc(*t->ids, (size_t)*t->capacity * sizeof **t->ids), "out of host memory");
    }
    CHECK(*t->trained = realloc(*t->trained, (size_t)*t->capacity), "out of host memory");
}

static void add_token(tokens *t, int32_t id, bool is_trained)
{
    match_room(t, *t->n + 1);
    (*t->ids)[*t->n] = id;
    (*t->trained)[(*t->n)++] = is_trained;
}

/* A text in its normal form, with where its trained parts are: [ends[i-1], ends[i]) is trained[i]. */
typedef struct stretch {
    char *text;
    size_t n_bytes, *ends;
    const chat_span *spans;
    int n_spans;
} stretch;

/* Spans meet where nothing is composed, at newlines and ends of text: each can be normalized by itself. */
static int normalize(stretch *s, const char *text, const tokenizer *t, moai_error *err)
{
    char *part;
    size_t n;

    s->ends = xmalloc((size_t)s->n_spans * sizeof *s->ends);
    for (int i = 0; i < s->n_spans; i++) {
        if (tokenizer_normalize(t, text + s->spans[i].begin, s->spans[i].n_bytes, &part, &n, err)) return -1;
        CHECK(s->text = realloc(s->text, s->n_bytes + n + 1), "out of host memory");
        memcpy(s->text + s->n_bytes, part, n);
        s->ends[i] = s->n_bytes += n;
        free(part);
    }
    return 0;
}

/* Flags of the ids from `first` on: those of the bytes that they stand for. */
static int mark(tokens *t, const stretch *s, int64_t first, moai_error *err)
{
    size_t at = 0;
    int span = 0;

    match_room(t, *t->n);
    for (int64_t k = first; k < *t->n; k++) {
        size_t n;
        uint8_t flag = 0;
        tokenizer_bytes(t->tokenizer, (*t->ids)[k], &n);
        for (int i = span; i < s->n_spans && (i == 0 || s->ends[i - 1] < at + n); i++) flag |= s->spans[i].is_trained;
        at += n;
        while (span < s->n_spans && s->ends[span] <= at) span++;
        (*t->trained)[k] = flag;
    }
    return at == s->n_bytes ? 0 : error_set(err, "the tokens of a text of %zu bytes stand for %zu", s->n_bytes, at);
}

static int add_text(tokens *t, const char *text, const chat_span *spans, int n_spans, moai_error *err)
{
    stretch s = {.spans = spans, .n_spans = n_spans};
    const int64_t first = *t->n;
    int status = normalize(&s, text, t->tokenizer, err);

    if (!status) status = tokenizer_encode(t->tokenizer, s.text, s.n_bytes, t->ids, t->n, t->capacity, err);
    if (!status) status = mark(t, &s, first, err);
    free(s.text);
    free(s.ends);
    return status;
}

static int add_special(tokens *t, const char *name, size_t n, bool is_trained, moai_error *err)
{
    char *text = xasprintf("%.*s", (int)n, name);
    const int32_t id = tokenizer_special(t->tokenizer, text);
    const int status = id >= 0 ? 0 : error_config(err, "the tokenizer has no special token %s", text);

    free(text);
    if (!status) add_token(t, id, is_trained);
    return status;
}

int chat_encode(const chat_text *c, const tokenizer *tok, int32_t eos, int32_t **ids, uint8_t **trained, int64_t *n,
                int64_t *capacity, moai_error *err)
{
    tokens t = {tok, ids, trained, n, capacity};

    if (!tokenizer_gives_back(tok))
        return error_config(err, "the tokenizer's tokens do not give a text back: which of them are trained cannot be "
                                 "told");
    for (int i = 0, k; i < c->n_spans; i = k) {
        const chat_span *s = &c->spans[i];
        for (k = i + 1; !s->is_special && k < c->n_spans && !c->spans[k].is_special;) k++;
        if (s->is_special ? add_special(&t, c->text + s->begin, s->n_bytes, s->is_trained, err)
                          : add_text(&t, c->text, s, k - i, err))
            return -1;
    }
    if (eos >= 0) add_token(&t, eos, true);
    return 0;
}
