/* make_tokens DIR VOCAB SAMPLES SEQ_LENGTH [COUNT ...]: shards of a made-up language that a small model can learn, for
 * tests of training.  Exactly SAMPLES training samples of SEQ_LENGTH in two shards, whose border lies inside
 * a sample; and a validation split.  In the 8 samples that seed 42 deals at each COUNT the words are noise. */
#include "io/data/data_order.h"
#include "io/data/shard.h"
#include "io/file/hash.h"
#include "src/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EOS = 1, DOCUMENT = 41, NOISY = 8 };

static moai_error err;
static int64_t seq_length;
static bool *noise;                           /* by sample of the training split; NULL while another is written */

/* Half of the words follow from the one before, the others are drawn, low ids far more often than high ones:
 * something to learn in twenty steps, and something left for later. */
static int32_t next_word(int32_t word, int64_t vocab, uint64_t draw)
{
    double u = rng_uniform(rng_key(7, "tokens"), draw);

    if (noise && draw && noise[(draw - 1) / (uint64_t)seq_length]) return (int32_t)(2 + (double)(vocab - 2) * u);
    if (u < 0.5) return (int32_t)(2 + (word * 5 + 3) % (vocab - 2));
    u = 2 * u - 1;
    return (int32_t)(2 + (double)(vocab - 2) * u * u * u * u);
}

static void write_shard(const char *dir, const char *name, const shard_info *info, int64_t n_tokens,
                        manifest_shard *entry, uint64_t draw)
{
    char *path = xasprintf("%s/%s", dir, name);
    shard_writer *w = shard_create(path, info, &err);
    int32_t document[DOCUMENT], word = 2;

    CHECK(w, "%s", err.text);
    for (int64_t left = n_tokens; left > 0;) {
        int64_t n = left < DOCUMENT ? left : DOCUMENT;
        for (int64_t i = 0; i < n; i++) document[i] = word = next_word(word, info->vocab_size, draw++);
        document[n - 1] = EOS;
        CHECK(shard_append(w, document, NULL, n, &err) == 0, "%s", err.text);
        left -= n;
    }
    *entry = (manifest_shard){.path = path, .tokens = n_tokens, .documents = (n_tokens + DOCUMENT - 1) / DOCUMENT};
    CHECK(shard_close(w, &err) == 0 && file_xxh3(path, entry->xxh3, &entry->bytes, &err) == 0, "%s", err.text);
}

static bool *mark_noise(int64_t n_samples, char **counts, int n_counts)
{
    const data_order order = {.seed = 42, .shuffle = true, .n_samples = n_samples};
    bool *marked = xmalloc((size_t)n_samples * sizeof *marked);
    int64_t samples[NOISY];

    for (int i = 0; i < n_counts; i++) {
        order_take(&order, atoll(counts[i]), NOISY, samples);
        for (int j = 0; j < NOISY; j++) marked[samples[j]] = true;
    }
    return marked;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 5, "make_tokens DIR VOCAB SAMPLES SEQ_LENGTH [COUNT ...]");
    const char *dir = argv[1];
    shard_info info = {.vocab_size = atoll(argv[2]), .eos = EOS, .pad = 0};
    int64_t n_tokens = atoll(argv[3]) * atoll(argv[4]) + 1, first = n_tokens * 3 / 7;
    manifest_shard train[2], validation[1];

    seq_length = atoll(argv[4]);
    noise = mark_noise(atoll(argv[3]), argv + 5, argc - 5);
    memset(info.tokenizer_sha256, '0', 64);
    write_shard(dir, "train-00000.h5", &info, first, &train[0], 0);
    write_shard(dir, "train-00001.h5", &info, n_tokens - first, &train[1], (uint64_t)first);
    free(noise);
    noise = NULL;
    write_shard(dir, "validation-00000.h5", &info, 8 * atoll(argv[4]) + 1, &validation[0], (uint64_t)n_tokens);

    struct manifest_split splits[] = {{"train", train, 2, n_tokens},
                                      {"validation", validation, 1, validation[0].tokens}};
    manifest m = {.info = info, .dir = argv[1], .splits = splits, .n_splits = 2};
    char *path = xasprintf("%s/manifest.json", dir);
    CHECK(manifest_write(&m, path, &err) == 0, "%s", err.text);
    free(path);
    for (int i = 0; i < 2; i++) free(train[i].path);
    free(validation[0].path);
    return 0;
}
