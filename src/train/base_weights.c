/* base_weights.c: see base_weights.h */
#include "src/train/base_weights.h"

#include "io/checkpoint/shares.h"
#include "io/hf/weights.h"

#include <stdlib.h>
#include <string.h>

static const char *base_of(const run_config *run) { return run->finetune.model_name_or_path; }

static int check_tokenizer(const weights *w, const char *dir, const char *sha256, moai_error *err)
{
    char own[65];

    if (weights_tokenizer_sha256(w, own, err)) return -1;
    if (!own[0] || strcmp(own, sha256) == 0) return 0;
    return error_config(err, "model_name_or_path %s knows the tokens of tokenizer %s, the data has %s", dir, own,
                        sha256);
}

static int look(const run_config *run, const model_config *model, const char *sha256, char xxh3[33],
                checkpoint_files *files, moai_error *err)
{
    weights *w = weights_open(base_of(run), err);
    int rc = w ? check_tokenizer(w, base_of(run), sha256, err) : -1;

    if (rc == 0 && model->lora.rank) rc = weights_xxh3(w, xxh3, err);
    if (rc == 0) rc = weights_carry(w, files, err);
    weights_free(w);
    return rc;
}

int base_weights_open(const run_config *run, const model_config *model, const comm *world, const char *tokenizer_sha256,
                      char xxh3[33], checkpoint_files *files, moai_error *err)
{
    int rc = 0;

    memset(xxh3, 0, 33);
    if (!*base_of(run)) return 0;
    if (world->rank == 0) rc = look(run, model, tokenizer_sha256, xxh3, files, err);
    if (comm_agree(world, rc, err)) return -1;
    comm_broadcast(world, xxh3, 33, DT_U8, 0);
    return 0;
}

int base_weights_freeze(moai_model *m, const run_config *run, const comm *world, moai_error *err)
{
    const moai_ctx *c = &m->ctx;

    if (!*base_of(run) || !m->cfg.lora.rank) return 0;
    weights *w = weights_open(base_of(run), err);
    const weights_target frozen = {&m->frozen, m->frozen_weights, c->dt, m->codes, m->absmax,
                                   m->cfg.quantization.nested};
    const int rc = w ? weights_to_device(w, &frozen, c->ops, c->dev, err) : -1;
    weights_free(w);
    return comm_agree(world, rc, err);
}

/* A rectangle of a parameter, some rows at a time. */
static int load_share(moai_model *m, weights *w, const share *s, float *host, int64_t room, moai_error *err)
{
    const moai_ctx *c = &m->ctx;
    const int64_t step = max_i64(1, room / s->at.n_cols);

    for (int64_t row = 0; row < s->at.n_rows; row += step) {
        const int64_t n = min_i64(step, s->at.n_rows - row);
        if (weights_read(w, s->p->name, s->at.row0 + row, n, s->at.col0, s->at.n_cols, host, s->at.n_cols, err))
            return -1;
        state_write(&m->states, STATE_WEIGHT, s->own + row * s->at.n_cols, n * s->at.n_cols, host, c->ops, c->dev);
        c->ops->sync(c->dev);                 /* host is read into again */
    }
    return 0;
}

int base_weights_start(moai_model *m, const run_config *run, const comm *world, moai_error *err)
{
    enum { ROOM = 1 << 22 };
    const moai_grid *g = m->ctx.grid;
    int64_t room = ROOM;
    bool reads = false;                       /* adapters alone need nothing of the base */
    int n;

    if (!*base_of(run)) return 0;
    share *list = shares_of(&m->params, g->data.size, g->data.rank, &n);
    for (int i = 0; i < n; i++) {
        reads = reads || !param_is_adapter(list[i].p);
        room = max_i64(room, list[i].at.n_cols);
    }
    float *host = xmalloc((size_t)room * sizeof *host);
    weights *w = reads ? weights_open(base_of(run), err) : NULL;
    int rc = reads && !w ? -1 : 0;
    for (int i = 0; rc == 0 && i < n; i++)
        if (!param_is_adapter(list[i].p)) rc = load_share(m, w, &list[i], host, room, err);
    free(host);
    free(list);
    weights_free(w);
    return comm_agree(world, rc, err);
}
