/* stream.c: see stream.h */
#include "src/model/stream.h"

static float eps_of(const moai_ctx *c) { return (float)c->cfg->rms_norm_eps; }

static tensor sum_of_products(const moai_ctx *c, tensor branch, const linear *l, const linear_acts *acts)
{
    tensor part = arena_tensor(c->scratch, c->dt, c->n_tokens, l->w.rows);

    linear_forward(c, part, branch, l, acts);                                   /* (N, H)          partial sum       */
    return tp_sum_rows(c, part);                                                /* (N/tp, H)                         */
}

void stream_read(const moai_ctx *c, tensor n, float *r, tensor x, const norm_weight *norm)
{
    c->ops->rmsnorm(c->dev, n, r, x, norm->w, eps_of(c));
}

void stream_add(const moai_ctx *c, tensor y, tensor x, tensor branch, const linear *l, const linear_acts *acts)
{
    const size_t mark = arena_mark(c->scratch);

    if (c->grid->tp.size == 1)
        linear_add(c, y, x, branch, l, acts);
    else
        c->ops->add(c->dev, y, x, sum_of_products(c, branch, l, acts));
    arena_release(c->scratch, mark);
}

void stream_add_read(const moai_ctx *c, tensor h, tensor n, float *r, tensor x, tensor branch, const linear *l,
                     const linear_acts *acts, const norm_weight *norm)
{
    const size_t mark = arena_mark(c->scratch);

    if (c->grid->tp.size == 1) {
        linear_add(c, h, x, branch, l, acts);
        c->ops->rmsnorm(c->dev, n, r, h, norm->w, eps_of(c));
    } else {
        c->ops->residual_rmsnorm(c->dev, h, n, r, x, sum_of_products(c, branch, l, acts), norm->w, eps_of(c));
    }
    arena_release(c->scratch, mark);
}

void stream_read_backward(const moai_ctx *c, tensor dx, tensor dn, tensor x, const float *r, norm_weight *norm)
{
    c->ops->rmsnorm_backward(c->dev, dx, norm->dw, dn, dx, x, r, norm->w);
}
