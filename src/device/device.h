/* device.h: the device of this rank, whichever backend it is. */
#ifndef MOAI_DEVICE_H
#define MOAI_DEVICE_H

#include "parallel/comm/grid.h"
#include "src/ops/clock.h"
#include "src/ops/ops.h"

typedef struct device_options {
    const char *name;                       /* cpu | cuda | auto: cuda when this build has it and there is a GPU */
    int64_t num_threads;                    /* of the CPU; 0: as process_threads finds */
    bool deterministic;                     /* the GPU's libraries take algorithms that give the same bits every time */
    bool decoding;                          /* many small kernels and lengths: see device_decodes_cuda */
} device_options;

typedef struct device {
    const moai_ops *ops;
    moai_device *dev;
    const clock_ops *clock;
    double peak_flops;                      /* bf16 dense, by the vendor's figure; 0: not known, no MFU is printed */
    char text[320];                         /* "cpu, 2 threads a rank, products by oneDNN 2.6.3" */
} device;

/* Bytes that a rank may take of the device that `o` names, now and if nobody else used it: of a GPU (true), or the
 * host's over its ranks (false).  Not collective. */
bool device_memory_free(const device_options *o, size_t *now, size_t *all);

bool device_is_cuda(const char *name);        /* cuda; auto where this build has it, whether there is a GPU or not */
/* "cuda" without a GPU, without the backend in this build, or with more ranks on the host than
 * GPUs is an error; ranks that each see one GPU take that if it is not the same.  Collective over the host's ranks. */
int device_open(device *, const device_options *, moai_error *err);
/* Puts the grid's device comms on the device's transport (NCCL for a GPU).  Collective over all ranks. */
void device_connect(device *, moai_grid *);
bool device_waits(const device *);            /* may a first call of an op wait for all that the device was given? */
size_t device_in_use(const device *);         /* bytes of the GPU's memory in use, by whomever; 0 for the host */
void device_close(device *);

#endif
