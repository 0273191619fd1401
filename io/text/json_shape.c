/* json_shape.c: see json_shape.h */
#include "io/text/json_shape.h"

#include "io/text/json_line.h"
#include "src/base/utf8.h"

#include <string.h>

/* What is between and around the values so far. */
typedef struct row {
    json_scanner s;
    int n_objects, n_arrays; /* that count: with keys; with elements that tell */
    bool commas, records, spread, joined, lone_cr, notebook, array_first;
    bool first_told; /* the first that counts is whole, or the head ends in it */
} row;

static bool at_line_end(const json_scanner *s) { return s->at == s->end || *s->at == '\n' || *s->at == '\r'; }

/* "# ..." and "// ..." lines before the first value. */
static void skip_comments(json_scanner *s)
{
    for (json_skip_space(s); json_next_is(s, '#') || (s->end - s->at > 1 && memcmp(s->at, "//", 2) == 0);
         json_skip_space(s))
        while (!at_line_end(s)) s->at++;
}

/* White space, commas and record separators; *line_end: a line ends among them. */
static void skip_between(row *r, bool *line_end)
{
    json_scanner *s = &r->s;

    for (*line_end = false; s->at < s->end && strchr(" \t\r\n,\x1e", *s->at) && *s->at; s->at++) {
        const bool cr = *s->at == '\r' && s->end - s->at > 1 && s->at[1] != '\n';
        r->lone_cr |= cr && !*line_end;
        *line_end |= *s->at == '\n' || cr;
        r->commas |= *s->at == ',';
        r->records |= *s->at == '\x1e';
    }
}

/* Whether an object begins here that has a key. */
static bool has_key(json_scanner s, bool *cells)
{
    const char *key;
    size_t n;
    bool escaped;

    s.at++;
    const bool has = json_skip_key(&s, &key, &n, &escaped);
    *cells = has && n == 5 && memcmp(key, "cells", 5) == 0;
    return has;
}

/* Whether the array's first element tells that it is one of JSON: a list of numbers may stand in any text. */
static bool has_element(json_scanner s, bool *of_objects)
{
    bool cells;

    s.at++;
    json_skip_space(&s);
    *of_objects = json_next_is(&s, '{') && has_key(s, &cells);
    return *of_objects || json_next_is(&s, '[') || json_next_is(&s, '"');
}

/* The value at s->at.  False: it is none. */
static bool take_value(row *r)
{
    json_scanner *s = &r->s;
    const char *begin = s->at;
    const json_kind kind = json_kind_of(begin, (size_t)(s->end - begin));
    bool cells = false, of_objects = false;
    const bool object = kind == VALUE_OBJECT && has_key(*s, &cells);
    const bool array = kind == VALUE_ARRAY && has_element(*s, &of_objects), first = !r->n_objects && !r->n_arrays;
    const bool known = kind == VALUE_OBJECT || kind == VALUE_ARRAY || kind == VALUE_NULL;
    const bool whole = known && json_skip_value(s), cut = !whole && s->fault.at == (size_t)(s->end - s->begin);

    if (!whole && !(cut && (object || array))) return false;
    if (cut) s->at = s->end;
    r->n_objects += object;
    r->n_arrays += array;
    r->notebook |= first && cells;
    r->array_first |= first && array;
    r->spread |= object && memchr(begin, '\n', (size_t)(s->at - begin));
    if (first && (object || of_objects)) r->first_told = true;
    return true;
}

/* What may follow the first value where it tells alone. */
static bool row_goes_on(const json_scanner *s)
{
    const char *p = s->at;

    while (p < s->end && (*p == ' ' || *p == '\t')) p++;
    return p == s->end || (*p && strchr("\r\n,\x1e{[", *p));
}

static bool is_row(row *r, bool by_first)
{
    bool line_end;

    skip_comments(&r->s);
    for (;;) {
        const int before = r->n_objects + r->n_arrays;
        skip_between(r, &line_end);
        if (r->s.at == r->s.end) return before > 0;
        const bool goes_on = take_value(r);
        r->joined |= before > 0 && goes_on && !line_end;
        if (!goes_on) return by_first && r->first_told;
        if (by_first && before == 0 && r->first_told && !row_goes_on(&r->s)) return false;
    }
}

/* Whether more than three of four lines are objects: some lines of JSON are damaged. */
static bool has_many_objects(const char *head, size_t n)
{
    const char *end = head + n, *next;
    int n_lines = 0, n_objects = 0;

    for (const char *line = head; line < end; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const size_t length = (size_t)((newline ? newline : end) - line);
        json_found m;
        json_fault fault;
        char key[8];
        next = newline ? newline + 1 : end;
        if (length == 0 || (length == 1 && line[0] == '\r')) continue;
        if (n_lines > 0 && !newline) break; /* may be cut */
        n_lines++;
        if (json_find(line, length, "", &m, &fault) != 0) continue;
        json_keys(line, length, key, sizeof key);
        n_objects += key[0] != '\0';
    }
    return 4 * n_objects > 3 * n_lines;
}

json_shape json_shape_of(const char *head, size_t n, bool by_first)
{
    const size_t mark = utf8_mark(head, n);
    row r = {.joined = false};

    json_scanner_init(&r.s, head + mark, n - mark);
    const bool is = is_row(&r, by_first);
    json_scanner_free(&r.s);
    if (!is) return has_many_objects(head + mark, n - mark) ? JSON_LINES : JSON_NONE;
    return r.records       ? JSON_RECORDS
           : r.array_first ? JSON_ARRAY
           : r.notebook    ? JSON_NOTEBOOK
           : r.spread      ? JSON_SPREAD
           : r.commas      ? JSON_COMMAS
           : r.joined      ? JSON_JOINED
           : r.lone_cr     ? JSON_CR
                           : JSON_LINES;
}
