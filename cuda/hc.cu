/* hc.cu: the streams of hyper-connections: coefficients, reading, merging, and backwards (hc.h) */
#include "cuda/hc_border.h"

namespace
{

enum { TOKENS = 32 }; /* of a block that has a thread for each token's coefficients */

/* -- coefficients: 1 / rms of a token by a block, then the rest of it by one thread -- */

template <typename T>
__global__ void __launch_bounds__(BLOCK) rms_kernel(float *r, view<const T> x, int cols, float eps)
{
    const int64_t row = blockIdx.x;
    float sum = 0;

    for (int c = threadIdx.x; c < cols; c += BLOCK) {
        const float v = to_float(*x.at(row, c));
        sum += v * v;
    }
    sum = block_sum(sum, 0);
    if (threadIdx.x == 0) r[row] = 1 / sqrtf(sum / (float)cols + eps);
}

__global__ void __launch_bounds__(TOKENS)
    coefficients_kernel(view<float> coef, const float *r, view<const float> raw, const float *base, const float *scale,
                        int64_t n_rows, hc_shape s)
{
    extern __shared__ float sums[];
    const int64_t row = (int64_t)blockIdx.x * TOKENS + threadIdx.x;

    if (row >= n_rows) return;
    const hc_token t = {raw.at(row, 0), base, scale, r[row], sums + threadIdx.x, TOKENS};
    hc_token_forward(coef.at(row, 0), &t, s);
}

__global__ void __launch_bounds__(TOKENS)
    coefficients_backward_kernel(view<float> dh, view<float> along, view<const float> dcoef, const float *r,
                                 view<const float> raw, const float *base, const float *scale, int64_t n_rows,
                                 int64_t cols, hc_shape s)
{
    extern __shared__ float sums[];
    const int64_t row = (int64_t)blockIdx.x * TOKENS + threadIdx.x;

    if (row >= n_rows) return;
    const hc_token t = {raw.at(row, 0), base, scale, r[row], sums + threadIdx.x, TOKENS};
    const float sum = hc_token_backward(dh.at(row, 0), dcoef.at(row, 0), &t, s);
    *along.at(row, 0) = r[row] * r[row] * r[row] / (float)cols * sum;
}

template <typename T>
__global__ void __launch_bounds__(BLOCK)
    raw_kernel(view<T> draw, view<const float> dh, const float *r, const float *scale, int64_t n_raw, int n)
{
    const int64_t row = blockIdx.x;

    for (int64_t k = threadIdx.x; k < n_raw; k += BLOCK)
        *draw.at(row, k) = from_float<T>(scale[hc_group(n, k)] * r[row] * *dh.at(row, k));
}

/* -- streams: a block a token -- */

/* u's element of column c */
template <typename T, int N> __device__ float read_at(view<const T> x, int64_t row, int c, const float *pre, int H)
{
    float sum = 0;

#pragma unroll
    for (int i = 0; i < N; i++) sum += pre[i] * to_float(*x.at(row, i * H + c));
    return sum;
}

template <typename T, int N>
__global__ void __launch_bounds__(BLOCK) read_kernel(view<T> u, view<const T> x, view<const float> coef, int H)
{
    const int64_t row = blockIdx.x;
    const float *pre = coef.at(row, 0);

    for (int c = threadIdx.x; c < H; c += BLOCK) *u.at(row, c) = from_float<T>(read_at<T, N>(x, row, c, pre, H));
}

template <typename T, int N>
__global__ void __launch_bounds__(BLOCK)
    read_norm_kernel(view<T> n1, float *rn, view<const T> x, view<const float> coef, const T *w, float eps, int H)
{
    const int64_t row = blockIdx.x;
    const float *pre = coef.at(row, 0);
    float squares = 0;

    for (int c = threadIdx.x; c < H; c += BLOCK) {
        const float u = read_at<T, N>(x, row, c, pre, H);
        squares += u * u;
    }
    const float r = 1 / sqrtf(block_sum(squares, 0) / (float)H + eps);
    if (threadIdx.x == 0) rn[row] = r;
    for (int c = threadIdx.x; c < H; c += BLOCK)
        *n1.at(row, c) = from_float<T>(read_at<T, N>(x, row, c, pre, H) * r * to_float(w[c]));
}

template <typename T, int N>
__global__ void __launch_bounds__(BLOCK)
    merge_kernel(view<T> out, view<const T> x, view<const T> y, view<const float> coef, int H)
{
    const int64_t row = blockIdx.x;
    const float *post = coef.at(row, N), *comb = post + N;

    for (int c = threadIdx.x; c < H; c += BLOCK) {
        const float branch = to_float(*y.at(row, c));
        float from[N];
#pragma unroll
        for (int i = 0; i < N; i++) from[i] = to_float(*x.at(row, i * H + c));
#pragma unroll
        for (int j = 0; j < N; j++) {
            float sum = __fmul_rn(post[j], branch);           /* in this order: hc_border.cu does the same */
#pragma unroll
            for (int i = 0; i < N; i++) sum = __fmaf_rn(comb[i * N + j], from[i], sum);
            *out.at(row, j * H + c) = from_float<T>(sum);
        }
    }
}

template <typename T, int N>
__global__ void __launch_bounds__(BLOCK)
    merge_backward_kernel(view<T> dx, view<T> dy, view<float> dcoef, view<const T> dout, view<const T> x,
                          view<const T> y, view<const float> coef, int H)
{
    const int64_t row = blockIdx.x;
    const float *post = coef.at(row, N), *comb = post + N;
    float dpost[N] = {}, dcomb[N][N] = {};

    for (int c = threadIdx.x; c < H; c += BLOCK) {
        const float branch = to_float(*y.at(row, c));
        float g[N], dbranch = 0;
#pragma unroll
        for (int j = 0; j < N; j++) {
            g[j] = to_float(*dout.at(row, j * H + c));
            dbranch += post[j] * g[j];
            dpost[j] += branch * g[j];
        }
        *dy.at(row, c) = from_float<T>(dbranch);
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float from = to_float(*x.at(row, i * H + c));
            float sum = 0;
#pragma unroll
            for (int j = 0; j < N; j++) {
                sum += comb[i * N + j] * g[j];
                dcomb[i][j] += from * g[j];
            }
            *dx.at(row, i * H + c) = from_float<T>(sum);
        }
    }
    int turn = 0;
#pragma unroll
    for (int j = 0; j < N; j++, turn ^= 1) {
        const float sum = block_sum(dpost[j], turn);
        if (threadIdx.x == 0) *dcoef.at(row, N + j) = sum;
    }
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < N; j++, turn ^= 1) {
            const float sum = block_sum(dcomb[i][j], turn);
            if (threadIdx.x == 0) *dcoef.at(row, 2 * N + i * N + j) = sum;
        }
}

/* -- a reading on its way back (ops.h) -- */

template <typename T> struct reading {
    view<const T> dn, x;
    view<const float> coef;
    const T *w;                                               /* NULL: none */
    const float *rn;
    view<float> along;
    int H;
};

/* du's element of column c */
template <typename T, int N> __device__ float du_at(const reading<T> &a, int64_t row, int c, float along)
{
    const float dn = to_float(*a.dn.at(row, c));

    if (!a.w) return dn;
    return a.rn[row] * to_float(a.w[c]) * dn - along * read_at<T, N>(a.x, row, c, a.coef.at(row, 0), a.H);
}

/* along[1] for every thread of the block, of whose rows a thread adds up dn u rn for its columns in dw. */
template <typename T, int N>
__device__ float norm_backward(const reading<T> &a, int64_t row, float *dw, bool is_first)
{
    const float *pre = a.coef.at(row, 0), r = a.rn[row];
    float sum = 0;

    for (int c = threadIdx.x; c < a.H; c += BLOCK) {
        const float dn = to_float(*a.dn.at(row, c)), u = read_at<T, N>(a.x, row, c, pre, a.H);
        sum += to_float(a.w[c]) * dn * u;
        dw[c] = (is_first ? 0 : dw[c]) + dn * u * r;
    }
    return r * r * r / (float)a.H * block_sum(sum, 0);
}

/* A block takes one row after another; dw_partial (blocks, H). */
template <typename T, int N>
__global__ void __launch_bounds__(BLOCK)
    read_backward_kernel(view<float> dcoef, float *dw_partial, reading<T> a, int64_t n_rows)
{
    float *dw = dw_partial + (int64_t)blockIdx.x * a.H;

    for (int64_t row = blockIdx.x; row < n_rows; row += gridDim.x) {
        const float along = a.w ? norm_backward<T, N>(a, row, dw, row == blockIdx.x) : 0;
        float dpre[N] = {};
        for (int c = threadIdx.x; c < a.H; c += BLOCK) {
            const float du = du_at<T, N>(a, row, c, along);
#pragma unroll
            for (int i = 0; i < N; i++) dpre[i] += du * to_float(*a.x.at(row, i * a.H + c));
        }
        if (threadIdx.x == 0) *a.along.at(row, 1) = along;
#pragma unroll
        for (int i = 0; i < N; i++) {
            const float sum = block_sum(dpre[i], (i + 1) % 2);
            if (threadIdx.x == 0) *dcoef.at(row, i) = sum;
        }
        __syncthreads();                                      /* the next row's sums begin where these do */
    }
}

/* but for draw fn */
template <typename T, int N>
__global__ void __launch_bounds__(BLOCK) streams_backward_kernel(view<T> dx, reading<T> a)
{
    const int64_t row = blockIdx.x;
    const float *pre = a.coef.at(row, 0), along_x = *a.along.at(row, 0), along_u = *a.along.at(row, 1);

    for (int c = threadIdx.x; c < a.H; c += BLOCK) {
        const float du = du_at<T, N>(a, row, c, along_u);
#pragma unroll
        for (int i = 0; i < N; i++) {
            T *to = dx.at(row, i * a.H + c);
            *to = from_float<T>(to_float(*to) + pre[i] * du - along_x * to_float(*a.x.at(row, i * a.H + c)));
        }
    }
}

/* -- parameters: a block a column, whose part of its group's scale is left for the last -- */

__global__ void __launch_bounds__(BLOCK)
    parameters_kernel(float *dbase, float *of_scale, view<const float> dh, view<const float> raw, const float *r,
                      int64_t n_rows)
{
    const int64_t k = blockIdx.x;
    float base = 0, scale = 0;

    for (int64_t row = threadIdx.x; row < n_rows; row += BLOCK) {
        const float d = *dh.at(row, k);
        base += d;
        scale += d * r[row] * *raw.at(row, k);
    }
    base = block_sum(base, 0);
    scale = block_sum(scale, 1);
    if (threadIdx.x == 0) dbase[k] += base, of_scale[k] = scale;
}

__global__ void __launch_bounds__(BLOCK) scales_kernel(float *dscale, const float *of_scale, int64_t n_raw, int n)
{
    const int group = blockIdx.x;
    const int64_t begin = group * n, end = group < 2 ? begin + n : n_raw;
    float sum = 0;

    for (int64_t k = begin + threadIdx.x; k < end; k += BLOCK) sum += of_scale[k];
    sum = block_sum(sum, 0);
    if (threadIdx.x == 0) dscale[group] += sum;
}

/* -- launches -- */

/* f(an integral constant of n) */
template <int N = HC_MOST_STREAMS, typename F> void for_streams(int n, F f)
{
    if constexpr (N >= 1) {
        if (n == N)
            f(std::integral_constant<int, N>{});
        else
            for_streams<N - 1>(n, f);
    } else {
        die("%d streams", n);
    }
}

/* base and scale as fp32 in scratch, and room for `more` floats behind them. */
float *parameters(moai_device *dev, tensor base, tensor scale, int64_t n_raw, int64_t more)
{
    float *p = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_raw + 3 + more) * sizeof(float)));

    cast_cuda(dev, tensor_of(p, DT_F32, 1, n_raw), base);
    cast_cuda(dev, tensor_of(p + n_raw, DT_F32, 1, scale.cols), scale);
    return p;
}

void check_shape(const char *op, tensor x, tensor coef, int n, int64_t n_coef)
{
    CHECK(n >= 1 && n <= HC_MOST_STREAMS && x.cols % n == 0 && coef.cols >= n_coef && coef.dt == DT_F32 &&
              x.rows < INT32_MAX && x.cols < INT32_MAX,
          "%s: %d streams of (%lld, %lld), %lld coefficients", op, n, (long long)x.rows, (long long)x.cols,
          (long long)coef.cols);
}

template <typename T> reading<T> reading_of(const hc_reading *a)
{
    return {view_of<const T>(a->dn),
            view_of<const T>(a->x),
            view_of<const float>(a->coef),
            static_cast<const T *>(a->w.data),
            a->rn,
            view_of<float>(a->along),
            (int)a->dn.cols};
}

unsigned token_blocks(int64_t n) { return (unsigned)((n + TOKENS - 1) / TOKENS); }

/* Shared memory for Sinkhorn's sums. */
template <typename K> size_t sums_bytes(const moai_device *dev, const char *op, K kernel, hc_shape s)
{
    const size_t n = (size_t)hc_n_sums(s) * TOKENS * sizeof(float);

    allow_shared(dev, op, kernel, n);
    return n;
}

/* f(a type's tag, an integral constant of n) launches something for the rows of x. */
template <typename F> void for_rows(const char *op, tensor x, int n, F f)
{
    if (x.rows == 0) return;
    for_type(op, x.dt, false, [&](auto t, auto) { for_streams(n, [&](auto streams) { f(t, streams); }); });
    LAUNCH_CHECK(op);
}

} // namespace

void hc_coefficients_cuda(moai_device *dev, tensor coef, tensor raw, float *r, tensor x, tensor fn, tensor base,
                          tensor scale, hc_shape s)
{
    const char *op = "hc_coefficients";
    const int64_t n_raw = hc_n_raw(s);

    check_shape(op, x, coef, s.n, hc_n_coef(s));
    if (x.rows == 0) return;
    if (border_takes(dev, x, s.n, n_raw) && is_packed(fn)) {
        border_coefficients(dev, x, coef, raw, r, x, tensor(), tensor(), fn, base, scale, s);
        return;
    }
    matmul_cuda(dev, raw, x, fn);
    const float *p = parameters(dev, base, scale, n_raw, 0);
    for_type(op, x.dt, false, [&](auto t, auto) {
        rms_kernel<<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(r, view_of<const TYPE(t)>(x), (int)x.cols, s.norm_eps);
    });
    LAUNCH_CHECK(op);
    coefficients_kernel<<<token_blocks(x.rows), TOKENS, sums_bytes(dev, op, coefficients_kernel, s), dev->stream>>>(
        view_of<float>(coef), r, view_of<const float>(raw), p, p + n_raw, x.rows, s);
    LAUNCH_CHECK(op);
}

void hc_read_cuda(moai_device *dev, tensor u, tensor x, tensor coef, int n)
{
    check_shape("hc_read", x, coef, n, n);
    for_rows("hc_read", x, n, [&](auto t, auto streams) {
        using T = TYPE(t);
        read_kernel<T, decltype(streams)::value><<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(
            view_of<T>(u), view_of<const T>(x), view_of<const float>(coef), (int)u.cols);
    });
}

void hc_read_norm_cuda(moai_device *dev, tensor n1, float *rn, tensor x, tensor coef, tensor w, float eps, int n)
{
    check_shape("hc_read_norm", x, coef, n, n);
    if (border_takes(dev, x, n, 2 * n + n * n) && is_packed(n1, w)) {
        border_read_norm(dev, n1, rn, x, coef, w, eps, n);
        return;
    }
    for_rows("hc_read_norm", x, n, [&](auto t, auto streams) {
        using T = TYPE(t);
        read_norm_kernel<T, decltype(streams)::value><<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(
            view_of<T>(n1), rn, view_of<const T>(x), view_of<const float>(coef), static_cast<const T *>(w.data), eps,
            (int)n1.cols);
    });
}

void hc_merge_cuda(moai_device *dev, tensor out, tensor x, tensor y, tensor coef, int n)
{
    check_shape("hc_merge", x, coef, n, 2 * n + n * n);
    for_rows("hc_merge", x, n, [&](auto t, auto streams) {
        using T = TYPE(t);
        merge_kernel<T, decltype(streams)::value><<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(
            view_of<T>(out), view_of<const T>(x), view_of<const T>(y), view_of<const float>(coef), (int)y.cols);
    });
}

void hc_merge_coefficients_cuda(moai_device *dev, tensor out, tensor coef, tensor raw, float *r, tensor x, tensor y,
                                tensor merging, tensor fn, tensor base, tensor scale, hc_shape s)
{
    if (border_takes(dev, x, s.n, hc_n_raw(s)) && is_packed(out, y, fn) && border_takes_merging(merging, s.n)) {
        border_coefficients(dev, out, coef, raw, r, x, y, merging, fn, base, scale, s);
        return;
    }
    hc_merge_cuda(dev, out, x, y, merging, s.n);
    hc_coefficients_cuda(dev, coef, raw, r, out, fn, base, scale, s);
}

void hc_merge_backward_cuda(moai_device *dev, tensor dx, tensor dy, tensor dcoef, tensor dout, tensor x, tensor y,
                            tensor coef, int n)
{
    check_shape("hc_merge_backward", x, coef, n, 2 * n + n * n);
    if (border_takes(dev, x, n, 2 * n + n * n) && is_packed(dx, dy, y) && dx.data == dout.data &&
        dx.stride == dout.stride && border_takes_merging(coef, n)) {
        border_backward(dev, "hc_merge_backward", dx, dy, dcoef, nullptr, x, y, coef, n);
        return;
    }
    for_rows("hc_merge_backward", x, n, [&](auto t, auto streams) {
        using T = TYPE(t);
        merge_backward_kernel<T, decltype(streams)::value><<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(
            view_of<T>(dx), view_of<T>(dy), view_of<float>(dcoef), view_of<const T>(dout), view_of<const T>(x),
            view_of<const T>(y), view_of<const float>(coef), (int)y.cols);
    });
}

/* dbase (1, n_raw) and dscale += of all rows; of_scale (n_raw) is for the sums of columns. */
static void add_parameters(moai_device *dev, const char *op, tensor dbase, tensor dscale, tensor dh, tensor raw,
                           const float *r, float *of_scale, hc_shape s)
{
    if (!dbase.data) return;
    parameters_kernel<<<(unsigned)dh.cols, BLOCK, 0, dev->stream>>>(
        static_cast<float *>(dbase.data), of_scale, view_of<const float>(dh), view_of<const float>(raw), r, dh.rows);
    LAUNCH_CHECK(op);
    scales_kernel<<<(unsigned)dscale.cols, BLOCK, 0, dev->stream>>>(static_cast<float *>(dscale.data), of_scale,
                                                                dh.cols, s.n);
    LAUNCH_CHECK(op);
}

void hc_read_backward_cuda(moai_device *dev, tensor dw, tensor dbase, tensor dscale, tensor dcoef, const hc_reading *a,
                           tensor raw, const float *r, tensor base, tensor scale, hc_shape s)
{
    const char *op = "hc_read_backward";
    const int64_t n_raw = hc_n_raw(s), H = a->dn.cols;
    const tensor x = a->x;

    check_shape(op, x, a->coef, s.n, hc_n_coef(s));
    CHECK((dbase.data == nullptr) == (dscale.data == nullptr), "%s: dbase and dscale are both wanted, or none", op);
    if (a->w.data && border_takes(dev, x, s.n, n_raw) && is_packed(a->dn, a->w)) {
        border_read_backward(dev, dw, dbase, dscale, dcoef, a, raw, r, base, scale, s);
        return;
    }
    for_rows(op, x, s.n, [&](auto t, auto streams) {
        using T = TYPE(t);
        constexpr int n = decltype(streams)::value;
        const int64_t n_blocks = min_i64(x.rows, resident_blocks(dev, read_backward_kernel<T, n>, BLOCK, 0));
        float *p = parameters(dev, base, scale, n_raw, n_blocks * H + (x.rows + 1) * n_raw), *partial = p + n_raw + 3,
              *of_scale = partial + n_blocks * H;
        const tensor dh = tensor_of(of_scale + n_raw, DT_F32, x.rows, n_raw);
        read_backward_kernel<T, n><<<(unsigned)n_blocks, BLOCK, 0, dev->stream>>>(view_of<float>(dcoef), partial,
                                                                                  reading_of<T>(a), x.rows);
        LAUNCH_CHECK(op);
        if (dw.data) add_partials(dev, static_cast<float *>(dw.data), nullptr, partial, n_blocks, H);
        coefficients_backward_kernel<<<token_blocks(x.rows), TOKENS,
                                       sums_bytes(dev, op, coefficients_backward_kernel, s), dev->stream>>>(
            view_of<float>(dh), view_of<float>(a->along), view_of<const float>(dcoef), r, view_of<const float>(raw), p,
            p + n_raw, x.rows, x.cols, s);
        LAUNCH_CHECK(op);
        raw_kernel<T><<<(unsigned)x.rows, BLOCK, 0, dev->stream>>>(view_of<T>(a->draw), view_of<const float>(dh), r,
                                                                   p + n_raw, n_raw, n);
        add_parameters(dev, op, dbase, dscale, dh, raw, r, of_scale, s);
    });
}

void hc_streams_backward_cuda(moai_device *dev, tensor dx, const hc_reading *a, int n)
{
    check_shape("hc_streams_backward", a->x, a->coef, n, n);
    if (border_takes_due(dev, a, n) && is_packed(dx)) {
        border_backward(dev, "hc_streams_backward", dx, tensor(), tensor(), a, tensor(), tensor(), tensor(), n);
        return;
    }
    for_rows("hc_streams_backward", dx, n, [&](auto t, auto streams) {
        using T = TYPE(t);
        streams_backward_kernel<T, decltype(streams)::value><<<(unsigned)dx.rows, BLOCK, 0, dev->stream>>>(
            view_of<T>(dx), reading_of<T>(a));
    });
    matmul_dx_cuda(dev, dx, a->draw, a->fn, true);
}

void hc_border_backward_cuda(moai_device *dev, tensor dx, tensor dy, tensor dcoef, const hc_reading *later, tensor x,
                             tensor y, tensor coef, int n)
{
    if (border_takes_due(dev, later, n) && is_packed(dx, dy, x, y) && border_takes_merging(coef, n)) {
        border_backward(dev, "hc_border_backward", dx, dy, dcoef, later, x, y, coef, n);
        return;
    }
    hc_streams_backward_cuda(dev, dx, later, n);
    hc_merge_backward_cuda(dev, dx, dy, dcoef, dx, x, y, coef, n);
}
