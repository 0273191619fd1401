/* json_line.c: see json_line.h */
#include "io/text/json_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool same_key(const char *key, size_t n, bool escaped, const char *wanted, size_t n_wanted)
{
    if (!escaped) return n == n_wanted && memcmp(key, wanted, n) == 0;
    char *plain = xmalloc(n);
    json_fault fault;
    const bool same = n >= n_wanted && json_unescape(key, n, plain, &n, NULL, &fault) == 0 && n == n_wanted &&
                      memcmp(plain, wanted, n) == 0;
    free(plain);
    return same;
}

/* A member of the object, from its key on; noted where the key is the one wanted. */
static bool read_member(json_scanner *s, const char *wanted, size_t n_wanted, json_found *m)
{
    const char *key, *value;
    size_t n;
    bool escaped;

    if (!json_skip_key(s, &key, &n, &escaped)) return false;
    const bool same = same_key(key, n, escaped, wanted, n_wanted);
    value = s->at;
    if (!same) return json_skip_value(s);
    *m = (json_found){.kind = json_kind_of(value, (size_t)(s->end - value)), .value = value};
    if (m->kind == VALUE_STRING) {
        if (!json_skip_string(s, &m->escaped)) return false;
        m->value++;
        m->n_bytes = (size_t)(s->at - 1 - m->value);
        return true;
    }
    if (!json_skip_value(s)) return false;
    m->n_bytes = (size_t)(s->at - value);
    return true;
}

static bool read_object(json_scanner *s, const char *key, json_found *m)
{
    const size_t n_key = strlen(key);

    json_skip_space(s);
    if (!json_next_is(s, '{')) return json_fail(s, s->at, NULL);
    s->at++;
    json_skip_space(s);
    if (json_next_is(s, '}')) {
        s->at++;
    } else {
        do {
            if (!read_member(s, key, n_key, m)) return false;
            json_skip_space(s);
        } while (json_next_is(s, ',') && s->at++);
        if (!json_next_is(s, '}'))
            return json_fail(s, s->at, s->at < s->end ? "expected ',' or '}'" : "ends inside an object");
        s->at++;
    }
    json_skip_space(s);
    return s->at == s->end || json_fail(s, s->at, "something follows the object");
}

int json_find(const char *line, size_t n_bytes, const char *key, json_found *m, json_fault *fault)
{
    json_scanner s;

    json_scanner_init(&s, line, n_bytes);
    *m = (json_found){0};
    const bool good = read_object(&s, key, m);
    *fault = s.fault;
    json_scanner_free(&s);
    return good ? 0 : -1;
}

void json_keys(const char *line, size_t n_bytes, char *text, size_t room)
{
    json_scanner s;
    const char *key;
    size_t n, used = 0;
    bool escaped;

    json_scanner_init(&s, line, n_bytes);
    text[0] = '\0';
    for (json_skip_space(&s), s.at++; used + 1 < room && json_skip_key(&s, &key, &n, &escaped) && json_skip_value(&s);
         s.at++) {
        used += (size_t)snprintf(text + used, room - used, "%s`%.*s`", used ? ", " : "", (int)(n < 80 ? n : 80), key);
        json_skip_space(&s);
        if (!json_next_is(&s, ',')) break;
    }
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = '?';
    json_scanner_free(&s);
}
