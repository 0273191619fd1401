/* weights_device.c: a directory's weights into a device's memory; see weights.h */
#include "io/hf/weights.h"
#include "src/ops/nf4.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK_ELEM = 1 << 22 }; /* elements read at once, 16 MiB */

typedef struct transfer {
    const moai_ops *ops;
    moai_device *dev;
    weights *from;
    float *host;
    void *staging;                            /* the device's, for as many */
} transfer;

/* The rank's block, some rows at a time. */
static int load_dense(const transfer *t, const param *p, tensor block, moai_error *err)
{
    const int64_t step = min_i64(p->n_rows, max_i64(1, CHUNK_ELEM / p->n_cols));

    for (int64_t row = 0; row < p->n_rows; row += step) {
        const int64_t n = min_i64(step, p->n_rows - row);
        if (weights_read(t->from, p->name, p->row0 + row, n, p->col0, p->n_cols, t->host, p->n_cols, err)) return -1;
        t->ops->copy(t->dev, t->staging, t->host, (size_t)(n * p->n_cols) * sizeof *t->host, COPY_TO_DEVICE);
        t->ops->cast(t->dev, tensor_rows(block, row, n), tensor_of(t->staging, DT_F32, n, p->n_cols));
        t->ops->sync(t->dev); /* host is read into again */
    }
    return 0;
}

/* A matrix in 4 bits: the rank's codes, and the absmax of the whole, which double quantization looks at. */
typedef struct quantized {
    uint8_t *codes, *chunk;
    float *absmax;
} quantized;

static int quantize(const transfer *t, const param *p, quantized *q, moai_error *err)
{
    const int64_t step = max_i64(1, CHUNK_ELEM / p->cols), blocks = p->cols / NF4_BLOCK;

    for (int64_t row = 0; row < p->rows; row += step) {
        const int64_t n = min_i64(step, p->rows - row);
        if (weights_read(t->from, p->name, row, n, 0, p->cols, t->host, p->cols, err)) return -1;
        nf4_quantize(q->chunk, q->absmax + row * blocks, t->host, n * p->cols);
        for (int64_t i = max_i64(row, p->row0); i < min_i64(row + n, p->row0 + p->n_rows); i++)
            memcpy(q->codes + (i - p->row0) * p->n_cols / 2, q->chunk + ((i - row) * p->cols + p->col0) / 2,
                   (size_t)p->n_cols / 2);
    }
    return 0;
}

static int load_nf4(const transfer *t, const param *p, const weights_target *to, moai_error *err)
{
    const int64_t n = p->n_rows * p->n_cols, blocks = p->cols / NF4_BLOCK, own = p->n_cols / NF4_BLOCK;
    quantized q = {xmalloc((size_t)n / 2), xmalloc((size_t)max_i64(CHUNK_ELEM, p->cols) / 2),
                   xmalloc((size_t)(p->rows * blocks) * sizeof *q.absmax)};
    const int rc = quantize(t, p, &q, err);

    if (rc == 0) {
        if (to->nested && !weights_config(t->from)->quantization.stored) nf4_nest_round(q.absmax, p->rows * blocks);
        for (int64_t i = 0; i < p->n_rows; i++)               /* the rank's, one row behind another */
            memmove(q.absmax + i * own, q.absmax + (p->row0 + i) * blocks + p->col0 / NF4_BLOCK,
                    (size_t)own * sizeof *q.absmax);
        t->ops->copy(t->dev, to->codes + p->offset / 2, q.codes, (size_t)n / 2, COPY_TO_DEVICE);
        t->ops->copy(t->dev, to->absmax + p->offset / NF4_BLOCK, q.absmax,
                     (size_t)(n / NF4_BLOCK) * sizeof *q.absmax, COPY_TO_DEVICE);
        t->ops->sync(t->dev);
    }
    free(q.codes);
    free(q.chunk);
    free(q.absmax);
    return rc;
}

int weights_to_device(weights *from, const weights_target *to, const moai_ops *ops, moai_device *dev, moai_error *err)
{
    const param_table *params = to->table;
    const tensor all = tensor_of(to->flat, to->dt, 1, params->n_elem);
    int64_t n_elem = CHUNK_ELEM;
    int status = 0;

    for (int i = 0; i < params->n; i++) n_elem = max_i64(n_elem, params->list[i].cols);
    const transfer t = {ops, dev, from, xmalloc((size_t)n_elem * sizeof(float)),
                        ops->alloc(dev, (size_t)n_elem * sizeof(float))};
    if (!t.staging)
        status = error_set(err, "%zu bytes to read weights do not fit (%s)", (size_t)n_elem * sizeof(float), ops->name);
    for (int i = 0; i < params->n && !status; i++) {
        const param *p = &params->list[i];
        if (p->storage == STORE_NF4)
            status = load_nf4(&t, p, to, err);
        else
            status = load_dense(&t, p, param_block(p, all), err);
    }
    if (t.staging) ops->free(dev, t.staging);
    free(t.host);
    return status;
}
