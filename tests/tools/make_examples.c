/* make_examples DIR VOCAB N LENGTH: marked shards of N examples to tune on, in a made-up language that a small model
 * can learn, of 4 to LENGTH + 1 tokens, of which a prompt is not trained; among them some that are longer, and some
 * without a trained token.  Two shards of training, one of a third as many for validation. */
#include "io/data/shard.h"
#include "io/file/hash.h"
#include "src/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EOS = 1, MOST = 4096 };

static moai_error err;
static uint64_t draws;

static double draw(void) { return rng_uniform(rng_key(11, "examples"), draws++); }

static void add_example(shard_writer *w, int64_t vocab, int64_t longest)
{
    const double kind = draw(), share = draw();
    const int64_t n = 4 + (int64_t)(draw() * (double)(longest - 2)), length = kind < 0.05 ? longest + 2 + n : n,
                  prompt = kind > 0.95 ? length : (int64_t)(share * (double)(length - 1));
    int32_t ids[MOST];
    uint8_t trained[MOST];

    CHECK(length <= MOST, "%lld tokens", (long long)length);
    for (int64_t i = 0, word = 2; i < length; i++) {
        const double u = draw();
        word = u < 0.9 ? 2 + (word * 5 + 3) % (vocab - 2) : 2 + (int64_t)((double)(vocab - 2) * draw() * draw());
        ids[i] = (int32_t)word;
        trained[i] = i >= prompt;
    }
    CHECK(shard_append(w, ids, trained, length, &err) == 0, "%s", err.text);
}

static void write_examples(manifest_shard *s, const char *dir, const char *name, const shard_info *info, int64_t n,
                           int64_t longest)
{
    *s = (manifest_shard){.path = xasprintf("%s/%s", dir, name), .documents = n};
    shard_writer *w = shard_create(s->path, info, &err);
    CHECK(w, "%s", err.text);
    for (int64_t i = 0; i < n; i++) add_example(w, info->vocab_size, longest);
    s->tokens = shard_n_tokens(w);
    s->counted = shard_n_counted(w);
    CHECK(shard_close(w, &err) == 0 && file_xxh3(s->path, s->xxh3, &s->bytes, &err) == 0, "%s", err.text);
}

int main(int argc, char **argv)
{
    CHECK(argc == 5, "make_examples DIR VOCAB N LENGTH");
    shard_info info = {.vocab_size = atoll(argv[2]), .eos = EOS, .pad = 0, .is_marked = true};
    const int64_t n = atoll(argv[3]), longest = atoll(argv[4]);
    manifest_shard list[3];

    memset(info.tokenizer_sha256, '0', 64);
    write_examples(&list[0], argv[1], "train-00000.h5", &info, n / 3, longest);
    write_examples(&list[1], argv[1], "train-00001.h5", &info, n - n / 3, longest);
    write_examples(&list[2], argv[1], "validation-00000.h5", &info, n / 3, longest);
    struct manifest_split splits[] = {{"train", list, 2, list[0].tokens + list[1].tokens},
                                      {"validation", list + 2, 1, list[2].tokens}};
    const manifest m = {.info = info, .dir = argv[1], .splits = splits, .n_splits = 2};
    char *path = xasprintf("%s/manifest.json", argv[1]);
    CHECK(manifest_write(&m, path, &err) == 0, "%s", err.text);
    free(path);
    for (int i = 0; i < 3; i++) free(list[i].path);
    return 0;
}
