/* shares.c: see shares.h */
#include "io/checkpoint/shares.h"

#include <stdlib.h>

static int add_share(share *list, int n, const param *p, int64_t row, int64_t n_rows, int64_t col, int64_t n_cols,
                     int64_t own)
{
    if (n_rows <= 0 || n_cols <= 0) return n;
    list[n] = (share){p, {p->row0 + row, n_rows, p->col0 + col, n_cols}, own};
    return n + 1;
}

/* Elements [lo, hi) of the block, cut at row ends: the rest of a first row, whole rows, the beginning of a last row. */
static int cut_rows(share *list, int n, const param *p, int64_t lo, int64_t hi, int64_t own)
{
    const int64_t w = p->n_cols, head_end = min_i64(round_up(lo, w), hi), body_end = max_i64(hi / w * w, head_end);

    n = add_share(list, n, p, lo / w, 1, lo % w, head_end - lo, own);
    n = add_share(list, n, p, head_end / w, (body_end - head_end) / w, 0, w, own + head_end - lo);
    return add_share(list, n, p, body_end / w, 1, 0, hi - body_end, own + body_end - lo);
}

share *shares_of(const param_table *t, int data_size, int data_rank, int *n)
{
    share *list = xmalloc((size_t)t->n * 3 * sizeof *list);

    *n = 0;
    for (int i = 0; i < t->n; i++) {
        const param *p = &t->list[i];
        const own_range own = params_own(t, p->bucket, data_size, data_rank);
        const int64_t begin = max_i64(own.begin, p->offset), end = min_i64(own.end, p->offset + p->n_rows * p->n_cols);
        if (begin < end) *n = cut_rows(list, *n, p, begin - p->offset, end - p->offset, own.own + begin - own.begin);
    }
    return list;
}
