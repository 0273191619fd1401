/* fit.c: see fit.h */
#include "fit.h"

#include "device.h"
#include "host_memory.h"

#include <stdio.h>
#include <string.h>

enum { MOST_RANKS = 64 };                     /* times as many as now, that a way out may take */

static double gib(size_t n_bytes) { return (double)n_bytes / (1024.0 * 1024 * 1024); }

int fit_find_room(fit_room *room, const run_config *run, moai_error *err)
{
    const device_options o = {.name = run->device};

    room->bytes = device_room(&o, &room->gpu);
    error_set(err, "device %s finds no GPU on this host, and finds one on others: has its driver failed?", run->device);
    if (process_least(room->gpu) == process_least(!room->gpu) && process_agree(!room->gpu, err)) return -1;
    if (run->device_memory > 0) {
        room->bytes = (size_t)(run->device_memory * 1024 * 1024 * 1024);
        room->gpu = room->gpu || device_is_cuda(run->device);
    }
    room->bytes = (size_t)process_least((int64_t)room->bytes);
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

/* Its bytes; SIZE_MAX where the layout is none. */
static size_t bytes_of(const run_config *run, const model_config *cfg, const way_out *w, bool gpu)
{
    run_config other = *run;
    batch_plan batch;
    moai_error err;

    other.gradient_checkpointing = w->mode;
    other.per_device_train_batch_size = w->micro_batch;
    if (params_check(cfg, w->size, &err) || batch_settle(&batch, &other, w->size.dp, &err)) return SIZE_MAX;
    return fit_need(&other, cfg, w->size, &batch, gpu);
}

/* The first that fits: more recomputation, smaller micro-batches, then more ranks of each kind. */
static bool find_way_out(way_out *w, size_t *need, const run_config *run, const model_config *cfg, grid_shape size,
                         fit_room room)
{
    const int64_t batch = run->per_device_train_batch_size;

    for (int times = 1; times <= MOST_RANKS; times *= 2) {
        const grid_shape sizes[] = {{size.tp, size.cp, size.dp * times, size.pp},
                                    {size.tp, size.cp, size.dp, size.pp * times},
                                    {size.tp * times, size.cp, size.dp, size.pp}};
        for (int i = 0; i < (times == 1 ? 1 : 3); i++) {
            const way_out tries[] = {{RECOMPUTE_SELECTIVE, batch, sizes[i]},
                                     {RECOMPUTE_FULL, batch, sizes[i]},
                                     {RECOMPUTE_FULL, 1, sizes[i]}};
            for (size_t t = 0; t < sizeof tries / sizeof *tries; t++) {
                *w = tries[t];
                *need = bytes_of(run, cfg, w, room.gpu);
                if (*need <= room.bytes) return true;
            }
        }
    }
    return false;
}

static void describe(char *text, size_t n, const way_out *w, const run_config *run, grid_shape size)
{
    int at = snprintf(text, n, "--gradient_checkpointing %s", recompute_name(w->mode));

    if (w->micro_batch != run->per_device_train_batch_size)
        at += snprintf(text + at, n - (size_t)at, " --per_device_train_batch_size %lld", (long long)w->micro_batch);
    if (w->size.tp != size.tp) at += snprintf(text + at, n - (size_t)at, " --tensor_parallel %d", w->size.tp);
    if (w->size.pp != size.pp) at += snprintf(text + at, n - (size_t)at, " --pipeline_parallel %d", w->size.pp);
    const int ranks = w->size.tp * w->size.cp * w->size.dp * w->size.pp;
    if (ranks != size.tp * size.cp * size.dp * size.pp)
        snprintf(text + at, n - (size_t)at, " on %d ranks with as much each", ranks);
}

int fit_settle(run_config *run, const model_config *cfg, grid_shape size, const batch_plan *batch, fit_room room,
               moai_error *err)
{
    const bool free_choice = run->gradient_checkpointing == RECOMPUTE_AUTO;
    size_t need, other;
    way_out w;
    char text[256];

    if (free_choice) run->gradient_checkpointing = RECOMPUTE_NONE;
    need = fit_need(run, cfg, size, batch, room.gpu);
    while (free_choice && need > room.bytes && run->gradient_checkpointing < RECOMPUTE_FULL) {
        run->gradient_checkpointing++;
        need = fit_need(run, cfg, size, batch, room.gpu);
    }
    if (need <= room.bytes) return 0;
    if (!find_way_out(&w, &other, run, cfg, size, room))
        return error_set(err, "a rank needs %.2f GiB and may take %.2f; %d times as many ranks do not make it fit either",
                         gib(need), gib(room.bytes), MOST_RANKS);
    describe(text, sizeof text, &w, run, size);
    return error_set(err, "a rank needs %.2f GiB and may take %.2f; it would fit with %s (%.2f GiB)", gib(need),
                     gib(room.bytes), text, gib(other));
}
