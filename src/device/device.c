/* device.c: see device.h.  The only place that knows which backends were built in. */
#include "src/device/device.h"

#include "src/host/host_memory.h"

#include <stdio.h>
#include <string.h>

#ifdef MOAI_CUDA
#include "cuda/cuda_device.h"
#include "parallel/nccl/comm_nccl.h"

/* Dense bf16 FLOP/s by the vendors' data sheets; the first name that fits. */
static double peak_of(const char *text)
{
    static const struct {
        const char *card;
        double flops;
    } peaks[] = {{"H100 PCIe", 756e12}, {"H100 NVL", 835.5e12}, {"H200 NVL", 835.5e12}, {"H100", 989.4e12},
                 {"H200", 989.4e12},    {"A100", 312e12},       {"B200", 2250e12}};

    for (size_t i = 0; i < sizeof peaks / sizeof *peaks; i++)
        if (strstr(text, peaks[i].card)) return peaks[i].flops;
    return 0;
}

/* A launcher may show each rank one GPU of its own (srun --gpus-per-task). */
static bool gpus_are_own(void)
{
    const bool one = device_count_cuda() == 1;
    char id[PROCESS_ID] = "";

    if (one) device_id_cuda(0, id);
    return process_host_differ(id) && one;
}

static int open_cuda(device *d, const device_options *o, bool own, moai_error *err)
{
    const int n_gpus = device_count_cuda(), ranks = process_host_ranks(), gpu = own ? 0 : process_host_rank();

    if (n_gpus > 0 && ranks > n_gpus && !own)
        return error_set(err,
                         "%d ranks on this host and %d GPUs: one rank a GPU (start fewer, or set CUDA_VISIBLE_DEVICES)",
                         ranks, n_gpus);
    d->ops = &ops_cuda;
    d->clock = &clock_cuda;
    d->dev = device_open_cuda(gpu, o->deterministic, err);
    if (!d->dev) return -1;
    device_decodes_cuda(d->dev, o->decoding);
    snprintf(d->text, sizeof d->text, "%s", device_describe_cuda(d->dev));
    d->peak_flops = peak_of(d->text);
    return 0;
}
#else
static int device_count_cuda(void) { return 0; }
static bool gpus_are_own(void) { return false; }

static int open_cuda(device *d, const device_options *o, bool own, moai_error *err)
{
    (void)d, (void)own;
    return error_config(err, "device %s: this build has no CUDA backend (build with make CUDA=1)", o->name);
}
#endif

bool device_memory_free(const device_options *o, size_t *now, size_t *all)
{
#ifdef MOAI_CUDA
    const int n_gpus = device_count_cuda(), gpu = n_gpus ? process_host_rank() % n_gpus : 0;
    if (strcmp(o->name, "cpu") != 0 && n_gpus > 0) {
        *now = memory_free_cuda(gpu);
        *all = memory_all_cuda(gpu);
        return true;
    }
#endif
    (void)o;
    const host_memory m = host_memory_read("");
    *now = m.available / (size_t)process_host_ranks();
    *all = m.total / (size_t)process_host_ranks();
    return false;
}

bool device_is_cuda(const char *name)
{
#ifdef MOAI_CUDA
    return strcmp(name, "cpu") != 0;
#else
    return strcmp(name, "cuda") == 0;
#endif
}

static int open_cpu(device *d, const device_options *o, moai_error *err)
{
    const char *from;
    const int n_threads = process_threads(o->num_threads, &from, err);

    if (n_threads < 0) return -1;
    d->ops = &ops_cpu;
    d->clock = &clock_cpu;
    d->dev = device_open_cpu(n_threads);
    const char *opening = *from ? " (" : "", *closing = *from ? ")" : "";
    snprintf(d->text, sizeof d->text, "cpu, %d threads a rank%s%s%s, products by %s", n_threads, opening, from, closing,
             device_products_cpu(d->dev));
    return 0;
}

int device_open(device *d, const device_options *o, moai_error *err)
{
    *d = (device){0};
    if (strcmp(o->name, "cpu") == 0) return open_cpu(d, o, err);
    const bool own = gpus_are_own();
    if (strcmp(o->name, "cuda") == 0) return open_cuda(d, o, own, err);
    if (strcmp(o->name, "auto") == 0) return device_count_cuda() > 0 ? open_cuda(d, o, own, err) : open_cpu(d, o, err);
    return error_config(err, "device \"%s\" is none of cpu, cuda, auto", o->name);
}

void device_connect(device *d, moai_grid *grid)
{
#ifdef MOAI_CUDA
    if (d->ops != &ops_cuda) return;
    if (grid->world > 1) device_launches_closely_cuda(d->dev, false); /* NCCL's streams wait for whole kernels */
    grid_use_nccl(grid, d->dev);
#else
    (void)d, (void)grid;
#endif
}

bool device_waits(const device *d) { return d->ops != &ops_cpu; }

size_t device_in_use(const device *d)
{
#ifdef MOAI_CUDA
    if (d->ops == &ops_cuda) return memory_in_use_cuda(d->dev);
#else
    (void)d;
#endif
    return 0;
}

void device_close(device *d)
{
    if (!d->dev) return;
#ifdef MOAI_CUDA
    if (d->ops == &ops_cuda) {
        device_close_cuda(d->dev);
        return;
    }
#endif
    device_close_cpu(d->dev);
}
