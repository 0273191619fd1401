/* rmsnorm.cu: RMSNorm (arXiv 1910.07467), alone and after the residual sum, and its backward
 *
 *     n = w x r,  r = (mean(x^2) + eps)^(-1/2)
 *     dx = r (g - x r^2 mean(g x)),  g = w dn;     dw = sum over rows of dn x r
 *
 * A block takes a row.  A thread keeps what it has loaded in its own places of shared memory between the two passes over the row,
 * so device memory is read once.  The backward's blocks take every n-th row and sum dw as they go; the blocks' sums are added in order. */
#include "kernels.cuh"

namespace {

enum { MAX_THREADS = 512, BACKWARD_BLOCKS_PER_SM = 4 };

/* Two packs a thread, where that makes whole warps. */
int threads_of_row(int64_t cols, int w)
{
    return (int)min_i64(MAX_THREADS, round_up((cols / w + 1) / 2, WARP));
}

__device__ float reciprocal_rms(float squares, int64_t cols, float eps) { return 1.0f / sqrtf(squares / (float)cols + eps); }

/* What a row of T needs for one pass to remember it. */
template <typename T> __host__ __device__ int64_t row_bytes(int64_t cols) { return (cols * (int64_t)sizeof(T) + 15) / 16 * 16; }

/* h = x + o first when o.data is there; the norm is that of h as stored, which the backward will read */
template <typename T, int W, bool RESIDUAL>
__global__ void __launch_bounds__(MAX_THREADS)
    rmsnorm_kernel(view<T> h, view<T> n, float *r, view<const T> x, view<const T> o, const T *w, int64_t cols, float eps)
{
    extern __shared__ uint4 shared[];
    T *kept = reinterpret_cast<T *>(shared);
    int64_t row = blockIdx.x, step = blockDim.x * W;
    float squares = 0.0f;

#pragma unroll 2
    for (int64_t j = threadIdx.x * W; j < cols; j += step) {
        float v[W];
        load<W>(v, x.at(row, j));
        if constexpr (RESIDUAL) {
            float a[W];
            load<W>(a, o.at(row, j));
#pragma unroll
            for (int k = 0; k < W; k++) v[k] = rounded<T>(v[k] + a[k]);
            store<W>(h.at(row, j), v);
        }
#pragma unroll
        for (int k = 0; k < W; k++) squares += v[k] * v[k];
        store<W>(kept + j, v);
    }
    float ri = reciprocal_rms(block_sum(squares), cols, eps);
    if (threadIdx.x == 0) r[row] = ri;
#pragma unroll 2
    for (int64_t j = threadIdx.x * W; j < cols; j += step) {
        float v[W], wj[W];
        load<W>(v, kept + j);
        load<W>(wj, w + j);
#pragma unroll
        for (int k = 0; k < W; k++) v[k] *= ri * wj[k];
        store<W>(n.at(row, j), v);
    }
}

template <typename T> struct norm_backward {
    view<T> dx;
    float *dw_partial;                                        /* (blocks, cols) */
    view<const T> dn, dres, x;
    const float *r;
    const T *w;
    int64_t rows, cols;
};

template <typename T, int W> __global__ void __launch_bounds__(MAX_THREADS) rmsnorm_backward_kernel(norm_backward<T> a)
{
    extern __shared__ uint4 shared[];
    char *room = reinterpret_cast<char *>(shared);
    T *x_kept = reinterpret_cast<T *>(room), *dn_kept = reinterpret_cast<T *>(room + row_bytes<T>(a.cols));
    float *dw = reinterpret_cast<float *>(room + 2 * row_bytes<T>(a.cols));
    int64_t step = blockDim.x * W;

    for (int64_t j = threadIdx.x * W; j < a.cols; j += step) store<W>(dw + j, {});
    for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
        float dot = 0.0f, ri = a.r[row];
#pragma unroll 2
        for (int64_t j = threadIdx.x * W; j < a.cols; j += step) {
            float x[W], dn[W], w[W], sum[W];
            load<W>(x, a.x.at(row, j));
            load<W>(dn, a.dn.at(row, j));
            load<W>(w, a.w + j);
            load<W>(sum, dw + j);
#pragma unroll
            for (int k = 0; k < W; k++) {
                dot += w[k] * dn[k] * x[k];
                sum[k] += dn[k] * x[k] * ri;
            }
            store<W>(dw + j, sum);
            store<W>(x_kept + j, x);
            store<W>(dn_kept + j, dn);
        }
        float along_x = ri * ri * ri * block_sum(dot) / (float)a.cols;
#pragma unroll 2
        for (int64_t j = threadIdx.x * W; j < a.cols; j += step) {
            float x[W], dn[W], w[W], d[W] = {};
            if (a.dres.data) load<W>(d, a.dres.at(row, j));
            load<W>(x, x_kept + j);
            load<W>(dn, dn_kept + j);
            load<W>(w, a.w + j);
#pragma unroll
            for (int k = 0; k < W; k++) d[k] += ri * w[k] * dn[k] - along_x * x[k];
            store<W>(a.dx.at(row, j), d);
        }
    }
    for (int64_t j = threadIdx.x * W; j < a.cols; j += step) {
        float sum[W];
        load<W>(sum, dw + j);
        store<W>(a.dw_partial + blockIdx.x * a.cols + j, sum);
    }
}

template <typename T, int W, bool RESIDUAL>
void launch_forward(moai_device *dev, const char *op, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps)
{
    size_t kept = (size_t)row_bytes<T>(x.cols);

    allow_shared(dev, op, rmsnorm_kernel<T, W, RESIDUAL>, kept);
    rmsnorm_kernel<T, W, RESIDUAL><<<(unsigned)x.rows, threads_of_row(x.cols, W), kept, dev->stream>>>(
        view_of<T>(h), view_of<T>(n), r, view_of<const T>(x), view_of<const T>(o), static_cast<const T *>(w.data), x.cols, eps);
    LAUNCH_CHECK(op);
}

}  // namespace

void rmsnorm_cuda(moai_device *dev, tensor n, float *r, tensor x, tensor w, float eps)
{
    if (x.rows == 0) return;
    for_type("rmsnorm", x.dt, is_packed(n, x, w), [&](auto t, auto width) {
        launch_forward<TYPE(t), WIDTH(width), false>(dev, "rmsnorm", tensor(), n, r, x, tensor(), w, eps);
    });
}

void residual_rmsnorm_cuda(moai_device *dev, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps)
{
    if (x.rows == 0) return;
    for_type("residual_rmsnorm", x.dt, is_packed(h, n, x, o, w), [&](auto t, auto width) {
        launch_forward<TYPE(t), WIDTH(width), true>(dev, "residual_rmsnorm", h, n, r, x, o, w, eps);
    });
}

void rmsnorm_backward_cuda(moai_device *dev, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r, tensor w)
{
    if (x.rows == 0) return;
    int64_t n_blocks = min_i64(x.rows, dev->n_sm * BACKWARD_BLOCKS_PER_SM);
    float *partial = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_blocks * x.cols) * sizeof(float)));
    bool packed = is_packed(dx, dn, x, w) && (!dres.data || is_packed(dres));

    for_type("rmsnorm_backward", x.dt, packed, [&](auto t, auto width) {
        using T = TYPE(t);
        constexpr int W = WIDTH(width);
        size_t kept = (size_t)(2 * row_bytes<T>(x.cols)) + (size_t)x.cols * sizeof(float);
        allow_shared(dev, "rmsnorm_backward", rmsnorm_backward_kernel<T, W>, kept);
        rmsnorm_backward_kernel<T, W><<<(unsigned)n_blocks, threads_of_row(x.cols, W), kept, dev->stream>>>(
            norm_backward<T>{view_of<T>(dx), partial, view_of<const T>(dn), view_of<const T>(dres), view_of<const T>(x), r,
                             static_cast<const T *>(w.data), x.rows, x.cols});
        LAUNCH_CHECK("rmsnorm_backward");
    });
    add_partials(dev, static_cast<float *>(dw.data), partial, n_blocks, x.cols, x.cols);
}
