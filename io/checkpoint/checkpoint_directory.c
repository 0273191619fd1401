/* checkpoint_directory.c: the directories of checkpoints: named, found, begun, put in place,
 * removed; see checkpoint.h and checkpoint_directory.h
 *
 * The order of fsync and rename.  A file system may write a rename before the data of what is renamed, so everything is
 * on the disk before the name is given: the files are fsynced as they are closed (piece_write.c), then the directory
 * checkpoint-STEP.tmp, which holds their names, then it is renamed, then output_dir is fsynced, which holds the new
 * name.  A crash before the rename leaves a .tmp, which the next save removes; after it, the old name or the new, each
 * of them whole.  Where a checkpoint of that step exists the two exchange names in one call, or, where the file system
 * cannot, the old one becomes .old first: at each instant one of the two is complete, and settle_old finds which.  The
 * .old goes last, when the new one has been read back.  What is removed is renamed to .tmp before its first file goes:
 * half a checkpoint never has a checkpoint's name. */
#include "io/checkpoint/checkpoint_directory.h"
#include "src/base/files.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *save_path(const char *output_dir, int64_t step, const char *suffix)
{
    return xasprintf("%s/checkpoint-%lld%s", output_dir, (long long)step, suffix);
}

int64_t checkpoint_step_of(const char *name, const char *suffix)
{
    static const char prefix[] = "checkpoint-";
    char *end;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || name[sizeof prefix - 1] < '0' || name[sizeof prefix - 1] > '9')
        return -1;
    errno = 0;
    const long long step = strtoll(name + sizeof prefix - 1, &end, 10);
    return errno == 0 && strcmp(end, suffix) == 0 ? step : -1;
}

static bool is_complete(const char *output_dir, int64_t step)
{
    char *manifest = save_path(output_dir, step, "/manifest.json");
    const bool there = file_exists(manifest);

    free(manifest);
    return there;
}

static int by_step_down(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x < y) - (x > y);
}

typedef struct step_list {
    int64_t *steps;                           /* newest first */
    int n;
} step_list;

/* Of the directories with this suffix; the caller frees l->steps, also after a failure.  No output_dir has none. */
static int list_steps(const char *output_dir, const char *suffix, step_list *l, moai_error *err)
{
    DIR *dir = opendir(output_dir);
    int room = 0;

    *l = (step_list){0};
    if (!dir) return errno == ENOENT ? 0 : error_set(err, "%s: cannot be read: %s", output_dir, strerror(errno));
    for (struct dirent *e; errno = 0, (e = readdir(dir));) {
        const int64_t step = checkpoint_step_of(e->d_name, suffix);
        if (step < 0) continue;
        if (l->n == room)
            CHECK(l->steps = realloc(l->steps, (size_t)(room = 2 * room + 16) * sizeof step), "out of host memory");
        l->steps[l->n++] = step;
    }
    const int failed = errno;
    closedir(dir);
    if (l->n) qsort(l->steps, (size_t)l->n, sizeof *l->steps, by_step_down);
    return failed ? error_set(err, "%s: cannot be read: %s", output_dir, strerror(failed)) : 0;
}

char *checkpoint_latest(const char *output_dir)
{
    char *newest = NULL;
    moai_error err;
    step_list l;

    if (list_steps(output_dir, "", &l, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < l.n && !newest; i++)
        if (is_complete(output_dir, l.steps[i])) newest = save_path(output_dir, l.steps[i], "");
    free(l.steps);
    return newest;
}

int checkpoint_later(const char *output_dir, int64_t step, char **names, moai_error *err)
{
    step_list l;
    const int rc = list_steps(output_dir, "", &l, err);

    *names = NULL;
    for (int i = 0; rc == 0 && i < l.n && l.steps[i] > step; i++) {
        char *before = *names;
        if (!is_complete(output_dir, l.steps[i])) continue;
        *names = xasprintf("%s%scheckpoint-%lld", before ? before : "", before ? ", " : "", (long long)l.steps[i]);
        free(before);
    }
    free(l.steps);
    return rc;
}

int checkpoint_find(const char *output_dir, checkpoint_names *names, moai_error *err)
{
    step_list new, old = {0};
    int rc = list_steps(output_dir, "", &new, err);

    if (rc == 0) rc = list_steps(output_dir, ".old", &old, err);
    *names = (checkpoint_names){.list = xmalloc((size_t)(new.n + old.n) * sizeof *names->list)};
    for (int i = 0, k = 0; rc == 0 && i + k < new.n + old.n; names->n++) {
        const bool is_old = i == new.n || (k < old.n && old.steps[k] > new.steps[i]);
        names->list[names->n] = xasprintf("checkpoint-%lld%s", (long long)(is_old ? old.steps[k] : new.steps[i]),
                                          is_old ? ".old" : "");
        if (is_old)
            k++;
        else
            i++;
    }
    free(new.steps);
    free(old.steps);
    if (rc != 0) checkpoint_names_free(names);
    return rc;
}

void checkpoint_names_free(checkpoint_names *names)
{
    for (int i = 0; i < names->n; i++) free(names->list[i]);
    free(names->list);
    *names = (checkpoint_names){0};
}

/* checkpoint-STEP.damaged, or .damaged-2 and so on where that is taken. */
static int set_aside(const char *output_dir, const char *name, moai_error *err)
{
    char *from = xasprintf("%s/%s", output_dir, name);
    int rc = -1;

    for (int i = 1; rc != 0 && i < 100; i++) {
        char *to = i == 1 ? xasprintf("%s.damaged", from) : xasprintf("%s.damaged-%d", from, i);
        rc = rename(from, to);
        free(to);
        if (rc != 0 && errno != EEXIST && errno != ENOTEMPTY) break;
    }
    if (rc != 0) error_set(err, "%s: damaged, and cannot be renamed: %s", from, strerror(errno));
    free(from);
    return rc;
}

int checkpoint_choose(const char *output_dir, const checkpoint_names *names, int chosen, moai_error *err)
{
    const int64_t old_step = checkpoint_step_of(names->list[chosen], ".old");
    int rc = 0;

    for (int i = 0; rc == 0 && i < chosen; i++) rc = set_aside(output_dir, names->list[i], err);
    if (rc != 0 || old_step < 0) return rc;
    char *old = save_path(output_dir, old_step, ".old"), *name = save_path(output_dir, old_step, "");
    rc = rename(old, name);
    if (rc != 0) error_set(err, "%s: cannot be renamed: %s", old, strerror(errno));
    free(old);
    free(name);
    return rc;
}

void checkpoint_clean(const char *output_dir)
{
    moai_error err;
    step_list l;

    if (list_steps(output_dir, ".tmp", &l, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < l.n; i++) {
        char *tmp = save_path(output_dir, l.steps[i], ".tmp");
        if (dir_remove(tmp, &err) != 0) warn("%s", err.text);
        free(tmp);
    }
    free(l.steps);
}

static char *found_other;                     /* nftw hands nothing on; one thread at a time removes checkpoints */

static int look_for_other(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    static const char *const below[] = {"manifest.json", "rank-00000.h5", "model.safetensors",
                                        "model.safetensors.index.json"};
    const char *name = path + where->base;
    bool found = strcmp(name, "metrics.jsonl") == 0;

    (void)st;
    for (size_t i = 0; where->level > 1 && i < sizeof below / sizeof *below; i++)
        found = found || strcmp(name, below[i]) == 0;
    if (kind != FTW_F || !found) return 0;
    found_other = xstrdup(path);
    return 1;
}

/* A file in a checkpoint's directory, at any depth, that another run, checkpoint, model or set of shards consists of,
 * and that would go with it; caller frees.  NULL: none; what else is there (notes, scores) goes as in Transformers. */
static char *other_in(const char *checkpoint)
{
    found_other = NULL;
    nftw(checkpoint, look_for_other, 16, FTW_PHYS);
    return found_other;
}

/* Whether nothing but the checkpoint's own, and what a user would lose with it in Transformers, lies there; else says
 * what keeps it. */
static bool may_go(const char *dir)
{
    char *other = other_in(dir);

    if (other) warn("%s stays: %s in it is no part of a checkpoint; move that elsewhere", dir, other);
    free(other);
    return !other;
}

/* A checkpoint that was just being replaced when its run was killed. */
static void settle_old(const char *output_dir)
{
    moai_error err;
    step_list l;

    if (list_steps(output_dir, ".old", &l, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < l.n; i++) {
        char *old = save_path(output_dir, l.steps[i], ".old"), *name = save_path(output_dir, l.steps[i], "");
        const bool replaced = is_complete(output_dir, l.steps[i]);
        if (replaced ? may_go(old) && dir_remove(old, &err) != 0 : rename(old, name) != 0)
            warn("%s: cannot be cleaned up", old);
        free(old);
        free(name);
    }
    free(l.steps);
}

/* Renamed first: what is half removed is no checkpoint. */
static void remove_checkpoint(const char *output_dir, int64_t step)
{
    char *name = save_path(output_dir, step, ""), *tmp = save_path(output_dir, step, ".tmp");
    moai_error err;

    if (!may_go(name)) {
        free(name);
        free(tmp);
        return;
    }
    if (rename(name, tmp) != 0)
        warn("%s: cannot be removed: %s", name, strerror(errno));
    else if (dir_remove(tmp, &err) != 0)
        warn("%s", err.text);
    free(name);
    free(tmp);
}

int save_begin(const char *output_dir, int64_t step, moai_error *err)
{
    char *tmp = save_path(output_dir, step, ".tmp");
    int rc = dir_make(output_dir, err);

    if (rc == 0) settle_old(output_dir);
    if (rc == 0) checkpoint_clean(output_dir);
    if (rc == 0) rc = dir_make(tmp, err);
    free(tmp);
    return rc;
}

int save_describe(const char *output_dir, const checkpoint_meta *meta, const checkpoint_files *files, moai_error *err)
{
    char *tmp = save_path(output_dir, meta->step, ".tmp"), *config = xasprintf("%s/config.json", tmp),
         *adapters = xasprintf("%s/adapter_config.json", tmp);
    int rc = model_config_write(&meta->model, config, "float32", err);

    if (rc == 0 && meta->model.lora.rank)
        rc = adapter_config_write(&meta->model.lora, meta->base ? meta->base : "", adapters, err);
    if (rc == 0 && files) rc = checkpoint_files_write(files, tmp, err);
    free(config);
    free(adapters);
    free(tmp);
    return rc;
}

void save_withdraw(const char *output_dir, int64_t step)
{
    char *name = save_path(output_dir, step, ""), *old = save_path(output_dir, step, ".old");

    remove_checkpoint(output_dir, step);
    if (file_exists(old) && rename(old, name) != 0) warn("%s: the checkpoint before it is now %s", name, old);
    free(name);
    free(old);
}

int save_commit(const char *output_dir, int64_t step, moai_error *err)
{
    char *tmp = save_path(output_dir, step, ".tmp"), *name = save_path(output_dir, step, ""),
         *old = save_path(output_dir, step, ".old");
    int rc = file_sync(tmp, err);

    if (rc == 0 && !may_go(old)) rc = error_set(err, "%s is in the way of the checkpoint that it was", old);
    if (rc == 0) rc = dir_replace(tmp, name, old, err);
    if (rc == 0 && dir_sync_parent(name, err) != 0) {
        save_withdraw(output_dir, step);
        rc = -1;
    }
    free(tmp);
    free(name);
    free(old);
    return rc;
}

void save_abandon(const char *output_dir, int64_t step)
{
    char *tmp = save_path(output_dir, step, ".tmp");
    moai_error err;

    if (dir_remove(tmp, &err) != 0) warn("%s", err.text);
    free(tmp);
}

/* The one just written counts as the newest, also when others have higher steps. */
void save_prune(const char *output_dir, int64_t written, int keep)
{
    char *old = save_path(output_dir, written, ".old");
    moai_error err;
    step_list l;
    int kept = 1;

    if (may_go(old) && dir_remove(old, &err) != 0) warn("%s", err.text);
    if (list_steps(output_dir, "", &l, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < l.n && keep > 0; i++)
        if (l.steps[i] != written && is_complete(output_dir, l.steps[i]) && ++kept > keep)
            remove_checkpoint(output_dir, l.steps[i]);
    free(l.steps);
    free(old);
}
