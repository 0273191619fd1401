/* embed.cu: rows of the embedding table, and their gradient
 *
 * The backward sorts the tokens by the row they name (stable: equal ones stay in order); where a new row begins in
 * that order, its tokens' gradients are added one after another, so the sum's order is that of the tokens. */
#include "cuda/kernels.cuh"

#include <cub/device/device_radix_sort.cuh>

namespace {

enum { SUM_THREADS = 128, SUM_AHEAD = 8 };                    /* tokens whose rows are loaded together */

__device__ int64_t table_row(int32_t id, int64_t vocab_begin, int64_t n_rows)      /* n_rows: not in this part */
{
    int64_t row = id - vocab_begin;
    return id >= 0 && row >= 0 && row < n_rows ? row : n_rows;
}

template <typename T, int W> struct embed_op {
    view<T> y, table;
    const int32_t *ids;
    int64_t vocab_begin, n_rows;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        int64_t row = table_row(ids[i], vocab_begin, n_rows);
        float v[W] = {};
        if (row < n_rows) load<W>(v, table.at(row, j));
        store<W>(y.at(i, j), v);
    }
};

__global__ void __launch_bounds__(BLOCK)
    tokens_kernel(uint32_t *row, int32_t *token, const int32_t *ids, int64_t n, int64_t vocab_begin, int64_t n_rows)
{
    int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x;

    if (i >= n) return;
    row[i] = (uint32_t)table_row(ids[i], vocab_begin, n_rows);
    token[i] = (int32_t)i;
}

/* sum += columns j... of the tokens that lanes k, k + 1, ... have looked up, in that order */
template <typename T, int W>
__device__ void add_tokens(float (&sum)[W], view<const T> dy, int32_t its_token, int k, int n_mine, int64_t j,
                           int64_t cols)
{
    pack<T, W> g[SUM_AHEAD];

#pragma unroll
    for (int a = 0; a < SUM_AHEAD; a++) {
        int32_t t = __shfl_sync(all_lanes, its_token, (k + a) % WARP);
        if (k + a < n_mine && j < cols) g[a] = fetch<W>(dy.at(t, j));
    }
#pragma unroll
    for (int a = 0; a < SUM_AHEAD; a++) {
        float v[W];
        if (k + a >= n_mine || j >= cols) continue;
        unpack(v, g[a]);
#pragma unroll
        for (int c = 0; c < W; c++) sum[c] += v[c];
    }
}

/* Block (first, part) adds the tokens of the row that begins at `first` of the sorted order, some columns. */
template <typename T, int W>
__global__ void __launch_bounds__(SUM_THREADS)
    embed_backward_kernel(view<float> dtable, view<const T> dy, const uint32_t *row, const int32_t *token, int64_t n,
                          uint32_t n_rows, int64_t cols)
{
    int64_t first = blockIdx.x;
    uint32_t mine = row[first];

    if (mine == n_rows || (first > 0 && row[first - 1] == mine)) return;
    int64_t j = ((int64_t)blockIdx.y * SUM_THREADS + threadIdx.x) * W;
    float sum[W] = {};
    if (j < cols) load<W>(sum, dtable.at(mine, j));
    for (int64_t begin = first; begin < n; begin += WARP) {   /* a lane looks up one token for its warp */
        int64_t i = begin + threadIdx.x % WARP;
        bool is_mine = i < n && row[i] == mine;
        int32_t its_token = is_mine ? token[i] : 0;
        int n_mine = __popc(__ballot_sync(all_lanes, is_mine));
        for (int k = 0; k < n_mine; k += SUM_AHEAD) add_tokens<T, W>(sum, dy, its_token, k, n_mine, j, cols);
        if (n_mine < WARP) break;
    }
    if (j < cols) store<W>(dtable.at(mine, j), sum);
}

struct sorted_tokens {
    uint32_t *row;
    int32_t *token;
};

sorted_tokens sort_tokens(moai_device *dev, const int32_t *ids, int64_t n, int64_t vocab_begin, int64_t n_rows)
{
    size_t sort_bytes = 0, list_bytes = (size_t)round_up(n * 4, ARENA_ALIGN);
    int n_bits = 1;
    cub::DoubleBuffer<uint32_t> row;
    cub::DoubleBuffer<int32_t> token;

    while (n_rows >> n_bits) n_bits++;
    CUDA_CHECK(cub::DeviceRadixSort::SortPairs(nullptr, sort_bytes, row, token, (int)n, 0, n_bits, dev->stream));
    char *room = static_cast<char *>(device_scratch_cuda(dev, 4 * list_bytes + sort_bytes));
    row = {(uint32_t *)room, (uint32_t *)(room + list_bytes)};
    token = {(int32_t *)(room + 2 * list_bytes), (int32_t *)(room + 3 * list_bytes)};
    tokens_kernel<<<(unsigned)((n + BLOCK - 1) / BLOCK), BLOCK, 0, dev->stream>>>(row.Current(), token.Current(), ids,
                                                                                  n, vocab_begin, n_rows);
    LAUNCH_CHECK("embed_backward");
    CUDA_CHECK(
        cub::DeviceRadixSort::SortPairs(room + 4 * list_bytes, sort_bytes, row, token, (int)n, 0, n_bits, dev->stream));
    return {row.Current(), token.Current()};
}

}  // namespace

void embed_cuda(moai_device *dev, tensor y, const int32_t *ids, tensor table, int64_t vocab_begin)
{
    CHECK(y.dt == table.dt, "embed: rows of a %s table into %s", dtype_name(table.dt), dtype_name(y.dt));
    for_type("embed", y.dt, is_packed(y, table), [&](auto t, auto w) {
        using T = TYPE(t);
        each<WIDTH(w)>(dev, "embed", y.rows, y.cols,
                       embed_op<T, WIDTH(w)>{view_of<T>(y), view_of<T>(table), ids, vocab_begin, table.rows});
    });
}

void embed_backward_cuda(moai_device *dev, tensor dtable, const int32_t *ids, tensor dy, int64_t vocab_begin)
{
    CHECK(dtable.dt == DT_F32, "embed_backward: gradients of weights are fp32, not %s", dtype_name(dtable.dt));
    if (dy.rows == 0 || dtable.rows == 0) return;
    CHECK(dy.rows <= INT32_MAX && dtable.rows < INT32_MAX,
          "embed_backward: %lld tokens and %lld rows are more than one sort holds", (long long)dy.rows,
          (long long)dtable.rows);
    sorted_tokens sorted = sort_tokens(dev, ids, dy.rows, vocab_begin, dtable.rows);
    for_type("embed_backward", dy.dt, is_packed(dtable, dy), [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int cols_of_block = SUM_THREADS * WIDTH(w);
        int64_t parts = (dy.cols + cols_of_block - 1) / cols_of_block;
        CHECK(parts <= UINT16_MAX, "embed_backward: rows of %lld columns are too long", (long long)dy.cols);
        embed_backward_kernel<T, WIDTH(w)><<<dim3((unsigned)dy.rows, (unsigned)parts), SUM_THREADS, 0, dev->stream>>>(
            view_of<float>(dtable), view_of<const T>(dy), sorted.row, sorted.token, dy.rows, (uint32_t)dtable.rows,
            dy.cols);
        LAUNCH_CHECK("embed_backward");
    });
}
