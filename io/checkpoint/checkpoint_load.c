/* checkpoint_load.c: any layout's checkpoint into this rank's layout.  See checkpoint.h */
#include "io/checkpoint/checkpoint_manifest.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int checkpoint_read_meta(const char *dir, checkpoint_meta *meta, moai_error *err)
{
    checkpoint_manifest m;

    int rc = manifest_load(&m, dir, err);
    if (rc != 0) return rc;
    rc = manifest_model(&m, &m.meta.model, err);
    if (rc == 0) {
        *meta = m.meta;
        m.meta.run_json = m.meta.state_json = m.meta.base = NULL; /* now the caller's */
    }
    manifest_unload(&m);
    return rc;
}

/* Shares of one parameter are neighbours; this finds them by name. */
typedef struct wanted {
    const share *first;
    int n;
} wanted;

typedef struct loading {
    const checkpoint_state *st;
    share *shares;
    wanted *by_name;
    int n_names;
    const wanted *of;                         /* of the piece being read */
} loading;

static int by_param_name(const void *a, const void *b)
{
    return strcmp(((const wanted *)a)->first->p->name, ((const wanted *)b)->first->p->name);
}

static void loading_init(loading *l, const checkpoint_state *st)
{
    int n;

    *l = (loading){.st = st, .shares = shares_of(st->params, st->grid->data.size, st->grid->data.rank, &n)};
    l->by_name = xmalloc((size_t)n * sizeof *l->by_name);
    for (int i = 0; i < n; i++) {
        if (i > 0 && l->shares[i - 1].p == l->shares[i].p)
            l->by_name[l->n_names - 1].n++;
        else
            l->by_name[l->n_names++] = (wanted){&l->shares[i], 1};
    }
    qsort(l->by_name, (size_t)l->n_names, sizeof *l->by_name, by_param_name);
}

static void loading_free(loading *l)
{
    free(l->shares);
    free(l->by_name);
}

static const wanted *find_wanted(const loading *l, const char *name)
{
    for (int low = 0, high = l->n_names; low < high;) {
        const int mid = low + (high - low) / 2, order = strcmp(name, l->by_name[mid].first->p->name);
        if (order == 0) return &l->by_name[mid];
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

static bool touches(const wanted *w, rect at)
{
    for (int i = 0; w && i < w->n; i++)
        if (rect_n_elem(rect_intersect(w->first[i].at, at)) > 0) return true;
    return false;
}

/* The part of a block that a share wants, row by row, or at once where both have the same columns. */
static void copy_block(const loading *l, int state, const share *s, rect block, const float *x)
{
    const rect both = rect_intersect(s->at, block);
    const int64_t in_share = (both.row0 - s->at.row0) * s->at.n_cols + both.col0 - s->at.col0;
    const int64_t in_block = (both.row0 - block.row0) * block.n_cols + both.col0 - block.col0;
    const bool at_once = both.n_cols == s->at.n_cols && both.n_cols == block.n_cols;
    const int64_t n_runs = at_once ? min_i64(both.n_rows, 1) : both.n_rows,
                  run = at_once ? rect_n_elem(both) : both.n_cols;
    const checkpoint_state *st = l->st;

    if (rect_n_elem(both) == 0) return;
    for (int64_t i = 0; i < n_runs; i++)
        state_write(&st->states, state, s->own + in_share + i * s->at.n_cols, run, x + in_block + i * block.n_cols,
                    st->ops, st->dev);
}

static bool wants(void *to, const piece *p, rect block)
{
    const loading *l = to;

    (void)p;
    return touches(l->of, block);
}

static void keep_wanted(void *to, const piece *p, rect block, const float *x)
{
    const loading *l = to;

    for (int i = 0; i < l->of->n; i++) copy_block(l, p->state, &l->of->first[i], block, x);
    l->st->ops->sync(l->st->dev);             /* x is used again */
}

static int load_file(loading *l, const char *dir, const piece_file *f, moai_error *err)
{
    int fd = -1, rc = 0;

    for (int i = 0; rc == 0 && i < f->n; i++) {
        l->of = find_wanted(l, f->list[i].name);
        if (!touches(l->of, f->list[i].at)) continue;
        if (fd < 0) fd = piece_file_open(dir, f, err);
        rc = fd < 0 ? fd : piece_scan(fd, dir, f, &f->list[i], wants, keep_wanted, l, err);
    }
    if (fd >= 0) close(fd);
    return rc;
}

/* The manifest's pieces tile its tensors, so the shapes decide that everything wanted is there. */
static int check_shapes(const checkpoint_manifest *m, const checkpoint_state *st, moai_error *err)
{
    const int n = st->states.n;

    for (int i = 0; i < st->params->n * n; i++) {
        const param *p = &st->params->list[i / n];
        const stored_tensor *s = manifest_find(m, i % n, p->name);
        if (!s) return error_set(err, "%s: %s of %s is not in it", m->dir, st->states.spec[i % n].name, p->name);
        if (s->rows != p->rows || s->cols != p->cols)
            return error_set(err, "%s: %s is %lld x %lld, the model has %lld x %lld", m->dir, p->name,
                             (long long)s->rows, (long long)s->cols, (long long)p->rows, (long long)p->cols);
    }
    return 0;
}

int checkpoint_load(const checkpoint_manifest *m, const checkpoint_state *st, moai_error *err)
{
    int rc = check_shapes(m, st, err);
    loading l;

    loading_init(&l, st);
    for (int state = 0; rc == 0 && state < st->states.n; state++)   /* the gaps between parameters are zero */
        state_zero(&st->states, state, st->ops, st->dev);
    for (int i = 0; rc == 0 && i < m->n_files; i++) rc = load_file(&l, m->dir, &m->files[i], err);
    loading_free(&l);
    return rc;
}
