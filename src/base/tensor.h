/* tensor.h: a row-major matrix view, and the arenas that own the memory behind it.
 *
 * A tensor is passed by value and owns nothing.  Tokens are rows, features are columns; a view of some columns keeps
 * the stride of its parent, so that q, k and v are views of the packed qkv. */
#ifndef MOAI_TENSOR_H
#define MOAI_TENSOR_H

#include "src/base/base.h"

typedef enum { DT_F32, DT_BF16, DT_F16, DT_F64, DT_I32, DT_U8 } dtype;

static inline size_t dtype_size(dtype dt)
{
    static const size_t size[] = {[DT_F32] = 4, [DT_BF16] = 2, [DT_F16] = 2, [DT_F64] = 8, [DT_I32] = 4, [DT_U8] = 1};
    return size[dt];
}
const char *dtype_name(dtype dt);

typedef struct tensor {
    void *data;              /* device memory */
    int64_t rows, cols;
    int64_t stride;          /* elements from one row to the next, >= cols */
    dtype dt;
} tensor;

static inline tensor tensor_of(void *data, dtype dt, int64_t rows, int64_t cols)
{
    return (tensor){.data = data, .rows = rows, .cols = cols, .stride = cols, .dt = dt};
}
static inline void *tensor_at(tensor t, int64_t row, int64_t col)
{
    return t.data ? (char *)t.data + (size_t)(row * t.stride + col) * dtype_size(t.dt) : NULL;
}
static inline tensor tensor_rows(tensor t, int64_t begin, int64_t n)
{
    return (tensor){tensor_at(t, begin, 0), n, t.cols, t.stride, t.dt};
}
static inline tensor tensor_cols(tensor t, int64_t begin, int64_t n)
{
    return (tensor){tensor_at(t, 0, begin), t.rows, n, t.stride, t.dt};
}
static inline int64_t tensor_n_elem(tensor t) { return t.rows * t.cols; }

/* An arena: one allocation, a bump pointer, a high-water mark.  While base is NULL it only plans: every take returns
 * NULL and counts, so the code that lays memory out runs twice, first to learn the size, then to hand out pointers. */
typedef struct arena {
    const char *name;        /* shown in the memory report */
    char *base;
    size_t size, used, high; /* bytes; size is 0 while planning */
} arena;

enum { ARENA_ALIGN = 256 };

void *arena_take(arena *a, size_t n_bytes);                     /* aligned to ARENA_ALIGN; dies past the planned size */
tensor arena_tensor(arena *a, dtype dt, int64_t rows, int64_t cols);
static inline size_t arena_mark(const arena *a) { return a->used; }
static inline void arena_release(arena *a, size_t mark) { a->used = mark; }   /* as a stack */

#endif
