/* left_out_list.h: the samples that a run has decided to leave out of its data, and why.  The list only grows.  It is
 * part of every checkpoint and, from the decision on, in OUTPUT_DIR/left_out.json:
 *
 *   {"seed": .., "seq_length": .., "n_samples": ..,          what sample numbers mean
 *    "decisions": [{"step": 25,                              the step that spiked
 *                   "measure": "loss", "value": .., "mean": .., "zscore": ..,
 *                   "back_to": 20, "from": 160,              step gone back to; the samples are out from this count on
 *                   "samples": [..]}]}
 *
 * With it a run, resumed from any of its checkpoints or begun again from nothing, takes the same samples at every step:
 * see data_order.h. */
#ifndef MOAI_LEFT_OUT_LIST_H
#define MOAI_LEFT_OUT_LIST_H

#include "io/data/data_order.h"
#include "src/train/spike.h"

typedef struct left_out_list {
    json_t *decisions;                        /* as above */
    left_out *list;                           /* all of them, as data_order wants it */
    int64_t n;
} left_out_list;

left_out_list left_out_start(void);
void left_out_free(left_out_list *);

typedef struct left_out_decision {
    int64_t step, back_to, from;
    spike why;
    const int64_t *samples;                   /* n_samples of them */
    int64_t n_samples;
} left_out_decision;

void left_out_add(left_out_list *, const left_out_decision *);
/* How often the run went back to this count. */
int left_out_times(const left_out_list *, int64_t from);
/* Adds the decisions of an array that are not there yet. */
int left_out_merge(left_out_list *, const json_t *decisions, moai_error *err);

/* What a file's sample numbers must mean. */
typedef struct left_out_data {
    int64_t seed, seq_length, n_samples;
} left_out_data;

int left_out_write(const left_out_list *, const left_out_data *, const char *path, moai_error *err);
/* Merges the file's decisions; no file is no decisions.  -1 when it is of other data. */
int left_out_read(left_out_list *, const left_out_data *, const char *path, moai_error *err);

#endif
