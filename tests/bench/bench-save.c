/* bench-save [MODEL [DEVICE [DIR]]]: what a save costs training.  The state of MODEL (configs/bench.json; its weights
 * and moments, no activations), spread over the ranks, is saved with training waiting, and beside it.  DIR: where to
 * write. Under mpirun the slowest rank counts.  Best of ROUNDS. */
#include "io/checkpoint/checkpoint.h"
#include "src/base/files.h"
#include "src/device/device.h"
#include "src/train/saver.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 5, PIECE = 1 << 26 };

static moai_grid grid;
static device dev;

static void take_state(checkpoint_state *st, const param_table *t)
{
    opt_state *o = &st->states;

    *st = (checkpoint_state){.params = t, .grid = &grid, .ops = dev.ops, .dev = dev.dev,
                             .states = opt_state_of(adamw_states, t->n_own)};
    for (int i = 0; i < o->n; i++) {
        const size_t n_bytes = state_bytes(&o->spec[i], o->n_own);
        o->data[i] = dev.ops->alloc(dev.dev, n_bytes);
        CHECK(o->data[i], "%zu bytes of %s memory do not fit", n_bytes, dev.ops->name);
        for (int64_t at = 0; at < o->n_own; at += PIECE)
            dev.ops->fill_normal(dev.dev, tensor_of(state_floats(o, i, at), DT_F32, 1, min_i64(PIECE, o->n_own - at)),
                                 (uint64_t)i, 0, at, o->n_own, 1);
    }
    dev.ops->sync(dev.dev);
}

static double slowest(double seconds)
{
    int32_t microseconds = (int32_t)(seconds * 1e6);

    comm_all_reduce(&grid.host_world, &microseconds, 1, DT_I32, REDUCE_MAX);
    return microseconds * 1e-6;
}

/* Steps of a hundredth of a second, in which nobody computes, until nothing is under way; the seconds that their ends
 * took beyond the reduction that training has anyhow. */
static double steps_until(saver *s, int64_t saved)
{
    double stall = 0;

    while (saver_saved_step(s) != saved) {
        int32_t progress[SAVER_PROGRESS];
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        saver_progress(s, progress);
        comm_all_reduce(&grid.host_world, progress, SAVER_PROGRESS, DT_I32, REDUCE_MAX);
        const double begin = now_seconds();
        saver_advance(s, progress);
        stall += now_seconds() - begin;
    }
    return stall;
}

static double round_of(saver *s, const model_config *cfg, int64_t step, double *in_place)
{
    const checkpoint_meta meta = {.step = step, .samples = step, .updates = step, .layout = grid.size, .model = *cfg};

    comm_barrier(&grid.host_world);
    const double begin = now_seconds();
    saver_save(s, &meta, true);
    const double stall = now_seconds() - begin + steps_until(s, step);
    *in_place = slowest(now_seconds() - begin);
    saver_wait(s);
    return slowest(stall);
}

int main(int argc, char **argv)
{
    const int world = process_start(&argc, &argv);
    const char *model = argc > 1 ? argv[1] : "configs/bench.json", *name = argc > 2 ? argv[2] : "cpu";
    char *output_dir = xasprintf("%s/bench-save", argc > 3 ? argv[3] : getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    double best[2] = {1e30, 1e30}, in_place[2] = {1e30, 1e30}, opened = 0;
    checkpoint_state state;
    model_config cfg;
    param_table params;
    moai_error err;

    CHECK(model_config_read(&cfg, model, &err) == 0, "%s", err.text);
    grid_init(&grid, (grid_shape){1, 1, world, 1}, (int)cfg.num_key_value_heads);
    CHECK(device_open(&dev, &(device_options){.name = name, .num_threads = 0}, &err) == 0, "%s", err.text);
    params_init(&params, &cfg, PARAMS_TRAINED, grid.size, grid.at, 1);
    take_state(&state, &params);
    say("state      %.3f GiB of %s on %d ranks, %s", (double)opt_state_bytes(&state.states) * world / 0x1p30, model,
        world, dev.text);
    for (int async = 0; async < 2; async++) {
        const saver_options o = {.output_dir = output_dir, .state = state, .async = async, .keep = 1, .saved_step = -1};
        const double begin = now_seconds();
        saver *s = saver_open(&o, &err);
        CHECK(s, "%s", err.text);
        opened = slowest(now_seconds() - begin);
        for (int i = 0; i < ROUNDS; i++) {
            double seconds, stall = round_of(s, &cfg, 1 + i + ROUNDS * async, &seconds);
            if (stall < best[async]) best[async] = stall;
            if (seconds < in_place[async]) in_place[async] = seconds;
        }
        saver_close(s);
    }
    if (grid.rank == 0)
        printf("save, training waits     %8.3f s: written, in place, read back\n"
               "save beside training     %8.3f s stall, %.1f %% of that; in place and read back after %.3f s; its memory "
               "took %.3f s at the start\n",
               best[0], best[1], 100 * best[1] / best[0], in_place[1], opened);
    comm_barrier(&grid.host_world);
    if (grid.rank == 0 && dir_remove(output_dir, &err) != 0) warn("%s", err.text);
    for (int i = 0; i < state.states.n; i++) dev.ops->free(dev.dev, state.states.data[i]);
    params_free(&params);
    device_close(&dev);
    grid_free(&grid);
    free(output_dir);
    process_finish();
    return 0;
}
