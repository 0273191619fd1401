/* stream.c: see stream.h */
#include "src/model/stream.h"

#include <stdlib.h>

static float eps_of(const moai_ctx *c) { return (float)c->cfg->rms_norm_eps; }
static bool is_one(const moai_ctx *c) { return c->hc.n <= 1; }

stream_weights stream_view(const flat_params *f, const char *name, const char *hc)
{
    char *fn = xasprintf("%s.fn", hc), *base = xasprintf("%s.base", hc), *scale = xasprintf("%s.scale", hc);
    const stream_weights w = {norm_view(f, name), linear_view(f, fn), norm_view(f, base), norm_view(f, scale)};

    CHECK(w.norm.w.rows, "no parameter %s on this rank", name);
    free(fn), free(base), free(scale);
    return w;
}

void stream_begin(stream_weights *w) { w->fn.adds = false; }

void stream_acts_plan(stream_acts *a, const moai_ctx *c, arena *saved)
{
    const int64_t n = c->n_rows, H = c->cfg->hidden_size;

    *a = (stream_acts){0};
    if (is_one(c)) return;
    a->raw = arena_tensor(saved, DT_F32, n, hc_n_raw(c->hc));
    a->coef = arena_tensor(saved, DT_F32, n, hc_n_coef(c->hc));
    a->r = arena_take(saved, (size_t)n * sizeof(float));
    a->y = arena_tensor(saved, c->dt, n, H);
}

/* -- forward -- */

void stream_read_again(const moai_ctx *c, tensor n, float *r, tensor x, const stream_weights *w, const stream_acts *a)
{
    if (is_one(c))
        c->ops->rmsnorm(c->dev, n, r, x, w->norm.w, eps_of(c));
    else
        c->ops->hc_read_norm(c->dev, n, r, x, a->coef, w->norm.w, eps_of(c), c->hc.n); /* (N/tp, H)                  */
}

void stream_read(const moai_ctx *c, tensor n, float *r, tensor x, const stream_weights *w, stream_acts *a,
                 stream_owed owed)
{
    if (owed.x.rows)
        c->ops->hc_merge_coefficients(c->dev, x, a->coef, a->raw, a->r, owed.x, owed.y, owed.coef, w->fn.w, w->base.w,
                                      w->scale.w, c->hc);                       /* (N/tp, nH)                        */
    else if (!is_one(c))
        c->ops->hc_coefficients(c->dev, a->coef, a->raw, a->r, x, w->fn.w, w->base.w, w->scale.w, c->hc);
    stream_read_again(c, n, r, x, w, a);
}

/* y (N/tp, H) = branch W^T, summed over the tensor axis */
static void branch_result(const moai_ctx *c, tensor y, tensor branch, const linear *l, const linear_acts *acts)
{
    tensor part = tp_full(c, y);

    linear_forward(c, part, branch, l, acts);                                   /* (N, H)          partial sum       */
    if (tp_splits_rows(c))
        tp_reduce_scatter(c, y, part);
    else
        tp_all_reduce(c, y);
}

static tensor branch_in_scratch(const moai_ctx *c, tensor branch, const linear *l, const linear_acts *acts)
{
    tensor y = arena_tensor(c->scratch, c->dt, c->n_rows, l->w.rows);

    branch_result(c, y, branch, l, acts);
    return y;
}

/* To one stream. */
static void add_one(const moai_ctx *c, tensor y, tensor x, tensor branch, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    if (c->grid->tp.size == 1)
        linear_add(c, y, x, branch, l, acts);
    else
        c->ops->add(c->dev, y, x, branch_in_scratch(c, branch, l, acts));
    arena_release(c->scratch, mark);
}

/* The streams that the branch's result a->y goes to, when it is there. */
static stream_owed add_all(const moai_ctx *c, tensor x, tensor branch, const linear *l, const linear_acts *acts,
                           stream_acts *a)
{
    const size_t mark = arena_mark(c->scratch);

    branch_result(c, a->y, branch, l, acts);                                    /* (N/tp, H)                         */
    arena_release(c->scratch, mark);
    return (stream_owed){x, a->y, a->coef};
}

stream_owed stream_add(const moai_ctx *c, tensor y, tensor x, tensor branch, const linear *l, const linear_acts *acts,
                       stream_acts *a)
{
    if (!is_one(c)) return add_all(c, x, branch, l, acts, a);
    add_one(c, y, x, branch, l, acts);
    return (stream_owed){0};
}

void stream_add_read(const moai_ctx *c, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *l,
                     const linear_acts *acts, stream_acts *from, const stream_weights *next, stream_acts *to)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_one(c) && c->grid->tp.size > 1)
        c->ops->residual_rmsnorm(c->dev, h, n, r, x, branch_in_scratch(c, branch, l, acts), next->norm.w, eps_of(c));
    else
        stream_read(c, n, r, h, next, to, stream_add(c, h, x, branch, l, acts, from));
    arena_release(c->scratch, mark);
}

void stream_settle(const moai_ctx *c, tensor x, stream_owed *owed)
{
    if (owed->x.rows) c->ops->hc_merge(c->dev, x, owed->x, owed->y, owed->coef, c->hc.n); /* (N/tp, nH)              */
    *owed = (stream_owed){0};
}

void stream_add_again(const moai_ctx *c, tensor y, tensor x, const stream_acts *a)
{
    stream_owed owed = {x, a->y, a->coef};

    stream_settle(c, y, &owed);                                                 /* (N/tp, nH)                        */
}

/* -- backward -- */

/* Of a reading of shape s: what hc_read_backward writes, in scratch. */
static void take_draw(const moai_ctx *c, hc_reading *a, hc_shape s)
{
    const int64_t n_raw = hc_n_raw(s);

    a->draw = tensor_cols(arena_tensor(c->scratch, c->dt, c->n_rows, round_up(n_raw, 8)), 0, n_raw);
    a->along = arena_tensor(c->scratch, DT_F32, c->n_rows, 2);
}

void stream_gradient_gather(const moai_ctx *c, stream_gradient *d)
{
    if (is_one(c)) tp_rows_gather(c, &d->rows);
}

stream_gradient stream_gradient_begin(const moai_ctx *c, tensor dx)
{
    stream_gradient d = {.rows.part = dx};

    if (is_one(c)) {
        d.rows.full = tp_full(c, dx);
    } else {
        d.due.dn = arena_tensor(c->scratch, c->dt, c->n_rows, c->cfg->hidden_size);
        take_draw(c, &d.due, c->hc);
    }
    stream_gradient_gather(c, &d);
    return d;
}

void stream_gradient_settle(const moai_ctx *c, stream_gradient *d)
{
    if (d->is_due) c->ops->hc_streams_backward(c->dev, d->rows.part, &d->due, c->hc.n); /* (N/tp, nH)                */
    d->is_due = false;
}

tensor stream_add_backward(const moai_ctx *c, stream_gradient *d, tensor *dcoef, tensor x, const stream_acts *a)
{
    const tensor dx = d->rows.part;

    if (is_one(c)) {
        comm_end(&d->rows.ready);                                               /* (N, H)                            */
        return d->rows.full;
    }
    tensor dy = arena_tensor(c->scratch, c->dt, c->n_rows, a->y.cols), full = tp_full(c, dy);

    *dcoef = arena_tensor(c->scratch, DT_F32, c->n_rows, a->coef.cols);
    if (d->is_due)
        c->ops->hc_border_backward(c->dev, dx, dy, *dcoef, &d->due, x, a->y, a->coef, c->hc.n);
    else
        c->ops->hc_merge_backward(c->dev, dx, dy, *dcoef, dx, x, a->y, a->coef, c->hc.n);
    d->is_due = false;
    tp_all_gather(c, full, dy);
    return full;
}

tensor stream_norm_gradient(const moai_ctx *c, const stream_gradient *d)
{
    return is_one(c) ? arena_tensor(c->scratch, c->dt, c->n_rows, c->cfg->hidden_size) : d->due.dn;
}

/* The gradients of a reading's weights, and all of it but what hc_streams_backward then adds. */
static void reading_backward(const moai_ctx *c, hc_shape shape, const hc_reading *due, tensor dw, tensor dcoef,
                             linear *fn, const norm_weight *base, const norm_weight *scale, const stream_acts *a)
{
    c->ops->hc_read_backward(c->dev, dw, base->dw, scale->dw, dcoef, due, a->raw, a->r, base->w, scale->w, shape);
    linear_dw(c, fn, due->draw, due->x, NULL);                                  /* (n_raw, nH)                       */
}

void stream_read_backward(const moai_ctx *c, stream_gradient *d, tensor dcoef, tensor dn, tensor x, const float *r,
                          stream_weights *w, const stream_acts *a)
{
    const tensor dx = d->rows.part;

    if (is_one(c)) {
        c->ops->rmsnorm_backward(c->dev, dx, w->norm.dw, dn, dx, x, r, w->norm.w);
        return;
    }
    d->due = (hc_reading){.dn = dn, .x = x, .coef = a->coef, .w = w->norm.w, .rn = r, .fn = w->fn.w,
                          .draw = d->due.draw, .along = d->due.along};
    d->is_due = true;
    reading_backward(c, c->hc, &d->due, w->norm.dw, dcoef, &w->fn, &w->base, &w->scale, a);
}

/* -- the ends -- */

tensor stream_one(const moai_ctx *c, tensor all)
{
    return is_one(c) ? all : arena_tensor(c->scratch, all.dt, all.rows, c->cfg->hidden_size);
}

/* all_i = factor one */
static void spread(const moai_ctx *c, tensor all, tensor one, float factor)
{
    for (int i = 0; i < c->hc.n && !is_one(c); i++)
        c->ops->scale(c->dev, tensor_cols(all, i * one.cols, one.cols), one, factor);
}

/* one = factor sum_i all_i */
static void collect(const moai_ctx *c, tensor one, tensor all, float factor)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_one(c)) return;
    tensor coef = arena_tensor(c->scratch, DT_F32, all.rows, c->hc.n);
    c->ops->fill(c->dev, coef, factor);
    c->ops->hc_read(c->dev, one, all, coef, c->hc.n);
    arena_release(c->scratch, mark);
}

void stream_spread(const moai_ctx *c, tensor all, tensor one) { spread(c, all, one, 1); }

tensor stream_spread_backward(const moai_ctx *c, stream_gradient *d)
{
    if (is_one(c)) {
        comm_end(&d->rows.ready);
        return d->rows.full;
    }
    tensor done = stream_one(c, d->rows.part), full = tp_full(c, done);

    stream_gradient_settle(c, d);
    collect(c, done, d->rows.part, 1);                                          /* (N/tp, H)                         */
    tp_all_gather(c, full, done);
    return full;
}

stream_head stream_head_view(const flat_params *f)
{
    return (stream_head){linear_view(f, "model.hc_head.hc_fn"), norm_view(f, "model.hc_head.hc_base"),
                         norm_view(f, "model.hc_head.hc_scale")};
}

static bool is_mean(const stream_head *h) { return h->fn.w.rows == 0; }

static hc_shape head_shape_of(const moai_ctx *c)
{
    hc_shape s = c->hc;

    s.reads_only = true;
    return s;
}

stream_acts stream_head_acts(const moai_ctx *c, const stream_head *h, int64_t n_rows)
{
    stream_acts a = {0};

    if (is_mean(h)) return a;
    a.raw = arena_tensor(c->scratch, DT_F32, n_rows, c->hc.n);
    a.coef = arena_tensor(c->scratch, DT_F32, n_rows, c->hc.n);
    a.r = arena_take(c->scratch, (size_t)n_rows * sizeof(float));
    return a;
}

void stream_join(const moai_ctx *c, tensor one, tensor all, const stream_head *h, stream_acts *a)
{
    if (is_mean(h)) {
        collect(c, one, all, 1 / (float)c->hc.n);
        return;
    }
    c->ops->hc_coefficients(c->dev, a->coef, a->raw, a->r, all, h->fn.w, h->base.w, h->scale.w, head_shape_of(c));
    c->ops->hc_read(c->dev, one, all, a->coef, c->hc.n);                        /* (N/tp, H)                         */
}

void stream_join_backward(const moai_ctx *c, tensor dall, tensor done, tensor all, stream_head *h,
                          const stream_acts *a)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_mean(h)) {
        spread(c, dall, done, 1 / (float)c->hc.n);
        return;
    }
    const hc_shape shape = head_shape_of(c);
    hc_reading due = {.dn = done, .x = all, .coef = a->coef, .fn = h->fn.w};
    tensor dcoef = arena_tensor(c->scratch, DT_F32, all.rows, c->hc.n);

    take_draw(c, &due, shape);
    reading_backward(c, shape, &due, (tensor){0}, dcoef, &h->fn, &h->base, &h->scale, a);
    c->ops->fill(c->dev, dall, 0);
    c->ops->hc_streams_backward(c->dev, dall, &due, c->hc.n);                   /* (N/tp, nH)                        */
    arena_release(c->scratch, mark);
}
