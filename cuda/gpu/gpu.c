/* gpu.c: opening a GPU */
#include "cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEAST_CAPABILITY = 80,                    /* bf16 arithmetic */
    CONTEXT_BYTES = 512 << 20,                /* of a context, about */
};

int device_count_cuda(void)
{
    int n = 0;
    if (cudaGetDeviceCount(&n) != cudaSuccess) n = 0;
    cudaGetLastError();                       /* "no driver" is an answer, not a failure */
    return n;
}

static int check_driver(moai_error *err)
{
    int driver = 0, built = 0, n = 0;
    cudaError_t status;

    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&built);
    status = cudaGetDeviceCount(&n);
    cudaGetLastError();
    if (driver == 0)
        return error_set(
            err,
            "no NVIDIA driver on this machine (libcuda.so.1 is not found): run with --device cpu, or on a GPU node");
    if (status == cudaErrorInsufficientDriver)
        return error_set(err, "the NVIDIA driver is too old: it serves CUDA %d.%d, this program was built with %d.%d",
                         driver / 1000, driver % 1000 / 10, built / 1000, built % 1000 / 10);
    if (status == cudaErrorNoDevice || (status == cudaSuccess && n == 0)) {
        const char *visible = getenv("CUDA_VISIBLE_DEVICES");
        return error_set(err, "no GPU is visible to this process (CUDA_VISIBLE_DEVICES is %s)",
                         visible ? visible : "not set");
    }
    if (status != cudaSuccess) return error_set(err, "the GPUs cannot be listed: %s", cudaGetErrorString(status));
    return 0;
}

static int attribute(int gpu, enum cudaDeviceAttr what)
{
    int value;
    CUDA_CHECK(cudaDeviceGetAttribute(&value, what, gpu));
    return value;
}

static int check_gpu(int gpu, moai_error *err)
{
    int n = device_count_cuda();

    if (gpu < 0 || gpu >= n)
        return error_set(err, "GPU %d was asked for, %d %s visible to this process: more ranks than GPUs?", gpu, n,
                         n == 1 ? "is" : "are");
    int major = attribute(gpu, cudaDevAttrComputeCapabilityMajor),
        minor = attribute(gpu, cudaDevAttrComputeCapabilityMinor);
    if (10 * major + minor < LEAST_CAPABILITY)
        return error_set(err, "GPU %d has compute capability %d.%d; 8.0 (A100) or newer is needed", gpu, major, minor);
    cudaError_t status = cudaSetDevice(gpu);
    if (status != cudaSuccess) return error_set(err, "GPU %d cannot be used: %s", gpu, cudaGetErrorString(status));
    if (!kernels_run_here())
        return error_set(
            err, "this program holds no code for GPU %d, compute capability %d.%d: build it with CUDA_ARCH=%d%d", gpu,
            major, minor, major, minor);
    return 0;
}

static void memory_of(int gpu, size_t *n_free, size_t *n_all)
{
    CUDA_CHECK(cudaSetDevice(gpu));
    CUDA_CHECK(cudaMemGetInfo(n_free, n_all));
}

size_t memory_free_cuda(int gpu)
{
    size_t n_free, n_all;

    memory_of(gpu, &n_free, &n_all);
    return n_free + CONTEXT_BYTES < n_all ? n_free + CONTEXT_BYTES : n_all;
}

size_t memory_all_cuda(int gpu)
{
    size_t n_free, n_all;

    memory_of(gpu, &n_free, &n_all);
    return n_all;
}

void device_id_cuda(int gpu, char id[16])
{
    struct cudaDeviceProp prop;

    CUDA_CHECK(cudaGetDeviceProperties(&prop, gpu));
    memcpy(id, &prop.uuid, sizeof prop.uuid);
}

size_t memory_in_use_cuda(const moai_device *dev)
{
    size_t n_free, n_all;

    memory_of(dev->gpu, &n_free, &n_all);
    return n_all - n_free;
}

static void describe(moai_device *dev)
{
    struct cudaDeviceProp prop;
    size_t blas = cublasLtGetVersion();

    CUDA_CHECK(cudaGetDeviceProperties(&prop, dev->gpu));
    snprintf(dev->description, sizeof dev->description, "%.100s, compute capability %d.%d, cuBLASLt %zu.%zu.%zu",
             prop.name, prop.major, prop.minor, blas / 10000, blas / 100 % 100, blas % 100);
}

moai_device *device_open_cuda(int gpu, bool deterministic, moai_error *err)
{
    if (check_driver(err) || check_gpu(gpu, err)) return NULL;

    moai_device *dev = xmalloc(sizeof *dev);
    dev->gpu = gpu;
    dev->deterministic = deterministic;
    dev->n_sm = attribute(gpu, cudaDevAttrMultiProcessorCount);
    dev->capability =
        10 * attribute(gpu, cudaDevAttrComputeCapabilityMajor) + attribute(gpu, cudaDevAttrComputeCapabilityMinor);
    dev->max_shared = (size_t)attribute(gpu, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    describe(dev);
    dev->workspace_bytes = WORKSPACE_BYTES;
    dev->scratch_bytes = SCRATCH_BYTES;
    if (cudaMalloc(&dev->workspace, WORKSPACE_BYTES) != cudaSuccess ||
        cudaMalloc((void **)&dev->scratch, SCRATCH_BYTES) != cudaSuccess) {
        error_set(err, "GPU %d has no room for %d MiB of workspace: is another program using it?", gpu,
                  (WORKSPACE_BYTES + SCRATCH_BYTES) >> 20);
        cudaGetLastError();
        cudaFree(dev->workspace);
        free(dev);
        return NULL;
    }
    CUDA_CHECK(cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking));
    CUBLAS_CHECK(cublasLtCreate(&dev->blas));
    dev->staging = staging_open();
    dev->products = product_plans_open();
    return dev;
}

void device_close_cuda(moai_device *dev)
{
    if (!dev) return;
    CUDA_CHECK(cudaStreamSynchronize(dev->stream));
    if (dev->attend_close) dev->attend_close(dev);
    product_plans_close(dev->products);
    staging_close(dev->staging);
    CUBLAS_CHECK(cublasLtDestroy(dev->blas));
    CUDA_CHECK(cudaFree(dev->scratch));
    CUDA_CHECK(cudaFree(dev->workspace));
    CUDA_CHECK(cudaStreamDestroy(dev->stream));
    free(dev);
}

void device_decodes_cuda(moai_device *dev, bool decodes)
{
    attend_use_cuda(dev, decodes ? ATTEND_OWN : ATTEND_AUTO);
    dev->launches_closely = decodes;
}

void device_launches_closely_cuda(moai_device *dev, bool closely) { dev->launches_closely = closely; }

const char *device_describe_cuda(const moai_device *dev) { return dev->description; }

void *device_stream_cuda(moai_device *dev) { return dev->stream; }
