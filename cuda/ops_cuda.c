/* ops_cuda.c: the GPU's table of operations */
#include "cuda/cuda.h"

static int supports_cuda(const op_needs *n, moai_error *err)
{
    const int64_t most_hidden = rmsnorm_most_cols_cuda(n->hidden);

    if (n->head_dim > ATTEND_MOST_HEAD_DIM)
        return error_config(err, "head_dim %lld: attention on a GPU takes at most %d", (long long)n->head_dim,
                            ATTEND_MOST_HEAD_DIM);
    if (n->hidden > most_hidden)
        return error_config(err, "hidden_size %lld: norms on a GPU take at most %lld columns of such a width",
                            (long long)n->hidden, (long long)most_hidden);
    if (n->sampled > SAMPLE_MOST_COLS)
        return error_config(err, "vocab_size %lld: tokens are drawn on a GPU from at most %d", (long long)n->sampled,
                            SAMPLE_MOST_COLS);
    return 0;
}

const moai_ops ops_cuda = {
    .name = "cuda",
    .supports = supports_cuda,
    .alloc = alloc_cuda,
    .free = free_cuda,
    .alloc_host = alloc_host_cuda,
    .free_host = free_host_cuda,
    .sync = sync_cuda,
    .phase = phase_cuda,
#define REQUIRED(op, ...) .op = op##_cuda,
#include "src/ops/ops.def"
};
