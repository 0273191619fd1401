/* checkpoint_directory.c: the directories of checkpoints: named, found, begun, put in place,
 * removed; see checkpoint.h and pieces.h */
#include "pieces.h"
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

char *save_path(const char *output_dir, int64_t step, const char *suffix)
{
    return xasprintf("%s/checkpoint-%lld%s", output_dir, (long long)step, suffix);
}

/* "checkpoint-120" and suffix ".tmp" or ".old" give the step, another name -1. */
static int64_t step_of(const char *name, const char *suffix)
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

/* Steps of the directories with this suffix, newest first; caller frees.  An unreadable directory has none. */
static int64_t *list_steps(const char *output_dir, const char *suffix, int *n)
{
    DIR *dir = opendir(output_dir);
    int64_t *steps = NULL;
    int room = 0;

    *n = 0;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        const int64_t step = step_of(e->d_name, suffix);
        if (step < 0) continue;
        if (*n == room)
            CHECK(steps = realloc(steps, (size_t)(room = 2 * room + 16) * sizeof *steps), "out of host memory");
        steps[(*n)++] = step;
    }
    if (dir) closedir(dir);
    if (*n) qsort(steps, (size_t)*n, sizeof *steps, by_step_down);
    return steps;
}

int64_t *checkpoint_steps(const char *output_dir, int *n) { return list_steps(output_dir, "", n); }

char *checkpoint_latest(const char *output_dir)
{
    int n;
    int64_t *steps = list_steps(output_dir, "", &n);
    char *newest = NULL;

    for (int i = 0; i < n && !newest; i++)
        if (is_complete(output_dir, steps[i])) newest = save_path(output_dir, steps[i], "");
    free(steps);
    return newest;
}

void checkpoint_clean(const char *output_dir)
{
    moai_error err;
    int n;

    int64_t *steps = list_steps(output_dir, ".old", &n);
    for (int i = 0; i < n; i++) {
        char *old = save_path(output_dir, steps[i], ".old"), *name = save_path(output_dir, steps[i], "");
        if (is_complete(output_dir, steps[i]) ? dir_remove(old, &err) != 0 : rename(old, name) != 0)
            warn("%s: cannot be cleaned up", old);
        free(old);
        free(name);
    }
    free(steps);
    steps = list_steps(output_dir, ".tmp", &n);
    for (int i = 0; i < n; i++) {
        char *tmp = save_path(output_dir, steps[i], ".tmp");
        if (dir_remove(tmp, &err) != 0) warn("%s", err.text);
        free(tmp);
    }
    free(steps);
}

/* Renamed first: what is half removed is no checkpoint. */
static void remove_checkpoint(const char *output_dir, int64_t step)
{
    char *name = save_path(output_dir, step, ""), *tmp = save_path(output_dir, step, ".tmp");
    moai_error err;

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

    if (rc == 0) checkpoint_clean(output_dir);
    if (rc == 0) rc = dir_make(tmp, err);
    free(tmp);
    return rc;
}

int save_describe(const char *output_dir, const checkpoint_meta *meta, const char *tokenizer_path, moai_error *err)
{
    char *config = save_path(output_dir, meta->step, ".tmp/config.json");
    char *tokenizer = save_path(output_dir, meta->step, ".tmp/tokenizer.model");
    int rc = model_config_write(&meta->model, config, "float32", err);

    if (rc == 0 && tokenizer_path && tokenizer_path[0]) rc = file_copy(tokenizer_path, tokenizer, err);
    free(config);
    free(tokenizer);
    return rc;
}

/* Gives the new checkpoint its name; one that had it is then called `old`.  The names are swapped in one step where the
 * file system can (renameat2, Linux), so that a checkpoint of this step exists at any time. */
static int replace(const char *tmp, const char *name, const char *old, moai_error *err)
{
    enum { EXCHANGE = 2 };                    /* RENAME_EXCHANGE of linux/fs.h */

    if (rename(tmp, name) == 0) return 0;
    if (errno != ENOTEMPTY && errno != EEXIST) return error_set(err, "%s: cannot be renamed: %s", tmp, strerror(errno));
    if (dir_remove(old, err) != 0) return -1;
    if (syscall(SYS_renameat2, AT_FDCWD, tmp, AT_FDCWD, name, EXCHANGE) == 0) {
        if (rename(tmp, old) != 0) warn("%s: the checkpoint that was replaced keeps this name", tmp);
        return 0;
    }
    if (rename(name, old) != 0) return error_set(err, "%s: cannot be replaced: %s", name, strerror(errno));
    if (rename(tmp, name) == 0) return 0;
    error_set(err, "%s: cannot be renamed: %s", tmp, strerror(errno));
    if (rename(old, name) != 0) warn("%s: the checkpoint before it is now %s", name, old);
    return -1;
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

    if (rc == 0) rc = replace(tmp, name, old, err);
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

static bool is_among(const int64_t *steps, int n, int64_t step)
{
    for (int i = 0; i < n; i++)
        if (steps[i] == step) return true;
    return false;
}

/* The one just written counts as the newest, also when a resumed run found higher steps. */
void save_prune(const char *output_dir, int64_t written, int keep, const int64_t *damaged, int n_damaged)
{
    char *old = save_path(output_dir, written, ".old");
    int n, kept = 1;
    int64_t *steps = list_steps(output_dir, "", &n);
    moai_error err;

    if (dir_remove(old, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < n && keep > 0; i++) {
        if (steps[i] == written || !is_complete(output_dir, steps[i])) continue;
        if (is_among(damaged, n_damaged, steps[i]) || ++kept > keep) remove_checkpoint(output_dir, steps[i]);
    }
    free(steps);
    free(old);
}
