/* checkpoint_manifest.c: manifest.json of a checkpoint; see checkpoint.h and pieces.h
 *
 *   {"format": "moai-checkpoint", "version": 1, "saved_at": "2026-01-31T12:00:00Z",
 *    "step": .., "samples": .., "updates": .., "skipped": .., "seed": .., "seq_length": .., "global_batch_size": ..,
 *    "layout": {"tensor_parallel": .., "context_parallel": .., "data_parallel": .., "pipeline_parallel": ..},
 *    "tokenizer_sha256": "..", "run": {the run configuration},
 *    "small_files": [{"file": "config.json", "bytes": .., "xxh3": ".."}],
 *    "files": [{"file": "rank-00000.h5", "bytes": .., "structure_xxh3": "..", "pieces": [
 *        {"state": "weight", "name": "..", "index": 0, "shape": [rows, cols], "offset": [row, col], "size": [rows, cols],
 *         "address": .., "xxh3": ".."}]}],
 *   "xxh3": ".."}                              the last line: the hash of all bytes before it                             */
#include "pieces.h"
#include "files.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MANIFEST_VERSION = 1 };
#define MANIFEST_MAX_BYTES ((size_t)1 << 32)
enum { SEAL_BYTES = 46 };                     /* the last line, with the comma and newline before it */

const char *const checkpoint_state_names[N_STATES] = {"weight", "exp_avg", "exp_avg_sq"};

void checkpoint_meta_free(checkpoint_meta *m)
{
    free(m->run_json);
    m->run_json = NULL;
}

/* Writing */

static json_t *pair(int64_t a, int64_t b) { return json_pack("[I, I]", (json_int_t)a, (json_int_t)b); }

static json_t *piece_json(const piece *p)
{
    return json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:I, s:s}", "state", checkpoint_state_names[p->state], "name", p->name, "index",
                     p->index, "shape", pair(p->rows, p->cols), "offset", pair(p->at.row0, p->at.col0), "size",
                     pair(p->at.n_rows, p->at.n_cols), "address", (json_int_t)p->address, "xxh3", p->xxh3);
}

char *manifest_entry(const piece_file *f)
{
    json_t *pieces = json_array();

    for (int i = 0; i < f->n; i++) json_array_append_new(pieces, piece_json(&f->list[i]));
    json_t *entry = json_pack("{s:s, s:I, s:s, s:o}", "file", f->name, "bytes", (json_int_t)f->bytes, "structure_xxh3",
                              f->structure_xxh3, "pieces", pieces);
    char *text = json_dumps(entry, JSON_COMPACT);
    CHECK(text, "manifest: cannot encode the entry of %s", f->name);
    json_decref(entry);
    return text;
}

static json_t *layout_json(grid_shape g)
{
    return json_pack("{s:i, s:i, s:i, s:i}", "tensor_parallel", g.tp, "context_parallel", g.cp, "data_parallel", g.dp,
                     "pipeline_parallel", g.pp);
}

static json_t *small_json(const char *dir, const char *name, moai_error *err)
{
    char hex[33], *path = xasprintf("%s/%s", dir, name);
    size_t n_bytes;
    char *data = file_read(path, (size_t)1 << 30, &n_bytes, err);
    json_t *entry = NULL;

    if (data) {
        file_xxh3_text(data, n_bytes, hex);
        entry = json_pack("{s:s, s:I, s:s}", "file", name, "bytes", (json_int_t)n_bytes, "xxh3", hex);
    }
    free(data);
    free(path);
    return entry;
}

static int add_small(json_t *root, const char *dir, moai_error *err)
{
    json_t *list = json_array();
    char *tokenizer = xasprintf("%s/tokenizer.model", dir);
    json_t *config = small_json(dir, "config.json", err), *model = NULL;
    const bool has_tokenizer = file_exists(tokenizer);

    free(tokenizer);
    if (config) json_array_append_new(list, config);
    if (config && has_tokenizer && (model = small_json(dir, "tokenizer.model", err))) json_array_append_new(list, model);
    json_object_set_new(root, "small_files", list);
    return config && (model || !has_tokenizer) ? 0 : -1;
}

static json_t *meta_json(const checkpoint_meta *m)
{
    char now[32];
    time_t t = time(NULL);
    struct tm utc;

    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    json_t *run = m->run_json ? json_loads(m->run_json, 0, NULL) : NULL;
    return json_pack("{s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s, s:o}", "format", "moai-checkpoint", "version",
                     (int)MANIFEST_VERSION, "saved_at", now, "step", (json_int_t)m->step, "samples", (json_int_t)m->samples, "updates",
                     (json_int_t)m->updates, "skipped", (json_int_t)m->skipped, "seed", (json_int_t)m->seed, "seq_length",
                     (json_int_t)m->seq_length, "global_batch_size", (json_int_t)m->global_batch_size, "layout", layout_json(m->layout),
                     "tokenizer_sha256", m->tokenizer_sha256, "run", run ? run : json_object());
}

int manifest_save(const char *dir, const checkpoint_meta *meta, char *const *entries, int n_entries, moai_error *err)
{
    json_t *root = meta_json(meta), *files = json_array();
    int rc = add_small(root, dir, err);

    for (int i = 0; i < n_entries; i++) json_array_append_new(files, json_loads(entries[i], 0, NULL));
    json_object_set_new(root, "files", files);
    char *text = json_dumps(root, JSON_INDENT(1)), hex[33];
    CHECK(text, "manifest: cannot encode");
    json_decref(root);

    size_t body = strlen(text) - 1;           /* the seal brings the closing brace */
    text[body] = 0;
    while (body > 0 && text[body - 1] == '\n') text[--body] = 0;
    file_xxh3_text(text, body, hex);
    char *sealed = xasprintf("%s,\n\"xxh3\": \"%s\"}\n", text, hex), *path = xasprintf("%s/manifest.json", dir);
    if (rc == 0) rc = file_write(path, sealed, strlen(sealed), err);
    free(path);
    free(sealed);
    free(text);
    return rc;
}

/* Reading.  A `reader` remembers what went wrong first, so that fields read one per line. */
typedef struct reader {
    const char *path;
    moai_error *err;
    bool failed;
} reader;

static void bad(reader *r, const char *key, const char *what)
{
    if (!r->failed) error_set(r->err, "%s: %s: %s", r->path, key, what);
    r->failed = true;
}

static int64_t get_int(reader *r, const json_t *o, const char *key, int64_t low, int64_t high)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v)) return bad(r, key, v ? "not an integer" : "missing"), low;
    if (json_integer_value(v) < low || json_integer_value(v) > high) return bad(r, key, "out of range"), low;
    return json_integer_value(v);
}

static const char *get_text(reader *r, const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));

    if (!text) bad(r, key, json_object_get(o, key) ? "not a string" : "missing");
    return text ? text : "";
}

static const json_t *get_list(reader *r, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_array(v)) bad(r, key, v ? "not a list" : "missing");
    return v;
}

static void get_pair(reader *r, const json_t *o, const char *key, int64_t low, int64_t high, int64_t *a, int64_t *b)
{
    const json_t *v = json_object_get(o, key);

    if (json_array_size(v) != 2 || !json_is_integer(json_array_get(v, 0)) || !json_is_integer(json_array_get(v, 1)))
        return bad(r, key, "not a pair of integers");
    *a = json_integer_value(json_array_get(v, 0));
    *b = json_integer_value(json_array_get(v, 1));
    if (*a < low || *a > high || *b < low || *b > high) bad(r, key, "out of range");
}

static void get_hash(reader *r, const json_t *o, const char *key, char hex[33])
{
    const char *text = get_text(r, o, key);

    if (strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32) return bad(r, key, "not an XXH3-128");
    memcpy(hex, text, 33);
}

/* A plain name: nothing that leads out of the directory. */
static char *get_file_name(reader *r, const json_t *o)
{
    const char *name = get_text(r, o, "file");

    if (!r->failed && (!name[0] || name[0] == '.' || strchr(name, '/'))) bad(r, "file", "not a plain file name");
    return xstrdup(name);
}

static void get_piece(reader *r, const json_t *o, piece *p)
{
    const int64_t most = (int64_t)1 << 31, widest = (int64_t)1 << 26;
    const char *state = get_text(r, o, "state");

    p->name = xstrdup(get_text(r, o, "name"));
    for (p->state = 0; p->state < N_STATES && strcmp(state, checkpoint_state_names[p->state]) != 0; p->state++) {}
    if (p->state == N_STATES) p->state = 0, bad(r, "state", "unknown");
    p->index = (int)get_int(r, o, "index", 0, 1 << 20);
    get_pair(r, o, "shape", 1, most, &p->rows, &p->cols);
    get_pair(r, o, "offset", 0, most, &p->at.row0, &p->at.col0);
    get_pair(r, o, "size", 1, most, &p->at.n_rows, &p->at.n_cols);
    p->address = get_int(r, o, "address", -1, INT64_MAX);
    get_hash(r, o, "xxh3", p->xxh3);
    if (r->failed) return;
    if (p->cols > widest) bad(r, p->name, "too wide");
    if (p->at.row0 + p->at.n_rows > p->rows || p->at.col0 + p->at.n_cols > p->cols) bad(r, p->name, "a piece outside its tensor");
}

static int by_address(const void *a, const void *b)
{
    const int64_t x = (*(const piece *const *)a)->address, y = (*(const piece *const *)b)->address;
    return (x > y) - (x < y);
}

/* Data ranges lie inside the file and apart. */
static void check_addresses(reader *r, const piece_file *f)
{
    const piece **sorted = xmalloc((size_t)f->n * sizeof *sorted);
    int64_t end = 0;

    for (int i = 0; i < f->n; i++) sorted[i] = &f->list[i];
    qsort(sorted, (size_t)f->n, sizeof *sorted, by_address);
    for (int i = 0; i < f->n && !r->failed; i++) {
        const int64_t n_bytes = rect_n_elem(sorted[i]->at) * (int64_t)sizeof(float), at = sorted[i]->address;
        if (at < 0) continue;
        if (at < end || n_bytes > f->bytes || at > f->bytes - n_bytes)
            bad(r, f->name, "a piece's address is outside the file or taken");
        else
            end = at + n_bytes;
    }
    free(sorted);
}

static void get_file(reader *r, const json_t *o, piece_file *f)
{
    const json_t *list = get_list(r, o, "pieces");

    f->name = get_file_name(r, o);
    f->bytes = get_int(r, o, "bytes", 0, INT64_MAX);
    get_hash(r, o, "structure_xxh3", f->structure_xxh3);
    f->list = xmalloc(json_array_size(list) * sizeof *f->list);
    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++) get_piece(r, json_array_get(list, i), &f->list[f->n++]);
    if (!r->failed) check_addresses(r, f);
}

static void get_small(reader *r, const json_t *o, small_file *f)
{
    f->name = get_file_name(r, o);
    f->bytes = get_int(r, o, "bytes", 0, INT64_MAX);
    get_hash(r, o, "xxh3", f->xxh3);
}

static void get_meta(reader *r, const json_t *root, checkpoint_meta *m)
{
    const json_t *g = json_object_get(root, "layout"), *run = json_object_get(root, "run");

    m->step = get_int(r, root, "step", 0, INT64_MAX);
    m->samples = get_int(r, root, "samples", 0, INT64_MAX);
    m->updates = get_int(r, root, "updates", 0, INT64_MAX);
    m->skipped = get_int(r, root, "skipped", 0, INT64_MAX);
    m->seed = (uint64_t)get_int(r, root, "seed", INT64_MIN, INT64_MAX);
    m->seq_length = get_int(r, root, "seq_length", 0, INT64_MAX);
    m->global_batch_size = get_int(r, root, "global_batch_size", 0, INT64_MAX);
    m->layout.tp = (int)get_int(r, g, "tensor_parallel", 1, 1 << 20);
    m->layout.cp = (int)get_int(r, g, "context_parallel", 1, 1 << 20);
    m->layout.dp = (int)get_int(r, g, "data_parallel", 1, 1 << 20);
    m->layout.pp = (int)get_int(r, g, "pipeline_parallel", 1, 1 << 20);
    if (strlen(get_text(r, root, "tokenizer_sha256")) >= sizeof m->tokenizer_sha256) bad(r, "tokenizer_sha256", "too long");
    if (!json_is_object(run)) bad(r, "run", "not an object");
    if (r->failed) return;
    strcpy(m->tokenizer_sha256, get_text(r, root, "tokenizer_sha256"));
    m->run_json = json_dumps(run, JSON_INDENT(1));
}

static void get_all(reader *r, const json_t *root, checkpoint_manifest *m)
{
    if (strcmp(get_text(r, root, "format"), "moai-checkpoint") != 0) return bad(r, "format", "not moai-checkpoint");
    if (get_int(r, root, "version", 0, INT64_MAX) != MANIFEST_VERSION) return bad(r, "version", "of another version of the program");
    m->saved_at = xstrdup(get_text(r, root, "saved_at"));
    get_meta(r, root, &m->meta);

    const json_t *small = get_list(r, root, "small_files"), *files = get_list(r, root, "files");
    m->small = xmalloc(json_array_size(small) * sizeof *m->small);
    for (size_t i = 0; i < json_array_size(small) && !r->failed; i++) get_small(r, json_array_get(small, i), &m->small[m->n_small++]);
    m->files = xmalloc(json_array_size(files) * sizeof *m->files);
    for (size_t i = 0; i < json_array_size(files) && !r->failed; i++) get_file(r, json_array_get(files, i), &m->files[m->n_files++]);
}

/* The tensors behind the pieces */

static int by_tensor(const void *a, const void *b)
{
    const piece *x = ((const struct piece_ref *)a)->p, *y = ((const struct piece_ref *)b)->p;
    const int name = x->state != y->state ? x->state - y->state : strcmp(x->name, y->name);

    if (name != 0) return name;
    if (x->at.row0 != y->at.row0) return x->at.row0 < y->at.row0 ? -1 : 1;
    return (x->at.col0 > y->at.col0) - (x->at.col0 < y->at.col0);
}

/* Sorted by first row, a piece can only meet those that begin before its last row. */
static void check_tiling(reader *r, const stored_tensor *t)
{
    char *key = xasprintf("%s of %s", checkpoint_state_names[t->state], t->name);
    int64_t n_elem = 0;

    for (int i = 0; i < t->n && !r->failed; i++) {
        const rect at = t->refs[i].p->at;
        if (t->refs[i].p->rows != t->rows || t->refs[i].p->cols != t->cols) bad(r, key, "pieces disagree about its shape");
        for (int j = i + 1; j < t->n && t->refs[j].p->at.row0 < at.row0 + at.n_rows; j++)
            if (rect_n_elem(rect_intersect(at, t->refs[j].p->at)) > 0) bad(r, key, "two pieces overlap");
        n_elem += rect_n_elem(at);
    }
    if (!r->failed && n_elem != t->rows * t->cols) {
        char *what = xasprintf("%lld of %lld elements are in no piece", (long long)(t->rows * t->cols - n_elem), (long long)(t->rows * t->cols));
        bad(r, key, what);
        free(what);
    }
    free(key);
}

static void index_tensors(reader *r, checkpoint_manifest *m)
{
    int n = 0;

    for (int f = 0; f < m->n_files; f++) n += m->files[f].n;
    m->refs = xmalloc((size_t)n * sizeof *m->refs);
    m->tensors = xmalloc((size_t)n * sizeof *m->tensors);
    n = 0;
    for (int f = 0; f < m->n_files; f++)
        for (int i = 0; i < m->files[f].n; i++) m->refs[n++] = (struct piece_ref){f, &m->files[f].list[i]};
    qsort(m->refs, (size_t)n, sizeof *m->refs, by_tensor);

    for (int i = 0; i < n; i++) {
        const piece *p = m->refs[i].p;
        stored_tensor *last = m->n_tensors ? &m->tensors[m->n_tensors - 1] : NULL;
        if (!last || last->state != p->state || strcmp(last->name, p->name) != 0)
            *(last = &m->tensors[m->n_tensors++]) = (stored_tensor){p->state, p->name, p->rows, p->cols, &m->refs[i], 0};
        last->n++;
    }
    for (int i = 0; i < m->n_tensors && !r->failed; i++) check_tiling(r, &m->tensors[i]);
}

static int check_seal(const char *path, const char *text, size_t n_bytes, moai_error *err)
{
    char hex[33], seal[64];

    if (n_bytes > SEAL_BYTES) {
        file_xxh3_text(text, n_bytes - SEAL_BYTES, hex);
        snprintf(seal, sizeof seal, ",\n\"xxh3\": \"%s\"}\n", hex);
        if (memcmp(seal, text + n_bytes - SEAL_BYTES, SEAL_BYTES) == 0) return 0;
    }
    return error_set(err, "%s: damaged: its last line is not the hash of the lines before", path);
}

int manifest_load(checkpoint_manifest *m, const char *dir, moai_error *err)
{
    char *path = xasprintf("%s/manifest.json", dir);
    reader r = {.path = path, .err = err};
    json_error_t where;
    size_t n_bytes = 0;

    *m = (checkpoint_manifest){.dir = xstrdup(dir)};
    if (!file_exists(path)) {
        error_set(err, "%s: not a checkpoint: there is no manifest.json", dir);
        r.failed = true;
    }
    char *text = r.failed ? NULL : file_read(path, MANIFEST_MAX_BYTES, &n_bytes, err);
    r.failed = !text || check_seal(path, text, n_bytes, err) != 0;
    json_t *root = r.failed ? NULL : json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &where);
    if (!r.failed && !root) r.failed = error_set(err, "%s:%d: %s", path, where.line, where.text);
    if (!r.failed) get_all(&r, root, m);
    if (!r.failed) index_tensors(&r, m);
    json_decref(root);
    free(text);
    free(path);
    if (r.failed) manifest_unload(m);
    return r.failed ? -1 : 0;
}

void manifest_unload(checkpoint_manifest *m)
{
    for (int i = 0; i < m->n_files; i++) piece_file_free(&m->files[i]);
    for (int i = 0; i < m->n_small; i++) free(m->small[i].name);
    free(m->files);
    free(m->small);
    free(m->tensors);
    free(m->refs);
    free(m->dir);
    free(m->saved_at);
    checkpoint_meta_free(&m->meta);
    *m = (checkpoint_manifest){0};
}

const stored_tensor *manifest_find(const checkpoint_manifest *m, int state, const char *name)
{
    for (int low = 0, high = m->n_tensors; low < high;) {
        const int mid = low + (high - low) / 2;
        const stored_tensor *t = &m->tensors[mid];
        const int order = t->state != state ? state - t->state : strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

int manifest_check_small(const checkpoint_manifest *m, const small_file *f, moai_error *err)
{
    char *path = xasprintf("%s/%s", m->dir, f->name), hex[33];
    size_t n_bytes = 0;
    char *data = file_read(path, (size_t)1 << 30, &n_bytes, err);
    int rc = data ? 0 : -1;

    if (data) file_xxh3_text(data, n_bytes, hex);
    if (data && ((int64_t)n_bytes != f->bytes || strcmp(hex, f->xxh3) != 0))
        rc = error_set(err, "%s: damaged: %zu bytes, XXH3 %s, the manifest says %lld and %s", path, n_bytes, hex, (long long)f->bytes,
                       f->xxh3);
    free(data);
    free(path);
    return rc;
}

int manifest_model(const checkpoint_manifest *m, model_config *model, moai_error *err)
{
    const small_file *config = NULL;

    for (int i = 0; i < m->n_small; i++)
        if (strcmp(m->small[i].name, "config.json") == 0) config = &m->small[i];
    if (!config) return error_set(err, "%s/manifest.json: small_files: config.json is not among them", m->dir);
    if (manifest_check_small(m, config, err) != 0) return -1;
    char *path = xasprintf("%s/config.json", m->dir);
    int rc = model_config_read(model, path, err);
    free(path);
    return rc;
}

/* What config.json asks of one state of one parameter against what is stored; NULL when they agree, else the fault. */
static char *compare_shape(const checkpoint_manifest *m, const param *p, int state)
{
    const stored_tensor *s = manifest_find(m, state, p->name);

    if (!s) return xasprintf("%s/manifest.json: %s of %s is in no piece", m->dir, checkpoint_state_names[state], p->name);
    if (s->rows == p->rows && s->cols == p->cols) return NULL;
    return xasprintf("%s/manifest.json: %s of %s is %lld x %lld, config.json wants %lld x %lld", m->dir, checkpoint_state_names[state],
                     p->name, (long long)s->rows, (long long)s->cols, (long long)p->rows, (long long)p->cols);
}

int64_t manifest_check_names(const checkpoint_manifest *m, const model_config *model, void (*report)(void *, const char *), void *arg)
{
    param_table t;
    int64_t n_faults = 0;

    params_whole(&t, model);
    for (int i = 0; i < t.n * N_STATES + m->n_tensors; i++) {
        const stored_tensor *s = i < m->n_tensors ? &m->tensors[i] : NULL;
        char *fault = NULL;
        if (!s)
            fault = compare_shape(m, &t.list[(i - m->n_tensors) / N_STATES], (i - m->n_tensors) % N_STATES);
        else if (!params_find(&t, s->name))
            fault = xasprintf("%s/manifest.json: %s is not of the model in config.json", m->dir, s->name);
        if (!fault) continue;
        report(arg, fault);
        free(fault);
        n_faults++;
    }
    params_free(&t);
    return n_faults;
}
