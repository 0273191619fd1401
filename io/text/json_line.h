/* json_line.h: one member of the object that a line of JSON is, found without building what nobody reads: what stands
 * under other keys counts only as far as its end must be found (json_scanner.h). */
#ifndef MOAI_JSON_LINE_H
#define MOAI_JSON_LINE_H

#include "src/json/json_scanner.h"

typedef struct json_found {
    json_kind kind;                           /* VALUE_NONE: no such key */
    const char *value;                        /* as it stands in the line; of a string, what is between the quotes */
    size_t n_bytes;
    bool escaped;                             /* a string with a backslash */
} json_found;

/* The member called `key` of the object at top level; of several the last, as in Python.  Escapes in keys count as what
 * they stand for.  0, or -1 and the fault: no JSON, or no object (then at is where it begins, why NULL). */
int json_find(const char *line, size_t n_bytes, const char *key, json_found *found, json_fault *fault);
/* Keys at top level of a line that json_find takes, as they stand there, joined by ", ": for messages. */
void json_keys(const char *line, size_t n_bytes, char *text, size_t room);

#endif
