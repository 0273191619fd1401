/* cpu_nf4.c: weights in 4 bits, back to numbers */
#include "src/cpu/cpu.h"
#include "src/ops/nf4.h"

void dequantize_nf4_cpu(moai_device *dev, tensor w, const uint8_t *codes, const float *absmax)
{
    const int64_t cols = w.cols, blocks = cols / NF4_BLOCK;
    float *rows = scratch_floats(dev, dev->n_threads * cols);

    CHECK(cols % NF4_BLOCK == 0, "dequantize_nf4: rows of %lld are not whole blocks", (long long)cols);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < w.rows; i++) {
        float *x = row_target(w, i, rows + omp_get_thread_num() * cols);
        nf4_dequantize(x, codes + i * cols / 2, absmax + i * blocks, cols);
        row_store(w, i, x);
    }
}
