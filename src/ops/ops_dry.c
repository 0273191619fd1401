/* ops_dry.c: a device that computes nothing.  The memory plan is a micro-batch run on it: every arena sees the takes
 * of the real run, so the plan cannot differ from it. */
#include "src/ops/ops.h"

static void copy(moai_device *, void *, const void *, size_t, copy_kind) {}
static void zero(moai_device *, void *, size_t) {}
static void sync_(moai_device *) {}
static void phase(moai_device *, const char *, int) {}
static void cast(moai_device *, tensor, tensor) {}
static void add(moai_device *, tensor, tensor, tensor) {}
static void fill(moai_device *, tensor, float) {}
static void matmul(moai_device *, tensor, tensor, tensor) {}
static void matmul_add(moai_device *, tensor, tensor, tensor, tensor) {}
static void embed(moai_device *, tensor, const int32_t *, tensor, int64_t) {}
static void rmsnorm(moai_device *, tensor, float *, tensor, tensor, float) {}
static void residual_rmsnorm(moai_device *, tensor, tensor, float *, tensor, tensor, tensor, float) {}
static void rmsnorm_backward(moai_device *, tensor, tensor, tensor, tensor, tensor, const float *, tensor) {}
static void qknorm_rope(moai_device *, tensor, float *, tensor, tensor, tensor, rope_table, const int32_t *,
                        attend_shape, float)
{}
static void qknorm_rope_backward(moai_device *, tensor, tensor, tensor, tensor, tensor, const float *, tensor, tensor,
                                 rope_table, const int32_t *, attend_shape)
{}
static void attend(moai_device *, tensor, float *, tensor, tensor, tensor, attend_shape) {}
static void attend_backward(moai_device *, tensor, tensor, tensor, tensor, tensor, tensor, tensor, tensor,
                            const float *, attend_shape)
{}
static void kv_append(moai_device *, tensor, tensor, tensor, tensor, const int32_t *, const int32_t *, int64_t) {}
static void attend_cached(moai_device *, tensor, tensor, tensor, tensor, const int32_t *, const int32_t *, int64_t,
                          attend_shape)
{}
static void swiglu(moai_device *, tensor, tensor) {}
static void matmul_dw(moai_device *, tensor, tensor, tensor, bool) {}
static void swiglu_backward(moai_device *, tensor, tensor, tensor, tensor) {}
static void softmax_stats(moai_device *, float *, tensor, const int32_t *, int64_t) {}
static void cross_entropy(moai_device *, float *, tensor, const float *, int, const int32_t *, int64_t, float) {}
static void sample(moai_device *, int32_t *, tensor, const double *, sample_options) {}
static void sum(moai_device *, double *, const float *, int64_t) {}

const moai_ops ops_dry = {
    .name = "dry",
    .copy = copy,
    .zero = zero,
    .sync = sync_,
    .phase = phase,
    .cast = cast,
    .add = add,
    .fill = fill,
    .matmul = matmul,
    .matmul_add = matmul_add,
    .matmul_dx = matmul,
    .matmul_dw = matmul_dw,
    .embed = embed,
    .embed_backward = embed,
    .rmsnorm = rmsnorm,
    .residual_rmsnorm = residual_rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .qknorm_rope = qknorm_rope,
    .qknorm_rope_backward = qknorm_rope_backward,
    .attend = attend,
    .attend_backward = attend_backward,
    .kv_append = kv_append,
    .attend_cached = attend_cached,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .softmax_stats = softmax_stats,
    .cross_entropy = cross_entropy,
    .sample = sample,
    .sum = sum,
    .sum_squares = sum,
};
