/* safetensors: what Hugging Face's own library wrote is read and written again byte for byte;
 * hostile headers are refused. */
#include "io/hf/safetensors.h"
#include "src/base/files.h"
#include "src/base/rng.h"
#include "tests/lib/scratch.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

static const char halves[] = "tests/golden/safetensors/halves.safetensors";
static const char others[] = "tests/golden/safetensors/others.safetensors";

static float *read_all(safetensors *s, const safetensors_entry *e, moai_error *err)
{
    const int64_t rows = e->ndim == 2 ? e->shape[0] : 1, cols = e->shape[e->ndim - 1];
    float *x = xmalloc((size_t)(rows * cols) * sizeof *x);

    CHECK(safetensors_read(s, e, 0, rows, 0, cols, x, cols, err) == 0, "%s", err->text);
    return x;
}

/* The halves as fp32 hold what their own bits say: widening is exact, so rounding again gives
 * the same bits (see rewritten). */
static void blocks(safetensors *s)
{
    static const char *const names[] = {"x", "x.bf16", "x.f16"};
    moai_error err = {.text = ""};

    for (int i = 0; i < 3; i++) {
        const safetensors_entry *e = safetensors_find(s, names[i]);
        float *x = read_all(s, e, &err), part[5 * 10];
        for (int k = 0; k < 50; k++) part[k] = -1;
        int rc = safetensors_read(s, e, 3, 5, 20, 7, part, 10, &err);
        bool same = rc == 0;
        for (int r = 0; same && r < 5; r++)
            for (int c = 0; c < 10; c++) same = same && part[r * 10 + c] == (c < 7 ? x[(3 + r) * 33 + 20 + c] : -1.0f);
        ok(same, "%s: a block is that block, the rest of the row is untouched", names[i]);
        ok(safetensors_read(s, e, 12, 5, 0, 1, part, 1, &err) != 0 &&
               safetensors_read(s, e, 0, 1, -1, 1, part, 1, &err) != 0 &&
               safetensors_read(s, e, 0, 1, 30, INT64_MAX, part, 1, &err) != 0,
           "a block outside is refused: %s", err.text);
        free(x);
    }
}

static int by_begin(const void *a, const void *b)
{
    const safetensors_entry *x = *(const safetensors_entry *const *)a, *y = *(const safetensors_entry *const *)b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* x goes in as fp32; the file comes out as Python's, roundings of torch included. */
static void rewritten(safetensors *s)
{
    char *path = xasprintf("%s/again.safetensors", getenv("TMPDIR"));
    const safetensors_entry *list[4];
    const int n = safetensors_count(s);
    moai_error err = {.text = ""};
    float *x = read_all(s, safetensors_find(s, "x"), &err), *v = read_all(s, safetensors_find(s, "vector"), &err);

    for (int i = 0; i < n && i < 4; i++) list[i] = safetensors_get(s, i);
    qsort(list, 4, sizeof list[0], by_begin);
    safetensors_writer *w = safetensors_create(path, &err);
    for (int i = 0; i < 4; i++) safetensors_declare(w, list[i]->name, list[i]->dt, list[i]->ndim, list[i]->shape);
    int rc = 0;
    for (int i = 0; i < 4; i++) {
        const bool vector = strcmp(list[i]->name, "vector") == 0;
        const int64_t n_elem = vector ? 7 : 16 * 33, first = n_elem / 3;      /* in two parts */
        rc |= safetensors_write(w, vector ? v : x, first, &err);
        rc |= safetensors_write(w, (vector ? v : x) + first, n_elem - first, &err);
    }
    rc |= safetensors_finish(w, &err);
    size_t n_ours = 0, n_theirs = 0;
    char *ours = file_read(path, 1 << 20, &n_ours, &err), *theirs = file_read(halves, 1 << 20, &n_theirs, &err);
    ok(n == 4 && rc == 0 && ours && n_ours == n_theirs && memcmp(ours, theirs, n_ours) == 0,
       "written again, byte for byte (%zu of %zu) %s", n_ours, n_theirs, err.text);
    free(ours);
    free(theirs);
    free(x);
    free(v);
    free(path);
}

static void other_types(void)
{
    moai_error err = {.text = ""};
    safetensors *s = safetensors_open(others, &err);
    static const char *const unreadable[] = {"i64", "flags", "f64", "cube", "scalar", "deep"};
    float x[6];

    ok(s && safetensors_count(s) == 8, "other types and shapes are listed %s", err.text);
    if (!s) return;
    for (int i = 0; i < 6; i++) {
        const safetensors_entry *e = safetensors_find(s, unreadable[i]);
        ok(e && !e->readable && safetensors_read(s, e, 0, 1, 0, 1, x, 1, &err) != 0 && strstr(err.text, unreadable[i]),
           "%s", err.text);
    }
    ok(safetensors_read(s, safetensors_find(s, "matrix"), 0, 2, 0, 3, x, 3, &err) == 0 && x[5] == 5,
       "a matrix beside them is read");
    const safetensors_entry *empty = safetensors_find(s, "empty");
    ok(empty->readable && empty->shape[0] == 0 && empty->begin == empty->end &&
           safetensors_read(s, empty, 0, 0, 0, 5, x, 5, &err) == 0,
       "an empty matrix is well");
    ok(safetensors_find(s, "none") == NULL, "what is not there is not found");
    safetensors_close(s);
}

/* A file of this header and n zero bytes of data; `length` < 0: the header's own. */
static safetensors *open_header(const char *header, int64_t length, size_t n_data, moai_error *err)
{
    char *path = xasprintf("%s/hostile.safetensors", getenv("TMPDIR"));
    const size_t n = strlen(header);
    const uint64_t said = length < 0 ? n : (uint64_t)length;
    char *data = xmalloc(8 + n + n_data);

    for (int i = 0; i < 8; i++) data[i] = (char)(said >> 8 * i);
    memcpy(data + 8, header, n);
    scratch_write(path, data, 8 + n + n_data);
    err->text[0] = 0;
    safetensors *s = safetensors_open(path, err);
    free(data);
    free(path);
    return s;
}

static void refused(const char *header, int64_t length, size_t n_data, const char *words)
{
    moai_error err;
    safetensors *s = open_header(header, length, n_data, &err);

    ok(!s && strstr(err.text, "hostile.safetensors") && strstr(err.text, words), "%.60s: %s", header, err.text);
    safetensors_close(s);
}

#define T(dt, shape, range) "{\"t\":{\"dtype\":\"" dt "\",\"shape\":" shape ",\"data_offsets\":" range "}}"

static void hostile(void)
{
    moai_error err;
    safetensors *s = open_header(T("F32", "[2,2]", "[0,16]") "   ", -1, 16, &err);

    ok(s != NULL, "the pattern of what follows is well formed %s", err.text);
    safetensors_close(s);
    refused("", -1, 0, "does not begin");
    refused("{", 0, 0, "does not begin");
    refused("{}", INT64_MAX, 0, "header of 9223372036854775807 bytes");
    refused("{}", 100000001, 0, "header of");
    refused("{}", 3, 0, "header of");
    refused("{", -1, 0, "header");
    refused("[]", -1, 0, "does not begin");
    refused(" {}", -1, 0, "does not begin");
    refused("{\"t\":1}", -1, 0, "no dtype");
    refused("{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", -1, 4, "data_offsets");
    refused(T("F32", "4", "[0,16]"), -1, 16, "shape");
    refused(T("F32", "[-4]", "[0,16]"), -1, 16, "shape");
    refused(T("F32", "[4.0]", "[0,16]"), -1, 16, "shape");
    refused(T("F32", "[1e99]", "[0,16]"), -1, 16, "shape");
    refused(T("F32", "[99999999999999999999]", "[0,16]"), -1, 16, "header");
    refused(T("F32", "[4294967296,4294967296]", "[0,0]"), -1, 0, "shape");
    refused(T("F32", "[9223372036854775807]", "[0,16]"), -1, 16, "do not span");
    refused(T("F32", "[2305843009213693952]", "[0,0]"), -1, 0, "do not span");      /* 2^61 * 32 bits wrap to 0 */
    refused(T("F32", "[3]", "[0,16]"), -1, 16, "do not span");
    refused(T("BF16", "[4]", "[0,16]"), -1, 16, "do not span");
    refused(T("F32", "[4]", "[16,0]"), -1, 16, "backwards");
    refused(T("F32", "[4]", "[0,16,32]"), -1, 16, "data_offsets");
    refused(T("F32", "[4]", "[-16,0]"), -1, 16, "data_offsets");
    refused(T("U8", "[16]", "[9223372036854775791,9223372036854775807]"), -1, 16, "overflow");
    refused(T("F32", "[4]", "[0,16]"), -1, 15, "outside the file");
    refused(T("F32", "[4]", "[0,16]"), -1, 17, "longer than its tensors");
    refused(T("F32", "[4]", "[8,24]"), -1, 24, "hole");
    refused(T("Q99", "[4]", "[0,99]"), -1, 16, "outside the file");
    refused(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
        "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
        -1, 6, "overlaps");
    refused(
        "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
        "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        -1, 0, "is there twice");
}

static void other_file(const char *content, size_t n, const char *words)
{
    char *path = xasprintf("%s/other.safetensors", getenv("TMPDIR"));
    moai_error err;

    scratch_write(path, content, n);
    safetensors *s = safetensors_open(path, &err);
    ok(!s && strstr(err.text, "other.safetensors") && strstr(err.text, words), "%s", err.text);
    safetensors_close(s);
    free(path);
}

/* What lies in the place of weights is called what it is; metadata may hold anything. */
static void others_files(void)
{
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 4096\n",
                      page[] = "<html><head><title>404</title></head></html>", zip[] = "PK\3\4\0\0\0\0\0\0\0\0";
    moai_error err;

    other_file(lfs, sizeof lfs - 1, "a Git LFS pointer");
    other_file(page, sizeof page - 1, "HTML or XML");
    other_file(zip, sizeof zip - 1, "a zip archive");
    other_file("", 0, "is empty");
    other_file("\1\2\3", 3, "shorter than a header");
    safetensors *s = open_header("{\"__metadata__\":{\"a\":1e400,\"b\":[NaN,99999999999999999999],\"c\":\"\\ud800\\u0000\"},"
                                 "\"t\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}", -1, 16, &err);
    ok(s && safetensors_count(s) == 1 && safetensors_find(s, "t"), "any metadata are let through %s", err.text);
    safetensors_close(s);
}

/* A million brackets, in case the parser recurses. */
static void deep(void)
{
    enum { N = 1000000 };
    char *header = xmalloc(N + 8);

    memcpy(header, "{\"t\":", 5);
    memset(header + 5, '[', N);
    refused(header, -1, 0, "header");
    free(header);
}

/* Every byte of a valid header may change: the reader refuses it, or what it lists lies in the file and can be read. */
static void mutations(int n)
{
    static const char bytes[] = "0123456789-+.eE\"\\{}[]:, FBUI6\n\377";
    char *path = xasprintf("%s/mutant.safetensors", getenv("TMPDIR"));
    moai_error err;
    size_t n_bytes;
    char *data = file_read(others, 1 << 20, &n_bytes, &err), *mutant = xmalloc(n_bytes);
    uint64_t draw = 0;
    int n_refused = 0, n_outside = 0;
    float x[64];

    CHECK(data, "%s", err.text);
    for (int i = 0; i < n; i++) {
        memcpy(mutant, data, n_bytes);
        for (int m = 0; m < 1 + i % 3; m++) {
            const size_t at = (size_t)(rng_uniform(5, draw++) * (double)(n_bytes - 150));
            mutant[at] = bytes[(int)(rng_uniform(5, draw++) * (sizeof bytes - 1))];
        }
        scratch_write(path, mutant, n_bytes);
        safetensors *s = safetensors_open(path, &err);
        n_refused += !s;
        for (int k = 0; s && k < safetensors_count(s); k++) {
            const safetensors_entry *e = safetensors_get(s, k);
            n_outside += e->begin > e->end || e->end > n_bytes;
            const int64_t cols = e->readable ? e->shape[e->ndim - 1] : 0;
            if (e->readable && cols <= 64 && (e->ndim == 1 || e->shape[0] > 0))
                n_outside += safetensors_read(s, e, 0, 1, 0, cols, x, cols, &err) != 0;
        }
        safetensors_close(s);
    }
    ok(n_refused > n / 2 && n_outside == 0, "%d mutated headers: %d refused, %d led astray", n, n_refused, n_outside);
    free(mutant);
    free(data);
    free(path);
}

int main(int argc, char **argv)
{
    moai_error err = {.text = ""};
    safetensors *s = safetensors_open(halves, &err);

    ok(s != NULL, "what Python wrote is opened %s", err.text);
    if (s) blocks(s), rewritten(s);
    safetensors_close(s);
    other_types();
    hostile();
    deep();
    others_files();
    mutations(argc > 1 ? atoi(argv[1]) : 1000);
    ok(safetensors_open("tests/golden", &err) == NULL && safetensors_open("/nowhere/model.safetensors", &err) == NULL,
       "%s", err.text);
    return tap_done();
}
