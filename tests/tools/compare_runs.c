/* compare_runs A B TOLERANCE: do two runs tell one story?  Steps, losses, gradient norms and loss scales of
 * A/metrics.jsonl and B's, the sample numbers of each step as sets where logged, and the newest checkpoints, tensor by
 * tensor.  Relative to B.  TOLERANCE 0 asks for the same bits, of Adam's moments too.  Prints one line with the worst
 * differences; when a difference is too large also both numbers, and leaves with 1. */
#include "io/checkpoint/checkpoint.h"
#include "src/ops/ops.h"
#include "src/params/params.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static double tolerance;
static bool differ;

__attribute__((format(printf, 1, 2))) static void report(const char *fmt, ...)
{
    va_list ap;

    differ = true;
    va_start(ap, fmt);
    printf("# ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

/* The worst relative difference of one kind of number, and how often it was too large. */
typedef struct worst {
    const char *what;
    double difference;
    int n_bad;
} worst;

static void compare(worst *w, const char *where, double a, double b)
{
    double difference = a == b ? 0 : fabs(a - b) / fmax(fabs(b), 1e-30);

    if (!(difference <= w->difference)) w->difference = difference;      /* a NaN is the worst */
    if (difference <= tolerance) return;
    if (w->n_bad++ < 3)
        report("%s %s: %.12g against %.12g, relative %.2g, allowed %.2g", where, w->what, a, b, difference, tolerance);
}

/* The lines of metrics.jsonl that describe steps: an array of objects. */
static json_t *read_steps(const char *dir)
{
    char *path = xasprintf("%s/metrics.jsonl", dir), *line = NULL;
    size_t room = 0;
    FILE *f = fopen(path, "r");
    json_t *steps = json_array();

    CHECK(f, "%s: cannot be opened", path);
    while (getline(&line, &room, f) > 0) {
        json_error_t fault;
        json_t *object = json_loads(line, JSON_ALLOW_NUL, &fault);
        CHECK(object, "%s: %s in %s", path, fault.text, line);
        if (json_object_get(object, "grad_norm")) json_array_append(steps, object);
        json_decref(object);
    }
    fclose(f);
    free(line);
    free(path);
    return steps;
}

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t sorted_samples(const json_t *step, int64_t **list)
{
    const json_t *numbers = json_object_get(step, "sample_numbers");
    size_t n = json_array_size(numbers);

    *list = xmalloc(n * sizeof **list);
    for (size_t i = 0; i < n; i++) (*list)[i] = json_integer_value(json_array_get(numbers, i));
    qsort(*list, n, sizeof **list, by_number);
    return n;
}

static void compare_samples(const char *where, const json_t *a, const json_t *b)
{
    int64_t *x, *y;
    size_t n = sorted_samples(a, &x), n_b = sorted_samples(b, &y);

    if (n != n_b) report("%s: %zu samples against %zu", where, n, n_b);
    for (size_t i = 0; i < n && n == n_b; i++) {
        if (x[i] == y[i]) continue;
        report("%s: sample %lld against %lld in the sorted lists of %zu", where, (long long)x[i], (long long)y[i], n);
        break;
    }
    free(x);
    free(y);
}

/* null is how a number that is not finite is written */
static double number(const json_t *step, const char *key)
{
    const json_t *value = json_object_get(step, key);
    return json_is_number(value) ? json_number_value(value) : json_is_null(value) ? INFINITY : NAN;
}

static size_t compare_steps(const char *dir_a, const char *dir_b, worst *loss, worst *norm)
{
    json_t *a = read_steps(dir_a), *b = read_steps(dir_b);
    size_t n = json_array_size(a), n_b = json_array_size(b);

    if (n != n_b || n == 0) report("%zu steps against %zu", n, n_b);
    for (size_t i = 0; i < n && i < n_b; i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        char where[64];
        snprintf(where, sizeof where, "step %.0f", number(y, "step"));
        if (number(x, "step") != number(y, "step")) report("%s: it is step %.0f", where, number(x, "step"));
        compare(loss, where, number(x, "loss"), number(y, "loss"));
        compare(norm, where, number(x, "grad_norm"), number(y, "grad_norm"));
        compare_samples(where, x, y);
        const json_t *scale = json_object_get(x, "loss_scale"), *scale_b = json_object_get(y, "loss_scale");
        if ((scale || scale_b) && !json_equal(scale, scale_b))
            report("%s: loss scale %g against %g", where, number(x, "loss_scale"), number(y, "loss_scale"));
    }
    json_decref(a);
    json_decref(b);
    return n;
}

/* The newest checkpoint of a run, as one rank alone would load it. */
typedef struct state {
    checkpoint_meta meta;
    param_table params;
    opt_state states;
} state;

static void load_newest(const char *dir, state *s, moai_device *device)
{
    const grid_shape one = {1, 1, 1, 1};
    moai_grid grid;
    moai_error err;
    checkpoint_manifest *m;
    char *newest = checkpoint_latest(dir);

    CHECK(newest, "%s: no complete checkpoint", dir);
    CHECK(checkpoint_open(&m, newest, &comm_alone, &err) == 0, "%s", err.text);
    s->meta = checkpoint_meta_copy(checkpoint_get_meta(m));
    grid_dry(&grid, one, (grid_shape){0, 0, 0, 0}, (int)s->meta.model.num_key_value_heads);
    params_init(&s->params, &s->meta.model, PARAMS_TRAINED, one, grid.at, s->meta.seq_length);
    s->states = opt_state_on_host(opt_state_of(adamw_states, s->params.n_own));
    CHECK(opt_state_take_host(&s->states, &ops_cpu, device, &err) == 0, "%s", err.text);
    checkpoint_state load = {.params = &s->params, .grid = &grid, .ops = &ops_cpu, .dev = device, .states = s->states};
    CHECK(checkpoint_load(m, &load, &err) == 0, "%s", err.text);
    checkpoint_close(m);
    free(newest);
}

static void state_free(state *s, moai_device *device)
{
    opt_state_free_host(&s->states, &ops_cpu, device);
    params_free(&s->params);
    checkpoint_meta_free(&s->meta);
}

static void compare_bits(const state *a, const state *b)
{
    const param *first = NULL;
    int n_bad = 0;

    for (int i = 0; i < b->params.n; i++) {
        const param *p = &b->params.list[i];
        const size_t n_bytes = (size_t)(p->rows * p->cols) * sizeof(float);
        for (int k = 0; k < b->states.n; k++) {
            const float *x = state_floats(&a->states, k, p->offset), *y = state_floats(&b->states, k, p->offset);
            if (memcmp(x, y, n_bytes) == 0) continue;
            if (n_bad++ == 0) first = p;
        }
    }
    if (n_bad)
        report("%d of %d tensors of weights and moments have other bits; the first is of %s", n_bad,
               b->states.n * b->params.n, first->name);
}

/* The checksum of a tensor is its norm; `distance` is |a - b| / |b|, where nothing can cancel. */
static void compare_tensor(const param *p, const float *x, const float *y, worst *checksum, worst *distance)
{
    double norm_x = 0, norm_y = 0, apart = 0;

    for (int64_t i = 0; i < p->rows * p->cols; i++) {
        norm_x += (double)x[i] * x[i];
        norm_y += (double)y[i] * y[i];
        apart += ((double)x[i] - y[i]) * ((double)x[i] - y[i]);
    }
    compare(checksum, p->name, sqrt(norm_x), sqrt(norm_y));
    distance->difference = fmax(distance->difference, sqrt(apart / norm_y));
}

static void compare_weights(const char *dir_a, const char *dir_b, worst *checksum, worst *distance)
{
    moai_device *device = device_open_cpu(1);
    state a, b;
    moai_error err;

    load_newest(dir_a, &a, device);
    load_newest(dir_b, &b, device);
    CHECK(model_config_same(&a.meta.model, &b.meta.model, &err) == 0, "%s", err.text);
    if (a.meta.step != b.meta.step || a.meta.samples != b.meta.samples)
        report("checkpoints of step %lld, %lld samples against step %lld, %lld samples", (long long)a.meta.step,
               (long long)a.meta.samples, (long long)b.meta.step, (long long)b.meta.samples);
    for (int i = 0; i < b.params.n; i++) {
        const param *p = &b.params.list[i];
        const float *x = state_floats(&a.states, STATE_WEIGHT, p->offset);
        compare_tensor(p, x, state_floats(&b.states, STATE_WEIGHT, p->offset), checksum, distance);
    }
    if (tolerance == 0) compare_bits(&a, &b);
    state_free(&a, device);
    state_free(&b, device);
    device_close_cpu(device);
}

int main(int argc, char **argv)
{
    worst loss = {.what = "loss"}, norm = {.what = "gradient norm"}, checksum = {.what = "checksum"},
          distance = {.what = "weights"};

    CHECK(argc == 4, "compare_runs A B TOLERANCE");
    tolerance = atof(argv[3]);
    size_t steps = compare_steps(argv[1], argv[2], &loss, &norm);
    compare_weights(argv[1], argv[2], &checksum, &distance);
    printf("%zu steps, differences: loss %.1g, gradient norm %.1g, weights' checksum %.1g (elementwise %.1g); "
           "allowed %.1g\n",
           steps, loss.difference, norm.difference, checksum.difference, distance.difference, tolerance);
    return differ;
}
