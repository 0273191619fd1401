/* hf_export.c: see hf.h */
#include "io/hf/hf.h"
#include "io/checkpoint/carried.h"
#include "io/checkpoint/place.h"
#include "io/hf/hf_nf4.h"
#include "io/hf/hf_streams.h"
#include "io/text/tokenizer.h"
#include "src/base/dir_lock.h"
#include "src/base/files.h"
#include "src/config/keys.h"
#include "src/ops/nf4.h"
#include "src/params/params.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK_ELEM = 1 << 22 };

typedef struct export {
    weights *from;
    const char *dir, *source;                 /* the temporary one, and what is exported */
    dtype dt;
    const char *torch_dtype;
    bool nf4, nested;
    param_table params;                       /* of one rank: all of the model, whole */
    int *shard_of;                            /* per parameter */
    int n_shards;
    int64_t total_bytes;
} export;

static bool is_nf4(const export *x, const param *p) { return x->nf4 && hf_takes_nf4(p); }

static int64_t param_bytes(const export *x, const param *p)
{
    return is_nf4(x, p) ? hf_nf4_bytes(p, x->nested) : p->rows * p->cols * (int64_t)dtype_size(x->dt);
}

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

static bool is_adapter(const export *x) { return weights_config(x->from)->lora.rank > 0; }

static char *shard_name(const export *x, int shard)
{
    if (is_adapter(x)) return xstrdup("adapter_model.safetensors");
    return x->n_shards == 1 ? xstrdup("model.safetensors")
                            : xasprintf("model-%05d-of-%05d.safetensors", shard + 1, x->n_shards);
}

static int write_tensor(const export *x, safetensors_writer *w, const param *p, float *block, moai_error *err)
{
    const int64_t rows_at_once = max_i64(BLOCK_ELEM / p->cols, 1);
    int rc = 0;

    if (is_nf4(x, p)) return hf_nf4_write(w, x->from, p, x->nested, x->torch_dtype, err);
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
        widest = max_i64(widest, p->cols);
        if (is_nf4(x, p)) {
            hf_nf4_declare(w, p, x->nested);
            continue;
        }
        char *stored = xasprintf("%s%s", is_adapter(x) ? HF_ADAPTER_PREFIX : "", p->name);
        safetensors_declare(w, stored, x->dt, p->ndim, p->ndim == 2 ? (int64_t[]){p->rows, p->cols} : &p->cols);
        free(stored);
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
        if (is_nf4(x, &x->params.list[i])) hf_nf4_index(map, &x->params.list[i], x->nested, name);
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
    moai_error unused;
    const char *path = cfg->eos_token_id.n == 0 ? weights_tokenizer(x->from, &unused) : NULL;
    tokenizer *t = path ? tokenizer_open(path, err) : NULL;

    if (path && !t) return -1;
    json_t *o = json_pack("{s:b}", "_from_model_config", path == NULL);
    set_id(o, "bos_token_id", cfg->bos_token_id);
    if (t)
        set_id(o, "eos_token_id", tokenizer_eos(t));
    else if (cfg->eos_token_id.n > 0)
        json_object_set_new(o, "eos_token_id", token_list_json(&cfg->eos_token_id));
    set_id(o, "pad_token_id", cfg->pad_token_id);
    if (t) tokenizer_free(t);
    return write_json(x, "generation_config.json", o, err);
}

static bool has_suffix(const char *text, const char *suffix)
{
    const size_t n = strlen(text), n_suffix = strlen(suffix);

    return n >= n_suffix && strcmp(text + n - n_suffix, suffix) == 0;
}

/* What came with an imported model goes out as it came; what did not is made. */
static int write_files(export *x, moai_error *err)
{
    moai_error unused;
    const char *model = weights_tokenizer(x->from, &unused);
    char *copy = xasprintf("%s/tokenizer.model", x->dir);
    checkpoint_files carried = {0};
    bool has_tokenizer = false;
    int rc = weights_carry(x->from, &carried, err);

    for (int i = 0; i < carried.n; i++) has_tokenizer |= is_tokenizer_file(carried.list[i].name);
    if (rc == 0) rc = checkpoint_files_write(&carried, x->dir, err);
    if (rc == 0 && !checkpoint_files_find(&carried, "generation_config.json")) rc = write_generation_config(x, err);
    if (rc == 0 && model && !has_tokenizer) rc = hf_write_tokenizer(x->dir, model, weights_config(x->from), err);
    if (rc == 0 && model && has_tokenizer && !has_suffix(model, ".json")) rc = file_copy(model, copy, err);
    checkpoint_files_free(&carried);
    free(copy);
    return rc;
}

/* PEFT's two files. */
static int write_adapter(export *x, const char *dir, moai_error *err)
{
    char *config = xasprintf("%s/adapter_config.json", x->dir), *base, xxh3[33];
    int rc = weights_base(dir, &base, xxh3, err);

    if (rc == 0) rc = adapter_config_write(&weights_config(x->from)->lora, base, config, err);
    if (rc == 0) rc = write_shard(x, 0, err);
    if (rc == 0) rc = file_sync(x->dir, err);
    free(config);
    free(base);
    return rc;
}

/* Keys of config.json that say more of the files; `more` is taken. */
static int add_to_config(const char *config, json_t *more, moai_error *err)
{
    json_t *o = json_read_object(config, err);
    const int rc = o && json_object_update(o, more) == 0 ? json_write_file(o, config, err) : -1;

    json_decref(o);
    json_decref(more);
    return rc;
}

static int write_config(const export *x, moai_error *err)
{
    char *path = xasprintf("%s/config.json", x->dir);
    const model_config *model = weights_config(x->from);
    int rc = model_config_write(model, path, x->torch_dtype, err);

    if (rc == 0 && x->nf4)
        rc = add_to_config(path, json_pack("{s:o}", "quantization_config", hf_nf4_config(x->nested, x->torch_dtype)),
                           err);
    if (rc == 0 && model->hc.mult > 1) rc = add_to_config(path, hf_streams_config(), err);
    free(path);
    return rc;
}

static int check_nf4(const export *x, moai_error *err)
{
    if (!x->nf4) return 0;
    if (weights_config(x->from)->quantization.stored && !weights_has_adapters(x->from))
        return error_config(err, "%s: its linear maps are in 4 bits already (quantization_config): they are not "
                            "quantized again", x->source);
    for (int i = 0; i < x->params.n; i++)
        if (hf_takes_nf4(&x->params.list[i]) && x->params.list[i].cols % NF4_BLOCK)
            return error_config(err, "%s: quantization nf4 has blocks of %d elements: %s has %lld columns", x->source,
                                NF4_BLOCK, x->params.list[i].name, (long long)x->params.list[i].cols);
    return 0;
}

static int write_all(export *x, moai_error *err)
{
    int rc = check_nf4(x, err);

    if (rc == 0) rc = write_config(x, err);
    if (rc == 0 && weights_config(x->from)->hc.mult > 1) rc = hf_streams_write_code(x->dir, err);
    if (rc == 0) rc = write_files(x, err);
    for (int shard = 0; rc == 0 && shard < x->n_shards; shard++) rc = write_shard(x, shard, err);
    if (rc == 0 && x->n_shards > 1) rc = write_index(x, err);
    if (rc == 0) rc = file_sync(x->dir, err);
    return rc;
}

/* Where an export goes.  It is written beside its name, and what it replaces is beside it until removed; both hold a
 * file by which an export that finds them, broken off, knows that they may go. */
typedef struct target {
    char *dir, *tmp, *old;
} target;

static const char mark[] = ".moai_export";

/* The directory itself where the name is a link; "hf/" is hf. */
static target target_of(const char *name)
{
    char *real = realpath(name, NULL), *dir = real ? real : xstrdup(name);
    size_t n = strlen(dir);

    while (n > 1 && dir[n - 1] == '/') dir[--n] = 0;
    return (target){dir, xasprintf("%s.tmp", dir), xasprintf("%s.old", dir)};
}

static void target_free(target *t)
{
    free(t->dir);
    free(t->tmp);
    free(t->old);
}

static char *mark_path(const char *dir) { return xasprintf("%s/%s", dir, mark); }

static int set_mark(const char *dir, moai_error *err)
{
    char *path = mark_path(dir);
    int rc = file_write(path, "", 0, err);

    free(path);
    return rc;
}

static void clear_mark(const char *dir)
{
    char *path = mark_path(dir);

    if (unlink(path) != 0) warn("%s: cannot be removed: %s", path, strerror(errno));
    free(path);
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

/* A name that an export, or the model it was made of, brings. */
static bool is_export_name(const char *name)
{
    static const char *const names[] = {"config.json", "model.safetensors", "model.safetensors.index.json",
                                        "tokenizer.model", "adapter_config.json", "adapter_model.safetensors",
                                        HF_STREAMS_CODE, mark};
    int at = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) return true;
    if (is_carried(name) || is_carried_directory(name)) return true;
    return sscanf(name, "model-%*5d-of-%*5d.safetensors%n", &at) == 0 && at > 0 && name[at] == 0;
}

/* Only what an export wrote is replaced by one: a directory of other things is not what was meant. */
static int check_replaceable(const char *path, moai_error *err)
{
    DIR *dir = opendir(path);
    bool has_config = false;
    int rc = 0;

    if (!dir) return error_set(err, "%s: %s", path, strerror(errno));
    for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        has_config |= !strcmp(e->d_name, "config.json") || !strcmp(e->d_name, "adapter_config.json");
        if (!is_export_name(e->d_name))
            rc = error_set(err, "%s holds %s, which no export writes: --overwrite replaces exports only", path,
                           e->d_name);
    }
    closedir(dir);
    if (rc == 0 && !has_config) rc = error_set(err, "%s: exists and is not an export: no config.json in it", path);
    return rc;
}

/* rename() cannot replace what is mounted; said before the work. */
static int check_not_mounted(const char *path, moai_error *err)
{
    char *parent = xasprintf("%s/..", path);
    struct stat inside, above;
    const bool mounted = stat(path, &inside) == 0 && stat(parent, &above) == 0 && inside.st_dev != above.st_dev;

    free(parent);
    return mounted ? error_set(err, "%s is a mount point, which no export can become: name a directory in it", path)
                   : 0;
}

/* The mark goes last: killed amid this, the rest is still known. */
static int remove_marked(const char *path, moai_error *err)
{
    DIR *dir = opendir(path);
    int rc = 0;

    if (!dir) return error_set(err, "%s: %s", path, strerror(errno));
    for (struct dirent *e; rc == 0 && (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, mark) == 0) continue;
        char *name = xasprintf("%s/%s", path, e->d_name);
        rc = dir_remove(name, err);
        free(name);
    }
    closedir(dir);
    return rc == 0 ? dir_remove(path, err) : rc;
}

/* What a killed export left. */
static int remove_left(const char *dir, moai_error *err)
{
    char *path = mark_path(dir);
    const bool is_ours = file_exists(path);

    free(path);
    if (is_ours) return remove_marked(dir, err);
    return is_free(dir) ? 0 : error_set(err, "%s: exists, and no export wrote it: move it away", dir);
}

/* Under the lock: tidies up behind a killed export, and sees that the names are to be had. */
static int target_prepare(const target *t, bool overwrite, moai_error *err)
{
    char *path = mark_path(t->old);

    if (file_missing(t->dir) && file_exists(path) && rename(t->old, t->dir) != 0)    /* killed amid a replacement */
        warn("%s: cannot be renamed to %s: %s", t->old, t->dir, strerror(errno));
    free(path);
    if (check_not_mounted(t->dir, err) != 0) return -1;
    if (!is_free(t->dir)) {
        if (!overwrite)
            return error_set(err, "%s: exists and is not an empty directory; --overwrite replaces an export", t->dir);
        if (check_replaceable(t->dir, err) != 0) return -1;
    }
    if (remove_left(t->tmp, err) != 0 || remove_left(t->old, err) != 0) return -1;
    return dir_make(t->tmp, err) == 0 ? set_mark(t->tmp, err) : -1;
}

static int target_commit(const target *t, moai_error *err)
{
    int rc = is_free(t->dir) ? 0 : set_mark(t->dir, err);
    moai_error why;

    if (rc == 0) rc = dir_replace(t->tmp, t->dir, t->old, err);
    if (rc != 0) return rc;
    rc = dir_sync_parent(t->dir, err);
    if (rc == 0 && remove_left(t->old, &why) != 0) warn("%s", why.text);
    clear_mark(t->dir);
    return rc;
}

static weights *open_source(const hf_export_options *o, moai_error *err)
{
    weights *w = o->is_adapter ? weights_open_adapter(o->dir, NULL, err) : weights_open(o->dir, err);

    if (!w || !o->adapters || weights_merge(w, o->adapters, err) == 0) return w;
    weights_free(w);
    return NULL;
}

static int write_into(export *x, const hf_export_options *o, moai_error *err)
{
    int rc;

    if (!o->is_adapter) model_config_remark_export(weights_config(x->from), o->dir);
    params_whole(&x->params, weights_config(x->from));
    assign_shards(x, o->is_adapter ? INT64_MAX : o->max_shard_bytes);
    rc = o->is_adapter ? write_adapter(x, o->dir, err) : write_all(x, err);
    params_free(&x->params);
    free(x->shard_of);
    return rc;
}

int hf_export(const hf_export_options *o, moai_error *err)
{
    target t = target_of(o->to);
    export x = {
        .dir = t.tmp, .dt = strcmp(o->torch_dtype, "bfloat16") == 0 ? DT_BF16 : DT_F32, .torch_dtype = o->torch_dtype,
        .source = o->dir, .nf4 = o->nf4, .nested = o->nested, .from = open_source(o, err)};
    const bool has_place = x.from && place_check("HF_DIR", o->to, err) == 0 && dir_make_parent(t.dir, err) == 0;
    job_lock *lock = has_place ? file_lock(t.dir, "HF_DIR", 0, err) : NULL;
    moai_error unused;
    int rc = lock ? target_prepare(&t, o->overwrite, err) : -1;

    if (rc == 0) {
        rc = write_into(&x, o, err);
        if (rc == 0) rc = target_commit(&t, err);
        if (rc != 0) remove_left(t.tmp, &unused);
    }
    job_unlock(lock);
    weights_free(x.from);
    target_free(&t);
    return rc;
}
