/* safetensors.c: reading; see safetensors.h.  The rules are those of the reference reader: data ranges in order,
 * without holes or overlaps, ending with the file. */
#include "io/hf/safetensors.h"
#include "src/base/files.h"
#include "src/json/json_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_MAX_BYTES = 100 * 1000 * 1000 };

struct safetensors {
    char *path;
    int fd;
    safetensors_entry *list;                  /* sorted by name */
    int n;
};

static int bad(const safetensors *s, const char *name, const char *what, moai_error *err)
{
    return error_set(err, "%s: %.200s: %s", s->path, name, what);
}

/* Bits of an element, 0 for a type this reader has not heard of. */
static int dtype_bits(const char *name)
{
    static const struct {
        const char *name;
        int bits;
    } known[] = {{"BOOL", 8}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
                 {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16},   {"I32", 32},    {"U32", 32},
                 {"F32", 32}, {"I64", 64}, {"U64", 64}, {"F64", 64},    {"C64", 64}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].bits;
    return 0;
}

static bool get_u64(const json_t *v, uint64_t *x)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0) return false;
    *x = (uint64_t)json_integer_value(v);
    return true;
}

/* The product of the dimensions, or false where it overflows. */
static bool get_shape(safetensors_entry *e, const json_t *shape, uint64_t *n_elem)
{
    const size_t ndim = json_array_size(shape);
    bool fits = true, empty = false;

    *n_elem = 1;
    for (size_t i = 0; i < ndim; i++) {
        uint64_t n;
        if (!get_u64(json_array_get(shape, i), &n)) return false;
        if (i < 4) e->shape[i] = (int64_t)n;
        empty = empty || n == 0;
        fits = fits && !__builtin_mul_overflow(*n_elem, n, n_elem);
    }
    if (empty) *n_elem = 0;
    e->ndim = (int)ndim;
    return (fits || empty) && ndim <= 64;
}

static int get_entry(const safetensors *s, safetensors_entry *e, const char *name, const json_t *o, uint64_t data,
                     moai_error *err)
{
    const char *dt = json_string_value(json_object_get(o, "dtype"));
    const json_t *shape = json_object_get(o, "shape"), *range = json_object_get(o, "data_offsets");
    uint64_t n_elem, n_bits;

    e->name = xstrdup(name);
    if (!dt) return bad(s, name, "no dtype", err);
    snprintf(e->type, sizeof e->type, "%s", dt);
    if (!json_is_array(shape) || !get_shape(e, shape, &n_elem))
        return bad(s, name, "shape is not a list of sizes", err);
    if (json_array_size(range) != 2 || !get_u64(json_array_get(range, 0), &e->begin) ||
        !get_u64(json_array_get(range, 1), &e->end))
        return bad(s, name, "data_offsets is not a pair of offsets", err);
    if (e->begin > e->end || e->end > (uint64_t)INT64_MAX - data)
        return bad(s, name, "data_offsets run backwards or overflow", err);

    const int bits = dtype_bits(dt);
    if (bits && (__builtin_mul_overflow(n_elem, (uint64_t)bits, &n_bits) || n_bits / 8 != e->end - e->begin))
        return bad(s, name, "data_offsets do not span what dtype and shape need", err);
    e->dt = strcmp(dt, "F32") == 0    ? DT_F32
            : strcmp(dt, "BF16") == 0 ? DT_BF16
            : strcmp(dt, "F16") == 0  ? DT_F16
                                      : DT_U8;
    e->readable = e->dt != DT_U8 && (e->ndim == 1 || e->ndim == 2);
    e->begin += data, e->end += data;
    return 0;
}

static int by_begin(const void *a, const void *b)
{
    const safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const safetensors_entry *)a)->name, ((const safetensors_entry *)b)->name);
}

static int check_ranges(safetensors *s, uint64_t data, uint64_t file_bytes, moai_error *err)
{
    uint64_t at = data;

    if (s->n) qsort(s->list, (size_t)s->n, sizeof *s->list, by_begin);
    for (int i = 0; i < s->n; at = s->list[i++].end) {
        if (s->list[i].begin < at) return bad(s, s->list[i].name, "its data overlaps another tensor's", err);
        if (s->list[i].begin > at) return bad(s, s->list[i].name, "there is a hole before its data", err);
        if (s->list[i].end > file_bytes)
            return error_set(err, "%s: %.200s: its data lies outside the file of %llu bytes: was it cut off?",
                             s->path, s->list[i].name, (unsigned long long)file_bytes);
    }
    if (at != file_bytes) return bad(s, "the file", "is longer than its tensors", err);
    if (s->n) qsort(s->list, (size_t)s->n, sizeof *s->list, by_name);
    for (int i = 1; i < s->n; i++)
        if (by_name(&s->list[i - 1], &s->list[i]) == 0) return bad(s, s->list[i].name, "is there twice", err);
    return 0;
}

static int parse(safetensors *s, const char *text, size_t n_bytes, uint64_t data, uint64_t file_bytes, moai_error *err)
{
    char *name = xasprintf("%s: header", s->path);
    json_members m;
    int rc = json_members_scan(&m, name, text, n_bytes, err);

    if (n_bytes == 0 || text[0] != '{') rc = bad(s, "header", "does not begin with {", err);
    s->list = xmalloc(m.n * sizeof *s->list);
    for (size_t i = 0; rc == 0 && i < m.n; i++) {
        if (strcmp(m.list[i].key, "__metadata__") == 0) continue;
        json_t *o = json_member_value(&m.list[i]);
        rc = o ? get_entry(s, &s->list[s->n++], m.list[i].key, o, data, err)
               : bad(s, m.list[i].key, "its entry in the header holds what is no value", err);
        json_decref(o);
    }
    json_members_free(&m);
    free(name);
    return rc == 0 ? check_ranges(s, data, file_bytes, err) : -1;
}

/* The first bytes: a header's length, and what a file that has none may be. */
static int read_length(safetensors *s, int64_t file_bytes, uint64_t *n, moai_error *err)
{
    unsigned char head[64];
    const size_t n_head = (size_t)min_i64(file_bytes, sizeof head);

    if (file_read_at(s->fd, s->path, head, n_head, 0, err) != 0) return -1;
    const char *is = foreign_content((const char *)head, n_head);
    if (n_head == 0) return bad(s, "the file", "is empty", err);
    if (is && !(n_head > 8 && head[8] == '{')) return bad(s, "the file is", is, err);
    if (n_head < 8) return bad(s, "the file", "is shorter than a header's length", err);
    *n = 0;
    for (int i = 7; i >= 0; i--) *n = *n << 8 | head[i];
    return 0;
}

static int read_header(safetensors *s, moai_error *err)
{
    struct stat st;
    uint64_t n = 0;

    if (fstat(s->fd, &st) != 0 || !S_ISREG(st.st_mode)) return bad(s, "the file", "is not a regular file", err);
    if (read_length(s, st.st_size, &n, err) != 0) return -1;
    if (n > HEADER_MAX_BYTES || n > (uint64_t)st.st_size - 8)
        return error_set(err, "%s: header of %llu bytes in a file of %lld", s->path, (unsigned long long)n,
                         (long long)st.st_size);
    char *text = xmalloc(n + 1);
    int rc = file_read_at(s->fd, s->path, text, n, 8, err);
    if (rc == 0) rc = parse(s, text, n, 8 + n, (uint64_t)st.st_size, err);
    free(text);
    return rc;
}

safetensors *safetensors_open(const char *path, moai_error *err)
{
    safetensors *s = xmalloc(sizeof *s);

    s->path = xstrdup(path);
    s->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (s->fd < 0)
        error_set(err, "%s: %s", path, strerror(errno));
    else if (read_header(s, err) == 0)
        return s;
    safetensors_close(s);
    return NULL;
}

void safetensors_close(safetensors *s)
{
    if (!s) return;
    for (int i = 0; i < s->n; i++) free(s->list[i].name);
    free(s->list);
    free(s->path);
    if (s->fd >= 0) close(s->fd);
    free(s);
}

int safetensors_count(const safetensors *s) { return s->n; }
const safetensors_entry *safetensors_get(const safetensors *s, int i) { return &s->list[i]; }

const safetensors_entry *safetensors_find(const safetensors *s, const char *name)
{
    const safetensors_entry key = {.name = (char *)name};
    return s->n ? bsearch(&key, s->list, (size_t)s->n, sizeof *s->list, by_name) : NULL;
}

/* In place: the raw elements end where the fp32 ones end, so that reading from the front never
 * meets what is still raw. */
static void widen(float *dst, dtype dt, int64_t n)
{
    const char *raw = (const char *)dst + (size_t)n * (sizeof *dst - dtype_size(dt));

    for (int64_t i = 0; dt != DT_F32 && i < n; i++) {
        uint16_t bits;
        memcpy(&bits, raw + 2 * i, sizeof bits);
        if (dt == DT_BF16) {
            const uint32_t wide = (uint32_t)bits << 16;
            memcpy(&dst[i], &wide, sizeof wide);
        } else {
            _Float16 half;
            memcpy(&half, &bits, sizeof half);
            dst[i] = (float)half;
        }
    }
}

int safetensors_read_bytes(safetensors *s, const safetensors_entry *e, int64_t first, int64_t n, void *dst,
                           moai_error *err)
{
    if (strcmp(e->type, "U8") != 0) return bad(s, e->name, "not of type U8", err);
    if (first < 0 || n < 0 || first > (int64_t)(e->end - e->begin) - n)
        return error_set(err, "%s: %s: bytes %lld+%lld wanted of %lld", s->path, e->name, (long long)first,
                         (long long)n, (long long)(e->end - e->begin));
    return file_read_at(s->fd, s->path, dst, (size_t)n, (int64_t)e->begin + first, err);
}

int safetensors_read(safetensors *s, const safetensors_entry *e, int64_t row0, int64_t n_rows, int64_t col0,
                     int64_t n_cols, float *dst, int64_t stride, moai_error *err)
{
    if (!e->readable) return bad(s, e->name, "neither a vector nor a matrix of F32, BF16 or F16", err);
    const int64_t rows = e->ndim == 2 ? e->shape[0] : 1, cols = e->shape[e->ndim - 1];
    const size_t size = dtype_size(e->dt);
    if (row0 < 0 || n_rows < 0 || row0 > rows - n_rows || col0 < 0 || n_cols < 0 || col0 > cols - n_cols)
        return error_set(err, "%s: %s: rows %lld+%lld, columns %lld+%lld wanted of %lld x %lld", s->path, e->name,
                         (long long)row0, (long long)n_rows, (long long)col0, (long long)n_cols, (long long)rows,
                         (long long)cols);
    const bool at_once = n_cols == cols && stride == cols;
    const int64_t n_runs = at_once ? min_i64(n_rows, 1) : n_rows, run = at_once ? n_rows * n_cols : n_cols;

    for (int64_t i = 0; i < n_runs; i++) {
        float *row = dst + i * stride;
        char *raw = (char *)row + (size_t)run * (sizeof *row - size);
        const int64_t at = (int64_t)e->begin + ((row0 + i) * cols + col0) * (int64_t)size;
        if (file_read_at(s->fd, s->path, raw, (size_t)run * size, at, err) != 0) return -1;
        widen(row, e->dt, run);
    }
    return 0;
}
