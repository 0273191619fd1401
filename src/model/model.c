/* model.c: see model.h */
#include "src/model/model.h"

#include "parallel/axes/context_parallel.h"
#include "src/base/rng.h"
#include "src/model/embedding.h"
#include "src/model/head.h"
#include "src/model/layer.h"
#include "src/model/rope.h"
#include "src/ops/nf4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const arena_names[N_ARENAS] = {"weights", "gradients", "optimizer", "activations", "scratch"};

static void plan_run_state(moai_model *m)
{
    const size_t n = (size_t)m->params.n_elem;
    const moai_ctx *c = &m->ctx;
    arena *a = m->arenas;
    const int64_t half = m->cfg.head_dim / 2;

    m->weights = arena_take(&a[ARENA_WEIGHTS], n * dtype_size(c->dt));
    m->frozen_weights = arena_take(&a[ARENA_WEIGHTS], (size_t)m->frozen.n_elem * dtype_size(c->dt));
    m->codes = arena_take(&a[ARENA_WEIGHTS], (size_t)m->frozen.n_nf4 / 2);
    m->absmax = arena_take(&a[ARENA_WEIGHTS], (size_t)m->frozen.n_nf4 / NF4_BLOCK * sizeof(float));
    m->ctx.rope.cos = arena_tensor(&a[ARENA_WEIGHTS], DT_F32, m->opt.seq_len, half);
    m->ctx.rope.sin = arena_tensor(&a[ARENA_WEIGHTS], DT_F32, m->opt.seq_len, half);
    m->totals = arena_take(&a[ARENA_WEIGHTS], 2 * sizeof *m->totals);
    if (c->grid->cp.size > 1) {
        m->ctx.whole_rows = arena_take(&a[ARENA_WEIGHTS],
                                       (size_t)(c->grid->cp.size * c->n_tokens) * sizeof *m->ctx.whole_rows);
        m->ctx.gathered_rows = arena_take(&a[ARENA_WEIGHTS], (size_t)c->n_keys * sizeof *m->ctx.gathered_rows);
    }
    if (!m->opt.train) return;
    m->grads = arena_take(&a[ARENA_GRADIENTS], n * sizeof(float));
    m->grad_scale = arena_take(&a[ARENA_GRADIENTS], sizeof(float));
    /* one rank in fp32 owns the weights themselves */
    const bool one = c->dt == DT_F32 && c->grid->data.size == 1;
    opt_state_plan(&m->states, &a[ARENA_OPTIMIZER], one ? m->weights : NULL);
}

/* Where the head picks its rows it is planned for as many as ever are. */
static void plan_picked(const moai_model *m, const model_chunk *k, device_batch *rows)
{
    const size_t ids = (size_t)m->ctx.n_tokens * sizeof(int32_t);
    arena *saved = (arena *)&m->arenas[ARENA_ACTIVATIONS];

    if (!m->opt.picks || !chunk_has_head(k)) return;
    rows->picked = arena_take(saved, ids);
    rows->places = arena_take(saved, ids);
    rows->n_picked = batch_most_picked(m->ctx.n_tokens);
    for (int64_t i = 0; i < m->ctx.n_tokens; i++) rows->host_picked[i] = (int32_t)i;
}

static void plan_chunk(moai_model *m, const model_chunk *k)
{
    moai_ctx *c = &m->ctx;
    arena *saved = &m->arenas[ARENA_ACTIVATIONS], *shared = c->scratch;
    const size_t mark = arena_mark(shared), ids = (size_t)c->n_tokens * sizeof(int32_t);
    size_t widest = 0;

    for (int s = 0; s < m->opt.n_slots; s++) {
        model_slot *slot = &k->slots[s];
        slot->rows.inputs = arena_take(saved, ids);
        slot->rows.targets = arena_take(saved, ids);
        slot->rows.weights = arena_take(saved, (size_t)c->n_tokens * sizeof(float));
        slot->rows.positions = arena_take(saved, ids);
        slot->rows.loss_sum = m->totals;
        plan_picked(m, k, &slot->rows);
        for (int i = 0; i < k->n_blocks; i++) {
            const block_kind *kind = k->blocks[i].kind;
            void *before = i > 0 && k->blocks[i - 1].kind == kind ? slot->acts[i - 1] : NULL;
            kind->plan(slot->acts[i], c, saved, shared, before);
            widest = arena_mark(shared) - mark > widest ? arena_mark(shared) - mark : widest;
            arena_release(shared, mark);
        }
    }
    arena_take(shared, widest);             /* the shared part is one for all */
}

static void plan_activations(moai_model *m)
{
    const moai_ctx *c = &m->ctx;
    arena *saved = &m->arenas[ARENA_ACTIVATIONS];

    for (int k = 0; k < m->n_chunks; k++) plan_chunk(m, &m->chunks[k]);
    for (int i = 0; i < 2; i++) {
        if (!grid_last_stage(c->grid)) m->out[i] = arena_tensor(saved, c->dt, c->n_rows, ctx_x_cols(c));
        if (m->opt.train) m->dout[i] = arena_tensor(saved, c->dt, c->n_rows, ctx_x_cols(c));
    }
}

static void plan_views(moai_model *m)
{
    const flat_params f = {.trained = &m->params, .frozen = &m->frozen, .weights = m->weights,
                           .frozen_weights = m->frozen_weights, .codes = m->codes, .absmax = m->absmax,
                           .dt = m->ctx.dt, .grads = m->grads, .trains = m->opt.train};

    for (int k = 0; k < m->n_chunks; k++)
        for (int i = 0; i < m->chunks[k].n_blocks; i++) {
            const model_block *b = &m->chunks[k].blocks[i];
            b->kind->view(b->weights, &f, b->layer);
        }
}

/* One micro-batch, as if no other rank were there. */
static void run_alone(moai_model *m)
{
    const moai_grid *grid = m->ctx.grid;
    moai_grid alone;

    grid_dry(&alone, grid->size, grid->at, (int)m->cfg.num_key_value_heads);
    m->ctx.grid = &alone;
    for (int k = 0; k < m->n_chunks; k++) {
        chunk_forward(m, k, 0, chunk_output(m, k, 0), m->opt.train ? 1 : 0);
        if (m->opt.train) chunk_backward(m, k, 0, m->dout[0]);
    }
    m->ctx.grid = grid;
}

/* The same walk with and without memory. */
static void lay_out(moai_model *m)
{
    plan_run_state(m);
    plan_activations(m);
    plan_views(m);
}

static void add_block(model_chunk *k, const block_kind *kind, int64_t layer, int at, int n_buckets)
{
    k->blocks[k->n_blocks++] = (model_block){kind, layer, at, n_buckets, xmalloc(kind->weights_bytes)};
}

/* The stage's blocks, in the order of their buckets (params.h): the embedding, layers, and what is left the head's. */
static void list_blocks(moai_model *m)
{
    model_chunk *k = m->chunks = xmalloc(sizeof *m->chunks);
    int at = 0;

    m->n_chunks = 1;
    k->blocks = xmalloc((size_t)(m->n_layers + 2) * sizeof *k->blocks);
    if (grid_first_stage(m->ctx.grid)) add_block(k, &embedding_block, -1, at++, 1);
    for (int64_t l = 0; l < m->n_layers; l++) add_block(k, &layer_block, m->first_layer + l, at++, 1);
    if (grid_last_stage(m->ctx.grid)) add_block(k, &head_block, -1, at, m->params.n_buckets - at);
    k->slots = xmalloc((size_t)m->opt.n_slots * sizeof *k->slots);
    for (int s = 0; s < m->opt.n_slots; s++) {
        k->slots[s].rows.segments = xmalloc((size_t)m->ctx.n_tokens * sizeof(attend_segment));
        k->slots[s].rows.host_picked = xmalloc((size_t)m->ctx.n_tokens * sizeof(int32_t));
        k->slots[s].acts = xmalloc((size_t)k->n_blocks * sizeof *k->slots[s].acts);
        for (int i = 0; i < k->n_blocks; i++) k->slots[s].acts[i] = xmalloc(k->blocks[i].kind->acts_bytes);
    }
}

static void free_blocks(moai_model *m)
{
    for (int c = 0; c < m->n_chunks; c++) {
        model_chunk *k = &m->chunks[c];
        for (int s = 0; s < m->opt.n_slots; s++) {
            for (int i = 0; i < k->n_blocks; i++) free(k->slots[s].acts[i]);
            free(k->slots[s].acts);
            free(k->slots[s].rows.segments);
            free(k->slots[s].rows.host_picked);
        }
        for (int i = 0; i < k->n_blocks; i++) free(k->blocks[i].weights);
        free(k->blocks);
        free(k->slots);
    }
    free(m->chunks);
}

/* The layers of a group (layer.h) with which the streams that are kept, one a group of each slot, and the memory of a
 * group are least. */
static int64_t stream_layers(int64_t n_layers, int n_slots)
{
    int64_t best = 1, least = INT64_MAX;

    for (int64_t n = 1; n <= n_layers; n++) {
        const int64_t kept = n_slots * ((n_layers + n - 1) / n) + 2 * n;
        if (kept < least) least = kept, best = n;
    }
    return best;
}

void model_plan(moai_model *m, const model_config *cfg, const moai_grid *grid, const model_options *opt)
{
    const int64_t whole = opt->micro_batch * opt->seq_len, n_tokens = round_up(whole / grid->size.cp, grid->size.tp);

    CHECK(opt->recompute != RECOMPUTE_AUTO, "the recomputation is not settled");
    CHECK(grid->size.cp == 1 || opt->seq_len % (2 * grid->size.cp) == 0, "samples of %lld tokens in 2 x %d chunks",
          (long long)opt->seq_len, grid->size.cp);
    *m = (moai_model){.cfg = *cfg, .opt = *opt};
    for (int i = 0; i < N_ARENAS; i++) m->arenas[i].name = arena_names[i];
    m->ctx = (moai_ctx){.ops = &ops_dry, .cfg = &m->cfg, .grid = grid, .dt = opt->dt, .recompute = opt->recompute,
                        .heads = {.n_heads = cfg->num_attention_heads / grid->size.tp,
                                  .n_kv_heads = max_i64(cfg->num_key_value_heads / grid->size.tp, 1),
                                  .head_dim = cfg->head_dim, .scale = 1 / sqrtf((float)cfg->head_dim)},
                        .hc = hc_shape_of(cfg), .n_tokens = n_tokens, .n_rows = n_tokens / grid->size.tp,
                        .seq_len = opt->seq_len, .n_keys = grid->size.cp > 1 ? whole : n_tokens,
                        .scratch = &m->arenas[ARENA_SCRATCH],
                        .folds_adapters = cfg->lora.rank && grid->size.tp == 1};
    params_init(&m->params, cfg, PARAMS_TRAINED, grid->size, grid->at, opt->seq_len);
    params_init(&m->frozen, cfg, PARAMS_FROZEN, grid->size, grid->at, opt->seq_len);
    m->first_layer = stage_begin(cfg, grid->size.pp, grid->at.pp, opt->seq_len);
    m->n_layers = stage_begin(cfg, grid->size.pp, grid->at.pp + 1, opt->seq_len) - m->first_layer;
    if (m->ctx.hc.n > 1 && opt->recompute != RECOMPUTE_NONE)
        m->ctx.stream_layers = stream_layers(m->n_layers, opt->n_slots);
    buckets_init(&m->buckets, &m->params, grid, opt->dt);
    if (opt->train) m->states = opt_state_of(adamw_states, m->params.n_own);
    list_blocks(m);
    lay_out(m);

    run_alone(m); /* on the device that does nothing: what the scratch stack grows to */
}

/* m->batch = this rank's rows of whole samples; samples NULL: of any tokens. */
static void take_samples(moai_model *m, const int32_t *samples)
{
    const int64_t n = m->opt.micro_batch, T = m->opt.seq_len;
    const grid_shape size = m->ctx.grid->size;
    token_batch whole = {0}, *b = size.cp > 1 ? &whole : &m->batch;

    if (size.cp > 1) batch_init(b, n * T);
    if (samples)
        batch_samples(b, samples, n, n, T);
    else
        batch_whole_samples(b, n, T);
    if (size.cp > 1) batch_cut(&m->batch, b, n, T, size.cp, m->ctx.grid->at.cp);
    batch_free(&whole);
}

/* Whole samples: what every micro-batch is on a stage that nobody feeds. */
static void fill_slots(moai_model *m)
{
    take_samples(m, NULL);
    for (int k = 0; k < m->n_chunks; k++)
        for (int s = 0; s < m->opt.n_slots; s++) model_set_batch(m, k, s, &m->batch);
    m->ctx.ops->sync(m->ctx.dev);
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
    batch_init(&m->batch, m->ctx.n_tokens);
    rope_load(&m->ctx, m->opt.seq_len);
    cp_rows_load(&m->ctx);
    fill_slots(m);
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

    for (int64_t i = 0; i < n; i++) samples[i] = (int32_t)(rng_uniform(1, (uint64_t)i) * (double)m->cfg.vocab_size);
    take_samples(m, samples);
    fill_arenas(m, 1);
    model_set_batch(m, 0, 0, &m->batch);
    gradients_begin(m);
    run_alone(m);                             /* gradients written over */
    run_alone(m);                             /* and added to */
    fill_arenas(m, 0);
    fill_slots(m);
    m->ctx.ops->zero(m->ctx.dev, m->totals, 2 * sizeof *m->totals);
    gradients_begin(m);
    m->ctx.ops->sync(m->ctx.dev);
    free(samples);
}

void model_free(moai_model *m)
{
    buckets_free(&m->buckets);
    opt_state_free_host(&m->states, m->ctx.ops, m->ctx.dev);
    for (int i = 0; i < N_ARENAS; i++)
        if (m->arenas[i].base) m->ctx.ops->free(m->ctx.dev, m->arenas[i].base);
    free_blocks(m);
    batch_free(&m->batch);
    params_free(&m->params);
    params_free(&m->frozen);
    *m = (moai_model){0};
}

size_t model_bytes(const moai_model *m, int which) { return m->arenas[which].high; }

static void init_kaiming(const moai_ctx *c, tensor x, uint64_t key, const param *p)
{
    const int64_t n = p->n_rows * p->n_cols;
    const double bound = 1 / sqrt((double)p->cols);
    float *host = xmalloc((size_t)n * sizeof *host);

    for (int64_t i = 0; i < n; i++) {
        const int64_t row = p->row0 + i / p->n_cols, col = p->col0 + i % p->n_cols;
        host[i] = (float)(bound * (2 * rng_uniform(key, (uint64_t)(row * p->cols + col)) - 1));
    }
    c->ops->copy(c->dev, x.data, host, (size_t)n * sizeof *host, COPY_TO_DEVICE);
    c->ops->sync(c->dev);
    free(host);
}

static void init_param(const moai_model *m, const param *p, tensor x, uint64_t seed)
{
    const moai_ctx *c = &m->ctx;
    const uint64_t key = rng_key(seed, p->name);

    switch (p->init) {
    case INIT_ONES: c->ops->fill(c->dev, x, 1); break;
    case INIT_ZEROS:
    case INIT_BASE: c->ops->fill(c->dev, x, 0); break;
    case INIT_SCALE: c->ops->fill(c->dev, x, (float)m->cfg.hc.init_alpha); break;
    case INIT_KAIMING: init_kaiming(c, x, key, p); break;     /* fp32: adapters are trained */
    case INIT_NORMAL:
        c->ops->fill_normal(c->dev, x, key, p->row0, p->col0, p->cols, (float)m->cfg.initializer_range);
    }
}

/* Any codes will do; the absmax is that of some 64 normal numbers. */
static void init_nf4(const moai_model *m, const param *p, uint64_t key)
{
    const moai_ctx *c = &m->ctx;
    const int64_t n = p->n_rows * p->n_cols;
    uint8_t *codes = xmalloc((size_t)n / 2);

    for (int64_t i = 0; i < n / 2; i++) codes[i] = (uint8_t)((key + (uint64_t)i) * 0x9e3779b97f4a7c15u >> 56);
    c->ops->copy(c->dev, m->codes + p->offset / 2, codes, (size_t)n / 2, COPY_TO_DEVICE);
    c->ops->fill(c->dev, tensor_of(m->absmax + p->offset / NF4_BLOCK, DT_F32, 1, n / NF4_BLOCK),
                 2.4f * (float)m->cfg.initializer_range);
    c->ops->sync(c->dev);
    free(codes);
}

void model_init_frozen(moai_model *m, uint64_t seed)
{
    const tensor flat = tensor_of(m->frozen_weights, m->ctx.dt, 1, m->frozen.n_elem);

    for (int i = 0; i < m->frozen.n; i++) {
        const param *p = &m->frozen.list[i];
        if (p->storage == STORE_NF4)
            init_nf4(m, p, rng_key(seed, p->name));
        else
            init_param(m, p, param_block(p, flat), seed);
    }
}

void model_init_weights(moai_model *m, uint64_t seed)
{
    const moai_ctx *c = &m->ctx;
    const size_t flat_bytes = (size_t)m->params.n_elem * sizeof(float);

    c->ops->zero(c->dev, m->grads, flat_bytes); /* the gradients' memory holds the fp32 values for a moment */
    for (int i = 0; i < m->params.n; i++) {
        const param *p = &m->params.list[i];
        init_param(m, p, tensor_of(m->grads + p->offset, DT_F32, p->n_rows, p->n_cols), seed);
    }
    c->ops->cast(c->dev, tensor_of(m->weights, c->dt, 1, m->params.n_elem),
                 tensor_of(m->grads, DT_F32, 1, m->params.n_elem));
    for (int b = 0; b < m->params.n_buckets && m->states.data[STATE_WEIGHT] != m->weights; b++) {
        own_range r = params_own(&m->params, b, c->grid->data.size, c->grid->data.rank);
        c->ops->copy(c->dev, state_floats(&m->states, STATE_WEIGHT, r.own), m->grads + r.begin,
                     (size_t)(r.end - r.begin) * sizeof(float), COPY_ON_DEVICE);
    }
    c->ops->zero(c->dev, m->grads, flat_bytes);
}

void model_set_batch(moai_model *m, int chunk, int slot, const token_batch *b)
{
    const moai_ctx *c = &m->ctx;
    device_batch *rows = &m->chunks[chunk].slots[slot].rows;
    const size_t bytes = (size_t)c->n_tokens * sizeof *b->ids;

    CHECK(b->n_rows == c->n_tokens, "a batch of %lld rows, the model has %lld", (long long)b->n_rows,
          (long long)c->n_tokens);
    c->ops->copy(c->dev, rows->inputs, b->ids, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, rows->targets, b->targets, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, rows->positions, b->positions, bytes, COPY_TO_DEVICE);
    rows->is_weighted = b->is_weighted;
    if (b->is_weighted)
        c->ops->copy(c->dev, rows->weights, b->weights, (size_t)c->n_tokens * sizeof *b->weights, COPY_TO_DEVICE);
    CHECK(!b->n_picked || m->opt.picks, "%lld rows are picked for a head that takes all", (long long)b->n_picked);
    rows->n_picked = b->n_picked;
    if (b->n_picked && chunk_has_head(&m->chunks[chunk])) {
        memcpy(rows->host_picked, b->picked, (size_t)b->n_picked * sizeof *b->picked);
        c->ops->copy(c->dev, rows->picked, b->picked, (size_t)b->n_picked * sizeof *b->picked, COPY_TO_DEVICE);
        c->ops->copy(c->dev, rows->places, b->places, bytes, COPY_TO_DEVICE);
    }
    memcpy(rows->segments, b->segments, (size_t)b->n_segments * sizeof *b->segments);
    rows->n_segments = b->n_segments;
}

void gradients_begin(moai_model *m)
{
    const moai_ctx *c = &m->ctx;

    for (int b = 0; b < m->params.n_buckets; b++) {           /* norms, to which all backwards add */
        const bucket *k = &m->params.buckets[b];
        c->ops->zero(c->dev, m->grads + k->offset + k->n_decayed, (size_t)(k->n_padded - k->n_decayed) * sizeof(float));
    }
    for (int k = 0; k < m->n_chunks; k++)
        for (int i = 0; i < m->chunks[k].n_blocks; i++) {
            const model_block *b = &m->chunks[k].blocks[i];
            b->kind->begin(c, b->weights);
        }
    buckets_begin(&m->buckets);
}

bool chunk_embeds(const model_chunk *k) { return k->blocks[0].kind == &embedding_block; }

bool chunk_has_head(const model_chunk *k) { return k->blocks[k->n_blocks - 1].kind == &head_block; }

static tensor input_of(const model_chunk *k, int slot, int i)
{
    return k->blocks[i].kind->input(k->slots[slot].acts[i]);
}

tensor chunk_input(const model_chunk *k, int slot) { return input_of(k, slot, 0); }

tensor chunk_output(const moai_model *m, int chunk, int micro_batch)
{
    return chunk_has_head(&m->chunks[chunk]) ? m->dout[micro_batch % 2] : m->out[micro_batch % 2];
}

static void acquire(moai_model *m, const model_block *b)
{
    for (int i = 0; i < b->n_buckets; i++) bucket_acquire(&m->buckets, b->bucket + i);
}

static void release(moai_model *m, const model_block *b)
{
    for (int i = 0; i < b->n_buckets; i++) bucket_release(&m->buckets, b->bucket + i);
}

void chunk_forward(moai_model *m, int chunk, int slot, tensor y, float scale)
{
    const model_chunk *k = &m->chunks[chunk];
    device_batch *rows = &k->slots[slot].rows;
    stream_owed owed = {0};                   /* the input is there */

    rows->scale = scale;
    m->ctx.first_row = rows->first_row;
    for (int i = 0; i < k->n_blocks; i++) {
        const model_block *b = &k->blocks[i];
        acquire(m, b);
        b->kind->forward(&m->ctx, rows, b->weights, k->slots[slot].acts[i],
                         i + 1 < k->n_blocks ? input_of(k, slot, i + 1) : y, &owed);
        release(m, b);
    }
    stream_settle(&m->ctx, y, &owed);
}

void chunk_backward(moai_model *m, int chunk, int slot, tensor dy)
{
    const moai_ctx *c = &m->ctx;
    const model_chunk *k = &m->chunks[chunk];
    const size_t mark = arena_mark(c->scratch);
    stream_gradient d = stream_gradient_begin(c, dy);

    m->ctx.first_row = k->slots[slot].rows.first_row;
    for (int i = k->n_blocks - 1; i >= 0; i--) {
        const model_block *b = &k->blocks[i];
        acquire(m, b);
        if (b->kind->backward)                /* what the first one leaves is sent as it is */
            b->kind->backward(c, &k->slots[slot].rows, b->weights, k->slots[slot].acts[i], &d, i > 0);
        if (i + 1 < k->n_blocks) release(m, b + 1);                             /* nothing of it is due any more */
        for (int n = b->n_buckets - 1; n >= 0; n--) bucket_filled(&m->buckets, b->bucket + n);
    }
    if (!chunk_embeds(k)) stream_gradient_settle(c, &d);
    release(m, k->blocks);
    arena_release(c->scratch, mark);
}

void model_logits(moai_model *m, int slot, int64_t row0, int64_t n_rows, float *logits)
{
    const moai_ctx *c = &m->ctx;
    const moai_ops *op = c->ops;
    const model_chunk *k = &m->chunks[m->n_chunks - 1];
    const model_block *b = &k->blocks[k->n_blocks - 1];
    const head_weights *w = b->weights;
    const size_t mark = arena_mark(c->scratch), bytes = (size_t)(n_rows * w->map.w.rows) * sizeof(float);
    tensor all = input_of(k, slot, k->n_blocks - 1), x = stream_one(c, all),
           n = arena_tensor(c->scratch, c->dt, x.rows, x.cols);
    tensor n_full = tp_full(c, n), y = tensor_of(op->alloc(c->dev, bytes), DT_F32, n_rows, w->map.w.rows);
    float *r = arena_take(c->scratch, (size_t)x.rows * sizeof(float));
    stream_acts joined = stream_head_acts(c, &w->streams, x.rows);

    CHECK(y.data, "%zu bytes for logits do not fit", bytes);
    acquire(m, b);
    stream_join(c, x, all, &w->streams, &joined);
    op->rmsnorm(c->dev, n, r, x, w->norm.w, (float)m->cfg.rms_norm_eps);
    tp_all_gather(c, n_full, n);
    linear_forward(c, y, tensor_rows(n_full, row0, n_rows), &w->map, NULL);
    op->copy(c->dev, logits, y.data, bytes, COPY_TO_HOST);
    op->sync(c->dev);
    op->free(c->dev, y.data);
    release(m, b);
    arena_release(c->scratch, mark);
}
