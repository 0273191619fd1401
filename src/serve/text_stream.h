/* text_stream.h: the text of a growing list of tokens, piece by piece: what is shown is never taken back and never
 * splits a character. */
#ifndef MOAI_TEXT_STREAM_H
#define MOAI_TEXT_STREAM_H

#include "io/text/tokenizer.h"

typedef struct text_stream {
    const tokenizer *tokenizer; /* borrowed; NULL: ids are shown as numbers */
    int64_t shown;              /* tokens whose text has been shown (at first: the prompt's) ... */
    int64_t context;            /* ... and the first of them that is decoded again, so that pieces join as in a whole */
} text_stream;

/* The text of ids [shown, n), well-formed UTF-8; "" while their bytes end within a character, unless they are the
 * last.  Bytes that make no character become U+FFFD, NULs are left out.  malloc'd. */
char *text_stream_next(text_stream *, const int32_t *ids, int64_t n, bool last);

#endif
