/* text_file.h: an open text file between text.c (blocks), text_judge.c and text_next.c (documents). */
#ifndef MOAI_TEXT_FILE_H
#define MOAI_TEXT_FILE_H

#include "io/text/text.h"
#include "io/text/unpack.h"

#include <stdatomic.h>

/* A piece of the file's text in memory: bytes [base, base + n). */
typedef struct window {
    char *data;
    size_t n, room;
    int64_t base;
    bool at_end;                              /* base + n is the end of the text */
} window;

struct text_file {
    atomic_int n_users;                       /* the opener and each block */
    char *path, *name;
    const text_format *format;
    bool jsonl;
    int fd;
    int64_t n_bytes;
    /* sequential only */
    unpacker *unpacker;
    window window;                            /* where the stream stands */
    int64_t n_lines;                          /* line ends before the window */
};

/* Makes the window reach `end`, or the end of the text. */
int window_reach(text_file *, window *, int64_t end, moai_error *err);
/* The number, from 1, of the line at `offset` of the text, which the block holds: for messages, so a plain file may be
 * read again. */
long long text_line_number(const text_block *, int64_t offset);
/* As a stream, whatever its kind: for text_spool. */
text_file *text_open_stream(const char *path, const text_format *, moai_error *err);
/* Whether the first line of JSON lines, as far as `head` holds it, is an object with a text.  -1: status 2. */
int text_judge_line(text_file *, const char *head, size_t n_bytes, bool at_end, moai_error *err);
bool text_is_separator(const text_file *, const char *line, size_t n_bytes); /* the line with its end */
bool text_line_is_document(const text_file *);
size_t text_line_length(const char *line, size_t n_bytes);    /* without "\n" or "\r\n" */

#endif
