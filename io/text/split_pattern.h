/* split_pattern.h: the regular expressions by which tokenizers cut a text into words, written for Oniguruma (Hugging
 * Face's tokenizers) and matched by PCRE2 with Unicode's properties.
 *
 * The two differ in the sets that \s and \w stand for, and in the newest letters and numbers: these are spelled out. */
#ifndef MOAI_SPLIT_PATTERN_H
#define MOAI_SPLIT_PATTERN_H

#include "src/base/base.h"

typedef struct split_pattern split_pattern;
/* NULL: it is no pattern, or has what is not spelled out here, by name.  is_literal: the text itself is looked for. */
split_pattern *split_pattern_new(const char *pattern, bool is_literal, moai_error *err);
void split_pattern_free(split_pattern *);

/* What a thread needs to match; of any pattern. */
typedef struct split_room split_room;
split_room *split_room_new(void);
void split_room_free(split_room *);
/* The first match in well-formed UTF-8 from `at` on, not an empty one: 1 and [*begin, *end), 0, or -1. */
int split_pattern_next(const split_pattern *, split_room *, const char *text, size_t n_bytes, size_t at, size_t *begin,
                       size_t *end, moai_error *err);

#endif
