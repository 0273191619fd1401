/* A training step against its bound: the step's products and attention through the same libraries, and nothing else.
 *
 *     bench-step [flags of moai_train: --model --seq_length --batch_size --gradient_accumulation_steps
 *                 --bf16 --device ...]
 *
 * Each is repeated for 3 seconds, on a GPU, whose clocks fall under load, for 10; the median counts.  FLOPs are the
 * model's, as in the training log; the products alone count theirs.  At last, where the time of one more step went. */
#include "src/base/rng.h"
#include "src/device/device.h"
#include "src/model/head.h"
#include "src/model/layer.h"
#include "src/model/model_run.h"
#include "src/train/fit.h"
#include "src/train/loss_scale.h"
#include "src/train/optimizer.h"
#include "src/train/plan.h"
#include "src/train/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    run_config run;
    model_config cfg;
    batch_plan batch;
    moai_grid grid;
    device device;
    moai_model model;
    pipe_schedule schedule;
    int32_t *ids;
    int64_t updates;
    uint64_t drawn;                                       /* lengths of documents */
    bool attend;                                          /* the bound includes attention */
    tensor dy, dact, datt, dqk, dqkv, part, logits;       /* operands of the bound that the model has only in scratch */
    tensor dense;                                         /* for a W that is stored in 4 bits */
} bench;

static void feed(void *arg, const moai_model *m, int micro_batch, token_batch *rows)
{
    (void)micro_batch;
    bench *b = arg;

    batch_samples(rows, b->ids, m->opt.micro_batch, m->opt.micro_batch, m->opt.seq_len);
    if (!b->run.batch.document_mask) return;
    rows->n_segments = 0;                     /* of 100 to 2,000 tokens, other ones in each micro-batch */
    for (int64_t row = 0, n; row < m->ctx.n_tokens; row += n) {
        const int64_t left = m->opt.seq_len - row % m->opt.seq_len;
        n = min_i64(left, 100 + (int64_t)(rng_uniform(8, b->drawn++) * 1900));
        rows->segments[rows->n_segments++] = attend_whole(row, n);
    }
}

static void train_step(bench *b)
{
    moai_model *m = &b->model;
    const moai_ops *op = m->ctx.ops;
    const double scale = loss_scale_start(&b->run.loss_scale, b->run.fp16).value;

    gradients_begin(m);
    op->zero(m->ctx.dev, m->totals, 2 * sizeof *m->totals);
    model_run(m, &b->schedule, (float)(scale / (double)(b->batch.global * b->run.seq_length)), feed, b);
    optimizer_step(m, &b->run.adamw, 1e-5, ++b->updates, scale);
}

/* Nothing of what is frozen; adapters are no part of the bound. */
static void weight_bound(bench *b, const linear *l, tensor dy, tensor x)
{
    if (l->is_trained) b->model.ctx.ops->matmul_dw(b->model.ctx.dev, l->dw, dy, x, true);
}

static tensor weight_of(const bench *b, const linear *l)
{
    return l->is_nf4 ? tensor_of(b->dense.data, b->dense.dt, l->w.rows, l->w.cols) : l->w;
}

static void layer_bound(bench *b, const layer_weights *w, const layer_acts *a)
{
    const moai_ctx *c = &b->model.ctx;
    const moai_ops *op = c->ops;
    moai_device *dev = c->dev;
    const device_batch *rows = &b->model.chunks->slots->rows;
    const attend_args heads = {a->att, a->lse, q_of(c, a->qk), k_of(c, a->qk), v_of(c, a->qkv), c->heads,
                               rows->segments, rows->n_segments};

    op->matmul(dev, a->qkv, a->n1, weight_of(b, &w->qkv));
    if (b->attend) op->attend(dev, &heads);
    op->matmul(dev, b->part, a->att, weight_of(b, &w->o));
    op->matmul(dev, a->gate_up, a->n2, weight_of(b, &w->gate_up));
    op->matmul(dev, b->part, a->act, weight_of(b, &w->down));
    op->matmul_dx(dev, b->dact, b->dy, weight_of(b, &w->down), false);
    weight_bound(b, &w->down, b->dy, a->act);
    op->matmul_dx(dev, b->part, a->gate_up, weight_of(b, &w->gate_up), false);
    weight_bound(b, &w->gate_up, a->gate_up, a->n2);
    op->matmul_dx(dev, b->datt, b->dy, weight_of(b, &w->o), false);
    weight_bound(b, &w->o, b->dy, a->att);
    if (b->attend)
        op->attend_backward(dev, &heads, q_of(c, b->dqk), k_of(c, b->dqk), v_of(c, b->dqkv), b->datt);
    op->matmul_dx(dev, b->part, b->dqkv, weight_of(b, &w->qkv), false);
    weight_bound(b, &w->qkv, b->dqkv, a->n1);
}

static void micro_batch_bound(bench *b)
{
    moai_model *m = &b->model;
    const moai_ctx *c = &m->ctx;
    const model_chunk *k = m->chunks;                         /* one stage: embedding, layers, head */
    const head_weights *head = k->blocks[k->n_blocks - 1].weights;
    const tensor x = tensor_cols(head_block.input(k->slots[0].acts[k->n_blocks - 1]), 0, m->cfg.hidden_size);

    for (int i = 0; i < k->n_blocks; i++)
        if (k->blocks[i].kind == &layer_block) layer_bound(b, k->blocks[i].weights, k->slots[0].acts[i]);
    for (int64_t row = 0, rows; row < c->n_tokens; row += rows) {
        rows = min_i64(b->logits.rows, c->n_tokens - row);
        tensor logits = tensor_rows(b->logits, 0, rows);
        c->ops->matmul(c->dev, logits, tensor_rows(x, row, rows), head->map.w);
        c->ops->matmul_dx(c->dev, tensor_rows(b->part, row, rows), logits, head->map.w, false);
        weight_bound(b, &head->map, logits, tensor_rows(x, row, rows));
    }
    c->ops->sync(c->dev);
}

static int ascending(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* Median seconds of f, repeated for `seconds`; the first two are warm-up. */
static double median_seconds(void (*f)(bench *), bench *b, double seconds)
{
    enum { MOST = 4096 };
    static double times[MOST];
    int n = 0;
    double begin = now_seconds(), at = begin;

    f(b), f(b);
    begin = at = now_seconds();
    while (n < MOST && (n < 3 || at - begin < seconds)) {
        f(b);
        double end = now_seconds();
        times[n++] = end - at;
        at = end;
    }
    qsort(times, (size_t)n, sizeof *times, ascending);
    return times[n / 2];
}

static tensor take(const moai_ctx *c, int64_t rows, int64_t cols)
{
    tensor t = tensor_of(c->ops->alloc(c->dev, (size_t)(rows * cols) * dtype_size(c->dt)), c->dt, rows, cols);

    CHECK(t.data, "the bound's operands do not fit");
    c->ops->fill_normal(c->dev, t, 3, 0, 0, cols, 0.02f);
    return t;
}

static void bound_open(bench *b)
{
    const moai_ctx *c = &b->model.ctx;
    const model_chunk *k = b->model.chunks;
    const layer_acts *a = k->slots[0].acts[1];

    b->dy = take(c, c->n_tokens, b->cfg.hidden_size);
    b->part = take(c, c->n_tokens, b->cfg.hidden_size);
    b->dact = take(c, a->act.rows, a->act.cols);
    b->datt = take(c, a->att.rows, a->att.cols);
    b->dqk = take(c, a->qk.rows, a->qk.cols);
    b->dqkv = take(c, a->qkv.rows, a->qkv.cols);
    if (b->cfg.quantization.nf4) b->dense = take(c, max_i64(a->gate_up.cols, a->qkv.cols), b->cfg.hidden_size);
    b->logits = take(c, head_rows(c, k->blocks[k->n_blocks - 1].weights), b->cfg.vocab_size);
}

static void bound_close(bench *b)
{
    const tensor all[] = {b->dy, b->part, b->dact, b->datt, b->dqk, b->dqkv, b->logits, b->dense};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) b->model.ctx.ops->free(b->model.ctx.dev, all[i].data);
}

/* One more step, observed. */
static profile *observed_step(bench *b)
{
    profile *p = profile_open(&b->model.ctx, b->device.clock, (int)b->batch.accumulation);

    profile_enter(p, true);
    train_step(b);
    profile_leave(p);
    return p;
}

static double print_rate(const bench *b, const char *what, double tokens_per_second, double flops)
{
    printf("%-36s %9.1f tok/s %9.3f TFLOP/s", what, tokens_per_second, tokens_per_second * flops * 1e-12);
    if (b->device.peak_flops > 0)
        printf("  %4.1f %% of the card's peak", 100 * tokens_per_second * flops / b->device.peak_flops);
    printf("\n");
    return tokens_per_second * flops;
}

static void measure(bench *b)
{
    const int64_t T = b->run.seq_length;
    const double products = model_flops_products(&b->cfg), all = products + model_flops_attention(&b->cfg, T);
    const double seconds = strcmp(b->device.ops->name, "cpu") == 0 ? 3 : 10;
    const double tokens_micro = (double)(b->batch.micro_batch * T), tokens_step = (double)(b->batch.global * T);
    const model_options opt = model_options_of(&b->run, &b->batch, b->grid.size, 0);
    moai_error err;

    model_plan(&b->model, &b->cfg, &b->grid, &opt);
    CHECK(model_alloc(&b->model, b->device.ops, b->device.dev, &b->grid, &err) == 0, "%s", err.text);
    model_init_weights(&b->model, 1);
    model_init_frozen(&b->model, 1);
    const double step = print_rate(b, "training step", tokens_step / median_seconds(train_step, b, seconds), all);
    profile *observed = observed_step(b);
    bound_open(b);
    b->attend = true;
    const double bound = print_rate(b, "its products and attention, sustained",
                                    tokens_micro / median_seconds(micro_batch_bound, b, seconds), all);
    b->attend = false;
    const double alone =
        print_rate(b, "its products alone", tokens_micro / median_seconds(micro_batch_bound, b, seconds), products);
    printf("the step runs at %.1f %% of the rate of products and attention, %.1f %% of that of products\n",
           100 * step / bound, 100 * step / alone);
    timeline_print(profile_timeline(observed), stdout);
    profile_free(observed);
    bound_close(b);
    model_free(&b->model);
}

int main(int argc, char **argv)
{
    bench b = {0};
    fit_memory memory;
    moai_error err;

    process_start(&argc, &argv);
    if (run_config_read(&b.run, argc, argv, &err) || model_config_read(&b.cfg, b.run.model, &err) ||
        finetune_settle(&b.cfg, &b.run.finetune, &err))
        config_error("%s", err.text);
    CHECK(batch_settle(&b.batch, &b.run.batch, 1, &err) == 0, "%s", err.text);
    if (fit_find_memory(&memory, &b.run, &err) ||
        fit_settle(&b.run, &b.cfg, (grid_shape){1, 1, 1, 1}, &b.batch, memory, &err))
        error_leave(&err);
    grid_init(&b.grid, (grid_shape){1, 1, 1, 1}, (int)b.cfg.num_key_value_heads);
    const device_options o = {.name = b.run.device,
                              .num_threads = b.run.num_threads};
    CHECK(device_open(&b.device, &o, &err) == 0, "%s", err.text);
    device_connect(&b.device, &b.grid);
    b.schedule = schedule_1f1b(1, 0, (int)b.batch.accumulation);
    b.ids = xmalloc((size_t)(b.batch.micro_batch * (b.run.seq_length + 1)) * sizeof *b.ids);
    for (int64_t i = 0; i < b.batch.micro_batch * (b.run.seq_length + 1); i++)
        b.ids[i] = (int32_t)(rng_uniform(7, (uint64_t)i) * (double)b.cfg.vocab_size);
    printf("%s\n%s: %lld layers, hidden %lld, T %lld, %s, recomputation %s, micro-batch %lld x %lld, "
           "%lld tokens a step\n", b.device.text, b.run.model, (long long)b.cfg.num_hidden_layers, (long long)b.cfg.hidden_size, (long long)b.run.seq_length,
           dtype_name(model_options_of(&b.run, &b.batch, b.grid.size, 0).dt),
           recompute_name(b.run.gradient_checkpointing), (long long)b.batch.micro_batch,
           (long long)b.batch.accumulation, (long long)(b.batch.global * b.run.seq_length));
    measure(&b);
    schedule_free(&b.schedule);
    free(b.ids);
    grid_free(&b.grid);
    device_close(&b.device);
    run_config_free(&b.run);
    process_finish();
    return 0;
}
