/* fit.c: see fit.h */
#include "src/train/fit.h"

#include "src/device/device.h"
#include "src/host/host_memory.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RANKS = 64 };                     /* times as many as now, that a way out may take */

int fit_find_memory(fit_memory *memory, const run_config *run, moai_error *err)
{
    const device_options o = {.name = run->device};

    memory->gpu = device_memory_free(&o, &memory->bytes, &memory->all);
    error_set(err, "device %s finds no GPU on this host, and finds one on others: has its driver failed?", run->device);
    if (process_least(memory->gpu) == process_least(!memory->gpu) && process_agree(!memory->gpu, err)) return -1;
    if (run->device_memory > 0) {
        memory->bytes = memory->all = (size_t)(run->device_memory * 1024 * 1024 * 1024);
        memory->gpu = memory->gpu || device_is_cuda(run->device);
    }
    if (memory->gpu && run_config_refuse_gpu(run, err)) return -1;
    memory->bytes = (size_t)process_least((int64_t)memory->bytes);
    memory->all = (size_t)process_least((int64_t)memory->all);
    memory->host = host_memory_read("");
    return 0;
}

size_t fit_need(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch, bool gpu)
{
    size_t most = 0;

    for (int stage = 0; stage < size.pp; stage++) {
        plan_memory p;
        plan_stage(&p, run, cfg, size, batch, stage, gpu);
        most = p.total > most ? p.total : most;
    }
    return most;
}

/* A run that is like this one but for a few keys. */
typedef struct way_out {
    recompute_mode mode;
    int64_t micro_batch;
    grid_shape size;
} way_out;

/* Its bytes; SIZE_MAX where the layout or the mode is none. */
static size_t bytes_of(const run_config *run, const model_config *cfg, const way_out *w, bool gpu)
{
    run_config other = *run;
    batch_plan batch;
    moai_error err;

    other.gradient_checkpointing = w->mode;
    other.batch.per_device_train_batch_size = w->micro_batch;
    if (!recompute_applies(w->mode, cfg) || params_check(cfg, w->size, &err) ||
        batch_settle(&batch, &other.batch, w->size.dp, &err))
        return SIZE_MAX;
    return fit_need(&other, cfg, w->size, &batch, gpu);
}

/* The first that fits: more recomputation, smaller micro-batches, then more ranks of each kind. */
static bool find_way_out(way_out *w, size_t *need, const run_config *run, const model_config *cfg, grid_shape size,
                         fit_memory memory)
{
    const int64_t batch = run->batch.per_device_train_batch_size;

    for (int times = 1; times <= MOST_RANKS; times *= 2) {
        const grid_shape sizes[] = {{size.tp, size.cp, size.dp * times, size.pp},
                                    {size.tp, size.cp, size.dp, size.pp * times},
                                    {size.tp * times, size.cp, size.dp, size.pp}};
        for (int i = 0; i < (times == 1 ? 1 : 3); i++) {
            const way_out tries[] = {{RECOMPUTE_STREAMS, batch, sizes[i]},
                                     {RECOMPUTE_SELECTIVE, batch, sizes[i]},
                                     {RECOMPUTE_KEEP_ATTENTION, batch, sizes[i]},
                                     {RECOMPUTE_FULL, batch, sizes[i]},
                                     {RECOMPUTE_FULL, 1, sizes[i]}};
            for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                *w = tries[t];
                *need = bytes_of(run, cfg, w, memory.gpu);
                if (*need <= memory.bytes) return true;
            }
        }
    }
    return false;
}

static void describe(char *text, size_t n, const way_out *w, const run_config *run, grid_shape size)
{
    int at = snprintf(text, n, "--gradient_checkpointing %s", recompute_name(w->mode));

    if (w->micro_batch != run->batch.per_device_train_batch_size)
        at += snprintf(text + at, n - (size_t)at, " --per_device_train_batch_size %lld", (long long)w->micro_batch);
    if (w->size.tp != size.tp) at += snprintf(text + at, n - (size_t)at, " --tensor_parallel %d", w->size.tp);
    if (w->size.pp != size.pp) at += snprintf(text + at, n - (size_t)at, " --pipeline_parallel %d", w->size.pp);
    const int ranks = w->size.tp * w->size.cp * w->size.dp * w->size.pp;
    if (ranks != size.tp * size.cp * size.dp * size.pp)
        snprintf(text + at, n - (size_t)at, " on %d ranks with as much each", ranks);
}

/* This rank's part; that of the largest where the ranks asked about are not those that run. */
static plan_memory own_need(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch,
                            bool gpu)
{
    const bool running = !run->plan_ranks && size.tp * size.cp * size.dp * size.pp == process_world();
    plan_memory most = {0};

    for (int stage = 0; stage < size.pp; stage++) {
        plan_memory p;
        plan_stage(&p, run, cfg, size, batch, stage, gpu);
        if (running ? stage == grid_coordinates(size, process_rank()).pp : p.total > most.total) most = p;
    }
    return most;
}

/* What the fullest host has left when each of its ranks has taken its bytes. */
static int64_t left_on_host(size_t host, size_t own)
{
    return process_least((int64_t)host - process_host_sum((int64_t)own));
}

static bool fits(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch,
                 fit_memory memory)
{
    if (memory.gpu || run->device_memory > 0) return fit_need(run, cfg, size, batch, memory.gpu) <= memory.bytes;
    return left_on_host(memory.host.available, own_need(run, cfg, size, batch, false).total) >= 0;
}

/* The copies of a GPU's state. */
static int check_copies(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch,
                        fit_memory memory, moai_error *err)
{
    if (!memory.gpu || run->plan || !plan_copies(run)) return 0;
    const size_t copy = own_need(run, cfg, size, batch, true).copy;
    const int64_t left = left_on_host(memory.host.available, copy), most = left_on_host(memory.host.total, copy);

    if (left >= 0) return 0;
    error_set(err,
              "async_save copies the training state to host memory, %.2f GiB a rank: %.2f GiB more than a host has for "
              "its ranks; --no_async_save saves without a copy",
              gib(copy), gib((size_t)-left));
    err->config = most < 0;
    return -1;
}

static int too_large(const run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch,
                     fit_memory memory, moai_error *err)
{
    const size_t need = fit_need(run, cfg, size, batch, memory.gpu);
    char text[256], may[32], held[128] = "";
    size_t other;
    way_out w;

    if (run->device_memory > 0)
        snprintf(may, sizeof may, "%.15g", run->device_memory);
    else
        snprintf(may, sizeof may, "%.2f", gib(memory.bytes));
    if (need <= memory.all)
        snprintf(held, sizeof held, ", as %.2f of %s %.2f are in use", gib(memory.all - memory.bytes),
                 memory.gpu ? "its GPU's" : "its share of the host,", gib(memory.all));
    if (find_way_out(&w, &other, run, cfg, size, memory)) {
        describe(text, sizeof text, &w, run, size);
        error_set(err, "a rank needs %.4f GiB and may take %s%s; it would fit with %s (%.4f GiB)", gib(need), may, held,
                  text, gib(other));
    } else {
        error_set(err, "a rank needs %.4f GiB and may take %s%s; %d times as many ranks do not make it fit either",
                  gib(need), may, held, MOST_RANKS);
    }
    err->config = need > memory.all;
    return -1;
}

int fit_settle(run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch, fit_memory memory,
               moai_error *err)
{
    const bool free_choice = run->gradient_checkpointing == RECOMPUTE_AUTO;

    if (free_choice) run->gradient_checkpointing = RECOMPUTE_NONE;
    while (!fits(run, cfg, size, batch, memory)) {
        if (!free_choice || run->gradient_checkpointing == RECOMPUTE_FULL)
            return too_large(run, cfg, size, batch, memory, err);
        do run->gradient_checkpointing++; while (!recompute_applies(run->gradient_checkpointing, cfg));
    }
    return check_copies(run, cfg, size, batch, memory, err);
}
