/* matmul.c: the three products of a linear map y = x W^T through cuBLASLt, accumulated in fp32; a few rows of x go
 * through matmul_few.cu, weights' gradients of few rows through matmul_dw_few.cu
 *
 * cuBLASLt counts matrices by columns: our row-major (rows, cols) is its (cols, rows), so each product is asked for
 * transposed.
 *     y  = x W^T        y^T  (out, N)  = W x^T
 *     dx = dy W         dx^T (in, N)   = W^T dy^T
 *     dw += dy^T x      dw^T (in, out) += x^T dy
 *
 * The first product of a shape asks the library for its candidates, runs each on the operands themselves and keeps the
 * fastest for the device's life; a deterministic device keeps the library's first choice, since a timing may decide
 * otherwise next time. Any one algorithm gives the same bits every time. */
#include "cuda/matmul_few.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CANDIDATES = 24, MAX_ALIGNMENT = 256, TRIALS = 3 };

/* A card under load lowers its clock to hold its power, and then another algorithm may be the fastest: products that
 * take a while are tried until the clock has settled. */
static const float trial_ms = 60, long_product_ms = 0.25f;

/* Everything an algorithm may depend on; compared byte for byte, so always zeroed first. */
typedef struct product_shape {
    int64_t m, n, k;                          /* the column-major product: c (m, n) = op(a) op(b) over k */
    int64_t lda, ldb, ldc;
    uint32_t align_a, align_b, align_c;       /* bytes; of c and z */
    cublasOperation_t op_a, op_b;
    dtype dt, c_dt;                           /* of a and b; of c */
    bool accumulate, in_place;                /* c = z + ..., z is c */
} product_shape;

typedef struct product_plan {
    product_shape shape;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algo;
} product_plan;

struct product_plans {
    product_plan *list;
    int n, room;
};

product_plans *product_plans_open(void) { return xmalloc(sizeof(product_plans)); }

void product_plans_close(product_plans *plans)
{
    for (int i = 0; i < plans->n; i++) {
        CUBLAS_CHECK(cublasLtMatmulDescDestroy(plans->list[i].op));
        CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plans->list[i].a));
        CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plans->list[i].b));
        CUBLAS_CHECK(cublasLtMatrixLayoutDestroy(plans->list[i].c));
    }
    free(plans->list);
    free(plans);
}

/* a matrix that op turns into (rows, cols) */
static cublasLtMatrixLayout_t layout_of(dtype dt, cublasOperation_t op, int64_t rows, int64_t cols, int64_t stride)
{
    cublasLtMatrixLayout_t layout;
    bool turned = op == CUBLAS_OP_T;

    CUBLAS_CHECK(cublasLtMatrixLayoutCreate(&layout, cuda_type(dt), (uint64_t)(turned ? cols : rows),
                                            (uint64_t)(turned ? rows : cols), stride));
    return layout;
}

static void plan_describe(product_plan *p)
{
    const product_shape *s = &p->shape;

    CUBLAS_CHECK(cublasLtMatmulDescCreate(&p->op, CUBLAS_COMPUTE_32F, CUDA_R_32F)); /* no TF32 */
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSA, &s->op_a, sizeof s->op_a));
    CUBLAS_CHECK(cublasLtMatmulDescSetAttribute(p->op, CUBLASLT_MATMUL_DESC_TRANSB, &s->op_b, sizeof s->op_b));
    p->a = layout_of(s->dt, s->op_a, s->m, s->k, s->lda);
    p->b = layout_of(s->dt, s->op_b, s->k, s->n, s->ldb);
    p->c = layout_of(s->c_dt, CUBLAS_OP_N, s->m, s->n, s->ldc);
}

/* c = z + alpha op(a) op(b); z is c, or of c's layout, and not read when the product does not add. */
static cublasStatus_t plan_run(moai_device *dev, const product_plan *p, const cublasLtMatmulAlgo_t *algo, float alpha,
                               const void *a, const void *b, const void *z, void *c)
{
    float beta = p->shape.accumulate ? 1.0f : 0.0f;
    return cublasLtMatmul(dev->blas, p->op, &alpha, a, p->a, b, p->b, &beta, z, p->c, c, p->c, algo, dev->workspace,
                          dev->workspace_bytes, dev->stream);
}

/* The library's candidates, its favourite first. */
static int plan_candidates(moai_device *dev, const product_plan *p, cublasLtMatmulHeuristicResult_t *found)
{
    const product_shape *s = &p->shape;
    /* the parts of a long sum are added in fp32, never in c's 16 bits */
    const uint32_t sums = s->c_dt == DT_F32 ? CUBLASLT_REDUCTION_SCHEME_MASK : CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t what;
        const void *value;
        size_t size;
    } wish[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &dev->workspace_bytes, sizeof dev->workspace_bytes},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->align_a, sizeof s->align_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->align_b, sizeof s->align_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->align_c, sizeof s->align_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->align_c, sizeof s->align_c},
    };
    cublasLtMatmulPreference_t want;
    cublasStatus_t status;
    int n = 0;

    CUBLAS_CHECK(cublasLtMatmulPreferenceCreate(&want));
    for (size_t i = 0; i < sizeof wish / sizeof *wish; i++)
        CUBLAS_CHECK(cublasLtMatmulPreferenceSetAttribute(want, wish[i].what, wish[i].value, wish[i].size));
    status = cublasLtMatmulAlgoGetHeuristic(dev->blas, p->op, p->a, p->b, p->c, p->c, want, MAX_CANDIDATES, found, &n);
    CUBLAS_CHECK(cublasLtMatmulPreferenceDestroy(want));
    if (status != CUBLAS_STATUS_SUCCESS || n == 0)
        die("cuBLASLt has no algorithm for a product of %s into %s, m %lld n %lld k %lld, strides %lld %lld %lld: %s",
            dtype_name(s->dt), dtype_name(s->c_dt), (long long)s->m, (long long)s->n, (long long)s->k,
            (long long)s->lda, (long long)s->ldb, (long long)s->ldc, cublasLtGetStatusString(status));
    return n;
}

/* Milliseconds of one run; infinity for an algorithm that refuses.
 * In place, alpha is the smallest subnormal: the kernels do all their work, and what they add to c is less than
 * 2^-100 of what the product proper adds to the same element, so it vanishes in that sum's rounding. */
static float candidate_time(moai_device *dev, const product_plan *p, const cublasLtMatmulAlgo_t *algo, int n_runs,
                            const void *a, const void *b, const void *z, void *c, cudaEvent_t begin, cudaEvent_t end)
{
    float alpha = p->shape.in_place ? 0x1p-149f : 1.0f, ms;

    CUDA_CHECK(cudaEventRecord(begin, dev->stream));
    for (int i = 0; i < n_runs; i++)
        if (plan_run(dev, p, algo, alpha, a, b, z, c) != CUBLAS_STATUS_SUCCESS) return INFINITY;
    CUDA_CHECK(cudaEventRecord(end, dev->stream));
    CUDA_CHECK(cudaEventSynchronize(end));
    CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
    return ms / (float)n_runs;
}

/* A first run of each loads its code; the second drops the slow ones; the others are tried at length. */
static int fastest_candidate(moai_device *dev, const product_plan *p, const cublasLtMatmulHeuristicResult_t *found,
                             int n, const void *a, const void *b, const void *z, void *c)
{
    float short_ms[MAX_CANDIDATES], least = INFINITY, best_ms = INFINITY;
    int best = 0;                             /* of the short trials, until one of the long ones */
    cudaEvent_t begin, end;

    CUDA_CHECK(cudaEventCreate(&begin));
    CUDA_CHECK(cudaEventCreate(&end));
    for (int i = 0; i < n; i++) {
        candidate_time(dev, p, &found[i].algo, 1, a, b, z, c, begin, end);
        short_ms[i] = candidate_time(dev, p, &found[i].algo, 1, a, b, z, c, begin, end);
        if (short_ms[i] < least) least = short_ms[i], best = i;
    }
    const bool is_long = least > long_product_ms;
    const int n_runs = is_long && trial_ms > TRIALS * least ? (int)(trial_ms / least) : TRIALS;
    for (int i = 0; i < n; i++) {
        if (!(short_ms[i] <= 1.2f * least)) continue;
        if (is_long) candidate_time(dev, p, &found[i].algo, (n_runs + 1) / 2, a, b, z, c, begin, end);
        float ms = candidate_time(dev, p, &found[i].algo, n_runs, a, b, z, c, begin, end);
        if (ms < best_ms) best_ms = ms, best = i;
    }
    CUDA_CHECK(cudaEventDestroy(begin));
    CUDA_CHECK(cudaEventDestroy(end));
    return best;
}

static const product_plan *plan_find(product_plans *plans, const product_shape *shape)
{
    for (int i = 0; i < plans->n; i++)
        if (memcmp(&plans->list[i].shape, shape, sizeof *shape) == 0) return &plans->list[i];
    return NULL;
}

static const product_plan *plan_make(moai_device *dev, const product_shape *shape, const void *a, const void *b,
                                     const void *z, void *c)
{
    product_plans *plans = dev->products;
    cublasLtMatmulHeuristicResult_t found[MAX_CANDIDATES];

    if (plans->n == plans->room) {
        plans->room = plans->room ? 2 * plans->room : 64;
        plans->list = realloc(plans->list, (size_t)plans->room * sizeof *plans->list);
        CHECK(plans->list, "out of host memory: plans of %d products", plans->room);
    }
    product_plan *p = &plans->list[plans->n++];
    memcpy(&p->shape, shape, sizeof *shape);  /* an assignment need not copy the padding that plan_find compares */
    plan_describe(p);
    int n = plan_candidates(dev, p, found);
    p->algo = found[n == 1 || dev->deterministic ? 0 : fastest_candidate(dev, p, found, n, a, b, z, c)].algo;
    return p;
}

static uint32_t alignment_of(const void *p)
{
    uintptr_t lowest_bit = (uintptr_t)p & -(uintptr_t)p;
    return lowest_bit < MAX_ALIGNMENT ? (uint32_t)lowest_bit : MAX_ALIGNMENT;
}

/* c^T = z^T + op(a) op(b), z NULL for none, as cuBLASLt sees the row-major matrices: c (n rows, m columns) */
static void product(moai_device *dev, tensor c, tensor a, cublasOperation_t op_a, tensor b, cublasOperation_t op_b,
                    int64_t k, const void *z)
{
    product_shape s;

    if (c.rows == 0 || c.cols == 0) return;
    if (k == 0) {                             /* a sum over nothing */
        size_t size = dtype_size(c.dt);
        if (!z)
            CUDA_CHECK(cudaMemset2DAsync(c.data, (size_t)c.stride * size, 0, (size_t)c.cols * size, (size_t)c.rows,
                                         dev->stream));
        tensor sum = c;
        sum.data = (void *)z;
        if (z && z != c.data) cast_cuda(dev, c, sum);
        return;
    }
    CHECK(a.dt == b.dt && (c.dt == a.dt || c.dt == DT_F32), "a product of %s and %s into %s", dtype_name(a.dt),
          dtype_name(b.dt), dtype_name(c.dt));
    memset(&s, 0, sizeof s);
    s.m = c.cols, s.n = c.rows, s.k = k;
    s.lda = a.stride, s.ldb = b.stride, s.ldc = c.stride;
    s.align_a = alignment_of(a.data), s.align_b = alignment_of(b.data), s.align_c = alignment_of(c.data);
    if (z && alignment_of(z) < s.align_c) s.align_c = alignment_of(z);
    s.op_a = op_a, s.op_b = op_b;
    s.dt = a.dt, s.c_dt = c.dt;
    s.accumulate = z != NULL;
    s.in_place = z == c.data;
    const product_plan *p = plan_find(dev->products, &s);
    if (!p) p = plan_make(dev, &s, a.data, b.data, z, c.data);
    CUBLAS_CHECK(plan_run(dev, p, &p->algo, 1.0f, a.data, b.data, z, c.data));
}

static void check_product(const char *op, tensor y, tensor x, tensor w)
{
    CHECK(y.rows == x.rows && x.cols == w.cols && y.cols == w.rows,
          "%s: (%lld, %lld) = (%lld, %lld) with W (%lld, %lld)", op, (long long)y.rows, (long long)y.cols,
          (long long)x.rows, (long long)x.cols, (long long)w.rows, (long long)w.cols);
}

void matmul_cuda(moai_device *dev, tensor y, tensor x, tensor w)
{
    check_product("matmul", y, x, w);
    if (matmul_few(dev, y, x, w, NULL)) return;
    product(dev, y, w, CUBLAS_OP_T, x, CUBLAS_OP_N, x.cols, NULL);
}

void matmul_add_cuda(moai_device *dev, tensor y, tensor x, tensor w, tensor z)
{
    check_product("matmul_add", y, x, w);
    CHECK(z.dt == y.dt && z.rows == y.rows && z.cols == y.cols && z.stride == y.stride,
          "matmul_add: z (%lld, %lld) of %s, stride %lld, is not of y's form", (long long)z.rows, (long long)z.cols,
          dtype_name(z.dt), (long long)z.stride);
    if (matmul_few(dev, y, x, w, z.data)) return;
    product(dev, y, w, CUBLAS_OP_T, x, CUBLAS_OP_N, x.cols, z.data);
}

void matmul_dx_cuda(moai_device *dev, tensor dx, tensor dy, tensor w, bool accumulate)
{
    check_product("matmul_dx", dy, dx, w);
    product(dev, dx, w, CUBLAS_OP_N, dy, CUBLAS_OP_N, dy.cols, accumulate ? dx.data : NULL);
}

void matmul_dw_cuda(moai_device *dev, tensor dw, tensor dy, tensor x, bool accumulate)
{
    check_product("matmul_dw", dy, x, dw);
    CHECK(dw.dt == DT_F32, "matmul_dw: gradients of weights are fp32, not %s", dtype_name(dw.dt));
    if (matmul_dw_few(dev, dw, dy, x, accumulate)) return;
    product(dev, dw, x, CUBLAS_OP_N, dy, CUBLAS_OP_T, x.rows, accumulate ? dw.data : NULL);
}
