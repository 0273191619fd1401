/* cpu_nf4.c: weights in 4 bits, back to numbers */
#include "src/cpu/cpu.h"
#include "src/ops/nf4.h"

void dequantize_nf4_cpu(moai_device *dev, tensor w, const uint8_t *codes, const float *absmax)
{
    const int64_t n_blocks = tensor_n_elem(w) / NF4_BLOCK;
    const tensor flat = tensor_of(w.data, w.dt, n_blocks, NF4_BLOCK);

    (void)dev;
    CHECK(w.stride == w.cols && tensor_n_elem(w) % NF4_BLOCK == 0, "dequantize_nf4: (%lld, %lld) is not dense blocks",
          (long long)w.rows, (long long)w.cols);
    #pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < n_blocks; b++) {
        float room[NF4_BLOCK], *x = row_target(flat, b, room);
        nf4_dequantize(x, codes + b * (NF4_BLOCK / 2), absmax + b, NF4_BLOCK);
        row_store(flat, b, x);
    }
}
