/* Text that comes token by token: well-formed at every moment, and in the end what decoding the whole list gives. */
#include "src/base/utf8.h"
#include "src/serve/text_stream.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char corpus[] = "the sea and the river and the bridge between them\nthe river climbs, the sea does not\n";
static const char sample[] = "the river: \xE6\x9D\xB1\xE4\xBA\xAC, caf\xC3\xA9, \xF0\x9F\x8C\x8A and  the\tsea\n";

static tokenizer *train(void)
{
    char *text = xasprintf("%s/corpus.txt", getenv("TMPDIR")), *prefix = xasprintf("%s/tok", getenv("TMPDIR"));
    char *model = xasprintf("%s.model", prefix);
    const tokenizer_train_options opt = {.vocab_size = 300, .character_coverage = 0.9995, .n_threads = 1};
    moai_error err;
    FILE *f = fopen(text, "w");

    CHECK(f, "cannot write %s", text);
    for (int i = 0; i < 50; i++) fputs(corpus, f);
    fclose(f);
    CHECK(!tokenizer_train((const char *const[]){text}, 1, prefix, &opt, &err), "%s", err.text);
    tokenizer *t = tokenizer_open(model, &err);
    CHECK(t, "%s", err.text);
    free(text);
    free(prefix);
    free(model);
    return t;
}

/* What is shown of ids [n_prompt, n) from token to token, all of it; *well_formed tells of every piece. */
static char *stream(const tokenizer *t, const int32_t *ids, int64_t n_prompt, int64_t n, bool *well_formed,
                    int *n_empty)
{
    text_stream s = {.tokenizer = t, .shown = n_prompt};
    char *text = xstrdup("");

    *well_formed = true;
    *n_empty = 0;
    for (int64_t i = n_prompt + 1; i <= n; i++) {
        char *piece = text_stream_next(&s, ids, i, i == n), *longer = xasprintf("%s%s", text, piece);
        *well_formed &= utf8_find_invalid(piece, strlen(piece)) < 0;
        *n_empty += *piece == 0;
        free(piece);
        free(text);
        text = longer;
    }
    return text;
}

static void test_whole(const tokenizer *t)
{
    int32_t *ids = NULL;
    int64_t n = 0, room = 0;
    moai_error err;
    bool well_formed;
    int n_empty;

    CHECK(!tokenizer_encode(t, sample, strlen(sample), &ids, &n, &room, &err), "%s", err.text);
    for (int64_t n_prompt = 0; n_prompt < 3; n_prompt++) {
        size_t n_before;
        char *before = tokenizer_decode(t, ids, n_prompt, &n_before);
        char *text = stream(t, ids, n_prompt, n, &well_formed, &n_empty);
        ok(well_formed, "behind %lld tokens: every piece is well-formed", (long long)n_prompt);
        ok(strcmp(text, sample + n_before) == 0, "and together they are the text, %zu bytes", strlen(text));
        ok(n_empty == 2 + 2 + 1 + 3, "waiting within characters of 3, 3, 2 and 4 bytes: %d times", n_empty);
        free(before);
        free(text);
    }
    free(ids);
}

static int32_t byte_token(const tokenizer *t, int byte)
{
    char name[8];

    snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte & 255);
    return tokenizer_id(t, name);
}

static void expect(const tokenizer *t, const char *bytes, int64_t n, const char *expected, const char *what)
{
    int32_t ids[16];
    bool well_formed;
    int n_empty;

    for (int64_t i = 0; i < n; i++) ids[i] = byte_token(t, bytes[i]);
    char *text = stream(t, ids, 0, n, &well_formed, &n_empty);
    ok(well_formed && strcmp(text, expected) == 0, "%s: \"%s\"", what, text);
    free(text);
}

static void test_broken(const tokenizer *t)
{
    expect(t, "a\x80z", 3, "a\xEF\xBF\xBDz", "a stray byte");
    expect(t, "\xE6\x9D", 2, "\xEF\xBF\xBD", "a character that the end cuts off");
    expect(t, "\xE6\x9Dz", 3, "\xEF\xBF\xBDz", "one that another character cuts off");
    expect(t, "\xF0\x9F\x8C\x8A", 4, "\xF0\x9F\x8C\x8A", "a whole one");
    expect(t, "\xEF\xBF\xBD!", 4, "\xEF\xBF\xBD!", "the replacement character itself");
    expect(t, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz", 10, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz", "and several");
    expect(t, "a\xE6\0\xE6\0b", 6, "a\xEF\xBF\xBD\xEF\xBF\xBD" "b", "a NUL hides nothing behind it");
    expect(t, "\xF0\xF0\xF0\xF0\xF0\xF0z", 7,
           "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz", "nothing but beginnings");
}

/* A model that adds a space in front, as SentencePiece's default and Llama's do: its Decode takes one away, but only in
 * front of all.  What protobuf reads behind a model is merged into it: normalizer_spec.add_dummy_prefix. */
static void test_added_space(void)
{
    char *path = xasprintf("%s/tok.model", getenv("TMPDIR"));
    int32_t *ids = NULL;
    int64_t n = 0, room = 0;
    moai_error err;
    bool well_formed;
    int n_empty;
    FILE *f = fopen(path, "ab");

    CHECK(f && fwrite("\x1A\x02\x18\x01", 1, 4, f) == 4 && fclose(f) == 0, "%s", path);
    tokenizer *t = tokenizer_open(path, &err);
    CHECK(t && !tokenizer_encode(t, "the sea", 7, &ids, &n, &room, &err), "%s", err.text);
    char *text = stream(t, ids, 0, n, &well_formed, &n_empty);
    ok(strcmp(text, "the sea") == 0, "a space in front is not shown: \"%s\"", text);
    free(text);
    ids = realloc(ids, 64 * sizeof *ids);
    CHECK(ids, "out of host memory");
    room = 64;
    ids[n++] = tokenizer_eos(t);
    CHECK(!tokenizer_encode(t, "river", 5, &ids, &n, &room, &err), "%s", err.text);
    text = stream(t, ids, 0, n, &well_formed, &n_empty);
    ok(strcmp(text, "the sea river") == 0, "one behind a control symbol is: \"%s\"", text);
    free(text), free(ids), free(path);
    tokenizer_free(t);
}

static void test_numbers(void)
{
    const int32_t ids[] = {3, 1, 40000};
    bool well_formed;
    int n_empty;
    char *text = stream(NULL, ids, 1, 3, &well_formed, &n_empty);

    ok(strcmp(text, "1 40000 ") == 0, "without a tokenizer ids are shown: \"%s\"", text);
    free(text);
}

int main(void)
{
    tokenizer *t = train();

    test_whole(t);
    test_broken(t);
    test_added_space();
    test_numbers();
    tokenizer_free(t);
    return tap_done();
}
