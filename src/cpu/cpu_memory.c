/* cpu_memory.c: the CPU's memory.  Every op is done when it returns, so there is nothing to wait for. */
#include "src/cpu/cpu.h"

#include <stdlib.h>

enum { CPU_ALIGN = 64 };                      /* a cache line, and the widest vector */
enum { CPU_PIECE = 4 << 20 };                 /* bytes that a thread copies at a time */

static size_t piece_at(size_t at, size_t n_bytes) { return n_bytes - at < CPU_PIECE ? n_bytes - at : CPU_PIECE; }

void *alloc_cpu(moai_device *dev, size_t n_bytes)
{
    (void)dev;
    return aligned_alloc(CPU_ALIGN, (size_t)round_up((int64_t)max_i64((int64_t)n_bytes, 1), CPU_ALIGN));
}

void free_cpu(moai_device *dev, void *p)
{
    (void)dev;
    free(p);
}

void *alloc_host_cpu(moai_device *dev, size_t n_bytes)
{
    char *p = alloc_cpu(dev, n_bytes);

#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < (p ? n_bytes : 0); at += CPU_PIECE) memset(p + at, 0, piece_at(at, n_bytes));
    return p;
}

void free_host_cpu(moai_device *dev, void *p, size_t n_bytes)
{
    (void)n_bytes;
    free_cpu(dev, p);
}

void copy_cpu(moai_device *dev, void *dst, const void *src, size_t n_bytes, copy_kind kind)
{
    (void)dev;
    if (kind == COPY_ON_DEVICE || n_bytes <= CPU_PIECE) {
        if (n_bytes) memmove(dst, src, n_bytes);
        return;
    }
#pragma omp parallel for schedule(static)     /* one core does not fill the memory's bandwidth */
    for (size_t at = 0; at < n_bytes; at += CPU_PIECE)
        memcpy((char *)dst + at, (const char *)src + at, piece_at(at, n_bytes));
}

void zero_cpu(moai_device *dev, void *p, size_t n_bytes)
{
    (void)dev;
    if (n_bytes) memset(p, 0, n_bytes);
}

void sync_cpu(moai_device *dev) { (void)dev; }
void phase_cpu(moai_device *dev, const char *name, int number) { (void)dev, (void)name, (void)number; }

void *device_scratch(moai_device *dev, size_t n_bytes)
{
    if (n_bytes > dev->scratch_bytes) {
        free(dev->scratch);
        dev->scratch_bytes = (size_t)round_up((int64_t)n_bytes, 1 << 16);
        dev->scratch = alloc_cpu(dev, dev->scratch_bytes);
        CHECK(dev->scratch, "out of host memory: %zu bytes of scratch", dev->scratch_bytes);
    }
    return dev->scratch;
}
