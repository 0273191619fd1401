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

static const model_chunk *chunk_of(const run *r, pipe_action a) { return &r->m->chunks[a.chunk]; }

static tensor input(void *of, pipe_action a) { return chunk_input(chunk_of(of, a), a.slot); }
static tensor gradient(void *of, pipe_action a) { return ((run *)of)->m->dout[a.micro_batch % 2]; }
static tensor output(void *of, pipe_action a) { return chunk_output(((run *)of)->m, a.chunk, a.micro_batch); }

static void begin(void *of, pipe_action a)
{
    run *r = of;
    const moai_ctx *c = &r->m->ctx;
    const model_chunk *k = chunk_of(r, a);
    const char *phase = a.kind == PIPE_FORWARD ? "forward" : "backward";

    /* as the loader deals them */
    k->slots[a.slot].rows.first_row = (a.micro_batch * c->grid->size.dp + c->grid->at.dp) * r->m->opt.micro_batch *
                                      r->m->opt.seq_len;
    r->m->buckets.is_last = a.micro_batch == r->n_micro - 1;
    c->ops->phase(c->dev, phase, a.micro_batch);
    if (a.kind == PIPE_FORWARD && (chunk_embeds(k) || chunk_has_head(k) || r->m->opt.feeds_all)) {
        watch_phase("reading data", a.micro_batch);
        r->feed(r->arg, r->m, a.micro_batch, &r->m->batch);
        model_set_batch(r->m, a.chunk, a.slot, &r->m->batch);
    }
    watch_phase(phase, a.micro_batch);
}

static void act(void *of, pipe_action a)
{
    run *r = of;

    CHECK(a.kind != PIPE_WEIGHTS, "a chunk's backward gives the gradients of its weights, too");
    if (a.kind == PIPE_FORWARD)
        chunk_forward(r->m, a.chunk, a.slot, output(of, a), r->scale);
    else
        chunk_backward(r->m, a.chunk, a.slot, gradient(of, a));
}

void model_run(moai_model *m, const pipe_schedule *s, float scale, model_feed feed, void *arg)
{
    run r = {.m = m, .n_micro = s->n_micro, .scale = scale, .feed = feed, .arg = arg};
    const pipe_stage stage = {&r, begin, act, input, output, gradient};

    pipeline_run(&m->ctx.grid->pp, s, &stage);
}
