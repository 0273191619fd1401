/* fuzz-chat.c: a conversation in a line of JSON, in all templates: its spans are its text end to end, and so are its
 * tokens; and, where it begins as Jinja does, a chat template, which is told or not. */
#include "src/base/utf8.h"
#include "src/chat/chat_template.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static tokenizer *tok;

void fuzz_start(void)
{
    moai_error err;

    fuzz_tokenizer_json("tokenizer.json");
    tok = tokenizer_open("tokenizer.json", &err);
    CHECK(tok, "%s", err.text);
}

void fuzz_seeds(void)
{
    fuzz_seed_text(
        "messages",
        "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": "
        "[{\"type\": \"text\", \"text\": \"a\"}]}, {\"role\": \"assistant\", \"content\": null, "
        "\"reasoning_content\": \"r\", \"weight\": 1, \"tool_calls\": [{\"type\": \"function\", \"function\": "
        "{\"name\": \"f\", \"arguments\": {\"a\": [1.5, null]}}}]}, {\"role\": \"tool\", \"content\": \"t\"}, "
        "{\"role\": \"assistant\", \"content\": \"<think>\\nx\\n</think>\\n\\nb\"}], \"tools\": [{\"name\": "
        "\"f\", \"parameters\": {}}]}");
    fuzz_seed_text("sharegpt",
                   "{\"system\": \"s\", \"tools\": \"[{}]\", \"conversations\": [{\"from\": \"human\", "
                   "\"value\": \"a\"}, {\"from\": \"function_call\", \"value\": \"{\\\"name\\\": \\\"f\\\", "
                   "\\\"arguments\\\": {}}\"}, {\"from\": \"observation\", \"value\": \"o\"}, {\"from\": "
                   "\"gpt\", \"value\": \"b\", \"train\": false}]}");
    fuzz_seed_text("alpaca",
                   "{\"instruction\": \"i\", \"input\": \"j\", \"output\": \"o\", \"history\": [[\"p\", \"q\"]]}");
    fuzz_seed_text("prompt", "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], \"completion\": [{\"role\": "
                             "\"assistant\", \"content\": \"b\"}]}");
    fuzz_seed_text("text", "{\"text\": \"e\\u0301 <|im_end|>\"}");
    fuzz_seed_text("template", "{# c #}{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
                               "{{ message['content'] + \"<|im_end|>\" }}{% endfor %}\n");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return size > 1 && strchr("{%#", data[1]) ? LLVMFuzzerMutate(data, size, max_size)
                                              : fuzz_mutate_json(data, size, max_size, seed);
}

static void check_spans(const chat_text *t)
{
    size_t at = 0;

    for (int i = 0; i < t->n_spans; i++) {
        CHECK(t->spans[i].begin == at && t->spans[i].n_bytes > 0, "span %d begins at %zu", i, t->spans[i].begin);
        at += t->spans[i].n_bytes;
    }
    CHECK(at == t->n_bytes && strlen(t->text) == at, "%zu of %zu bytes", at, t->n_bytes);
}

static void render(const conversation *c, chat_template is, bool training)
{
    const chat_options o = {.training = training, .asks = !training, .thinks = training, .last_turn_only = training};
    chat_text t;
    int32_t *ids = NULL;
    uint8_t *trained = NULL;
    int64_t n = 0, capacity = 0;
    moai_error err;

    if (chat_render(&t, is, c, &o, &err) == 0) {
        check_spans(&t);
        if (utf8_count_invalid(t.text, t.n_bytes) == 0) /* as the reader of lines has seen to */
            CHECK(chat_encode(&t, tok, -1, &ids, &trained, &n, &capacity, &err) == 0, "%s", err.text);
    }
    chat_text_free(&t);
    free(ids);
    free(trained);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *line = xmalloc(size + 1);
    conversation c;
    chat_template is;
    moai_error err;

    memcpy(line, data, size);
    if (size > 1 && line[0] == '{' && strchr("{%#", line[1])) {
        fuzz_write("chat_template.jinja", data, size);
        (void)chat_template_find(&is, "tokenizer.json", tok, &err);
    } else {
        if (conversation_read(&c, line, size, &err) == 0)
            for (is = TEMPLATE_QWEN3; is <= TEMPLATE_CHATML; is++) render(&c, is, false), render(&c, is, true);
        conversation_free(&c);
    }
    free(line);
    return 0;
}
