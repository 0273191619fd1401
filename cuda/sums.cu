/* sums.cu: sums over long arrays into a double, and of the partial sums that blocks leave, all in a fixed order */
#include "cuda/kernels.cuh"

namespace {

enum { SUM_BLOCKS_PER_SM = 8, LAST_BLOCK = 1024, FLOATS = 4, PARTIAL_COLS = 32, PARTIAL_ROWS = 16 };

__device__ double block_sum_double(double x)                  /* thread 0 gets it */
{
    __shared__ double of_warp[WARP];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;

    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_down_sync(all_lanes, x, step);
    if (lane == 0) of_warp[warp] = x;
    __syncthreads();
    x = lane < n_warps ? of_warp[lane] : 0.0;
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_down_sync(all_lanes, x, step);
    return x;
}

template <bool SQUARES> __device__ double term(float x) { return SQUARES ? (double)x * (double)x : (double)x; }

template <int W, bool SQUARES>
__global__ void __launch_bounds__(BLOCK) sum_kernel(double *partial, const float *x, int64_t n)
{
    int64_t step = (int64_t)gridDim.x * BLOCK * W, i = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) * W;
    double sum = 0.0;

#pragma unroll 4
    for (; i + W <= n; i += step) {
        float v[W];
        load<W>(v, x + i);
#pragma unroll
        for (int k = 0; k < W; k++) sum += term<SQUARES>(v[k]);
    }
    for (; i < n; i++) sum += term<SQUARES>(x[i]);            /* one thread has the last, incomplete pack */
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(LAST_BLOCK) sum_last_kernel(double *acc, const double *partial, int n)
{
    double sum = 0.0;

    for (int i = threadIdx.x; i < n; i += LAST_BLOCK) sum += partial[i];
    sum = block_sum_double(sum);
    if (threadIdx.x == 0) *acc += sum;
}

template <bool SQUARES> void sum_array(moai_device *dev, const char *op, double *acc, const float *x, int64_t n)
{
    if (n == 0) return;
    int n_blocks = (int)min_i64(dev->n_sm * SUM_BLOCKS_PER_SM, (n + BLOCK * FLOATS - 1) / (BLOCK * FLOATS));
    double *partial = static_cast<double *>(device_scratch_cuda(dev, (size_t)n_blocks * sizeof(double)));

    if ((uintptr_t)x % 16 == 0)
        sum_kernel<FLOATS, SQUARES><<<n_blocks, BLOCK, 0, dev->stream>>>(partial, x, n);
    else
        sum_kernel<1, SQUARES><<<n_blocks, BLOCK, 0, dev->stream>>>(partial, x, n);
    LAUNCH_CHECK(op);
    sum_last_kernel<<<1, LAST_BLOCK, 0, dev->stream>>>(acc, partial, n_blocks);
    LAUNCH_CHECK(op);
}

/* Thread (c, g) adds rows g, g + PARTIAL_ROWS, ... of its column; then the groups are added in order.  The kernel
 * that leaves the rows calls let_next_start when its blocks near their end: this one is always launched closely. */
__global__ void __launch_bounds__(PARTIAL_COLS *PARTIAL_ROWS)
    add_partials_kernel(float *first, float *second, const float *partial, int64_t n_rows, int64_t cols)
{
    __shared__ float of_group[PARTIAL_ROWS][PARTIAL_COLS];
    int64_t col = (int64_t)blockIdx.x * PARTIAL_COLS + threadIdx.x, width = second ? 2 * cols : cols;
    float sum = 0.0f;

    wait_for_previous();
    if (col < width) {
#pragma unroll 8
        for (int64_t row = threadIdx.y; row < n_rows; row += PARTIAL_ROWS) sum += partial[row * width + col];
    }
    of_group[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || col >= width) return;
    for (int g = 1; g < PARTIAL_ROWS; g++) sum += of_group[g][threadIdx.x];
    (col < cols ? first[col] : second[col - cols]) += sum;
}

}  // namespace

void sum_cuda(moai_device *dev, double *acc, const float *x, int64_t n) { sum_array<false>(dev, "sum", acc, x, n); }
void sum_squares_cuda(moai_device *dev, double *acc, const float *x, int64_t n)
{
    sum_array<true>(dev, "sum_squares", acc, x, n);
}

void add_partials(moai_device *dev, float *first, float *second, const float *partial, int64_t n_rows, int64_t cols)
{
    unsigned n_blocks = (unsigned)(((second ? 2 * cols : cols) + PARTIAL_COLS - 1) / PARTIAL_COLS);

    launch_how(dev, "add_partials", true, add_partials_kernel, dim3(n_blocks), dim3(PARTIAL_COLS, PARTIAL_ROWS), 0,
               first, second, partial, n_rows, cols);
}

bool kernels_run_here(void)
{
    cudaFuncAttributes attributes;
    bool found = cudaFuncGetAttributes(&attributes, sum_last_kernel) == cudaSuccess;
    cudaGetLastError();                                       /* a refusal is an answer, not a failure */
    return found;
}
