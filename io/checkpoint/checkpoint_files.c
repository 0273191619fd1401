/* checkpoint_files.c: the files of a checkpoint that hold no state; see checkpoint.h */
#include "io/checkpoint/checkpoint_manifest.h"
#include "io/file/hash.h"
#include "src/base/files.h"

#include <stdlib.h>
#include <string.h>

int checkpoint_files_add(checkpoint_files *f, const char *name, const char *path, moai_error *err)
{
    size_t n_bytes;
    char *data = file_read(path, (size_t)1 << 30, &n_bytes, err);

    if (!data) return -1;
    CHECK(f->list = realloc(f->list, (size_t)(f->n + 1) * sizeof *f->list), "out of host memory");
    f->list[f->n++] = (struct checkpoint_file){xstrdup(name), data, n_bytes};
    return 0;
}

const struct checkpoint_file *checkpoint_files_find(const checkpoint_files *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->list[i].name, name) == 0) return &f->list[i];
    return NULL;
}

int checkpoint_read_tokenizer(checkpoint_files *f, const char *path, char sha256[65], moai_error *err)
{
    if (checkpoint_files_add(f, "", path, err) != 0) return -1;
    struct checkpoint_file *own = &f->list[f->n - 1];
    const bool is_json = own->data[strspn(own->data, " \t\r\n")] == '{';
    free(own->name);
    own->name = xstrdup(is_json ? "tokenizer.json" : "tokenizer.model");
    bytes_sha256(f->list[f->n - 1].data, f->list[f->n - 1].n_bytes, sha256);
    return 0;
}

int manifest_read_files(const checkpoint_manifest *m, checkpoint_files *f, bool (*wanted)(const char *name),
                        moai_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < m->n_small; i++) {
        const char *name = m->small[i].name;
        if (!wanted(name) || checkpoint_files_find(f, name)) continue;
        char *path = xasprintf("%s/%s", m->dir, name);
        rc = manifest_check_small(m, &m->small[i], err);
        if (rc == 0) rc = checkpoint_files_add(f, name, path, err);
        free(path);
    }
    return rc;
}

static bool is_no_config(const char *name)
{
    return strcmp(name, "config.json") != 0 && strcmp(name, "adapter_config.json") != 0;
}

int checkpoint_read_files(checkpoint_files *f, const checkpoint_manifest *m, moai_error *err)
{
    return manifest_read_files(m, f, is_no_config, err);
}

void checkpoint_files_move(checkpoint_files *to, checkpoint_files *from)
{
    CHECK(to->list = realloc(to->list, (size_t)(to->n + from->n + 1) * sizeof *to->list), "out of host memory");
    for (int i = 0; i < from->n; i++) {
        if (checkpoint_files_find(to, from->list[i].name)) continue;
        to->list[to->n++] = from->list[i];
        from->list[i] = (struct checkpoint_file){0};
    }
    checkpoint_files_free(from);
}

/* One below a directory of its own brings that. */
static int write_one(const char *dir, const struct checkpoint_file *f, moai_error *err)
{
    char *path = xasprintf("%s/%s", dir, f->name), *slash = strrchr(f->name, '/');
    char *below = slash ? xasprintf("%s/%.*s", dir, (int)(slash - f->name), f->name) : NULL;
    int rc = below ? dir_make(below, err) : 0;

    if (rc == 0) rc = file_write(path, f->data, f->n_bytes, err);
    if (rc == 0 && below) rc = file_sync(below, err);
    free(below);
    free(path);
    return rc;
}

int checkpoint_files_write(const checkpoint_files *f, const char *dir, moai_error *err)
{
    int rc = 0;

    for (int i = 0; rc == 0 && i < f->n; i++) rc = write_one(dir, &f->list[i], err);
    return rc;
}

void checkpoint_files_free(checkpoint_files *f)
{
    for (int i = 0; i < f->n; i++) {
        free(f->list[i].name);
        free(f->list[i].data);
    }
    free(f->list);
    *f = (checkpoint_files){0};
}
