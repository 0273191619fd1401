/* checkpoint_manifest.c: manifest.json of a checkpoint; see checkpoint.h and checkpoint_manifest.h
 *
 *   {"format": "moai-checkpoint", "version": 1, "saved_at": "2026-01-31T12:00:00Z",
 *    "step": .., "samples": .., "updates": .., "skipped": .., "seed": .., "seq_length": .., "global_batch_size": ..,
 *    "layout": {"tensor_parallel": .., "context_parallel": .., "data_parallel": .., "pipeline_parallel": ..},
 *    "tokenizer_sha256": "..", "data_xxh3": "..", "run": {the run configuration}, "state": {as in run_state.h},
 *    "base": "the directory", "base_xxh3": "..",         of adapters alone
 *    "small_files": [{"file": "config.json", "bytes": .., "xxh3": ".."}],
 *    "files": [{"file": "rank-00000.h5", "bytes": .., "structure_xxh3": "..", "pieces": [
 *        {"state": "weight", "name": "..", "index": 0, "shape": [rows, cols], "offset": [row, col],
 *         "size": [rows, cols], "address": .., "xxh3": "..", "block_rows": .., "blocks": ["..", ..]}]}],
 *   "xxh3": ".."}                              the last line: the hash of all bytes before it
 * A piece of more than 16 MiB has block_rows and blocks: the hash of each block of so many rows.  Older ones have none,
 * no data_xxh3 and no state. */
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/checkpoint/carried.h"
#include "src/base/files.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFEST_MAX_BYTES ((size_t)1 << 32)

void checkpoint_meta_free(checkpoint_meta *m)
{
    free(m->run_json);
    free(m->state_json);
    free(m->base);
    m->run_json = m->state_json = m->base = NULL;
}

checkpoint_meta checkpoint_meta_copy(const checkpoint_meta *m)
{
    checkpoint_meta copy = *m;

    copy.run_json = m->run_json ? xstrdup(m->run_json) : NULL;
    copy.state_json = m->state_json ? xstrdup(m->state_json) : NULL;
    copy.base = m->base ? xstrdup(m->base) : NULL;
    return copy;
}

/* A `reader` remembers what went wrong first, so that fields read one per line. */
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

static bool is_hash(const char *text) { return strlen(text) == 32 && strspn(text, "0123456789abcdef") == 32; }

static void get_hash(reader *r, const json_t *o, const char *key, char hex[33])
{
    const char *text = get_text(r, o, key);

    if (!is_hash(text)) return bad(r, key, "not an XXH3-128");
    memcpy(hex, text, 33);
}

static void get_blocks(reader *r, const json_t *o, piece *p)
{
    const int64_t most = max_i64((1 << 26) / p->at.n_cols, 1), block_rows = get_int(r, o, "block_rows", 1, most);
    const json_t *list = get_list(r, o, "blocks");
    const int64_t n = (p->at.n_rows + block_rows - 1) / block_rows;

    if (r->failed) return;
    if ((int64_t)json_array_size(list) != n) return bad(r, "blocks", "not as many as block_rows tells of");
    p->block_rows = block_rows;
    p->blocks = xmalloc((size_t)n * sizeof *p->blocks);
    for (int64_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, (size_t)i));
        if (!text || !is_hash(text)) return bad(r, "blocks", "not an XXH3-128");
        memcpy(p->blocks[i], text, 33);
    }
}

/* A plain name: nothing that leads out of the directory. */
static char *get_file_name(reader *r, const json_t *o)
{
    const char *name = get_text(r, o, "file");

    if (!r->failed && (!name[0] || name[0] == '.' || strchr(name, '/')) && !is_carried(name))
        bad(r, "file", "not a plain file name");
    return xstrdup(name);
}

static void get_piece(reader *r, const json_t *o, piece *p)
{
    const int64_t most = (int64_t)1 << 31, widest = (int64_t)1 << 26;
    const char *state = get_text(r, o, "state");

    p->name = xstrdup(get_text(r, o, "name"));
    for (p->state = 0; p->state < adamw_states.n && strcmp(state, adamw_states.list[p->state].name) != 0; p->state++) {}
    if (p->state == adamw_states.n) p->state = 0, bad(r, "state", "unknown");
    p->index = (int)get_int(r, o, "index", 0, 1 << 20);
    get_pair(r, o, "shape", 1, most, &p->rows, &p->cols);
    get_pair(r, o, "offset", 0, most, &p->at.row0, &p->at.col0);
    get_pair(r, o, "size", 1, most, &p->at.n_rows, &p->at.n_cols);
    p->address = get_int(r, o, "address", -1, INT64_MAX);
    get_hash(r, o, "xxh3", p->xxh3);
    if (r->failed) return;
    if (p->cols > widest) bad(r, p->name, "too wide");
    if (p->at.row0 + p->at.n_rows > p->rows || p->at.col0 + p->at.n_cols > p->cols)
        bad(r, p->name, "a piece outside its tensor");
    if (!r->failed && json_object_get(o, "blocks")) get_blocks(r, o, p);
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
    for (size_t i = 0; i < json_array_size(list) && !r->failed; i++)
        get_piece(r, json_array_get(list, i), &f->list[f->n++]);
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
    const int64_t most_steps = (int64_t)1 << 40, most_samples = (int64_t)1 << 60;     /* of max_steps; to be added to */
    const json_t *g = json_object_get(root, "layout"), *run = json_object_get(root, "run"),
                 *state = json_object_get(root, "state");

    m->step = get_int(r, root, "step", 0, most_steps);
    m->samples = get_int(r, root, "samples", 0, most_samples);
    m->updates = get_int(r, root, "updates", 0, most_steps);
    m->skipped = get_int(r, root, "skipped", 0, most_steps);
    m->seed = (uint64_t)get_int(r, root, "seed", INT64_MIN, INT64_MAX);
    m->seq_length = get_int(r, root, "seq_length", 0, INT64_MAX);
    m->global_batch_size = get_int(r, root, "global_batch_size", 0, INT64_MAX);
    m->layout.tp = (int)get_int(r, g, "tensor_parallel", 1, 1 << 20);
    m->layout.cp = (int)get_int(r, g, "context_parallel", 1, 1 << 20);
    m->layout.dp = (int)get_int(r, g, "data_parallel", 1, 1 << 20);
    m->layout.pp = (int)get_int(r, g, "pipeline_parallel", 1, 1 << 20);
    if (strlen(get_text(r, root, "tokenizer_sha256")) >= sizeof m->tokenizer_sha256)
        bad(r, "tokenizer_sha256", "too long");
    if (!json_is_object(run)) bad(r, "run", "not an object");
    if (state && !json_is_object(state)) bad(r, "state", "not an object");
    if (r->failed) return;
    strcpy(m->tokenizer_sha256, get_text(r, root, "tokenizer_sha256"));
    const char *data = json_string_value(json_object_get(root, "data_xxh3"));
    snprintf(m->data_xxh3, sizeof m->data_xxh3, "%s", data ? data : "");
    m->run_json = json_dumps(run, JSON_INDENT(1));
    m->state_json = state ? json_dumps(state, JSON_COMPACT) : NULL;
    const char *base = json_string_value(json_object_get(root, "base")),
               *base_xxh3 = json_string_value(json_object_get(root, "base_xxh3"));
    m->base = base ? xstrdup(base) : NULL;
    snprintf(m->base_xxh3, sizeof m->base_xxh3, "%s", base_xxh3 ? base_xxh3 : "");
}

static void get_all(reader *r, const json_t *root, checkpoint_manifest *m)
{
    if (strcmp(get_text(r, root, "format"), "moai-checkpoint") != 0) return bad(r, "format", "not moai-checkpoint");
    if (get_int(r, root, "version", 0, INT64_MAX) != CHECKPOINT_VERSION)
        return bad(r, "version", "of another version of the program");
    m->saved_at = xstrdup(get_text(r, root, "saved_at"));
    get_meta(r, root, &m->meta);

    const json_t *small = get_list(r, root, "small_files"), *files = get_list(r, root, "files");
    m->small = xmalloc(json_array_size(small) * sizeof *m->small);
    for (size_t i = 0; i < json_array_size(small) && !r->failed; i++)
        get_small(r, json_array_get(small, i), &m->small[m->n_small++]);
    m->files = xmalloc(json_array_size(files) * sizeof *m->files);
    for (size_t i = 0; i < json_array_size(files) && !r->failed; i++)
        get_file(r, json_array_get(files, i), &m->files[m->n_files++]);
}

static int read_sealed(const char *dir, const char *path, char **text, size_t *n_bytes, moai_error *err)
{
    if (file_missing(path)) {
        error_set(err, "%s: not a checkpoint: there is no manifest.json", dir);
        return file_exists(dir) ? CHECKPOINT_DAMAGED : -1;
    }
    *text = file_read(path, MANIFEST_MAX_BYTES, n_bytes, err);
    if (!*text) return -1;
    if (json_seal_holds(*text, *n_bytes)) return 0;
    error_set(err, "%s: damaged: its last line is not the hash of the lines before", path);
    return CHECKPOINT_DAMAGED;
}

int manifest_load(checkpoint_manifest *m, const char *dir, moai_error *err)
{
    char *path = xasprintf("%s/manifest.json", dir), *text = NULL;
    reader r = {.path = path, .err = err};
    json_error_t where;
    size_t n_bytes = 0;

    *m = (checkpoint_manifest){.dir = xstrdup(dir)};
    int rc = read_sealed(dir, path, &text, &n_bytes, err);
    json_t *root = rc == 0 ? json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &where) : NULL;
    if (rc == 0 && !root) rc = error_set(err, "%s:%d: %s", path, where.line, where.text);
    if (rc == 0) get_all(&r, root, m);
    if (r.failed) rc = -1;
    if (rc == 0) rc = manifest_index(m, path, err);
    json_decref(root);
    free(text);
    free(path);
    if (rc != 0) manifest_unload(m);
    return rc;
}

void manifest_unload(checkpoint_manifest *m)
{
    for (int i = 0; i < m->n_files; i++) {
        for (int k = 0; m->names && k < m->files[i].n; k++) m->files[i].list[k].name = NULL;
        piece_file_free(&m->files[i]);
    }
    for (int i = 0; m->names && i < m->n_tensors; i++) free(m->names[i]);
    free(m->names);
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

int manifest_check_small(const checkpoint_manifest *m, const small_file *f, moai_error *err)
{
    char *path = xasprintf("%s/%s", m->dir, f->name), hex[33];
    size_t n_bytes = 0;
    char *data = file_read(path, (size_t)1 << 30, &n_bytes, err);
    int rc = data ? 0 : file_is_lost(m->dir, path) ? CHECKPOINT_DAMAGED : -1;

    if (data) file_xxh3_text(data, n_bytes, hex);
    if (data && ((int64_t)n_bytes != f->bytes || strcmp(hex, f->xxh3) != 0)) {
        error_set(err, "%s: damaged: %zu bytes, XXH3 %s, the manifest says %lld and %s", path, n_bytes, hex,
                  (long long)f->bytes, f->xxh3);
        rc = CHECKPOINT_DAMAGED;
    }
    free(data);
    free(path);
    return rc;
}

static const small_file *find_small(const checkpoint_manifest *m, const char *name)
{
    for (int i = 0; i < m->n_small; i++)
        if (strcmp(m->small[i].name, name) == 0) return &m->small[i];
    return NULL;
}

static int read_adapters(const checkpoint_manifest *m, lora_config *lora, moai_error *err)
{
    const small_file *config = find_small(m, "adapter_config.json");
    char *path = xasprintf("%s/adapter_config.json", m->dir), *base = NULL;
    int rc = config ? manifest_check_small(m, config, err) : 0;

    if (rc == 0 && config) rc = adapter_config_read(lora, &base, path, err);
    free(base);
    free(path);
    return rc;
}

int manifest_model(const checkpoint_manifest *m, model_config *model, moai_error *err)
{
    const small_file *config = find_small(m, "config.json");

    if (!config) return error_set(err, "%s/manifest.json: small_files: config.json is not among them", m->dir);
    int rc = manifest_check_small(m, config, err);
    if (rc != 0) return rc;
    char *path = xasprintf("%s/config.json", m->dir);
    rc = model_config_read(model, path, err);
    free(path);
    return rc == 0 ? read_adapters(m, &model->lora, err) : rc;
}
