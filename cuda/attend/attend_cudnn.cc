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

enum tensor_id : int64_t { ID_Q = 1, ID_K, ID_V, ID_ATT, ID_LSE, ID_DQ, ID_DK, ID_DV, ID_DATT, ID_LENGTHS, ID_BEGINS };

struct plan {
    std::shared_ptr<fe::graph::Graph> graph;  // null: cuDNN refused, see why
    std::string why;
    std::vector<std::pair<int64_t, int64_t>> begins;          // of a ragged one: tensor id, stride
};

// Where segments begin and how long they are, on the device; made once for the layers of a micro-batch.
struct ragged_lists {
    std::vector<int64_t> key;                 // batch, rows and lengths
    std::vector<int32_t> rows, lengths;       // (batch + 1), (batch)
    std::map<int64_t, int32_t *> begins;      // by stride
    int32_t *device_lengths = nullptr;
};

using plan_key = std::vector<int64_t>;
using pointers = std::unordered_map<int64_t, void *>;

fe::DataType_t type_of(dtype dt) { return dt == DT_BF16 ? fe::DataType_t::BFLOAT16 : fe::DataType_t::HALF; }

// A graph under construction.  Ragged: s.batch segments of at most s.seq_len rows, which begin and end where arrays on
// the device say.
struct builder {
    std::shared_ptr<fe::graph::Graph> g;
    attend_shape s;
    bool ragged;
    int64_t n_rows;                           // all, of ragged ones
    std::map<int64_t, std::shared_ptr<fe::graph::Tensor_attributes>> begins;  // by the stride of the rows

    std::shared_ptr<fe::graph::Tensor_attributes> index(int64_t id, int64_t n)
    {
        return g->tensor(fe::graph::Tensor_attributes()
                             .set_uid(id)
                             .set_dim({n, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
    }
    std::shared_ptr<fe::graph::Tensor_attributes> begins_of(int64_t stride)
    {
        auto &there = begins[stride];
        if (!there) there = index(ID_BEGINS + (int64_t)begins.size() - 1, s.batch + 1);
        return there;
    }

    // (batch, heads, position, feature) of a column view whose rows are sequence * seq_len + position
    fe::graph::Tensor_attributes heads_of(tensor_id id, tensor t, int64_t n_heads)
    {
        auto a = fe::graph::Tensor_attributes()
                     .set_uid(id)
                     .set_dim({s.batch, n_heads, s.seq_len, s.head_dim})
                     .set_stride({s.seq_len * t.stride, s.head_dim, t.stride, 1})
                     .set_data_type(type_of(t.dt));
        if (ragged) a.set_ragged_offset(begins_of(t.stride));
        return a;
    }

    fe::graph::Tensor_attributes stats_of()
    {
        auto a = fe::graph::Tensor_attributes()
                     .set_uid(ID_LSE)
                     .set_dim({s.batch, s.n_heads, s.seq_len, 1})
                     .set_stride({s.n_heads * s.seq_len, s.seq_len, 1, 1})
                     .set_data_type(fe::DataType_t::FLOAT);
        if (!ragged) return a;
        a.set_stride({s.n_heads * s.seq_len, 1, s.n_heads, 1});
        a.set_ragged_offset(begins_of(s.n_heads));
        return a;
    }
};

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
    if (wanted.get_ragged_offset()) t->set_ragged_offset(wanted.get_ragged_offset());
}

void forward_graph(builder &b, tensor att, tensor q, tensor k, tensor v)
{
    const attend_shape s = b.s;
    auto options = fe::graph::SDPA_attributes()
                       .set_name("attend")
                       .set_generate_stats(true)
                       .set_attn_scale(s.scale)
                       .set_causal_mask(true);
    if (b.ragged) {
        auto lengths = b.index(ID_LENGTHS, s.batch);
        options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
    }
    auto [o, lse] =
        b.g->sdpa(b.g->tensor(b.heads_of(ID_Q, q, s.n_heads)), b.g->tensor(b.heads_of(ID_K, k, s.n_kv_heads)),
                  b.g->tensor(b.heads_of(ID_V, v, s.n_kv_heads)), options);
    as_output(o, b.heads_of(ID_ATT, att, s.n_heads));
    as_output(lse, b.stats_of());
}

void backward_graph(builder &b, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v, tensor att,
                    bool deterministic)
{
    const attend_shape s = b.s;
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attend_backward")
                       .set_attn_scale(s.scale)
                       .set_causal_mask(true)
                       .set_deterministic_algorithm(deterministic);
    if (b.ragged) {
        auto lengths = b.index(ID_LENGTHS, s.batch);
        options.set_padding_mask(true).set_seq_len_q(lengths).set_seq_len_kv(lengths);
        options.set_max_total_seq_len_q(b.n_rows).set_max_total_seq_len_kv(b.n_rows);
    }
    auto [gq, gk, gv] = b.g->sdpa_backward(
        b.g->tensor(b.heads_of(ID_Q, q, s.n_heads)), b.g->tensor(b.heads_of(ID_K, k, s.n_kv_heads)),
        b.g->tensor(b.heads_of(ID_V, v, s.n_kv_heads)), b.g->tensor(b.heads_of(ID_ATT, att, s.n_heads)),
        b.g->tensor(b.heads_of(ID_DATT, datt, s.n_heads)), b.g->tensor(b.stats_of()), options);
    as_output(gq, b.heads_of(ID_DQ, dq, s.n_heads));
    as_output(gk, b.heads_of(ID_DK, dk, s.n_kv_heads));
    as_output(gv, b.heads_of(ID_DV, dv, s.n_kv_heads));
}

plan_key key_of(bool backward, attend_shape s, int64_t ragged_rows, std::vector<tensor> tensors)
{
    int32_t scale;
    memcpy(&scale, &s.scale, sizeof scale);
    plan_key key = {backward,     ragged_rows, s.batch, s.seq_len,     s.n_heads,
                    s.n_kv_heads, s.head_dim,  scale,   tensors[0].dt};
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
    std::vector<ragged_lists> lists;          // those used last
    size_t next_list = 0;
};

namespace {

#define CUDNN_CHECK(call)                                                                                     \
    do {                                                                                                      \
        cudnnStatus_t cudnn_status_ = (call);                                                                 \
        if (cudnn_status_ != CUDNN_STATUS_SUCCESS) die("%s: %s", #call, cudnnGetErrorString(cudnn_status_));  \
    } while (0)

// Builds the plan; a graph that cuDNN cannot run is remembered as refused.
template <class make_builder> plan &find_plan(attend_cudnn *a, const plan_key &key, make_builder make)
{
    auto found = a->plans.find(key);
    if (found != a->plans.end()) return found->second;

    plan &p = a->plans[key];
    builder b = make();
    auto graph = b.g;
    for (auto &[stride, t] : b.begins) p.begins.push_back({t->get_uid(), stride});
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

builder builder_of(dtype dt, attend_shape s, int64_t ragged_rows)
{
    return {graph_of(dt), s, ragged_rows > 0, ragged_rows, {}};
}

int64_t next_power(int64_t n, int64_t least)
{
    int64_t p = least;
    while (p < n) p *= 2;
    return p;
}

// Segments that do not exist are empty ones at the end.
attend_shape ragged_shape(const attend_args *args)
{
    int64_t longest = 1;

    for (int i = 0; i < args->n_segments; i++) longest = max_i64(longest, args->segments[i].n_rows);
    return attend_shape_of(args->heads, next_power(args->n_segments, 8), next_power(longest, 128));
}

int32_t *to_device(attend_cudnn *a, int32_t *there, const std::vector<int32_t> &list)
{
    if (!there) CUDA_CHECK(cudaMalloc(&there, list.size() * sizeof list[0]));
    CUDA_CHECK(cudaMemcpyAsync(there, list.data(), list.size() * sizeof list[0], cudaMemcpyHostToDevice,
                               a->dev->stream));
    return there;
}

ragged_lists &lists_of(attend_cudnn *a, const attend_args *args, attend_shape s)
{
    enum { MOST = 32 };
    std::vector<int64_t> key = {s.batch};

    for (int i = 0; i < args->n_segments; i++)
        key.push_back(args->segments[i].row), key.push_back(args->segments[i].n_rows);
    for (ragged_lists &l : a->lists)
        if (l.key == key) return l;
    if (a->lists.size() < MOST) a->lists.emplace_back();
    ragged_lists &l = a->lists[a->next_list++ % MOST];
    for (auto &[stride, there] : l.begins) CUDA_CHECK(cudaFree(there));
    CUDA_CHECK(cudaFree(l.device_lengths));
    l = ragged_lists{key, {}, {}, {}, nullptr};
    for (int i = 0; i < s.batch; i++) {
        const bool exists = i < args->n_segments;
        l.rows.push_back((int32_t)(exists ? args->segments[i].row : args->att.rows));
        l.lengths.push_back((int32_t)(exists ? args->segments[i].n_rows : 0));
    }
    l.rows.push_back((int32_t)args->att.rows);
    l.device_lengths = to_device(a, nullptr, l.lengths);
    return l;
}

void add_lists(attend_cudnn *a, pointers &data, const plan &p, ragged_lists &l)
{
    data[ID_LENGTHS] = l.device_lengths;
    for (auto [id, stride] : p.begins) {
        int32_t *&there = l.begins[stride];
        if (!there) {
            std::vector<int32_t> begins;
            for (int32_t row : l.rows) begins.push_back((int32_t)(row * stride));
            there = to_device(a, nullptr, begins);
        }
        data[id] = there;
    }
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
    for (ragged_lists &l : a->lists) {
        for (auto &[stride, there] : l.begins) CUDA_CHECK(cudaFree(there));
        CUDA_CHECK(cudaFree(l.device_lengths));
    }
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
    plan &p = find_plan(a, key_of(false, s, 0, {q, k, v, att}), [&] {
        builder b = builder_of(q.dt, s, 0);
        forward_graph(b, att, q, k, v);
        return b;
    });
    pointers data = {{ID_Q, q.data}, {ID_K, k.data}, {ID_V, v.data}, {ID_ATT, att.data}, {ID_LSE, lse}};
    return run(a, p, data, "attend", why);
}

bool attend_cudnn_backward(attend_cudnn *a, tensor dq, tensor dk, tensor dv, tensor datt, tensor q, tensor k, tensor v,
                           tensor att, const float *lse, attend_shape s, const char **why)
{
    if (!takes({q, k, v, att, dq, dk, dv, datt}, why)) return false;
    plan &p = find_plan(a, key_of(true, s, 0, {q, k, v, att, dq, dk, dv, datt}), [&] {
        builder b = builder_of(q.dt, s, 0);
        backward_graph(b, dq, dk, dv, datt, q, k, v, att, a->dev->deterministic);
        return b;
    });
    pointers data = {{ID_Q, q.data},   {ID_K, k.data},   {ID_V, v.data},   {ID_ATT, att.data}, {ID_LSE, (void *)lse},
                     {ID_DQ, dq.data}, {ID_DK, dk.data}, {ID_DV, dv.data}, {ID_DATT, datt.data}};
    return run(a, p, data, "attend_backward", why);
}

// The same answer for forward and backward: they must agree about lse.  Places of elements are 32-bit numbers here.
static bool takes_rows(const attend_cudnn *a, const attend_args *args, attend_shape s,
                       const std::vector<tensor> &tensors, const char **why)
{
    if (!takes(tensors, why)) return false;
    *why = "its deterministic backward would keep more than 2 GiB of scores";
    if (a->dev->deterministic && !attend_keeps_scores(s)) return false;
    *why = "its ragged places are 32-bit numbers";
    for (const tensor &t : tensors)
        if (args->att.rows * t.stride > INT32_MAX) return false;
    return true;
}

bool attend_cudnn_forward_ragged(attend_cudnn *a, const attend_args *args, const char **why)
{
    const tensor att = args->att, q = args->q, k = args->k, v = args->v;
    const attend_shape s = ragged_shape(args);

    if (!takes_rows(a, args, s, {q, k, v, att}, why)) return false;
    plan &p = find_plan(a, key_of(false, s, att.rows, {q, k, v, att}), [&] {
        builder b = builder_of(q.dt, s, att.rows);
        forward_graph(b, att, q, k, v);
        return b;
    });
    pointers data = {{ID_Q, q.data}, {ID_K, k.data}, {ID_V, v.data}, {ID_ATT, att.data}, {ID_LSE, args->lse}};
    if (p.graph) add_lists(a, data, p, lists_of(a, args, s));
    return run(a, p, data, "attend", why);
}

bool attend_cudnn_backward_ragged(attend_cudnn *a, const attend_args *args, tensor dq, tensor dk, tensor dv,
                                  tensor datt, const char **why)
{
    const tensor att = args->att, q = args->q, k = args->k, v = args->v;
    const attend_shape s = ragged_shape(args);

    if (!takes_rows(a, args, s, {q, k, v, att, dq, dk, dv, datt}, why)) return false;
    plan &p = find_plan(a, key_of(true, s, att.rows, {q, k, v, att, dq, dk, dv, datt}), [&] {
        builder b = builder_of(q.dt, s, att.rows);
        backward_graph(b, dq, dk, dv, datt, q, k, v, att, a->dev->deterministic);
        return b;
    });
    pointers data = {{ID_Q, q.data},   {ID_K, k.data},   {ID_V, v.data},   {ID_ATT, att.data}, {ID_LSE, args->lse},
                     {ID_DQ, dq.data}, {ID_DK, dk.data}, {ID_DV, dv.data}, {ID_DATT, datt.data}};
    if (p.graph) add_lists(a, data, p, lists_of(a, args, s));
    return run(a, p, data, "attend_backward", why);
}
