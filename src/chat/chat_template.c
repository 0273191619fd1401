/* chat_template.c: see chat_template.h */
#include "src/chat/chat_template.h"

#include <stdlib.h>
#include <string.h>

static const char begin_turn[] = CHAT_BEGIN_TURN, end_turn[] = CHAT_END_TURN;

static const char *const names[] = {"auto", "qwen3", "qwen3-instruct", "qwen2.5", "chatml"};
const char *chat_template_name(chat_template t) { return names[t]; }

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
