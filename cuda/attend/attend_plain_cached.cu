/* attend_plain_cached.cu: attention of new tokens over a cache of keys and values, for decoding, in any dtype.
 *
 * A block takes one row and one head.  Its warps take every n-th key with an online softmax each; the partial sums meet
 * in shared memory, in the order of the warps. */
#include "cuda/attend/attend.h"

#include "cuda/kernels.cuh"

namespace {

enum { MAX_HEAD_DIM = ATTEND_MOST_HEAD_DIM, PER_LANE = MAX_HEAD_DIM / WARP, WARPS = 8 };

template <typename T>
__global__ void __launch_bounds__(WARPS *WARP)
cached_kernel(view<T> att, view<T> q, view<T> k_cache, view<T> v_cache, const int32_t *seq, const int32_t *pos,
                  int64_t max_len, head_shape s)
{
    __shared__ float part[WARPS][MAX_HEAD_DIM], most_of[WARPS], total_of[WARPS];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, D = (int)s.head_dim;
    const int64_t row = blockIdx.x, head = blockIdx.y, kv_head = head / (s.n_heads / s.n_kv_heads),
                  first = (int64_t)seq[row] * max_len;
    float query[PER_LANE], sum[PER_LANE] = {}, most = -INFINITY, total = 0;

#pragma unroll
    for (int e = 0; e < PER_LANE; e++)
        query[e] = e * WARP + lane < D ? to_float(*q.at(row, head * D + e * WARP + lane)) * s.scale : 0.0f;
    for (int64_t j = warp; j <= pos[row]; j += WARPS) {
        float score = 0;
#pragma unroll
        for (int e = 0; e < PER_LANE; e++)
            if (e * WARP + lane < D)
                score += query[e] * to_float(*k_cache.at(first + j, kv_head * D + e * WARP + lane));
        score = lanes_sum(score);
        float more = fmaxf(most, score), keep = expf(most - more), p = expf(score - more);
#pragma unroll
        for (int e = 0; e < PER_LANE; e++)
            if (e * WARP + lane < D)
                sum[e] = sum[e] * keep + p * to_float(*v_cache.at(first + j, kv_head * D + e * WARP + lane));
        total = total * keep + p;
        most = more;
    }
#pragma unroll
    for (int e = 0; e < PER_LANE; e++) part[warp][e * WARP + lane] = sum[e];
    if (lane == 0) most_of[warp] = most, total_of[warp] = total;
    __syncthreads();

    float top = -INFINITY, all = 0;
    for (int w = 0; w < WARPS; w++) top = fmaxf(top, most_of[w]);
    for (int w = 0; w < WARPS; w++) all += total_of[w] * expf(most_of[w] - top);
    for (int d = threadIdx.x; d < D; d += WARPS * WARP) {
        float x = 0;
        for (int w = 0; w < WARPS; w++) x += part[w][d] * expf(most_of[w] - top);
        *att.at(row, head * D + d) = from_float<T>(x / all);
    }
}

}  // namespace

void attend_plain_cached(moai_device *dev, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                         const int32_t *pos, int64_t max_len, head_shape s)
{
    CHECK(s.head_dim <= MAX_HEAD_DIM, "attend_cached: head_dim %lld is larger than %d", (long long)s.head_dim,
          MAX_HEAD_DIM);
    for_type("attend_cached", q.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        cached_kernel<T><<<dim3((unsigned)q.rows, (unsigned)s.n_heads), WARPS * WARP, 0, dev->stream>>>(
            view_of<T>(att), view_of<T>(q), view_of<T>(k_cache), view_of<T>(v_cache), seq, pos, max_len, s);
    });
    LAUNCH_CHECK("attend_cached");
}
