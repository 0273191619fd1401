/* fuzz-bpe.c: tokenizer.json that text is encoded by.  What is opened gives texts back, where it says so, and has only
 * ids of its vocabulary. */
#include "io/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

void fuzz_start(void) {}

void fuzz_seeds(void)
{
    fuzz_tokenizer_json("seed.json");
    fuzz_seed_file("small", "seed.json");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

static void encode(const tokenizer *t, const char *text)
{
    int32_t *ids = NULL;
    int64_t n = 0, capacity = 0;
    size_t n_normal = 0, at = 0;
    char *normal = NULL;
    moai_error err;

    if (tokenizer_normalize(t, text, strlen(text), &normal, &n_normal, &err) == 0 &&
        tokenizer_encode(t, normal, n_normal, &ids, &n, &capacity, &err) == 0)
        for (int64_t i = 0; i < n; i++) {
            size_t n_bytes;
            CHECK(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t), "id %d of %lld", ids[i],
                  (long long)tokenizer_vocab_size(t));
            const char *bytes = tokenizer_bytes(t, ids[i], &n_bytes);
            if (!tokenizer_gives_back(t)) continue;
            CHECK(at + n_bytes <= n_normal && memcmp(normal + at, bytes, n_bytes) == 0, "token %lld of '%s' is another",
                  (long long)i, text);
            at += n_bytes;
        }
    free(normal);
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const texts[] = {"",
                                        " ",
                                        "the cat, the  dog\r\n\n12 34",
                                        "<|im_end|><think>a</think>",
                                        "e\xCC\x81 \xE4\xB8\x96\xE7\x95\x8C \xF0\x9F\x91\x8D",
                                        "It's DON'T\t\v"};
    moai_error err;

    fuzz_write("tokenizer.json", data, size);
    tokenizer *t = size && data[0] == '{' ? tokenizer_open("tokenizer.json", &err) : NULL;
    if (!t) return 0;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) encode(t, texts[i]);
    for (int32_t id = -1; id <= 300; id++) {
        piece_kind kind;
        if (id >= 0 && id < tokenizer_vocab_size(t)) tokenizer_piece(t, id, &kind);
    }
    tokenizer_free(t);
    return 0;
}
