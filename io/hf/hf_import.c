/* hf_import.c: see hf.h */
#include "io/hf/hf.h"
#include "io/checkpoint/carried.h"
#include "io/checkpoint/checkpoint_directory.h"
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/checkpoint/place.h"
#include "io/hf/hf_streams.h"
#include "io/hf/weights.h"
#include "src/base/dir_lock.h"
#include "src/base/files.h"
#include "src/json/json_scan.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

typedef struct weights_block {
    weights *from;
    const param *p;
} weights_block;

/* first and n are whole rows, see piece_write */
static int fill_from_weights(void *from, int64_t first, int64_t n, float *dst, moai_error *err)
{
    const weights_block *b = from;
    const int64_t w = b->p->cols;

    return weights_read(b->from, b->p->name, first / w, n / w, 0, w, dst, w, err);
}

static int write_pieces(piece_writer *w, weights *from, const param_table *t, piece_file *f, moai_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < t->n * adamw_states.n; i++) {
        const param *p = &t->list[i % t->n];
        weights_block source = {from, p};
        f->list[f->n] = (piece){.state = i / t->n, .name = xstrdup(p->name), .rows = p->rows, .cols = p->cols,
                                .at = {0, p->rows, 0, p->cols}};
        rc = piece_write(w, &f->list[f->n++], i / t->n == STATE_WEIGHT ? fill_from_weights : NULL, &source, err);
    }
    return rc;
}

static int write_file(const char *dir, weights *from, piece_file *f, moai_error *err)
{
    char *path = xasprintf("%s/rank-00000.h5", dir);
    moai_error unused;
    param_table t;

    params_whole(&t, weights_config(from));
    *f = (piece_file){.name = xstrdup("rank-00000.h5"),
                      .list = xmalloc((size_t)(t.n * adamw_states.n) * sizeof *f->list)};
    piece_writer *w = piece_file_create(path, err);
    int rc = w ? write_pieces(w, from, &t, f, err) : -1;
    if (rc == 0)
        rc = piece_file_close(w, f, err);
    else if (w)
        piece_file_close(w, NULL, &unused);
    params_free(&t);
    free(path);
    return rc;
}

/* A JSON file that is none (a Git LFS pointer, a page of a server) would be found out by the export's reader. */
static int check_files(const char *hf_dir, const checkpoint_files *f, moai_error *err)
{
    for (int i = 0; i < f->n; i++) {
        const size_t n = strlen(f->list[i].name);
        if (n < 5 || strcmp(f->list[i].name + n - 5, ".json") != 0) continue;
        const char *is = f->list[i].n_bytes ? foreign_content(f->list[i].data, f->list[i].n_bytes) : "empty";
        if (is) return error_set(err, "%s/%s: is %s", hf_dir, f->list[i].name, is);
    }
    return 0;
}

static bool is_taken(const char *name)
{
    const size_t n = strlen(name);

    return name[0] == '.' || strcmp(name, "config.json") == 0 || strcmp(name, "adapter_config.json") == 0 ||
           strcmp(name, "tokenizer.model") == 0 || strcmp(name, "model.safetensors.index.json") == 0 ||
           strcmp(name, HF_STREAMS_CODE) == 0 ||
           is_carried(name) || is_carried_directory(name) || (n > 12 && strcmp(name + n - 12, ".safetensors") == 0);
}

static bool is_directory_at(const char *dir, const char *name, const char *output_dir)
{
    char *path = xasprintf("%s/%s", dir, name);
    const bool same = file_is_same(path, output_dir);

    free(path);
    return same;
}

/* What of the directory is not in the checkpoint, which may lie below it. */
static void say_left(const char *hf_dir, const char *output_dir)
{
    DIR *dir = opendir(hf_dir);
    char *names = NULL;

    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (is_taken(e->d_name) || is_directory_at(hf_dir, e->d_name, output_dir)) continue;
        char *more = names ? xasprintf("%s, %s", names, e->d_name) : xstrdup(e->d_name);
        free(names);
        names = more;
    }
    if (dir) closedir(dir);
    if (names) say("%s: not taken along: %s", hf_dir, names);
    free(names);
}

static int check_output(const char *hf_dir, const char *output_dir, moai_error *err)
{
    if (place_is_model(output_dir))
        return error_config(err,
                            "OUTPUT_DIR %s is a Hugging Face model: the run that is to go on from %s needs a directory "
                            "of its own", output_dir, hf_dir);
    return place_check("OUTPUT_DIR", output_dir, err);
}

/* A resume takes the newest checkpoint, and so does generation. */
static int check_later(const char *output_dir, moai_error *err)
{
    char *later;
    int rc = checkpoint_later(output_dir, 0, &later, err);

    if (later)
        rc = error_config(err,
                          "OUTPUT_DIR %s holds %s, later than the checkpoint-0 that an import writes: name another "
                          "directory, or move them away", output_dir, later);
    free(later);
    return rc;
}

/* The model in the directory, or the adapters, which name their base. */
static weights *open_source(const hf_import_options *o, checkpoint_meta *meta, moai_error *err)
{
    weights *model = weights_open(o->base ? o->base : o->dir, err);

    if (!o->base) {
        if (!model || !o->hc_mult || weights_add_streams(model, o->hc_mult, o->hc_mixing, err) == 0) return model;
        weights_free(model);
        return NULL;
    }
    weights *from = model ? weights_open_adapter(o->dir, weights_config(model), err) : NULL;
    if (from && weights_xxh3(model, meta->base_xxh3, err)) {
        weights_free(from);
        from = NULL;
    }
    meta->base = xstrdup(o->base);
    weights_free(model);
    return from;
}

int hf_import(const hf_import_options *o, moai_error *err)
{
    const char *hf_dir = o->dir, *output_dir = o->output_dir;
    char *tmp = save_path(output_dir, 0, ".tmp"), *name = save_path(output_dir, 0, ""), *entry = NULL;
    checkpoint_meta meta = {.layout = {1, 1, 1, 1}};
    weights *from = open_source(o, &meta, err);
    checkpoint_files files = {0};
    piece_file f = {0};
    job_lock *lock = NULL;
    moai_error unused;
    int rc = from ? 0 : -1;

    if (rc == 0) meta.model = *weights_config(from);
    const char *tokenizer_path = rc == 0 ? weights_tokenizer(from, &unused) : NULL;
    if (tokenizer_path) rc = checkpoint_read_tokenizer(&files, tokenizer_path, meta.tokenizer_sha256, err);
    if (rc == 0) rc = weights_carry(from, &files, err);
    if (rc == 0) rc = check_files(hf_dir, &files, err);
    if (rc == 0) rc = check_output(hf_dir, output_dir, err);
    if (rc == 0) rc = dir_make(output_dir, err);
    if (rc == 0) rc = (lock = dir_lock(output_dir, "OUTPUT_DIR", 0, err)) ? 0 : -1;
    if (rc == 0) rc = check_later(output_dir, err);
    if (rc == 0 && !o->overwrite && file_exists(name))
        rc = error_set(err, "%s: exists already; --overwrite replaces it", name);
    if (rc == 0) {
        rc = save_begin(output_dir, 0, err);
        if (rc == 0) rc = save_describe(output_dir, &meta, &files, err);
        if (rc == 0) rc = write_file(tmp, from, &f, err);
        if (rc == 0) entry = manifest_entry(&f), rc = manifest_save(tmp, &meta, entry, strlen(entry) + 1, err);
        if (rc == 0) rc = save_commit(output_dir, 0, err);
        if (rc == 0)
            save_prune(output_dir, 0, 0);
        else
            save_abandon(output_dir, 0);
    }
    if (rc == 0) say_left(hf_dir, output_dir);
    job_unlock(lock);
    piece_file_free(&f);
    weights_free(from);
    checkpoint_files_free(&files);
    checkpoint_meta_free(&meta);
    free(entry);
    free(tmp);
    free(name);
    return rc;
}
