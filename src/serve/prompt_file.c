/* prompt_file.c: see prompt_file.h */
#include "src/serve/prompt_file.h"

#include "io/text/text.h"
#include "src/base/files.h"
#include "src/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int prompt_file_read(const char *key, const char *path, char **text, size_t *n_bytes, moai_error *err)
{
    const text_format format = {.separation = SEPARATE_FILE, .content = CONTENT_TXT};
    text_block b = {0};
    moai_error why;

    *text = NULL;
    *n_bytes = 0;
    if (strcmp(path, "-") != 0 && file_given(key, path, err)) return -1;
    text_file *f = text_open(path, &format, &why);
    int got = f ? text_judge(f, &why) : -1;
    if (got == 0) got = text_read_block(f, 0, INT64_MAX, &b, &why);
    if (got == 1) {
        const size_t mark = utf8_mark(b.data, b.n_bytes);
        *n_bytes = b.n_bytes - mark;
        *text = memcpy(xmalloc(*n_bytes), b.data + mark, *n_bytes);
        text_block_free(&b);
    }
    if (f) text_close(f);
    if (got >= 0) return 0;
    error_set(err, "--%s %s", key, why.text);
    err->config = why.config;
    return -1;
}

bool prompt_lines_next(prompt_lines *l, const char **line, size_t *n_bytes)
{
    while (l->at < l->end) {
        const char *stop = l->at;
        while (stop < l->end && *stop != '\n' && *stop != '\r') stop++;
        *line = l->at;
        *n_bytes = (size_t)(stop - l->at);
        l->number++;
        l->at = stop + (stop < l->end);
        if (stop < l->end && *stop == '\r' && l->at < l->end && *l->at == '\n') l->at++;
        if (*n_bytes > 0) return true;
    }
    return false;
}
