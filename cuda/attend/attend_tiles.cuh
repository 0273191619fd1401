/* attend_tiles.cuh: what the flash kernels share: tiles in shared memory and their products on the tensor cores.
 *
 * A tile is some rows of one head, D features of 16 bits each: D is head_dim rounded up to 64 or 128, and what is past
 * head_dim or past the last row is zero.  16 bytes of a row, a chunk, are copied at once; chunk c of row r lies at
 * place c ^ (r % 8), so that the eight rows that ldmatrix reads together lie in different banks.
 *
 * Products are mma.m16n8k16 with fp32 sums.  A warp holds a (16 M, 8 N) matrix as x[M][N][4]: with g = lane / 4 and
 * t = lane % 4, x[m][n][0..1] is row 16m + g, columns 8n + 2t and 8n + 2t + 1; x[m][n][2..3] is row 16m + g + 8, the
 * same columns. */
#ifndef MOAI_ATTEND_TILES_CUH
#define MOAI_ATTEND_TILES_CUH

#include "cuda/kernels.cuh"

namespace {

enum { TILE_WARPS = 4, TILE_THREADS = TILE_WARPS * WARP, MAX_TILE_DIM = 128 };

static constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

__device__ inline float exp2_fast(float x) /* 2 ulp; 0 for -inf */
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* over the four lanes that share a row of x[M][N][4] */
__device__ inline float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(all_lanes, x, 1));
    return fmaxf(x, __shfl_xor_sync(all_lanes, x, 2));
}

/* -- tiles -- */

template <int D> __host__ __device__ constexpr uint32_t tile_bytes(int rows) { return (uint32_t)rows * D * 2; }
template <int D> __device__ inline uint32_t chunk_at(int row, int chunk)
{
    return tile_bytes<D>(row) + (uint32_t)((chunk ^ (row & 7)) << 4);
}

/* n_rows rows of a head, the first at `from`, into a tile of ROWS; by THREADS threads, this one being `thread`. */
template <int D, int ROWS, int THREADS, typename T>
__device__ inline void load_tile(uint32_t tile, const T *from, int64_t stride, int n_rows, int head_dim, int thread)
{
    constexpr int CHUNKS = D / 8;
    asm volatile("" : "+l"(stride)); /* else its multiples are kept in registers from one tile to the next */
#pragma unroll
    for (int i = 0; i < ROWS * CHUNKS / THREADS; i++) {
        int row = (i * THREADS + thread) / CHUNKS, chunk = (i * THREADS + thread) % CHUNKS;
        bool exists = row < n_rows && chunk * 8 < head_dim;
        copy_async<16>(tile + chunk_at<D>(row, chunk), exists ? from + row * stride + chunk * 8 : from, exists);
    }
}

/* Tile j of a sequence's keys, and of its values behind it, ROWS rows each; two such pairs take turns in memory. */
template <int D, int ROWS, typename T>
__device__ inline void load_keys_values(uint32_t tiles, int j, const T *keys, int64_t key_stride, const T *values,
                                        int64_t value_stride, int seq_len, int head_dim)
{
    const uint32_t tile = tiles + tile_bytes<D>(j % 2 * 2 * ROWS);
    const int64_t from = (int64_t)j * ROWS;
    const int n_rows = seq_len - j * ROWS;

    load_tile<D, ROWS, TILE_THREADS>(tile, keys + from * key_stride, key_stride, n_rows, head_dim, threadIdx.x);
    load_tile<D, ROWS, TILE_THREADS>(tile + tile_bytes<D>(ROWS), values + from * value_stride, value_stride, n_rows,
                                     head_dim, threadIdx.x);
    copies_commit();
}

/* -- products -- */

/* Where this lane points ldmatrix: four 8 x 8 matrices, 16 rows of two chunks, in the order (row block, chunk) = */
struct by_rows { /* 00 10 01 11: the left factor, and the right one when transposed */
    static __device__ int row() { return threadIdx.x & 15; }
    static __device__ int chunk() { return (threadIdx.x >> 4) & 1; }
};
struct by_chunks { /* 00 01 10 11: the right factor */
    static __device__ int row() { return (threadIdx.x & 7) + ((threadIdx.x >> 1) & 8); }
    static __device__ int chunk() { return (threadIdx.x >> 3) & 1; }
};
template <int D, typename order> __device__ inline uint32_t corner(uint32_t rows, int chunk_pair)
{
    const uint32_t first =
        rows + chunk_at<D>(order::row(), order::chunk()); /* tiles are aligned to a row's 2 D bytes */
    return first ^ (uint32_t)(chunk_pair << 5);
}

/* x (16 M, 8 N) += A B^T over the D features: A the 16 M rows from `a` on, B the 8 N rows from `b` on.  Both begin at
 * a multiple of 8 rows of their tiles. */
template <typename T, int D, int M, int N> __device__ inline void add_dots(float (&x)[M][N][4], uint32_t a, uint32_t b)
{
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) load_matrices(left[m], corner<D, by_rows>(a + tile_bytes<D>(16 * m), k));
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            uint32_t right[4];
            load_matrices(right, corner<D, by_chunks>(b + tile_bytes<D>(8 * n), k));
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply_add<T>(x[m][n], left[m], right[0], right[1]);
                multiply_add<T>(x[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* y (16 M, D) += w B: w (16 M, 8 N) the warp's weights, rounded to T; B the 8 N rows from `b` on. */
template <typename T, int D, int M, int N>
__device__ inline void add_mix(float (&y)[M][D / 8][4], const float (&w)[M][N][4], uint32_t b)
{
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t left[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                left[m][i] = pair_bits<T>(w[m][2 * k + i / 2][i % 2 * 2], w[m][2 * k + i / 2][i % 2 * 2 + 1]);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t right[4];
            load_transposed(right, corner<D, by_rows>(b + tile_bytes<D>(16 * k), n / 2));
#pragma unroll
            for (int m = 0; m < M; m++) {
                multiply_add<T>(y[m][n], left[m], right[0], right[1]);
                multiply_add<T>(y[m][n + 1], left[m], right[2], right[3]);
            }
        }
    }
}

/* -- online softmax of the rows of a warp -- */

/* Rows 16m + g and 16m + g + 8 of x[M][N][4] are [m][0] and [m][1]. */
template <int M> struct softmax_rows {
    float most[M][2];  /* scores seen, unscaled; the same in all four lanes of a row */
    float total[M][2]; /* of this lane's columns */

    __device__ softmax_rows()
    {
#pragma unroll
        for (int i = 0; i < 2 * M; i++) most[i / 2][i % 2] = -INFINITY, total[i / 2][i % 2] = 0;
    }
};

/* Scores become weights exp(scale (score - most)), and `sum`, mixed with older weights, is rescaled to the new maximum.
 * scale2 = scale log2(e).  A row whose scores were all -inf until now gets weights 0. */
template <int M, int N, int ND>
__device__ inline void softmax_step(softmax_rows<M> &rows, float (&x)[M][N][4], float (&sum)[M][ND][4], float scale2)
{
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float more = fmaxf(x[m][0][2 * r], x[m][0][2 * r + 1]);
#pragma unroll
            for (int n = 1; n < N; n++) more = fmaxf(more, fmaxf(x[m][n][2 * r], x[m][n][2 * r + 1]));
            more = fmaxf(rows.most[m][r], quad_max(more));
            const float origin = more == -INFINITY ? 0.0f : more * scale2,
                        keep = exp2_fast(rows.most[m][r] * scale2 - origin);
            float total = rows.total[m][r] * keep;
#pragma unroll
            for (int n = 0; n < N; n++) {
                x[m][n][2 * r] = exp2_fast(x[m][n][2 * r] * scale2 - origin);
                x[m][n][2 * r + 1] = exp2_fast(x[m][n][2 * r + 1] * scale2 - origin);
                total += x[m][n][2 * r] + x[m][n][2 * r + 1];
            }
            rows.most[m][r] = more;
            rows.total[m][r] = total;
#pragma unroll
            for (int n = 0; n < ND; n++) sum[m][n][2 * r] *= keep, sum[m][n][2 * r + 1] *= keep;
        }
    }
}

/* -- places and stores -- */

/* The warp's rows of a (rows, head_dim) head, `first` rows into it, of which n_rows exist: to = factor * x */
template <typename T, int M, int ND>
__device__ inline void store_rows(T *to, int64_t stride, int first, int n_rows, int head_dim,
                                  const float (&x)[M][ND][4], const float (&factor)[M][2])
{
    const int lane = threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int row = first + 16 * m + 8 * r + lane / 4;
            if (row >= n_rows) continue;
#pragma unroll
            for (int n = 0; n < ND; n++) {
                int col = 8 * n + lane % 4 * 2;
                if (col < head_dim)
                    *reinterpret_cast<uint32_t *>(to + row * stride + col) =
                        pair_bits<T>(x[m][n][2 * r] * factor[m][r], x[m][n][2 * r + 1] * factor[m][r]);
            }
        }
    }
}

/* What a block of forward and dq works at: `rows` queries of one head, from position `first` on.  The longest rows come
 * first, and the heads that share keys run side by side. */
struct query_tile {
    int64_t head, kv_head, first_row, stat; /* first_row: of the sequence; stat: its lse, position 0 */
    int first;

    __device__ query_tile(attend_shape s, int rows)
    {
        int64_t n_tiles = (s.seq_len + rows - 1) / rows, heads = s.n_heads * s.batch, which = blockIdx.x % heads,
                seq = which / s.n_heads;
        head = which % s.n_heads;
        kv_head = head / (s.n_heads / s.n_kv_heads);
        first_row = seq * s.seq_len;
        stat = which * s.seq_len;
        first = (int)(n_tiles - 1 - blockIdx.x / heads) * rows;
    }
};

inline bool tiles_take(tensor q, attend_shape s)
{
    return (q.dt == DT_BF16 || q.dt == DT_F16) && s.head_dim % PACK == 0 && s.head_dim <= MAX_TILE_DIM &&
           s.seq_len < 1 << 30;
}

/* launch(type_tag<T>, width<D>) */
template <typename F> void for_tiles(dtype dt, int64_t head_dim, F launch)
{
    auto with = [&](auto t) { head_dim <= 64 ? launch(t, width<64>()) : launch(t, width<128>()); };
    dt == DT_BF16 ? with(type_tag<__nv_bfloat16>()) : with(type_tag<__half>());
}

inline unsigned tile_blocks(const char *op, int64_t seq_len, int64_t rows, int64_t n_heads)
{
    int64_t n = (seq_len + rows - 1) / rows * n_heads;
    CHECK(n <= INT32_MAX, "%s: %lld tiles are more than one launch holds", op, (long long)n);
    return (unsigned)n;
}

}  // namespace

#endif
