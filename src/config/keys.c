/* keys.c: see keys.h */
#include "src/config/keys.h"

#include "src/base/files.h"
#include "src/base/utf8.h"
#include "src/config/paths.h"
#include "src/json/json_scan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST_KEY = 64 };

key_table keys_join(const key_group *groups, int n)
{
    key_table all = {0};
    int n_keys = 0;

    for (int g = 0; g < n; g++) n_keys += groups[g].keys->n;
    key_spec *list = xmalloc((size_t)n_keys * sizeof *list);
    for (int g = 0; g < n; g++)
        for (int i = 0; i < groups[g].keys->n; i++) {
            list[all.n] = groups[g].keys->list[i];
            list[all.n++].offset += groups[g].base;
        }
    all.list = list;
    return all;
}

const key_spec *keys_find(key_table t, const char *name)
{
    for (int i = 0; i < t.n; i++)
        if (!strcmp(t.list[i].name, name) || (t.list[i].alias && !strcmp(t.list[i].alias, name))) return &t.list[i];
    return NULL;
}

/* Optimal string alignment: insert, delete, replace, swap of neighbours cost 1. */
static int edit_distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b);
    int row[3][LONGEST_KEY + 1];

    if (n > LONGEST_KEY || m > LONGEST_KEY) return LONGEST_KEY;
    for (int j = 0; j <= m; j++) row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *above = row[(i + 2) % 3], *above2 = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const key_spec *keys_nearest(key_table t, const char *name)
{
    const key_spec *nearest = NULL;
    int within = (int)max_i64(2, (int64_t)strlen(name) / 3);

    for (int i = 0; i < t.n; i++) {
        int distance = edit_distance(name, t.list[i].name);
        if (t.list[i].alias) distance = (int)min_i64(distance, edit_distance(name, t.list[i].alias));
        if (distance <= within) nearest = &t.list[i], within = distance - 1;
    }
    return nearest;
}

static void *field_of(const key_spec *k, void *base) { return (char *)base + k->offset; }

static void set_string(char **field, const char *text)
{
    free(*field);
    *field = xstrdup(text);
}

const char *names_next(const char **list, size_t *n)
{
    const char *name = *list += strspn(*list, ", ");

    *n = strcspn(name, ", ");
    *list += *n;
    return *n ? name : NULL;
}

void keys_defaults(key_table t, void *base)
{
    moai_error err;

    for (int i = 0; i < t.n; i++) {
        const key_spec *k = &t.list[i];
        if (k->initial)
            CHECK(!key_set_text(k, base, k->name, k->initial, &err), "default of %s", err.text);
        else if (k->type == KEY_STRING || k->type == KEY_PATH)
            set_string(field_of(k, base), "");
    }
}

void keys_free(key_table t, void *base)
{
    for (int i = 0; i < t.n; i++)
        if (t.list[i].type == KEY_STRING || t.list[i].type == KEY_PATH) {
            char **field = field_of(&t.list[i], base);
            free(*field);
            *field = NULL;
        }
}

/* "seed is 9007199254740993, must be between 0 and 4503599627370496": the value as it is written. */
static int range_fault(const key_spec *k, const char *label, const char *text, moai_error *err)
{
    const bool whole = k->type == KEY_INT, open = isinf(k->max);
    char *low = whole ? xasprintf("%lld", (long long)k->min) : xasprintf("%.15g", k->min),
         *high = open ? xstrdup("") : whole ? xasprintf("%lld", (long long)k->max) : xasprintf("%.15g", k->max);

    error_set(err, "%s is %s, must be %s %s%s%s", label, text, open ? "at least" : "between", low, open ? "" : " and ",
              high);
    free(low);
    free(high);
    return -1;
}

static int set_number(const key_spec *k, void *base, const char *label, const char *text, moai_error *err)
{
    char *end;
    double value;
    int64_t whole = 0;

    errno = 0;
    if (k->type == KEY_INT)
        value = (double)(whole = strtoll(text, &end, 10));     /* the nearest that there is, where it is too large */
    else
        value = strtod(text, &end);
    if (end == text || *end || !isfinite(value))
        return error_set(err, "%s is \"%s\", must be %s", label, text, k->type == KEY_INT ? "an integer" : "a number");
    if (!(value >= k->min && value <= k->max) || (k->type == KEY_INT && errno)) return range_fault(k, label, text, err);
    if (k->type == KEY_INT)
        *(int64_t *)field_of(k, base) = whole;
    else
        *(double *)field_of(k, base) = value;
    return 0;
}

static int set_choice(const key_spec *k, void *base, const char *label, const char *text, moai_error *err)
{
    char names[512] = "";

    for (const key_choice *c = k->choices; c->name; c++) {
        if (!strcmp(c->name, text)) {
            memcpy(field_of(k, base), &c->value, sizeof c->value);
            return 0;
        }
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", c == k->choices ? "" : ", ", c->name);
    }
    return error_set(err, "%s is \"%s\", must be one of %s", label, text, names);
}

/* "" stands for no path where that is the default. */
static int set_path(const key_spec *k, void *base, const char *label, const char *text, moai_error *err)
{
    const bool none = !*text && k->initial && !*k->initial;
    char *path = none ? xstrdup("") : path_expand(label, text, err);

    if (!path) return -1;
    set_string(field_of(k, base), path);
    free(path);
    return 0;
}

int key_set_text(const key_spec *k, void *base, const char *label, const char *text, moai_error *err)
{
    switch (k->type) {
    case KEY_INT:
    case KEY_DOUBLE: return set_number(k, base, label, text, err);
    case KEY_CHOICE: return set_choice(k, base, label, text, err);
    case KEY_STRING: set_string(field_of(k, base), text); return 0;
    case KEY_PATH: return set_path(k, base, label, text, err);
    case KEY_BOOL: break;
    }
    if (strcmp(text, "true") && strcmp(text, "false"))
        return error_set(err, "%s is \"%s\", must be true or false", label, text);
    *(bool *)field_of(k, base) = text[0] == 't';
    return 0;
}

static bool type_suits(const key_spec *k, const json_t *value)
{
    switch (k->type) {
    case KEY_INT: return json_is_integer(value);
    case KEY_DOUBLE: return json_is_number(value);
    case KEY_BOOL: return json_is_boolean(value);
    case KEY_STRING:
    case KEY_PATH: return json_is_string(value);
    case KEY_CHOICE: return json_is_string(value) || json_is_boolean(value);
    }
    return false;
}

void key_print_help(const key_spec *k, int width)
{
    static const char *const kind[] = {
        [KEY_INT] = "INT",     [KEY_DOUBLE] = "NUMBER", [KEY_BOOL] = "",
        [KEY_STRING] = "TEXT", [KEY_CHOICE] = "NAME",   [KEY_PATH] = "PATH"};
    char left[80];

    snprintf(left, sizeof left, "--%s %s", k->name, kind[k->type]);
    printf("  %-*s %s", width, left, k->help);
}

int key_set_json(const key_spec *k, void *base, const char *label, const json_t *value, moai_error *err)
{
    static const char *const wanted[] = {[KEY_INT] = "an integer",
                                         [KEY_DOUBLE] = "a number",
                                         [KEY_BOOL] = "true or false",
                                         [KEY_STRING] = "a string",
                                         [KEY_CHOICE] = "a string",
                                         [KEY_PATH] = "a string"};
    char *shown = json_text(value, JSON_COMPACT);
    int status;

    if (!type_suits(k, value))
        status = error_set(err, "%s is %.80s, must be %s", label, shown, wanted[k->type]);
    else
        status = key_set_text(k, base, label, json_is_string(value) ? json_string_value(value) : shown, err);
    free(shown);
    return status;
}

json_t *key_get_json(const key_spec *k, const void *base)
{
    const void *field = (const char *)base + k->offset;
    int value;

    switch (k->type) {
    case KEY_INT: return json_integer(*(const int64_t *)field);
    case KEY_DOUBLE: return json_real(*(const double *)field);
    case KEY_BOOL: return json_boolean(*(const bool *)field);
    case KEY_STRING:
    case KEY_PATH: return json_string_repaired(*(char *const *)field);
    case KEY_CHOICE: break;
    }
    memcpy(&value, field, sizeof value);
    const key_choice *c = k->choices;
    while (c->name && c->value != value) c++;
    CHECK(c->name, "%s has no name for value %d", k->name, value);
    return json_string(c->name);
}

json_t *json_string_repaired(const char *text)
{
    json_t *string = json_string(text);
    size_t n;

    if (string) return string;
    char *repaired = utf8_repair(text, strlen(text), &n);
    string = json_stringn(repaired, n);
    free(repaired);
    CHECK(string, "out of host memory");
    return string;
}

json_t *json_object_of(const char *text, size_t n_bytes, const char *path, moai_error *err)
{
    json_error_t at;
    json_members members = {0};
    json_t *object = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &at);

    if (json_is_object(object)) return object;
    if (object)
        error_set(err, "%s: not a JSON object ({...})", path);
    else if (json_members_scan(&members, path, text, n_bytes, err) == 0)     /* which says more of what is no JSON */
        error_set(err, "%s: line %d, column %d: %s", path, at.line, at.column, at.text);
    json_members_free(&members);
    json_decref(object);
    return NULL;
}

json_t *json_read_object(const char *path, moai_error *err)
{
    size_t n_bytes;
    char *text = json_file_read(path, &n_bytes, err);
    json_t *object = text ? json_object_of(text, n_bytes, path, err) : NULL;

    free(text);
    return object;
}

char *json_text(const json_t *value, size_t flags)
{
    for (int digits = 15;; digits++) {
        char *text = json_dumps(value, flags | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits));
        CHECK(text, "a JSON value cannot be written");
        json_t *back = json_loads(text, JSON_DECODE_ANY, NULL);
        bool same = digits == 17 || json_equal(value, back);
        json_decref(back);
        if (same) return text;
        free(text);
    }
}

int json_write_file(const json_t *value, const char *path, moai_error *err)
{
    char *text = json_text(value, JSON_INDENT(2)), *lines = xasprintf("%s\n", text), *tmp = xasprintf("%s.tmp", path);
    int status = file_write(tmp, lines, strlen(lines), err);

    if (status == 0 && rename(tmp, path) != 0) status = error_set(err, "%s: cannot write: %s", path, strerror(errno));
    if (status != 0) unlink(tmp);
    if (status == 0) status = dir_sync_parent(path, err);
    free(tmp);
    free(lines);
    free(text);
    return status;
}
