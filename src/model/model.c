/* model.c: see model.h */
#include "src/model/model.h"

#include "parallel/axes/tensor_parallel.h"
#include "src/base/rng.h"
#include "src/model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LOGITS_BYTES = 1 << 30, LOGITS_ROWS = 1024 };   /* of the logits that exist at once; rows in multiples of this */

static const char *const arena_names[N_ARENAS] = {"weights", "gradients", "optimizer", "activations", "scratch"};

outer_weights outer_view(const param_table *t, const model_config *cfg, void *weights, dtype dt, float *grads,
                         bool trains)
{
    const linear embed = linear_view(t, "model.embed_tokens.weight", weights, dt, grads, trains);

    return (outer_weights){
        .embed = embed.w,
        .dembed = embed.dw,
        .norm = norm_view(t, "model.norm.weight", weights, dt, grads),
        .head = cfg->tie_word_embeddings ? embed : linear_view(t, "lm_head.weight", weights, dt, grads, trains)};
}

static void plan_run_state(moai_model *m)
{
    const size_t n = (size_t)m->params.n_elem;
    const moai_ctx *c = &m->ctx;
    arena *a = m->arenas;
    const int64_t half = m->cfg.head_dim / 2;

    m->weights = arena_take(&a[ARENA_WEIGHTS], n * dtype_size(c->dt));
    m->ctx.rope.cos = arena_tensor(&a[ARENA_WEIGHTS], DT_F32, m->opt.seq_len, half);
    m->ctx.rope.sin = arena_tensor(&a[ARENA_WEIGHTS], DT_F32, m->opt.seq_len, half);
    m->ctx.positions = arena_take(&a[ARENA_WEIGHTS], (size_t)c->n_tokens * sizeof(int32_t));
    m->totals = arena_take(&a[ARENA_WEIGHTS], 2 * sizeof *m->totals);
    if (!m->opt.train) return;
    m->grads = arena_take(&a[ARENA_GRADIENTS], n * sizeof(float));
    m->grad_scale = arena_take(&a[ARENA_GRADIENTS], sizeof(float));
    /* one rank in fp32 owns the weights themselves */
    const bool one = c->dt == DT_F32 && c->grid->dp.size == 1;
    opt_state_plan(&m->states, &a[ARENA_OPTIMIZER], one ? m->weights : NULL);
}

static void plan_activations(moai_model *m)
{
    moai_ctx *c = &m->ctx;
    arena *saved = &m->arenas[ARENA_ACTIVATIONS];

    for (int s = 0; s < m->opt.n_slots; s++) {
        model_slot *slot = &m->slots[s];
        size_t mark = arena_mark(c->scratch);
        slot->inputs = arena_take(saved, (size_t)c->n_tokens * sizeof(int32_t));
        slot->targets = arena_take(saved, (size_t)c->n_tokens * sizeof(int32_t));
        for (int64_t l = 0; l < m->n_layers; l++) {
            arena_release(c->scratch, mark);
            layer_acts_plan(&slot->layers[l], c, saved, c->scratch);
        }
        if (s < m->opt.n_slots - 1) arena_release(c->scratch, mark);       /* the shared part is one for all slots */
    }
    m->nll = arena_take(saved, (size_t)c->n_tokens * sizeof(float));
    for (int i = 0; i < 2; i++) {
        m->out[i] = arena_tensor(saved, c->dt, c->n_rows, m->cfg.hidden_size);
        if (m->opt.train) m->dout[i] = arena_tensor(saved, c->dt, c->n_rows, m->cfg.hidden_size);
    }
}

static void plan_views(moai_model *m)
{
    for (int64_t l = 0; l < m->n_layers; l++)
        m->layers[l] = layer_view(&m->params, m->first_layer + l, m->weights, m->ctx.dt, m->grads, m->opt.train);
    m->outer = outer_view(&m->params, &m->cfg, m->weights, m->ctx.dt, m->grads, m->opt.train);
}

/* One micro-batch, as if no other rank were there. */
static void run_alone(moai_model *m)
{
    const moai_grid *grid = m->ctx.grid;
    moai_grid alone;

    grid_dry(&alone, grid->size, grid->at, (int)m->cfg.num_key_value_heads);
    m->ctx.grid = &alone;
    stage_forward(m, 0, m->out[0]);
    if (grid_last_stage(grid)) head_forward_backward(m, 0, m->dout[0], m->out[0], m->opt.train ? 1 : 0);
    if (m->opt.train) stage_backward(m, 0, m->dout[0]);
    m->ctx.grid = grid;
}

/* The same walk with and without memory. */
static void lay_out(moai_model *m)
{
    plan_run_state(m);
    plan_activations(m);
    plan_views(m);
}

void model_plan(moai_model *m, const model_config *cfg, const moai_grid *grid, const model_options *opt)
{
    const int64_t n_tokens = round_up(opt->micro_batch * opt->seq_len, grid->size.tp);

    CHECK(opt->recompute != RECOMPUTE_AUTO, "the recomputation is not settled");
    *m = (moai_model){.cfg = *cfg, .opt = *opt};
    for (int i = 0; i < N_ARENAS; i++) m->arenas[i].name = arena_names[i];
    m->ctx = (moai_ctx){.ops = &ops_dry, .cfg = &m->cfg, .grid = grid, .dt = opt->dt, .recompute = opt->recompute,
                        .heads = {.batch = opt->micro_batch, .seq_len = opt->seq_len,
                                  .n_heads = cfg->num_attention_heads / grid->size.tp,
                                  .n_kv_heads = max_i64(cfg->num_key_value_heads / grid->size.tp, 1),
                                  .head_dim = cfg->head_dim, .scale = 1 / sqrtf((float)cfg->head_dim)},
                        .n_tokens = n_tokens, .n_rows = n_tokens / grid->size.tp, .scratch = &m->arenas[ARENA_SCRATCH]};
    params_init(&m->params, cfg, grid->size, grid->at, opt->seq_len);
    m->first_layer = stage_begin(cfg, grid->size.pp, grid->at.pp, opt->seq_len);
    m->n_layers = stage_begin(cfg, grid->size.pp, grid->at.pp + 1, opt->seq_len) - m->first_layer;
    m->vocab_begin = share_begin(cfg->vocab_size, grid->size.tp, grid->at.tp);
    m->layers = xmalloc((size_t)m->n_layers * sizeof *m->layers);
    m->slots = xmalloc((size_t)opt->n_slots * sizeof *m->slots);
    buckets_init(&m->buckets, &m->params, grid, opt->dt);
    if (opt->train) m->states = opt_state_of(adamw_states, m->params.n_own);
    for (int s = 0; s < opt->n_slots; s++) m->slots[s].layers = xmalloc((size_t)m->n_layers * sizeof(layer_acts));
    lay_out(m);

    run_alone(m); /* on the device that does nothing: what the scratch stack grows to */
}

static void fill_tables(moai_model *m)
{
    const int64_t T = m->opt.seq_len, half = m->cfg.head_dim / 2, N = m->ctx.n_tokens;
    const size_t bytes = (size_t)(T * half) * sizeof(float);
    float *cosines = xmalloc(bytes), *sines = xmalloc(bytes);
    int32_t *positions = xmalloc((size_t)N * sizeof *positions);

    rope_fill(cosines, sines, T, T, &m->cfg);
    for (int64_t i = 0; i < N; i++) positions[i] = (int32_t)(i % T);
    m->ctx.ops->copy(m->ctx.dev, m->ctx.rope.cos.data, cosines, bytes, COPY_TO_DEVICE);
    m->ctx.ops->copy(m->ctx.dev, m->ctx.rope.sin.data, sines, bytes, COPY_TO_DEVICE);
    m->ctx.ops->copy(m->ctx.dev, m->ctx.positions, positions, (size_t)N * sizeof *positions, COPY_TO_DEVICE);
    m->ctx.ops->sync(m->ctx.dev);
    free(cosines);
    free(sines);
    free(positions);
}

int model_alloc(moai_model *m, const moai_ops *ops, moai_device *dev, const moai_grid *grid, moai_error *err)
{
    m->ctx.ops = ops;
    m->ctx.dev = dev;
    m->ctx.grid = m->buckets.grid = grid;
    if (ops_support(ops, &(op_needs){.dt = m->ctx.dt, .hidden = m->cfg.hidden_size, .head_dim = m->cfg.head_dim}, err))
        return -1;
    for (int i = 0; i < N_ARENAS; i++) {
        arena *a = &m->arenas[i];
        a->size = a->high;
        a->used = 0;
        if (!a->size) continue;
        a->base = ops->alloc(dev, a->size);
        if (!a->base) return error_set(err, "%zu bytes of %s memory do not fit (%s)", a->size, ops->name, a->name);
        ops->zero(dev, a->base, a->size);
    }
    lay_out(m);
    if (opt_state_take_host(&m->states, ops, dev, err)) return -1;
    m->buckets.weights = m->weights, m->buckets.grads = m->grads;
    fill_tables(m);
    return 0;
}

/* Noise where other ranks' parts would come, so that products are tried on numbers like those of the run. */
static void fill_arenas(moai_model *m, float std)
{
    const moai_ctx *c = &m->ctx;

    for (int i = ARENA_ACTIVATIONS; i <= ARENA_SCRATCH; i++) {
        const arena *a = &m->arenas[i];
        const int64_t n = (int64_t)(a->size / dtype_size(c->dt));
        if (std != 0)
            c->ops->fill_normal(c->dev, tensor_of(a->base, c->dt, 1, n), (uint64_t)i, 0, 0, n, std);
        else
            c->ops->zero(c->dev, a->base, a->size);
    }
}

void model_rehearse(moai_model *m)
{
    const int64_t n = m->opt.micro_batch * (m->opt.seq_len + 1);
    int32_t *samples = xmalloc((size_t)n * sizeof *samples);
    token_batch b;

    for (int64_t i = 0; i < n; i++) samples[i] = (int32_t)(rng_uniform(1, (uint64_t)i) * (double)m->cfg.vocab_size);
    batch_init(&b, m->ctx.n_tokens);
    batch_samples(&b, samples, m->opt.micro_batch, m->opt.micro_batch, m->opt.seq_len);
    fill_arenas(m, 1);
    model_set_batch(m, 0, &b);
    gradients_begin(m);
    run_alone(m);                             /* gradients written over */
    run_alone(m);                             /* and added to */
    fill_arenas(m, 0);
    m->ctx.ops->zero(m->ctx.dev, m->totals, 2 * sizeof *m->totals);
    m->ctx.ops->sync(m->ctx.dev);
    gradients_begin(m);
    batch_free(&b);
    free(samples);
}

void model_free(moai_model *m)
{
    buckets_free(&m->buckets);
    opt_state_free_host(&m->states, m->ctx.ops, m->ctx.dev);
    for (int i = 0; i < N_ARENAS; i++)
        if (m->arenas[i].base) m->ctx.ops->free(m->ctx.dev, m->arenas[i].base);
    for (int s = 0; s < m->opt.n_slots; s++) free(m->slots[s].layers);
    free(m->slots);
    free(m->layers);
    params_free(&m->params);
    *m = (moai_model){0};
}

size_t model_bytes(const moai_model *m, int which) { return m->arenas[which].high; }

void model_init_weights(moai_model *m, uint64_t seed)
{
    const moai_ctx *c = &m->ctx;
    const size_t flat_bytes = (size_t)m->params.n_elem * sizeof(float);

    c->ops->zero(c->dev, m->grads, flat_bytes); /* the gradients' memory holds the fp32 values for a moment */
    for (int i = 0; i < m->params.n; i++) {
        const param *p = &m->params.list[i];
        tensor x = tensor_of(m->grads + p->offset, DT_F32, p->n_rows, p->n_cols);
        if (p->ndim == 1)
            c->ops->fill(c->dev, x, 1);
        else
            c->ops->fill_normal(c->dev, x, rng_key(seed, p->name), p->row0, p->col0, p->cols,
                                (float)m->cfg.initializer_range);
    }
    c->ops->cast(c->dev, tensor_of(m->weights, c->dt, 1, m->params.n_elem),
                 tensor_of(m->grads, DT_F32, 1, m->params.n_elem));
    for (int b = 0; b < m->params.n_buckets && m->states.data[STATE_WEIGHT] != m->weights; b++) {
        own_range r = params_own(&m->params, b, c->grid->dp.size, c->grid->dp.rank);
        c->ops->copy(c->dev, state_at(&m->states, STATE_WEIGHT, r.own), m->grads + r.begin,
                     (size_t)(r.end - r.begin) * sizeof(float), COPY_ON_DEVICE);
    }
    c->ops->zero(c->dev, m->grads, flat_bytes);
}

void model_set_batch(moai_model *m, int slot, const token_batch *b)
{
    const moai_ctx *c = &m->ctx;
    const size_t bytes = (size_t)c->n_tokens * sizeof *b->ids;

    CHECK(b->n_rows == c->n_tokens, "a batch of %lld rows, the model has %lld", (long long)b->n_rows,
          (long long)c->n_tokens);
    c->ops->copy(c->dev, m->slots[slot].inputs, b->ids, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, m->slots[slot].targets, b->targets, bytes, COPY_TO_DEVICE);
}

/* Only products write the matrices, except the embedding's rows. */
void gradients_begin(moai_model *m)
{
    const moai_ctx *c = &m->ctx;
    const bool tied_to_head = m->cfg.tie_word_embeddings && grid_last_stage(c->grid);

    for (int b = 0; b < m->params.n_buckets; b++) {
        const bucket *k = &m->params.buckets[b];
        const bool is_embedding = m->grads + k->offset == m->outer.dembed.data;
        const int64_t begin = is_embedding && !tied_to_head ? 0 : k->n_matrix;
        c->ops->zero(c->dev, m->grads + k->offset + begin, (size_t)(k->n_padded - begin) * sizeof(float));
    }
    for (int64_t l = 0; l < m->n_layers; l++) layer_begin(&m->layers[l]);
    m->outer.head.adds = false;
    buckets_begin(&m->buckets);
}

/* The buckets of a stage: the embedding on the first, its layers, the head's on the last. */
static int layer_bucket(const moai_model *m, int64_t l) { return (int)l + (grid_first_stage(m->ctx.grid) ? 1 : 0); }

/* The last ones: the head's, and with it a tied embedding's copy. */
static void head_acquire(moai_model *m)
{
    for (int b = layer_bucket(m, m->n_layers); b < m->params.n_buckets; b++) bucket_acquire(&m->buckets, b);
}

static void head_release(moai_model *m)
{
    for (int b = layer_bucket(m, m->n_layers); b < m->params.n_buckets; b++) bucket_release(&m->buckets, b);
}

void stage_forward(moai_model *m, int s, tensor out)
{
    const moai_ctx *c = &m->ctx;
    model_slot *slot = &m->slots[s];

    if (grid_first_stage(c->grid)) {
        const size_t mark = arena_mark(c->scratch);
        tensor x = slot->layers[0].x, x_part = tp_full(c, x);
        bucket_acquire(&m->buckets, 0);
        c->ops->embed(c->dev, x_part, slot->inputs, m->outer.embed, m->vocab_begin); /* (N, H)   other ids are zero */
        bucket_release(&m->buckets, 0);
        tp_reduce_scatter(c, x, x_part);                                             /* (N/tp, H)                   */
        arena_release(c->scratch, mark);
    }
    for (int64_t l = 0; l < m->n_layers; l++) {
        bucket_acquire(&m->buckets, layer_bucket(m, l));
        layer_forward(c, &m->layers[l], &slot->layers[l], l + 1 < m->n_layers ? slot->layers[l + 1].x : out);
        bucket_release(&m->buckets, layer_bucket(m, l));
    }
}

void stage_backward(moai_model *m, int s, tensor dy)
{
    const moai_ctx *c = &m->ctx;
    model_slot *slot = &m->slots[s];
    const size_t mark = arena_mark(c->scratch);
    const bool embeds = grid_first_stage(c->grid);            /* and reads all rows; another stage sends its own */
    tp_rows d = {.part = dy, .full = tp_full(c, dy)};

    tp_rows_gather(c, &d);
    for (int64_t l = m->n_layers - 1; l >= 0; l--) {
        const int b = layer_bucket(m, l);
        bucket_acquire(&m->buckets, b);
        layer_backward(c, &m->layers[l], &slot->layers[l], &d, l > 0 || embeds);
        bucket_release(&m->buckets, b);
        bucket_filled(&m->buckets, b);
    }
    if (embeds) {
        comm_end(&d.ready);                                                                     /* (N, H)    */
        c->ops->embed_backward(c->dev, m->outer.dembed, slot->inputs, d.full, m->vocab_begin); /* (V/tp, H) */
        bucket_filled(&m->buckets, 0);
    }
    arena_release(c->scratch, mark);
}

/* Loss, and gradient into dn_part, of the rows [row0, row0 + n). */
static void head_chunk(moai_model *m, const int32_t *targets, tensor n_full, tensor dn_part, int64_t row0, float scale)
{
    const moai_ctx *c = &m->ctx;
    const moai_ops *op = c->ops;
    const comm *tp = &c->grid->tp;
    const size_t mark = arena_mark(c->scratch);
    const int64_t n = n_full.rows;
    tensor logits = arena_tensor(c->scratch, c->dt, n, m->outer.head.w.rows);
    float *stats_all = arena_take(c->scratch, (size_t)(tp->size * n * 3) * sizeof(float));
    float *stats = stats_all ? stats_all + tp->rank * n * 3 : NULL;             /* this rank's place in the whole    */

    linear_forward(c, logits, n_full, &m->outer.head);                          /* (n, V/tp)                         */
    op->softmax_stats(c->dev, stats, logits, targets + row0, m->vocab_begin);   /* (n, 3)                            */
    comm_request gathered = all_gather_begin(tp, stats_all, stats, (size_t)n * 3, DT_F32);
    comm_end(&gathered);                                                        /* (tp, n, 3)                        */
    op->cross_entropy(c->dev, m->nll + row0, logits, stats_all, tp->size, targets + row0, m->vocab_begin, scale);
    if (scale != 0) {
        linear_dx(c, dn_part, logits, &m->outer.head);                          /* (n, H)          partial sum       */
        linear_dw(c, &m->outer.head, logits, n_full);                           /* (V/tp, H)                         */
    }
    arena_release(c->scratch, mark);
}

int64_t head_rows(const moai_model *m)
{
    const int64_t row_bytes = m->outer.head.w.rows * (int64_t)dtype_size(m->ctx.dt);

    return min_i64(m->ctx.n_tokens, max_i64(1, LOGITS_BYTES / row_bytes / LOGITS_ROWS) * LOGITS_ROWS);
}

void head_forward_backward(moai_model *m, int s, tensor dx, tensor x, float scale)
{
    const moai_ctx *c = &m->ctx;
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n = arena_tensor(c->scratch, c->dt, x.rows, x.cols), n_full = tp_full(c, n);
    float *r = arena_take(c->scratch, (size_t)x.rows * sizeof(float));
    tensor dn_part = scale != 0 ? arena_tensor(c->scratch, c->dt, c->n_tokens, x.cols) : (tensor){0};

    head_acquire(m);
    op->rmsnorm(c->dev, n, r, x, m->outer.norm.w, (float)m->cfg.rms_norm_eps);  /* (N/tp, H)                         */
    tp_all_gather(c, n_full, n);                                                /* (N, H)                            */
    for (int64_t row = 0, rows = head_rows(m); row < c->n_tokens; row += rows) {
        rows = min_i64(rows, c->n_tokens - row);
        head_chunk(m, m->slots[s].targets, tensor_rows(n_full, row, rows), tensor_rows(dn_part, row, rows), row, scale);
    }
    op->sum(c->dev, &m->totals[0], m->nll, c->n_tokens);
    if (scale != 0) {
        tensor dn = c->grid->tp.size == 1 ? dn_part : n;
        tp_reduce_scatter(c, dn, dn_part);                                      /* (N/tp, H)                         */
        op->rmsnorm_backward(c->dev, dx, m->outer.norm.dw, dn, (tensor){0}, x, r, m->outer.norm.w);
    }
    head_release(m);
    if (scale != 0) bucket_filled(&m->buckets, m->params.n_buckets - 1);
    arena_release(c->scratch, mark);
}

void model_logits(moai_model *m, tensor x, int64_t row0, int64_t n_rows, float *logits)
{
    const moai_ctx *c = &m->ctx;
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n = arena_tensor(c->scratch, c->dt, x.rows, x.cols), n_full = tp_full(c, n);
    float *r = arena_take(c->scratch, (size_t)x.rows * sizeof(float));
    const size_t bytes = (size_t)(n_rows * m->outer.head.w.rows) * sizeof(float);
    tensor y = tensor_of(op->alloc(c->dev, bytes), DT_F32, n_rows, m->outer.head.w.rows);

    CHECK(y.data, "%zu bytes for logits do not fit", bytes);
    head_acquire(m);
    op->rmsnorm(c->dev, n, r, x, m->outer.norm.w, (float)m->cfg.rms_norm_eps);
    tp_all_gather(c, n_full, n);
    linear_forward(c, y, tensor_rows(n_full, row0, n_rows), &m->outer.head);
    op->copy(c->dev, logits, y.data, bytes, COPY_TO_HOST);
    op->sync(c->dev);
    op->free(c->dev, y.data);
    head_release(m);
    arena_release(c->scratch, mark);
}
