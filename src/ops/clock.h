/* clock.h: instants on a device.  A stamp is taken when a stream gets to it; asking for one waits for nothing. */
#ifndef MOAI_CLOCK_H
#define MOAI_CLOCK_H

#include "src/ops/ops.h"

typedef struct device_clock device_clock;     /* the backend's own: its stamps */

typedef struct clock_ops {
    bool asynchronous;                        /* a GPU: an op's stamps are taken after the host has gone on */
    device_clock *(*open)(moai_device *);
    void (*close)(device_clock *);
    void (*reserve)(device_clock *, int n);   /* makes stamps [0, n): beforehand, so that the step makes none */
    void (*stamp)(device_clock *, int i, void *stream);   /* i-th stamp; stream NULL: the compute stream */
    double (*seconds)(device_clock *, int i); /* from stamp 0 to stamp i; waits for it */
    void (*range)(const char *name);          /* opens a range for a profiler that watches (NVTX); NULL closes it */
} clock_ops;

extern const clock_ops clock_cpu;

#endif
