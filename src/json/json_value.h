/* json_value.h: values of a JSON text that are walked as they stand, so that nothing of them is lost: numbers of any
 * size, the order of keys.  A value is borrowed from the text, which json_value_read has checked whole. */
#ifndef MOAI_JSON_VALUE_H
#define MOAI_JSON_VALUE_H

#include "src/json/json_scanner.h"

typedef struct json_value {
    json_kind kind;                           /* VALUE_NONE: there is none */
    const char *text;
    size_t n_bytes;
} json_value;

/* The text as one value, white space around it.  -1 and the fault: it is no JSON. */
int json_value_read(json_value *, const char *text, size_t n_bytes, json_fault *fault);
/* Of an object: the value of a key, the last of several; of another kind, or without the key: VALUE_NONE. */
json_value json_value_of(json_value object, const char *key);
/* The element, or member, behind the one that *element is (VALUE_NONE: the first); false: there is none.  *key, unless
 * NULL, is that of a member, malloc'd. */
bool json_value_next(json_value from, json_value *element, char **key);
/* Of a string what it stands for, malloc'd and NUL-terminated; U+FFFD for lone surrogates. */
char *json_value_string(json_value, size_t *n_bytes);
bool json_value_is(json_value, const char *string);           /* a string that stands for this */
/* As Python's json.dumps(json.loads(text), ensure_ascii=False) writes it, on one line; malloc'd.  NULL: nested deeper
 * than JSON_DEPTH. */
enum { JSON_DEPTH = 512 };
char *json_value_python(json_value);

#endif
