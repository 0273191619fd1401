/* bench_attend.c: attention at MOAI-3B's heads on one GPU: TFLOP/s of each, and what decoding reads a second.
 *
 * A product of m x n x k counts 2 m n k, attention 2 of them forward and 5 backward, causal: half.  Tensors are larger
 * than the L2. */
#include "cuda/cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 28, KV_HEADS = 4, HEAD_DIM = 128, Q = HEADS * HEAD_DIM, K = KV_HEADS * HEAD_DIM };
enum { MOST_TOKENS = 32768, CACHES = 64, CACHE_LEN = 4096 };

static moai_device *dev;
static tensor qkv, dqkv, att, datt;
static float *lse;
static const head_shape heads = {HEADS, KV_HEADS, HEAD_DIM, 0.08838835f};
static attend_segment segments[4];
static attend_args args;
static int64_t n_tokens;

static tensor bf16(int64_t rows, int64_t cols)
{
    tensor t = tensor_of(alloc_cuda(dev, (size_t)(rows * cols) * 2), DT_BF16, rows, cols);
    CHECK(t.data, "no room for a (%lld, %lld) tensor", (long long)rows, (long long)cols);
    fill_normal_cuda(dev, t, (uint64_t)(rows + cols), 0, 0, cols, 1.0f);
    return t;
}

static tensor rows_of(tensor t) { return tensor_rows(t, 0, n_tokens); }
static tensor q_of(tensor t) { return tensor_cols(rows_of(t), 0, Q); }
static tensor k_of(tensor t) { return tensor_cols(rows_of(t), Q, K); }
static tensor v_of(tensor t) { return tensor_cols(rows_of(t), Q + K, K); }

static void forward(void) { attend_cuda(dev, &args); }
static void backward(void) { attend_backward_cuda(dev, &args, q_of(dqkv), k_of(dqkv), v_of(dqkv), rows_of(datt)); }

/* of one call; the median of five rounds of about 40 ms */
static int ascending(const void *a, const void *b)
{
    return (*(const float *)a > *(const float *)b) - (*(const float *)a < *(const float *)b);
}
static double seconds(void (*run)(void))
{
    enum { ROUNDS = 5 };
    cudaEvent_t begin, end;
    float ms[ROUNDS];
    int n_calls = 1;

    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    run();
    for (int round = -1; round < ROUNDS; round++) {
        CUDA_CHECK(cudaEventRecord(begin, dev->stream));
        for (int i = 0; i < n_calls; i++) run();
        CUDA_CHECK(cudaEventRecord(end, dev->stream));
        CUDA_CHECK(cudaEventSynchronize(end));
        CUDA_CHECK(cudaEventElapsedTime(&ms[round < 0 ? 0 : round], begin, end));
        if (round < 0) n_calls = (int)ceilf(40.0f / ms[0]);
    }
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    qsort(ms, ROUNDS, sizeof *ms, ascending);
    return ms[ROUNDS / 2] * 1e-3 / n_calls;
}

static void bench_shape(int64_t batch, int64_t seq_len)
{
    const double flop =
        2.0 * (double)(batch * HEADS * HEAD_DIM) * (double)seq_len * (double)seq_len / 2.0; /* of one product */

    CHECK(batch <= (int64_t)(sizeof segments / sizeof *segments), "%lld sequences", (long long)batch);
    n_tokens = batch * seq_len;
    for (int64_t i = 0; i < batch; i++) segments[i] = attend_whole(i * seq_len, seq_len);
    args = (attend_args){rows_of(att), lse, q_of(qkv), k_of(qkv), v_of(qkv), heads, segments, (int)batch};
    printf("%3lld x %5lld", (long long)batch, (long long)seq_len);
    for (attend_choice choice = ATTEND_CUDNN; choice <= ATTEND_OWN; choice++) {
        if (!attend_use_cuda(dev, choice)) {
            printf("   %-12s %19s", "no cuDNN", "");
            continue;
        }
        double f = seconds(forward), b = seconds(backward);
        printf("   %-12.12s %4.0f fwd %4.0f bwd", choice == ATTEND_CUDNN ? attend_backend_cuda(dev) : "own",
               2.0 * flop / f * 1e-12, 5.0 * flop / b * 1e-12);
    }
    printf("\n");
    fflush(stdout);
}

/* -- decoding: calls walk through the caches -- */

static tensor k_cache, v_cache;
static int32_t *seq, *pos; /* (2 CACHES): row i belongs to sequence i % n_sequences, at its end */
static int64_t n_rows, cache_len, next;

static void decode(void)
{
    const int64_t n_sequences = CACHES * CACHE_LEN / cache_len;
    attend_cached_cuda(dev, tensor_rows(att, 0, n_rows), tensor_rows(datt, 0, n_rows), k_cache, v_cache, seq + next,
                       pos, cache_len, heads);
    next = (next + n_rows) % n_sequences;
}

static void bench_decode(int64_t batch, int64_t length)
{
    int32_t of[2 * CACHES], at[2 * CACHES];

    n_rows = batch, cache_len = length, next = 0;
    for (int i = 0; i < 2 * CACHES; i++) of[i] = i % (int)(CACHES * CACHE_LEN / length), at[i] = (int32_t)length - 1;
    copy_cuda(dev, seq, of, sizeof of, COPY_TO_DEVICE);
    copy_cuda(dev, pos, at, sizeof at, COPY_TO_DEVICE);
    printf("decode batch %2lld, cache %5lld", (long long)batch, (long long)length);
    for (int own = 0; own < 2; own++) {
        attend_use_cuda(dev, own ? ATTEND_OWN : ATTEND_PLAIN);
        double s = seconds(decode), n_bytes = (double)(batch * length) * 2.0 * K * 2.0;
        printf("   %s %7.1f us %5.0f GB/s", own ? "flash" : "plain", s * 1e6, n_bytes / s * 1e-9);
    }
    printf("\n");
    fflush(stdout);
}

int main(void)
{
    moai_error err;

    dev = device_open_cuda(0, false, &err);
    if (!dev) config_error("%s", err.text);
    printf("%s\nTFLOP/s at heads %d:%d, head_dim %d, bf16\n", device_describe_cuda(dev), HEADS, KV_HEADS, HEAD_DIM);
    qkv = bf16(MOST_TOKENS, Q + 2 * K), dqkv = bf16(MOST_TOKENS, Q + 2 * K), att = bf16(MOST_TOKENS, Q),
    datt = bf16(MOST_TOKENS, Q);
    k_cache = bf16(CACHES * CACHE_LEN, K), v_cache = bf16(CACHES * CACHE_LEN, K);
    lse = alloc_cuda(dev, (size_t)MOST_TOKENS * HEADS * sizeof *lse);
    seq = alloc_cuda(dev, 2 * CACHES * sizeof *seq), pos = alloc_cuda(dev, 2 * CACHES * sizeof *pos);
    bench_shape(2, 4096);
    bench_shape(4, 2048);
    bench_shape(1, 8192);
    bench_shape(1, 32768);
    bench_decode(1, 4096);
    bench_decode(32, 4096);
    bench_decode(1, 32768);
    bench_decode(8, 32768);
    device_close_cuda(dev);
    return 0;
}
