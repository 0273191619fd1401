/* checkpoint_tensors.c: the tensors that a manifest's pieces make up; see checkpoint_manifest.h */
#include "io/checkpoint/checkpoint_manifest.h"

#include <stdlib.h>
#include <string.h>

static int by_tensor(const void *a, const void *b)
{
    const piece *x = ((const struct piece_ref *)a)->p, *y = ((const struct piece_ref *)b)->p;
    const int name = x->state != y->state ? x->state - y->state : strcmp(x->name, y->name);

    if (name != 0) return name;
    if (x->at.row0 != y->at.row0) return x->at.row0 < y->at.row0 ? -1 : 1;
    return (x->at.col0 > y->at.col0) - (x->at.col0 < y->at.col0);
}

/* Sorted by first row, a piece can only meet those that begin before its last row. */
static int check_tiling(const stored_tensor *t, const char *path, moai_error *err)
{
    const char *state = adamw_states.list[t->state].name;
    int64_t n_elem = 0;

    for (int i = 0; i < t->n; i++) {
        const piece *p = t->refs[i].p;
        if (p->rows != t->rows || p->cols != t->cols)
            return error_set(err, "%s: %s of %s: pieces disagree about its shape", path, state, t->name);
        for (int j = i + 1; j < t->n && t->refs[j].p->at.row0 < p->at.row0 + p->at.n_rows; j++)
            if (rect_n_elem(rect_intersect(p->at, t->refs[j].p->at)) > 0)
                return error_set(err, "%s: %s of %s: two pieces overlap", path, state, t->name);
        n_elem += rect_n_elem(p->at);
    }
    if (n_elem != t->rows * t->cols)
        return error_set(err, "%s: %s of %s: %lld of %lld elements are in no piece", path, state, t->name,
                         (long long)(t->rows * t->cols - n_elem), (long long)(t->rows * t->cols));
    return 0;
}

int manifest_index(checkpoint_manifest *m, const char *path, moai_error *err)
{
    int n = 0, rc = 0;

    for (int f = 0; f < m->n_files; f++) n += m->files[f].n;
    m->refs = xmalloc((size_t)n * sizeof *m->refs);
    m->tensors = xmalloc((size_t)n * sizeof *m->tensors);
    n = 0;
    for (int f = 0; f < m->n_files; f++)
        for (int i = 0; i < m->files[f].n; i++) m->refs[n++] = (struct piece_ref){f, &m->files[f].list[i]};
    qsort(m->refs, (size_t)n, sizeof *m->refs, by_tensor);

    for (int i = 0; i < n; i++) {
        const piece *p = m->refs[i].p;
        stored_tensor *last = m->n_tensors ? &m->tensors[m->n_tensors - 1] : NULL;
        if (!last || last->state != p->state || strcmp(last->name, p->name) != 0)
            *(last = &m->tensors[m->n_tensors++]) =
                (stored_tensor){p->state, p->name, p->rows, p->cols, &m->refs[i], 0};
        last->n++;
    }
    for (int i = 0; rc == 0 && i < m->n_tensors; i++) rc = check_tiling(&m->tensors[i], path, err);
    return rc;
}

const stored_tensor *manifest_find(const checkpoint_manifest *m, int state, const char *name)
{
    for (int low = 0, high = m->n_tensors; low < high;) {
        const int mid = low + (high - low) / 2;
        const stored_tensor *t = &m->tensors[mid];
        const int order = t->state != state ? state - t->state : strcmp(name, t->name);
        if (order == 0) return t;
        if (order < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

/* What config.json asks of one state of one parameter against what is stored; NULL when they agree, else the fault. */
static char *compare_shape(const checkpoint_manifest *m, const param *p, int state)
{
    const stored_tensor *s = manifest_find(m, state, p->name);

    if (!s)
        return xasprintf("%s/manifest.json: %s of %s is in no piece", m->dir, adamw_states.list[state].name, p->name);
    if (s->rows == p->rows && s->cols == p->cols) return NULL;
    return xasprintf("%s/manifest.json: %s of %s is %lld x %lld, config.json wants %lld x %lld", m->dir,
                     adamw_states.list[state].name, p->name, (long long)s->rows, (long long)s->cols, (long long)p->rows,
                     (long long)p->cols);
}

int64_t manifest_check_names(const checkpoint_manifest *m, const model_config *model,
                             void (*report)(void *, const char *), void *arg)
{
    const int n = adamw_states.n;
    param_table t;
    int64_t n_faults = 0;

    params_whole(&t, model);
    for (int i = 0; i < t.n * n + m->n_tensors; i++) {
        const stored_tensor *s = i < m->n_tensors ? &m->tensors[i] : NULL;
        char *fault = NULL;
        if (!s)
            fault = compare_shape(m, &t.list[(i - m->n_tensors) / n], (i - m->n_tensors) % n);
        else if (!params_find(&t, s->name))
            fault = xasprintf("%s/manifest.json: %s is not of the model in config.json", m->dir, s->name);
        if (!fault) continue;
        report(arg, fault);
        free(fault);
        n_faults++;
    }
    params_free(&t);
    return n_faults;
}
