/* hf.c: reading a Hugging Face directory; see hf.h */
#include "hf.h"
#include "files.h"

#include <jansson.h>
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
};

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

/* "weight_map": {tensor: file} */
static int open_map(hf_files *h, const json_t *map, const char *path, moai_error *err)
{
    const char *key;
    json_t *file;

    if (!json_is_object(map)) return error_set(err, "%s: weight_map: missing, or not an object", path);
    h->files = xmalloc(json_object_size(map) * sizeof *h->files);
    json_object_foreach((json_t *)map, key, file)
    {
        const char *name = json_string_value(file);
        if (!name || !name[0] || name[0] == '.' || strchr(name, '/'))
            return error_set(err, "%s: weight_map: %.200s: not a plain file name", path, key);
        if (!file_named(h, name) && open_file(h, name, err) != 0) return -1;
        if (!safetensors_find(file_named(h, name)->open, key))
            return error_set(err, "%s: %.200s is said to be in %.200s and is not", path, key, name);
    }
    return 0;
}

static int open_index(hf_files *h, const char *path, moai_error *err)
{
    json_error_t where;
    size_t n_bytes;
    char *text = file_read(path, (size_t)1 << 28, &n_bytes, err);
    json_t *root = text ? json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, &where) : NULL;
    int rc = -1;

    if (text && !root) error_set(err, "%s:%d: %s", path, where.line, where.text);
    if (root) h->map = json_incref(json_object_get(root, "weight_map"));
    if (root) rc = open_map(h, h->map, path, err);
    json_decref(root);
    free(text);
    return rc;
}

/* Of both, Transformers reads the one file, so it is what counts. */
hf_files *hf_open(const char *dir, moai_error *err)
{
    hf_files *h = xmalloc(sizeof *h);
    char *index = xasprintf("%s/model.safetensors.index.json", dir), *whole = xasprintf("%s/model.safetensors", dir);
    int rc;

    h->dir = xstrdup(dir);
    if (file_exists(index) && !file_exists(whole))
        rc = open_index(h, index, err);
    else {
        h->files = xmalloc(sizeof *h->files);
        rc = open_file(h, "model.safetensors", err);
    }
    free(index);
    free(whole);
    if (rc == 0) return h;
    hf_close(h);
    return NULL;
}

const safetensors_entry *hf_find(const hf_files *h, const char *name, safetensors **file)
{
    const char *said = json_string_value(json_object_get(h->map, name));

    for (int i = 0; i < h->n; i++) {
        if (said && strcmp(h->files[i].name, said) != 0) continue;
        const safetensors_entry *e = safetensors_find(h->files[i].open, name);
        if (e) return *file = h->files[i].open, e;
    }
    return NULL;
}

int hf_unknown(const hf_files *h, const param_table *t, const char **first)
{
    int n = 0;

    for (int i = 0; i < h->n; i++)
        for (int k = 0; k < safetensors_count(h->files[i].open); k++) {
            const char *name = safetensors_get(h->files[i].open, k)->name;
            if (strcmp(name, "lm_head.weight") != 0 && !params_find(t, name) && n++ == 0) *first = name;
        }
    return n;
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
