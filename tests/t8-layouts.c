/* run: mpirun -np 8 %s */
/* A checkpoint written by one layout is read, bit for bit, by every other. */
#include "io/checkpoint/piece_file.h"
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/tap.h"

#include <unistd.h>

static moai_grid world;

static bool agree(bool holds)
{
    moai_error err = {.text = "t8-layouts"};
    return comm_agree(&world.host_world, !holds, &err) == 0;
}

typedef struct model_case {
    const char *name;
    model_config cfg;
    grid_shape save[6], load[10];
} model_case;

/* As a run of this layout goes on from it: one rank reads the manifest, all load and check the rest. */
static void load_together(const char *name, small_state *s)
{
    const moai_grid *grid = s->grid;
    checkpoint_manifest *m;
    moai_error err = {.text = ""};
    int rc = checkpoint_open(&m, name, &grid->host_world, &err);

    if (rc == 0) rc = checkpoint_load(m, &s->st, &err);
    if (rc == 0) rc = checkpoint_check_rest(m, grid->rank, grid->world, &err);
    const checkpoint_meta *meta = m ? checkpoint_get_meta(m) : NULL;
    const bool same = rc == 0 && meta->step == 5 && meta->layout.tp == grid->size.tp &&
                      meta->model.hidden_size == 48 && strstr(meta->run_json, "learning_rate");
    const int64_t n_wrong = rc == 0 ? state_n_wrong(s) : -1;
    ok(same && n_wrong == 0, "all ranks load it with a manifest that one has read: %lld wrong elements %s",
       (long long)n_wrong, err.text);
    checkpoint_close(m);
    rc = checkpoint_open(&m, "nowhere", &grid->host_world, &err);
    ok(rc == -1 && !m && strstr(err.text, "nowhere: not a checkpoint"), "and hear alike of one that is not there: %s",
       err.text);
    const int64_t n_faults = checkpoint_verify(name, &grid->host_world, NULL, NULL, &err);
    ok(n_faults == 0, "and verify it together: %lld faults", (long long)n_faults);
}

static void save_and_load(const model_case *c, const grid_shape *layout, moai_device *dev)
{
    char *dir = xasprintf("%s/run", getenv("TMPDIR")), *name = xasprintf("%s/checkpoint-5", dir);
    const checkpoint_meta meta = small_meta(&c->cfg, *layout, 5);
    moai_grid grid;
    moai_error err = {.text = ""};
    small_state s;

    grid_init(&grid, *layout, (int)c->cfg.num_key_value_heads);
    state_init(&s, &c->cfg, &grid, dev);
    state_fill(&s);
    piece_block_elem = layout->tp > 1 ? 300 : 1 << 22;        /* with many blocks, and with one */
    int rc = checkpoint_save(dir, &meta, &s.st, NULL, 1, &err);
    ok(rc == 0, "%s: saved as TP%d CP%d DP%d PP%d %s", c->name, layout->tp, layout->cp, layout->dp, layout->pp,
       err.text);

    if (grid.rank == 0) rc = checkpoint_verify(name, &comm_alone, NULL, NULL, &err) == 0 ? 0 : -1;
    ok(rc == 0, "its pieces tile every tensor once");
    for (const grid_shape *to = c->load; to->tp; to++) {
        int64_t n_wrong = 0;
        for (int rank = grid.rank; rank < grid_ranks(*to) && n_wrong == 0; rank += grid.world)
            n_wrong = state_load_as(name, &c->cfg, *to, rank, dev, &err);
        ok(n_wrong == 0, "loaded as TP%d CP%d DP%d PP%d: %lld wrong elements %s", to->tp, to->cp, to->dp, to->pp,
           (long long)n_wrong, err.text);
    }
    load_together(name, &s);
    state_free(&s);
    grid_free(&grid);
    free(dir);
    free(name);
}

static void metadata(moai_device *dev)
{
    char *dir = xasprintf("%s/run", getenv("TMPDIR")), *latest = checkpoint_latest(dir);
    moai_error err = {.text = ""};
    checkpoint_meta m = {0};

    (void)dev;
    ok(latest && checkpoint_read_meta(latest, &m, &err) == 0, "metadata is read %s", err.text);
    ok(m.step == 5 && m.samples == 40 && m.updates == 4 && m.skipped == 1 && m.seed == 1234 && m.seq_length == 16 &&
       m.global_batch_size == 8, "counters come back");
    ok(m.run_json && strstr(m.run_json, "learning_rate"), "the run configuration comes back");
    ok(m.state_json && strstr(m.state_json, "{\"loss_scale\":{\"value\":0.1"), "the run's state comes back: %s",
       m.state_json);
    ok(m.layout.tp == 2 && m.layout.dp == 2 && m.layout.pp == 2, "the layout comes back");
    ok(model_config_same(&m.model, &(model_config){0}, &err) != 0 && m.model.num_hidden_layers == 5,
       "the model comes back");
    checkpoint_meta_free(&m);
    free(latest);
    free(dir);
}

int main(int argc, char **argv)
{
    const model_case cases[] = {
        {"7:1 heads, odd vocabulary", small_model(5, 14, 2, 101, false),
         {{1, 1, 8, 1}, {1, 2, 4, 1}, {2, 2, 2, 1}, {2, 1, 4, 1}, {2, 1, 2, 2}},
         {{1, 1, 1, 1}, {2, 1, 1, 1}, {14, 1, 1, 1}, {1, 1, 7, 1}, {1, 1, 1, 5}, {2, 1, 3, 2}, {1, 1, 4, 1}, {1, 4, 1, 1}, {2, 3, 2, 1}}},
        {"KV heads replicated, tied", small_model(5, 16, 4, 103, true),
         {{8, 1, 1, 1}, {1, 1, 2, 4}, {2, 1, 2, 2}},
         {{1, 1, 1, 1}, {8, 1, 2, 1}, {16, 1, 1, 2}, {1, 1, 5, 1}, {4, 1, 1, 3}}},
    };
    process_start(&argc, &argv);
    grid_init(&world, (grid_shape){1, 1, 8, 1}, 1);
    tap_agree = agree;
    moai_device *dev = device_open_cpu(1);

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (const grid_shape *layout = cases[i].save; layout->tp; layout++) save_and_load(&cases[i], layout, dev);
    metadata(dev);
    device_close_cpu(dev);
    grid_free(&world);
    int status = tap_done();
    process_finish();
    return status;
}
