/* nf4.cu: weights in 4 bits (nf4.h), back to numbers
 *
 * A thread takes 8 neighbours, 4 bytes of codes, so that loads and stores of a warp are whole lines; several of them at
 * once, since the time is that of the memory alone.  The 16 values lie in 16 banks of shared memory: no two lanes ever
 * wait for one another. */
#include "cuda/kernels.cuh"
#include "cuda/nf4.cuh"

namespace {

enum { AT_ONCE = 4 };

template <typename T>
__global__ void __launch_bounds__(BLOCK) dequantize_kernel(view<T> w, const uint32_t *codes, const float *absmax,
                                                           uint32_t n_packs, uint32_t row_packs, nf4_table table)
{
    __shared__ float value[16];
    const uint32_t stride = gridDim.x * BLOCK;

    let_next_start();
    if (threadIdx.x < 16) value[threadIdx.x] = table.value[threadIdx.x];
    __syncthreads();
    wait_for_previous();
    for (uint32_t first = blockIdx.x * BLOCK + threadIdx.x; first < n_packs; first += AT_ONCE * stride) {
        uint32_t code[AT_ONCE];
        float scale[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const uint32_t i = first + k * stride;
            if (i < n_packs) code[k] = __ldcs(codes + i), scale[k] = __ldg(absmax + i / (NF4_BLOCK / PACK));
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
            const uint32_t i = first + k * stride;
            float x[PACK];
            if (i >= n_packs) break;
#pragma unroll
            for (int e = 0; e < PACK; e++)    /* byte e/2, its high half first */
                x[e] = value[code[k] >> (8 * (e / 2) + (e % 2 ? 0 : 4)) & 15] * scale[k];
            store<PACK>(w.at(i / row_packs, (int64_t)(i % row_packs) * PACK), x);
        }
    }
}

}  // namespace

void dequantize_nf4_cuda(moai_device *dev, tensor w, const uint8_t *codes, const float *absmax)
{
    const int64_t n = tensor_n_elem(w);

    CHECK(w.cols % NF4_BLOCK == 0 && is_packed(w) && n / PACK < INT32_MAX,
          "dequantize_nf4: (%lld, %lld) is not of whole blocks and aligned, or too large", (long long)w.rows,
          (long long)w.cols);
    if (n == 0) return;
    const nf4_table table = nf4_table_of_values();
    for_type("dequantize_nf4", w.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        auto kernel = dequantize_kernel<T>;
        const int64_t n_packs = n / PACK, most = resident_blocks(dev, kernel, BLOCK, 0),
                      n_blocks = min_i64((n_packs + BLOCK - 1) / BLOCK, most);
        launch(dev, "dequantize_nf4", kernel, dim3((unsigned)n_blocks), BLOCK, 0, view_of<T>(w),
               reinterpret_cast<const uint32_t *>(codes), absmax, (uint32_t)n_packs, (uint32_t)(w.cols / PACK), table);
    });
}
