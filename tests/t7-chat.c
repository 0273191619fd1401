/* t7-chat.c: conversations as text and tokens: what apply_chat_template and TRL make of them (tests/golden/chat.json),
 * all shapes, what of them is trained, which template is whose, and what is refused. */
#include "src/chat/chat_template.h"
#include "src/json/json_value.h"
#include "tests/lib/tap.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tokenizer *tok;
static moai_error err;

static chat_template named(const char *name)
{
    for (chat_template t = TEMPLATE_QWEN3; t <= TEMPLATE_CHATML; t++)
        if (strcmp(chat_template_name(t), name) == 0) return t;
    CHECK(0, "no template %s", name);
}

/* The text of a line; NULL and err where it has none. */
static char *rendered(const char *line, const char *name, const chat_options *o)
{
    conversation c;
    chat_text t = {0};
    char *text = NULL;

    if (conversation_read(&c, line, strlen(line), &err) == 0 && chat_render(&t, named(name), &c, o, &err) == 0)
        text = xstrdup(t.text);
    chat_text_free(&t);
    conversation_free(&c);
    return text;
}

typedef struct encoded {
    int32_t *ids;
    uint8_t *trained;
    int64_t n, capacity;
} encoded;

static encoded encode(const char *line, const char *name, const chat_options *o)
{
    conversation c;
    chat_text t;
    encoded e = {0};

    CHECK(conversation_read(&c, line, strlen(line), &err) == 0 && chat_render(&t, named(name), &c, o, &err) == 0 &&
              chat_encode(&t, tok, -1, &e.ids, &e.trained, &e.n, &e.capacity, &err) == 0,
          "%s: %s", err.text, line);
    chat_text_free(&t);
    conversation_free(&c);
    return e;
}

static void encoded_free(encoded *e)
{
    free(e->ids);
    free(e->trained);
}

static void show(const char *what, const char *line, const char *ours, const char *theirs)
{
    static int n;

    if (n++ < 3) printf("# %s of %s\n#   here  %s\n#   there %s\n", what, line, ours ? ours : err.text, theirs);
}

static void test_golden(void)
{
    json_t *rows = json_load_file("tests/golden/chat.json", 0, NULL), *row, *value;
    int n_texts = 0, n_wrong = 0, n_trained = 0, n_bad = 0, n_asks = 0, n_bad_asks = 0;
    const char *name;
    size_t i, k;

    json_array_foreach(rows, i, row)
    {
        const char *line = json_string_value(json_object_get(row, "line"));
        json_object_foreach(json_object_get(row, "texts"), name, value)
        {
            char *text = rendered(line, name, &(chat_options){0});
            const bool same = text && strcmp(text, json_string_value(value)) == 0;
            n_texts++, n_wrong += !same;
            if (!same) show(name, line, text, json_string_value(value));
            free(text);
        }
        json_object_foreach(json_object_get(row, "trained"), name, value)
        {
            encoded e = encode(line, name, &(chat_options){.training = true});
            const json_t *ids = json_object_get(value, "ids");
            const char *mask = json_string_value(json_object_get(value, "mask"));
            bool same = (size_t)e.n == json_array_size(ids);
            for (k = 0; same && k < (size_t)e.n; k++)
                same = e.ids[k] == json_integer_value(json_array_get(ids, k)) && e.trained[k] == (mask[k] == '1');
            n_trained++, n_bad += !same;
            if (!same) printf("# %s: token %zu of %zu, %lld here\n", name, k - 1, json_array_size(ids), (long long)e.n);
            encoded_free(&e);
        }
        json_array_foreach(json_object_get(row, "asks"), k, value)
        {
            const chat_options o = {.asks = true, .thinks = json_is_true(json_object_get(value, "thinks"))};
            const char *theirs = json_string_value(json_object_get(value, "text"));
            char *text = rendered(json_string_value(json_object_get(value, "line")),
                                  json_string_value(json_object_get(value, "template")), &o);
            const bool same = text && strcmp(text, theirs) == 0;
            n_asks++, n_bad_asks += !same;
            if (!same) show("asked", line, text, theirs);
            free(text);
        }
    }
    ok(n_texts > 200 && n_wrong == 0, "%zu conversations, %d texts are apply_chat_template's, but for %d",
       json_array_size(rows), n_texts, n_wrong);
    ok(n_trained > 100 && n_bad == 0, "ids and masks of %d are TRL's, but for %d", n_trained, n_bad);
    ok(n_asks > 40 && n_bad_asks == 0, "and %d questions, with the beginning of the answer, but for %d", n_asks,
       n_bad_asks);
    json_decref(rows);
}

/* What is trained of a line's text, in brackets. */
static void trains(const char *what, const char *line, const char *name, const chat_options *o, const char *wanted)
{
    conversation c;
    chat_text t = {0};
    char *got = xstrdup("");

    if (conversation_read(&c, line, strlen(line), &err) == 0 && chat_render(&t, named(name), &c, o, &err) == 0)
        for (int i = 0; i < t.n_spans; i++) {
            const chat_span *s = &t.spans[i];
            const bool opens = s->is_trained && (i == 0 || !s[-1].is_trained),
                       closes = s->is_trained && (i + 1 == t.n_spans || !s[1].is_trained);
            char *more =
                xasprintf("%s%s%.*s%s", got, opens ? "[" : "", (int)s->n_bytes, t.text + s->begin, closes ? "]" : "");
            free(got);
            got = more;
        }
    const bool same = strcmp(got, wanted) == 0;
    if (!same) printf("# %s\n# not %s\n", *got ? got : err.text, wanted);
    ok(same, "%s", what);
    free(got);
    chat_text_free(&t);
    conversation_free(&c);
}

#define U "<|im_start|>user\n"
#define A "<|im_start|>assistant\n"
#define E "<|im_end|>\n"
static void test_shapes(void)
{
    static const char two[] =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
        "\"b\"}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", \"content\": \"d\"}]}";
    const chat_options plain = {0}, last = {.last_turn_only = true}, bare = {.leaves_newline = true},
                       all = {.prompts_too = true};

    trains("answers are trained, with their ends", two, "chatml", &plain, U "a" E A "[b" E "]" U "c" E A "[d" E "]");
    trains("the last one alone", two, "chatml", &last, U "a" E A "b" E U "c" E A "[d" E "]");
    trains("without the newline behind", two, "chatml", &bare, U "a" E A "[b<|im_end|>]\n" U "c" E A "[d<|im_end|>]\n");
    trains("questions, too", two, "chatml", &all, "[" U "a" E A "b" E U "c" E A "d" E "]");
    trains(
        "a weight of 0 leaves one out",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", "
        "\"content\": \"b\", \"weight\": 0}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"c\"}, "
        "{\"type\": \"text\", \"text\": \"C\"}]}, {\"role\": \"assistant\", \"content\": \"d\", \"weight\": 1}]}",
        "chatml", &plain, U "a" E A "b" E U "cC" E A "[d" E "]");
    trains("true and false, too, and reasoning under another key",
           "{\"messages\": [{\"role\": \"user\", \"content\": \"a\", \"train\": false}, {\"role\": \"assistant\", "
           "\"content\": \"b\", \"train\": false}, {\"role\": \"user\", \"content\": \"c\"}, {\"role\": \"assistant\", "
           "\"content\": \"d\", \"train\": true, \"reasoning\": \"t\"}]}",
           "qwen3", &plain, U "a" E A "b" E U "c" E A "[<think>\nt\n</think>\n\nd" E "]");
    trains("ShareGPT",
           "{\"system\": \"s\", \"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", "
           "\"value\": \"b\"}]}",
           "chatml", &plain, "<|im_start|>system\ns" E U "a" E A "[b" E "]");
    trains("its calls and observations",
           "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"function_call\", "
           "\"value\": \"{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"x\\\": 1}}\"}, {\"from\": \"observation\", "
           "\"value\": \"o\"}, "
           "{\"from\": \"gpt\", \"value\": \"b\"}], \"tools\": \"\"}",
           "qwen3-instruct", &plain,
           U "a" E A "[<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n</tool_call>" E "]<|im_start|>user\n"
             "<tool_response>\no\n</tool_response>" E A "[b" E "]");
    trains("Alpaca, whose history is trained",
           "{\"instruction\": \"i\", \"input\": \"j\", \"output\": \"o\", \"system\": \"s\", "
           "\"history\": [[\"p\", \"q\"]]}",
           "chatml", &plain, "<|im_start|>system\ns" E U "p" E A "[q" E "]" U "i\nj" E A "[o" E "]");
    trains("without input", "{\"instruction\": \"i\", \"input\": \"\", \"output\": \"o\"}", "chatml", &plain,
           U "i" E A "[o" E "]");
    trains("prompt and completion of text", "{\"prompt\": \"p \", \"completion\": \"c\"}", "chatml", &plain, "p [c]");
    trains(
        "of messages",
        "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}, "
        "{\"role\": \"user\", \"content\": \"c\"}], \"completion\": [{\"role\": \"assistant\", \"content\": \"d\"}]}",
        "chatml", &plain, U "a" E A "b" E U "c" E A "[d" E "]");
    trains("text", "{\"text\": \"t\"}", "chatml", &plain, "[t]");
    trains("names of special tokens in a content are text",
           "{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}, "
           "{\"role\": \"assistant\", \"content\": \"b\"}]}",
           "chatml", &plain, U "<|im_end|>" E A "[b" E "]");
    encoded e = encode(
        "{\"messages\": [{\"role\": \"user\", \"content\": \"<|im_end|>\"}, {\"role\": \"assistant\", \"content\": "
        "\"b\"}]}",
        "chatml", &plain);
    int n_ends = 0;
    for (int64_t i = 0; i < e.n; i++) n_ends += e.ids[i] == tokenizer_special(tok, "<|im_end|>");
    ok(n_ends == 2, "two turns end with %d such tokens", n_ends);
    encoded_free(&e);
}

static void refuses(const char *line, const char *name, const char *want)
{
    err = (moai_error){.text = "it is taken"};
    char *text = rendered(line, name, &(chat_options){0});
    ok(!text && err.config && strstr(err.text, want), "%.90s: %s", line, err.text);
    free(text);
}

#define MESSAGES(list) "{\"messages\": [" list "]}"
#define M(role, content) "{\"role\": \"" role "\", \"content\": " content "}"
static void test_refusals(void)
{
    refuses("{\"messages\": ", "chatml", "not JSON");
    refuses("[1]", "chatml", "expected an object, found an array");
    refuses("{\"chat\": [], \"id\": 1}", "chatml", "the object has chat, id");
    refuses(MESSAGES(""), "chatml", "a conversation without a message");
    refuses(MESSAGES(M("user", "\"a\"") ", " M("user", "\"b\"")), "chatml",
            "message 2 is of role user, behind one of role user");
    refuses(MESSAGES(M("assistant", "\"a\"")), "chatml", "message 1 is of role assistant, the first");
    refuses(MESSAGES(M("user", "\"a\"") ", " M("system", "\"b\"")), "chatml", "message 2 is of role system");
    refuses(MESSAGES(M("critic", "\"a\"")), "chatml", "unknown role \"critic\"");
    refuses(MESSAGES("{\"content\": \"a\"}"), "chatml", "a message without `role`");
    refuses(MESSAGES("{\"role\": \"user\"}"), "chatml", "a message without `content`");
    refuses(MESSAGES(M("user", "7")), "chatml", "`content` is a number");
    refuses(MESSAGES(M("user", "\"a\"") ", " M("assistant", "null")), "chatml", "`content` is null");
    refuses(MESSAGES(M("user", "\"a\", \"weight\": 0.5")), "chatml", "`weight` is 0.5");
    refuses(MESSAGES(M("user", "\"a\", \"train\": \"no\"")), "chatml", "`train` is \"no\"");
    refuses(MESSAGES(M("user", "\"a\", \"train\": true")), "chatml", "`train` of a message of role user");
    refuses(MESSAGES(M("user", "\"a\", \"reasoning\": [\"b\"]")), "chatml", "`reasoning` is an array");
    refuses("{\"instruction\": \"a\", \"output\": null}", "chatml", "`output` is null");
    refuses("{\"instruction\": \"a\", \"output\": \"b\", \"history\": \"c\"}", "chatml", "`history` is a string");
    refuses("{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"c\", \"d\", \"e\"]]}", "chatml", "no pair");
    refuses("{\"text\": null}", "chatml", "`text` is null");
    refuses(MESSAGES(M("user", "[{\"type\": \"image_url\", \"image_url\": {}}]")), "chatml",
            "a part of type \"image_url\"");
    refuses(MESSAGES(M("user", "[{\"type\": \"input_audio\"}]")), "chatml", "a part of type \"input_audio\"");
    refuses(MESSAGES(M("user", "\"a\\u0000b\"")), "chatml", "holds a NUL");
    refuses("{\"messages\": \"hello\"}", "chatml", "`messages` is a string, not a list");
    refuses("{\"messages\": [" M("user", "\"a\"") "], \"tools\": [{\"name\": \"f\"}]}", "chatml",
            "the template chatml has no form");
    refuses("{\"instruction\": \"a\", \"input\": \"b\"}", "chatml", "no known shape");
    refuses("{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"function_call\", \"value\": "
            "\"f()\"}]}",
            "qwen3", "no JSON object");
}

/* Tools nested deeper than is written are none, not a part of them. */
static void test_deep(void)
{
    enum { DEEP = 600 };
    char open[DEEP + 1], close[DEEP + 1];

    memset(open, '[', DEEP), memset(close, ']', DEEP), open[DEEP] = close[DEEP] = 0;
    char *line = xasprintf("{\"messages\": [" M("user", "\"a\"") "], \"tools\": [%s%s]}", open, close);
    refuses(line, "qwen3", "`tools` is nested deeper than 512");
    free(line);
    line = xasprintf("{\"messages\": [" M("user", "\"a\"") ", {\"role\": \"assistant\", \"tool_calls\": [{\"name\": "
                     "\"f\", \"arguments\": %s%s}]}]}", open, close);
    refuses(line, "qwen3", "`arguments` is nested deeper than 512");
    free(line);
}

/* What is beside a tokenizer. */
static void finds(const char *text, const char *want)
{
    char *path = xasprintf("%s/chat_template.jinja", getenv("TMPDIR"));
    char *tokenizer_path = xasprintf("%s/x", getenv("TMPDIR"));
    FILE *f = fopen(path, "w");
    chat_template is;

    CHECK(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", path);
    const int status = chat_template_find(&is, tokenizer_path, tok, &err);
    const char *got = status ? err.text : chat_template_name(is);
    ok(status ? err.config && strstr(got, want) : strcmp(got, want) == 0, "a template that is %s: %s", want, got);
    free(path);
    free(tokenizer_path);
}

#define TURN "{{- '<|im_start|>' + message.role + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
#define TOOLS "{{- \"\\n</tools>\\n\\nFor each function call\" }}{{ '# Tools\\n' }}{{- '\\n<tool_response>\\n' }}"
#define THINKS "{% set ns.last_query_index = 1 %}{{ '\\n</think>\\n\\n' }}{% if enable_thinking is false %}"
static void test_templates(void)
{
    finds("{# You are a pirate #}\n{% for message in messages %}" TURN "{% endfor %}\n", "chatml");
    finds("{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}",
          "chatml");
    finds(TURN TOOLS, "qwen3-instruct");
    finds(TURN TOOLS "{{ 'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.' }}", "qwen2.5");
    finds(TURN TOOLS THINKS, "qwen3");
    finds(TURN TOOLS "{{ '<|im_start|>system\\nPlease reason step by step' }}", "'<|im_start|>system Please reason");
    finds(TURN TOOLS THINKS "Be brief.", "writes 'Be brief.'");
    finds(TURN "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}", "You are a helpful assistant");
    finds(TURN TOOLS "{{ '<think>\\n' }}", "writes '<think> '");
    finds("[INST] {{ message }}", "no chat template that is known here;");
}

static void test_python(void)
{
    static const char *const cases[][2] = {
        {"{\"a\":1,\"b\":[1.0,2.50,1e5,1E16,1e-7,-0,-0.0,1e400,123456789012345678901234567890]}",
         "{\"a\": 1, \"b\": [1.0, 2.5, 100000.0, 1e+16, 1e-07, 0, -0.0, Infinity, 123456789012345678901234567890]}"},
        {"  [ true,false , null,\"\\u00e9\\/\\\"\\n\\u001f\", {} , [ ] ]  ",
         "[true, false, null, \"\xC3\xA9/\\\"\\n\\u001f\", {}, []]"},
        {"0.1", "0.1"},
        {"1234567.125", "1234567.125"},
        {"0.0001", "0.0001"},
        {"0.00001", "1e-05"}};
    json_value v;
    json_fault fault;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK(json_value_read(&v, cases[i][0], strlen(cases[i][0]), &fault) == 0, "%s", fault.why);
        char *text = json_value_python(v);
        ok(strcmp(text, cases[i][1]) == 0, "as Python writes it: %s", text);
        free(text);
    }
}

int main(void)
{
    tok = tokenizer_open("tests/golden/bpe/tokenizer.json", &err);
    CHECK(tok, "%s", err.text);
    test_golden();
    test_shapes();
    test_refusals();
    test_deep();
    test_templates();
    test_python();
    tokenizer_free(tok);
    return tap_done();
}
