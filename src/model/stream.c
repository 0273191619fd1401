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
    a->coef = arena_tensor(again, DT_F32, n, hc_n_coef(c->hc.n));
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

static tensor sum_of_products(const moai_ctx *c, tensor branch, const linear *l, const linear_acts *acts)
{
    tensor part = arena_tensor(c->scratch, c->dt, c->n_tokens, l->w.rows);

    linear_forward(c, part, branch, l, acts);                                   /* (N, H)          partial sum       */
    return tp_sum_rows(c, part);                                                /* (N/tp, H)                         */
}

/* y (N/tp, H) = branch W^T */
static void branch_result(const moai_ctx *c, tensor y, tensor branch, const linear *l, const linear_acts *acts)
{
    tensor part = tp_full(c, y);

    linear_forward(c, part, branch, l, acts);
    if (tp_splits_rows(c))
        tp_reduce_scatter(c, y, part);
    else
        tp_all_reduce(c, y);
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
        c->ops->add(c->dev, y, x, sum_of_products(c, branch, l, acts));
    }
    arena_release(c->scratch, mark);
}

void stream_add_read(const moai_ctx *c, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *l,
                     const linear_acts *acts, stream_acts *from, const stream_weights *next, stream_acts *to)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_one(c) && c->grid->tp.size > 1) {
        c->ops->residual_rmsnorm(c->dev, h, n, r, x, sum_of_products(c, branch, l, acts), next->norm.w, eps_of(c));
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

static void coefficients_backward(const moai_ctx *c, tensor dx, tensor dcoef, tensor du, tensor x, stream_weights *w,
                                  const stream_acts *a)
{
    const moai_ops *op = c->ops;
    tensor dh = arena_tensor(c->scratch, DT_F32, x.rows, a->raw.cols),
           draw = arena_tensor(c->scratch, c->dt, x.rows, a->raw.cols);

    op->hc_coefficients_backward(c->dev, dx, dh, draw, dcoef, du, x, a->raw, a->r, a->coef, w->base.w, w->scale.w,
                                 c->hc);
    op->matmul_dx(c->dev, dx, draw, w->fn.w, true);                             /* (N/tp, nH)                        */
    linear_dw(c, &w->fn, draw, x, NULL);                                        /* (n_raw, nH)                       */
    if (w->base.dw.data)
        op->hc_parameters_backward(c->dev, w->base.dw, w->scale.dw, dh, a->raw, a->r, c->hc);
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
        coefficients_backward(c, d->part, dcoef, du, x, w, a);
    }
    arena_release(c->scratch, mark);
}

/* -- the ends -- */

tensor stream_one(const moai_ctx *c, tensor all)
{
    return is_one(c) ? all : arena_tensor(c->scratch, all.dt, all.rows, c->cfg->hidden_size);
}

void stream_spread(const moai_ctx *c, tensor all, tensor one, float factor)
{
    for (int i = 0; i < c->hc.n && !is_one(c); i++)
        c->ops->scale(c->dev, tensor_cols(all, i * one.cols, one.cols), one, factor);
}

void stream_collect(const moai_ctx *c, tensor one, tensor all, float factor)
{
    const size_t mark = arena_mark(c->scratch);

    if (is_one(c)) return;
    tensor coef = arena_tensor(c->scratch, DT_F32, all.rows, hc_n_coef(c->hc.n));
    c->ops->fill(c->dev, coef, factor);
    c->ops->hc_read(c->dev, one, all, coef, c->hc.n);
    arena_release(c->scratch, mark);
}
