/* text_judge.c: whether a file is what it is taken for, see text_judge in text.h. */
#include "io/text/text_file.h"

#include "io/text/json_shape.h"
#include "io/text/text_kind.h"
#include "src/base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { HEAD = 1 << 16 };                      /* bytes looked at */

/* The head from the first line on that is not blank, without a byte order mark. */
static const char *first_line(const char *head, size_t *n)
{
    size_t at = utf8_mark(head, *n);

    while (at < *n && strchr(" \t\r\n", head[at]) && head[at]) at++;
    *n -= at;
    return head + at;
}

/* JSON in a shape that is not read, or under a name that does not say it. */
static int judge_json(const text_file *f, json_shape shape, moai_error *err)
{
    static const struct {
        const char *what, *way;
    } words[] = {
        [JSON_LINES] = {"its lines are JSON objects", "name it .jsonl, or --format jsonl says it"},
        [JSON_ARRAY] = {"a JSON array is not read", "jq -c '.[]' FILE > FILE.jsonl makes a line of each element"},
        [JSON_SPREAD] = {"JSON over several lines is not read",
                         "jq -c . FILE > FILE.jsonl makes a line of each object"},
        [JSON_NOTEBOOK] = {"a Jupyter notebook is not read", "jupyter nbconvert --to markdown makes text of it"},
        [JSON_JOINED] = {"several JSON objects on a line are not read",
                         "jq -c . FILE > FILE.jsonl makes a line of each"},
        [JSON_COMMAS] = {"JSON objects with commas between them are not read",
                         "sed 's/,[[:space:]]*$//' FILE > FILE.jsonl makes JSON lines of it, if each is on its own"},
        [JSON_RECORDS] = {"JSON with record separators (0x1e) is not read",
                          "tr -d '\\036' < FILE > FILE.jsonl makes JSON lines of it"},
        [JSON_CR] = {"JSON lines that end with CR alone are not read",
                     "tr '\\r' '\\n' < FILE > FILE.jsonl gives them line ends"},
    };

    return error_config(err, "%s: %s: %s (--format txt: its JSON is the text)", f->name, words[shape].what,
                        words[shape].way);
}

/* Lines are what LF ends: where none is and CR is, those that were asked for would be one. */
static int judge_line_ends(const text_file *f, const char *head, size_t n, moai_error *err)
{
    if (text_undivided(f) || !f->format->literal || memchr(head, '\n', n) || !memchr(head, '\r', n)) return 0;
    return error_config(err,
                        "%s: its lines end with CR alone, so there is no line for --document_separator %s: "
                        "tr '\\r' '\\n' < FILE gives it lines",
                        f->name, f->format->literal);
}

/* A file of which nobody has said what it is, but its name. */
static int judge_name(const text_file *f, const char *head, size_t n, moai_error *err)
{
    const text_name name = text_name_of(f->name);
    const json_shape shape = json_shape_of(head, n, name.kind != NAME_TEXT);
    size_t n_first = n;
    const char *first = first_line(head, &n_first), *way = name.way;
    const char *what = name.kind == NAME_FOREIGN ? name.what : text_markup(first, n_first, &way);

    if (what)
        return error_config(err, "%s: %s is not read: %s (--format txt takes it with all its marks)", f->name, what,
                            way);
    if (shape != JSON_NONE) return judge_json(f, shape, err);
    if (name.kind == NAME_JSON)
        return error_config(err,
                            "%s: .json is neither text nor a document a line; if it is the latter, name it .jsonl, or "
                            "--format jsonl|txt says it",
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
    else if (n > 0 && f->jsonl && !f->format->skip_bad_lines)
        status = text_judge_line(f, w->data, n, at_end, err);
    else if (n > 0 && !f->jsonl && f->format->content == CONTENT_AUTO)
        status = judge_name(f, w->data, n, err);
    if (status == 0 && n > 0 && !f->jsonl) status = judge_line_ends(f, w->data, n, err);
    free(local.data);
    return status;
}
