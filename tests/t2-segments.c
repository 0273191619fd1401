/* Documents packed into one sample (batch.h: segments, positions) give the losses and gradients of the same documents
 * one by one, and weights those of targets left out or taken twice, in every recomputation mode; `-d cuda` on a GPU.
 * Rows of no document do nothing. */
#include "src/base/rng.h"
#include "src/model/head.h"
#include "tests/golden/golden.h"

#include <math.h>

enum { ROWS = 40, N_DOCUMENTS = 5 };

static const int64_t begins[N_DOCUMENTS] = {0, 9, 10, 12, 31}, lengths[N_DOCUMENTS] = {9, 1, 2, 17, 7};
static const char *const modes[] = {"none", "streams", "selective", "keep_attention", "full"};
static const model_config cfg = {.num_hidden_layers = 3, .hidden_size = 48, .intermediate_size = 75,
                                 .num_attention_heads = 6, .num_key_value_heads = 2, .head_dim = 8, .vocab_size = 59,
                                 .max_position_embeddings = ROWS, .pad_token_id = -1, .bos_token_id = -1,
                                 .rms_norm_eps = 1e-6, .initializer_range = 0.1, .rope_theta = 1e4};
static moai_model model;
static bool picks;

static int32_t token(int64_t row) { return (int32_t)((11 + 17 * row + row * row) % cfg.vocab_size); }

/* Document d from row `at` on. */
static void put(token_batch *b, int d, int64_t at)
{
    for (int64_t i = 0; i < lengths[d]; i++) {
        b->ids[at + i] = token(begins[d] + i);
        b->targets[at + i] = token(begins[d] + i + 1);
        b->positions[at + i] = (int32_t)i;
    }
    b->segments[b->n_segments++] = attend_whole(at, lengths[d]);
}

static void clear(token_batch *b)
{
    b->n_segments = 0, b->is_weighted = false, b->n_picked = 0;
    for (int i = 0; i < ROWS; i++) b->ids[i] = b->targets[i] = -1, b->positions[i] = i % 3;
}

static void run_batch(void)
{
    model_set_batch(&model, 0, 0, &model.batch);
    chunk_forward(&model, 0, 0, model.dout[0], 0.1f);
    chunk_backward(&model, 0, 0, model.dout[0]);
}

static void packed(void)
{
    clear(&model.batch);
    for (int d = 0; d < N_DOCUMENTS; d++) put(&model.batch, d, begins[d]);
    run_batch();
}

static void apart(void)
{
    for (int d = 0; d < N_DOCUMENTS; d++) {
        clear(&model.batch);
        put(&model.batch, d, d);              /* anywhere */
        run_batch();
    }
}

static void pick(void)
{
    token_batch *b = &model.batch;

    b->n_counted = 0;
    for (int64_t i = 0; i < b->n_rows; i++) b->n_counted += b->targets[i] >= 0;
    batch_pick(b);
    CHECK(b->n_picked, "%lld of %lld rows count, and all are taken", (long long)b->n_counted, (long long)b->n_rows);
}

/* Weights 0 where `left_out` has no target, 2 elsewhere. */
static void weighted(void)
{
    clear(&model.batch);
    for (int d = 0; d < N_DOCUMENTS; d++) put(&model.batch, d, begins[d]);
    model.batch.is_weighted = true;
    for (int i = 0; i < ROWS; i++) model.batch.weights[i] = i % 3 ? 2 : 0;
    run_batch();
}

static void left_out(void)
{
    for (int times = 0; times < 2; times++) {
        clear(&model.batch);
        for (int d = 0; d < N_DOCUMENTS; d++) put(&model.batch, d, begins[d]);
        for (int i = 0; i < ROWS; i += 3) model.batch.targets[i] = -1;
        if (picks) pick();
        run_batch();
    }
}

static void picked(void)
{
    picks = true;
    left_out();
    picks = false;
}

/* One segment for all rows: what packing without a mask would be. */
static void mixed(void)
{
    clear(&model.batch);
    for (int d = 0; d < N_DOCUMENTS; d++) put(&model.batch, d, begins[d]);
    model.batch.n_segments = 1;
    model.batch.segments[0] = attend_whole(0, ROWS);
    run_batch();
}

/* The gradients (caller frees) and the loss of what `run` does. */
static float *gradients_of(void (*run)(void), double *loss)
{
    const moai_ctx *c = &model.ctx;
    const size_t bytes = (size_t)model.params.n_elem * sizeof(float);
    float *grads = xmalloc(bytes);

    c->ops->zero(c->dev, model.totals, 2 * sizeof *model.totals);
    gradients_begin(&model);
    run();
    c->ops->copy(c->dev, grads, model.grads, bytes, COPY_TO_HOST);
    c->ops->copy(c->dev, loss, model.totals, sizeof *loss, COPY_TO_HOST);
    c->ops->sync(c->dev);
    return grads;
}

/* ||a - b|| / ||b||, the worst of all parameters */
static double worst(const float *a, const float *b)
{
    double most = 0;

    for (int i = 0; i < model.params.n; i++) {
        const param *p = &model.params.list[i];
        double apart2 = 0, norm2 = 0;
        for (int64_t k = p->offset; k < p->offset + p->n_rows * p->n_cols; k++)
            apart2 += ((double)a[k] - b[k]) * ((double)a[k] - b[k]), norm2 += (double)b[k] * b[k];
        if (!(sqrt(apart2 / norm2) <= most)) most = sqrt(apart2 / norm2);
    }
    return most;
}

static void check_mode(const moai_grid *grid, const device *dev, recompute_mode mode)
{
    const model_options opt = {.dt = DT_F32, .recompute = mode, .micro_batch = 1, .seq_len = ROWS, .n_slots = 1,
                               .train = true, .picks = true};
    double loss[6];
    moai_error err;

    model_plan(&model, &cfg, grid, &opt);
    CHECK(model_alloc(&model, dev->ops, dev->dev, grid, &err) == 0, "%s", err.text);
    model_init_weights(&model, 3);
    float *one = gradients_of(apart, &loss[0]), *all = gradients_of(packed, &loss[1]),
          *other = gradients_of(mixed, &loss[2]), *some = gradients_of(weighted, &loss[3]),
          *twice = gradients_of(left_out, &loss[4]), *chosen = gradients_of(picked, &loss[5]);
    ok(fabs(loss[1] - loss[0]) <= 1e-6 * loss[0], "%s: loss %.9g packed, %.9g one by one", modes[mode], loss[1],
       loss[0]);
    ok(worst(all, one) <= 3e-6, "%s: every gradient within 3e-6, the worst is %.1e", modes[mode], worst(all, one));
    ok(fabs(loss[2] - loss[0]) > 1e-3 * loss[0] && worst(other, one) > 1e-2,
       "%s: and not where the documents see each other: loss %.9g", modes[mode], loss[2]);
    ok(fabs(loss[3] - loss[4]) <= 1e-6 * loss[4] && worst(some, twice) <= 3e-6,
       "%s: weights of 0 and 2 are targets that do not count and those that come twice: loss %.9g, %.9g, worst %.1e",
       modes[mode], loss[3], loss[4], worst(some, twice));
    ok(fabs(loss[5] - loss[4]) <= 1e-6 * loss[4] && worst(chosen, twice) <= 3e-6,
       "%s: the head is given the rows alone that count: loss %.9g, %.9g, worst %.1e", modes[mode], loss[5], loss[4],
       worst(chosen, twice));
    free(chosen), free(one), free(all), free(other), free(some), free(twice);
    model_free(&model);
}

/* More rows than the head takes at once; `share` of them count. */
enum { MANY = 2500 };
static double share;
static void many(void)
{
    token_batch *b = &model.batch;

    b->n_segments = 1, b->is_weighted = false, b->n_picked = 0;
    b->segments[0] = attend_whole(0, MANY);
    for (int64_t i = 0; i < MANY; i++) {
        b->ids[i] = token(i), b->positions[i] = (int32_t)i;
        b->targets[i] = rng_uniform(77, (uint64_t)i) < share ? token(i + 1) : -1;
    }
    if (picks) pick();
    run_batch();
}

static void check_chunks(const moai_grid *grid, const device *dev)
{
    const model_options opt = {.dt = DT_F32, .micro_batch = 1, .seq_len = MANY, .n_slots = 1, .train = true,
                               .picks = true};
    static const double shares[] = {0.85, 0.5, 0.1, 0};
    double loss[2];
    moai_error err;

    head_logits_bytes = (size_t)(1024 * cfg.vocab_size) * sizeof(float);
    model_plan(&model, &cfg, grid, &opt);
    CHECK(model_alloc(&model, dev->ops, dev->dev, grid, &err) == 0, "%s", err.text);
    model_init_weights(&model, 3);
    for (int i = 0; i < 4; i++) {
        share = shares[i], picks = false;
        float *all = gradients_of(many, &loss[0]);
        picks = true;
        float *some = gradients_of(many, &loss[1]);
        const bool none = share == 0 && loss[0] == 0 && loss[1] == 0;
        ok(none || (fabs(loss[1] - loss[0]) <= 1e-6 * loss[0] && worst(some, all) <= 3e-6),
           "%g of 2500 rows are picked: loss %.9g, %.9g, worst %.1e", share, loss[1], loss[0],
           none ? 0 : worst(some, all));
        free(all), free(some);
    }
    model_free(&model);
}

int main(int argc, char **argv)
{
    device dev;
    moai_grid grid;
    int first;

    process_start(&argc, &argv);
    golden_device(&dev, argc, argv, 1, &first);
    grid_init(&grid, (grid_shape){1, 1, 1, 1}, 2);
    device_connect(&dev, &grid);
    for (recompute_mode mode = RECOMPUTE_NONE; mode <= RECOMPUTE_FULL; mode++) check_mode(&grid, &dev, mode);
    check_chunks(&grid, &dev);
    grid_free(&grid);
    device_close(&dev);
    int status = tap_done();
    process_finish();
    return status;
}
