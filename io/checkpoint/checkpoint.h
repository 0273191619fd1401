/* checkpoint.h: the whole training state in a directory that any layout can read.
 *
 *   OUTPUT_DIR/checkpoint-STEP/
 *     rank-00000.h5 ...   one serial HDF5 file per rank: /weight/NAME/0, /exp_avg/NAME/0, /exp_avg_sq/NAME/0, ...
 *                         each a 2-D fp32 dataset (a piece), attributes `global_shape` and `offset` (rows, columns;
 *                         a vector is one row), `xxh3`
 *     config.json         the model; tokenizer.model when the run has one; files of an imported model (carried.h)
 *     adapter_config.json of a run that trains adapters (lora_config.h): the state is theirs alone, beside a base
 *     manifest.json       last: format, version, step, samples consumed, optimizer updates, layout, run
 *                         configuration, and for each file its bytes and its pieces with hash and address.
 *                         A directory without it is not a checkpoint.
 * A ZeRO-1 share is a flat range of the rank's blocks; cut at row ends it is at most three rectangles per parameter.
 * Written to checkpoint-STEP.tmp, every file flushed and fsynced, manifest last, directory renamed, parent fsynced;
 * then read back, and only after that older ones are removed. */
#ifndef MOAI_CHECKPOINT_H
#define MOAI_CHECKPOINT_H

#include "parallel/comm/grid.h"
#include "src/config/model_config.h"
#include "src/ops/ops.h"
#include "src/params/opt_state.h"
#include "src/params/params.h"

typedef struct checkpoint_meta {
    int64_t step, samples, updates;     /* steps done, place in the data order, optimizer updates (step - skipped) */
    int64_t skipped;
    grid_shape layout;
    uint64_t seed;
    int64_t seq_length, global_batch_size;
    char tokenizer_sha256[65];
    char data_xxh3[33];                 /* of the training split, see dataset_xxh3; "" when nobody knows */
    model_config model;
    char *run_json;                     /* the run's, as saved; the caller's own, or checkpoint_meta_free frees it */
    char *state_json;                   /* run_state.h's object, likewise; NULL: none */
    char *base;                         /* of adapters: the directory of the frozen weights, likewise; NULL: none */
    char base_xxh3[33];                 /* and what weights_xxh3 says of them; "" when nobody knows */
} checkpoint_meta;
void checkpoint_meta_free(checkpoint_meta *);
checkpoint_meta checkpoint_meta_copy(const checkpoint_meta *);

typedef struct checkpoint_state {
    const param_table *params;
    const moai_grid *grid;
    const moai_ops *ops;                /* to copy the device's memory; NULL in a save: the states are host memory */
    moai_device *dev;
    opt_state states;
} checkpoint_state;

/* What lies beside the state: tokenizer.model, and what an imported model brought (carried.h).  Their bytes, read once:
 * the files may change or go. */
typedef struct checkpoint_files {
    struct checkpoint_file {
        char *name, *data;
        size_t n_bytes;
    } *list;
    int n;
} checkpoint_files;
int checkpoint_files_add(checkpoint_files *, const char *name, const char *path, moai_error *err);
const struct checkpoint_file *checkpoint_files_find(const checkpoint_files *, const char *name);    /* NULL: none */
/* As tokenizer.model, or tokenizer.json where it is JSON; fills its SHA-256. */
int checkpoint_read_tokenizer(checkpoint_files *, const char *path, char sha256[65], moai_error *err);
/* But for names that are there already; `from` is empty then. */
void checkpoint_files_move(checkpoint_files *to, checkpoint_files *from);
int checkpoint_files_write(const checkpoint_files *, const char *dir, moai_error *err);              /* each fsynced */
void checkpoint_files_free(checkpoint_files *);

/* A save in steps, so that training can go on between them:
 *
 *   begin     collective    checkpoint-STEP.tmp is made; NULL on every rank when it cannot.  The files (NULL: none) are
 *                           the caller's until the end; only rank 0's count
 *   write     any thread    this rank's file, fsynced; the states must not change until it returns
 *   gather    collective    what every rank wrote, to rank 0
 *   commit    any thread    rank 0 writes the manifest and gives the directory its name, all fsynced; then every rank
 *                           reads its file back and checks the hashes
 *   prune     any thread    rank 0 removes what is older than the `keep` newest complete ones (0: all stay)
 *   end       not collective, frees; `failed`: rank 0 removes what was written, and one that was replaced is back
 *
 * The ranks agree on the outcome of write and commit before the next step; after a failure only end may follow.  Begin
 * and gather need MPI's thread; the others need no MPI, and of a state with `ops` NULL no device.  One save at a
 * time. */
typedef struct checkpoint_saving checkpoint_saving;
checkpoint_saving *checkpoint_begin(const char *output_dir, const checkpoint_meta *, const checkpoint_state *,
                                    const checkpoint_files *, moai_error *err);
int checkpoint_write(checkpoint_saving *, moai_error *err);
void checkpoint_gather(checkpoint_saving *);
int checkpoint_commit(checkpoint_saving *, moai_error *err);
void checkpoint_prune(const checkpoint_saving *, int keep);
void checkpoint_end(checkpoint_saving *, bool failed);
/* All steps at once.  Collective over the world.  On failure (disk full, ...) every rank returns -1, nothing is left of
 * it, and older checkpoints are untouched. */
int checkpoint_save(const char *output_dir, const checkpoint_meta *, const checkpoint_state *,
                    const checkpoint_files *, int keep, moai_error *err);
/* Removes the half-written directories that a killed run left.  Not collective; no save may be under way.  Every save
 * begins with it, and then with what lay in checkpoint-STEP.old while another took its name: that goes when the other
 * is there, or gets its name back. */
void checkpoint_clean(const char *output_dir);
/* The newest directory of output_dir with a manifest, or NULL; caller frees.  Not collective
 * (rank 0 asks and broadcasts). */
char *checkpoint_latest(const char *output_dir);
/* Those past a step: "checkpoint-300, checkpoint-200", newest first; NULL: none; caller frees.  Returns -1 when
 * output_dir is there and cannot be read. */
int checkpoint_later(const char *output_dir, int64_t step, char **names, moai_error *err);
/* What a run may go on from, newest first, manifest or not: "checkpoint-200", or "checkpoint-200.old" of a killed run
 * (after the one of this step that replaced it, if that is there).  Returns -1 when output_dir is there and cannot be
 * read; else checkpoint_names_free frees. */
typedef struct checkpoint_names {
    char **list;
    int n;
} checkpoint_names;
int checkpoint_find(const char *output_dir, checkpoint_names *, moai_error *err);
void checkpoint_names_free(checkpoint_names *);
/* list[chosen] is good and those before it are damaged: they become checkpoint-STEP.damaged, which nothing counts or
 * removes, and a chosen .old gets its name back.  Not collective. */
int checkpoint_choose(const char *output_dir, const checkpoint_names *, int chosen, moai_error *err);

/* What reads a checkpoint returns this where the bytes are not those that were written (a hash, a size, a file that
 * is gone), and -1 for everything else: a disk that does not answer, another version, another model. */
enum { CHECKPOINT_DAMAGED = -2 };
/* What a checkpoint consists of, as rank 0 reads it and tells the others: the same result on every rank.  Its meta
 * holds the model and belongs to it.  Collective over a host comm; comm_alone is one. */
typedef struct checkpoint_manifest checkpoint_manifest;
int checkpoint_open(checkpoint_manifest **, const char *dir, const comm *world, moai_error *err);
const checkpoint_meta *checkpoint_get_meta(const checkpoint_manifest *);
void checkpoint_close(checkpoint_manifest *);               /* may be NULL */
/* Adds the files beside the state, hashes checked, but for names that are in the list.  Not collective. */
int checkpoint_read_files(checkpoint_files *, const checkpoint_manifest *, moai_error *err);
/* What holds a weight or moment that is not finite is no checkpoint to go on from, however well its bytes have been
 * kept: checkpoint_write refuses it with this, naming the first, and to those who read it is damaged. */
enum { CHECKPOINT_NOT_FINITE = -3 };
/* Not collective; checkpoint_meta_free frees it. */
int checkpoint_read_meta(const char *dir, checkpoint_meta *, moai_error *err);
/* Fills the states of this rank's layout, whatever layout wrote it, checking the hash of each piece it reads.  Every
 * element of every parameter must be covered, or it fails naming it.  Not collective; the caller agrees. */
int checkpoint_load(const checkpoint_manifest *, const checkpoint_state *, moai_error *err);
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
 * is no manifest to check against.  The ranks divide the pieces, rank 0 has also the small files: each reports and
 * returns its own faults.  Collective over a host comm. */
int64_t checkpoint_verify(const char *dir, const comm *world, void (*report)(void *, const char *fault), void *arg,
                          moai_error *err);
/* Only what lies outside the pieces, which checkpoint_load does not look at: HDF5's own bytes and the small files.  A
 * load by all ranks and this by all parts together have checked every byte.  On failure the first fault.  Not
 * collective. */
int checkpoint_check_rest(const checkpoint_manifest *, int part, int parts, moai_error *err);

#endif
