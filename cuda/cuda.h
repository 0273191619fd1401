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

/* -- the table's entries, by file -- */

void *alloc_cuda(moai_device *, size_t n_bytes);                                                /* gpu.c */
void free_cuda(moai_device *, void *);
void *alloc_host_cuda(moai_device *, size_t n_bytes);                                           /* pinned.c */
void free_host_cuda(moai_device *, void *, size_t n_bytes);
bool is_pinned_cuda(const void *);
void copy_cuda(moai_device *, void *dst, const void *src, size_t n_bytes, copy_kind);
void zero_cuda(moai_device *, void *, size_t n_bytes);
void sync_cuda(moai_device *);
void phase_cuda(moai_device *, const char *name, int number);                                   /* clock.c */

void cast_cuda(moai_device *, tensor y, tensor x);                                              /* elementwise.cu */
void add_cuda(moai_device *, tensor y, tensor a, tensor b);
void fill_cuda(moai_device *, tensor y, float value);
void fill_normal_cuda(moai_device *, tensor y, uint64_t key, int64_t row0, int64_t col0, int64_t global_cols,
                      float std);

void matmul_cuda(moai_device *, tensor y, tensor x, tensor w);                                  /* matmul.c */
void matmul_add_cuda(moai_device *, tensor y, tensor x, tensor w, tensor z);
void matmul_dx_cuda(moai_device *, tensor dx, tensor dy, tensor w);
void matmul_dw_cuda(moai_device *, tensor dw, tensor dy, tensor x, bool accumulate);

void embed_cuda(moai_device *, tensor y, const int32_t *ids, tensor table, int64_t vocab_begin);/* embed.cu */
void embed_backward_cuda(moai_device *, tensor dtable, const int32_t *ids, tensor dy, int64_t vocab_begin);

void rmsnorm_cuda(moai_device *, tensor n, float *r, tensor x, tensor w, float eps);            /* rmsnorm.cu */
void residual_rmsnorm_cuda(moai_device *, tensor h, tensor n, float *r, tensor x, tensor o, tensor w, float eps);
void rmsnorm_backward_cuda(moai_device *, tensor dx, tensor dw, tensor dn, tensor dres, tensor x, const float *r,
                           tensor w);

void qknorm_rope_cuda(moai_device *, tensor qk, float *r, tensor qkv, tensor q_norm, tensor k_norm, rope_table,
                      const int32_t *positions, attend_shape, float eps);                       /* qknorm_rope.cu */
void qknorm_rope_backward_cuda(moai_device *, tensor dqkv, tensor dq_norm, tensor dk_norm, tensor dqk, tensor qkv,
                               const float *r, tensor q_norm, tensor k_norm, rope_table, const int32_t *positions,
                               attend_shape);

void attend_cuda(moai_device *, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape); /* attend*.cu */
void attend_backward_cuda(moai_device *, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                          tensor att, const float *lse, attend_shape);
void attend_cached_cuda(moai_device *, tensor att, tensor q, tensor k_cache, tensor v_cache, const int32_t *seq,
                        const int32_t *pos, int64_t max_len, attend_shape);
void kv_append_cuda(moai_device *, tensor k_cache, tensor v_cache, tensor k, tensor v, const int32_t *seq,
                    const int32_t *pos, int64_t max_len); /* kv_append.cu */

void swiglu_cuda(moai_device *, tensor act, tensor gate_up);                                    /* swiglu.cu */
void swiglu_backward_cuda(moai_device *, tensor dgate_up, tensor act, tensor dact, tensor gate_up);

void softmax_stats_cuda(moai_device *, float *stats, tensor logits, const int32_t *targets, int64_t vocab_begin);
void cross_entropy_cuda(moai_device *, float *nll, tensor logits, const float *stats_all, int n_parts,
                        const int32_t *targets, int64_t vocab_begin, float scale); /* cross_entropy.cu */

void sample_cuda(moai_device *, int32_t *ids, tensor logits, const double *u, sample_options);   /* sample.cu */

void sum_cuda(moai_device *, double *acc, const float *x, int64_t n);                           /* sums.cu */
void sum_squares_cuda(moai_device *, double *acc, const float *x, int64_t n);

void clip_cuda(moai_device *, float *grad_scale, const double *sumsq, float max_norm, float unscale); /* adamw.cu */
void adamw_cuda(moai_device *, const adamw_args *);

#ifdef __cplusplus
}
#pragma pop_macro("_Noreturn")
#endif

#endif
