/* text.c: text files and their blocks, see text.h; documents are in text_next.c, what is refused in text_judge.c */
#include "io/text/text_file.h"

#include "io/text/text_kind.h"
#include "src/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 18 };                     /* bytes read at a time */
enum { MOST_BLANKS = 256 };                   /* behind a separator, its line end among them: it is found backwards */

void text_format_parse(text_format *f, const char *separator)
{
    f->separation = strcmp(separator, "file") == 0         ? SEPARATE_FILE
                    : strcmp(separator, "line") == 0       ? SEPARATE_LINE
                    : strcmp(separator, "blank_line") == 0 ? SEPARATE_BLANK_LINE
                                                           : SEPARATE_LITERAL;
    f->literal = separator;
}

bool text_is_jsonl(const char *name, const text_format *f)
{
    return f->content == CONTENT_AUTO ? text_name_of(name).kind == NAME_JSON_LINES : f->content == CONTENT_JSONL;
}

static int open_input(const char *path)
{
    const bool standard = strcmp(path, "-") == 0 || strcmp(path, "/dev/stdin") == 0;
    int fd = open(standard ? "/dev/stdin" : path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 && standard && errno == ENXIO) fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 0); /* a socket */
    return fd;
}

static const char *why_not_packed(const struct stat *st, const char *head, size_t n)
{
    if (S_ISREG(st->st_mode) && n == 0) return ": it is empty";
    return n > 23 && memcmp(head, "version https://git-lfs", 23) == 0
               ? ": it is a Git LFS pointer, git lfs pull fetches it"
               : "";
}

/* How the file is read: by offsets, or as a stream. */
static int choose_reading(text_file *f, const struct stat *st, bool stream, moai_error *err)
{
    const packing named = text_name_of(f->name).packed;
    char head[PACKING_HEAD];
    ssize_t n = 0;

    if (S_ISDIR(st->st_mode)) return error_config(err, "%s: is a directory", f->name);
    f->n_bytes = S_ISREG(st->st_mode) ? (int64_t)st->st_size : 0;
    if (S_ISREG(st->st_mode) && (n = pread(f->fd, head, sizeof head, 0)) < 0)
        return error_set(err, "%s: %s", f->name, strerror(errno));
    if (stream || !S_ISREG(st->st_mode) || packing_of(head, (size_t)n) != PACKED_NOT)
        if (!(f->unpacker = unpacker_open(f->fd, f->name, err))) return -1;
    if (named != PACKED_NOT && (!f->unpacker || unpacker_packing(f->unpacker) == PACKED_NOT))
        return error_config(err, "%s: not %s, though named so%s", f->name, packing_name(named),
                            why_not_packed(st, head, (size_t)n));
    return 0;
}

static int open_file(text_file *f, bool stream, moai_error *err)
{
    struct stat st;

    f->fd = open_input(f->path);
    if (f->fd < 0 || fstat(f->fd, &st) != 0) return error_file(err, f->name);
    return choose_reading(f, &st, stream, err);
}

static text_file *open_as(const char *path, const char *name, const text_format *format, bool stream, moai_error *err)
{
    text_file *f = xmalloc(sizeof *f);

    f->n_users = 1;
    f->path = xstrdup(path);
    f->name = xstrdup(name);
    f->format = format;
    f->jsonl = text_is_jsonl(name, format);
    if (open_file(f, stream, err) == 0) return f;
    text_close(f);
    return NULL;
}

text_file *text_open_as(const char *path, const char *name, const text_format *format, moai_error *err)
{
    return open_as(path, name, format, false, err);
}

text_file *text_open_stream(const char *path, const text_format *format, moai_error *err)
{
    return open_as(path, path, format, true, err);
}

text_file *text_open(const char *path, const text_format *format, moai_error *err)
{
    return text_open_as(path, path, format, err);
}

bool text_reopens(const char *path)
{
    struct stat st;

    return stat(strcmp(path, "-") == 0 ? "/dev/stdin" : path, &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
}

void text_close(text_file *f)
{
    if (!f || atomic_fetch_sub(&f->n_users, 1) > 1) return;
    if (f->fd >= 0) close(f->fd);
    unpacker_close(f->unpacker);
    free(f->window.data);
    free(f->path);
    free(f->name);
    free(f);
}

void text_counts_add(text_counts *c, const text_counts *more)
{
    c->empty += more->empty;
    c->null += more->null;
    c->replaced += more->replaced;
    c->nul += more->nul;
    c->repaired += more->repaired;
    c->bad_lines += more->bad_lines;
    c->separators += more->separators;
}

bool text_sequential(const text_file *f) { return f->unpacker != NULL; }
bool text_undivided(const text_file *f) { return !f->jsonl && f->format->separation == SEPARATE_FILE; }
int64_t text_bytes(const text_file *f) { return f->n_bytes; }
int64_t text_position(const text_file *f) { return f->unpacker ? unpacker_position(f->unpacker) : 0; }

static int fill_plain(const text_file *f, window *w, moai_error *err)
{
    ssize_t got = pread(f->fd, w->data + w->n, PIECE, (off_t)(w->base + (int64_t)w->n));

    if (got < 0)
        return error_set(err, "%s: read at byte %lld: %s", f->name, (long long)w->base + (long long)w->n,
                         strerror(errno));
    w->n += (size_t)got;
    w->at_end = got == 0;
    return 0;
}

static int fill_unpacked(const text_file *f, window *w, moai_error *err)
{
    size_t got;

    if (unpacker_read(f->unpacker, w->data + w->n, PIECE, &got, err) != 0) return -1;
    w->n += got;
    w->at_end = got == 0;
    return 0;
}

int window_reach(text_file *f, window *w, int64_t end, moai_error *err)
{
    while (!w->at_end && w->base + (int64_t)w->n < end) {
        if (w->n + PIECE > w->room) {
            w->room = 2 * w->room + PIECE;
            w->data = realloc(w->data, w->room);
            CHECK(w->data, "%s: out of host memory: %zu bytes of text", f->name, w->room);
        }
        if ((f->unpacker ? fill_unpacked(f, w, err) : fill_plain(f, w, err)) != 0) return -1;
    }
    return 0;
}

static int64_t count_lines(const char *text, size_t n)
{
    int64_t lines = 0;

    for (size_t i = 0; i < n; i++) lines += text[i] == '\n';
    return lines;
}

/* Forgets what lies before `begin`. */
static void window_drop(text_file *f, window *w, int64_t begin)
{
    int64_t n = min_i64(begin - w->base, (int64_t)w->n);

    if (n <= 0) return;
    f->n_lines += count_lines(w->data, (size_t)n);
    memmove(w->data, w->data + n, w->n - (size_t)n);
    w->n -= (size_t)n;
    w->base += n;
}

size_t text_line_length(const char *line, size_t n)
{
    if (n > 0 && line[n - 1] == '\n') n--;
    if (n > 0 && line[n - 1] == '\r') n--;
    return n;
}

static size_t without_blanks(const char *line, size_t n)
{
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\t' || line[n - 1] == '\r')) n--;
    return n;
}

bool text_is_separator(const text_file *f, const char *line, size_t n)
{
    const char *literal = f->format->separation == SEPARATE_BLANK_LINE ? "" : f->format->literal;
    const size_t length = without_blanks(line, text_line_length(line, n));

    return n - length <= MOST_BLANKS && length == without_blanks(literal, strlen(literal)) &&
           memcmp(line, literal, length) == 0;
}

bool text_line_is_document(const text_file *f) { return f->jsonl || f->format->separation == SEPARATE_LINE; }

/* The longest separator line with its blanks and line end, and the line end before it: what tells whether a document
 * starts. */
static int64_t context_bytes(const text_file *f)
{
    return f->format->separation == SEPARATE_LITERAL ? (int64_t)strlen(f->format->literal) + MOST_BLANKS + 1
                                                     : MOST_BLANKS + 1;
}

/* A document starts at a line's start: at any where lines are documents, else behind a separator. */
static bool is_start(const text_file *f, const window *w, int64_t at)
{
    const char *p = w->data + (at - w->base), *line = p - 1;

    if (at == 0) return true;
    if (p == w->data || p[-1] != '\n') return false;
    if (text_line_is_document(f)) return true;
    while (line > w->data && line[-1] != '\n')
        if (p - --line >= context_bytes(f)) return false;
    return (line > w->data || w->base == 0) && text_is_separator(f, line, (size_t)(p - line));
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
    window local = {.base = max_i64(0, begin - context_bytes(f))}, *w = f->unpacker ? &f->window : &local;
    int64_t end = begin > INT64_MAX - n_bytes ? INT64_MAX : begin + n_bytes, from, to;
    int status = -1;

    if (text_undivided(f) && begin > 0) return 0;
    window_drop(f, w, begin - context_bytes(f));
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
    if (f->unpacker) b->line = 1 + f->n_lines + count_lines(w->data, (size_t)(from - w->base));
    b->data = xmalloc(b->n_bytes + 1);
    atomic_fetch_add(&f->n_users, 1);
    memcpy(b->data, w->data + (from - w->base), b->n_bytes);
    if (from == 0) b->at = utf8_mark(b->data, b->n_bytes);
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

int64_t text_lines_before(const text_file *file, int64_t offset)
{
    moai_error ignored;
    text_file *f = text_open_as(file->path, file->name, file->format, &ignored);
    window w = {0};
    int64_t lines = 0;

    while (f && w.base < offset && window_reach(f, &w, w.base + 1, &ignored) == 0 && w.n > 0) {
        lines += count_lines(w.data, (size_t)min_i64((int64_t)w.n, offset - w.base));
        w.base += (int64_t)w.n;
        w.n = 0;
    }
    free(w.data);
    text_close(f);
    return lines;
}

long long text_line_number(const text_block *b, int64_t offset)
{
    const int64_t first = b->line ? b->line : 1 + text_lines_before(b->file, b->offset);

    return first + count_lines(b->data, (size_t)(offset - b->offset));
}
