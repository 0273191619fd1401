/* The rates of the CPU's products, attention and row operations at one shape, best of several runs.
 *     bench-products [threads [tokens]] */
#include "src/ops/ops.h"

#include <stdio.h>
#include <stdlib.h>

enum { HIDDEN = 1024, INTERMEDIATE = 2816, HEADS = 16, KV_HEADS = 4, HEAD_DIM = 64, VOCAB = 8192, RUNS = 7 };

static const moai_ops *const op = &ops_cpu;
static moai_device *dev;
static int64_t n_tokens = 1024;

static tensor normals(dtype dt, int64_t rows, int64_t cols)
{
    static uint64_t key;
    tensor t = tensor_of(op->alloc(dev, (size_t)(rows * cols) * dtype_size(dt)), dt, rows, cols);

    CHECK(t.data, "no memory for (%lld, %lld)", (long long)rows, (long long)cols);
    op->fill_normal(dev, t, ++key, 0, 0, cols, 1.0f);
    return t;
}
static void release(tensor t) { op->free(dev, t.data); }

/* best seconds of `call` over RUNS runs */
#define BEST(call)                                       \
    ({                                                   \
        double best_ = 1e30;                             \
        for (int run_ = 0; run_ < RUNS; run_++) {        \
            double start_ = now_seconds();               \
            call;                                        \
            op->sync(dev);                               \
            double took_ = now_seconds() - start_;       \
            best_ = took_ < best_ ? took_ : best_;       \
        }                                                \
        best_;                                           \
    })

typedef struct rates {
    double flop, seconds;                     /* summed over what has been measured */
} rates;

static double count(rates *r, double flop, double seconds)
{
    r->flop += flop;
    r->seconds += seconds;
    return flop / seconds * 1e-9;
}

static void measure_linear(const char *name, dtype dt, int64_t in, int64_t out, rates *all)
{
    tensor x = normals(dt, n_tokens, in), w = normals(dt, out, in), y = normals(dt, n_tokens, out),
           dw = normals(DT_F32, out, in);
    double flop = 2.0 * (double)(n_tokens * in * out);
    double forward = count(all, flop, BEST(op->matmul(dev, y, x, w)));
    double dx = count(all, flop, BEST(op->matmul_dx(dev, x, y, w, false)));
    double dweight = count(all, flop, BEST(op->matmul_dw(dev, dw, y, x, true)));

    printf("  %-10s %5lld -> %-5lld %s  %8.0f %8.0f %8.0f\n", name, (long long)in, (long long)out, dtype_name(dt),
           forward, dx, dweight);
    release(x), release(w), release(y), release(dw);
}

static void measure_linears(dtype dt)
{
    rates all = {0};

    printf("products, GFLOP/s%18sx W^T     dy W   dy^T x\n", "");
    measure_linear("qkv", dt, HIDDEN, (HEADS + 2 * KV_HEADS) * HEAD_DIM, &all);
    measure_linear("o", dt, HEADS * HEAD_DIM, HIDDEN, &all);
    measure_linear("gate, up", dt, HIDDEN, 2 * INTERMEDIATE, &all);
    measure_linear("down", dt, INTERMEDIATE, HIDDEN, &all);
    measure_linear("head", dt, HIDDEN, VOCAB, &all);
    printf("  all %s products: %.0f GFLOP/s\n", dtype_name(dt), all.flop / all.seconds * 1e-9);
}

static void measure_attention(dtype dt)
{
    tensor q = normals(dt, n_tokens, HEADS * HEAD_DIM), k = normals(dt, n_tokens, KV_HEADS * HEAD_DIM),
           v = normals(dt, n_tokens, KV_HEADS * HEAD_DIM);
    tensor att = normals(dt, n_tokens, HEADS * HEAD_DIM), datt = normals(dt, n_tokens, HEADS * HEAD_DIM),
           lse = normals(DT_F32, HEADS, n_tokens);
    tensor dq = normals(dt, n_tokens, HEADS * HEAD_DIM), dk = normals(dt, n_tokens, KV_HEADS * HEAD_DIM),
           dv = normals(dt, n_tokens, KV_HEADS * HEAD_DIM);
    const attend_segment whole = attend_whole(0, n_tokens);
    const attend_args a = {att, lse.data, q, k, v, {HEADS, KV_HEADS, HEAD_DIM, 0.125f}, &whole, 1};
    double causal = 2.0 * (double)(HEADS * HEAD_DIM) *
                    (double)(n_tokens * (n_tokens + 1)); /* Q K^T and P V, keys up to the query */
    double forward = causal / BEST(op->attend(dev, &a)) * 1e-9;
    double backward = 2.5 * causal / BEST(op->attend_backward(dev, &a, dq, dk, dv, datt)) * 1e-9;

    printf("attention %s, heads %d:%d of %d, causal GFLOP/s: forward %.0f, backward %.0f\n", dtype_name(dt), HEADS,
           KV_HEADS, HEAD_DIM, forward, backward);
    release(q), release(k), release(v), release(att), release(datt), release(lse), release(dq), release(dk),
        release(dv);
}

static double gigabytes(const tensor *list, int n, double seconds)
{
    double n_bytes = 0.0;
    for (int i = 0; i < n; i++) n_bytes += (double)tensor_n_elem(list[i]) * (double)dtype_size(list[i].dt);
    return n_bytes / seconds * 1e-9;
}
#define RATE(call, ...)                                                                                                \
    gigabytes((tensor[]){__VA_ARGS__}, (int)(sizeof((tensor[]){__VA_ARGS__}) / sizeof(tensor)), BEST(call))

static void measure_rows(dtype dt)
{
    tensor x = normals(dt, n_tokens, HIDDEN), o = normals(dt, n_tokens, HIDDEN), h = normals(dt, n_tokens, HIDDEN),
           n = normals(dt, n_tokens, HIDDEN);
    tensor w = normals(dt, 1, HIDDEN), dw = normals(DT_F32, 1, HIDDEN), r = normals(DT_F32, 1, n_tokens);
    tensor gate_up = normals(dt, n_tokens, 2 * INTERMEDIATE), act = normals(dt, n_tokens, INTERMEDIATE),
           dgate_up = normals(dt, n_tokens, 2 * INTERMEDIATE);
    tensor logits = normals(dt, n_tokens, VOCAB), stats = normals(DT_F32, n_tokens, 3),
           nll = normals(DT_F32, 1, n_tokens);
    int32_t *ids = op->alloc(dev, (size_t)n_tokens * sizeof *ids);
    for (int64_t i = 0; i < n_tokens; i++) ids[i] = (int32_t)(i * 37 % VOCAB);

    printf("rows %s, GB/s: residual+rmsnorm %.1f, its backward %.1f, swiglu %.1f, backward %.1f", dtype_name(dt),
           RATE(op->residual_rmsnorm(dev, h, n, r.data, x, o, w, 1e-6f), h, n, x, o),
           RATE(op->rmsnorm_backward(dev, h, dw, n, o, x, r.data, w), h, n, o, x),
           RATE(op->swiglu(dev, act, gate_up), act, gate_up),
           RATE(op->swiglu_backward(dev, dgate_up, (tensor){0}, act, gate_up), dgate_up, act, gate_up));
    printf(", softmax %.1f, cross-entropy %.1f\n", RATE(op->softmax_stats(dev, stats.data, logits, ids, 0), logits),
           RATE(op->cross_entropy(dev, nll.data, logits, stats.data, 1, ids, NULL, 0, 1e-3f), logits, logits));
    op->free(dev, ids);
    release(x), release(o), release(h), release(n), release(w), release(dw), release(r), release(gate_up), release(act),
        release(dgate_up);
    release(logits), release(stats), release(nll);
}

static void measure_optimizer(void)
{
    int64_t n = 8 << 20;
    tensor w = normals(DT_F32, 1, n), m = normals(DT_F32, 1, n), v = normals(DT_F32, 1, n), g = normals(DT_F32, 1, n),
           p = normals(DT_BF16, 1, n);
    float scale = 1.0f;
    double squares = 0.0;
    adamw_args a = {w.data, m.data, v.data, p.data, DT_BF16, g.data, n, n, &scale, 1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 1};

    printf("optimizer, million elements/s: adamw %.0f, sum_squares %.0f\n", (double)n / BEST(op->adamw(dev, &a)) * 1e-6,
           (double)n / BEST(op->sum_squares(dev, &squares, g.data, n)) * 1e-6);
    release(w), release(m), release(v), release(g), release(p);
}

int main(int argc, char **argv)
{
    static const dtype both[] = {DT_F32, DT_BF16};
    int n_threads = argc > 1 ? atoi(argv[1]) : 2;

    if (argc > 2) n_tokens = atoll(argv[2]);
    dev = device_open_cpu(n_threads);
    printf("%s, %d threads, %lld tokens, best of %d\n", device_products_cpu(dev), n_threads, (long long)n_tokens, RUNS);
    for (int i = 0; i < 2; i++) {
        measure_linears(both[i]);
        measure_attention(both[i]);
        measure_rows(both[i]);
    }
    measure_optimizer();
    device_close_cpu(dev);
    return 0;
}
