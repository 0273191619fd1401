/* layer.c: see layer.h.  Forward and backward are the same list, read downwards and upwards. */
#include "src/model/layer.h"

#include <stdio.h>

static tensor view(const param_table *t, int64_t layer, const char *name, void *flat, dtype dt)
{
    char full[88];

    snprintf(full, sizeof full, "model.layers.%lld.%s.weight", (long long)layer, name);
    const param *p = params_find(t, full);
    CHECK(p, "no parameter %s on this rank", full);
    tensor base = tensor_of(flat, dt, 1, t->n_elem);
    return tensor_of(tensor_at(base, 0, p->offset), dt, p->n_rows, p->n_cols);
}

/* Neighbours in memory seen as one matrix. */
static tensor join(tensor a, tensor b) { return tensor_of(a.data, a.dt, a.rows + b.rows, a.cols); }

layer_weights layer_view(const param_table *t, int64_t layer, void *flat, dtype dt)
{
    tensor q = view(t, layer, "self_attn.q_proj", flat, dt);
    tensor k = view(t, layer, "self_attn.k_proj", flat, dt);
    tensor v = view(t, layer, "self_attn.v_proj", flat, dt);
    tensor gate = view(t, layer, "mlp.gate_proj", flat, dt);
    tensor up = view(t, layer, "mlp.up_proj", flat, dt);

    return (layer_weights){.norm1 = view(t, layer, "input_layernorm", flat, dt),
                           .norm2 = view(t, layer, "post_attention_layernorm", flat, dt),
                           .wqkv = join(q, join(k, v)),
                           .q_norm = view(t, layer, "self_attn.q_norm", flat, dt),
                           .k_norm = view(t, layer, "self_attn.k_norm", flat, dt),
                           .wo = view(t, layer, "self_attn.o_proj", flat, dt),
                           .wgate_up = join(gate, up),
                           .wdown = view(t, layer, "mlp.down_proj", flat, dt)};
}

void layer_acts_plan(layer_acts *a, const moai_ctx *c, arena *saved, arena *shared)
{
    const comm *tp = &c->grid->tp;
    const int64_t N = c->n_tokens, n = c->n_rows, H = c->cfg->hidden_size;
    const int64_t I = share_begin(c->cfg->intermediate_size, tp->size, tp->rank + 1) -
                      share_begin(c->cfg->intermediate_size, tp->size, tp->rank);
    const int64_t Q = ctx_q_cols(c), K = ctx_kv_cols(c), heads = c->heads.n_heads, kv_heads = c->heads.n_kv_heads;
    arena *selective = c->recompute == RECOMPUTE_NONE ? saved : shared;
    arena *full = c->recompute == RECOMPUTE_FULL ? shared : saved;
    const size_t f = sizeof(float);

    a->x = arena_tensor(saved, c->dt, n, H);
    a->n1 = arena_tensor(selective, c->dt, n, H);
    a->r1 = arena_take(selective, (size_t)n * f);
    a->qkv = arena_tensor(full, c->dt, N, Q + 2 * K);
    a->qk = arena_tensor(selective, c->dt, N, Q + K);
    a->rqk = arena_take(selective, (size_t)(N * (heads + kv_heads)) * f);
    a->att = arena_tensor(full, c->dt, N, Q);
    a->lse = arena_take(full, (size_t)(N * heads) * f);
    a->h = arena_tensor(full, c->dt, n, H);
    a->n2 = arena_tensor(selective, c->dt, n, H);
    a->r2 = arena_take(selective, (size_t)n * f);
    a->gate_up = arena_tensor(full, c->dt, N, 2 * I);
    a->act = arena_tensor(selective, c->dt, N, I);
}

/* The residual connection, twice: y = x + branch W^T, alone and followed by the next norm.  A rank that holds all of
 * W adds inside the product; otherwise the partial products of the tensor axis are summed first. */
static tensor sum_of_products(const moai_ctx *c, tensor branch, tensor w)
{
    tensor part = arena_tensor(c->scratch, c->dt, c->n_tokens, w.rows);
    tensor sum = arena_tensor(c->scratch, c->dt, c->n_rows, w.rows);

    c->ops->matmul(c->dev, part, branch, w);                                    /* (N, H)          partial sum       */
    tp_reduce_scatter(c, sum, part);                                            /* (N/tp, H)                         */
    return sum;
}

static void residual(const moai_ctx *c, tensor y, tensor x, tensor branch, tensor w)
{
    const size_t mark = arena_mark(c->scratch);

    if (c->grid->tp.size == 1)
        c->ops->matmul_add(c->dev, y, branch, w, x);
    else
        c->ops->add(c->dev, y, x, sum_of_products(c, branch, w));
    arena_release(c->scratch, mark);
}

static void residual_rmsnorm(const moai_ctx *c, tensor h, tensor n, float *r, tensor x, tensor branch, tensor w,
                             tensor norm)
{
    const float eps = (float)c->cfg->rms_norm_eps;
    const size_t mark = arena_mark(c->scratch);

    if (c->grid->tp.size == 1) {
        c->ops->matmul_add(c->dev, h, branch, w, x);
        c->ops->rmsnorm(c->dev, n, r, h, norm, eps);
    } else {
        c->ops->residual_rmsnorm(c->dev, h, n, r, x, sum_of_products(c, branch, w), norm, eps);
    }
    arena_release(c->scratch, mark);
}

/* Everything up to SwiGLU: what full recomputation repeats. */
static void forward_to_gate_up(const moai_ctx *c, const layer_weights *w, layer_acts *a)
{
    const moai_ops *op = c->ops;
    const float eps = (float)c->cfg->rms_norm_eps;
    const size_t mark = arena_mark(c->scratch);
    tensor n1_full = tp_full(c, a->n1), n2_full = tp_full(c, a->n2);

    op->rmsnorm(c->dev, a->n1, a->r1, a->x, w->norm1, eps);                     /* (N/tp, H)       sequence parallel */
    tp_all_gather(c, n1_full, a->n1);                                           /* (N, H)                            */
    op->matmul(c->dev, a->qkv, n1_full, w->wqkv);                               /* (N, (Q+2K)/tp)                    */
    op->qknorm_rope(c->dev, a->qk, a->rqk, a->qkv, w->q_norm, w->k_norm,        /* (N, (Q+K)/tp)                     */
                    c->rope, c->positions, c->heads, eps);
    op->attend(c->dev, a->att, a->lse,                                          /* (N, Q/tp)       causal            */
               q_of(c, a->qk), k_of(c, a->qk), v_of(c, a->qkv), c->heads);
    residual_rmsnorm(c, a->h, a->n2, a->r2, a->x, a->att, w->wo, w->norm2);     /* (N/tp, H)       h = x + Wo att    */
    tp_all_gather(c, n2_full, a->n2);                                           /* (N, H)                            */
    op->matmul(c->dev, a->gate_up, n2_full, w->wgate_up);                       /* (N, 2I/tp)                        */
    arena_release(c->scratch, mark);
}

void layer_forward(const moai_ctx *c, const layer_weights *w, layer_acts *a, tensor y)
{
    forward_to_gate_up(c, w, a);
    c->ops->swiglu(c->dev, a->act, a->gate_up);                                 /* (N, I/tp)                         */
    residual(c, y, a->h, a->act, w->wdown);                                     /* (N/tp, H)       y = h + Wdown act */
}

/* Brings back what the forward did not keep, but SwiGLU's result, which its backward gives by the way: the same
 * arithmetic on the same inputs, hence the same bits (rmsnorm(h) is what residual_rmsnorm left of h, see t1-norm). */
static void recompute(const moai_ctx *c, const layer_weights *w, layer_acts *a)
{
    const moai_ops *op = c->ops;
    const float eps = (float)c->cfg->rms_norm_eps;

    if (c->recompute == RECOMPUTE_FULL) forward_to_gate_up(c, w, a);
    if (c->recompute == RECOMPUTE_SELECTIVE) {
        op->rmsnorm(c->dev, a->n1, a->r1, a->x, w->norm1, eps);
        op->qknorm_rope(c->dev, a->qk, a->rqk, a->qkv, w->q_norm, w->k_norm, c->rope, c->positions, c->heads, eps);
        op->rmsnorm(c->dev, a->n2, a->r2, a->h, w->norm2, eps);
    }
}

/* From the gradient at y = h + Wdown act to that at h.  Each of the two weights' products runs beside a collective. */
static void mlp_backward(const moai_ctx *c, const layer_weights *w, const layer_weights *g, layer_acts *a, tp_rows *d)
{
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n2_full = tp_full(c, a->n2);
    tensor dact = arena_tensor(c->scratch, c->dt, a->act.rows, a->act.cols);
    tensor dgate_up = a->gate_up;                                               /* in place                          */
    tensor act_again = c->recompute == RECOMPUTE_NONE ? (tensor){0} : a->act;
    tensor dn2_part = arena_tensor(c->scratch, c->dt, c->n_tokens, a->n2.cols);
    tensor dn2 = c->grid->tp.size == 1 ? dn2_part : arena_tensor(c->scratch, c->dt, c->n_rows, a->n2.cols);

    comm_request n2_ready = tp_all_gather_begin(c, n2_full, a->n2);             /* (N, H)          needed last       */
    comm_end(&d->ready);                                                        /* (N, H)                            */
    op->matmul_dx(c->dev, dact, d->full, w->wdown);                             /* (N, I/tp)                         */
    op->swiglu_backward(c->dev, dgate_up, act_again, dact, a->gate_up);         /* (N, 2I/tp)                        */
    op->matmul_dx(c->dev, dn2_part, dgate_up, w->wgate_up);                     /* (N, H)          partial sum       */
    comm_request dn2_ready = tp_reduce_scatter_begin(c, dn2, dn2_part);         /* (N/tp, H)       beside dWdown     */
    op->matmul_dw(c->dev, g->wdown, d->full, a->act, c->accumulate);            /* (H, I/tp)                         */
    comm_end(&dn2_ready);
    op->rmsnorm_backward(c->dev, d->part, g->norm2, dn2, d->part,               /* (N/tp, H)       dh = dy + ...     */
                         a->h, a->r2, w->norm2);
    tp_rows_gather(c, d);                                                       /* (N, H)          beside dWgate_up  */
    comm_end(&n2_ready);
    op->matmul_dw(c->dev, g->wgate_up, dgate_up, n2_full, c->accumulate);       /* (2I/tp, H)                        */
    arena_release(c->scratch, mark);
}

/* From the gradient at h = x + Wo att to that at x. */
static void attention_backward(const moai_ctx *c, const layer_weights *w, const layer_weights *g, layer_acts *a,
                               tp_rows *d, bool gather)
{
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n1_full = tp_full(c, a->n1);
    tensor datt = arena_tensor(c->scratch, c->dt, a->att.rows, a->att.cols);
    tensor dqk = arena_tensor(c->scratch, c->dt, a->qk.rows, a->qk.cols);
    tensor dqkv = arena_tensor(c->scratch, c->dt, a->qkv.rows, a->qkv.cols);
    tensor dn1_part = arena_tensor(c->scratch, c->dt, c->n_tokens, a->n1.cols);
    tensor dn1 = c->grid->tp.size == 1 ? dn1_part : arena_tensor(c->scratch, c->dt, c->n_rows, a->n1.cols);

    comm_request n1_ready = tp_all_gather_begin(c, n1_full, a->n1);             /* (N, H)          needed last       */
    comm_end(&d->ready);                                                        /* (N, H)                            */
    op->matmul_dx(c->dev, datt, d->full, w->wo);                                /* (N, Q/tp)                         */
    op->attend_backward(c->dev, q_of(c, dqk), k_of(c, dqk), v_of(c, dqkv),      /* (N, (Q+K)/tp), (N, K/tp)          */
                        datt, q_of(c, a->qk), k_of(c, a->qk), v_of(c, a->qkv), a->att, a->lse, c->heads);
    op->qknorm_rope_backward(c->dev, dqkv, g->q_norm, g->k_norm, dqk,           /* (N, (Q+2K)/tp)                    */
                             a->qkv, a->rqk, w->q_norm, w->k_norm, c->rope, c->positions, c->heads);
    op->matmul_dx(c->dev, dn1_part, dqkv, w->wqkv);                             /* (N, H)          partial sum       */
    comm_request dn1_ready = tp_reduce_scatter_begin(c, dn1, dn1_part);         /* (N/tp, H)       beside dWo        */
    op->matmul_dw(c->dev, g->wo, d->full, a->att, c->accumulate);               /* (H, Q/tp)                         */
    comm_end(&dn1_ready);
    op->rmsnorm_backward(c->dev, d->part, g->norm1, dn1, d->part,               /* (N/tp, H)       dx = dh + ...     */
                         a->x, a->r1, w->norm1);
    if (gather) tp_rows_gather(c, d);                                           /* (N, H)          beside dWqkv      */
    comm_end(&n1_ready);
    op->matmul_dw(c->dev, g->wqkv, dqkv, n1_full, c->accumulate);               /* ((Q+2K)/tp, H)                    */
    arena_release(c->scratch, mark);
}

void layer_backward(const moai_ctx *c, const layer_weights *w, const layer_weights *g, layer_acts *a, tp_rows *d,
                    bool gather)
{
    recompute(c, w, a);
    mlp_backward(c, w, g, a, d);
    attention_backward(c, w, g, a, d, gather);
}
