/* attend_flash_cached.cu: decoding on the tensor cores, the cache of a row shared out among blocks (flash-decoding).
 *
 * The query heads of a group are the rows of one tile, so a block loads a KV head's keys and values once for all of
 * them.  A row's positions are cut into shares, a block each; each of its warps walks over every fourth 16 keys with
 * copies of its own in flight.  Partial sums meet in the order of warps, then of shares.  The cut depends on pos and
 * max_len alone: a row's bits are the same whatever else is in the batch. */
#include "cuda/attend/attend.h"

#include "cuda/attend/attend_tiles.cuh"

namespace {

enum { HEADS = 16, KEYS = 16, N = KEYS / 8, STAGES = 2, STEP = KEYS * TILE_WARPS, SHARE = 2 * STEP };
enum { MAX_SHARES = 2 * WARP, SUM_WARPS = 8 };
static const int64_t most_partial_bytes = 64 << 20;

/* What a share leaves of one head: `most` and `total` of its softmax, two numbers unused, then the head_dim sums of
 * values weighted by 2^(score - most). */
struct partials {
    float *data;
    int n_heads, n_shares, head_dim;
    __device__ float *at(int64_t row, int head, int share) const
    {
        return data + ((row * n_heads + head) * n_shares + share) * (head_dim + 4);
    }
};

/* The cut of a row's keys: n_shares or fewer, of `length` keys each, a multiple of STEP. */
struct cut {
    int n_keys, length;
    __device__ cut(int pos, int n_shares) : n_keys(pos + 1)
    {
        length = (n_keys + n_shares * STEP - 1) / (n_shares * STEP) * STEP;
    }
};

struct cached_heads {
    int head_dim, group, blocks_of_group; /* a block takes HEADS of a group's query heads */
    float scale;
};

template <int D> __host__ __device__ constexpr uint32_t warp_bytes() { return tile_bytes<D>(2 * KEYS * STAGES); }
template <int D> __host__ __device__ constexpr uint32_t shared_bytes()
{
    return tile_bytes<D>(HEADS) + TILE_WARPS * warp_bytes<D>();
}

/* Of the 16 keys of x only n_keys exist. */
__device__ inline void hide_missing(float (&x)[1][N][4], int n_keys)
{
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * n + (int)threadIdx.x % 4 * 2 + i % 2 >= n_keys) x[0][n][i] = -INFINITY;
}

/* What the warps leave in shared memory */
template <int D> struct warp_sums {
    float sum[TILE_WARPS][HEADS][D], most[TILE_WARPS][HEADS], total[TILE_WARPS][HEADS];

    __device__ void put(int n_heads, const softmax_rows<1> &rows, const float (&x)[1][D / 8][4], float scale2)
    {
        const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            const int h = lane / 4 + 8 * r;
            const float all = lanes_sum<4>(rows.total[0][r]);
            if (h >= n_heads) continue;
            if (lane % 4 == 0) most[warp][h] = rows.most[0][r] * scale2, total[warp][h] = all;
#pragma unroll
            for (int n = 0; n < D / 8; n++)
                *reinterpret_cast<float2 *>(&sum[warp][h][8 * n + lane % 4 * 2]) =
                    make_float2(x[0][n][2 * r], x[0][n][2 * r + 1]);
        }
    }

    __device__ void add_up(const partials &to, int64_t row, int head, int share, int n_heads) const
    {
        for (int i = threadIdx.x; i < n_heads * (D / 4); i += TILE_THREADS) {
            const int h = i / (D / 4), d = i % (D / 4) * 4;
            float top = -INFINITY, all = 0;
            float4 y = make_float4(0, 0, 0, 0);
#pragma unroll
            for (int w = 0; w < TILE_WARPS; w++) top = fmaxf(top, most[w][h]);
#pragma unroll
            for (int w = 0; w < TILE_WARPS; w++) {
                const float keep = exp2_fast(most[w][h] - top);
                const float4 x = *reinterpret_cast<const float4 *>(&sum[w][h][d]);
                all += total[w][h] * keep;
                y.x += x.x * keep, y.y += x.y * keep, y.z += x.z * keep, y.w += x.w * keep;
            }
            float *p = to.at(row, head + h, share);
            if (d == 0) *reinterpret_cast<float2 *>(p) = make_float2(top, all);
            if (d < to.head_dim) *reinterpret_cast<float4 *>(p + 4 + d) = y;
        }
    }
};

/* blocks: (share, KV head and HEADS of its group, row) */
template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, 3)
share_kernel(partials to, view<T> q, view<T> k_cache, view<T> v_cache, const int32_t *seq, const int32_t *pos,
                 int64_t max_len, cached_heads heads)
{
    extern __shared__ uint4 shared[];
    let_next_start();
    wait_for_previous();
    const int row = blockIdx.z, share = blockIdx.x;
    const int64_t first_row = seq[row] * max_len;
    const cut keys(pos[row], to.n_shares);
    const int begin = share * keys.length, end = min(begin + keys.length, keys.n_keys);
    if (begin >= end) return;

    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, head_dim = heads.head_dim;
    const int kv_head = blockIdx.y / heads.blocks_of_group, before = blockIdx.y % heads.blocks_of_group * HEADS;
    const int head = kv_head * heads.group + before, n_heads = min((int)HEADS, heads.group - before);
    const int n_steps = (end - begin + STEP - 1) / STEP;
    const uint32_t q_tile = (uint32_t)__cvta_generic_to_shared(shared);
    const uint32_t stages = q_tile + tile_bytes<D>(HEADS) + warp * warp_bytes<D>();
    const T *k = k_cache.at(first_row, kv_head * head_dim), *v = v_cache.at(first_row, kv_head * head_dim);

    auto load_keys = [&](int step) { /* this warp's 16 of the step's 64 */
                                     const uint32_t stage = stages + tile_bytes<D>(step % STAGES * 2 * KEYS);
                                     const int from = begin + step * STEP + warp * KEYS, n = end - from;
                                     if (step < n_steps) {
                                         load_tile<D, KEYS, WARP>(stage, k + from * k_cache.stride, k_cache.stride, n,
                                                                  head_dim, lane);
                                         load_tile<D, KEYS, WARP>(stage + tile_bytes<D>(KEYS),
                                                                  v + from * v_cache.stride, v_cache.stride, n,
                                                                  head_dim, lane);
                                     }
                                     copies_commit();
    };

    load_tile<D, HEADS, TILE_THREADS>(q_tile, q.at(row, head * head_dim), head_dim, n_heads, head_dim, threadIdx.x);
    copies_commit();
    for (int step = 0; step < STAGES; step++) load_keys(step);
    copies_wait<STAGES>();
    __syncthreads(); /* the queries are here */

    float sum[1][D / 8][4] = {};
    softmax_rows<1> rows;
    for (int step = 0; step < n_steps; step++) {
        const uint32_t stage = stages + tile_bytes<D>(step % STAGES * 2 * KEYS);
        const int missing_from = end - begin - step * STEP - warp * KEYS;
        copies_wait<STAGES - 1>();
        __syncwarp();
        float x[1][N][4] = {};
        add_dots<T, D>(x, q_tile, stage);
        if (missing_from < KEYS) hide_missing(x, missing_from);
        softmax_step(rows, x, sum, heads.scale * LOG2_E);
        add_mix<T, D>(sum, x, stage + tile_bytes<D>(KEYS));
        __syncwarp(); /* the stage may be filled again */
        load_keys(step + STAGES);
    }

    copies_wait<0>();
    __syncthreads(); /* nobody reads tiles any more: the warps' sums take their place */
    warp_sums<D> *sums = reinterpret_cast<warp_sums<D> *>(shared);
    static_assert(sizeof *sums <= shared_bytes<D>(), "the sums of the warps take the place of the tiles");
    sums->put(n_heads, rows, sum, heads.scale * LOG2_E);
    __syncthreads();
    sums->add_up(to, row, head, share, n_heads);
}

/* blocks: (head, row).  Warps take every eighth share, a lane four features. */
template <typename T>
__global__ void __launch_bounds__(SUM_WARPS *WARP) add_shares_kernel(view<T> att, partials from, const int32_t *pos)
{
    __shared__ float4 sums[SUM_WARPS][WARP];
    let_next_start();
    wait_for_previous();
    const int row = blockIdx.y, head = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const cut keys(pos[row], from.n_shares);
    const int n_shares = (keys.n_keys + keys.length - 1) / keys.length, stride = from.head_dim + 4;
    const float *first = from.at(row, head, 0);
    float2 stats[2]; /* most, total of shares `lane` and `lane` + 32 */

#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int share = lane + i * WARP;
        stats[i] =
            share < n_shares ? *reinterpret_cast<const float2 *>(first + share * stride) : make_float2(-INFINITY, 0);
    }
    const float *features = first + 4 + min(lane * 4, from.head_dim - 4);
    float4 x[MAX_SHARES / SUM_WARPS]; /* all under way at once; past the last share the last one again, with weight 0 */
#pragma unroll
    for (int i = 0; i < MAX_SHARES / SUM_WARPS; i++)
        x[i] = *reinterpret_cast<const float4 *>(features + min(warp + i * SUM_WARPS, n_shares - 1) * stride);
    float top = fmaxf(stats[0].x, stats[1].x);
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(all_lanes, top, step));
    const float keep[2] = {exp2_fast(stats[0].x - top), exp2_fast(stats[1].x - top)};
    const float all = lanes_sum(stats[0].y * keep[0] + stats[1].y * keep[1]);
    float4 y = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int i = 0; i < MAX_SHARES / SUM_WARPS; i++) {
        const int share = warp + i * SUM_WARPS;
        const float w = __shfl_sync(all_lanes, keep[i * SUM_WARPS / WARP], share % WARP);
        y.x += x[i].x * w, y.y += x[i].y * w, y.z += x[i].z * w, y.w += x[i].w * w;
    }
    sums[warp][lane] = y;
    __syncthreads();

    const int d = threadIdx.x;
    if (d >= from.head_dim) return;
    float total = 0;
#pragma unroll
    for (int w = 0; w < SUM_WARPS; w++) total += reinterpret_cast<const float *>(sums[w])[d];
    *att.at(row, head * from.head_dim + d) = from_float<T>(total / all);
}

template <typename T, int D>
void attend_by_shares(moai_device *dev, partials part, tensor att, tensor q, tensor k_cache, tensor v_cache,
                      const int32_t *seq, const int32_t *pos, int64_t max_len, head_shape s)
{
    const int group = (int)(s.n_heads / s.n_kv_heads), blocks_of_group = (group + HEADS - 1) / HEADS;
    const cached_heads heads = {part.head_dim, group, blocks_of_group, s.scale};
    const dim3 blocks((unsigned)part.n_shares, (unsigned)(s.n_kv_heads * blocks_of_group), (unsigned)q.rows);

    allow_shared(dev, "attend_cached", share_kernel<T, D>, shared_bytes<D>());
    launch(dev, "attend_cached", share_kernel<T, D>, blocks, TILE_THREADS, shared_bytes<D>(), part, view_of<T>(q),
           view_of<T>(k_cache), view_of<T>(v_cache), seq, pos, max_len, heads);
    launch(dev, "attend_cached", add_shares_kernel<T>, dim3((unsigned)s.n_heads, (unsigned)q.rows), SUM_WARPS * WARP, 0,
           view_of<T>(att), part, pos);
}

}  // namespace

bool attend_flash_cached(moai_device *dev, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                         const int32_t *pos, int64_t max_len, head_shape s)
{
    if (!tiles_take(q, attend_shape_of(s, 1, 1)) || !is_packed(q, k_cache, v_cache)) return false;
    if (max_len > INT32_MAX / 2) return false;

    const int n_shares = (int)min_i64((max_len + SHARE - 1) / SHARE, MAX_SHARES);
    partials part = {NULL, (int)s.n_heads, n_shares, (int)s.head_dim};
    const int64_t row_bytes = s.n_heads * n_shares * (s.head_dim + 4) * (int64_t)sizeof(float);
    const int64_t rows_at_once =
        min_i64(q.rows, min_i64(65535, max_i64(1, most_partial_bytes / row_bytes))); /* grid z */
    part.data = (float *)device_scratch_cuda(dev, (size_t)(rows_at_once * row_bytes));
    for (int64_t row = 0; row < q.rows; row += rows_at_once) {
        const int64_t n = min_i64(rows_at_once, q.rows - row);
        for_tiles(q.dt, s.head_dim, [&](auto t, auto d) {
            attend_by_shares<TYPE(t), WIDTH(d)>(dev, part, tensor_rows(att, row, n), tensor_rows(q, row, n), k_cache,
                                                v_cache, seq + row, pos + row, max_len, s);
        });
    }
    return true;
}
