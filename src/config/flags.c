/* flags.c: see flags.h */
#include "src/config/flags.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* The words that are still to be read. */
typedef struct words {
    char **at;
    int n;
} words;

/* One flag taken apart. */
typedef struct flag {
    char name[128], label[136];
    const char *value;                        /* behind the '='; NULL: there is none */
} flag;

static bool is_flag(const char *word) { return word[0] == '-' && word[1] == '-' && isalpha((unsigned char)word[2]); }

static const char *peek(const words *w) { return w->n > 0 && !is_flag(*w->at) ? *w->at : NULL; }

static const char *next(words *w)
{
    w->n--;
    return *w->at++;
}

static int take_apart(flag *f, const char *word, moai_error *err)
{
    const char *equals = strchr(word, '=');
    const size_t n = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;

    if (n >= sizeof f->name) return error_set(err, "unknown option %.60s...; --help lists them", word);
    memcpy(f->name, word + 2, n);
    f->name[n] = 0;
    for (char *p = f->name; *p; p++)
        if (*p == '-') *p = '_';
    snprintf(f->label, sizeof f->label, "--%s", f->name);
    f->value = equals ? equals + 1 : NULL;
    return 0;
}

static int unknown(key_table keys, const char *name, moai_error *err)
{
    const key_spec *near = keys_nearest(keys, name);

    return near ? error_set(err, "unknown option --%s; did you mean --%s?", name, near->name)
                : error_set(err, "unknown option --%s; --help lists them", name);
}

static int needs_value(const flag *f, moai_error *err) { return error_set(err, "%s needs a value", f->label); }

static int read_own(const flag_own *own, const flag *f, words *w, void *arg, moai_error *err)
{
    if (f->value) return own->take(arg, f->label, f->value, err);
    if (!peek(w)) return needs_value(f, err);
    do
        if (own->take(arg, f->label, next(w), err)) return -1;
    while (own->takes_many && peek(w));
    return 0;
}

/* The word behind a flag that may stand alone is its value where it can be nothing else. */
static const char *value_of_bare(const key_spec *k, words *w, bool words_alone)
{
    const char *word = peek(w);

    if (!word || (words_alone && strcmp(word, "true") != 0 && strcmp(word, "false") != 0)) return k->bare;
    return next(w);
}

static int read_key(key_table keys, void *to, flag *f, words *w, bool words_alone, bool *given, moai_error *err)
{
    const key_spec *k = keys_find(keys, f->name);
    const key_spec *negated = strncmp(f->name, "no_", 3) == 0 ? keys_find(keys, f->name + 3) : NULL;

    if (!k && negated && negated->type == KEY_BOOL) {
        if (f->value || (!words_alone && peek(w)))
            return error_set(err, "%s takes no value, and is given \"%s\"", f->label, f->value ? f->value : *w->at);
        if (given) given[negated - keys.list] = true;
        return key_set_text(negated, to, f->label, "false", err);
    }
    if (!k) return unknown(keys, f->name, err);
    if (!f->value && k->bare)
        f->value = value_of_bare(k, w, words_alone);
    else if (!f->value && !peek(w))
        return needs_value(f, err);
    else if (!f->value)
        f->value = next(w);
    if (given) given[k - keys.list] = true;
    return key_set_text(k, to, f->label, f->value, err);
}

static const flag_own *find_own(const flag_rules *rules, const char *name)
{
    for (const flag_own *own = rules->own; own && own->name; own++)
        if (strcmp(own->name, name) == 0) return own;
    return NULL;
}

static int read_one(key_table keys, void *to, words *w, const flag_rules *rules, bool *given, moai_error *err)
{
    const char *word = next(w);
    flag f;

    if (!is_flag(word) && rules->word) return rules->word(rules->arg, word, err);
    if (!is_flag(word)) return error_set(err, "unexpected argument \"%s\"; %s", word, rules->no_word);
    if (take_apart(&f, word, err)) return -1;
    const flag_own *own = find_own(rules, f.name);
    if (own) return read_own(own, &f, w, rules->arg, err);
    return read_key(keys, to, &f, w, rules->word != NULL, given, err);
}

int flags_read(key_table keys, void *to, int argc, char **argv, const flag_rules *rules, bool *given, moai_error *err)
{
    words w = {argv, argc};

    while (w.n > 0)
        if (read_one(keys, to, &w, rules, given, err)) return -1;
    for (int i = 0; given && i < keys.n; i++)
        if (!keys.list[i].initial && !given[i]) return error_set(err, "--%s is needed", keys.list[i].name);
    return 0;
}

int flags_find(const char *name, int argc, char **argv, const char **value, moai_error *err)
{
    words w = {argv, argc};
    flag f;

    *value = NULL;
    while (w.n > 0) {
        const char *word = next(&w);
        if (!is_flag(word) || take_apart(&f, word, err) || strcmp(f.name, name) != 0) continue;
        if (!f.value && peek(&w)) f.value = next(&w);
        if (!f.value || !*f.value) return needs_value(&f, err);
        if (*value) return error_set(err, "%s is given twice: %s, %s", f.label, *value, f.value);
        *value = f.value;
    }
    return 0;
}

bool flags_ask_help(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return true;
    return false;
}
