/* checkpoint_state.h: a small model's training state in any layout, each element a function of
 * (state, name, global index). */
#ifndef CHECKPOINT_STATE_H
#define CHECKPOINT_STATE_H

#include "io/checkpoint/checkpoint.h"
#include "src/base/rng.h"

#include <stdlib.h>
#include <string.h>

static inline model_config small_model(int64_t layers, int64_t heads, int64_t kv_heads, int64_t vocab, bool tied)
{
    return (model_config){
        .num_hidden_layers = layers, .hidden_size = 48, .intermediate_size = 52, .num_attention_heads = heads,
        .num_key_value_heads = kv_heads, .head_dim = 4, .vocab_size = vocab, .max_position_embeddings = 64,
        .pad_token_id = 0, .bos_token_id = -1, .eos_token_id = {{1}, 1}, .tie_word_embeddings = tied, .rms_norm_eps = 1e-6,
        .initializer_range = 0.02, .rope_theta = 1e6,
        .rope = {.kind = ROPE_DEFAULT, .factor = 1, .beta_fast = 32, .beta_slow = 1, .truncate = true}};
}

static inline float state_value(int state, uint64_t key, int64_t index)
{
    uint32_t out[4];
    philox4x32(out, key + (uint64_t)state, (uint64_t)index);
    return (float)((int32_t)out[0] >> 8) * 0x1p-20f;
}

/* Calls `each` for every element of the rank's share: the parameter, the element's global index, its place in a
 * state. */
static inline void state_each(const param_table *t, int dp, int dp_rank,
                              void (*each)(void *, const param *, uint64_t key, int64_t index, int64_t own), void *arg)
{
    for (int i = 0; i < t->n; i++) {
        const param *p = &t->list[i];
        const own_range r = params_own(t, p->bucket, dp, dp_rank);
        const uint64_t key = rng_key(7, p->name);
        for (int64_t e = 0; e < p->n_rows * p->n_cols; e++)
            if (p->offset + e >= r.begin && p->offset + e < r.end)
                each(arg, p, key, (p->row0 + e / p->n_cols) * p->cols + p->col0 + e % p->n_cols,
                     r.own + p->offset + e - r.begin);
    }
}

typedef struct small_state {
    param_table params;
    moai_grid *grid;
    checkpoint_state st;
    int64_t n_wrong;
} small_state;

static inline float *state_float(const small_state *s, int state, int64_t own)
{
    return state_floats(&s->st.states, state, own);
}

/* The states of a rank, in host memory. */
static inline opt_state host_states(const param_table *t, moai_device *dev)
{
    opt_state o = opt_state_on_host(opt_state_of(adamw_states, t->n_own));
    moai_error err;

    CHECK(opt_state_take_host(&o, &ops_cpu, dev, &err) == 0, "%s", err.text);
    return o;
}

static inline void state_fill_one(void *arg, const param *p, uint64_t key, int64_t index, int64_t own)
{
    small_state *s = arg;
    (void)p;
    for (int state = 0; state < s->st.states.n; state++) *state_float(s, state, own) = state_value(state, key, index);
}

static inline void state_compare_one(void *arg, const param *p, uint64_t key, int64_t index, int64_t own)
{
    small_state *s = arg;
    (void)p;
    for (int state = 0; state < s->st.states.n; state++) {
        const float want = state_value(state, key, index);
        s->n_wrong += memcmp(&want, state_float(s, state, own), sizeof want) != 0;
        *state_float(s, state, own) = 0;                      /* what remains is padding */
    }
}

static inline void state_init(small_state *s, const model_config *cfg, moai_grid *grid, moai_device *dev)
{
    *s = (small_state){.grid = grid};
    params_init(&s->params, cfg, PARAMS_TRAINED, grid->size, grid->at, 16);
    s->st = (checkpoint_state){.params = &s->params, .grid = grid, .ops = &ops_cpu, .dev = dev};
    s->st.states = host_states(&s->params, dev);
}

static inline void state_free(small_state *s)
{
    opt_state_free_host(&s->st.states, &ops_cpu, s->st.dev);
    params_free(&s->params);
}

static inline void state_fill(small_state *s)
{
    state_each(&s->params, s->grid->data.size, s->grid->data.rank, state_fill_one, s);
}

/* Elements that are not what state_fill puts there; padding has to be zero.  Clears all. */
static inline int64_t state_n_wrong(small_state *s)
{
    s->n_wrong = 0;
    state_each(&s->params, s->grid->data.size, s->grid->data.rank, state_compare_one, s);
    for (int state = 0; state < s->st.states.n; state++)
        for (int64_t i = 0; i < s->params.n_own; i++) s->n_wrong += *state_float(s, state, i) != 0;
    return s->n_wrong;
}

static inline grid_shape rank_at(grid_shape size, int rank)
{
    grid_shape at = {.tp = rank % size.tp};
    rank /= size.tp;
    at.cp = rank % size.cp, rank /= size.cp;
    at.dp = rank % size.dp, at.pp = rank / size.dp;
    return at;
}

static inline int state_load(const char *dir, const checkpoint_state *st, moai_error *err)
{
    checkpoint_manifest *m;
    int rc = checkpoint_open(&m, dir, &comm_alone, err);

    if (rc == 0) rc = checkpoint_load(m, st, err);
    checkpoint_close(m);
    return rc;
}

/* Loads as the rank `rank` of layout `size` would; the number of wrong elements, or -1. */
static inline int64_t state_load_as(const char *dir, const model_config *cfg, grid_shape size, int rank,
                                    moai_device *dev, moai_error *err)
{
    moai_grid grid;
    small_state s;

    grid_dry(&grid, size, rank_at(size, rank), (int)cfg->num_key_value_heads);
    state_init(&s, cfg, &grid, dev);
    for (int state = 0; state < s.st.states.n; state++)
        for (int64_t i = 0; i < s.params.n_own; i++) *state_float(&s, state, i) = 1e30f;
    int64_t n_wrong = state_load(dir, &s.st, err) == 0 ? state_n_wrong(&s) : -1;
    state_free(&s);
    return n_wrong;
}

static inline checkpoint_meta small_meta(const model_config *cfg, grid_shape layout, int64_t step)
{
    return (checkpoint_meta){.step = step, .samples = step * 8, .updates = step - 1, .skipped = 1, .layout = layout,
                             .seed = 1234, .seq_length = 16, .global_batch_size = 8, .tokenizer_sha256 = "",
                             .model = *cfg, .run_json = (char *)"{\"learning_rate\": 0.001}",
                             .state_json = (char *)"{\"loss_scale\": {\"value\": 0.1}}"};
}

#endif
