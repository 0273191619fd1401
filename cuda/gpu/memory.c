/* memory.c: a GPU's memory, scratch and copies */
#include "cuda/cuda.h"

void *device_scratch_cuda(moai_device *dev, size_t n_bytes)
{
    if (n_bytes > dev->scratch_bytes) {
        CUDA_CHECK(cudaStreamSynchronize(dev->stream));
        CUDA_CHECK(cudaFree(dev->scratch));
        dev->scratch_bytes = (size_t)round_up((int64_t)n_bytes, 1 << 20);
        if (cudaMalloc((void **)&dev->scratch, dev->scratch_bytes) != cudaSuccess)
            die("GPU %d: %zu MiB of scratch do not fit", dev->gpu, dev->scratch_bytes >> 20);
    }
    return dev->scratch;
}

void *alloc_cuda(moai_device *dev, size_t n_bytes)
{
    void *p = NULL;
    cudaError_t status = cudaMalloc(&p, n_bytes ? n_bytes : 1);

    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();                   /* the caller decides */
        return NULL;
    }
    if (status != cudaSuccess) die("GPU %d: allocating %zu bytes: %s", dev->gpu, n_bytes, cudaGetErrorString(status));
    return p;
}

void free_cuda(moai_device *dev, void *p)
{
    CUDA_CHECK(cudaStreamSynchronize(dev->stream));
    CUDA_CHECK(cudaFree(p));
}

void copy_cuda(moai_device *dev, void *dst, const void *src, size_t n_bytes, copy_kind kind)
{
    if (n_bytes == 0) return;
    if (kind == COPY_TO_DEVICE)
        staging_to_device(dev->staging, dev->stream, dst, src, n_bytes);
    else if (kind == COPY_TO_HOST && is_pinned_cuda(dst))
        CUDA_CHECK(cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToHost, dev->stream));
    else if (kind == COPY_TO_HOST)
        staging_to_host(dev->staging, dev->stream, dst, src, n_bytes);
    else
        CUDA_CHECK(cudaMemcpyAsync(dst, src, n_bytes, cudaMemcpyDeviceToDevice, dev->stream));
}

void zero_cuda(moai_device *dev, void *p, size_t n_bytes)
{
    if (n_bytes) CUDA_CHECK(cudaMemsetAsync(p, 0, n_bytes, dev->stream));
}

void sync_cuda(moai_device *dev) { CUDA_CHECK(cudaStreamSynchronize(dev->stream)); }
