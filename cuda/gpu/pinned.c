/* pinned.c: host memory that the GPU reads and writes by itself, at the link's full speed
 *
 * The pages are large and touched by all threads before they are registered: tens of GiB take seconds where
 * cudaMallocHost, which takes them singly, needs a minute. */
#include "cuda/cuda.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LARGE_PAGE = 2 << 20 };

static size_t whole_pages(size_t n_bytes) { return (size_t)round_up(max_i64((int64_t)n_bytes, 1), LARGE_PAGE); }

void *alloc_host_cuda(moai_device *dev, size_t n_bytes)
{
    const size_t n = whole_pages(n_bytes);
    char *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    (void)dev;
    if (p == MAP_FAILED) return NULL;
    madvise(p, n, MADV_HUGEPAGE);
#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < n; at += LARGE_PAGE) memset(p + at, 0, LARGE_PAGE);
    if (cudaHostRegister(p, n, cudaHostRegisterPortable) == cudaSuccess) return p;
    cudaGetLastError();                       /* the caller decides */
    munmap(p, n);
    return NULL;
}

void free_host_cuda(moai_device *dev, void *p, size_t n_bytes)
{
    CUDA_CHECK(cudaStreamSynchronize(dev->stream));
    CUDA_CHECK(cudaHostUnregister(p));
    munmap(p, whole_pages(n_bytes));
}

bool is_pinned_cuda(const void *p)
{
    struct cudaPointerAttributes about;

    CUDA_CHECK(cudaPointerGetAttributes(&about, p));
    return about.type == cudaMemoryTypeHost;
}
