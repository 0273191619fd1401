/* sample.cu: the next token of each row of logits, as in src/ops/sample.h, without sorting a vocabulary
 *
 * A token's weight is exp((logit - largest) / temperature) in steps of 2^-44, so that sums are exact in any order and
 * the choice does not depend on it.  In the order of falling logits the token that exceeds a given sum of weights is
 * found through its key, a logit's bits in an order of integers, 4 bits a pass: a pass adds up the weights of the 16
 * possible digits, and the digit where the sum passes the target begins the next.  Three searches do all: the k-th
 * token (weights 1), the last of the nucleus, the one that u draws.  Where the order is that of ids (top_p 1), and
 * among equal logits, sums over parts of the row lead to it.
 *
 * Blocks: (PARTS of a row, rows).  The last block of a row to finish draws the conclusion that the next launch needs.
 */
#include "cuda/kernels.cuh"

namespace {

enum { PARTS = 2 * WARP, THREADS = 256, AT_ONCE = 8 };
enum { DIGIT_BITS = 4, DIGITS = 1 << DIGIT_BITS, PASSES = 32 / DIGIT_BITS };

typedef unsigned long long mass;

/* A row under way; begins as zeros. */
struct draw {
    mass best;              /* key of the largest logit, then ~id: the lowest id among equals is the largest */
    mass digits[DIGITS];    /* weights of the pass under way */
    mass parts[PARTS];
    mass above, target;     /* the weight of all larger keys than the one looked for; the sum to exceed */
    uint32_t prefix, floor; /* the digits found; the least key that takes part */
    float largest;
    unsigned n_done;        /* blocks that have finished */
    bool broken;
};

typedef enum { THE_KTH, END_OF_NUCLEUS, THE_DRAWN } search;

struct row_of_logits {
    view<const float> logits;
    const double *u;
    int32_t *ids;
    draw *draws;
    int n;
    double sharpness, top_p; /* 1 / temperature; 0: greedy */
    int64_t top_k;
    __device__ const float *row() const { return logits.at(blockIdx.y, 0); }
    __device__ draw *state() const { return draws + blockIdx.y; }
    __device__ int part_begin(int part) const { return (int)((int64_t)n * part / PARTS); }
};

/* Larger numbers have larger keys, equal ones (+0, -0) the same. */
__device__ uint32_t key_of(float x)
{
    const uint32_t bits = __float_as_uint(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ float number_of(uint32_t key) { return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key); }

__device__ mass weight(float x, float largest, double sharpness)
{
    return (mass)(exp(((double)x - largest) * sharpness) * 0x1p44);
}

/* Is this the row's last block to come here?  What the others have written before is then visible to all threads. */
__device__ bool is_last(draw *d)
{
    __shared__ bool last;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicInc(&d->n_done, PARTS - 1) == PARTS - 1; /* and 0 for the next launch */
    __syncthreads();
    __threadfence();
    return last;
}

/* f(i, x[i]) for the block's part of the row; a thread's loads go out AT_ONCE. */
template <typename F> __device__ void for_part(const row_of_logits &a, F f)
{
    const float *x = a.row();
    const int end = a.part_begin(blockIdx.x + 1);

    for (int first = a.part_begin(blockIdx.x) + threadIdx.x; first < end; first += AT_ONCE * THREADS) {
        float v[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) v[j] = x[min(first + j * THREADS, end - 1)];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++)
            if (first + j * THREADS < end) f(first + j * THREADS, v[j]);
    }
}

__device__ mass largest_of_warp(mass x)
{
    for (int step = WARP / 2; step > 0; step /= 2) {
        const mass other = __shfl_xor_sync(all_lanes, x, step);
        x = other > x ? other : x;
    }
    return x;
}
__device__ mass sum_of_warp(mass x)
{
    for (int step = WARP / 2; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
    return x;
}

/* -- the largest logit; greedy ends here -- */

__global__ void __launch_bounds__(THREADS) largest_kernel(row_of_logits a)
{
    draw *d = a.state();
    mass best = 0;

    let_next_start();
    wait_for_previous();
    for_part(a, [&](int i, float x) {
        const mass mine = (mass)(isnan(x) ? ~0u : key_of(x)) << 32 | (uint32_t)~i;
        best = mine > best ? mine : best;
    });
    best = largest_of_warp(best);
    if (threadIdx.x % WARP == 0) atomicMax(&d->best, best);
    if (!is_last(d) || threadIdx.x != 0) return;
    best = __ldcg(&d->best);
    d->largest = number_of((uint32_t)(best >> 32));
    d->broken = !isfinite(d->largest);
    if (d->broken || a.sharpness == 0) a.ids[blockIdx.y] = d->broken ? -1 : (int32_t) ~(uint32_t)best;
}

/* -- a search in the order of falling logits -- */

/* The digit where the sum passes the target; what lies above it is added up.  By one warp, a lane a digit. */
__device__ void choose_digit(const row_of_logits &a, draw *d, search what, int pass)
{
    const int lane = threadIdx.x;
    const mass mine = lane < DIGITS ? __ldcg(&d->digits[lane]) : 0;
    mass down_to = mine, above = pass ? d->above : 0, target = d->target; /* down_to: of this digit and larger ones */

    for (int step = 1; step < DIGITS; step *= 2) {
        const mass more = __shfl_down_sync(all_lanes, down_to, step);
        if (lane + step < DIGITS) down_to += more;
    }
    const mass total = __shfl_sync(all_lanes, down_to, 0);
    if (pass == 0 && what == THE_KTH) target = a.top_k - 1;
    if (pass == 0 && what == END_OF_NUCLEUS) target = min((mass)ceil(a.top_p * (double)total), total) - 1;
    const unsigned passed = __ballot_sync(all_lanes, lane < DIGITS && above + down_to > target);
    const int digit = 31 - __clz(passed | 1);
    above += __shfl_sync(all_lanes, down_to - mine, digit);
    if (lane < DIGITS) d->digits[lane] = 0;   /* for the next pass */
    if (lane == 0) {
        d->target = target;
        d->above = above;
        d->prefix = (pass ? d->prefix : 0) << DIGIT_BITS | digit;
    }
}

/* The key is known: the next search's limits. */
__device__ void conclude(const row_of_logits &a, draw *d, search what)
{
    if (what == THE_KTH) {
        d->floor = d->prefix;
        return;
    }
    const mass w = weight(number_of(d->prefix), d->largest, a.sharpness), rank = (d->target - d->above) / w;
    if (what == END_OF_NUCLEUS) {
        const mass kept = d->above + (rank + 1) * w;
        d->target = min((mass)(a.u[blockIdx.y] * (double)kept), kept - 1);
    } else {
        d->target = rank;                     /* among the equals */
    }
}

__global__ void __launch_bounds__(THREADS) search_kernel(row_of_logits a, search what, int pass)
{
    __shared__ mass sums[DIGITS][THREADS];    /* a column a thread */
    draw *d = a.state();
    const int shift = 32 - DIGIT_BITS * (pass + 1);

    let_next_start();
    wait_for_previous();
    if (d->broken) return;
    const uint32_t floor = d->floor, prefix = pass == 0 ? 0 : d->prefix;
    const float largest = d->largest;
    for (int i = 0; i < DIGITS; i++) sums[i][threadIdx.x] = 0;
    for_part(a, [&](int, float x) {
        const uint32_t key = key_of(x), digits = key >> shift;
        if (key >= floor && digits >> DIGIT_BITS == prefix)
            sums[digits % DIGITS][threadIdx.x] += what == THE_KTH ? 1 : weight(x, largest, a.sharpness);
    });
    __syncthreads();
    for (int i = threadIdx.x / WARP; i < DIGITS; i += THREADS / WARP) {
        mass sum = 0;
        for (int j = threadIdx.x % WARP; j < THREADS; j += WARP) sum += sums[i][j];
        sum = sum_of_warp(sum);
        if (threadIdx.x % WARP == 0 && sum) atomicAdd(&d->digits[i], sum);
    }
    if (!is_last(d) || threadIdx.x >= WARP) return;
    choose_digit(a, d, what, pass);
    if (pass == PASSES - 1 && threadIdx.x == 0) conclude(a, d, what);
}

/* -- a search in the order of ids -- */

/* What token i counts: its weight, or, among equals of a key, 1. */
struct by_id {
    bool equals;
    uint32_t key;                             /* that of the equals, or the least */
    float largest;
    double sharpness;
    __device__ mass operator()(float x) const
    {
        if (equals) return key_of(x) == key;
        return key_of(x) >= key ? weight(x, largest, sharpness) : 0;
    }
};

/* The block's threads take neighbouring tokens of [begin, end); the one that passes the target writes its id. */
__device__ void pick_from(const row_of_logits &a, by_id count, int begin, int end, mass target)
{
    __shared__ mass of_warp[THREADS / WARP];
    const float *x = a.row();
    const int each = (end - begin + THREADS - 1) / THREADS, first = begin + threadIdx.x * each,
              last = min(first + each, end), warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    mass mine = 0;

    for (int i = first; i < last; i++) mine += count(x[i]);
    mass before = mine;                       /* inclusive first */
    for (int step = 1; step < WARP; step *= 2) {
        const mass left = __shfl_up_sync(all_lanes, before, step);
        if (lane >= step) before += left;
    }
    if (lane == WARP - 1) of_warp[warp] = before;
    __syncthreads();
    before -= mine;
    for (int w = 0; w < warp; w++) before += of_warp[w];
    if (target < before || target - before >= mine) return;
    for (int i = first; i < last; i++) {
        const mass c = count(x[i]);
        if (target < before + c) {
            a.ids[blockIdx.y] = i;
            return;
        }
        before += c;
    }
}

/* The part where the sum passes the target, which u names unless it is among equals; target becomes what is left for
 * it.  By one warp, a lane two parts. */
__device__ int choose_part(const row_of_logits &a, const draw *d, bool equals, mass &target)
{
    const int lane = threadIdx.x;
    const mass first = __ldcg(&d->parts[2 * lane]), second = __ldcg(&d->parts[2 * lane + 1]);
    mass up_to = first + second;

    for (int step = 1; step < WARP; step *= 2) {
        const mass less = __shfl_up_sync(all_lanes, up_to, step);
        if (lane >= step) up_to += less;
    }
    const mass total = __shfl_sync(all_lanes, up_to, WARP - 1);
    target = equals ? d->target : min((mass)(a.u[blockIdx.y] * (double)total), total - 1);
    const int pair = __ffs(__ballot_sync(all_lanes, up_to > target)) - 1;
    const mass before = __shfl_sync(all_lanes, up_to - first - second, pair);
    const mass half = __shfl_sync(all_lanes, first, pair);
    const bool in_second = target - before >= half;
    target -= before + (in_second ? half : 0);
    return 2 * pair + in_second;
}

__global__ void __launch_bounds__(THREADS) pick_kernel(row_of_logits a, bool equals)
{
    __shared__ int part;
    __shared__ mass target;
    draw *d = a.state();

    let_next_start();
    wait_for_previous();
    if (d->broken) return;
    const by_id count = {equals, equals ? d->prefix : d->floor, d->largest, a.sharpness};
    mass sum = 0;
    for_part(a, [&](int, float x) { sum += count(x); });
    sum = sum_of_warp(sum);
    if (threadIdx.x % WARP == 0) atomicAdd(&d->parts[blockIdx.x], sum);
    if (!is_last(d)) return;

    if (threadIdx.x < WARP) {
        mass rest;
        const int chosen = choose_part(a, d, equals, rest);
        if (threadIdx.x == 0) part = chosen, target = rest;
    }
    __syncthreads();
    pick_from(a, count, a.part_begin(part), a.part_begin(part + 1), target);
}

}  // namespace

void sample_cuda(moai_device *dev, int32_t *ids, tensor logits, const double *u, sample_options how)
{
    const size_t n_bytes = (size_t)logits.rows * sizeof(draw);
    const dim3 blocks(PARTS, (unsigned)logits.rows);

    CHECK(logits.dt == DT_F32, "sample: logits are fp32, not %s", dtype_name(logits.dt));
    CHECK(logits.rows <= UINT16_MAX && logits.cols > 0 && logits.cols <= SAMPLE_MOST_COLS,
          "sample: (%lld, %lld) logits are more than one launch takes", (long long)logits.rows, (long long)logits.cols);
    if (logits.rows == 0) return;
    draw *draws = static_cast<draw *>(device_scratch_cuda(dev, n_bytes));
    const row_of_logits a = {view_of<const float>(logits), u, ids, draws, (int)logits.cols,
                             how.temperature > 0 ? 1 / how.temperature : 0, how.top_p, how.top_k};
    auto search_for = [&](search what) {
        for (int pass = 0; pass < PASSES; pass++)
            launch(dev, "sample", search_kernel, blocks, THREADS, 0, a, what, pass);
    };

    CUDA_CHECK(cudaMemsetAsync(draws, 0, n_bytes, dev->stream));
    launch(dev, "sample", largest_kernel, blocks, THREADS, 0, a);
    if (how.temperature > 0) {
        if (how.top_k > 0 && how.top_k < logits.cols) search_for(THE_KTH);
        if (how.top_p < 1) search_for(END_OF_NUCLEUS), search_for(THE_DRAWN);
        launch(dev, "sample", pick_kernel, blocks, THREADS, 0, a, how.top_p < 1);
    }
}
