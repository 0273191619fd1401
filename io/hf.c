/* hf.c: reading a Hugging Face directory; see hf.h */
#include "hf.h"
#include "files.h"
#include "json_scan.h"

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
static int open_map(hf_files *h, const json_members *map, moai_error *err)
{
    h->files = xmalloc(map->n * sizeof *h->files);
    h->map = json_object();
    for (size_t i = 0; i < map->n; i++) {
        const char *key = map->list[i].key;
        json_t *file = json_member_value(&map->list[i]);
        const char *name = json_string_value(file), *earlier = json_string_value(json_object_get(h->map, key));
        int rc = 0;
        if (!name || !name[0] || name[0] == '.' || strchr(name, '/'))
            rc = error_set(err, "%s: %.200s: not a plain file name", map->name, key);
        else if (earlier && strcmp(earlier, name) != 0)
            rc = error_set(err, "%s: %.200s is there twice, in %.200s and %.200s", map->name, key, earlier, name);
        else if (!file_named(h, name))
            rc = open_file(h, name, err);
        if (rc == 0 && !safetensors_find(file_named(h, name)->open, key))
            rc = error_set(err, "%s: %.200s is said to be in %.200s and is not", map->name, key, name);
        json_object_set_new(h->map, key, file);
        if (rc != 0) return -1;
    }
    return 0;
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
