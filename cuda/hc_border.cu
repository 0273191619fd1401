/* hc_border.cu: the passages between two branches of hyper-connections (hc_border.h)
 *
 *     forward     x' = merge(x, y), raw = fn x' and its squares     9 of the width of one stream are moved
 *                 coefficients                                      of one token by a thread
 *                 n = norm(read(x'))                                5
 *     backward    <x'_i, w dn>, <x'_i, u>                           5
 *                 draw                                              of one token by a thread
 *                 dx' += what reading gives; dx, dy of merging     15: x' is made again of x and y
 *
 * Where fn comes in, a block has a strip of columns of each stream, of which it keeps fn in shared memory, and takes tiles
 * of tokens, a warp its BORDER_STEP columns: so the products with fn, of 6 to 32 rows, cost no pass of their own.  What
 * the strips have is summed by the next kernel in their order.
 *
 * A lane of the tensor cores (multiply_add) holds token g = lane / 4, and of it the 8 columns from 8 (lane % 4) on, 16
 * bytes as they lie in memory: word t of them is columns 2t and 2t + 1.  They are given to the cores in that order, as
 * if it were the one that these expect, and fn likewise.  The backward's sums over columns, <x_i, G_j> and <y, G_j> of
 * the gradient G at what is merged, are such products too, of two tokens at a time, with G rounded as it would be if it
 * were stored. */
#include "cuda/hc_border.h"

namespace
{

enum { WARPS = 8, THREADS = 32 * WARPS, STRIP = WARPS * BORDER_STEP };
enum { BACK_WARPS = 6, BACK_THREADS = 32 * BACK_WARPS, BACK_STRIP = BACK_WARPS * BORDER_STEP };
enum { FORWARD_ROWS = 16, BACKWARD_ROWS = 8, TOKENS = 32, COEF_THREADS = 1024, RAW_THREADS = 256 };

constexpr int multiple_of_4(int n) { return (n + 3) / 4 * 4; }

__device__ uint4 fetch_16(const void *p) { return *static_cast<const uint4 *>(p); }
__device__ void store_16(void *p, uint4 v) { __stwb(static_cast<uint4 *>(p), v); }
__device__ uint32_t &word(uint4 &v, int i) { return reinterpret_cast<uint32_t *>(&v)[i]; }

/* the two numbers of 32 bits */
template <typename T> __device__ void unpack_pair(float (&x)[2], uint32_t pair)
{
    if constexpr (std::is_same_v<T, __half>) {
        const float2 f = __half22float2(*reinterpret_cast<const __half2 *>(&pair));
        x[0] = f.x, x[1] = f.y;
    } else {
        x[0] = __uint_as_float(pair << 16), x[1] = __uint_as_float(pair & 0xffff0000u);
    }
}

/* Where a thread is: token g of its warp's and the columns from `col` on, of a block whose strip is [begin, begin +
 * width), in which the warp's begin at c.  has: there are any. */
struct place {
    int warp, lane, g, q, begin, width, c, col;
    bool has;
};
template <int strip> __device__ place place_in(int H)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, begin = blockIdx.x * strip,
              width = min(strip, H - begin), c = BORDER_STEP * warp;

    return {warp, lane, lane / 4, lane % 4, begin, width, c, begin + c + lane % 4 * 8, c < width};
}

/* Coefficients of merging that are copied at once: they begin in the midst of a token's. */
template <int N> constexpr int at_once = N % 2 ? 1 : 2;

/* Two columns of a token's merged streams, rounded: as merge_kernel of hc.cu has them, to the bit. */
template <typename T, int N>
__device__ void merge_pair(uint32_t (&merged)[N], const float (&x)[N][2], const float (&y)[2], const float *post,
                           const float *comb)
{
#pragma unroll
    for (int j = 0; j < N; j++) {
        float sum[2];
#pragma unroll
        for (int e = 0; e < 2; e++) {
            sum[e] = __fmul_rn(post[j], y[e]);
#pragma unroll
            for (int i = 0; i < N; i++) sum[e] = __fmaf_rn(comb[i * N + j], x[i][e], sum[e]);
        }
        merged[j] = pair_bits<T>(sum[0], sum[1]);
    }
}

/* c += a b of 8 k; a's lower half of rows is zero */
template <typename T> __device__ void multiply_add_8(float (&c)[4], uint32_t a, uint32_t b)
{
    if constexpr (std::is_same_v<T, __half>)
        asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a), "r"(0), "r"(b));
    else
        asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a), "r"(0), "r"(b));
}

/* -- forward: raw and squares -- */

template <typename T> struct merge_project {
    view<T> out;
    float *sums;                                              /* (strips, rows, 8 R8 + 1): of raw, and of squares */
    view<const T> x, y;
    view<const float> merging;
    view<const T> fn;
    int64_t rows;
    int H, n_raw;
};

/* Its shared memory.  R8: n_raw by eights */
template <int N, int R8> struct project_room {
    static constexpr int fn_stride = N * STRIP + 32, n_packs = 2 * (N + 1), n_coef = N + N * N,
                         coef_stride = multiple_of_4(n_coef), n_sums = 8 * R8 + 1;
    uint4 stage[WARPS][n_packs][32];                          /* what each lane has asked for */
    uint16_t fn[8 * R8][fn_stride];
    float merging[2][FORWARD_ROWS][coef_stride];              /* of a tile, and of the next */
    float sums[WARPS][FORWARD_ROWS * n_sums];
};

template <typename T, int N, int R8, bool MERGES>
__global__ void __launch_bounds__(THREADS, 2) merge_project_kernel(merge_project<T> a)
{
    using room = project_room<N, R8>;
    extern __shared__ __align__(16) char shared[];
    room &m = *reinterpret_cast<room *>(shared);
    const auto [warp, lane, g, q, begin, width, c, col, has] = place_in<STRIP>(a.H);
    const int64_t n_tiles = (a.rows + FORWARD_ROWS - 1) / FORWARD_ROWS;
    constexpr int n_copies = room::n_coef / at_once<N>;
    static_assert(FORWARD_ROWS * n_copies <= THREADS, "one a thread");
    const int coef_row = threadIdx.x / n_copies, coef_at = threadIdx.x % n_copies * at_once<N>;

    auto row_of = [&](int64_t tile, int i) { return min(tile * FORWARD_ROWS + i, a.rows - 1); };
    auto ask = [&](int64_t tile, int turn) {
#pragma unroll
        for (int h = 0; has && h < 2; h++) {
            const int64_t row = row_of(tile, g + 8 * h);
            uint4(*to)[32] = m.stage[warp] + h * (N + 1);
#pragma unroll
            for (int i = 0; i < N; i++)
                copy_async<16>(shared_address(&to[i][lane]), a.x.at(row, (int64_t)i * a.H + col), true);
            if (MERGES) copy_async<16>(shared_address(&to[N][lane]), a.y.at(row, col), true);
        }
        if (MERGES && coef_row < FORWARD_ROWS)
            copy_async<4 * at_once<N>>(shared_address(&m.merging[turn][coef_row][coef_at]),
                                       a.merging.at(row_of(tile, coef_row), N + coef_at), true);
        copies_commit();
    };

    int64_t tile = blockIdx.y;
    ask(tile, 0);
    for (int p = threadIdx.x; p < 8 * R8 * N * (STRIP / 8); p += THREADS) {
        const int at = p % (STRIP / 8) * 8, i = p / (STRIP / 8) % N, k = p / (STRIP / 8) / N;
        const bool is = k < a.n_raw && at < width;
        *reinterpret_cast<uint4 *>(&m.fn[k][i * STRIP + at]) =
            is ? fetch_16(a.fn.at(k, (int64_t)i * a.H + begin + at)) : make_uint4(0, 0, 0, 0);
    }
    for (int turn = 0; tile < n_tiles; tile += gridDim.y, turn ^= 1) {
        const int64_t row0 = tile * FORWARD_ROWS;
        float raw[R8][4] = {}, squares[2] = {};
        uint4 x[2][N], y[2];

        copies_wait<0>();
        __syncthreads();
#pragma unroll
        for (int h = 0; has && h < 2; h++) {
#pragma unroll
            for (int i = 0; i < N; i++) x[h][i] = m.stage[warp][h * (N + 1) + i][lane];
            if (MERGES) y[h] = m.stage[warp][h * (N + 1) + N][lane];
        }
        if (tile + gridDim.y < n_tiles) ask(tile + gridDim.y, turn ^ 1);
        if (has) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float *post = m.merging[turn][g + 8 * h], *comb = post + N;
#pragma unroll
                for (int t = 0; t < 4; t++) {
                    if constexpr (MERGES) {
                        float xv[N][2], yv[2];
                        uint32_t merged[N];
#pragma unroll
                        for (int i = 0; i < N; i++) unpack_pair<T>(xv[i], word(x[h][i], t));
                        unpack_pair<T>(yv, word(y[h], t));
                        merge_pair<T>(merged, xv, yv, post, comb);
#pragma unroll
                        for (int j = 0; j < N; j++) word(x[h][j], t) = merged[j];
                    }
#pragma unroll
                    for (int j = 0; j < N; j++) {
                        float v[2];
                        unpack_pair<T>(v, word(x[h][j], t));
                        squares[h] += v[0] * v[0] + v[1] * v[1];
                    }
                }
#pragma unroll
                for (int j = 0; MERGES && j < N; j++)
                    if (row0 + g + 8 * h < a.rows)
                        store_16(a.out.at(row0 + g + 8 * h, (int64_t)j * a.H + col), x[h][j]);
            }
#pragma unroll
            for (int j = 0; j < N; j++)
#pragma unroll
                for (int r = 0; r < R8; r++) {
                    uint4 b = fetch_16(&m.fn[8 * r + g][j * STRIP + c + 8 * q]);
#pragma unroll
                    for (int s = 0; s < 2; s++)
                        multiply_add<T>(raw[r],
                                        {word(x[0][j], 2 * s), word(x[1][j], 2 * s), word(x[0][j], 2 * s + 1),
                                         word(x[1][j], 2 * s + 1)},
                                        word(b, 2 * s), word(b, 2 * s + 1));
                }
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float *to = m.sums[warp] + (g + 8 * h) * room::n_sums;
            const float sum = lanes_sum<4>(squares[h]);
            if (q == 0) to[8 * R8] = sum;
#pragma unroll
            for (int r = 0; r < R8; r++)
                to[8 * r + 2 * q] = raw[r][2 * h], to[8 * r + 2 * q + 1] = raw[r][2 * h + 1];
        }
        __syncthreads();
        const int n_sums = (int)min((int64_t)FORWARD_ROWS, a.rows - row0) * room::n_sums;
        float *to = a.sums + ((int64_t)blockIdx.x * a.rows + row0) * room::n_sums;
        for (int e = threadIdx.x; e < n_sums; e += THREADS) {
            float sum = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++) sum += m.sums[w][e];
            to[e] = sum;
        }
    }
}

/* -- forward: coefficients -- */

template <typename T> struct coefficients {
    view<float> coef, raw;
    float *r;
    const float *sums;                                        /* of strips, as above; stride = 8 R8 + 1 */
    const T *base, *scale;
    int64_t rows, cols;
    int n_strips, stride;
    hc_shape s;
};

/* s with what is known when this is compiled */
template <int N, bool PERMUTES> __device__ hc_shape known(hc_shape s)
{
    s.n = N, s.permutes = PERMUTES, s.reads_only = false;
    return s;
}

template <typename T, int N, bool PERMUTES>
__global__ void __launch_bounds__(COEF_THREADS) coefficients_kernel(coefficients<T> a)
{
    constexpr int n_coef = 2 * N + N * N;
    __shared__ float raw[TOKENS][BORDER_MOST_RAW + 1], coef[TOKENS][n_coef + 1], base[BORDER_MOST_RAW], scale[3],
        squares[TOKENS];
    const hc_shape s = known<N, PERMUTES>(a.s);
    const int n_raw = (int)hc_n_raw(s), me = threadIdx.x;
    const int64_t row0 = (int64_t)blockIdx.x * TOKENS;
    const int n_rows = (int)min((int64_t)TOKENS, a.rows - row0);

    wait_for_previous();
    for (int e = me; e < n_rows * a.stride; e += COEF_THREADS) {
        const int i = e / a.stride, k = e % a.stride;
        float sum = 0;
#pragma unroll 16
        for (int strip = 0; strip < a.n_strips; strip++)
            sum += a.sums[((int64_t)strip * a.rows + row0) * a.stride + e];
        if (k < n_raw) *a.raw.at(row0 + i, k) = raw[i][k] = sum;
        if (k == a.stride - 1) squares[i] = sum;
    }
    if (me < n_raw) base[me] = to_float(a.base[me]);
    if (me < 3) scale[me] = to_float(a.scale[me]);
    __syncthreads();
    if (me < n_rows) {
        const float r = a.r[row0 + me] = 1 / sqrtf(squares[me] / (float)a.cols + s.norm_eps);
        const hc_token t = {raw[me], base, scale, r, nullptr, 0};
        float mine[n_coef];
        hc_token_forward(mine, &t, s);
#pragma unroll
        for (int k = 0; k < n_coef; k++) coef[me][k] = mine[k];
    }
    __syncthreads();
    for (int e = me; e < n_rows * n_coef; e += COEF_THREADS)
        *a.coef.at(row0 + e / n_coef, e % n_coef) = coef[e / n_coef][e % n_coef];
}

/* -- reading, and its sums backward: a block takes one row after another, P packs a thread, and asks for the next one
 * before it sums over this -- */

enum { MAX_THREADS = 512 };

template <typename T, int P> struct row_part {
    int64_t H;
    __device__ int64_t col(int p) const { return ((int64_t)p * blockDim.x + threadIdx.x) * PACK; }
    __device__ bool has(int p) const { return col(p) < H; }
    __device__ void ask(uint4 (&x)[P], const T *row) const
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (has(p)) x[p] = fetch_16(row + col(p));
    }
    template <int N> __device__ void ask(uint4 (&x)[N][P], const T *row) const
    {
#pragma unroll
        for (int i = 0; i < N; i++) ask(x[i], row + i * H);
    }
};

template <typename T> struct read_norm {
    view<T> n1;
    float *rn;
    view<const T> x;
    view<const float> coef;
    const T *w;
    int64_t rows, H;
    float eps;
};

template <typename T, int N, int P>
__global__ void __launch_bounds__(MAX_THREADS, P == 1 ? 2 : 1) read_norm_kernel(read_norm<T> a)
{
    const row_part<T, P> my = {a.H};
    uint4 x[N][P], w[P];
    int64_t row = blockIdx.x;

    my.ask(w, a.w);
    my.ask(x, a.x.at(row, 0));
    for (int turn = 0; row < a.rows; turn ^= 1) {
        const int64_t next = row + gridDim.x;
        float u[P][4][2] = {}, squares = 0, pre[N];

#pragma unroll
        for (int i = 0; i < N; i++) pre[i] = *a.coef.at(row, i);
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int t = 0; my.has(p) && t < 4; t++) {
#pragma unroll
                for (int i = 0; i < N; i++) {
                    float v[2];
                    unpack_pair<T>(v, word(x[i][p], t));
                    u[p][t][0] += pre[i] * v[0], u[p][t][1] += pre[i] * v[1];
                }
                squares += u[p][t][0] * u[p][t][0] + u[p][t][1] * u[p][t][1];
            }
        if (next < a.rows) my.ask(x, a.x.at(next, 0));
        const float r = 1 / sqrtf(block_sum(squares, turn) / (float)a.H + a.eps);
        if (threadIdx.x == 0) a.rn[row] = r;
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            uint4 n1;
#pragma unroll
            for (int t = 0; t < 4; t++) {
                float v[2];
                unpack_pair<T>(v, word(w[p], t));
                word(n1, t) = pair_bits<T>(u[p][t][0] * r * v[0], u[p][t][1] * r * v[1]);
            }
            store_16(a.n1.at(row, my.col(p)), n1);
        }
        row = next;
    }
}

/* The first n of x become sums of one lane and the other: of the first n in one of them, of the next n in the other. */
template <int n, int V> __device__ void sum_of_two(float (&x)[V], int step)
{
    const bool upper = threadIdx.x & step;

#pragma unroll
    for (int v = 0; v < n; v++) {
        const float give = upper ? x[v] : x[v + n], keep = upper ? x[v + n] : x[v];
        x[v] = keep + __shfl_xor_sync(all_lanes, give, step);
    }
}

/* Sums over the block of V values, 4 or 8: thread v < V gets the v-th. */
template <int V> __device__ float block_sums(float (&x)[V], int turn)
{
    __shared__ float of_warp[2][MAX_THREADS / 32][V];
    constexpr int lanes = 32 / V;

    if constexpr (V >= 8) sum_of_two<V / 2>(x, 16), sum_of_two<V / 4>(x, 8), sum_of_two<V / 8>(x, 4);
    if constexpr (V == 4) sum_of_two<2>(x, 16), sum_of_two<1>(x, 8);
#pragma unroll
    for (int step = lanes / 2; step > 0; step /= 2) x[0] += __shfl_xor_sync(all_lanes, x[0], step);
    if (threadIdx.x % lanes == 0) of_warp[turn][threadIdx.x / 32][threadIdx.x % 32 / lanes] = x[0];
    __syncthreads();
    float sum = 0;
    for (int w = 0; threadIdx.x < V && w < (int)blockDim.x / 32; w++) sum += of_warp[turn][w][threadIdx.x];
    return sum;
}

template <typename T> struct read_sums {
    view<float> dpre, along;
    float *dw;                                                /* (blocks, H) */
    view<const T> dn, x;
    view<const float> coef;
    const T *w;
    const float *rn;
    int64_t rows, H;
};

/* a_i = <x_i, w dn>, b_i = <x_i, u>:  along = rn^3/H sum_i pre_i a_i,  dpre_i = rn a_i - along b_i */
template <typename T, int N, int P>
__global__ void __launch_bounds__(MAX_THREADS, P == 1 ? 2 : 1) read_sums_kernel(read_sums<T> a)
{
    constexpr int A = N <= 2 ? 2 : 4, V = 2 * A;
    const row_part<T, P> my = {a.H};
    uint4 x[N][P], dn[P], w[P];
    float dw[P][8] = {};
    int64_t row = blockIdx.x;

    my.ask(w, a.w);
    my.ask(x, a.x.at(row, 0));
    my.ask(dn, a.dn.at(row, 0));
    for (int turn = 0; row < a.rows; turn ^= 1) {
        const int64_t next = row + gridDim.x;
        float sums[V] = {}, pre[N];
        const float r = a.rn[row];

#pragma unroll
        for (int i = 0; i < N; i++) pre[i] = *a.coef.at(row, i);
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int t = 0; my.has(p) && t < 4; t++) {
                float xv[N][2], d[2], wv[2], u[2] = {};
                unpack_pair<T>(d, word(dn[p], t));
                unpack_pair<T>(wv, word(w[p], t));
#pragma unroll
                for (int i = 0; i < N; i++) {
                    unpack_pair<T>(xv[i], word(x[i][p], t));
                    u[0] += pre[i] * xv[i][0], u[1] += pre[i] * xv[i][1];
                }
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    dw[p][2 * t + e] += d[e] * u[e] * r;
                    d[e] *= wv[e];
#pragma unroll
                    for (int i = 0; i < N; i++) sums[i] += d[e] * xv[i][e], sums[A + i] += u[e] * xv[i][e];
                }
            }
        if (next < a.rows) my.ask(x, a.x.at(next, 0)), my.ask(dn, a.dn.at(next, 0));
        const float sum = block_sums<V>(sums, turn);
        if (threadIdx.x < V) {
            constexpr unsigned few = (1u << V) - 1;
            float dot = threadIdx.x < N ? *a.coef.at(row, threadIdx.x) * sum : 0;
#pragma unroll
            for (int step = A / 2; step > 0; step /= 2) dot += __shfl_xor_sync(few, dot, step);
            const float along = r * r * r / (float)a.H * __shfl_sync(few, dot, 0), b = __shfl_down_sync(few, sum, A);
            if (threadIdx.x < N) *a.dpre.at(row, threadIdx.x) = r * sum - along * b;
            if (threadIdx.x == 0) *a.along.at(row, 1) = along;
        }
        row = next;
    }
#pragma unroll
    for (int p = 0; p < P; p++)
        if (my.has(p)) store<8>(a.dw + blockIdx.x * a.H + my.col(p), dw[p]);
}

/* -- backward: of coefficients to raw -- */

template <typename T> struct raw_backward {
    view<float> along;
    view<T> draw;
    float *parameters;                                        /* (blocks, n_raw + 3) of dbase, dscale */
    view<const float> dcoef, raw;
    const float *r;
    const T *base, *scale;
    int64_t rows, cols;
    hc_shape s;
};

template <typename T, int N, bool PERMUTES>
__global__ void __launch_bounds__(RAW_THREADS) raw_backward_kernel(raw_backward<T> a)
{
    extern __shared__ __align__(16) char shared[];
    constexpr int n_coef = 2 * N + N * N;
    __shared__ float raw[TOKENS][BORDER_MOST_RAW + 1], dh[TOKENS][BORDER_MOST_RAW + 1], dcoef[TOKENS][n_coef + 1],
        base[BORDER_MOST_RAW], scale[3], rs[TOKENS];
    const hc_shape s = known<N, PERMUTES>(a.s);
    const int n_raw = (int)hc_n_raw(s), me = threadIdx.x;
    const int64_t row0 = (int64_t)blockIdx.x * TOKENS;
    const int n_rows = (int)min((int64_t)TOKENS, a.rows - row0);

    wait_for_previous();
    for (int e = me; e < n_rows * n_raw; e += RAW_THREADS)
        raw[e / n_raw][e % n_raw] = *a.raw.at(row0 + e / n_raw, e % n_raw);
    for (int e = me; e < n_rows * n_coef; e += RAW_THREADS)
        dcoef[e / n_coef][e % n_coef] = *a.dcoef.at(row0 + e / n_coef, e % n_coef);
    if (me < n_raw) base[me] = to_float(a.base[me]);
    if (me < 3) scale[me] = to_float(a.scale[me]);
    if (me < n_rows) rs[me] = a.r[row0 + me];
    __syncthreads();
    if (me < n_rows) {
        const float r = rs[me];
        const hc_token t = {raw[me], base, scale, r, reinterpret_cast<float *>(shared) + me, TOKENS};
        const float sum = hc_token_backward(dh[me], dcoef[me], &t, s);
        *a.along.at(row0 + me, 0) = r * r * r / (float)a.cols * sum;
    }
    __syncthreads();
    for (int e = me; e < n_rows * n_raw; e += RAW_THREADS) {
        const int i = e / n_raw, k = e % n_raw;
        *a.draw.at(row0 + i, k) = from_float<T>(scale[hc_group(N, k)] * rs[i] * dh[i][k]);
    }
    if (me >= WARP) return;
    float of_base = 0, of_scale = 0;
    for (int i = 0; me < n_raw && i < n_rows; i++) of_base += dh[i][me], of_scale += dh[i][me] * rs[i] * raw[i][me];
    float *parameters = a.parameters + (int64_t)blockIdx.x * (n_raw + 3);
    if (me < n_raw) parameters[me] = of_base;
#pragma unroll
    for (int group = 0; group < 3; group++) {
        const float sum = lanes_sum(me < n_raw && hc_group(N, me) == group ? of_scale : 0);
        if (me == 0) parameters[n_raw + group] = sum;
    }
}

/* dbase (n_raw) and dscale (3) += what the blocks have left, in their order.  NULL: not wanted */
__global__ void __launch_bounds__(1024)
    add_parameters_kernel(float *dbase, float *dscale, const float *parameters, int n_blocks, int n_raw)
{
    __shared__ float of_group[16][64];
    const int k = threadIdx.x, group = threadIdx.y, n = n_raw + 3;
    float sum = 0;

    wait_for_previous();
#pragma unroll 8
    for (int b = group; k < n && b < n_blocks; b += 16) sum += parameters[(int64_t)b * n + k];
    of_group[group][k] = sum;
    __syncthreads();
    float *to = k < n_raw ? dbase : dscale;
    if (group != 0 || k >= n || !to) return;
    for (int g = 1; g < 16; g++) sum += of_group[g][k];
    to[k < n_raw ? k : k - n_raw] += sum;
}

/* -- backward: from one branch to the one before -- */

template <typename T> struct pass_back {
    view<T> dx, dy;
    float *dots;                                              /* (strips, rows, N + N^2) */
    view<const T> dn, draw, fn;                               /* of the later branch, as are the next four */
    view<const float> pre, along;
    const float *rn;
    const T *w;
    view<const T> x, y;                                       /* where nothing is merged, x is the later one's */
    view<const float> coef;
    int64_t rows;
    int H, n_raw;
};

/* Its shared memory. */
template <int N, int R8> struct back_room {
    enum { PRE = 0, POST = N, COMB = 2 * N, RN = 2 * N + N * N, ALONG, N_COEF = ALONG + 2 };
    static constexpr int n_dots = N + N * N, n_sums = multiple_of_4(n_dots);
    uint4 xy[2][BACK_WARPS][N + 1][32];                       /* what each lane has asked for: of x and y, */
    uint4 dx[BACK_WARPS][N + 1][32];                          /* of dx and dn */
    uint4 G[BACK_WARPS][N][32];                               /* the gradient at what is merged */
    uint32_t fn[N][BACK_WARPS][4][32 * R8];                   /* pairs of rows, of columns 2t and 2t + 1 of 8: as b */
    float coef[2][BACKWARD_ROWS][multiple_of_4(N_COEF)];      /* of a tile, and of the next */
    uint4 draw[2][BACKWARD_ROWS][R8];                         /* likewise */
    float sums[2][BACK_WARPS][BACKWARD_ROWS][n_sums];              /* of a tile, and of the one before */
    uint16_t w[BACK_STRIP];
};

/* fn as b wants it: rows 2k and 2k + 1 of one column in a word; of eights of rows two and two lie together. */
template <typename T, int N, int R8>
__device__ void lay_fn(back_room<N, R8> &m, const pass_back<T> &a, int begin, int width)
{
    for (int p = threadIdx.x; p < 4 * R8 * N * (BACK_STRIP / 8); p += BACK_THREADS) {
        const int at = p % (BACK_STRIP / 8) * 8, i = p / (BACK_STRIP / 8) % N, k = p / (BACK_STRIP / 8) / N,
                  eight = k / 4;
        uint4 rows[2];
#pragma unroll
        for (int o = 0; o < 2; o++)
            rows[o] = 2 * k + o < a.n_raw && at < width ? fetch_16(a.fn.at(2 * k + o, (int64_t)i * a.H + begin + at))
                                                        : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            const int lane = 4 * (at % 32 / 8 * 2 + e % 2) + k % 4, t = e / 2;
            const bool is_single = R8 % 2 && eight == R8 - 1;
            const int to = is_single ? 32 * eight + lane : 64 * (eight / 2) + 2 * lane + eight % 2;
            m.fn[i][at / 32][t][to] = __byte_perm(word(rows[0], t), word(rows[1], t), e % 2 ? 0x7632 : 0x5410);
        }
    }
}

/* Asks for a tile's coefficients and draw: each warp for some of one kind. */
template <typename T, int N, int R8, bool IS_DUE, bool MERGES>
__device__ void ask_coef(back_room<N, R8> &m, const pass_back<T> &a, int row0, int turn)
{
    using room = back_room<N, R8>;
    constexpr int n_copies = (N + N * N) / at_once<N>, n_warps = (BACKWARD_ROWS * n_copies + 31) / 32;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    auto row = [&](int i) { return min(row0 + i, (int)a.rows - 1); };
    auto ask = [&](int i, int k, const float *from) {
        copy_async<4>(shared_address(&m.coef[turn][i][k]), from, true);
    };

    static_assert(n_warps + 3 <= BACK_WARPS, "a warp a kind");
    static_assert(BACKWARD_ROWS * N <= 32 && BACKWARD_ROWS * R8 <= 32, "one a thread");
    if (warp < n_warps) {
        const int i = threadIdx.x / n_copies, k = room::POST + threadIdx.x % n_copies * at_once<N>;
        if (MERGES && i < BACKWARD_ROWS)
            copy_async<4 * at_once<N>>(shared_address(&m.coef[turn][i][k]), a.coef.at(row(i), k), true);
    } else if (!IS_DUE) {
    } else if (warp == n_warps) {
        if (lane < BACKWARD_ROWS * N) ask(lane / N, lane % N, a.pre.at(row(lane / N), lane % N));
    } else if (warp == n_warps + 1) {
        const int i = lane / 2, k = lane % 2;
        if (i < BACKWARD_ROWS) ask(i, room::ALONG + k, a.along.at(row(i), k));
        if (lane < BACKWARD_ROWS) ask(lane, room::RN, a.rn + row(lane));
    } else if (warp == n_warps + 2 && lane < BACKWARD_ROWS * R8) {
        const int i = lane / R8, r = lane % R8;
        copy_async<16>(shared_address(&m.draw[turn][i][r]), a.draw.at(row(i), 8 * r), true);
    }
}

/* Two columns of a token: G, the gradient at its merged streams, of dx and of what is due. */
template <typename T, int N, int R8>
__device__ void add_due(float (&G)[N][2], const float (&later)[N][2], uint32_t dn, uint32_t w, const float *k)
{
    using room = back_room<N, R8>;
    float du[2], wv[2], u[2] = {};

    unpack_pair<T>(du, dn);
    unpack_pair<T>(wv, w);
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) u[e] += k[room::PRE + j] * later[j][e];
#pragma unroll
    for (int e = 0; e < 2; e++) du[e] = k[room::RN] * wv[e] * du[e] - k[room::ALONG + 1] * u[e];
#pragma unroll
    for (int j = 0; j < N; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) G[j][e] += k[room::PRE + j] * du[e] - k[room::ALONG] * later[j][e];
}

/* IS_DUE: there is a later branch; MERGES: there is an earlier one, and what is x and dx of the later one goes on to
 * its; else both end here. */
template <typename T, int N, int R8, bool IS_DUE, bool MERGES>
__global__ void __launch_bounds__(BACK_THREADS, 2) pass_back_kernel(pass_back<T> a)
{
    using room = back_room<N, R8>;
    extern __shared__ __align__(16) char shared[];
    room &m = *reinterpret_cast<room *>(shared);
    const auto [warp, lane, g, q, begin, width, c, col, has] = place_in<BACK_STRIP>(a.H);
    const int n_rows = (int)a.rows, n_tiles = (n_rows + BACKWARD_ROWS - 1) / BACKWARD_ROWS, n_down = gridDim.y;
    static_assert(BACKWARD_ROWS * room::n_dots <= BACK_THREADS, "one a thread");

    /* rows of a: a token's x_i and y, then the next one's; columns of b: its G_j, likewise */
    auto a_row = [&](int r) { return r < 2 * (N + 1) ? r : 0; };
    auto b_col = [&](int n) { return n < 2 * N ? n : 0; };
    const int ar = a_row(lane % 16), ai = ar % (N + 1), bn = b_col(lane % 8);
    const uint32_t a_rows = shared_address(&m.xy[0][warp][ai][4 * (ar / (N + 1)) + lane / 16]),
                   b_rows = shared_address(&m.G[warp][bn % N][4 * (bn / N) + lane / 8]);
    int dot_at[4];                                            /* among two tokens' sums; -1: of different tokens */
#pragma unroll
    for (int v = 0; v < 4; v++) {
        const int r = g + v / 2 * 8, n = 2 * q + v % 2, row = r % (N + 1);
        const bool is = r < 2 * (N + 1) && n < 2 * N && r / (N + 1) == n / N;
        dot_at[v] = is ? n / N * room::n_sums + (row < N ? N + row * N : 0) + n % N : -1;
    }

    auto ask = [&](int tile, int turn) {
        if (has) {
            const int row = min(tile * BACKWARD_ROWS + g, n_rows - 1);
#pragma unroll
            for (int i = 0; i < N; i++) {
                copy_async<16>(shared_address(&m.xy[turn][warp][i][lane]), a.x.at(row, i * a.H + col), true);
                copy_async<16>(shared_address(&m.dx[warp][i][lane]), a.dx.at(row, i * a.H + col), true);
            }
            if (MERGES) copy_async<16>(shared_address(&m.xy[turn][warp][N][lane]), a.y.at(row, col), true);
            if (IS_DUE) copy_async<16>(shared_address(&m.dx[warp][N][lane]), a.dn.at(row, col), true);
        }
        ask_coef<T, N, R8, IS_DUE, MERGES>(m, a, tile * BACKWARD_ROWS, turn);
        copies_commit();
    };
    auto add_dots = [&](int tile, int turn) {             /* what the warps have left of a tile */
        const int i = threadIdx.x / room::n_dots, v = threadIdx.x % room::n_dots, row0 = tile * BACKWARD_ROWS;
        if (i >= min((int)BACKWARD_ROWS, n_rows - row0)) return;
        float sum = 0;
#pragma unroll
        for (int o = 0; o < BACK_WARPS; o++) sum += m.sums[turn][o][i][v];
        a.dots[((int64_t)blockIdx.x * n_rows + row0) * room::n_dots + threadIdx.x] = sum;
    };

    int tile = blockIdx.y, turn = 0;
    ask(tile, 0);
    if (IS_DUE) lay_fn(m, a, begin, width);
    for (int at = threadIdx.x; IS_DUE && at < width; at += BACK_THREADS)
        m.w[at] = reinterpret_cast<const uint16_t *>(a.w)[begin + at];
    for (; tile < n_tiles; tile += n_down, turn ^= 1) {
        const int row = tile * BACKWARD_ROWS + g;
        uint32_t draw[R8];
        uint4 x[N], d[N], y, dn, Gs[N];

        copies_wait<0>();
        __syncthreads();
        if (MERGES && tile >= n_down) add_dots(tile - n_down, turn ^ 1);
#pragma unroll
        for (int r = 0; IS_DUE && r < R8; r++) {
            const int at = 8 * r + 2 * q;
            const uint32_t two = reinterpret_cast<const uint32_t *>(&m.draw[turn][g][r])[q];
            draw[r] = at >= a.n_raw ? 0 : at + 1 < a.n_raw ? two : two & 0xffff;
        }
        if (has) {
#pragma unroll
            for (int i = 0; i < N; i++) x[i] = m.xy[turn][warp][i][lane], d[i] = m.dx[warp][i][lane];
            if (MERGES) y = m.xy[turn][warp][N][lane];
            if (IS_DUE) dn = m.dx[warp][N][lane];
        }
        if (tile + n_down < n_tiles) ask(tile + n_down, turn ^ 1);
        if (has) {
            const float *k = m.coef[turn][g], *post = k + room::POST, *comb = k + room::COMB;
            uint4 w;
            if (IS_DUE) w = fetch_16(&m.w[c + 8 * q]);
#pragma unroll
            for (int t = 0; t < 4; t++) {                     /* two columns */
                float xv[N][2], yv[2], G[N][2], dy[2] = {};
                asm volatile("" ::: "memory");                 /* coefficients are read again rather than kept */
#pragma unroll
                for (int i = 0; i < N; i++) {
                    unpack_pair<T>(xv[i], word(x[i], t));
                    unpack_pair<T>(G[i], word(d[i], t));
                }
                if constexpr (MERGES) unpack_pair<T>(yv, word(y, t));
                if constexpr (IS_DUE) {
#pragma unroll
                    for (int i = 0; i < N; i++) {             /* += draw fn; the lower half is of no token */
                        const uint32_t *b = m.fn[i][warp][t];
                        float sum[4] = {G[i][0], G[i][1], 0, 0};
#pragma unroll
                        for (int s = 0; s < R8 / 2; s++) {
                            const uint2 two = *reinterpret_cast<const uint2 *>(b + 64 * s + 2 * lane);
                            multiply_add<T>(sum, {draw[2 * s], 0, draw[2 * s + 1], 0}, two.x, two.y);
                        }
                        if constexpr (R8 % 2) multiply_add_8<T>(sum, draw[R8 - 1], b[64 * (R8 / 2) + lane]);
                        G[i][0] = sum[0], G[i][1] = sum[1];
                    }
                    if constexpr (MERGES) {
                        uint32_t merged[N];
                        float later[N][2];
                        merge_pair<T>(merged, xv, yv, post, comb);
#pragma unroll
                        for (int j = 0; j < N; j++) unpack_pair<T>(later[j], merged[j]);
                        add_due<T, N, R8>(G, later, word(dn, t), word(w, t), k);
                    } else {
                        add_due<T, N, R8>(G, xv, word(dn, t), word(w, t), k);
                    }
                }
                if constexpr (MERGES) {
#pragma unroll
                    for (int j = 0; j < N; j++) {
#pragma unroll
                        for (int e = 0; e < 2; e++) dy[e] += post[j] * G[j][e];
                        word(Gs[j], t) = pair_bits<T>(G[j][0], G[j][1]);
                    }
                    word(y, t) = pair_bits<T>(dy[0], dy[1]);
                }
#pragma unroll
                for (int i = 0; i < N; i++) {
                    float to[2] = {G[i][0], G[i][1]};
                    if constexpr (MERGES) {
                        to[0] = to[1] = 0;
#pragma unroll
                        for (int j = 0; j < N; j++)
#pragma unroll
                            for (int e = 0; e < 2; e++) to[e] += comb[i * N + j] * G[j][e];
                    }
                    word(d[i], t) = pair_bits<T>(to[0], to[1]);
                }
            }
            if (row < n_rows) {
                if (MERGES) store_16(a.dy.at(row, col), y);
#pragma unroll
                for (int i = 0; i < N; i++) store_16(a.dx.at(row, i * a.H + col), d[i]);
            }
        }
        if constexpr (MERGES) {
#pragma unroll
            for (int j = 0; j < N; j++) m.G[warp][j][lane] = Gs[j];
            __syncwarp();
#pragma unroll
            for (int p = 0; p < 4; p++) {                     /* <x_i, G_j> and <y, G_j> of two tokens */
                uint32_t x0[4], x1[4], b[4];
                float c[4] = {};
                load_matrices(x0, a_rows + turn * (uint32_t)sizeof m.xy[0] + 8 * p * 16);
                load_matrices(x1, a_rows + turn * (uint32_t)sizeof m.xy[0] + (8 * p + 2) * 16);
                load_matrices(b, b_rows + 8 * p * 16);
                multiply_add<T>(c, x0, b[0], b[1]);
                multiply_add<T>(c, x1, b[2], b[3]);
#pragma unroll
                for (int v = 0; v < 4; v++)
                    if (dot_at[v] >= 0) (&m.sums[turn][warp][2 * p][0])[dot_at[v]] = has ? c[v] : 0;
            }
        }
    }
    if (!MERGES) return;
    __syncthreads();
    add_dots(tile - n_down, turn ^ 1);
}

/* dcoef's columns from `first` on, of what the strips have */
__global__ void __launch_bounds__(BLOCK)
    dots_kernel(view<float> dcoef, const float *dots, int n_strips, int64_t rows, int first, int n_dots)
{
    const int64_t e = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
    float sum = 0;

    wait_for_previous();
    if (e >= rows * n_dots) return;
#pragma unroll 8
    for (int strip = 0; strip < n_strips; strip++) sum += dots[strip * rows * n_dots + e];
    *dcoef.at(e / n_dots, first + e % n_dots) = sum;
}

/* -- launches -- */

/* f(a type's tag, integral constants of n and of n_raw by eights) */
template <typename F> void for_border(const char *op, dtype dt, int n, int64_t n_raw, F f)
{
    auto of_type = [&](auto t) {
        auto shape = [&](auto streams, auto eights) { f(t, streams, eights); };
        if (n == 2)
            shape(width<2>(), width<1>());
        else if (n == 3)
            shape(width<3>(), width<2>());
        else if (n_raw <= 24)
            shape(width<4>(), width<3>());
        else
            shape(width<4>(), width<4>());
    };
    if (dt == DT_BF16)
        of_type(type_tag<__nv_bfloat16>());
    else if (dt == DT_F16)
        of_type(type_tag<__half>());
    else
        die("%s: not for %s", op, dtype_name(dt));
}

int n_strips_of(int64_t H, int strip) { return (int)((H + strip - 1) / strip); }

/* One block or more of each strip. */
template <typename K>
dim3 strips_by_tiles(moai_device *dev, const char *op, K kernel, int n_threads, size_t n_shared, int n_strips,
                     int64_t n_tiles)
{
    allow_shared(dev, op, kernel, n_shared);
    const int64_t n_blocks = resident_blocks(dev, kernel, n_threads, n_shared);
    return dim3((unsigned)n_strips, (unsigned)max_i64(1, min_i64(n_tiles, n_blocks / n_strips)));
}

/* f(an integral constant of the packs a thread, threads) */
template <typename F> void for_row(int64_t H, F f)
{
    const int64_t n_packs = H / PACK;

    if (n_packs <= MAX_THREADS)
        f(width<1>(), (int)round_up(n_packs, WARP));
    else
        f(width<2>(), (int)round_up((n_packs + 1) / 2, WARP));
}

unsigned token_blocks(int64_t rows) { return (unsigned)((rows + TOKENS - 1) / TOKENS); }

} // namespace

void border_coefficients(moai_device *dev, tensor out, tensor coef, tensor raw, float *r, tensor x, tensor y,
                         tensor merging, tensor fn, tensor base, tensor scale, hc_shape s)
{
    const char *op = "hc_merge_coefficients";
    const int64_t n_raw = hc_n_raw(s), H = x.cols / s.n, n_tiles = (x.rows + FORWARD_ROWS - 1) / FORWARD_ROWS;
    const int n_strips = n_strips_of(H, STRIP);

    if (x.rows == 0) return;
    for_border(op, x.dt, s.n, n_raw, [&](auto t, auto streams, auto eights) {
        using T = TYPE(t);
        constexpr int n = WIDTH(streams), R8 = WIDTH(eights), stride = 8 * R8 + 1;
        constexpr size_t n_shared = sizeof(project_room<n, R8>);
        static_assert(n_shared <= BORDER_SHARED, "border_takes");
        float *sums = static_cast<float *>(
            device_scratch_cuda(dev, (size_t)(n_strips * x.rows * stride) * sizeof(float)));
        const merge_project<T> a = {view_of<T>(out), sums, view_of<const T>(x), view_of<const T>(y),
                                    view_of<const float>(merging), view_of<const T>(fn), x.rows, (int)H, (int)n_raw};
        auto kernel = y.data ? merge_project_kernel<T, n, R8, true> : merge_project_kernel<T, n, R8, false>;
        const dim3 blocks = strips_by_tiles(dev, op, kernel, THREADS, n_shared, n_strips, n_tiles);
        kernel<<<blocks, THREADS, n_shared, dev->stream>>>(a);
        LAUNCH_CHECK(op);
        const coefficients<T> b = {view_of<float>(coef), view_of<float>(raw), r, sums,
                                   static_cast<const T *>(base.data), static_cast<const T *>(scale.data), x.rows,
                                   x.cols, n_strips, stride, s};
        auto last = s.permutes ? coefficients_kernel<T, n, true> : coefficients_kernel<T, n, false>;
        launch_how(dev, op, true, last, dim3(token_blocks(x.rows)), dim3(COEF_THREADS), 0, b);
    });
}

void border_read_norm(moai_device *dev, tensor n1, float *rn, tensor x, tensor coef, tensor w, float eps, int n)
{
    const char *op = "hc_read_norm";
    const int64_t H = n1.cols;

    if (x.rows == 0) return;
    for_border(op, x.dt, n, 0, [&](auto t, auto streams, auto) {
        for_row(H, [&](auto packs, int n_threads) {
            using T = TYPE(t);
            auto kernel = read_norm_kernel<T, WIDTH(streams), WIDTH(packs)>;
            const read_norm<T> a = {view_of<T>(n1), rn, view_of<const T>(x), view_of<const float>(coef),
                                    static_cast<const T *>(w.data), x.rows, H, eps};
            const int64_t n_blocks = min_i64(x.rows, resident_blocks(dev, kernel, n_threads, 0));
            kernel<<<(unsigned)n_blocks, n_threads, 0, dev->stream>>>(a);
            LAUNCH_CHECK(op);
        });
    });
}

void border_read_backward(moai_device *dev, tensor dw, tensor dbase, tensor dscale, tensor dcoef, const hc_reading *a,
                          tensor raw, const float *r, tensor base, tensor scale, hc_shape s)
{
    const char *op = "hc_read_backward";
    const int64_t H = a->dn.cols, n_raw = hc_n_raw(s), rows = a->x.rows, n_blocks = token_blocks(rows);

    if (rows == 0) return;
    for_border(op, a->x.dt, s.n, n_raw, [&](auto t, auto streams, auto) {
        using T = TYPE(t);
        constexpr int n = WIDTH(streams);
        float *dw_partial = nullptr, *parameters = nullptr;
        int64_t n_rows = 0;                                   /* of dw_partial */
        for_row(H, [&](auto packs, int n_threads) {
            auto kernel = read_sums_kernel<T, n, WIDTH(packs)>;
            n_rows = min_i64(rows, resident_blocks(dev, kernel, n_threads, 0));
            const size_t n_scratch = (size_t)(n_rows * H + n_blocks * (n_raw + 3));
            dw_partial = static_cast<float *>(device_scratch_cuda(dev, n_scratch * sizeof(float)));
            parameters = dw_partial + n_rows * H;
            kernel<<<(unsigned)n_rows, n_threads, 0, dev->stream>>>(
                read_sums<T>{view_of<float>(dcoef), view_of<float>(a->along), dw_partial, view_of<const T>(a->dn),
                             view_of<const T>(a->x), view_of<const float>(a->coef),
                             static_cast<const T *>(a->w.data), a->rn, rows, H});
            LAUNCH_CHECK(op);
        });
        const size_t n_shared = (size_t)hc_n_sums(s) * TOKENS * sizeof(float);
        auto kernel = s.permutes ? raw_backward_kernel<T, n, true> : raw_backward_kernel<T, n, false>;
        allow_shared(dev, op, kernel, n_shared);
        launch_how(dev, op, true, kernel, dim3((unsigned)n_blocks), dim3(RAW_THREADS), n_shared,
                   raw_backward<T>{view_of<float>(a->along), view_of<T>(a->draw), parameters,
                                   view_of<const float>(dcoef), view_of<const float>(raw), r,
                                   static_cast<const T *>(base.data), static_cast<const T *>(scale.data), rows,
                                   a->x.cols, s});
        launch_how(dev, op, true, add_parameters_kernel, dim3(1), dim3(64, 16), 0, static_cast<float *>(dbase.data),
                   static_cast<float *>(dscale.data), parameters, (int)n_blocks, (int)n_raw);
        if (dw.data) add_partials(dev, static_cast<float *>(dw.data), nullptr, dw_partial, n_rows, H);
    });
}

void border_backward(moai_device *dev, const char *op, tensor dx, tensor dy, tensor dcoef, const hc_reading *later,
                     tensor x, tensor y, tensor coef, int n)
{
    const hc_reading none = {}, *due = later ? later : &none;
    const tensor from = y.data ? x : later->x;
    const int64_t H = dx.cols / n, n_raw = later ? later->fn.rows : 2 * n + n * n,
                  n_tiles = (dx.rows + BACKWARD_ROWS - 1) / BACKWARD_ROWS;
    const int n_strips = n_strips_of(H, BACK_STRIP), n_dots = n + n * n;

    if (dx.rows == 0) return;
    float *dots = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_strips * dx.rows * n_dots) * sizeof(float)));
    for_border(op, dx.dt, n, n_raw, [&](auto t, auto streams, auto eights) {
        using T = TYPE(t);
        constexpr int N = WIDTH(streams), R8 = WIDTH(eights);
        constexpr size_t n_shared = sizeof(back_room<N, R8>);
        static_assert(n_shared <= BORDER_SHARED, "border_takes");
        auto kernel = !later   ? pass_back_kernel<T, N, R8, false, true>
                      : y.data ? pass_back_kernel<T, N, R8, true, true>
                               : pass_back_kernel<T, N, R8, true, false>;
        const dim3 blocks = strips_by_tiles(dev, op, kernel, BACK_THREADS, n_shared, n_strips, n_tiles);
        kernel<<<blocks, BACK_THREADS, n_shared, dev->stream>>>(pass_back<T>{
            view_of<T>(dx), view_of<T>(dy), dots, view_of<const T>(due->dn), view_of<const T>(due->draw),
            view_of<const T>(due->fn), view_of<const float>(due->coef), view_of<const float>(due->along), due->rn,
            static_cast<const T *>(due->w.data), view_of<const T>(from), view_of<const T>(y),
            view_of<const float>(coef), dx.rows, (int)H, (int)n_raw});
        LAUNCH_CHECK(op);
    });
    if (!y.data) return;
    launch_how(dev, op, true, dots_kernel, dim3((unsigned)((dx.rows * n_dots + BLOCK - 1) / BLOCK)), dim3(BLOCK), 0,
               view_of<float>(dcoef), dots, n_strips, dx.rows, n, n_dots);
}
