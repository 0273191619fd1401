/* text_judge.c: whether a file is what it is taken for, see text_judge in text.h. */
#include "text_file.h"

#include "json_line.h"
#include "text_kind.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 1 << 16 };                      /* bytes looked at */

/* The head from the first line on that is not blank, without a byte order mark. */
static const char *first_line(const char *head, size_t *n)
{
    size_t at = *n >= 3 && memcmp(head, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;

    while (at < *n && strchr(" \t\r\n", head[at]) && head[at]) at++;
    *n -= at;
    return head + at;
}

/* Whether the line, whose end the head may not reach, is a JSON object, and not just {}. */
static bool is_object(const char *line, size_t n, bool whole)
{
    json_found m;
    json_fault fault;
    char key[8];

    if (n == 0 || line[0] != '{') return false;
    if (json_find(line, n, "", &m, &fault) != 0 && (whole || fault.at < n)) return false;
    json_keys(line, n, key, sizeof key);
    return key[0] || !whole;
}

/* Whether the first line, or with `all` each line that is not blank, is a JSON object. */
static bool has_json_lines(const char *head, size_t n, bool at_end, bool all)
{
    const char *line = first_line(head, &n), *end = line + n, *next;
    bool found = false;

    for (; line < end; line = next) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        const size_t length = (size_t)((newline ? newline : end) - line);
        next = newline ? newline + 1 : end;
        if (length == 0 || (length == 1 && line[0] == '\r')) continue;
        if (!is_object(line, length, newline || at_end)) return false;
        found = true;
        if (!all) break;
    }
    return found;
}

static int judge_json(const text_file *f, const char *head, size_t n, bool at_end, moai_error *err)
{
    size_t n_first = n;
    const char *first = first_line(head, &n_first);

    if (has_json_lines(head, n, at_end, false) || (n_first > 1 && memcmp(first, "{}", 2) == 0))
        return error_config(err,
                            "%s: .json may be anything; its first line is a JSON object: name it .jsonl, or --format "
                            "jsonl says it (--format txt: its JSON is the text)",
                            f->name);
    if (n_first > 0 && first[0] == '[')
        return error_config(
            err, "%s: a JSON array is not read; jq -c '.[]' FILE > FILE.jsonl makes a line of each element", f->name);
    if (n_first > 0 && first[0] == '{')
        return error_config(err,
                            "%s: JSON over several lines is not read; jq -c . FILE > FILE.jsonl makes a line of each "
                            "object",
                            f->name);
    return error_config(err,
                        "%s: .json is neither text nor a document a line; if it is the latter, name it .jsonl, or "
                        "--format jsonl|txt says it",
                        f->name);
}

/* A file that is taken for text by its name. */
static int judge_name(const text_file *f, const char *head, size_t n, bool at_end, moai_error *err)
{
    const name_kind kind = text_name_of(f->name).kind;

    if (kind == NAME_JSON_LINES) return 0;
    if (kind == NAME_JSON) return judge_json(f, head, n, at_end, err);
    if (has_json_lines(head, n, at_end, kind == NAME_TEXT))
        return error_config(err,
                            "%s: its %s JSON object: name it .jsonl, or --format jsonl says it (--format txt: its JSON "
                            "is the text)",
                            f->name, kind == NAME_TEXT ? "lines are each a" : "first line is a");
    if (n > 5 && memcmp(head, "WARC/", 5) == 0)
        return error_config(err,
                            "%s: web archive records (WARC): the texts in them must be got out first (--format txt "
                            "takes it with all its headers)",
                            f->name);
    return 0;
}

int text_judge(text_file *f, moai_error *err)
{
    window local = {0}, *w = f->unpacker ? &f->window : &local;
    const char *way;

    if (window_reach(f, w, HEAD, err) != 0) {
        free(local.data);
        return -1;
    }
    const size_t n = w->n < HEAD ? w->n : HEAD;
    const bool at_end = w->at_end && n == w->n;
    const char *foreign = n > 0 ? text_foreign(w->data, n, &way) : NULL;
    int status = 0;
    if (foreign)
        status = error_config(err, "%s: %s%s, which is not read: %s", f->name,
                              f->unpacker && unpacker_packing(f->unpacker) != PACKED_NOT ? "inside it is " : "",
                              foreign, way);
    else if (n > 0 && f->format->content == CONTENT_AUTO)
        status = judge_name(f, w->data, n, at_end, err);
    free(local.data);
    return status;
}
