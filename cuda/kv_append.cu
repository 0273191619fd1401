/* kv_append.cu: new keys or values into their rows of the cache */
#include "kernels.cuh"

namespace {

template <typename T, int W> struct append_op {
    view<T> cache, kv;
    const int32_t *seq, *pos;
    int64_t max_len;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float v[W];
        load<W>(v, kv.at(i, j));
        store<W>(cache.at(seq[i] * max_len + pos[i], j), v);
    }
};

}  // namespace

void kv_append_cuda(moai_device *dev, tensor cache, tensor kv, const int32_t *seq, const int32_t *pos, int64_t max_len)
{
    CHECK(cache.dt == kv.dt, "kv_append: %s rows into a cache of %s", dtype_name(kv.dt), dtype_name(cache.dt));
    for_type("kv_append", kv.dt, is_packed(cache, kv), [&](auto t, auto w) {
        using T = TYPE(t);
        each<WIDTH(w)>(dev, "kv_append", kv.rows, kv.cols,
                       append_op<T, WIDTH(w)>{view_of<T>(cache), view_of<T>(kv), seq, pos, max_len});
    });
}
