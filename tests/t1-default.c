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

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    for (int i = 0; i < 3; i++) {
        check_residual(three[i], 17, 96);
        check_residual(three[i], 5, 1027);
        check_lora(three[i], 50, 2304, 16);
    }
    return battery_done();
}
