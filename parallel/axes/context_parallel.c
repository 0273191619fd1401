/* context_parallel.c: see context_parallel.h */
#include "parallel/axes/context_parallel.h"

#include <stdlib.h>

static void load(const moai_ctx *c, int32_t *to, const int32_t *rows, int64_t n)
{
    c->ops->copy(c->dev, to, rows, (size_t)n * sizeof *rows, COPY_TO_DEVICE);
}

void cp_rows_load(const moai_ctx *c)
{
    if (c->grid->cp.size == 1) return;
    const int64_t N = c->n_tokens, n_gathered = c->grid->cp.size * N;
    int32_t *whole = xmalloc((size_t)n_gathered * sizeof *whole),
            *gathered = xmalloc((size_t)c->n_keys * sizeof *whole);

    for (int64_t i = 0; i < n_gathered; i++) {
        whole[i] = (int32_t)cp_whole_row(c, (int)(i / N), i % N);
        if (whole[i] >= 0) gathered[whole[i]] = (int32_t)i;
    }
    load(c, c->whole_rows, whole, n_gathered);
    load(c, c->gathered_rows, gathered, c->n_keys);
    c->ops->sync(c->dev);
    free(whole);
    free(gathered);
}

/* (cp N, 2K), and this rank's rows of it */
static tensor gathered(const moai_ctx *c, dtype dt, int64_t cols, tensor *own)
{
    const comm *cp = &c->grid->cp;
    const tensor all = arena_tensor(c->scratch, dt, cp->size * c->n_tokens, cols);

    *own = tensor_rows(all, cp->rank * c->n_tokens, c->n_tokens);
    return all;
}

void cp_gather(const moai_ctx *c, tensor whole, tensor k, tensor v)
{
    const size_t mark = arena_mark(c->scratch);
    tensor own, all = gathered(c, whole.dt, whole.cols, &own);                  /* (cp N, 2K)                        */

    c->ops->cast(c->dev, tensor_cols(own, 0, k.cols), k);
    c->ops->cast(c->dev, tensor_cols(own, k.cols, v.cols), v);
    comm_request ready = all_gather_begin(&c->grid->cp, all.data, own.data, (size_t)tensor_n_elem(own), own.dt);
    comm_end(&ready);
    c->ops->embed(c->dev, whole, c->gathered_rows, all, 0);                     /* (M, 2K)                           */
    arena_release(c->scratch, mark);
}

void cp_scatter(const moai_ctx *c, tensor dk, tensor dv, tensor dwhole)
{
    const size_t mark = arena_mark(c->scratch);
    tensor own, all = gathered(c, dwhole.dt, dwhole.cols, &own);                /* (cp N, 2K)                        */

    c->ops->embed(c->dev, all, c->whole_rows, dwhole, 0);                       /* padding is zero                   */
    comm_request ready = reduce_scatter_begin(&c->grid->cp, own.data, all.data, (size_t)tensor_n_elem(own), own.dt);
    comm_end(&ready);
    c->ops->cast(c->dev, dk, tensor_cols(own, 0, dk.cols));                     /* (N, K)                            */
    c->ops->cast(c->dev, dv, tensor_cols(own, dk.cols, dv.cols));
    arena_release(c->scratch, mark);
}
