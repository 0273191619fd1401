/* run: mpirun -np 4 %s */
/* Saves while training goes on: what is saved is the state of the step that asked, whatever happens to it afterwards;
 * one save at a time; failures are told and leave the checkpoints from before. */
#include "src/train/saver.h"
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/tap.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static moai_grid grid;
static moai_device *dev;
static model_config cfg;
static small_state state;
static char *dir;

static bool agree(bool holds)
{
    moai_error err = {.text = "t8-saver"};
    return comm_agree(&grid.host_world, !holds, &err) == 0;
}

static saver *open_saver(bool async, int keep)
{
    saver_options o = {.output_dir = dir, .state = state.st, .async = async, .keep = keep, .saved_step = -1};
    moai_error err;
    saver *s = saver_open(&o, &err);

    CHECK(s, "%s", err.text);
    return s;
}

/* The optimizer of the next step: nothing stays as it was. */
static void change_state(void)
{
    for (int i = 0; i < state.st.states.n; i++)
        for (int64_t k = 0; k < state.params.n_own; k++) *state_float(&state, i, k) += 1;
}

static void ask(saver *s, int64_t step)
{
    const checkpoint_meta meta = small_meta(&cfg, grid.size, step);

    state_fill(&state);
    saver_save(s, &meta, true);
    change_state();
}

/* One step's end. */
static void boundary(saver *s)
{
    int32_t progress[SAVER_PROGRESS];

    saver_progress(s, progress);
    comm_all_reduce(&grid.host_world, progress, SAVER_PROGRESS, DT_I32, REDUCE_MAX);
    saver_advance(s, progress);
    change_state();
}

static bool there(int64_t step, const char *suffix)
{
    char *path = xasprintf("%s/checkpoint-%lld%s", dir, (long long)step, suffix);
    const bool yes = access(path, F_OK) == 0;

    free(path);
    return yes;
}

static bool holds_state(int64_t step)
{
    char *path = xasprintf("%s/checkpoint-%lld", dir, (long long)step);
    moai_error err = {.text = ""};
    const int64_t n_wrong = state_load_as(path, &cfg, grid.size, grid.rank, dev, &err);

    if (n_wrong) printf("# %s: %lld wrong elements %s\n", path, (long long)n_wrong, err.text);
    free(path);
    return n_wrong == 0;
}

static void beside_training(void)
{
    saver *s = open_saver(true, 2);
    int n = 0;

    ok(saver_saved_step(s) == -1, "nothing is saved yet");
    ask(s, 3);
    for (; saver_saved_step(s) != 3 && n < 200000; n++) boundary(s);
    ok(saver_saved_step(s) == 3 && there(3, "/manifest.json"), "a save of step 3 is in place after some more steps");
    ok(holds_state(3), "it holds the state of step 3, though that has changed since");
    ask(s, 3);
    ok(there(3, "/manifest.json") && !there(3, ".tmp"), "a step that is saved is not saved again");

    for (int64_t step = 4; step <= 7; step++) {
        ask(s, step);
        boundary(s);
    }
    saver_wait(s);
    ok(saver_saved_step(s) == 7 && holds_state(7) && holds_state(6), "saves that follow each other hold each its own");
    ok(!there(3, "") && !there(4, "") && !there(5, "") && !there(7, ".tmp"), "and two are kept");
    saver_close(s);
}

static void training_waits(void)
{
    saver *s = open_saver(false, 0);

    ask(s, 8);
    ok(saver_saved_step(s) == 8 && holds_state(8), "without async the save is in place when it returns");
    boundary(s);
    saver_wait(s);
    saver_close(s);
}

/* A file where the directory should be made. */
static void failures(bool async, int64_t before, int64_t step)
{
    char *in_the_way = xasprintf("%s/checkpoint-%lld", dir, (long long)step);
    saver *s = open_saver(async, 1);

    if (grid.rank == 0) fclose(fopen(in_the_way, "w"));
    agree(true);
    ask(s, step);
    saver_wait(s);
    agree(true);                              /* rank 0 cleans up after the others have returned */
    ok(saver_saved_step(s) == -1 && !there(step, ".tmp"), "%s: a save that cannot be put in place fails, nothing stays",
       async ? "async" : "waiting");
    ok(holds_state(before), "the one before is untouched, though one is to be kept");
    if (grid.rank == 0) CHECK(unlink(in_the_way) == 0, "%s: %s", in_the_way, strerror(errno));
    agree(true);
    ask(s, step);
    saver_wait(s);
    ok(saver_saved_step(s) == step && holds_state(step), "when nothing is in the way the same step is saved");
    if (async) ask(s, step + 1);
    saver_close(s);
    ok(agree(true) && holds_state(step), "closing, during a save too, leaves it");
    free(in_the_way);
}

/* Tried again ten steps later; the third in a row is told otherwise, on the standard error output. */
static void retried(void)
{
    char *in_the_way = xasprintf("%s/checkpoint-%d", dir, 40);
    saver *s = open_saver(false, 0);

    if (grid.rank == 0) fclose(fopen(in_the_way, "w"));
    agree(true);
    ok(!saver_retries(s, 100), "nothing to try again");
    ask(s, 40);
    ok(!saver_retries(s, 49) && saver_retries(s, 50), "a save that failed is tried again ten steps later");
    ask(s, 50);
    ok(saver_saved_step(s) == 50 && !saver_retries(s, 60), "and when it is there no more");
    agree(true);
    if (grid.rank == 0) CHECK(unlink(in_the_way) == 0, "%s: %s", in_the_way, strerror(errno));
    saver_close(s);
    free(in_the_way);
}

/* What a resume has set aside is not among those that are kept, and is not removed. */
static void damaged(void)
{
    char *name = xasprintf("%s/checkpoint-52", dir), *aside = xasprintf("%s.damaged", name);
    saver *s = open_saver(false, 0);

    for (int64_t step = 50; step <= 52; step++) ask(s, step);
    saver_close(s);
    if (grid.rank == 0) CHECK(rename(name, aside) == 0, "%s: %s", name, strerror(errno));
    agree(true);
    s = open_saver(false, 2);
    ask(s, 53);
    ok(there(53, "") && there(52, ".damaged") && there(51, "") && !there(50, ""),
       "a damaged checkpoint stays aside, and an older good one is kept");
    saver_close(s);
    free(name);
    free(aside);
}

/* One number on one rank: nothing is saved, every rank knows that nothing will be, and what was there stays. */
static void not_finite(bool async, int which, float value, int64_t before, int64_t step)
{
    const checkpoint_meta meta = small_meta(&cfg, grid.size, step);
    saver *s = open_saver(async, 1);

    state_fill(&state);
    if (grid.rank == 2) *state_float(&state, which, state.params.n_own / 3) = value;
    ok(!saver_spoiled(s), "not yet");
    saver_save(s, &meta, true);
    saver_wait(s);
    agree(true);
    ok(saver_spoiled(s) && saver_saved_step(s) == -1 && !there(step, "") && !there(step, ".tmp"),
       "%s of %g: no checkpoint", adamw_states.list[which].name, (double)value);
    ok(holds_state(before), "the one before is untouched");
    saver_close(s);
}

static void no_memory(void)
{
    saver_options o = {.output_dir = dir, .state = state.st, .async = true, .saved_step = -1};
    moai_error err = {.text = ""};

    o.state.states.n_own = (int64_t)1 << 40;
    ok(!saver_open(&o, &err) && strstr(err.text, "12288.0000 GiB for each of 4 ranks") &&
           strstr(err.text, "--no_async_save"),
       "a copy that does not fit is refused: %s", err.text);
}

int main(int argc, char **argv)
{
    process_start(&argc, &argv);
    grid_init(&grid, (grid_shape){2, 1, 2, 1}, 2);
    tap_agree = agree;
    dev = device_open_cpu(1);
    cfg = small_model(3, 14, 2, 101, false);
    dir = xasprintf("%s/run", getenv("TMPDIR"));
    state_init(&state, &cfg, &grid, dev);
    state_fill(&state);

    beside_training();
    training_waits();
    failures(true, 8, 20);
    failures(false, 20, 30);
    retried();
    damaged();
    not_finite(true, STATE_WEIGHT, NAN, 53, 60);
    not_finite(true, STATE_EXP_AVG_SQ, INFINITY, 53, 60);
    not_finite(false, STATE_EXP_AVG, -INFINITY, 53, 61);
    no_memory();
    state_free(&state);
    free(dir);
    device_close_cpu(dev);
    grid_free(&grid);
    int status = tap_done();
    process_finish();
    return status;
}
