/* qknorm_rope.cu: RMSNorm of every q and k head, then the rotation of its pairs (i, i + head_dim/2), and the backward
 *
 *     n = w x r;   y1 = n1 cos - n2 sin,  y2 = n2 cos + n1 sin
 *
 * A warp takes a row, so that the angles are loaded once; L neighbouring lanes take a head at a time, a lane has the
 * same P packs of both halves and so holds whole pairs.  A lane asks for its part of the next head before it finishes
 * this one. */
#include "qknorm_rope_few.h"

#include "kernels.cuh"

namespace {

enum { WARPS = BLOCK / WARP };

template <typename T> struct qk_args {
    view<const T> qkv;                                        /* raw q, k */
    view<T> out;                                              /* forward: qk; backward: dqkv */
    view<const T> dqk;
    float *r;                                                 /* (rows, n_heads): reciprocal norms */
    const T *q_norm, *k_norm;
    view<const float> cos, sin;
    const int32_t *positions;
    float *partial;                                           /* (blocks, 2 head_dim): sums for dq_norm, dk_norm */
    int64_t rows;
    int n_heads, n_q_heads;                                   /* n_heads: q and k */
    int head_dim;
    float eps;
};

/* One lane's share of every head: columns col(p)... of the first half, and of the second. */
template <int W, int L, int P> struct head_lane {
    int half;
    __device__ static int group() { return threadIdx.x % WARP / L; }                /* of WARP / L: which head */
    __device__ static int lane() { return threadIdx.x % L; }
    __device__ int col(int p) const { return (p * L + lane()) * W; }
    __device__ bool has(int p) const { return col(p) < half; }
    template <typename T> __device__ void ask(pack<T, W> (&x)[2][P], const T *head) const
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!has(p)) continue;
            x[0][p] = fetch<W>(head + col(p));
            x[1][p] = fetch<W>(head + half + col(p));
        }
    }
    __device__ void angles(float (&c)[P][W], float (&s)[P][W], const float *cosines, const float *sines) const
    {
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!has(p)) continue;
            load<W>(c[p], cosines + col(p));
            load<W>(s[p], sines + col(p));
        }
    }
};

/* What a warp works on: a head for each of its groups of lanes; all heads of a row, then those of its next row. */
template <int AT_ONCE> struct head_walk {
    int64_t row, rows, step;
    int h, n_heads;
    __device__ head_walk(int group, int64_t n_rows, int heads)
        : row((int64_t)blockIdx.x * WARPS + threadIdx.x / WARP), rows(n_rows), step((int64_t)gridDim.x * WARPS),
          h(group), n_heads(heads)
    {
    }
    __device__ bool more() const { return row < rows; }
    __device__ bool inside() const { return row < rows && h < n_heads; }
    __device__ bool at_row_begin() const { return h < AT_ONCE; }
    __device__ head_walk next() const
    {
        head_walk w = *this;
        w.h += AT_ONCE;
        if (w.h - w.h % AT_ONCE >= n_heads) w.h %= AT_ONCE, w.row += step;        /* the same for the whole warp */
        return w;
    }
};

template <typename T, int W, int L, int P>
__global__ void __launch_bounds__(BLOCK, sizeof(T) == 2 && P == 1 ? 4 : 1) qknorm_rope_kernel(qk_args<T> a)
{
    constexpr int AT_ONCE = WARP / L;                         /* heads */
    head_lane<W, L, P> my = {a.head_dim / 2};
    head_walk<AT_ONCE> at(my.group(), a.rows, a.n_heads);
    pack<T, W> x[2][P];
    float c[P][W], s[P][W];

    if (at.inside()) my.ask(x, a.qkv.at(at.row, (int64_t)at.h * a.head_dim));
    for (; at.more(); at = at.next()) {
        int64_t row = at.row;
        int h = at.h;
        if (at.at_row_begin()) my.angles(c, s, a.cos.at(a.positions[row], 0), a.sin.at(a.positions[row], 0));
        float x1[P][W], x2[P][W], squares = 0.0f;
        pack<T, W> w[2][P];
        my.ask(w, h < a.n_q_heads ? a.q_norm : a.k_norm);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            unpack(x1[p], x[0][p]);
            unpack(x2[p], x[1][p]);
#pragma unroll
            for (int k = 0; k < W; k++) squares += x1[p][k] * x1[p][k] + x2[p][k] * x2[p][k];
        }
        if (at.next().inside()) my.ask(x, a.qkv.at(at.next().row, (int64_t)at.next().h * a.head_dim));
        float r = 1.0f / sqrtf(lanes_sum<L>(squares) / (float)a.head_dim + a.eps);
        if (!at.inside()) continue;
        if (my.lane() == 0) a.r[row * a.n_heads + h] = r;
        T *y = a.out.at(row, (int64_t)h * a.head_dim);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            float w1[W], w2[W];
            unpack(w1, w[0][p]);
            unpack(w2, w[1][p]);
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

/* Sums of dn x r over the rows of this block, q's heads and k's apart: its lanes' sums in the order of the groups. */
template <int W, int L, int P>
__device__ void write_partial(float *partial, const head_lane<W, L, P> &my, const float (&dw1)[2][P][W],
                              const float (&dw2)[2][P][W])
{
    extern __shared__ float of_group[];                       /* (BLOCK / L, 2, head_dim) */
    int head_dim = 2 * my.half, width = 2 * head_dim;
    float *mine = of_group + threadIdx.x / L * width;

    for (int kind = 0; kind < 2; kind++)
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
#pragma unroll
            for (int k = 0; k < W; k++) {
                mine[kind * head_dim + my.col(p) + k] = dw1[kind][p][k];
                mine[kind * head_dim + my.half + my.col(p) + k] = dw2[kind][p][k];
            }
        }
    __syncthreads();
    for (int j = threadIdx.x; j < width; j += BLOCK) {
        float sum = 0.0f;
        for (int g = 0; g < BLOCK / L; g++) sum += of_group[g * width + j];
        partial[(int64_t)blockIdx.x * width + j] = sum;
    }
}

template <typename T, int W, int L, int P>
__global__ void __launch_bounds__(BLOCK) qknorm_rope_backward_kernel(qk_args<T> a)
{
    constexpr int AT_ONCE = WARP / L;
    head_lane<W, L, P> my = {a.head_dim / 2};
    float dw1[2][P][W] = {}, dw2[2][P][W] = {};               /* [0] of q's norm, [1] of k's */

    head_walk<AT_ONCE> at(my.group(), a.rows, a.n_heads);
    pack<T, W> x[2][P], g[2][P];
    float c[P][W], s[P][W];
    auto ask = [&](const head_walk<AT_ONCE> &where) {
        if (!where.inside()) return;
        my.ask(x, a.qkv.at(where.row, (int64_t)where.h * a.head_dim));
        my.ask(g, a.dqk.at(where.row, (int64_t)where.h * a.head_dim));
    };

    ask(at);
    for (; at.more(); at = at.next()) {
        int64_t row = at.row;
        int h = at.h;
        bool inside = at.inside(), is_k = h >= a.n_q_heads;
        if (at.at_row_begin()) my.angles(c, s, a.cos.at(a.positions[row], 0), a.sin.at(a.positions[row], 0));
        float x1[P][W], x2[P][W], g1[P][W], g2[P][W], dot = 0.0f, r = inside ? a.r[row * a.n_heads + h] : 0.0f;
        pack<T, W> w[2][P];
        my.ask(w, is_k ? a.k_norm : a.q_norm);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!inside || !my.has(p)) continue;
            float w1[W], w2[W];
            unpack(x1[p], x[0][p]), unpack(x2[p], x[1][p]);
            unpack(g1[p], g[0][p]), unpack(g2[p], g[1][p]);
            unpack(w1, w[0][p]), unpack(w2, w[1][p]);
#pragma unroll
            for (int k = 0; k < W; k++) {
                float dn1 = g1[p][k] * c[p][k] + g2[p][k] * s[p][k], dn2 = g2[p][k] * c[p][k] - g1[p][k] * s[p][k];
                float t1 = dn1 * x1[p][k] * r, t2 = dn2 * x2[p][k] * r;
                dw1[0][p][k] += is_k ? 0.0f : t1, dw2[0][p][k] += is_k ? 0.0f : t2;
                dw1[1][p][k] += is_k ? t1 : 0.0f, dw2[1][p][k] += is_k ? t2 : 0.0f;
                g1[p][k] = w1[k] * dn1, g2[p][k] = w2[k] * dn2;
                dot += g1[p][k] * x1[p][k] + g2[p][k] * x2[p][k];
            }
        }
        ask(at.next());
        float along_x = r * r * r * lanes_sum<L>(dot) / (float)a.head_dim;
        T *dx = a.out.at(row, (int64_t)h * a.head_dim);
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!inside || !my.has(p)) continue;
#pragma unroll
            for (int k = 0; k < W; k++) {
                g1[p][k] = r * g1[p][k] - along_x * x1[p][k];
                g2[p][k] = r * g2[p][k] - along_x * x2[p][k];
            }
            store<W>(dx + my.col(p), g1[p]);
            store<W>(dx + my.half + my.col(p), g2[p]);
        }
    }
    write_partial(a.partial, my, dw1, dw2);
}

/* launch(type_tag<T>, width<W>, lanes, packs of a lane): one pack of either half a lane where that fits, else single
 * elements */
template <typename F> void for_head(const char *op, dtype dt, int64_t head_dim, bool packed, F launch)
{
    int64_t half = head_dim / 2;

    packed = packed && half % PACK == 0 && half <= 16 * PACK;
    CHECK(head_dim % 2 == 0 && half <= 8 * WARP, "%s: head_dim %lld is odd or above %d", op, (long long)head_dim,
          16 * WARP);
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
qk_args<T> qk_args_of(float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions,
                      attend_shape s)
{
    qk_args<T> a = {};

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

}  // namespace

void qknorm_rope_cuda(moai_device *dev, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                      const int32_t *positions, attend_shape s, float eps)
{
    const char *op = "qknorm_rope";
    bool packed = is_packed(qk, tensor_cols(qkv, 0, qk.cols), q_norm, k_norm, rope.cos, rope.sin);

    if (qk.rows == 0) return;
    if (qknorm_rope_few(dev, qk, r, qkv, q_norm, k_norm, rope, positions, s, eps)) return;
    for_head(op, qk.dt, s.head_dim, packed, [&](auto t, auto w, auto lanes, auto packs) {
        using T = TYPE(t);
        qk_args<T> a = qk_args_of<T>(r, qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(qk), a.rows = qk.rows, a.eps = eps;
        auto kernel = qknorm_rope_kernel<T, WIDTH(w), WIDTH(lanes), WIDTH(packs)>;
        kernel<<<(unsigned)min_i64((qk.rows + WARPS - 1) / WARPS, resident_blocks(dev, kernel, BLOCK, 0)), BLOCK, 0,
                 dev->stream>>>(a);
        LAUNCH_CHECK(op);
    });
}

void qknorm_rope_backward_cuda(moai_device *dev, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                               const float *r, tensor q_norm, tensor k_norm, rope_table rope, const int32_t *positions,
                               attend_shape s)
{
    const char *op = "qknorm_rope_backward";
    int64_t d = s.head_dim;
    bool packed = is_packed(dqk, tensor_cols(qkv, 0, dqk.cols), tensor_cols(dqkv, 0, dqk.cols)) &&
                  is_packed(q_norm, k_norm, rope.cos, rope.sin);

    if (dqk.rows == 0) return;
    for_head(op, dqk.dt, d, packed, [&](auto t, auto w, auto lanes, auto packs) {
        using T = TYPE(t);
        auto kernel = qknorm_rope_backward_kernel<T, WIDTH(w), WIDTH(lanes), WIDTH(packs)>;
        size_t shared = (size_t)(BLOCK / WIDTH(lanes) * 2 * d) * sizeof(float);
        allow_shared(dev, op, kernel, shared);
        int64_t n_blocks = min_i64((dqk.rows + WARPS - 1) / WARPS, resident_blocks(dev, kernel, BLOCK, shared));
        float *partial = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_blocks * 2 * d) * sizeof(float)));
        qk_args<T> a = qk_args_of<T>(const_cast<float *>(r), qkv, q_norm, k_norm, rope, positions, s);
        a.out = view_of<T>(dqkv), a.dqk = view_of<const T>(dqk), a.rows = dqk.rows, a.partial = partial;
        kernel<<<(unsigned)n_blocks, BLOCK, shared, dev->stream>>>(a);
        LAUNCH_CHECK(op);
        add_partials(dev, static_cast<float *>(dq_norm.data), static_cast<float *>(dk_norm.data), partial, n_blocks, d);
    });
}
