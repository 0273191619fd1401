/* encode_chat.c: see encode_chat.h */
#include "src/corpus/encode_chat.h"

void chat_counts_add(chat_counts *c, const chat_counts *more)
{
    c->n_long += more->n_long;
    c->n_cut += more->n_cut;
    c->n_untrained += more->n_untrained;
    c->n_trained += more->n_trained;
    c->n_lost_thoughts += more->n_lost_thoughts;
}

/* Its tokens, the first of which nothing predicts. */
static int64_t count_trained(const uint8_t *trained, int64_t n)
{
    int64_t sum = 0;

    for (int64_t i = 1; i < n; i++) sum += trained[i];
    return sum;
}

/* Whether the example from token `first` on stays. */
static bool keep(const chat_making *m, const uint8_t *trained, int64_t first, int64_t *n, chat_counts *counts)
{
    const bool is_long = *n - first > m->most_tokens;

    if (is_long && !m->truncates) return counts->n_long++, false;
    if (is_long) *n = first + m->most_tokens;
    const int64_t n_trained = count_trained(trained + first, *n - first);
    if (n_trained == 0) return counts->n_untrained++, false;
    counts->n_cut += is_long;
    counts->n_trained += n_trained;
    return true;
}

int chat_make(const chat_making *m, const tokenizer *tok, const char *line, size_t n_bytes, int32_t **ids,
              uint8_t **trained, int64_t *n, int64_t *capacity, chat_counts *counts, moai_error *err)
{
    const int64_t first = *n;
    conversation c;
    chat_text text = {0};
    int status = conversation_read(&c, line, n_bytes, err);

    if (!status) status = chat_render(&text, m->template, &c, &m->options, err);
    if (!status && c.is_text && tokenizer_eos(tok) < 0)
        status = error_config(err, "a text without messages, and the tokenizer has no token that ends one");
    if (!status) status = chat_encode(&text, tok, c.is_text ? tokenizer_eos(tok) : -1, ids, trained, n, capacity, err);
    const bool kept = !status && keep(m, *trained, first, n, counts);
    if (kept) counts->n_lost_thoughts += text.n_lost_thoughts;
    if (!kept) *n = first;
    chat_text_free(&text);
    conversation_free(&c);
    return status ? -1 : kept;
}
