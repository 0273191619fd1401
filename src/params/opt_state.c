/* opt_state.c: see opt_state.h */
#include "src/params/opt_state.h"

#include <string.h>

static const state_spec adamw[] = {
    [STATE_WEIGHT] = {"weight", DT_F32, 0, PLACE_DEVICE},
    [STATE_EXP_AVG] = {"exp_avg", DT_F32, 0, PLACE_DEVICE},
    [STATE_EXP_AVG_SQ] = {"exp_avg_sq", DT_F32, 0, PLACE_DEVICE},
};
const state_table adamw_states = {adamw, sizeof adamw / sizeof *adamw};

size_t state_bytes(const state_spec *s, int64_t n_elem)
{
    const int64_t n_scales = s->block ? (n_elem + s->block - 1) / s->block : 0;

    return (size_t)n_elem * dtype_size(s->dt) + (size_t)n_scales * sizeof(float);
}

size_t opt_state_bytes(const opt_state *o)
{
    size_t n_bytes = 0;

    for (int i = 0; i < o->n; i++) n_bytes += state_bytes(&o->spec[i], o->n_own);
    return n_bytes;
}

opt_state opt_state_of(state_table t, int64_t n_own)
{
    opt_state o = {.n = t.n, .n_own = n_own};

    CHECK(t.n <= MAX_STATES, "%d states of an optimizer, more than %d", t.n, MAX_STATES);
    memcpy(o.spec, t.list, (size_t)t.n * sizeof *t.list);
    return o;
}

opt_state opt_state_on_host(opt_state o)
{
    for (int i = 0; i < o.n; i++) o.spec[i].place = PLACE_HOST, o.data[i] = NULL;
    return o;
}

void opt_state_plan(opt_state *o, arena *device, void *weight)
{
    for (int i = 0; i < o->n; i++)
        if (i == STATE_WEIGHT && weight)
            o->data[i] = weight, o->spec[i].place = PLACE_DEVICE;
        else if (o->spec[i].place == PLACE_DEVICE)
            o->data[i] = arena_take(device, state_bytes(&o->spec[i], o->n_own));
}

int opt_state_take_host(opt_state *o, const moai_ops *ops, moai_device *dev, moai_error *err)
{
    for (int i = 0; i < o->n; i++) {
        if (o->spec[i].place != PLACE_HOST || o->data[i]) continue;
        const size_t n_bytes = state_bytes(&o->spec[i], o->n_own);
        o->data[i] = ops->alloc_host(dev, n_bytes);
        if (!o->data[i]) return error_set(err, "%zu bytes of host memory do not fit", n_bytes);
    }
    return 0;
}

void opt_state_free_host(opt_state *o, const moai_ops *ops, moai_device *dev)
{
    for (int i = 0; i < o->n; i++) {
        if (o->spec[i].place != PLACE_HOST || !o->data[i]) continue;
        ops->free_host(dev, o->data[i], state_bytes(&o->spec[i], o->n_own));
        o->data[i] = NULL;
    }
}

float *state_floats(const opt_state *o, int state, int64_t first)
{
    const state_spec *s = &o->spec[state];

    CHECK(s->dt == DT_F32 && s->block == 0, "%s is %s in blocks of %d, no plain fp32", s->name, dtype_name(s->dt),
          s->block);
    return (float *)o->data[state] + first;
}

/* Representations other than fp32 are converted here. */
static void copy_floats(float *to, const float *from, int64_t n, copy_kind kind, const moai_ops *ops, moai_device *dev)
{
    if (ops)
        ops->copy(dev, to, from, (size_t)n * sizeof *to, kind);
    else
        memcpy(to, from, (size_t)n * sizeof *to);
}

void state_read(const opt_state *o, int state, int64_t first, int64_t n, float *to, const moai_ops *ops,
                moai_device *dev)
{
    copy_floats(to, state_floats(o, state, first), n, COPY_TO_HOST, ops, dev);
}

void state_write(const opt_state *o, int state, int64_t first, int64_t n, const float *from, const moai_ops *ops,
                 moai_device *dev)
{
    copy_floats(state_floats(o, state, first), from, n, COPY_TO_DEVICE, ops, dev);
}

void state_zero(const opt_state *o, int state, const moai_ops *ops, moai_device *dev)
{
    ops->zero(dev, o->data[state], state_bytes(&o->spec[state], o->n_own));
}
