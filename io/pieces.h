/* pieces.h: how a checkpoint lies on disk.  Shared by the files that save, load, verify and export checkpoints.
 *
 * A piece is a rectangle of one parameter's state: the contiguous fp32 dataset /STATE/NAME/INDEX of a rank's HDF5
 * file.  The manifest records at which byte of the file its data lies, so readers need no HDF5: they read with
 * pread, in any number of threads, and a damaged file meets a hash before it meets a parser.  A piece without an
 * address was never allocated: all zero. */
#ifndef MOAI_PIECES_H
#define MOAI_PIECES_H

#include "checkpoint.h"

struct XXH3_state_s;
struct pack;
struct unpack;

typedef struct rect {
    int64_t row0, n_rows, col0, n_cols;
} rect;
static inline int64_t rect_n_elem(rect r) { return r.n_rows * r.n_cols; }
static inline rect rect_intersect(rect a, rect b)
{
    const int64_t row0 = max_i64(a.row0, b.row0), row1 = min_i64(a.row0 + a.n_rows, b.row0 + b.n_rows);
    const int64_t col0 = max_i64(a.col0, b.col0), col1 = min_i64(a.col0 + a.n_cols, b.col0 + b.n_cols);

    return (rect){row0, max_i64(row1 - row0, 0), col0, max_i64(col1 - col0, 0)};
}

typedef struct piece {
    int state;                                /* STATE_WEIGHT ... */
    char *name;                               /* of the parameter; owned */
    int index;                                /* counts the pieces of one state of one parameter in one file */
    int64_t rows, cols;                       /* global shape */
    rect at;
    int64_t address;                          /* byte in the file, -1: all zero */
    char xxh3[33];                            /* of the data, row by row, little-endian fp32 */
    int64_t block_rows;                       /* 0, or blocks of so many rows, the last of what is left, */
    char (*blocks)[33];                       /* have hashes of their own; owned */
} piece;
int64_t piece_n_blocks(const piece *);        /* of those with a hash */
/* Elements that are read, written and hashed at once, and what has more gets blocks: 4 Mi, 16 MiB; tests make it
 * less. */
extern int64_t piece_block_elem;

typedef struct piece_file {
    char *name;                               /* "rank-00003.h5" */
    int64_t bytes;
    char structure_xxh3[33];                  /* of the bytes that belong to no piece, in order: HDF5's own */
    piece *list;
    int n;
} piece_file;

/* The rectangles that a rank owns under ZeRO-1, and where they lie in the own-state buffers, row after row. */
typedef struct share {
    const param *p;
    rect at;
    int64_t own;
} share;
share *shares_of(const param_table *, int dp_size, int dp_rank, int *n);   /* caller frees */

/* The table of a single rank, which holds every parameter whole: what a model consists of. */
void params_whole(param_table *, const model_config *);

/* Writing one HDF5 file.  `fill` supplies elements [first, first + n) of the piece, whole rows; NULL for a piece of
 * zeros.  What is not finite is refused (CHECKPOINT_NOT_FINITE).  After a failure only piece_file_close may follow; it
 * frees in any case, and given no piece_file it abandons.  A broken library is a broken rank (die). */
typedef int (*piece_fill)(void *from, int64_t first, int64_t n, float *dst, moai_error *err);
typedef struct piece_writer piece_writer;
piece_writer *piece_file_create(const char *path, moai_error *err);        /* NULL on failure */
int piece_write(piece_writer *, piece *, piece_fill fill, void *from, moai_error *err);    /* fills address and xxh3 */
int piece_file_close(piece_writer *, piece_file *, moai_error *err);       /* fills bytes and structure_xxh3; fsynced */
void piece_file_free(piece_file *);

/* Reading.  piece_scan reads a piece in blocks of whole rows and hands them to `each` (may be NULL).  Of one whose
 * blocks have hashes it reads those that `wants` names, and each is checked before it is handed on; another, or one
 * with `wants` NULL, it reads whole, every hash checked, the whole's at the end.  `file` is opened by the caller with
 * piece_file_open, which checks the size.  Thread-safe.  What fails returns -1 or CHECKPOINT_DAMAGED, here and
 * below. */
int piece_file_open(const char *dir, const piece_file *, moai_error *err); /* a descriptor, or what failed */
typedef bool (*piece_wants)(void *to, const piece *, rect block);
typedef void (*piece_each)(void *to, const piece *, rect block, const float *x);
int piece_scan(int fd, const char *dir, const piece_file *, const piece *, piece_wants wants, piece_each each, void *to,
               moai_error *err);
/* CHECKPOINT_NOT_FINITE, naming the first number of these rows that is not finite. */
int piece_check_finite(const char *path, const piece *, rect rows, const float *, moai_error *err);
typedef struct byte_range {
    int64_t begin, end;
} byte_range;
byte_range *piece_file_structure(const piece_file *, int *n); /* the bytes that belong to no piece; caller frees */
int piece_file_hash_structure(int fd, const char *path, const piece_file *, char hex[33], moai_error *err);
int piece_file_check_structure(int fd, const char *dir, const piece_file *, moai_error *err); /* is it that hash? */
struct XXH3_state_s *hash_begin(void);        /* XXH3_freeState frees */
void hash_hex(const struct XXH3_state_s *, char hex[33]);
/* Feeds the same bytes to two hashes (either may be NULL), each part of them while it is near. */
void hash_both(struct XXH3_state_s *, struct XXH3_state_s *, const void *data, size_t n_bytes);

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
bool manifest_names_missing(const char *dir, const char *path); /* a file is gone, though its directory is there */
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

/* The directory of a save, single-process parts.  save_begin removes what killed runs left and makes
 * output_dir/checkpoint-STEP.tmp; save_describe puts config.json and the other files there; save_commit gives it its
 * name, and a checkpoint that had it is checkpoint-STEP.old until save_prune removes it, or save_withdraw puts it
 * back in the place of a new one that turned out bad.  Prune keeps the `keep` newest (0: all). */
char *save_path(const char *output_dir, int64_t step, const char *suffix);
/* "checkpoint-120" and suffix "", or with ".tmp" or ".old" behind it, give the step, another name -1. */
int64_t checkpoint_step_of(const char *name, const char *suffix);
int save_begin(const char *output_dir, int64_t step, moai_error *err);
int save_describe(const char *output_dir, const checkpoint_meta *, const checkpoint_files *, moai_error *err);
int save_commit(const char *output_dir, int64_t step, moai_error *err);
void save_abandon(const char *output_dir, int64_t step);
void save_withdraw(const char *output_dir, int64_t step);
void save_prune(const char *output_dir, int64_t written, int keep);

#endif
