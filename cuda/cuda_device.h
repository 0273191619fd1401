/* cuda_device.h: the CUDA backend as the rest of the program sees it: a table of operations and a device to open.  No
 * CUDA types. */
#ifndef MOAI_CUDA_DEVICE_H
#define MOAI_CUDA_DEVICE_H

#include "src/ops/clock.h"
#include "src/ops/ops.h"

extern const moai_ops ops_cuda;
extern const clock_ops clock_cuda;

/* GPUs that this process sees; 0 also when there is no driver. */
int device_count_cuda(void);
size_t memory_free_cuda(int gpu);               /* bytes, this process's context counted as free */
size_t memory_all_cuda(int gpu);                /* the card's */
void device_id_cuda(int gpu, char id[16]);      /* its UUID: the same for all processes that see it */
size_t memory_in_use_cuda(const moai_device *); /* bytes of the GPU's memory, by whomever */

/* Opens GPU `gpu` (counted on this machine) with its compute stream.  `deterministic`: products and attention take the
 * library's first choice of algorithm instead of the one that a timing preferred, so that two runs agree bit for bit.
 * NULL with err filled: no GPU, a driver older than the CUDA this was built with, compute capability below 8.0. */
moai_device *device_open_cuda(int gpu, bool deterministic, moai_error *err);
void device_close_cuda(moai_device *);

/* "NVIDIA H200, compute capability 9.0, cuBLASLt 13.0.2"; valid until the device is closed */
const char *device_describe_cuda(const moai_device *);
const char *attend_backend_cuda(moai_device *); /* what ran attention last, and why not cuDNN; "" before */
void *device_stream_cuda(moai_device *);        /* the compute stream, a cudaStream_t: for collectives and events */

/* For decoding: attention by kernels that need no plan for a length of sequence, and kernels that come to their
 * multiprocessors while the one before still runs (kernels.cuh). */
void device_decodes_cuda(moai_device *, bool);
void device_launches_closely_cuda(moai_device *, bool);

/* Who computes attention, for tests and comparisons; a device begins with ATTEND_AUTO. */
typedef enum {
    ATTEND_AUTO,  /* cuDNN where it is built in and takes the shape, else our own */
    ATTEND_CUDNN, /* cuDNN, or death where it refuses; decoding is always our own */
    ATTEND_OWN,   /* the flash kernels where they take the shape, else the plain ones */
    ATTEND_PLAIN, /* by the formula, slowly */
} attend_choice;
bool attend_use_cuda(moai_device *, attend_choice); /* false, and nothing changes: cuDNN is not built in */

#endif
