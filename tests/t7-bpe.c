/* t7-bpe.c: tokenizer.json: the ids of Hugging Face's tokenizers (tests/golden/bpe), texts that come back, special
 * names that stay text; and what is refused. */
#include "io/text/bpe.h"
#include "io/text/nfc.h"
#include "io/text/tokenizer.h"
#include "src/base/rng.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <jansson.h>

typedef struct row {
    int32_t *ids;
    int64_t n, capacity;
} row;

static bool comes_back(const tokenizer *t, const char *text, row *r)
{
    moai_error err;
    size_t n_back, n_normal;
    char *normal;

    r->n = 0;
    CHECK(tokenizer_encode(t, text, strlen(text), &r->ids, &r->n, &r->capacity, &err) == 0, "%s", err.text);
    char *back = tokenizer_decode(t, r->ids, r->n, &n_back);
    CHECK(tokenizer_normalize(t, text, strlen(text), &normal, &n_normal, &err) == 0, "%s", err.text);
    const bool same = n_back == n_normal && memcmp(back, normal, n_back) == 0;
    free(back);
    free(normal);
    return same;
}

static void test_golden(const tokenizer *t)
{
    json_t *rows = json_load_file("tests/golden/bpe/texts.json", 0, NULL), *one;
    int64_t n_wrong = 0, n_lost = 0, n_plain = 0;
    moai_error err;
    size_t i, k;
    row r = {0}, plain = {0};

    json_array_foreach(rows, i, one)
    {
        const char *text = json_string_value(json_object_get(one, "text"));
        const json_t *ids = json_object_get(one, "ids");
        for (int round = 0; round < 2; round++) { /* the second time from the table of recent words */
            r.n = 0;
            CHECK(tokenizer_encode_special(t, text, strlen(text), &r.ids, &r.n, &r.capacity, &err) == 0, "%s",
                  err.text);
            bool same = (size_t)r.n == json_array_size(ids);
            for (k = 0; same && k < (size_t)r.n; k++) same = r.ids[k] == json_integer_value(json_array_get(ids, k));
            n_wrong += !same;
        }
        n_lost += !comes_back(t, text, &r);
        plain.n = 0;
        CHECK(tokenizer_encode_plain(t, text, strlen(text), &plain.ids, &plain.n, &plain.capacity, &err) == 0, "%s",
              err.text);
        n_plain += plain.n != r.n || memcmp(plain.ids, r.ids, (size_t)r.n * sizeof *r.ids) != 0;
    }
    ok(json_array_size(rows) == 250 && n_wrong == 0, "ids of %zu texts are those of tokenizers, but for %lld",
       json_array_size(rows), (long long)n_wrong);
    ok(n_lost == 0, "their plain tokens give each back in form C, but for %lld", (long long)n_lost);
    ok(n_plain == 0, "and are those of words merged anew, but for %lld", (long long)n_plain);
    json_decref(rows);
    free(r.ids);
    free(plain.ids);
}

static void test_special(const tokenizer *t)
{
    const char *text = "a <|im_end|> b<think>c</think>";
    const int32_t end = tokenizer_special(t, "<|im_end|>"), think = tokenizer_id(t, "<think>");
    row r = {0};
    int n_end = 0, n_think = 0;
    size_t n;

    ok(end > 0 && tokenizer_special(t, "<think>") < 0 && tokenizer_special(t, "a") < 0 && think > 0 &&
           tokenizer_special(t, "<|nothing|>") < 0,
       "special tokens by their names");
    ok(comes_back(t, text, &r), "names in a text come back");
    for (int64_t i = 0; i < r.n; i++) n_end += r.ids[i] == end, n_think += r.ids[i] == think;
    ok(n_end == 0 && n_think == 1, "a special one is text, an added one that is not special a token");
    ok(strcmp(tokenizer_bytes(t, think, &n), "<think>") == 0 && n == 7 && (tokenizer_bytes(t, end, &n), n == 0) &&
           tokenizer_eos(t) == tokenizer_special(t, "<|endoftext|>") && tokenizer_pad(t) == tokenizer_eos(t) &&
           tokenizer_vocab_size(t) == 907 && tokenizer_is_json(t),
       "what ids stand for, and ends, of the file beside");
    const int32_t ids[] = {end, 70, 100000, -1};
    char *back = tokenizer_decode(t, ids, 4, &n);
    ok(n > 6 && strstr(back, "\xEF\xBF\xBD\xEF\xBF\xBD"), "ids that are none are U+FFFD: \"%s\"", back);
    free(back);
    free(r.ids);
}

/* Long words by a heap, short ones by looking: the same joins. */
static void test_merges(void)
{
    bpe *b = bpe_new();
    int32_t n = 256, ids[4000], joined[4000];
    int n_wrong = 0;

    for (int i = 0; i < 256; i++) CHECK(bpe_add(b, i, (char[]){(char)i}, 1), "byte %d", i);
    for (int64_t i = 0; n < 900; i++) { /* of a, b, c: any two tokens */
        const bpe_token *x =
                            bpe_token_of(b, (int32_t)(rng_uniform(1, (uint64_t)i * 2) * (n - 253)) < 3
                                                ? 'a' + (int32_t)(rng_uniform(3, (uint64_t)i) * 3)
                                                : 256 + (int32_t)(rng_uniform(4, (uint64_t)i) * (n - 256)) % (n - 255)),
                        *y = bpe_token_of(b, 'a' + (int32_t)(rng_uniform(5, (uint64_t)i) * 3));
        char *both;
        if (!x->is_there) continue;
        both = xasprintf("%.*s%.*s", (int)x->n_bytes, x->bytes, (int)y->n_bytes, y->bytes);
        const int32_t left = bpe_find(b, x->bytes, x->n_bytes), right = bpe_find(b, y->bytes, y->n_bytes);
        if (bpe_add(b, n, both, strlen(both))) bpe_add_pair(b, left, right, n++);
        free(both);
    }
    CHECK(bpe_seal(b) < 0, "a byte is missing");
    for (uint64_t i = 0; i < 300; i++) {
        char word[4000];
        const size_t length = i % 3 ? 49 + i : 3999;
        for (size_t k = 0; k < length; k++) word[k] = (char)('a' + (int)(rng_uniform(7 + i, k) * 3));
        const size_t got = bpe_encode(b, word, length, ids);
        /* the least pair, the leftmost of equals, over and over */
        size_t m = length;
        for (size_t k = 0; k < m; k++) joined[k] = (unsigned char)word[k];
        for (;;) {
            int32_t best = INT32_MAX;
            size_t at = 0;
            for (size_t k = 0; k + 1 < m; k++) {
                const bpe_token *x = bpe_token_of(b, joined[k]), *y = bpe_token_of(b, joined[k + 1]);
                char both[8100];
                const int n_both =
                    snprintf(both, sizeof both, "%.*s%.*s", (int)x->n_bytes, x->bytes, (int)y->n_bytes, y->bytes);
                const int32_t whole = y->n_bytes == 1 ? bpe_find(b, both, (size_t)n_both) : -1;
                if (whole >= 0 && whole < best) best = whole, at = k;
            }
            if (best == INT32_MAX) break;
            joined[at] = best;
            memmove(joined + at + 1, joined + at + 2, (--m - at - 1) * sizeof *joined);
        }
        n_wrong += m != got || memcmp(joined, ids, m * sizeof *ids) != 0;
    }
    ok(n_wrong == 0, "300 words of 50 to 3999 bytes are joined as by looking at all pairs for each: %d are not",
       n_wrong);
    bpe_free(b);
}

static void test_nfc(void)
{
    static const char *const cases[][2] = {{"e\xCC\x81", "\xC3\xA9"},
                                           {"\xE2\x84\xAB", "\xC3\x85"},
                                           {"\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"},
                                           {"a\xCC\xA3\xCC\x82", "\xE1\xBA\xAD"},
                                           {"a\xCC\x82\xCC\xA3", "\xE1\xBA\xAD"},
                                           {"\xE0\xA5\x98", "\xE0\xA4\x95\xE0\xA4\xBC"},
                                           {"\xEF\xAC\x81", "\xEF\xAC\x81"},
                                           {"x\xCC\x81y", "x\xCC\x81y"},
                                           {"", ""},
                                           {"\xCC\x81", "\xCC\x81"}};
    moai_error err;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *to;
        size_t n;
        CHECK(nfc_normalize(cases[i][0], strlen(cases[i][0]), &to, &n, &err) == 0, "%s", err.text);
        ok(strcmp(to, cases[i][1]) == 0 && n == strlen(to), "form C of \"%s\" is \"%s\"", cases[i][0], to);
        free(to);
    }
}

/* The golden file with one value changed. */
static void refuses(const char *path, const char *value, const char *want)
{
    char *file = in_tmp("other.json"), *key = xstrdup(path), *at = key;
    json_t *root = json_load_file("tests/golden/bpe/tokenizer.json", 0, NULL), *o = root;
    moai_error err = {.text = "it is taken"};

    for (char *dot; (dot = strchr(at, '.')); at = dot + 1) {
        *dot = 0;
        o = *at >= '0' && *at <= '9' ? json_array_get(o, (size_t)atoi(at)) : json_object_get(o, at);
    }
    json_object_set_new(o, at, json_loads(value, JSON_DECODE_ANY, NULL));
    json_dump_file(root, file, 0);
    tokenizer *t = tokenizer_open(file, &err);
    ok(!t && err.config && strstr(err.text, want) && strstr(err.text, file), "%s %s: %s", path, value, err.text);
    tokenizer_free(t);
    json_decref(root);
    free(key);
    free(file);
}

static void test_refusals(void)
{
    refuses("model.type", "\"WordPiece\"", "WordPiece");
    refuses("model.type", "\"Unigram\"", "Unigram");
    refuses("model.dropout", "0.1", "dropout");
    refuses("model.byte_fallback", "true", "byte_fallback");
    refuses("model.continuing_subword_prefix", "\"##\"", "continuing_subword_prefix");
    refuses("model.vocab", "{\"a\": 0}", "model.merges: number 0");
    refuses("model.vocab", "{\"\\u2581the\": 0}", "not a byte-level vocabulary");
    refuses("model.vocab.!", "67108953", "token \"!\" has the id 67108953"); /* gigabytes of none */
    refuses("model.merges", "7", "no list");
    refuses("normalizer", "{\"type\": \"Lowercase\"}", "Lowercase");
    refuses("normalizer", "{\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"NFKC\"}]}", "NFKC");
    refuses("pre_tokenizer", "{\"type\": \"Metaspace\"}", "Metaspace");
    refuses("pre_tokenizer", "null", "no pre_tokenizer");
    refuses("pre_tokenizer.pretokenizers.0.behavior", "\"Removed\"", "Removed");
    refuses("pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"(a\"}", "the pattern (a");
    refuses("pre_tokenizer.pretokenizers.0.pattern", "{\"Regex\": \"[^\\\\S]\"}", "\\S within a set");
    refuses("decoder", "null", "decoder");
    refuses("added_tokens.0.lstrip", "true", "lstrip of \"<|endoftext|>\"");
    refuses("added_tokens.0.id", "5", "one text has two ids");
}

int main(void)
{
    moai_error err;
    tokenizer *t = tokenizer_open("tests/golden/bpe/tokenizer.json", &err);

    CHECK(t, "%s", err.text);
    test_golden(t);
    test_special(t);
    test_merges();
    test_nfc();
    test_refusals();
    tokenizer_free(t);
    return tap_done();
}
