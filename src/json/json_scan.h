/* json_scan.h: JSON files that others wrote, judged by what is used.  An object is cut into its members and nothing is
 * built; a value that nobody asks for may hold whatever Python's json reads: integers beyond 64 bits, 1e400, NaN,
 * Infinity, lone surrogates, NULs in strings, any depth.  A byte order mark, UTF-16, NUL bytes, an empty or cut-off
 * file and what is no JSON at all are named in words. */
#ifndef MOAI_JSON_SCAN_H
#define MOAI_JSON_SCAN_H

#include "src/base/base.h"

#include <jansson.h>

typedef struct json_member {
    char *key;                                /* escapes resolved; U+FFFD stands for what is no character */
    const char *text;                         /* the value as it is written */
    size_t n_bytes;
    int line;
} json_member;

typedef struct json_members {
    char *name;                               /* what messages call the object: the file, "FILE: rope_scaling" */
    const char *between;                      /* that and a key: ": " or "." */
    char *file;                               /* the text of the file; NULL: the caller's */
    json_member *list;                        /* in the file's order, a key twice where it is there twice */
    size_t n;
} json_members;

/* The members of the object in a file, or of a text, which must stay.  All of it is checked to be JSON.  On failure -1
 * with the name, line and column; free in any case. */
int json_members_open(json_members *, const char *path, moai_error *err);
int json_members_scan(json_members *, const char *name, const char *text, size_t n_bytes, moai_error *err);
void json_members_free(json_members *);

/* The value of a key: NULL where there is none or null.  -1 where Jansson cannot hold it, or the key is there twice
 * with values that differ; a null before a value is none, as one behind it would be the value to Python.  A new
 * reference. */
int json_members_get(const json_members *, const char *key, json_t **value, moai_error *err);
/* The member itself, the last of that key; NULL where there is none or null.  -1 as above. */
int json_members_find(const json_members *, const char *key, const json_member **, moai_error *err);
json_t *json_member_value(const json_member *);             /* NULL: Jansson cannot hold it */
/* As it is written, at most so many bytes of it, for messages.  Caller frees. */
char *json_member_text(const json_member *, size_t most);
bool json_same(const json_t *, const json_t *);             /* numbers by value: 1 is 1.0 */

/* The whole file with a NUL behind it, checked to be UTF-8 text that can be JSON.  Caller frees; NULL on failure. */
char *json_file_read(const char *path, size_t *n_bytes, moai_error *err);
/* What a file is whose first bytes are these, though its name promises something else: "a Git LFS pointer ...";
 * NULL: nothing known. */
const char *foreign_content(const char *head, size_t n_bytes);

#endif
