/* clock_cpu.c: ops are done when they return, so a stamp is the time; see clock.h */
#include "src/ops/clock.h"

#include <stdlib.h>
#include <string.h>

struct device_clock {
    double *at;                               /* seconds of the monotonic clock */
    int n;
};

static device_clock *open_cpu(moai_device *dev)
{
    (void)dev;
    return xmalloc(sizeof(device_clock));
}

static void close_cpu(device_clock *c)
{
    free(c->at);
    free(c);
}

static void reserve_cpu(device_clock *c, int n)
{
    double *more = xmalloc((size_t)n * sizeof *more);

    if (c->n) memcpy(more, c->at, (size_t)c->n * sizeof *more);
    free(c->at);
    c->at = more;
    c->n = n;
}

static void stamp_cpu(device_clock *c, int i, void *stream)
{
    (void)stream;
    c->at[i] = now_seconds();
}

static double seconds_cpu(device_clock *c, int i) { return c->at[i] - c->at[0]; }
static void range_cpu(const char *name) { (void)name; }

const clock_ops clock_cpu = {
    .asynchronous = false,
    .open = open_cpu,
    .close = close_cpu,
    .reserve = reserve_cpu,
    .stamp = stamp_cpu,
    .seconds = seconds_cpu,
    .range = range_cpu,
};
