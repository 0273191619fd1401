/* rmsnorm.cu: RMSNorm (arXiv 1910.07467), alone and after the residual sum, and its backward
 *
 *     n = w x r,  r = (mean(x^2) + eps)^(-1/2)
 *     dx = r (g - x r^2 mean(g x)),  g = w dn;     dw = sum over rows of dn x r
 *
 * A block takes one row after another, P packs a thread.  A thread keeps its columns' weights, and asks for its part
 * of the next row before the block sums over this one.  The backward's threads sum dw as they go; the blocks' sums are
 * added in order. */
#include "cuda/kernels.cuh"

namespace {

enum { MAX_THREADS = 512 };
/* packs that a thread may hold: of PACK elements, and of one */
template <int W> constexpr int most_packs = W == 1 ? 8 : 4;

/* The columns of one thread. */
template <int W, int P> struct row_part {
    int64_t cols;
    __device__ int64_t col(int p) const { return ((int64_t)p * blockDim.x + threadIdx.x) * W; }
    __device__ bool has(int p) const { return col(p) < cols; }
    template <typename T> __device__ void ask(pack<T, W> (&x)[P], const T *row) const
    {
#pragma unroll
        for (int p = 0; p < P; p++)
            if (has(p)) x[p] = fetch<W>(row + col(p));
    }
};

__device__ float reciprocal_rms(float squares, int64_t cols, float eps)
{
    return 1.0f / sqrtf(squares / (float)cols + eps);
}

template <typename T> struct norm_forward {
    view<T> h, n;                                             /* h = x + o when o.data is there */
    float *r;
    view<const T> x, o;
    const T *w;
    int64_t rows, cols;
    float eps;
};

/* The norm is that of h as stored, which the backward will read. */
template <typename T, int W, int P, bool RESIDUAL>
__global__ void __launch_bounds__(MAX_THREADS, P == 1 ? 3 : 1) rmsnorm_kernel(norm_forward<T> a)
{
    row_part<W, P> my = {a.cols};
    pack<T, W> w[P], x[P], o[P];
    int64_t row = blockIdx.x;

    let_next_start();
    wait_for_previous();
    my.ask(w, a.w);
    my.ask(x, a.x.at(row, 0));
    if (RESIDUAL) my.ask(o, a.o.at(row, 0));
    for (int turn = 0; row < a.rows; turn ^= 1) {
        int64_t next = row + gridDim.x;
        float v[P][W], squares = 0.0f;
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            unpack(v[p], x[p]);
            if constexpr (RESIDUAL) {
                float ov[W];
                unpack(ov, o[p]);
#pragma unroll
                for (int k = 0; k < W; k++) v[p][k] = rounded<T>(v[p][k] + ov[k]);
                store<W>(a.h.at(row, my.col(p)), v[p]);
            }
#pragma unroll
            for (int k = 0; k < W; k++) squares += v[p][k] * v[p][k];
        }
        if (next < a.rows) {
            my.ask(x, a.x.at(next, 0));
            if (RESIDUAL) my.ask(o, a.o.at(next, 0));
        }
        float r = reciprocal_rms(block_sum(squares, turn), a.cols, a.eps);
        if (threadIdx.x == 0) a.r[row] = r;
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            float wv[W];
            unpack(wv, w[p]);
#pragma unroll
            for (int k = 0; k < W; k++) v[p][k] *= r * wv[k];
            store<W>(a.n.at(row, my.col(p)), v[p]);
        }
        row = next;
    }
}

template <typename T> struct norm_backward {
    view<T> dx;
    float *dw_partial;                                        /* (blocks, cols) */
    view<const T> dn, dres, x;                                /* dres.data NULL: none */
    const float *r;
    const T *w;
    int64_t rows, cols;
};

template <typename T, int W, int P>
__global__ void __launch_bounds__(MAX_THREADS, P == 1 ? 2 : 1) rmsnorm_backward_kernel(norm_backward<T> a)
{
    row_part<W, P> my = {a.cols};
    pack<T, W> w[P], x[P], dn[P], dres[P];
    float dw[P][W] = {};
    int64_t row = blockIdx.x;

    my.ask(w, a.w);
    my.ask(x, a.x.at(row, 0));
    my.ask(dn, a.dn.at(row, 0));
    if (a.dres.data) my.ask(dres, a.dres.at(row, 0));
    for (int turn = 0; row < a.rows; turn ^= 1) {
        int64_t next = row + gridDim.x;
        float xv[P][W], g[P][W], d[P][W] = {}, dot = 0.0f, r = a.r[row];
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
            float wv[W];
            unpack(wv, w[p]);
            unpack(xv[p], x[p]);
            unpack(g[p], dn[p]);
            if (a.dres.data) unpack(d[p], dres[p]);
#pragma unroll
            for (int k = 0; k < W; k++) {
                dw[p][k] += g[p][k] * xv[p][k] * r;
                g[p][k] *= wv[k];
                dot += g[p][k] * xv[p][k];
            }
        }
        if (next < a.rows) {
            my.ask(x, a.x.at(next, 0));
            my.ask(dn, a.dn.at(next, 0));
            if (a.dres.data) my.ask(dres, a.dres.at(next, 0));
        }
        float along_x = r * r * r * block_sum(dot, turn) / (float)a.cols;
#pragma unroll
        for (int p = 0; p < P; p++) {
            if (!my.has(p)) continue;
#pragma unroll
            for (int k = 0; k < W; k++) d[p][k] += r * g[p][k] - along_x * xv[p][k];
            store<W>(a.dx.at(row, my.col(p)), d[p]);
        }
        row = next;
    }
    let_next_start();
#pragma unroll
    for (int p = 0; p < P; p++)
        if (my.has(p)) store<W>(a.dw_partial + blockIdx.x * a.cols + my.col(p), dw[p]);
}

/* launch(type_tag<T>, width<W>, packs a thread, threads) */
template <typename F> void for_row(const char *op, dtype dt, int64_t cols, bool packed, F launch)
{
    for_type(op, dt, packed, [&](auto t, auto w) {
        int64_t n_packs = cols / WIDTH(w);
        auto threads = [&](int64_t p) { return (int)round_up((n_packs + p - 1) / p, WARP); };
        constexpr int P = most_packs<WIDTH(w)>;
        CHECK(n_packs <= P * MAX_THREADS, "%s: rows of %lld columns are too long, or not a multiple of %d", op,
              (long long)cols, PACK);
        if (n_packs <= MAX_THREADS)
            launch(t, w, width<1>(), threads(1));
        else if (n_packs <= MAX_THREADS * P / 2)
            launch(t, w, width<P / 2>(), threads(P / 2));
        else
            launch(t, w, width<P>(), threads(P));
    });
}

template <bool RESIDUAL>
void forward(moai_device *dev, const char *op, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps)
{
    bool packed = is_packed(n, x, w) && (!RESIDUAL || is_packed(h, o));

    if (x.rows == 0) return;
    for_row(op, x.dt, x.cols, packed, [&](auto t, auto wide, auto packs, int n_threads) {
        using T = TYPE(t);
        auto kernel = rmsnorm_kernel<T, WIDTH(wide), WIDTH(packs), RESIDUAL>;
        norm_forward<T> a = {
            view_of<T>(h), view_of<T>(n), r,  view_of<const T>(x), view_of<const T>(o), static_cast<const T *>(w.data),
            x.rows,        x.cols,        eps};
        const int64_t n_blocks = min_i64(x.rows, resident_blocks(dev, kernel, n_threads, 0));
        launch(dev, op, kernel, dim3((unsigned)n_blocks), n_threads, 0, a);
    });
}

}  // namespace

int64_t rmsnorm_most_cols_cuda(int64_t cols)
{
    return cols % PACK == 0 ? (int64_t)PACK * most_packs<PACK> * MAX_THREADS : (int64_t)most_packs<1> * MAX_THREADS;
}

void rmsnorm_cuda(moai_device *dev, tensor n, float *r, tensor x, tensor w, float eps)
{
    forward<false>(dev, "rmsnorm", tensor(), n, r, x, tensor(), w, eps);
}

void residual_rmsnorm_cuda(moai_device *dev, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps)
{
    forward<true>(dev, "residual_rmsnorm", h, n, r, x, o, w, eps);
}

void rmsnorm_backward_cuda(moai_device *dev, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r,
                           tensor w)
{
    const char *op = "rmsnorm_backward";
    bool packed = is_packed(dx, dn, x, w) && (!dres.data || is_packed(dres));

    if (x.rows == 0) return;
    for_row(op, x.dt, x.cols, packed, [&](auto t, auto wide, auto packs, int n_threads) {
        using T = TYPE(t);
        auto kernel = rmsnorm_backward_kernel<T, WIDTH(wide), WIDTH(packs)>;
        int64_t n_blocks = min_i64(x.rows, resident_blocks(dev, kernel, n_threads, 0));
        float *partial = static_cast<float *>(device_scratch_cuda(dev, (size_t)(n_blocks * x.cols) * sizeof(float)));
        norm_backward<T> a = {view_of<T>(dx),
                              partial,
                              view_of<const T>(dn),
                              view_of<const T>(dres),
                              view_of<const T>(x),
                              r,
                              static_cast<const T *>(w.data),
                              x.rows,
                              x.cols};
        kernel<<<(unsigned)n_blocks, n_threads, 0, dev->stream>>>(a);
        LAUNCH_CHECK(op);
        if (dw.data) add_partials(dev, static_cast<float *>(dw.data), nullptr, partial, n_blocks, x.cols);
    });
}
