/* ops_cpu.c: the CPU's table of operations, its memory and its threads.  Every op is done when it returns. */
#include "cpu.h"

#include <stdlib.h>

enum { CPU_ALIGN = 64 };                      /* a cache line, and the widest vector */
enum { CPU_PIECE = 4 << 20 };                 /* bytes that a thread copies at a time */

static size_t piece_at(size_t at, size_t n_bytes) { return n_bytes - at < CPU_PIECE ? n_bytes - at : CPU_PIECE; }

static void *alloc_cpu(moai_device *dev, size_t n_bytes)
{
    (void)dev;
    return aligned_alloc(CPU_ALIGN, (size_t)round_up((int64_t)max_i64((int64_t)n_bytes, 1), CPU_ALIGN));
}

static void free_cpu(moai_device *dev, void *p)
{
    (void)dev;
    free(p);
}

static void *alloc_host_cpu(moai_device *dev, size_t n_bytes)
{
    char *p = alloc_cpu(dev, n_bytes);

#pragma omp parallel for schedule(static)
    for (size_t at = 0; at < (p ? n_bytes : 0); at += CPU_PIECE) memset(p + at, 0, piece_at(at, n_bytes));
    return p;
}

static void free_host_cpu(moai_device *dev, void *p, size_t n_bytes)
{
    (void)n_bytes;
    free_cpu(dev, p);
}

static void copy_cpu(moai_device *dev, void *dst, const void *src, size_t n_bytes, copy_kind kind)
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

static void zero_cpu(moai_device *dev, void *p, size_t n_bytes)
{
    (void)dev;
    if (n_bytes) memset(p, 0, n_bytes);
}

static void sync_cpu(moai_device *dev) { (void)dev; }
static void phase_cpu(moai_device *dev, const char *name, int number) { (void)dev, (void)name, (void)number; }

moai_device *device_open_cpu(int n_threads)
{
    moai_device *dev = xmalloc(sizeof *dev);

    if (n_threads > 0) omp_set_num_threads(n_threads);        /* before products_open: libraries ask OpenMP */
    dev->n_threads = omp_get_max_threads();
    dev->products = products_open();
    return dev;
}

void device_close_cpu(moai_device *dev)
{
    if (!dev) return;
    products_close(dev->products);
    free(dev->scratch);
    free(dev);
}

const char *device_products_cpu(const moai_device *dev) { return products_name(dev->products); }

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

const moai_ops ops_cpu = {
    .name = "cpu",
    .alloc = alloc_cpu,
    .free = free_cpu,
    .alloc_host = alloc_host_cpu,
    .free_host = free_host_cpu,
    .copy = copy_cpu,
    .zero = zero_cpu,
    .sync = sync_cpu,
    .phase = phase_cpu,
    .cast = cast_cpu,
    .add = add_cpu,
    .fill = fill_cpu,
    .fill_normal = fill_normal_cpu,
    .matmul = matmul_cpu,
    .matmul_add = matmul_add_cpu,
    .matmul_dx = matmul_dx_cpu,
    .matmul_dw = matmul_dw_cpu,
    .embed = embed_cpu,
    .embed_backward = embed_backward_cpu,
    .rmsnorm = rmsnorm_cpu,
    .residual_rmsnorm = residual_rmsnorm_cpu,
    .rmsnorm_backward = rmsnorm_backward_cpu,
    .qknorm_rope = qknorm_rope_cpu,
    .qknorm_rope_backward = qknorm_rope_backward_cpu,
    .attend = attend_cpu,
    .attend_backward = attend_backward_cpu,
    .kv_append = kv_append_cpu,
    .attend_cached = attend_cached_cpu,
    .swiglu = swiglu_cpu,
    .swiglu_backward = swiglu_backward_cpu,
    .softmax_stats = softmax_stats_cpu,
    .cross_entropy = cross_entropy_cpu,
    .sample = sample_cpu,
    .sum = sum_cpu,
    .sum_squares = sum_squares_cpu,
    .clip = clip_cpu,
    .adamw = adamw_cpu,
};
