/* text_next.c: the documents of a block, see text.h: lines found, JSON read, UTF-8 checked. */
#include "io/text/text_file.h"

#include "io/text/json_line.h"
#include "io/text/text_kind.h"
#include "src/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY_BYTES = 1 << 15 }; /* of a block, from which on its bad bytes are more than one bad document */

static int64_t offset_of(const text_block *b, const char *at) { return b->offset + (at - b->data); }

/* Room for a document that is not a part of the data. */
static char *document_room(text_block *b, size_t n_bytes)
{
    if (b->document_room < n_bytes) {
        free(b->document);
        b->document = xmalloc(n_bytes);
        b->document_room = n_bytes;
    }
    return b->document;
}

/* ---- UTF-8 without NUL ---- (JSON may have it as \u0000: somebody wrote that) */

/* The offset of the first byte that no text has: a NUL, or one that is not UTF-8; -1: all is well. */
static int64_t find_bad(const char *text, size_t n)
{
    const char *nul = n > 0 ? memchr(text, '\0', n) : NULL;
    const size_t n_before = nul ? (size_t)(nul - text) : n;
    const int64_t invalid = utf8_find_invalid(text, n_before);

    return invalid < 0 && nul ? (int64_t)n_before : invalid;
}

static int bad_byte(const text_block *b, const char *text, size_t n, int64_t bad, moai_error *err)
{
    const size_t from = bad > MANY_BYTES / 2 ? (size_t)bad - MANY_BYTES / 2 : 0;
    const byte_counts c = text_count_bytes(text + from, n - from < MANY_BYTES ? n - from : MANY_BYTES);
    const long long at = offset_of(b, text + bad);
    const bool nul = !text[bad];

    return error_set(err, "%s: byte 0x%02x at %s %lld (line %lld) is %s%s; --invalid_utf8 replace puts U+FFFD there",
                     b->file->name, (unsigned char)text[bad],
                     b->file->unpacker ? "offset of the decompressed text" : "offset", at, text_line_number(b, at),
                     nul ? "a NUL, which no text has" : "not UTF-8", nul ? "" : text_encoding_hint(&c));
}

/* U+FFFD for each NUL; takes the text, and gives another. */
static char *replace_nuls(char *text, size_t *n, size_t n_nul)
{
    char *out = xmalloc(*n + 2 * n_nul), *to = out;

    for (size_t i = 0; i < *n; i++)
        if (text[i])
            *to++ = text[i];
        else
            to = mempcpy(to, "\xEF\xBF\xBD", 3);
    *n = (size_t)(to - out);
    free(text);
    return out;
}

/* Checks or repairs what is at *text, a part of the block's data. */
static int check_utf8(text_block *b, const char **text, size_t *n, moai_error *err)
{
    const int64_t bad = find_bad(*text, *n);

    b->n_checked += (int64_t)*n;
    if (bad < 0) return 0;
    if (!b->file->format->replace_invalid) return bad_byte(b, *text, *n, bad, err);
    const byte_counts c = text_count_bytes(*text, *n);
    b->n_invalid += (int64_t)(c.invalid + c.nul);
    b->counts.replaced += utf8_count_invalid(*text, *n) + (int64_t)c.nul;
    b->counts.nul += (int64_t)c.nul;
    b->counts.repaired++;
    free(b->document);
    b->document = utf8_repair(*text, *n, n);
    if (c.nul > 0) b->document = replace_nuls(b->document, n, c.nul);
    b->document_room = *n;
    *text = b->document;
    return 0;
}

/* At the block's end: with replace_invalid, a text that is mostly bad bytes is none. */
static int check_share(const text_block *b, moai_error *err)
{
    if (b->n_checked < MANY_BYTES || b->n_invalid * 100 <= b->n_checked * MOSTLY_BAD_PERCENT) return 0;
    return error_set(err,
                     "%s: %lld of the %lld bytes of text behind byte %lld are NUL or not UTF-8: no text to replace a "
                     "few in",
                     b->file->name, (long long)b->n_invalid, (long long)b->n_checked, (long long)b->offset);
}

/* ---- JSON lines ---- */

/* Up to 24 bytes for a message, with '?' for what no terminal should get. */
static void excerpt(char text[32], const char *from, size_t n)
{
    size_t at = 0;

    while (at < n && at < 24) {
        const int length = utf8_length(from + at, n - at);
        if (length > 1 && at + (size_t)length > 24) break;
        if (length > 1)
            memcpy(text + at, from + at, (size_t)length);
        else
            text[at] = (unsigned char)from[at] < 0x20 || length < 0 || from[at] == 0x7f ? '?' : from[at];
        at += length > 1 ? (size_t)length : 1;
    }
    text[at] = '\0';
}

static size_t column(const char *line, size_t at)
{
    size_t n = 1;

    for (size_t i = 0; i < at; i++) n += ((unsigned char)line[i] & 0xC0) != 0x80;
    return n;
}

/* What may be behind a fault of this line, [line, line + n) of the data. */
static const char *json_hint(const text_block *b, const char *line, size_t n, const json_fault *fault)
{
    const bool last = line + n == b->data + b->n_bytes, ends = fault->at == n;

    if (ends && last) return "; it is the last line and has no line end: was the file cut short?";
    if (offset_of(b, line) > 3) return "";
    if (!ends && line[fault->at] == '\x1e') return "; tr -d '\\036' takes record separators out";
    if (!ends && line[fault->at] == ',' && fault->at > 0)
        return "; sed 's/,[[:space:]]*$//' takes commas off line ends";
    if (!ends && line[fault->at] == '{' && fault->at > 0)
        return memchr(line, '\r', fault->at) ? "; if its lines end with CR alone, tr '\\r' '\\n' makes others of them"
                                             : "; jq -c . makes a line of each object";
    if (ends) return "; if the file is one object over several lines, jq -c . makes lines of it";
    return line[fault->at] == '[' && !fault->why ? "; if the file is one array, jq -c '.[]' makes lines of it" : "";
}

/* What the line is where it is a JSON value, and no object; VALUE_NONE: no JSON. */
static json_kind kind_of_line(const char *line, size_t n)
{
    json_scanner s;

    json_scanner_init(&s, line, n);
    json_skip_space(&s);
    const json_kind kind = json_kind_of(s.at, (size_t)(s.end - s.at));
    bool whole = json_skip_value(&s);
    json_skip_space(&s);
    whole &= s.at == s.end;
    json_scanner_free(&s);
    return whole || kind == VALUE_ARRAY ? kind : VALUE_NONE;
}

static int bad_json(const text_block *b, const char *line, size_t n, const json_fault *fault, moai_error *err)
{
    const char *hint = json_hint(b, line, n, fault);
    const long long number = text_line_number(b, offset_of(b, line));
    const json_kind kind = fault->why ? VALUE_NONE : kind_of_line(line, n);
    char near[32];

    excerpt(near, line + fault->at, n - fault->at);
    if (kind != VALUE_NONE)
        return error_set(err, "%s:%lld: not JSON lines: expected an object, found %s%s", b->file->name, number,
                         json_kind_name(kind), hint);
    return error_set(err, "%s:%lld: not JSON: %s%s%s%s (column %zu)%s", b->file->name, number,
                     fault->why ? fault->why : "expected an object", near[0] ? " near '" : "", near, near[0] ? "'" : "",
                     column(line, fault->at), hint);
}

/* Another value than a string, or none. */
static int no_text(const text_block *b, const char *line, size_t n, const json_found *m, moai_error *err)
{
    const char *key = b->file->format->text_key;
    const long long number = text_line_number(b, offset_of(b, line));
    char near[32], keys[256];

    if (m->kind == VALUE_NONE) {
        json_keys(line, n, keys, sizeof keys);
        return error_set(err, "%s:%lld: no text under the key `%s`: the object has %s%s", b->file->name, number, key,
                         keys[0] ? keys : "no keys", keys[0] ? " (--text_key names another)" : "");
    }
    const bool says_all = m->kind == VALUE_TRUE || m->kind == VALUE_FALSE;
    excerpt(near, m->value, m->n_bytes);
    return error_set(err, "%s:%lld: no text under the key `%s`: it is %s%s%s", b->file->name, number, key,
                     json_kind_name(m->kind), says_all ? "" : ", ", says_all ? "" : near);
}

static int lone_surrogate(const text_block *b, const char *line, const char *where, moai_error *err)
{
    return error_set(err, "%s:%lld: a lone surrogate in %s; --invalid_utf8 replace puts U+FFFD there", b->file->name,
                     text_line_number(b, offset_of(b, line)), where);
}

/* *text is a string as it stands between its quotes, in the line or repaired in the document. */
static int unescape(text_block *b, const char *line, const char **text, size_t *n, moai_error *err)
{
    json_fault fault;
    int64_t n_lone = 0;
    const bool replace = b->file->format->replace_invalid;
    char *out = *text == b->document ? b->document : document_room(b, *n);

    if (json_unescape(*text, *n, out, n, replace ? &n_lone : NULL, &fault) != 0) {
        char *where = xasprintf("the text under the key `%s`", b->file->format->text_key);
        lone_surrogate(b, line, where, err);
        free(where);
        return -1;
    }
    b->counts.replaced += n_lone;
    b->counts.repaired += n_lone > 0 && out != *text;         /* else counted when it was repaired */
    *text = out;
    return 0;
}

/* Strings of an object are unescaped by who reads it, which puts U+FFFD for a lone surrogate. */
static int check_surrogates(text_block *b, const char *line, const char *object, size_t n, moai_error *err)
{
    size_t at;
    char where[64];
    const int64_t n_lone = json_count_lone(object, n, &at);

    if (n_lone == 0) return 0;
    if (!b->file->format->replace_invalid) {
        snprintf(where, sizeof where, "a string (column %zu)", column(object, at));
        return lone_surrogate(b, line, where, err);
    }
    b->counts.replaced += n_lone;
    b->counts.repaired += object == line;                     /* else counted when it was repaired */
    return 0;
}

/* The text of a line of JSON, or null. */
static int find_text(const text_block *b, const char *line, size_t n, json_found *m, moai_error *err)
{
    json_fault fault;
    const char *key = b->file->format->text_key;

    if (json_find(line, n, key ? key : "", m, &fault) != 0) return bad_json(b, line, n, &fault, err);
    if (!key) *m = (json_found){.kind = VALUE_OBJECT, .value = line, .n_bytes = n};
    return !key || m->kind == VALUE_STRING || m->kind == VALUE_NULL ? 0 : no_text(b, line, n, m, err);
}

/* One line of JSON, *n bytes at *text: *text becomes the string under the key; 0 bytes: empty or null. */
static int read_json(text_block *b, const char **text, size_t *n, moai_error *err)
{
    const size_t mark = utf8_mark(*text, *n); /* of files joined to one */
    const char *line = *text += mark;
    json_found m;

    *n -= mark;
    if (find_text(b, line, *n, &m, err) != 0) return -1;
    b->counts.null += m.kind == VALUE_NULL;
    *n = m.kind == VALUE_NULL ? 0 : m.n_bytes;
    *text = m.value;
    if (m.kind == VALUE_OBJECT)
        return check_utf8(b, text, n, err) != 0 ? -1 : check_surrogates(b, line, *text, *n, err);
    const int64_t control = json_find_control(*text, *n);
    if (control >= 0)
        return error_set(err, "%s:%lld: not JSON: a control character, 0x%02x, in the text (column %zu)", b->file->name,
                         text_line_number(b, offset_of(b, line)), (*text)[control],
                         column(line, (size_t)(*text + control - line)));
    if (check_utf8(b, text, n, err) != 0) return -1;
    return m.escaped ? unescape(b, line, text, n, err) : 0;
}

/* ---- documents ---- */

/* The lines of the next document, [*text, *text + *n) of the data, advancing past the separator; false at the end. */
static bool next_lines(text_block *b, const char **text, size_t *n)
{
    const char *begin = b->data + b->at, *end = b->data + b->n_bytes, *line = begin;

    if (begin >= end) return false;
    *text = begin;
    b->begin = b->at;
    b->at = b->n_bytes;
    *n = (size_t)(end - begin);
    if (text_undivided(b->file)) return true;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line)), *next = newline ? newline + 1 : end;
        const bool by_line = text_line_is_document(b->file);
        const bool separator = !by_line && text_is_separator(b->file, line, (size_t)(next - line));
        if (separator || by_line) {
            *n = (size_t)((separator ? line : next) - begin);
            b->counts.separators += separator;
            b->at = (size_t)(next - b->data);
            break;
        }
        line = next;
    }
    *n = text_line_length(*text, *n);
    return true;
}

static bool is_blank(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r')) i++;
    return i == n;
}

int text_judge_line(text_file *f, const char *head, size_t n, bool at_end, moai_error *err)
{
    text_block b = {
        .file = f, .data = (char *)(uintptr_t)head, .n_bytes = n, .line = 1, .at = utf8_mark(head, n)};
    const char *line;
    size_t length;
    json_found m;
    json_fault fault;

    do
        if (!next_lines(&b, &line, &length)) return 0;
    while (is_blank(line, length));
    if (line + length == head + n && !at_end) /* the rest of it is not here */
        if (json_find(line, length, "", &m, &fault) == 0 || fault.at == length) return 0;
    if (find_text(&b, line, length, &m, err) == 0) return 0;
    err->config = true;
    return -1;
}

int text_pass_over(text_block *b, const moai_error *why)
{
    if (!b->file->format->skip_bad_lines) return -1;
    if (b->counts.bad_lines++ == 0) b->first_bad = *why;
    return 0;
}

char *text_place(const text_block *b)
{
    return xasprintf("%s:%lld", b->file->name, text_line_number(b, b->offset + (int64_t)b->begin));
}

int text_next(text_block *b, const char **text, size_t *n, moai_error *err)
{
    const bool jsonl = b->file->jsonl;

    while (next_lines(b, text, n)) {
        if (jsonl && is_blank(*text, *n)) continue;
        if ((jsonl ? read_json(b, text, n, err) : check_utf8(b, text, n, err)) != 0) {
            if (!jsonl || text_pass_over(b, err) != 0) return -1;
            continue;
        }
        if (*n > 0) return 1;
        /* a run of blank lines is one separator, and a separator may end the file: only a line or a file can be an
         * empty document */
        if (jsonl || b->file->format->separation == SEPARATE_LINE) b->counts.empty++;
    }
    return check_share(b, err);
}
