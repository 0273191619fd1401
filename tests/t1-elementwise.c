/* cast, add, fill, fill_normal, SwiGLU and the memory entries against fp64; -d names the device. */
#include "tests/lib/battery.h"

#include "src/base/rng.h"

static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

static void check_memory(void)
{
    float host[1000], back[1000];
    for (int i = 0; i < 1000; i++) host[i] = (float)i, back[i] = -1.0f;
    float *a = dut.ops->alloc(dut.dev, sizeof host), *b = dut.ops->alloc(dut.dev, sizeof host);

    dut.ops->copy(dut.dev, a, host, sizeof host, COPY_TO_DEVICE);
    dut.ops->copy(dut.dev, b, a, sizeof host, COPY_ON_DEVICE);
    dut.ops->zero(dut.dev, b + 10, 5 * sizeof *b);
    dut.ops->copy(dut.dev, back, b, sizeof host, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
    memset(host + 10, 0, 5 * sizeof *host);
    ok(memcmp(host, back, sizeof host) == 0, "copy there, on the device, zero, and back");
    ok((uintptr_t)a % 64 == 0, "allocations are aligned to 64 bytes");
    dut.ops->free(dut.dev, a), dut.ops->free(dut.dev, b);
#ifndef __SANITIZE_ADDRESS__                   /* its allocator ends the program instead */
    ok(dut.ops->alloc(dut.dev, (size_t)1 << 60) == NULL, "2^60 bytes do not fit: NULL");
#endif
}

static void check_cast(dtype to, dtype from, int64_t n, bool strided)
{
    /* ties, the largest of each type's normal range, subnormals of fp16, zeros, infinities */
    static const double special[] = {0.0,         -0.0,      1.0,       1.00390625,   1.01171875,
                                     -1.00390625, 65504.0,   -65504.0,  6e-5,         5.9604645e-08,
                                     INFINITY,    -INFINITY, 3.0078125, 0x1.fffffep0, 1e-3};
    int64_t n_special = (int64_t)(sizeof special / sizeof *special);
    double *values = random_doubles(3 * n);
    memcpy(values + n, special, sizeof special);

    field x = field_make("x", from, 3, n, strided, values), y = field_output("y", to, 3, n, strided);
    bool right = true;
    TWICE(dut.ops->cast(dut.dev, y.t, x.t), &y);
    for (int64_t i = 0; i < 3 * n; i++) {
        char rounded[4];
        number_put(rounded, to, x.v[i]);
        right = right && field_at(&y, i / n, i % n) == number_get(rounded, to);
    }
    ok(right && n_special < n && field_gaps_survive(&y), "cast %s to %s%s: each number rounded to nearest even",
       dtype_name(from), dtype_name(to), strided ? ", strided" : "");

    double nan_value = NAN;
    field nan_x = field_make("nan", from, 1, 1, false, &nan_value), nan_y = field_output("y", to, 1, 1, false);
    dut.ops->zero(dut.dev, nan_y.t.data, nan_y.n_bytes);
    dut.ops->cast(dut.dev, nan_y.t, nan_x.t);
    field_fetch(&nan_y);
    ok(isnan(field_at(&nan_y, 0, 0)), "cast %s to %s: a NaN stays a NaN", dtype_name(from), dtype_name(to));
    FREE(&x, &y, &nan_x, &nan_y);
    free(values);
}

static void check_add(dtype dt, int64_t cols, bool strided)
{
    int64_t rows = 5;
    field a = field_random("a", dt, rows, cols, strided), b = field_random("b", dt, rows, cols, false),
          y = field_output("y", dt, rows, cols, strided);
    double *sum = doubles(rows * cols);

    for (int64_t i = 0; i < rows * cols; i++) sum[i] = a.v[i] + b.v[i];
    TWICE(dut.ops->add(dut.dev, y.t, a.t, b.t), &y);
    ok_field(&y, sum, 1e-7, "add");
    dut.ops->add(dut.dev, a.t, a.t, b.t);
    ok_field(&a, sum, 1e-7, "add in place, first operand");
    field_restart(&a);
    dut.ops->add(dut.dev, b.t, a.t, b.t);
    ok_field(&b, sum, 1e-7, "add in place, second operand");
    FREE(&a, &b, &y);
    free(sum);
}

static void check_scale(dtype dt, int64_t cols, bool strided)
{
    const int64_t rows = 5;
    field x = field_random("x", dt, rows, cols, strided), y = field_output("y", dt, rows, cols, strided);
    double *ref = doubles(rows * cols);

    for (int64_t i = 0; i < rows * cols; i++) ref[i] = -1.75 * x.v[i];
    TWICE(dut.ops->scale(dut.dev, y.t, x.t, -1.75f), &y);
    ok_field(&y, ref, 1e-7, "scale");
    dut.ops->scale(dut.dev, x.t, x.t, -1.75f);
    ok_field(&x, ref, 1e-7, "scale in place");
    FREE(&x, &y);
    free(ref);
}

/* Each element by itself, wherever the piece begins; about the share that is asked for is dropped. */
static void check_dropout(dtype dt, int64_t cols, int64_t row0, bool strided)
{
    enum { ROWS = 21, GLOBAL_COLS = 3000, COL0 = 13 };
    const uint64_t key = rng_key(5, "dropout");
    const float p = 0.25f;
    field x = field_random("x", dt, ROWS, cols, strided), y = field_output("y", dt, ROWS, cols, strided);
    double *ref = doubles(ROWS * cols);
    int64_t n_dropped = 0;

    for (int64_t i = 0; i < ROWS * cols; i++) {
        const int64_t index = (row0 + i / cols) * GLOBAL_COLS + COL0 + i % cols;
        const bool drop = rng_below(key, (uint64_t)index, dropout_below(p));
        ref[i] = drop ? 0 : x.v[i] / (1 - p);
        n_dropped += drop;
    }
    TWICE(dut.ops->dropout(dut.dev, y.t, x.t, key, row0, COL0, GLOBAL_COLS, p), &y);
    ok_field(&y, ref, 1e-7, "dropout");
    const double share = (double)n_dropped / (double)(ROWS * cols);
    ok(fabs(share - p) < 5 * sqrt(p * (1 - p) / (double)(ROWS * cols)), "dropout of %g: %.4f are dropped", (double)p,
       share);
    dut.ops->dropout(dut.dev, y.t, x.t, key, row0, COL0, GLOBAL_COLS, 0);
    ok_field(&y, x.v, 0, "no dropout");
    dut.ops->dropout(dut.dev, x.t, x.t, key, row0, COL0, GLOBAL_COLS, p);
    ok_field(&x, ref, 1e-7, "dropout in place");
    FREE(&x, &y);
    free(ref);
}

static void check_fills(dtype dt, int64_t cols, int64_t row0, bool strided)
{
    int64_t rows = 9, global_cols = 60, col0 = 11;
    uint64_t key = rng_key(7, "a tensor");
    field y = field_output("y", dt, rows, cols, strided);
    double *expected = doubles(rows * cols);

    for (int64_t i = 0; i < rows * cols; i++) expected[i] = -1.5;
    TWICE(dut.ops->fill(dut.dev, y.t, -1.5f), &y);
    ok_field(&y, expected, 0.0, "fill");
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < cols; j++)
            expected[i * cols + j] = 0.02 * rng_normal(key, (uint64_t)((row0 + i) * global_cols + col0 + j));
    TWICE(dut.ops->fill_normal(dut.dev, y.t, key, row0, col0, global_cols, 0.02f), &y);
    ok_field(&y, expected, 1e-6, "fill_normal of a block of a wider matrix");
    FREE(&y);
    free(expected);
}

/* -- SwiGLU -- */

typedef struct swiglu_problem {
    int64_t rows, cols;
    const double *gate_up, *dact;
} swiglu_problem;

static double silu(double x) { return x / (1.0 + exp(-x)); }

static void swiglu_reference(const swiglu_problem *p, double *act)
{
    for (int64_t i = 0; i < p->rows; i++)
        for (int64_t j = 0; j < p->cols; j++)
            act[i * p->cols + j] = silu(p->gate_up[i * 2 * p->cols + j]) * p->gate_up[(i * 2 + 1) * p->cols + j];
}

static double swiglu_loss(const void *problem)
{
    const swiglu_problem *p = problem;
    double *act = doubles(p->rows * p->cols), sum = 0.0;

    swiglu_reference(p, act);
    for (int64_t i = 0; i < p->rows * p->cols; i++) sum += act[i] * p->dact[i];
    free(act);
    return sum;
}

static void swiglu_backward_reference(const swiglu_problem *p, double *dgate_up)
{
    for (int64_t i = 0; i < p->rows; i++) {
        for (int64_t j = 0; j < p->cols; j++) {
            double g = p->gate_up[i * 2 * p->cols + j], u = p->gate_up[(i * 2 + 1) * p->cols + j],
                   d = p->dact[i * p->cols + j];
            double s = 1.0 / (1.0 + exp(-g));
            dgate_up[i * 2 * p->cols + j] = d * u * (s + g * s * (1.0 - s));
            dgate_up[(i * 2 + 1) * p->cols + j] = d * silu(g);
        }
    }
}

static void check_swiglu(dtype dt, int64_t cols, bool strided)
{
    int64_t rows = 7;
    double *values = random_doubles(rows * 2 * cols);
    for (int64_t i = 0; i < rows * 2 * cols; i++) values[i] *= 6.0;
    values[0] = 100.0, values[1] = -100.0, values[2] = 0.0, values[3] = -88.0;          /* where exp leaves the range */
    field gate_up = field_make("gate_up", dt, rows, 2 * cols, strided, values),
          dact = field_random("dact", dt, rows, cols, strided);
    field act = field_output("act", dt, rows, cols, strided),
          again = field_output("act again", dt, rows, cols, strided),
          dgate_up = field_output("dgate_up", dt, rows, 2 * cols, strided);
    swiglu_problem p = {rows, cols, gate_up.v, dact.v};
    double *ref = doubles(rows * cols), *dref = doubles(rows * 2 * cols);

    swiglu_reference(&p, ref);
    swiglu_backward_reference(&p, dref);
    ok_gradient(swiglu_loss, &p, gate_up.v, rows * 2 * cols, dref, "SwiGLU's reference gradient");
    TWICE(dut.ops->swiglu(dut.dev, act.t, gate_up.t), &act);
    ok_field(&act, ref, 3e-7, "swiglu");
    TWICE(dut.ops->swiglu_backward(dut.dev, dgate_up.t, (tensor){0}, dact.t, gate_up.t), &dgate_up);
    ok_field(&dgate_up, dref, 3e-7, "swiglu_backward");
    TWICE(dut.ops->swiglu_backward(dut.dev, gate_up.t, again.t, dact.t, gate_up.t), &gate_up);
    ok_field(&gate_up, dref, 3e-7, "swiglu_backward in place");
    ok_field(&again, ref, 3e-7, "swiglu again by its backward");
    FREE(&gate_up, &dact, &act, &again, &dgate_up);
    free(values), free(ref), free(dref);
}

/* Larger than the pieces in which copies are made, and not a multiple of them. */
static void check_host_memory(void)
{
    const size_t n = (9 << 20) + 12345;
    unsigned char *from = xmalloc(n), *pinned = dut.ops->alloc_host(dut.dev, n);
    size_t n_wrong = 0;

    if (!ok(pinned != NULL, "host memory for copies")) return;
    for (size_t i = 0; i < n; i++) from[i] = (unsigned char)(i * 7 + (i >> 13));
    void *on_device = to_device(from, n);
    dut.ops->copy(dut.dev, pinned, on_device, n, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
    for (size_t i = 0; i < n; i++) n_wrong += pinned[i] != from[i];
    ok(n_wrong == 0, "copied there and back: %zu of %zu bytes differ", n_wrong, n);
    dut.ops->free(dut.dev, on_device);
    dut.ops->free_host(dut.dev, pinned, n);
    free(from);
}

int main(int argc, char **argv)
{
    battery_open(argc, argv);
    check_memory();
    check_host_memory();
    for (int strided = 0; strided < 2; strided++) {
        for (int i = 0; i < 9; i++) {
            check_cast(three[i / 3], three[i % 3], 40, strided);
            check_cast(three[i / 3], three[i % 3], 41, strided);
        }
        for (int i = 0; i < 3; i++) {
            check_dropout(three[i], 77, 0, strided);
            check_dropout(three[i], 2064, 1ll << 33, strided);
            check_scale(three[i], 77, strided);
            check_scale(three[i], 2064, strided);
            check_add(three[i], 77, strided);
            check_add(three[i], 2064, strided);
            check_fills(three[i], 35, 3, strided);
            check_fills(three[i], 48, (int64_t)1 << 30, strided); /* indices above 32 bits */
            check_swiglu(three[i], 45, strided);
            check_swiglu(three[i], 48, strided);
        }
    }
    return battery_done();
}
