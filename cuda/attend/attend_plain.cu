/* attend_plain.cu: attention by the formula, one warp a query (forward, dq) or a key (dk, dv); see attend.h.
 *
 *     p(i,j) = exp(scale q_i k_j - lse_i), j <= i     att_i = sum_j p(i,j) v_j
 *     dp(i,j) = datt_i v_j,  ds(i,j) = p(i,j) (dp(i,j) - datt_i att_i) scale
 *     dq_i = sum_j ds(i,j) k_j     dk_j = sum_i ds(i,j) q_i     dv_j = sum_i p(i,j) datt_i */
#include "cuda/attend/attend.h"

#include "cuda/kernels.cuh"

namespace {

enum { MAX_HEAD_DIM = ATTEND_MOST_HEAD_DIM, PER_LANE = MAX_HEAD_DIM / WARP, WARPS = BLOCK / WARP };

/* One row of one head, spread over the lanes of a warp: lane l holds features l, l + 32, ... */
struct lane_row {
    float x[PER_LANE];
};

template <typename T> __device__ lane_row load_row(view<T> t, int64_t row, int64_t head, int head_dim)
{
    lane_row r;
#pragma unroll
    for (int e = 0; e < PER_LANE; e++) {
        int d = e * WARP + threadIdx.x % WARP;
        r.x[e] = d < head_dim ? to_float(*t.at(row, head * head_dim + d)) : 0.0f;
    }
    return r;
}

template <typename T> __device__ void store_row(view<T> t, int64_t row, int64_t head, int head_dim, const lane_row &r)
{
#pragma unroll
    for (int e = 0; e < PER_LANE; e++) {
        int d = e * WARP + threadIdx.x % WARP;
        if (d < head_dim) *t.at(row, head * head_dim + d) = from_float<T>(r.x[e]);
    }
}

__device__ float dot(const lane_row &a, const lane_row &b)
{
    float s = 0;
#pragma unroll
    for (int e = 0; e < PER_LANE; e++) s += a.x[e] * b.x[e];
    return lanes_sum(s);
}

__device__ void add_scaled(lane_row &y, float a, const lane_row &x)
{
#pragma unroll
    for (int e = 0; e < PER_LANE; e++) y.x[e] += a * x.x[e];
}

/* The warp's (sequence, head, position); false past the end. */
struct place {
    int64_t head, position, first_row, stat;
};
__device__ bool find_place(place &p, attend_shape s, int64_t n_heads)
{
    int64_t w = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int64_t seq = w / (n_heads * s.seq_len);

    p.position = w % s.seq_len;
    p.head = w / s.seq_len % n_heads;
    p.first_row = seq * s.seq_len;
    p.stat = (seq * s.n_heads + p.head) * s.seq_len + p.position; /* of a query head */
    return seq < s.batch;
}

template <typename T>
__global__ void forward_kernel(view<T> att, float *lse, view<T> q, view<T> k, view<T> v, attend_shape s)
{
    place at;
    if (!find_place(at, s, s.n_heads)) return;
    const int D = (int)s.head_dim;
    const int64_t kv_head = at.head / (s.n_heads / s.n_kv_heads);
    lane_row query = load_row(q, at.first_row + at.position, at.head, D), sum = {};
    float most = -INFINITY, total = 0;

    for (int64_t j = 0; j <= at.position; j++) {
        float score = s.scale * dot(query, load_row(k, at.first_row + j, kv_head, D));
        float more = fmaxf(most, score), keep = expf(most - more), p = expf(score - more);
        for (int e = 0; e < PER_LANE; e++) sum.x[e] *= keep;
        add_scaled(sum, p, load_row(v, at.first_row + j, kv_head, D));
        total = total * keep + p;
        most = more;
    }
    for (int e = 0; e < PER_LANE; e++) sum.x[e] /= total;
    store_row(att, at.first_row + at.position, at.head, D, sum);
    if (threadIdx.x % WARP == 0) lse[at.stat] = most + logf(total);
}

template <typename T>
__global__ void dq_kernel(view<T> dq, view<T> datt, view<T> q, view<T> k, view<T> v, view<T> att, const float *lse,
                          attend_shape s)
{
    place at;
    if (!find_place(at, s, s.n_heads)) return;
    const int D = (int)s.head_dim;
    const int64_t kv_head = at.head / (s.n_heads / s.n_kv_heads), row = at.first_row + at.position;
    lane_row query = load_row(q, row, at.head, D), grad = load_row(datt, row, at.head, D), sum = {};
    float delta = dot(grad, load_row(att, row, at.head, D));

    for (int64_t j = 0; j <= at.position; j++) {
        lane_row key = load_row(k, at.first_row + j, kv_head, D);
        float p = expf(s.scale * dot(query, key) - lse[at.stat]);
        float dp = dot(grad, load_row(v, at.first_row + j, kv_head, D));
        add_scaled(sum, p * (dp - delta) * s.scale, key);
    }
    store_row(dq, row, at.head, D, sum);
}

template <typename T>
__global__ void dkv_kernel(view<T> dk, view<T> dv, view<T> datt, view<T> q, view<T> k, view<T> v, view<T> att,
                           const float *lse, attend_shape s)
{
    place at;
    if (!find_place(at, s, s.n_kv_heads)) return;
    const int D = (int)s.head_dim;
    const int64_t group = s.n_heads / s.n_kv_heads, row = at.first_row + at.position;
    lane_row key = load_row(k, row, at.head, D), value = load_row(v, row, at.head, D), sum_k = {}, sum_v = {};

    for (int64_t h = at.head * group; h < (at.head + 1) * group; h++) {
        const float *head_lse = lse + (at.first_row / s.seq_len * s.n_heads + h) * s.seq_len;
        for (int64_t i = at.position; i < s.seq_len; i++) {
            lane_row query = load_row(q, at.first_row + i, h, D), grad = load_row(datt, at.first_row + i, h, D);
            float p = expf(s.scale * dot(query, key) - head_lse[i]);
            float delta = dot(grad, load_row(att, at.first_row + i, h, D));
            add_scaled(sum_k, p * (dot(grad, value) - delta) * s.scale, query);
            add_scaled(sum_v, p, grad);
        }
    }
    store_row(dk, row, at.head, D, sum_k);
    store_row(dv, row, at.head, D, sum_v);
}

unsigned blocks_for(const char *op, attend_shape s, int64_t n_heads)
{
    int64_t n = (s.batch * n_heads * s.seq_len + WARPS - 1) / WARPS;

    CHECK(s.head_dim <= MAX_HEAD_DIM, "%s: head_dim %lld is larger than %d", op, (long long)s.head_dim, MAX_HEAD_DIM);
    CHECK(n <= INT32_MAX, "%s: %lld x %lld x %lld is more than one launch holds", op, (long long)s.batch,
          (long long)n_heads, (long long)s.seq_len);
    return (unsigned)n;
}

}  // namespace

void attend_plain(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s)
{
    for_type("attend", q.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        forward_kernel<T><<<blocks_for("attend", s, s.n_heads), BLOCK, 0, dev->stream>>>(
            view_of<T>(att), lse, view_of<T>(q), view_of<T>(k), view_of<T>(v), s);
    });
    LAUNCH_CHECK("attend");
}

void attend_plain_backward(moai_device *dev, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape s)
{
    const char *const op = "attend_backward";

    for_type(op, q.dt, false, [&](auto t, auto) {
        using T = TYPE(t);
        dq_kernel<T><<<blocks_for(op, s, s.n_heads), BLOCK, 0, dev->stream>>>(
            view_of<T>(dq), view_of<T>(datt), view_of<T>(q), view_of<T>(k), view_of<T>(v), view_of<T>(att), lse, s);
        dkv_kernel<T><<<blocks_for(op, s, s.n_kv_heads), BLOCK, 0, dev->stream>>>(
            view_of<T>(dk), view_of<T>(dv), view_of<T>(datt), view_of<T>(q), view_of<T>(k), view_of<T>(v),
            view_of<T>(att), lse, s);
    });
    LAUNCH_CHECK(op);
}
