/* talk.h: a conversation with a model: what it is asked is written by a template of src/chat. */
#ifndef MOAI_TALK_H
#define MOAI_TALK_H

#include "parallel/comm/comm.h"
#include "src/chat/chat_template.h"
#include "src/serve/generate.h"

typedef struct talk_options {
    chat_template template;
    bool thinks;                              /* qwen3: else an answer begins with an empty thought */
    const char *system;                       /* "" : none */
    generate_options generate;
} talk_options;

/* The tokens that ask for the next answer, appended; -1 (status 2): there is nothing to answer, or no form for it. */
int talk_ask(const conversation *, const talk_options *, const tokenizer *, int32_t **ids, int64_t *n,
             int64_t *capacity, moai_error *err);
/* The token that ends a turn, or -1. */
int32_t talk_end(const tokenizer *);
/* The conversations of a file's text: one JSON object or list of messages, or a line of JSON each; calls `use` with
 * each and its name ("FILE:3").  -1 of the first that fails. */
int talk_each(const char *name, const char *text, size_t n_bytes,
              int (*use)(void *arg, const char *name, const conversation *, moai_error *), void *arg, moai_error *err);

/* Lines of standard input are what the user says, "/new" begins anew, "/exit" or its end ends; answers go to standard
 * output as they come.  Rank 0 reads for all; `max_len` tokens of the decoder are for the whole conversation.
 * Collective over the world. */
int talk_on(decoder *, const tokenizer *, const talk_options *, int64_t max_len, const comm *world, moai_error *err);

#endif
