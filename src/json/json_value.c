/* json_value.c: see json_value.h */
#include "src/json/json_value.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value where the scanner is, which is then behind it. */
static json_value take(json_scanner *s)
{
    json_skip_space(s);
    json_value v = {.text = s->at};
    v.kind = json_kind_of(s->at, (size_t)(s->end - s->at));
    if (!json_skip_value(s)) return (json_value){0};
    v.n_bytes = (size_t)(s->at - v.text);
    return v;
}

int json_value_read(json_value *v, const char *text, size_t n_bytes, json_fault *fault)
{
    json_scanner s;

    json_scanner_init(&s, text, n_bytes);
    *v = take(&s);
    json_skip_space(&s);
    if (v->kind != VALUE_NONE && s.at != s.end) json_fail(&s, s.at, "more behind the value"), v->kind = VALUE_NONE;
    *fault = s.fault;
    json_scanner_free(&s);
    return v->kind == VALUE_NONE ? -1 : 0;
}

bool json_value_next(json_value from, json_value *element, char **key)
{
    json_scanner s;
    const char *name;
    size_t n_name;
    bool escaped, found = false;

    if (from.kind != VALUE_OBJECT && from.kind != VALUE_ARRAY) return false;
    json_scanner_init(&s, from.text, from.n_bytes);
    s.at = element->kind == VALUE_NONE ? from.text + 1 : element->text + element->n_bytes;
    json_skip_space(&s);
    if (json_next_is(&s, ',')) s.at++, json_skip_space(&s);
    if (!json_next_is(&s, ']') && !json_next_is(&s, '}')) {
        found = from.kind == VALUE_ARRAY || json_skip_key(&s, &name, &n_name, &escaped);
        if (found && key) {
            *key = NULL;
            if (from.kind == VALUE_OBJECT) {
                int64_t n_lone = 0;
                json_fault fault;
                *key = xmalloc(n_name + 1);
                json_unescape(name, n_name, *key, &n_name, &n_lone, &fault);
                (*key)[n_name] = 0;
            }
        }
        if (found) *element = take(&s);
    }
    json_scanner_free(&s);
    return found;
}

json_value json_value_of(json_value object, const char *key)
{
    json_value member = {0}, found = {0};
    char *name;

    while (object.kind == VALUE_OBJECT && json_value_next(object, &member, &name)) {
        if (strcmp(name, key) == 0) found = member;
        free(name);
    }
    return found;
}

char *json_value_string(json_value v, size_t *n_bytes)
{
    char *out = xmalloc(v.n_bytes + 1);
    int64_t n_lone = 0;
    json_fault fault;

    CHECK(v.kind == VALUE_STRING && v.n_bytes >= 2, "no string");
    json_unescape(v.text + 1, v.n_bytes - 2, out, n_bytes, &n_lone, &fault);
    out[*n_bytes] = 0;
    return out;
}

bool json_value_is(json_value v, const char *string)
{
    size_t n;

    if (v.kind != VALUE_STRING) return false;
    char *own = json_value_string(v, &n);
    const bool same = n == strlen(string) && memcmp(own, string, n) == 0;
    free(own);
    return same;
}

/* -- as Python writes it -- */

static void write_string(FILE *to, json_value v)
{
    static const char escaped[] = "\"\\\n\r\t\b\f", letters[] = "\"\\nrtbf";
    size_t n;
    char *text = json_value_string(v, &n);

    putc('"', to);
    for (size_t i = 0; i < n; i++) {
        const unsigned char c = (unsigned char)text[i];
        const char *at = c ? strchr(escaped, c) : NULL;
        if (at)
            fprintf(to, "\\%c", letters[at - escaped]);
        else if (c < 0x20)
            fprintf(to, "\\u%04x", c);
        else
            putc(c, to);
    }
    putc('"', to);
    free(text);
}

/* repr() of a float: the fewest digits that give it back, an exponent below 1e-4 and from 1e16 on. */
static void write_float(FILE *to, double x)
{
    char digits[40];
    int n = 1, exponent;

    if (isinf(x)) {
        fputs(x > 0 ? "Infinity" : "-Infinity", to);
        return;
    }
    do snprintf(digits, sizeof digits, "%.*e", n - 1, x);
    while (n++ < 17 && strtod(digits, NULL) != x);
    exponent = atoi(strchr(digits, 'e') + 1);
    n -= 1;
    if (exponent < -4 || exponent >= 16) {
        snprintf(digits, sizeof digits, "%.*e", n - 1, x);
        fputs(digits, to); /* C's exponent has two digits at least, as Python's */
    } else {
        fprintf(to, "%.*f", n - 1 - exponent > 1 ? n - 1 - exponent : 1, x);
    }
}

static void write_number(FILE *to, json_value v)
{
    char *text = xasprintf("%.*s", (int)v.n_bytes, v.text);

    if (strcmp(text, "NaN") == 0 || strstr(text, "Infinity"))
        fputs(text, to);
    else if (strpbrk(text, ".eE"))
        write_float(to, strtod(text, NULL));
    else
        fputs(strcmp(text, "-0") == 0 ? "0" : text, to);
    free(text);
}

static bool write_value(FILE *to, json_value v, int depth);

static bool write_elements(FILE *to, json_value v, int depth)
{
    const bool is_object = v.kind == VALUE_OBJECT;
    bool written = depth < JSON_DEPTH;
    json_value element = {0};
    char *key;

    putc(is_object ? '{' : '[', to);
    for (const char *from = v.text + 1; written && json_value_next(v, &element, &key);
         from = element.text + element.n_bytes) {
        if (from != v.text + 1) fputs(", ", to);
        if (is_object) { /* the key stands between the value before and this one */
            const char *quote = memchr(from, '"', (size_t)(element.text - from)), *end = element.text;
            while (end > quote && end[-1] != '"') end--;
            write_string(to, (json_value){VALUE_STRING, quote, (size_t)(end - quote)});
            fputs(": ", to);
        }
        free(key);
        written = write_value(to, element, depth + 1);
    }
    putc(is_object ? '}' : ']', to);
    return written;
}

/* false: it is nested too deep. */
static bool write_value(FILE *to, json_value v, int depth)
{
    if (v.kind == VALUE_OBJECT || v.kind == VALUE_ARRAY) return write_elements(to, v, depth);
    if (v.kind == VALUE_STRING)
        write_string(to, v);
    else if (v.kind == VALUE_NUMBER)
        write_number(to, v);
    else
        fwrite(v.text, 1, v.n_bytes, to);
    return true;
}

char *json_value_python(json_value v)
{
    char *text = NULL;
    size_t n;
    FILE *to = open_memstream(&text, &n);

    CHECK(to, "out of host memory");
    const bool written = write_value(to, v, 0);
    CHECK(fclose(to) == 0, "out of host memory");
    if (!written) free(text);
    return written ? text : NULL;
}
