/* reduce.c: see reduce.h */
#include "parallel/comm/reduce.h"

#include <string.h>

typedef uint16_t bf16;
typedef _Float16 f16;

static inline float from_bf16(bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float y;

    memcpy(&y, &bits, sizeof y);
    return y;
}

/* To nearest even.  A NaN made of bf16 numbers has zeros below the cut, so rounding leaves it one. */
static inline bf16 to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* macros: to some compilers half precision is a type of memory only, not of arguments */
#define from_f16(x) ((float)(x))
#define to_f16(x) ((f16)(x))
static inline float from_f32(float x) { return x; }
static inline float to_f32(float x) { return x; }
static inline double from_f64(double x) { return x; }
static inline double to_f64(double x) { return x; }
static inline int32_t from_i32(int32_t x) { return x; }
static inline int32_t to_i32(int32_t x) { return x; }
static inline uint8_t from_u8(uint8_t x) { return x; }
static inline uint8_t to_u8(uint8_t x) { return x; }

/* Block by block, so that the running sums of a block stay in the first-level cache; `wide` is what T is added in. */
enum { BLOCK = 1024 };
#define DEFINE_PARTS(name, T, wide)                                                                \
    static void parts_##name(T *out, const T *in, int parts, size_t n)                             \
    {                                                                                              \
        for (size_t at = 0; at < n; at += BLOCK) {                                                 \
            size_t len = n - at < BLOCK ? n - at : BLOCK;                                          \
            wide acc[BLOCK];                                                                       \
            for (size_t i = 0; i < len; i++) acc[i] = from_##name(in[at + i]);                     \
            for (int p = 1; p < parts; p++)                                                        \
                for (size_t i = 0; i < len; i++) acc[i] += from_##name(in[(size_t)p * n + at + i]);\
            for (size_t i = 0; i < len; i++) out[at + i] = to_##name(acc[i]);                      \
        }                                                                                          \
    }
DEFINE_PARTS(bf16, bf16, float)
DEFINE_PARTS(f16, f16, float)
DEFINE_PARTS(f32, float, float)
DEFINE_PARTS(f64, double, double)
DEFINE_PARTS(i32, int32_t, int32_t)
DEFINE_PARTS(u8, uint8_t, uint8_t)

void reduce_parts(void *out, const void *in, int parts, size_t n, dtype dt)
{
    switch (dt) {
    case DT_F32: parts_f32(out, in, parts, n); return;
    case DT_BF16: parts_bf16(out, in, parts, n); return;
    case DT_F16: parts_f16(out, in, parts, n); return;
    case DT_F64: parts_f64(out, in, parts, n); return;
    case DT_I32: parts_i32(out, in, parts, n); return;
    case DT_U8: parts_u8(out, in, parts, n); return;
    }
    die("no sum for dtype %d", (int)dt);
}

static inline float greater(float a, float b) { return a > b || a != a ? a : b; }

#define DEFINE_PAIR(name, T)                                                                                  \
    void reduce_sum_##name(void *acc, const void *x, size_t n)                                                \
    {                                                                                                         \
        T *a = acc;                                                                                           \
        const T *b = x;                                                                                       \
        for (size_t i = 0; i < n; i++) a[i] = to_##name(from_##name(a[i]) + from_##name(b[i]));               \
    }                                                                                                         \
    void reduce_max_##name(void *acc, const void *x, size_t n)                                                \
    {                                                                                                         \
        T *a = acc;                                                                                           \
        const T *b = x;                                                                                       \
        for (size_t i = 0; i < n; i++) a[i] = to_##name(greater(from_##name(a[i]), from_##name(b[i])));       \
    }
DEFINE_PAIR(bf16, bf16)
DEFINE_PAIR(f16, f16)
