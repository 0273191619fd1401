/* Sums, clipping and AdamW against fp64; -d names the device. */
#include "tests/lib/battery.h"

static double *device_double(double value) { return to_device(&value, sizeof value); }
static double read_double(const double *p)
{
    double x;
    dut.ops->copy(dut.dev, &x, p, sizeof x, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
    return x;
}
static float read_float(const float *p)
{
    float x;
    dut.ops->copy(dut.dev, &x, p, sizeof x, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
    return x;
}

static void check_sums(int64_t n, bool strided)
{
    field x = field_random("x", DT_F32, 1, n, strided);
    double sum = 3.0, squares = 5.0, seen[2][2];

    for (int64_t i = 0; i < n; i++) sum += x.v[i], squares += x.v[i] * x.v[i];
    for (int pass = 0; pass < 2; pass++) {
        double *a = device_double(3.0), *b = device_double(5.0);
        dut.ops->sum(dut.dev, a, x.t.data, n);
        dut.ops->sum_squares(dut.dev, b, x.t.data, n);
        seen[pass][0] = read_double(a), seen[pass][1] = read_double(b);
        dut.ops->free(dut.dev, a), dut.ops->free(dut.dev, b);
    }
    ok_close(seen[0][0], sum, 1e-13, sqrt((double)n) + 1.0, "sum adds to what was there");
    ok_close(seen[0][1], squares, 1e-12, 1.0, "sum_squares adds to what was there");
    ok(memcmp(seen[0], seen[1], sizeof seen[0]) == 0, "sums of %lld: the same bits twice", (long long)n);
    FREE(&x);
}

static double clipped(double sumsq, float max_norm, float unscale)
{
    double *squares = device_double(sumsq);
    float *scale = dut.ops->alloc(dut.dev, sizeof *scale);
    dut.ops->clip(dut.dev, scale, squares, max_norm, unscale);
    double result = read_float(scale);
    dut.ops->free(dut.dev, squares), dut.ops->free(dut.dev, scale);
    return result;
}

static void check_clip(void)
{
    ok_close(clipped(4.0, 1.0f, 1.0f), 1.0 / (2.0 + 1e-6), 1e-7, 0.0, "norm 2 clipped at 1");
    ok_close(clipped(0.25, 1.0f, 1.0f), 1.0, 0.0, 0.0, "norm 0.5 is not clipped at 1");
    ok_close(clipped(400.0, 1.0f, 0.25f), 0.25 / (5.0 + 1e-6), 1e-7, 0.0, "norm 20 * 0.25 clipped at 1");
    ok_close(clipped(4.0, 0.0f, 0.125f), 0.125, 0.0, 0.0, "max_norm 0 only unscales");
    ok_close(clipped(0.0, 1.0f, 1.0f), 1.0, 0.0, 0.0, "norm 0");
    ok(isnan(clipped(INFINITY, 1.0f, 1.0f)), "an infinite norm gives NaN");
    ok(isnan(clipped(NAN, 1.0f, 1.0f)), "a NaN norm gives NaN");
    ok(isnan(clipped(NAN, 0.0f, 1.0f)), "a NaN norm gives NaN without clipping too");
}

/* torch.optim.AdamW's single-tensor step */
static void adamw_reference(double *w, double *m, double *v, const double *grad, int64_t n, int64_t n_decay,
                            const adamw_args *a, double scale)
{
    double correction1 = 1.0 - pow(a->beta1, (double)a->t), correction2 = 1.0 - pow(a->beta2, (double)a->t);
    for (int64_t i = 0; i < n; i++) {
        double g = grad[i] * scale;
        if (i < n_decay) w[i] *= 1.0 - (double)a->lr * a->weight_decay;
        m[i] = a->beta1 * m[i] + (1.0 - a->beta1) * g;
        v[i] = a->beta2 * v[i] + (1.0 - a->beta2) * g * g;
        w[i] -= a->lr / correction1 * m[i] / (sqrt(v[i]) / sqrt(correction2) + a->eps);
    }
}

static void check_adamw(dtype param_dt, bool separate, int64_t n, int64_t n_decay)
{
    enum { STEPS = 3 };
    field w = field_random("master", DT_F32, 1, n, false), grad = field_random("grad", DT_F32, 1, n, false);
    double *zeros = doubles(n), *ref_w = doubles(n), *ref_m = doubles(n), *ref_v = doubles(n);
    field m = field_make("m", DT_F32, 1, n, false, zeros), v = field_make("v", DT_F32, 1, n, false, zeros),
          param = field_output("param", param_dt, 1, n, false);
    float half = 0.5f, nan_scale = NAN, *scale = to_device(&half, sizeof half),
          *broken = to_device(&nan_scale, sizeof nan_scale);
    adamw_args a = {.master = w.t.data,
                    .m = m.t.data,
                    .v = v.t.data,
                    .param = separate ? param.t.data : w.t.data,
                    .param_dt = param_dt,
                    .grad = grad.t.data,
                    .n = n,
                    .n_decay = n_decay,
                    .grad_scale = scale,
                    .lr = 0.01f,
                    .beta1 = 0.9f,
                    .beta2 = 0.95f,
                    .eps = 1e-8f,
                    .weight_decay = 0.1f};

    memcpy(ref_w, w.v, (size_t)n * sizeof *ref_w);
    for (a.t = 1; a.t <= STEPS; a.t++) {
        adamw_reference(ref_w, ref_m, ref_v, grad.v, n, n_decay, &a, 0.5);
        dut.ops->adamw(dut.dev, &a);
    }
    ok_field(&w, ref_w, 1e-6, "adamw, three steps");
    ok_field(&m, ref_m, 1e-6, "adamw, three steps");
    ok_field(&v, ref_v, 1e-6, "adamw, three steps");
    bool rounded = true;
    if (separate) {
        field_fetch(&param);
        for (int64_t i = 0; i < n; i++) {
            char nearest[4];
            number_put(nearest, param_dt, field_at(&w, 0, i));
            rounded = rounded && field_at(&param, 0, i) == number_get(nearest, param_dt);
        }
    }
    ok(rounded, "adamw: the %s parameter is the rounded master", dtype_name(param_dt));

    field *const all[] = {&w, &m, &v, &param};
    bool untouched = true;
    for (int i = 0; i < 4; i++) memcpy(all[i]->kept, (field_fetch(all[i]), all[i]->now), all[i]->n_bytes);
    a.grad_scale = broken;
    dut.ops->adamw(dut.dev, &a);
    for (int i = 0; i < 4; i++)
        untouched = untouched && memcmp(all[i]->kept, (field_fetch(all[i]), all[i]->now), all[i]->n_bytes) == 0;
    ok(untouched, "adamw: a NaN scale changes nothing");
    dut.ops->free(dut.dev, scale), dut.ops->free(dut.dev, broken);
    FREE(&w, &grad, &m, &v, &param);
    free(zeros), free(ref_w), free(ref_m), free(ref_v);
}

int main(int argc, char **argv)
{
    battery_open(argc, argv);
    check_sums(1, false);
    check_sums(1000, false);
    check_sums(200001, false);
    check_sums(200001, true);                                 /* not aligned to 16 bytes */
    check_sums(5000000, false);
    check_clip();
    check_adamw(DT_F32, false, 1001, 600);
    check_adamw(DT_F32, true, 37, 0);
    check_adamw(DT_BF16, true, 1001, 1001);
    check_adamw(DT_BF16, true, 50, 10);
    check_adamw(DT_BF16, true, 4096, 1023);
    check_adamw(DT_F16, true, 1024, 512);
    check_adamw(DT_F16, true, 1001, 600);
    check_adamw(DT_F32, true, 4096, 1023);
    return battery_done();
}
