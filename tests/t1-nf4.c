/* NF4 codes, their absmax and the 8-bit codes of these against what bitsandbytes made of the same matrices
 * (make_nf4.py); the operation against the function.  -d: device. */
#include "io/hf/safetensors.h"
#include "src/ops/nf4.h"
#include "tests/lib/battery.h"

typedef struct file {
    safetensors *s;
    const char *name;
} file;

static float *get(const file *f, const char *name, int64_t *rows, int64_t *cols)
{
    const safetensors_entry *e = safetensors_find(f->s, name);
    moai_error err;

    CHECK(e, "%s: no %s", f->name, name);
    *rows = e->shape[0], *cols = e->shape[1];
    float *x = xmalloc((size_t)(*rows * *cols) * sizeof *x);
    CHECK(safetensors_read(f->s, e, 0, *rows, 0, *cols, x, *cols, &err) == 0, "%s", err.text);
    return x;
}

static void same_bytes(const file *f, const char *name, const uint8_t *got)
{
    int64_t rows, n, n_wrong = 0, first = -1;
    float *want = get(f, name, &rows, &n);

    for (int64_t i = n - 1; i >= 0; i--)
        if (want[i] != (float)got[i]) n_wrong++, first = i;
    ok(n_wrong == 0, "%s: %s: %lld of %lld bytes differ%s", f->name, name, (long long)n_wrong, (long long)n,
       first < 0 ? "" : ", the first at its place below");
    if (first >= 0) printf("# %lld: %d against %g\n", (long long)first, got[first], (double)want[first]);
    free(want);
}

static void same_floats(const file *f, const char *name, const float *got, double tolerance)
{
    int64_t rows, cols;
    float *want = get(f, name, &rows, &cols);
    double apart = 0;

    for (int64_t i = 0; i < rows * cols; i++)
        apart = fmax(apart, fabs((double)got[i] - want[i]) / fmax(fabs((double)want[i]), 1e-30));
    ok(apart <= tolerance, "%s: %s: %.1e apart, allowed %.0e", f->name, name, apart, tolerance);
    free(want);
}

static void check_file(const char *name)
{
    char *path = xasprintf("tests/golden/nf4/%s.safetensors", name);
    int64_t rows, cols, one, n;
    moai_error err;
    file f = {safetensors_open(path, &err), name};

    CHECK(f.s, "%s", err.text);
    float *x = get(&f, "x", &rows, &cols), *back = xmalloc((size_t)(rows * cols) * sizeof *back);
    n = rows * cols / NF4_BLOCK;
    uint8_t *codes = xmalloc((size_t)(rows * cols / 2)), *nested_codes = xmalloc((size_t)n);
    float *absmax = xmalloc((size_t)n * sizeof *absmax), *nested = xmalloc((size_t)n * sizeof *nested), offset;
    nf4_quantize(codes, absmax, x, rows * cols);
    same_bytes(&f, "codes", codes);
    same_floats(&f, "absmax", absmax, 0);
    nf4_dequantize(back, codes, absmax, rows * cols);
    same_floats(&f, "plain", back, 0);
    nf4_nest(nested_codes, nested, &offset, absmax, n);
    same_floats(&f, "values", nf4_nested_values(), 0);
    /* a mean is as its sum is ordered: PyTorch's depends on its threads */
    same_floats(&f, "offset", &offset, 2e-7);
    same_bytes(&f, "nested_codes", nested_codes);
    same_floats(&f, "nested_absmax", nested, 1e-5);
    float *theirs = get(&f, "nested_absmax", &one, &n), *mean = get(&f, "offset", &one, &one);
    nf4_unnest(absmax, nested_codes, theirs, *mean, rows * cols / NF4_BLOCK);
    nf4_dequantize(back, codes, absmax, rows * cols);
    same_floats(&f, "y", back, 0);
    free(x), free(back), free(codes), free(nested_codes), free(absmax), free(nested), free(theirs), free(mean);
    safetensors_close(f.s);
    free(path);
}

/* The operation, in each type, against the function, rounded once. */
static void check_op(dtype dt, int64_t rows, int64_t cols)
{
    const int64_t n = rows * cols, n_blocks = n / NF4_BLOCK;
    float *x = xmalloc((size_t)n * sizeof *x), *absmax = xmalloc((size_t)n_blocks * sizeof *absmax);
    uint8_t *codes = xmalloc((size_t)n / 2), *device_codes = dut.ops->alloc(dut.dev, (size_t)n / 2);
    double *values = random_doubles(n);
    float *device_absmax = dut.ops->alloc(dut.dev, (size_t)n_blocks * sizeof *absmax);
    field w = field_output("w", dt, rows, cols, cols > 64);

    for (int64_t i = 0; i < n; i++) x[i] = (float)values[i];
    nf4_quantize(codes, absmax, x, n);
    nf4_dequantize(x, codes, absmax, n);
    for (int64_t i = 0; i < n; i++) values[i] = (double)x[i];
    dut.ops->copy(dut.dev, device_codes, codes, (size_t)n / 2, COPY_TO_DEVICE);
    dut.ops->copy(dut.dev, device_absmax, absmax, (size_t)n_blocks * sizeof *absmax, COPY_TO_DEVICE);
    TWICE(dut.ops->dequantize_nf4(dut.dev, w.t, device_codes, device_absmax), &w);
    ok_field(&w, values, 0, "dequantize_nf4");
    dut.ops->free(dut.dev, device_codes);
    dut.ops->free(dut.dev, device_absmax);
    FREE(&w);
    free(x), free(absmax), free(codes), free(values);
}

/* The product from the codes, whose values are in the type, against that in double. */
static void check_product(dtype dt, dtype y_dt, int64_t n_tokens, int64_t out, int64_t in)
{
    const int64_t n = out * in;
    const size_t absmax_bytes = (size_t)(n / NF4_BLOCK) * sizeof(float);
    float *w = xmalloc((size_t)n * sizeof *w), *absmax = xmalloc(absmax_bytes), *ones = xmalloc(absmax_bytes);
    uint8_t *codes = xmalloc((size_t)n / 2), *device_codes = dut.ops->alloc(dut.dev, (size_t)n / 2);
    float *device_absmax = dut.ops->alloc(dut.dev, absmax_bytes);
    double *values = random_doubles(n), *ref = doubles(n_tokens * out), *ref_sum = doubles(n_tokens * out);
    field x = field_random("x", dt, n_tokens, in, true), y = field_output("y", y_dt, n_tokens, out, true),
          z = field_random("z", y_dt, n_tokens, out, true), of_codes = field_output("w", dt, out, in, false);
    char what[96];

    for (int64_t i = 0; i < n; i++) w[i] = (float)values[i];
    for (int64_t i = 0; i < n / NF4_BLOCK; i++) ones[i] = 1;
    nf4_quantize(codes, absmax, w, n);
    dut.ops->copy(dut.dev, device_codes, codes, (size_t)n / 2, COPY_TO_DEVICE);
    dut.ops->copy(dut.dev, device_absmax, ones, absmax_bytes, COPY_TO_DEVICE);
    dut.ops->dequantize_nf4(dut.dev, of_codes.t, device_codes, device_absmax);
    field_fetch(&of_codes);
    dut.ops->copy(dut.dev, device_absmax, absmax, absmax_bytes, COPY_TO_DEVICE);
    for (int64_t i = 0; i < n_tokens; i++)
        for (int64_t j = 0; j < out; j++) {
            for (int64_t k = 0; k < in; k++)
                ref[i * out + j] += x.v[i * in + k] * field_at(&of_codes, j, k) * absmax[(j * in + k) / NF4_BLOCK];
            ref_sum[i * out + j] = ref[i * out + j] + z.v[i * out + j];
        }
    snprintf(what, sizeof what, "matmul_nf4 %s N %lld out %lld in %lld", dtype_name(dt), (long long)n_tokens,
             (long long)out, (long long)in);
    TWICE(dut.ops->matmul_nf4(dut.dev, y.t, x.t, device_codes, device_absmax, (tensor){0}), &y);
    ok_field(&y, ref, 4e-6, what);
    TWICE(dut.ops->matmul_nf4(dut.dev, y.t, x.t, device_codes, device_absmax, z.t), &y);
    ok_field(&y, ref_sum, 4e-6, what);
    dut.ops->matmul_nf4(dut.dev, z.t, x.t, device_codes, device_absmax, z.t);
    ok_field(&z, ref_sum, 4e-6, what);
    dut.ops->free(dut.dev, device_codes);
    dut.ops->free(dut.dev, device_absmax);
    FREE(&x, &y, &z, &of_codes);
    free(w), free(absmax), free(ones), free(codes), free(values), free(ref), free(ref_sum);
}

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    check_file("normal");
    check_file("uneven");
    check_file("bf16");
    for (int i = 0; i < 3; i++) {
        check_op(three[i], 1, 64);
        check_op(three[i], 7, 192);
        check_op(three[i], 1031, 1280);
        check_product(three[i], three[i], 1, 1, 64);
        check_product(three[i], three[i], 3, 67, 192);
        check_product(three[i], DT_F32, 8, 40, 1280);
        check_product(three[i], three[i], 16, 130, 576);
        check_product(three[i], three[i], 13, 1031, 2112);
    }
    return battery_done();
}
