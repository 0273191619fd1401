/* attend_run.c: see ops.h */
#include "src/ops/ops.h"

int attend_run(const attend_args *a, int first, attend_shape *s)
{
    const attend_segment *at = &a->segments[first];
    int n = 1;

    CHECK(at->n_rows > 0 && at->row >= (first ? at[-1].row + at[-1].n_rows : 0) &&
              at->row + at->n_rows <= a->att.rows,
          "attention: segment %d is rows %lld to %lld of %lld%s", first, (long long)at->row,
          (long long)(at->row + at->n_rows - 1), (long long)a->att.rows, first ? ", or begins in the one before" : "");
    while (first + n < a->n_segments && at[n].n_rows == at->n_rows && at[n].row == at->row + n * at->n_rows) n++;
    *s = attend_shape_of(a->heads, n, at->n_rows);
    CHECK(at->row + n * at->n_rows <= a->att.rows, "attention: segment %d ends behind row %lld", first + n - 1,
          (long long)a->att.rows);
    return n;
}
