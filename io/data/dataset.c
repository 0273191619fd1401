/* dataset.c: one split of a manifest as one long row of tokens; see loader.h */
#include "io/data/examples.h"
#include "io/file/hash.h"
#include "src/base/files.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

struct dataset {
    const manifest *manifest;
    const struct manifest_split *split;
    shard_pool *shards;                       /* (split->n) */
    int64_t *begin;                           /* (split->n + 1) first token of each shard in the split */
    int64_t vocab_size;                       /* of the shards */
    examples *examples;                       /* NULL: not packed */
};

/* Shards that a split may hold open, for training and validation each; other descriptors are HDF5's (shard.c), MPI's
 * and the program's own.  The soft limit is often 1024 where the hard one is far beyond.  Not more in any case: a
 * metadata server remembers what each of thousands of ranks has open. */
static int most_open(int n)
{
    enum { MOST = 1024, OTHERS = 256, EACH = 2 };
    const rlim_t wanted = (rlim_t)(n < MOST ? n : MOST) * EACH + OTHERS;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 8;
    if (limit.rlim_cur < wanted && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur >= wanted) return n < MOST ? n : MOST;
    return limit.rlim_cur < OTHERS + 8 * EACH ? 8 : (int)(limit.rlim_cur - OTHERS) / EACH;
}

static int look_at(const dataset *d, int i, moai_error *err)
{
    const manifest_shard *entry = &d->split->list[i];
    struct stat st;

    if (stat(entry->path, &st) != 0) return error_file(err, entry->path);
    if (st.st_size == entry->bytes) return shard_pool_check(d->shards, i, err);
    return error_config(err, "%s: %lld bytes, the manifest says %lld", entry->path, (long long)st.st_size,
                        (long long)entry->bytes);
}

/* The first of this reader's part that is not as the manifest says; -1: none.  One is looked at by each reader in any
 * case: its host may see another directory. */
static int first_fault(const dataset *d, const dataset_readers *r, moai_error *err)
{
    const int64_t n = d->split->n;
    const int64_t begin = share_begin(n, r->parts, r->part), end = share_begin(n, r->parts, r->part + 1);

    if (begin == end) return look_at(d, r->part % (int)n, err) ? r->part % (int)n : -1;
    for (int64_t i = begin; i < end; i++)
        if (look_at(d, (int)i, err)) return (int)i;
    return -1;
}

/* Where a shard is not as the manifest says, all readers look at it: what is wrong for some only is their host's fault,
 * and another start may do better. */
static int look_at_shards(const dataset *d, const dataset_readers *r, moai_error *err)
{
    const int own = r->part < 0 ? -1 : first_fault(d, r, err);
    int32_t worst = own < 0 ? 0 : d->split->n - own;          /* greatest for the first in the split */

    comm_all_reduce(r->world, &worst, 1, DT_I32, REDUCE_MAX);
    if (worst == 0) return 0;
    const int fault = d->split->n - worst;
    const bool failed = r->part >= 0 && (own == fault || look_at(d, fault, err) != 0);
    int32_t fine = r->part >= 0 && !failed;
    comm_all_reduce(r->world, &fine, 1, DT_I32, REDUCE_MAX);
    if (fine) err->config = false;
    return comm_agree(r->world, failed, err);
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

int dataset_check(const manifest *m, const char *path, int64_t vocab_size, const char *tokenizer_sha256,
                  moai_error *err)
{
    if (m->info.vocab_size > vocab_size)
        return error_config(err, "%s: the shards have vocab_size %lld, more than the model's %lld", path,
                            (long long)m->info.vocab_size, (long long)vocab_size);
    return check_tokenizer(m, path, tokenizer_sha256, err);
}

static int open_split(dataset *d, const dataset_readers *r, moai_error *err)
{
    const int n = d->split->n;

    d->begin = xmalloc((size_t)(n + 1) * sizeof *d->begin);
    for (int i = 0; i < n; i++) d->begin[i + 1] = d->begin[i] + d->split->list[i].tokens;
    d->shards = shard_pool_new(d->split->list, n, &d->manifest->info, most_open(n));
    return n > 0 ? look_at_shards(d, r, err) : 0;
}

dataset *dataset_open(const manifest *m, const char *split, const dataset_readers *r, moai_error *err)
{
    dataset *d = xmalloc(sizeof *d);

    *d = (dataset){.manifest = m, .split = manifest_split(m, split), .vocab_size = m->info.vocab_size};
    const int status = d->split ? open_split(d, r, err) : error_config(err, "%s: no split `%s`", m->dir, split);
    if (status == 0) return d;
    dataset_free(d);
    return NULL;
}

void dataset_free(dataset *d)
{
    if (!d) return;
    shard_pool_free(d->shards);
    if (d->examples) examples_free(d->examples);
    free(d->examples);
    free(d->begin);
    free(d);
}

int64_t dataset_tokens(const dataset *d) { return d->split->tokens; }
bool dataset_is_packed(const dataset *d) { return d->examples; }
int64_t dataset_samples(const dataset *d, int64_t seq_len)
{
    if (d->examples) return d->examples->packing.n_samples;
    return d->split->tokens > 0 ? (d->split->tokens - 1) / seq_len : 0;
}
const manifest *dataset_manifest(const dataset *d) { return d->manifest; }

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

/* Tokens [at, at + n) of the split, and, unless NULL, their flags. */
static int read_tokens(dataset *d, int64_t at, int64_t n, int32_t *ids, uint8_t *trained, moai_error *err)
{
    const int64_t end = at + n;

    for (int i = find_shard(d, at); at < end; i++) {
        const int64_t take = min_i64(end, d->begin[i + 1]) - at, within = at - d->begin[i];
        if (shard_pool_read(d->shards, i, within, take, ids, trained, err) != 0) return -1;
        if (check_ids(d, i, within, ids, take, err) != 0) return -1;
        at += take;
        ids += take;
        if (trained) trained += take;
    }
    return 0;
}

static int read_example(dataset *d, int64_t i, int32_t *ids, uint8_t *marks, moai_error *err)
{
    const examples *e = d->examples;
    const int64_t at = e->begin[i], n = e->begin[i + 1] - at;
    const bool is_marked = d->manifest->info.is_marked;
    int64_t counted = 0;

    if (read_tokens(d, at, n, ids, is_marked ? marks : NULL, err) != 0) return -1;
    if (!is_marked) memset(marks, 1, (size_t)n);
    marks[0] = 2;
    for (int64_t k = 1; k < n; k++) counted += marks[k] == 1;
    if (counted == e->counted[i]) return 0;
    const int file = find_shard(d, at);
    return error_set(err, "%s: the document at token %lld has %lld trained tokens, it is said to have %d",
                     d->split->list[file].path, (long long)(at - d->begin[file]), (long long)counted,
                     e->counted[i]);
}

static int read_packed(dataset *d, int64_t sample, int64_t seq_len, int32_t *ids, uint8_t *marks, moai_error *err)
{
    const examples *e = d->examples;
    int64_t at = 0;

    for (int64_t k = e->packing.begin[sample]; k < e->packing.begin[sample + 1]; k++) {
        const int64_t i = e->packing.list[k];
        if (read_example(d, i, ids + at, marks + at, err) != 0) return -1;
        at += e->begin[i + 1] - e->begin[i];
    }
    for (; at <= seq_len; at++) ids[at] = -1, marks[at] = 0;
    return 0;
}

int dataset_sample(dataset *d, int64_t sample, int64_t seq_len, int32_t *ids, uint8_t *marks, moai_error *err)
{
    if (sample < 0 || sample >= dataset_samples(d, seq_len))
        return error_set(err, "sample %lld of %lld (split `%s`, %lld tokens)", (long long)sample,
                         (long long)dataset_samples(d, seq_len), d->split->name, (long long)d->split->tokens);
    if (d->examples) return read_packed(d, sample, seq_len, ids, marks, err);
    return read_tokens(d, sample * seq_len, seq_len + 1, ids, NULL, err);
}

int dataset_pack(dataset *d, const pack_plan *p, const comm *world, moai_error *err)
{
    examples *e = xmalloc(sizeof *e);

    CHECK(!d->examples, "%s: packed twice", d->manifest->dir);
    if (examples_read(e, d->split, d->manifest->info.is_marked, d->shards, p, world, err) == 0) {
        d->examples = e;
        return 0;
    }
    examples_free(e);
    free(e);
    return -1;
}

sample_size dataset_sample_size(const dataset *d, int64_t sample, int64_t seq_len)
{
    if (d->examples) return examples_size(d->examples, sample, seq_len);
    return (sample_size){.tokens = seq_len, .counted = seq_len, .pairs = (double)seq_len * (double)seq_len};
}
