/* pipeline.c: see pipeline.h
 *
 * Why two buffers by parity are enough, and waiting for one never closes a circle.  Micro-batch m writes the buffer
 * that m - 2 was sent from, so before it does, that send must have ended, which it does when the neighbour has received
 * it.  Let w be the warm-up forwards of a stage (pp - 1 - stage, one less on the next).
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
    s->list[s->n++] = (pipe_action){kind, micro_batch, micro_batch % s->n_slots};
}

pipe_schedule schedule_1f1b(int pp, int stage, int n_micro)
{
    const int warm_up = (int)min_i64(pp - 1 - stage, n_micro);
    pipe_schedule s = {.list = xmalloc(2 * (size_t)n_micro * sizeof *s.list), .n_micro = n_micro,
                       .n_slots = (int)min_i64(pp - stage, n_micro)};

    for (int m = 0; m < warm_up; m++) push(&s, PIPE_FORWARD, m);
    for (int m = warm_up; m < n_micro; m++) push(&s, PIPE_FORWARD, m), push(&s, PIPE_BACKWARD, m - warm_up);
    for (int m = n_micro - warm_up; m < n_micro; m++) push(&s, PIPE_BACKWARD, m);
    return s;
}

pipe_schedule schedule_forward(int n_micro)
{
    pipe_schedule s = {.list = xmalloc((size_t)n_micro * sizeof *s.list), .n_micro = n_micro, .n_slots = 1};

    for (int m = 0; m < n_micro; m++) push(&s, PIPE_FORWARD, m);
    return s;
}

void schedule_free(pipe_schedule *s)
{
    free(s->list);
    *s = (pipe_schedule){0};
}

/* The sends under way, by parity.  A buffer is written again only when its last send has ended. */
typedef struct pipe {
    const comm *pp;
    const pipe_stage *stage;
    comm_request sent_forward[2], sent_backward[2];
} pipe;

static bool is_first(const pipe *p) { return p->pp->rank == 0; }
static bool is_last(const pipe *p) { return p->pp->rank == p->pp->size - 1; }

static void finish(comm_request *r)
{
    comm_end(r);
    *r = (comm_request){0};
}

static comm_request send_to(const pipe *p, int to, tensor x)
{
    return send_begin(p->pp, x.data, (size_t)tensor_n_elem(x), x.dt, to);
}

static void receive_from(const pipe *p, int from, tensor x)
{
    comm_request r = recv_begin(p->pp, x.data, (size_t)tensor_n_elem(x), x.dt, from);
    comm_end(&r);
}

static void forward(pipe *p, pipe_action a)
{
    const int parity = a.micro_batch % 2;

    if (!is_first(p)) receive_from(p, p->pp->rank - 1, p->stage->input(p->stage->of, a));
    finish(&p->sent_forward[parity]);
    if (is_last(p)) finish(&p->sent_backward[parity]);        /* its forward writes the gradient, too */
    p->stage->run(p->stage->of, a);
    if (!is_last(p)) p->sent_forward[parity] = send_to(p, p->pp->rank + 1, p->stage->output(p->stage->of, a));
}

static void backward(pipe *p, pipe_action a)
{
    const int parity = a.micro_batch % 2;
    const tensor gradient = p->stage->gradient(p->stage->of, a);

    if (!is_last(p)) {
        finish(&p->sent_backward[parity]);
        receive_from(p, p->pp->rank + 1, gradient);
    }
    p->stage->run(p->stage->of, a);
    if (!is_first(p)) p->sent_backward[parity] = send_to(p, p->pp->rank - 1, gradient);
}

void pipeline_run(const comm *pp, const pipe_schedule *s, const pipe_stage *stage)
{
    pipe p = {.pp = pp, .stage = stage};

    for (int i = 0; i < s->n; i++) {
        stage->begin(stage->of, s->list[i]);
        if (s->list[i].kind == PIPE_FORWARD)
            forward(&p, s->list[i]);
        else
            backward(&p, s->list[i]);
    }
    for (int parity = 0; parity < 2; parity++) finish(&p.sent_forward[parity]), finish(&p.sent_backward[parity]);
}
