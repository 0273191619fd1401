/* The two ends of the model against fp64: embedding rows and their gradient, and cross-entropy over a split vocabulary;
 * -d names the device. */
#include "tests/lib/battery.h"

/* -- embedding: ids of this part, of others, and padding -- */

static void check_embed(dtype dt, int n, int rows, int64_t cols, bool strided)
{
    enum { VOCAB_BEGIN = 40 };
    int32_t *ids = xmalloc((size_t)n * sizeof *ids);
    field table = field_random("table", dt, rows, cols, strided), dy = field_random("dy", dt, n, cols, strided);
    field y = field_output("y", dt, n, cols, strided), dtable = field_random("dtable", DT_F32, rows, cols, strided);
    double *ref = doubles(n * cols), *dref = doubles(rows * cols);

    for (int i = 0; i < n; i++) {                             /* every third id is one of few */
        int any = (i * 7) % (rows + 10);
        ids[i] = i % 11 == 0 ? -1 : VOCAB_BEGIN - 5 + (i % 3 ? any : any % 29);
    }
    memcpy(dref, dtable.v, (size_t)(rows * cols) * sizeof *dref);
    for (int i = 0; i < n; i++) {
        int row = ids[i] - VOCAB_BEGIN;
        if (ids[i] < 0 || row < 0 || row >= rows) continue;
        for (int64_t j = 0; j < cols; j++) {
            ref[i * cols + j] = table.v[row * cols + j];
            dref[row * cols + j] += dy.v[i * cols + j];
        }
    }
    int32_t *ids_d = to_device(ids, (size_t)n * sizeof *ids);
    TWICE(dut.ops->embed(dut.dev, y.t, ids_d, table.t, VOCAB_BEGIN), &y);
    ok_field(&y, ref, 0.0, "embed");
    TWICE(dut.ops->embed_backward(dut.dev, dtable.t, ids_d, dy.t, VOCAB_BEGIN), &dtable);
    ok_field(&dtable, dref, 1e-6, "embed_backward");

    /* id -1 is padding even where the part begins at row 0 */
    int32_t pad = -1, *pad_d = to_device(&pad, sizeof pad);
    memset(ref, 0, (size_t)cols * sizeof *ref);
    field one = field_output("y", dt, 1, cols, strided), dy_one = field_random("dy", dt, 1, cols, strided);
    dut.ops->embed(dut.dev, one.t, pad_d, table.t, 0);
    ok_field(&one, ref, 0.0, "embed of padding");
    field_restart(&dtable);
    dut.ops->embed_backward(dut.dev, dtable.t, pad_d, dy_one.t, 0);
    ok_field(&dtable, dtable.v, 0.0, "embed_backward of padding");
    dut.ops->free(dut.dev, ids_d), dut.ops->free(dut.dev, pad_d);
    FREE(&table, &dy, &y, &dtable, &one, &dy_one);
    free(ids), free(ref), free(dref);
}

/* -- cross-entropy -- */

typedef struct loss_problem {
    int64_t n, vocab;
    const double *logits;
    const int32_t *targets;
    double *nll;
} loss_problem;

static double loss_reference(const void *problem)
{
    const loss_problem *p = problem;
    double total = 0.0;

    for (int64_t i = 0; i < p->n; i++) {
        const double *logit = p->logits + i * p->vocab;
        double max = -INFINITY, sum = 0.0;
        p->nll[i] = 0.0;
        if (p->targets[i] < 0) continue;
        for (int64_t j = 0; j < p->vocab; j++) max = fmax(max, logit[j]);
        for (int64_t j = 0; j < p->vocab; j++) sum += exp(logit[j] - max);
        p->nll[i] = max + log(sum) - logit[p->targets[i]];
        total += p->nll[i];
    }
    return total;
}

static void gradient_reference(const loss_problem *p, double scale, double *grad)
{
    for (int64_t i = 0; i < p->n; i++) {
        const double *logit = p->logits + i * p->vocab;
        for (int64_t j = 0; j < p->vocab; j++) {
            bool hit = j == p->targets[i];
            double softmax = p->targets[i] < 0 ? 0.0 : exp(logit[j] - logit[p->targets[i]] - p->nll[i]);
            grad[i * p->vocab + j] = scale * (softmax - (hit ? 1.0 : 0.0));
        }
    }
}

/* The parts of an uneven split each give their statistics; then each computes its share of the gradient. */
static void check_cross_entropy(dtype dt, int64_t vocab, int n_parts, double spread, bool strided)
{
    enum { N = 13 };
    float scale = 1.0f / 11.0f;
    int32_t targets[N];
    double *values = random_doubles(N * vocab), *nll = doubles(N), *grad = doubles(N * vocab),
           *part_values = doubles(N * vocab);
    for (int64_t i = 0; i < N * vocab; i++) values[i] *= spread;
    for (int i = 0; i < N; i++) targets[i] = i % 5 == 3 ? -1 : (i * 17) % (int)vocab;
    field whole = field_make("logits", dt, N, vocab, false, values);
    field stats = field_output("stats", DT_F32, n_parts * N, 3, false),
          nll_f = field_output("nll", DT_F32, 1, N, false);
    int32_t *targets_d = to_device(targets, sizeof targets);
    float weights[N], *weights_d;
    double weighted[N];
    for (int i = 0; i < N; i++) weights[i] = i % 4 == 2 ? 0.0f : 0.25f * (float)i;
    weights_d = to_device(weights, sizeof weights);
    loss_problem p = {N, vocab, whole.v, targets, nll};

    loss_reference(&p);
    gradient_reference(&p, 1.0, grad);
    ok_gradient(loss_reference, &p, whole.v, N * vocab, grad, "cross-entropy's reference gradient");
    loss_reference(&p);                                       /* nll of the point itself again */
    gradient_reference(&p, scale, grad);
    for (int i = 0; i < N; i++) weighted[i] = weights[i] * nll[i];

    field *part = xmalloc((size_t)n_parts * sizeof *part);
    for (int k = 0; k < n_parts; k++) {
        int64_t begin = share_begin(vocab, n_parts, k), cols = share_begin(vocab, n_parts, k + 1) - begin;
        for (int64_t i = 0; i < N; i++)
            memcpy(part_values + i * cols, whole.v + i * vocab + begin, (size_t)cols * sizeof(double));
        part[k] = field_make("dlogits", dt, N, cols, strided, part_values);
        dut.ops->softmax_stats(dut.dev, tensor_at(stats.t, k * N, 0), part[k].t, targets_d, begin);
    }
    for (int k = 0; k < n_parts; k++) {
        int64_t begin = share_begin(vocab, n_parts, k), cols = part[k].t.cols;
        TWICE(dut.ops->cross_entropy(dut.dev, nll_f.t.data, part[k].t, stats.t.data, n_parts, targets_d, NULL, begin,
                                     0.0f),
              &nll_f, &part[k]);
        ok_field(&nll_f, nll, 1e-6, "cross_entropy, loss only");
        ok_field(&part[k], part[k].v, 0.0, "cross_entropy with scale 0 leaves the logits");
        TWICE(dut.ops->cross_entropy(dut.dev, nll_f.t.data, part[k].t, stats.t.data, n_parts, targets_d, NULL, begin,
                                     scale),
              &nll_f, &part[k]);
        for (int64_t i = 0; i < N; i++)
            memcpy(part_values + i * cols, grad + i * vocab + begin, (size_t)cols * sizeof(double));
        ok_field(&nll_f, nll, 1e-6, "cross_entropy");
        ok_field(&part[k], part_values, 2e-6, "cross_entropy");
        field_restart(&part[k]);
        TWICE(dut.ops->cross_entropy(dut.dev, nll_f.t.data, part[k].t, stats.t.data, n_parts, targets_d, weights_d,
                                     begin, scale),
              &nll_f, &part[k]);
        for (int64_t i = 0; i < N * cols; i++) part_values[i] *= weights[i / cols];
        ok_field(&nll_f, weighted, 1e-6, "cross_entropy of weighted rows");
        ok_field(&part[k], part_values, 2e-6, "cross_entropy of weighted rows");
        field_free(&part[k]);
    }
    dut.ops->free(dut.dev, targets_d), dut.ops->free(dut.dev, weights_d);
    FREE(&whole, &stats, &nll_f);
    free(part), free(values), free(nll), free(grad), free(part_values);
}

int main(int argc, char **argv)
{
    static const dtype three[] = {DT_F32, DT_BF16, DT_F16};

    battery_open(argc, argv);
    for (int strided = 0; strided < 2; strided++) {
        for (int i = 0; i < 3; i++) {
            check_embed(three[i], 300, 23, 259, strided);
            check_embed(three[i], 300, 23, 1096, strided);
            check_embed(three[i], 20000, 70000, 8, strided);  /* a sort of several tiles; many tokens of a row */
            check_cross_entropy(three[i], 101, 1, 3.0, strided);
            check_cross_entropy(three[i], 101, 3, 3.0, strided);
            check_cross_entropy(three[i], 101, 4, 60.0,
                                strided); /* parts whose sums underflow against the others' maximum */
            check_cross_entropy(three[i], 2503, 1, 3.0, strided); /* a thread of a GPU takes many columns */
            check_cross_entropy(three[i], 40000, 2, 3.0, strided);
        }
    }
    return battery_done();
}
