/* unpack.h: the bytes of a file from the front, as they are or decompressed: gzip, zstd, xz, lzma and bzip2, told by
 * their first bytes, with all members, frames or streams that lie one behind the other (gzip -c a b, pigz, bgzip,
 * pzstd, multistream bzip2).  Checksums are checked; data that end too early, are damaged, or are followed by something
 * else (zeros behind gzip and xz, as tapes have them, excepted) are an error, never a shorter text.  What needs more
 * than 2 GiB of memory is refused. */
#ifndef MOAI_UNPACK_H
#define MOAI_UNPACK_H

#include "src/base/base.h"

typedef enum { PACKED_NOT, PACKED_GZIP, PACKED_ZSTD, PACKED_XZ, PACKED_LZMA, PACKED_BZIP2 } packing;
enum { PACKING_HEAD = 32 };                   /* bytes by which a packing is told */

packing packing_of(const void *head, size_t n_bytes);
const char *packing_name(packing);            /* "gzip" */

typedef struct unpacker unpacker;
/* Reads the head from fd, which is borrowed and need not be seekable; `name` is borrowed for messages.  NULL on
 * failure, one of which is a packing whose library this build lacks. */
unpacker *unpacker_open(int fd, const char *name, moai_error *err);
packing unpacker_packing(const unpacker *);
int64_t unpacker_position(const unpacker *);  /* bytes read from fd */
/* Some bytes, at most `room`; *n 0: the end. */
int unpacker_read(unpacker *, void *dst, size_t room, size_t *n, moai_error *err);
/* Before the first read: what comes from fd, the head too, goes to the descriptor `out` as well, as it is.  Both are
 * borrowed; `to` is the name of `out` for messages. */
int unpacker_copy_to(unpacker *, int out, const char *to, moai_error *err);
int unpacker_pass(unpacker *, moai_error *err); /* reads, and copies, all that is left */
void unpacker_close(unpacker *);              /* NULL is well */

#endif
