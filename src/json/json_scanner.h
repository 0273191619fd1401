/* json_scanner.h: a walk over JSON that finds where values end and builds nothing.
 *
 * The grammar is RFC 8259's with NaN, Infinity and -Infinity, as Python writes and reads them.  Numbers may be of any
 * size, nesting of any depth (there is no recursion), strings may hold lone surrogates, NUL, raw control characters and
 * bytes that are not UTF-8: who reads a string looks at what is in it. */
#ifndef MOAI_JSON_SCANNER_H
#define MOAI_JSON_SCANNER_H

#include "src/base/base.h"

typedef enum {
    VALUE_NONE,
    VALUE_STRING,
    VALUE_NUMBER,
    VALUE_TRUE,
    VALUE_FALSE,
    VALUE_NULL,
    VALUE_OBJECT,
    VALUE_ARRAY
} json_kind;

typedef struct json_fault {
    size_t at;                                /* offset in the text; its length where more was expected */
    const char *why;                          /* "expected ',' or '}'", "ends inside a string" */
} json_fault;

typedef struct json_scanner {
    const char *begin, *end, *at;             /* the text, borrowed, and where the walk is */
    json_fault fault;                         /* once a function has returned false */
    bool strict;                              /* raw control characters in strings are a fault, as in Python */
    uint64_t few[16], *levels;                /* a bit for each open object or array: 1, an object */
    size_t depth, room;
} json_scanner;

void json_scanner_init(json_scanner *, const char *text, size_t n_bytes);
void json_scanner_free(json_scanner *);
bool json_fail(json_scanner *, const char *at, const char *why); /* notes the fault; false */
void json_skip_space(json_scanner *);
bool json_next_is(const json_scanner *, char);
/* From the quote on, past the string; whether it has a backslash. */
bool json_skip_string(json_scanner *, bool *escaped);
/* A key, which stands between its quotes, and its colon; the walk is at the value then. */
bool json_skip_key(json_scanner *, const char **key, size_t *n_bytes, bool *escaped);
bool json_skip_value(json_scanner *);         /* whatever it holds */

/* The kind of the value that begins with these bytes, as far as the first shows it; VALUE_NONE: of none. */
json_kind json_kind_of(const char *value, size_t n_bytes);
const char *json_kind_name(json_kind);        /* "a number" */

/* What is between the quotes of a string that was skipped.  The offset of the first raw control character, which JSON
 * does not allow there; -1: none. */
int64_t json_find_control(const char *string, size_t n_bytes);
/* What it stands for, into out, which may be the string itself, else has room for n_bytes; *n_out: how many it takes.
 * A lone surrogate becomes U+FFFD, counted in *n_lone, if that is not NULL; else -1 and its fault. */
int json_unescape(const char *string, size_t n_bytes, char *out, size_t *n_out, int64_t *n_lone, json_fault *fault);
/* Lone surrogates in the strings of a value, or a text, that was skipped; *at: the offset of the first. */
int64_t json_count_lone(const char *text, size_t n_bytes, size_t *at);

#endif
