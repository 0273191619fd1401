/* fuzz-tokenizer-json.c: tokenizer.json of an import, whose pieces are compared with those of tokenizer.model.  Our own
 * export has the same. */
#include "io/hf/hf.h"
#include "io/text/tokenizer.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static tokenizer *t;

void fuzz_start(void)
{
    const model_config cfg = {.max_position_embeddings = 32};
    token_difference d;
    moai_error err;
    size_t n;

    mkdir("export", 0777);
    fuzz_tokenizer("tokenizer.model");
    t = tokenizer_open("tokenizer.model", &err);
    CHECK(t && hf_write_tokenizer("export", "tokenizer.model", &cfg, &err) == 0, "%s", err.text);
    char *text = fuzz_read("export/tokenizer.json", &n);
    CHECK(hf_compare_tokens(&d, "tokenizer.json", text, n, t, &err) == 0 && d.n_both > 0 && d.n_different == 0,
          "our own is another: %lld of %lld", (long long)d.n_different, (long long)d.n_both);
    free(text);
}

void fuzz_seeds(void)
{
    fuzz_seed_file("export", "export/tokenizer.json");
    fuzz_seed_text(
        "bpe",
        "{\"version\": \"1.0\", \"added_tokens\": [{\"id\": 3, \"content\": \"<|endoftext|>\"}],\n"
        "\"model\": {\"type\": \"BPE\", \"vocab\": {\"<unk>\": 0, \"a\": 300, \"\\u2581the\": 301, \"b\": 1e9},\n"
        "\"merges\": [\"a b\", [\"c\", \"d\"]]}}");
    fuzz_seed_text("unigram",
                   "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"<unk>\", 0], [\"a\", -1.5], [\"\", -2]]}}");
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    return fuzz_mutate_json(data, size, max_size, seed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xmalloc(size + 1);
    token_difference d;
    moai_error err;

    memcpy(text, data, size);
    if (hf_compare_tokens(&d, "tokenizer.json", text, size, t, &err) == 0)
        CHECK(d.n_different >= 0 && d.n_different <= d.n_both && d.n_both <= tokenizer_vocab_size(t),
              "%lld of %lld differ", (long long)d.n_different, (long long)d.n_both);
    free(text);
    return 0;
}
