/* cpu.h: what the files of the CPU backend share.  Private to cpu_*.c and ops_cpu.c.
 *
 * Arithmetic is fp32 whatever a tensor's dtype: a row is loaded (in place when it is fp32 already), computed, and
 * stored with one rounding to nearest even.  Work is split over rows, heads or columns so that every sum has an order
 * that depends on shapes alone, never on threads or timing. */
#ifndef MOAI_CPU_H
#define MOAI_CPU_H

#include "src/ops/ops.h"

#include <math.h>
#include <omp.h>
#include <string.h>

struct products;

struct moai_device {
    int n_threads;
    char *scratch;                            /* grown when an op asks for more than any before it */
    size_t scratch_bytes;
    struct products *products;                /* the product library's own state */
};

/* Aligned memory for the op under way, valid until the next call.  cpu_memory.c */
void *device_scratch(moai_device *, size_t n_bytes);
static inline float *scratch_floats(moai_device *dev, int64_t n)
{
    return device_scratch(dev, (size_t)n * sizeof(float));
}

/* -- products: cpu_product_onednn.c, or cpu_product_cblas.c without it -- */

typedef enum { AS_STORED, TRANSPOSED } orientation;

struct products *products_open(void);
void products_close(struct products *);
const char *products_name(const struct products *);
/* c = op(a) op(b), or c += with accumulate.  a and b share a dtype; c has it or fp32; none is empty. */
void product(moai_device *, tensor c, tensor a, orientation, tensor b, orientation, bool accumulate);
/* The same for a library that only knows fp32: other dtypes go through fp32 copies (cpu_product_copies.c). */
typedef void product_fn(moai_device *, tensor c, tensor a, orientation, tensor b, orientation, bool accumulate);
void product_by_copies(moai_device *, tensor c, tensor a, orientation, tensor b, orientation, bool accumulate,
                       product_fn *fp32_product);

/* -- numbers -- */

static inline uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float float_of_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
static inline float float_of_bf16(uint16_t x) { return float_of_bits((uint32_t)x << 16); }
static inline uint16_t bf16_of_float(float x)                 /* to nearest even; a NaN stays one */
{
    uint32_t bits = float_bits(x), rounded = bits + 0x7fff + (bits >> 16 & 1);
    return (uint16_t)((x != x ? bits | 0x400000 : rounded) >> 16);
}

/* e^x in a form that compilers vectorize: 2^n times a polynomial on [-ln2/2, ln2/2], coefficients of Cephes' expf.
 * Relative error below 2 ulp; 0 below -87.33 (no subnormals), infinity above 88.37; NaN stays NaN. */
static inline float exp_fast(float x)
{
    const float lowest = -87.33f, highest = 88.37f, round_shift = 0x1.8p23f;
    float shifted = x * 1.44269504f + round_shift;            /* n sits in the low bits of the significand */
    float n = shifted - round_shift;
    float r = x - n * 0.693359375f - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    p *= float_of_bits((float_bits(shifted) - float_bits(round_shift) + 127u) << 23);
    return x < lowest ? 0.0f : x > highest ? INFINITY : p;
}

/* -- rows -- */

/* Row `row` as fp32: itself when t is fp32, else converted into buf (t.cols floats). */
static inline const float *row_load(tensor t, int64_t row, float *buf)
{
    const void *p = tensor_at(t, row, 0);

    if (t.dt == DT_F32) return p;
    if (t.dt == DT_BF16) {
        const uint16_t *x = p;
        for (int64_t j = 0; j < t.cols; j++) buf[j] = float_of_bf16(x[j]);
    } else {
        const _Float16 *x = p;
        for (int64_t j = 0; j < t.cols; j++) buf[j] = (float)x[j];
    }
    return buf;
}

/* Where to compute row `row` of an output: in place when it is fp32, else buf, which row_store then rounds. */
static inline float *row_target(tensor t, int64_t row, float *buf)
{
    return t.dt == DT_F32 ? tensor_at(t, row, 0) : buf;
}

static inline void row_store(tensor t, int64_t row, const float *values)
{
    void *p = tensor_at(t, row, 0);

    if (t.dt == DT_BF16) {
        uint16_t *y = p;
        for (int64_t j = 0; j < t.cols; j++) y[j] = bf16_of_float(values[j]);
    } else if (t.dt == DT_F16) {
        _Float16 *y = p;
        for (int64_t j = 0; j < t.cols; j++) y[j] = (_Float16)values[j];
    } else if (p != (const void *)values) {
        memcpy(p, values, (size_t)t.cols * sizeof(float));
    }
}

static inline void rows_zero(tensor t, int64_t begin)         /* rows [begin, t.rows) */
{
    for (int64_t row = begin; row < t.rows; row++) memset(tensor_at(t, row, 0), 0, (size_t)t.cols * dtype_size(t.dt));
}

/* -- sums over rows, for the gradients of weights that every row shares --
 * Rows are cut in blocks of SUM_ROWS; each block sums its rows in order, then the blocks are added in order. */
enum { SUM_ROWS = 64 };

static inline int64_t sum_blocks(int64_t n_rows) { return (n_rows + SUM_ROWS - 1) / SUM_ROWS; }
/* total (1, cols) fp32 += the rows of partial (n_blocks, cols) */
void sum_add_blocks(tensor total, const float *partial, int64_t n_blocks, int64_t stride);

/* -- the table's entries -- */

void *alloc_cpu(moai_device *, size_t n_bytes);                                                 /* cpu_memory.c */
void free_cpu(moai_device *, void *);
void *alloc_host_cpu(moai_device *, size_t n_bytes);
void free_host_cpu(moai_device *, void *, size_t n_bytes);
void sync_cpu(moai_device *);
void phase_cpu(moai_device *, const char *name, int number);

/* An op is in the file of its name, or of its kind: ls. */
#define REQUIRED(op, parameters, ...) void op##_cpu parameters;
#include "src/ops/ops.def"

#endif
