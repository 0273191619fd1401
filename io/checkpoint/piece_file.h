/* piece_file.h: a file of a checkpoint, and the pieces in it.
 *
 * A piece is a rectangle of one parameter's state: the contiguous fp32 dataset /STATE/NAME/INDEX of a rank's HDF5
 * file.  The manifest records at which byte of the file its data lies, so readers need no HDF5: they read with
 * pread, in any number of threads, and a damaged file meets a hash before it meets a parser.  A piece without an
 * address was never allocated: all zero. */
#ifndef MOAI_PIECE_FILE_H
#define MOAI_PIECE_FILE_H

#include "io/checkpoint/checkpoint.h"
#include "io/checkpoint/shares.h"

struct XXH3_state_s;

typedef struct piece {
    int state;                                /* a row of adamw_states */
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
bool floats_are_finite(const float *, int64_t n);
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

#endif
