/* shards.h: token shards of random documents, and damage to files, for the tests of data. */
#ifndef SHARDS_H
#define SHARDS_H

#include "io/data/shard.h"
#include "io/file/hash.h"
#include "src/base/rng.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TEST_EOS = 2 };

static inline char *in_tmp(const char *name)
{
    return xasprintf("%s/%s", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", name);
}

/* Random documents of 1 to `longest` tokens, eos last, n_tokens in all; the last one takes what is left. */
typedef struct documents {
    int32_t *ids;
    int64_t n_tokens, n_documents, *begin;    /* begin: (n_documents + 1) */
} documents;

static inline documents random_documents(int64_t n_tokens, int64_t longest, int64_t vocab_size, uint64_t seed)
{
    documents d = {xmalloc((size_t)n_tokens * sizeof *d.ids), n_tokens, 0,
                   xmalloc((size_t)(n_tokens + 1) * sizeof *d.begin)};
    uint64_t key = rng_key(seed, "documents");

    for (int64_t i = 0, end = 0; i < n_tokens; i++) {
        if (i == end) {
            end = min_i64(n_tokens, i + 1 + (int64_t)(rng_uniform(key, (uint64_t)(n_tokens + i)) * (double)longest));
            d.begin[++d.n_documents] = end;
        }
        d.ids[i] = i == end - 1 ? TEST_EOS : 3 + (int32_t)(rng_uniform(key, (uint64_t)i) * (double)(vocab_size - 3));
    }
    return d;
}

static inline void documents_free(documents *d)
{
    free(d->ids);
    free(d->begin);
}

static inline shard_info test_info(int64_t vocab_size)
{
    shard_info info = {.vocab_size = vocab_size, .eos = TEST_EOS, .pad = 0};
    memset(info.tokenizer_sha256, 'a', 64);
    return info;
}

/* Documents [first, last) as one shard, with flags unless they are NULL; aborts on failure. */
static inline void write_marked(const char *path, const documents *d, const uint8_t *trained, int64_t first,
                                int64_t last, int64_t vocab_size)
{
    moai_error err;
    shard_info info = test_info(vocab_size);

    info.is_marked = trained;
    shard_writer *w = shard_create(path, &info, &err);
    CHECK(w, "%s", err.text);
    for (int64_t i = first; i < last; i++)
        CHECK(shard_append(w, d->ids + d->begin[i], trained ? trained + d->begin[i] : NULL,
                           d->begin[i + 1] - d->begin[i], &err) == 0, "%s", err.text);
    CHECK(shard_close(w, &err) == 0, "%s", err.text);
}

static inline void write_shard(const char *path, const documents *d, int64_t first, int64_t last, int64_t vocab_size)
{
    write_marked(path, d, NULL, first, last, vocab_size);
}

/* A manifest in `dir` (which exists) of one split `train` in n_shards shards of about as many documents each. */
static inline char *write_dataset(const char *dir, const documents *d, int n_shards, int64_t vocab_size)
{
    moai_error err;
    manifest_shard *list = xmalloc((size_t)n_shards * sizeof *list);
    struct manifest_split split = {.name = "train", .list = list, .n = n_shards, .tokens = d->n_tokens};
    manifest m = {.info = test_info(vocab_size), .dir = (char *)(uintptr_t)dir, .splits = &split, .n_splits = 1};
    char *path = xasprintf("%s/manifest.json", dir);

    for (int i = 0; i < n_shards; i++) {
        int64_t first = share_begin(d->n_documents, n_shards, i), last = share_begin(d->n_documents, n_shards, i + 1);
        list[i] = (manifest_shard){.path = xasprintf("%s/train-%05d.h5", dir, i),
                                   .tokens = d->begin[last] - d->begin[first],
                                   .documents = last - first};
        write_shard(list[i].path, d, first, last, vocab_size);
        CHECK(file_xxh3(list[i].path, list[i].xxh3, &list[i].bytes, &err) == 0, "%s", err.text);
    }
    CHECK(manifest_write(&m, path, &err) == 0, "%s", err.text);
    for (int i = 0; i < n_shards; i++) free(list[i].path);
    free(list);
    return path;
}

static inline char *read_whole(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    CHECK(f, "cannot open %s", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *data = xmalloc(*n + 1);
    CHECK(fread(data, 1, *n, f) == *n, "cannot read %s", path);
    fclose(f);
    return data;
}

static inline void write_whole(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(data, 1, n, f) == n && fclose(f) == 0, "cannot write %s", path);
}

static inline void flip_byte(const char *path, int64_t at)
{
    unsigned char byte;
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0 && pread(fd, &byte, 1, (off_t)at) == 1, "cannot read byte %lld of %s", (long long)at, path);
    byte ^= 0x10;
    CHECK(pwrite(fd, &byte, 1, (off_t)at) == 1, "cannot write %s", path);
    close(fd);
}

/* Where `n` bytes of `what` first lie in the file, from byte `from` on; aborts when they do not. */
static inline int64_t find_bytes(const char *path, const void *what, size_t n, int64_t from)
{
    size_t size;
    char *data = read_whole(path, &size), *found = memmem(data + from, size - (size_t)from, what, n);
    CHECK(found, "%s: bytes not found", path);
    int64_t at = found - data;
    free(data);
    return at;
}

#endif
