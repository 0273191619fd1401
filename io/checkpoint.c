/* checkpoint.c: saving, finding and removing checkpoints; see checkpoint.h
 *
 * A save is two steps that share nothing but the list of pieces: `snapshot` says what this rank writes and from which memory, and
 * write_rank_file writes it.  (A later asynchronous save copies the memory in between.)                               */
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

/* Directories */

char *save_path(const char *output_dir, int64_t step, const char *suffix)
{
    return xasprintf("%s/checkpoint-%lld%s", output_dir, (long long)step, suffix);
}

/* "checkpoint-120" and suffix ".tmp" or ".old" give the step, another name -1. */
static int64_t step_of(const char *name, const char *suffix)
{
    static const char prefix[] = "checkpoint-";
    char *end;

    if (strncmp(name, prefix, sizeof prefix - 1) != 0 || name[sizeof prefix - 1] < '0' || name[sizeof prefix - 1] > '9') return -1;
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
        if (*n == room) CHECK(steps = realloc(steps, (size_t)(room = 2 * room + 16) * sizeof *steps), "out of host memory");
        steps[(*n)++] = step;
    }
    if (dir) closedir(dir);
    if (*n) qsort(steps, (size_t)*n, sizeof *steps, by_step_down);
    return steps;
}

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

/* Left behind by a run that was killed: half-written directories, and a replaced checkpoint whose successor never got its name. */
static void remove_stale(const char *output_dir)
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

/* The one just written counts as the newest, also when a resumed run found higher steps. */
static void prune(const char *output_dir, int64_t written, int keep)
{
    int n, kept = 1;
    int64_t *steps = list_steps(output_dir, "", &n);

    for (int i = 0; i < n; i++)
        if (steps[i] != written && is_complete(output_dir, steps[i]) && ++kept > keep) remove_checkpoint(output_dir, steps[i]);
    free(steps);
}

/* The single-process frame of a save */

int save_begin(const char *output_dir, const checkpoint_meta *meta, const char *tokenizer_path, moai_error *err)
{
    char *tmp = save_path(output_dir, meta->step, ".tmp"), *config = xasprintf("%s/config.json", tmp);
    char *tokenizer = xasprintf("%s/tokenizer.model", tmp);
    int rc = dir_make(output_dir, err);

    if (rc == 0) remove_stale(output_dir);
    if (rc == 0) rc = dir_make(tmp, err);
    if (rc == 0) rc = model_config_write(&meta->model, config, "float32", err);
    if (rc == 0) rc = file_sync(config, err);
    if (rc == 0 && tokenizer_path && tokenizer_path[0]) rc = file_copy(tokenizer_path, tokenizer, err);
    free(tmp);
    free(config);
    free(tokenizer);
    return rc;
}

/* The new checkpoint is in place: what is left of the old one is no reason to fail. */
static int remove_replaced(const char *dir)
{
    moai_error err;

    if (dir_remove(dir, &err) != 0) warn("%s", err.text);
    return 0;
}

/* Swaps the names in one step where the file system can (renameat2, Linux), so that a checkpoint of this step exists at any time;
 * else by way of .old, which remove_stale knows.                                                                    */
static int replace(const char *tmp, const char *name, const char *old, moai_error *err)
{
    enum { EXCHANGE = 2 };                    /* RENAME_EXCHANGE of linux/fs.h */

    if (rename(tmp, name) == 0) return 0;
    if (errno != ENOTEMPTY && errno != EEXIST) return error_set(err, "%s: cannot be renamed: %s", tmp, strerror(errno));
    if (syscall(SYS_renameat2, AT_FDCWD, tmp, AT_FDCWD, name, EXCHANGE) == 0) return remove_replaced(tmp);
    if (rename(name, old) != 0) return error_set(err, "%s: cannot be replaced: %s", name, strerror(errno));
    if (rename(tmp, name) != 0) {
        error_set(err, "%s: cannot be renamed: %s", tmp, strerror(errno));
        if (rename(old, name) != 0) warn("%s: the checkpoint before it is now %s", name, old);
        return -1;
    }
    return remove_replaced(old);
}

int save_commit(const char *output_dir, int64_t step, moai_error *err)
{
    char *tmp = save_path(output_dir, step, ".tmp"), *name = save_path(output_dir, step, ""), *old = save_path(output_dir, step, ".old");
    int rc = file_sync(tmp, err);

    if (rc == 0) rc = replace(tmp, name, old, err);
    if (rc == 0) rc = dir_sync_parent(name, err);
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

/* This rank's part */

typedef struct snapshot {
    const float *own[N_STATES];               /* in memory that ops->copy reads */
    const moai_ops *ops;
    moai_device *dev;
    share *shares;                            /* what this rank writes, of each state */
    int n;
} snapshot;

/* Every element is written by one rank: replicas leave it to the first. */
static bool writes(const checkpoint_state *st, const param *p)
{
    const moai_grid *g = st->grid;

    if (g->at.cp != 0 || st->params->buckets[p->bucket].tied_copy) return false;
    if (p->sharing == PARAM_TP_REPLICATED) return g->at.tp == 0;
    return p->sharing != PARAM_KV || g->kv.rank == 0;
}

static snapshot snapshot_take(const checkpoint_state *st)
{
    snapshot s = {.ops = st->ops, .dev = st->dev};
    int n;

    for (int i = 0; i < N_STATES; i++) s.own[i] = st->own[i];
    s.shares = shares_of(st->params, st->grid->size.dp, st->grid->at.dp, &n);
    for (int i = 0; i < n; i++)
        if (writes(st, s.shares[i].p)) s.shares[s.n++] = s.shares[i];
    return s;
}

typedef struct piece_source {
    const snapshot *s;
    const float *x;
} piece_source;

static int fill_from_device(void *from, int64_t first, int64_t n, float *dst, moai_error *err)
{
    const piece_source *source = from;

    (void)err;
    source->s->ops->copy(source->s->dev, dst, source->x + first, (size_t)n * sizeof *dst, COPY_TO_HOST);
    source->s->ops->sync(source->s->dev);
    return 0;
}

static void list_pieces(const snapshot *s, piece_file *f)
{
    f->list = xmalloc((size_t)(s->n * N_STATES) * sizeof *f->list);
    for (int state = 0; state < N_STATES; state++)
        for (int i = 0; i < s->n; i++) {
            const param *p = s->shares[i].p;
            const bool more = i > 0 && s->shares[i - 1].p == p;
            f->list[f->n] = (piece){.state = state, .name = xstrdup(p->name), .index = more ? f->list[f->n - 1].index + 1 : 0,
                                    .rows = p->rows, .cols = p->cols, .at = s->shares[i].at};
            f->n++;
        }
}

/* Fills f; a rank without pieces writes no file and leaves f->n 0. */
static int write_rank_file(const char *dir, int rank, const snapshot *s, piece_file *f, moai_error *err)
{
    moai_error unused;
    int rc = 0;

    *f = (piece_file){.name = xasprintf("rank-%05d.h5", rank)};
    list_pieces(s, f);
    if (f->n == 0) return 0;
    char *path = xasprintf("%s/%s", dir, f->name);
    piece_writer *w = piece_file_create(path, err);
    for (int i = 0; w && rc == 0 && i < f->n; i++) {
        piece_source source = {s, s->own[f->list[i].state] + s->shares[i % s->n].own};
        rc = piece_write(w, &f->list[i], fill_from_device, &source, err);
    }
    if (!w)
        rc = -1;
    else if (rc == 0)
        rc = piece_file_close(w, f, err);
    else
        piece_file_close(w, NULL, &unused);
    free(path);
    return rc;
}

/* Entries of the manifest travel to rank 0, which writes it.  Collective over the world. */
static int write_manifest(const char *dir, const checkpoint_meta *meta, const comm *world, const piece_file *f, moai_error *err)
{
    char *own = f->n ? manifest_entry(f) : xstrdup("");
    uint64_t n_bytes = strlen(own) + 1;
    int rc = 0;

    if (world->rank != 0) {
        comm_request r = send_begin(world, &n_bytes, sizeof n_bytes, DT_U8, 0);
        comm_end(&r);
        r = send_begin(world, own, n_bytes, DT_U8, 0);
        comm_end(&r);
    } else {
        char **entries = xmalloc((size_t)world->size * sizeof *entries);
        int n = 0;
        if (f->n) entries[n++] = own;
        for (int from = 1; from < world->size; from++) {
            comm_request r = recv_begin(world, &n_bytes, sizeof n_bytes, DT_U8, from);
            comm_end(&r);
            char *entry = xmalloc(n_bytes);
            r = recv_begin(world, entry, n_bytes, DT_U8, from);
            comm_end(&r);
            if (entry[0])
                entries[n++] = entry;
            else
                free(entry);
        }
        rc = manifest_save(dir, meta, entries, n, err);
        for (int i = 0; i < n; i++)
            if (entries[i] != own) free(entries[i]);
        free(entries);
    }
    free(own);
    return rc;
}

int checkpoint_save(const char *output_dir, const checkpoint_meta *meta, const checkpoint_state *st, const char *tokenizer_path,
                    int keep, moai_error *err)
{
    const comm *world = &st->grid->host_world;
    const bool first = world->rank == 0;
    char *tmp = save_path(output_dir, meta->step, ".tmp");
    snapshot s = snapshot_take(st);
    piece_file f = {0};

    int rc = comm_agree(world, first && save_begin(output_dir, meta, tokenizer_path, err) != 0, err);
    if (rc == 0) rc = comm_agree(world, write_rank_file(tmp, st->grid->rank, &s, &f, err) != 0, err);
    if (rc == 0) rc = comm_agree(world, write_manifest(tmp, meta, world, &f, err) != 0, err);
    if (rc == 0) rc = comm_agree(world, first && save_commit(output_dir, meta->step, err) != 0, err);
    if (rc != 0 && first) save_abandon(output_dir, meta->step);
    if (rc == 0 && first && keep > 0) prune(output_dir, meta->step, keep);
    piece_file_free(&f);
    free(s.shares);
    free(tmp);
    return rc;
}
