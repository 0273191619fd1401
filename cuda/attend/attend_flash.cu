/* attend_flash.cu: attention by tiles with an online softmax on the tensor cores (arXiv 2205.14135, 2307.08691).
 *
 * A block takes 128 queries of one head, 32 a warp, and walks over the keys up to its diagonal 32 at a time; the next
 * tiles of keys and values arrive while it works on these. */
#include "cuda/attend/attend.h"

#include "cuda/attend/attend_tiles.cuh"

namespace {

enum { QUERIES = 128, KEYS = 32, M = QUERIES / TILE_WARPS / 16, N = KEYS / 8 };

template <int D> __host__ __device__ constexpr uint32_t shared_bytes() { return tile_bytes<D>(QUERIES + 4 * KEYS); }

/* Keys after the query do not count: row and column of x[0][0][0] for this warp. */
__device__ inline void mask_future(float (&x)[M][N][4], int first_query, int first_key)
{
    const int behind =
        first_query - first_key + (int)threadIdx.x % WARP / 4 - (int)threadIdx.x % 4 * 2; /* of row g, column 2t */
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (8 * n + i % 2 > behind + 16 * m + 8 * (i / 2)) x[m][n][i] = -INFINITY;
}

template <typename T, int D>
__global__ void __launch_bounds__(TILE_THREADS, 2)
forward_kernel(view<T> att, float *lse, view<T> q, view<T> k, view<T> v, attend_shape s)
{
    extern __shared__ uint4 shared[];
    const uint32_t q_tile = (uint32_t)__cvta_generic_to_shared(shared), kv_tiles = q_tile + tile_bytes<D>(QUERIES);
    const query_tile at(s, QUERIES);
    const int warp = threadIdx.x / WARP, head_dim = (int)s.head_dim;
    const int seq_len = (int)s.seq_len, first = at.first + warp * 16 * M,
              n_queries = min(seq_len - at.first, (int)QUERIES); /* first: of the warp */
    const int n_tiles = (at.first + n_queries + KEYS - 1) / KEYS;
    const uint32_t q_rows = q_tile + tile_bytes<D>(warp * 16 * M);
    const T *keys = k.at(at.first_row, at.kv_head * head_dim), *values = v.at(at.first_row, at.kv_head * head_dim);

    auto load_keys = [&](int j) {
        load_keys_values<D, KEYS>(kv_tiles, j, keys, k.stride, values, v.stride, seq_len, head_dim);
    };

    float sum[M][D / 8][4] = {};
    softmax_rows<M> rows;
    load_tile<D, QUERIES, TILE_THREADS>(q_tile, q.at(at.first_row + at.first, at.head * head_dim), q.stride, n_queries,
                                        head_dim, threadIdx.x);
    load_keys(0);
    for (int j = 0; j < n_tiles; j++) {
        const uint32_t tile = kv_tiles + tile_bytes<D>(j % 2 * 2 * KEYS);
        const int first_key = j * KEYS;
        copies_wait<0>();
        __syncthreads(); /* tile j is here, and nobody reads tile j - 1 any more */
        if (j + 1 < n_tiles) load_keys(j + 1);
        if (first_key >= first + 16 * M) continue; /* all in this warp's future */
        float x[M][N][4] = {};
        add_dots<T, D>(x, q_rows, tile);
        if (first_key + KEYS - 1 > first) mask_future(x, first, first_key);
        softmax_step(rows, x, sum, s.scale * LOG2_E);
        add_mix<T, D>(sum, x, tile + tile_bytes<D>(KEYS));
    }

    float factor[M][2];
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int m = i / 2, r = i % 2;
        const int position = first + 16 * m + 8 * r + threadIdx.x % WARP / 4;
        const float total = lanes_sum<4>(rows.total[m][r]);
        factor[m][r] = 1.0f / total;
        if (threadIdx.x % 4 == 0 && position < seq_len)
            lse[at.stat + position] = rows.most[m][r] * s.scale + logf(total);
    }
    store_rows<T>(att.at(at.first_row, at.head * head_dim), att.stride, first, seq_len, head_dim, sum, factor);
}

}  // namespace

bool attend_flash(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s)
{
    if (!tiles_take(q, s) || !is_packed(att, q, k, v)) return false;
    for_tiles(q.dt, s.head_dim, [&](auto t, auto d) {
        using T = TYPE(t);
        auto kernel = forward_kernel<T, WIDTH(d)>;
        constexpr uint32_t n_bytes = shared_bytes<WIDTH(d)>();
        allow_shared(dev, "attend", kernel, n_bytes);
        kernel<<<tile_blocks("attend", s.seq_len, QUERIES, s.n_heads * s.batch), TILE_THREADS, n_bytes, dev->stream>>>(
            view_of<T>(att), lse, view_of<T>(q), view_of<T>(k), view_of<T>(v), s);
    });
    LAUNCH_CHECK("attend");
    return true;
}
