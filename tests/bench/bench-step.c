/* A training step against the products alone: hidden 1024, 8 layers, T 1024, one rank.  Usage: bench-step [threads [device]]
 * "products" runs every product of the step once through the same library and nothing else; both rates are model FLOPs (products and,
 * for the step, causal attention counted half) over the best time of several.                                        */
#include "device.h"
#include "model.h"
#include "optimizer.h"
#include "pipeline.h"
#include "rng.h"

#include <stdio.h>
#include <stdlib.h>

enum { T = 1024, STEPS = 5 };

static const model_config shape = {.num_hidden_layers = 8, .hidden_size = 1024, .intermediate_size = 2816, .num_attention_heads = 14,
                                   .num_key_value_heads = 2, .head_dim = 64, .vocab_size = 32000, .max_position_embeddings = T,
                                   .rms_norm_eps = 1e-6, .initializer_range = 0.02, .rope_theta = 1e6, .pad_token_id = -1,
                                   .bos_token_id = -1, .eos_token_id = -1};

static void feed(void *ids, moai_model *m, int micro_batch, int slot)
{
    (void)micro_batch;
    model_set_ids(m, slot, ids);
}

static double seconds_of_step(moai_model *m, const run_config *run, const pipe_schedule *s, int32_t *ids, int64_t update)
{
    const moai_ctx *c = &m->ctx;
    const double begin = now_seconds();

    c->ops->zero(c->dev, m->grads, (size_t)m->params.n_elem * sizeof(float));
    c->ops->zero(c->dev, m->totals, 2 * sizeof *m->totals);
    pipeline_run(m, s, 1.0f / T, feed, ids);
    optimizer_step(m, run, run->learning_rate, update);
    return now_seconds() - begin;
}

/* Forward, dx and dw of one weight, n times. */
static double seconds_of_product(const moai_ctx *c, tensor x, tensor y, tensor w, tensor dw, int64_t n)
{
    const double begin = now_seconds();

    for (int64_t i = 0; i < n; i++) {
        c->ops->matmul(c->dev, y, x, w);
        c->ops->matmul_dx(c->dev, x, y, w);
        c->ops->matmul_dw(c->dev, dw, y, x);
    }
    c->ops->sync(c->dev);
    return now_seconds() - begin;
}

static double seconds_of_products(const moai_model *m)
{
    const moai_ctx *c = &m->ctx;
    const layer_weights *w = m->w, *g = m->g;
    const struct {
        tensor w, dw;
        int64_t n;
    } list[] = {{w->wqkv, g->wqkv, m->n_layers},         {w->wo, g->wo, m->n_layers}, {w->wgate_up, g->wgate_up, m->n_layers},
                {w->wdown, g->wdown, m->n_layers},       {m->outer.head, m->outer_g.head, 1}};
    double total = 0;

    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        const size_t bytes = (size_t)T * dtype_size(c->dt);
        tensor x = tensor_of(c->ops->alloc(c->dev, bytes * (size_t)list[i].w.cols), c->dt, T, list[i].w.cols);
        tensor y = tensor_of(c->ops->alloc(c->dev, bytes * (size_t)list[i].w.rows), c->dt, T, list[i].w.rows);
        c->ops->fill_normal(c->dev, x, 1, 0, 0, x.cols, 1);
        seconds_of_product(c, x, y, list[i].w, list[i].dw, 1);
        c->ops->fill_normal(c->dev, x, 1, 0, 0, x.cols, 1);
        double best = 1e9;
        for (int k = 0; k < STEPS; k++) {
            double s = seconds_of_product(c, x, y, list[i].w, list[i].dw, 1);
            best = s < best ? s : best;
        }
        total += best * (double)list[i].n;
        c->ops->free(c->dev, x.data);
        c->ops->free(c->dev, y.data);
    }
    return total;
}

static void bench(const moai_grid *grid, device *d, dtype dt)
{
    const run_config run = {.learning_rate = 1e-4, .adam_beta1 = 0.9, .adam_beta2 = 0.95, .adam_epsilon = 1e-8, .weight_decay = 0.1,
                            .max_grad_norm = 1};
    const model_options opt = {.dt = dt, .micro_batch = 1, .seq_len = T, .n_slots = 1, .train = true};
    const double products = model_flops_products(&shape) * T, all = products + model_flops_attention(&shape, T) * T;
    pipe_schedule s = schedule_1f1b(1, 0, 1);
    int32_t ids[T + 1];
    moai_model m;
    moai_error err;
    double best = 1e9;

    for (int i = 0; i <= T; i++) ids[i] = (int32_t)(rng_uniform(7, (uint64_t)i) * (double)shape.vocab_size);
    model_plan(&m, &shape, grid, &opt);
    CHECK(model_alloc(&m, d->ops, d->dev, grid, &err) == 0, "%s", err.text);
    model_init_weights(&m, 1);
    for (int i = 0; i <= STEPS; i++) {
        double t = seconds_of_step(&m, &run, &s, ids, i + 1);
        if (i > 0 && t < best) best = t;
    }
    double alone = seconds_of_products(&m);
    printf("%-5s  products alone %8.1f GFLOP/s   step %.4f s  %8.1f tok/s  %8.1f GFLOP/s = %5.1f %% of the products' rate\n", dtype_name(dt),
           products / alone * 1e-9, best, T / best, all / best * 1e-9, 100 * (all / best) / (products / alone));
    schedule_free(&s);
    model_free(&m);
}

int main(int argc, char **argv)
{
    device_options o = {.name = argc > 2 ? argv[2] : "cpu", .n_threads = argc > 1 ? atoi(argv[1]) : 2};
    moai_grid grid;
    device d;
    moai_error err;

    process_start(&argc, &argv);
    grid_init(&grid, (grid_shape){1, 1, 1, 1}, (int)shape.num_key_value_heads);
    CHECK(device_open(&d, &o, &err) == 0, "%s", err.text);
    device_connect(&d, &grid);
    printf("%s; hidden 1024, 8 layers, T %d, vocabulary %d\n", d.text, T, (int)shape.vocab_size);
    bench(&grid, &d, DT_F32);
    bench(&grid, &d, DT_BF16);
    grid_free(&grid);
    device_close(&d);
    process_finish();
    return 0;
}
