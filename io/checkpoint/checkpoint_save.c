/* checkpoint_save.c: see checkpoint.h */
#include "io/checkpoint/checkpoint_directory.h"
#include "io/checkpoint/checkpoint_manifest.h"
#include "src/base/files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct checkpoint_saving {
    char *output_dir, *tmp;                   /* tmp: where it is written */
    const checkpoint_files *files;
    checkpoint_meta meta;
    checkpoint_state st;
    share *shares;                            /* what this rank writes, of each state */
    int n_shares;
    piece_file file;                          /* no pieces: this rank writes none */
    int fd;                                   /* the file as written, whatever the directory is called by now; or -1 */
    char *entries;                            /* the file's part of the manifest; once gathered, all files' on rank 0 */
    size_t entries_bytes;
    bool named;                               /* the directory has its final name */
};

/* Every element is written by one rank: replicas leave it to the first. */
static bool writes(const checkpoint_state *st, const param *p)
{
    const moai_grid *g = st->grid;

    if (st->params->buckets[p->bucket].tied_copy) return false;
    if (p->sharing == PARAM_TP_REPLICATED) return g->at.tp == 0;
    return p->sharing != PARAM_KV || g->kv.rank == 0;
}

static void list_shares(checkpoint_saving *s)
{
    int n;

    s->shares = shares_of(s->st.params, s->st.grid->data.size, s->st.grid->data.rank, &n);
    for (int i = 0; i < n; i++)
        if (writes(&s->st, s->shares[i].p)) s->shares[s->n_shares++] = s->shares[i];
}

static void list_pieces(checkpoint_saving *s)
{
    piece_file *f = &s->file;

    *f = (piece_file){.name = xasprintf("rank-%05d.h5", s->st.grid->rank),
                      .list = xmalloc((size_t)(s->n_shares * s->st.states.n) * sizeof *f->list)};
    for (int state = 0; state < s->st.states.n; state++)
        for (int i = 0; i < s->n_shares; i++) {
            const param *p = s->shares[i].p;
            const bool more = i > 0 && s->shares[i - 1].p == p;
            f->list[f->n] = (piece){.state = state, .name = xstrdup(p->name),
                                    .index = more ? f->list[f->n - 1].index + 1 : 0, .rows = p->rows, .cols = p->cols,
                                    .at = s->shares[i].at};
            f->n++;
        }
}

checkpoint_saving *checkpoint_begin(const char *output_dir, const checkpoint_meta *meta, const checkpoint_state *st,
                                    const checkpoint_files *files, moai_error *err)
{
    const bool failed = st->grid->rank == 0 && save_begin(output_dir, meta->step, err) != 0;

    if (comm_agree(&st->grid->host_world, failed, err) != 0) {
        if (st->grid->rank == 0) save_abandon(output_dir, meta->step);
        return NULL;
    }
    checkpoint_saving *s = xmalloc(sizeof *s);
    *s = (checkpoint_saving){.output_dir = xstrdup(output_dir), .tmp = save_path(output_dir, meta->step, ".tmp"),
                             .files = files, .st = *st, .fd = -1, .meta = checkpoint_meta_copy(meta)};
    list_shares(s);
    list_pieces(s);
    return s;
}

typedef struct piece_source {
    const checkpoint_state *st;
    int state;
    int64_t own;                              /* of the piece's first element */
} piece_source;

static int fill(void *from, int64_t first, int64_t n, float *dst, moai_error *err)
{
    const piece_source *source = from;
    const checkpoint_state *st = source->st;

    (void)err;
    state_read(&st->states, source->state, source->own + first, n, dst, st->ops, st->dev);
    if (st->ops) st->ops->sync(st->dev);
    return 0;
}

static int write_rank_file(checkpoint_saving *s, moai_error *err)
{
    piece_file *f = &s->file;
    moai_error unused;
    int rc = 0;

    if (f->n == 0) return 0;
    char *path = xasprintf("%s/%s", s->tmp, f->name);
    piece_writer *w = piece_file_create(path, err);
    for (int i = 0; w && rc == 0 && i < f->n; i++) {
        piece_source source = {&s->st, f->list[i].state, s->shares[i % s->n_shares].own};
        rc = piece_write(w, &f->list[i], fill, &source, err);
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

int checkpoint_write(checkpoint_saving *s, moai_error *err)
{
    if (s->st.grid->rank == 0 && save_describe(s->output_dir, &s->meta, s->files, err) != 0) return -1;
    const int rc = write_rank_file(s, err);
    if (rc != 0) return rc;
    if (s->file.n == 0) return 0;
    s->entries = manifest_entry(&s->file);
    s->entries_bytes = strlen(s->entries) + 1;
    s->fd = piece_file_open(s->tmp, &s->file, err);
    return s->fd < 0 ? -1 : 0;
}

void checkpoint_gather(checkpoint_saving *s)
{
    char *all = comm_gather_bytes(&s->st.grid->host_world, s->entries, s->entries_bytes, &s->entries_bytes);

    free(s->entries);
    s->entries = all;
}

/* Where blocks have hashes, these are enough. */
static bool every_block(void *to, const piece *p, rect block) { return (void)to, (void)p, (void)block, true; }

/* This rank's file as the disk gives it back. */
static int read_back(const checkpoint_saving *s, moai_error *err)
{
    if (s->fd < 0) return 0;
    for (int i = 0; i < s->file.n; i++)
        if (piece_scan(s->fd, s->tmp, &s->file, &s->file.list[i], every_block, NULL, NULL, err) != 0) return -1;
    return piece_file_check_structure(s->fd, s->tmp, &s->file, err);
}

/* What rank 0 wrote beside its pieces. */
static int read_back_manifest(const checkpoint_saving *s, moai_error *err)
{
    char *dir = save_path(s->output_dir, s->meta.step, "");
    checkpoint_manifest m;
    int rc = manifest_load(&m, dir, err);

    for (int i = 0; rc == 0 && i < m.n_small; i++) rc = manifest_check_small(&m, &m.small[i], err);
    if (rc == 0) manifest_unload(&m);
    free(dir);
    return rc;
}

int checkpoint_commit(checkpoint_saving *s, moai_error *err)
{
    if (s->st.grid->rank == 0) {
        if (manifest_save(s->tmp, &s->meta, s->entries, s->entries_bytes, err) != 0) return -1;
        if (save_commit(s->output_dir, s->meta.step, err) != 0) return -1;
        s->named = true;
        if (read_back_manifest(s, err) != 0) return -1;
    }
    return read_back(s, err);
}

void checkpoint_prune(const checkpoint_saving *s, int keep)
{
    if (s->st.grid->rank == 0) save_prune(s->output_dir, s->meta.step, keep);
}

void checkpoint_end(checkpoint_saving *s, bool failed)
{
    if (s->fd >= 0) close(s->fd);
    if (failed && s->named) save_withdraw(s->output_dir, s->meta.step);
    if (failed && !s->named && s->st.grid->rank == 0) save_abandon(s->output_dir, s->meta.step);
    free(s->entries);
    piece_file_free(&s->file);
    free(s->shares);
    checkpoint_meta_free(&s->meta);
    free(s->output_dir);
    free(s->tmp);
    free(s);
}

int checkpoint_save(const char *output_dir, const checkpoint_meta *meta, const checkpoint_state *st,
                    const checkpoint_files *files, int keep, moai_error *err)
{
    const comm *world = &st->grid->host_world;
    checkpoint_saving *s = checkpoint_begin(output_dir, meta, st, files, err);

    if (!s) return -1;
    int rc = comm_agree(world, checkpoint_write(s, err) != 0, err);
    if (rc == 0) checkpoint_gather(s);
    if (rc == 0) rc = comm_agree(world, checkpoint_commit(s, err) != 0, err);
    if (rc == 0) checkpoint_prune(s, keep);
    checkpoint_end(s, rc != 0);
    return rc;
}
