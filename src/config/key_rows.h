/* key_rows.h: the words of a key table.  Whoever includes it defines KEYS_OF first: the struct that the keys fill, each
 * of whose fields is called as its key.
 *
 *     INT(max_steps, "1000", 0, 1ll << 40, "steps of the whole run", RATE),     name, default, least, most, help
 *
 * Behind the help may stand what a resume may do with the key, and other fields of key_spec. */
#ifndef MOAI_KEY_ROWS_H
#define MOAI_KEY_ROWS_H

#include "src/config/keys.h"

// clang-format off
#define ROW(t, key, value, ...) \
    {.type = t, .name = #key, .offset = offsetof(KEYS_OF, key), .initial = value, __VA_ARGS__}
// clang-format on
#define TEXT(key, value, ...) ROW(KEY_STRING, key, value, .help = __VA_ARGS__)
#define PATH(key, value, ...) ROW(KEY_PATH, key, value, .help = __VA_ARGS__)
#define BOOL(key, value, ...) ROW(KEY_BOOL, key, value, .bare = "true", .help = __VA_ARGS__)
#define INT(key, value, lo, hi, ...) ROW(KEY_INT, key, value, .min = lo, .max = hi, .help = __VA_ARGS__)
#define REAL(key, value, lo, hi, ...) ROW(KEY_DOUBLE, key, value, .min = lo, .max = hi, .help = __VA_ARGS__)
#define CHOICE(key, value, list, ...) ROW(KEY_CHOICE, key, value, .choices = list, .help = __VA_ARGS__)
#define FIXED .on_resume = RESUME_FIXED
#define RATE .on_resume = RESUME_SCHEDULE
#define CONTENT .on_resume = RESUME_CONTENT

#define KEY_TABLE(rows) {rows, sizeof rows / sizeof *rows}

#endif
