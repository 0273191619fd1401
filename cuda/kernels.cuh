/* kernels.cuh: what the kernels share: packs of elements, sums over a block, the loop over elements, the choice of a
 * template.
 *
 * A thread moves W neighbouring elements at a time: 8 (16 bytes of a 16-bit type) where pointers, strides and columns
 * allow it, else 1.  Numbers become fp32 when loaded and are rounded to nearest even when stored. */
#ifndef MOAI_KERNELS_CUH
#define MOAI_KERNELS_CUH

#include "cuda/cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <type_traits>

enum { WARP = 32, BLOCK = 256, PACK = 8 };
static constexpr unsigned all_lanes = 0xffffffffu;

/* -- numbers -- */

__device__ inline float to_float(float x) { return x; }
__device__ inline float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float to_float(__half x) { return __half2float(x); }

template <typename T> __device__ inline T from_float(float x);
template <> __device__ inline float from_float<float>(float x) { return x; }
template <> __device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }
template <> __device__ inline __half from_float<__half>(float x) { return __float2half_rn(x); }

/* what a later load of the stored number will give */
template <typename T> __device__ inline float rounded(float x) { return to_float(from_float<T>(x)); }

/* -- packs -- */

template <size_t n_bytes> struct words {
    using type = std::conditional_t<n_bytes % 16 == 0, uint4, std::conditional_t<n_bytes == 8, uint2, uint32_t>>;
    static constexpr int n = n_bytes / sizeof(type);
};

/* W neighbours as they lie in memory: a load that has been asked for and not yet used */
template <typename T, int W> struct pack {
    using word = std::conditional_t<W == 1, T, typename words<W * sizeof(T)>::type>;
    static constexpr int n_words = W == 1 ? 1 : words<W * sizeof(T)>::n;
    word words_[n_words];
};

template <int W, typename T> __device__ inline pack<std::remove_const_t<T>, W> fetch(T *p)
{
    using packed = pack<std::remove_const_t<T>, W>;
    packed a;
#pragma unroll
    for (int i = 0; i < packed::n_words; i++) a.words_[i] = reinterpret_cast<const typename packed::word *>(p)[i];
    return a;
}

template <typename T, int W> __device__ inline void unpack(float (&x)[W], const pack<T, W> &a)
{
    if constexpr (std::is_same_v<T, __nv_bfloat16> && W > 1) { /* the compiler takes two instructions for the upper */
        const uint32_t *pair = reinterpret_cast<const uint32_t *>(a.words_);
#pragma unroll
        for (int i = 0; i < W; i++)
            x[i] = __uint_as_float(i % 2 == 0 ? pair[i / 2] << 16 : pair[i / 2] & 0xffff0000u);
    } else {
        const T *v = reinterpret_cast<const T *>(a.words_);
#pragma unroll
        for (int i = 0; i < W; i++) x[i] = to_float(v[i]);
    }
}

template <int W, typename T> __device__ inline void load(float (&x)[W], T *p) { unpack(x, fetch<W>(p)); }

/* the 32 bits of two neighbours, or of one fp32 number */
__device__ inline uint32_t bits(float x) { return __float_as_uint(x); }
__device__ inline uint32_t bits(__nv_bfloat162 x) { return *reinterpret_cast<uint32_t *>(&x); }
__device__ inline uint32_t bits(__half2 x) { return *reinterpret_cast<uint32_t *>(&x); }
template <typename T> __device__ inline uint32_t pair_bits(float low, float high)
{
    if constexpr (std::is_same_v<T, __half>)
        return bits(__floats2half2_rn(low, high));
    else
        return bits(__floats2bfloat162_rn(low, high));
}

/* A plain assignment of a word the compiler may take apart and store in quarters, at two thirds of the speed. */
template <int W, typename T> __device__ inline void store(T *p, const float (&x)[W])
{
    if constexpr (W == 1) {
        *p = from_float<T>(x[0]);
    } else {
        using word = typename pack<T, W>::word;
        constexpr int n_of_word = sizeof(word) / sizeof(T);
        auto at = [&](int i) {                                /* the i-th 32 bits */
            if constexpr (sizeof(T) == 4)
                return bits(x[i]);
            else
                return pair_bits<T>(x[2 * i], x[2 * i + 1]);
        };
#pragma unroll
        for (int i = 0; i < W / n_of_word; i++) {
            word *to = reinterpret_cast<word *>(p) + i;
            if constexpr (sizeof(word) == 16)
                __stwb(to, make_uint4(at(4 * i), at(4 * i + 1), at(4 * i + 2), at(4 * i + 3)));
            else if constexpr (sizeof(word) == 8)
                __stwb(to, make_uint2(at(2 * i), at(2 * i + 1)));
            else
                __stwb(to, at(i));
        }
    }
}

/* a matrix inside a kernel */
template <typename T> struct view {
    T *data;
    int64_t stride;
    __device__ T *at(int64_t row, int64_t col) const { return data + row * stride + col; }
};
template <typename T> static view<T> view_of(tensor t) { return {static_cast<T *>(t.data), t.stride}; }

/* -- sums, in an order that depends on the number of threads alone -- */

template <int LANES = WARP>
__device__ inline float lanes_sum(float x) /* over groups of LANES lanes; every lane gets it */
{
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
    return x;
}

/* Every thread of the block gets the sum.  blockDim.x is a multiple of WARP.  turn alternates between 0 and 1 from one
 * sum to the next: a thread may begin its next sum while another still reads this one. */
__device__ inline float block_sum(float x, int turn)
{
    __shared__ float of_warp[2][WARP];
    int lane = threadIdx.x % WARP, n_warps = blockDim.x / WARP;

    x = lanes_sum(x);
    if (lane == 0) of_warp[turn][threadIdx.x / WARP] = x;
    __syncthreads();
    return lanes_sum(lane < n_warps ? of_warp[turn][lane] : 0.0f);
}

/* first (cols) += the first half of the columns of partial (n_rows, 2 cols), second (cols) += the others, in a fixed
 * order; without a second, partial is (n_rows, cols): sums.cu */
void add_partials(moai_device *, float *first, float *second, const float *partial, int64_t n_rows, int64_t cols);

/* -- kernels that follow one another closely (programmatic dependent launch, from compute capability 9.0 on) --
 * On a device that launches closely, one that launch() starts may come to its multiprocessors while the one before it
 * still runs there, as soon as all blocks of that one have called let_next_start or are done.  Each of its threads
 * calls wait_for_previous before it reads or writes memory (weights may be fetched into the cache before): only so is
 * the one before the previous done as well.  add_partials comes closely on every such card: it waits, and lets nothing
 * start before its end, so that what follows, on an event too, waits for both.  Programs must hold machine code for the
 * card, not PTX for an older one, which lacks the waits. */

__device__ inline void let_next_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline void wait_for_previous() /* and for all before it */
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

template <typename... P, typename... A>
static void launch_how(moai_device *dev, const char *op, bool is_close, void (*kernel)(P...), dim3 blocks, dim3 threads,
                       size_t n_shared, A... args)
{
    cudaLaunchAttribute closely;
    cudaLaunchConfig_t how = {};

    closely.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    closely.val.programmaticStreamSerializationAllowed = 1;
    how.gridDim = blocks;
    how.blockDim = threads;
    how.dynamicSmemBytes = n_shared;
    how.stream = dev->stream;
    how.attrs = &closely;
    how.numAttrs = is_close && dev->capability >= 90;
    const cudaError_t status = cudaLaunchKernelEx(&how, kernel, P(args)...);
    if (status != cudaSuccess) die("%s: launch: %s", op, cudaGetErrorString(status));
}

template <typename... P, typename... A>
static void launch(moai_device *dev, const char *op, void (*kernel)(P...), dim3 blocks, int n_threads, size_t n_shared,
                   A... args)
{
    launch_how(dev, op, dev->launches_closely, kernel, blocks, dim3((unsigned)n_threads), n_shared, args...);
}

/* -- copies: global memory to shared, not waiting -- */

__device__ inline uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

template <int n_bytes>
__device__ inline void copy_async(uint32_t to, const void *from, bool exists) /* zeros if it does not */
{
    if constexpr (n_bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(exists ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(to), "l"(from), "r"(exists ? n_bytes : 0),
                     "n"(n_bytes)
                     : "memory");
}
__device__ inline void copy_async_kept(uint32_t to, const void *from) /* 16 bytes, through the L1 */
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
__device__ inline void prefetch(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); } /* to the L2 */
__device__ inline void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int n_later> __device__ inline void copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(n_later) : "memory");
}

/* -- the tensor cores: c (16, 8) += a (16, 16) b (16, 8), T of 16 bits; mma.m16n8k16 says which lane holds what -- */

template <typename T>
__device__ inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if constexpr (std::is_same_v<T, __half>)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 8 x 8 matrices of 16 bits from shared memory, as multiply_add has them; lane 8 i + j has the address of row j of the
 * i-th.  load_transposed: each transposed. */
__device__ inline void load_matrices(uint32_t (&a)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address)
                 : "memory");
}
__device__ inline void load_transposed(uint32_t (&a)[4], uint32_t address)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                 : "r"(address)
                 : "memory");
}

/* -- one call of f(row, col) for each pack of a matrix -- */

template <int W, typename F>
__global__ void __launch_bounds__(BLOCK) each_kernel(int64_t n_packs, int64_t blocks_of_row, F f)
{
    int64_t row = blockIdx.x / blocks_of_row, p = (blockIdx.x % blocks_of_row) * BLOCK + threadIdx.x;

    let_next_start();
    wait_for_previous();
    if (p < n_packs) f(row, p * W);
}

template <int W, typename F> static void each(moai_device *dev, const char *op, int64_t rows, int64_t cols, F f)
{
    int64_t n_packs = cols / W, blocks_of_row = (n_packs + BLOCK - 1) / BLOCK, n_blocks = rows * blocks_of_row;

    if (n_blocks == 0) return;
    CHECK(n_blocks <= INT32_MAX, "%s: (%lld, %lld) is more than one launch holds", op, (long long)rows,
          (long long)cols);
    launch(dev, op, each_kernel<W, F>, dim3((unsigned)n_blocks), BLOCK, 0, n_packs, blocks_of_row, f);
}

/* -- the choice of a template -- */

/* Can a thread move PACK elements of t at once? */
static inline bool is_packed(tensor t)
{
    size_t size = dtype_size(t.dt);
    return (uintptr_t)t.data % 16 == 0 && (t.rows <= 1 || (size_t)t.stride * size % 16 == 0) && t.cols % PACK == 0;
}
template <typename... more> static bool is_packed(tensor t, more... rest) { return is_packed(t) && is_packed(rest...); }

/* Matrices without gaps between their rows are one long row. */
static inline bool is_dense(tensor t) { return t.rows <= 1 || t.stride == t.cols; }
static inline tensor flat(tensor t) { return tensor_of(t.data, t.dt, 1, tensor_n_elem(t)); }

template <typename T> struct type_tag { using type = T; };
template <int n> using width = std::integral_constant<int, n>;

/* launch(type_tag<T>, width<W>) with the T of dt, and W = PACK or 1 */
template <typename F> static void for_type(const char *op, dtype dt, bool packed, F launch)
{
    switch (dt) {
    case DT_F32: packed ? launch(type_tag<float>(), width<PACK>()) : launch(type_tag<float>(), width<1>()); break;
    case DT_BF16:
        packed ? launch(type_tag<__nv_bfloat16>(), width<PACK>()) : launch(type_tag<__nv_bfloat16>(), width<1>());
        break;
    case DT_F16: packed ? launch(type_tag<__half>(), width<PACK>()) : launch(type_tag<__half>(), width<1>()); break;
    default: die("%s: not for %s", op, dtype_name(dt));
    }
}
/* 16 bytes' worth of T where PACK elements may be moved: best where only fp32 is stored */
template <typename T, int W> constexpr int width_of_16_bytes = W == 1 ? 1 : 16 / (int)sizeof(T);

#define TYPE(tag) typename decltype(tag)::type
#define WIDTH(tag) decltype(tag)::value

/* Blocks that the card runs at once, for kernels whose blocks take one row after another. */
template <typename K> static int64_t resident_blocks(const moai_device *dev, K kernel, int n_threads, size_t n_shared)
{
    int of_sm = 0;
    CUDA_CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_sm, kernel, n_threads, n_shared));
    return (int64_t)dev->n_sm * of_sm;
}

/* More than 48 KB of shared memory is a block's only on request. */
template <typename K> static void allow_shared(const moai_device *dev, const char *op, K kernel, size_t n_bytes)
{
    CHECK(n_bytes <= dev->max_shared, "%s: %zu bytes of shared memory are needed, a block has %zu", op, n_bytes,
          dev->max_shared);
    if (n_bytes > 48 << 10)
        CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)n_bytes));
}

#endif
