/* cross_entropy.cu: cross-entropy over a vocabulary that may be split: statistics of the part, then loss and gradient.
 * A block takes a row. */
#include "cuda/kernels.cuh"

namespace {

enum { STAT_MAX, STAT_SUM, STAT_TARGET, N_STATS, ROW_THREADS = 512, AHEAD = 4 };

/* sum of exp(logit - max); max is -inf while there is none */
struct softmax_sum {
    float max, sum;
};

__device__ softmax_sum combine(softmax_sum a, softmax_sum b)
{
    float max = fmaxf(a.max, b.max);
    if (max == -INFINITY) return {max, a.sum + b.sum};        /* nothing yet, or a NaN to keep */
    return {max, a.sum * __expf(a.max - max) + b.sum * __expf(b.max - max)};
}

__device__ softmax_sum warp_combine(softmax_sum x)
{
    for (int step = WARP / 2; step > 0; step /= 2)
        x = combine(x, {__shfl_xor_sync(all_lanes, x.max, step), __shfl_xor_sync(all_lanes, x.sum, step)});
    return x;
}

__device__ softmax_sum block_combine(softmax_sum x)           /* warp 0 gets it */
{
    __shared__ softmax_sum of_warp[WARP];
    int lane = threadIdx.x % WARP, n_warps = blockDim.x / WARP;

    x = warp_combine(x);
    if (lane == 0) of_warp[threadIdx.x / WARP] = x;
    __syncthreads();
    return warp_combine(lane < n_warps ? of_warp[lane] : softmax_sum{-INFINITY, 0.0f});
}

template <typename T, int W> __device__ void add_logits(softmax_sum &s, const pack<T, W> &logits)
{
    float v[W], max, sum = 0.0f;

    unpack(v, logits);
    max = v[0];
#pragma unroll
    for (int k = 1; k < W; k++) max = fmaxf(max, v[k]);
    if (max > s.max) s = {max, s.sum * __expf(s.max - max)};
    max = s.max == -INFINITY ? 0.0f : s.max;                  /* e^-inf, not e^(inf - inf) */
#pragma unroll
    for (int k = 0; k < W; k++) sum += __expf(v[k] - max);
    s.sum += sum;
}

template <typename T, int W>
__global__ void __launch_bounds__(ROW_THREADS)
    softmax_stats_kernel(float *stats, view<const T> logits, const int32_t *targets, int64_t vocab_begin, int64_t cols)
{
    int64_t row = blockIdx.x;
    softmax_sum mine = {-INFINITY, 0.0f};

    for (int64_t first = threadIdx.x * W; first < cols; first += AHEAD * ROW_THREADS * W) {
        pack<T, W> ahead[AHEAD];
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i * ROW_THREADS * W < cols) ahead[i] = fetch<W>(logits.at(row, first + i * ROW_THREADS * W));
#pragma unroll
        for (int i = 0; i < AHEAD; i++)
            if (first + i * ROW_THREADS * W < cols) add_logits(mine, ahead[i]);
    }
    mine = block_combine(mine);
    if (threadIdx.x != 0) return;
    int64_t target = targets[row] < 0 ? -1 : targets[row] - vocab_begin;
    stats[row * N_STATS + STAT_MAX] = mine.max;
    stats[row * N_STATS + STAT_SUM] = mine.sum;
    stats[row * N_STATS + STAT_TARGET] = target >= 0 && target < cols ? to_float(*logits.at(row, target)) : -INFINITY;
}

/* over the whole vocabulary */
struct row_total {
    float max, sum, target;
};

__device__ row_total combine_parts(const float *stats_all, int n_parts, int64_t n_rows, int64_t row)
{
    row_total t = {-INFINITY, 0.0f, -INFINITY};

    for (int p = 0; p < n_parts; p++) {
        const float *part = stats_all + (p * n_rows + row) * N_STATS;
        t.max = fmaxf(t.max, part[STAT_MAX]);
        t.target = fmaxf(t.target, part[STAT_TARGET]);
    }
    for (int p = 0; p < n_parts; p++) {
        const float *part = stats_all + (p * n_rows + row) * N_STATS;
        t.sum += part[STAT_SUM] * expf(part[STAT_MAX] - t.max);
    }
    return t;
}

template <typename T, int W>
__global__ void __launch_bounds__(ROW_THREADS)
    cross_entropy_kernel(float *nll, view<T> logits, const float *stats_all, int n_parts, const int32_t *targets,
                         const float *weights, int64_t vocab_begin, int64_t cols, float scale)
{
    int64_t row = blockIdx.x, target = targets[row] - vocab_begin;
    float weight = weights ? weights[row] : 1.0f;
    bool ignored = targets[row] < 0 || weight == 0.0f;
    row_total t = combine_parts(stats_all, n_parts, gridDim.x, row);

    if (threadIdx.x == 0) nll[row] = ignored ? 0.0f : weight * (logf(t.sum) + (t.max - t.target));
    if (scale == 0.0f) return;
    scale *= weight;
    float factor = scale / t.sum;
#pragma unroll 4
    for (int64_t j = threadIdx.x * W; j < cols; j += ROW_THREADS * W) {
        float v[W] = {};
        if (!ignored) {
            load<W>(v, logits.at(row, j));
#pragma unroll
            for (int k = 0; k < W; k++) v[k] = factor * __expf(v[k] - t.max) - (j + k == target ? scale : 0.0f);
        }
        store<W>(logits.at(row, j), v);
    }
}

}  // namespace

void softmax_stats_cuda(moai_device *dev, float *stats, tensor logits, const int32_t *targets, int64_t vocab_begin)
{
    if (logits.rows == 0) return;
    for_type("softmax_stats", logits.dt, is_packed(logits), [&](auto t, auto w) {
        using T = TYPE(t);
        softmax_stats_kernel<T, WIDTH(w)><<<(unsigned)logits.rows, ROW_THREADS, 0, dev->stream>>>(
            stats, view_of<const T>(logits), targets, vocab_begin, logits.cols);
        LAUNCH_CHECK("softmax_stats");
    });
}

void cross_entropy_cuda(moai_device *dev, float *nll, tensor logits, const float *stats_all, int n_parts,
                        const int32_t *targets, const float *weights, int64_t vocab_begin, float scale)
{
    if (logits.rows == 0) return;
    for_type("cross_entropy", logits.dt, is_packed(logits), [&](auto t, auto w) {
        using T = TYPE(t);
        cross_entropy_kernel<T, WIDTH(w)><<<(unsigned)logits.rows, ROW_THREADS, 0, dev->stream>>>(
            nll, view_of<T>(logits), stats_all, n_parts, targets, weights, vocab_begin, logits.cols, scale);
        LAUNCH_CHECK("cross_entropy");
    });
}
