/* The three products of a linear map, fp32, bf16 and fp16, packed and strided, odd sizes, against fp64.  -d: the device. */
#include "battery.h"

/* c (m, n) += sum over l of a[i * ar + l * ac] b[l * br + j * bc] */
static void multiply(double *c, int64_t m, int64_t n, int64_t k, const double *a, int64_t ar, int64_t ac,
                     const double *b, int64_t br, int64_t bc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++)
            for (int64_t l = 0; l < k; l++) c[i * n + j] += a[i * ar + l * ac] * b[l * br + j * bc];
}

static void check_shape(dtype dt, dtype y_dt, int64_t n_tokens, int64_t in, int64_t out, bool strided)
{
    char what[96];
    field x = field_random("x", dt, n_tokens, in, strided), w = field_random("w", dt, out, in, strided);
    field dy = field_random("dy", dt, n_tokens, out, strided);
    field y = field_output("y", y_dt, n_tokens, out, strided), dx = field_output("dx", y_dt, n_tokens, in, strided);
    field z = field_random("z", y_dt, n_tokens, out, strided), sum = field_output("sum", y_dt, n_tokens, out, strided);
    field dw = field_random("dw", DT_F32, out, in, strided), first_dw = field_output("dw", DT_F32, out, in, strided);
    double *ref_y = doubles(n_tokens * out), *ref_sum = doubles(n_tokens * out), *ref_dx = doubles(n_tokens * in),
           *ref_dw = doubles(out * in), *ref_first = doubles(out * in);

    multiply(ref_y, n_tokens, out, in, x.v, in, 1, w.v, 1, in);
    for (int64_t i = 0; i < n_tokens * out; i++) ref_sum[i] = z.v[i] + ref_y[i];
    multiply(ref_dx, n_tokens, in, out, dy.v, out, 1, w.v, in, 1);
    memcpy(ref_dw, dw.v, (size_t)(out * in) * sizeof *ref_dw);
    multiply(ref_dw, out, in, n_tokens, dy.v, 1, out, x.v, in, 1);
    multiply(ref_first, out, in, n_tokens, dy.v, 1, out, x.v, in, 1);

    snprintf(what, sizeof what, "%s N %lld in %lld out %lld", dtype_name(dt), (long long)n_tokens, (long long)in,
             (long long)out);
    TWICE(dut.ops->matmul(dut.dev, y.t, x.t, w.t), &y);
    ok_field(&y, ref_y, 1e-6, what);
    TWICE(dut.ops->matmul_add(dut.dev, sum.t, x.t, w.t, z.t), &sum);
    ok_field(&sum, ref_sum, 1e-6, what);
    TWICE(dut.ops->matmul_dx(dut.dev, dx.t, dy.t, w.t), &dx);
    ok_field(&dx, ref_dx, 1e-6, what);
    TWICE(dut.ops->matmul_dw(dut.dev, dw.t, dy.t, x.t, true), &dw);
    ok_field(&dw, ref_dw, 1e-6, what);
    TWICE(dut.ops->matmul_dw(dut.dev, first_dw.t, dy.t, x.t, false), &first_dw);
    ok_field(&first_dw, ref_first, 1e-6, what);

    FREE(&x, &w, &dy, &y, &z, &sum, &dx, &dw, &first_dw);
    free(ref_y), free(ref_sum), free(ref_dx), free(ref_dw), free(ref_first);
}

int main(int argc, char **argv)
{
    static const struct {
        int64_t n_tokens, in, out;
    } shape[] = {{1, 1, 1}, {1, 64, 48}, {3, 96, 44}, {7, 13, 5}, {13, 416, 67}, {8, 1056, 24}, {2, 64, 4801},
                 {33, 100, 129}, {96, 256, 64}, {257, 31, 130}, {136, 520, 264}};

    battery_open(argc, argv);
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        for (int strided = 0; strided < 2; strided++) {
            check_shape(DT_F32, DT_F32, shape[i].n_tokens, shape[i].in, shape[i].out, strided);
            check_shape(DT_BF16, DT_BF16, shape[i].n_tokens, shape[i].in, shape[i].out, strided);
            check_shape(DT_BF16, DT_F32, shape[i].n_tokens, shape[i].in, shape[i].out, strided);
            check_shape(DT_F16, DT_F16, shape[i].n_tokens, shape[i].in, shape[i].out, strided);
            check_shape(DT_F16, DT_F32, shape[i].n_tokens, shape[i].in, shape[i].out, strided);
        }
    }
    /* no tokens: nothing happens to y and dx, nothing is added to dw */
    field x = field_random("x", DT_F32, 0, 8, false), w = field_random("w", DT_F32, 4, 8, false),
          y = field_output("y", DT_F32, 0, 4, false);
    field dw = field_random("dw", DT_F32, 4, 8, false);
    dut.ops->matmul(dut.dev, y.t, x.t, w.t);
    dut.ops->matmul_dx(dut.dev, x.t, y.t, w.t);
    dut.ops->matmul_dw(dut.dev, dw.t, y.t, x.t, true);
    ok_field(&dw, dw.v, 0.0, "no tokens");
    FREE(&x, &w, &y, &dw);
    return battery_done();
}
