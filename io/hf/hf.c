/* hf.c: reading a Hugging Face directory; see hf.h */
#include "io/hf/hf.h"
#include "io/file/hash.h"
#include "io/hf/hf_nf4.h"
#include "src/base/files.h"
#include "src/json/json_scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hf_files {
    char *dir;
    struct hf_file {
        char *name;
        safetensors *open;
    } *files;
    int n;
    json_t *map;                              /* tensor: file, of the index; NULL without one */
    bool base;                                /* a Qwen3Model's names: without "model." */
    bool adapter;                             /* PEFT's names: with "base_model.model." */
};

static const char prefix[] = "model.", adapter_prefix[] = HF_ADAPTER_PREFIX;

enum { NAME_ROOM = 128 };                     /* of a parameter's name with a prefix */

static int open_file(hf_files *h, const char *name, moai_error *err)
{
    char *path = xasprintf("%s/%s", h->dir, name);

    h->files[h->n].name = xstrdup(name);
    h->files[h->n].open = safetensors_open(path, err);
    free(path);
    return h->files[h->n++].open ? 0 : -1;
}

static struct hf_file *file_named(const hf_files *h, const char *name)
{
    for (int i = 0; i < h->n; i++)
        if (strcmp(h->files[i].name, name) == 0) return &h->files[i];
    return NULL;
}

/* The file's name in an entry of weight_map; NULL where it is none in this directory. */
static const char *plain_name(const json_t *value)
{
    const char *name = json_string_value(value);

    while (name && strncmp(name, "./", 2) == 0) name += 2;
    return name && name[0] && name[0] != '.' && !strchr(name, '/') ? name : NULL;
}

static int add_mapping(hf_files *h, const json_members *map, const json_member *m, moai_error *err)
{
    json_t *value = json_member_value(m);
    const char *name = plain_name(value), *earlier = json_string_value(json_object_get(h->map, m->key));
    int rc = 0;

    if (!name) {
        char *text = json_member_text(m, 200);
        rc = error_set(err, "%s: %.200s is in %s: not a plain file name", map->name, m->key, text);
        free(text);
    } else if (earlier && strcmp(earlier, name) != 0)
        rc = error_set(err, "%s: %.200s is there twice, in %.200s and %.200s", map->name, m->key, earlier, name);
    else if (!file_named(h, name))
        rc = open_file(h, name, err);
    if (rc == 0) json_object_set_new(h->map, m->key, json_string(name));
    json_decref(value);
    return rc;
}

/* "weight_map": {tensor: file} */
static int open_map(hf_files *h, const json_members *map, moai_error *err)
{
    int rc = 0;

    h->files = xmalloc(map->n * sizeof *h->files);
    h->map = json_object();
    for (size_t i = 0; rc == 0 && i < map->n; i++) rc = add_mapping(h, map, &map->list[i], err);
    return rc;
}

static int open_index(hf_files *h, const char *path, moai_error *err)
{
    json_members root, map = {0};
    const json_member *found = NULL;
    char *name = xasprintf("%s: weight_map", path);
    int rc = json_members_open(&root, path, err);

    if (rc == 0) rc = json_members_find(&root, "weight_map", &found, err);
    if (rc == 0 && (!found || *found->text != '{')) rc = error_set(err, "%s: missing, or not an object", name);
    if (rc == 0) rc = json_members_scan(&map, name, found->text, found->n_bytes, err);
    if (rc == 0) rc = open_map(h, &map, err);
    json_members_free(&map);
    json_members_free(&root);
    free(name);
    return rc;
}

/* As Transformers tells a base model's file, but that there a head beside it is an error. */
static bool is_base(const hf_files *h)
{
    bool base = false;

    for (int i = 0; i < h->n; i++)
        for (int k = 0; k < safetensors_count(h->files[i].open); k++) {
            const char *name = safetensors_get(h->files[i].open, k)->name;
            if (strncmp(name, prefix, strlen(prefix)) == 0) return false;
            base = base || strcmp(name, "embed_tokens.weight") == 0 || strncmp(name, "layers.", 7) == 0;
        }
    return base;
}

/* A tensor's name in the files. */
static const char *stored_name(const hf_files *h, const char *name, char full[NAME_ROOM])
{
    if (h->adapter) {
        snprintf(full, NAME_ROOM, "%s%s", adapter_prefix, name);
        return full;
    }
    const bool cut = h->base && strncmp(name, prefix, strlen(prefix)) == 0;
    return cut ? name + strlen(prefix) : name;
}

/* Is a tensor, of which this is a part, stored in 4 bits? */
static bool has_state(const hf_files *h, const char *stored)
{
    const char *tail = strstr(stored, ".weight.");
    char *state = xasprintf("%.*s.weight." HF_NF4_STATE, (int)(tail - stored), stored);
    bool found = false;

    for (int i = 0; i < h->n && !found; i++) found = safetensors_find(h->files[i].open, state) != NULL;
    free(state);
    return found;
}

static bool in_table(const hf_files *h, const param_table *t, const char *stored)
{
    const size_t n = strlen(adapter_prefix);
    if (h->adapter) return strncmp(stored, adapter_prefix, n) == 0 && params_find(t, stored + n);
    const bool head = strcmp(stored, "lm_head.weight") == 0;
    char *name = xasprintf("%s%s", h->base && !head ? prefix : "", stored), *tail = strstr(name, ".weight.");
    if (tail && has_state(h, stored)) tail[strlen(".weight")] = '\0';      /* a part of it, see hf_nf4.h */
    const bool found = params_find(t, name) != NULL;

    free(name);
    return found;
}

static int open_whole(hf_files *h, const char *path, moai_error *err)
{
    h->files = xmalloc(sizeof *h->files);
    if (!file_missing(path)) return open_file(h, "model.safetensors", err);
    char *other = hf_other_weights(h->dir);
    error_set(err, "%s: No such file or directory; %s %s", path, h->dir,
              other ? other : "holds no weights: was all of it fetched?");
    free(other);
    return -1;
}

/* Of both, Transformers reads the one file, so it is what counts. */
hf_files *hf_open(const char *dir, moai_error *err)
{
    hf_files *h = xmalloc(sizeof *h);
    char *index = xasprintf("%s/model.safetensors.index.json", dir), *whole = xasprintf("%s/model.safetensors", dir);
    int rc;

    h->dir = xstrdup(dir);
    rc = file_exists(index) && !file_exists(whole) ? open_index(h, index, err) : open_whole(h, whole, err);
    free(index);
    free(whole);
    if (rc == 0) {
        h->base = is_base(h);
        return h;
    }
    hf_close(h);
    return NULL;
}

hf_files *hf_open_adapter(const char *dir, moai_error *err)
{
    hf_files *h = xmalloc(sizeof *h);

    *h = (hf_files){.dir = xstrdup(dir), .files = xmalloc(sizeof *h->files), .adapter = true};
    if (open_file(h, "adapter_model.safetensors", err) == 0) return h;
    hf_close(h);
    return NULL;
}

const safetensors_entry *hf_find(const hf_files *h, const char *name, safetensors **file)
{
    char full[NAME_ROOM];
    const char *stored = stored_name(h, name, full), *said = json_string_value(json_object_get(h->map, stored));

    for (int i = 0; i < h->n; i++) {
        if (said && strcmp(h->files[i].name, said) != 0) continue;
        const safetensors_entry *e = safetensors_find(h->files[i].open, stored);
        if (e) return *file = h->files[i].open, e;
    }
    return NULL;
}

/* How many bytes two names end with alike. */
static size_t common_end(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    size_t k = 0;

    while (k < n && k < m && a[n - 1 - k] == b[m - 1 - k]) k++;
    return k;
}

static const safetensors_entry *nearest(const hf_files *h, const char *name, int *n)
{
    const safetensors_entry *best = NULL;

    *n = 0;
    for (int i = 0; i < h->n; i++)
        for (int k = 0; k < safetensors_count(h->files[i].open); k++, ++*n) {
            const safetensors_entry *e = safetensors_get(h->files[i].open, k);
            if (!best || common_end(e->name, name) > common_end(best->name, name)) best = e;
        }
    return best;
}

static int refuse_missing(const hf_files *h, const char *name, moai_error *err)
{
    int n;
    const safetensors_entry *near = nearest(h, name, &n);

    if (!near) return error_set(err, "%s: %s is missing, and so is every other tensor", h->dir, name);
    const size_t n_near = strlen(near->name), n_end = common_end(near->name, name);
    if (n_end == strlen(name))
        return error_set(err,
                         "%s: no %s, but %.200s (%s): the names have \"%.*s\" before them, as a wrapper's (compiled, "
                         "parallel, an adapter) have: save the model inside it", h->dir, name, near->name, near->type,
                         (int)min_i64((int64_t)(n_near - n_end), 100), near->name);
    if (strcmp(name, "lm_head.weight") == 0)
        return error_set(err,
                         "%s: no lm_head.weight, and tie_word_embeddings is false: %d tensors of a model without a "
                         "head%s; save Qwen3ForCausalLM itself, or set tie_word_embeddings where the embedding is "
                         "the head", h->dir, n, h->base ? " (Qwen3Model)" : "");
    return error_set(err,
                     "%s: no %s, which config.json asks for; of its %d tensors the one most like it is %.200s (%s)",
                     h->dir, name, n, near->name, near->type);
}

int hf_refuse(const hf_files *h, const char *name, moai_error *err)
{
    char full[NAME_ROOM];
    const char *stored = stored_name(h, name, full), *said = json_string_value(json_object_get(h->map, stored));
    safetensors *file;
    const safetensors_entry *e = hf_find(h, name, &file);

    if (!e && said)
        return error_set(err, "%s/model.safetensors.index.json: weight_map: %s is said to be in %.200s and is not",
                         h->dir, stored, said);
    if (!e) return refuse_missing(h, name, err);
    if (e->ndim != 1 && e->ndim != 2)
        return error_set(err, "%s: %s has %d dimensions, must be a vector or a matrix", h->dir, stored, e->ndim);
    return error_set(err,
                     "%s: %s is %s, must be F32, BF16 or F16: load the model in Transformers with one of these as "
                     "dtype and save it again", h->dir, stored, e->type);
}

int hf_unknown(const hf_files *h, const param_table *t, const char **first)
{
    int n = 0;

    for (int i = 0; i < h->n; i++)
        for (int k = 0; k < safetensors_count(h->files[i].open); k++) {
            const char *name = safetensors_get(h->files[i].open, k)->name;
            if (strcmp(name, "lm_head.weight") != 0 && !in_table(h, t, name) && n++ == 0) *first = name;
        }
    return n;
}

int hf_lacking(const hf_files *h, const param_table *t, const char **first)
{
    const char *key;
    json_t *file;
    int n = 0;

    json_object_foreach(h->map, key, file) {
        const struct hf_file *f = file_named(h, json_string_value(file));
        if (!safetensors_find(f->open, key) && !in_table(h, t, key) && n++ == 0) *first = key;
    }
    return n;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct hf_file *)a)->name, ((const struct hf_file *)b)->name);
}

int hf_xxh3(const hf_files *h, char hex[33], moai_error *err)
{
    struct hf_file *sorted = xmalloc((size_t)h->n * sizeof *sorted);
    char *all = xmalloc((size_t)h->n * 33);
    int64_t n_bytes;
    int rc = 0;

    memcpy(sorted, h->files, (size_t)h->n * sizeof *sorted);
    qsort(sorted, (size_t)h->n, sizeof *sorted, by_name);
    for (int i = 0; rc == 0 && i < h->n; i++) {
        char *path = xasprintf("%s/%s", h->dir, sorted[i].name);
        rc = file_xxh3(path, all + 33 * i, &n_bytes, err);
        free(path);
    }
    file_xxh3_text(all, (size_t)h->n * 33, hex);
    free(all);
    free(sorted);
    return rc;
}

void hf_close(hf_files *h)
{
    if (!h) return;
    for (int i = 0; i < h->n; i++) {
        safetensors_close(h->files[i].open);
        free(h->files[i].name);
    }
    free(h->files);
    json_decref(h->map);
    free(h->dir);
    free(h);
}
