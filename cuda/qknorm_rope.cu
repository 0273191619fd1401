/* qknorm_rope.cu: RMSNorm of every q and k head, then the rotation of its pairs (i, i + head_dim/2), and the backward
 *
 *     n = w x r;   y1 = n1 cos - n2 sin,  y2 = n2 cos + n1 sin
 *
 * L neighbouring lanes share a head; a lane has the same packs of both halves and so holds whole pairs.  A block is
 * (WARP, warps of a row, rows); where a row has more warps, the grid's second dimension takes it in parts. */
#include "cuda/qknorm_rope_few.h"

#include "cuda/kernels.cuh"

namespace {

enum { FORWARD_WARPS = 4, BACKWARD_WARPS = 8 };               /* of a block, at most */

template <int W> constexpr int packs_of_lane = W == 1 ? 8 : 1; /* of either half */

template <typename T> struct qk_args {
    view<const T> qkv;                                        /* raw q, k */
    view<T> out;                                              /* forward: qk; backward: dqkv */
    view<const T> dqk;
    float *r;                                                 /* (rows, n_heads): reciprocal norms */
    const T *q_norm, *k_norm;
    view<const float> cos, sin;
    const int32_t *positions;
    float *partial;                                           /* (blocks, 2 head_dim): sums for dq_norm, dk_norm */
    int rows;
    int n_heads, n_q_heads;                                   /* n_heads: q and k */
    int head_dim;
    float eps;
};

/* The head of a lane, the first of U that lie heads_of_warp apart; of it columns col(p)... of the first half and of the
 * second. */
template <int W, int L, int U = 1> struct head_lane {
    static constexpr int heads_of_warp = WARP / L, P = packs_of_lane<W>;
    int row, h, half;
    template <typename T> __device__ explicit head_lane(const qk_args<T> &a)
        : row(blockIdx.x * blockDim.z + threadIdx.z),
          h((blockIdx.y * blockDim.y + threadIdx.y) * U * heads_of_warp + threadIdx.x / L), half(a.head_dim / 2)
    {
    }
    __device__ static int lane() { return threadIdx.x % L; }
    __device__ static int col(int p) { return (p * L + lane()) * W; }
    __device__ bool has(int p) const { return col(p) < half; }
    __device__ int any_col(int p) const { return has(p) ? col(p) : 0; } /* one that exists */
    template <typename T> __device__ void take(pack<T, W> (&x)[2][P], const T *head, bool exists) const /* else zeros */
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            x[0][p] = x[1][p] = pack<T, W>{};
            if (!exists || !has(p)) continue;
            x[0][p] = fetch<W>(head + col(p));
            x[1][p] = fetch<W>(head + half + col(p));
        }
    }
};

template <typename T> __device__ const T *weights_of(const qk_args<T> &a, int h)
{
    return h < a.n_q_heads ? a.q_norm : a.k_norm;
}

/* -- forward: small blocks, which the card spreads better than resident ones; a lane takes U heads of one row and loads
 * their angles once -- */

template <typename T, int W, int L, int U>
__global__ void __launch_bounds__(FORWARD_WARPS *WARP, sizeof(T) == 2 && W > 1 ? 8 : 1)
    qknorm_rope_kernel(qk_args<T> a)
{
    constexpr int P = packs_of_lane<W>;
    const head_lane<W, L, U> my(a);
    if (my.row >= a.rows) return;                             /* the whole warp */
    const int32_t position = a.positions[my.row];
    pack<T, W> x[U][2][P], w[U][2][P];
    float c[P][W], s[P][W];

#pragma unroll
    for (int u = 0; u < U; u++) {
        int h = my.h + u * my.heads_of_warp;
        my.take(x[u], a.qkv.at(my.row, (int64_t)h * a.head_dim), h < a.n_heads);
        my.take(w[u], weights_of(a, h), true);
    }
#pragma unroll
    for (int p = 0; p < P; p++) {
        load<W>(c[p], a.cos.at(position, my.any_col(p)));
        load<W>(s[p], a.sin.at(position, my.any_col(p)));
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
        int h = my.h + u * my.heads_of_warp;
        float x1[P][W], x2[P][W], squares = 0.0f;
#pragma unroll
        for (int p = 0; p < P; p++) {
            unpack(x1[p], x[u][0][p]), unpack(x2[p], x[u][1][p]);
#pragma unroll
            for (int k = 0; k < W; k++) squares += x1[p][k] * x1[p][k] + x2[p][k] * x2[p][k];
        }
        float r = 1.0f / sqrtf(lanes_sum<L>(squares) / (float)a.head_dim + a.eps);
        if (h >= a.n_heads) continue;
        if (my.lane() == 0) a.r[(int64_t)my.row * a.n_heads + h] = r;
        T *y = a.out.at(my.row, (int64_t)h * a.head_dim);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            float w1[W], w2[W];
            unpack(w1, w[u][0][p]), unpack(w2, w[u][1][p]);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float n1 = x1[p][k] * r * w1[k], n2 = x2[p][k] * r * w2[k];
                x1[p][k] = n1 * c[p][k] - n2 * s[p][k];
                x2[p][k] = n2 * c[p][k] + n1 * s[p][k];
            }
            store<W>(y + my.col(p), x1[p]);
            store<W>(y + my.half + my.col(p), x2[p]);
        }
    }
}

/* -- backward: resident blocks, for the sums over rows, take one row after another; the next one and its angles are on
 * their way to shared memory -- */

template <typename T, int W> __device__ void copy_pack(pack<T, W> *to, const T *from, bool exists) /* else zeros */
{
    if constexpr (W == 1) {
        to->words_[0] = exists ? *from : from_float<T>(0.0f);
    } else {
#pragma unroll
        for (int i = 0; i < to->n_words; i++)
            copy_async<16>(shared_address(to->words_ + i), from + i * (W / to->n_words), exists);
    }
}

extern __shared__ __align__(16) char stages[];

/* The rows that a lane works on, of x and dy.  Either of two stages holds the packs of each p, of x and dy and of both
 * halves, those of all threads side by side, and after them for each row of the block cosines and sines. */
template <typename T, int W, int L> struct row_pipe {
    static constexpr int P = packs_of_lane<W>;
    using packs = pack<T, W>;
    const head_lane<W, L> &my;
    const qk_args<T> &a;
    const T *x, *dy;                                          /* of the row to ask for next, from this lane's head on */
    int ahead, step;                                          /* that row, and to the one after it */
    int32_t position;
    int n_threads, thread;
    int stage;                                                /* worked on; the next row goes to the other */

    static __host__ __device__ int stage_bytes(int n_threads, int rows, int head_dim)
    {
        return (int)(n_threads * 4 * P * sizeof(packs) + rows * head_dim * sizeof(float));
    }
    __device__ row_pipe(const head_lane<W, L> &lane, const qk_args<T> &args)
        : my(lane), a(args), x(a.qkv.at(my.row, (int64_t)my.h * a.head_dim)),
          dy(a.dqk.at(my.row, (int64_t)my.h * a.head_dim)), ahead(my.row), step(gridDim.x * blockDim.z),
          position(position_of(ahead)), n_threads(WARP * blockDim.y * blockDim.z),
          thread((threadIdx.z * blockDim.y + threadIdx.y) * WARP + threadIdx.x), stage(1)
    {
        ask(0);
    }
    __device__ int32_t position_of(int row) const { return row < a.rows ? a.positions[row] : 0; }
    __device__ char *stage_at(int i) const { return stages + i * stage_bytes(n_threads, blockDim.z, a.head_dim); }
    __device__ packs *pack_at(int i, int of_dy, int half, int p) const
    {
        return reinterpret_cast<packs *>(stage_at(i)) + ((p * 2 + of_dy) * 2 + half) * n_threads + thread;
    }
    __device__ float *angles_at(int i) const
    {
        return reinterpret_cast<float *>(stage_at(i) + n_threads * 4 * P * sizeof(packs)) + threadIdx.z * a.head_dim;
    }
    __device__ void ask(int i)
    {
#pragma unroll
        for (int p = 0; p < P; p++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                bool exists = my.h < a.n_heads && ahead < a.rows && my.has(p);
                int64_t col = half * my.half + my.col(p);
                copy_pack<T, W>(pack_at(i, 0, half, p), exists ? x + col : a.qkv.data, exists);
                copy_pack<T, W>(pack_at(i, 1, half, p), exists ? dy + col : a.dqk.data, exists);
            }
        if (threadIdx.y == 0) ask_angles(angles_at(i), a.cos.at(position, 0), a.sin.at(position, 0));
        copies_commit();
        ahead += step, x += step * a.qkv.stride, dy += step * a.dqk.stride;
        position = position_of(ahead);
    }
    /* with packs, first the lower fours of them, then the upper ones: neighbouring lanes read neighbours */
    __device__ void ask_angles(float *to, const float *cos, const float *sin)
    {
        if constexpr (W == 1) {
            for (int i = threadIdx.x; i < my.half; i += WARP) to[i] = cos[i], to[my.half + i] = sin[i];
        } else {
            int n = my.half / 4;
#pragma unroll 1
            for (int i = threadIdx.x; i < 2 * n; i += WARP) {
                bool is_sin = i >= n;
                int j = is_sin ? i - n : i, place = (is_sin ? n : 0) + j % 2 * (n / 2) + j / 2;
                copy_async<16>(shared_address(to + 4 * place), (is_sin ? sin : cos) + 4 * j, true);
            }
        }
    }
    /* All threads of the block together. */
    __device__ void next()
    {
        copies_wait<0>();
        __syncthreads();
        ask(stage);
        stage ^= 1;
    }
    __device__ void take(float (&one)[W], float (&two)[W], int of_dy, int p) const
    {
        load<W>(one, reinterpret_cast<const T *>(pack_at(stage, of_dy, 0, p)));
        load<W>(two, reinterpret_cast<const T *>(pack_at(stage, of_dy, 1, p)));
    }
    __device__ void take_angles(float (&c)[W], float (&s)[W], int p) const
    {
        const float *at = angles_at(stage);
        if constexpr (W == 1) {
            c[0] = at[my.any_col(p)], s[0] = at[my.half + my.any_col(p)];
        } else {
            float4 part[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                part[i] = *reinterpret_cast<const float4 *>(at + i * (my.half / 2) + my.any_col(p) / 2);
            memcpy(c, part, sizeof c), memcpy(s, part + 2, sizeof s);
        }
    }
};

/* Sums of dn x r over the rows of this block, q's heads and k's apart: those of a warp, then the warps' in order. */
template <int W, int L, int P>
__device__ void write_partial(float *partial, const head_lane<W, L> &my, int kind, int thread, int n_threads,
                              const float (&dw)[2][P][W])
{
    float *of_warp = reinterpret_cast<float *>(stages);       /* (warps, 2, head_dim): never more than both stages */
    int head_dim = 2 * my.half, width = 2 * head_dim;

    copies_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int to = 0; to < 2; to++)
#pragma unroll
        for (int half = 0; half < 2; half++)
#pragma unroll
            for (int p = 0; p < P; p++)
#pragma unroll
                for (int k = 0; k < W; k++) {
                    float sum = to == kind ? dw[half][p][k] : 0.0f;
                    for (int step = L; step < WARP; step *= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
                    if (threadIdx.x >= L || !my.has(p)) continue;
                    of_warp[thread / WARP * width + to * head_dim + half * my.half + my.col(p) + k] = sum;
                }
    __syncthreads();
    for (int j = thread; j < width; j += n_threads) {
        float sum = 0.0f;
        for (int w = 0; w < n_threads / WARP; w++) sum += of_warp[w * width + j];
        partial[(int64_t)(blockIdx.y * gridDim.x + blockIdx.x) * width + j] = sum;
    }
}

template <typename T, int W, int L>
__global__ void __launch_bounds__(BACKWARD_WARPS *WARP, sizeof(T) == 2 && W > 1 ? 2 : 1)
    qknorm_rope_backward_kernel(qk_args<T> a)
{
    constexpr int P = packs_of_lane<W>;
    const head_lane<W, L> my(a);
    row_pipe<T, W, L> in(my, a);
    const bool exists = my.h < a.n_heads;
    auto reciprocal = [&](int row) { return exists && row < a.rows ? a.r[(int64_t)row * a.n_heads + my.h] : 0.0f; };
    float dw[2][P][W] = {}, r_next = reciprocal(my.row);
    pack<T, W> w[2][P];

    my.take(w, weights_of(a, my.h), true);
    for (int row = my.row; row - (int)threadIdx.z < a.rows; row += in.step) { /* as often for all of the block */
        float u1[P][W], u2[P][W], g1[P][W], g2[P][W], dot = 0.0f, r = r_next; /* u = x r */
        in.next();
        r_next = reciprocal(row + in.step);
#pragma unroll
        for (int p = 0; p < P; p++) {
            float w1[W], w2[W], c[W], s[W];
            in.take(u1[p], u2[p], 0, p);
            in.take(g1[p], g2[p], 1, p);
            in.take_angles(c, s, p);
            unpack(w1, w[0][p]), unpack(w2, w[1][p]);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float dn1 = g1[p][k] * c[k] + g2[p][k] * s[k], dn2 = g2[p][k] * c[k] - g1[p][k] * s[k];
                u1[p][k] *= r, u2[p][k] *= r;
                dw[0][p][k] += dn1 * u1[p][k], dw[1][p][k] += dn2 * u2[p][k];
                g1[p][k] = w1[k] * dn1, g2[p][k] = w2[k] * dn2;
                dot += g1[p][k] * u1[p][k] + g2[p][k] * u2[p][k];
            }
        }
        float along_u = r * lanes_sum<L>(dot) / (float)a.head_dim;
        if (!exists || row >= a.rows) continue;
        T *dx = a.out.at(row, (int64_t)my.h * a.head_dim);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
#pragma unroll
            for (int k = 0; k < W; k++) {
                g1[p][k] = r * g1[p][k] - along_u * u1[p][k];
                g2[p][k] = r * g2[p][k] - along_u * u2[p][k];
            }
            store<W>(dx + my.col(p), g1[p]);
            store<W>(dx + my.half + my.col(p), g2[p]);
        }
    }
    let_next_start();
    write_partial(a.partial, my, my.h >= a.n_q_heads, in.thread, in.n_threads, dw);
}

/* launch(type_tag<T>, width<W>, lanes of a head): packs where they fit, else single elements */
template <typename F> void for_head(const char *op, dtype dt, int64_t head_dim, bool packed, F launch)
{
    int64_t half = head_dim / 2;

    packed = packed && half % PACK == 0 && half <= 16 * PACK;
    CHECK(head_dim % 2 == 0 && half <= 8 * WARP, "%s: head_dim %lld is odd or above %d", op, (long long)head_dim,
          16 * WARP);
    for_type(op, dt, packed, [&](auto t, auto w) {
        if constexpr (WIDTH(w) == 1)
            launch(t, w, width<WARP>());
        else if (half <= 4 * PACK)
            launch(t, w, width<4>());
        else if (half <= 8 * PACK)
            launch(t, w, width<8>());
        else
            launch(t, w, width<16>());
    });
}

template <typename T>
qk_args<T> qk_args_of(int64_t rows, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                      const int32_t *positions, head_shape s)
{
    qk_args<T> a = {};

    CHECK(rows < INT32_MAX / 2, "QK-norm of %lld rows", (long long)rows); /* a row and a step are an int */
    a.rows = (int)rows;
    a.qkv = view_of<const T>(qkv);
    a.r = r;
    a.q_norm = static_cast<const T *>(q_norm.data);
    a.k_norm = static_cast<const T *>(k_norm.data);
    a.cos = view_of<const float>(rope.cos);
    a.sin = view_of<const float>(rope.sin);
    a.positions = positions;
    a.n_heads = (int)(s.n_heads + s.n_kv_heads);
    a.n_q_heads = (int)s.n_heads;
    a.head_dim = (int)s.head_dim;
    return a;
}

/* Blocks of at most `most` warps: whole rows if one has room. */
struct qk_shape {
    int parts, warps, rows;                                   /* of a row; of a part; in a block */
    qk_shape(int lanes_of_row, int most)
    {
        int of_row = (lanes_of_row + WARP - 1) / WARP;
        parts = (of_row + most - 1) / most, warps = (of_row + parts - 1) / parts, rows = most / warps;
    }
    dim3 threads() const { return dim3(WARP, (unsigned)warps, (unsigned)rows); }
    int n_threads() const { return WARP * warps * rows; }
    int64_t blocks(int64_t n_rows) const { return (n_rows + rows - 1) / rows; }
};

}  // namespace

void qknorm_rope_cuda(moai_device *dev, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                      const int32_t *positions, head_shape s, float eps)
{
    const char *op = "qknorm_rope";
    bool packed = is_packed(qk, tensor_cols(qkv, 0, qk.cols), q_norm, k_norm, rope.cos, rope.sin);

    if (qk.rows == 0) return;
    if (qknorm_rope_few(dev, qk, r, qkv, q_norm, k_norm, rope, positions, s, eps)) return;
    for_head(op, qk.dt, s.head_dim, packed, [&](auto t, auto w, auto lanes) {
        using T = TYPE(t);
        constexpr int U = WIDTH(w) == 1 ? 1 : 2;
        qk_args<T> a = qk_args_of<T>(qk.rows, r, qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(qk), a.eps = eps;
        qk_shape shape((a.n_heads + U - 1) / U * WIDTH(lanes), FORWARD_WARPS);
        dim3 blocks((unsigned)shape.blocks(a.rows), (unsigned)shape.parts);
        qknorm_rope_kernel<T, WIDTH(w), WIDTH(lanes), U><<<blocks, shape.threads(), 0, dev->stream>>>(a);
        LAUNCH_CHECK(op);
    });
}

void qknorm_rope_backward_cuda(moai_device *dev, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                               const float *r, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions,
                               head_shape s)
{
    const char *op = "qknorm_rope_backward";
    int64_t d = s.head_dim;
    bool packed = is_packed(dqk, tensor_cols(qkv, 0, dqk.cols), tensor_cols(dqkv, 0, dqk.cols)) &&
                  is_packed(q_norm, k_norm, rope.cos, rope.sin);

    if (dqk.rows == 0) return;
    for_head(op, dqk.dt, d, packed, [&](auto t, auto w, auto lanes) {
        using T = TYPE(t);
        qk_args<T> a = qk_args_of<T>(dqk.rows, const_cast<float *>(r), qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(dqkv), a.dqk = view_of<const T>(dqk);
        using pipe = row_pipe<T, WIDTH(w), WIDTH(lanes)>;
        auto kernel = qknorm_rope_backward_kernel<T, WIDTH(w), WIDTH(lanes)>;
        qk_shape shape(a.n_heads * WIDTH(lanes), BACKWARD_WARPS);
        size_t shared = 2 * (size_t)pipe::stage_bytes(shape.n_threads(), shape.rows, a.head_dim);
        allow_shared(dev, op, kernel, shared);
        int64_t n_resident = resident_blocks(dev, kernel, shape.n_threads(), shared) / shape.parts;
        int64_t n_blocks = max_i64(1, min_i64(shape.blocks(a.rows), n_resident)), n_partial = n_blocks * shape.parts;
        a.partial = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_partial * 2 * d) * sizeof(float)));
        kernel<<<dim3((unsigned)n_blocks, (unsigned)shape.parts), shape.threads(), shared, dev->stream>>>(a);
        LAUNCH_CHECK(op);
        if (dq_norm.data)
            add_partials(dev, static_cast<float *>(dq_norm.data), static_cast<float *>(dk_norm.data), a.partial,
                         n_partial, d);
    });
}
