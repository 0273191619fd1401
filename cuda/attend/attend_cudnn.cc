/* attend_cudnn.cc: see attend_cudnn.h.  The graphs are written with cuDNN's header-only frontend,
 * which is C++; this is its only user. */
#include "cuda/attend/attend_cudnn.h"

#include <cudnn_frontend.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace fe = cudnn_frontend;

namespace {

enum tensor_id : int64_t { ID_Q = 1, ID_K, ID_V, ID_ATT, ID_LSE, ID_DQ, ID_DK, ID_DV, ID_DATT };

struct plan {
    std::shared_ptr<fe::graph::Graph> graph;  // null: cuDNN refused, see why
    std::string why;
};

using plan_key = std::vector<int64_t>;
using pointers = std::unordered_map<int64_t, void *>;

fe::DataType_t type_of(dtype dt) { return dt == DT_BF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF; }

// (batch, heads, position, feature) of a column view whose rows are sequence * seq_len + position
fe::graph::Tensor_attributes heads_of(tensor_id id, tensor t, int64_t n_heads, attend_shape s)
{
    return fe::graph::Tensor_attributes()
        .set_uid(id)
        .set_dim({s.batch, n_heads, s.seq_len, s.head_dim})
        .set_stride({s.seq_len * t.stride, s.head_dim, t.stride, 1})
        .set_data_type(type_of(t.dt));
}

fe::graph::Tensor_attributes stats_of(attend_shape s)
{
    return fe::graph::Tensor_attributes()
        .set_uid(ID_LSE)
        .set_dim({s.batch, s.n_heads, s.seq_len, 1})
        .set_stride({s.n_heads * s.seq_len, s.seq_len, 1, 1})
        .set_data_type(fe::DataType_t::FLOAT);
}

std::shared_ptr<fe::graph::Graph> graph_of(dtype dt)
{
    auto g = std::make_shared<fe::graph::Graph>();
    g->set_io_data_type(type_of(dt))
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    return g;
}

void as_output(std::shared_ptr<fe::graph::Tensor_attributes> t, fe::graph::Tensor_attributes wanted)
{
    t->set_output(true)
        .set_uid(wanted.get_uid())
        .set_dim(wanted.get_dim())
        .set_stride(wanted.get_stride())
        .set_data_type(wanted.get_data_type());
}

std::shared_ptr<fe::graph::Graph> forward_graph(tensor att, tensor q, tensor k, tensor v, attend_shape s)
{
    auto g = graph_of(q.dt);
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attend")
                       .set_generate_stats(true)
                       .set_attn_scale(s.scale)
                       .set_causal_mask(true);
    auto [o, lse] = g->sdpa(g->tensor(heads_of(ID_Q, q, s.n_heads, s)), g->tensor(heads_of(ID_K, k, s.n_kv_heads, s)),
                            g->tensor(heads_of(ID_V, v, s.n_kv_heads, s)), options);
    as_output(o, heads_of(ID_ATT, att, s.n_heads, s));
    as_output(lse, stats_of(s));
    return g;
}

std::shared_ptr<fe::graph::Graph> backward_graph(tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k,
                                                 tensor v, tensor att, attend_shape s, bool deterministic)
{
    auto g = graph_of(q.dt);
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attend_backward")
                       .set_attn_scale(s.scale)
                       .set_causal_mask(true)
                       .set_deterministic_algorithm(deterministic);
    auto [gq, gk, gv] =
        g->sdpa_backward(g->tensor(heads_of(ID_Q, q, s.n_heads, s)), g->tensor(heads_of(ID_K, k, s.n_kv_heads, s)),
                         g->tensor(heads_of(ID_V, v, s.n_kv_heads, s)), g->tensor(heads_of(ID_ATT, att, s.n_heads, s)),
                         g->tensor(heads_of(ID_DATT, datt, s.n_heads, s)), g->tensor(stats_of(s)), options);
    as_output(gq, heads_of(ID_DQ, dq, s.n_heads, s));
    as_output(gk, heads_of(ID_DK, dk, s.n_kv_heads, s));
    as_output(gv, heads_of(ID_DV, dv, s.n_kv_heads, s));
    return g;
}

plan_key key_of(bool backward, attend_shape s, std::vector<tensor> tensors)
{
    int32_t scale;
    memcpy(&scale, &s.scale, sizeof scale);
    plan_key key = {backward, s.batch, s.seq_len, s.n_heads, s.n_kv_heads, s.head_dim, scale, tensors[0].dt};
    for (const tensor &t : tensors) key.push_back(t.stride);
    return key;
}

// cuDNN reads and writes 16 bytes at once, and does not look whether a view lies there.
bool takes(const std::vector<tensor> &tensors, const char **why)
{
    for (const tensor &t : tensors) {
        *why = "cuDNN's fused attention takes bf16 and fp16";
        if (t.dt != DT_BF16 && t.dt != DT_F16) return false;
        *why = "cuDNN's fused attention takes views whose rows begin at multiples of 16 bytes";
        if ((uintptr_t)t.data % 16 || t.stride * dtype_size(t.dt) % 16) return false;
    }
    return true;
}

}  // namespace

struct attend_cudnn {
    moai_device *dev;
    cudnnHandle_t handle;
    std::map<plan_key, plan> plans;
    void *workspace = nullptr;
    size_t workspace_bytes = 0;
};

namespace {

#define CUDNN_CHECK(call)                                                                                     \
    do {                                                                                                      \
        cudnnStatus_t cudnn_status_ = (call);                                                                 \
        if (cudnn_status_ != CUDNN_STATUS_SUCCESS) die("%s: %s", #call, cudnnGetErrorString(cudnn_status_));  \
    } while (0)

// Builds the plan; a graph that cuDNN cannot run is remembered as refused.
template <class make_graph> plan &find_plan(attend_cudnn *a, const plan_key &key, make_graph make)
{
    auto found = a->plans.find(key);
    if (found != a->plans.end()) return found->second;

    plan &p = a->plans[key];
    auto graph = make();
    auto status = graph->build(a->handle, {fe::HeurMode_t::A});
    if (!status.is_good()) {
        p.why = status.get_message();
        return p;
    }
    p.graph = graph;
    size_t need = (size_t)graph->get_workspace_size();
    if (need > a->workspace_bytes) {
        CUDA_CHECK(cudaStreamSynchronize(a->dev->stream));
        CUDA_CHECK(cudaFree(a->workspace));
        CUDA_CHECK(cudaMalloc(&a->workspace, need));
        a->workspace_bytes = need;
    }
    return p;
}

bool run(attend_cudnn *a, const plan &p, pointers &data, const char *what, const char **why)
{
    *why = p.why.c_str();
    if (!p.graph) return false;
    auto status = p.graph->execute(a->handle, data, a->workspace);
    CHECK(status.is_good(), "cuDNN %s: %s", what, status.get_message().c_str());
    return true;
}

}  // namespace

attend_cudnn *attend_cudnn_open(moai_device *dev)
{
    attend_cudnn *a = new attend_cudnn;
    a->dev = dev;
    CUDNN_CHECK(cudnnCreate(&a->handle));
    CUDNN_CHECK(cudnnSetStream(a->handle, dev->stream));
    return a;
}

void attend_cudnn_close(attend_cudnn *a)
{
    a->plans.clear();
    CUDNN_CHECK(cudnnDestroy(a->handle));
    CUDA_CHECK(cudaFree(a->workspace));
    delete a;
}

const char *attend_cudnn_version(void)
{
    static char text[32];
    size_t v = cudnnGetVersion();
    snprintf(text, sizeof text, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    return text;
}

bool attend_cudnn_forward(attend_cudnn *a, tensor att, float *lse, tensor q, tensor k, tensor v, attend_shape s,
                          const char **why)
{
    if (!takes({q, k, v, att}, why)) return false;
    plan &p = find_plan(a, key_of(false, s, {q, k, v, att}), [&] { return forward_graph(att, q, k, v, s); });
    pointers data = {{ID_Q, q.data}, {ID_K, k.data}, {ID_V, v.data}, {ID_ATT, att.data}, {ID_LSE, lse}};
    return run(a, p, data, "attend", why);
}

bool attend_cudnn_backward(attend_cudnn *a, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape s, const char **why)
{
    if (!takes({q, k, v, att, dq, dk, dv, datt}, why)) return false;
    plan &p = find_plan(a, key_of(true, s, {q, k, v, att, dq, dk, dv, datt}),
                        [&] { return backward_graph(dq, dk, dv, datt, q, k, v, att, s, a->dev->deterministic); });
    pointers data = {{ID_Q, q.data},   {ID_K, k.data},   {ID_V, v.data},   {ID_ATT, att.data}, {ID_LSE, (void *)lse},
                     {ID_DQ, dq.data}, {ID_DK, dk.data}, {ID_DV, dv.data}, {ID_DATT, datt.data}};
    return run(a, p, data, "attend_backward", why);
}
