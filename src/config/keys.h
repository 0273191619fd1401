/* keys.h: tables of keys.  One row per key of a JSON object, each filling one field of a C struct; reading JSON,
 * flags, help, writing and error messages all come from the row. */
#ifndef MOAI_KEYS_H
#define MOAI_KEYS_H

#include "src/base/base.h"

#include <jansson.h>

/* int64_t, double, bool, char *, an enum; a path is a char * that path_expand (paths.h) has seen */
typedef enum { KEY_INT, KEY_DOUBLE, KEY_BOOL, KEY_STRING, KEY_CHOICE, KEY_PATH } key_type;

/* A choice's names; the first name of a value is the one written.  "true" and "false" let a
 * JSON boolean or a bare flag choose. */
typedef struct key_choice {
    const char *name;                         /* NULL ends the list */
    int value;
} key_choice;

/* What a run that goes on from a checkpoint may do with a key: change it, leave it as it is, change it where the
 * learning rates of the steps done stay the same, or change it where what it leads to stays the same, which its
 * reader compares. */
typedef enum { RESUME_FREE, RESUME_FIXED, RESUME_SCHEDULE, RESUME_CONTENT } on_resume;

typedef struct key_spec {
    const char *name, *alias;
    key_type type;
    on_resume on_resume;
    size_t offset;                            /* of the field in the struct */
    const char *initial;                      /* the default as text; NULL: the key must be given */
    const char *bare;                         /* what a flag without a value means; NULL: it needs one */
    double min, max;                          /* both ends allowed; numbers only */
    const key_choice *choices;
    const char *help;
} key_spec;

typedef struct key_table {
    const key_spec *list;
    int n;
} key_table;

/* A module's table, and where the struct that it fills lies in a larger one. */
typedef struct key_group {
    const key_table *keys;
    size_t base;
} key_group;
/* All of them as one table of the larger struct; its list is the caller's to free. */
key_table keys_join(const key_group *, int n);

const key_spec *keys_find(key_table, const char *name);                 /* by name or alias; NULL */
/* The known key with the smallest edit distance, when that is at most a third of the letters, but at least two; else
 * NULL. */
const key_spec *keys_nearest(key_table, const char *name);
void keys_defaults(key_table, void *base);    /* a required key gets 0, "" or false */
void keys_free(key_table, void *base);        /* the strings */

/* The next name of a list "a,b,c", *n bytes of it; NULL at its end. */
const char *names_next(const char **list, size_t *n);

/* Sets the field from text or JSON.  `label` is what messages call the key: "run.json: max_steps", "--max_steps". */
int key_set_text(const key_spec *, void *base, const char *label, const char *text, moai_error *err);
int key_set_json(const key_spec *, void *base, const char *label, const json_t *value, moai_error *err);
json_t *key_get_json(const key_spec *, const void *base);               /* a new reference */
/* What JSON can hold of any bytes: U+FFFD for what is not UTF-8.  A new reference, never NULL. */
json_t *json_string_repaired(const char *);

/* A line of --help without its end: "  --name TYPE" in so many columns, then what the key means. */
void key_print_help(const key_spec *, int width);

/* The object in a file of ours; duplicate keys and malformed text fail with line and column.  NULL on failure.  Files
 * of others: json_scan.h. */
json_t *json_read_object(const char *path, moai_error *err);
json_t *json_object_of(const char *text, size_t n_bytes, const char *path, moai_error *err);   /* that path's text */
/* Text with the fewest digits (15, 16 or 17) that read back as the same doubles.  Caller frees. */
char *json_text(const json_t *, size_t flags);
/* Indented; written beside the name first (PATH.tmp), fsynced, renamed, the directory fsynced. */
int json_write_file(const json_t *, const char *path, moai_error *err);

#endif
