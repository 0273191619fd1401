/* chat_template_find.c: which template a tokenizer's own is; see chat_template.h */
#include "src/chat/chat_template.h"

#include "src/base/files.h"
#include "src/json/json_value.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* A template is taken for one of these where it has its marks, and all text that it may write, its literals and what is
 * outside of its tags, is text that this one writes, of a conversation with everything in it. */
typedef struct mark {
    chat_template is;
    const char *has[3];
} mark;
static const mark marks[] = {{TEMPLATE_QWEN3, {CHAT_BEGIN_TURN, "last_query_index", "enable_thinking is false"}},
                             {TEMPLATE_QWEN3_INSTRUCT, {CHAT_BEGIN_TURN, "# Tools", "<tool_response>"}},
                             {TEMPLATE_QWEN25, {CHAT_BEGIN_TURN, "You are Qwen", "<tool_response>"}},
                             {TEMPLATE_CHATML, {CHAT_BEGIN_TURN, CHAT_END_TURN, "message"}}};

/* All that it writes. */
static char *written_by(chat_template is)
{
    static const char talk[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": \"\", "
        "\"reasoning\": \"\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"f\", \"arguments\": "
        "{}}]}, {\"role\": \"tool\", \"content\": \"\"}], \"tools\": [{}]}",
        plain[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"\"}, {\"role\": \"assistant\", \"content\": "
                  "\"\"}, {\"role\": \"user\", \"content\": \"\"}]}",
        with_system[] = "{\"messages\": [{\"role\": \"system\", \"content\": \"\"}, {\"role\": \"user\", "
                        "\"content\": \"\"}]}";
    static const char *const lines[] = {talk, plain, with_system};
    const chat_options asks = {.asks = true};
    char *all = xstrdup("");

    for (int i = is == TEMPLATE_CHATML; i < 3; i++) {
        conversation c;
        chat_text t;
        moai_error err;
        CHECK(conversation_read(&c, lines[i], strlen(lines[i]), &err) == 0 && chat_render(&t, is, &c, &asks, &err) == 0,
              "%s", err.text);
        char *more = xasprintf("%s%s", all, t.text);
        free(all);
        all = more;
        chat_text_free(&t);
        conversation_free(&c);
    }
    return all;
}

/* -- a template's text -- */

/* A walk over the text that a template may write. */
typedef struct literals {
    const char *at;
    bool in_tag;
    char *text;                               /* the last, malloc'd */
} literals;

/* From behind the opening quote to the closing one, unescaped as Jinja does. */
static char *take_quoted(literals *w, char quote)
{
    char *text = xmalloc(strlen(w->at) + 1), *to = text;

    for (; *w->at && *w->at != quote; w->at++) {
        const bool is_escaped = *w->at == '\\' && w->at[1];
        w->at += is_escaped;
        *to++ = (char)(is_escaped && *w->at == 'n' ? '\n' : is_escaped && *w->at == 't' ? '\t' : *w->at);
    }
    w->at += *w->at == quote;
    *to = 0;
    return text;
}

/* What is outside of tags, without the white space around it. */
static char *take_outside(literals *w)
{
    const char *end = w->at;

    while (*end && !(end[0] == '{' && end[1] && strchr("{%#", end[1]))) end++;
    const char *from = w->at, *to = end;
    while (from < to && isspace((unsigned char)*from)) from++;
    while (to > from && isspace((unsigned char)to[-1])) to--;
    w->at = end;
    return xasprintf("%.*s", (int)(to - from), from);
}

static void skip_comment(literals *w)
{
    const char *end = strstr(w->at, "#}");
    w->at = end ? end + 2 : w->at + strlen(w->at);
}

/* The next literal, or text outside of tags, in w->text; false: there is none. */
static bool next_literal(literals *w)
{
    free(w->text);
    w->text = NULL;
    while (*w->at && !w->text) {
        if (!w->in_tag && strncmp(w->at, "{#", 2) == 0) {
            skip_comment(w);
        } else if (!w->in_tag && w->at[0] == '{' && (w->at[1] == '{' || w->at[1] == '%')) {
            w->in_tag = true, w->at += 2;
        } else if (!w->in_tag) {
            w->text = take_outside(w);
        } else if (*w->at == '\'' || *w->at == '"') {
            const char quote = *w->at++;
            w->text = take_quoted(w, quote);
        } else if ((w->at[0] == '}' || w->at[0] == '%') && w->at[1] == '}') {
            w->in_tag = false, w->at += 2;
        } else {
            w->at++;
        }
    }
    return w->text;
}

/* A key, or a role: no text that is written by itself. */
static bool is_word(const char *text)
{
    size_t n = 0;

    while (islower((unsigned char)text[n]) || text[n] == '_') n++;
    return text[n] == 0;
}

/* NULL; or what this template does not write, malloc'd. */
static char *foreign_text(chat_template is, const char *text)
{
    literals w = {.at = text};
    char *written = written_by(is), *found = NULL;

    while (!found && next_literal(&w))
        if (!is_word(w.text) && !strstr(written, w.text)) found = xstrdup(w.text);
    free(w.text);
    free(written);
    return found;
}

static bool has_marks(const mark *m, const char *text)
{
    for (int i = 0; i < 3; i++)
        if (!strstr(text, m->has[i])) return false;
    return true;
}

/* -1: none of these, and *foreign (NULL: nothing) is what the likeliest does not write. */
static int tell(chat_template *is, const char *text, char **foreign)
{
    *foreign = NULL;
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        if (!has_marks(&marks[i], text)) continue;
        char *found = foreign_text(marks[i].is, text);
        if (!found) {
            free(*foreign);
            *foreign = NULL;
            *is = marks[i].is;
            return 0;
        }
        if (*foreign)
            free(found);
        else
            *foreign = found;
    }
    return -1;
}

/* -- where it is -- */

/* Under "chat_template" of tokenizer_config.json: text, or a list of which one is called default.  NULL: none. */
static char *template_of(const char *text, size_t n_bytes)
{
    json_value root, element = {0}, v;
    json_fault fault;

    if (json_value_read(&root, text, n_bytes, &fault)) return NULL;
    v = json_value_of(root, "chat_template");
    while (v.kind == VALUE_ARRAY && json_value_next(v, &element, NULL))
        if (json_value_is(json_value_of(element, "name"), "default")) v = json_value_of(element, "template");
    return v.kind == VALUE_STRING ? json_value_string(v, &n_bytes) : NULL;
}

/* The template's text, and in *path where it is from; NULL: there is none.  Caller frees both. */
static char *read_template(const char *tokenizer_path, char **path)
{
    static const char *const files[] = {"chat_template.jinja", "tokenizer_config.json"};
    const char *slash = strrchr(tokenizer_path, '/');
    moai_error unused;
    size_t n;

    for (int i = 0; i < 2; i++) {
        *path = xasprintf("%.*s%s", slash ? (int)(slash + 1 - tokenizer_path) : 0, tokenizer_path, files[i]);
        char *text = file_exists(*path) ? file_read(*path, (size_t)1 << 28, &n, &unused) : NULL, *inner;
        if (text && i == 1) {
            inner = template_of(text, n);
            free(text);
            text = inner;
        }
        if (text) return text;
        free(*path);
    }
    *path = NULL;
    return NULL;
}

static int unknown_template(const char *path, char *foreign, moai_error *err)
{
    for (char *c = foreign; c && *c; c++)
        if (*c == '\n') *c = ' ';
    return error_config(err,
                        "%s: no chat template that is known here%s%.60s%s; --chat_template names one: qwen3, "
                        "qwen3-instruct, qwen2.5 or chatml",
                        path, foreign ? " (it writes '" : "", foreign ? foreign : "", foreign ? "')" : "");
}

int chat_template_find(chat_template *is, const char *tokenizer_path, const tokenizer *t, moai_error *err)
{
    char *path, *text = read_template(tokenizer_path, &path), *foreign = NULL;
    const bool has_turns = tokenizer_special(t, CHAT_BEGIN_TURN) >= 0 && tokenizer_special(t, CHAT_END_TURN) >= 0;
    int status = 0;

    *is = TEMPLATE_CHATML;
    if (text && tell(is, text, &foreign) != 0)
        status = unknown_template(path, foreign, err);
    else if (!text && (tokenizer_is_json(t) || !has_turns))
        status = error_config(err,
                              "%s has no chat template beside it (chat_template.jinja, or chat_template in "
                              "tokenizer_config.json); --chat_template names one: qwen3, qwen3-instruct, qwen2.5 or "
                              "chatml",
                              tokenizer_path);
    free(foreign);
    free(text);
    free(path);
    return status;
}
