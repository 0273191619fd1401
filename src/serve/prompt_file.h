/* prompt_file.h: prompts out of a file, one a line. */
#ifndef MOAI_PROMPT_FILE_H
#define MOAI_PROMPT_FILE_H

#include "src/base/base.h"

/* The text of a file, plain or packed as in text.h, or of standard input ("-"); a byte order mark is not part of it.
 * What is no text is a wrong configuration, by name; `key` is what messages call it.  Caller frees, also after -1.  Not
 * collective. */
int prompt_file_read(const char *key, const char *path, char **text, size_t *n_bytes, moai_error *err);

typedef struct prompt_lines {
    const char *at, *end;                     /* what is left */
    int64_t number;                           /* of the line found last, from 1 */
} prompt_lines;
/* The next line that is not empty, without its end (\n, \r\n or \r); false: none is left. */
bool prompt_lines_next(prompt_lines *, const char **line, size_t *n_bytes);

#endif
