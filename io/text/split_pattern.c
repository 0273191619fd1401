/* split_pattern.c: see split_pattern.h */
#include "io/text/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

struct split_pattern {
    pcre2_code *code;
    bool has_jit;
};

struct split_room {
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

/* As Oniguruma has them for Unicode; within brackets. */
static const char spaces[] = "\\t-\\r\\x{85}\\p{Z}", words[] = "\\p{L}\\p{M}\\p{Nd}\\p{Pc}";

/* Letters and numbers that Unicode 15 and 16 have added: tokenizers knows them, PCRE2 10.42 does not yet. */
static const char new_letters[] =
    "\\x{1c89}-\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}"
    "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}-\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"
    "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"
    "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"
    "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"
    "\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}";
static const char new_numbers[] =
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}\\x{16130}-\\x{16139}"
    "\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}";

typedef struct translation {
    char *text;
    size_t n;
} translation;

static void add(translation *t, const char *text, size_t n)
{
    memcpy(t->text + t->n, text, n);
    t->n += n;
    t->text[t->n] = 0;
}

static void add_set(translation *t, bool in_set, bool is_not, const char *set)
{
    if (!in_set) add(t, is_not ? "[^" : "[", is_not ? 2 : 1);
    add(t, set, strlen(set));
    if (!in_set) add(t, "]", 1);
}

/* \p{L} and \p{N} with what is new of them; the letter, or 0: it is another property. */
static char wide_property(const char *p) { return strncmp(p, "p{L}", 4) == 0 || strncmp(p, "p{N}", 4) == 0 ? p[2] : 0; }

static void add_property(translation *t, bool in_set, char c)
{
    char *set = xasprintf("\\p{%c}%s", c, c == 'L' ? new_letters : new_numbers);

    add_set(t, in_set, false, set);
    free(set);
}

/* \s, \S, \w and \W spelled out; -1 with what has another meaning there. */
static int translate(translation *t, const char *p, moai_error *err)
{
    bool in_set = false;

    t->text = xmalloc((sizeof new_letters + 40) * (strlen(p) + 1));
    for (; *p; p++) {
        if (*p != '\\') {
            if (*p == '[' && in_set && p[1] != ':') return error_set(err, "sets within sets are not supported");
            if (*p == '&' && in_set && p[1] == '&') return error_set(err, "intersections of sets are not supported");
            if (*p == '[') in_set = true;
            if (*p == ']') in_set = false;
            add(t, p, 1);
            continue;
        }
        const char c = *++p;
        const bool is_not = c == 'S' || c == 'W';
        if (!c) return error_set(err, "it ends with a backslash");
        if (is_not && in_set) return error_set(err, "\\%c within a set is not supported", c);
        if (strchr("hHXRKGyYkgA", c)) return error_set(err, "\\%c is not supported", c);
        if (wide_property(p)) {
            add_property(t, in_set, p[2]);
            p += 3;
        } else if (strchr("sS", c)) {
            add_set(t, in_set, is_not, spaces);
        } else if (strchr("wW", c)) {
            add_set(t, in_set, is_not, words);
        } else {
            add(t, p - 1, 2);
        }
    }
    return 0;
}

static int compile(split_pattern *s, const char *text, uint32_t options, moai_error *err)
{
    PCRE2_UCHAR why[256];
    PCRE2_SIZE at;
    int code;

    s->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, options | PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!s->code) {
        pcre2_get_error_message(code, why, sizeof why);
        return error_set(err, "%s at %zu", (char *)why, (size_t)at);
    }
    s->has_jit = pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE) == 0;
    return 0;
}

split_pattern *split_pattern_new(const char *pattern, bool is_literal, moai_error *err)
{
    split_pattern *s = xmalloc(sizeof *s);
    translation t = {0};
    moai_error why;
    int failed = is_literal ? 0 : translate(&t, pattern, &why);

    if (!failed) failed = compile(s, is_literal ? pattern : t.text, is_literal ? PCRE2_LITERAL : 0, &why);
    free(t.text);
    if (!failed) return s;
    error_set(err, "the pattern %s: %s", pattern, why.text);
    split_pattern_free(s);
    return NULL;
}

void split_pattern_free(split_pattern *s)
{
    if (!s) return;
    pcre2_code_free(s->code);
    free(s);
}

split_room *split_room_new(void)
{
    split_room *r = xmalloc(sizeof *r);

    r->match = pcre2_match_data_create(1, NULL);
    r->context = pcre2_match_context_create(NULL);
    r->stack = pcre2_jit_stack_create(1 << 15, 1 << 24, NULL);
    CHECK(r->match && r->context && r->stack, "out of host memory: PCRE2");
    pcre2_set_match_limit(r->context, UINT32_MAX);
    pcre2_jit_stack_assign(r->context, NULL, r->stack);
    return r;
}

void split_room_free(split_room *r)
{
    if (!r) return;
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->context);
    pcre2_jit_stack_free(r->stack);
    free(r);
}

int split_pattern_next(const split_pattern *s, split_room *r, const char *text, size_t n_bytes, size_t at,
                       size_t *begin, size_t *end, moai_error *err)
{
    const PCRE2_SPTR subject = (PCRE2_SPTR)text;
    PCRE2_UCHAR why[256];

    const int n = s->has_jit ? pcre2_jit_match(s->code, subject, n_bytes, at, PCRE2_NOTEMPTY, r->match, r->context)
                             : pcre2_match(s->code, subject, n_bytes, at, PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, r->match,
                                           r->context);
    if (n == PCRE2_ERROR_NOMATCH) return 0;
    if (n < 0) {
        pcre2_get_error_message(n, why, sizeof why);
        return error_set(err, "PCRE2: %s", (char *)why);
    }
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(r->match);
    *begin = place[0];
    *end = place[1];
    return 1;
}
