/* embedding.c: see embedding.h */
#include "src/model/embedding.h"

embedding_weights embedding_view(const flat_params *f)
{
    static const char name[] = "model.embed_tokens.weight";
    const linear table = linear_view(f, name);

    CHECK(table.w.rows, "no parameter %s on this rank", name);
    return (embedding_weights){
        .table = table.w, .dtable = table.dw, .is_trained = table.is_trained, .vocab_begin = flat_find(f, name)->row0,
        .begins_with_head = flat_find(f, "model.norm.weight") && !flat_find(f, "lm_head.weight")};
}

static void view(void *weights, const flat_params *f, int64_t layer)
{
    (void)layer;
    *(embedding_weights *)weights = embedding_view(f);
}

static void plan(void *acts, const moai_ctx *c, arena *saved, arena *shared, void *before)
{
    (void)acts, (void)c, (void)saved, (void)shared, (void)before;
}

static void begin(const moai_ctx *c, void *weights)
{
    const embedding_weights *w = weights;

    if (w->is_trained && !w->begins_with_head)
        c->ops->zero(c->dev, w->dtable.data, (size_t)tensor_n_elem(w->dtable) * dtype_size(w->dtable.dt));
}

static void forward(const moai_ctx *c, const device_batch *b, void *weights, void *acts, tensor x, stream_owed *owed)
{
    const embedding_weights *w = weights;
    const size_t mark = arena_mark(c->scratch);
    tensor one = stream_one(c, x), x_part = tp_full(c, one);

    (void)acts;
    *owed = (stream_owed){0};
    c->ops->embed(c->dev, x_part, b->inputs, w->table, w->vocab_begin);             /* (N, H)   other ids are zero */
    tp_reduce_scatter(c, one, x_part);                                              /* (N/tp, H)                   */
    stream_spread(c, x, one);                                                       /* (N/tp, nH)                  */
    arena_release(c->scratch, mark);
}

static void backward(const moai_ctx *c, const device_batch *b, void *weights, void *acts, stream_gradient *d,
                     bool gather)
{
    embedding_weights *w = weights;
    const size_t mark = arena_mark(c->scratch);

    (void)acts, (void)gather;
    if (w->is_trained)
        c->ops->embed_backward(c->dev, w->dtable, b->inputs, stream_spread_backward(c, d), /* (N, H)               */
                               w->vocab_begin);                                     /* (V/tp, H)                   */
    else
        comm_end(&d->rows.ready);
    arena_release(c->scratch, mark);
}

const block_kind embedding_block = {.name = "embedding", .weights_bytes = sizeof(embedding_weights), .view = view,
                                    .plan = plan, .begin = begin, .forward = forward, .backward = backward};
