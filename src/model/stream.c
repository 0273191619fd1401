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

void stream_acts_plan(stream_acts *a, const moai_ctx *c, arena *again, arena *kept)
{
    const int64_t n = c->n_rows, H = c->cfg->hidden_size;

    *a = (stream_acts){0};
    if (is_one(c)) return;
    a->u = arena_tensor(again, c->dt, n, H);
    a->raw = arena_tensor(again, DT_F32, n, hc_n_raw(c->hc));
    a->coef = arena_tensor(again, DT_F32, n, hc_n_coef(c->hc));
    a->r = arena_take(again, (size_t)n * sizeof(float));
    a->y = arena_tensor(kept, c->dt, n, H);
}

/* -- a branch -- */

void stream_read(const moai_ctx *c, tensor n, float *r, tensor x, const stream_weights *w, stream_acts *a)
{
    if (!is_one(c)) {
        linear_forward(c, a->raw, x, &w->fn, NULL);                             /* (N/tp, n_raw)                     */
        c->ops->hc_coefficients(c->dev, a->coef, a->r, x, a->raw, w->base.w, w->scale.w, c->hc);
        c->ops->hc_read(c->dev, a->u, x, a->coef, c->hc.n);                     /* (N/tp, H)                         */
    }
    c->ops->rmsnorm(c->dev, n, r, is_one(c) ? x : a->u, w->norm.w, eps_of(c));
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

void stream_add(const moai_ctx *c, tensor y, tensor x, tensor branch, const linear *l, const linear_acts *acts,
                stream_acts *a)
{
    const size_t mark = arena_mark(c->scratch);

    if (!is_one(c)) {
        branch_result(c, a->y, branch, l, acts);
        c->ops->hc_merge(c->dev, y, x, a->y, a->coef, c->hc.n);                 /* (N/tp, nH)                        */
    } else if (c->grid->tp.size == 1) {
        linear_add(c, y, x, branch, l, acts);
    } else {
        c->ops->add(c->dev, y, x, branch_in_scratch(c, branch, l, acts));
    }
    arena_release(c->scratch, mark);
}

void stream_add_read(const moai_ctx *c, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *l,
                     const linear_acts *acts, stream_acts *from, const stream_weights *next, stream_acts *to)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_one(c) && c->grid->tp.size > 1) {
        c->ops->residual_rmsnorm(c->dev, h, n, r, x, branch_in_scratch(c, branch, l, acts), next->norm.w, eps_of(c));
    } else {
        stream_add(c, h, x, branch, l, acts, from);
        stream_read(c, n, r, h, next, to);
    }
    arena_release(c->scratch, mark);
}

/* -- backward -- */

void stream_gradient_gather(const moai_ctx *c, tp_rows *d)
{
    if (is_one(c)) tp_rows_gather(c, d);
}

tp_rows stream_gradient(const moai_ctx *c, tensor dx)
{
    tp_rows d = {.part = dx, .full = is_one(c) ? tp_full(c, dx) : (tensor){0}};

    stream_gradient_gather(c, &d);
    return d;
}

tensor stream_add_backward(const moai_ctx *c, tp_rows *d, tensor *dcoef, tensor x, const stream_acts *a)
{
    if (is_one(c)) {
        comm_end(&d->ready);                                                    /* (N, H)                            */
        return d->full;
    }
    tensor dy = arena_tensor(c->scratch, c->dt, c->n_rows, a->y.cols), full = tp_full(c, dy);

    *dcoef = arena_tensor(c->scratch, DT_F32, c->n_rows, a->coef.cols);
    c->ops->hc_merge_backward(c->dev, d->part, dy, *dcoef, d->part, x, a->y, a->coef, c->hc.n);
    tp_all_gather(c, full, dy);
    return full;
}

/* dx += through the coefficients that are read by; the gradients of their weights. */
static void coefficients_backward(const moai_ctx *c, hc_shape shape, tensor dx, tensor dcoef, tensor du, tensor x,
                                  linear *fn, norm_weight *base, norm_weight *scale, const stream_acts *a)
{
    const moai_ops *op = c->ops;
    tensor dh = arena_tensor(c->scratch, DT_F32, x.rows, a->raw.cols),
           draw = arena_tensor(c->scratch, c->dt, x.rows, a->raw.cols);

    op->hc_coefficients_backward(c->dev, dx, dh, draw, dcoef, du, x, a->raw, a->r, a->coef, base->w, scale->w, shape);
    op->matmul_dx(c->dev, dx, draw, fn->w, true);                               /* (N/tp, nH)                        */
    linear_dw(c, fn, draw, x, NULL);                                            /* (n_raw, nH)                       */
    if (base->dw.data) op->hc_parameters_backward(c->dev, base->dw, scale->dw, dh, a->raw, a->r, shape);
}

void stream_read_backward(const moai_ctx *c, tp_rows *d, tensor dcoef, tensor dn, tensor x, const float *r,
                          stream_weights *w, const stream_acts *a)
{
    const size_t mark = arena_mark(c->scratch);
    const tensor none = {0};

    if (is_one(c)) {
        c->ops->rmsnorm_backward(c->dev, d->part, w->norm.dw, dn, d->part, x, r, w->norm.w);
    } else {
        tensor du = arena_tensor(c->scratch, c->dt, x.rows, a->u.cols);
        c->ops->rmsnorm_backward(c->dev, du, w->norm.dw, dn, none, a->u, r, w->norm.w);
        coefficients_backward(c, c->hc, d->part, dcoef, du, x, &w->fn, &w->base, &w->scale, a);
    }
    arena_release(c->scratch, mark);
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

tensor stream_spread_backward(const moai_ctx *c, tp_rows *d)
{
    if (is_one(c)) {
        comm_end(&d->ready);
        return d->full;
    }
    tensor done = stream_one(c, d->part), full = tp_full(c, done);

    collect(c, done, d->part, 1);                                               /* (N/tp, H)                         */
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
    linear_forward(c, a->raw, all, &h->fn, NULL);                               /* (N/tp, n)                         */
    c->ops->hc_coefficients(c->dev, a->coef, a->r, all, a->raw, h->base.w, h->scale.w, head_shape_of(c));
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
    tensor dcoef = arena_tensor(c->scratch, DT_F32, all.rows, c->hc.n);
    c->ops->fill(c->dev, dall, 0);
    coefficients_backward(c, head_shape_of(c), dall, dcoef, done, all, &h->fn, &h->base, &h->scale, a);
    arena_release(c->scratch, mark);
}
