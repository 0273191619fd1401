/* checkpoint_manifest.h: DIR/manifest.json, which says what a checkpoint consists of: the pieces of each file and where
 * they lie, the small files beside them, and every hash. */
#ifndef MOAI_CHECKPOINT_MANIFEST_H
#define MOAI_CHECKPOINT_MANIFEST_H

#include "io/checkpoint/piece_file.h"

struct pack;
struct unpack;

/* All pieces of one state of one parameter. */
typedef struct stored_tensor {
    int state;
    const char *name;
    int64_t rows, cols;
    struct piece_ref {
        int file;
        const piece *p;
    } *refs;                                  /* by first row, then first column */
    int n;
} stored_tensor;

typedef struct small_file {                   /* config.json, tokenizer.model, carried.h's */
    char *name;
    int64_t bytes;
    char xxh3[33];
} small_file;

struct checkpoint_manifest {
    char *dir, *saved_at;                     /* UTC, ISO 8601 */
    checkpoint_meta meta;                     /* without the model, which is in config.json, unless it was asked for */
    piece_file *files;
    int n_files;
    small_file *small;
    int n_small;
    stored_tensor *tensors;                   /* sorted by state and name */
    int n_tensors;
    struct piece_ref *refs;                   /* the memory behind tensors[].refs */
    char **names;                             /* NULL, or (n_tensors), then the pieces' names are these */
};

/* Reads and checks DIR/manifest.json: its own hash, every field, and that the pieces tile each
 * of their tensors exactly once. */
int manifest_load(checkpoint_manifest *, const char *dir, moai_error *err);
/* Rank 0 does, with config.json's model where asked to, and tells the others: the same result on every rank.  Theirs
 * has no tensors[].refs.  Collective over a host comm. */
int manifest_load_shared(checkpoint_manifest *, const char *dir, bool with_model, const comm *world, moai_error *err);
void manifest_pack(struct pack *, const checkpoint_manifest *);            /* what travels; pack.h */
void manifest_unpack(struct unpack *, checkpoint_manifest *);
void manifest_unload(checkpoint_manifest *);
const stored_tensor *manifest_find(const checkpoint_manifest *, int state, const char *name);      /* NULL: not there */
int manifest_check_small(const checkpoint_manifest *, const small_file *, moai_error *err);
/* Adds those of a name that is wanted and not in the list, hashes checked. */
int manifest_read_files(const checkpoint_manifest *, checkpoint_files *, bool (*wanted)(const char *name),
                        moai_error *err);
int manifest_model(const checkpoint_manifest *, model_config *, moai_error *err); /* config.json, hash checked */
/* The tensors of every state are those of the model, shape for shape.  Calls `report` for each
 * difference; their number. */
int64_t manifest_check_names(const checkpoint_manifest *, const model_config *, void (*report)(void *, const char *),
                             void *arg);

int manifest_index(checkpoint_manifest *, const char *path, moai_error *err); /* part of manifest_load: fills tensors */

enum { CHECKPOINT_VERSION = 1 };
/* One file's entry as JSON text (caller frees), and the manifest from the entries of all files. */
char *manifest_entry(const piece_file *);
/* `entries`: n_bytes, each with its NUL. */
int manifest_save(const char *dir, const checkpoint_meta *, const char *entries, size_t n_bytes, moai_error *err);

#endif
