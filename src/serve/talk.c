/* talk.c: see talk.h */
#include "src/serve/talk.h"

#include "src/json/json_value.h"
#include "src/serve/prompt_file.h"
#include "src/serve/text_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int32_t talk_end(const tokenizer *t) { return tokenizer_special(t, "<|im_end|>"); }

int talk_ask(const conversation *c, const talk_options *o, const tokenizer *tok, int32_t **ids, int64_t *n,
             int64_t *capacity, moai_error *err)
{
    const chat_options asks = {.asks = true, .thinks = o->thinks};
    uint8_t *trained = NULL;
    chat_text text = {0};
    int status = conversation_check_prompt(c, err);

    if (!status) status = chat_render(&text, o->template, c, &asks, err);
    if (!status) status = chat_encode(&text, tok, -1, ids, &trained, n, capacity, err);
    chat_text_free(&text);
    free(trained);
    return status;
}

/* -- conversations of a file -- */

static int use_one(const char *name, const char *text, size_t n_bytes,
                   int (*use)(void *, const char *, const conversation *, moai_error *), void *arg, moai_error *err)
{
    conversation c;
    moai_error why;
    int status = conversation_read(&c, text, n_bytes, &why);

    if (!status) status = use(arg, name, &c, &why);
    if (status) error_config(err, "%s: %s", name, why.text);
    conversation_free(&c);
    return status;
}

int talk_each(const char *name, const char *text, size_t n_bytes,
              int (*use)(void *, const char *, const conversation *, moai_error *), void *arg, moai_error *err)
{
    prompt_lines lines = {text, text + n_bytes, 0};
    json_value whole;
    json_fault fault;
    const char *line;
    size_t n;
    int status = 0, n_used = 0;

    if (json_value_read(&whole, text, n_bytes, &fault) == 0) {
        char *messages = whole.kind == VALUE_ARRAY ? xasprintf("{\"messages\": %.*s}", (int)whole.n_bytes, whole.text)
                                                   : xasprintf("%.*s", (int)whole.n_bytes, whole.text);
        status = use_one(name, messages, strlen(messages), use, arg, err);
        free(messages);
        return status;
    }
    for (; !status && prompt_lines_next(&lines, &line, &n); n_used++) {
        char *place = xasprintf("%s:%lld", name, (long long)lines.number);
        status = use_one(place, line, n, use, arg, err);
        free(place);
    }
    return !status && n_used == 0 ? error_config(err, "%s holds no conversation", name) : status;
}

/* -- a conversation -- */

typedef struct talker {
    decoder *decoder;
    const tokenizer *tokenizer;
    const talk_options *options;
    int64_t max_len;
    conversation so_far;
    text_stream stream;
} talker;

static void begin_anew(talker *t)
{
    conversation_free(&t->so_far);
    if (*t->options->system) conversation_add(&t->so_far, ROLE_SYSTEM, t->options->system);
}

static void show(void *arg, const sequence *list, int64_t i, bool finished)
{
    talker *t = arg;
    char *added = text_stream_next(&t->stream, list[i].ids, list[i].n, finished);

    if (base_process.printer) fputs(added, stdout), output_flush();
    free(added);
}

/* The answer to what has been said, shown, and a part of the conversation then. */
static int answer(talker *t, moai_error *err)
{
    generate_options o = t->options->generate;
    sequence q = {0};
    int64_t capacity = 0;
    generate_rates r;

    if (talk_ask(&t->so_far, t->options, t->tokenizer, &q.ids, &q.n, &capacity, err)) return free(q.ids), -1;
    if (q.n + o.max_new_tokens > t->max_len) {
        say("the conversation has %lld tokens, and %lld may be written: more than %lld; /new begins another",
            (long long)q.n, (long long)o.max_new_tokens, (long long)t->max_len);
        free(q.ids);
        return 0;
    }
    CHECK(q.ids = realloc(q.ids, (size_t)(q.n + o.max_new_tokens) * sizeof *q.ids), "out of host memory");
    q.n_prompt = q.n;
    t->stream = (text_stream){.tokenizer = t->tokenizer, .shown = q.n};
    generate(t->decoder, &q, 1, &o, show, t, &r);
    if (base_process.printer) putchar('\n'), output_flush();
    char *text = tokenizer_decode(t->tokenizer, q.ids + q.n_prompt, q.n - q.n_prompt, NULL);
    conversation_add(&t->so_far, ROLE_ASSISTANT, text);
    free(text);
    free(q.ids);
    return 0;
}

/* The next line that is not empty, on every rank; NULL: the end.  Caller frees. */
static char *next_line(const comm *world)
{
    char *line = NULL;
    size_t room = 0, n_bytes = 0;

    while (world->rank == 0) {
        if (isatty(STDIN_FILENO)) fputs("> ", stderr), fflush(stderr);
        const ssize_t n = getline(&line, &room, stdin);
        if (n < 0) break;
        n_bytes = (size_t)n;
        while (n_bytes > 0 && strchr("\r\n", line[n_bytes - 1])) n_bytes--;
        line[n_bytes++] = 0;
        if (n_bytes > 1) break;
        n_bytes = 0;
    }
    comm_broadcast_bytes(world, &line, &n_bytes, 0);
    if (n_bytes > 0) return line;
    free(line);
    return NULL;
}

int talk_on(decoder *d, const tokenizer *tok, const talk_options *o, int64_t max_len, const comm *world,
            moai_error *err)
{
    talker t = {.decoder = d, .tokenizer = tok, .options = o, .max_len = max_len};
    int status = 0;

    begin_anew(&t);
    for (char *line; !status && (line = next_line(world));) {
        const bool ends = strcmp(line, "/exit") == 0;
        if (strcmp(line, "/new") == 0) {
            begin_anew(&t);
        } else if (!ends) {
            const int before = t.so_far.n;
            conversation_add(&t.so_far, ROLE_USER, line);
            status = answer(&t, err);
            if (t.so_far.n == before + 1) begin_anew(&t);     /* it was too long */
        }
        free(line);
        if (ends) break;
    }
    conversation_free(&t.so_far);
    return status;
}
