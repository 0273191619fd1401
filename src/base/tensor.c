/* tensor.c: see tensor.h */
#include "src/base/tensor.h"

const char *dtype_name(dtype dt)
{
    static const char *const name[] = {[DT_F32] = "fp32", [DT_BF16] = "bf16", [DT_F16] = "fp16",
                                       [DT_F64] = "fp64", [DT_I32] = "int32", [DT_U8] = "uint8"};
    return name[dt];
}

void *arena_take(arena *a, size_t n_bytes)
{
    size_t begin = a->used;

    a->used += (size_t)round_up((int64_t)n_bytes, ARENA_ALIGN);
    if (a->used > a->high) a->high = a->used;
    if (!a->base) return NULL;
    CHECK(a->used <= a->size, "arena %s: %zu bytes wanted, %zu planned", a->name, a->used, a->size);
    return a->base + begin;
}

tensor arena_tensor(arena *a, dtype dt, int64_t rows, int64_t cols)
{
    return tensor_of(arena_take(a, (size_t)(rows * cols) * dtype_size(dt)), dt, rows, cols);
}
