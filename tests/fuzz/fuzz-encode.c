/* fuzz-encode.c: any text through a good tokenizer.  Its tokens are those that SentencePiece gives the whole, and
 * spell the text, all at once and as they come. */
#include "io/text/tokenizer.h"
#include "src/base/utf8.h"
#include "src/serve/text_stream.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

static tokenizer *t;

void fuzz_start(void)
{
    moai_error err;

    fuzz_tokenizer("tokenizer.model");
    t = tokenizer_open("tokenizer.model", &err);
    CHECK(t, "%s", err.text);
}

void fuzz_seeds(void)
{
    fuzz_seed_text("words", " the cat  sat\n\n on 12 mats\r\n");
    fuzz_seed_text("more", "\xE2\x96\x81 x\xE2\x96\x81\xE2\x96\x81 \xC3\xA9\xF0\x9F\x98\x80<|im_end|><0x0A>\t");
}

/* U+2581 is a space to SentencePiece. */
static size_t with_spaces(char *text, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++) {
        const bool space = n - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0;
        text[kept++] = space ? ' ' : text[i];
        i += space ? 2 : 0;
    }
    return kept;
}

static void compare_plain(const char *text, size_t n_text, const int32_t *ids, int64_t n)
{
    int32_t *plain = NULL;
    int64_t n_plain = 0, room = 0;
    moai_error err;

    CHECK(tokenizer_encode_plain(t, text, n_text, &plain, &n_plain, &room, &err) == 0, "%s", err.text);
    CHECK(n == n_plain && (n == 0 || memcmp(ids, plain, (size_t)n * sizeof *ids) == 0),
          "%lld tokens, SentencePiece has %lld or others", (long long)n, (long long)n_plain);
    free(plain);
}

/* Piece by piece, without the NULs. */
static void compare_stream(const char *text, size_t n_text, const int32_t *ids, int64_t n)
{
    text_stream stream = {.tokenizer = t};
    size_t at = 0;

    for (int64_t i = 1; i <= n; i++) {
        char *piece = text_stream_next(&stream, ids, i, i == n);
        CHECK(utf8_find_invalid(piece, strlen(piece)) < 0, "a piece that is not UTF-8");
        for (const char *p = piece; *p; p++) {
            while (at < n_text && text[at] == 0) at++;
            CHECK(at < n_text && text[at] == *p, "byte %zu of %zu is shown as another", at, n_text);
            at++;
        }
        free(piece);
    }
    while (at < n_text && text[at] == 0) at++;
    CHECK(at == n_text, "%zu bytes shown of %zu", at, n_text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int32_t *ids = NULL;
    int64_t n = 0, room = 0;
    size_t n_text, n_back;
    moai_error err;
    char *text = utf8_repair((const char *)data, size, &n_text);

    CHECK(utf8_find_invalid(text, n_text) < 0, "repaired and not UTF-8");
    CHECK(tokenizer_encode(t, text, n_text, &ids, &n, &room, &err) == 0, "%s", err.text);
    compare_plain(text, n_text, ids, n);
    char *back = tokenizer_decode(t, ids, n, &n_back);
    n_text = with_spaces(text, n_text);
    CHECK(n_back == n_text && memcmp(back, text, n_text) == 0, "the tokens spell another text");
    compare_stream(text, n_text, ids, n);
    free(back);
    free(ids);
    free(text);
    return 0;
}
