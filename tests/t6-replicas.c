/* run: mpirun -np 4 %s */
/* replicas_check: quiet on weights as they should be, on every layout; one bit changed in one copy on one rank is found
 * and named; a bit in a weight that has no copy cannot be. */
#include "src/model/model.h"
#include "src/train/replicas.h"
#include "tests/lib/checkpoint_state.h"
#include "tests/lib/tap.h"

static moai_device *device;
static moai_grid grid;
static moai_model model;

static void open_model(const char *what, grid_shape size, bool tied, dtype dt)
{
    const model_config cfg = small_model(4, 8, 2, 59, tied);
    const model_options opt = {.dt = dt, .micro_batch = 1, .seq_len = 16, .n_slots = 1, .train = true};
    moai_error err = {.text = ""};

    grid_init(&grid, size, 2);
    model_plan(&model, &cfg, &grid, &opt);
    CHECK(model_alloc(&model, &ops_cpu, device, &grid, &err) == 0, "%s", err.text);
    model_init_weights(&model, 3);
    ok(replicas_check(&model, &err) == 0, "%s: all copies are the same %s", what, err.text);
}

static void close_model(void)
{
    model_free(&model);
    grid_free(&grid);
}

static void flip(int rank, const char *name)
{
    const param *p = params_find(&model.params, name);

    if (grid.rank != rank) return;
    CHECK(p, "rank %d holds no %s", rank, name);
    ((char *)model.weights)[(size_t)(p->offset + p->n_rows * p->n_cols - 1) * dtype_size(model.ctx.dt)] ^= 1;
}

/* With a bit of the last element of `name` changed on `rank`, is it found, and said in these words? */
static void found(int rank, const char *name, const char *words, const char *more)
{
    moai_error err = {.text = ""};

    flip(rank, name);
    int status = replicas_check(&model, &err);
    ok(status == -1 && strstr(err.text, name) && strstr(err.text, words) && strstr(err.text, more),
       "rank %d, %s: wanted \"%s\" and \"%s\", says: %s", rank, name, words, more, err.text);
    flip(rank, name);
    ok(replicas_check(&model, &err) == 0, "and nothing once it is back");
}

int main(int argc, char **argv)
{
    moai_error err;

    process_start(&argc, &argv);
    device = device_open_cpu(1);

    open_model("DP4", (grid_shape){1, 1, 4, 1}, false, DT_F32);
    found(2, "model.layers.3.mlp.down_proj.weight",
          "rank 0 (tp0 dp0 pp0), rank 1 (tp0 dp1 pp0), rank 3 (tp0 dp3 pp0) hold", "; rank 2 (tp0 dp2 pp0) holds");
    found(0, "model.norm.weight", "differ: rank 0 (tp0 dp0 pp0) holds", "; rank 1 (tp0 dp1 pp0), rank 2");
    flip(1, "lm_head.weight");
    flip(1, "lm_head.weight"), flip(3, "model.layers.1.input_layernorm.weight");
    ok(replicas_check(&model, &err) == -1 && strstr(err.text, "copies of model.layers.1.input_layernorm.weight,"),
       "of two the first is named: %s", err.text);
    flip(1, "lm_head.weight"), flip(3, "model.layers.1.input_layernorm.weight");
    close_model();

    open_model("TP2 DP2", (grid_shape){2, 1, 2, 1}, false, DT_BF16);
    found(3, "model.layers.0.self_attn.q_proj.weight", "rank 1 (tp1 dp0 pp0) holds", "; rank 3 (tp1 dp1 pp0) holds");
    found(1, "model.layers.2.self_attn.k_norm.weight",
          "rank 0 (tp0 dp0 pp0), rank 2 (tp0 dp1 pp0), rank 3 (tp1 dp1 pp0) hold", "; rank 1 (tp1 dp0 pp0) holds");
    close_model();

    open_model("CP2 DP2", (grid_shape){1, 2, 2, 1}, false, DT_F32);
    found(2, "model.layers.3.mlp.down_proj.weight",
          "rank 0 (tp0 cp0 dp0 pp0), rank 1 (tp0 cp1 dp0 pp0), rank 3 (tp0 cp1 dp1 pp0) hold",
          "; rank 2 (tp0 cp0 dp1 pp0) holds");
    close_model();

    open_model("TP4, 2 KV heads", (grid_shape){4, 1, 1, 1}, false, DT_F16);
    found(2, "model.layers.0.self_attn.v_proj.weight", "rank 2 (tp2 dp0 pp0) holds", "; rank 3 (tp3 dp0 pp0) holds");
    flip(1, "model.layers.0.self_attn.q_proj.weight");
    ok(replicas_check(&model, &err) == 0, "a weight that one rank alone holds has nothing to differ from");
    close_model();

    open_model("PP2 DP2, tied", (grid_shape){1, 1, 2, 2}, true, DT_F32);
    found(3, "model.embed_tokens.weight", "rank 0 (tp0 dp0 pp0), rank 1 (tp0 dp1 pp0), rank 2 (tp0 dp0 pp1) hold",
          "; rank 3 (tp0 dp1 pp1) holds");
    found(2, "model.layers.3.mlp.up_proj.weight", "rank 2 (tp0 dp0 pp1) holds", "; rank 3 (tp0 dp1 pp1) holds");
    close_model();

    device_close_cpu(device);
    int status = tap_done();
    process_finish();
    return status;
}
