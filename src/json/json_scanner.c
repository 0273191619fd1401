/* json_scanner.c: see json_scanner.h */
#include "src/json/json_scanner.h"

#include <stdlib.h>
#include <string.h>

bool json_fail(json_scanner *s, const char *at, const char *why)
{
    s->fault = (json_fault){(size_t)(at - s->begin), why};
    return false;
}

void json_skip_space(json_scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\r' || *s->at == '\n')) s->at++;
}

bool json_next_is(const json_scanner *s, char c) { return s->at < s->end && *s->at == c; }

/* The first quote or backslash at or behind p, or end: eight bytes at a time. */
static const char *find_quote_or_backslash(const char *p, const char *end)
{
    const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;

    for (; end - p >= 8; p += 8) {
        uint64_t word, quote, backslash;
        memcpy(&word, p, 8);
        quote = word ^ ones * '"';
        backslash = word ^ ones * '\\';
        if ((((quote - ones) & ~quote) | ((backslash - ones) & ~backslash)) & tops) break;
    }
    while (p < end && *p != '"' && *p != '\\') p++;
    return p;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* The four digits at p; -1 where they are not. */
static int hex_number(const char *p, const char *end)
{
    int number = 0;

    if (end - p < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const int digit = hex_digit(p[i]);
        if (digit < 0) return -1;
        number = number * 16 + digit;
    }
    return number;
}

/* Past the string whose first quote is at s->at. */
bool json_skip_string(json_scanner *s, bool *escaped)
{
    const char *p = s->at + 1;

    *escaped = false;
    while ((p = find_quote_or_backslash(p, s->end)) < s->end && *p == '\\') {
        *escaped = true;
        if (s->end - p < 2) break;
        if (p[1] == 'u') {
            if (hex_number(p + 2, s->end) < 0) {
                const char *bad = p + 2;
                while (bad < s->end && hex_digit(*bad) >= 0) bad++;
                return json_fail(s, bad,
                                 bad == s->end ? "ends inside a string" : "\\u without four hexadecimal digits");
            }
            p += 6;
        } else {
            if (!p[1] || !strchr("\"\\/bfnrt", p[1])) return json_fail(s, p, "an escape that JSON does not have");
            p += 2;
        }
    }
    if (p >= s->end || *p != '"') return json_fail(s, s->end, "ends inside a string");
    const int64_t control = s->strict ? json_find_control(s->at + 1, (size_t)(p - s->at - 1)) : -1;
    if (control >= 0) return json_fail(s, s->at + 1 + control, "a control character in a string");
    s->at = p + 1;
    return true;
}

static bool is_digit(const json_scanner *s) { return s->at < s->end && *s->at >= '0' && *s->at <= '9'; }

static bool skip_digits(json_scanner *s)
{
    if (!is_digit(s)) return json_fail(s, s->at, s->at < s->end ? "expected a digit" : "ends inside a number");
    while (is_digit(s)) s->at++;
    return true;
}

static bool skip_word(json_scanner *s, const char *word)
{
    const char *begin = s->at;

    for (; *word; word++, s->at++)
        if (!json_next_is(s, *word))
            return s->at < s->end ? json_fail(s, begin, "a word that JSON does not have")
                                  : json_fail(s, s->at, "ends inside a word");
    return true;
}

static bool skip_number(json_scanner *s)
{
    if (json_next_is(s, '-')) s->at++;
    if (json_next_is(s, 'I')) return skip_word(s, "Infinity");
    if (json_next_is(s, '0'))
        s->at++;
    else if (!skip_digits(s))
        return false;
    if (json_next_is(s, '.')) {
        s->at++;
        if (!skip_digits(s)) return false;
    }
    if (json_next_is(s, 'e') || json_next_is(s, 'E')) {
        s->at++;
        if (json_next_is(s, '+') || json_next_is(s, '-')) s->at++;
        if (!skip_digits(s)) return false;
    }
    return true;
}

json_kind json_kind_of(const char *value, size_t n_bytes)
{
    if (n_bytes == 0) return VALUE_NONE;
    switch (value[0]) {
    case '"': return VALUE_STRING;
    case '{': return VALUE_OBJECT;
    case '[': return VALUE_ARRAY;
    case 't': return VALUE_TRUE;
    case 'f': return VALUE_FALSE;
    case 'n': return VALUE_NULL;
    case 'N':
    case 'I':
    case '-': return VALUE_NUMBER;
    default: return value[0] >= '0' && value[0] <= '9' ? VALUE_NUMBER : VALUE_NONE;
    }
}

const char *json_kind_name(json_kind kind)
{
    static const char *const names[] = {"nothing", "a string", "a number",  "true",
                                        "false",   "null",     "an object", "an array"};
    return names[kind];
}

static bool skip_scalar(json_scanner *s)
{
    bool escaped;

    switch (json_kind_of(s->at, (size_t)(s->end - s->at))) {
    case VALUE_STRING: return json_skip_string(s, &escaped);
    case VALUE_TRUE: return skip_word(s, "true");
    case VALUE_FALSE: return skip_word(s, "false");
    case VALUE_NULL: return skip_word(s, "null");
    case VALUE_NUMBER:
        return *s->at == 'N' ? skip_word(s, "NaN") : *s->at == 'I' ? skip_word(s, "Infinity") : skip_number(s);
    default: return json_fail(s, s->at, s->at < s->end ? "expected a value" : "ends before a value");
    }
}

static void open_level(json_scanner *s, bool object)
{
    const size_t word = s->depth / 64;
    const uint64_t bit = (uint64_t)1 << s->depth % 64;

    if (word == s->room) {
        uint64_t *wider = xmalloc(2 * s->room * sizeof *wider);
        memcpy(wider, s->levels, s->room * sizeof *wider);
        if (s->levels != s->few) free(s->levels);
        s->levels = wider;
        s->room *= 2;
    }
    s->levels[word] = object ? s->levels[word] | bit : s->levels[word] & ~bit;
    s->depth++;
}

static bool inside_object(const json_scanner *s) { return s->levels[(s->depth - 1) / 64] >> (s->depth - 1) % 64 & 1; }

/* A key and its colon; s->at is at the value then. */
bool json_skip_key(json_scanner *s, const char **key, size_t *n, bool *escaped)
{
    json_skip_space(s);
    if (!json_next_is(s, '"'))
        return json_fail(s, s->at, s->at < s->end ? "expected a key in quotes" : "ends inside an object");
    *key = s->at + 1;
    if (!json_skip_string(s, escaped)) return false;
    *n = (size_t)(s->at - 1 - *key);
    json_skip_space(s);
    if (!json_next_is(s, ':')) return json_fail(s, s->at, s->at < s->end ? "expected ':'" : "ends inside an object");
    s->at++;
    json_skip_space(s);
    return true;
}

/* What follows a value inside an object or array: a comma (and a key), or the end of the level.  *more: a value. */
static bool step_on(json_scanner *s, bool *more)
{
    const bool object = inside_object(s);
    const char *key;
    size_t n;
    bool escaped;

    json_skip_space(s);
    *more = json_next_is(s, ',');
    if (*more) {
        s->at++;
        return !object || json_skip_key(s, &key, &n, &escaped);
    }
    if (!json_next_is(s, object ? '}' : ']'))
        return json_fail(s, s->at,
                         s->at == s->end ? object ? "ends inside an object" : "ends inside an array"
                         : object        ? "expected ',' or '}'"
                                         : "expected ',' or ']'");
    s->at++;
    s->depth--;
    return true;
}

/* Past the value at s->at, whatever it holds. */
bool json_skip_value(json_scanner *s)
{
    const size_t depth = s->depth;
    const char *key;
    size_t n;
    bool escaped, more;

    do {
        json_skip_space(s);
        const bool object = json_next_is(s, '{');
        if (object || json_next_is(s, '[')) {
            s->at++;
            json_skip_space(s);
            open_level(s, object);
            if (!json_next_is(s, object ? '}' : ']')) {
                if (object && !json_skip_key(s, &key, &n, &escaped)) return false;
                more = true;
                continue;
            }
            s->at++;
            s->depth--;
        } else if (!skip_scalar(s))
            return false;
        for (more = false; s->depth > depth && !more;)
            if (!step_on(s, &more)) return false;
    } while (more);
    return true;
}

void json_scanner_init(json_scanner *s, const char *text, size_t n_bytes)
{
    s->begin = s->at = text;
    s->end = text + n_bytes;
    s->fault = (json_fault){0, NULL};
    s->levels = s->few;
    s->room = sizeof s->few / sizeof *s->few;
    s->depth = 0;
    s->strict = false;
}

void json_scanner_free(json_scanner *s)
{
    if (s->levels != s->few) free(s->levels);
}

static size_t put_utf8(char *out, unsigned c)
{
    const size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = {0, 0, 0xC0, 0xE0, 0xF0};

    for (size_t i = n; i-- > 1; c >>= 6) out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(leads[n] | c);
    return n;
}

/* The character of \uXXXX at p, with its second half where it is a pair; *n: bytes taken.  -1: a lone surrogate. */
static int unescape_unicode(const char *p, const char *end, size_t *n)
{
    const int first = hex_number(p + 2, end);

    *n = 6;
    if (first < 0xD800 || first > 0xDFFF) return first;
    if (first > 0xDBFF || end - p < 12 || p[6] != '\\' || p[7] != 'u') return -1;
    const int second = hex_number(p + 8, end);
    if (second < 0xDC00 || second > 0xDFFF) return -1;
    *n = 12;
    return 0x10000 + (first - 0xD800) * 0x400 + (second - 0xDC00);
}

int64_t json_find_control(const char *string, size_t n_bytes)
{
    const unsigned char *c = (const unsigned char *)string;
    unsigned char least = 0x20;

    for (size_t i = 0; i < n_bytes; i++) least = c[i] < least ? c[i] : least; /* a vector at a time */
    if (least == 0x20) return -1;
    while (*c >= 0x20) c++;
    return (const char *)c - string;
}

int json_unescape(const char *string, size_t n_bytes, char *out, size_t *n_out, int64_t *n_lone, json_fault *fault)
{
    static const char letters[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *p = string, *end = string + n_bytes;
    char *o = out;

    while (p < end) {
        const char *backslash = memchr(p, '\\', (size_t)(end - p));
        const size_t n = (size_t)((backslash ? backslash : end) - p);
        size_t taken = 2;
        if (o != p) memmove(o, p, n);
        o += n;
        p += n;
        if (!backslash) break;
        if (p[1] != 'u') {
            *o++ = meant[strchr(letters, p[1]) - letters];
        } else {
            const int c = unescape_unicode(p, end, &taken);
            if (c < 0 && !n_lone) {
                *fault = (json_fault){(size_t)(p - string), "a lone surrogate"};
                return -1;
            }
            if (c < 0) ++*n_lone;
            o += put_utf8(o, c < 0 ? 0xFFFD : (unsigned)c);
        }
        p += taken;
    }
    *n_out = (size_t)(o - out);
    return 0;
}

int64_t json_count_lone(const char *text, size_t n_bytes, size_t *at)
{
    const char *p = text, *end = text + n_bytes;
    int64_t n_lone = 0;

    while ((p = memchr(p, '\\', (size_t)(end - p)))) {
        size_t taken = 2;
        if (p[1] == 'u' && unescape_unicode(p, end, &taken) < 0 && n_lone++ == 0) *at = (size_t)(p - text);
        p += taken;
    }
    return n_lone;
}
