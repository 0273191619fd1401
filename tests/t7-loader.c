/* t7-loader.c: the loader against its formulas computed the plain way: samples, epochs, layouts, workers, resume,
 * damage. */
#include "io/data/loader.h"
#include "io/data/shard_pool.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum { VOCAB = 2000, TOKENS = 40000, SEQ = 64 };

static documents all;
static char *manifest_path, *shard_path[3];
static manifest set;                          /* as last read */
static const dataset_readers alone = {&comm_alone, 0, 1}, no_reader = {&comm_alone, -1, 1};

static void write_all(void)
{
    char *dir = in_tmp("set");

    free(manifest_path);
    manifest_path = write_dataset(dir, &all, 3, VOCAB);
    free(dir);
}

static dataset *open_all(void)
{
    moai_error err;

    manifest_free(&set);
    CHECK(manifest_read(&set, manifest_path, &err) == 0, "%s", err.text);
    dataset *d = dataset_open(&set, "train", &alone, &err);
    CHECK(d, "%s", err.text);
    return d;
}

/* What loader.h says of count c, from the tokens in memory. */
static bool is_sample(int64_t sample, int64_t count, int64_t n, bool shuffle, const int32_t *ids, int64_t seq_len)
{
    bool right = sample >= 0 && sample < n && (shuffle || sample == count % n);
    return right && memcmp(ids, all.ids + sample * seq_len, (size_t)(seq_len + 1) * sizeof *ids) == 0;
}

/* Runs one rank's loader for n_steps and checks every sample; appends the sample of each count to by_count. */
static bool run_rank(const loader_plan *p, int64_t n_steps, int64_t *by_count)
{
    moai_error err;
    dataset *d = open_all();
    loader *l = loader_start(d, p, &err);
    int64_t n = dataset_samples(d, p->seq_len), global = p->accumulation * p->dp_size * p->batch;
    int32_t *ids = xmalloc((size_t)(p->batch * (p->seq_len + 1)) * sizeof *ids);
    int64_t *samples = xmalloc((size_t)p->batch * sizeof *samples);
    double waited = 0;
    bool right = l != NULL;

    for (int64_t step = 0; right && step < n_steps; step++)
        for (int64_t m = 0; right && m < p->accumulation; m++) {
            right = loader_next(l, ids, NULL, samples, &waited, &err) == 0;
            for (int64_t i = 0; right && i < p->batch; i++) {
                int64_t count = p->first + step * global + (m * p->dp_size + p->dp_rank) * p->batch + i;
                right = is_sample(samples[i], count, n, p->shuffle, ids + i * (p->seq_len + 1), p->seq_len);
                by_count[count - p->first] = samples[i];
            }
        }
    loader_stop(l);
    dataset_free(d);
    free(ids);
    free(samples);
    return right && waited >= 0;
}

static const left_out *out;                   /* what every plan leaves out */
static int64_t n_left_out;

/* All ranks of a layout: the n samples that it takes, in order. */
static bool run_layout(int64_t dp, int64_t accumulation, int64_t batch, int64_t first, int64_t n, int workers,
                       bool shuffle, int64_t *by_count)
{
    bool right = true;

    memset(by_count, -1, (size_t)n * sizeof *by_count);
    for (int64_t rank = 0; rank < dp; rank++) {
        const loader_plan p = {.seq_len = SEQ,
                               .batch = batch,
                               .accumulation = accumulation,
                               .dp_size = dp,
                               .dp_rank = rank,
                               .seed = 5,
                               .shuffle = shuffle,
                               .first = first,
                               .left_out = out,
                               .n_left_out = n_left_out,
                               .n_workers = workers,
                               .prefetch = 3};
        right &= run_rank(&p, n / (dp * accumulation * batch), by_count);
    }
    return right;
}

static void test_layouts(void)
{
    static const int layouts[][3] = {{1, 1, 12}, {1, 12, 1}, {2, 3, 2}, {3, 2, 2},
                                     {4, 1, 3},  {12, 1, 1}, {6, 2, 1}}; /* dp, accumulation, batch */
    enum { N = 12 * 120 };                    /* 624 samples an epoch: counts 0..1439 cross two borders */
    int64_t *one = xmalloc(N * sizeof *one), *other = xmalloc(N * sizeof *other);

    ok(run_layout(1, 1, 1, 0, N, 0, true, one), "one rank, batch 1: ids are those of the sample");
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const int *at = layouts[i];
        bool right = run_layout(at[0], at[1], at[2], 0, N, (int)i % 4, true, other);
        ok(right && memcmp(one, other, N * sizeof *one) == 0,
           "dp %d, accumulation %d, batch %d, %d workers: the same sample at each count", at[0], at[1], at[2],
           (int)i % 4);
    }
    ok(run_layout(2, 3, 2, 0, N, 2, false, other) && other[0] == 0 && other[700] == 700 - 624,
       "without shuffle, sample = count");

    int64_t first = 12 * 50;
    ok(run_layout(3, 2, 2, first, N - first, 2, true, other) &&
           memcmp(one + first, other, (size_t)(N - first) * sizeof *one) == 0,
       "started at count %lld on another layout: goes on with the next unseen sample", (long long)first);
    free(one);
    free(other);
}

/* The order of all samples, less those left out, as a list made by looking at each count. */
static void test_left_out(void)
{
    static const int layouts[][3] = {{1, 1, 12}, {1, 12, 1}, {2, 3, 2}, {4, 1, 3}}; /* dp, accumulation, batch */
    enum { ALL = 1440, OUT = 30, N = 1200 };  /* counts of two epochs and a half; samples out; samples taken */
    int64_t *all_counts = xmalloc(ALL * sizeof *all_counts), *want = xmalloc(ALL * sizeof *want),
            *count_of = xmalloc(ALL * sizeof *count_of), *got = xmalloc(N * sizeof *got);
    left_out list[OUT];
    int64_t n_left = 0;

    run_layout(1, 1, 1, 0, ALL, 0, true, all_counts);
    for (int64_t i = 0; i < OUT; i++) list[i] = (left_out){.sample = i < 12 ? i : 20 * i, .from = i % 3 * 400};
    for (int64_t c = 0; c < ALL; c++) {
        bool gone = false;
        for (int i = 0; i < OUT; i++) gone |= list[i].sample == all_counts[c] && c >= list[i].from;
        if (!gone) count_of[n_left] = c, want[n_left++] = all_counts[c];
    }
    out = list, n_left_out = OUT;
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const int *at = layouts[i];
        bool right = run_layout(at[0], at[1], at[2], 0, N, (int)i, true, got);
        ok(right && memcmp(got, want, N * sizeof *got) == 0,
           "%d of %d counts pass over a sample: dp %d, accumulation %d, batch %d, %d workers take the others in order",
           (int)(ALL - n_left), ALL, at[0], at[1], at[2], (int)i);
    }
    const data_order order = {.seed = 5, .shuffle = true, .n_samples = (TOKENS - 1) / SEQ, .left_out = list,
                              .n_left_out = OUT};
    bool counts = true;
    for (int64_t n = 1; n < N; n += 7) counts &= order_after(&order, 0, n) == count_of[n - 1] + 1;
    ok(counts, "the count behind n samples is that behind the n-th one kept");
    const int64_t half = order_after(&order, 0, N / 2);
    ok(run_layout(2, 3, 2, half, N / 2, 2, true, got) && memcmp(got, want + N / 2, N / 2 * sizeof *got) == 0,
       "started at the count of the middle, %lld: the second half", (long long)half);
    out = NULL, n_left_out = 0;
    free(all_counts), free(want), free(count_of), free(got);
}

static void test_permutation(void)
{
    enum { EPOCHS = 3 };
    dataset *d = open_all();
    int64_t n = dataset_samples(d, SEQ), in_place = 0, repeated = 0;
    int64_t *by_count = xmalloc((size_t)(EPOCHS * n) * sizeof *by_count);
    int *seen = xmalloc((size_t)(EPOCHS * n) * sizeof *seen);
    bool once = run_layout(1, 1, 1, 0, EPOCHS * n, 1, true, by_count);

    for (int64_t c = 0; c < EPOCHS * n; c++) {
        seen[c / n * n + by_count[c]]++;
        in_place += by_count[c] == c % n;
        repeated += c >= n && by_count[c] == by_count[c - n];
    }
    for (int64_t i = 0; i < EPOCHS * n; i++) once &= seen[i] == 1;
    ok(n == (TOKENS - 1) / SEQ && once, "each of the %lld samples exactly once in each of %d epochs", (long long)n,
       EPOCHS);
    ok(in_place < 20 && repeated < 30,
       "orders differ: %lld counts map to themselves, %lld to their sample of the epoch before", (long long)in_place,
       (long long)repeated);
    dataset_free(d);
    free(by_count);
    free(seen);
}

static void test_lengths(void)
{
    static const int64_t lengths[] = {1, 7, 1000, 20000, TOKENS - 1};
    moai_error err = {.text = ""};
    dataset *d = open_all();
    int32_t *ids = xmalloc(TOKENS * sizeof *ids);
    bool right = true;

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int64_t n = dataset_samples(d, lengths[i]), s = 0; s < n; s += 1 + n / 97)
            right &= dataset_sample(d, s, lengths[i], ids, NULL, &err) == 0 &&
                     is_sample(s, s, n, false, ids, lengths[i]);
    ok(right, "samples of length 1 to all, across shards %s", err.text);
    ok(dataset_sample(d, 1, TOKENS - 1, ids, NULL, &err) != 0, "a sample beyond the last: %s", err.text);

    loader_plan p = {.seq_len = TOKENS, .batch = 1, .accumulation = 1, .dp_size = 1};
    ok(!loader_start(d, &p, &err) && strstr(err.text, "40000 tokens"), "fewer tokens than one sample: %s", err.text);
    dataset_free(d);
    free(ids);
}

static bool refuses(const char *what, const char *split, int64_t vocab_size, const char *sha256, const char *want)
{
    moai_error err = {.text = ""};
    dataset *d = NULL;

    manifest_free(&set);
    if (manifest_read(&set, manifest_path, &err) == 0 &&
        dataset_check(&set, manifest_path, vocab_size, sha256, &err) == 0)
        d = dataset_open(&set, split, &alone, &err);
    bool refused = !d && strstr(err.text, want);

    dataset_free(d);
    return ok(refused, "%s: %s", what, err.text);
}

/* What only the shard's own header tells: chunks are full, so that its size may well be right. */
static bool refuses_header(const char *what, int i, const char *want)
{
    moai_error err = {.text = ""};
    int32_t ids[SEQ + 1];
    struct stat st;
    const int64_t first = all.begin[share_begin(all.n_documents, 3, i)] / SEQ + 1;

    manifest_free(&set);
    CHECK(stat(shard_path[i], &st) == 0 && manifest_read(&set, manifest_path, &err) == 0, "%s", err.text);
    set.splits[0].list[i].bytes = st.st_size;
    bool refused = !dataset_open(&set, "train", &alone, &err) && strstr(err.text, shard_path[i]);
    dataset *d = dataset_open(&set, "train", &no_reader, &err);        /* one that looks at no shard before it reads */
    CHECK(d, "%s", err.text);
    bool read = dataset_sample(d, first, SEQ, ids, NULL, &err) == 0,
         others = dataset_sample(d, i == 0 ? dataset_samples(d, SEQ) - 1 : 0, SEQ, ids, NULL, &(moai_error){0}) == 0;

    dataset_free(d);
    return ok(refused && !read && others && strstr(err.text, shard_path[i]) && strstr(err.text, want), "%s: %s", what,
              err.text);
}

static void test_refusals(void)
{
    size_t size;
    char *data = read_whole(shard_path[1], &size), *manifest_text, *tokenizer = in_tmp("set/tokenizer.model");
    size_t manifest_size;

    refuses("no such split", "test", VOCAB, NULL, "test");
    refuses("a model of a smaller vocabulary", "train", VOCAB - 1, NULL, "vocab_size 2000, more than the model's 1999");
    moai_error err = {.text = ""};
    ok(dataset_check(&set, manifest_path, VOCAB + 1, NULL, &err) == 0, "a model's vocabulary may be larger %s", err.text);
    refuses("another tokenizer", "train", VOCAB, "beef", "beef");
    rename(shard_path[1], tokenizer);
    refuses("a missing shard", "train", VOCAB, NULL, shard_path[1]);
    rename(tokenizer, shard_path[1]);
    write_whole(shard_path[1], data, size / 2);
    refuses("a truncated shard", "train", VOCAB, NULL, shard_path[1]);
    memset(data, 'x', size);
    write_whole(shard_path[1], data, size);
    refuses_header("a file of the right size that is no shard", 1, "cannot open as HDF5");
    write_all();
    write_shard(shard_path[2], &all, 2 * all.n_documents / 3, all.n_documents, VOCAB + 5);
    refuses_header("a shard of another vocabulary", 2, "vocab_size 2005, the manifest says 2000");
    write_all();
    write_shard(shard_path[0], &all, 0, all.n_documents / 3 - 1, VOCAB);
    refuses_header("a shard with fewer documents", 0, "documents, the manifest says");
    write_all();

    manifest_text = read_whole(manifest_path, &manifest_size);
    char *with = xasprintf("{\"tokenizer\": \"tokenizer.model\", %s", manifest_text + 1);
    write_whole(manifest_path, with, strlen(with));
    write_whole(tokenizer, "other", 5);
    refuses("a tokenizer beside the shards that is not theirs", "train", VOCAB, NULL, tokenizer);
    write_whole(manifest_path, manifest_text, manifest_size);
    free(with);
    free(manifest_text);
    free(data);
    free(tokenizer);
}

/* Micro-batches come well up to the damage, then fail naming the shard. */
static void test_damage(int workers)
{
    moai_error err = {.text = ""};
    loader_plan p = {.seq_len = SEQ, .batch = 2, .accumulation = 1, .dp_size = 1, .n_workers = workers, .prefetch = 4};
    dataset *d = open_all();
    int64_t second = all.begin[share_begin(all.n_documents, 3, 1)], batches = 0, samples[2];
    uint16_t first[16];
    int32_t ids[2 * (SEQ + 1)];
    double waited = 0;

    for (int i = 0; i < 16; i++) first[i] = (uint16_t)all.ids[second + i];
    int64_t at = find_bytes(shard_path[1], first, sizeof first, 0);
    flip_byte(shard_path[1], at + 100);
    loader *l = loader_start(d, &p, &err);
    while (loader_next(l, ids, NULL, samples, &waited, &err) == 0) batches++;
    ok(batches == (second / SEQ) / 2 && strstr(err.text, shard_path[1]),
       "%d workers: after %lld good micro-batches: %s", workers, (long long)batches, err.text);
    loader_stop(l);
    dataset_free(d);
    flip_byte(shard_path[1], at + 100);
}

/* Fletcher's sums take 0x0000 and 0xFFFF for the same: the one damage that HDF5 lets pass is an id beyond every
 * vocabulary here. */
static void test_large_id(void)
{
    enum { AT = 20000, SAMPLE = (AT - 1) / SEQ };
    moai_error err = {.text = ""};
    uint16_t around[9];
    int32_t ids[SEQ + 1];

    all.ids[AT] = 0;
    write_all();
    for (int i = 0; i < 9; i++) around[i] = (uint16_t)all.ids[AT - 4 + i];
    const char *path = shard_path[1];
    size_t size;
    char *data = read_whole(path, &size);
    memset(data + find_bytes(path, around, sizeof around, 0) + 8, 0xff, 2);
    write_whole(path, data, size);
    dataset *d = open_all();
    bool before = dataset_sample(d, SAMPLE - 1, SEQ, ids, NULL, &err) == 0,
         at = dataset_sample(d, SAMPLE, SEQ, ids, NULL, &err) == 0;
    char *want = xasprintf("token %lld is id 65535", (long long)(AT - all.begin[share_begin(all.n_documents, 3, 1)]));
    ok(before && !at && strstr(err.text, path) && strstr(err.text, want), "an id that is not in the vocabulary: %s",
       err.text);
    dataset_free(d);
    free(want);
    free(data);
}

static int count_open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int n = 0;

    CHECK(dir, "/proc/self/fd cannot be read");
    while (readdir(dir)) n++;
    closedir(dir);
    return n;
}

/* Every sample once, in an order that jumps from shard to shard; the files open at most meanwhile. */
static bool read_all(dataset *d, int *most_open, moai_error *err)
{
    const int64_t n = dataset_samples(d, SEQ);
    int32_t ids[SEQ + 1];
    bool right = true;

    for (int64_t i = 0; right && i < n; i++) {
        const int64_t sample = i * 101 % n;   /* 101 divides no n here */
        right = dataset_sample(d, sample, SEQ, ids, NULL, err) == 0 && is_sample(sample, sample, n, false, ids, SEQ);
        const int now = count_open_files();
        *most_open = now > *most_open ? now : *most_open;
    }
    return right;
}

/* As a file server looks after somebody has moved files about. */
static void replace_shards(const char *dir)
{
    char *command = xasprintf("cd %s && for f in *.h5; do cp $f copy && mv copy $f || exit 1; done", dir);

    CHECK(system(command) == 0, "%s", command);
    free(command);
}

/* Far more shards than may be open. */
static void test_few_files(void)
{
    enum { SHARDS = 40, N = 1440 };
    char *dir = in_tmp("many"), *first = in_tmp("many/train-00000.h5");
    int64_t *one = xmalloc(N * sizeof *one), *few = xmalloc(N * sizeof *few);
    const int before = count_open_files();
    struct rlimit limit;
    moai_error err = {.text = ""};
    int most = 0;

    mkdir(dir, 0777);
    run_layout(1, 1, 1, 0, N, 0, true, one);
    free(manifest_path);
    manifest_path = write_dataset(dir, &all, SHARDS, VOCAB);
    limit = (struct rlimit){100, 100};
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    for (int workers = 0; workers <= 12; workers += 4)        /* more workers than may be open, too */
        ok(run_layout(2, 3, 2, 0, N, workers, true, few) && memcmp(one, few, N * sizeof *one) == 0,
           "%d shards, 100 files may be open, %d workers: the same samples", SHARDS, workers);
    dataset *d = open_all();
    bool read = read_all(d, &most, &err);
    ok(read && most > before + 8 && most <= before + 2 * 8, "8 of them are open at a time, in %d files %s", most - before,
       err.text);
    replace_shards(dir);
    read = read_all(d, &most, &err);
    ok(read, "replaced by copies of themselves they are read on %s", err.text);
    write_shard(first, &all, 0, all.n_documents / 30, VOCAB);
    read = read_all(d, &most, &err);
    ok(!read && strstr(err.text, first) && strstr(err.text, "the manifest says"), "one replaced by another is not: %s",
       err.text);
    dataset_free(d);
    free(one), free(few), free(dir), free(first);
}

int main(void)
{
    char *dir = in_tmp("set");

    shard_pool_pause = 0.001;
    mkdir(dir, 0777);
    all = random_documents(TOKENS, 900, VOCAB, 1);
    write_all();
    for (int i = 0; i < 3; i++) shard_path[i] = xasprintf("%s/train-%05d.h5", dir, i);
    test_layouts();
    test_left_out();
    test_permutation();
    test_lengths();
    test_refusals();
    test_damage(0);
    test_damage(2);
    test_large_id();
    write_all();
    test_few_files();
    for (int i = 0; i < 3; i++) free(shard_path[i]);
    free(manifest_path);
    manifest_free(&set);
    documents_free(&all);
    free(dir);
    return tap_done();
}
