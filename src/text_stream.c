/* text_stream.c: see text_stream.h */
#include "text_stream.h"

#include "utf8.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_CHARACTER = 4 }; /* bytes, and tokens when each is one byte */

/* Whether the text ends with the beginning of a character; a tokenizer that repairs its bytes shows that as U+FFFD. */
static bool ends_within_character(const char *text, size_t n)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    size_t tail = 0;

    if (n >= 3 && memcmp(text + n - 3, replacement, 3) == 0) return true;
    while (tail < n && tail < LONGEST_CHARACTER - 1 && ((unsigned char)text[n - 1 - tail] & 0xC0) == 0x80) tail++;
    if (tail == n) return false;
    const unsigned char lead = (unsigned char)text[n - 1 - tail];
    const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
    return length > tail + 1;
}

static char *numbers(const int32_t *ids, int64_t n)
{
    char *text = xmalloc((size_t)n * 12 + 1), *end = text;

    for (int64_t i = 0; i < n; i++) {
        char *number = xasprintf("%d ", (int)ids[i]);
        end = stpcpy(end, number);
        free(number);
    }
    return text;
}

/* A string ends at a NUL: without them what follows is shown. */
static void drop_nuls(char *text, size_t n)
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (text[i]) text[kept++] = text[i];
    text[kept] = 0;
}

char *text_stream_next(text_stream *s, const int32_t *ids, int64_t n, bool last)
{
    size_t n_old, n_all, n_new;
    char *added;

    if (!s->tokenizer) {
        added = numbers(ids + s->shown, n - s->shown);
        s->shown = n;
        return added;
    }
    char *old = tokenizer_decode(s->tokenizer, ids + s->context, s->shown - s->context, &n_old);
    char *all = tokenizer_decode(s->tokenizer, ids + s->context, n - s->context, &n_all);
    if (!last && n - s->shown < LONGEST_CHARACTER && ends_within_character(all, n_all)) {
        added = xstrdup("");
    } else {
        const size_t from = n_old < n_all ? n_old : n_all;
        added = utf8_repair(all + from, n_all - from, &n_new);
        drop_nuls(added, n_new);
        /* a context without text (a control symbol) would pass for the beginning, which has no space */
        if (n_all > from) s->context = s->shown;
        s->shown = n;
    }
    free(old);
    free(all);
    return added;
}
