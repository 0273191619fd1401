/* checkpoint_manifest_write.c: manifest.json from the entries of all files; its form is shown
 * in checkpoint_manifest.c */
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/checkpoint/carried.h"
#include "src/base/files.h"
#include "src/base/pack.h"
#include "src/config/keys.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *pair(int64_t a, int64_t b) { return json_pack("[I, I]", (json_int_t)a, (json_int_t)b); }

static json_t *piece_json(const piece *p)
{
    json_t *o = json_pack("{s:s, s:s, s:i, s:o, s:o, s:o, s:I, s:s}", "state", adamw_states.list[p->state].name, "name",
                     p->name, "index", p->index, "shape", pair(p->rows, p->cols), "offset",
                     pair(p->at.row0, p->at.col0), "size", pair(p->at.n_rows, p->at.n_cols), "address",
                     (json_int_t)p->address, "xxh3", p->xxh3);
    if (!p->blocks) return o;
    json_t *blocks = json_array();
    for (int64_t i = 0; i < piece_n_blocks(p); i++) json_array_append_new(blocks, json_string(p->blocks[i]));
    json_object_set_new(o, "block_rows", json_integer(p->block_rows));
    json_object_set_new(o, "blocks", blocks);
    return o;
}

static void add_json(pack *to, json_t *value)
{
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);

    CHECK(text, "manifest: cannot encode");
    pack_bytes(to, text, strlen(text));
    json_decref(value);
    free(text);
}

static void add_text(pack *to, const char *text) { pack_bytes(to, text, strlen(text)); }

/* A piece a line. */
char *manifest_entry(const piece_file *f)
{
    pack to = {0};

    add_text(&to, "{\"file\": ");
    add_json(&to, json_string(f->name));
    add_text(&to, ", \"bytes\": ");
    add_json(&to, json_integer(f->bytes));
    add_text(&to, ", \"structure_xxh3\": ");
    add_json(&to, json_string(f->structure_xxh3));
    add_text(&to, ", \"pieces\": [");
    for (int i = 0; i < f->n; i++) {
        add_text(&to, i ? ",\n   " : "\n   ");
        add_json(&to, piece_json(&f->list[i]));
    }
    pack_bytes(&to, "]}", sizeof "]}");
    return to.bytes;
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

/* config.json, and of the others what is there. */
static int add_small(json_t *root, const char *dir, moai_error *err)
{
    json_t *list = json_array();
    char *tokenizer = xasprintf("%s/tokenizer.model", dir), *adapters = xasprintf("%s/adapter_config.json", dir);
    name_list names = {0}, carried;
    int rc = carried_in(dir, &carried, err);

    name_list_add(&names, "config.json");
    if (!file_missing(adapters)) name_list_add(&names, "adapter_config.json");
    if (!file_missing(tokenizer)) name_list_add(&names, "tokenizer.model");
    for (int i = 0; i < carried.n; i++) name_list_add(&names, carried.list[i]);
    for (int i = 0; rc == 0 && i < names.n; i++) {
        json_t *entry = small_json(dir, names.list[i], err);
        if (entry)
            json_array_append_new(list, entry);
        else
            rc = -1;
    }
    json_object_set_new(root, "small_files", list);
    name_list_free(&names);
    name_list_free(&carried);
    free(tokenizer);
    free(adapters);
    return rc;
}

static json_t *meta_json(const checkpoint_meta *m)
{
    char now[32];
    time_t t = time(NULL);
    struct tm utc;

    strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &utc));
    json_t *run = m->run_json ? json_loads(m->run_json, 0, NULL) : NULL,
           *state = m->state_json ? json_loads(m->state_json, 0, NULL) : NULL;
    json_t *meta = json_pack("{s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:s, s:s, s:o, s:o}", "format",
                     "moai-checkpoint", "version", (int)CHECKPOINT_VERSION, "saved_at", now, "step",
                     (json_int_t)m->step, "samples", (json_int_t)m->samples, "updates", (json_int_t)m->updates,
                     "skipped", (json_int_t)m->skipped, "seed", (json_int_t)m->seed, "seq_length",
                     (json_int_t)m->seq_length, "global_batch_size", (json_int_t)m->global_batch_size, "layout",
                     layout_json(m->layout), "tokenizer_sha256", m->tokenizer_sha256, "data_xxh3", m->data_xxh3,
                     "run", run ? run : json_object(), "state", state ? state : json_object());
    if (!m->base) return meta;
    json_object_set_new(meta, "base", json_string_repaired(m->base));
    json_object_set_new(meta, "base_xxh3", json_string(m->base_xxh3));
    return meta;
}

/* Written as text: of thousands of ranks' files a tree in memory would be many times as large. */
int manifest_save(const char *dir, const checkpoint_meta *meta, const char *entries, size_t n_bytes, moai_error *err)
{
    json_t *root = meta_json(meta);
    const int failed = add_small(root, dir, err);
    char *text = json_dumps(root, JSON_INDENT(1)), *path = xasprintf("%s/manifest.json", dir);
    pack to = {0};

    CHECK(text, "manifest: cannot encode");
    json_decref(root);
    pack_bytes(&to, text, strlen(text) - 1);  /* what closes it comes with the seal */
    add_text(&to, ", \"files\": [");
    for (const char *entry = entries; entry < entries + n_bytes; entry += strlen(entry) + 1) {
        add_text(&to, entry == entries ? "\n  " : ",\n  ");
        add_text(&to, entry);
    }
    pack_bytes(&to, "]\n}", sizeof "]\n}");
    char *sealed = json_sealed(to.bytes);
    const int rc = failed ? -1 : file_write(path, sealed, strlen(sealed), err);
    free(path);
    free(sealed);
    free(to.bytes);
    free(text);
    return rc;
}
