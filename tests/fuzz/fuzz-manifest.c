/* fuzz-manifest.c: manifest.json of a data set, sealed again after each change, with two good shards and the
 * tokenizer beside it: read, checked, audited, opened for training, and written again. */
#include "io/data/loader.h"
#include "io/data/shard_pool.h"
#include "io/file/hash.h"
#include "src/corpus/audit.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static void make_shard(manifest_shard *s, const char *path, const shard_info *info, int n_documents)
{
    moai_error err;
    shard_writer *w = shard_create(path, info, &err);

    CHECK(w, "%s", err.text);
    for (int i = 0; i < n_documents; i++) {
        const int32_t ids[] = {300 + i % 7, 301, 302, 3};
        CHECK(shard_append(w, ids, NULL, 4, &err) == 0, "%s", err.text);
    }
    CHECK(shard_close(w, &err) == 0, "%s", err.text);
    *s = (manifest_shard){.path = xstrdup(path), .tokens = 4 * n_documents, .documents = n_documents};
    CHECK(file_xxh3(path, s->xxh3, &s->bytes, &err) == 0, "%s", err.text);
}

void fuzz_start(void)
{
    static manifest_shard list[2];
    static struct manifest_split splits[2] = {{.name = "train", .list = list, .n = 1},
                                              {.name = "validation", .list = list + 1, .n = 1}};
    manifest m = {.info = {.vocab_size = 384, .eos = 3, .pad = 0},
                  .dir = "set",
                  .tokenizer = "set/tokenizer.model",
                  .splits = splits,
                  .n_splits = 2};
    moai_error err;

    shard_pool_pause = 0;
    mkdir("set", 0777);
    fuzz_tokenizer("set/tokenizer.model");
    CHECK(file_sha256("set/tokenizer.model", m.info.tokenizer_sha256, &err) == 0, "%s", err.text);
    make_shard(&list[0], "set/train-00000.h5", &m.info, 20);
    make_shard(&list[1], "set/validation-00000.h5", &m.info, 5);
    CHECK(manifest_write(&m, "set/manifest.json", &err) == 0, "%s", err.text);
}

void fuzz_seeds(void) { fuzz_seed_file("set", "set/manifest.json"); }

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    if (fuzz_draw(&seed, 10) == 0) return LLVMFuzzerMutate(data, size, max_size);
    return fuzz_seal(data, fuzz_mutate_json(data, fuzz_unseal(data, size), max_size, seed), max_size);
}

static void read_samples(const manifest *m, const char *split)
{
    enum { T = 7 };
    const dataset_readers alone = {&comm_alone, 0, 1};
    moai_error err;
    dataset *d = dataset_open(m, split, &alone, &err);
    int32_t ids[T + 1];
    char hex[33];

    if (!d) return;
    dataset_xxh3(d, hex);
    const int64_t n = dataset_samples(d, T);
    for (int64_t i = 0; i < n && i < 64; i++) dataset_sample(d, i, T, ids, NULL, &err);
    if (n > 0) dataset_sample(d, n - 1, T, ids, NULL, &err);
    dataset_free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    manifest m;
    moai_error err;

    fuzz_write("set/manifest.json", data, size);
    manifest_check("set", &err);
    if (manifest_read(&m, "set", &err) != 0) return 0;
    dataset_check(&m, "set", 384, NULL, &err);
    read_samples(&m, "train");
    read_samples(&m, "validation");
    if (m.n_splits > 0) read_samples(&m, m.splits[0].name);
    CHECK(manifest_write(&m, "set/again.json", &err) == 0, "%s", err.text);
    CHECK(manifest_check("set/again.json", &err) == 0, "%s", err.text);
    manifest_free(&m);
    shards_audit("set", &err);
    return 0;
}
