/* conversation.h: an example to tune on as people keep them, a JSON object; its shape is told by its keys:
 *
 *   messages           OpenAI, TRL: [{"role", "content", "reasoning_content" (or "reasoning", "thinking"),
 *                      "tool_calls", "weight" 0 or 1, or "train" of an answer}, ...] and "tools"
 *   conversations      ShareGPT: [{"from", "value", and the others}, ...], "system", "tools"
 *   instruction        Alpaca: "input", "output", "system", "history" [[question, answer], ...]
 *   prompt, completion strings, or lists of messages of which the completion's are trained
 *   text               all of it is trained
 *
 * What a value holds beside (names, ids, images under other keys) is not looked at. */
#ifndef MOAI_CONVERSATION_H
#define MOAI_CONVERSATION_H

#include "src/base/base.h"

typedef enum { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL } chat_role;
const char *chat_role_name(chat_role);        /* "system" */

typedef struct tool_call {
    char *name;
    char *json, *arguments;                   /* as Python writes them; and a string without its quotes */
} tool_call;

typedef struct chat_message {
    chat_role role;
    char *content;                            /* "" where it is null or missing beside tool_calls or reasoning */
    char *reasoning;                          /* NULL: none is given apart from the content */
    tool_call *calls;
    int n_calls;
    bool is_trained;                          /* an assistant's, unless the data say otherwise */
} chat_message;

typedef struct conversation {
    chat_message *list;
    int n;
    char **tools;                             /* each as Python writes it */
    int n_tools;
    bool is_text;                             /* no template: prompt and completion as they are */
    char *prompt, *completion;
} conversation;

/* The object in a line of text (JSON; NUL bytes in it are none).  -1 (status 2), without the label that the caller puts
 * before it: no JSON, an unknown shape, role or part, a text that is null, roles out of order, no message.  Free it in
 * either case. */
int conversation_read(conversation *, const char *line, size_t n_bytes, moai_error *err);
/* As messages alone: what a model is to answer.  The last is a user's, or a tool's. */
int conversation_check_prompt(const conversation *, moai_error *err);
/* A message behind the others; the text is copied. */
void conversation_add(conversation *, chat_role, const char *content);
void conversation_free(conversation *);

#endif
