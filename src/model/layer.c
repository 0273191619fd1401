/* layer.c: see layer.h.  Forward and backward are the same list, read downwards and upwards. */
#include "src/model/layer.h"

#include "parallel/axes/context_parallel.h"

#include <stdio.h>

static const char *full_name(int64_t layer, const char *name, char full[88])
{
    snprintf(full, 88, "model.layers.%lld.%s.weight", (long long)layer, name);
    return full;
}

static linear map(const flat_params *f, int64_t layer, const char *name)
{
    char full[88];
    const linear l = linear_view(f, full_name(layer, name, full));

    CHECK(l.w.rows, "no parameter %s on this rank", full);
    return l;
}

static norm_weight norm(const flat_params *f, int64_t layer, const char *name)
{
    char full[88];
    const norm_weight n = norm_view(f, full_name(layer, name, full));

    CHECK(n.w.rows, "no parameter %s on this rank", full);
    return n;
}

static stream_weights streams(const flat_params *f, int64_t layer, const char *norm_name, const char *hc_name)
{
    char full[88], hc[88];

    snprintf(hc, sizeof hc, "model.layers.%lld.%s", (long long)layer, hc_name);
    return stream_view(f, full_name(layer, norm_name, full), hc);
}

layer_weights layer_view(const flat_params *f, int64_t layer)
{
    const linear k_v = linear_join(map(f, layer, "self_attn.k_proj"), map(f, layer, "self_attn.v_proj"));

    return (layer_weights){.before_attention = streams(f, layer, "input_layernorm", "attn_hc"),
                           .before_mlp = streams(f, layer, "post_attention_layernorm", "ffn_hc"),
                           .qkv = linear_join(map(f, layer, "self_attn.q_proj"), k_v),
                           .q_norm = norm(f, layer, "self_attn.q_norm"),
                           .k_norm = norm(f, layer, "self_attn.k_norm"),
                           .o = map(f, layer, "self_attn.o_proj"),
                           .gate_up = linear_join(map(f, layer, "mlp.gate_proj"), map(f, layer, "mlp.up_proj")),
                           .down = map(f, layer, "mlp.down_proj")};
}

/* The place in a group, and x and h (N/tp, nH).  Whichever the layer, a group's memory is laid out alike: two tensors a
 * layer, but for the first one's x. */
static void streams_plan(layer_acts *a, const moai_ctx *c, arena *saved, arena *shared, layer_acts *before)
{
    const bool begins = !before || before->place + 1 >= c->stream_layers;
    const int64_t n = c->n_rows, nH = ctx_x_cols(c);

    a->before = begins ? NULL : before;
    a->place = begins ? 0 : before->place + 1;
    a->ends_group = true;                                         /* until the next one is laid out */
    if (!begins) before->ends_group = false;
    for (int64_t i = 0; i < c->stream_layers; i++) {
        const tensor x = i ? arena_tensor(shared, c->dt, n, nH) : (tensor){0}, h = arena_tensor(shared, c->dt, n, nH);
        if (i == a->place) a->x = x, a->h = h;
    }
    if (begins) a->x = arena_tensor(saved, c->dt, n, nH);
    if (!c->stream_layers) a->h = arena_tensor(c->recompute < RECOMPUTE_KEEP_ATTENTION ? saved : shared, c->dt, n, nH);
}

void layer_acts_plan(layer_acts *a, const moai_ctx *c, arena *saved, arena *shared, layer_acts *before)
{
    const comm *tp = &c->grid->tp;
    const int64_t N = c->n_tokens, n = c->n_rows, H = c->cfg->hidden_size;
    const int64_t I = share_begin(c->cfg->intermediate_size, tp->size, tp->rank + 1) -
                      share_begin(c->cfg->intermediate_size, tp->size, tp->rank);
    const int64_t Q = ctx_q_cols(c), K = ctx_kv_cols(c), heads = c->heads.n_heads, kv_heads = c->heads.n_kv_heads;
    arena *selective = c->recompute < RECOMPUTE_SELECTIVE ? saved : shared;
    arena *full = c->recompute < RECOMPUTE_KEEP_ATTENTION ? saved : shared,
          *attention = c->recompute < RECOMPUTE_FULL ? saved : shared;
    arena *norms = c->hc.n > 1 ? saved : selective;               /* of readings that may be due, see stream.h */
    const size_t f = sizeof(float);
    const bool stays = c->recompute != RECOMPUTE_SELECTIVE;       /* n1, n2: kept, or made by the forward again */
    const bool o_once = c->recompute >= RECOMPUTE_KEEP_ATTENTION && c->stream_layers;         /* Wo's product */
    const bool att_stays = !o_once || c->recompute == RECOMPUTE_KEEP_ATTENTION;

    streams_plan(a, c, saved, shared, before);
    a->n1 = linear_input_plan(c, selective, n, H, LORA_QKV);
    a->r1 = arena_take(norms, (size_t)n * f);
    a->qkv = arena_tensor(full, c->dt, N, Q + 2 * K);
    a->qk = arena_tensor(selective, c->dt, N, Q + K);
    a->rqk = arena_take(selective, (size_t)(N * (heads + kv_heads)) * f);
    a->att = linear_input_plan(c, attention, N, Q, 1 << LORA_O);
    a->lse = arena_take(attention, (size_t)(N * heads) * f);
    a->n2 = linear_input_plan(c, selective, n, H, LORA_GATE_UP);
    a->r2 = arena_take(norms, (size_t)n * f);
    a->gate_up = arena_tensor(full, c->dt, N, 2 * I);
    a->act = linear_input_plan(c, selective, N, I, 1 << LORA_DOWN);
    stream_acts_plan(&a->attention, c, saved);
    stream_acts_plan(&a->mlp, c, saved);
    linear_acts_plan(&a->for_qkv, c, LORA_QKV, a->n1, stays, full, shared);
    linear_acts_plan(&a->for_o, c, 1 << LORA_O, a->att, att_stays, o_once ? saved : full, shared);
    linear_acts_plan(&a->for_gate_up, c, LORA_GATE_UP, a->n2, stays, full, shared);
    linear_acts_plan(&a->for_down, c, 1 << LORA_DOWN, a->act, c->recompute < RECOMPUTE_SELECTIVE, saved, shared);
}

static void norm_to_heads(const moai_ctx *c, const device_batch *b, const layer_weights *w, layer_acts *a)
{
    const float eps = (float)c->cfg->rms_norm_eps;
    const size_t mark = arena_mark(c->scratch);
    tensor n1_full = tp_full(c, a->n1);

    tp_all_gather(c, n1_full, a->n1);                                           /* (N, H)                            */
    linear_forward(c, a->qkv, n1_full, &w->qkv, &a->for_qkv);                   /* (N, (Q+2K)/tp)                    */
    c->ops->qknorm_rope(c->dev, a->qk, a->rqk, a->qkv, w->q_norm.w, w->k_norm.w,/* (N, (Q+K)/tp)                     */
                        c->rope, b->positions, c->heads, eps);
    arena_release(c->scratch, mark);
}

void layer_to_heads(const moai_ctx *c, const device_batch *b, const layer_weights *w, layer_acts *a, stream_owed owed)
{
    stream_read(c, a->n1, a->r1, a->x, &w->before_attention, &a->attention,     /* (N/tp, H)       sequence parallel */
                owed);
    norm_to_heads(c, b, w, a);
}

static void norm_to_gate_up(const moai_ctx *c, const layer_weights *w, layer_acts *a)
{
    const size_t mark = arena_mark(c->scratch);
    tensor n2_full = tp_full(c, a->n2);

    tp_all_gather(c, n2_full, a->n2);                                           /* (N, H)                            */
    linear_forward(c, a->gate_up, n2_full, &w->gate_up, &a->for_gate_up);       /* (N, 2I/tp)                        */
    arena_release(c->scratch, mark);
}

stream_owed layer_from_heads(const moai_ctx *c, const layer_weights *w, layer_acts *a, tensor y)
{
    stream_add_read(c, a->h, a->n2, a->r2, a->x, a->att, &w->o, &a->for_o,      /* (N/tp, nH)      h = x + Wo att    */
                    &a->attention, &w->before_mlp, &a->mlp);
    norm_to_gate_up(c, w, a);
    c->ops->swiglu(c->dev, a->act, a->gate_up);                                 /* (N, I/tp)                         */
    return stream_add(c, y, a->h, a->act, &w->down, &a->for_down, &a->mlp);     /* (N/tp, nH)      y = h + Wdown act */
}

/* Keys and values of other ranks lie in scratch, of the caller to give back. */
static attend_args heads_of(const moai_ctx *c, const device_batch *b, const layer_acts *a)
{
    const int64_t K = ctx_kv_cols(c);
    tensor k = k_of(c, a->qk), v = v_of(c, a->qkv);

    if (c->grid->cp.size > 1) {
        const tensor whole = arena_tensor(c->scratch, c->dt, c->n_keys, 2 * K);
        cp_gather(c, whole, k, v);                                              /* (M, 2K/tp)                        */
        k = tensor_cols(whole, 0, K), v = tensor_cols(whole, K, K);
    }
    return (attend_args){a->att, a->lse, q_of(c, a->qk), k, v, c->heads, b->segments, b->n_segments};
}

static void attend(const moai_ctx *c, const device_batch *b, layer_acts *a)
{
    const size_t mark = arena_mark(c->scratch);
    const attend_args heads = heads_of(c, b, a);

    c->ops->attend(c->dev, &heads);                                             /* (N, Q/tp)       causal            */
    arena_release(c->scratch, mark);
}

/* dqk's q and k, dqkv's v.  K and V of other ranks are gathered again rather than kept. */
static void attend_backward(const moai_ctx *c, const device_batch *b, const layer_acts *a, tensor dqk, tensor dqkv,
                            tensor datt)
{
    const size_t mark = arena_mark(c->scratch);
    const attend_args heads = heads_of(c, b, a);
    const int64_t K = ctx_kv_cols(c);
    const tensor dq = q_of(c, dqk), dk = k_of(c, dqk), dv = v_of(c, dqkv);

    if (c->grid->cp.size == 1) {
        c->ops->attend_backward(c->dev, &heads, dq, dk, dv, datt);              /* (N, (Q+K)/tp), (N, K/tp)          */
    } else {
        const tensor whole = arena_tensor(c->scratch, c->dt, c->n_keys, 2 * K);
        c->ops->attend_backward(c->dev, &heads, dq, tensor_cols(whole, 0, K),   /* (N, Q/tp), (M, 2K/tp) partial sum */
                                tensor_cols(whole, K, K), datt);
        cp_scatter(c, dk, dv, whole);                                           /* (N, K/tp)                         */
    }
    arena_release(c->scratch, mark);
}

void layer_forward(const moai_ctx *c, const device_batch *b, const layer_weights *w, layer_acts *a, tensor y,
                   stream_owed *owed)
{
    layer_to_heads(c, b, w, a, *owed);
    attend(c, b, a);
    *owed = layer_from_heads(c, w, a, y);
}

/* The streams of the group up to a's h.  What is due of the gradient refers to the x of the layer behind the group: it
 * begins one, and its x is kept, so nothing that is written here. */
static void merge_again(const moai_ctx *c, layer_acts *a)
{
    if (a->before) {
        merge_again(c, a->before);
        stream_add_again(c, a->x, a->before->h, &a->before->mlp);               /* (N/tp, nH)                        */
    }
    stream_add_again(c, a->h, a->x, &a->attention);                             /* (N/tp, nH)                        */
}

/* Brings back what the forward did not keep, but SwiGLU's result, which its backward gives by the way: the same
 * arithmetic on the same inputs, hence the same bits (rmsnorm(h) is what residual_rmsnorm left of h, see t1-norm). */
static void recompute(const moai_ctx *c, const device_batch *b, const layer_weights *w, layer_acts *a)
{
    const moai_ops *op = c->ops;
    const float eps = (float)c->cfg->rms_norm_eps;

    if (c->stream_layers && a->ends_group) merge_again(c, a);
    if (c->recompute < RECOMPUTE_SELECTIVE) return;
    stream_read_again(c, a->n1, a->r1, a->x, &w->before_attention, &a->attention);
    if (c->recompute >= RECOMPUTE_KEEP_ATTENTION) {
        norm_to_heads(c, b, w, a);
        if (c->recompute == RECOMPUTE_FULL) attend(c, b, a);
        if (c->stream_layers)
            stream_read_again(c, a->n2, a->r2, a->h, &w->before_mlp, &a->mlp);
        else
            stream_add_read(c, a->h, a->n2, a->r2, a->x, a->att, &w->o, &a->for_o, &a->attention, &w->before_mlp,
                            &a->mlp);
        norm_to_gate_up(c, w, a);
    } else {
        op->qknorm_rope(c->dev, a->qk, a->rqk, a->qkv, w->q_norm.w, w->k_norm.w, c->rope, b->positions, c->heads, eps);
        stream_read_again(c, a->n2, a->r2, a->h, &w->before_mlp, &a->mlp);
    }
}

/* From the gradient at y = h + Wdown act to that at h.  Each of the two weights' products runs beside a collective. */
static void mlp_backward(const moai_ctx *c, layer_weights *w, layer_acts *a, stream_gradient *d)
{
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n2_full = tp_full(c, a->n2);
    tensor dact = arena_tensor(c->scratch, c->dt, a->act.rows, a->act.cols);
    tensor dgate_up = a->gate_up;                                               /* in place                          */
    tensor dcoef = {0}, act_again = c->recompute < RECOMPUTE_SELECTIVE ? (tensor){0} : a->act;
    tensor dn2 = stream_norm_gradient(c, d), dn2_part = tp_full(c, dn2);

    comm_request n2_ready = tp_all_gather_begin(c, n2_full, a->n2);             /* (N, H)          needed last       */
    const tensor dy = stream_add_backward(c, d, &dcoef, a->h, &a->mlp);         /* (N, H)                            */
    linear_dx(c, dact, dy, &w->down, &a->for_down);                             /* (N, I/tp)                         */
    op->swiglu_backward(c->dev, dgate_up, act_again, dact, a->gate_up);         /* (N, 2I/tp)                        */
    linear_dx(c, dn2_part, dgate_up, &w->gate_up, &a->for_gate_up);             /* (N, H)          partial sum       */
    comm_request dn2_ready = tp_reduce_scatter_begin(c, dn2, dn2_part);         /* (N/tp, H)       beside dWdown     */
    linear_dw(c, &w->down, dy, a->act, &a->for_down);                           /* (H, I/tp)                         */
    comm_end(&dn2_ready);
    stream_read_backward(c, d, dcoef, dn2, a->h, a->r2, &w->before_mlp,         /* (N/tp, nH)      dh = dy + ...     */
                         &a->mlp);
    stream_gradient_gather(c, d);                                               /* (N, H)          beside dWgate_up  */
    comm_end(&n2_ready);
    linear_dw(c, &w->gate_up, dgate_up, n2_full, &a->for_gate_up);              /* (2I/tp, H)                        */
    arena_release(c->scratch, mark);
}

/* From the gradient at h = x + Wo att to that at x. */
static void attention_backward(const moai_ctx *c, const device_batch *b, layer_weights *w, layer_acts *a,
                               stream_gradient *d, bool gather)
{
    const moai_ops *op = c->ops;
    const size_t mark = arena_mark(c->scratch);
    tensor n1_full = tp_full(c, a->n1);
    tensor dcoef = {0}, datt = arena_tensor(c->scratch, c->dt, a->att.rows, a->att.cols);
    tensor dqk = arena_tensor(c->scratch, c->dt, a->qk.rows, a->qk.cols);
    tensor dqkv = arena_tensor(c->scratch, c->dt, a->qkv.rows, a->qkv.cols);
    tensor dn1 = stream_norm_gradient(c, d), dn1_part = tp_full(c, dn1);

    comm_request n1_ready = tp_all_gather_begin(c, n1_full, a->n1);             /* (N, H)          needed last       */
    const tensor dy = stream_add_backward(c, d, &dcoef, a->x, &a->attention);   /* (N, H)                            */
    linear_dx(c, datt, dy, &w->o, &a->for_o);                                   /* (N, Q/tp)                         */
    attend_backward(c, b, a, dqk, dqkv, datt);                                  /* (N, (Q+K)/tp), (N, K/tp)          */
    op->qknorm_rope_backward(c->dev, dqkv, w->q_norm.dw, w->k_norm.dw, dqk,     /* (N, (Q+2K)/tp)                    */
                             a->qkv, a->rqk, w->q_norm.w, w->k_norm.w, c->rope, b->positions, c->heads);
    linear_dx(c, dn1_part, dqkv, &w->qkv, &a->for_qkv);                         /* (N, H)          partial sum       */
    comm_request dn1_ready = tp_reduce_scatter_begin(c, dn1, dn1_part);         /* (N/tp, H)       beside dWo        */
    linear_dw(c, &w->o, dy, a->att, &a->for_o);                                 /* (H, Q/tp)                         */
    comm_end(&dn1_ready);
    stream_read_backward(c, d, dcoef, dn1, a->x, a->r1, &w->before_attention,   /* (N/tp, nH)      dx = dh + ...     */
                         &a->attention);
    if (gather) stream_gradient_gather(c, d);                                   /* (N, H)          beside dWqkv      */
    comm_end(&n1_ready);
    linear_dw(c, &w->qkv, dqkv, n1_full, &a->for_qkv);                          /* ((Q+2K)/tp, H)                    */
    arena_release(c->scratch, mark);
}

void layer_backward(const moai_ctx *c, const device_batch *b, layer_weights *w, layer_acts *a, stream_gradient *d,
                    bool gather)
{
    recompute(c, b, w, a);
    mlp_backward(c, w, a, d);
    attention_backward(c, b, w, a, d, gather);
}

/* -- as a block -- */

static void block_view(void *w, const flat_params *f, int64_t layer) { *(layer_weights *)w = layer_view(f, layer); }

static void block_plan(void *a, const moai_ctx *c, arena *saved, arena *shared, void *before)
{
    layer_acts_plan(a, c, saved, shared, before);
}

/* Only products write the matrices. */
static void block_begin(const moai_ctx *c, void *weights)
{
    layer_weights *w = weights;

    (void)c;
    w->qkv.adds = w->o.adds = w->gate_up.adds = w->down.adds = false;
    stream_begin(&w->before_attention);
    stream_begin(&w->before_mlp);
}

static tensor block_input(const void *a) { return ((const layer_acts *)a)->x; }

static void block_forward(const moai_ctx *c, const device_batch *b, void *w, void *a, tensor y, stream_owed *owed)
{
    layer_forward(c, b, w, a, y, owed);
}

static void block_backward(const moai_ctx *c, const device_batch *b, void *w, void *a, stream_gradient *d, bool gather)
{
    layer_backward(c, b, w, a, d, gather);
}

const block_kind layer_block = {.name = "layer", .weights_bytes = sizeof(layer_weights),
                                .acts_bytes = sizeof(layer_acts), .view = block_view, .plan = block_plan,
                                .begin = block_begin, .input = block_input, .forward = block_forward,
                                .backward = block_backward};
