/* bench-data.c: encoding against SentencePiece's own encoder, per thread, and the loader's tokens per second from the
 * page cache. Usage: bench-data [TEXT [vocab_size]]; without TEXT, this repository's sources, repeated.  Best of
 * several runs. */
#include "io/data/loader.h"
#include "io/text/tokenizer.h"
#include "tests/lib/shards.h"

#include <glob.h>
#include <sys/stat.h>

enum { ROUNDS = 5, LOADED = 1 << 26, BATCH = 8 };

typedef int (*encoder)(const tokenizer *, const char *, size_t, int32_t **, int64_t *, int64_t *, moai_error *);

/* The text in documents of some KB, as training text is: both encoders get the same pieces. */
static double encode_seconds(encoder encode, const tokenizer *t, const char *text, size_t n, int64_t *n_tokens)
{
    double best = 1e9;
    int32_t *ids = NULL;
    int64_t capacity = 0;

    for (int round = 0; round < ROUNDS; round++) {
        double begin = now_seconds();
        *n_tokens = 0;
        for (size_t at = 0, end; at < n; at = end) {
            moai_error err;
            for (end = at + 4000; end < n && text[end] != '\n';) end++;
            if (end > n) end = n;
            CHECK(encode(t, text + at, end - at, &ids, n_tokens, &capacity, &err) == 0, "%s", err.text);
        }
        double seconds = now_seconds() - begin;
        if (seconds < best) best = seconds;
    }
    free(ids);
    return best;
}

static char *own_sources(size_t *n)
{
    glob_t g;
    CHECK(glob("src/*/*.[ch]", 0, NULL, &g) == 0, "run from the top of the repository");
    char *all = NULL;
    *n = 0;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        size_t more;
        char *text = read_whole(g.gl_pathv[i], &more);
        all = realloc(all, *n + more);
        CHECK(all, "out of host memory");
        memcpy(all + *n, text, more);
        *n += more;
        free(text);
    }
    globfree(&g);
    return all;
}

static void bench_encode(const char *path, int64_t vocab_size)
{
    char *prefix = in_tmp("tokenizer"), *model = in_tmp("tokenizer.model"), *file = in_tmp("text");
    const char *const inputs[] = {file};
    const tokenizer_train_options o = {
        .vocab_size = vocab_size, .character_coverage = 0.9995, .n_threads = 1, .text_key = "text"};
    moai_error err;
    size_t n;
    char *text = path ? read_whole(path, &n) : own_sources(&n);
    int64_t ours, theirs;

    write_whole(file, text, n);
    CHECK(tokenizer_train(inputs, 1, prefix, &o, &err) == 0, "%s", err.text);
    tokenizer *t = tokenizer_open(model, &err);
    CHECK(t, "%s", err.text);
    double plain = encode_seconds(tokenizer_encode_plain, t, text, n, &theirs),
           own = encode_seconds(tokenizer_encode, t, text, n, &ours);
    CHECK(ours == theirs, "%lld tokens, SentencePiece has %lld", (long long)ours, (long long)theirs);
    printf("encode, one thread, vocabulary %lld, %.1f MB: %.1f MB/s, SentencePiece alone %.1f MB/s: %.0f %%\n",
           (long long)vocab_size, (double)n / 1e6, (double)n / own / 1e6, (double)n / plain / 1e6, 100 * plain / own);
    tokenizer_free(t);
    free(text);
    free(prefix);
    free(model);
    free(file);
}

/* One epoch of shuffled samples; the first touches of chunks, which are verified, included. */
static void bench_loader(const char *manifest_path, int64_t vocab_size, int64_t seq_len, int workers)
{
    int32_t *ids = xmalloc((size_t)(BATCH * (seq_len + 1)) * sizeof *ids);
    int64_t samples[BATCH], n = LOADED / (seq_len * BATCH);
    double first = 0, best = 1e9;

    for (int round = 0; round < ROUNDS; round++) {
        const loader_plan p = {.seq_len = seq_len,
                               .batch = BATCH,
                               .accumulation = 1,
                               .dp_size = 1,
                               .seed = 1,
                               .shuffle = true,
                               .n_workers = workers,
                               .prefetch = 4};
        moai_error err;
        manifest m;
        CHECK(manifest_read(&m, manifest_path, &err) == 0, "%s", err.text);
        dataset *d = dataset_open(&m, "train", &(dataset_readers){&comm_alone, 0, 1}, &err);
        CHECK(d, "%s", err.text);
        for (int epoch = 0; epoch < 2; epoch++) {
            double waited = 0, begin = now_seconds();
            loader *l = loader_start(d, &p, &err);
            CHECK(l, "%s", err.text);
            for (int64_t i = 0; i < n; i++)
                CHECK(loader_next(l, ids, NULL, samples, &waited, &err) == 0, "%s", err.text);
            loader_stop(l);
            double rate = (double)(n * BATCH * seq_len) / (now_seconds() - begin) / 1e6;
            if (epoch == 0 && rate > first) first = rate;
            if (epoch == 1 && 1 / rate < best) best = 1 / rate;
        }
        dataset_free(d);
        manifest_free(&m);
    }
    printf("loader, vocabulary %lld, T %lld, shuffled, %d worker%s: %.0f M tokens/s, %.0f in the first epoch\n",
           (long long)vocab_size, (long long)seq_len, workers, workers == 1 ? "" : "s", 1 / best, first);
    free(ids);
}

int main(int argc, char **argv)
{
    static const int64_t vocabularies[] = {32000, 128000}, lengths[] = {1024, 4096};
    char *dir = in_tmp("set");

    bench_encode(argc > 1 ? argv[1] : NULL, argc > 2 ? atoll(argv[2]) : 4096);
    mkdir(dir, 0777);
    for (int v = 0; v < 2; v++) {
        documents d = random_documents(LOADED + 1, 2000, vocabularies[v], 1);
        char *path = write_dataset(dir, &d, 4, vocabularies[v]);
        for (int i = 0; i < 2; i++)
            for (int workers = 0; workers < 3; workers++) bench_loader(path, vocabularies[v], lengths[i], workers);
        documents_free(&d);
        free(path);
    }
    free(dir);
    return 0;
}
