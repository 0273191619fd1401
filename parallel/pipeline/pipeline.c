/* pipeline.c: see pipeline.h */
#include "parallel/pipeline/pipeline.h"

#include "src/base/watch.h"

#include <stdlib.h>

static void push(pipe_schedule *s, pipe_kind kind, int micro_batch)
{
    s->list[s->n++] = (pipe_action){kind, micro_batch};
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

/* The sends under way; a buffer (by micro-batch parity) is written again only when its last send has ended. */
typedef struct pipe {
    moai_model *m;
    const moai_grid *grid;
    comm_request sent_forward[2], sent_backward[2];
} pipe;

static void finish(comm_request *r)
{
    comm_end(r);
    *r = (comm_request){0};
}

static void recv_forward(pipe *p, tensor x)
{
    comm_request r = recv_begin(&p->grid->pp, x.data, (size_t)tensor_n_elem(x), x.dt, p->grid->pp.rank - 1);
    comm_end(&r);
}

static void recv_backward(pipe *p, tensor dy)
{
    comm_request r = recv_begin(&p->grid->pp, dy.data, (size_t)tensor_n_elem(dy), dy.dt, p->grid->pp.rank + 1);
    comm_end(&r);
}

static void send_forward(pipe *p, int parity, tensor y)
{
    p->sent_forward[parity] = send_begin(&p->grid->pp, y.data, (size_t)tensor_n_elem(y), y.dt, p->grid->pp.rank + 1);
}

static void send_backward(pipe *p, int parity, tensor dx)
{
    p->sent_backward[parity] =
        send_begin(&p->grid->pp, dx.data, (size_t)tensor_n_elem(dx), dx.dt, p->grid->pp.rank - 1);
}

static void forward(pipe *p, int micro_batch, int slot, float scale)
{
    const int parity = micro_batch % 2;
    tensor y = p->m->out[parity], dy = p->m->dout[parity];

    if (!grid_first_stage(p->grid)) recv_forward(p, p->m->slots[slot].layers[0].x);
    finish(&p->sent_forward[parity]);
    stage_forward(p->m, slot, y);
    if (!grid_last_stage(p->grid)) {
        send_forward(p, parity, y);
        return;
    }
    finish(&p->sent_backward[parity]);
    head_forward_backward(p->m, slot, dy, y, scale);
}

static void backward(pipe *p, int micro_batch, int slot)
{
    const int parity = micro_batch % 2;
    tensor dy = p->m->dout[parity];

    if (!grid_last_stage(p->grid)) {
        finish(&p->sent_backward[parity]);
        recv_backward(p, dy);
    }
    stage_backward(p->m, slot, dy);
    if (!grid_first_stage(p->grid)) send_backward(p, parity, dy);
}

void pipeline_run(moai_model *m, const pipe_schedule *s, float scale, pipe_feed feed, void *arg)
{
    const moai_ctx *c = &m->ctx;
    const moai_grid *g = c->grid;
    pipe p = {.m = m, .grid = g};

    for (int i = 0; i < s->n; i++) {
        const int micro_batch = s->list[i].micro_batch, slot = micro_batch % s->n_slots;
        m->buckets.is_last = micro_batch == s->n_micro - 1;
        if (s->list[i].kind == PIPE_BACKWARD) {
            c->ops->phase(c->dev, "backward", micro_batch);
            watch_phase("backward", micro_batch);
            backward(&p, micro_batch, slot);
            continue;
        }
        c->ops->phase(c->dev, "forward", micro_batch);
        watch_phase("reading data", micro_batch);
        if (grid_first_stage(g) || grid_last_stage(g)) feed(arg, m, micro_batch, slot);
        watch_phase("forward", micro_batch);
        forward(&p, micro_batch, slot, scale);
    }
    for (int parity = 0; parity < 2; parity++) finish(&p.sent_forward[parity]), finish(&p.sent_backward[parity]);
}
