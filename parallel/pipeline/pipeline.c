/* pipeline.c: see pipeline.h
 *
 * Why two buffers by the parity of the micro-batch are enough for 1F1B, and waiting for one never closes a circle.
 * Micro-batch m writes the buffer that m - 2 was sent from, so before it does, that send must have ended, which it does
 * when the neighbour has received it.  Let w be the warm-up forwards of a stage (pp - 1 - stage, one less on the next).
 *   output     In the steady state forward m follows backward m - 1 - w, whose gradient the next stage sends after its
 *              forward m - 2: it has received m - 2 already.  In the warm-up the next stage takes its inputs in order
 *              and waits for nothing but this stage's sends, so it will.
 *   gradient   Backward m + 2 follows forward m + 2 + w, whose input the stage before sends after its backward m: it
 *              has received m already.  When no forwards are left, its backward m needs only what it has been sent.
 * So a wait is for something that depends on nothing this stage has still to do.  One buffer would do as well, but then
 * each send would be waited for before the next micro-batch could be computed. */
#include "parallel/pipeline/pipeline.h"

#include <stdlib.h>

static void push(pipe_schedule *s, pipe_kind kind, int micro_batch)
{
    s->list[s->n++] = (pipe_action){kind, 0, micro_batch, micro_batch % s->n_slots};
}

pipe_schedule schedule_1f1b(int pp, int stage, int n_micro)
{
    const int warm_up = (int)min_i64(pp - 1 - stage, n_micro);
    pipe_schedule s = {.list = xmalloc(2 * (size_t)n_micro * sizeof *s.list), .n_chunks = 1, .n_micro = n_micro,
                       .n_slots = (int)min_i64(pp - stage, n_micro)};

    for (int m = 0; m < warm_up; m++) push(&s, PIPE_FORWARD, m);
    for (int m = warm_up; m < n_micro; m++) push(&s, PIPE_FORWARD, m), push(&s, PIPE_BACKWARD, m - warm_up);
    for (int m = n_micro - warm_up; m < n_micro; m++) push(&s, PIPE_BACKWARD, m);
    return s;
}

pipe_schedule schedule_forward(int n_micro)
{
    pipe_schedule s = {.list = xmalloc((size_t)n_micro * sizeof *s.list), .n_chunks = 1, .n_micro = n_micro,
                       .n_slots = 1};

    for (int m = 0; m < n_micro; m++) push(&s, PIPE_FORWARD, m);
    return s;
}

void schedule_free(pipe_schedule *s)
{
    free(s->list);
    *s = (pipe_schedule){0};
}

/* Forward and backward have lanes of their own, and so has what goes round from the last stage to the first: with two
 * stages both ways join the same ranks. */
enum { LANE_FORWARD, LANE_BACKWARD, LANE_FORWARD_ROUND, LANE_BACKWARD_ROUND };
enum { MOST_BUFFERS = 64 };

typedef struct pipe {
    const comm *pp;
    const pipe_stage *stage;
    int n_chunks;
    struct {
        const void *buffer;
        comm_request request;
    } sent[MOST_BUFFERS];                     /* those whose send has not been waited for */
    int n_sent;
} pipe;

/* The rank of the chunk that is `step` (1, -1) further in the order of all; -1: there is none, or it is this rank, and
 * nothing is sent. */
static int neighbour(const pipe *p, int chunk, int step)
{
    const int size = p->pp->size, at = chunk * size + p->pp->rank + step;

    return size == 1 || at < 0 || at >= size * p->n_chunks ? -1 : at % size;
}

static int lane_of(bool forward, int from, int to)
{
    const bool round = forward ? to < from : to > from;

    return forward ? (round ? LANE_FORWARD_ROUND : LANE_FORWARD) : (round ? LANE_BACKWARD_ROUND : LANE_BACKWARD);
}

/* The buffer is about to be written. */
static void reclaim(pipe *p, tensor x)
{
    int i = 0;

    while (i < p->n_sent && p->sent[i].buffer != x.data) i++;
    if (i == p->n_sent) return;
    comm_end(&p->sent[i].request);
    p->sent[i] = p->sent[--p->n_sent];
}

static void send_to(pipe *p, int to, tensor x, bool forward)
{
    if (to < 0) return;
    CHECK(p->n_sent < MOST_BUFFERS, "a stage of the pipe sends from more than %d buffers", MOST_BUFFERS);
    p->sent[p->n_sent].buffer = x.data;
    p->sent[p->n_sent++].request = send_begin(p->pp, x.data, (size_t)tensor_n_elem(x), x.dt, to,
                                              lane_of(forward, p->pp->rank, to));
}

static void receive_from(const pipe *p, int from, tensor x, bool forward)
{
    comm_request r = recv_begin(p->pp, x.data, (size_t)tensor_n_elem(x), x.dt, from,
                                lane_of(forward, from, p->pp->rank));

    comm_end(&r);
}

static void forward(pipe *p, pipe_action a)
{
    const pipe_stage *s = p->stage;
    const int before = neighbour(p, a.chunk, -1);
    const tensor output = s->output(s->of, a);

    if (before >= 0) receive_from(p, before, s->input(s->of, a), true);
    reclaim(p, output);
    s->run(s->of, a);
    send_to(p, neighbour(p, a.chunk, 1), output, true);
}

static void backward(pipe *p, pipe_action a)
{
    const pipe_stage *s = p->stage;
    const int behind = neighbour(p, a.chunk, 1);
    const tensor gradient = s->gradient(s->of, a);

    if (behind >= 0) {
        reclaim(p, gradient);
        receive_from(p, behind, gradient, false);
    }
    s->run(s->of, a);
    send_to(p, neighbour(p, a.chunk, -1), gradient, false);
}

void pipeline_run(const comm *pp, const pipe_schedule *s, const pipe_stage *stage)
{
    pipe p = {.pp = pp, .stage = stage, .n_chunks = s->n_chunks};

    for (int i = 0; i < s->n; i++) {
        const pipe_action a = s->list[i];
        stage->begin(stage->of, a);
        if (a.kind == PIPE_FORWARD)
            forward(&p, a);
        else if (a.kind == PIPE_BACKWARD)
            backward(&p, a);
        else
            stage->run(stage->of, a);
    }
    for (int i = 0; i < p.n_sent; i++) comm_end(&p.sent[i].request);
}
