/* nf4.c: see nf4.h */
#include "src/ops/nf4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const float nf4_values[16] = {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
                              -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
                              0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
                              0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f};

/* Half way between neighbours; a number above a bound has the code above it. */
static const float bounds[15] = {-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f,
                                 -0.33967943489551544f, -0.23460740596055984f, -0.13791173323988914f,
                                 -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,
                                 0.2035212516784668f, 0.2920137718319893f, 0.3893125355243683f, 0.5016634166240692f,
                                 0.6427869200706482f, 0.8614784178118011f};

static float largest(const float *x, int64_t n)
{
    float m = 0;

    for (int64_t i = 0; i < n; i++) m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

/* What a block's numbers are multiplied by. */
static float inverse(float absmax) { return 1.0f / (absmax > 1e-38f ? absmax : 1e-38f); }

static uint8_t code_of(float x)
{
    int code = 0;

    for (int i = 0; i < 15; i++) code += x > bounds[i];
    return (uint8_t)code;
}

void nf4_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n)
{
    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n / NF4_BLOCK; b++) {
        const float *block = x + b * NF4_BLOCK;
        uint8_t code[NF4_BLOCK];
        absmax[b] = largest(block, NF4_BLOCK);
        const float by = inverse(absmax[b]);
        for (int i = 0; i < NF4_BLOCK; i++) code[i] = code_of(block[i] * by);
        for (int i = 0; i < NF4_BLOCK / 2; i++)
            codes[b * (NF4_BLOCK / 2) + i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    }
}

void nf4_dequantize(float *x, const uint8_t *codes, const float *absmax, int64_t n)
{
    for (int64_t i = 0; i < n; i += 2) {
        x[i] = nf4_values[codes[i / 2] >> 4] * absmax[i / NF4_BLOCK];
        x[i + 1] = nf4_values[codes[i / 2] & 15] * absmax[i / NF4_BLOCK];
    }
}

/* -- the 8-bit codes -- */

static int ascending(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* torch.linspace(0.1, 1, n)[i] */
static float between(int i, int n)
{
    const float step = (1.0f - 0.1f) / (float)(n - 1);

    return i < n / 2 ? fmaf(step, (float)i, 0.1f) : fmaf(-step, (float)(n - 1 - i), 1.0f);
}

/* "Dynamic" 8 bits (arXiv 1511.04561): seven decades, a decade i of 2^i numbers, of both signs; 0 and 1. */
static void make_values(float values[256])
{
    int n = 0;

    for (int i = 0; i < 7; i++)
        for (int k = 0; k < 1 << i; k++) {
            const float mean = (between(k, (1 << i) + 1) + between(k + 1, (1 << i) + 1)) / 2.0f;
            const float x = (float)pow(10, i - 6) * mean;
            values[n++] = x;
            values[n++] = -x;
        }
    values[n++] = 0;
    values[n++] = 1;
    qsort(values, (size_t)n, sizeof *values, ascending);
}

const float *nf4_nested_values(void)
{
    static float values[256];

    if (values[255] == 0) make_values(values);
    return values;
}

static uint8_t nested_code(const float *values, float x)
{
    int low = 0, high = 255;                  /* the code is in [low, high] */

    while (low < high) {
        const int mid = (low + high) / 2;
        if (x > (values[mid] + values[mid + 1]) / 2.0f)
            low = mid + 1;
        else
            high = mid;
    }
    return (uint8_t)low;
}

void nf4_nest(uint8_t *codes, float *nested, float *offset, const float *absmax, int64_t n)
{
    const float *values = nf4_nested_values();
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += absmax[i];
    *offset = (float)(sum / (double)n);
    for (int64_t b = 0; b * NF4_NESTED_BLOCK < n; b++) {
        const int64_t first = b * NF4_NESTED_BLOCK, n_block = min_i64(NF4_NESTED_BLOCK, n - first);
        float d[NF4_NESTED_BLOCK];
        for (int64_t i = 0; i < n_block; i++) d[i] = absmax[first + i] - *offset;
        nested[b] = largest(d, n_block);
        for (int64_t i = 0; i < n_block; i++) codes[first + i] = nested_code(values, d[i] * inverse(nested[b]));
    }
}

void nf4_unnest(float *absmax, const uint8_t *codes, const float *nested, float offset, int64_t n)
{
    const float *values = nf4_nested_values();

    for (int64_t i = 0; i < n; i++) absmax[i] = values[codes[i]] * nested[i / NF4_NESTED_BLOCK] + offset;
}

void nf4_nest_round(float *absmax, int64_t n)
{
    uint8_t *codes = xmalloc((size_t)n);
    float *nested = xmalloc((size_t)(n / NF4_NESTED_BLOCK + 1) * sizeof *nested), offset;

    nf4_nest(codes, nested, &offset, absmax, n);
    nf4_unnest(absmax, codes, nested, offset, n);
    free(codes);
    free(nested);
}
