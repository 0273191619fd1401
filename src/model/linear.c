/* linear.c: see linear.h */
#include "src/model/linear.h"

static tensor view(const flat_params *f, const param *p, void *flat, dtype dt)
{
    const tensor base = tensor_of(flat, dt, 1, f->table->n_elem);

    return tensor_of(tensor_at(base, 0, p->offset), dt, p->n_rows, p->n_cols);
}

linear linear_view(const flat_params *f, const char *name)
{
    const param *p = params_find(f->table, name);

    if (!p) return (linear){0};
    return (linear){.w = view(f, p, f->weights, f->dt), .dw = view(f, p, f->grads, DT_F32), .is_trained = f->trains};
}

norm_weight norm_view(const flat_params *f, const char *name)
{
    const param *p = params_find(f->table, name);

    if (!p) return (norm_weight){0};
    return (norm_weight){.w = view(f, p, f->weights, f->dt), .dw = view(f, p, f->grads, DT_F32)};
}

static tensor join(tensor a, tensor b) { return tensor_of(a.data, a.dt, a.rows + b.rows, a.cols); }

linear linear_join(linear a, linear b)
{
    return (linear){.w = join(a.w, b.w), .dw = join(a.dw, b.dw), .is_trained = a.is_trained};
}

void linear_forward(const moai_ctx *c, tensor y, tensor x, const linear *l) { c->ops->matmul(c->dev, y, x, l->w); }

void linear_add(const moai_ctx *c, tensor y, tensor z, tensor x, const linear *l)
{
    c->ops->matmul_add(c->dev, y, x, l->w, z);
}

void linear_dx(const moai_ctx *c, tensor dx, tensor dy, const linear *l) { c->ops->matmul_dx(c->dev, dx, dy, l->w, false); }

void linear_dw(const moai_ctx *c, linear *l, tensor dy, tensor x)
{
    if (!l->is_trained) return;
    c->ops->matmul_dw(c->dev, l->dw, dy, x, l->adds);
    l->adds = true;
}
