/* qknorm_rope.cu: RMSNorm of every q and k head, then the rotation of its pairs (i, i + head_dim/2), and the backward
 *
 *     n = w x r;   y1 = n1 cos - n2 sin,  y2 = n2 cos + n1 sin
 *
 * L neighbouring lanes take one head of one row; a lane has the same P packs of both halves, so that it holds whole pairs. */
#include "kernels.cuh"

namespace {

enum { BACKWARD_BLOCKS_PER_SM = 4 };

template <typename T> struct qk_args {
    view<const T> qkv;                                        /* raw q, k */
    view<T> out;                                              /* forward: qk; backward: dqkv */
    view<const T> dqk;
    float *r;                                                 /* (rows, n_heads): reciprocal norms */
    const T *q_norm, *k_norm;
    view<const float> cos, sin;
    const int32_t *positions;
    float *partial;                                           /* (blocks, 2 head_dim): sums for dq_norm, dk_norm */
    uint32_t rows, n_heads, n_q_heads;                        /* n_heads: q and k */
    int head_dim;
    float eps;
};

/* One lane's share of a head: which columns of the first half, and loads and stores of both halves. */
template <int W, int L, int P> struct head_lane {
    int lane, half;
    __device__ int col(int p) const { return (p * L + lane) * W; }
    __device__ bool has(int p) const { return col(p) < half; }
    template <typename T> __device__ void load_halves(float (&x1)[P][W], float (&x2)[P][W], const T *head) const
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!has(p)) continue;
            load<W>(x1[p], head + col(p));
            load<W>(x2[p], head + half + col(p));
        }
    }
    template <typename T> __device__ void store_pack(T *head, int p, const float (&x1)[W], const float (&x2)[W]) const
    {
        store<W>(head + col(p), x1);
        store<W>(head + half + col(p), x2);
    }
};

template <typename T, int W, int L, int P> __global__ void __launch_bounds__(BLOCK) qknorm_rope_kernel(qk_args<T> a)
{
    uint32_t item = blockIdx.x * (BLOCK / L) + threadIdx.x / L, n_items = a.rows * a.n_heads;
    bool inside = item < n_items;
    uint32_t row = inside ? item / a.n_heads : 0, h = inside ? item % a.n_heads : 0;
    head_lane<W, L, P> my = {(int)threadIdx.x % L, a.head_dim / 2};
    float x1[P][W] = {}, x2[P][W] = {}, squares = 0.0f;

    my.load_halves(x1, x2, a.qkv.at(row, (int64_t)h * a.head_dim));
#pragma unroll
    for (int p = 0; p < P; p++)
#pragma unroll
        for (int k = 0; k < W; k++) squares += x1[p][k] * x1[p][k] + x2[p][k] * x2[p][k];
    float r = 1.0f / sqrtf(lanes_sum<L>(squares) / (float)a.head_dim + a.eps);
    if (!inside) return;
    if (my.lane == 0) a.r[item] = r;

    const T *w = h < a.n_q_heads ? a.q_norm : a.k_norm;
    const float *cosines = a.cos.at(a.positions[row], 0), *sines = a.sin.at(a.positions[row], 0);
#pragma unroll
    for (int p = 0; p < P; p++) {
        if (!my.has(p)) continue;
        float w1[W], w2[W], c[W], s[W];
        load<W>(w1, w + my.col(p));
        load<W>(w2, w + my.half + my.col(p));
        load<W>(c, cosines + my.col(p));
        load<W>(s, sines + my.col(p));
#pragma unroll
        for (int k = 0; k < W; k++) {
            float n1 = x1[p][k] * r * w1[k], n2 = x2[p][k] * r * w2[k];
            x1[p][k] = n1 * c[k] - n2 * s[k];
            x2[p][k] = n2 * c[k] + n1 * s[k];
        }
        my.store_pack(a.out.at(row, (int64_t)h * a.head_dim), p, x1[p], x2[p]);
    }
}

/* Sums of dn x r over the rows of this block, q's heads and k's apart: its lanes' sums in the order of the groups. */
template <int W, int L, int P>
__device__ void write_partial(float *partial, const head_lane<W, L, P> &my, const float (&dw1)[2][P][W], const float (&dw2)[2][P][W])
{
    extern __shared__ float of_group[];                       /* (BLOCK / L, 2, head_dim) */
    int head_dim = 2 * my.half, width = 2 * head_dim;
    float *mine = of_group + threadIdx.x / L * width;

    for (int kind = 0; kind < 2; kind++)
#pragma unroll
        for (int p = 0; p < P; p++)
            for (int k = 0; k < W && my.has(p); k++) {
                mine[kind * head_dim + my.col(p) + k] = dw1[kind][p][k];
                mine[kind * head_dim + my.half + my.col(p) + k] = dw2[kind][p][k];
            }
    __syncthreads();
    for (int j = threadIdx.x; j < width; j += BLOCK) {
        float sum = 0.0f;
        for (int g = 0; g < BLOCK / L; g++) sum += of_group[g * width + j];
        partial[(int64_t)blockIdx.x * width + j] = sum;
    }
}

template <typename T, int W, int L, int P> __global__ void __launch_bounds__(BLOCK) qknorm_rope_backward_kernel(qk_args<T> a)
{
    uint32_t n_items = a.rows * a.n_heads, step = gridDim.x * (BLOCK / L);
    head_lane<W, L, P> my = {(int)threadIdx.x % L, a.head_dim / 2};
    float dw1[2][P][W] = {}, dw2[2][P][W] = {};               /* [0] of q's norm, [1] of k's */

    /* every lane of a warp takes part in the sums, so that all turn equally often */
    for (uint32_t first = blockIdx.x * (BLOCK / L); first < n_items; first += step) {
        uint32_t item = first + threadIdx.x / L;
        bool inside = item < n_items;
        uint32_t row = inside ? item / a.n_heads : 0, h = inside ? item % a.n_heads : 0;
        bool is_k = h >= a.n_q_heads;
        float x1[P][W] = {}, x2[P][W] = {}, g1[P][W] = {}, g2[P][W] = {}, dot = 0.0f, r = a.r[inside ? item : 0];
        const T *w = is_k ? a.k_norm : a.q_norm;
        const float *cosines = a.cos.at(a.positions[row], 0), *sines = a.sin.at(a.positions[row], 0);

        if (inside) {
            my.load_halves(x1, x2, a.qkv.at(row, (int64_t)h * a.head_dim));
            my.load_halves(g1, g2, a.dqk.at(row, (int64_t)h * a.head_dim));
        }
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            float w1[W], w2[W], c[W], s[W];
            load<W>(w1, w + my.col(p));
            load<W>(w2, w + my.half + my.col(p));
            load<W>(c, cosines + my.col(p));
            load<W>(s, sines + my.col(p));
#pragma unroll
            for (int k = 0; k < W; k++) {
                float dn1 = g1[p][k] * c[k] + g2[p][k] * s[k], dn2 = g2[p][k] * c[k] - g1[p][k] * s[k];
                float t1 = dn1 * x1[p][k] * r, t2 = dn2 * x2[p][k] * r;
                dw1[0][p][k] += is_k ? 0.0f : t1, dw2[0][p][k] += is_k ? 0.0f : t2;
                dw1[1][p][k] += is_k ? t1 : 0.0f, dw2[1][p][k] += is_k ? t2 : 0.0f;
                g1[p][k] = w1[k] * dn1, g2[p][k] = w2[k] * dn2;
                dot += g1[p][k] * x1[p][k] + g2[p][k] * x2[p][k];
            }
        }
        float along_x = r * r * r * lanes_sum<L>(dot) / (float)a.head_dim;
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!inside || !my.has(p)) continue;
#pragma unroll
            for (int k = 0; k < W; k++) {
                g1[p][k] = r * g1[p][k] - along_x * x1[p][k];
                g2[p][k] = r * g2[p][k] - along_x * x2[p][k];
            }
            my.store_pack(a.out.at(row, (int64_t)h * a.head_dim), p, g1[p], g2[p]);
        }
    }
    write_partial(a.partial, my, dw1, dw2);
}

/* launch(type_tag<T>, width<W>, lanes, packs of a lane): one pack of either half a lane where that fits, else single elements */
template <typename F> void for_head(const char *op, dtype dt, int64_t head_dim, bool packed, F launch)
{
    int64_t half = head_dim / 2;

    packed = packed && half % PACK == 0 && half <= 16 * PACK;
    CHECK(head_dim % 2 == 0 && half <= 8 * WARP, "%s: head_dim %lld is odd or above %d", op, (long long)head_dim, 16 * WARP);
    for_type(op, dt, packed, [&](auto t, auto w) {
        if constexpr (WIDTH(w) == 1)
            launch(t, w, width<WARP>(), width<8>());
        else if (half <= 4 * PACK)
            launch(t, w, width<4>(), width<1>());
        else if (half <= 8 * PACK)
            launch(t, w, width<8>(), width<1>());
        else
            launch(t, w, width<16>(), width<1>());
    });
}

template <typename T>
qk_args<T> qk_args_of(float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions, attend_shape s)
{
    qk_args<T> a = {};

    a.qkv = view_of<const T>(qkv);
    a.r = r;
    a.q_norm = static_cast<const T *>(q_norm.data);
    a.k_norm = static_cast<const T *>(k_norm.data);
    a.cos = view_of<const float>(rope.cos);
    a.sin = view_of<const float>(rope.sin);
    a.positions = positions;
    a.n_heads = (uint32_t)(s.n_heads + s.n_kv_heads);
    a.n_q_heads = (uint32_t)s.n_heads;
    a.head_dim = (int)s.head_dim;
    return a;
}

}  // namespace

void qknorm_rope_cuda(moai_device *dev, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                      const int32_t *positions, attend_shape s, float eps)
{
    int64_t n_items = qk.rows * (s.n_heads + s.n_kv_heads);
    bool packed = is_packed(qk, tensor_cols(qkv, 0, qk.cols), q_norm, k_norm, rope.cos, rope.sin);

    CHECK(n_items <= INT32_MAX, "qknorm_rope: %lld rows are too many", (long long)qk.rows);
    if (n_items == 0) return;
    for_head("qknorm_rope", qk.dt, s.head_dim, packed, [&](auto t, auto w, auto lanes, auto packs) {
        using T = TYPE(t);
        constexpr int L = WIDTH(lanes), heads_of_block = BLOCK / L;
        qk_args<T> a = qk_args_of<T>(r, qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(qk), a.rows = (uint32_t)qk.rows, a.eps = eps;
        unsigned n_blocks = (unsigned)((n_items + heads_of_block - 1) / heads_of_block);
        qknorm_rope_kernel<T, WIDTH(w), L, WIDTH(packs)><<<n_blocks, BLOCK, 0, dev->stream>>>(a);
        LAUNCH_CHECK("qknorm_rope");
    });
}

void qknorm_rope_backward_cuda(moai_device *dev, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                               const float *r, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions, attend_shape s)
{
    int64_t n_items = dqk.rows * (s.n_heads + s.n_kv_heads), d = s.head_dim, n_blocks = 0;
    bool packed = is_packed(dqk, tensor_cols(qkv, 0, dqk.cols), tensor_cols(dqkv, 0, dqk.cols)) && is_packed(q_norm, k_norm, rope.cos, rope.sin);
    float *partial = static_cast<float *>(device_scratch_cuda(dev, (size_t)(dev->n_sm * BACKWARD_BLOCKS_PER_SM * 2 * d) * sizeof(float)));

    CHECK(n_items <= INT32_MAX, "qknorm_rope_backward: %lld rows are too many", (long long)dqk.rows);
    if (n_items == 0) return;
    for_head("qknorm_rope_backward", dqk.dt, d, packed, [&](auto t, auto w, auto lanes, auto packs) {
        using T = TYPE(t);
        constexpr int L = WIDTH(lanes), heads_of_block = BLOCK / L;
        qk_args<T> a = qk_args_of<T>(const_cast<float *>(r), qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(dqkv), a.dqk = view_of<const T>(dqk), a.rows = (uint32_t)dqk.rows, a.partial = partial;
        n_blocks = min_i64((n_items + heads_of_block - 1) / heads_of_block, dev->n_sm * BACKWARD_BLOCKS_PER_SM);
        size_t shared = (size_t)(heads_of_block * 2 * d) * sizeof(float);
        allow_shared(dev, "qknorm_rope_backward", qknorm_rope_backward_kernel<T, WIDTH(w), L, WIDTH(packs)>, shared);
        qknorm_rope_backward_kernel<T, WIDTH(w), L, WIDTH(packs)><<<(unsigned)n_blocks, BLOCK, shared, dev->stream>>>(a);
        LAUNCH_CHECK("qknorm_rope_backward");
    });
    add_partials(dev, static_cast<float *>(dq_norm.data), partial, n_blocks, d, 2 * d);
    add_partials(dev, static_cast<float *>(dk_norm.data), partial + d, n_blocks, d, 2 * d);
}
