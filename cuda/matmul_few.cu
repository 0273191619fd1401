/* matmul_few.cu: y = z + x W^T for up to 8 rows of x, in 16-bit types: as fast as the weights can be read.
 *
 * On the tensor cores the rows of x are those of mma.m16n8k16 (8 of 16 stay empty), 8 rows of W its columns.  Lane
 * 4g + t loads 16 bytes, features 8t to 8t + 7, of row g of either; as the instruction counts, those are features 2t,
 * 2t + 1, 2t + 8, 2t + 9 of two products.  Since x and W agree on it, the order of features does not matter to their
 * sum, and nothing is exchanged between lanes.  The warps of a block share out the features; their sums meet in the
 * order of warps.  A row's bits do not depend on the other rows. */
#include "cuda/matmul_few.h"

#include "cuda/kernels.cuh"

namespace {

enum { MAX_ROWS = 8, W_ROWS = 8, STEP = 32 }; /* of W in one product; features of a warp's load */

template <typename T, typename TY> struct few {
    view<const T> x, w;
    view<TY> y;
    const TY *z;                              /* of y's form; NULL: none */
    int n, n_out;                             /* rows of x, of W */
    unsigned n_steps;                         /* features / STEP */
};

template <typename T, typename TY> few<T, TY> few_of(tensor y, tensor x, tensor w, const void *z)
{
    return {view_of<const T>(x), view_of<const T>(w), view_of<TY>(y), static_cast<const TY *>(z), (int)x.rows,
            (int)w.rows,         (unsigned)(w.cols / STEP)};
}

/* What a lane needs for one step: its parts of the rows of W and of x.  Only the lane itself reads what it copied. */
template <int TILES> struct lane_step {
    uint4 w[TILES][WARP], x[WARP];
};

/* What a warp leaves. */
template <int TILES> struct few_sums {
    float at[MAX_ROWS][TILES * W_ROWS + 8];
};

/* Blocks: TILES * W_ROWS rows of W each.  STAGES steps are under way at once. */
template <typename T, typename TY, int TILES, int WARPS, int STAGES>
__global__ void __launch_bounds__(WARPS *WARP) few_kernel(few<T, TY> a)
{
    constexpr int COLS = TILES * W_ROWS;
    extern __shared__ uint4 shared[];
    few_sums<TILES> *sums = reinterpret_cast<few_sums<TILES> *>(shared); /* once nothing is under way */
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
    const int first = blockIdx.x * COLS;
    const unsigned first_step = a.n_steps * warp / WARPS, n_steps = a.n_steps * (warp + 1) / WARPS - first_step;
    unsigned next = n_steps ? blockIdx.x * 7 % n_steps : 0; /* else all blocks would read the same part of x at once */
    lane_step<TILES> *stages = reinterpret_cast<lane_step<TILES> *>(shared) + warp * STAGES;
    const T *w[TILES], *x = a.x.at(g, 8 * t);
    float sum[TILES][4] = {};

#pragma unroll
    for (int i = 0; i < TILES; i++) w[i] = a.w.at(min(first + i * W_ROWS + g, a.n_out - 1), 8 * t);
    auto load_step = [&](unsigned s) {
        lane_step<TILES> &to = stages[s % STAGES];
        if (s < n_steps) {
            const unsigned at = (first_step + next) * STEP;
            next = next + 1 == n_steps ? 0 : next + 1;
#pragma unroll
            for (int i = 0; i < TILES; i++) copy_async<16>(shared_address(&to.w[i][lane]), w[i] + at, true);
            if (g < a.n) copy_async_kept(shared_address(&to.x[lane]), x + at);
        }
        copies_commit();
    };

    let_next_start();
    for (unsigned s = 0; s < min((unsigned)STAGES, n_steps - next); s++) /* weights, whoever wrote them, to the L2 */
#pragma unroll
        for (int i = 0; i < TILES; i++) prefetch(w[i] + (first_step + next + s) * STEP);
    wait_for_previous();
    for (unsigned s = 0; s < STAGES; s++) load_step(s);
    for (unsigned s = 0; s < n_steps; s++) {
        const lane_step<TILES> &from = stages[s % STAGES];
        copies_wait<STAGES - 1>();
        const uint4 xv = from.x[lane];        /* rows of x that do not exist give sums that nobody reads */
        const uint32_t low[4] = {xv.x, 0, xv.y, 0}, high[4] = {xv.z, 0, xv.w, 0};
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const uint4 wv = from.w[i][lane];
            multiply_add<T>(sum[i], low, wv.x, wv.y);
            multiply_add<T>(sum[i], high, wv.z, wv.w);
        }
        load_step(s + STAGES);
    }

    copies_wait<0>();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < TILES; i++)
        *reinterpret_cast<float2 *>(&sums[warp].at[g][i * W_ROWS + 2 * t]) = make_float2(sum[i][0], sum[i][1]);
    __syncthreads();
    for (int i = threadIdx.x; i < a.n * COLS; i += WARPS * WARP) {
        const int row = i / COLS, col = i % COLS;
        float total = 0;
        if (first + col >= a.n_out) continue;
#pragma unroll
        for (int v = 0; v < WARPS; v++) total += sums[v].at[row][col];
        if (a.z) total += to_float(a.z[row * a.y.stride + first + col]);
        *a.y.at(row, first + col) = from_float<TY>(total);
    }
}

template <int TILES, int WARPS, int STAGES, typename T, typename TY> void launch_few(moai_device *dev, few<T, TY> a)
{
    const dim3 blocks((unsigned)((a.n_out + TILES * W_ROWS - 1) / (TILES * W_ROWS)));
    constexpr size_t n_shared = sizeof(lane_step<TILES>) * WARPS * STAGES;
    auto kernel = few_kernel<T, TY, TILES, WARPS, STAGES>;

    static_assert(sizeof(few_sums<TILES>) * WARPS <= n_shared, "the sums take the place of the steps");
    allow_shared(dev, "matmul", kernel, n_shared);
    launch(dev, "matmul", kernel, blocks, WARPS * WARP, n_shared, a);
}

/* As measured on an H200: where the whole card holds all rows of W at once, two blocks to a multiprocessor, long queues
 * of loads are best; where blocks follow one another, small ones, whose ends leave little idle. */
template <typename T, typename TY> void launch_for(moai_device *dev, few<T, TY> a)
{
    if (a.n_out <= 2 * (2 * W_ROWS) * dev->n_sm)
        launch_few<2, 4, 16>(dev, a);
    else
        launch_few<1, 8, 6>(dev, a);
}

}  // namespace

bool matmul_few(moai_device *dev, tensor y, tensor x, tensor w, const void *z)
{
    const bool is_16_bit = x.dt == DT_BF16 || x.dt == DT_F16;

    if (x.rows > MAX_ROWS || !is_16_bit || w.dt != x.dt || (y.dt != x.dt && y.dt != DT_F32)) return false;
    if (w.cols == 0 || w.cols % STEP || w.rows > INT32_MAX / 2 || !is_packed(x, w)) return false;
    if (x.rows == 0 || w.rows == 0) return true;
    for_type("matmul", x.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        if constexpr (sizeof(T) == 2) {
            if (y.dt == DT_F32)
                launch_for(dev, few_of<T, float>(y, x, w, z));
            else
                launch_for(dev, few_of<T, T>(y, x, w, z));
        }
    });
    return true;
}
