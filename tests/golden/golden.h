/* golden.h: reads the golden files that make_golden.py writes, and runs the model on their batches, on any layout and
 * device. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include "io/hf/safetensors.h"
#include "io/hf/weights.h"
#include "parallel/axes/zero.h"
#include "src/base/files.h"
#include "src/device/device.h"
#include "src/model/model_run.h"
#include "src/train/optimizer.h"

#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

enum { GOLDEN_SAMPLES = 2, GOLDEN_STEPS = 3 }; /* samples of a batch, batches */

typedef struct golden {
    const char *name; /* for reports */
    weights *weights, *adapters; /* adapters: NULL without any */
    safetensors *results;
    const model_config *cfg;
    model_config own; /* with adapters, what cfg is */
    int64_t seq_len;
    int32_t *ids; /* (GOLDEN_STEPS * GOLDEN_SAMPLES, seq_len + 1) */
} golden;

static inline const safetensors_entry *golden_find(const golden *g, const char *prefix, const char *name)
{
    char full[128];

    snprintf(full, sizeof full, "%s%s", prefix, name);
    const safetensors_entry *e = safetensors_find(g->results, full);
    CHECK(e, "%s: no %s among the results", g->name, full);
    return e;
}

/* A block of a result as fp32; the caller frees. */
static inline float *golden_block(const golden *g, const safetensors_entry *e, int64_t row0, int64_t n_rows,
                                  int64_t col0, int64_t n_cols)
{
    float *x = xmalloc((size_t)(n_rows * n_cols) * sizeof *x);
    moai_error err;

    CHECK(safetensors_read(g->results, e, row0, n_rows, col0, n_cols, x, n_cols, &err) == 0, "%s", err.text);
    return x;
}

static inline float *golden_result(const golden *g, const char *name, int64_t n_elem)
{
    const safetensors_entry *e = golden_find(g, "", name);
    const int64_t rows = e->ndim == 2 ? e->shape[0] : 1, cols = e->shape[e->ndim - 1];

    CHECK(rows * cols == n_elem, "%s: %s has %lld elements, expected %lld", g->name, name, (long long)(rows * cols),
          (long long)n_elem);
    return golden_block(g, e, 0, rows, 0, cols);
}

static inline double golden_scalar(const golden *g, const char *prefix, const char *name)
{
    float *x = golden_block(g, golden_find(g, prefix, name), 0, 1, 0, 1);
    double value = x[0];

    free(x);
    return value;
}

/* The weights of a directory, or the adapters in it and the weights of the base that they name. */
static inline void golden_open_weights(golden *g, const char *dir)
{
    char *config = xasprintf("%s/adapter_config.json", dir), *base = NULL, xxh3[33];
    const bool adapts = file_exists(config);
    moai_error err;

    if (adapts) CHECK(weights_base(dir, &base, xxh3, &err) == 0, "%s", err.text);
    g->weights = weights_open(adapts ? base : dir, &err);
    CHECK(g->weights, "%s", err.text);
    if (adapts) g->adapters = weights_open_adapter(dir, weights_config(g->weights), &err);
    CHECK(!adapts || g->adapters, "%s", err.text);
    g->cfg = weights_config(adapts ? g->adapters : g->weights);
    if (adapts) {
        g->own = *g->cfg;
        g->own.quantization.nf4 = g->own.quantization.nested = strncmp(g->name, "qlora", 5) == 0;
        g->cfg = &g->own;
    }
    free(config);
    free(base);
}

/* The weights of one directory, the results of another (often the same). */
static inline void golden_open(golden *g, const char *name, const char *weights_dir, const char *results_dir)
{
    char *path = xasprintf("%s/results.safetensors", results_dir);
    moai_error err;

    *g = (golden){.name = name};
    golden_open_weights(g, weights_dir);
    g->results = safetensors_open(path, &err);
    CHECK(g->results, "%s", err.text);
    const safetensors_entry *e = golden_find(g, "", "ids");
    const int64_t n_samples = GOLDEN_STEPS * GOLDEN_SAMPLES, n = n_samples * e->shape[1];
    CHECK(e->ndim == 2 && e->shape[0] == n_samples, "%s: ids of %lld samples, not %lld", path, (long long)e->shape[0],
          (long long)n_samples);
    float *ids = golden_result(g, "ids", n);
    g->seq_len = e->shape[1] - 1;
    g->ids = xmalloc((size_t)n * sizeof *g->ids);
    for (int64_t i = 0; i < n; i++) g->ids[i] = (int32_t)ids[i];
    free(ids);
    free(path);
}

static inline void golden_close(golden *g)
{
    weights_free(g->weights);
    weights_free(g->adapters);
    safetensors_close(g->results);
    free(g->ids);
}

static inline const int32_t *golden_batch(const golden *g, int step)
{
    return g->ids + step * GOLDEN_SAMPLES * (g->seq_len + 1);
}

/* The device that `-d NAME` in front of other arguments names, else the CPU with n_threads; *first is the number of the
 * first of the others. */
static inline void golden_device(device *d, int argc, char **argv, int n_threads, int *first)
{
    const bool named = argc >= 3 && strcmp(argv[1], "-d") == 0;
    const device_options o = {.name = named ? argv[2] : "cpu", .num_threads = n_threads, .deterministic = true};
    moai_error err;

    *first = named ? 3 : 1;
    if (device_open(d, &o, &err)) config_error("%s", err.text);
}

/* All of a flat array of the model's size, fp32, on the host; the caller frees. */
static inline float *golden_host(const moai_model *m, const void *flat)
{
    const size_t bytes = (size_t)m->params.n_elem * sizeof(float);
    float *x = xmalloc(bytes);

    m->ctx.ops->copy(m->ctx.dev, x, flat, bytes, COPY_TO_HOST);
    m->ctx.ops->sync(m->ctx.dev);
    return x;
}

/* The golden weights into the masters of this rank's shares, and from there into the working weights. */
static inline void golden_load(moai_model *m, const golden *g)
{
    float *flat = xmalloc((size_t)m->params.n_elem * sizeof *flat);
    const moai_ctx *c = &m->ctx;
    moai_error err;

    for (int i = 0; i < m->params.n; i++) {
        const param *p = &m->params.list[i];
        CHECK(weights_read(g->adapters ? g->adapters : g->weights, p->name, p->row0, p->n_rows, p->col0, p->n_cols,
                           flat + p->offset, p->n_cols, &err) == 0,
              "%s", err.text);
    }
    for (int b = 0; b < m->params.n_buckets; b++) {
        const own_range r = params_own(&m->params, b, c->grid->data.size, c->grid->data.rank);
        const size_t bytes = (size_t)(r.end - r.begin) * sizeof *flat;
        c->ops->copy(c->dev, state_floats(&m->states, STATE_WEIGHT, r.own), flat + r.begin, bytes, COPY_TO_DEVICE);
    }
    weights_from_master(m);
    const weights_target frozen = {&m->frozen, m->frozen_weights, c->dt, m->codes, m->absmax,
                                   m->cfg.quantization.nested};
    CHECK(weights_to_device(g->weights, &frozen, c->ops, c->dev, &err) == 0, "%s", err.text);
    c->ops->sync(c->dev);
    free(flat);
}

/* A model of the golden's shape with its weights.  Frees with model_free. */
static inline void golden_model(moai_model *m, const golden *g, const moai_grid *grid, const device *d, dtype dt,
                                recompute_mode mode, int64_t micro_batch)
{
    const int n_micro = GOLDEN_SAMPLES / (int)micro_batch / grid->size.dp;
    pipe_schedule s = schedule_1f1b(grid->size.pp, grid->at.pp, n_micro);
    const model_options opt = {.dt = dt,
                               .recompute = mode,
                               .micro_batch = micro_batch,
                               .seq_len = g->seq_len,
                               .n_slots = s.n_slots,
                               .train = true};
    moai_error err;

    CHECK(n_micro * micro_batch * grid->size.dp == GOLDEN_SAMPLES, "%d samples are not %lld each on %d ranks",
          GOLDEN_SAMPLES, (long long)micro_batch, grid->size.dp);
    schedule_free(&s);
    model_plan(m, g->cfg, grid, &opt);
    CHECK(model_alloc(m, d->ops, d->dev, grid, &err) == 0, "%s", err.text);
    golden_load(m, g);
}

/* Micro-batch i of data-parallel rank d takes samples (i * dp + d) * micro_batch onwards, as the loader deals them. */
static inline void golden_feed(void *ids, const moai_model *m, int micro_batch, token_batch *rows)
{
    const moai_grid *g = m->ctx.grid;
    const int64_t sample = (micro_batch * g->size.dp + g->at.dp) * m->opt.micro_batch;

    batch_samples(rows, (const int32_t *)ids + sample * (m->opt.seq_len + 1), m->opt.micro_batch, m->opt.micro_batch,
                  m->opt.seq_len);
}

/* Forward and backward of one batch: gradients of loss_scale times its mean loss, totals[0] the sum of the token losses
 * of this data-parallel rank on the last stage.  The gradients are summed: a rank has its ZeRO-1 share.  Collective
 * over all axes. */
static inline void golden_run_scaled(moai_model *m, const int32_t *ids, double loss_scale)
{
    const moai_grid *grid = m->ctx.grid;
    const int n_micro = GOLDEN_SAMPLES / (int)m->opt.micro_batch / grid->size.dp;
    pipe_schedule s = schedule_1f1b(grid->size.pp, grid->at.pp, n_micro);

    gradients_begin(m);
    m->ctx.ops->zero(m->ctx.dev, m->totals, 2 * sizeof *m->totals);
    model_run(m, &s, (float)loss_scale / (float)(GOLDEN_SAMPLES * m->opt.seq_len), golden_feed, (void *)ids);
    buckets_end(&m->buckets);
    for (int b = 0; b < m->params.n_buckets; b++) bucket_summed(&m->buckets, b);
    schedule_free(&s);
}

static inline void golden_run(moai_model *m, const int32_t *ids) { golden_run_scaled(m, ids, 1); }

/* torch.optim.AdamW after clip_grad_norm_, as make_golden.py sets them. */
static inline step_result golden_step(moai_model *m, const golden *g, int step)
{
    const bool has_eps = safetensors_find(g->results, "adam_eps");
    const adamw_options adamw = {.weight_decay = 0.1, .adam_beta1 = 0.9, .adam_beta2 = 0.95,
                                 .adam_epsilon = has_eps ? golden_scalar(g, "", "adam_eps") : 1e-8,
                                 .max_grad_norm = 1.0};

    golden_run(m, golden_batch(g, step));
    return optimizer_step(m, &adamw, 1e-3, step + 1, 1);
}

/* How far a tensor is from its golden: ||a - b|| / ||b||, and the largest |a - b| over the largest |b|. */
typedef struct distance {
    double norm, peak;
    int64_t at; /* element of the largest |a - b| */
} distance;

static inline distance distance_of(const float *a, const float *b, int64_t n)
{
    double diff2 = 0, norm2 = 0, diff = -1, scale = 0;
    distance d = {0};

    for (int64_t i = 0; i < n; i++) {
        const double e = fabs((double)a[i] - b[i]);
        diff2 += e * e;
        norm2 += (double)b[i] * b[i];
        if (!(e <= diff)) diff = e, d.at = i;
        scale = fmax(scale, fabs((double)b[i]));
    }
    d.norm = sqrt(diff2 / norm2); /* NaN where a is */
    d.peak = diff / scale;
    return d;
}

/* This rank's block of every tensor in `flat`, host memory, against the results PREFIX + name: both distances within
 * `tolerance`. */
static inline void golden_compare(const moai_model *m, const golden *g, const float *flat, const char *prefix,
                                  double tolerance, const char *what)
{
    distance worst = {.norm = -1, .peak = -1};
    const char *name = "none";
    double ours = 0, theirs = 0;
    bool fine = true;

    for (int i = 0; i < m->params.n; i++) {
        const param *p = &m->params.list[i];
        const float *got = flat + p->offset;
        float *want = golden_block(g, golden_find(g, prefix, p->name), p->row0, p->n_rows, p->col0, p->n_cols);
        const distance d = distance_of(got, want, p->n_rows * p->n_cols);
        fine = fine && d.norm <= tolerance && d.peak <= tolerance;
        if (!(fmax(d.norm, d.peak) <= fmax(worst.norm, worst.peak)))
            worst = d, name = p->name, ours = got[d.at], theirs = want[d.at];
        free(want);
    }
    ok(fine, "%s: %s of %d tensors within %.0e; worst %s %.1e by norm, %.1e by element (%.9g against %.9g)", g->name,
       what, m->params.n, tolerance, name, worst.norm, worst.peak, ours, theirs);
}

/* Losses and norms of three steps, and the weights that they lead to (fp32: the working weights). */
static inline void golden_compare_steps(moai_model *m, const golden *g, const char *how)
{
    float *losses = golden_result(g, "losses", GOLDEN_STEPS), *norms = golden_result(g, "grad_norms", GOLDEN_STEPS);
    char what[128];

    for (int step = 0; step < GOLDEN_STEPS; step++) {
        step_result r = golden_step(m, g, step);
        snprintf(what, sizeof what, "%s: loss of step %d, %s", g->name, step + 1, how);
        ok_close(r.loss_sum / (double)(GOLDEN_SAMPLES * g->seq_len), losses[step], 1e-5, 0, what);
        snprintf(what, sizeof what, "%s: gradient norm of step %d, %s", g->name, step + 1, how);
        ok_close(r.grad_norm, norms[step], 1e-5, 0, what);
    }
    float *after = golden_host(m, m->weights);
    snprintf(what, sizeof what, "weights after %d steps, %s,", GOLDEN_STEPS, how);
    golden_compare(m, g, after, "after.", 1e-5, what);
    free(after);
    free(losses);
    free(norms);
}

#endif
