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

static void zero_gaps(moai_device *dev, tensor t, const attend_args *a)
{
    for (int i = 0; i <= a->n_segments; i++) {
        int64_t begin, end = attend_gap(a, i, &begin);
        if (end > begin)
            CUDA_CHECK(cudaMemset2DAsync(tensor_at(t, begin, 0), (size_t)t.stride * dtype_size(t.dt), 0,
                                         (size_t)t.cols * dtype_size(t.dt), (size_t)(end - begin), dev->stream));
    }
}

/* A refusal is fatal where nobody else may do it. */
static bool refused(const attend_state *a, const char *why)
{
    CHECK(a->use != ATTEND_CUDNN, "attend: cuDNN was asked for and refuses: %s", why);
    return false;
}

static bool cudnn_may(const attend_state *a, const char **why)
{
    *why = "as asked";
    return a->use == ATTEND_AUTO || a->use == ATTEND_CUDNN;
}

/* cuDNN builds a plan for each length, which takes seconds: several lengths are one ragged batch. */
static bool are_several(const attend_args *a)
{
    for (int i = 1; i < a->n_segments; i++)
        if (a->segments[i].n_rows != a->segments[0].n_rows ||
            a->segments[i].row != a->segments[i - 1].row + a->segments[i - 1].n_rows)
            return true;
    return false;
}

static bool ragged_forward(attend_state *a, const attend_args *args)
{
    const char *why;

    if (!are_several(args) || !cudnn_may(a, &why) || !attend_cudnn_forward_ragged(a->cudnn, args, &why)) return false;
    snprintf(a->backend, sizeof a->backend, "%s, ragged", attend_cudnn_version());
    return true;
}

static bool ragged_backward(attend_state *a, const attend_args *args, tensor dq, tensor dk, tensor dv, tensor datt)
{
    const char *why;

    return are_several(args) && cudnn_may(a, &why) &&
           attend_cudnn_backward_ragged(a->cudnn, args, dq, dk, dv, datt, &why);
}

static bool forward_by_cudnn(attend_state *a, bool uniform, tensor att, float *lse, tensor q, tensor k, tensor v,
                             attend_shape s, const char **why)
{
    if (!cudnn_may(a, why)) return false;
    *why = "the segments have several lengths";
    if (!uniform) return refused(a, *why);
    return attend_cudnn_forward(a->cudnn, att, lse, q, k, v, s, why) || refused(a, *why);
}

static bool backward_by_cudnn(moai_device *dev, bool uniform, tensor dq, tensor dk, tensor dv, tensor datt, tensor q,
                              tensor k, tensor v, tensor att, const float *lse, attend_shape s)
{
    attend_state *a = dev->attend;
    const char *why;

    if (!cudnn_may(a, &why)) return false;
    if (!uniform) return refused(a, "the segments have several lengths");
    if (dev->deterministic && !attend_keeps_scores(s))
        return refused(a, "its deterministic backward would keep more than 2 GiB of scores");
    return attend_cudnn_backward(a->cudnn, dq, dk, dv, datt, q, k, v, att, lse, s, &why) || refused(a, why);
}

static void report(attend_state *a, const char *kernels, const char *why)
{
    snprintf(a->backend, sizeof a->backend, "own %s kernels (%s)", kernels, why);
}

static void attend_sequences(moai_device *dev, bool uniform, tensor att, float *lse, tensor q, tensor k, tensor v,
                             attend_shape s)
{
    attend_state *a = state_of(dev);
    const char *why;

    if (forward_by_cudnn(a, uniform, att, lse, q, k, v, s, &why)) {
        snprintf(a->backend, sizeof a->backend, "%s", attend_cudnn_version());
    } else if (a->use != ATTEND_PLAIN && attend_flash(dev, att, lse, q, k, v, s)) {
        report(a, "flash", why);
    } else {
        attend_plain(dev, att, lse, q, k, v, s);
        report(a, "plain", why);
    }
}

/* Queries that see keys of elsewhere come with context_parallel, which is refused on a GPU. */
static void expect_whole(const attend_args *a)
{
    CHECK(attend_is_whole(a), "attend: segments with more keys than queries, or keys of other rows: not on a GPU");
}

void attend_cuda(moai_device *dev, const attend_args *a)
{
    attend_args run;
    attend_shape s;

    expect_whole(a);
    const bool done = ragged_forward(state_of(dev), a);
    for (int i = 0; !done && i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        attend_sequences(dev, run.n_segments == a->n_segments, run.att, run.lse, run.q, run.k, run.v, s);
    }
    zero_gaps(dev, a->att, a);
}

static void backward_sequences(moai_device *dev, bool uniform, tensor dq, tensor dk, tensor dv, tensor datt, tensor q,
                               tensor k, tensor v, tensor att, const float *lse, attend_shape s)
{
    attend_state *a = state_of(dev);
    bool done = backward_by_cudnn(dev, uniform, dq, dk, dv, datt, q, k, v, att, lse, s);

    if (!done && a->use != ATTEND_PLAIN) done = attend_flash_backward(dev, dq, dk, dv, datt, q, k, v, att, lse, s);
    if (!done) attend_plain_backward(dev, dq, dk, dv, datt, q, k, v, att, lse, s);
}

void attend_backward_cuda(moai_device *dev, const attend_args *a, tensor dq, tensor dk, tensor dv, tensor datt)
{
    attend_args run;
    attend_shape s;

    expect_whole(a);
    const bool done = ragged_backward(state_of(dev), a, dq, dk, dv, datt);
    for (int i = 0; !done && i < a->n_segments; i += run.n_segments) {
        attend_run(a, i, &run, &s);
        const int64_t row = a->segments[i].row, n = run.att.rows;
        backward_sequences(dev, run.n_segments == a->n_segments, tensor_rows(dq, row, n), tensor_rows(dk, row, n),
                           tensor_rows(dv, row, n), tensor_rows(datt, row, n), run.q, run.k, run.v, run.att, run.lse,
                           s);
    }
    zero_gaps(dev, dq, a);
    zero_gaps(dev, dk, a);
    zero_gaps(dev, dv, a);
}

void attend_cached_cuda(moai_device *dev, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                        const int32_t *pos, int64_t max_len, head_shape s)
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
