/* optimizer.c: see optimizer.h */
#include "src/train/optimizer.h"

#include <math.h>

#define KEYS_OF adamw_options
#include "src/config/key_rows.h"

static const key_spec rows[] = {
    REAL(weight_decay, "0.1", 0, 10, "AdamW decay of the matrices", FIXED),
    /* 1 - beta in fp32 is 0 from 1 - 3e-8 on, and the root of a moment that is 0 divides */
    REAL(adam_beta1, "0.9", 0, 0.999999, "decay of the first moment", FIXED),
    REAL(adam_beta2, "0.95", 0, 0.999999, "decay of the second moment", FIXED),
    REAL(adam_epsilon, "1e-8", 1e-30, 1, "added to the root of the second moment", FIXED),
    REAL(max_grad_norm, "1", 0, 1e9, "global gradient norm is clipped to this; 0: no clipping", FIXED),
};
const key_table adamw_keys = KEY_TABLE(rows);

int adamw_check(const adamw_options *o, moai_error *err)
{
    if (o->max_grad_norm == 0 || o->max_grad_norm >= 1e-30) return 0;
    return error_set(err, "max_grad_norm is %g, must be 0 or at least 1e-30", o->max_grad_norm);
}

void totals_reduce(moai_model *m)
{
    const moai_grid *g = m->ctx.grid;
    const comm *axes[] = {&g->tp, &g->data, &g->pp};

    if (g->tp.rank != 0) m->ctx.ops->zero(m->ctx.dev, &m->totals[0], sizeof m->totals[0]);
    for (int i = 0; i < 3; i++) {
        comm_request r = all_reduce_begin(axes[i], m->totals, 2, DT_F64, REDUCE_SUM);
        comm_end(&r);
    }
}

static void square_gradients(moai_model *m)
{
    for (int b = m->params.n_buckets - 1; b >= 0; b--) {      /* in the order in which their sums began */
        const own_range r = params_counted(&m->params, m->ctx.grid, b);
        bucket_summed(&m->buckets, b);
        m->ctx.ops->sum_squares(m->ctx.dev, &m->totals[1], m->grads + r.begin, r.end - r.begin);
    }
}

static void update_own(moai_model *m, const adamw_options *o, double lr, int64_t update)
{
    const moai_ctx *c = &m->ctx;
    const tensor flat = tensor_of(m->weights, c->dt, 1, m->params.n_elem);

    for (int b = 0; b < m->params.n_buckets; b++) {
        bucket_updating(&m->buckets, b);
        const bucket *k = &m->params.buckets[b];
        const own_range r = params_own(&m->params, b, c->grid->data.size, c->grid->data.rank);
        const int64_t n = r.end - r.begin;
        c->ops->adamw(c->dev, &(adamw_args){.master = state_floats(&m->states, STATE_WEIGHT, r.own),
                                            .m = state_floats(&m->states, STATE_EXP_AVG, r.own),
                                            .v = state_floats(&m->states, STATE_EXP_AVG_SQ, r.own),
                                            .param = tensor_at(flat, 0, r.begin), .param_dt = c->dt,
                                            .grad = m->grads + r.begin, .n = n,
                                            .n_decay = max_i64(0, min_i64(n, k->offset + k->n_decayed - r.begin)),
                                            .grad_scale = m->grad_scale, .lr = (float)lr,
                                            .beta1 = (float)o->adam_beta1, .beta2 = (float)o->adam_beta2,
                                            .eps = (float)o->adam_epsilon, .weight_decay = (float)o->weight_decay,
                                            .t = update});
        bucket_updated(&m->buckets, b);
    }
}

void gradients_finish(moai_model *m)
{
    const moai_ctx *c = &m->ctx;

    c->ops->phase(c->dev, "optimizer", -1);
    buckets_end(&m->buckets);
    square_gradients(m);
    totals_reduce(m);
}

void optimizer_update(moai_model *m, const adamw_options *o, double lr, int64_t update, double loss_scale)
{
    const moai_ctx *c = &m->ctx;

    c->ops->clip(c->dev, m->grad_scale, &m->totals[1], (float)o->max_grad_norm, (float)(1 / loss_scale));
    update_own(m, o, lr, update);
}

step_result step_totals(moai_model *m, double loss_scale)
{
    const moai_ctx *c = &m->ctx;
    double totals[2];

    c->ops->copy(c->dev, totals, m->totals, sizeof totals, COPY_TO_HOST);
    c->ops->sync(c->dev);
    return (step_result){.loss_sum = totals[0], .grad_norm = sqrt(totals[1]) / loss_scale,
                         .skipped = !isfinite(totals[1])};
}

step_result optimizer_step(moai_model *m, const adamw_options *o, double lr, int64_t update, double loss_scale)
{
    gradients_finish(m);
    optimizer_update(m, o, lr, update, loss_scale);
    step_result r = step_totals(m, loss_scale);
    m->ctx.ops->phase(m->ctx.dev, NULL, -1);
    return r;
}

void weights_from_master(moai_model *m)
{
    const moai_ctx *c = &m->ctx;
    const tensor flat = tensor_of(m->weights, c->dt, 1, m->params.n_elem),
                 own = tensor_of(state_floats(&m->states, STATE_WEIGHT, 0), DT_F32, 1, m->params.n_own);

    for (int b = 0; b < m->params.n_buckets; b++) {
        const own_range r = params_own(&m->params, b, c->grid->data.size, c->grid->data.rank);
        bucket_updating(&m->buckets, b);
        if (own.data != m->weights)
            c->ops->cast(c->dev, tensor_cols(flat, r.begin, r.end - r.begin), tensor_cols(own, r.own, r.end - r.begin));
        bucket_updated(&m->buckets, b);
    }
    for (int b = 0; b < m->params.n_buckets; b++) bucket_acquire(&m->buckets, b), bucket_release(&m->buckets, b);
}
