/* decode_load.c: a decoder's weights from a directory */
#include "src/serve/decode.h"

#include <stdlib.h>

enum { CHUNK_ELEM = 1 << 22 }; /* elements read at once, 16 MiB */

/* The rank's block, some rows at a time. */
static int load_param(decoder *d, const param *p, weights *from, float *host, void *staging, moai_error *err)
{
    const moai_ctx *c = &d->ctx;
    const int64_t step = min_i64(p->n_rows, max_i64(1, CHUNK_ELEM / p->n_cols));
    tensor flat = tensor_of(d->weights, c->dt, 1, d->params.n_elem);
    tensor block = tensor_of(tensor_at(flat, 0, p->offset), c->dt, p->n_rows, p->n_cols);

    for (int64_t row = 0; row < p->n_rows; row += step) {
        const int64_t n = min_i64(step, p->n_rows - row);
        if (weights_read(from, p->name, p->row0 + row, n, p->col0, p->n_cols, host, p->n_cols, err)) return -1;
        c->ops->copy(c->dev, staging, host, (size_t)(n * p->n_cols) * sizeof *host, COPY_TO_DEVICE);
        c->ops->cast(c->dev, tensor_rows(block, row, n), tensor_of(staging, DT_F32, n, p->n_cols));
        c->ops->sync(c->dev); /* host is read into again */
    }
    return 0;
}

int decoder_load(decoder *d, weights *from, moai_error *err)
{
    int64_t n_elem = CHUNK_ELEM;
    int status = 0;

    for (int i = 0; i < d->params.n; i++) n_elem = max_i64(n_elem, d->params.list[i].n_cols);
    float *host = xmalloc((size_t)n_elem * sizeof *host);
    void *staging = d->ctx.ops->alloc(d->ctx.dev, (size_t)n_elem * sizeof *host);
    if (!staging)
        status = error_set(err, "%zu bytes to read weights do not fit (%s)", (size_t)n_elem * sizeof *host,
                           d->ctx.ops->name);
    for (int i = 0; i < d->params.n && !status; i++)
        status = load_param(d, &d->params.list[i], from, host, staging, err);
    if (staging) d->ctx.ops->free(d->ctx.dev, staging);
    free(host);
    return status;
}
