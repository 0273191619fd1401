/* chat_template.h: conversations as text: Qwen's and plain ChatML.
 *
 * The templates are written here, not interpreted; what they write is what Hugging Face's apply_chat_template makes of
 * the models' own:
 *
 *   qwen3           no system turn unless given; thought of turns behind the last question, tools
 *   qwen3-instruct  the same without thought (Qwen3-*-Instruct-2507)
 *   qwen2.5         "You are Qwen, ..." where no system turn is given; tools
 *   chatml          the turns alone
 *
 * qwen3's text of an answer changes once another question follows.  In training it is written as TRL's training form of
 * the template does: each answer has its thought, if an empty one, and so a turn is what it was when it was written. */
#ifndef MOAI_CHAT_TEMPLATE_H
#define MOAI_CHAT_TEMPLATE_H

#include "io/text/tokenizer.h"
#include "src/chat/conversation.h"

typedef enum { TEMPLATE_AUTO, TEMPLATE_QWEN3, TEMPLATE_QWEN3_INSTRUCT, TEMPLATE_QWEN25, TEMPLATE_CHATML } chat_template;
const char *chat_template_name(chat_template);
#define CHAT_BEGIN_TURN "<|im_start|>"
#define CHAT_END_TURN "<|im_end|>"

/* That of a tokenizer: of chat_template.jinja or tokenizer_config.json beside it, told by its marks and by all text
 * that it may write, which must be this one's; chatml for a SentencePiece model that has its two symbols.  -1 (status
 * 2): none is there, or none of these. */
int chat_template_find(chat_template *, const char *tokenizer_path, const tokenizer *, moai_error *err);

/* A stretch of text: the name of a special token, or text that is text whatever it says. */
typedef struct chat_span {
    size_t begin, n_bytes;
    bool is_special, is_trained;
} chat_span;

typedef struct chat_text {
    char *text;                               /* NUL-terminated */
    size_t n_bytes, room;
    chat_span *spans;
    int n_spans;
    int n_lost_thoughts;                      /* reasoning that the template has no place for */
} chat_text;

typedef struct chat_options {
    bool training;                            /* qwen3: in the training form; else as the model is asked */
    bool asks;                                /* the beginning of an answer behind the last message */
    bool thinks;                              /* qwen3: else that answer begins with an empty thought */
    /* what is trained; of an answer all from its beginning on, its end and the newline behind that */
    bool leaves_newline, last_turn_only, prompts_too;
} chat_options;

/* -1 (status 2): the template has no form for what the conversation has.  Of plain text: prompt and completion. */
int chat_render(chat_text *, chat_template, const conversation *, const chat_options *, moai_error *err);
void chat_text_free(chat_text *);

/* Its tokens, appended to *ids as tokenizer_encode does, and a flag each, in *trained (room for *capacity): a token is
 * trained where a byte of it is.  What stands between special tokens is encoded as one text, as Hugging Face does.
 * `eos` (-1: none) is added to the end, trained.  -1: the tokenizer has no such special token, or does not give a text
 * back. */
int chat_encode(const chat_text *, const tokenizer *, int32_t eos, int32_t **ids, uint8_t **trained, int64_t *n,
                int64_t *capacity, moai_error *err);

#endif
