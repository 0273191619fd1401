/* chat_template.c: see chat_template.h */
#include "src/chat/chat_template.h"

#include "src/base/files.h"
#include "src/json/json_value.h"

#include <stdlib.h>
#include <string.h>

static const char begin_turn[] = "<|im_start|>", end_turn[] = "<|im_end|>";

/* -- the text -- */

static void add_bytes(chat_text *t, const char *text, size_t n)
{
    if (t->n_bytes + n + 1 > t->room) {
        t->room = 2 * (t->n_bytes + n) + 256;
        CHECK(t->text = realloc(t->text, t->room), "out of host memory: %zu bytes of text", t->room);
    }
    memcpy(t->text + t->n_bytes, text, n);
    t->n_bytes += n;
    t->text[t->n_bytes] = 0;
}

static void add_span(chat_text *t, const char *text, size_t n, bool is_special, bool is_trained)
{
    chat_span *last = t->n_spans ? &t->spans[t->n_spans - 1] : NULL;

    if (n == 0) return;
    if (last && !is_special && !last->is_special && last->is_trained == is_trained) {
        last->n_bytes += n;
    } else {
        CHECK(t->spans = realloc(t->spans, (size_t)(t->n_spans + 1) * sizeof *t->spans), "out of host memory");
        t->spans[t->n_spans++] = (chat_span){t->n_bytes, n, is_special, is_trained};
    }
    add_bytes(t, text, n);
}

/* What is being written: `trained` is of the turn. */
typedef struct writer {
    chat_text *to;
    const chat_options *o;
    bool trained;
} writer;

static bool is_trained(const writer *w) { return w->trained || w->o->prompts_too; }
static void put_n(const writer *w, const char *text, size_t n) { add_span(w->to, text, n, false, is_trained(w)); }
static void put(const writer *w, const char *text) { put_n(w, text, strlen(text)); }
static void put_special(const writer *w, const char *name) { add_span(w->to, name, strlen(name), true, is_trained(w)); }

/* "<|im_start|>role" */
static void put_role(const writer *w, const char *role)
{
    put_special(w, begin_turn);
    put(w, role);
}

static void put_end(const writer *w)
{
    put_special(w, end_turn);
    add_span(w->to, "\n", 1, false, is_trained(w) && !w->o->leaves_newline);
}

static void put_turn(const writer *w, const char *role, const char *content)
{
    put_role(w, role);
    put(w, "\n");
    put(w, content);
    put_end(w);
}

/* Without newlines at the end, or the beginning. */
static size_t length_before_newlines(const char *text, size_t n)
{
    while (n > 0 && text[n - 1] == '\n') n--;
    return n;
}
static const char *behind_newlines(const char *text) { return text + strspn(text, "\n"); }

/* -- tools -- */

static void put_tools(const writer *w, const conversation *c)
{
    put(w, "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
           "function signatures within <tools></tools> XML tags:\n<tools>");
    for (int i = 0; i < c->n_tools; i++) put(w, "\n"), put(w, c->tools[i]);
    put(w, "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
           "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
           "<args-json-object>}\n</tool_call>");
}

static void put_call(const writer *w, const tool_call *call, bool quotes)
{
    put(w, "<tool_call>\n{\"name\": \"");
    put(w, call->name);
    put(w, "\", \"arguments\": ");
    put(w, quotes ? call->json : call->arguments);
    put(w, "}\n</tool_call>");
}

/* Results that follow each other are one turn of the user's. */
static void put_result(const writer *w, const conversation *c, int i)
{
    if (i == 0 || c->list[i - 1].role != ROLE_TOOL) put_role(w, "user");
    put(w, "\n<tool_response>\n");
    put(w, c->list[i].content);
    put(w, "\n</tool_response>");
    if (i + 1 == c->n || c->list[i + 1].role != ROLE_TOOL) put_end(w);
}

/* -- qwen3 -- */

/* The last message that a person has written: what follows it is one answer, with its tools. */
static int last_question(const conversation *c)
{
    static const char begins[] = "<tool_response>", ends[] = "</tool_response>";

    for (int i = c->n - 1; i >= 0; i--) {
        const char *text = c->list[i].content;
        const size_t n = strlen(text);
        const bool is_result = strncmp(text, begins, strlen(begins)) == 0 && n >= strlen(ends) &&
                               strcmp(text + n - strlen(ends), ends) == 0;
        if (c->list[i].role == ROLE_USER && !is_result) return i;
    }
    return c->n - 1;
}

typedef struct thought {
    const char *text, *answer; /* answer: the content behind it */
    size_t n;
} thought;

/* Apart, or before "</think>" in the content. */
static thought find_thought(const chat_message *m)
{
    static const char open[] = "<think>", close[] = "</think>";
    const char *first = strstr(m->content, close), *last = first;

    if (m->reasoning) return (thought){m->reasoning, m->content, strlen(m->reasoning)};
    if (!first) return (thought){"", m->content, 0};
    for (const char *next; (next = strstr(last + 1, close));) last = next;
    const size_t n = length_before_newlines(m->content, (size_t)(first - m->content));
    const char *begin = m->content;
    for (const char *at = m->content; (at = strstr(at, open)) && at + strlen(open) <= m->content + n;)
        begin = at += strlen(open);
    while (begin < m->content + n && *begin == '\n') begin++;
    return (thought){begin, behind_newlines(last + strlen(close)), (size_t)(m->content + n - begin)};
}

static void put_thought(const writer *w, thought t)
{
    const char *begin = t.text;
    size_t n = t.n;

    while (n > 0 && *begin == '\n') begin++, n--;
    put(w, "<think>\n");
    put_n(w, begin, length_before_newlines(begin, n));
    put(w, "\n</think>\n\n");
}

static void put_answer(writer *w, const conversation *c, int i, bool thinks, bool trained)
{
    const chat_message *m = &c->list[i];
    const thought t = thinks ? find_thought(m) : (thought){"", m->content, 0};
    const bool shows = thinks && (w->o->training || (i > last_question(c) && (i + 1 == c->n || t.n > 0)));

    put_role(w, "assistant");
    put(w, "\n");
    w->trained = trained;
    if (shows) put_thought(w, t);
    put(w, shows ? behind_newlines(t.answer) : t.answer);
    for (int k = 0; k < m->n_calls; k++) {
        if (k > 0 || *t.answer) put(w, "\n");
        put_call(w, &m->calls[k], false);
    }
    put_end(w);
    w->trained = false;
}

static void put_system_qwen3(const writer *w, const conversation *c)
{
    const bool has_system = c->list[0].role == ROLE_SYSTEM;

    if (!c->n_tools && !has_system) return;
    if (!c->n_tools) {
        put_turn(w, "system", c->list[0].content);
        return;
    }
    put_role(w, "system");
    put(w, "\n");
    if (has_system) put(w, c->list[0].content), put(w, "\n\n");
    put_tools(w, c);
    put_end(w);
}

/* -- qwen2.5 -- */

static void put_system_qwen25(const writer *w, const conversation *c)
{
    const char *content = c->list[0].role == ROLE_SYSTEM
                              ? c->list[0].content
                              : "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

    put_role(w, "system");
    put(w, "\n");
    put(w, content);
    if (c->n_tools) put(w, "\n\n"), put_tools(w, c);
    put_end(w);
}

/* What is trained begins with the newline behind the role, as TRL has it. */
static void put_answer_qwen25(writer *w, const conversation *c, int i, bool trained)
{
    const chat_message *m = &c->list[i];

    put_role(w, "assistant");
    w->trained = trained;
    if (!m->n_calls || *m->content) put(w, "\n"), put(w, m->content);
    for (int k = 0; k < m->n_calls; k++) put(w, "\n"), put_call(w, &m->calls[k], true);
    put_end(w);
    w->trained = false;
}

/* -- all -- */

static int check_tools(const conversation *c, chat_template is, moai_error *err)
{
    bool uses = c->n_tools > 0;

    for (int i = 0; i < c->n; i++) uses = uses || c->list[i].role == ROLE_TOOL || c->list[i].n_calls > 0;
    if (is != TEMPLATE_CHATML || !uses) return 0;
    return error_config(err, "tools, for which the template chatml has no form");
}

static bool is_last_answer(const conversation *c, int i)
{
    while (++i < c->n)
        if (c->list[i].role == ROLE_ASSISTANT) return false;
    return true;
}

static void put_message(writer *w, chat_template is, const conversation *c, int i)
{
    const chat_message *m = &c->list[i];
    const bool trained = m->is_trained && (!w->o->last_turn_only || is_last_answer(c, i)), qwen3 = is == TEMPLATE_QWEN3;

    if (m->role == ROLE_SYSTEM) {
        if (is == TEMPLATE_CHATML) put_turn(w, "system", m->content); /* else it is written already */
    } else if (m->role == ROLE_USER) {
        put_turn(w, "user", m->content);
    } else if (m->role == ROLE_TOOL) {
        put_result(w, c, i);
    } else {
        w->to->n_lost_thoughts += m->reasoning && *m->reasoning && !qwen3;
        if (is == TEMPLATE_QWEN25)
            put_answer_qwen25(w, c, i, trained);
        else
            put_answer(w, c, i, qwen3, trained);
    }
}

int chat_render(chat_text *t, chat_template is, const conversation *c, const chat_options *o, moai_error *err)
{
    writer w = {t, o, false};

    *t = (chat_text){0};
    add_bytes(t, "", 0);
    if (c->is_text) {
        put(&w, c->prompt);
        w.trained = true;
        put(&w, c->completion);
        return 0;
    }
    if (check_tools(c, is, err)) return -1;
    if (is == TEMPLATE_QWEN25) put_system_qwen25(&w, c);
    if (is == TEMPLATE_QWEN3 || is == TEMPLATE_QWEN3_INSTRUCT) put_system_qwen3(&w, c);
    for (int i = 0; i < c->n; i++) put_message(&w, is, c, i);
    if (!o->asks) return 0;
    put_role(&w, "assistant");
    put(&w, "\n");
    if (is == TEMPLATE_QWEN3 && !o->thinks) put(&w, "<think>\n\n</think>\n\n");
    return 0;
}

void chat_text_free(chat_text *t)
{
    free(t->text);
    free(t->spans);
    *t = (chat_text){0};
}

/* -- which it is -- */

static const char *const names[] = {"auto", "qwen3", "qwen3-instruct", "qwen2.5", "chatml"};
const char *chat_template_name(chat_template t) { return names[t]; }

typedef struct mark {
    chat_template is;
    const char *has[5], *lacks[6];
} mark;
static const mark marks[] = {
    {TEMPLATE_QWEN3,
     {begin_turn, "multi_step_tool", "last_query_index", "enable_thinking is false", "<tool_response>"},
     {"vision", "image", "<function="}},
    {TEMPLATE_QWEN3_INSTRUCT,
     {begin_turn, "# Tools", "<tool_response>", "message.tool_calls"},
     {"You are Qwen", "think", "vision", "image", "<function=", "You are a helpful"}},
    {TEMPLATE_QWEN25,
     {begin_turn, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "<tool_call>"},
     {"vision", "image", "think"}},
    {TEMPLATE_CHATML, {begin_turn, end_turn, "message"}, {"tool", "think", "You are", "vision", "image", "reasoning"}},
};

static bool fits(const mark *m, const char *text)
{
    for (int i = 0; i < 5 && m->has[i]; i++)
        if (!strstr(text, m->has[i])) return false;
    for (int i = 0; i < 6 && m->lacks[i]; i++)
        if (strstr(text, m->lacks[i])) return false;
    return true;
}

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

int chat_template_find(chat_template *is, const char *tokenizer_path, const tokenizer *t, moai_error *err)
{
    char *path, *text = read_template(tokenizer_path, &path);
    const bool has_turns = tokenizer_special(t, begin_turn) >= 0 && tokenizer_special(t, end_turn) >= 0;
    size_t i = 0;
    int status = 0;

    *is = TEMPLATE_CHATML;
    while (text && i < sizeof marks / sizeof *marks && !fits(&marks[i], text)) i++;
    if (text && i < sizeof marks / sizeof *marks)
        *is = marks[i].is;
    else if (text)
        status = error_config(err,
                              "%s: no chat template that is known here; --chat_template names one: qwen3, "
                              "qwen3-instruct, qwen2.5 or chatml",
                              path);
    else if (tokenizer_is_json(t) || !has_turns)
        status = error_config(err,
                              "%s has no chat template beside it (chat_template.jinja, or chat_template in "
                              "tokenizer_config.json); --chat_template names one: qwen3, qwen3-instruct, qwen2.5 or "
                              "chatml",
                              tokenizer_path);
    free(text);
    free(path);
    return status;
}
