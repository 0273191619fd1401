/* encode_chat.h: examples to tune on (chat/conversation.h) as documents of marked shards. */
#ifndef MOAI_ENCODE_CHAT_H
#define MOAI_ENCODE_CHAT_H

#include "src/chat/chat_template.h"

typedef struct chat_making {
    chat_template template;                   /* TEMPLATE_AUTO: the tokenizer's */
    chat_options options;
    int64_t most_tokens;                      /* of an example */
    bool truncates;                           /* a longer one is cut at its end; else it is left out */
} chat_making;

/* What became of examples. */
typedef struct chat_counts {
    int64_t n_long, n_cut, n_untrained;       /* left out, cut, left out since nothing of them is trained */
    int64_t n_trained, n_lost_thoughts;       /* tokens; reasoning that the template has no place for */
} chat_counts;

void chat_counts_add(chat_counts *, const chat_counts *more);

/* The tokens of the example in a line of JSON, appended, and a flag each (chat_encode).  1; 0: it is left out, and
 * counted; -1: it is none, and why, without its place. */
int chat_make(const chat_making *, const tokenizer *, const char *line, size_t n_bytes, int32_t **ids,
              uint8_t **trained, int64_t *n, int64_t *capacity, chat_counts *, moai_error *err);

#endif
