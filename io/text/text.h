/* text.h: documents out of text files, plain or packed (unpack.h), in blocks that can be read in any order by many
 * readers.
 *
 * A file holds documents: each line of JSON lines (the string under a key), the whole of a text, or the parts of a text
 * between separator lines (which may end in blanks; a blank line may be of blanks).  A block [begin, begin + n) of the
 * file's text (decompressed) owns the documents that start in it, so that blocks laid end to end own every document
 * once, whatever their size.  Separator lines belong to no document, nor does the line end before one.  Empty documents
 * are skipped.  A byte order mark at the start of a file is not text.
 *
 * Which of the two a file is, its name says (text_kind.h) or the format; a name that is not known is that of a text.
 * The packing is told by the first bytes.  What does not look like what it is taken for, text_judge refuses. */
#ifndef MOAI_TEXT_H
#define MOAI_TEXT_H

#include "src/base/base.h"

typedef enum { SEPARATE_FILE, SEPARATE_LINE, SEPARATE_BLANK_LINE, SEPARATE_LITERAL } text_separation;
typedef enum { CONTENT_AUTO, CONTENT_JSONL, CONTENT_TXT } text_content;

typedef struct text_format {
    text_separation separation;               /* of a text; JSON lines have a document per line */
    const char *literal;                      /* SEPARATE_LITERAL: the line that separates; else what asked for it, */
                                              /* or NULL: nobody did */
    const char *text_key;                     /* of JSON lines: "text"; NULL: the document is the line itself */
    bool replace_invalid;                     /* U+FFFD, not an error, for NUL, lone surrogates, what is not UTF-8 */
    text_content content;                     /* of all files; auto: as each one's name says */
    bool skip_bad_lines;                      /* of JSON lines: without a text that can be read, counted */
} text_format;

/* "file", "line", "blank_line", or anything else: a literal line. */
void text_format_parse(text_format *, const char *separator);

bool text_is_jsonl(const char *name, const text_format *);    /* JSON lines, by its name or the format */

typedef struct text_file text_file;
/* `format` is borrowed.  "-" is standard input.  NULL on failure. */
text_file *text_open(const char *path, const text_format *format, moai_error *err);
/* The same for a file that lies elsewhere: messages have `name`, and it says what the file is. */
text_file *text_open_as(const char *path, const char *name, const text_format *format, moai_error *err);
void text_close(text_file *);                 /* blocks read from it stay good */
/* Whether `path`, or "-", is a file: what it gives can be read again, and by others. */
bool text_reopens(const char *path);
/* Copies all that a pipe or "-" gives, as it comes, to the file `to`: what can be opened again, and by other ranks.
 * Its beginning is judged (text_judge) before the rest is waited for: it may have no end. */
int text_spool(const char *path, const char *to, const text_format *, moai_error *err);
/* Looks at the first 64 KiB of text, before a block is read.  -1: it is a known other format, binary data, another
 * encoding, whatever replace_invalid and the format say; or, where nobody has said what it is, JSON or markup; or JSON
 * lines whose first has no text, unless skip_bad_lines: by name, and with the way out. */
int text_judge(text_file *, moai_error *err);
/* Packed, or no regular file (a pipe, a device): blocks only in order, one thread at a time. */
bool text_sequential(const text_file *);
bool text_undivided(const text_file *);       /* one document: one block however long */
int64_t text_bytes(const text_file *);        /* of the file as it lies on disk; 0: no regular file */
int64_t text_position(const text_file *);     /* of a sequential file: bytes of it read so far */

/* What became of documents: of a block's so far, or of many blocks'. */
typedef struct text_counts {
    int64_t empty, null;                      /* documents left out for they have no text; null in JSON among them */
    int64_t replaced, nul, repaired;          /* U+FFFD put for what is no UTF-8 or NUL, into so many documents */
    int64_t bad_lines;                        /* left out by skip_bad_lines */
    int64_t separators;                       /* lines between documents of a text */
} text_counts;
void text_counts_add(text_counts *, const text_counts *more);

typedef struct text_block {
    text_file *file;
    char *data;                               /* whole documents, with their separators */
    size_t n_bytes, at;                       /* at: how far text_next has come */
    size_t begin;                             /* of the latest document, as it stands in the data */
    int64_t offset;                           /* of data[0] in the file's text */
    int64_t line;                             /* its number, from 1; 0: not counted */
    char *document;                           /* the latest, where it is not a part of data */
    size_t document_room;
    text_counts counts;
    int64_t n_checked, n_invalid;             /* bytes of text so far, and those that are not UTF-8 */
    moai_error first_bad;                     /* the first of counts.bad_lines, in words */
} text_block;

/* 1 and the block (free it with text_block_free), 0 when `begin` is at or past the end, -1.  Plain files:
 * thread-safe.  A sequential file takes blocks in order without a gap; with block NULL it just passes over. */
int text_read_block(text_file *, int64_t begin, int64_t n_bytes, text_block *block, moai_error *err);
/* The next document, valid until the next call: 1; 0 at the block's end; -1 with file and line or byte offset named. */
int text_next(text_block *, const char **text, size_t *n_bytes, moai_error *err);
/* "FILE:LINE" of the latest document of lines, for messages; malloc'd. */
char *text_place(const text_block *);
/* That document is none, for the reason: 0 where skip_bad_lines passes over it, and it is counted; else -1. */
int text_pass_over(text_block *, const moai_error *why);
void text_block_free(text_block *);
int64_t text_lines_before(const text_file *, int64_t offset);              /* of a plain file, which is read again */

#endif
