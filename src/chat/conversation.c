/* conversation.c: see conversation.h */
#include "src/chat/conversation.h"

#include "src/json/json_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const role_names[] = {"system", "user", "assistant", "tool"};
const char *chat_role_name(chat_role role) { return role_names[role]; }

/* -- values -- */

static bool is_none(json_value v) { return v.kind == VALUE_NONE || v.kind == VALUE_NULL; }

/* A string.  NULL: another kind, or with a NUL. */
static char *text_of(json_value v)
{
    size_t n;

    if (v.kind != VALUE_STRING) return NULL;
    char *text = json_value_string(v, &n);
    if (strlen(text) == n) return text;
    free(text);
    return NULL;
}

static int no_text(const char *key, json_value v, moai_error *err)
{
    return error_config(err, "`%s` is %s, not text%s", key, json_kind_name(v.kind),
                        v.kind == VALUE_STRING ? " (it holds a NUL)" : "");
}

/* "" for null and none, too. */
static char *text_or_none(json_value v) { return is_none(v) ? xstrdup("") : text_of(v); }

/* A list of parts as OpenAI has them: those of text, joined; others are of what no language model reads. */
static char *join_parts(json_value list, moai_error *err)
{
    json_value part = {0};
    char *all = xstrdup("");

    while (json_value_next(list, &part, NULL)) {
        const json_value type = json_value_of(part, "type");
        char *text = part.kind == VALUE_STRING     ? text_of(part)
                     : json_value_is(type, "text") ? text_of(json_value_of(part, "text"))
                                                   : NULL,
             *longer;
        if (!text) {
            error_config(err, "`content` has a part of type %.*s: only text can be trained on",
                         type.kind ? (int)type.n_bytes : 4, type.kind ? type.text : "none");
            free(all);
            return NULL;
        }
        longer = xasprintf("%s%s", all, text);
        free(all);
        free(text);
        all = longer;
    }
    return all;
}

static char *content_of(json_value v, const char *key, moai_error *err)
{
    if (v.kind == VALUE_ARRAY) return join_parts(v, err);
    char *text = text_or_none(v);
    if (!text) no_text(key, v, err);
    return text;
}

/* -- messages -- */

void conversation_add(conversation *c, chat_role role, const char *content)
{
    CHECK(c->list = realloc(c->list, (size_t)(c->n + 1) * sizeof *c->list), "out of host memory: %d messages", c->n);
    c->list[c->n++] = (chat_message){.role = role, .content = xstrdup(content), .is_trained = role == ROLE_ASSISTANT};
}

static int find_role(json_value v, const char *key, chat_role *role, moai_error *err)
{
    static const struct {
        const char *name;
        chat_role role;
    } known[] = {{"system", ROLE_SYSTEM},   {"developer", ROLE_SYSTEM},        {"user", ROLE_USER},
                 {"human", ROLE_USER},      {"assistant", ROLE_ASSISTANT},     {"gpt", ROLE_ASSISTANT},
                 {"model", ROLE_ASSISTANT}, {"function_call", ROLE_ASSISTANT}, {"tool", ROLE_TOOL},
                 {"observation", ROLE_TOOL}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (json_value_is(v, known[i].name)) return *role = known[i].role, 0;
    if (v.kind == VALUE_NONE) return error_config(err, "a message without `%s`", key);
    return error_config(err, "unknown role %.*s, must be system, user, assistant or tool", (int)v.n_bytes, v.text);
}

static int too_deep(const char *key, moai_error *err)
{
    return error_config(err, "`%s` is nested deeper than %d", key, JSON_DEPTH);
}

/* {"name", "arguments"}, within "function" or not. */
static int add_call(chat_message *m, json_value call, moai_error *err)
{
    const json_value function = json_value_of(call, "function"), of = function.kind == VALUE_OBJECT ? function : call,
                     arguments = json_value_of(of, "arguments");
    char *name = text_of(json_value_of(of, "name"));

    if (!name || !*name || arguments.kind == VALUE_NONE) {
        free(name);
        return error_config(err, "`tool_calls` has one without a name or arguments");
    }
    char *json = json_value_python(arguments);
    char *text = arguments.kind == VALUE_STRING ? text_of(arguments) : json ? xstrdup(json) : NULL;
    CHECK(m->calls = realloc(m->calls, (size_t)(m->n_calls + 1) * sizeof *m->calls), "out of host memory");
    m->calls[m->n_calls++] = (tool_call){name, json, text};
    return !json ? too_deep("arguments", err) : text ? 0 : no_text("arguments", arguments, err);
}

static int add_calls(chat_message *m, json_value calls, moai_error *err)
{
    json_value call = {0};

    if (is_none(calls)) return 0;
    if (calls.kind != VALUE_ARRAY)
        return error_config(err, "`tool_calls` is %s, not a list", json_kind_name(calls.kind));
    while (json_value_next(calls, &call, NULL))
        if (add_call(m, call, err)) return -1;
    return 0;
}

/* ShareGPT's function_call: its value is the call as JSON. */
static int value_as_call(chat_message *m, moai_error *err)
{
    json_value call;
    json_fault fault;

    if (json_value_read(&call, m->content, strlen(m->content), &fault) || call.kind != VALUE_OBJECT)
        return error_config(err, "a function_call whose value is no JSON object");
    if (add_call(m, call, err)) return -1;
    free(m->content);
    m->content = xstrdup("");
    return 0;
}

static int add_reasoning(chat_message *m, json_value message, moai_error *err)
{
    static const char *const keys[] = {"reasoning_content", "reasoning", "thinking"};

    for (int i = 0; i < 3; i++) {
        const json_value v = json_value_of(message, keys[i]);
        if (is_none(v)) continue;
        m->reasoning = text_of(v);
        return m->reasoning ? 0 : no_text(keys[i], v, err);
    }
    return 0;
}

/* "weight" (OpenAI: 0 or 1) or "train" (axolotl: true or false) of an answer. */
static int read_weight(chat_message *m, json_value message, moai_error *err)
{
    const json_value weight = json_value_of(message, "weight"), train = json_value_of(message, "train"),
                     v = is_none(train) ? weight : train;
    char *text = xasprintf("%.*s", (int)v.n_bytes, v.text ? v.text : "");
    char *end;
    const double number = strtod(text, &end);
    const bool is_number = v.kind == VALUE_NUMBER && *end == '\0',
               is_yes = v.kind == VALUE_TRUE || (is_number && number == 1),
               is_no = v.kind == VALUE_FALSE || (is_number && number == 0);
    int status = 0;

    if (!is_none(v) && !is_yes && !is_no)
        status = error_config(err, "`%s` is %.40s: a message is trained or not, 1 or 0",
                              is_none(train) ? "weight" : "train", text);
    else if (is_yes && !is_none(train) && m->role != ROLE_ASSISTANT)
        status = error_config(err, "`train` of a message of role %s: only answers are trained (--train_on_prompt: all)",
                              role_names[m->role]);
    if (is_no) m->is_trained = false;
    free(text);
    return status;
}

static int add_message(conversation *c, json_value v, moai_error *err)
{
    const bool shares = json_value_of(v, "from").kind != VALUE_NONE && json_value_of(v, "role").kind == VALUE_NONE;
    const char *role_key = shares ? "from" : "role", *content_key = shares ? "value" : "content";
    const json_value content = json_value_of(v, content_key);
    chat_role role = ROLE_USER;

    if (v.kind != VALUE_OBJECT) return error_config(err, "a message is %s, not an object", json_kind_name(v.kind));
    if (find_role(json_value_of(v, role_key), role_key, &role, err)) return -1;
    char *text = content_of(content, content_key, err);
    if (!text) return -1;
    conversation_add(c, role, text);
    free(text);
    chat_message *m = &c->list[c->n - 1];
    if (add_reasoning(m, v, err) || read_weight(m, v, err)) return -1;
    if (add_calls(m, json_value_of(v, "tool_calls"), err)) return -1;
    if (shares && json_value_is(json_value_of(v, role_key), "function_call")) return value_as_call(m, err);
    if (!is_none(content) || m->n_calls || m->reasoning) return 0;
    return content.kind == VALUE_NULL ? no_text(content_key, content, err)
                                      : error_config(err, "a message without `%s`", content_key);
}

static int add_messages(conversation *c, json_value list, const char *key, moai_error *err)
{
    json_value v = {0};

    if (list.kind != VALUE_ARRAY)
        return error_config(err, "`%s` is %s, not a list of messages", key, json_kind_name(list.kind));
    while (json_value_next(list, &v, NULL))
        if (add_message(c, v, err)) return -1;
    return 0;
}

/* A list, or a string that holds one. */
static int add_tools(conversation *c, json_value tools, moai_error *err)
{
    json_value tool = {0};
    json_fault fault;
    char *text = NULL;
    size_t n;

    if (tools.kind == VALUE_STRING) {
        text = json_value_string(tools, &n);
        if (n > 0 && json_value_read(&tools, text, n, &fault)) tools.kind = VALUE_STRING;
        if (n == 0) tools.kind = VALUE_NULL;
    }
    int status = is_none(tools) || tools.kind == VALUE_ARRAY
                     ? 0
                     : error_config(err, "`tools` is %s, not a list", json_kind_name(tools.kind));
    while (!status && json_value_next(tools, &tool, NULL)) {
        char *written = json_value_python(tool);
        if (!written) {
            status = too_deep("tools", err);
            break;
        }
        CHECK(c->tools = realloc(c->tools, (size_t)(c->n_tools + 1) * sizeof *c->tools), "out of host memory");
        c->tools[c->n_tools++] = written;
    }
    free(text);
    return status;
}

/* -- shapes -- */

static int add_system(conversation *c, json_value v, moai_error *err)
{
    char *text = text_or_none(v);

    if (!text) return no_text("system", v, err);
    if (*text) conversation_add(c, ROLE_SYSTEM, text);
    free(text);
    return 0;
}

static int read_sharegpt(conversation *c, json_value o, moai_error *err)
{
    if (add_system(c, json_value_of(o, "system"), err)) return -1;
    return add_messages(c, json_value_of(o, "conversations"), "conversations", err);
}

/* Question and answer; an answer of the history is trained, too. */
static int add_pair(conversation *c, json_value question, json_value answer, moai_error *err)
{
    char *q = text_of(question), *a = text_of(answer);

    if (q && a) conversation_add(c, ROLE_USER, q), conversation_add(c, ROLE_ASSISTANT, a);
    const int status = q && a ? 0 : no_text(q ? "output" : "instruction", q ? answer : question, err);
    free(q);
    free(a);
    return status;
}

static int add_history(conversation *c, json_value history, moai_error *err)
{
    json_value pair = {0};

    if (is_none(history) || json_value_is(history, "")) return 0;
    if (history.kind != VALUE_ARRAY)
        return error_config(err, "`history` is %s, not a list of questions and answers", json_kind_name(history.kind));
    while (json_value_next(history, &pair, NULL)) {
        json_value part = {0}, parts[2];
        int n = 0;
        for (; json_value_next(pair, &part, NULL); n++)
            if (n < 2) parts[n] = part;
        if (n != 2 || pair.kind != VALUE_ARRAY)
            return error_config(err, "`history` has one that is no pair of question and answer");
        if (add_pair(c, parts[0], parts[1], err)) return -1;
    }
    return 0;
}

static int read_alpaca(conversation *c, json_value o, moai_error *err)
{
    const json_value output = json_value_of(o, "output");

    if (add_system(c, json_value_of(o, "system"), err) || add_history(c, json_value_of(o, "history"), err)) return -1;
    char *input = text_or_none(json_value_of(o, "input"));
    if (!input) return no_text("input", json_value_of(o, "input"), err);
    if (add_pair(c, json_value_of(o, "instruction"), output, err)) return free(input), -1;
    chat_message *m = &c->list[c->n - 2];
    if (*input) {
        char *both = *m->content ? xasprintf("%s\n%s", m->content, input) : xstrdup(input);
        free(m->content);
        m->content = both;
    }
    free(input);
    return 0;
}

static int read_prompt(conversation *c, json_value o, moai_error *err)
{
    const json_value prompt = json_value_of(o, "prompt"), completion = json_value_of(o, "completion");

    c->is_text = prompt.kind == VALUE_STRING && completion.kind == VALUE_STRING;
    if (c->is_text) {
        if (!(c->prompt = text_of(prompt))) return no_text("prompt", prompt, err);
        if (!(c->completion = text_of(completion))) return no_text("completion", completion, err);
        return 0;
    }
    if (add_messages(c, prompt, "prompt", err)) return -1;
    for (int i = 0; i < c->n; i++) c->list[i].is_trained = false;
    return add_messages(c, completion, "completion", err);
}

static int read_text(conversation *c, json_value o, moai_error *err)
{
    const json_value text = json_value_of(o, "text");

    c->is_text = true;
    c->prompt = xstrdup("");
    c->completion = text_of(text);
    return c->completion ? 0 : no_text("text", text, err);
}

static int read_messages(conversation *c, json_value o, moai_error *err)
{
    return add_messages(c, json_value_of(o, "messages"), "messages", err);
}

static const struct {
    const char *keys[2];
    int (*read)(conversation *, json_value, moai_error *);
} shapes[] = {{{"messages", NULL}, read_messages},
              {{"conversations", NULL}, read_sharegpt},
              {{"instruction", "output"}, read_alpaca},
              {{"prompt", "completion"}, read_prompt},
              {{"text", NULL}, read_text}};

/* Which shape it is, or -1 with the keys that are there. */
static int find_shape(json_value o, moai_error *err)
{
    json_value member = {0};
    char *key, *keys = xstrdup("");

    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const char *const *k = shapes[i].keys;
        if (json_value_of(o, k[0]).kind == VALUE_NONE || (k[1] && json_value_of(o, k[1]).kind == VALUE_NONE)) continue;
        free(keys);
        return (int)i;
    }
    while (json_value_next(o, &member, &key)) {
        char *more = xasprintf("%s%s%s", keys, *keys ? ", " : "", key);
        free(keys);
        free(key);
        keys = more;
    }
    error_config(err,
                 "no known shape of a conversation: the object has %.200s; known are messages, conversations, "
                 "instruction and output, prompt and completion, text",
                 *keys ? keys : "no keys");
    free(keys);
    return -1;
}

/* -- what follows what -- */

static int check_order(const conversation *c, moai_error *err)
{
    if (c->is_text) return 0;
    if (c->n == 0) return error_config(err, "a conversation without a message");
    for (int i = 0; i < c->n; i++) {
        const chat_role role = c->list[i].role, before = i ? c->list[i - 1].role : ROLE_SYSTEM;
        const bool fits = role == ROLE_SYSTEM      ? i == 0
                          : role == ROLE_USER      ? before == ROLE_SYSTEM || before == ROLE_ASSISTANT
                          : role == ROLE_ASSISTANT ? before == ROLE_USER || before == ROLE_TOOL
                                                   : before == ROLE_ASSISTANT || before == ROLE_TOOL;
        if (!fits)
            return error_config(err, "roles out of order: message %d is of role %s%s%s", i + 1, role_names[role],
                                i ? ", behind one of role " : ", the first", i ? role_names[before] : "");
    }
    return 0;
}

int conversation_read(conversation *c, const char *line, size_t n_bytes, moai_error *err)
{
    json_value o;
    json_fault fault;

    *c = (conversation){0};
    if (json_value_read(&o, line, n_bytes, &fault))
        return error_config(err, "not JSON: %s (byte %zu)", fault.why ? fault.why : "no value", fault.at + 1);
    if (o.kind != VALUE_OBJECT) return error_config(err, "expected an object, found %s", json_kind_name(o.kind));
    const int shape = find_shape(o, err);
    if (shape < 0 || shapes[shape].read(c, o, err) || add_tools(c, json_value_of(o, "tools"), err)) return -1;
    return check_order(c, err);
}

int conversation_check_prompt(const conversation *c, moai_error *err)
{
    if (c->is_text) return error_config(err, "text and no messages: --prompt goes on from a text");
    const chat_role last = c->n ? c->list[c->n - 1].role : ROLE_SYSTEM;
    if (last == ROLE_USER || last == ROLE_TOOL) return 0;
    return error_config(err, "the last message is of role %s: there is nothing to answer", role_names[last]);
}

void conversation_free(conversation *c)
{
    for (int i = 0; i < c->n; i++) {
        chat_message *m = &c->list[i];
        for (int k = 0; k < m->n_calls; k++)
            free(m->calls[k].name), free(m->calls[k].arguments), free(m->calls[k].json);
        free(m->calls);
        free(m->content);
        free(m->reasoning);
    }
    for (int i = 0; i < c->n_tools; i++) free(c->tools[i]);
    free(c->tools);
    free(c->list);
    free(c->prompt);
    free(c->completion);
    *c = (conversation){0};
}
