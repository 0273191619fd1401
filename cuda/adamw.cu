/* adamw.cu: the clip factor and AdamW over flat buffers (arXiv 1711.05101) */
#include "cuda/kernels.cuh"

#include <cmath>

namespace {

enum { FLOATS = 4 };

__global__ void clip_kernel(float *grad_scale, const double *sumsq, float max_norm, float unscale)
{
    double norm = (double)unscale * sqrt(*sumsq);

    if (!isfinite(norm))
        *grad_scale = NAN;
    else if (max_norm <= 0.0f)
        *grad_scale = unscale;
    else
        *grad_scale = (float)(unscale * fmin(1.0, max_norm / (norm + 1e-6)));
}

/* the constants of one update: w = keep w - step m / (sqrt(v) v_scale + eps) */
struct adamw_factors {
    float step, v_scale, keep_decayed, one_minus1, one_minus2;
};

template <typename T, int W> struct adamw_op {
    adamw_args a;
    adamw_factors f;
    T *param;                                                 /* NULL: the master is the parameter */
    __device__ void operator()(int64_t, int64_t i) const
    {
        float scale = *a.grad_scale, w[W], m[W], v[W], g[W];

        if (!isfinite(scale)) return;
        load<W>(g, a.grad + i);
        load<W>(m, a.m + i);
        load<W>(v, a.v + i);
        load<W>(w, a.master + i);
#pragma unroll
        for (int k = 0; k < W; k++) {
            g[k] *= scale;
            m[k] = a.beta1 * m[k] + f.one_minus1 * g[k];
            v[k] = a.beta2 * v[k] + f.one_minus2 * g[k] * g[k];
            w[k] =
                (i + k < a.n_decay ? f.keep_decayed : 1.0f) * w[k] - f.step * m[k] / (sqrtf(v[k]) * f.v_scale + a.eps);
        }
        store<W>(a.m + i, m);
        store<W>(a.v + i, v);
        store<W>(a.master + i, w);
        if (param) store<W>(param + i, w);
    }
};

bool is_aligned(const void *p, size_t n_bytes) { return (uintptr_t)p % n_bytes == 0; }

}  // namespace

void clip_cuda(moai_device *dev, float *grad_scale, const double *sumsq, float max_norm, float unscale)
{
    clip_kernel<<<1, 1, 0, dev->stream>>>(grad_scale, sumsq, max_norm, unscale);
    LAUNCH_CHECK("clip");
}

void adamw_cuda(moai_device *dev, const adamw_args *args)
{
    adamw_args a = *args;
    adamw_factors f = {
        .step = (float)(a.lr / (1.0 - std::pow((double)a.beta1, (double)a.t))),
        .v_scale = (float)(1.0 / std::sqrt(1.0 - std::pow((double)a.beta2, (double)a.t))),
        .keep_decayed = 1.0f - a.lr * a.weight_decay,
        .one_minus1 = 1.0f - a.beta1,
        .one_minus2 = 1.0f - a.beta2,
    };
    bool packed = a.n % FLOATS == 0 && is_aligned(a.master, 16) && is_aligned(a.m, 16) && is_aligned(a.v, 16) &&
                  is_aligned(a.grad, 16) && is_aligned(a.param, FLOATS * dtype_size(a.param_dt));

    for_type("adamw", a.param_dt, packed, [&](auto t, auto w) {
        using T = TYPE(t);
        constexpr int W = WIDTH(w) == 1 ? 1 : FLOATS;
        each<W>(dev, "adamw", 1, a.n,
                adamw_op<T, W>{a, f, a.param == (void *)a.master ? nullptr : static_cast<T *>(a.param)});
    });
}
