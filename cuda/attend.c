/* attend.c: which implementation runs attention: cuDNN's fused kernels where they are built in and take the shape, else our own. */
#include "attend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef MOAI_CUDNN
#include "attend_cudnn.h"
#endif

struct attend_state {
    void *cudnn;                              /* attend_cudnn, NULL where it is not built in */
    char backend[256];                        /* for the report */
};

static void attend_close(moai_device *dev)
{
#ifdef MOAI_CUDNN
    attend_cudnn_close(dev->attend->cudnn);
#endif
    free(dev->attend);
}

static attend_state *state_of(moai_device *dev)
{
    if (dev->attend) return dev->attend;
    dev->attend = xmalloc(sizeof *dev->attend);
    dev->attend_close = attend_close;
#ifdef MOAI_CUDNN
    dev->attend->cudnn = attend_cudnn_open(dev);
#endif
    return dev->attend;
}

/* The rows past the last sequence are padding. */
static void zero_padding(moai_device *dev, tensor t, attend_shape s)
{
    const int64_t n = s.batch * s.seq_len;

    if (t.rows > n)
        CUDA_CHECK(cudaMemset2DAsync(tensor_at(t, n, 0), (size_t)t.stride * dtype_size(t.dt), 0, (size_t)t.cols * dtype_size(t.dt),
                                     (size_t)(t.rows - n), dev->stream));
}

static bool forward_by_cudnn(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s, const char **why)
{
    attend_state *a = state_of(dev);

    *why = "cuDNN is not built in";
#ifdef MOAI_CUDNN
    if (attend_cudnn_forward(a->cudnn, att, lse, q, k, v, s, why)) {
        snprintf(a->backend, sizeof a->backend, "%s", attend_cudnn_version());
        return true;
    }
#else
    (void)att, (void)lse, (void)q, (void)k, (void)v, (void)s;
#endif
    snprintf(a->backend, sizeof a->backend, "own kernels (%s)", *why);
    return false;
}

void attend_cuda(moai_device *dev, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s)
{
    const char *why;

    if (!forward_by_cudnn(dev, att, lse, q, k, v, s, &why)) attend_plain(dev, att, lse, q, k, v, s);
    zero_padding(dev, att, s);
}

void attend_backward_cuda(moai_device *dev, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v, tensor att,
                          const float *lse, attend_shape s)
{
    bool done = false;

#ifdef MOAI_CUDNN
    const char *why;
    done = attend_cudnn_backward(state_of(dev)->cudnn, dq, dk, dv, datt, q, k, v, att, lse, s, &why);
#endif
    if (!done) attend_plain_backward(dev, dq, dk, dv, datt, q, k, v, att, lse, s);
    zero_padding(dev, dq, s);
    zero_padding(dev, dk, s);
    zero_padding(dev, dv, s);
}

const char *attend_backend_cuda(moai_device *dev) { return state_of(dev)->backend; }
