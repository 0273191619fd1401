/* text.c: see text.h */
#include "text.h"

#include "utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

/* A piece of the file's text in memory: bytes [base, base + n). */
typedef struct window {
    char *data;
    size_t n, room;
    int64_t base;
    bool at_end;                              /* base + n is the end of the text */
} window;

struct text_file {
    atomic_int n_users;                       /* the opener and each block */
    char *path;
    const text_format *format;
    bool jsonl;
    int fd;
    int64_t n_bytes;
    /* zstd only */
    ZSTD_DStream *zstd;
    ZSTD_inBuffer in;                         /* compressed bytes read and not yet taken */
    bool inside_frame;
    window window;                            /* where the stream stands */
};

enum { PIECE = 1 << 18 };                     /* bytes read at a time */

void text_format_parse(text_format *f, const char *separator)
{
    f->separation = strcmp(separator, "file") == 0         ? SEPARATE_FILE
                    : strcmp(separator, "line") == 0       ? SEPARATE_LINE
                    : strcmp(separator, "blank_line") == 0 ? SEPARATE_BLANK_LINE
                                                           : SEPARATE_LITERAL;
    f->literal = separator;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), k = strlen(end);
    return n >= k && strcmp(text + n - k, end) == 0;
}

static int read_magic(text_file *f, moai_error *err)
{
    unsigned char magic[4] = {0};
    struct stat st;

    if (fstat(f->fd, &st) != 0) return error_set(err, "%s: %s", f->path, strerror(errno));
    if (!S_ISREG(st.st_mode)) return error_set(err, "%s: not a regular file", f->path);
    f->n_bytes = (int64_t)st.st_size;
    if (pread(f->fd, magic, sizeof magic, 0) < 0) return error_set(err, "%s: %s", f->path, strerror(errno));
    if (ends_with(f->path, ".json") || ends_with(f->path, ".json.zst"))
        return error_set(err, "%s: .json is neither text nor a document a line; if it is the latter, name it .jsonl",
                         f->path);
    if (magic[0] == 0x1f && magic[1] == 0x8b)
        return error_set(err, "%s: gzip is not read; give plain text or zstd", f->path);
    if (memcmp(magic, "\x28\xb5\x2f\xfd", 4) == 0) {
        f->zstd = ZSTD_createDStream();
        CHECK(f->zstd, "out of host memory");
        ZSTD_DCtx_setParameter(f->zstd, ZSTD_d_windowLogMax, 31);             /* zstd --long=31, not just its 27 */
        f->in.src = xmalloc(PIECE);
    } else if (ends_with(f->path, ".zst"))
        return error_set(err, "%s: not zstd, though named so", f->path);
    return 0;
}

text_file *text_open(const char *path, const text_format *format, moai_error *err)
{
    text_file *f = xmalloc(sizeof *f);

    f->n_users = 1;
    f->path = xstrdup(path);
    f->format = format;
    f->jsonl = ends_with(path, ".jsonl") || ends_with(path, ".jsonl.zst");
    f->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (f->fd < 0 ? error_set(err, "%s: %s", path, strerror(errno)) : read_magic(f, err)) {
        text_close(f);
        return NULL;
    }
    return f;
}

void text_close(text_file *f)
{
    if (!f || atomic_fetch_sub(&f->n_users, 1) > 1) return;
    if (f->fd >= 0) close(f->fd);
    ZSTD_freeDStream(f->zstd);
    free((void *)(uintptr_t)f->in.src);
    free(f->window.data);
    free(f->path);
    free(f);
}

bool text_sequential(const text_file *f) { return f->zstd != NULL; }
bool text_undivided(const text_file *f) { return !f->jsonl && f->format->separation == SEPARATE_FILE; }
int64_t text_bytes(const text_file *f) { return f->n_bytes; }
int64_t text_position(const text_file *f) { return (int64_t)lseek(f->fd, 0, SEEK_CUR); }

static int fill_plain(const text_file *f, window *w, moai_error *err)
{
    ssize_t got = pread(f->fd, w->data + w->n, PIECE, (off_t)(w->base + (int64_t)w->n));

    if (got < 0)
        return error_set(err, "%s: read at byte %lld: %s", f->path, (long long)w->base + (long long)w->n,
                         strerror(errno));
    w->n += (size_t)got;
    w->at_end = got == 0;
    return 0;
}

static int fill_zstd(text_file *f, window *w, moai_error *err)
{
    if (f->in.pos == f->in.size) {
        ssize_t got = read(f->fd, (void *)(uintptr_t)f->in.src, PIECE);
        if (got < 0) return error_set(err, "%s: %s", f->path, strerror(errno));
        if (got == 0 && f->inside_frame) return error_set(err, "%s: the zstd data is truncated", f->path);
        f->in.size = (size_t)got;
        f->in.pos = 0;
        if (got == 0) {
            w->at_end = true;
            return 0;
        }
    }
    ZSTD_outBuffer out = {w->data + w->n, PIECE, 0};
    size_t left = ZSTD_decompressStream(f->zstd, &out, &f->in);
    if (ZSTD_isError(left)) return error_set(err, "%s: damaged zstd data: %s", f->path, ZSTD_getErrorName(left));
    f->inside_frame = left != 0;
    w->n += out.pos;
    return 0;
}

/* Makes the window reach `end`, or the end of the text. */
static int window_reach(text_file *f, window *w, int64_t end, moai_error *err)
{
    while (!w->at_end && w->base + (int64_t)w->n < end) {
        if (w->n + PIECE > w->room) {
            w->room = 2 * w->room + PIECE;
            w->data = realloc(w->data, w->room);
            CHECK(w->data, "%s: out of host memory: %zu bytes of text", f->path, w->room);
        }
        if ((f->zstd ? fill_zstd(f, w, err) : fill_plain(f, w, err)) != 0) return -1;
    }
    return 0;
}

/* Forgets what lies before `begin`. */
static void window_drop(window *w, int64_t begin)
{
    int64_t n = min_i64(begin - w->base, (int64_t)w->n);

    if (n <= 0) return;
    memmove(w->data, w->data + n, w->n - (size_t)n);
    w->n -= (size_t)n;
    w->base += n;
}

static size_t line_length(const char *line, size_t n)         /* without "\n" or "\r\n" */
{
    if (n > 0 && line[n - 1] == '\n') n--;
    if (n > 0 && line[n - 1] == '\r') n--;
    return n;
}

static bool is_separator(const text_file *f, const char *line, size_t n)
{
    size_t length = line_length(line, n);

    if (f->format->separation == SEPARATE_BLANK_LINE) return length == 0;
    return length == strlen(f->format->literal) && memcmp(line, f->format->literal, length) == 0;
}

static bool line_is_document(const text_file *f) { return f->jsonl || f->format->separation == SEPARATE_LINE; }

/* The longest separator line with its line end, and the line end before it: what tells whether a document starts. */
static int64_t context_bytes(const text_file *f)
{
    return f->format->separation == SEPARATE_LITERAL ? (int64_t)strlen(f->format->literal) + 3 : 3;
}

/* A document starts at a line's start: at any where lines are documents, else behind a separator. */
static bool is_start(const text_file *f, const window *w, int64_t at)
{
    const char *p = w->data + (at - w->base), *line = p - 1;

    if (at == 0) return true;
    if (p == w->data || p[-1] != '\n') return false;
    if (line_is_document(f)) return true;
    while (line > w->data && line[-1] != '\n')
        if (p - --line >= context_bytes(f)) return false;
    return (line > w->data || w->base == 0) && is_separator(f, line, (size_t)(p - line));
}

/* The first start in [from, end), which the window holds; `end` when there is none. */
static int64_t find_start(const text_file *f, const window *w, int64_t from, int64_t end)
{
    for (int64_t at = from; at < end;) {
        if (is_start(f, w, at)) return at;
        const char *p = w->data + (at - w->base), *newline = memchr(p, '\n', (size_t)(end - at));
        if (!newline) break;
        at += newline + 1 - p;
    }
    return end;
}

/* The first start at or behind `from`, or the end of the text, reading on as far as it takes. */
static int find_next_start(text_file *f, window *w, int64_t from, int64_t *start, moai_error *err)
{
    for (int64_t at = from;;) {
        if (window_reach(f, w, at + 1, err) != 0) return -1;
        int64_t end = w->base + (int64_t)w->n;
        *start = at < end ? find_start(f, w, at, end) : end;
        if (*start < end || w->at_end) return 0;
        at = end;
    }
}

/* Documents that start in [begin, end) of the text, as the range [*from, *to); empty when none does. */
static int find_block(text_file *f, window *w, int64_t begin, int64_t end, int64_t *from, int64_t *to, moai_error *err)
{
    *from = *to = begin;
    if (text_undivided(f)) {
        if (window_reach(f, w, INT64_MAX, err) != 0) return -1;
        *to = (int64_t)w->n;
        return 0;
    }
    if (window_reach(f, w, end, err) != 0) return -1;
    int64_t limit = min_i64(end, w->base + (int64_t)w->n);
    *from = *to = find_start(f, w, begin, limit);
    return *from < limit ? find_next_start(f, w, end, to, err) : 0;
}

int text_read_block(text_file *f, int64_t begin, int64_t n_bytes, text_block *b, moai_error *err)
{
    window local = {.base = max_i64(0, begin - context_bytes(f))}, *w = f->zstd ? &f->window : &local;
    int64_t end = begin > INT64_MAX - n_bytes ? INT64_MAX : begin + n_bytes, from, to;
    int status = -1;

    if (text_undivided(f) && begin > 0) return 0;
    window_drop(w, begin - context_bytes(f));
    if (window_reach(f, w, begin + 1, err) != 0) goto done;
    status = w->base + (int64_t)w->n > begin;
    if (status == 0) goto done;
    if (!b) {
        if (window_reach(f, w, end, err) != 0) status = -1;
        goto done;
    }
    if (find_block(f, w, begin, end, &from, &to, err) != 0) {
        status = -1;
        goto done;
    }
    *b = (text_block){.file = f, .offset = from, .n_bytes = (size_t)(to - from)};
    b->data = xmalloc(b->n_bytes + 1);
    atomic_fetch_add(&f->n_users, 1);
    memcpy(b->data, w->data + (from - w->base), b->n_bytes);
    if (from == 0 && b->n_bytes >= 3 && memcmp(b->data, "\xEF\xBB\xBF", 3) == 0) b->at = 3;
done:
    free(local.data);
    return status;
}

void text_block_free(text_block *b)
{
    text_close(b->file);
    free(b->data);
    free(b->document);
    *b = (text_block){0};
}

/* The number, from 1, of the line at `offset` of the text: for messages, so the file is read again. */
static long long line_number(const text_file *f, int64_t offset)
{
    moai_error ignored;
    text_file *again = text_open(f->path, f->format, &ignored);
    window w = {0};
    long long line = 1;

    while (again && w.base < offset && window_reach(again, &w, w.base + 1, &ignored) == 0 && w.n > 0) {
        for (size_t i = 0; i < w.n && w.base + (int64_t)i < offset; i++) line += w.data[i] == '\n';
        window_drop(&w, w.base + (int64_t)w.n);
    }
    free(w.data);
    text_close(again);
    return line;
}

/* Checks or repairs what is at `text`, a part of the block's data. */
static int check_utf8(text_block *b, const char **text, size_t *n, moai_error *err)
{
    int64_t bad = utf8_find_invalid(*text, *n);

    if (bad < 0) return 0;
    if (!b->file->format->replace_invalid) {
        long long at = (long long)(b->offset + (*text - b->data) + bad);
        return error_set(
            err, "%s: byte 0x%02x at %s %lld (line %lld) is not UTF-8; --invalid_utf8 replace puts U+FFFD there",
            b->file->path, (unsigned char)(*text)[bad], b->file->zstd ? "offset of the decompressed text" : "offset",
            at, line_number(b->file, at));
    }
    b->document = utf8_repair(*text, *n, n);
    *text = b->document;
    return 0;
}

/* One line of .jsonl: *text becomes a copy of the string under the key. */
static int parse_line(text_block *b, const char *line, const char **text, size_t *n, moai_error *err)
{
    const char *key = b->file->format->text_key;
    json_error_t fault;
    json_t *object = json_loadb(*text, *n, JSON_ALLOW_NUL, &fault), *value = json_object_get(object, key);
    int64_t offset = b->offset + (line - b->data);
    int status = 0;

    if (!object)
        status = error_set(err, "%s:%lld: not JSON: %s (column %d)", b->file->path, line_number(b->file, offset),
                           fault.text, fault.column);
    else if (!json_is_string(value))
        status =
            error_set(err, "%s:%lld: no text under the key `%s`", b->file->path, line_number(b->file, offset), key);
    else {
        *n = json_string_length(value);
        free(b->document);
        b->document = xmalloc(*n + 1);
        memcpy(b->document, json_string_value(value), *n);
        *text = b->document;
    }
    json_decref(object);
    return status;
}

/* The lines of the next document, [*text, *text + *n) of the data, advancing past the separator; false at the end. */
static bool next_lines(text_block *b, const char **text, size_t *n)
{
    const char *begin = b->data + b->at, *end = b->data + b->n_bytes, *line = begin;

    if (begin >= end) return false;
    *text = begin;
    b->at = b->n_bytes;
    *n = (size_t)(end - begin);
    if (text_undivided(b->file)) return true;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line)), *next = newline ? newline + 1 : end;
        bool separator = !line_is_document(b->file) && is_separator(b->file, line, (size_t)(next - line));
        if (separator || line_is_document(b->file)) {
            *n = (size_t)((separator ? line : next) - begin);
            b->at = (size_t)(next - b->data);
            break;
        }
        line = next;
    }
    *n = line_length(*text, *n);
    return true;
}

static bool is_blank(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r')) i++;
    return i == n;
}

int text_next(text_block *b, const char **text, size_t *n, moai_error *err)
{
    while (next_lines(b, text, n)) {
        const char *line = *text;
        bool jsonl = b->file->jsonl;

        free(b->document);
        b->document = NULL;
        if (jsonl && is_blank(line, *n)) continue;
        if (check_utf8(b, text, n, err) != 0 || (jsonl && parse_line(b, line, text, n, err) != 0)) return -1;
        if (*n > 0) return 1;
        /* a run of blank lines is one separator, and a separator may end the file: only a line or a file can be an
         * empty document */
        if (jsonl || b->file->format->separation == SEPARATE_LINE) b->n_empty++;
    }
    return 0;
}
