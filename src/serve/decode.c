/* decode.c: see decode.h */
#include "src/serve/decode.h"

#include "parallel/axes/tensor_parallel.h"
#include "src/model/rope.h"
#include "src/ops/nf4.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const arena_names[N_DECODER_ARENAS] = {"weights", "cache", "scratch"};

int64_t decoder_reach(const model_config *cfg)
{
    const int64_t original = cfg->rope.original_max_position_embeddings ? cfg->rope.original_max_position_embeddings
                                                                        : cfg->max_position_embeddings;

    if (cfg->rope.kind == ROPE_DEFAULT) return cfg->max_position_embeddings;
    if (cfg->rope.kind == ROPE_DYNAMIC) return INT32_MAX;
    return max_i64(cfg->max_position_embeddings, (int64_t)(cfg->rope.factor * (double)original));
}

static size_t input_bytes(int64_t n_rows, int64_t n_wanted)
{
    return (size_t)n_wanted * sizeof(double) + 3 * (size_t)n_rows * sizeof(int32_t);
}

/* The same walk with and without memory. */
static void lay_out(decoder *d)
{
    moai_ctx *c = &d->ctx;
    arena *run = &d->arenas[DECODER_WEIGHTS], *cache = &d->arenas[DECODER_CACHE];
    const int64_t half = d->cfg.head_dim / 2;

    d->weights = arena_take(run, (size_t)d->params.n_elem * dtype_size(c->dt));
    d->frozen_weights = arena_take(run, (size_t)d->frozen.n_elem * dtype_size(c->dt));
    d->codes = arena_take(run, (size_t)d->frozen.n_nf4 / 2);
    d->absmax = arena_take(run, (size_t)d->frozen.n_nf4 / NF4_BLOCK * sizeof(float));
    c->rope.cos = arena_tensor(run, DT_F32, d->opt.max_len, half);
    c->rope.sin = arena_tensor(run, DT_F32, d->opt.max_len, half);
    d->device_inputs = arena_take(run, input_bytes(d->opt.max_rows, d->opt.max_wanted));
    d->drawn = arena_take(run, (size_t)d->opt.max_wanted * sizeof *d->drawn);
    const flat_params f = {.trained = &d->params, .frozen = &d->frozen, .weights = d->weights,
                           .frozen_weights = d->frozen_weights, .codes = d->codes, .absmax = d->absmax, .dt = c->dt};
    for (int64_t l = 0; l < d->cfg.num_hidden_layers; l++) {
        d->layers[l] = layer_view(&f, l);
        d->cache[l].k = arena_tensor(cache, c->dt, d->opt.n_sequences * d->opt.max_len, ctx_kv_cols(c));
        d->cache[l].v = arena_tensor(cache, c->dt, d->opt.n_sequences * d->opt.max_len, ctx_kv_cols(c));
    }
    d->embedding = embedding_view(&f);
    d->head = head_view(&f);
}

/* a->att (n, Q): rows of a prompt's beginning see each other only, the others the cache. */
static void attend_rows(const decoder *d, const kv_cache *cache, layer_acts *a)
{
    const moai_ctx *c = &d->ctx;

    for (int64_t i = 0; i < d->n_stretches; i++) {
        const decode_stretch s = d->stretches[i];
        const tensor att = tensor_rows(a->att, s.row, s.n), qk = tensor_rows(a->qk, s.row, s.n),
                     v = v_of(c, tensor_rows(a->qkv, s.row, s.n));
        const attend_segment whole = attend_whole(0, s.n);
        const attend_args prompt = {att, a->lse, q_of(c, qk), k_of(c, qk), v, c->heads, &whole, 1};
        if (s.is_beginning)
            c->ops->attend(c->dev, &prompt);
        else
            c->ops->attend_cached(c->dev, att, q_of(c, qk), cache->k, cache->v, d->seq + s.row, d->pos + s.row,
                                  d->opt.max_len, c->heads);
    }
}

/* One layer over the rows of a forward, in place: a->x (n, streams H), and what is owed to it, become the next
 * layer's. */
static void layer_decode(const decoder *d, const layer_weights *w, const kv_cache *cache, layer_acts *a,
                         stream_owed *owed)
{
    const moai_ctx *c = &d->ctx;

    layer_to_heads(c, &(device_batch){.positions = d->pos}, w, a, *owed);
    c->ops->kv_append(c->dev, cache->k, cache->v, k_of(c, a->qk), v_of(c, a->qkv), d->seq, d->pos, d->opt.max_len);
    attend_rows(d, cache, a);
    *owed = layer_from_heads(c, w, a, a->x);
}

/* The logits (n, V) of normed rows.  Shares of the vocabulary differ by a row: each rank sends the longest share's
 * room. */
static tensor head_logits(const decoder *d, tensor normed)
{
    const moai_ctx *c = &d->ctx;
    const comm *tp = &c->grid->tp;
    const int64_t n = normed.rows, V = d->cfg.vocab_size, share = (V + tp->size - 1) / tp->size;
    tensor logits = arena_tensor(c->scratch, DT_F32, n, V);

    if (tp->size == 1) {
        linear_forward(c, logits, normed, &d->head.map, NULL);
        return logits;
    }
    tensor all = arena_tensor(c->scratch, DT_F32, tp->size * n, share); /* (tp, n, V/tp) */
    tensor mine = tensor_rows(all, tp->rank * n, n);
    linear_forward(c, tensor_cols(mine, 0, d->head.map.w.rows), normed, &d->head.map, NULL);
    comm_request gathered = all_gather_begin(tp, all.data, mine.data, (size_t)(n * share), DT_F32);
    comm_end(&gathered);
    for (int part = 0; part < tp->size; part++) {
        const int64_t begin = share_begin(V, tp->size, part), width = share_begin(V, tp->size, part + 1) - begin;
        c->ops->cast(c->dev, tensor_cols(logits, begin, width), tensor_cols(tensor_rows(all, part * n, n), 0, width));
    }
    return logits;
}

/* Final norm and head of the wanted rows of x. */
static tensor wanted_logits(const decoder *d, tensor x, int64_t n, const int32_t *wanted)
{
    const moai_ctx *c = &d->ctx;
    const moai_ops *op = c->ops;
    tensor rows = arena_tensor(c->scratch, c->dt, n, x.cols), one = stream_one(c, rows),
           normed = arena_tensor(c->scratch, c->dt, n, one.cols);
    float *r = arena_take(c->scratch, (size_t)n * sizeof *r);
    stream_acts joined = stream_head_acts(c, &d->head.streams, n);

    for (int64_t i = 0, run; i < n; i += run) { /* neighbours at once */
        for (run = 1; i + run < n && wanted[i + run] == wanted[i] + run;) run++;
        op->copy(c->dev, tensor_at(rows, i, 0), tensor_at(x, wanted[i], 0), (size_t)(run * x.cols) * dtype_size(x.dt),
                 COPY_ON_DEVICE);
    }
    stream_join(c, one, rows, &d->head.streams, &joined);
    op->rmsnorm(c->dev, normed, r, one, d->head.norm.w, (float)d->cfg.rms_norm_eps);
    return head_logits(d, normed);
}

/* The forward itself, over rows that are on the device; the logits of the wanted ones (n_wanted, V) lie in scratch,
 * until the caller releases it. */
static tensor forward(decoder *d, int64_t n, int64_t n_wanted, const int32_t *wanted)
{
    moai_ctx *c = &d->ctx;
    layer_acts a;
    stream_owed owed = {0};

    c->n_tokens = c->n_rows = n;              /* on every rank */
    layer_acts_plan(&a, c, c->scratch, c->scratch, NULL);
    const tensor one = stream_one(c, a.x);
    c->ops->embed(c->dev, one, d->ids, d->embedding.table, d->embedding.vocab_begin); /* (n, H)   other ids are zero */
    tp_all_reduce(c, one);                                                            /* (n, H)                      */
    stream_spread(c, a.x, one);                                                       /* (n, streams H)              */
    for (int64_t l = 0; l < d->cfg.num_hidden_layers; l++) layer_decode(d, &d->layers[l], &d->cache[l], &a, &owed);
    stream_settle(c, a.x, &owed);
    return n_wanted ? wanted_logits(d, a.x, n_wanted, wanted) : (tensor){0};
}

static void check_rows(const decoder *d, const decode_rows *rows)
{
    const decoder_options *o = &d->opt;

    CHECK(rows->n > 0 && rows->n <= o->max_rows && rows->n_wanted <= o->max_wanted,
          "forward of %lld rows with logits of %lld; room for %lld, %lld", (long long)rows->n,
          (long long)rows->n_wanted, (long long)o->max_rows, (long long)o->max_wanted);
    for (int64_t i = 0; i < rows->n; i++)
        CHECK(rows->ids[i] >= 0 && rows->ids[i] < d->cfg.vocab_size && rows->seq[i] >= 0 &&
                  rows->seq[i] < o->n_sequences && rows->pos[i] >= 0 && rows->pos[i] < o->max_len,
              "row %lld is token %d at position %d of sequence %d; there are %lld, %lld, %lld", (long long)i,
              (int)rows->ids[i], (int)rows->pos[i], (int)rows->seq[i], (long long)d->cfg.vocab_size,
              (long long)o->max_len, (long long)o->n_sequences);
}

/* Consecutive positions of one sequence from 0 on are a prompt's beginning, if they are enough to fill a tile. */
static void find_stretches(decoder *d, const decode_rows *rows)
{
    enum { LEAST_BEGINNING = 8 };

    d->n_stretches = 0;
    for (int64_t i = 0, n; i < rows->n; i += n) {
        decode_stretch *last = d->n_stretches ? &d->stretches[d->n_stretches - 1] : NULL;
        for (n = 1; i + n < rows->n && rows->seq[i + n] == rows->seq[i] && rows->pos[i + n] == rows->pos[i] + n;) n++;
        const bool is_beginning = rows->pos[i] == 0 && n >= LEAST_BEGINNING;
        if (last && !last->is_beginning && !is_beginning)
            last->n += n;
        else
            d->stretches[d->n_stretches++] = (decode_stretch){.row = i, .n = n, .is_beginning = is_beginning};
    }
}

/* All that the device needs to know of the rows, in one copy; u NULL when nothing is drawn. */
static void send_rows(decoder *d, const decode_rows *rows, const double *u)
{
    const moai_ctx *c = &d->ctx;
    const size_t u_bytes = (size_t)rows->n_wanted * sizeof *u, bytes = (size_t)rows->n * sizeof(int32_t);
    char *host = d->inputs;

    check_rows(d, rows);
    find_stretches(d, rows);
    if (u_bytes && u) memcpy(host, u, u_bytes);
    memcpy(host + u_bytes, rows->ids, bytes);
    memcpy(host + u_bytes + bytes, rows->seq, bytes);
    memcpy(host + u_bytes + 2 * bytes, rows->pos, bytes);
    d->u = d->device_inputs;
    d->ids = (int32_t *)((char *)d->device_inputs + u_bytes);
    d->seq = d->ids + rows->n;
    d->pos = d->seq + rows->n;
    c->ops->copy(c->dev, d->device_inputs, host, input_bytes(rows->n, rows->n_wanted), COPY_TO_DEVICE);
}

void decoder_forward(decoder *d, decode_rows rows, float *logits)
{
    const moai_ctx *c = &d->ctx;
    const size_t mark = arena_mark(c->scratch);

    send_rows(d, &rows, NULL);
    tensor there = forward(d, rows.n, rows.n_wanted, rows.wanted);
    if (rows.n_wanted)
        c->ops->copy(c->dev, logits, there.data, (size_t)tensor_n_elem(there) * sizeof *logits, COPY_TO_HOST);
    c->ops->sync(c->dev);
    arena_release(c->scratch, mark);
}

void decoder_sample(decoder *d, decode_rows rows, sample_options how, int64_t n_vocab, const double *u, int32_t *ids)
{
    const moai_ctx *c = &d->ctx;
    const size_t mark = arena_mark(c->scratch);

    send_rows(d, &rows, u);
    tensor logits = forward(d, rows.n, rows.n_wanted, rows.wanted);
    if (rows.n_wanted) {
        c->ops->sample(c->dev, d->drawn, tensor_cols(logits, 0, n_vocab), d->u, how);
        c->ops->copy(c->dev, ids, d->drawn, (size_t)rows.n_wanted * sizeof *ids, COPY_TO_HOST);
    }
    c->ops->sync(c->dev);
    arena_release(c->scratch, mark);
    for (int64_t i = 0; i < rows.n_wanted; i++)
        CHECK(ids[i] >= 0, "the logits behind position %d of sequence %d are no finite numbers in %s%s",
              (int)rows.pos[rows.wanted[i]], (int)rows.seq[rows.wanted[i]], dtype_name(d->opt.dt),
              d->opt.dt == DT_F32 ? ": the weights are too large to compute with" : ": --dtype fp32 reaches further");
}

/* What the scratch stack grows to: a forward of every row on the device that does nothing. */
static void plan_scratch(decoder *d)
{
    const moai_grid *grid = d->ctx.grid;
    int32_t *wanted = xmalloc((size_t)d->opt.max_wanted * sizeof *wanted);
    moai_grid dry;

    grid_dry(&dry, grid->size, grid->at, (int)d->cfg.num_key_value_heads);
    d->ctx.ops = &ops_dry;
    d->ctx.grid = &dry;
    forward(d, d->opt.max_rows, d->opt.max_wanted, wanted);
    arena_release(d->ctx.scratch, 0);
    d->ctx.grid = grid;
    free(wanted);
}

static int take_memory(decoder *d, moai_error *err)
{
    const moai_ctx *c = &d->ctx;
    const op_needs needs = {.dt = c->dt, .hidden = d->cfg.hidden_size, .head_dim = d->cfg.head_dim,
                            .sampled = d->cfg.vocab_size};

    if (ops_support(c->ops, &needs, err)) return -1;
    for (int i = 0; i < N_DECODER_ARENAS; i++) {
        arena *a = &d->arenas[i];
        a->size = a->high;
        a->used = 0;
        a->base = c->ops->alloc(c->dev, a->size);
        if (!a->base) return error_set(err, "%zu bytes of %s memory do not fit (%s)", a->size, c->ops->name, a->name);
        c->ops->zero(c->dev, a->base, a->size);
    }
    return 0;
}

int decoder_init(decoder *d, const model_config *cfg, const decoder_options *opt, const moai_ops *ops, moai_device *dev,
                 const moai_grid *grid, moai_error *err)
{
    const int tp = grid->size.tp;

    CHECK(grid->size.pp == 1 && grid->size.cp == 1, "decoding on a grid of %d stages, %d parts of a context",
          grid->size.pp, grid->size.cp);
    *d = (decoder){.cfg = *cfg, .opt = *opt};
    for (int i = 0; i < N_DECODER_ARENAS; i++) d->arenas[i].name = arena_names[i];
    d->ctx = (moai_ctx){.dev = dev,
                        .cfg = &d->cfg,
                        .grid = grid,
                        .dt = opt->dt,
                        .hc = hc_shape_of(cfg),
                        .scratch = &d->arenas[DECODER_SCRATCH],
                        .heads = {.n_heads = cfg->num_attention_heads / tp,
                                  .n_kv_heads = max_i64(cfg->num_key_value_heads / tp, 1),
                                  .head_dim = cfg->head_dim,
                                  .scale = 1 / sqrtf((float)cfg->head_dim)}};
    params_init(&d->params, cfg, PARAMS_TRAINED, grid->size, grid->at, opt->max_len);
    params_init(&d->frozen, cfg, PARAMS_FROZEN, grid->size, grid->at, opt->max_len);
    d->layers = xmalloc((size_t)cfg->num_hidden_layers * sizeof *d->layers);
    d->cache = xmalloc((size_t)cfg->num_hidden_layers * sizeof *d->cache);
    d->inputs = xmalloc(input_bytes(opt->max_rows, opt->max_wanted));
    d->stretches = xmalloc((size_t)opt->max_rows * sizeof *d->stretches);
    lay_out(d);
    plan_scratch(d);
    d->ctx.ops = ops;
    if (take_memory(d, err)) return -1;
    lay_out(d);
    rope_load(&d->ctx, d->opt.max_len);
    return 0;
}

int decoder_load(decoder *d, weights *from, weights *adapters, moai_error *err)
{
    const moai_ctx *c = &d->ctx;
    const weights_target frozen = {&d->frozen, d->frozen_weights, c->dt, d->codes, d->absmax,
                                   d->cfg.quantization.nested},
                         own = {.table = &d->params, .flat = d->weights, .dt = c->dt};

    CHECK((d->cfg.lora.rank > 0) == (adapters != NULL), "adapters without a model of any, or the other way round");
    if (weights_to_device(from, &frozen, c->ops, c->dev, err)) return -1;
    return weights_to_device(adapters ? adapters : from, &own, c->ops, c->dev, err);
}

void decoder_free(decoder *d)
{
    for (int i = 0; i < N_DECODER_ARENAS; i++)
        if (d->arenas[i].base) d->ctx.ops->free(d->ctx.dev, d->arenas[i].base);
    free(d->layers);
    free(d->cache);
    free(d->inputs);
    free(d->stretches);
    params_free(&d->params);
    params_free(&d->frozen);
    *d = (decoder){0};
}
