/* generate.h: many sequences written by one decoder.  Each step runs, in one forward, the next token of every
 * sequence under way and as much of the waiting prompts as there are rows left; a finished sequence's place in the
 * cache goes to the next one. */
#ifndef MOAI_GENERATE_H
#define MOAI_GENERATE_H

#include "src/serve/decode.h"

/* One sequence; its number, which selects its random numbers, is its place in the list. */
typedef struct sequence {
    int32_t *ids;        /* room for n_prompt + max_new_tokens; the prompt is filled in, owned by the caller */
    int64_t n_prompt, n; /* tokens of the prompt, tokens in all */
    int64_t n_cached;    /* tokens that have been through the model */
    bool stopped;        /* ended with a stop token (its last), not for want of room */
} sequence;

typedef struct generate_options {
    sample_options sample;
    uint64_t seed;
    int64_t max_new_tokens; /* >= 1, of each sequence */
    int64_t n_vocab;        /* tokens that may be drawn: ids below it */
    token_list stop;        /* each of them ends a sequence */
} generate_options;

/* Tokens that went through the model: read, those of prompts; written, those that it wrote and went on from.  A
 * step that holds both shares its time by their number. */
typedef struct generate_rates {
    int64_t read_tokens, written_tokens;
    double read_seconds, written_seconds;
} generate_rates;

/* Called for each new token, after it has been appended. */
typedef void (*generate_sink)(void *arg, const sequence *list, int64_t i, bool finished);

/* Writes all sequences of the list (n_prompt >= 1 and n_prompt + max_new_tokens <= max_len of the decoder; n =
 * n_prompt, n_cached = 0 at the start).  Sequence i draws token number t with rng_uniform((seed, "sequence i"), t),
 * so that, rounding apart, its text depends neither on its neighbours nor on the number of ranks.  Every rank draws
 * from the same logits and has the same result.  Collective over tp. */
void generate(decoder *, sequence *list, int64_t n, const generate_options *, generate_sink, void *arg,
              generate_rates *);

#endif
