/* opt_state.h: what the optimizer keeps of this rank's share of the parameters: the states of a table, each n_own
 * elements in the order of own_range (params.h).
 *
 * Whoever plans memory, copies, saves or loads walks the table; the optimizer alone knows a state by its name.  In
 * files every state is fp32 and whole, so a run may go on with another representation in memory. */
#ifndef MOAI_OPT_STATE_H
#define MOAI_OPT_STATE_H

#include "src/ops/ops.h"

typedef enum { PLACE_DEVICE, PLACE_HOST } memory_place;

typedef struct state_spec {
    const char *name;                         /* in checkpoints: the group /NAME of a rank's file */
    dtype dt;                                 /* of an element in memory */
    int block;                                /* elements to one fp32 scale, the scales behind them; 0: no scales */
    memory_place place;                       /* host: pinned, where the device reads and writes it as its own */
} state_spec;

typedef struct state_table {
    const state_spec *list;
    int n;
} state_table;

/* The states of AdamW: the fp32 weights ("masters") and two moments.  What a checkpoint holds. */
extern const state_table adamw_states;
enum { STATE_WEIGHT, STATE_EXP_AVG, STATE_EXP_AVG_SQ, MAX_STATES };     /* rows of that table */

typedef struct opt_state {
    state_spec spec[MAX_STATES];
    int n;                                    /* 0: nothing is trained */
    int64_t n_own;                            /* elements of each */
    void *data[MAX_STATES];
} opt_state;

size_t state_bytes(const state_spec *, int64_t n_elem);       /* scales included */
size_t opt_state_bytes(const opt_state *);                    /* of all states */

opt_state opt_state_of(state_table, int64_t n_own);           /* no memory yet */
opt_state opt_state_on_host(opt_state);                       /* the same states, all on the host; no memory yet */
/* Lays out what is on the device in an arena; `weight`, unless NULL, is where the weights lie already. */
void opt_state_plan(opt_state *, arena *device, void *weight);
/* What is on the host, apart: -1 naming the bytes when they do not fit.  opt_state_free_host frees as much as there
 * is. */
int opt_state_take_host(opt_state *, const moai_ops *, moai_device *, moai_error *err);
void opt_state_free_host(opt_state *, const moai_ops *, moai_device *);

/* Element `first` on; dies of a state that is not fp32 as it lies. */
float *state_floats(const opt_state *, int state, int64_t first);
/* n elements from `first` on, as fp32 on the host, out of or into the state; queued on the device.  ops NULL: the
 * state is host memory, and the copy is done at return. */
void state_read(const opt_state *, int state, int64_t first, int64_t n, float *to, const moai_ops *, moai_device *);
void state_write(const opt_state *, int state, int64_t first, int64_t n, const float *from, const moai_ops *,
                 moai_device *);
void state_zero(const opt_state *, int state, const moai_ops *, moai_device *);

#endif
