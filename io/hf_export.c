/* hf_export.c: see hf.h */
#include "hf.h"
#include "files.h"
#include "keys.h"
#include "pieces.h"
#include "tokenizer.h"
#include "weights.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK_ELEM = 1 << 22 };

typedef struct export {
    weights *from;
    const char *dir;                          /* the temporary one */
    dtype dt;
    param_table params;                       /* of one rank: all of the model, whole */
    int *shard_of;                            /* per parameter */
    int n_shards;
    int64_t total_bytes;
} export;

static int64_t param_bytes(const export *x, const param *p) { return p->rows * p->cols * (int64_t)dtype_size(x->dt); }

/* In the table's order, a shard as full as it gets. */
static void assign_shards(export *x, int64_t max_shard_bytes)
{
    int64_t used = 0;

    x->shard_of = xmalloc((size_t)x->params.n * sizeof *x->shard_of);
    x->n_shards = 1;
    for (int i = 0; i < x->params.n; i++) {
        const int64_t n_bytes = param_bytes(x, &x->params.list[i]);
        if (used > 0 && used + n_bytes > max_shard_bytes) x->n_shards++, used = 0;
        x->shard_of[i] = x->n_shards - 1;
        used += n_bytes;
        x->total_bytes += n_bytes;
    }
}

static char *shard_name(const export *x, int shard)
{
    return x->n_shards == 1 ? xstrdup("model.safetensors")
                            : xasprintf("model-%05d-of-%05d.safetensors", shard + 1, x->n_shards);
}

static int write_tensor(const export *x, safetensors_writer *w, const param *p, float *block, moai_error *err)
{
    const int64_t rows_at_once = max_i64(BLOCK_ELEM / p->cols, 1);
    int rc = 0;

    for (int64_t row = 0; rc == 0 && row < p->rows; row += rows_at_once) {
        const int64_t n_rows = min_i64(rows_at_once, p->rows - row);
        rc = weights_read(x->from, p->name, row, n_rows, 0, p->cols, block, p->cols, err);
        if (rc == 0) rc = safetensors_write(w, block, n_rows * p->cols, err);
    }
    return rc;
}

static int write_shard(const export *x, int shard, moai_error *err)
{
    char *name = shard_name(x, shard), *path = xasprintf("%s/%s", x->dir, name);
    safetensors_writer *w = safetensors_create(path, err);
    int64_t widest = BLOCK_ELEM;
    int rc = w ? 0 : -1;

    for (int i = 0; w && i < x->params.n; i++) {
        const param *p = &x->params.list[i];
        if (x->shard_of[i] != shard) continue;
        safetensors_declare(w, p->name, x->dt, p->ndim, p->ndim == 2 ? (int64_t[]){p->rows, p->cols} : &p->cols);
        widest = max_i64(widest, p->cols);
    }
    float *block = xmalloc((size_t)widest * sizeof *block);
    for (int i = 0; rc == 0 && i < x->params.n; i++)
        if (x->shard_of[i] == shard) rc = write_tensor(x, w, &x->params.list[i], block, err);
    free(block);
    if (rc == 0)
        rc = safetensors_finish(w, err);
    else
        safetensors_abandon(w);
    free(path);
    free(name);
    return rc;
}

/* Takes the reference. */
static int write_json(const export *x, const char *name, json_t *root, moai_error *err)
{
    char *path = xasprintf("%s/%s", x->dir, name);
    int rc = json_write_file(root, path, err);

    json_decref(root);
    free(path);
    return rc;
}

static int write_index(const export *x, moai_error *err)
{
    json_t *map = json_object();

    for (int i = 0; i < x->params.n; i++) {
        char *name = shard_name(x, x->shard_of[i]);
        json_object_set_new(map, x->params.list[i].name, json_string(name));
        free(name);
    }
    return write_json(
        x, "model.safetensors.index.json",
        json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)x->total_bytes, "weight_map", map), err);
}

static void set_id(json_t *o, const char *key, int64_t id)
{
    if (id >= 0) json_object_set_new(o, key, json_integer(id));
}

/* Without an end in config.json, the tokenizer's, with which documents were encoded: moai_generate stops there too. */
static int write_generation_config(const export *x, moai_error *err)
{
    const model_config *cfg = weights_config(x->from);
    const char *path = cfg->eos_token_id < 0 ? weights_tokenizer(x->from) : NULL;
    tokenizer *t = path ? tokenizer_open(path, err) : NULL;

    if (path && !t) return -1;
    json_t *o = json_pack("{s:b}", "_from_model_config", path == NULL);
    set_id(o, "bos_token_id", cfg->bos_token_id);
    set_id(o, "eos_token_id", t ? tokenizer_eos(t) : cfg->eos_token_id);
    set_id(o, "pad_token_id", cfg->pad_token_id);
    if (t) tokenizer_free(t);
    return write_json(x, "generation_config.json", o, err);
}

static int write_all(export *x, const char *torch_dtype, moai_error *err)
{
    char *config = xasprintf("%s/config.json", x->dir);
    int rc = model_config_write(weights_config(x->from), config, torch_dtype, err);

    if (rc == 0) rc = write_generation_config(x, err);
    if (rc == 0 && weights_tokenizer(x->from))
        rc = hf_write_tokenizer(x->dir, weights_tokenizer(x->from), weights_config(x->from), err);
    for (int shard = 0; rc == 0 && shard < x->n_shards; shard++) rc = write_shard(x, shard, err);
    if (rc == 0 && x->n_shards > 1) rc = write_index(x, err);
    if (rc == 0) rc = file_sync(x->dir, err);
    free(config);
    return rc;
}

/* Missing or empty: rename() will take its place. */
static bool is_free(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;

    while (dir && readdir(dir)) n++;          /* "." and ".." are two */
    if (dir) closedir(dir);
    return dir ? n <= 2 : !file_exists(path);
}

/* "hf/" is hf, "/" itself. */
static char *without_slashes(const char *path)
{
    size_t n = strlen(path);

    while (n > 1 && path[n - 1] == '/') n--;
    return xasprintf("%.*s", (int)n, path);
}

int hf_export(const char *dir, const char *to, const char *torch_dtype, int64_t max_shard_bytes, moai_error *err)
{
    char *hf_dir = without_slashes(to), *tmp = xasprintf("%s.tmp", hf_dir);
    export x = {
        .dir = tmp, .dt = strcmp(torch_dtype, "bfloat16") == 0 ? DT_BF16 : DT_F32, .from = weights_open(dir, err)};
    moai_error unused;
    int rc = x.from ? 0 : -1;

    if (rc == 0 && !is_free(hf_dir)) rc = error_set(err, "%s: exists and is not an empty directory", hf_dir);
    if (rc == 0 && !is_free(tmp))
        rc = error_set(err, "%s: exists; an export that was broken off leaves it: remove it to export anew", tmp);
    if (rc == 0) rc = dir_make(tmp, err);
    if (rc == 0) {
        params_whole(&x.params, weights_config(x.from));
        assign_shards(&x, max_shard_bytes);
        rc = write_all(&x, torch_dtype, err);
        if (rc == 0 && rename(tmp, hf_dir) != 0)
            rc = error_set(err, "%s: cannot be renamed to %s: %s", tmp, hf_dir, strerror(errno));
        if (rc == 0) rc = dir_sync_parent(hf_dir, err);
        if (rc != 0) dir_remove(tmp, &unused);
        params_free(&x.params);
        free(x.shard_of);
    }
    weights_free(x.from);
    free(tmp);
    free(hf_dir);
    return rc;
}
