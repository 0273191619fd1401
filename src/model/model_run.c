/* model_run.c: see model_run.h */
#include "src/model/model_run.h"

#include "src/base/watch.h"

typedef struct run {
    moai_model *m;
    int n_micro;
    float scale;
    model_feed feed;
    void *arg;
} run;

static tensor input(void *of, pipe_action a) { return ((run *)of)->m->slots[a.slot].layers[0].x; }
static tensor output(void *of, pipe_action a) { return ((run *)of)->m->out[a.micro_batch % 2]; }
static tensor gradient(void *of, pipe_action a) { return ((run *)of)->m->dout[a.micro_batch % 2]; }

static void begin(void *of, pipe_action a)
{
    run *r = of;
    const moai_ctx *c = &r->m->ctx;
    const char *phase = a.kind == PIPE_FORWARD ? "forward" : "backward";

    r->m->buckets.is_last = a.micro_batch == r->n_micro - 1;
    c->ops->phase(c->dev, phase, a.micro_batch);
    if (a.kind == PIPE_FORWARD && (grid_first_stage(c->grid) || grid_last_stage(c->grid))) {
        watch_phase("reading data", a.micro_batch);
        r->feed(r->arg, r->m, a.micro_batch, a.slot);
    }
    watch_phase(phase, a.micro_batch);
}

static void act(void *of, pipe_action a)
{
    run *r = of;

    if (a.kind == PIPE_BACKWARD) {
        stage_backward(r->m, a.slot, gradient(of, a));
        return;
    }
    stage_forward(r->m, a.slot, output(of, a));
    if (grid_last_stage(r->m->ctx.grid)) head_forward_backward(r->m, a.slot, gradient(of, a), output(of, a), r->scale);
}

void model_run(moai_model *m, const pipe_schedule *s, float scale, model_feed feed, void *arg)
{
    run r = {.m = m, .n_micro = s->n_micro, .scale = scale, .feed = feed, .arg = arg};
    const pipe_stage stage = {&r, begin, act, input, output, gradient};

    pipeline_run(&m->ctx.grid->pp, s, &stage);
}
