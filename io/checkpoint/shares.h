/* shares.h: rectangles of parameters, and those of them that are a rank's own. */
#ifndef MOAI_SHARES_H
#define MOAI_SHARES_H

#include "src/params/params.h"

typedef struct rect {
    int64_t row0, n_rows, col0, n_cols;
} rect;
static inline int64_t rect_n_elem(rect r) { return r.n_rows * r.n_cols; }
static inline rect rect_intersect(rect a, rect b)
{
    const int64_t row0 = max_i64(a.row0, b.row0), row1 = min_i64(a.row0 + a.n_rows, b.row0 + b.n_rows);
    const int64_t col0 = max_i64(a.col0, b.col0), col1 = min_i64(a.col0 + a.n_cols, b.col0 + b.n_cols);

    return (rect){row0, max_i64(row1 - row0, 0), col0, max_i64(col1 - col0, 0)};
}

/* The rectangles that a rank owns under ZeRO-1, and where they lie in the own-state buffers, row after row. */
typedef struct share {
    const param *p;
    rect at;
    int64_t own;
} share;
share *shares_of(const param_table *, int data_size, int data_rank, int *n);   /* caller frees */

#endif
