/* The three products of a linear map, fp32, bf16 and fp16, packed and strided, odd sizes, against fp64.  -d: device. */
#include "tests/lib/battery.h"

/* c (m, n) += sum over l of a[i * ar + l * ac] b[l * br + j * bc] */
static void multiply(double *c, int64_t m, int64_t n, int64_t k, const double *a, int64_t ar, int64_t ac,
                     const double *b, int64_t br, int64_t bc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t l = 0; l < k; l++) c[i * n + j] += a[i * ar + l * ac] * b[l * br + j * bc];
}

/* A 16-bit product that is added in place may be rounded first. */
static double added_in_place(dtype dt, double tolerance)
{
    return tolerance + (dt == DT_BF16 ? 0x1p-7 : dt == DT_F16 ? 0x1p-10 : 0);
}

static void check_forward(dtype dt, dtype y_dt, int64_t n_tokens, int64_t in, int64_t out, bool strided)
{
    char what[96];
    double tolerance = 1e-6 * fmax(1.0, (double)in / 1000.0); /* sums of tensor cores are cut off, not rounded */
    field x = field_random("x", dt, n_tokens, in, strided), w = field_random("w", dt, out, in, strided);
    field y = field_output("y", y_dt, n_tokens, out, strided);
    field z = field_random("z", y_dt, n_tokens, out, strided), sum = field_output("sum", y_dt, n_tokens, out, strided);
    double *ref_y = doubles(n_tokens * out), *ref_sum = doubles(n_tokens * out);

    multiply(ref_y, n_tokens, out, in, x.v, in, 1, w.v, 1, in);
    for (int64_t i = 0; i < n_tokens * out; i++) ref_sum[i] = z.v[i] + ref_y[i];

    snprintf(what, sizeof what, "%s N %lld in %lld out %lld", dtype_name(dt), (long long)n_tokens, (long long)in,
             (long long)out);
    TWICE(dut.ops->matmul(dut.dev, y.t, x.t, w.t), &y);
    ok_field(&y, ref_y, tolerance, what);
    TWICE(dut.ops->matmul_add(dut.dev, sum.t, x.t, w.t, z.t), &sum);
    ok_field(&sum, ref_sum, tolerance, what);
    TWICE(dut.ops->matmul_add(dut.dev, z.t, x.t, w.t, z.t), &z);
    ok_field(&z, ref_sum, added_in_place(y_dt, tolerance), what);

    FREE(&x, &w, &y, &z, &sum);
    free(ref_y), free(ref_sum);
}

static void check_backward(dtype dt, dtype dx_dt, int64_t n_tokens, int64_t in, int64_t out, bool strided)
{
    char what[96];
    field x = field_random("x", dt, n_tokens, in, strided), w = field_random("w", dt, out, in, strided);
    field dy = field_random("dy", dt, n_tokens, out, strided), dx = field_output("dx", dx_dt, n_tokens, in, strided);
    field dw = field_random("dw", DT_F32, out, in, strided), first_dw = field_output("dw", DT_F32, out, in, strided);
    field more = field_random("dx", dx_dt, n_tokens, in, strided);
    double *ref_dx = doubles(n_tokens * in), *ref_more = doubles(n_tokens * in), *ref_dw = doubles(out * in),
           *ref_first = doubles(out * in);

    multiply(ref_dx, n_tokens, in, out, dy.v, out, 1, w.v, in, 1);
    for (int64_t i = 0; i < n_tokens * in; i++) ref_more[i] = more.v[i] + ref_dx[i];
    memcpy(ref_dw, dw.v, (size_t)(out * in) * sizeof *ref_dw);
    multiply(ref_dw, out, in, n_tokens, dy.v, 1, out, x.v, in, 1);
    multiply(ref_first, out, in, n_tokens, dy.v, 1, out, x.v, in, 1);

    snprintf(what, sizeof what, "%s N %lld in %lld out %lld", dtype_name(dt), (long long)n_tokens, (long long)in,
             (long long)out);
    TWICE(dut.ops->matmul_dx(dut.dev, dx.t, dy.t, w.t, false), &dx);
    ok_field(&dx, ref_dx, 1e-6, what);
    TWICE(dut.ops->matmul_dx(dut.dev, more.t, dy.t, w.t, true), &more);
    ok_field(&more, ref_more, added_in_place(dx_dt, 1e-6), what);
    TWICE(dut.ops->matmul_dw(dut.dev, dw.t, dy.t, x.t, true), &dw);
    ok_field(&dw, ref_dw, 1e-6, what);
    TWICE(dut.ops->matmul_dw(dut.dev, first_dw.t, dy.t, x.t, false), &first_dw);
    ok_field(&first_dw, ref_first, 1e-6, what);

    FREE(&x, &w, &dy, &dx, &more, &dw, &first_dw);
    free(ref_dx), free(ref_more), free(ref_dw), free(ref_first);
}

/* Both products of an adapter's backward. */
static void check_adapter(dtype dt, int64_t n_tokens, int64_t out, int64_t rank, bool strided)
{
    char what[96];
    field dy = field_random("dy", dt, n_tokens, out, strided), b = field_random("b", dt, out, rank, false);
    field low = field_random("low", dt, n_tokens, rank, strided),
          dlow = field_output("dlow", dt, n_tokens, rank, strided);
    field db = field_random("db", DT_F32, out, rank, false), first_db = field_output("db", DT_F32, out, rank, false);
    double *ref_dlow = doubles(n_tokens * rank), *ref_db = doubles(out * rank), *ref_first = doubles(out * rank);

    multiply(ref_dlow, n_tokens, rank, out, dy.v, out, 1, b.v, rank, 1);
    memcpy(ref_db, db.v, (size_t)(out * rank) * sizeof *ref_db);
    multiply(ref_db, out, rank, n_tokens, dy.v, 1, out, low.v, rank, 1);
    multiply(ref_first, out, rank, n_tokens, dy.v, 1, out, low.v, rank, 1);
    snprintf(what, sizeof what, "%s adapter N %lld out %lld rank %lld", dtype_name(dt), (long long)n_tokens,
             (long long)out, (long long)rank);
    TWICE(dut.ops->lora_backward(dut.dev, dlow.t, db.t, dy.t, b.t, low.t, true), &dlow, &db);
    ok_field(&dlow, ref_dlow, 2e-6, what);
    ok_field(&db, ref_db, 1e-6, what);
    dut.ops->lora_backward(dut.dev, dlow.t, first_db.t, dy.t, b.t, low.t, false);
    ok_field(&first_db, ref_first, 1e-6, what);
    FREE(&dy, &b, &low, &dlow, &db, &first_db);
    free(ref_dlow), free(ref_db), free(ref_first);
}

/* z lies one element off y's alignment, in rows of the same length. */
static void check_apart(dtype dt)
{
    enum { TOKENS = 96, IN = 256, OUT = 63, STRIDE = OUT + 1 };
    field x = field_random("x", dt, TOKENS, IN, false), w = field_random("w", dt, OUT, IN, false);
    field z = field_random("z", dt, TOKENS, STRIDE, false), sum = field_random("sum", dt, TOKENS, STRIDE, false);
    double *product = doubles(TOKENS * OUT), *ref = doubles(TOKENS * STRIDE);

    multiply(product, TOKENS, OUT, IN, x.v, IN, 1, w.v, 1, IN);
    memcpy(ref, sum.v, TOKENS * STRIDE * sizeof *ref);
    for (int i = 0; i < TOKENS * OUT; i++)
        ref[i / OUT * STRIDE + i % OUT] = z.v[i / OUT * STRIDE + i % OUT + 1] + product[i];
    dut.ops->matmul_add(dut.dev, tensor_cols(sum.t, 0, OUT), x.t, w.t, tensor_cols(z.t, 1, OUT));
    ok_field(&sum, ref, 1e-6, "what is added lies off the alignment of the sum");
    FREE(&x, &w, &z, &sum);
    free(product), free(ref);
}

/* Sums over nothing: y is zero, or z, and dw what it was, or zero. */
static void check_nothing(dtype dt)
{
    field x = field_random("x", dt, 0, 32, false), w = field_random("w", dt, 4, 32, false),
          y = field_output("y", dt, 0, 4, false), dw = field_random("dw", DT_F32, 4, 32, true);
    field bare = field_random("x", dt, 3, 0, false), bare_w = field_random("w", dt, 4, 0, false),
          sum = field_output("sum", dt, 3, 4, true), z = field_random("z", dt, 3, 4, true);
    double zeros[4 * 32] = {0};

    dut.ops->matmul(dut.dev, y.t, x.t, w.t);
    dut.ops->matmul_dx(dut.dev, x.t, y.t, w.t, false);
    dut.ops->matmul_dw(dut.dev, dw.t, y.t, x.t, true);
    ok_field(&dw, dw.v, 0.0, "no tokens");
    dut.ops->matmul_dw(dut.dev, dw.t, y.t, x.t, false);
    ok_field(&dw, zeros, 0.0, "no tokens, not accumulated");
    dut.ops->matmul_add(dut.dev, sum.t, bare.t, bare_w.t, z.t);
    ok_field(&sum, z.v, 0.0, "no features, added");
    dut.ops->matmul(dut.dev, sum.t, bare.t, bare_w.t);
    ok_field(&sum, zeros, 0.0, "no features");
    FREE(&x, &w, &y, &dw, &bare, &bare_w, &sum, &z);
}

int main(int argc, char **argv)
{
    static const dtype types[5][2] = {
        {DT_F32, DT_F32}, {DT_BF16, DT_BF16}, {DT_BF16, DT_F32}, {DT_F16, DT_F16}, {DT_F16, DT_F32}};
    static const struct {
        int64_t n_tokens, in, out;
    } shape[] = {{1, 1, 1}, {1, 64, 48}, {3, 96, 44}, {7, 13, 5}, {13, 416, 67}, {8, 1056, 24}, {2, 64, 4801},
                 {33, 100, 129}, {96, 256, 64}, {257, 31, 130}, {136, 520, 264}};

    battery_open(argc, argv);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        for (int strided = 0; strided < 2; strided++) {
            for (int j = 0; j < 5; j++) {
                check_forward(types[j][0], types[j][1], shape[i].n_tokens, shape[i].in, shape[i].out, strided);
                check_backward(types[j][0], types[j][1], shape[i].n_tokens, shape[i].in, shape[i].out, strided);
            }
        }
    }
    for (int j = 1; j < 5; j++) {                             /* few rows: more features than are under way at once */
        check_forward(types[j][0], types[j][1], 5, 2208, 40, true);
        check_forward(types[j][0], types[j][1], 2, 1824, 4801, false);
    }
    for (int j = 1; j < 5; j++)                               /* few rows of W, of more columns than a block has */
        for (int out = 8; out <= 32; out += 8) check_backward(types[j][0], types[j][1], 300, 2088, out, out % 16);
    for (int j = 0; j < 5; j += 1 + j % 2)                    /* fp32, bf16, fp16 */
        for (int strided = 0; strided < 2; strided++) {
            check_adapter(types[j][0], 40, 56, 16, strided);
            check_adapter(types[j][0], 67, 2056, 8, strided);
            check_adapter(types[j][0], 300, 2048, 16, strided);
            check_adapter(types[j][0], 99, 4360, 16, strided);
            check_adapter(types[j][0], 131, 2568, 32, strided);
            check_adapter(types[j][0], 20, 2050, 3, strided);
        }
    check_apart(DT_F32);
    check_apart(DT_BF16);
    check_nothing(DT_F32);
    check_nothing(DT_BF16);
    return battery_done();
}
