/* kv_append.cu: new keys and values into their rows of the cache */
#include "cuda/kernels.cuh"

namespace {

template <typename T, int W> struct append_op {
    view<T> k_cache, v_cache, k, v;
    const int32_t *seq, *pos;
    int64_t max_len, cols;
    __device__ void operator()(int64_t i, int64_t j) const        /* columns of k, then of v */
    {
        const int64_t row = seq[i] * max_len + pos[i];
        float x[W];
        load<W>(x, j < cols ? k.at(i, j) : v.at(i, j - cols));
        store<W>(j < cols ? k_cache.at(row, j) : v_cache.at(row, j - cols), x);
    }
};

}  // namespace

void kv_append_cuda(moai_device *dev, tensor k_cache, tensor v_cache, tensor k, tensor v, const int32_t *seq,
                    const int32_t *pos, int64_t max_len)
{
    CHECK(k_cache.dt == k.dt && v_cache.dt == k.dt && v.dt == k.dt,
          "kv_append: %s and %s rows into caches of %s and %s", dtype_name(k.dt), dtype_name(v.dt),
          dtype_name(k_cache.dt), dtype_name(v_cache.dt));
    for_type("kv_append", k.dt, is_packed(k_cache, v_cache, k, v), [&](auto t, auto w) {
        using T = TYPE(t);
        each<WIDTH(w)>(dev, "kv_append", k.rows, 2 * k.cols,
                       append_op<T, WIDTH(w)>{view_of<T>(k_cache), view_of<T>(v_cache), view_of<T>(k), view_of<T>(v),
                                              seq, pos, max_len, k.cols});
    });
}
