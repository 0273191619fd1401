/* weights.c: see weights.h */
#include "io/hf/weights.h"
#include "io/checkpoint/carried.h"
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/file/hash.h"
#include "io/hf/hf.h"
#include "io/hf/hf_nf4.h"
#include "src/base/files.h"
#include "src/base/pack.h"
#include "src/base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAME_ROOM = 128 };                     /* of a parameter's name */

struct weights {
    char *dir, *tokenizer;
    model_config cfg;
    token_list ends;
    weights *adapters;                        /* folded in; NULL: none */
    bool makes_streams;                       /* weights_add_streams */
    hf_files *hf;                             /* or, when NULL, the checkpoint: */
    hf_nf4 in_4_bits;                         /* the matrix of these that was read last, and its name */
    char nf4_name[NAME_ROOM];
    checkpoint_manifest m;
    struct stored_file {
        int fd;                               /* -1 until it is needed */
        bool **checked;                       /* per piece and block: its hash was found right; NULL: not yet */
    } *files;
};

/* Checkpoints.  A block is read whole, for its hash, the first time it is touched; a piece without blocks likewise. */

static int open_checkpoint(weights *w, moai_error *err)
{
    if (manifest_load(&w->m, w->dir, err) != 0) return -1;
    w->files = xmalloc((size_t)w->m.n_files * sizeof *w->files);
    for (int i = 0; i < w->m.n_files; i++)
        w->files[i] = (struct stored_file){-1, xmalloc((size_t)w->m.files[i].n * sizeof(bool *))};
    return manifest_model(&w->m, &w->cfg, err);
}

/* A layout of thousands of ranks has more files than a process may hold open. */
static void close_some(weights *w)
{
    enum { MOST = 256 };
    int n = 0;

    for (int i = 0; i < w->m.n_files; i++) n += w->files[i].fd >= 0;
    for (int i = 0; n >= MOST && i < w->m.n_files; i++) {
        if (w->files[i].fd >= 0) close(w->files[i].fd);
        w->files[i].fd = -1;
    }
}

/* The blocks of a piece that are about to be read; of one whose blocks have no hashes, all of it. */
typedef struct touch {
    rect want;
    bool *checked;                            /* per block */
} touch;

static int64_t block_number(const piece *p, rect block) { return (block.row0 - p->at.row0) / p->block_rows; }

static bool wants(void *to, const piece *p, rect block)
{
    const touch *t = to;
    return !t->checked[block_number(p, block)] && rect_n_elem(rect_intersect(t->want, block)) > 0;
}

static void note_checked(void *to, const piece *p, rect block, const float *x)
{
    const touch *t = to;

    (void)x;
    if (p->blocks) t->checked[block_number(p, block)] = true;
}

static int touch_piece(weights *w, const struct piece_ref *r, rect want, moai_error *err)
{
    struct stored_file *open = &w->files[r->file];
    const piece_file *f = &w->m.files[r->file];
    bool **checked = &open->checked[r->p - f->list];

    if (!*checked) *checked = xmalloc((size_t)max_i64(piece_n_blocks(r->p), 1) * sizeof **checked);
    if (open->fd < 0) {
        close_some(w);
        open->fd = piece_file_open(w->dir, f, err);
    }
    if (open->fd < 0) return -1;
    if (!r->p->blocks && **checked) return 0;
    if (piece_scan(open->fd, w->dir, f, r->p, wants, note_checked, &(touch){want, *checked}, err) != 0) return -1;
    if (!r->p->blocks) **checked = true;
    return 0;
}

static int read_piece(weights *w, const struct piece_ref *r, rect want, float *dst, int64_t stride, moai_error *err)
{
    const rect both = rect_intersect(want, r->p->at), at = r->p->at;
    const bool at_once = both.n_cols == at.n_cols && both.n_cols == stride;
    const int64_t n_runs = at_once ? min_i64(both.n_rows, 1) : both.n_rows,
                  run = at_once ? rect_n_elem(both) : both.n_cols;
    float *to = dst + (both.row0 - want.row0) * stride + both.col0 - want.col0;

    if (rect_n_elem(both) == 0) return 0;
    if (touch_piece(w, r, both, err) != 0) return -1;
    for (int64_t i = 0; i < n_runs; i++) {
        const int64_t first = (both.row0 + i - at.row0) * at.n_cols + both.col0 - at.col0;
        const size_t n_bytes = (size_t)run * sizeof *dst;
        if (r->p->address < 0)
            memset(to + i * stride, 0, n_bytes);
        else if (file_read_at(w->files[r->file].fd, w->m.files[r->file].name, to + i * stride, n_bytes,
                              r->p->address + first * (int64_t)sizeof *dst, err) != 0)
            return -1;
    }
    return 0;
}

static int read_stored(weights *w, const stored_tensor *t, rect want, float *dst, int64_t stride, moai_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < t->n && t->refs[i].p->at.row0 < want.row0 + want.n_rows; i++)
        rc = read_piece(w, &t->refs[i], want, dst, stride, err);
    return rc;
}

/* Both kinds */

static bool is_in_4_bits(const weights *w, const char *name)
{
    return w->hf && w->cfg.quantization.stored && hf_is_nf4(w->hf, name);
}

/* Opens a matrix that is stored in 4 bits, if it is not the one that is open. */
static int open_nf4(weights *w, const char *name, moai_error *err)
{
    hf_nf4 m;

    if (strcmp(w->nf4_name, name) == 0) return 0;
    if (hf_nf4_open(&m, w->hf, name, err)) {
        hf_nf4_close(&m);
        return -1;
    }
    hf_nf4_close(&w->in_4_bits);
    w->in_4_bits = m;
    snprintf(w->nf4_name, sizeof w->nf4_name, "%s", name);
    return 0;
}

static bool shape_of(const weights *w, const char *name, int64_t *rows, int64_t *cols)
{
    safetensors *file;
    const safetensors_entry *e = w->hf ? hf_find(w->hf, name, &file) : NULL;
    const stored_tensor *t = w->hf ? NULL : manifest_find(&w->m, STATE_WEIGHT, name);

    if (t) *rows = t->rows, *cols = t->cols;
    if (e && e->readable) *rows = e->ndim == 2 ? e->shape[0] : 1, *cols = e->shape[e->ndim - 1];
    return t || (e && e->readable);
}

/* Of what is stored in 4 bits, too, which it opens.  1: there is none of the name; -1 with err. */
static int stored_shape(weights *w, const char *name, int64_t *rows, int64_t *cols, moai_error *err)
{
    if (!is_in_4_bits(w, name)) return shape_of(w, name, rows, cols) ? 0 : 1;
    if (open_nf4(w, name, err)) return -1;
    *rows = w->in_4_bits.rows, *cols = w->in_4_bits.cols;
    return 0;
}

static void say_left_out(const weights *w, const param_table *t)
{
    const char *first;
    const int n_unknown = hf_unknown(w->hf, t, &first);

    if (n_unknown > 0)
        warn("%s: tensors that are no part of config.json's model are left out: %d, one is %s", w->dir, n_unknown,
             first);
    const int n_lacking = hf_lacking(w->hf, t, &first);
    if (n_lacking > 0)
        warn("%s: the index names tensors that are not there, and no part of config.json's model: %d, one is %s",
             w->dir, n_lacking, first);
}

/* What they hold besides would be part of the function. */
static int refuse_unknown(const weights *w, const param_table *t, moai_error *err)
{
    const char *first;
    const int n = hf_unknown(w->hf, t, &first);

    if (n == 0) return 0;
    return error_set(err, "%s: tensors that adapter_config.json says nothing of: %d, one is %s", w->dir, n, first);
}

static int check_names(weights *w, moai_error *err)
{
    const char *config = w->cfg.lora.rank ? "adapter_config.json" : "config.json";
    param_table t;
    int rc = 0;

    params_whole(&t, &w->cfg);
    for (int i = 0; rc == 0 && i < t.n; i++) {
        const param *p = &t.list[i];
        int64_t rows, cols;
        rc = stored_shape(w, p->name, &rows, &cols, err);
        if (rc > 0)
            rc = w->hf ? hf_refuse(w->hf, p->name, err)
                       : error_set(err, "%s: %s: no such weights, which %s asks for", w->dir, p->name, config);
        else if (rc == 0 && (rows != p->rows || cols != p->cols))
            rc = error_set(err, "%s: %s is %lld x %lld, %s%s asks for %lld x %lld", w->dir, p->name, (long long)rows,
                           (long long)cols, config, w->cfg.lora.rank ? " on this base" : "", (long long)p->rows,
                           (long long)p->cols);
    }
    if (rc == 0 && w->hf && w->cfg.lora.rank)
        rc = refuse_unknown(w, &t, err);
    else if (rc == 0 && w->hf)
        say_left_out(w, &t);
    params_free(&t);
    return rc;
}

/* A head may be stored beside a tied embedding.  Where it is another matrix, Transformers 5 does not tie the two. */
static int check_tied_head(const weights *w, moai_error *err)
{
    const int64_t rows = w->cfg.vocab_size, cols = w->cfg.hidden_size, at_once = max_i64((1 << 20) / cols, 1);
    safetensors *files[2];
    int rc = 0;

    if (!w->hf || !w->cfg.tie_word_embeddings || w->cfg.lora.rank) return 0;
    const safetensors_entry *head = hf_find(w->hf, "lm_head.weight", &files[0]),
                            *embed = hf_find(w->hf, "model.embed_tokens.weight", &files[1]);
    if (!head) return 0;
    bool same = head->readable && head->ndim == 2 && head->shape[0] == rows && head->shape[1] == cols;
    float *x = xmalloc((size_t)(2 * at_once * cols) * sizeof *x), *y = x + at_once * cols;
    for (int64_t row = 0; rc == 0 && same && row < rows; row += at_once) {
        const int64_t n = min_i64(at_once, rows - row);
        rc = safetensors_read(files[0], head, row, n, 0, cols, x, cols, err);
        if (rc == 0) rc = safetensors_read(files[1], embed, row, n, 0, cols, y, cols, err);
        same = rc != 0 || memcmp(x, y, (size_t)(n * cols) * sizeof *x) == 0;
    }
    free(x);
    if (same) return rc;
    return error_set(err, "%s: lm_head.weight is not model.embed_tokens.weight, but tie_word_embeddings is true in "
                          "config.json", w->dir);
}

static int open_hf(weights *w, moai_error *err)
{
    char *config = xasprintf("%s/config.json", w->dir);
    int rc = model_config_read(&w->cfg, config, err);

    if (rc == 0) model_config_remark(&w->cfg, config);
    free(config);
    if (rc == 0) w->hf = hf_open(w->dir, err);
    return w->hf ? 0 : -1;
}

int weights_carry(const weights *w, checkpoint_files *f, moai_error *err)
{
    name_list names;

    if (!w->hf) return manifest_read_files(&w->m, f, is_carried, err);
    int rc = carried_in(w->dir, &names, err);
    for (int i = 0; rc == 0 && i < names.n; i++) {
        if (checkpoint_files_find(f, names.list[i])) continue;
        char *path = xasprintf("%s/%s", w->dir, names.list[i]);
        rc = checkpoint_files_add(f, names.list[i], path, err);
        free(path);
    }
    name_list_free(&names);
    return rc;
}

static bool is_generation_config(const char *name) { return strcmp(name, "generation_config.json") == 0; }

/* As Transformers' generate, which takes generation_config.json where it is there. */
static int read_ends(weights *w, moai_error *err)
{
    char *path = xasprintf("%s/generation_config.json", w->dir);
    checkpoint_files own = {0};
    int rc = w->hf ? 0 : manifest_read_files(&w->m, &own, is_generation_config, err);

    if (rc == 0 && (w->hf || own.n > 0)) rc = generation_config_read_eos(&w->ends, path, w->cfg.vocab_size, err);
    if (rc == 0 && w->ends.n == 0) w->ends = w->cfg.eos_token_id;
    checkpoint_files_free(&own);
    free(path);
    return rc;
}

/* Neither a manifest nor a config.json is there. */
static int name_newest(const char *dir, moai_error *err)
{
    char *newest = checkpoint_latest(dir), *other = newest ? NULL : hf_other_weights(dir);

    if (newest)
        error_config(err, "%s is no checkpoint; the newest in it is %s", dir, newest);
    else if (other)
        error_config(err, "%s is no checkpoint, and without config.json no Hugging Face directory: it %s", dir, other);
    else
        error_config(err,
                     "%s is no checkpoint, holds none (checkpoint-STEP/manifest.json), and is no Hugging Face "
                     "directory (config.json)",
                     dir);
    free(newest);
    free(other);
    return -1;
}

/* tokenizer.model, or else tokenizer.json, where one is there.  Caller frees. */
static char *find_tokenizer(const char *dir)
{
    char *model = xasprintf("%s/tokenizer.model", dir), *json = xasprintf("%s/tokenizer.json", dir);
    const bool is_json = !file_exists(model) && file_exists(json);

    free(is_json ? model : json);
    return is_json ? json : model;
}

weights *weights_open(const char *dir, moai_error *err)
{
    weights *w = xmalloc(sizeof *w);
    char *path = xasprintf("%s/manifest.json", dir), *config = xasprintf("%s/config.json", dir);

    w->dir = xstrdup(dir);
    w->tokenizer = find_tokenizer(dir);
    int rc = file_exists(path)      ? open_checkpoint(w, err)
             : file_missing(config) ? name_newest(dir, err)
                                    : open_hf(w, err);
    if (rc == 0 && w->cfg.lora.rank)
        rc = error_config(err, "%s holds adapters alone: they need the model that they were trained on", dir);
    if (rc == 0) rc = check_names(w, err);
    if (rc == 0) rc = check_tied_head(w, err);
    if (rc == 0) rc = read_ends(w, err);
    free(path);
    free(config);
    if (rc == 0) return w;
    weights_free(w);
    return NULL;
}

/* The same model but for the adapters. */
static int check_base(const weights *w, const model_config *base, moai_error *err)
{
    model_config own = w->cfg, other = *base;
    moai_error why;

    if (!own.lora.rank) return error_config(err, "%s holds no adapters: it is a checkpoint of a whole model", w->dir);
    own.lora = other.lora = (lora_config){0};
    if (model_config_same(&own, &other, &why) == 0) return 0;
    return error_config(err, "the adapters of %s are of another base than this one: %s", w->dir, why.text);
}

int weights_merge(weights *w, const char *adapters, moai_error *err)
{
    w->adapters = weights_open_adapter(adapters, &w->cfg, err);
    return w->adapters ? 0 : -1;
}

weights *weights_open_adapter(const char *dir, const model_config *base, moai_error *err)
{
    weights *w = xmalloc(sizeof *w);
    char *path = xasprintf("%s/manifest.json", dir), *config = xasprintf("%s/adapter_config.json", dir), *name = NULL;
    int rc = 0;

    *w = (weights){.dir = xstrdup(dir), .tokenizer = find_tokenizer(dir)};
    if (file_exists(path)) {
        rc = open_checkpoint(w, err);
        if (rc == 0) rc = check_base(w, base ? base : &w->cfg, err);
    } else if (file_missing(config)) {
        rc = error_config(err, "%s holds no adapters: neither adapter_config.json nor manifest.json is there", dir);
    } else {
        CHECK(base, "%s: adapters without their base's shape", dir);
        w->cfg = *base;
        if ((rc = adapter_config_read(&w->cfg.lora, &name, config, err)) != 0) err->config = true;
        if (rc == 0 && !(w->hf = hf_open_adapter(dir, err))) rc = -1;
    }
    if (rc == 0 && (rc = check_names(w, err)) != 0) err->config = true;
    free(path);
    free(config);
    free(name);
    if (rc == 0) return w;
    weights_free(w);
    return NULL;
}

int weights_base(const char *dir, char **base, char xxh3[33], moai_error *err)
{
    char *manifest = xasprintf("%s/manifest.json", dir), *config = xasprintf("%s/adapter_config.json", dir);
    checkpoint_meta meta;
    lora_config lora;
    int rc;

    *base = NULL;
    xxh3[0] = '\0';
    if (!file_exists(manifest)) {
        rc = adapter_config_read(&lora, base, config, err);
    } else if ((rc = checkpoint_read_meta(dir, &meta, err)) == 0) {
        *base = meta.base ? xstrdup(meta.base) : NULL;
        memcpy(xxh3, meta.base_xxh3, 33);
        checkpoint_meta_free(&meta);
    }
    if (rc == 0 && !*base) *base = xstrdup("");
    free(manifest);
    free(config);
    return rc;
}

/* The tensors are sorted by name, and their pieces by place. */
static void checkpoint_xxh3(const weights *w, char xxh3[33])
{
    pack all = {0};

    for (int i = 0; i < w->m.n_tensors; i++) {
        const stored_tensor *t = &w->m.tensors[i];
        if (t->state != STATE_WEIGHT) continue;
        for (int k = 0; k < t->n; k++) {
            char *line = xasprintf("%s %s\n", t->name, t->refs[k].p->xxh3);
            pack_bytes(&all, line, strlen(line));
            free(line);
        }
    }
    file_xxh3_text(all.bytes, all.n_bytes, xxh3);
    free(all.bytes);
}

int weights_xxh3(const weights *w, char xxh3[33], moai_error *err)
{
    if (w->hf) return hf_xxh3(w->hf, xxh3, err);
    checkpoint_xxh3(w, xxh3);
    return 0;
}

const model_config *weights_config(const weights *w) { return &w->cfg; }
bool weights_has_adapters(const weights *w) { return w->adapters; }
const token_list *weights_ends(const weights *w) { return &w->ends; }

/* A tokenizer.json of another kind only comes along (carried.h). */
const char *weights_tokenizer(const weights *w, moai_error *why)
{
    const size_t n = strlen(w->tokenizer);

    if (!file_exists(w->tokenizer)) {
        error_config(why, "%s has no tokenizer.model or tokenizer.json", w->dir);
        return NULL;
    }
    if (strcmp(w->tokenizer + n - 5, ".json") != 0) return w->tokenizer;
    tokenizer *t = tokenizer_open(w->tokenizer, why);
    tokenizer_free(t);
    return t ? w->tokenizer : NULL;
}

/* What others wrote may hold anything; a checkpoint of ours never did. */
static int check_finite(const weights *w, const char *name, rect at, const float *x, int64_t stride, moai_error *err)
{
    for (int64_t i = 0; i < at.n_rows; i++, x += stride) {
        int64_t j = 0;
        if (floats_are_finite(x, at.n_cols)) continue;
        while (floats_are_finite(x + j, 1)) j++;
        return error_set(err, "%s: %s is %g at row %lld, column %lld: nothing can be computed with it", w->dir, name,
                         (double)x[j], (long long)(at.row0 + i), (long long)(at.col0 + j));
    }
    return 0;
}

int weights_tokenizer_sha256(const weights *w, char hex[65], moai_error *err)
{
    moai_error unused;

    hex[0] = '\0';
    if (w->hf) return weights_tokenizer(w, &unused) ? file_sha256(w->tokenizer, hex, err) : 0;
    memcpy(hex, w->m.meta.tokenizer_sha256, 65);
    return 0;
}

static int read_own(weights *w, const char *name, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols,
                    float *dst, int64_t stride, moai_error *err)
{
    const bool tied_head = w->cfg.tie_word_embeddings && strcmp(name, "lm_head.weight") == 0;
    const char *stored = tied_head ? "model.embed_tokens.weight" : name;
    safetensors *file;
    int64_t rows, cols;

    const int missing = stored_shape(w, stored, &rows, &cols, err);
    if (missing) return missing < 0 ? -1 : error_set(err, "%s: %s: no such weights", w->dir, name);
    if (row0 < 0 || n_rows < 0 || row0 > rows - n_rows || col0 < 0 || n_cols < 0 || col0 > cols - n_cols)
        return error_set(err, "%s: %s: rows %lld+%lld, columns %lld+%lld wanted of %lld x %lld", w->dir, name,
                         (long long)row0, (long long)n_rows, (long long)col0, (long long)n_cols, (long long)rows,
                         (long long)cols);
    if (!w->hf)
        return read_stored(w, manifest_find(&w->m, STATE_WEIGHT, stored), (rect){row0, n_rows, col0, n_cols}, dst,
                           stride, err);
    if (is_in_4_bits(w, stored)) {
        if (hf_nf4_read(&w->in_4_bits, row0, n_rows, col0, n_cols, dst, stride, err)) return -1;
        return check_finite(w, stored, (rect){row0, n_rows, col0, n_cols}, dst, stride, err);
    }
    const safetensors_entry *e = hf_find(w->hf, stored, &file);
    if (safetensors_read(file, e, row0, n_rows, col0, n_cols, dst, stride, err) != 0) return -1;
    return check_finite(w, e->name, (rect){row0, n_rows, col0, n_cols}, dst, stride, err);
}

/* The name of an adapter's half, "....q_proj.weight" -> "....q_proj.lora_A.weight"; false where the map has none. */
static bool half_of(const weights *adapters, const char *name, const char *half, char full[NAME_ROOM])
{
    const size_t n = strlen(name), tail = strlen("weight");
    int64_t rows, cols;

    if (n < tail || strcmp(name + n - tail, "weight") != 0) return false;
    snprintf(full, NAME_ROOM, "%.*s%s.weight", (int)(n - tail), name, half);
    return shape_of(adapters, full, &rows, &cols);
}

/* The block gains its part of scale B A, in fp32; a map without an adapter stays as it is. */
static int add_adapter(weights *adapters, const char *name, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols,
                       float *dst, int64_t stride, moai_error *err)
{
    const lora_config *l = &adapters->cfg.lora;
    const int64_t rank = l->rank;
    const float factor = (float)lora_scale(l);
    char name_a[NAME_ROOM], name_b[NAME_ROOM];

    if (!half_of(adapters, name, "lora_A", name_a) || !half_of(adapters, name, "lora_B", name_b)) return 0;
    float *a = xmalloc((size_t)(rank * n_cols) * sizeof *a), *b = xmalloc((size_t)(n_rows * rank) * sizeof *b);
    int rc = read_own(adapters, name_a, 0, rank, col0, n_cols, a, n_cols, err);
    if (rc == 0) rc = read_own(adapters, name_b, row0, n_rows, 0, rank, b, rank, err);
    for (int64_t i = 0; rc == 0 && i < n_rows; i++)
        for (int64_t k = 0; k < rank; k++) {
            const float by = factor * b[i * rank + k];
            for (int64_t j = 0; j < n_cols; j++) dst[i * stride + j] += by * a[k * n_cols + j];
        }
    free(a);
    free(b);
    return rc;
}

int weights_add_streams(weights *w, int64_t mult, hc_mixing mixing, moai_error *err)
{
    if (w->cfg.hc.mult > 1)
        return error_config(err, "%s has %lld residual streams already (hc_mult)", w->dir, (long long)w->cfg.hc.mult);
    if (mult < 2 || mult > 8)
        return error_config(err, "hc_mult is %lld, must be from 2 to 8", (long long)mult);
    w->cfg.hc.mult = mult, w->cfg.hc.mixing = mixing;
    w->makes_streams = true;
    return 0;
}

/* fn is drawn, the others are zero. */
static void make_streams(const weights *w, const char *name, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols,
                         float *dst, int64_t stride)
{
    const bool is_fn = strcmp(name + strlen(name) - 3, ".fn") == 0;
    const int64_t cols = w->cfg.hc.mult * w->cfg.hidden_size;
    const uint64_t key = rng_key(0, name);

    for (int64_t i = 0; i < n_rows; i++)
        for (int64_t j = 0; j < n_cols; j++)
            dst[i * stride + j] = !is_fn ? 0
                                         : (float)w->cfg.initializer_range *
                                               rng_normal(key, (uint64_t)((row0 + i) * cols + col0 + j));
}

int weights_read(weights *w, const char *name, int64_t row0, int64_t n_rows, int64_t col0, int64_t n_cols, float *dst,
                 int64_t stride, moai_error *err)
{
    int64_t rows, cols;

    if (w->makes_streams && strstr(name, "_hc.")) {
        make_streams(w, name, row0, n_rows, col0, n_cols, dst, stride);
        return 0;
    }
    if (!w->adapters) return read_own(w, name, row0, n_rows, col0, n_cols, dst, stride, err);
    if (shape_of(w->adapters, name, &rows, &cols))       /* trained as it is */
        return read_own(w->adapters, name, row0, n_rows, col0, n_cols, dst, stride, err);
    if (read_own(w, name, row0, n_rows, col0, n_cols, dst, stride, err)) return -1;
    return add_adapter(w->adapters, name, row0, n_rows, col0, n_cols, dst, stride, err);
}

void weights_free(weights *w)
{
    if (!w) return;
    for (int i = 0; w->files && i < w->m.n_files; i++) {
        if (w->files[i].fd >= 0) close(w->files[i].fd);
        for (int k = 0; k < w->m.files[i].n; k++) free(w->files[i].checked[k]);
        free(w->files[i].checked);
    }
    free(w->files);
    weights_free(w->adapters);
    hf_nf4_close(&w->in_4_bits);
    manifest_unload(&w->m);
    hf_close(w->hf);
    free(w->dir);
    free(w->tokenizer);
    free(w);
}
