/* checkpoint.h: the whole training state in a directory that any layout can read.
 *
 *   OUTPUT_DIR/checkpoint-STEP/
 *     rank-00000.h5 ...   one serial HDF5 file per rank: /weight/NAME/0, /exp_avg/NAME/0, /exp_avg_sq/NAME/0, ...
 *                         each a 2-D fp32 dataset (a piece), attributes `global_shape` and `offset` (rows, columns;
 *                         a vector is one row), `xxh3`
 *     config.json         the model; tokenizer.model when the run has one
 *     manifest.json       last: format, version, step, samples consumed, optimizer updates, layout, run
 *                         configuration, and for each file its bytes and its pieces with hash and address.
 *                         A directory without it is not a checkpoint.
 * A ZeRO-1 share is a flat range of the rank's blocks; cut at row ends it is at most three rectangles per parameter.
 * Written to checkpoint-STEP.tmp, every file flushed and fsynced, manifest last, directory renamed, parent fsynced. */
#ifndef MOAI_CHECKPOINT_H
#define MOAI_CHECKPOINT_H

#include "config.h"
#include "grid.h"
#include "ops.h"
#include "params.h"

enum { STATE_WEIGHT, STATE_EXP_AVG, STATE_EXP_AVG_SQ, N_STATES };
extern const char *const checkpoint_state_names[N_STATES];

typedef struct checkpoint_meta {
    int64_t step, samples, updates;     /* steps done, samples of all ranks, optimizer updates (step - skipped) */
    int64_t skipped;
    grid_shape layout;
    uint64_t seed;
    int64_t seq_length, global_batch_size;
    char tokenizer_sha256[65];
    model_config model;
    char *run_json;                     /* the run's, as saved; the caller's own, or checkpoint_meta_free frees it */
    char *state_json;                   /* run_state.h's object, likewise; NULL: none */
} checkpoint_meta;
void checkpoint_meta_free(checkpoint_meta *);

typedef struct checkpoint_state {
    const param_table *params;
    const moai_grid *grid;
    const moai_ops *ops;                /* copies from or to the device's memory */
    moai_device *dev;
    float *own[N_STATES];               /* device memory, the own-state buffers of params.h */
} checkpoint_state;

/* Collective over the world.  On failure (disk full, ...) every rank returns -1, the temporary directory
 * is removed, and older checkpoints are untouched.  On success removes all but the newest `keep`
 * complete ones (keep 0: all stay). */
int checkpoint_save(const char *output_dir, const checkpoint_meta *, const checkpoint_state *,
                    const char *tokenizer_path, int keep, moai_error *err);
/* The newest directory of output_dir with a manifest, or NULL; caller frees.  Not collective
 * (rank 0 asks and broadcasts). */
char *checkpoint_latest(const char *output_dir);
int checkpoint_read_meta(const char *dir, checkpoint_meta *, moai_error *err);
/* Fills own[] of this rank's layout, whatever layout wrote it, checking the hash of each piece it reads.  Every
 * element of every parameter must be covered, or it fails naming it.  Not collective; the caller agrees. */
int checkpoint_load(const char *dir, const checkpoint_state *, moai_error *err);
/* What lies in output_dir, oldest step first, half-written directories too; or output_dir
 * itself, when it is a checkpoint. */
typedef struct checkpoint_info {
    char *dir;
    bool complete;                      /* a manifest that can be read */
    char fault[256];                    /* why not */
    int64_t n_bytes;                    /* of its files */
    int64_t step, samples;              /* these and below only of complete ones */
    grid_shape layout;
    char saved_at[32];                  /* UTC, ISO 8601 */
} checkpoint_info;

/* NULL when it cannot be read; else free with checkpoint_list_free. */
checkpoint_info *checkpoint_list(const char *output_dir, int *n, moai_error *err);
void checkpoint_list_free(checkpoint_info *, int n);
/* Reads everything, checks each hash and that the pieces tile every parameter of every state exactly
 * once.  Calls `report` for each fault (may be NULL); returns the number of faults, or -1 when there
 * is no manifest to check against. */
int64_t checkpoint_verify(const char *dir, void (*report)(void *, const char *fault), void *arg, moai_error *err);

#endif
