/* fuzz-tokenizer.c: tokenizer.model, a protocol buffer that SentencePiece reads.  What opens encodes, decodes and is
 * exported as tokenizer.json. */
#include "io/hf/hf.h"
#include "io/text/tokenizer.h"
#include "src/serve/text_stream.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static model_config cfg = {.max_position_embeddings = 32};

void fuzz_start(void) { mkdir("export", 0777); }

void fuzz_seeds(void)
{
    fuzz_tokenizer("tokenizer.model");
    fuzz_seed_file("trained", "tokenizer.model");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = " the cat  12\n\xE2\x96\x81\xC3\xA9\xF0\x9F\x98\x80<|im_end|>\t\r\n";
    moai_error err;
    piece_kind kind;
    int32_t *ids = NULL;
    int64_t n = 0, room = 0;
    size_t n_bytes;

    fuzz_write("tokenizer.model", data, size);
    tokenizer *t = tokenizer_open("tokenizer.model", &err);
    if (!t) return 0;
    const int64_t vocab_size = tokenizer_vocab_size(t);
    const int32_t eos = tokenizer_eos(t), pad = tokenizer_pad(t);
    CHECK(eos < vocab_size && pad < vocab_size, "eos %d, pad %d of %lld", eos, pad, (long long)vocab_size);
    for (int32_t id = 0; id < vocab_size && id < 1000; id++) tokenizer_id(t, tokenizer_piece(t, id, &kind));
    if (tokenizer_encode(t, text, sizeof text - 1, &ids, &n, &room, &err) == 0) {
        text_stream stream = {.tokenizer = t};
        for (int64_t i = 0; i < n; i++)
            CHECK(ids[i] >= 0 && ids[i] < vocab_size, "id %d of %lld", ids[i], (long long)vocab_size);
        for (int64_t i = 1; i <= n; i++) free(text_stream_next(&stream, ids, i, i == n));
        free(tokenizer_decode(t, ids, n, &n_bytes));
    }
    free(tokenizer_decode(t, (const int32_t[]){-1, 0, INT32_MAX, 1}, 4, &n_bytes));
    free(ids);
    tokenizer_free(t);
    hf_write_tokenizer("export", "tokenizer.model", &cfg, &err);
    return 0;
}
