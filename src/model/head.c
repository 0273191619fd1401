/* head.c: see head.h */
#include "src/model/head.h"

enum { LOGITS_ROWS = 1024 };                  /* logits exist in multiples of so many rows */
size_t head_logits_bytes = (size_t)1 << 30;

head_weights head_view(const flat_params *f)
{
    const char *name = flat_find(f, "lm_head.weight") ? "lm_head.weight" : "model.embed_tokens.weight";
    const head_weights w = {.streams = stream_head_view(f), .norm = norm_view(f, "model.norm.weight"),
                            .map = linear_view(f, name)};

    CHECK(w.norm.w.rows && w.map.w.rows, "no head on this rank");
    return (head_weights){w.streams, w.norm, w.map, flat_find(f, name)->row0};
}

static void view(void *weights, const flat_params *f, int64_t layer)
{
    (void)layer;
    *(head_weights *)weights = head_view(f);
}

static void plan(void *acts, const moai_ctx *c, arena *saved, arena *shared, void *before)
{
    head_acts *a = acts;

    (void)shared, (void)before;
    a->x = arena_tensor(saved, c->dt, c->n_rows, ctx_x_cols(c));
    a->nll = arena_take(saved, (size_t)c->n_tokens * sizeof(float));
}

static void begin(const moai_ctx *c, void *weights)
{
    (void)c;
    ((head_weights *)weights)->map.adds = ((head_weights *)weights)->streams.fn.adds = false;
}

static tensor input(const void *acts) { return ((const head_acts *)acts)->x; }

int64_t head_rows(const moai_ctx *c, const head_weights *w)
{
    const size_t row_bytes = (size_t)w->map.w.rows * dtype_size(c->dt);

    return min_i64(c->n_tokens, max_i64(1, (int64_t)(head_logits_bytes / row_bytes / LOGITS_ROWS)) * LOGITS_ROWS);
}

/* Losses, and the gradient into dn_part, of the rows from row0 on that n_full has. */
static void chunk(const moai_ctx *c, const device_batch *b, head_weights *w, float *nll, tensor n_full, tensor dn_part,
                  int64_t row0)
{
    const moai_ops *op = c->ops;
    const comm *tp = &c->grid->tp;
    const size_t mark = arena_mark(c->scratch);
    const int64_t n = n_full.rows;
    const int32_t *targets = b->targets + row0;
    const float *weights = b->is_weighted ? b->weights + row0 : NULL;
    tensor logits = arena_tensor(c->scratch, c->dt, n, w->map.w.rows);
    float *stats_all = arena_take(c->scratch, (size_t)(tp->size * n * 3) * sizeof(float));
    float *stats = stats_all ? stats_all + tp->rank * n * 3 : NULL;             /* this rank's place in the whole    */

    linear_forward(c, logits, n_full, &w->map, NULL);                           /* (n, V/tp)                         */
    op->softmax_stats(c->dev, stats, logits, targets, w->vocab_begin);          /* (n, 3)                            */
    comm_request gathered = all_gather_begin(tp, stats_all, stats, (size_t)n * 3, DT_F32);
    comm_end(&gathered);                                                        /* (tp, n, 3)                        */
    op->cross_entropy(c->dev, nll + row0, logits, stats_all, tp->size, targets, weights, w->vocab_begin,
                      b->scale);
    if (b->scale != 0) {
        linear_dx(c, dn_part, logits, &w->map, NULL);                           /* (n, H)          partial sum       */
        linear_dw(c, &w->map, logits, n_full, NULL);                            /* (V/tp, H)                         */
    }
    arena_release(c->scratch, mark);
}

/* The same of those of the picked rows from row0 on, which are taken from n_full and whose gradients are laid into
 * dn_part, between rows of zeros. */
static void picked_chunk(const moai_ctx *c, const device_batch *b, head_weights *w, float *nll, tensor n_full,
                         tensor dn_part, int64_t row0, int64_t n_rows)
{
    const int64_t end = row0 + n_rows, from = row0 ? b->host_picked[row0] : 0,
                  to = end < b->n_picked && b->host_picked[end] >= 0 ? b->host_picked[end] : n_full.rows;
    const size_t mark = arena_mark(c->scratch);
    tensor n = arena_tensor(c->scratch, c->dt, n_rows, n_full.cols),
           dn = arena_tensor(c->scratch, c->dt, n_rows, n_full.cols);

    c->ops->embed(c->dev, n, b->picked + row0, n_full, 0);
    chunk(c, b, w, nll, n, dn, row0);
    if (b->scale != 0) c->ops->embed(c->dev, tensor_rows(dn_part, from, to - from), b->places + from, dn, row0);
    arena_release(c->scratch, mark);
}

/* dx is written where there is a gradient. */
static void forward(const moai_ctx *c, const device_batch *b, void *weights, void *acts, tensor dx, stream_owed *owed)
{
    const moai_ops *op = c->ops;
    head_weights *w = weights;
    head_acts *a = acts;
    const size_t mark = arena_mark(c->scratch);
    const tensor x = stream_one(c, a->x), dx_one = stream_one(c, dx);
    stream_acts joined = stream_head_acts(c, &w->streams, x.rows);
    tensor n = arena_tensor(c->scratch, c->dt, x.rows, x.cols), n_full = tp_full(c, n);
    float *r = arena_take(c->scratch, (size_t)x.rows * sizeof(float));
    tensor dn_part = b->scale != 0 ? arena_tensor(c->scratch, c->dt, c->n_tokens, x.cols) : (tensor){0};

    stream_settle(c, a->x, owed);                                               /* (N/tp, nH)                        */
    stream_join(c, x, a->x, &w->streams, &joined);
    op->rmsnorm(c->dev, n, r, x, w->norm.w, (float)c->cfg->rms_norm_eps);       /* (N/tp, H)                         */
    tp_all_gather(c, n_full, n);                                                /* (N, H)                            */
    const int64_t n_rows = b->n_picked ? b->n_picked : c->n_tokens;
    for (int64_t row = 0, rows = head_rows(c, w); row < n_rows; row += rows) {
        rows = min_i64(rows, n_rows - row);
        if (b->n_picked)
            picked_chunk(c, b, w, a->nll, n_full, dn_part, row, rows);
        else
            chunk(c, b, w, a->nll, tensor_rows(n_full, row, rows), tensor_rows(dn_part, row, rows), row);
    }
    op->sum(c->dev, b->loss_sum, a->nll, n_rows);
    if (b->scale != 0) {
        tensor dn = c->grid->tp.size == 1 ? dn_part : n;
        tp_reduce_scatter(c, dn, dn_part);                                      /* (N/tp, H)                         */
        op->rmsnorm_backward(c->dev, dx_one, w->norm.dw, dn, (tensor){0}, x, r, w->norm.w);
        stream_join_backward(c, dx, dx_one, a->x, &w->streams, &joined);        /* (N/tp, nH)                        */
    }
    arena_release(c->scratch, mark);
}

const block_kind head_block = {.name = "head", .weights_bytes = sizeof(head_weights), .acts_bytes = sizeof(head_acts),
                               .view = view, .plan = plan, .begin = begin, .input = input, .forward = forward};
