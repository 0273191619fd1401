/* json_scan.c: see json_scan.h */
#include "src/json/json_scan.h"

#include "src/base/utf8.h"
#include "src/json/json_scanner.h"

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

static bool begins(const char *at, const char *end, const char *word)
{
    return (size_t)(end - at) >= strlen(word) && memcmp(at, word, strlen(word)) == 0;
}

/* What JavaScript and Python allow. */
static const char *habit(const json_scanner *s, const char *at)
{
    static const char *const words[] = {"True", "False", "None"};
    const char *before = at;

    if (begins(at, s->end, "//") || begins(at, s->end, "/*") || begins(at, s->end, "#"))
        return "; JSON has no comments";
    if (begins(at, s->end, "'")) return "; JSON has strings in \" alone";
    for (int i = 0; i < 3; i++)
        if (begins(at, s->end, words[i])) return "; JSON has true, false and null";
    if (!begins(at, s->end, "}") && !begins(at, s->end, "]")) return "";
    while (before > s->begin && strchr(" \t\r\n", before[-1]) && before[-1]) before--;
    return before > s->begin && before[-1] == ',' ? "; JSON has no comma behind the last" : "";
}

static int bad(const json_scanner *s, const char *name, moai_error *err)
{
    const char *at = s->begin + s->fault.at;
    int line, column;

    place_of(s->begin, at, &line, &column);
    return error_set(err, "%s: line %d, column %d: %s%s", name, line, column,
                     strncmp(s->fault.why, "ends", 4) == 0 ? "the text ends before the object does: it was cut off"
                                                           : s->fault.why, habit(s, at));
}

/* -- the members -- */

/* A key as a C string; U+FFFD for what is none. */
static char *key_text(const char *key, size_t n)
{
    char *plain = xmalloc(n), *text = xmalloc(3 * n + 1), *to = text;
    int64_t n_lone = 0;
    json_fault none;

    json_unescape(key, n, plain, &n, &n_lone, &none);
    for (size_t i = 0; i < n; i++) to += sprintf(to, plain[i] ? "%c" : "\xEF\xBF\xBD", plain[i]);
    free(plain);
    return text;
}

/* One member, the scanner before its key. */
static bool scan_member(json_scanner *s, json_member *m, int *line, const char **counted)
{
    const char *key;
    size_t n;
    bool escaped;

    *m = (json_member){0};
    if (!json_skip_key(s, &key, &n, &escaped)) return false;
    m->key = key_text(key, n);
    m->text = s->at;
    for (; *counted < key; ++*counted) *line += **counted == '\n';
    m->line = *line;
    if (!json_skip_value(s)) return false;
    m->n_bytes = (size_t)(s->at - m->text);
    return true;
}

static bool scan_all(json_scanner *s, json_members *m)
{
    size_t room = 0;
    int line = 1;
    const char *counted = s->begin;

    json_skip_space(s);
    if (!json_next_is(s, '{'))
        return json_fail(s, s->at, s->at == s->end ? "holds no JSON, only white space" : "not a JSON object ({...})");
    s->at++;
    json_skip_space(s);
    if (!json_next_is(s, '}')) {
        do {
            if (m->n == room)
                CHECK(m->list = realloc(m->list, (room = 2 * room + 16) * sizeof *m->list), "out of host memory: %s",
                      m->name);
            if (!scan_member(s, &m->list[m->n++], &line, &counted)) return false;
            json_skip_space(s);
        } while (json_next_is(s, ',') && s->at++);
        if (!json_next_is(s, '}'))
            return json_fail(s, s->at, s->at == s->end ? "ends inside an object" : "expected ',' or '}'");
    }
    s->at++;
    json_skip_space(s);
    return s->at == s->end || json_fail(s, s->at, "something follows the object");
}

int json_members_scan(json_members *m, const char *name, const char *text, size_t n_bytes, moai_error *err)
{
    json_scanner s;
    int status = 0;

    json_scanner_init(&s, text, n_bytes);
    s.strict = true;
    *m = (json_members){.name = xstrdup(name), .between = "."};
    if (!scan_all(&s, m)) status = bad(&s, name, err);
    json_scanner_free(&s);
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
        if (strcmp(other->key, key)) continue;
        if (one && !is_null(one) && !same_value(one, other)) {
            char *a = json_member_text(one, 80), *b = json_member_text(other, 80);
            error_set(err, "%s%s%s is there twice, %s (line %d) and %s (line %d)", m->name, m->between, key, a,
                      one->line, b, other->line);
            free(a);
            free(b);
            return -1;
        }
        one = other;
    }
    *found = one && !is_null(one) ? one : NULL;
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
