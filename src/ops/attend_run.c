/* attend_run.c: see ops.h */
#include "src/ops/ops.h"

void attend_run(const attend_args *a, int first, attend_args *run, attend_shape *s)
{
    const attend_segment *at = &a->segments[first];
    int n = 1;

    while (first + n < a->n_segments && at[n].n_rows == at->n_rows && at[n].row == at->row + n * at->n_rows) n++;
    const int64_t n_rows = n * at->n_rows;
    CHECK(at->n_rows > 0 && at->row >= (first ? at[-1].row + at[-1].n_rows : 0) && at->row + n_rows <= a->att.rows,
          "attention: segments %d to %d are rows %lld to %lld of %lld%s", first, first + n - 1, (long long)at->row,
          (long long)(at->row + n_rows - 1), (long long)a->att.rows, first ? ", or begin in the one before" : "");
    *run = *a;
    run->att = tensor_rows(a->att, at->row, n_rows);
    run->q = tensor_rows(a->q, at->row, n_rows);
    run->k = tensor_rows(a->k, at->row, n_rows);
    run->v = tensor_rows(a->v, at->row, n_rows);
    run->lse = a->lse + at->row * a->heads.n_heads;
    run->segments = at, run->n_segments = n;
    *s = attend_shape_of(a->heads, n, at->n_rows);
}
