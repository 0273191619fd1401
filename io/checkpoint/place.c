/* place.c: see place.h */
#include "io/checkpoint/place.h"
#include "io/checkpoint/checkpoint_directory.h"
#include "src/base/files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 64 };

static bool has(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name);
    const bool there = file_exists(path);

    free(path);
    return there;
}

/* -- what a directory is -- */

/* Its format is the first thing that a manifest says. */
static bool has_manifest(const char *dir)
{
    char *path = xasprintf("%s/manifest.json", dir), head[HEAD + 1] = "";
    FILE *f = fopen(path, "r");

    if (f) {
        head[fread(head, 1, HEAD, f)] = '\0';
        fclose(f);
    }
    free(path);
    return strstr(head, "\"moai-checkpoint\"") != NULL;
}

bool place_is_checkpoint(const char *dir) { return has_manifest(dir) || has(dir, "rank-00000.h5"); }

/* It holds checkpoints, or metrics.jsonl. */
static bool is_run(const char *dir)
{
    char *newest = checkpoint_latest(dir);
    const bool is = newest || has(dir, "metrics.jsonl");

    free(newest);
    return is;
}

bool place_is_model(const char *dir)
{
    static const char *const weights[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                          "pytorch_model.bin.index.json"};

    if (place_is_checkpoint(dir) || !has(dir, "config.json")) return false;
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++)
        if (has(dir, weights[i])) return true;
    return false;
}

/* -- what a path leads into -- */

/* Without links, as far as it is there; absolute. */
static char *real_path(const char *path)
{
    char *real = realpath(path, NULL), *copy = xstrdup(path);
    size_t n = strlen(copy);

    while (n > 1 && copy[n - 1] == '/') copy[--n] = '\0';
    if (!real) {
        char *slash = strrchr(copy, '/');
        if (slash) *slash = '\0';
        char *parent = slash == copy ? xstrdup("") : slash ? real_path(copy) : realpath(".", NULL);
        real = xasprintf("%s/%s", parent ? parent : "", slash ? slash + 1 : copy);
        free(parent);
    }
    free(copy);
    return real;
}

static bool is_checkpoint_place(const char *dir)
{
    static const char *const suffixes[] = {"", ".tmp", ".old"};
    const char *slash = strrchr(dir, '/');
    bool named = false;

    if (place_is_checkpoint(dir)) return true;
    for (int i = 0; i < 3; i++) named = named || (slash && checkpoint_step_of(slash + 1, suffixes[i]) >= 0);
    if (!named) return false;
    char *parent = xasprintf("%.*s", (int)(slash - dir), dir);
    const bool in_run = is_run(parent);
    free(parent);
    return in_run;
}

/* The checkpoint that `path` is (*itself) or lies in, there or not: also one by its name alone, checkpoint-STEP in a
 * run's directory, where a save will put one.  Its real path, caller frees; NULL: none. */
static char *checkpoint_around(const char *path, bool *itself)
{
    char *dir = real_path(path);

    for (*itself = true; *dir; *itself = false) {
        if (is_checkpoint_place(dir)) return dir;
        *strrchr(dir, '/') = '\0';
    }
    free(dir);
    return NULL;
}

int place_check(const char *key, const char *path, moai_error *err)
{
    bool itself;
    char *checkpoint = checkpoint_around(path, &itself);
    int rc = 0;

    if (checkpoint && itself)
        rc = error_config(err, "%s %s is a checkpoint, or where its run saves one: name another directory", key, path);
    else if (checkpoint)
        rc = error_config(err,
                          "%s %s lies in the checkpoint %s, which its run may remove with all in it: name another "
                          "directory", key, path, checkpoint);
    free(checkpoint);
    return rc;
}
