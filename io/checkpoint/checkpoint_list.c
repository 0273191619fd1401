/* checkpoint_list.c: see checkpoint.h */
#include "io/checkpoint/checkpoint_manifest.h"
#include "src/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int64_t directory_bytes(const char *path)
{
    DIR *dir = opendir(path);
    int64_t n_bytes = 0;

    for (struct dirent *e; dir && (e = readdir(dir));) {
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode)) n_bytes += st.st_size;
    }
    if (dir) closedir(dir);
    return n_bytes;
}

/* Takes `dir`. */
static checkpoint_info describe(char *dir)
{
    checkpoint_info c = {.dir = dir, .n_bytes = directory_bytes(dir)};
    checkpoint_manifest m;
    moai_error err;

    c.complete = manifest_load(&m, dir, &err) == 0;
    if (!c.complete) {
        format_elided(c.fault, sizeof c.fault, "%s", err.text);
        return c;
    }
    c.step = m.meta.step;
    c.samples = m.meta.samples;
    c.layout = m.meta.layout;
    snprintf(c.saved_at, sizeof c.saved_at, "%.31s", m.saved_at);
    manifest_unload(&m);
    return c;
}

static int by_step(const void *a, const void *b)
{
    const checkpoint_info *x = a, *y = b;

    if (x->complete != y->complete) return x->complete ? -1 : 1;
    if (x->step != y->step) return x->step < y->step ? -1 : 1;
    return strcmp(x->dir, y->dir);
}

checkpoint_info *checkpoint_list(const char *output_dir, int *n, moai_error *err)
{
    char *own = xasprintf("%s/manifest.json", output_dir);
    const bool is_one = file_exists(own);
    DIR *dir = is_one ? NULL : opendir(output_dir);
    checkpoint_info *list = xmalloc(sizeof *list);
    int room = 1;

    *n = 0;
    free(own);
    if (!is_one && !dir) {
        error_set(err, "%s: %s", output_dir, strerror(errno));
        free(list);
        return NULL;
    }
    if (is_one) list[(*n)++] = describe(xstrdup(output_dir));
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strncmp(e->d_name, "checkpoint-", 11) != 0) continue;
        if (*n == room) CHECK(list = realloc(list, (size_t)(room *= 2) * sizeof *list), "out of host memory");
        list[(*n)++] = describe(xasprintf("%s/%s", output_dir, e->d_name));
    }
    if (dir) closedir(dir);
    qsort(list, (size_t)*n, sizeof *list, by_step);
    return list;
}

void checkpoint_list_free(checkpoint_info *list, int n)
{
    for (int i = 0; i < n; i++) free(list[i].dir);
    free(list);
}
