/* t7-shard.c: token shards, manifests and hashes: what is written is read, damage is found and named. */
#include "io/file/h5.h"
#include "io/file/hash.h"
#include "src/base/files.h"
#include "tests/lib/shards.h"
#include "tests/lib/tap.h"

#include <sys/stat.h>
#include <unistd.h>

/* HDF5 asks for as much memory as a damaged header says, and copes with not getting it. */
#ifdef __SANITIZE_ADDRESS__
const char *__asan_default_options(void);
const char *__asan_default_options(void) { return "allocator_may_return_null=1"; }
#endif

static bool same_bytes(const char *a, const char *b)
{
    moai_error err;
    char hex_a[33] = "a", hex_b[33] = "b";
    return file_xxh3(a, hex_a, NULL, &err) == 0 && file_xxh3(b, hex_b, NULL, &err) == 0 && strcmp(hex_a, hex_b) == 0;
}

/* The whole shard against the documents; reason filled when it cannot be read. */
static bool reads_as(const char *path, const documents *d, moai_error *err)
{
    shard *s = shard_open(path, err);
    int32_t *ids = xmalloc((size_t)d->n_tokens * sizeof *ids);
    uint64_t *offsets = xmalloc((size_t)(d->n_documents + 1) * sizeof *offsets);
    bool counts = s && shard_tokens(s) == d->n_tokens && shard_documents(s) == d->n_documents;
    bool same = counts && shard_read(s, 0, d->n_tokens, ids, err) == 0 &&
                shard_read_documents(s, 0, d->n_documents + 1, offsets, err) == 0 &&
                memcmp(ids, d->ids, (size_t)d->n_tokens * sizeof *ids) == 0;

    if (s && !counts) error_set(err, "%s: other counts, which the manifest tells", path);
    for (int64_t i = 0; same && i <= d->n_documents; i++) same = offsets[i] == (uint64_t)d->begin[i];
    shard_free(s);
    free(ids);
    free(offsets);
    return same;
}

static bool reads_ranges(const char *path, const documents *d)
{
    moai_error err;
    shard *s = shard_open(path, &err);
    uint64_t key = rng_key(1, "ranges");
    int32_t *ids = xmalloc(100000 * sizeof *ids);
    bool same = s != NULL;

    for (uint64_t i = 0; same && i < 300; i++) {
        int64_t begin = (int64_t)(rng_uniform(key, 2 * i) * (double)d->n_tokens);
        int64_t n = min_i64(d->n_tokens - begin, (int64_t)(rng_uniform(key, 2 * i + 1) * (i % 10 ? 3000 : 100000)));
        same = shard_read(s, begin, n, ids, &err) == 0 && memcmp(ids, d->ids + begin, (size_t)n * sizeof *ids) == 0;
    }
    same = same && shard_read(s, d->n_tokens, 0, ids, &err) == 0 && shard_read(s, d->n_tokens, 1, ids, &err) != 0 &&
           shard_read(s, -1, 1, ids, &err) != 0 && shard_read(s, 1, INT64_MAX, ids, &err) != 0;
    shard_free(s);
    free(ids);
    return same;
}

static void test_round_trip(int64_t vocab_size, const char *type)
{
    char *path = in_tmp("a.h5"), *again = in_tmp("b.h5");
    documents d = random_documents(200000, 70000, vocab_size, 7);
    moai_error err = {.text = "different"};

    write_shard(path, &d, 0, d.n_documents, vocab_size);
    ok(reads_as(path, &d, &err), "%s: %lld tokens in %lld documents come back: %s", type, (long long)d.n_tokens,
       (long long)d.n_documents, err.text);
    ok(reads_ranges(path, &d), "%s: any range comes back, none beyond the end", type);
    write_shard(again, &d, 0, d.n_documents, vocab_size);
    ok(same_bytes(path, again), "%s: written twice, the same bytes", type);
    documents_free(&d);
    free(path);
    free(again);
}

/* Flags of tokens and counts of documents come back, any range, and damage to them is found. */
static void test_marks(void)
{
    char *path = in_tmp("marked.h5");
    documents d = random_documents(100000, 3000, 5000, 11);
    uint8_t *trained = xmalloc((size_t)d.n_tokens), *read = xmalloc((size_t)d.n_tokens);
    uint64_t *counts = xmalloc((size_t)d.n_documents * sizeof *counts);
    moai_error err;
    bool same = true;

    for (int64_t i = 0; i < d.n_tokens; i++) trained[i] = rng_uniform(5, (uint64_t)i) < 0.4;
    d.ids[d.n_tokens - 1] = 77;               /* no eos */
    write_marked(path, &d, trained, 0, d.n_documents, 5000);
    ok(reads_as(path, &d, &err), "the tokens of a marked shard come back, a last one that is not eos too");
    shard *s = shard_open(path, &err);
    CHECK(s && shard_get_info(s)->is_marked, "%s", err.text);
    same = shard_read_trained(s, 0, d.n_tokens, read, &err) == 0 && memcmp(read, trained, (size_t)d.n_tokens) == 0;
    for (int64_t begin = 0; same && begin < d.n_tokens; begin += 7919) {
        const int64_t n = min_i64(33000, d.n_tokens - begin);
        same = shard_read_trained(s, begin, n, read, &err) == 0 && memcmp(read, trained + begin, (size_t)n) == 0;
    }
    ok(same, "so do their flags, any range");
    same = shard_read_counted(s, 0, d.n_documents, counts, &err) == 0;
    for (int64_t k = 0; same && k < d.n_documents; k++) {
        uint64_t n = 0;
        for (int64_t i = d.begin[k] + 1; i < d.begin[k + 1]; i++) n += trained[i];
        same = counts[k] == n;
    }
    ok(same && shard_read_counted(s, 1, d.n_documents, counts, &err) != 0 &&
           shard_read_trained(s, 1, d.n_tokens, read, &err) != 0,
       "and the counts of documents, their first tokens left out; none beyond the end");
    shard_free(s);
    flip_byte(path, find_bytes(path, trained + 32768, 64, 0) + 5000);
    s = shard_open(path, &err);
    ok(s && shard_read_trained(s, 0, 32768, read, &err) == 0 && shard_read_trained(s, 32768, 32768, read, &err) != 0 &&
           strstr(err.text, "/trained"), "a flipped flag is found: %s", err.text);
    shard_free(s);
    documents_free(&d);
    free(trained);
    free(read);
    free(counts);
    free(path);
}

/* Every byte of a chunk is under its sum: flips all over /tokens and /documents. */
static void test_flips(void)
{
    char *path = in_tmp("flip.h5");
    documents d = random_documents(70000, 3000, 5000, 3);
    uint16_t first[32];
    uint64_t offsets[4];
    moai_error err;
    int found = 0, named = 0, n = 0;

    for (int i = 0; i < 32; i++) first[i] = (uint16_t)d.ids[i];
    for (int i = 0; i < 4; i++) offsets[i] = (uint64_t)d.begin[i + 1];
    write_shard(path, &d, 0, d.n_documents, 5000);
    int64_t tokens = find_bytes(path, first, sizeof first, 0), table = find_bytes(path, offsets, sizeof offsets, 0);
    for (int64_t at = tokens; at < tokens + 2 * 32768; at += 1009) {
        int64_t where = n % 8 == 7 ? table + n : at;
        flip_byte(path, where);
        err.text[0] = '\0';
        found += !reads_as(path, &d, &err);
        named += strstr(err.text, path) != NULL && strstr(err.text, "damaged") != NULL;
        flip_byte(path, where);
        n++;
    }
    ok(found == n && named == n, "a flipped byte is found: %d of %d, the shard named %d times", found, n, named);
    ok(reads_as(path, &d, &err), "and with the bytes put right the shard reads again");
    documents_free(&d);
    free(path);
}

/* A flip anywhere, a cut anywhere: an error or the right content, never a crash. */
static void test_damage(void)
{
    char *path = in_tmp("damage.h5");
    documents d = random_documents(3000, 300, 5000, 4);
    moai_error err;
    size_t size;
    int well = 0, n = 0;

    write_shard(path, &d, 0, d.n_documents, 5000);
    char *data = read_whole(path, &size);
    for (int64_t at = 0; at < (int64_t)size; at += at < 4096 ? 3 : 61) {
        flip_byte(path, at);
        err.text[0] = '\0';
        well += reads_as(path, &d, &err) || strstr(err.text, path);
        flip_byte(path, at);
        n++;
    }
    ok(well == n, "%d flips all over the file: each read ends well or names the file (%d)", n, well);
    for (size_t keep = well = n = 0; keep < size; keep += size / 23, n++) {
        write_whole(path, data, keep);
        well += !reads_as(path, &d, &err) && strstr(err.text, path);
    }
    ok(well == n, "cut short at %d places: found each time (%d), like: %s", n, well, err.text);
    free(data);
    documents_free(&d);
    free(path);
}

static void test_refusals(void)
{
    char *path = in_tmp("no.h5"), *tmp = in_tmp("no.h5.tmp"), *text = in_tmp("text.h5"), *nowhere = in_tmp("none/x.h5");
    moai_error err;
    struct stat st;
    const shard_info info = test_info(300);
    shard_writer *w = shard_create(path, &info, &err);
    const int32_t open_end[] = {5, 6}, beyond[] = {5, 300, TEST_EOS}, negative[] = {-1, TEST_EOS};

    ok(w && stat(path, &st) != 0 && stat(tmp, &st) == 0, "a shard has its name only when it is whole");
    ok(shard_append(w, open_end, NULL, 2, &err) != 0 && strstr(err.text, "eos"), "a document without eos: %s",
       err.text);
    ok(shard_append(w, beyond, NULL, 3, &err) != 0 && strstr(err.text, "300"), "an id beyond the vocabulary: %s",
       err.text);
    ok(shard_append(w, negative, NULL, 2, &err) != 0, "a negative id: %s", err.text);
    shard_discard(w);
    ok(stat(path, &st) != 0 && stat(tmp, &st) != 0, "a discarded shard leaves nothing");

    write_whole(text, "not a shard at all\n", 19);
    ok(!shard_open(text, &err) && strstr(err.text, text), "not HDF5: %s", err.text);
    ok(!shard_open(path, &err) && strstr(err.text, "No such file"), "missing: %s", err.text);
    ok(!shard_create(nowhere, &info, &err) && strstr(err.text, nowhere), "no directory: %s", err.text);
    free(path);
    free(tmp);
    free(text);
    free(nowhere);
}

static bool manifest_says(const char *path, const char *text, const char *want)
{
    moai_error err = {.text = ""};
    manifest m;

    write_whole(path, text, strlen(text));
    bool refused = manifest_read(&m, path, &err) != 0 && strstr(err.text, path) && strstr(err.text, want);
    return ok(refused, "a manifest refused for `%s`: %s", want, err.text);
}

#define HEAD                                                                                                           \
    "{\"format\": \"moai-manifest\", \"version\": 1, \"vocab_size\": 300, \"eos\": 2, \"pad\": 0, "                    \
    "\"tokenizer_sha256\": \"\""

static void test_manifest(void)
{
    char *dir = in_tmp("set"), *bad = in_tmp("bad.json");
    documents d = random_documents(5000, 100, 300, 9);
    moai_error err;
    manifest m;

    mkdir(dir, 0777);
    char *path = write_dataset(dir, &d, 3, 300);
    ok(manifest_read(&m, dir, &err) == 0 && m.info.vocab_size == 300 && m.info.eos == TEST_EOS && m.n_splits == 1 &&
           m.splits[0].n == 3 && m.splits[0].tokens == 5000 && !manifest_split(&m, "test") &&
           manifest_split(&m, "train")->list[2].documents > 0 && !m.tokenizer,
       "a manifest comes back, found by its directory");
    manifest_free(&m);
    manifest_says(bad, "{\"format\": ", "not JSON");
    manifest_says(bad, "[]", "format");
    manifest_says(bad, "{\"format\": \"other\"}", "other");
    manifest_says(bad, "{\"format\": \"moai-manifest\", \"version\": 3}", "version 3");
    manifest_says(bad, HEAD "}", "splits");
    manifest_says(bad, HEAD ", \"splits\": {\"train\": [{\"file\": \"a\", \"tokens\": -5}]}}", "-5");
    manifest_says(bad, HEAD ", \"splits\": {\"train\": [7]}}", "file");
    manifest_says(bad, HEAD ", \"splits\": {\"train\": {}}}", "list");
    static const char *const outside[] = {"/shared/a.h5", "../a.h5", "sub/a.h5", "./a.h5", "..", ".", ""};
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        char *file = xasprintf(HEAD ", \"splits\": {\"train\": [{\"file\": \"%s\", \"tokens\": 5}]}}", outside[i]);
        manifest_says(bad, file, "must be the plain name");
        char *model = xasprintf(HEAD ", \"tokenizer\": \"%s\", \"splits\": {}}", outside[i]);
        manifest_says(bad, model, "`tokenizer` is");
        free(file);
        free(model);
    }
    documents_free(&d);
    free(path);
    free(dir);
    free(bad);
}

static void test_hashes(void)
{
    char *path = in_tmp("hashed"), *many = xmalloc(1000000), hex[65], hex3[33];
    moai_error err;
    int64_t n = -1;

    write_whole(path, "", 0);
    file_sha256(path, hex, &err);
    ok(strcmp(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855") == 0, "SHA-256 of nothing: %s",
       hex);
    file_xxh3(path, hex3, &n, &err);
    ok(strcmp(hex3, "99aa06d3014798d86001c324468d497f") == 0 && n == 0, "XXH3-128 of nothing: %s", hex3);
    write_whole(path, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56);
    file_sha256(path, hex, &err);
    ok(strcmp(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1") == 0,
       "SHA-256 of FIPS 180's 56 bytes: %s", hex);
    memset(many, 'a', 1000000);
    write_whole(path, many, 1000000);
    file_sha256(path, hex, &err);
    ok(strcmp(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0") == 0,
       "SHA-256 of a million a: %s", hex);
    ok(file_sha256("/nonexistent", hex, &err) != 0 && strstr(err.text, "/nonexistent"), "a missing file: %s", err.text);
    free(path);
    free(many);
}

/* A shard whose tokens lie in chunks of `chunk`; `newer`: said in the layout message of HDF5 1.10, else in that of 1.6,
 * both in an object header without a checksum. */
static void write_chunks(const char *path, hsize_t chunk, bool newer)
{
    const hsize_t n = 32, most = H5S_UNLIMITED;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t space = H5Screate_simple(1, &n, &most);
    int failed = h5_write_text(file, "format", "moai-tokens") | h5_write_int(file, "version", 1) |
                 h5_write_int(file, "vocab_size", 5000) | h5_write_int(file, "eos", TEST_EOS) | h5_write_int(file, "pad", 0) |
                 h5_write_text(file, "tokenizer_sha256", "x");

    H5Pset_chunk(plist, 1, &chunk);
    H5Pset_fletcher32(plist);
    if (newer) H5Pset_chunk_opts(plist, H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS);
    H5Dclose(H5Dcreate2(file, "tokens", H5T_STD_U16LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Dclose(H5Dcreate2(file, "documents", H5T_STD_U64LE, space, H5P_DEFAULT, plist, H5P_DEFAULT));
    H5Sclose(space);
    H5Pclose(plist);
    CHECK(!failed && H5Fclose(file) >= 0, "%s", path);
}

static void test_zero_chunk(void)
{
    static const unsigned char extents[2][8] = {{0x34, 0x12, 0, 0, 2, 0, 0, 0}, {0x34, 0x12, 2, 0}};
    char *path = in_tmp("zero.h5");
    moai_error err;

    for (int newer = 0; newer < 2; newer++) {
        write_chunks(path, 0x1234, newer);
        const int64_t at = find_bytes(path, extents[newer], newer ? 4 : 8, 0);
        size_t n;
        char *data = read_whole(path, &n);
        memset(data + at, 0, 2);
        write_whole(path, data, n);
        free(data);
        ok(!shard_open(path, &err) && strstr(err.text, "zero.h5: /tokens is in chunks of 0"), "%s", err.text);
    }
    free(path);
}

/* A file by another name of its own is not written over with itself. */
static void test_copy(void)
{
    char *path = in_tmp("copied"), *other = in_tmp("copied-too"), *data;
    struct stat before, after;
    moai_error err;
    size_t n;

    write_whole(path, "a tokenizer", 11);
    CHECK(symlink(path, other) == 0 && stat(path, &before) == 0, "%s", other);
    bool well = file_copy(path, other, &err) == 0 && file_copy(other, path, &err) == 0 && stat(path, &after) == 0;
    data = read_whole(path, &n);
    ok(well && n == 11 && memcmp(data, "a tokenizer", n) == 0 && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec,
       "a file copied onto itself is not touched");
    free(data);
    free(path);
    free(other);
}

int main(void)
{
    test_copy();
    test_hashes();
    test_round_trip(5000, "uint16");
    test_round_trip(128000, "uint32");
    test_marks();
    test_flips();
    test_damage();
    test_zero_chunk();
    test_refusals();
    test_manifest();
    return tap_done();
}
