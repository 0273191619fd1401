/* thin.cuh: products of many rows with few columns, in 16-bit types, in one reading of the wide matrix: an adapter's
 * backward, dlow = dy B and db = dy^T low, for ranks of 8, 16, 24 and 32; and the second alone, turned, for a map of
 * few rows.
 *
 * A block takes some rows of dy and eight warps' columns, each warp its own, which come through shared memory a tile of
 * 16 rows at a time.  As rows of mma.m16n8k16 the tile meets B (held in registers) and gives a part of dlow; turned by
 * ldmatrix.trans, its columns are the rows that meet low, and db's sums stay in registers until the last tile.  Parts
 * of dlow are added over the warps in shared memory, over blocks beside each other, as those of db over blocks below
 * each other, by a second kernel: in a fixed order. */
#ifndef MOAI_THIN_CUH
#define MOAI_THIN_CUH

#include "cuda/kernels.cuh"

namespace {

enum { TILE_ROWS = 16, N_WARPS = 8, STAGES = 5, FEWEST_COLS = 2048 };

/* Of a rank of 8 NT; a warp has WARP_COLS columns.  BOTH products; else db alone. */
template <int NT, bool BOTH> struct shape {
    static constexpr int RANK = 8 * NT, WARP_COLS = NT <= 2 || !BOTH ? 128 : 64, BLOCK_COLS = N_WARPS * WARP_COLS,
                         CHUNKS = WARP_COLS / 8;              /* of 16 bytes in a row of a warp's tile */
};

template <int NT, bool BOTH> struct stage {
    /* chunk c of row r at c ^ (r & 7): ldmatrix meets all banks */
    uint4 dy[N_WARPS][TILE_ROWS][shape<NT, BOTH>::CHUNKS];
    uint4 low[N_WARPS][TILE_ROWS][NT];
};

template <int NT, bool BOTH> struct room {
    stage<NT, BOTH> stages[STAGES];
    float dlow[BOTH ? 2 : 1][BOTH ? N_WARPS : 1][TILE_ROWS][8 * NT];
};

template <typename T> struct arguments {
    view<const T> dy, b, low;
    float *dlow, *db;                         /* (column blocks, n_rows, RANK), (row blocks, n_cols, RANK); alone, db is
                                                 (row blocks, RANK, n_cols) */
    int n_rows, n_cols, rows_of_block;
};

template <typename T> __device__ uint32_t two(T low, T high)
{
    return (uint32_t)*reinterpret_cast<uint16_t *>(&low) | (uint32_t)*reinterpret_cast<uint16_t *>(&high) << 16;
}

/* Rows [row, row + TILE_ROWS) below `end`, of the warp's columns; what does not exist is zero. */
template <int NT, bool BOTH, typename T>
__device__ void load_tile(stage<NT, BOTH> &s, const arguments<T> &a, int row, int end, int col, int warp, int lane)
{
    constexpr int CHUNKS = shape<NT, BOTH>::CHUNKS;

#pragma unroll
    for (int i = lane; i < TILE_ROWS * CHUNKS; i += WARP) {
        const int r = i / CHUNKS, c = i % CHUNKS;
        const bool exists = row + r < end && col + 8 * c < a.n_cols;
        copy_async<16>(shared_address(&s.dy[warp][r][c ^ (r & 7)]),
                       a.dy.at(exists ? row + r : 0, exists ? col + 8 * c : 0), exists);
    }
    for (int i = lane; i < TILE_ROWS * NT; i += WARP) {
        const int r = i / NT, c = i % NT;
        const bool exists = row + r < end;
        copy_async<16>(shared_address(&s.low[warp][r][c]), a.low.at(exists ? row + r : 0, 8 * c), exists);
    }
}

/* Of a tile: its part of dlow (n_rows, RANK), added over the warps. */
template <int NT, typename T>
__device__ void add_dlow(float (&sums)[N_WARPS][TILE_ROWS][8 * NT], const float (&dlow)[NT][4], const arguments<T> &a,
                         int row0, int end)
{
    const int warp = threadIdx.x / WARP, g = threadIdx.x % WARP / 4, t = threadIdx.x % 4;

#pragma unroll
    for (int n = 0; n < NT; n++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            *reinterpret_cast<float2 *>(&sums[warp][g + 8 * h][8 * n + 2 * t]) =
                make_float2(dlow[n][2 * h], dlow[n][2 * h + 1]);
    __syncthreads();                          /* the sums of the tile before have been read by all who come here */
    for (int at = threadIdx.x; at < TILE_ROWS * 8 * NT; at += N_WARPS * WARP) {
        const int r = at / (8 * NT), row = row0 + r;
        float sum = 0;
#pragma unroll
        for (int w = 0; w < N_WARPS; w++) sum += sums[w][r][at % (8 * NT)];
        if (row < end) a.dlow[((int64_t)blockIdx.x * a.n_rows + row) * 8 * NT + at % (8 * NT)] = sum;
    }
}

template <int NT, bool BOTH, typename T>
__global__ void __launch_bounds__(N_WARPS *WARP, 1) thin_kernel(arguments<T> a)
{
    using S = shape<NT, BOTH>;
    constexpr int K_STEPS = S::WARP_COLS / 16;
    extern __shared__ uint4 shared[];
    room<NT, BOTH> &m = *reinterpret_cast<room<NT, BOTH> *>(shared);
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int col = blockIdx.x * S::BLOCK_COLS + warp * S::WARP_COLS, first = blockIdx.y * a.rows_of_block,
              end = min(first + a.rows_of_block, a.n_rows), n_tiles = (end - first + TILE_ROWS - 1) / TILE_ROWS;
    uint32_t b[BOTH ? K_STEPS : 1][NT][2];
    float db[K_STEPS][NT][4] = {};

    auto b_at = [&](int row, int c) { return row < a.n_cols ? *a.b.at(row, c) : T(0.0f); };
    let_next_start();
    wait_for_previous();
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < n_tiles) load_tile<NT, BOTH>(m.stages[s], a, first + s * TILE_ROWS, end, col, warp, lane);
        copies_commit();
    }
#pragma unroll
    for (int k = 0; BOTH && k < K_STEPS; k++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = col + 16 * k + 8 * h + 2 * t;
                b[k][n][h] = two(b_at(row, 8 * n + g), b_at(row + 1, 8 * n + g));
            }

    for (int i = 0; i < n_tiles; i++) {
        stage<NT, BOTH> &s = m.stages[i % STAGES];
        float dlow[NT][4] = {};
        uint32_t l[NT][2];

        copies_wait<STAGES - 2>();
        __syncwarp();
        const int next = i + STAGES - 1;      /* its place was read in the step before, by this warp alone */
        if (next < n_tiles)
            load_tile<NT, BOTH>(m.stages[next % STAGES], a, first + next * TILE_ROWS, end, col, warp, lane);
        copies_commit();
        const T *low = reinterpret_cast<const T *>(&s.low[warp][0][0]);
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const T *at = low + (8 * h + 2 * t) * S::RANK + 8 * n + g;
                l[n][h] = two(at[0], at[S::RANK]);
            }
#pragma unroll
        for (int k = 0; k < K_STEPS; k++) {
            uint32_t rows[4], cols[4];
            /* lane 8 i + j has the address of row j of the i-th matrix */
            const int r = lane % 16, c = 2 * k + lane / 16, rt = lane % 8 + lane / 16 * 8, ct = 2 * k + lane / 8 % 2;
            if (BOTH) load_matrices(rows, shared_address(&s.dy[warp][r][c ^ (r & 7)]));
            load_transposed(cols, shared_address(&s.dy[warp][rt][ct ^ (rt & 7)]));
#pragma unroll
            for (int n = 0; n < NT; n++) {
                if (BOTH) multiply_add<T>(dlow[n], rows, b[k][n][0], b[k][n][1]);
                multiply_add<T>(db[k][n], cols, l[n][0], l[n][1]);
            }
        }
        if constexpr (BOTH) add_dlow<NT>(m.dlow[i % 2], dlow, a, first + i * TILE_ROWS, end);
    }
    copies_wait<0>();
#pragma unroll
    for (int k = 0; k < K_STEPS; k++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int row = col + 16 * k + 8 * h + g;
                float *to = a.db + ((int64_t)blockIdx.y * a.n_cols + row) * S::RANK + 8 * n + 2 * t;
                if (row >= a.n_cols) continue;
                if (BOTH) {
                    *reinterpret_cast<float2 *>(to) = make_float2(db[k][n][2 * h], db[k][n][2 * h + 1]);
                    continue;
                }
                to = a.db + ((int64_t)blockIdx.y * S::RANK + 8 * n + 2 * t) * a.n_cols + row;
                to[0] = db[k][n][2 * h], to[a.n_cols] = db[k][n][2 * h + 1];
            }
}

/* Four neighbours of the sum of `n` parts of n_elem each. */
__device__ float4 sum_parts(const float *parts, int n, int64_t n_elem, int64_t at)
{
    float4 sum = *reinterpret_cast<const float4 *>(parts + at);

    for (int i = 1; i < n; i++) {
        const float4 part = *reinterpret_cast<const float4 *>(parts + i * n_elem + at);
        sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
    }
    return sum;
}

template <typename T> struct sums {
    const float *dlow_parts, *db_parts;
    int n_dlow_parts, n_db_parts, rank, db_cols;
    int64_t n_dlow, n_db;                     /* elements */
    view<T> dlow;
    view<float> db;
    bool accumulate;
};

template <typename T> __global__ void __launch_bounds__(BLOCK) sums_kernel(sums<T> a)
{
    int64_t at = 4 * ((int64_t)blockIdx.x * BLOCK + threadIdx.x);

    let_next_start();
    wait_for_previous();
    if (at < a.n_dlow) {
        const float4 s = sum_parts(a.dlow_parts, a.n_dlow_parts, a.n_dlow, at);
        const float v[4] = {s.x, s.y, s.z, s.w};
        store<4>(a.dlow.at(at / a.rank, at % a.rank), v);
        return;
    }
    at -= a.n_dlow;
    if (at >= a.n_db) return;
    const float4 s = sum_parts(a.db_parts, a.n_db_parts, a.n_db, at);
    float *to = a.db.at(at / a.db_cols, at % a.db_cols);
    const float v[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int i = 0; i < 4; i++) to[i] = a.accumulate ? to[i] + v[i] : v[i];
}

/* dlow.data NULL: db alone, turned: (RANK, n_cols). */
template <int NT, bool BOTH, typename T>
void thin_products(moai_device *dev, const char *op, tensor dlow, tensor db, tensor dy, tensor b, tensor low,
                   bool accumulate)
{
    using S = shape<NT, BOTH>;
    const int n_rows = (int)dy.rows, n_cols = (int)dy.cols, across = (n_cols + S::BLOCK_COLS - 1) / S::BLOCK_COLS,
              most_down = max(1, dev->n_sm / across), tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS,
              rows_of_block = (tiles + most_down - 1) / most_down * TILE_ROWS,
              down = (n_rows + rows_of_block - 1) / rows_of_block;
    const int64_t n_dlow = BOTH ? (int64_t)n_rows * S::RANK : 0, n_db = (int64_t)n_cols * S::RANK;
    float *parts =
        static_cast<float *>(device_scratch_cuda(dev, (size_t)(across * n_dlow + down * n_db) * sizeof(float)));
    const arguments<T> a = {view_of<const T>(dy), view_of<const T>(b), view_of<const T>(low), parts,
                            parts + across * n_dlow, n_rows, n_cols, rows_of_block};
    const sums<T> last = {a.dlow, a.db, across, down, S::RANK, (int)db.cols, n_dlow, n_db, view_of<T>(dlow),
                          view_of<float>(db), accumulate};
    auto kernel = thin_kernel<NT, BOTH, T>;

    allow_shared(dev, op, kernel, sizeof(room<NT, BOTH>));
    launch(dev, op, kernel, dim3((unsigned)across, (unsigned)down), N_WARPS * WARP, sizeof(room<NT, BOTH>), a);
    launch(dev, op, sums_kernel<T>, dim3((unsigned)((n_dlow + n_db + 4 * BLOCK - 1) / (4 * BLOCK))), BLOCK, 0, last);
}

}  // namespace

#endif
