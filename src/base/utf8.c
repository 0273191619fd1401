/* utf8.c: see utf8.h */
#include "src/base/utf8.h"

#include <string.h>

int utf8_length(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    int length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;
    unsigned char low = p[0] == 0xE0 ? 0xA0 : p[0] == 0xF0 ? 0x90 : 0x80;          /* bounds of the second byte */
    unsigned char high = p[0] == 0xED ? 0x9F : p[0] == 0xF4 ? 0x8F : 0xBF;

    if (length == 0) return -1;
    for (int i = 1; i < length; i++, low = 0x80, high = 0xBF)
        if ((size_t)i >= n || p[i] < low || p[i] > high) return -i;
    return length;
}

int64_t utf8_find_invalid(const char *text, size_t n_bytes)
{
    size_t i = 0;

    while (i < n_bytes) {
        uint64_t word;
        while (i + 8 <= n_bytes && (memcpy(&word, text + i, 8), (word & 0x8080808080808080u) == 0)) i += 8;
        if (i == n_bytes) break;
        int length = utf8_length(text + i, n_bytes - i);
        if (length < 0) return (int64_t)i;
        i += (size_t)length;
    }
    return -1;
}

int64_t utf8_count_invalid(const char *text, size_t n_bytes)
{
    int64_t n = 0;

    for (size_t i = 0; i < n_bytes;) {
        int length = utf8_length(text + i, n_bytes - i);
        n += length < 0;
        i += (size_t)(length < 0 ? -length : length);
    }
    return n;
}

char *utf8_repair(const char *text, size_t n_bytes, size_t *n_repaired)
{
    char *out = xmalloc(3 * n_bytes + 1);
    size_t n = 0;

    for (size_t i = 0; i < n_bytes;) {
        int length = utf8_length(text + i, n_bytes - i);
        if (length < 0) {
            memcpy(out + n, "\xEF\xBF\xBD", 3);
            n += 3;
            i += (size_t)-length;
        } else {
            memcpy(out + n, text + i, (size_t)length);
            n += (size_t)length;
            i += (size_t)length;
        }
    }
    *n_repaired = n;
    return out;
}

size_t utf8_cut(const char *text, size_t limit)
{
    size_t cut = limit;

    while (cut > 1 && ((unsigned char)text[cut] & 0xC0) == 0x80) cut--;
    return cut;
}
