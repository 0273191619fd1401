/* input_names.c: see input_names.h */
#include "src/corpus/input_names.h"

#include "io/text/text_kind.h"
#include "src/base/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void input_names_free(input_names *names)
{
    for (int i = 0; i < names->n; i++) free(names->list[i]);
    free(names->list);
    *names = (input_names){0};
}

/* Takes the path. */
static void add(input_names *names, char *path)
{
    if (names->n == names->capacity) {
        names->capacity = 2 * names->capacity + 64;
        names->list = realloc(names->list, (size_t)names->capacity * sizeof *names->list);
        CHECK(names->list, "out of host memory: %d names of inputs", names->capacity);
    }
    names->list[names->n++] = path;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void sort_from(input_names *names, int first)
{
    if (names->n > first) qsort(names->list + first, (size_t)(names->n - first), sizeof *names->list, by_bytes);
}

/* ---- directories ------------------------------------------------------------------------------------------------ */

/* ".txt", ".jsonl.zst" */
static const char *ending(const char *name)
{
    const char *dot = strrchr(name, '.'), *before = dot;

    if (!dot || dot == name) return "without an ending";
    if (text_name_of(name).packed == PACKED_NOT) return dot;
    while (before > name && *--before != '.') continue;
    return before > name ? before : dot;
}

/* "3 .parquet, 1 .pdf"; caller frees */
static char *count_endings(input_names *passed_over)
{
    char *text = NULL;
    size_t n_bytes;
    FILE *to = open_memstream(&text, &n_bytes);

    CHECK(to, "out of host memory");
    sort_from(passed_over, 0);
    for (int i = 0, n; i < passed_over->n; i += n) {
        for (n = 1; i + n < passed_over->n && strcmp(passed_over->list[i], passed_over->list[i + n]) == 0; n++)
            continue;
        fprintf(to, "%s%d %s", i ? ", " : "", n, passed_over->list[i]);
    }
    CHECK(fclose(to) == 0, "out of host memory");
    return text;
}

static bool is_text_name(const char *name, text_content content)
{
    const name_kind kind = text_name_of(name).kind;

    return kind == NAME_JSON_LINES || (kind == NAME_JSON && content != CONTENT_AUTO) ||
           (kind == NAME_TEXT && content != CONTENT_JSONL);
}

/* One step of the walk: a file is added, or its ending to those passed over. */
static int visit(input_names *names, input_names *passed_over, FTS *walk, FTSENT *e, text_content content,
                 moai_error *err)
{
    const bool is_hidden = e->fts_level > 0 && e->fts_name[0] == '.', is_text = is_text_name(e->fts_name, content);

    switch (e->fts_info) {
    case FTS_D:
        if (is_hidden) fts_set(walk, e, FTS_SKIP);
        return 0;
    case FTS_DP: return 0;
    case FTS_DC: /* all paths of a walk begin in the same room */
        warn("%s leads back to %.*s: passed over", e->fts_path, (int)e->fts_cycle->fts_pathlen, e->fts_path);
        return 0;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS:
        if (is_hidden) return 0;
        return error_set(err, "%s: %s", e->fts_path, strerror(e->fts_errno));
    default: break;
    }
    if (is_hidden) return 0;
    if (!is_text)
        add(passed_over, xstrdup(ending(e->fts_name)));
    else if (e->fts_info == FTS_SLNONE)
        return error_set(err, "%s: a link to nothing", e->fts_path);
    else if (e->fts_info != FTS_F)
        return error_set(err, "%s: not a regular file", e->fts_path);
    else
        add(names, xstrdup(e->fts_path));
    return 0;
}

/* What is read of a directory is said, for a file may lie there that was not meant: a README beside JSON lines. */
static void tell_found(const input_names *names, int first, const char *dir)
{
    input_names found = {0};
    int n_texts = 0;

    for (int i = first; i < names->n; i++) {
        const char *slash = strrchr(names->list[i], '/'), *name = slash ? slash + 1 : names->list[i];
        add(&found, xstrdup(ending(name)));
        n_texts += text_name_of(name).kind == NAME_TEXT;
    }
    char *endings = count_endings(&found);
    if (n_texts > 0 && n_texts < found.n)
        warn("%s: JSON lines and other texts are read alike: %s (--format jsonl: those alone)", dir, endings);
    else
        say("%s: %s are read", dir, endings);
    free(endings);
    input_names_free(&found);
}

static int check_found(const input_names *names, int first, input_names *passed_over, const char *dir,
                       text_content content, moai_error *err)
{
    const char *wanted = content == CONTENT_JSONL ? "JSON lines" : "a text or of JSON lines";
    char *endings = count_endings(passed_over);
    int rc = 0;

    if (names->n == first)
        rc = error_config(err, "%s: no file below it has the name of %s%s%s%s", dir, wanted,
                          passed_over->n ? "; there are " : "", endings,
                          passed_over->n ? " (--input FILE reads one by name)" : "");
    else
        tell_found(names, first, dir);
    if (rc == 0 && passed_over->n)
        warn("%s: %d files are passed over, for their names are not those of %s: %s (--input FILE reads one by name)",
             dir, passed_over->n, content == CONTENT_JSONL ? wanted : "texts", endings);
    free(endings);
    return rc;
}

static int add_directory(input_names *names, const char *path, text_content content, moai_error *err)
{
    char *dir = xstrdup(path), *const roots[] = {dir, NULL};
    const int first = names->n;
    input_names passed_over = {0};
    int rc = 0;

    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/';) dir[--n] = '\0';
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, NULL);
    if (!walk) rc = error_set(err, "%s: %s", path, strerror(errno));
    for (FTSENT *e; rc == 0 && (errno = 0, e = fts_read(walk));) rc = visit(names, &passed_over, walk, e, content, err);
    if (rc == 0 && errno) rc = error_set(err, "%s: %s", path, strerror(errno));
    if (walk) fts_close(walk);
    if (rc == 0) rc = check_found(names, first, &passed_over, path, content, err);
    sort_from(names, first);
    input_names_free(&passed_over);
    free(dir);
    return rc;
}

static int add_name(input_names *names, const char *path, text_content content, moai_error *err)
{
    struct stat st;

    if (strcmp(path, "-") != 0) {
        if (stat(path, &st) != 0) return error_file(err, path);
        if (S_ISDIR(st.st_mode)) return add_directory(names, path, content, err);
    }
    add(names, xstrdup(path));
    return 0;
}

/* ---- lists ------------------------------------------------------------------------------------------------------ */

/* All of a file, or of a pipe; NULL on failure.  Caller frees. */
static char *read_list(const char *path, size_t *n_bytes, moai_error *err)
{
    const int fd = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    size_t room = 0;
    ssize_t got = 1;
    char *text = NULL;

    if (fd < 0) return error_file(err, path), NULL;
    for (*n_bytes = 0; got > 0; *n_bytes += (size_t)(got > 0 ? got : 0)) {
        if (room - *n_bytes < 2) {
            text = realloc(text, room = 2 * room + (1 << 16));
            CHECK(text, "%s: out of host memory: %zu bytes", path, room);
        }
        do got = read(fd, text + *n_bytes, room - *n_bytes - 1);
        while (got < 0 && errno == EINTR);
    }
    if (got < 0) error_set(err, "%s: cannot read: %s", path, strerror(errno));
    if (fd != STDIN_FILENO) close(fd);
    if (got < 0) return free(text), NULL;
    text[*n_bytes] = '\0';
    return text;
}

/* '?' for what no terminal should get. */
static void make_printable(char *text)
{
    size_t n = strlen(text);

    for (size_t i = 0; i < n;) {
        const int length = utf8_length(text + i, n - i);
        if (length < 0 || (unsigned char)text[i] < 0x20 || text[i] == 0x7f) text[i] = '?';
        i += (size_t)(length < 0 ? 1 : length);
    }
}

/* What may be behind a name that is none. */
static char *name_hint(const char *name)
{
    char *dir = NULL, *hint;

    if (name[0] == '#') return xstrdup("; a list has no comments");
    if (strchr(name, '\r')) return xstrdup("; CR alone ends no line: tr '\\r' '\\n' makes a list of it");
    if (name[0] == '/' || !(dir = getcwd(NULL, 0))) return xstrdup("");
    hint = xasprintf("; it is looked for from %s on", dir);
    free(dir);
    return hint;
}

static int add_entry(input_names *names, char *name, size_t n, const char *path, const char *unit, int number,
                     text_content content, moai_error *err)
{
    moai_error why = {0};

    name[n] = '\0';
    if (n == 0) return 0;
    if (strcmp(name, "-") == 0)
        return error_config(err, "%s, %s %d: -: standard input is no name of a list", path, unit, number);
    if (add_name(names, name, content, &why) == 0) return 0;
    char *hint = access(name, F_OK) == 0 ? xstrdup("") : name_hint(name);
    make_printable(why.text);
    error_set(err, "%s, %s %d: %s%s", path, unit, number, why.text, hint);
    err->config = why.config;
    free(hint);
    return -1;
}

static int add_list(input_names *names, const char *path, text_content content, moai_error *err)
{
    const int first = names->n;
    size_t n_bytes;
    char *text = read_list(path, &n_bytes, err), *end = text + n_bytes;
    int rc = text ? 0 : -1, number = 0;

    if (rc == 0 && n_bytes > 1 && (memcmp(text, "\xFF\xFE", 2) == 0 || memcmp(text, "\xFE\xFF", 2) == 0))
        rc = error_config(err,
                          "%s: begins with the mark of UTF-16: file names are bytes; iconv -f UTF-16 -t UTF-8 "
                          "makes a list of them",
                          path);
    if (rc == 0 && packing_of(text, n_bytes) != PACKED_NOT)
        rc = error_config(err, "%s: is %s: a list is of names as they are; unpacked it comes through --input_list -",
                          path, packing_name(packing_of(text, n_bytes)));
    const char separator = rc == 0 && memchr(text, '\0', n_bytes) ? '\0' : '\n';
    for (char *at = text + (rc == 0 ? utf8_mark(text, n_bytes) : 0), *stop; rc == 0 && at < end;
         at = stop + 1) {
        stop = memchr(at, separator, (size_t)(end - at));
        if (!stop) stop = end;
        size_t n = (size_t)(stop - at);
        if (separator == '\n' && n > 0 && at[n - 1] == '\r') n--;
        rc = add_entry(names, at, n, path, separator ? "line" : "name", ++number, content, err);
    }
    if (rc == 0 && names->n == first) rc = error_config(err, "%s: no name in this list", path);
    free(text);
    return rc;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

typedef struct identity {
    dev_t dev;
    ino_t ino;
    int i; /* in the list */
} identity;

static int by_identity(const void *a, const void *b)
{
    const identity *x = a, *y = b;

    if (x->dev != y->dev) return x->dev < y->dev ? -1 : 1;
    if (x->ino != y->ino) return x->ino < y->ino ? -1 : 1;
    return (x->i > y->i) - (x->i < y->i);
}

/* Links and other spellings of a name too: what counts is the file. */
static void warn_of_twins(const input_names *names)
{
    identity *all = xmalloc((size_t)names->n * sizeof *all);
    int n = 0, n_twins = 0, twin = 0;

    for (int i = 0; i < names->n; i++) {
        struct stat st;
        if (stat(names->list[i], &st) == 0 && S_ISREG(st.st_mode)) all[n++] = (identity){st.st_dev, st.st_ino, i};
    }
    qsort(all, (size_t)n, sizeof *all, by_identity);
    for (int k = 1; k < n; k++)
        if (all[k].dev == all[k - 1].dev && all[k].ino == all[k - 1].ino && n_twins++ == 0) twin = k;
    if (n_twins)
        warn("%d of the %d inputs are files that were named before, such as %s (%s): their text counts again", n_twins,
             names->n, names->list[all[twin].i], names->list[all[twin - 1].i]);
    free(all);
}

int input_names_read(input_names *names, const input_source *sources, int n_sources, text_content content,
                     moai_error *err)
{
    int rc = 0, from_stdin = 0;

    *names = (input_names){0};
    for (int i = 0; i < n_sources; i++) from_stdin += strcmp(sources[i].path, "-") == 0;
    if (from_stdin > 1)
        return error_config(err, "standard input (-) can be read once, and is named %d times", from_stdin);
    for (int i = 0; rc == 0 && i < n_sources; i++)
        rc = sources[i].is_list ? add_list(names, sources[i].path, content, err)
                                : add_name(names, sources[i].path, content, err);
    if (rc == 0) warn_of_twins(names);
    return rc;
}

/* All names, each with its NUL. */
static char *pack(const input_names *names, int64_t *n_bytes)
{
    int64_t at = 0;

    *n_bytes = 0;
    for (int i = 0; i < names->n; i++) *n_bytes += (int64_t)strlen(names->list[i]) + 1;
    char *all = xmalloc((size_t)*n_bytes);
    for (int i = 0; i < names->n; i++) at += stpcpy(all + at, names->list[i]) + 1 - (all + at);
    return all;
}

int input_names_share(input_names *names, const input_source *sources, int n_sources, text_content content,
                      const comm *world, moai_error *err)
{
    int64_t n_bytes = 0;
    char *all = NULL;

    *names = (input_names){0};
    const int failed = world->rank == 0 && input_names_read(names, sources, n_sources, content, err) != 0;
    if (comm_agree(world, failed, err) != 0) return -1;
    if (world->size == 1) return 0;
    if (world->rank == 0) all = pack(names, &n_bytes);
    comm_broadcast(world, &n_bytes, sizeof n_bytes, DT_U8, 0);
    if (world->rank != 0) all = xmalloc((size_t)n_bytes);
    comm_broadcast(world, all, (size_t)n_bytes, DT_U8, 0);
    for (int64_t at = 0; world->rank != 0 && at < n_bytes; at += (int64_t)strlen(all + at) + 1)
        add(names, xstrdup(all + at));
    free(all);
    return 0;
}
