/* attend_flash_backward.cu: the backward of attend_flash.cu, the formulas of attend_plain.cu, on the tensor cores.
 *
 * No sum is shared between blocks, so that the bits are the same every time: dq by blocks of 128 queries that walk over
 * keys, dk and dv by blocks of 64 keys that walk over the queries of all heads of their group.  The price is that
 * scores and dp are computed twice: 7 products instead of 5. */
#include "cuda/attend/attend.h"

#include "cuda/attend/attend_tiles.cuh"

namespace {

/* What both kernels need of a query: lse log2(e) and datt . att.  Stored as lse is: (batch, head, position). */
using query_stats = float2;

enum { LANES_A_ROW = MAX_TILE_DIM / PACK };

template <typename T>
__global__ void stats_kernel(query_stats *stats, view<T> datt, view<T> att, const float *lse, attend_shape s)
{
    const int64_t which = ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / LANES_A_ROW, row = which / s.n_heads,
                  head = which % s.n_heads;
    const int col = threadIdx.x % LANES_A_ROW * PACK;
    const bool exists = row < s.batch * s.seq_len;
    float a[PACK], b[PACK], dot = 0;

    if (exists && col < s.head_dim) {
        load<PACK>(a, datt.at(row, head * s.head_dim + col));
        load<PACK>(b, att.at(row, head * s.head_dim + col));
#pragma unroll
        for (int i = 0; i < PACK; i++) dot += a[i] * b[i];
    }
    dot = lanes_sum<LANES_A_ROW>(dot);
    if (exists && col == 0) {
        int64_t stat = (row / s.seq_len * s.n_heads + head) * s.seq_len + row % s.seq_len;
        stats[stat] = make_float2(lse[stat] * LOG2_E, dot);
    }
}

/* -- dq -- */

namespace by_query {

enum { QUERIES = 128, KEYS = 32, M = QUERIES / TILE_WARPS / 16, N = KEYS / 8 };

template <int D> __host__ __device__ constexpr uint32_t shared_bytes() { return tile_bytes<D>(2 * QUERIES + 4 * KEYS); }

/* x: scores become ds / scale = p (dp - delta) */
template <bool masked>
__device__ inline void score_gradients(float (&x)[M][N][4], const float (&dp)[M][N][4], const query_stats (&of)[M][2],
                                       float scale2, int behind)
{
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float p = exp2_fast(x[m][n][i] * scale2 - of[m][i / 2].x);
                if (masked && 8 * n + i % 2 > behind + 16 * m + 8 * (i / 2)) p = 0;
                x[m][n][i] = p * (dp[m][n][i] - of[m][i / 2].y);
            }
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, 2)
dq_kernel(view<T> dq, view<T> datt, view<T> q, view<T> k, view<T> v, const query_stats *stats, attend_shape s)
{
    extern __shared__ uint4 shared[];
    const uint32_t q_tile = (uint32_t)__cvta_generic_to_shared(shared), datt_tile = q_tile + tile_bytes<D>(QUERIES);
    const uint32_t kv_tiles = datt_tile + tile_bytes<D>(QUERIES);
    const query_tile at(s, QUERIES);
    const int warp = threadIdx.x / WARP, head_dim = (int)s.head_dim;
    const int seq_len = (int)s.seq_len, first = at.first + warp * 16 * M,
              n_queries = min(seq_len - at.first, (int)QUERIES); /* first: of the warp */
    const int n_tiles = (at.first + n_queries + KEYS - 1) / KEYS;
    const T *keys = k.at(at.first_row, at.kv_head * head_dim), *values = v.at(at.first_row, at.kv_head * head_dim);

    auto load_keys = [&](int j) {
        load_keys_values<D, KEYS>(kv_tiles, j, keys, k.stride, values, v.stride, seq_len, head_dim);
    };

    const int64_t first_row = at.first_row + at.first;
    load_tile<D, QUERIES, TILE_THREADS>(q_tile, q.at(first_row, at.head * head_dim), q.stride, n_queries, head_dim,
                                        threadIdx.x);
    load_tile<D, QUERIES, TILE_THREADS>(datt_tile, datt.at(first_row, at.head * head_dim), datt.stride, n_queries,
                                        head_dim, threadIdx.x);
    load_keys(0);

    float sum[M][D / 8][4] = {}, factor[M][2];
    query_stats of[M][2];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        int position = first + 8 * i + threadIdx.x % WARP / 4;
        of[i / 2][i % 2] = position < seq_len ? stats[at.stat + position] : make_float2(0, 0);
        factor[i / 2][i % 2] = s.scale;
    }
    for (int j = 0; j < n_tiles; j++) {
        const uint32_t tile = kv_tiles + tile_bytes<D>(j % 2 * 2 * KEYS);
        const int first_key = j * KEYS;
        const int behind = first - first_key + (int)threadIdx.x % WARP / 4 - (int)threadIdx.x % 4 * 2;
        copies_wait<0>();
        __syncthreads(); /* tile j is here, and nobody reads tile j - 1 any more */
        if (j + 1 < n_tiles) load_keys(j + 1);
        if (first_key >= first + 16 * M) continue; /* all in this warp's future */
        float x[M][N][4] = {}, dp[M][N][4] = {};
        add_dots<T, D>(x, q_tile + tile_bytes<D>(warp * 16 * M), tile);
        add_dots<T, D>(dp, datt_tile + tile_bytes<D>(warp * 16 * M), tile + tile_bytes<D>(KEYS));
        if (first_key + KEYS - 1 > first)
            score_gradients<true>(x, dp, of, s.scale * LOG2_E, behind);
        else
            score_gradients<false>(x, dp, of, s.scale * LOG2_E, behind);
        add_mix<T, D>(sum, x, tile);
    }
    store_rows<T>(dq.at(at.first_row, at.head * head_dim), dq.stride, first, seq_len, head_dim, sum, factor);
}

}  // namespace by_query

/* -- dk, dv: everything is transposed, rows are keys and columns queries -- */

namespace by_key {

enum { KEYS = 64, QUERIES = 64, M = KEYS / TILE_WARPS / 16, N = QUERIES / 8 };
static_assert(M == 1, "a warp has registers for the sums of 16 keys");

template <int D> __host__ __device__ constexpr uint32_t stage_bytes()
{
    return tile_bytes<D>(2 * QUERIES) + QUERIES * sizeof(query_stats);
}
template <int D> __host__ __device__ constexpr uint32_t shared_bytes()
{
    return tile_bytes<D>(2 * KEYS) + 2 * stage_bytes<D>();
}

/* x: scores become weights.  Row g and column 2t of x[0][0] are `ahead` apart: the query's position minus the key's. */
template <bool masked>
__device__ inline void weights_of(float (&x)[M][N][4], const query_stats *stats, float scale2, int ahead)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float4 two = *reinterpret_cast<const float4 *>(stats + 8 * n + threadIdx.x % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float p = exp2_fast(x[0][n][i] * scale2 - (i % 2 ? two.z : two.x));
            x[0][n][i] = masked && ahead + 8 * n + i % 2 - i / 2 * 8 < 0 ? 0.0f : p;
        }
    }
}

/* x: weights become ds / scale = p (dp - delta) */
__device__ inline void score_gradients(float (&x)[M][N][4], const float (&dp)[M][N][4], const query_stats *stats)
{
#pragma unroll
    for (int n = 0; n < N; n++) {
        const float4 two = *reinterpret_cast<const float4 *>(stats + 8 * n + threadIdx.x % 4 * 2);
#pragma unroll
        for (int i = 0; i < 4; i++) x[0][n][i] *= dp[0][n][i] - (i % 2 ? two.w : two.y);
    }
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, 2)
dkv_kernel(view<T> dk, view<T> dv, view<T> datt, view<T> q, view<T> k, view<T> v, const query_stats *stats,
               attend_shape s)
{
    extern __shared__ uint4 shared[];
    const uint32_t k_tile = (uint32_t)__cvta_generic_to_shared(shared), v_tile = k_tile + tile_bytes<D>(KEYS);
    const uint32_t stages = v_tile + tile_bytes<D>(KEYS);
    const int warp = threadIdx.x / WARP, head_dim = (int)s.head_dim;
    const int64_t kv_heads = s.n_kv_heads * s.batch, seq = blockIdx.x % kv_heads / s.n_kv_heads,
                  kv_head = blockIdx.x % s.n_kv_heads;
    const int64_t first_row = seq * s.seq_len, group = s.n_heads / s.n_kv_heads;
    const int seq_len = (int)s.seq_len, first = (int)(blockIdx.x / kv_heads) * KEYS;
    const int n_tiles = (seq_len - first + QUERIES - 1) / QUERIES, n_steps = n_tiles * (int)group; /* KEYS == QUERIES */

    /* step: head step / n_tiles of the group, queries from `first` + step % n_tiles * QUERIES on */
    auto load_queries = [&](int step) {
        const uint32_t stage = stages + step % 2 * stage_bytes<D>();
        const int64_t head = kv_head * group + step / n_tiles;
        const int from = first + step % n_tiles * QUERIES, n_rows = seq_len - from;
        load_tile<D, QUERIES, TILE_THREADS>(stage, q.at(first_row + from, head * head_dim), q.stride, n_rows, head_dim,
                                            threadIdx.x);
        load_tile<D, QUERIES, TILE_THREADS>(stage + tile_bytes<D>(QUERIES), datt.at(first_row + from, head * head_dim),
                                            datt.stride, n_rows, head_dim, threadIdx.x);
        if (threadIdx.x < QUERIES) {
            const query_stats *of = stats + (seq * s.n_heads + head) * s.seq_len + from;
            const bool exists = (int)threadIdx.x < n_rows;
            copy_async<sizeof(query_stats)>(stage + tile_bytes<D>(2 * QUERIES) + threadIdx.x * sizeof(query_stats),
                                            exists ? of + threadIdx.x : of, exists);
        }
        copies_commit();
    };

    load_tile<D, KEYS, TILE_THREADS>(k_tile, k.at(first_row + first, kv_head * head_dim), k.stride, seq_len - first,
                                     head_dim, threadIdx.x);
    load_tile<D, KEYS, TILE_THREADS>(v_tile, v.at(first_row + first, kv_head * head_dim), v.stride, seq_len - first,
                                     head_dim, threadIdx.x);
    load_queries(0);

    float sum_k[M][D / 8][4] = {}, sum_v[M][D / 8][4] = {};
    for (int step = 0; step < n_steps; step++) {
        const uint32_t q_tile = stages + step % 2 * stage_bytes<D>(), datt_tile = q_tile + tile_bytes<D>(QUERIES);
        const query_stats *of = reinterpret_cast<const query_stats *>(reinterpret_cast<const char *>(shared) +
                                                                      (q_tile - k_tile) + tile_bytes<D>(2 * QUERIES));
        copies_wait<0>();
        __syncthreads(); /* these queries are here, and nobody reads the last ones any more */
        if (step + 1 < n_steps) load_queries(step + 1);
        float x[M][N][4] = {}, dp[M][N][4] = {};
        add_dots<T, D>(x, k_tile + tile_bytes<D>(warp * 16), q_tile);
        if (step % n_tiles == 0)
            weights_of<true>(x, of, s.scale * LOG2_E,
                             (int)threadIdx.x % 4 * 2 - (int)threadIdx.x % WARP / 4 - warp * 16);
        else
            weights_of<false>(x, of, s.scale * LOG2_E, 0);
        add_mix<T, D>(sum_v, x, datt_tile);
        add_dots<T, D>(dp, v_tile + tile_bytes<D>(warp * 16), datt_tile);
        score_gradients(x, dp, of);
        add_mix<T, D>(sum_k, x, q_tile);
    }
    const float scale[M][2] = {{s.scale, s.scale}}, one[M][2] = {{1.0f, 1.0f}};
    store_rows<T>(dk.at(first_row, kv_head * head_dim), dk.stride, first + warp * 16, seq_len, head_dim, sum_k, scale);
    store_rows<T>(dv.at(first_row, kv_head * head_dim), dv.stride, first + warp * 16, seq_len, head_dim, sum_v, one);
}

}  // namespace by_key

}  // namespace

bool attend_flash_backward(moai_device *dev, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape s)
{
    const char *const op = "attend_backward";

    if (!tiles_take(q, s) || !is_packed(dq, dk, dv, datt, q, k, v, att)) return false;
    const int64_t n_stats = s.batch * s.n_heads * s.seq_len;
    query_stats *stats = (query_stats *)device_scratch_cuda(dev, (size_t)n_stats * sizeof *stats);
    for_tiles(q.dt, s.head_dim, [&](auto t, auto d) {
        using T = TYPE(t);
        constexpr int D = WIDTH(d);
        auto by_queries = by_query::dq_kernel<T, D>;
        auto by_keys = by_key::dkv_kernel<T, D>;
        constexpr uint32_t query_bytes = by_query::shared_bytes<D>(), key_bytes = by_key::shared_bytes<D>();
        allow_shared(dev, op, by_queries, query_bytes);
        allow_shared(dev, op, by_keys, key_bytes);
        stats_kernel<T><<<tile_blocks(op, n_stats, BLOCK / LANES_A_ROW, 1), BLOCK, 0, dev->stream>>>(
            stats, view_of<T>(datt), view_of<T>(att), lse, s);
        LAUNCH_CHECK(op);
        by_keys<<<tile_blocks(op, s.seq_len, by_key::KEYS, s.n_kv_heads * s.batch), TILE_THREADS, key_bytes,
                  dev->stream>>>(view_of<T>(dk), view_of<T>(dv), view_of<T>(datt), view_of<T>(q), view_of<T>(k),
                                 view_of<T>(v), stats, s);
        LAUNCH_CHECK(op);
        by_queries<<<tile_blocks(op, s.seq_len, by_query::QUERIES, s.n_heads * s.batch), TILE_THREADS, query_bytes,
                     dev->stream>>>(view_of<T>(dq), view_of<T>(datt), view_of<T>(q), view_of<T>(k), view_of<T>(v),
                                    stats, s);
    });
    LAUNCH_CHECK(op);
    return true;
}
