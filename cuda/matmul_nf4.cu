/* matmul_nf4.cu: y = z + x W^T for few rows of x, W read in its 4 bits (nf4.h) and never made whole.
 *
 * As in matmul_few.cu the rows of x are those of mma.m16n8k16 (8 of 16 stay empty), 8 rows of W its columns, and the
 * order of features does not matter as long as x and W agree on it: of a block of 64, lane 4g + t has features 16t to
 * 16t + 15 of row g of W, 8 bytes of codes, and of row g of x.  A byte becomes a pair of numbers of the type by one look
 * into shared memory, where each lane has a table in its own bank; a block's sums are scaled once, in fp32.  The warps
 * share out the blocks of features, and their sums meet in the order of warps.  In fp32 a warp has a row of W, and its
 * lanes the features. */
#include "cuda/kernels.cuh"
#include "cuda/nf4.cuh"

namespace
{

enum { W_ROWS = 8, TILES = 2, COLS = TILES * W_ROWS, N_WARPS = 8, LANE_FEATURES = NF4_BLOCK / 4, AHEAD = 2 };

template <typename T, typename TY> struct few {
    view<const T> x;
    view<TY> y;
    view<const TY> z; /* data NULL: none */
    const uint8_t *codes;
    const float *absmax;
    int n, n_out, n_in; /* rows of x, of W, features */
    nf4_table table;
};

/* What a lane has of one block of features: its part of the tiles' rows g, and the scales of the two columns whose sums
 * it gets. */
struct lane_part {
    uint2 codes[TILES];
    float scale[TILES][2];
};

template <typename T, typename TY>
__device__ void load_codes(lane_part &to, const few<T, TY> &a, int first, int block, int g, int t)
{
    const int64_t n_blocks = a.n_in / NF4_BLOCK;
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        const int tile = first + i * W_ROWS, last = a.n_out - 1; /* beyond the last row: it again, and not stored */
        const int64_t at = (min(tile + g, last) * n_blocks + block) * NF4_BLOCK + t * LANE_FEATURES;
        to.codes[i] = __ldcs(reinterpret_cast<const uint2 *>(a.codes + at / 2));
#pragma unroll
        for (int h = 0; h < 2; h++)
            to.scale[i][h] = __ldg(a.absmax + min(tile + 2 * t + h, last) * n_blocks + block);
    }
}

template <typename T, typename TY>
__device__ void load_x(uint4 (&x)[2], const few<T, TY> &a, int block, int g, int t)
{
#pragma unroll
    for (int k = 0; k < 2; k++)
        x[k] = g < a.n ? *reinterpret_cast<const uint4 *>(a.x.at(g, block * NF4_BLOCK + t * LANE_FEATURES + 8 * k))
                       : make_uint4(0, 0, 0, 0);
}

/* The pair of byte `i` of a word: its high half is the first.  `mine` is the lane's column of the table. */
__device__ uint32_t pair_of(const char *mine, uint32_t word, int i)
{
    const uint32_t byte = i == 0 ? word << 7 : word >> (8 * i - 7);
    return *reinterpret_cast<const uint32_t *>(mine + (byte & 255 << 7));
}

template <typename T>
__device__ void add_block(float (&sum)[TILES][2], const lane_part &part, const uint4 (&x)[2], const char *mine)
{
#pragma unroll
    for (int i = 0; i < TILES; i++) {
        float block[4] = {};
#pragma unroll
        for (int k = 0; k < 2; k++) {
            const uint32_t low[4] = {x[k].x, 0, x[k].y, 0}, high[4] = {x[k].z, 0, x[k].w, 0},
                           word = k == 0 ? part.codes[i].x : part.codes[i].y;
            multiply_add<T>(block, low, pair_of(mine, word, 0), pair_of(mine, word, 1));
            multiply_add<T>(block, high, pair_of(mine, word, 2), pair_of(mine, word, 3));
        }
        for (int h = 0; h < 2; h++) sum[i][h] += part.scale[i][h] * block[h];
    }
}

/* 256 pairs, each once for every lane. */
template <typename T> __device__ void fill_table(uint4 *pairs, const float *value)
{
    enum { WORDS = WARP / 4 };
#pragma unroll
    for (int i = threadIdx.x; i < 256 * WORDS; i += N_WARPS * WARP) {
        const int byte = i / WORDS;
        const uint32_t pair = pair_bits<T>(value[byte >> 4], value[byte & 15]);
        pairs[i] = make_uint4(pair, pair, pair, pair);
    }
}

template <typename T, typename TY> __global__ void __launch_bounds__(N_WARPS *WARP, 4) few_nf4_kernel(few<T, TY> a)
{
    __shared__ uint4 pairs[256 * WARP / 4];
    __shared__ float sums[N_WARPS][NF4_FEW_ROWS][COLS + 1];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4,
              first = blockIdx.x * COLS, n_blocks = a.n_in / NF4_BLOCK, begin = n_blocks * warp / N_WARPS,
              end = n_blocks * (warp + 1) / N_WARPS;
    const char *mine = reinterpret_cast<const char *>(pairs) + lane * sizeof(uint32_t);
    float sum[TILES][2] = {};
    lane_part part[AHEAD];

    let_next_start();
#pragma unroll
    for (int i = 0; i < AHEAD; i++)
        if (begin + i < end) load_codes(part[i], a, first, begin + i, g, t);
    fill_table<T>(pairs, a.table.value);
    __syncthreads();
    wait_for_previous();
    for (int s = begin; s < end; s += AHEAD)
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            uint4 x[2];
            if (s + i >= end) break;
            load_x(x, a, s + i, g, t);
            add_block<T>(sum, part[i], x, mine);
            if (s + i + AHEAD < end) load_codes(part[i], a, first, s + i + AHEAD, g, t);
        }
#pragma unroll
    for (int i = 0; i < TILES; i++)
        for (int h = 0; h < 2; h++) sums[warp][g][i * W_ROWS + 2 * t + h] = sum[i][h];
    __syncthreads();
    for (int i = threadIdx.x; i < a.n * COLS; i += N_WARPS * WARP) {
        const int row = i / COLS, col = first + i % COLS;
        float total = 0;
        if (col >= a.n_out) continue;
#pragma unroll
        for (int v = 0; v < N_WARPS; v++) total += sums[v][row][i % COLS];
        if (a.z.data) total += to_float(*a.z.at(row, col));
        *a.y.at(row, col) = from_float<TY>(total);
    }
}

/* In fp32: exact values, and a sum of lanes. */
template <typename TY> __global__ void __launch_bounds__(N_WARPS *WARP) few_nf4_fp32_kernel(few<float, TY> a)
{
    __shared__ float value[16];
    const int lane = threadIdx.x % WARP, col = blockIdx.x * N_WARPS + threadIdx.x / WARP;
    float sum[NF4_FEW_ROWS] = {};

    let_next_start();
    if (threadIdx.x < 16) value[threadIdx.x] = a.table.value[threadIdx.x];
    __syncthreads();
    wait_for_previous();
    if (col >= a.n_out) return;
    for (int k = 2 * lane; k < a.n_in; k += 2 * WARP) {
        const int64_t at = (int64_t)col * a.n_in + k;
        const uint8_t pair = a.codes[at / 2];
        const float scale = __ldg(a.absmax + at / NF4_BLOCK), high = value[pair >> 4] * scale,
                    low = value[pair & 15] * scale;
        for (int i = 0; i < a.n; i++) sum[i] += high * *a.x.at(i, k) + low * *a.x.at(i, k + 1);
    }
    for (int i = 0; i < a.n; i++) {
        float total = lanes_sum(sum[i]);
        if (lane != 0) continue;
        if (a.z.data) total += to_float(*a.z.at(i, col));
        *a.y.at(i, col) = from_float<TY>(total);
    }
}

template <typename T, typename TY>
void launch_few(moai_device *dev, tensor y, tensor x, const uint8_t *codes, const float *absmax, tensor z)
{
    const few<T, TY> a = {view_of<const T>(x), view_of<TY>(y), view_of<const TY>(z), codes, absmax,
                          (int)x.rows,         (int)y.cols,    (int)x.cols,          nf4_table_of_values()};
    if constexpr (std::is_same_v<T, float>)
        launch(dev, "matmul_nf4", few_nf4_fp32_kernel<TY>, dim3((unsigned)((a.n_out + N_WARPS - 1) / N_WARPS)),
               N_WARPS * WARP, 0, a);
    else
        launch(dev, "matmul_nf4", few_nf4_kernel<T, TY>, dim3((unsigned)((a.n_out + COLS - 1) / COLS)), N_WARPS * WARP,
               0, a);
}

} // namespace

void matmul_nf4_cuda(moai_device *dev, tensor y, tensor x, const uint8_t *codes, const float *absmax, tensor z)
{
    CHECK(x.cols % NF4_BLOCK == 0 && y.rows == x.rows && (uintptr_t)codes % 16 == 0 &&
              (y.dt == x.dt || y.dt == DT_F32) && (x.dt == DT_F32 || is_packed(x)) && y.cols < INT32_MAX &&
              x.cols < INT32_MAX && (!z.data || z.dt == y.dt),
          "matmul_nf4: (%lld, %lld) = (%lld, %lld) W^T", (long long)y.rows, (long long)y.cols, (long long)x.rows,
          (long long)x.cols);
    for (int64_t row = 0; row < x.rows && y.cols > 0; row += NF4_FEW_ROWS) {
        const int64_t n = min_i64(NF4_FEW_ROWS, x.rows - row);
        const tensor ys = tensor_rows(y, row, n), xs = tensor_rows(x, row, n), zs = tensor_rows(z, row, n);
        for_type("matmul_nf4", x.dt, false, [&](auto t, auto) {
            using T = TYPE(t);
            if (y.dt == DT_F32)
                launch_few<T, float>(dev, ys, xs, codes, absmax, zs);
            else
                launch_few<T, T>(dev, ys, xs, codes, absmax, zs);
        });
    }
}
