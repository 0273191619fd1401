/* text_stream.c: see text_stream.h */
#include "src/serve/text_stream.h"

#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST_CHARACTER = 4 }; /* bytes, which are as many tokens */

/* How many tokens at the end hold the first bytes of a character that goes on. */
static int64_t n_within_character(const tokenizer *t, const int32_t *ids, int64_t n)
{
    int n_seen = 0;                           /* bytes of the character's end, from the last one backwards */

    for (int64_t k = 1; k <= n && n_seen < LONGEST_CHARACTER; k++) {
        size_t n_bytes;
        const char *bytes = tokenizer_bytes(t, ids[n - k], &n_bytes);
        if (n_bytes == 0) return 0;
        while (n_bytes > 0 && ++n_seen < LONGEST_CHARACTER) {
            const unsigned char byte = (unsigned char)bytes[--n_bytes];
            const int length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC2 ? 2 : 1;
            if ((byte & 0xC0) != 0x80) return length > n_seen ? k : 0;
        }
    }
    return 0;
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
    const int64_t end = last ? n : max_i64(n - n_within_character(s->tokenizer, ids, n), s->shown);
    char *old = tokenizer_decode(s->tokenizer, ids + s->context, s->shown - s->context, &n_old);
    char *all = tokenizer_decode(s->tokenizer, ids + s->context, end - s->context, &n_all);
    const size_t from = n_old < n_all ? n_old : n_all;
    added = utf8_repair(all + from, n_all - from, &n_new);
    drop_nuls(added, n_new);
    /* a context without text (a control symbol) would pass for the beginning, which has no space */
    if (n_all > from) s->context = s->shown;
    s->shown = end;
    free(old);
    free(all);
    return added;
}
