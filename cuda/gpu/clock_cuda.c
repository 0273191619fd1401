/* clock.c: stamps are CUDA events, ranges are NVTX ranges (calls that return at once where no profiler watches) */
#include "cuda/cuda.h"

#include "src/ops/clock.h"

#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct device_clock {
    cudaStream_t compute;
    cudaEvent_t *at;
    int n;
};

static device_clock *open_cuda(moai_device *dev)
{
    device_clock *c = xmalloc(sizeof *c);

    c->compute = dev->stream;
    return c;
}

static void close_cuda(device_clock *c)
{
    for (int i = 0; i < c->n; i++) CUDA_CHECK(cudaEventDestroy(c->at[i]));
    free(c->at);
    free(c);
}

static void reserve_cuda(device_clock *c, int n)
{
    cudaEvent_t *more = xmalloc((size_t)n * sizeof *more);

    if (c->n) memcpy(more, c->at, (size_t)c->n * sizeof *more);
    for (int i = c->n; i < n; i++) CUDA_CHECK(cudaEventCreate(&more[i]));
    free(c->at);
    c->at = more;
    c->n = n;
}

static void stamp_cuda(device_clock *c, int i, void *stream)
{
    CUDA_CHECK(cudaEventRecord(c->at[i], stream ? (cudaStream_t)stream : c->compute));
}

static double seconds_cuda(device_clock *c, int i)
{
    float milliseconds = 0;

    CUDA_CHECK(cudaEventSynchronize(c->at[i])); /* of a collective's stream: the compute stream waited for less */
    CUDA_CHECK(cudaEventElapsedTime(&milliseconds, c->at[0], c->at[i]));
    return milliseconds * 1e-3;
}

static void range_cuda(const char *name)
{
    if (name)
        nvtxRangePushA(name);
    else
        nvtxRangePop();
}

const clock_ops clock_cuda = {
    .asynchronous = true,
    .open = open_cuda,
    .close = close_cuda,
    .reserve = reserve_cuda,
    .stamp = stamp_cuda,
    .seconds = seconds_cuda,
    .range = range_cuda,
};

/* Phases follow one another on a rank, so the range of the last one is the one that is open. */
void phase_cuda(moai_device *dev, const char *name, int number)
{
    char text[64];

    if (dev->in_phase) nvtxRangePop();
    dev->in_phase = name != NULL;
    if (!name) return;
    snprintf(text, sizeof text, number < 0 ? "%s" : "%s %d", name, number);
    nvtxRangePushA(text);
}
