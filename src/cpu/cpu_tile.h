/* cpu_tile.h: products of small fp32 matrices that sit in cache, for one thread: the inside of attention.
 *
 * The compiler keeps a block of C in vector registers and adds one outer product, of a column of A and a row of B, at a
 * time.  Written with GCC's vector type, so that it is one text for AVX2, AVX-512 and others. */
#ifndef MOAI_CPU_TILE_H
#define MOAI_CPU_TILE_H

#include "src/base/base.h"

#ifdef __AVX512F__
enum { TILE_LANES = 16, TILE_ROWS = 12 };     /* 12 x 2 accumulators of 32 registers */
#else
enum { TILE_LANES = 8, TILE_ROWS = 6 };       /*  6 x 2 of 16 */
#endif
enum { TILE_COLS = 2 * TILE_LANES };          /* columns of B and C come in multiples of this */

typedef float tile_vector __attribute__((vector_size(TILE_LANES * sizeof(float)), aligned(4), may_alias));

/* A matrix whose element (i, l) is at data[i * row + l * col]: stored either way round. */
typedef struct tile_operand {
    const float *data;
    int64_t row, col;
} tile_operand;

/* C (n_rows, TILE_COLS) = [C +] A (n_rows, k) B (k, TILE_COLS) */
static inline __attribute__((always_inline)) void tile_block(const int n_rows, int64_t k, tile_operand a,
                                                             const float *b, int64_t b_row, float *c, int64_t c_row,
                                                             bool accumulate)
{
    tile_vector sum[TILE_ROWS][2];

    #pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++) {
        const tile_vector *ci = (const tile_vector *)(c + i * c_row);
        sum[i][0] = accumulate ? ci[0] : (tile_vector){0};
        sum[i][1] = accumulate ? ci[1] : (tile_vector){0};
    }
    for (int64_t l = 0; l < k; l++) {
        const tile_vector *bl = (const tile_vector *)(b + l * b_row);
        #pragma GCC unroll 16
        for (int i = 0; i < n_rows; i++) {
            float ail = a.data[i * a.row + l * a.col];
            sum[i][0] += ail * bl[0];
            sum[i][1] += ail * bl[1];
        }
    }
    #pragma GCC unroll 16
    for (int i = 0; i < n_rows; i++) {
        tile_vector *ci = (tile_vector *)(c + i * c_row);
        ci[0] = sum[i][0];
        ci[1] = sum[i][1];
    }
}

static inline float tile_row_sum(const float *x, int64_t n)   /* n a multiple of TILE_LANES */
{
    tile_vector lanes = {0};

    for (int64_t j = 0; j < n; j += TILE_LANES) lanes += *(const tile_vector *)(x + j);
    for (int width = TILE_LANES / 2; width; width /= 2)
        for (int l = 0; l < width; l++) lanes[l] += lanes[l + width];
    return lanes[0];
}

/* C (m, n) = [C +] A (m, k) B (k, n); B and C row-major, n a multiple of TILE_COLS */
static inline void tile_product(int64_t m, int64_t n, int64_t k, tile_operand a, const float *b, int64_t b_row,
                                float *c, int64_t c_row, bool accumulate)
{
    for (int64_t j = 0; j < n; j += TILE_COLS) {
        for (int64_t i = 0, rows; i < m; i += rows) {
            tile_operand at = {a.data + i * a.row, a.row, a.col};
            float *c_at = c + i * c_row + j;

            rows = m - i >= TILE_ROWS ? TILE_ROWS : m - i >= 4 ? 4 : 1;
            if (rows == TILE_ROWS)
                tile_block(TILE_ROWS, k, at, b + j, b_row, c_at, c_row, accumulate);
            else if (rows == 4)
                tile_block(4, k, at, b + j, b_row, c_at, c_row, accumulate);
            else
                tile_block(1, k, at, b + j, b_row, c_at, c_row, accumulate);
        }
    }
}

#endif
