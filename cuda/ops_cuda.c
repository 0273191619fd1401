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
    .copy = copy_cuda,
    .zero = zero_cuda,
    .sync = sync_cuda,
    .phase = phase_cuda,
    .cast = cast_cuda,
    .add = add_cuda,
    .fill = fill_cuda,
    .fill_normal = fill_normal_cuda,
    .matmul = matmul_cuda,
    .matmul_add = matmul_add_cuda,
    .matmul_dx = matmul_dx_cuda,
    .matmul_dw = matmul_dw_cuda,
    .embed = embed_cuda,
    .embed_backward = embed_backward_cuda,
    .rmsnorm = rmsnorm_cuda,
    .residual_rmsnorm = residual_rmsnorm_cuda,
    .rmsnorm_backward = rmsnorm_backward_cuda,
    .qknorm_rope = qknorm_rope_cuda,
    .qknorm_rope_backward = qknorm_rope_backward_cuda,
    .attend = attend_cuda,
    .attend_backward = attend_backward_cuda,
    .kv_append = kv_append_cuda,
    .attend_cached = attend_cached_cuda,
    .swiglu = swiglu_cuda,
    .swiglu_backward = swiglu_backward_cuda,
    .softmax_stats = softmax_stats_cuda,
    .cross_entropy = cross_entropy_cuda,
    .sample = sample_cuda,
    .sum = sum_cuda,
    .sum_squares = sum_squares_cuda,
    .clip = clip_cuda,
    .adamw = adamw_cuda,
};
