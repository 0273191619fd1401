/* profile.c: see profile.h */
#include "src/train/profile.h"

#include "src/observe/comm_timed.h"
#include "src/observe/ops_timed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct profile {
    moai_ctx *ctx, plain;                     /* the context under observation, and what it was before */
    timeline line;
    moai_ops ops;
    timed_device device;
    moai_grid grid;                           /* with timed comms over those of the real one */
};

static const size_t device_comms[] = {offsetof(moai_grid, tp), offsetof(moai_grid, cp), offsetof(moai_grid, data),
                                      offsetof(moai_grid, pp), offsetof(moai_grid, kv), offsetof(moai_grid, embed)};
enum { N_COMMS = sizeof device_comms / sizeof *device_comms };

static comm *own_comm(profile *p, int i) { return (comm *)((char *)&p->grid + device_comms[i]); }
static const comm *real_comm(const profile *p, int i)
{
    return (const comm *)((const char *)p->plain.grid + device_comms[i]);
}

/* Events of a step: a layer has less than 64 a micro-batch, forward, backward and the optimizer's share. */
static int expected_events(const moai_ctx *c, int n_micro)
{
    const int64_t layers = c->cfg->num_hidden_layers / c->grid->size.pp + 1;

    return (int)min_i64(1 << 20, n_micro * (64 * layers + 256));
}

profile *profile_open(moai_ctx *c, const clock_ops *clock, int n_micro)
{
    profile *p = xmalloc(sizeof *p);

    p->ctx = c;
    p->plain = *c;
    p->ops = ops_timed;
    p->ops.name = c->ops->name;
    p->device = (timed_device){.ops = c->ops, .dev = c->dev, .line = &p->line};
    p->grid = *c->grid;
    timeline_open(&p->line, clock, c->dev, expected_events(c, n_micro));
    for (int i = 0; i < N_COMMS; i++) /* a comm of one rank does nothing: it stays as it is */
        if (real_comm(p, i)->size > 1) *own_comm(p, i) = comm_timed(real_comm(p, i), &p->line);
    return p;
}

void profile_enter(profile *p, bool note)
{
    moai_ctx *c = p->ctx;

    if (note) {
        c->ops->sync(c->dev);
        comm_barrier(&c->grid->host_world);
        timeline_start(&p->line);
    }
    c->ops = &p->ops;
    c->dev = (moai_device *)&p->device;
    c->grid = &p->grid;
}

void profile_leave(profile *p)
{
    const bool noted = p->line.on;

    if (noted) timeline_stop(&p->line);
    p->ctx->ops = p->plain.ops;
    p->ctx->dev = p->plain.dev;
    p->ctx->grid = p->plain.grid;
    if (noted) timeline_read(&p->line);
}

const timeline *profile_timeline(const profile *p) { return &p->line; }

void profile_free(profile *p)
{
    if (!p) return;
    for (int i = 0; i < N_COMMS; i++)
        if (real_comm(p, i)->size > 1) own_comm(p, i)->ops->free(own_comm(p, i));
    timeline_close(&p->line);
    free(p);
}

int profile_write(const profile *p, const char *output_dir, moai_error *err)
{
    char *dir = xasprintf("%s/profile", output_dir), *path = xasprintf("%s/rank-%d.json", dir, p->grid.rank);
    int status = mkdir(dir, 0777) && errno != EEXIST ? -1 : 0;
    FILE *f = status ? NULL : fopen(path, "w");

    if (f) {
        timeline_write(&p->line, f, p->grid.rank);
        status = ferror(f) ? -1 : 0;
        if (fclose(f)) status = -1;
    } else {
        status = -1;
    }
    if (status) error_set(err, "%s: %s", path, strerror(errno));
    free(path);
    free(dir);
    return status;
}
