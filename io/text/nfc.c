/* nfc.c: see nfc.h
 *
 * A character is plain when it is a starter, decomposes to nothing else that form C would keep, and is never the second
 * of a pair that form C joins: before a plain character nothing reaches across.  A text is cut there, and only what
 * stands between plain characters and is not plain, with the plain one that it may join, goes through utf8proc. */
#include "io/text/nfc.h"

#include "src/base/utf8.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { FIRST = 0x300, N_CHARACTERS = 0x110000 }; /* all below FIRST are plain */

static uint8_t not_plain[N_CHARACTERS / 8];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void mark(int32_t c) { not_plain[c / 8] |= (uint8_t)(1 << c % 8); }
static bool is_marked(int32_t c) { return not_plain[c / 8] >> c % 8 & 1; }

/* The characters that `c` is to form C, as one or more. */
static bool changes(int32_t c)
{
    utf8proc_uint8_t text[8] = {0}, *made;
    const utf8proc_ssize_t n = utf8proc_encode_char(c, text);
    const utf8proc_ssize_t n_made = utf8proc_map(text, n, &made, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    const bool same = n_made == n && memcmp(made, text, (size_t)n) == 0;

    if (n_made >= 0) free(made);
    return !same;
}

static void find_plain(void)
{
    for (int32_t c = FIRST; c < N_CHARACTERS; c++) {
        utf8proc_int32_t parts[8];
        int last_class = 0;
        if (c >= 0xAC00 && c <= 0xD7A3) continue; /* syllables of Hangul are plain */
        if (!utf8proc_codepoint_valid(c)) continue;
        if (utf8proc_get_property(c)->combining_class) mark(c);
        const utf8proc_ssize_t n = utf8proc_decompose_char(c, parts, 8, 0, &last_class),
                               canonical = utf8proc_decompose_char(c, parts, 8, UTF8PROC_DECOMPOSE, &last_class);
        if (n < 1 || (canonical == 1 && parts[0] == c)) continue;
        if (changes(c)) mark(c);
        for (utf8proc_ssize_t i = 1; i < canonical; i++) mark(parts[i]);
    }
    for (int32_t c = 0x1161; c <= 0x1175; c++) mark(c); /* vowels and last consonants of Hangul join */
    for (int32_t c = 0x11A7; c <= 0x11C2; c++) mark(c);
}

/* The character that begins here, and its length. */
static int32_t character(const char *p, size_t *n)
{
    const unsigned char *b = (const unsigned char *)p;

    *n = b[0] < 0x80 ? 1 : b[0] < 0xE0 ? 2 : b[0] < 0xF0 ? 3 : 4;
    switch (*n) {
    case 1: return b[0];
    case 2: return (b[0] & 31) << 6 | (b[1] & 63);
    case 3: return (b[0] & 15) << 12 | (b[1] & 63) << 6 | (b[2] & 63);
    default: return (b[0] & 7) << 18 | (b[1] & 63) << 12 | (b[2] & 63) << 6 | (b[3] & 63);
    }
}

/* Where the next character that is not plain begins, from `at` on, and the one before it; n_bytes: none. */
static size_t next_marked(const char *text, size_t at, size_t n_bytes, size_t *before)
{
    size_t n;

    for (*before = at; at < n_bytes; at += n) {
        if ((unsigned char)text[at] < 0xCC) { /* below U+0300 */
            n = (unsigned char)text[at] < 0x80 ? 1 : 2;
        } else if (is_marked(character(text + at, &n))) {
            return at;
        }
        *before = at;
    }
    return n_bytes;
}

static size_t next_plain(const char *text, size_t at, size_t n_bytes)
{
    size_t n;

    while (at < n_bytes && is_marked(character(text + at, &n))) at += n;
    return at;
}

bool nfc_is_plain(const char *text, size_t n_bytes)
{
    size_t before;

    pthread_once(&once, find_plain);
    return next_marked(text, 0, n_bytes, &before) == n_bytes;
}

typedef struct output {
    char *text;
    size_t n, room;
} output;

static void append(output *o, const char *text, size_t n)
{
    if (o->n + n + 1 > o->room) {
        o->room = 2 * (o->n + n) + 64;
        CHECK(o->text = realloc(o->text, o->room), "out of host memory: %zu bytes of text", o->room);
    }
    memcpy(o->text + o->n, text, n);
    o->n += n;
    o->text[o->n] = 0;
}

int nfc_normalize(const char *text, size_t n_bytes, char **to, size_t *n_to, moai_error *err)
{
    output o = {0};

    pthread_once(&once, find_plain);
    append(&o, "", 0);
    for (size_t at = 0, begin; at < n_bytes;) {
        const size_t marked = next_marked(text, at, n_bytes, &begin);
        if (marked == n_bytes) begin = n_bytes;
        append(&o, text + at, begin - at);
        const size_t end = next_plain(text, marked, n_bytes);
        utf8proc_uint8_t *made;
        if (begin == n_bytes) break;
        const utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text + begin, (utf8proc_ssize_t)(end - begin),
                                                &made, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n < 0) {
            free(o.text);
            return error_set(err, "utf8proc: %s", utf8proc_errmsg(n));
        }
        append(&o, (char *)made, (size_t)n);
        free(made);
        at = end;
    }
    *to = o.text;
    *n_to = o.n;
    return 0;
}
