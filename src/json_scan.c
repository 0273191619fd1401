/* json_scan.c: see json_scan.h */
#include "json_scan.h"

#include "utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* -- the file -- */

const char *foreign_content(const char *head, size_t n_bytes)
{
    static const struct {
        const char *begins, *is;
        size_t n;
    } known[] = {
        {"version https://git-lfs", "a Git LFS pointer, not the file itself: `git lfs pull` fetches that", 23},
        {"PK\3\4", "a zip archive (PyTorch's .bin and .pt are such)", 4},
        {"\x1F\x8B", "compressed with gzip", 2},
        {"\xFD" "7zXZ", "compressed with xz", 5},
        {"\x28\xB5\x2F\xFD", "compressed with zstd", 4},
        {"\x89HDF\r\n", "an HDF5 file", 6},
        {"\x80\2", "a Python pickle", 2},
        {"GGUF", "a GGUF file", 4},
    };
    size_t i = 0;

    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (n_bytes >= known[k].n && !memcmp(head, known[k].begins, known[k].n)) return known[k].is;
    while (i < n_bytes && strchr(" \t\r\n", head[i]) && head[i]) i++;
    return i < n_bytes && head[i] == '<' ? "HTML or XML: a server's page in the place of the file" : NULL;
}

static const char *other_encoding(const char *text, size_t n)
{
    static const struct {
        const char *begins, *is;
        size_t n;
    } known[] = {
        {"\xEF\xBB\xBF", "begins with a byte order mark (EF BB BF): it must be UTF-8 without one", 3},
        {"\xFF\xFE\0\0", "is UTF-32, must be UTF-8", 4},
        {"\0\0\xFE\xFF", "is UTF-32, must be UTF-8", 4},
        {"{\0\0\0", "is UTF-32, must be UTF-8", 4},
        {"\xFF\xFE", "is UTF-16, must be UTF-8", 2},
        {"\xFE\xFF", "is UTF-16, must be UTF-8", 2},
        {"{\0", "is UTF-16, must be UTF-8", 2},
        {"\0{", "is UTF-16, must be UTF-8", 2},
    };

    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        if (n >= known[k].n && !memcmp(text, known[k].begins, known[k].n)) return known[k].is;
    return NULL;
}

/* How many bytes at the end are NUL. */
static size_t nul_tail(const char *text, size_t n)
{
    size_t tail = 0;

    while (tail < n && !text[n - 1 - tail]) tail++;
    return tail;
}

static void place_of(const char *text, const char *at, int *line, int *column)
{
    *line = 1, *column = 1;
    for (; text < at; text++) {
        ++*column;
        if (*text == '\n') ++*line, *column = 1;
    }
}

static int check_text(const char *name, const char *text, size_t n, moai_error *err)
{
    const size_t tail = nul_tail(text, n);
    const char *is = foreign_content(text, n), *encoding = other_encoding(text, n), *nul = memchr(text, 0, n);
    int line, column;

    if (n == 0) return error_set(err, "%s: is empty", name);
    if (tail == n) return error_set(err, "%s: holds %zu NUL bytes and nothing else: it was never written", name, n);
    if (is) return error_set(err, "%s: is %s", name, is);
    if (encoding) return error_set(err, "%s: %s", name, encoding);
    if (tail > 0 && nul == text + n - tail)
        return error_set(err, "%s: ends with %zu NUL bytes, from byte %zu on: a copy or a download that broke off?",
                         name, tail, n - tail);
    if (nul) return error_set(err, "%s: byte %zu is NUL: this is no text", name, (size_t)(nul - text));
    const int64_t invalid = utf8_find_invalid(text, n);
    if (invalid < 0) return 0;
    place_of(text, text + invalid, &line, &column);
    return error_set(err, "%s: line %d, column %d: byte 0x%02X is not UTF-8", name, line, column,
                     (unsigned char)text[invalid]);
}

char *json_file_read(const char *path, size_t *n_bytes, moai_error *err)
{
    FILE *f = fopen(path, "rb");
    size_t n = 0, room = 1 << 16, got = 1;
    char *text = f ? xmalloc(room) : NULL;

    while (f && got > 0) {
        if (room - n < 2) CHECK(text = realloc(text, room *= 2), "out of host memory: %s", path);
        n += got = fread(text + n, 1, room - n - 1, f);
    }
    const bool failed = !f || ferror(f);
    if (failed) error_set(err, "%s: %s", path, strerror(errno));
    if (f) fclose(f);
    if (failed || check_text(path, text, n, err)) return free(text), NULL;
    text[n] = 0;
    *n_bytes = n;
    return text;
}

/* -- the text -- */

typedef struct scanner {
    const char *name, *begin, *at, *end;
    char *open;                               /* '{' or '[' of every value around this one */
    size_t depth, room;
    moai_error *err;
} scanner;

static int bad_at(scanner *s, const char *at, const char *what)
{
    int line, column;

    place_of(s->begin, at, &line, &column);
    return error_set(s->err, "%s: line %d, column %d: %s", s->name, line, column, what);
}

static int bad(scanner *s, const char *what)
{
    return bad_at(s, s->at, s->at == s->end ? "the text ends before the object does: it was cut off" : what);
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\t' || *s->at == '\r')) s->at++;
}

static bool skip_char(scanner *s, char c)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c) return false;
    s->at++;
    return true;
}

static bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

/* From the quote on. */
static int skip_string(scanner *s)
{
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++) {
        if ((unsigned char)*s->at < ' ') return bad(s, "a control character in a string");
        if (*s->at != '\\') continue;
        if (++s->at == s->end || !*s->at || !strchr("\"\\/bfnrtu", *s->at)) return bad(s, "no escape that JSON knows");
        for (int i = 0; *s->at == 'u' && i < 4; i++)
            if (s->end - s->at < 2 + i || !is_hex(s->at[1 + i])) return bad(s, "\\u without four hexadecimal digits");
    }
    if (s->at == s->end) return bad(s, "");
    s->at++;
    return 0;
}

static bool skip_digits(scanner *s)
{
    const char *from = s->at;

    while (s->at < s->end && *s->at >= '0' && *s->at <= '9') s->at++;
    return s->at > from;
}

static bool skip_word(scanner *s, const char *word)
{
    const size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n)) return false;
    s->at += n;
    return true;
}

/* A number, or one of the words; as Python, which also reads NaN, Infinity and -Infinity. */
static int skip_scalar(scanner *s)
{
    static const char *const words[] = {"true", "false", "null", "NaN", "Infinity", "-Infinity"};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (skip_word(s, words[i])) return 0;
    const char *from = s->at;
    skip_word(s, "-");
    if (!skip_word(s, "0") && !skip_digits(s)) return bad_at(s, from, "no value that JSON knows");
    if (skip_word(s, ".") && !skip_digits(s)) return bad(s, "digits are missing");
    if (skip_word(s, "e") || skip_word(s, "E")) {
        if (!skip_word(s, "-")) skip_word(s, "+");
        if (!skip_digits(s)) return bad(s, "digits are missing");
    }
    return 0;
}

static int skip_key(scanner *s)
{
    skip_space(s);
    if (s->at == s->end || *s->at != '"') return bad(s, "a key in quotes is missing");
    if (skip_string(s)) return -1;
    return skip_char(s, ':') ? 0 : bad(s, "a colon is missing");
}

/* Into a list or an object, up to its first value. */
static int enter(scanner *s)
{
    if (s->depth == s->room)
        CHECK(s->open = realloc(s->open, s->room = 2 * s->room + 64), "out of host memory: %s", s->name);
    const char open = *s->at++;
    if (skip_char(s, open == '{' ? '}' : ']')) return 1;
    s->open[s->depth++] = open;
    return open == '{' ? skip_key(s) : 0;
}

/* Behind a value: out of all that end here, and on to the next value. */
static int leave(scanner *s)
{
    while (s->depth > 0) {
        const char open = s->open[s->depth - 1];
        if (skip_char(s, ',')) return open == '{' ? skip_key(s) : 0;
        if (!skip_char(s, open == '{' ? '}' : ']')) return bad(s, "a comma is missing");
        s->depth--;
    }
    return 0;
}

static int skip_value(scanner *s)
{
    int failed = 0;

    do {
        skip_space(s);
        const char c = s->at < s->end ? *s->at : 0;
        if (c == '{' || c == '[') {
            const int empty = enter(s);
            if (empty == 0) continue;
            failed = empty < 0;
        } else if (c == '"')
            failed = skip_string(s);
        else if (s->at < s->end)
            failed = skip_scalar(s);
        else
            failed = bad(s, "");
        if (!failed) failed = leave(s);
    } while (!failed && s->depth > 0);
    return failed ? -1 : 0;
}

/* -- the members -- */

static unsigned hex4(const char *at)
{
    char digits[5] = {at[0], at[1], at[2], at[3], 0};

    return (unsigned)strtoul(digits, NULL, 16);
}

static char *put_utf8(char *to, unsigned c)
{
    if (c < 0x80) return *to++ = (char)c, to;
    if (c < 0x800) return *to++ = (char)(0xC0 | c >> 6), *to++ = (char)(0x80 | (c & 63)), to;
    if (c < 0x10000)
        *to++ = (char)(0xE0 | c >> 12);
    else
        *to++ = (char)(0xF0 | c >> 18), *to++ = (char)(0x80 | (c >> 12 & 63));
    return *to++ = (char)(0x80 | (c >> 6 & 63)), *to++ = (char)(0x80 | (c & 63)), to;
}

/* What stands between the quotes; four bytes of text for each of at least six. */
static char *unescape(const char *at, const char *end)
{
    static const char names[] = "bfnrt", are[] = "\b\f\n\r\t";
    char *text = xmalloc((size_t)(end - at) + 1), *to = text;

    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        const char *name = strchr(names, at[1]);
        if (at[1] != 'u') {
            *to++ = name ? are[name - names] : at[1];
            at += 2;
            continue;
        }
        unsigned c = hex4(at + 2), low = end - at >= 12 && at[6] == '\\' && at[7] == 'u' ? hex4(at + 8) : 0;
        at += 6;
        if (c >= 0xD800 && c < 0xDC00 && low >= 0xDC00 && low < 0xE000)
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00), at += 6;
        to = put_utf8(to, c == 0 || (c >= 0xD800 && c < 0xE000) ? 0xFFFD : c);
    }
    *to = 0;
    return text;
}

/* One member, the scanner before its key. */
static int scan_member(scanner *s, json_member *m, int *line, const char **counted)
{
    skip_space(s);
    const char *key = s->at;
    *m = (json_member){0};
    if (skip_key(s)) return -1;
    const char *colon = s->at - 1;
    while (*colon != '"') colon--;
    m->key = unescape(key + 1, colon);
    skip_space(s);
    m->text = s->at;
    for (; *counted < key; ++*counted) *line += **counted == '\n';
    m->line = *line;
    if (skip_value(s)) return -1;
    m->n_bytes = (size_t)(s->at - m->text);
    return 0;
}

static int scan_all(scanner *s, json_members *m)
{
    size_t room = 0;
    int line = 1;
    const char *counted = s->begin;

    if (!skip_char(s, '{')) return s->at == s->end ? bad_at(s, s->at, "holds no JSON, only white space")
                                                   : bad(s, "not a JSON object ({...})");
    if (skip_char(s, '}')) return 0;
    do {
        if (m->n == room)
            CHECK(m->list = realloc(m->list, (room = 2 * room + 16) * sizeof *m->list), "out of host memory: %s",
                  s->name);
        if (scan_member(s, &m->list[m->n++], &line, &counted)) return -1;
    } while (skip_char(s, ','));
    return skip_char(s, '}') ? 0 : bad(s, "a comma is missing");
}

int json_members_scan(json_members *m, const char *name, const char *text, size_t n_bytes, moai_error *err)
{
    scanner s = {.name = name, .begin = text, .at = text, .end = text + n_bytes, .err = err};

    *m = (json_members){.name = xstrdup(name), .between = "."};
    int status = scan_all(&s, m);
    skip_space(&s);
    if (!status && s.at < s.end) status = bad(&s, "something stands behind the object's end");
    free(s.open);
    return status;
}

int json_members_open(json_members *m, const char *path, moai_error *err)
{
    size_t n_bytes = 0;
    char *text = json_file_read(path, &n_bytes, err);

    *m = (json_members){0};
    if (!text) return -1;
    const int status = json_members_scan(m, path, text, n_bytes, err);
    m->file = text;
    m->between = ": ";
    return status;
}

void json_members_free(json_members *m)
{
    for (size_t i = 0; i < m->n; i++) free(m->list[i].key);
    free(m->list);
    free(m->name);
    free(m->file);
    *m = (json_members){0};
}

json_t *json_member_value(const json_member *m)
{
    return json_loadb(m->text, m->n_bytes, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
}

char *json_member_text(const json_member *m, size_t most)
{
    size_t n = m->n_bytes;

    if (n > most) {
        n = most;
        while (n > 0 && ((unsigned char)m->text[n] & 0xC0) == 0x80) n--;
    }
    return xasprintf("%.*s%s", (int)n, m->text, n < m->n_bytes ? "..." : "");
}

bool json_same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b)) return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static bool is_null(const json_member *m) { return m->n_bytes == 4 && !memcmp(m->text, "null", 4); }

static bool same_value(const json_member *a, const json_member *b)
{
    if (a->n_bytes == b->n_bytes && !memcmp(a->text, b->text, a->n_bytes)) return true;
    json_t *x = json_member_value(a), *y = json_member_value(b);
    const bool same = x && y && json_same(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

int json_members_find(const json_members *m, const char *key, const json_member **found, moai_error *err)
{
    const json_member *one = NULL;

    for (size_t i = 0; i < m->n; i++) {
        const json_member *other = &m->list[i];
        if (strcmp(other->key, key) || is_null(other)) continue;
        if (one && !same_value(one, other)) {
            char *a = json_member_text(one, 80), *b = json_member_text(other, 80);
            error_set(err, "%s%s%s is there twice, %s (line %d) and %s (line %d)", m->name, m->between, key, a,
                      one->line, b, other->line);
            free(a);
            free(b);
            return -1;
        }
        one = other;
    }
    *found = one;
    return 0;
}

int json_members_get(const json_members *m, const char *key, json_t **value, moai_error *err)
{
    const json_member *one;

    *value = NULL;
    if (json_members_find(m, key, &one, err)) return -1;
    if (!one || (*value = json_member_value(one))) return 0;
    char *text = json_member_text(one, 80);
    error_set(err, "%s%s%s is %s, which is no value that fits", m->name, m->between, key, text);
    free(text);
    return -1;
}
