/* text.h: documents out of text files, plain or zstd, in blocks that can be read in any order by many readers.
 *
 * A file holds documents: each line of a .jsonl (the string under a key), the whole of a .txt, or the parts of a .txt
 * between separator lines.  A block [begin, begin + n) of the file's text (decompressed) owns the documents that
 * start in it, so that blocks laid end to end own every document once, whatever their size.  Separator lines belong
 * to no document, nor does the line end before one.  Empty documents are skipped.  A byte order mark at the start of a
 * file is not text. */
#ifndef MOAI_TEXT_H
#define MOAI_TEXT_H

#include "base.h"

typedef enum { SEPARATE_FILE, SEPARATE_LINE, SEPARATE_BLANK_LINE, SEPARATE_LITERAL } text_separation;

typedef struct text_format {
    text_separation separation;               /* of .txt; .jsonl has a document per line */
    const char *literal;                      /* SEPARATE_LITERAL: the line that separates */
    const char *text_key;                     /* of .jsonl: "text" */
    bool replace_invalid;                     /* U+FFFD instead of an error for what is not UTF-8 */
} text_format;

/* "file", "line", "blank_line", or anything else: a literal line. */
void text_format_parse(text_format *, const char *separator);

typedef struct text_file text_file;
/* `format` is borrowed.  zstd is told by its magic number, .jsonl and .jsonl.zst by the name.  NULL on failure. */
text_file *text_open(const char *path, const text_format *format, moai_error *err);
void text_close(text_file *);                 /* blocks read from it stay good */
bool text_sequential(const text_file *);      /* zstd: blocks only in order, one thread at a time */
bool text_undivided(const text_file *);       /* one document: one block however long */
int64_t text_bytes(const text_file *);        /* of the file as it lies on disk */
int64_t text_position(const text_file *);     /* of a sequential file: bytes of it read so far */

typedef struct text_block {
    text_file *file;
    char *data;                               /* whole documents, with their separators */
    size_t n_bytes, at;                       /* at: how far text_next has come */
    int64_t offset;                           /* of data[0] in the file's text */
    char *document;                           /* the latest, where it is not a part of data */
    int64_t n_empty;                          /* documents skipped so far because they are empty */
} text_block;

/* 1 and the block (free it with text_block_free), 0 when `begin` is at or past the end, -1.  Plain files:
 * thread-safe.  A sequential file takes blocks in order without a gap; with block NULL it just passes over. */
int text_read_block(text_file *, int64_t begin, int64_t n_bytes, text_block *block, moai_error *err);
/* The next document, valid until the next call: 1; 0 at the block's end; -1 with file and line or byte offset named. */
int text_next(text_block *, const char **text, size_t *n_bytes, moai_error *err);
void text_block_free(text_block *);

#endif
