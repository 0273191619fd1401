/* checkpoint_save.c: see checkpoint.h
 *
 * A save is two steps that share nothing but the list of pieces: snapshot_take says what this rank writes and from
 * which memory, and write_rank_file writes it.  (A later asynchronous save copies the memory in between.) */
#include "pieces.h"

#include <stdlib.h>
#include <string.h>

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
            f->list[f->n] = (piece){.state = state, .name = xstrdup(p->name),
                                    .index = more ? f->list[f->n - 1].index + 1 : 0, .rows = p->rows, .cols = p->cols,
                                    .at = s->shares[i].at};
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
static int write_manifest(const char *dir, const checkpoint_meta *meta, const comm *world, const piece_file *f,
                          moai_error *err)
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

int checkpoint_save(const char *output_dir, const checkpoint_meta *meta, const checkpoint_state *st,
                    const char *tokenizer_path, int keep, moai_error *err)
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
    if (rc == 0 && first && keep > 0) save_prune(output_dir, meta->step, keep);
    piece_file_free(&f);
    free(s.shares);
    free(tmp);
    return rc;
}
