/* nf4.h: weights in 4 bits: NF4 in blocks of 64 with an fp32 absmax each (QLoRA, arXiv 2305.14314), bit for bit as
 * bitsandbytes has it.  Host memory.
 *
 * Consecutive elements of a matrix, row after row, make a block: x = value[code] absmax.  Byte k holds element 2k in
 * its high half, 2k + 1 in its low one.  With double quantization the absmax are codes in turn, signed 8-bit ones in
 * blocks of 256 over the whole matrix, about their mean: 4.13 bits an element instead of 4.5. */
#ifndef MOAI_NF4_H
#define MOAI_NF4_H

#include "src/base/base.h"

enum { NF4_BLOCK = 64, NF4_NESTED_BLOCK = 256, NF4_FEW_ROWS = 8 };

extern const float nf4_values[16];

/* n is a multiple of NF4_BLOCK: codes (n/2), absmax (n/64).  A block of zeros has code 7, whose value is 0, as
 * bitsandbytes' CPU code does; its CUDA code leaves 0, which is -1 times nothing. */
void nf4_quantize(uint8_t *codes, float *absmax, const float *x, int64_t n);
void nf4_dequantize(float *x, const uint8_t *codes, const float *absmax, int64_t n);

/* The absmax of a whole matrix, n of them: codes (n), nested (n/256 rounded up), and their mean. */
void nf4_nest(uint8_t *codes, float *nested, float *offset, const float *absmax, int64_t n);
void nf4_unnest(float *absmax, const uint8_t *codes, const float *nested, float offset, int64_t n);
/* What an absmax is after both. */
void nf4_nest_round(float *absmax, int64_t n);
/* The values of the 8-bit codes, ascending. */
const float *nf4_nested_values(void);

#endif
