/* decode.c: see decode.h */
#include "decode.h"

#include "rope.h"
#include "tensor_parallel.h"

#include <math.h>
#include <stdlib.h>

static const char *const arena_names[N_DECODER_ARENAS] = {"weights", "cache", "scratch"};

int64_t decoder_reach(const model_config *cfg)
{
    const int64_t original = cfg->rope.original_max_position_embeddings ? cfg->rope.original_max_position_embeddings
                                                                        : cfg->max_position_embeddings;

    if (cfg->rope.kind == ROPE_DEFAULT) return cfg->max_position_embeddings;
    if (cfg->rope.kind == ROPE_DYNAMIC) return INT32_MAX;
    return max_i64(cfg->max_position_embeddings, (int64_t)(cfg->rope.factor * (double)original));
}

/* The same walk with and without memory. */
static void lay_out(decoder *d)
{
    moai_ctx *c = &d->ctx;
    arena *run = &d->arenas[DECODER_WEIGHTS], *cache = &d->arenas[DECODER_CACHE];
    const int64_t half = d->cfg.head_dim / 2;
    const size_t row_bytes = (size_t)d->opt.max_rows * sizeof(int32_t);

    d->weights = arena_take(run, (size_t)d->params.n_elem * dtype_size(c->dt));
    c->rope.cos = arena_tensor(run, DT_F32, d->opt.max_len, half);
    c->rope.sin = arena_tensor(run, DT_F32, d->opt.max_len, half);
    d->ids = arena_take(run, row_bytes);
    d->seq = arena_take(run, row_bytes);
    d->pos = arena_take(run, row_bytes);
    for (int64_t l = 0; l < d->cfg.num_hidden_layers; l++) {
        d->w[l] = layer_view(&d->params, l, d->weights, c->dt);
        d->cache[l].k = arena_tensor(cache, c->dt, d->opt.n_sequences * d->opt.max_len, ctx_kv_cols(c));
        d->cache[l].v = arena_tensor(cache, c->dt, d->opt.n_sequences * d->opt.max_len, ctx_kv_cols(c));
    }
    d->outer = outer_views(&d->params, &d->cfg, d->weights, c->dt);
}

/* One layer over the rows of a forward, in place: x (n, H).  See layer.h for the formula and the letters. */
static void layer_decode(const decoder *d, const layer_weights *w, const kv_cache *cache, tensor x)
{
    const moai_ctx *c = &d->ctx;
    const moai_ops *op = c->ops;
    const float eps = (float)d->cfg.rms_norm_eps;
    const int64_t n = x.rows, H = x.cols, Q = ctx_q_cols(c), K = ctx_kv_cols(c), I = w->wdown.cols;
    const int64_t max_len = d->opt.max_len;
    const size_t mark = arena_mark(c->scratch);
    float *r = arena_take(c->scratch, (size_t)n * sizeof *r);
    float *rqk = arena_take(c->scratch, (size_t)(n * (c->heads.n_heads + c->heads.n_kv_heads)) * sizeof *rqk);
    tensor normed = arena_tensor(c->scratch, c->dt, n, H), h = arena_tensor(c->scratch, c->dt, n, H);
    tensor sum = arena_tensor(c->scratch, c->dt, n, H);
    tensor qkv = arena_tensor(c->scratch, c->dt, n, Q + 2 * K), qk = arena_tensor(c->scratch, c->dt, n, Q + K);
    tensor att = arena_tensor(c->scratch, c->dt, n, Q);
    tensor gate_up = arena_tensor(c->scratch, c->dt, n, 2 * I), act = arena_tensor(c->scratch, c->dt, n, I);

    // clang-format off
    op->rmsnorm(c->dev, normed, r, x, w->norm1, eps);                               /* (n, H)                       */
    op->matmul(c->dev, qkv, normed, w->wqkv);                                       /* (n, (Q+2K)/tp)               */
    op->qknorm_rope(c->dev, qk, rqk, qkv, w->q_norm, w->k_norm, c->rope, d->pos, c->heads, eps);
    op->kv_append(c->dev, cache->k, k_of(c, qk), d->seq, d->pos, max_len);
    op->kv_append(c->dev, cache->v, v_of(c, qkv), d->seq, d->pos, max_len);
    op->attend_cached(c->dev, att, q_of(c, qk), cache->k, cache->v, d->seq, d->pos, max_len, c->heads); /* (n, Q/tp) */
    op->matmul(c->dev, sum, att, w->wo);                                            /* (n, H)          partial sum  */
    tp_all_reduce(c, sum);                                                          /* (n, H)                       */
    op->residual_rmsnorm(c->dev, h, normed, r, x, sum, w->norm2, eps);              /* (n, H)          h = x + sum  */
    op->matmul(c->dev, gate_up, normed, w->wgate_up);                               /* (n, 2I/tp)                   */
    op->swiglu(c->dev, act, gate_up);                                               /* (n, I/tp)                    */
    op->matmul(c->dev, sum, act, w->wdown);                                         /* (n, H)          partial sum  */
    tp_all_reduce(c, sum);                                                          /* (n, H)                       */
    op->add(c->dev, x, h, sum);                                                     /* (n, H)                       */
    // clang-format on
    arena_release(c->scratch, mark);
}

/* Final norm and head of the wanted rows of x.  Shares of the vocabulary differ by a row: each rank sends the
 * longest share's room. */
static void wanted_logits(decoder *d, tensor x, int64_t n, const int32_t *wanted, float *logits)
{
    const moai_ctx *c = &d->ctx;
    const moai_ops *op = c->ops;
    const comm *tp = &c->grid->tp;
    const size_t mark = arena_mark(c->scratch);
    const int64_t V = d->cfg.vocab_size, share = (V + tp->size - 1) / tp->size;
    tensor rows = arena_tensor(c->scratch, c->dt, n, x.cols), normed = arena_tensor(c->scratch, c->dt, n, x.cols);
    float *r = arena_take(c->scratch, (size_t)n * sizeof *r);
    tensor all = arena_tensor(c->scratch, DT_F32, tp->size * n, share); /* (tp, n, V/tp) */
    tensor mine = tensor_rows(all, tp->rank * n, n), out = tensor_of(logits, DT_F32, n, V);

    for (int64_t i = 0; i < n; i++)
        op->copy(c->dev, tensor_at(rows, i, 0), tensor_at(x, wanted[i], 0), (size_t)x.cols * dtype_size(x.dt),
                 COPY_ON_DEVICE);
    op->rmsnorm(c->dev, normed, r, rows, d->outer.norm, (float)d->cfg.rms_norm_eps);
    op->matmul(c->dev, tensor_cols(mine, 0, d->outer.head.rows), normed, d->outer.head);
    comm_request gathered = all_gather_begin(tp, all.data, mine.data, (size_t)(n * share), DT_F32);
    comm_end(&gathered);
    for (int part = 0; part < tp->size; part++) {
        const int64_t begin = share_begin(V, tp->size, part), end = share_begin(V, tp->size, part + 1);
        for (int64_t i = 0; i < n; i++)
            op->copy(c->dev, tensor_at(out, i, begin), tensor_at(all, part * n + i, 0),
                     (size_t)(end - begin) * sizeof(float), COPY_TO_HOST);
    }
    arena_release(c->scratch, mark);
}

/* The forward itself; ids, seq and pos are on the device. */
static void forward(decoder *d, int64_t n, int64_t n_wanted, const int32_t *wanted, float *logits)
{
    const moai_ctx *c = &d->ctx;
    const size_t mark = arena_mark(c->scratch);
    tensor x = arena_tensor(c->scratch, c->dt, n, d->cfg.hidden_size);

    c->ops->embed(c->dev, x, d->ids, d->outer.embed, d->vocab_begin); /* (n, H)   other ranks' ids are zero */
    tp_all_reduce(c, x);                                              /* (n, H) */
    for (int64_t l = 0; l < d->cfg.num_hidden_layers; l++) layer_decode(d, &d->w[l], &d->cache[l], x);
    if (n_wanted) wanted_logits(d, x, n_wanted, wanted, logits);
    arena_release(c->scratch, mark);
}

void decoder_forward(decoder *d, decode_rows rows, int64_t n_wanted, const int32_t *wanted, float *logits)
{
    const moai_ctx *c = &d->ctx;
    const decoder_options *o = &d->opt;
    const size_t bytes = (size_t)rows.n * sizeof(int32_t);

    CHECK(rows.n > 0 && rows.n <= o->max_rows && n_wanted <= o->max_wanted,
          "forward of %lld rows with logits of %lld; room for %lld, %lld", (long long)rows.n, (long long)n_wanted,
          (long long)o->max_rows, (long long)o->max_wanted);
    for (int64_t i = 0; i < rows.n; i++)
        CHECK(rows.ids[i] >= 0 && rows.ids[i] < d->cfg.vocab_size && rows.seq[i] >= 0 && rows.seq[i] < o->n_sequences &&
                  rows.pos[i] >= 0 && rows.pos[i] < o->max_len,
              "row %lld is token %d at position %d of sequence %d; there are %lld, %lld, %lld", (long long)i,
              (int)rows.ids[i], (int)rows.pos[i], (int)rows.seq[i], (long long)d->cfg.vocab_size, (long long)o->max_len,
              (long long)o->n_sequences);
    c->ops->copy(c->dev, d->ids, rows.ids, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, d->seq, rows.seq, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, d->pos, rows.pos, bytes, COPY_TO_DEVICE);
    forward(d, rows.n, n_wanted, wanted, logits);
    c->ops->sync(c->dev);
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
    forward(d, d->opt.max_rows, d->opt.max_wanted, wanted, NULL);
    d->ctx.grid = grid;
    free(wanted);
}

static void fill_rope(decoder *d)
{
    const moai_ctx *c = &d->ctx;
    const int64_t n = d->opt.max_len;
    const size_t bytes = (size_t)(n * d->cfg.head_dim / 2) * sizeof(float);
    float *cosines = xmalloc(bytes), *sines = xmalloc(bytes);

    rope_fill(cosines, sines, n, n, &d->cfg);
    c->ops->copy(c->dev, c->rope.cos.data, cosines, bytes, COPY_TO_DEVICE);
    c->ops->copy(c->dev, c->rope.sin.data, sines, bytes, COPY_TO_DEVICE);
    c->ops->sync(c->dev);
    free(cosines);
    free(sines);
}

static int take_memory(decoder *d, moai_error *err)
{
    const moai_ctx *c = &d->ctx;

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
                        .scratch = &d->arenas[DECODER_SCRATCH],
                        .heads = {.n_heads = cfg->num_attention_heads / tp,
                                  .n_kv_heads = max_i64(cfg->num_key_value_heads / tp, 1),
                                  .head_dim = cfg->head_dim,
                                  .scale = 1 / sqrtf((float)cfg->head_dim)}};
    params_init(&d->params, cfg, grid->size, grid->at, opt->max_len);
    d->vocab_begin = share_begin(cfg->vocab_size, tp, grid->at.tp);
    d->w = xmalloc((size_t)cfg->num_hidden_layers * sizeof *d->w);
    d->cache = xmalloc((size_t)cfg->num_hidden_layers * sizeof *d->cache);
    lay_out(d);
    plan_scratch(d);
    d->ctx.ops = ops;
    if (take_memory(d, err)) return -1;
    lay_out(d);
    fill_rope(d);
    return 0;
}

void decoder_free(decoder *d)
{
    for (int i = 0; i < N_DECODER_ARENAS; i++)
        if (d->arenas[i].base) d->ctx.ops->free(d->ctx.dev, d->arenas[i].base);
    free(d->w);
    free(d->cache);
    params_free(&d->params);
    *d = (decoder){0};
}
