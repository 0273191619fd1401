/* weights_device.c: a directory's weights into a device's memory; see weights.h */
#include "io/hf/weights.h"

#include <stdlib.h>

enum { CHUNK_ELEM = 1 << 22 }; /* elements read at once, 16 MiB */

typedef struct transfer {
    const moai_ops *ops;
    moai_device *dev;
    float *host;
    void *staging;                            /* the device's, for as many */
} transfer;

/* The rank's block, some rows at a time. */
static int load_param(const transfer *t, const param *p, weights *from, tensor block, moai_error *err)
{
    const int64_t step = min_i64(p->n_rows, max_i64(1, CHUNK_ELEM / p->n_cols));

    for (int64_t row = 0; row < p->n_rows; row += step) {
        const int64_t n = min_i64(step, p->n_rows - row);
        if (weights_read(from, p->name, p->row0 + row, n, p->col0, p->n_cols, t->host, p->n_cols, err)) return -1;
        t->ops->copy(t->dev, t->staging, t->host, (size_t)(n * p->n_cols) * sizeof *t->host, COPY_TO_DEVICE);
        t->ops->cast(t->dev, tensor_rows(block, row, n), tensor_of(t->staging, DT_F32, n, p->n_cols));
        t->ops->sync(t->dev); /* host is read into again */
    }
    return 0;
}

int weights_to_device(weights *from, const param_table *params, void *flat, dtype dt, const moai_ops *ops,
                      moai_device *dev, moai_error *err)
{
    const tensor all = tensor_of(flat, dt, 1, params->n_elem);
    int64_t n_elem = CHUNK_ELEM;
    int status = 0;

    for (int i = 0; i < params->n; i++) n_elem = max_i64(n_elem, params->list[i].n_cols);
    const transfer t = {ops, dev, xmalloc((size_t)n_elem * sizeof(float)),
                        ops->alloc(dev, (size_t)n_elem * sizeof(float))};
    if (!t.staging)
        status = error_set(err, "%zu bytes to read weights do not fit (%s)", (size_t)n_elem * sizeof(float), ops->name);
    for (int i = 0; i < params->n && !status; i++) {
        const param *p = &params->list[i];
        status = load_param(&t, p, from, tensor_of(tensor_at(all, 0, p->offset), dt, p->n_rows, p->n_cols), err);
    }
    if (t.staging) ops->free(dev, t.staging);
    free(t.host);
    return status;
}
