/* swiglu.cu: act = silu(gate) up, and its backward (arXiv 2002.05202) */
#include "cuda/kernels.cuh"

namespace {

/* within 3 ulp; 0 where e^-x overflows */
__device__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

template <typename T, int W> struct swiglu_op {
    view<T> act, gate_up;
    int64_t cols;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float g[W], u[W];
        load<W>(g, gate_up.at(i, j));
        load<W>(u, gate_up.at(i, cols + j));
#pragma unroll
        for (int k = 0; k < W; k++) g[k] = g[k] * sigmoid(g[k]) * u[k];
        store<W>(act.at(i, j), g);
    }
};

/* dgate_up may be gate_up: a thread writes only where it has read */
template <typename T, int W> struct swiglu_backward_op {
    view<T> dgate_up, act, dact, gate_up;                     /* act.data NULL: not wanted */
    int64_t cols;
    __device__ void operator()(int64_t i, int64_t j) const
    {
        float g[W], u[W], da[W], a[W];
        load<W>(g, gate_up.at(i, j));
        load<W>(u, gate_up.at(i, cols + j));
        load<W>(da, dact.at(i, j));
#pragma unroll
        for (int k = 0; k < W; k++) {
            float s = sigmoid(g[k]), dup = da[k] * g[k] * s;
            a[k] = g[k] * s * u[k];
            g[k] = da[k] * u[k] * s * (1.0f + g[k] * (1.0f - s));
            u[k] = dup;
        }
        store<W>(dgate_up.at(i, j), g);
        store<W>(dgate_up.at(i, cols + j), u);
        if (act.data) store<W>(act.at(i, j), a);
    }
};

}  // namespace

void swiglu_cuda(moai_device *dev, tensor act, tensor gate_up)
{
    bool packed = is_packed(act, tensor_cols(gate_up, 0, act.cols), tensor_cols(gate_up, act.cols, act.cols));
    for_type("swiglu", act.dt, packed, [&](auto t, auto w) {
        using T = TYPE(t);
        each<WIDTH(w)>(dev, "swiglu", act.rows, act.cols,
                       swiglu_op<T, WIDTH(w)>{view_of<T>(act), view_of<T>(gate_up), act.cols});
    });
}

void swiglu_backward_cuda(moai_device *dev, tensor dgate_up, tensor act, tensor dact, tensor gate_up)
{
    int64_t cols = dact.cols;
    bool packed = is_packed(dact, tensor_cols(gate_up, 0, cols), tensor_cols(gate_up, cols, cols)) &&
                  is_packed(tensor_cols(dgate_up, 0, cols), tensor_cols(dgate_up, cols, cols)) &&
                  (!act.data || is_packed(act));
    for_type("swiglu_backward", dact.dt, packed, [&](auto t, auto w) {
        using T = TYPE(t);
        each<WIDTH(w)>(dev, "swiglu_backward", dact.rows, cols,
                       swiglu_backward_op<T, WIDTH(w)>{view_of<T>(dgate_up), view_of<T>(act), view_of<T>(dact),
                                                       view_of<T>(gate_up), cols});
    });
}
