/* utf8.h: well-formed UTF-8 (Unicode 15, table 3-7): no overlong forms, no surrogates, nothing above U+10FFFF. */
#ifndef MOAI_UTF8_H
#define MOAI_UTF8_H

#include "src/base/base.h"

#include <string.h>

/* Bytes of the byte order mark that the text begins with, as editors put it in front of UTF-8 as well: 3, or 0. */
static inline size_t utf8_mark(const char *text, size_t n_bytes)
{
    return n_bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
}

/* Bytes of the well-formed character that begins n_bytes (>= 1); else minus those of the ill-formed part (>= 1). */
int utf8_length(const char *text, size_t n_bytes);
/* The offset of the first byte that belongs to no well-formed character; -1: all is well. */
int64_t utf8_find_invalid(const char *text, size_t n_bytes);
int64_t utf8_count_invalid(const char *text, size_t n_bytes);               /* maximal ill-formed parts */
/* A malloc'd copy with U+FFFD for each maximal ill-formed part, as browsers do. */
char *utf8_repair(const char *text, size_t n_bytes, size_t *n_repaired);
/* The largest cut <= limit (>= 1) that splits no character of well-formed text of n_bytes > limit. */
size_t utf8_cut(const char *text, size_t limit);

#endif
