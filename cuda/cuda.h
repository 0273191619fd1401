/* cuda.h: what the files of the CUDA backend share.  Private to cuda/; readable as C11 and as CUDA C++ (kernels.cuh
 * has what kernels share).
 *
 * All work of a device is queued on its one compute stream, so ops run in the order of their calls and may share
 * `workspace` and `scratch`.  Nothing waits for the GPU but sync, copies to host memory that is not pinned, and copies
 * to the device of which 32 are under way (staging.c); nothing is allocated once every shape was seen. Arithmetic is
 * fp32 whatever a tensor's dtype; sums have an order that depends on shapes and the card alone: no floating atomics. */
#ifndef MOAI_CUDA_H
#define MOAI_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#ifdef __cplusplus
#pragma push_macro("_Noreturn")
#define _Noreturn [[noreturn]]                /* the headers of src/ are C */
extern "C" {
#endif

#include "cuda/cuda_device.h"

typedef struct staging staging;               /* pinned buffers between host and device: staging.c */
typedef struct product_plans product_plans;   /* the algorithm chosen for each shape: matmul.c */
typedef struct attend_state attend_state;     /* plans of attention: the cuda/attend files, NULL until first used */

struct moai_device {
    int gpu;
    bool deterministic, launches_closely;
    cudaStream_t stream;                      /* the compute stream */
    int n_sm, capability;                     /* multiprocessors; 90 for 9.0 */
    size_t max_shared;                        /* bytes of shared memory a block may have */
    char description[192];

    cublasLtHandle_t blas;
    bool in_phase;                            /* an NVTX range of phase_cuda is open */
    void *workspace;                          /* of the library call under way (cuBLASLt, cuDNN) */
    size_t workspace_bytes;
    char *scratch;                            /* of the op under way: see device_scratch_cuda */
    size_t scratch_bytes;
    staging *staging;
    product_plans *products;
    attend_state *attend;
    void (*attend_close)(moai_device *);      /* set by whoever sets attend */
};

enum { WORKSPACE_BYTES = 64 << 20, SCRATCH_BYTES = 32 << 20 };
enum { ATTEND_MOST_HEAD_DIM = 256, SAMPLE_MOST_COLS = (1 << 20) - 1 };        /* what the kernels are written for */
int64_t rmsnorm_most_cols_cuda(int64_t cols); /* of rows like ones of `cols`: whole packs, or not */ /* rmsnorm.cu */

/* Device memory for the op under way, aligned to 256 bytes, valid until the next op's call: a second call in one op
 * may move it. Grows (waiting for the device) only when an op asks for more than any before it. */
void *device_scratch_cuda(moai_device *, size_t n_bytes);

/* -- failures: in every build; the rank is broken -- */

#define CUDA_CHECK(call)                                                                                    \
    do {                                                                                                    \
        cudaError_t cuda_status_ = (call);                                                                  \
        if (cuda_status_ != cudaSuccess) die("%s: %s", #call, cudaGetErrorString(cuda_status_));            \
    } while (0)
#define CUBLAS_CHECK(call)                                                                                  \
    do {                                                                                                    \
        cublasStatus_t blas_status_ = (call);                                                               \
        if (blas_status_ != CUBLAS_STATUS_SUCCESS) die("%s: %s", #call, cublasLtGetStatusString(blas_status_)); \
    } while (0)
/* after each <<<>>> launch */
#define LAUNCH_CHECK(op)                                                                                    \
    do {                                                                                                    \
        cudaError_t cuda_status_ = cudaGetLastError();                                                      \
        if (cuda_status_ != cudaSuccess) die("%s: launch: %s", op, cudaGetErrorString(cuda_status_));       \
    } while (0)

static inline cudaDataType_t cuda_type(dtype dt)
{
    switch (dt) {
    case DT_F32: return CUDA_R_32F;
    case DT_BF16: return CUDA_R_16BF;
    case DT_F16: return CUDA_R_16F;
    case DT_F64: return CUDA_R_64F;
    case DT_I32: return CUDA_R_32I;
    default: return CUDA_R_8U;
    }
}

/* -- parts of the device, by file -- */

staging *staging_open(void);                                                                    /* staging.c */
void staging_close(staging *);
void staging_to_device(staging *, cudaStream_t, void *dst, const void *src, size_t n_bytes); /* src is free at return */
void staging_to_host(staging *, cudaStream_t, void *dst, const void *src, size_t n_bytes);      /* waits */

product_plans *product_plans_open(void);                                                        /* matmul.c */
void product_plans_close(product_plans *);

bool kernels_run_here(void);                  /* does this build hold code for the current GPU? */  /* sums.cu */

/* -- the table's entries -- */

void *alloc_cuda(moai_device *, size_t n_bytes);                                                /* gpu.c */
void free_cuda(moai_device *, void *);
void *alloc_host_cuda(moai_device *, size_t n_bytes);                                           /* pinned.c */
void free_host_cuda(moai_device *, void *, size_t n_bytes);
bool is_pinned_cuda(const void *);
void sync_cuda(moai_device *);
void phase_cuda(moai_device *, const char *name, int number);                                   /* clock_cuda.c */

/* An op is in the file of its name, or of its kind: ls. */
#define REQUIRED(op, parameters, ...) void op##_cuda parameters;
#include "src/ops/ops.def"

#ifdef __cplusplus
}
#pragma pop_macro("_Noreturn")
#endif

#endif
