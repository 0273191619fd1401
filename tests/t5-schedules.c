/* run: mpirun -np 4 %s */
/* Any list of actions is run as it stands: 1F1B, several chunks a stage (interleaved), weights' gradients apart from
 * their inputs', on pipes of 4, 2 and 1 stages.  What the stages compute has a closed form:
 *     x[v+1] = 2 x[v] + v + 1,  x[0] = m;   g[v-1] = 2 g[v];   dw[v] = sum over m of x[v] g[v]
 * for chunk number v of all and micro-batch m. */
#include "parallel/comm/grid.h"
#include "parallel/pipeline/pipeline.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_CHUNKS = 3, MOST_MICRO = 8, ELEM = 40000 };   /* a message that MPI does not buffer */

typedef struct stage {
    const comm *pp;
    const pipe_schedule *list;
    int n_buffers;                            /* of outputs, and of gradients, of a chunk */
    bool splits;                              /* the list has PIPE_WEIGHTS */
    float *input[MOST_CHUNKS][MOST_MICRO], *output[MOST_CHUNKS][MOST_MICRO], *gradient[MOST_CHUNKS][MOST_MICRO];
    double kept[MOST_CHUNKS][MOST_MICRO];     /* the gradient at the output, for PIPE_WEIGHTS */
    double dw[MOST_CHUNKS];
    int n_wrong, n_run, n_begun;
} stage;

static int number(const stage *s, int chunk) { return chunk * s->pp->size + s->pp->rank; }
static int n_all(const stage *s) { return s->list->n_chunks * s->pp->size; }
static tensor row(float *x) { return tensor_of(x, DT_F32, 1, ELEM); }

static double x_of(int v, int m)
{
    double x = m;

    for (int i = 0; i < v; i++) x = 2 * x + i + 1;
    return x;
}
static double gradient_of(const stage *s, int v, int m) { return (1.0 + m) * (double)(1 << (n_all(s) - 1 - v)); }

static tensor input(void *of, pipe_action a) { return row(((stage *)of)->input[a.chunk][a.micro_batch]); }
static tensor gradient(void *of, pipe_action a)
{
    stage *s = of;
    return row(s->gradient[s->pp->size == 1 ? 0 : a.chunk][a.micro_batch % s->n_buffers]);
}
static tensor output(void *of, pipe_action a)
{
    stage *s = of;

    if (number(s, a.chunk) == n_all(s) - 1) return gradient(of, a);
    if (s->pp->size == 1) return row(s->input[a.chunk + 1][a.micro_batch]);
    return row(s->output[a.chunk][a.micro_batch % s->n_buffers]);
}

static bool holds(tensor t, double value)
{
    const float *x = t.data;

    return x[0] == (float)value && x[ELEM / 2] == (float)value && x[ELEM - 1] == (float)value;
}

static void fill(tensor t, double value)
{
    for (int i = 0; i < ELEM; i++) ((float *)t.data)[i] = (float)value;
}

static void begin(void *of, pipe_action a) { ((stage *)of)->n_begun += a.slot >= 0; }

static void run(void *of, pipe_action a)
{
    stage *s = of;
    const int v = number(s, a.chunk), m = a.micro_batch;
    const double x = v ? ((float *)input(of, a).data)[0] : m;

    s->n_run++;
    if (a.kind == PIPE_FORWARD) {
        s->n_wrong += (v && !holds(input(of, a), x_of(v, m))) || x != x_of(v, m);
        fill(output(of, a), v == n_all(s) - 1 ? 1.0 + m : 2 * x + v + 1);
        return;
    }
    if (a.kind == PIPE_BACKWARD) {
        s->n_wrong += !holds(gradient(of, a), gradient_of(s, v, m));
        s->kept[a.chunk][m] = ((float *)gradient(of, a).data)[0];
        fill(gradient(of, a), 2 * s->kept[a.chunk][m]);
        if (s->splits) return;
    }
    s->dw[a.chunk] += x * s->kept[a.chunk][m];
}

static void each_buffer(stage *s, void (*f)(float **))
{
    for (int i = 0; i < MOST_CHUNKS * MOST_MICRO; i++)
        f(&s->input[0][0] + i), f(&s->output[0][0] + i), f(&s->gradient[0][0] + i);
}
static void take(float **x) { *x = xmalloc(ELEM * sizeof **x); }
static void give(float **x) { free(*x); }

static void check_list(const comm *pp, const pipe_schedule *list, int n_buffers, bool splits, const char *what)
{
    stage s = {.pp = pp, .list = list, .n_buffers = n_buffers, .splits = splits};
    const pipe_stage calls = {&s, begin, run, input, output, gradient};

    each_buffer(&s, take);
    pipeline_run(pp, list, &calls);
    for (int c = 0; c < list->n_chunks; c++) {
        double want = 0;
        for (int m = 0; m < list->n_micro; m++) want += x_of(number(&s, c), m) * gradient_of(&s, number(&s, c), m);
        s.n_wrong += s.dw[c] != want;
    }
    ok(s.n_wrong == 0 && s.n_run == list->n && s.n_begun == list->n,
       "%s: %d stages, %d chunks, %d micro-batches: %d wrong", what, pp->size, list->n_chunks, list->n_micro,
       s.n_wrong);
    each_buffer(&s, give);
}

static pipe_schedule empty(int n_chunks, int n_micro)
{
    return (pipe_schedule){.list = xmalloc((size_t)(3 * n_chunks * n_micro) * sizeof(pipe_action)),
                           .n_chunks = n_chunks, .n_micro = n_micro, .n_slots = n_micro};
}

static void push(pipe_schedule *l, pipe_kind kind, int chunk, int m)
{
    l->list[l->n++] = (pipe_action){kind, chunk, m, m};
}

/* The k-th forward or backward of a stage: pp micro-batches in one chunk, then in the next. */
static void push_kth(pipe_schedule *l, pipe_kind kind, int pp, int k)
{
    const int chunk = k / pp % l->n_chunks;

    push(l, kind, kind == PIPE_FORWARD ? chunk : l->n_chunks - 1 - chunk, k / (pp * l->n_chunks) * pp + k % pp);
}

/* Megatron-LM's interleaved 1F1B (arXiv 2104.04473); n_micro is a multiple of pp. */
static pipe_schedule interleaved(const comm *pp, int n_chunks, int n_micro)
{
    const int n = n_chunks * n_micro, most = (pp->size - 1 - pp->rank) * 2 + (n_chunks - 1) * pp->size,
              warm_up = most < n ? most : n;
    pipe_schedule l = empty(n_chunks, n_micro);

    for (int k = 0; k < warm_up; k++) push_kth(&l, PIPE_FORWARD, pp->size, k);
    for (int k = warm_up; k < n; k++)
        push_kth(&l, PIPE_FORWARD, pp->size, k), push_kth(&l, PIPE_BACKWARD, pp->size, k - warm_up);
    for (int k = n - warm_up; k < n; k++) push_kth(&l, PIPE_BACKWARD, pp->size, k);
    return l;
}

/* 1F1B whose weights' gradients fill what would be its bubble: each `late` backwards after its own. */
static pipe_schedule split(const comm *pp, int n_micro, int late)
{
    pipe_schedule plain = schedule_1f1b(pp->size, pp->rank, n_micro), l = empty(1, n_micro);
    int n_backward = 0;

    for (int i = 0; i < plain.n; i++) {
        push(&l, plain.list[i].kind, 0, plain.list[i].micro_batch);
        if (plain.list[i].kind == PIPE_BACKWARD && ++n_backward > late)
            push(&l, PIPE_WEIGHTS, 0, n_backward - late - 1);
    }
    for (int m = n_backward > late ? n_backward - late : 0; m < n_micro; m++) push(&l, PIPE_WEIGHTS, 0, m);
    schedule_free(&plain);
    return l;
}

/* Two stages of two chunks: the first sends a gradient round before the forward of micro-batch 1, the second takes that
 * forward first. */
static pipe_schedule crossed(const comm *pp)
{
    static const pipe_action order[2][8] = {
        {{PIPE_FORWARD, 0, 0, 0}, {PIPE_FORWARD, 1, 0, 0}, {PIPE_BACKWARD, 1, 0, 0}, {PIPE_FORWARD, 0, 1, 1},
         {PIPE_FORWARD, 1, 1, 1}, {PIPE_BACKWARD, 0, 0, 0}, {PIPE_BACKWARD, 1, 1, 1}, {PIPE_BACKWARD, 0, 1, 1}},
        {{PIPE_FORWARD, 0, 0, 0}, {PIPE_FORWARD, 1, 0, 0}, {PIPE_BACKWARD, 1, 0, 0}, {PIPE_FORWARD, 0, 1, 1},
         {PIPE_BACKWARD, 0, 0, 0}, {PIPE_FORWARD, 1, 1, 1}, {PIPE_BACKWARD, 1, 1, 1}, {PIPE_BACKWARD, 0, 1, 1}}};
    pipe_schedule l = empty(2, 2);

    memcpy(l.list, order[pp->rank], sizeof order[0]);
    l.n = 8;
    return l;
}

static moai_grid grid;

static bool agree(bool holds)
{
    int32_t fails = !holds;

    comm_all_reduce(&grid.host_world, &fails, 1, DT_I32, REDUCE_MAX);
    return !fails;
}

static void check_pipe(int stages)
{
    grid_init(&grid, (grid_shape){1, 1, 4 / stages, stages}, 1);
    tap_agree = agree;
    for (int n_micro = 1; n_micro <= MOST_MICRO; n_micro += n_micro < 3 ? 1 : 5) {
        pipe_schedule l = schedule_1f1b(stages, grid.pp.rank, n_micro);
        check_list(&grid.pp, &l, 2, false, "1F1B");
        check_list(&grid.pp, &l, 1, false, "1F1B with one buffer");
        schedule_free(&l);
        l = split(&grid.pp, n_micro, 2);
        check_list(&grid.pp, &l, 2, true, "1F1B, weights apart");
        schedule_free(&l);
    }
    for (int n_chunks = 2; n_chunks <= MOST_CHUNKS; n_chunks++)
        for (int n_micro = 4; n_micro <= MOST_MICRO; n_micro += 4) {
            pipe_schedule l = interleaved(&grid.pp, n_chunks, n_micro);
            check_list(&grid.pp, &l, MOST_MICRO, false, "interleaved");
            schedule_free(&l);
        }
    if (stages == 2) {
        pipe_schedule l = crossed(&grid.pp);
        check_list(&grid.pp, &l, MOST_MICRO, false, "in another order at either end");
        schedule_free(&l);
    }
    tap_agree = NULL;
    grid_free(&grid);
}

int main(int argc, char **argv)
{
    process_start(&argc, &argv);
    check_pipe(4);
    check_pipe(2);
    check_pipe(1);
    int status = tap_done();
    process_finish();
    return status;
}
