/* attend.c: which implementation runs attention: cuDNN's fused kernels where they are built in and take the shape, else
 * our own: the flash kernels for 16-bit types, the plain ones for the rest. */
#include "cuda/attend/attend.h"
#include "cuda/attend/attend_cudnn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct attend_state {
    attend_choice use;
    attend_cudnn *cudnn;
    char backend[256]; /* for the report */
};

static void attend_close(moai_device *dev)
{
    attend_cudnn_close(dev->attend->cudnn);
    free(dev->attend);
}

static attend_state *state_of(moai_device *dev)
{
    if (dev->attend) return dev->attend;
    dev->attend = xmalloc(sizeof *dev->attend);
    dev->attend_close = attend_close;
    dev->attend->cudnn = attend_cudnn_open(dev);
    return dev->attend;
}

/* The rows past the last sequence are padding. */
static void zero_padding(moai_device *dev, tensor t, attend_shape s)
{
    const int64_t n = s.batch * s.seq_len;

    if (t.rows > n)
        CUDA_CHECK(cudaMemset2DAsync(tensor_at(t, n, 0), (size_t)t.stride * dtype_size(t.dt), 0,
                                     (size_t)t.cols * dtype_size(t.dt), (size_t)(t.rows - n), dev->stream));
}

/* A refusal is fatal where nobody else may do it. */
static bool refused(const attend_state *a, const char *why)
{
    CHECK(a->use != ATTEND_CUDNN, "attend: cuDNN was asked for and refuses: %s", why);
    return false;
}

static bool forward_by_cudnn(attend_state *a, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s,
                             const char **why)
{
    *why = "as asked";
    if (a->use != ATTEND_AUTO && a->use != ATTEND_CUDNN) return false;
    return attend_cudnn_forward(a->cudnn, att, lse, q, k, v, s, why) || refused(a, *why);
}

static bool backward_by_cudnn(moai_device *dev, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k,
                              tensor v, tensor att, const float *lse, attend_shape s)
{
    attend_state *a = dev->attend;
    const char *why = "its deterministic backward would keep more than 2 GiB of scores";

    if (a->use != ATTEND_AUTO && a->use != ATTEND_CUDNN) return false;
    if (dev->deterministic && !attend_keeps_scores(s)) return refused(a, why);
    return attend_cudnn_backward(a->cudnn, dq, dk, dv, datt, q, k, v, att, lse, s, &why) || refused(a, why);
}

static void report(attend_state *a, const char *kernels, const char *why)
{
    snprintf(a->backend, sizeof a->backend, "own %s kernels (%s)", kernels, why);
}

void attend_cuda(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s)
{
    attend_state *a = state_of(dev);
    const char *why;

    if (forward_by_cudnn(a, att, lse, q, k, v, s, &why)) {
        snprintf(a->backend, sizeof a->backend, "%s", attend_cudnn_version());
    } else if (a->use != ATTEND_PLAIN && attend_flash(dev, att, lse, q, k, v, s)) {
        report(a, "flash", why);
    } else {
        attend_plain(dev, att, lse, q, k, v, s);
        report(a, "plain", why);
    }
    zero_padding(dev, att, s);
}

void attend_backward_cuda(moai_device *dev, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                          tensor att, const float *lse, attend_shape s)
{
    attend_state *a = state_of(dev);
    bool done = backward_by_cudnn(dev, dq, dk, dv, datt, q, k, v, att, lse, s);

    if (!done && a->use != ATTEND_PLAIN) done = attend_flash_backward(dev, dq, dk, dv, datt, q, k, v, att, lse, s);
    if (!done) attend_plain_backward(dev, dq, dk, dv, datt, q, k, v, att, lse, s);
    zero_padding(dev, dq, s);
    zero_padding(dev, dk, s);
    zero_padding(dev, dv, s);
}

void attend_cached_cuda(moai_device *dev, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                        const int32_t *pos, int64_t max_len, attend_shape s)
{
    if (q.rows == 0) return;
    if (state_of(dev)->use != ATTEND_PLAIN && attend_flash_cached(dev, att, q, k_cache, v_cache, seq, pos, max_len, s))
        return;
    attend_plain_cached(dev, att, q, k_cache, v_cache, seq, pos, max_len, s);
}

bool attend_use_cuda(moai_device *dev, attend_choice use)
{
    attend_state *a = state_of(dev);

    if (use == ATTEND_CUDNN && !a->cudnn) return false;
    a->use = use;
    return true;
}

const char *attend_backend_cuda(moai_device *dev) { return state_of(dev)->backend; }
