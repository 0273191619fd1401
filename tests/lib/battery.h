/* battery.h: what the tests of ops share: a device under test, matrices on it whose exact values the host knows,
 * comparisons.
 *
 * `t1-NAME -d cpu` (the default) or `-d cuda` runs the battery on that device's table.  References are written in fp64
 * in each test; outputs are poisoned with NaN, views are strided, and what lies between the columns of a view must
 * survive. */
#ifndef BATTERY_H
#define BATTERY_H

#include "src/ops/ops.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

#ifdef MOAI_CUDA
#include "cuda/cuda_device.h"
#endif

typedef struct device_under_test {
    const moai_ops *ops;
    moai_device *dev;
    void (*close)(moai_device *);
    double slack;                             /* multiplies tolerances; 1 on the CPU */
} device_under_test;

static device_under_test dut;

static inline const char *battery_device(int argc, char **argv)
{
    return argc == 3 && strcmp(argv[1], "-d") == 0 ? argv[2] : "cpu";
}

static inline void battery_open_device(const char *name, bool deterministic)
{
    (void)deterministic; /* the CPU always is */
    if (strcmp(name, "cpu") == 0)
        dut = (device_under_test){&ops_cpu, device_open_cpu(2), device_close_cpu, 1.0};
#ifdef MOAI_CUDA
    else if (strcmp(name, "cuda") == 0) {
        moai_error err;
        moai_device *dev = device_open_cuda(0, deterministic, &err);
        if (!dev) config_error("%s", err.text);
        dut = (device_under_test){&ops_cuda, dev, device_close_cuda, 1.0};
    }
#endif
    else
        config_error("no device called \"%s\" to test", name);
}

static inline void battery_open(int argc, char **argv) { battery_open_device(battery_device(argc, argv), false); }

static inline int battery_done(void)
{
    dut.close(dut.dev);
    return tap_done();
}

/* -- random numbers of the tests: xorshift64*, so that they do not depend on what is tested -- */

static uint64_t battery_state = 0x9E3779B97F4A7C15u;

static inline double uniform(double low, double high)
{
    battery_state ^= battery_state >> 12;
    battery_state ^= battery_state << 25;
    battery_state ^= battery_state >> 27;
    return low + (high - low) * (double)((battery_state * 2685821657736338717u) >> 11) * 0x1p-53;
}

static inline double *doubles(int64_t n) { return xmalloc((size_t)n * sizeof(double)); }
static inline double *random_doubles(int64_t n)
{
    double *x = doubles(n);
    for (int64_t i = 0; i < n; i++) x[i] = uniform(-1.0, 1.0);
    return x;
}

/* -- numbers as the device stores them -- */

/* The bf16 on either side of a float are 0x10000 apart as bits; take the nearer, the even one of two equally near. */
static inline uint16_t bf16_nearest(float x)
{
    uint32_t bits, down, up;
    float below, above;

    memcpy(&bits, &x, sizeof bits);
    down = bits & 0xffff0000u;
    up = down + 0x10000u;
    memcpy(&below, &down, sizeof below);
    memcpy(&above, &up, sizeof above);
    double to_below = fabs((double)x - below), to_above = fabs((double)above - x);
    bool take_below = !isfinite(x) || to_below < to_above || (to_below == to_above && !(down & 0x10000u));
    return (uint16_t)((take_below ? down : up) >> 16);
}

static inline double number_get(const void *p, dtype dt)
{
    uint32_t bits;
    float x;

    if (dt == DT_F32) return *(const float *)p;
    if (dt == DT_F16) return (double)*(const _Float16 *)p;
    bits = (uint32_t)*(const uint16_t *)p << 16;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline void number_put(void *p, dtype dt, double value)
{
    if (dt == DT_F32)
        *(float *)p = (float)value;
    else if (dt == DT_F16)
        *(_Float16 *)p = (_Float16)value;
    else
        *(uint16_t *)p = bf16_nearest((float)value);
}

/* -- fields: a view on the device, its start, and its exact values -- */

typedef struct field {
    char name[32];
    tensor t;
    double *v;                                /* (rows, cols): the start's values, exactly */
    char *start, *kept, *now;                 /* images of the whole allocation */
    size_t n_bytes;
} field;

/* Columns of strangers after each row of a strided field; as many elements lie before the first.  Rows that can be
 * moved in whole vectors stay aligned unless fields_crooked, others become as crooked as can be. */
static bool fields_crooked;
static inline int64_t field_gap(int64_t cols) { return cols % 8 == 0 && !fields_crooked ? 8 : 5; }

/* values NULL: poisoned.  strided: inside a wider matrix, else packed. */
static inline field field_make(const char *name, dtype dt, int64_t rows, int64_t cols, bool strided,
                               const double *values)
{
    int64_t stride = cols + (strided ? field_gap(cols) : 0), lead = stride - cols, n = rows * stride + lead;
    field f = {.n_bytes = (size_t)n * dtype_size(dt), .v = doubles(rows * cols)};

    snprintf(f.name, sizeof f.name, "%s", name);
    f.start = xmalloc(f.n_bytes), f.kept = xmalloc(f.n_bytes), f.now = xmalloc(f.n_bytes);
    memset(f.start, 0xff, f.n_bytes);                         /* a NaN in every floating type */
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            char *p = f.start + (size_t)(lead + i * stride + j) * dtype_size(dt);
            if (values) number_put(p, dt, values[i * cols + j]);
            f.v[i * cols + j] = number_get(p, dt);
        }
    }
    char *base = dut.ops->alloc(dut.dev, f.n_bytes);
    dut.ops->copy(dut.dev, base, f.start, f.n_bytes, COPY_TO_DEVICE);
    dut.ops->sync(dut.dev);
    f.t = (tensor){base + (size_t)lead * dtype_size(dt), rows, cols, stride, dt};
    return f;
}

static inline field field_output(const char *name, dtype dt, int64_t rows, int64_t cols, bool strided)
{
    return field_make(name, dt, rows, cols, strided, NULL);
}

static inline field field_random(const char *name, dtype dt, int64_t rows, int64_t cols, bool strided)
{
    double *values = random_doubles(rows * cols);
    field f = field_make(name, dt, rows, cols, strided, values);
    free(values);
    return f;
}

static inline size_t field_lead_bytes(const field *f)
{
    return (size_t)(f->t.stride - f->t.cols) * dtype_size(f->t.dt);
}
static inline char *field_base(const field *f) { return (char *)f->t.data - field_lead_bytes(f); }

static inline void field_free(field *f)
{
    dut.ops->free(dut.dev, field_base(f));
    free(f->v), free(f->start), free(f->kept), free(f->now);
}
static inline void fields_free(field *const *list, int n)
{
    for (int i = 0; i < n; i++) field_free(list[i]);
}
#define FIELD_LIST(...) (field *const[]){__VA_ARGS__}, (int)(sizeof((field *const[]){__VA_ARGS__}) / sizeof(field *))
#define FREE(...) fields_free(FIELD_LIST(__VA_ARGS__))

static inline void field_restart(field *f)
{
    dut.ops->copy(dut.dev, field_base(f), f->start, f->n_bytes, COPY_TO_DEVICE);
}
static inline void field_fetch(field *f)
{
    dut.ops->copy(dut.dev, f->now, field_base(f), f->n_bytes, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
}
static inline double field_at(const field *f, int64_t i, int64_t j)     /* after field_fetch */
{
    return number_get(f->now + field_lead_bytes(f) + (size_t)(i * f->t.stride + j) * dtype_size(f->t.dt), f->t.dt);
}

/* Runs the call twice from the same start; every output must have the same bits both times. */
static inline void twice_first(field *const *list, int n)
{
    for (int i = 0; i < n; i++) {
        field_fetch(list[i]);
        memcpy(list[i]->kept, list[i]->now, list[i]->n_bytes);
        field_restart(list[i]);
    }
}
static inline void twice_second(field *const *list, int n)
{
    bool same = true;
    for (int i = 0; i < n; i++) {
        field_fetch(list[i]);
        same = same && memcmp(list[i]->kept, list[i]->now, list[i]->n_bytes) == 0;
    }
    if (!same) ok(false, "%s: two runs differ", list[0]->name);
}
#define TWICE(call, ...)                          \
    do {                                          \
        call;                                     \
        twice_first(FIELD_LIST(__VA_ARGS__));     \
        call;                                     \
        twice_second(FIELD_LIST(__VA_ARGS__));    \
    } while (0)

/* Did anything outside the view change? */
static inline bool field_gaps_survive(const field *f)
{
    size_t lead = field_lead_bytes(f), size = dtype_size(f->t.dt), row = (size_t)f->t.stride * size,
           used = (size_t)f->t.cols * size;

    if (memcmp(f->now, f->start, lead) != 0) return false;
    for (int64_t i = 0; i < f->t.rows; i++) {
        size_t gap = lead + (size_t)i * row + used;
        if (memcmp(f->now + gap, f->start + gap, row - used) != 0) return false;
    }
    return true;
}

/* Every element within one rounding to its dtype of the fp64 value, plus `tolerance` times the largest value (at least
 * 0.1: the tests' inputs are of order 1). */
static inline bool ok_field(field *f, const double *expected, double tolerance, const char *what)
{
    int64_t n = f->t.rows * f->t.cols, worst = 0;
    double largest = 0.1,
           rounding = f->t.dt == DT_F32    ? 0x1p-24
                      : f->t.dt == DT_BF16 ? 0x1.01p-8
                                           : 0x1.01p-11,
           worst_share = -1.0;

    field_fetch(f);
    for (int64_t i = 0; i < n; i++) largest = fmax(largest, fabs(expected[i]));
    for (int64_t i = 0; i < n; i++) {
        double got = field_at(f, i / f->t.cols, i % f->t.cols);
        double allowed = dut.slack * (rounding * fabs(expected[i]) + tolerance * largest);
        double share = got == expected[i] ? 0.0 : fabs(got - expected[i]) / allowed;
        if (isnan(share) || share > worst_share) worst_share = isnan(share) ? INFINITY : share, worst = i;
    }
    int64_t row = n ? worst / f->t.cols : 0, col = n ? worst % f->t.cols : 0;
    bool near = worst_share <= 1.0, gaps = field_gaps_survive(f);
    return ok(near && gaps, "%s: %s %s %s(%lld, %lld): at (%lld, %lld) %.9g against %.9g, %.2f of the allowed error%s",
              what, f->name, dtype_name(f->t.dt), f->t.stride > f->t.cols ? "strided " : "", (long long)f->t.rows,
              (long long)f->t.cols, (long long)row, (long long)col, n ? field_at(f, row, col) : 0.0,
              n ? expected[worst] : 0.0, worst_share, gaps ? "" : "; what lies between the columns was overwritten");
}

/* The reference's own gradient against a central difference along a random direction.  loss() reads x. */
static inline void ok_gradient(double (*loss)(const void *), const void *problem, double *x, int64_t n,
                               const double *grad, const char *what)
{
    double *direction = random_doubles(n), *at = doubles(n), step = 1e-5, along = 0.0, moved[2];

    memcpy(at, x, (size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) along += grad[i] * direction[i];
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < n; i++) x[i] = at[i] + (side ? step : -step) * direction[i];
        moved[side] = loss(problem);
    }
    memcpy(x, at, (size_t)n * sizeof *x);
    ok_close(along, (moved[1] - moved[0]) / (2.0 * step), 1e-6, 1e-3, what);
    free(direction), free(at);
}

/* Device copies of small host arrays. */
static inline void *to_device(const void *host, size_t n_bytes)
{
    void *p = dut.ops->alloc(dut.dev, n_bytes);
    dut.ops->copy(dut.dev, p, host, n_bytes, COPY_TO_DEVICE);
    dut.ops->sync(dut.dev);
    return p;
}

#endif
