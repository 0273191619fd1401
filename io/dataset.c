/* dataset.c: one split of a manifest as one long row of tokens; see loader.h */
#include "files.h"
#include "loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct dataset {
    manifest manifest;
    const struct manifest_split *split;
    shard **shards;                           /* (split->n), all open */
    int64_t *begin;                           /* (split->n + 1) first token of each shard in the split */
    int64_t vocab_size;                       /* of the shards */
};

/* The soft limit on open files is often 1024; a data set may have more shards than that. */
static void allow_open_files(int n)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)n + 256;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* The shard's header and size against what the manifest says of it. */
static int check_shard(const shard *s, const manifest_shard *says, const shard_info *info, moai_error *err)
{
    const shard_info *has = shard_get_info(s);

    if (has->vocab_size != info->vocab_size)
        return error_config(err, "%s: vocab_size %lld, the manifest says %lld", says->path, (long long)has->vocab_size,
                            (long long)info->vocab_size);
    if (has->eos != info->eos)
        return error_config(err, "%s: eos %lld, the manifest says %lld", says->path, (long long)has->eos,
                            (long long)info->eos);
    if (strcmp(has->tokenizer_sha256, info->tokenizer_sha256) != 0)
        return error_config(err, "%s: made with tokenizer %s, the manifest says %s", says->path, has->tokenizer_sha256,
                            info->tokenizer_sha256);
    if (shard_tokens(s) != says->tokens || shard_documents(s) != says->documents)
        return error_config(err, "%s: %lld tokens in %lld documents, the manifest says %lld in %lld", says->path,
                            (long long)shard_tokens(s), (long long)shard_documents(s), (long long)says->tokens,
                            (long long)says->documents);
    return 0;
}

static shard *open_shard(const manifest_shard *says, const shard_info *info, moai_error *err)
{
    struct stat st;

    if (stat(says->path, &st) != 0) {
        error_file(err, says->path);
        return NULL;
    }
    if (st.st_size != says->bytes) {
        error_config(err, "%s: %lld bytes, the manifest says %lld", says->path, (long long)st.st_size,
                     (long long)says->bytes);
        return NULL;
    }
    shard *s = shard_open(says->path, err);
    if (s && check_shard(s, says, info, err) != 0) {
        shard_free(s);
        s = NULL;
    }
    return s;
}

/* `wanted` is the run's tokenizer; the file beside the shards, when there is one, must be the manifest's too. */
static int check_tokenizer(const manifest *m, const char *manifest_path, const char *wanted, moai_error *err)
{
    char hex[65];

    if (wanted && strcmp(wanted, m->info.tokenizer_sha256) != 0)
        return error_config(err, "%s: the shards were made with tokenizer sha256 %s, this run's is %s", manifest_path,
                            m->info.tokenizer_sha256, wanted);
    if (!m->tokenizer || !file_exists(m->tokenizer)) return 0;
    if (file_sha256(m->tokenizer, hex, err) != 0) return -1;
    if (strcmp(hex, m->info.tokenizer_sha256) != 0)
        return error_config(err, "%s: sha256 %s is not that of the shards' tokenizer, %s", m->tokenizer, hex,
                            m->info.tokenizer_sha256);
    return 0;
}

static int open_split(dataset *d, const char *path, const char *split, moai_error *err)
{
    d->split = manifest_split(&d->manifest, split);
    if (!d->split) return error_config(err, "%s: no split `%s`", path, split);
    d->shards = xmalloc((size_t)d->split->n * sizeof *d->shards);
    d->begin = xmalloc((size_t)(d->split->n + 1) * sizeof *d->begin);
    allow_open_files(d->split->n);
    for (int i = 0; i < d->split->n; i++) {
        d->shards[i] = open_shard(&d->split->list[i], &d->manifest.info, err);
        if (!d->shards[i]) return -1;
        d->begin[i + 1] = d->begin[i] + d->split->list[i].tokens;
    }
    return 0;
}

dataset *dataset_open(const char *manifest_path, const char *split, int64_t vocab_size, const char *tokenizer_sha256,
                      moai_error *err)
{
    dataset *d = xmalloc(sizeof *d);
    int status = manifest_read(&d->manifest, manifest_path, err);

    d->vocab_size = d->manifest.info.vocab_size;
    if (status == 0 && d->vocab_size > vocab_size)
        status = error_config(err, "%s: the shards have vocab_size %lld, more than the model's %lld", manifest_path,
                              (long long)d->vocab_size, (long long)vocab_size);
    if (status == 0) status = check_tokenizer(&d->manifest, manifest_path, tokenizer_sha256, err);
    if (status == 0) status = open_split(d, manifest_path, split, err);
    if (status == 0) return d;
    dataset_free(d);
    return NULL;
}

void dataset_free(dataset *d)
{
    if (!d) return;
    for (int i = 0; d->shards && i < d->split->n; i++) shard_free(d->shards[i]);
    free(d->shards);
    free(d->begin);
    manifest_free(&d->manifest);
    free(d);
}

int64_t dataset_tokens(const dataset *d) { return d->split->tokens; }
int64_t dataset_samples(const dataset *d, int64_t seq_len)
{
    return d->split->tokens > 0 ? (d->split->tokens - 1) / seq_len : 0;
}
const manifest *dataset_manifest(const dataset *d) { return &d->manifest; }

void dataset_xxh3(const dataset *d, char hex[33])
{
    const struct manifest_split *s = d->split;
    const size_t length = sizeof s->list[0].xxh3;
    char *all = xmalloc((size_t)s->n * length);

    for (int i = 0; i < s->n; i++) memcpy(all + (size_t)i * length, s->list[i].xxh3, length);
    file_xxh3_text(all, (size_t)s->n * length, hex);
    free(all);
}

/* The shard that holds token `at` of the split. */
static int find_shard(const dataset *d, int64_t at)
{
    int low = 0, high = d->split->n;          /* begin[low] <= at < begin[high] */

    while (high - low > 1) {
        int middle = low + (high - low) / 2;
        if (d->begin[middle] <= at)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int check_ids(const dataset *d, int i, int64_t begin, const int32_t *ids, int64_t n, moai_error *err)
{
    uint32_t largest = 0;

    for (int64_t k = 0; k < n; k++) largest = (uint32_t)ids[k] > largest ? (uint32_t)ids[k] : largest;
    if (largest < d->vocab_size) return 0;
    int64_t k = 0;
    while ((uint32_t)ids[k] < d->vocab_size) k++;
    return error_set(err, "%s: token %lld is id %u, not below vocab_size %lld", d->split->list[i].path,
                     (long long)(begin + k), (uint32_t)ids[k], (long long)d->vocab_size);
}

int dataset_sample(dataset *d, int64_t sample, int64_t seq_len, int32_t *ids, moai_error *err)
{
    int64_t at = sample * seq_len, end = at + seq_len + 1;

    if (sample < 0 || sample >= dataset_samples(d, seq_len))
        return error_set(err, "sample %lld of %lld (split `%s`, %lld tokens)", (long long)sample,
                         (long long)dataset_samples(d, seq_len), d->split->name, (long long)d->split->tokens);
    for (int i = find_shard(d, at); at < end; i++) {
        int64_t n = min_i64(end, d->begin[i + 1]) - at, within = at - d->begin[i];
        if (shard_read(d->shards[i], within, n, ids, err) != 0 || check_ids(d, i, within, ids, n, err) != 0) return -1;
        at += n;
        ids += n;
    }
    return 0;
}
