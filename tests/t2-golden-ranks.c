/* run: mpirun -np 4 %s */
/* t2-golden-ranks: the gradients of parallel layouts against Transformers' and three steps against torch.optim.AdamW;
 * each rank holds its blocks against the golden tensors.  The layouts of 4 ranks, or of 2 when it runs on 2; `-d cuda`
 * on GPUs. */
#include "tests/golden/golden.h"
#include "tests/lib/gather.h"

typedef struct layout {
    const char *name;
    grid_shape size;
    int64_t micro_batch;
} layout;

static const layout layouts[] = {
    {"gqa7", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 1},
    {"gqa7", {.tp = 1, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"gqa7", {.tp = 1, .cp = 1, .dp = 2, .pp = 1}, 1},
    {"tied", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 2},
    {"tied", {.tp = 1, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"yarn", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 1},
    {"long", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 2},
    {"lora-all", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 1},
    {"lora-some", {.tp = 1, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"qlora-all", {.tp = 2, .cp = 1, .dp = 1, .pp = 1}, 1},
    {"qlora-all", {.tp = 1, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"lora-some", {.tp = 1, .cp = 1, .dp = 2, .pp = 1}, 1},
    /* two micro-batches through two stages */
    {"gqa7", {.tp = 2, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"gqa7", {.tp = 2, .cp = 1, .dp = 2, .pp = 1}, 1},
    /* a vocabulary of 101 and 33 tokens over 4 ranks: uneven shares, padding rows */
    {"tied", {.tp = 4, .cp = 1, .dp = 1, .pp = 1}, 1},
    /* the embedding lives on two stages; 3 layers split unevenly */
    {"tied", {.tp = 1, .cp = 1, .dp = 2, .pp = 2}, 1},
    {"tied", {.tp = 2, .cp = 1, .dp = 1, .pp = 2}, 2},
    {"linear", {.tp = 1, .cp = 1, .dp = 2, .pp = 2}, 1},
    {"lora-all", {.tp = 2, .cp = 1, .dp = 1, .pp = 2}, 1},
    {"qlora-all", {.tp = 2, .cp = 1, .dp = 2, .pp = 1}, 1},
    /* 14:2 heads do not divide by 4, 6:3 do not either: in TP 4 the adapters are t4-gradients' */
    {"lora-all", {.tp = 1, .cp = 1, .dp = 2, .pp = 2}, 1},
    /* 8:2 heads: each KV head on two ranks */
    {"dynamic", {.tp = 4, .cp = 1, .dp = 1, .pp = 1}, 2},
    {"dynamic", {.tp = 2, .cp = 1, .dp = 2, .pp = 1}, 1},
    /* 4:1 heads: the KV head on all ranks; 59 tokens */
    {"yarn", {.tp = 4, .cp = 1, .dp = 1, .pp = 1}, 1},
    {"yarn", {.tp = 2, .cp = 1, .dp = 1, .pp = 2}, 1},
    /* 1042 tokens of a micro-batch: the head works in two chunks */
    {"long", {.tp = 4, .cp = 1, .dp = 1, .pp = 1}, 2},
    {"long", {.tp = 2, .cp = 1, .dp = 1, .pp = 2}, 2},
};

static const comm *world;
static bool agree(bool holds)
{
    int32_t failed = !holds;

    comm_all_reduce(world, &failed, 1, DT_I32, REDUCE_MAX);
    return !failed;
}

/* A rank has the sums of its ZeRO-1 share only; the others' are gathered for the comparison. */
static void check_gradients(moai_model *m, const golden *g, const char *how)
{
    char what[128];

    golden_run(m, golden_batch(g, 0));
    flat_gather(&m->params, m->ctx.grid, m->grads, DT_F32);
    float *grads = golden_host(m, m->grads);
    snprintf(what, sizeof what, "gradients, %s,", how);
    golden_compare(m, g, grads, "grad.", 1e-4, what);
    free(grads);
}

static void check_layout(const layout *l, device *dev, recompute_mode mode)
{
    char *dir = xasprintf("tests/golden/%s", l->name), how[64];
    golden g;
    moai_grid grid;
    moai_model m;

    snprintf(how, sizeof how, "TP%d DP%d PP%d%s", l->size.tp, l->size.dp, l->size.pp, mode ? ", recomputing" : "");
    golden_open(&g, l->name, dir, dir);
    grid_init(&grid, l->size, (int)g.cfg->num_key_value_heads);
    device_connect(dev, &grid);
    world = &grid.host_world;
    tap_agree = agree;
    golden_model(&m, &g, &grid, dev, DT_F32, mode, l->micro_batch);
    check_gradients(&m, &g, how);
    golden_compare_steps(&m, &g, how);
    model_free(&m);
    tap_agree = NULL;
    grid_free(&grid);
    golden_close(&g);
    free(dir);
}

int main(int argc, char **argv)
{
    const int n_ranks = process_start(&argc, &argv);
    int first, n = 0;
    device dev;

    golden_device(&dev, argc, argv, 1, &first);
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
        const grid_shape s = layouts[i].size;
        if (s.tp * s.cp * s.dp * s.pp != n_ranks) continue;
        check_layout(&layouts[i], &dev, RECOMPUTE_NONE);
        check_layout(&layouts[i], &dev, RECOMPUTE_FULL);
        n++;
    }
    CHECK(n > 0, "run me on 2 or 4 ranks, not %d", n_ranks);
    device_close(&dev);
    int status = tap_done();
    process_finish();
    return status;
}
