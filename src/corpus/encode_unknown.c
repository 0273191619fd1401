/* encode_unknown.c: tokens that stand for text which the tokenizer has no piece for: where the first is, and the
 * report; see encode_parts.h */
#include "src/corpus/encode_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The line of the text that it is in; `text` itself when no line shows it by itself. */
static const char *find_line(const tokenizer *tok, const char *text, size_t n_bytes, char *found, size_t room)
{
    const char *end = text + n_bytes;

    for (const char *line = text; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        if (!stop) stop = end;
        if (tokenizer_find_unknown(tok, line, (size_t)(stop - line), found, room)) return line;
        line = stop + 1;
    }
    found[0] = '\0';
    return text;
}

encode_unknown encode_find_unknown(const tokenizer *tok, int file, int64_t number, const text_block *b,
                                   const char *text, size_t n_bytes)
{
    encode_unknown u = {.file = file, .number = number, .offset = b->offset, .line = b->line};
    const char *at = find_line(tok, text, n_bytes, u.found, sizeof u.found);

    if (text < b->data || text >= b->data + b->n_bytes) at = b->data + b->begin; /* decoded, or repaired */
    for (const char *p = b->data; p < at; p++) u.line_in_block += *p == '\n';
    return u;
}

bool encode_unknown_before(const encode_unknown *a, const encode_unknown *b)
{
    return a->file != b->file ? a->file < b->file : a->number < b->number;
}

/* "FILE:LINE" and what stands there */
static void describe(const encode_options *o, const encode_parts *parts, char *text, size_t room)
{
    const encode_unknown *u = &parts->unknown;
    int64_t line = u->line;
    moai_error ignored;

    if (line == 0) {
        char *path = encode_input_path(o, parts, u->file);
        text_file *f = text_open_as(path, o->inputs[u->file], &o->format, &ignored);
        line = f ? 1 + text_lines_before(f, u->offset) : 1;
        text_close(f);
        free(path);
    }
    format_elided(text, room, "%s:%lld%s%s%s", o->inputs[u->file], (long long)(line + u->line_in_block),
                  u->found[0] ? " (\"" : "", u->found, u->found[0] ? "\")" : "");
}

/* The first of all ranks, described on every one. */
static void share_first(const encode_options *o, const encode_parts *parts, const comm *world, char *text, size_t room)
{
    const encode_unknown *u = &parts->unknown;
    double first = -(double)u->file;

    comm_all_reduce(world, &first, 1, DT_F64, REDUCE_MAX);
    double number = -(double)u->file == first ? -(double)u->number : -INFINITY;
    comm_all_reduce(world, &number, 1, DT_F64, REDUCE_MAX);
    const int owner = encode_owner((int)-first, (int64_t)-number, world->size);
    if (world->rank == owner) describe(o, parts, text, room);
    comm_broadcast(world, text, room, DT_U8, owner);
}

void encode_report_unknown(const encode_options *o, const encode_parts *parts, const comm *world, int64_t n_tokens)
{
    double n = (double)parts->n_unknown;
    char first[1024] = "";

    comm_all_reduce(world, &n, 1, DT_F64, REDUCE_SUM);
    if (n == 0) return;
    share_first(o, parts, world, first, sizeof first);
    const double percent = 100 * n / (double)n_tokens;
    if (n > UNKNOWN_SHARE * (double)n_tokens)
        warn("%.0f of the tokens, %.2f %%, are <unk>: %s has no piece for what stood there, and it is lost; the first: "
             "%s",
             n, percent, o->tokenizer, first);
    else
        say("encode: %.0f of the tokens, %.4f %%, are <unk>, the first: %s", n, percent, first);
}
