/* qknorm_rope_few.cu: RMSNorm of q and k heads and their rotation, see qknorm_rope.cu, where there are too few rows to
 * fill the card with warps of several heads: a warp takes one head of one row. */
#include "cuda/qknorm_rope_few.h"

#include "cuda/kernels.cuh"

namespace {

enum { WARPS = 4, MAX_ROWS = 64, MAX_HEAD_DIM = 256, PAIRS = MAX_HEAD_DIM / 2 / WARP }; /* of a lane */

template <typename T> struct few_heads {
    view<T> qk;
    view<const T> qkv;
    float *r;
    const T *q_norm, *k_norm;
    view<const float> cos, sin;
    const int32_t *positions;
    int n_rows, n_heads, n_q_heads, head_dim; /* n_heads: q and k */
    float eps;
};

template <typename T> __global__ void __launch_bounds__(WARPS *WARP) few_heads_kernel(few_heads<T> a)
{
    const int at = blockIdx.x * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP, half = a.head_dim / 2;
    const int row = at / a.n_heads, h = at % a.n_heads;
    float x1[PAIRS], x2[PAIRS], w1[PAIRS], w2[PAIRS], c[PAIRS], s[PAIRS], squares = 0;

    let_next_start();
    wait_for_previous();
    if (row >= a.n_rows) return;
    const T *x = a.qkv.at(row, h * a.head_dim), *w = h < a.n_q_heads ? a.q_norm : a.k_norm;
    const float *cosines = a.cos.at(a.positions[row], 0), *sines = a.sin.at(a.positions[row], 0);
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        const int j = p * WARP + lane;
        if (j >= half) continue;
        x1[p] = to_float(x[j]), x2[p] = to_float(x[half + j]);
        w1[p] = to_float(w[j]), w2[p] = to_float(w[half + j]);
        c[p] = cosines[j], s[p] = sines[j];
    }
#pragma unroll
    for (int p = 0; p < PAIRS; p++)
        if (p * WARP + lane < half) squares += x1[p] * x1[p] + x2[p] * x2[p];
    const float r = 1.0f / sqrtf(lanes_sum(squares) / (float)a.head_dim + a.eps);
    if (lane == 0) a.r[at] = r;
    T *y = a.qk.at(row, h * a.head_dim);
#pragma unroll
    for (int p = 0; p < PAIRS; p++) {
        const int j = p * WARP + lane;
        if (j >= half) continue;
        const float n1 = x1[p] * r * w1[p], n2 = x2[p] * r * w2[p];
        y[j] = from_float<T>(n1 * c[p] - n2 * s[p]);
        y[half + j] = from_float<T>(n2 * c[p] + n1 * s[p]);
    }
}

}  // namespace

bool qknorm_rope_few(moai_device *dev, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table rope,
                     const int32_t *positions, head_shape s, float eps)
{
    const char *op = "qknorm_rope";
    const int n_heads = (int)(s.n_heads + s.n_kv_heads);

    if (qk.rows > MAX_ROWS || s.head_dim > MAX_HEAD_DIM || s.head_dim % 2 != 0) return false;
    for_type(op, qk.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        const few_heads<T> a = {view_of<T>(qk),
                                view_of<const T>(qkv),
                                r,
                                static_cast<const T *>(q_norm.data),
                                static_cast<const T *>(k_norm.data),
                                view_of<const float>(rope.cos),
                                view_of<const float>(rope.sin),
                                positions,
                                (int)qk.rows,
                                n_heads,
                                (int)s.n_heads,
                                (int)s.head_dim,
                                eps};
        launch(dev, op, few_heads_kernel<T>, dim3((unsigned)((qk.rows * n_heads + WARPS - 1) / WARPS)), WARPS * WARP, 0,
               a);
    });
    return true;
}
