/* bench_ops.c: what each op of the CUDA table reaches at MOAI-3B's shapes, from one run on one GPU.
 *
 * Fused kernels: bytes that must move (each input read, each output written once) over time, and the share of a large
 * copy's rate. Products: TFLOP/s with the timed choice of algorithm and with the library's first.  Calls rotate over
 * buffers of several times the L2's size, filled with random numbers.
 *
 *     bench_ops [kernels | streams | products] */
#include "cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 8192,
    H = 3840,
    Q = 3584,
    K = 512,
    I = 10240,
    V = 128000,
    HEADS = 28,
    KV_HEADS = 4,
    HEAD_DIM = 128,
    SEQ = 4096,
    N_SETS = 4,
    R = 16,
    S = 4,
    RAW = 2 * S + S * S
};
static const size_t pool_bytes = (size_t)40 << 30, set_bytes = (size_t)10 << 30;
static const int64_t n_flat = 256 << 20;      /* elements of the flat buffers */

static moai_device *dev;
static char *pool;
static int32_t *ids, *positions;
static float *statistics, *grad_scale;
static double *total;
static double copy_rate;                      /* bytes a second, read and written */

/* Part `i` of set `set`: i counts steps of 1.25 GB. */
static void *part(int set, int i) { return pool + (size_t)set * set_bytes + (size_t)i * ((size_t)1280 << 20); }
static tensor bf16(int set, int i, int64_t rows, int64_t cols) { return tensor_of(part(set, i), DT_BF16, rows, cols); }
static tensor fp32(int set, int i, int64_t rows, int64_t cols) { return tensor_of(part(set, i), DT_F32, rows, cols); }

static const head_shape heads = {HEADS, KV_HEADS, HEAD_DIM, 0.0884f};
static rope_table rope(int s) { return (rope_table){fp32(s, 7, SEQ, HEAD_DIM / 2), fp32(s, 6, SEQ, HEAD_DIM / 2)}; }
static float *reciprocals(int s) { return part(s, 5); }

static void run_copy(int s)
{
    CUDA_CHECK(cudaMemcpyAsync(part(s, 0), part(s, 4), (size_t)4 << 30, cudaMemcpyDeviceToDevice, dev->stream));
}
static void run_rmsnorm(int s)
{
    rmsnorm_cuda(dev, bf16(s, 0, N, H), reciprocals(s), bf16(s, 1, N, H), bf16(s, 2, 1, H), 1e-6f);
}
static void run_residual(int s)
{
    residual_rmsnorm_cuda(dev, bf16(s, 0, N, H), bf16(s, 1, N, H), reciprocals(s), bf16(s, 2, N, H), bf16(s, 3, N, H),
                          bf16(s, 4, 1, H), 1e-6f);
}
static void run_rmsnorm_backward(int s)
{
    rmsnorm_backward_cuda(dev, bf16(s, 0, N, H), fp32(s, 6, 1, H), bf16(s, 1, N, H), bf16(s, 2, N, H), bf16(s, 3, N, H),
                          reciprocals(s), bf16(s, 4, 1, H));
}
static void run_qknorm(int s)
{
    qknorm_rope_cuda(dev, bf16(s, 0, N, Q + K), reciprocals(s), bf16(s, 1, N, Q + 2 * K), bf16(s, 2, 1, HEAD_DIM),
                     bf16(s, 3, 1, HEAD_DIM), rope(s), positions, heads, 1e-6f);
}
static void run_qknorm_backward(int s)
{
    qknorm_rope_backward_cuda(dev, bf16(s, 0, N, Q + 2 * K), fp32(s, 4, 1, HEAD_DIM), fp32(s, 4, 1, HEAD_DIM),
                              bf16(s, 1, N, Q + K), bf16(s, 2, N, Q + 2 * K), reciprocals(s), bf16(s, 3, 1, HEAD_DIM),
                              bf16(s, 3, 1, HEAD_DIM), rope(s), positions, heads);
}
static void run_swiglu(int s) { swiglu_cuda(dev, bf16(s, 0, N, I), bf16(s, 1, N, 2 * I)); }
static void run_swiglu_backward(int s)
{
    swiglu_backward_cuda(dev, bf16(s, 0, N, 2 * I), (tensor){0}, bf16(s, 1, N, I), bf16(s, 2, N, 2 * I));
}
static void run_add(int s) { add_cuda(dev, bf16(s, 0, N, H), bf16(s, 1, N, H), bf16(s, 2, N, H)); }
static void run_cast(int s) { cast_cuda(dev, bf16(s, 0, 1, n_flat), fp32(s, 1, 1, n_flat)); }
static void run_zero(int s) { zero_cuda(dev, part(s, 0), 4 * (size_t)n_flat); }
static void run_fill(int s) { fill_cuda(dev, fp32(s, 0, 1, n_flat), 0.5f); }
static void run_fill_normal(int s) { fill_normal_cuda(dev, bf16(s, 0, 1, n_flat), 7, 0, 0, n_flat, 0.02f); }
static void run_embed(int s) { embed_cuda(dev, bf16(s, 0, N, H), ids, bf16(s, 1, V, H), 0); }
static void run_embed_backward(int s) { embed_backward_cuda(dev, fp32(s, 0, V, H), ids, bf16(s, 2, N, H), 0); }
static void run_stats(int s) { softmax_stats_cuda(dev, statistics, bf16(s, 0, N, V), ids, 0); }
static void run_loss(int s)
{
    cross_entropy_cuda(dev, part(s, 4), bf16(s, 0, N, V), statistics, 1, ids, NULL, 0, 1.0f / N);
}
static void run_sum_squares(int s) { sum_squares_cuda(dev, total, part(s, 0), n_flat); }
static void run_adamw(int s)
{
    adamw_args a = {.master = part(s, 0),
                    .m = part(s, 1),
                    .v = part(s, 2),
                    .grad = part(s, 3),
                    .param = part(s, 4),
                    .param_dt = DT_BF16,
                    .n = n_flat,
                    .n_decay = n_flat,
                    .grad_scale = grad_scale,
                    .lr = 1e-9f,
                    .beta1 = 0.9f,
                    .beta2 = 0.95f,
                    .eps = 1e-8f,
                    .weight_decay = 0.1f,
                    .t = 1};
    adamw_cuda(dev, &a);
}

static void run_dequantize(int s) { dequantize_nf4_cuda(dev, bf16(s, 0, 2 * I, H), part(s, 4), part(s, 5)); }

/* Adapters of rank R on gate and up: thin products, whose time is that of the wide operand. */
static tensor low(int s) { return bf16(s, 6, N, 2 * R); }
static tensor wide(int s) { return tensor_cols(bf16(s, 0, N, 2 * I), 0, I); }
static void run_low(int s) { matmul_cuda(dev, low(s), bf16(s, 0, N, H), bf16(s, 5, 2 * R, H)); }
static void run_raise(int s) { matmul_cuda(dev, wide(s), tensor_cols(low(s), 0, R), bf16(s, 5, I, R)); }
static void run_raise_add(int s)
{
    matmul_add_cuda(dev, wide(s), tensor_cols(low(s), 0, R), bf16(s, 5, I, R), wide(s));
}
static void run_dlow(int s) { matmul_dx_cuda(dev, tensor_cols(low(s), 0, R), wide(s), bf16(s, 5, I, R), false); }
static void run_dx_low(int s) { matmul_dx_cuda(dev, bf16(s, 0, N, H), low(s), bf16(s, 5, 2 * R, H), false); }
static void run_da(int s) { matmul_dw_cuda(dev, fp32(s, 7, 2 * R, H), low(s), bf16(s, 0, N, H), true); }
static void run_lora_backward(int s)
{
    lora_backward_cuda(dev, tensor_cols(low(s), 0, R), fp32(s, 7, I, R), wide(s), bf16(s, 5, I, R),
                       tensor_cols(low(s), R, R), true);
}
static void run_db(int s) { matmul_dw_cuda(dev, fp32(s, 7, I, R), wide(s), tensor_cols(low(s), 0, R), true); }

/* Hyper-connections of S streams, mixed by Sinkhorn.  Of a set: parts 0 to 2 are streams, 3 holds what is one stream
 * wide, 4 what is smaller, 16 MB each. */
static const hc_shape streams = {.n = S, .iters = 20, .eps = 1e-6f, .norm_eps = 1e-6f};
static tensor all(int s, int i) { return bf16(s, i, N, S * H); }
static tensor one(int s, int i) { return tensor_of((char *)part(s, 3) + (size_t)i * (128 << 20), DT_BF16, N, H); }
static void *small(int s, int i) { return (char *)part(s, 4) + (size_t)i * (16 << 20); }
static tensor coefficients(int s, int i) { return tensor_of(small(s, i), DT_F32, N, RAW); }
static tensor fn(int s) { return tensor_of(small(s, 4), DT_BF16, RAW, S * H); }
static tensor row(int s, int i, int64_t cols) { return tensor_of(small(s, i), DT_BF16, 1, cols); }
static hc_reading reading(int s)
{
    return (hc_reading){one(s, 0), all(s, 2), coefficients(s, 0), row(s, 5, H), small(s, 6), fn(s),
                        tensor_of(small(s, 7), DT_BF16, N, RAW), tensor_of(small(s, 8), DT_F32, N, 2)};
}
static void run_merge(int s) { hc_merge_cuda(dev, all(s, 0), all(s, 1), one(s, 1), coefficients(s, 0), S); }
static void run_merge_coefficients(int s)
{
    hc_merge_coefficients_cuda(dev, all(s, 0), coefficients(s, 1), coefficients(s, 2), small(s, 9), all(s, 1),
                               one(s, 1), coefficients(s, 0), fn(s), row(s, 10, RAW), row(s, 11, 3), streams);
}
static void run_read_norm(int s)
{
    hc_read_norm_cuda(dev, one(s, 2), small(s, 6), all(s, 2), coefficients(s, 0), row(s, 5, H), 1e-6f, S);
}
static void run_read_backward(int s)
{
    const hc_reading a = reading(s);
    hc_read_backward_cuda(dev, fp32(s, 5, 1, H), fp32(s, 6, 1, RAW), fp32(s, 7, 1, 3), coefficients(s, 3), &a,
                          coefficients(s, 2), small(s, 9), row(s, 10, RAW), row(s, 11, 3), streams);
}
static void run_dfn(int s) { matmul_dw_cuda(dev, fp32(s, 5, RAW, S * H), reading(s).draw, all(s, 2), true); }
static void run_border_backward(int s)
{
    const hc_reading a = reading(s);
    hc_border_backward_cuda(dev, all(s, 0), one(s, 2), coefficients(s, 3), &a, all(s, 1), one(s, 1),
                            coefficients(s, 1), S);
}
static void run_streams_backward(int s)
{
    const hc_reading a = reading(s);
    hc_streams_backward_cuda(dev, all(s, 0), &a, S);
}
static void run_merge_backward(int s)
{
    hc_merge_backward_cuda(dev, all(s, 0), one(s, 2), coefficients(s, 3), all(s, 0), all(s, 1), one(s, 1),
                           coefficients(s, 1), S);
}

/* seconds of one call, the best of three rounds */
static double seconds(void (*run)(int set), int n_calls)
{
    cudaEvent_t begin, end;
    float best = 1e30f, ms;

    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    for (int i = 0; i < 2; i++) run(i % N_SETS);
    for (int round = 0; round < 3; round++) {
        CUDA_CHECK(cudaEventRecord(begin, dev->stream));
        for (int i = 0; i < n_calls; i++) run(i % N_SETS);
        CUDA_CHECK(cudaEventRecord(end, dev->stream));
        CUDA_CHECK(cudaEventSynchronize(end));
        CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
        best = ms < best ? ms : best;
    }
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return best * 1e-3 / n_calls;
}

/* N(0, 1/4) in bf16; read as fp32 it is such a number too, by its upper half */
static void fill_pool(void)
{
    const int64_t n = (int64_t)2 << 30;
    for (size_t at = 0; at < pool_bytes; at += (size_t)n * 2)
        fill_normal_cuda(dev, tensor_of(pool + at, DT_BF16, 1, n), at + 1, 0, 0, n, 0.5f);
}

static void bench_kernel(const char *name, double n_bytes, void (*run)(int set))
{
    double s = seconds(run, n_bytes > 1e9 ? 12 : 40);
    printf("%-22s %8.1f us %8.0f GB/s %6.1f %% of copy\n", name, s * 1e6, n_bytes / s * 1e-9,
           100.0 * n_bytes / s / copy_rate);
    fflush(stdout);
}

static void bench_streams(void)
{
    const double x = 2.0 * N * S * H, y = 2.0 * N * H;

    fill_pool();
    bench_kernel("merge", 2 * x + y, run_merge);
    bench_kernel("merge, coefficients", 2 * x + y, run_merge_coefficients);
    bench_kernel("read, norm", x + y, run_read_norm);
    bench_kernel("read backward", x + y, run_read_backward);
    bench_kernel("dfn", x, run_dfn);
    bench_kernel("border backward", 3 * x + 3 * y, run_border_backward);
    bench_kernel("streams backward", 3 * x + y, run_streams_backward);
    bench_kernel("merge backward", 3 * x + 2 * y, run_merge_backward);
}

static void bench_kernels(void)
{
    const double row = 2.0 * N * H, qk = 2.0 * N * (Q + K), up = 2.0 * N * I, logits = 2.0 * N * V;

    bench_kernel("rmsnorm", 2 * row, run_rmsnorm);
    bench_kernel("residual_rmsnorm", 4 * row, run_residual);
    bench_kernel("rmsnorm_backward", 4 * row, run_rmsnorm_backward);
    bench_kernel("qknorm_rope", 2 * qk, run_qknorm);
    bench_kernel("qknorm_rope_backward", 3 * qk, run_qknorm_backward);
    bench_kernel("swiglu", 3 * up, run_swiglu);
    bench_kernel("swiglu_backward", 5 * up, run_swiglu_backward);
    bench_kernel("add", 3 * row, run_add);
    bench_kernel("cast fp32 to bf16", 6.0 * n_flat, run_cast);
    bench_kernel("zero", 4.0 * n_flat, run_zero);
    bench_kernel("fill fp32", 4.0 * n_flat, run_fill);
    bench_kernel("fill_normal", 2.0 * n_flat, run_fill_normal);
    bench_kernel("embed", 2 * row, run_embed);
    bench_kernel("embed_backward", row + 8.0 * N * H, run_embed_backward);
    fill_pool();                              /* embed_backward left fp32 there */
    bench_kernel("softmax_stats", logits, run_stats);
    bench_kernel("cross_entropy", 2 * logits, run_loss);
    bench_kernel("sum_squares", 4.0 * n_flat, run_sum_squares);
    bench_kernel("adamw", 30.0 * n_flat, run_adamw);
    bench_kernel("dequantize_nf4", 2.5625 * 2 * I * H, run_dequantize);
    fill_pool();
    bench_kernel("LoRA: A x", row, run_low);
    bench_kernel("LoRA: B low", up, run_raise);
    bench_kernel("LoRA: y + B low", 2 * up, run_raise_add);
    bench_kernel("LoRA: B^T dy", up, run_dlow);
    bench_kernel("LoRA: A^T dlow", row, run_dx_low);
    bench_kernel("LoRA: dA", row, run_da);
    bench_kernel("LoRA: dB", up, run_db);
    bench_kernel("LoRA: B^T dy and dB", up, run_lora_backward);
}

/* -- products -- */

static int64_t p_tokens, p_in, p_out;

static void run_forward(int s)
{
    matmul_cuda(dev, bf16(s, 2, p_tokens, p_out), bf16(s, 0, p_tokens, p_in), bf16(s, 3, p_out, p_in));
}
static void run_forward_nf4(int s)
{
    matmul_nf4_cuda(dev, bf16(s, 2, p_tokens, p_out), bf16(s, 0, p_tokens, p_in), part(s, 3), part(s, 5), (tensor){0});
}
static void run_dx(int s)
{
    matmul_dx_cuda(dev, bf16(s, 1, p_tokens, p_in), bf16(s, 4, p_tokens, p_out), bf16(s, 3, p_out, p_in), false);
}
static void run_dw(int s)
{
    matmul_dw_cuda(dev, fp32(s, 6, p_out, p_in), bf16(s, 4, p_tokens, p_out), bf16(s, 0, p_tokens, p_in), true);
}

static void bench_product(const char *name, int64_t tokens, int64_t in, int64_t out, moai_device *timed,
                          moai_device *first)
{
    void (*const run[3])(int) = {run_forward, run_dx, run_dw};
    double flop = 2.0 * (double)tokens * (double)in * (double)out;

    p_tokens = tokens, p_in = in, p_out = out;
    printf("%-10s %6lld x %5lld -> %6lld", name, (long long)tokens, (long long)in, (long long)out);
    for (int i = 0; i < 3; i++) {
        double s[2];
        for (int d = 0; d < 2; d++) {
            dev = d ? first : timed;
            s[d] = seconds(run[i], (int)max_i64(4, min_i64(50, (int64_t)(6e12 / flop))));
        }
        printf("  %s %5.0f (first %5.0f)",
               i == 0   ? "y"
               : i == 1 ? "dx"
                        : "dw",
               flop / s[0] * 1e-12, flop / s[1] * 1e-12);
        fflush(stdout);
    }
    printf("  TFLOP/s\n");
    dev = timed;
}

/* decoding: the weights' bytes are what counts */
static void bench_few_rows(int64_t tokens, moai_device *timed)
{
    static const int64_t shape[5][2] = {{H, Q + 2 * K}, {Q, H}, {H, 2 * I}, {I, H}, {H, V}};

    for (int i = 0; i < 5; i++) {
        p_tokens = tokens, p_in = shape[i][0], p_out = shape[i][1], dev = timed;
        const double n = (double)(p_in * p_out), s = seconds(run_forward, 40);
        printf("%6lld x %5lld -> %6lld  %8.1f us %8.0f GB/s of weights", (long long)tokens, (long long)p_in,
               (long long)p_out, s * 1e6, 2 * n / s * 1e-9);
        if (tokens <= 8 && p_out != V) {
            const double nf4 = seconds(run_forward_nf4, 40);
            printf("; in 4 bits %6.1f us %8.0f GB/s", nf4 * 1e6, 0.5625 * n / nf4 * 1e-9);
        }
        printf("\n");
    }
}

static void fill_lists(void)
{
    int32_t *host = xmalloc(N * sizeof *host);
    float one = 1.0f;

    ids = alloc_cuda(dev, N * sizeof *ids);
    positions = alloc_cuda(dev, N * sizeof *positions);
    statistics = alloc_cuda(dev, 3 * N * sizeof *statistics);
    grad_scale = alloc_cuda(dev, sizeof *grad_scale);
    total = alloc_cuda(dev, sizeof *total);
    for (int i = 0; i < N; i++)
        host[i] = i % 16 == 0 ? 7 : (int32_t)((uint32_t)i * 2654435761u % V); /* one frequent token */
    copy_cuda(dev, ids, host, N * sizeof *ids, COPY_TO_DEVICE);
    for (int i = 0; i < N; i++) host[i] = i % SEQ;
    copy_cuda(dev, positions, host, N * sizeof *positions, COPY_TO_DEVICE);
    copy_cuda(dev, grad_scale, &one, sizeof one, COPY_TO_DEVICE);
    sync_cuda(dev);
    free(host);
}

int main(int argc, char **argv)
{
    moai_error err;
    moai_device *timed = device_open_cuda(0, false, &err), *first = timed ? device_open_cuda(0, true, &err) : NULL;

    if (!first) config_error("%s", err.text);
    dev = timed;
    pool = alloc_cuda(dev, pool_bytes);
    if (!pool) config_error("%zu bytes of GPU memory are needed", pool_bytes);
    fill_lists();
    fill_pool();
    printf("%s\n", device_describe_cuda(dev));
    copy_rate = 2.0 * ((size_t)4 << 30) / seconds(run_copy, 8);
    printf("copy                   %8.0f GB/s read and written\n", copy_rate * 1e-9);
    if (argc < 2 || strcmp(argv[1], "kernels") == 0) bench_kernels();
    if (argc < 2 || strcmp(argv[1], "streams") == 0) bench_streams();
    if (argc < 2 || strcmp(argv[1], "products") == 0) {
        fill_pool();
        bench_product("qkv", N, H, Q + 2 * K, timed, first);
        bench_product("o", N, Q, H, timed, first);
        bench_product("gate_up", N, H, 2 * I, timed, first);
        bench_product("down", N, I, H, timed, first);
        bench_product("head", N / 2, H, V, timed, first);
        bench_few_rows(1, timed);
        bench_few_rows(8, timed);
        bench_few_rows(32, timed);
    }
    free_cuda(dev, pool), free_cuda(dev, ids), free_cuda(dev, positions), free_cuda(dev, statistics),
        free_cuda(dev, grad_scale), free_cuda(dev, total);
    device_close_cuda(first);
    device_close_cuda(timed);
    return 0;
}
