/* attend_run.c: see ops.h */
#include "src/ops/ops.h"

bool attend_is_whole(const attend_args *a)
{
    bool whole = a->k.rows == a->q.rows;

    for (int i = 0; i < a->n_segments && whole; i++)
        whole = a->segments[i].key == a->segments[i].row && a->segments[i].n_keys == a->segments[i].n_rows;
    return whole;
}

static bool continues(const attend_segment *at, int n)
{
    return at[n].n_rows == at->n_rows && at[n].row == at->row + n * at->n_rows && at[n].n_keys == at->n_keys &&
           at[n].key == at->key + n * at->n_keys;
}

void attend_run(const attend_args *a, int first, attend_args *run, attend_shape *s)
{
    const attend_segment *at = &a->segments[first];
    int n = 1;

    while (first + n < a->n_segments && continues(at, n)) n++;
    const int64_t n_rows = n * at->n_rows, n_keys = n * at->n_keys;
    CHECK(at->n_rows > 0 && at->row >= (first ? at[-1].row + at[-1].n_rows : 0) && at->row + n_rows <= a->att.rows,
          "attention: segments %d to %d are rows %lld to %lld of %lld%s", first, first + n - 1, (long long)at->row,
          (long long)(at->row + n_rows - 1), (long long)a->att.rows, first ? ", or begin in the one before" : "");
    CHECK(at->n_keys >= at->n_rows && at->key >= 0 && at->key + n_keys <= a->k.rows,
          "attention: the %lld rows of segment %d see keys %lld to %lld of %lld", (long long)at->n_rows, first,
          (long long)at->key, (long long)(at->key + at->n_keys - 1), (long long)a->k.rows);
    *run = *a;
    run->att = tensor_rows(a->att, at->row, n_rows);
    run->q = tensor_rows(a->q, at->row, n_rows);
    run->k = tensor_rows(a->k, at->key, n_keys);
    run->v = tensor_rows(a->v, at->key, n_keys);
    run->lse = a->lse + at->row * a->heads.n_heads;
    run->segments = at, run->n_segments = n;
    *s = attend_shape_of(a->heads, n, at->n_rows);
}
