/* The operations of src/ops/ops_default.h that are made of others, against the device's own; -d names the device. */
#include "src/ops/ops_default.h"
#include "tests/lib/battery.h"

/* A backend that has only the parts: those of the device under test. */
static void add_parts(moai_device *d, tensor y, tensor a, tensor b) { dut.ops->add(d, y, a, b); }
static void rmsnorm_parts(moai_device *d, tensor n, float *r, tensor x, tensor w, float eps)
{
    dut.ops->rmsnorm(d, n, r, x, w, eps);
}
static RESIDUAL_RMSNORM_BY_PARTS(parts)

static void matmul_dx_parts(moai_device *d, tensor dx, tensor dy, tensor w, bool accumulate)
{
    dut.ops->matmul_dx(d, dx, dy, w, accumulate);
}
static void matmul_dw_parts(moai_device *d, tensor dw, tensor dy, tensor x, bool accumulate)
{
    dut.ops->matmul_dw(d, dw, dy, x, accumulate);
}
static LORA_BACKWARD_BY_PARTS(parts)

static void hc_merge_parts(moai_device *d, tensor out, tensor x, tensor y, tensor coef, int n)
{
    dut.ops->hc_merge(d, out, x, y, coef, n);
}
static void hc_coefficients_parts(moai_device *d, tensor coef, tensor raw, float *r, tensor x, tensor fn, tensor base,
                                  tensor scale, hc_shape s)
{
    dut.ops->hc_coefficients(d, coef, raw, r, x, fn, base, scale, s);
}
static HC_MERGE_COEFFICIENTS_BY_PARTS(parts)

static void hc_merge_backward_parts(moai_device *d, tensor dx, tensor dy, tensor dcoef, tensor dout, tensor x, tensor y,
                                    tensor coef, int n)
{
    dut.ops->hc_merge_backward(d, dx, dy, dcoef, dout, x, y, coef, n);
}
static void hc_streams_backward_parts(moai_device *d, tensor dx, const hc_reading *a, int n)
{
    dut.ops->hc_streams_backward(d, dx, a, n);
}
static HC_BORDER_BACKWARD_BY_PARTS(parts)

static const double eps = 1e-6;

/* One rounding more than the device's own: by its dtype's. */
static double rounding(dtype dt) { return dt == DT_F32 ? 1e-6 : dt == DT_BF16 ? 0x1p-7 : 0x1p-10; }

static double *values_of(field *f)
{
    double *v = doubles(f->t.rows * f->t.cols);

    field_fetch(f);
    for (int64_t i = 0; i < f->t.rows * f->t.cols; i++) v[i] = field_at(f, i / f->t.cols, i % f->t.cols);
    return v;
}

static void check_residual(dtype dt, int64_t rows, int64_t cols)
{
    field x = field_random("x", dt, rows, cols, true), o = field_random("o", dt, rows, cols, true),
          w = field_random("w", dt, 1, cols, false), h = field_output("h", dt, rows, cols, true),
          n = field_output("n", dt, rows, cols, true), r = field_output("r", DT_F32, 1, rows, false),
          own_h = field_output("h", dt, rows, cols, true), own_n = field_output("n", dt, rows, cols, true),
          own_r = field_output("r", DT_F32, 1, rows, false);

    dut.ops->residual_rmsnorm(dut.dev, own_h.t, own_n.t, own_r.t.data, x.t, o.t, w.t, (float)eps);
    double *ref_h = values_of(&own_h), *ref_n = values_of(&own_n), *ref_r = values_of(&own_r);
    TWICE(residual_rmsnorm_parts(dut.dev, h.t, n.t, r.t.data, x.t, o.t, w.t, (float)eps), &h, &n, &r);
    ok_field(&h, ref_h, 0, "residual_rmsnorm by parts");
    ok_field(&n, ref_n, rounding(dt), "residual_rmsnorm by parts");
    ok_field(&r, ref_r, rounding(dt), "residual_rmsnorm by parts");
    free(ref_h), free(ref_n), free(ref_r);
    FREE(&x, &o, &w, &h, &n, &r, &own_h, &own_n, &own_r);
}

static void check_lora(dtype dt, int64_t rows, int64_t out, int64_t rank)
{
    field dy = field_random("dy", dt, rows, out, true), b = field_random("b", dt, out, rank, false),
          low = field_random("low", dt, rows, rank, true), dlow = field_output("dlow", dt, rows, rank, true),
          db = field_output("db", DT_F32, out, rank, false), own_dlow = field_output("dlow", dt, rows, rank, true),
          own_db = field_output("db", DT_F32, out, rank, false);

    dut.ops->lora_backward(dut.dev, own_dlow.t, own_db.t, dy.t, b.t, low.t, false);
    double *ref_dlow = values_of(&own_dlow), *ref_db = values_of(&own_db);
    TWICE(lora_backward_parts(dut.dev, dlow.t, db.t, dy.t, b.t, low.t, false), &dlow, &db);
    ok_field(&dlow, ref_dlow, rounding(dt), "lora_backward by parts");
    ok_field(&db, ref_db, 1e-5, "lora_backward by parts");
    free(ref_dlow), free(ref_db);
    FREE(&dy, &b, &low, &dlow, &db, &own_dlow, &own_db);
}

static void check_merge_coefficients(dtype dt, hc_shape s, int64_t rows, int64_t H)
{
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), wide = s.n * H;
    field x = field_random("x", dt, rows, wide, true), y = field_random("y", dt, rows, H, true),
          merging = field_random("merging", DT_F32, rows, n_coef, false),
          fn = field_random("fn", dt, n_raw, wide, false), base = field_random("base", dt, 1, n_raw, false),
          scale = field_random("scale", dt, 1, 3, false), out[2], coef[2], raw[2], r[2];

    for (int i = 0; i < 2; i++) {
        out[i] = field_output("out", dt, rows, wide, true), coef[i] = field_output("coef", DT_F32, rows, n_coef, false);
        raw[i] = field_output("raw", DT_F32, rows, n_raw, false), r[i] = field_output("r", DT_F32, 1, rows, false);
    }
    dut.ops->hc_merge_coefficients(dut.dev, out[0].t, coef[0].t, raw[0].t, r[0].t.data, x.t, y.t, merging.t, fn.t,
                                   base.t, scale.t, s);
    TWICE(hc_merge_coefficients_parts(dut.dev, out[1].t, coef[1].t, raw[1].t, r[1].t.data, x.t, y.t, merging.t, fn.t,
                                      base.t, scale.t, s), &out[1], &coef[1], &raw[1], &r[1]);
    field *const made[][2] = {{&out[0], &out[1]}, {&coef[0], &coef[1]}, {&raw[0], &raw[1]}, {&r[0], &r[1]}};
    for (int i = 0; i < 4; i++) {
        double *ref = values_of(made[i][0]);
        ok_field(made[i][1], ref, rounding(dt), "hc_merge_coefficients by parts");
        free(ref);
        FREE(made[i][0], made[i][1]);
    }
    FREE(&x, &y, &merging, &fn, &base, &scale);
}

static void check_border(dtype dt, hc_shape s, int64_t rows, int64_t H)
{
    const int64_t n_raw = hc_n_raw(s), n_coef = hc_n_coef(s), wide = s.n * H;
    field x = field_random("x", dt, rows, wide, true), y = field_random("y", dt, rows, H, true),
          coef = field_random("coef", DT_F32, rows, n_coef, false), dn = field_random("dn", dt, rows, H, true),
          merged = field_output("merged", dt, rows, wide, true), w = field_random("w", dt, 1, H, false),
          reads = field_random("coef", DT_F32, rows, n_coef, false), rn = field_random("rn", DT_F32, 1, rows, false),
          fn = field_random("fn", dt, n_raw, wide, false), draw = field_random("draw", dt, rows, n_raw, false),
          along = field_random("along", DT_F32, rows, 2, false), dx[2], dy[2], dcoef[2];
    const hc_reading later = {dn.t, merged.t, reads.t, w.t, rn.t.data, fn.t, draw.t, along.t};

    dx[0] = field_random("dx", dt, rows, wide, true), dx[1] = field_make("dx", dt, rows, wide, true, dx[0].v);
    dcoef[0] = field_random("dcoef", DT_F32, rows, n_coef, false);
    dcoef[1] = field_make("dcoef", DT_F32, rows, n_coef, false, dcoef[0].v);
    for (int i = 0; i < 2; i++) dy[i] = field_output("dy", dt, rows, H, true);
    dut.ops->hc_merge(dut.dev, merged.t, x.t, y.t, coef.t, s.n);
    dut.ops->hc_border_backward(dut.dev, dx[0].t, dy[0].t, dcoef[0].t, &later, x.t, y.t, coef.t, s.n);
    TWICE(hc_border_backward_parts(dut.dev, dx[1].t, dy[1].t, dcoef[1].t, &later, x.t, y.t, coef.t, s.n), &dx[1],
          &dy[1], &dcoef[1]);
    field *const made[][2] = {{&dx[0], &dx[1]}, {&dy[0], &dy[1]}, {&dcoef[0], &dcoef[1]}};
    for (int i = 0; i < 3; i++) {
        double *ref = values_of(made[i][0]);
        ok_field(made[i][1], ref, rounding(dt), "hc_border_backward by parts");
        free(ref);
        FREE(made[i][0], made[i][1]);
    }
    FREE(&x, &y, &coef, &dn, &merged, &w, &reads, &rn, &fn, &draw, &along);
}

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    for (int i = 0; i < 3; i++) {
        check_residual(three[i], 17, 96);
        check_residual(three[i], 5, 1027);
        check_lora(three[i], 50, 2304, 16);
        const hc_shape sinkhorn = {.n = 4, .iters = 3, .eps = 1e-6f, .norm_eps = 1e-6f};
        check_merge_coefficients(three[i], sinkhorn, 17, 64);
        check_border(three[i], sinkhorn, 17, 64);
    }
    return battery_done();
}
