/* cpu_embed.c: rows of the embedding table, and their gradient */
#include "src/cpu/cpu.h"

void embed_cpu(moai_device *dev, tensor y, const int32_t *ids, tensor table, int64_t vocab_begin)
{
    (void)dev;
    CHECK(y.dt == table.dt, "embed: rows of a %s table into %s", dtype_name(table.dt), dtype_name(y.dt));
    size_t row_bytes = (size_t)y.cols * dtype_size(y.dt);
    #pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < y.rows; i++) {
        int64_t row = ids[i] - vocab_begin;
        if (ids[i] >= 0 && row >= 0 && row < table.rows)
            memcpy(tensor_at(y, i, 0), tensor_at(table, row, 0), row_bytes);
        else
            memset(tensor_at(y, i, 0), 0, row_bytes);
    }
}

/* Each thread owns some columns and adds the tokens' rows in their order. */
void embed_backward_cpu(moai_device *dev, tensor dtable, const int32_t *ids, tensor dy, int64_t vocab_begin)
{
    float *all = scratch_floats(dev, dev->n_threads * dy.cols);

    CHECK(dtable.dt == DT_F32, "embed_backward: gradients of weights are fp32, not %s", dtype_name(dtable.dt));
    #pragma omp parallel
    {
        int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
        int64_t begin = share_begin(dy.cols, parts, part), end = share_begin(dy.cols, parts, part + 1);
        tensor dy_part = tensor_cols(dy, begin, end - begin), dtable_part = tensor_cols(dtable, begin, end - begin);

        for (int64_t i = 0; i < dy.rows; i++) {
            int64_t row = ids[i] - vocab_begin;
            if (ids[i] < 0 || row < 0 || row >= dtable.rows) continue;
            const float *g = row_load(dy_part, i, all + part * dy.cols);
            float *sum = tensor_at(dtable_part, row, 0);
            #pragma omp simd
            for (int64_t j = 0; j < end - begin; j++) sum[j] += g[j];
        }
    }
}
