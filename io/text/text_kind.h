/* text_kind.h: what a file of text is, by its name and by its first bytes; what it is where it is no text. */
#ifndef MOAI_TEXT_KIND_H
#define MOAI_TEXT_KIND_H

#include "io/text/unpack.h"

/* What a name says, in any letter case: x.jsonl.zst is packed by zstd and holds JSON lines. */
typedef enum {
    NAME_OTHER,      /* says nothing: no ending, or one that is not known */
    NAME_TEXT,       /* .txt .text .md .markdown */
    NAME_JSON_LINES, /* .jsonl .ndjson .jsonlines .json-lines .ldjson */
    NAME_JSON,       /* .json: one value, an array or lines, nobody knows */
    NAME_FOREIGN     /* .csv, .html and the like: text, but no document's */
} name_kind;
typedef struct text_name {
    name_kind kind;
    packing packed;                           /* .gz .gzip .bgz, .zst .zstd, .xz, .lzma, .bz2 .bzip2 */
    const char *what, *way;                   /* NAME_FOREIGN: "HTML", and how to get the text out of it */
} text_name;
text_name text_name_of(const char *path);

/* How bytes are used in the beginning of a text: shares are of n. */
typedef struct byte_counts {
    size_t n, nul, control, invalid; /* invalid: in parts that are not UTF-8; control: but for \t \n \v \f \r \b ESC */
    size_t high, high_runs;                   /* bytes from 0x80 on, and the runs of them */
    size_t characters;                        /* well-formed ones of two bytes or more */
} byte_counts;
byte_counts text_count_bytes(const char *head, size_t n_bytes);
enum { MOSTLY_BAD_PERCENT = 30 };             /* of control and invalid bytes, from which on a text is none */

/* NULL, or what these first bytes of a file (decompressed, all of it or some KiB) are that is no text, and in *way how
 * to get the text out of it: "Apache Parquet", "convert it to JSON lines ...". */
const char *text_foreign(const char *head, size_t n_bytes, const char **way);
/* The same of formats that are written as text: XML, HTML, RTF, WARC, by what nothing else begins with. */
const char *text_markup(const char *head, size_t n_bytes, const char **way);
/* What a text that is not UTF-8 may be instead, for messages: "", or "; it looks like ...: iconv ...". */
const char *text_encoding_hint(const byte_counts *);

#endif
