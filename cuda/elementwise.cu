/* elementwise.cu: casts, sums, fills, normal random numbers */
#include "cuda/kernels.cuh"

namespace {

template <typename TY, typename TX, int W> struct cast_op {
    view<TY> y;
    view<TX> x;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float v[W];
        load<W>(v, x.at(i, j));
        store<W>(y.at(i, j), v);
    }
};

template <typename T, int W> struct add_op {
    view<T> y, a, b;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float v[W], o[W];
        load<W>(v, a.at(i, j));
        load<W>(o, b.at(i, j));
#pragma unroll
        for (int k = 0; k < W; k++) v[k] += o[k];
        store<W>(y.at(i, j), v);
    }
};

template <typename T, int W> struct scale_op {
    view<T> y, x;
    float factor;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float v[W];
        load<W>(v, x.at(i, j));
#pragma unroll
        for (int k = 0; k < W; k++) v[k] *= factor;
        store<W>(y.at(i, j), v);
    }
};

template <typename T, int W> struct fill_op {
    view<T> y;
    float value;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float v[W];
#pragma unroll
        for (int k = 0; k < W; k++) v[k] = value;
        store<W>(y.at(i, j), v);
    }
};

/* Philox4x32-10, as in src/base/rng.c */
__device__ uint4 philox(uint64_t key, uint64_t counter)
{
    uint4 c = make_uint4((uint32_t)counter, (uint32_t)(counter >> 32), 0, 0);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c.x, p1 = (uint64_t)0xCD9E8D57u * c.z;
        c = make_uint4((uint32_t)(p1 >> 32) ^ c.y ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c.w ^ k1, (uint32_t)p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

template <typename T> struct normal_op {
    view<T> y;
    uint64_t key;
    int64_t first, global_cols;                               /* first: global index of element (0, 0) */
    float std;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        uint64_t index = (uint64_t)(first + i * global_cols + j);
        uint4 u = philox(key, index / 2);
        uint32_t a = index % 2 ? u.z : u.x, b = index % 2 ? u.w : u.y;
        float radius = sqrtf(-2.0f * logf(((float)(a >> 8) + 0.5f) * 0x1p-24f));
        *y.at(i, j) = from_float<T>(std * (radius * cosf(6.28318530717958647692f * ((float)(b >> 8) * 0x1p-24f))));
    }
};

template <typename T, int W> struct dropout_op {
    view<T> y, x;
    uint64_t key;
    int64_t first, global_cols;
    uint32_t below;
    float factor;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        const uint64_t index = (uint64_t)(first + i * global_cols + j);
        float v[W];
        uint4 u;
        load<W>(v, x.at(i, j));
#pragma unroll
        for (int k = 0; k < W; k++) {
            const uint64_t at = index + k;
            if (k == 0 || at % 4 == 0) u = philox(key, at / 4);
            const uint32_t lane = at % 4 == 0 ? u.x : at % 4 == 1 ? u.y : at % 4 == 2 ? u.z : u.w;
            v[k] = lane < below ? 0.0f : factor * v[k];
        }
        store<W>(y.at(i, j), v);
    }
};

}  // namespace

void cast_cuda(moai_device *dev, tensor y, tensor x)
{
    if (is_dense(y) && is_dense(x)) y = flat(y), x = flat(x);
    bool packed = is_packed(y, x);
    for_type("cast", y.dt, packed, [&](auto ty, auto w) {
        for_type("cast", x.dt, packed, [&](auto tx, auto) {
            each<WIDTH(w)>(dev, "cast", y.rows, y.cols,
                           cast_op<TYPE(ty), TYPE(tx), WIDTH(w)>{view_of<TYPE(ty)>(y), view_of<TYPE(tx)>(x)});
        });
    });
}

void add_cuda(moai_device *dev, tensor y, tensor a, tensor b)
{
    if (is_dense(y) && is_dense(a) && is_dense(b)) y = flat(y), a = flat(a), b = flat(b);
    for_type("add", y.dt, is_packed(y, a, b), [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int W = width_of_16_bytes<T, WIDTH(w)>;
        each<W>(dev, "add", y.rows, y.cols, add_op<T, W>{view_of<T>(y), view_of<T>(a), view_of<T>(b)});
    });
}

void scale_cuda(moai_device *dev, tensor y, tensor x, float factor)
{
    if (is_dense(y) && is_dense(x)) y = flat(y), x = flat(x);
    for_type("scale", y.dt, is_packed(y, x), [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int W = width_of_16_bytes<T, WIDTH(w)>;
        each<W>(dev, "scale", y.rows, y.cols, scale_op<T, W>{view_of<T>(y), view_of<T>(x), factor});
    });
}

void dropout_cuda(moai_device *dev, tensor y, tensor x, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                  float p)
{
    for_type("dropout", y.dt, is_packed(y, x), [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int W = width_of_16_bytes<T, WIDTH(w)>;
        each<W>(dev, "dropout", y.rows, y.cols,
                dropout_op<T, W>{view_of<T>(y), view_of<T>(x), key, row0 * global_cols + col0, global_cols,
                                 dropout_below(p), 1 / (1 - p)});
    });
}

void fill_cuda(moai_device *dev, tensor y, float value)
{
    if (is_dense(y)) y = flat(y);
    for_type("fill", y.dt, is_packed(y), [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int W = width_of_16_bytes<T, WIDTH(w)>;
        each<W>(dev, "fill", y.rows, y.cols, fill_op<T, W>{view_of<T>(y), value});
    });
}

void fill_normal_cuda(moai_device *dev, tensor y, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                      float std)
{
    int64_t first = row0 * global_cols + col0;
    for_type("fill_normal", y.dt, false, [&](auto t, auto w) {
        each<WIDTH(w)>(dev, "fill_normal", y.rows, y.cols,
                       normal_op<TYPE(t)>{view_of<TYPE(t)>(y), key, first, global_cols, std});
    });
}
