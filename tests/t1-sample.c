/* Sampling against its definition, worked out by sorting; -d names the device. */
#include "tests/lib/battery.h"

typedef struct token {
    float logit;
    int32_t id;
    double p;
} token;

static int falling(const void *a, const void *b)
{
    const token *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : 1;
}
static int by_id(const void *a, const void *b) { return ((const token *)a)->id < ((const token *)b)->id ? -1 : 1; }

/* The probabilities of the first n become shares of their sum. */
static void normalize(token *list, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++) sum += list[i].p;
    for (int64_t i = 0; i < n; i++) list[i].p /= sum;
}

static int32_t expected_id(const float *logits, int64_t n, sample_options how, double u)
{
    token *list = xmalloc((size_t)n * sizeof *list);
    int64_t kept = n, i = 0;
    double sum = 0;

    for (int64_t j = 0; j < n; j++) list[j] = (token){.logit = logits[j], .id = (int32_t)j};
    qsort(list, (size_t)n, sizeof *list, falling);
    if (how.temperature == 0) kept = 1;
    if (how.top_k > 0 && how.top_k < n)
        for (kept = how.top_k; kept < n && list[kept].logit == list[how.top_k - 1].logit;) kept++;
    for (int64_t j = 0; j < kept; j++)
        list[j].p = how.temperature == 0 ? 1 : exp(((double)list[j].logit - list[0].logit) / how.temperature);
    normalize(list, kept);
    if (how.top_p < 1) {
        int64_t last = 0;
        for (sum = list[0].p; last < kept - 1 && sum < how.top_p; sum += list[last].p) last++;
        kept = last + 1;
        normalize(list, kept);
    } else {
        qsort(list, (size_t)kept, sizeof *list, by_id);
    }
    for (sum = list[0].p; i < kept - 1 && sum <= u; sum += list[i].p) i++;
    while (list[i].p == 0 && i > 0) i--;
    const int32_t id = list[i].id;
    free(list);
    return id;
}

enum { ROWS = 5 };

static void check(const char *what, const float *values, int64_t n, sample_options how, bool strided)
{
    double u[ROWS] = {1e-12, 1 - 0x1p-53}, *as_doubles = doubles(ROWS * n);
    int32_t got[ROWS], expected = 0;
    int wrong = -1;

    for (int i = 2; i < ROWS; i++) u[i] = uniform(0, 1);
    for (int64_t i = 0; i < ROWS * n; i++) as_doubles[i] = values[i];
    field logits = field_make("logits", DT_F32, ROWS, n, strided, as_doubles);
    double *u_d = to_device(u, sizeof u);
    int32_t *ids_d = to_device(got, sizeof got);
    dut.ops->sample(dut.dev, ids_d, logits.t, u_d, how);
    dut.ops->copy(dut.dev, got, ids_d, sizeof got, COPY_TO_HOST);
    dut.ops->sync(dut.dev);
    for (int i = 0; i < ROWS && wrong < 0; i++) {
        expected = expected_id(values + i * n, n, how, u[i]);
        if (got[i] != expected) wrong = i;
    }
    ok(wrong < 0, "%s of %lld, temperature %g, top-k %lld, top-p %g: u %.17g draws token %d, by sorting %d", what,
       (long long)n, how.temperature, (long long)how.top_k, how.top_p, u[wrong < 0 ? 0 : wrong],
       (int)got[wrong < 0 ? 0 : wrong], (int)(wrong < 0 ? got[0] : expected));
    dut.ops->free(dut.dev, u_d), dut.ops->free(dut.dev, ids_d);
    free(as_doubles);
    FREE(&logits);
}

static void check_all(const char *what, const float *values, int64_t n)
{
    /* top_p are no sums of equal probabilities, which rounding would decide */
    const sample_options list[] = {{0, 0, 1},         {1, 0, 1},         {0.8, 0, 0.9517}, {0.7, 50, 1},
                                   {1.3, 50, 0.9031}, {1, 1, 1},         {1, n, 1},        {1, n - 1, 0.503},
                                   {1, 0, 1e-9},      {1, 0, 0.999999},  {50, 0, 0.607},   {0.05, 0, 0.907},
                                   {1e5, 0, 1},       {1, n / 2, 0.9903}};

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i].top_k >= 0) check(what, values, n, list[i], i % 2);
}

/* A sum of uniform numbers: near enough to normal. */
static float bell(double width)
{
    double sum = 0;
    for (int i = 0; i < 6; i++) sum += uniform(-1, 1);
    return (float)(width * sum);
}

static void test_sizes(void)
{
    static const int64_t sizes[] = {1, 2, 31, 257, 4099, 33000};

    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t n = sizes[s], all = ROWS * n;
        float *x = xmalloc((size_t)all * sizeof *x);
        for (int64_t i = 0; i < all; i++) x[i] = bell(2);
        check_all("normal logits", x, n);
        for (int64_t i = 0; i < all; i++) x[i] = floorf(10 * bell(1)) / 10;
        check_all("many equals", x, n);
        for (int64_t i = 0; i < all; i++) x[i] = i % 7 == 3 && i % n ? -INFINITY : i % 3 ? 0.0f : -0.0f;
        check_all("zeros of both signs, and tokens that never come", x, n);
        for (int64_t i = 0; i < all; i++) x[i] = i % n == n / 3 ? 90.0f : bell(0.5) - 30;
        check_all("one far above the others", x, n);
        free(x);
    }
}

/* A block of a GPU passes over its part of such a row more than once. */
static void test_long(void)
{
    enum { N = 150000 };
    float *x = xmalloc((size_t)ROWS * N * sizeof *x);

    for (int64_t i = 0; i < (int64_t)ROWS * N; i++) x[i] = bell(2);
    check("normal logits", x, N, (sample_options){1, 0, 1}, false);
    check("normal logits", x, N, (sample_options){0.7, 50, 0.9031}, true);
    free(x);
}

static void test_broken(void)
{
    enum { N = 700 };
    const double u[ROWS] = {0.1, 0.2, 0.3, 0.4, 0.5};
    float *x = xmalloc(ROWS * N * sizeof *x);
    int32_t got[ROWS];

    for (int i = 0; i < ROWS * N; i++) x[i] = i / N == 3 ? -INFINITY : bell(1);
    x[1 * N + 699] = NAN;
    x[2 * N + 5] = INFINITY;
    x[4 * N + 350] = -INFINITY;
    float *x_d = to_device(x, ROWS * N * sizeof *x);
    double *u_d = to_device(u, sizeof u);
    int32_t *ids_d = to_device(got, sizeof got);
    for (int i = 0; i < 3; i++) {
        const sample_options how = {.temperature = i > 0, .top_k = i == 2 ? 20 : 0, .top_p = i == 2 ? 0.9 : 1};
        dut.ops->sample(dut.dev, ids_d, tensor_of(x_d, DT_F32, ROWS, N), u_d, how);
        dut.ops->copy(dut.dev, got, ids_d, sizeof got, COPY_TO_HOST);
        dut.ops->sync(dut.dev);
        ok(got[0] == expected_id(x, N, how, u[0]) && got[4] == expected_id(x + 4 * N, N, how, u[4]) && got[1] == -1 &&
               got[2] == -1 && got[3] == -1,
           "temperature %g: NaN, infinity and nothing at all give no token, %d %d %d, their neighbours theirs, %d %d",
           how.temperature, (int)got[1], (int)got[2], (int)got[3], (int)got[0], (int)got[4]);
    }
    dut.ops->free(dut.dev, x_d), dut.ops->free(dut.dev, u_d), dut.ops->free(dut.dev, ids_d);
    free(x);
}

int main(int argc, char **argv)
{
    battery_open(argc, argv);
    test_sizes();
    test_long();
    test_broken();
    return battery_done();
}
