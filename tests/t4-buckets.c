/* The life of a bucket (buckets.h): the order of a step is well, and each call out of it ends the program, naming the
 * bucket and what it is at. */
#include "parallel/axes/buckets.h"
#include "tests/lib/tap.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static moai_grid grid;
static param_table params;
static buckets life;

static void step(void)
{
    buckets_begin(&life);
    for (int micro_batch = 0; micro_batch < 2; micro_batch++) {
        life.is_last = micro_batch == 1;
        for (int b = 0; b < params.n_buckets; b++) bucket_acquire(&life, b), bucket_release(&life, b);
        for (int b = params.n_buckets - 1; b >= 0; b--) bucket_filled(&life, b);
    }
    buckets_end(&life);
    for (int b = params.n_buckets - 1; b >= 0; b--) bucket_summed(&life, b);
    for (int b = 0; b < params.n_buckets; b++) bucket_updating(&life, b), bucket_updated(&life, b);
}

static void sums_under_way(void)
{
    buckets_begin(&life);
    buckets_end(&life);
    buckets_begin(&life);
}
static void filled_when_summed(void)
{
    step();
    bucket_filled(&life, 1);
}
static void summed_when_filling(void)
{
    buckets_begin(&life);
    bucket_summed(&life, 0);
}
static void updated_when_read(void)
{
    bucket_acquire(&life, 1);
    bucket_updating(&life, 1);
}
static void read_when_updating(void)
{
    bucket_updating(&life, 2);
    bucket_acquire(&life, 2);
}
static void released_by_nobody(void) { bucket_release(&life, 0); }
static void updated_by_nobody(void) { bucket_updated(&life, 0); }

/* In a process of its own: what it says before it ends. */
static void dies(void (*act)(void), const char *words, const char *what)
{
    char text[1024] = "";
    int ends[2], status = 0;

    CHECK(pipe(ends) == 0, "pipe");
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        act();
        _exit(0);
    }
    close(ends[1]);
    for (size_t n = 0; n < sizeof text - 1;) {
        const ssize_t got = read(ends[0], text + n, sizeof text - 1 - n);
        if (got <= 0) break;
        n += (size_t)got;
    }
    close(ends[0]);
    CHECK(waitpid(child, &status, 0) == child, "waitpid");
    text[strcspn(text, "\n")] = 0;
    ok(status != 0 && strstr(text, words), "%s: %s", what, text);
}

int main(void)
{
    const model_config cfg = {.num_hidden_layers = 2, .hidden_size = 8, .intermediate_size = 16, .vocab_size = 32,
                              .num_attention_heads = 2, .num_key_value_heads = 1, .head_dim = 4};

    grid_dry(&grid, (grid_shape){1, 1, 1, 1}, (grid_shape){0, 0, 0, 0}, 1);
    params_whole(&params, &cfg);
    buckets_init(&life, &params, &grid, DT_F32);
    life.grads = xmalloc((size_t)params.n_elem * sizeof *life.grads);
    life.weights = xmalloc((size_t)params.n_elem * sizeof(float));
    step();
    step();
    ok(life.of[0].state == GRADIENT_SUMMED && life.of[0].n_readers == 0, "two steps of two micro-batches");
    dies(sums_under_way, "bucket embedding: its gradient is summing", "a step begins while sums are under way");
    dies(filled_when_summed, "bucket layer 0: its gradient is summed", "a micro-batch adds to what is summed");
    dies(summed_when_filling, "bucket embedding: its gradient is filling", "nobody has begun the sum");
    dies(updated_when_read, "its weights have 1 readers", "an update of weights that are read");
    dies(read_when_updating, "and are being updated", "weights are read that are being updated");
    dies(released_by_nobody, "bucket_release", "nobody holds the weights");
    dies(updated_by_nobody, "bucket_updated", "nobody has announced the update");
    free(life.grads);
    free(life.weights);
    buckets_free(&life);
    params_free(&params);
    return tap_done();
}
