/* flags.h: the command line of a program: the keys of its table as flags, and what else it takes.
 *
 *     --key value   --key=value   --some-key for --some_key
 *     --switch   --no_switch   --switch true|false   (keys that have a `bare` value)
 *
 * The next word is a flag's value unless it is a flag itself, two dashes and a letter.  Where words may stand alone,
 * the one behind a switch is its value only if it is "true" or "false".  A misspelt flag names the nearest. */
#ifndef MOAI_FLAGS_H
#define MOAI_FLAGS_H

#include "src/config/keys.h"

/* A flag that is no key: it takes a word, or all up to the next flag.  -1 fails. */
typedef struct flag_own {
    const char *name;                         /* NULL ends the list */
    bool takes_many;
    int (*take)(void *arg, const char *label, const char *value, moai_error *err);         /* once for each value */
} flag_own;

typedef struct flag_rules {
    void *arg;                                /* of the functions */
    const flag_own *own;                      /* or NULL */
    int (*word)(void *arg, const char *word, moai_error *err);        /* one that stands alone; NULL: none may */
    const char *no_word;                      /* what is said of it then, behind unexpected argument "..." */
} flag_rules;

/* Reads argv[0] to argv[argc - 1] into the struct of `keys`.  `given` (keys.n), or NULL, becomes true for those that
 * were there; one without a default must be. */
int flags_read(key_table keys, void *to, int argc, char **argv, const flag_rules *, bool *given, moai_error *err);
/* The value of --NAME, wherever it stands; *value NULL where it does not.  -1: without a value, or twice. */
int flags_find(const char *name, int argc, char **argv, const char **value, moai_error *err);
bool flags_ask_help(int argc, char **argv);   /* --help or -h */

#endif
