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

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    for (int i = 0; i < 3; i++) {
        check_residual(three[i], 17, 96);
        check_residual(three[i], 5, 1027);
    }
    return battery_done();
}
