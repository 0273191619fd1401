/* pack.h: values one behind another in a row of bytes: what one rank has read, on its way to the others.  Both ends are
 * the same program, so nothing is checked but that no value lies behind the end (die). */
#ifndef MOAI_PACK_H
#define MOAI_PACK_H

#include "src/base/base.h"

typedef struct pack {
    char *bytes;                              /* the caller frees them */
    size_t n_bytes, room;
} pack;
void pack_bytes(pack *, const void *data, size_t n_bytes);
void pack_int(pack *, int64_t);
void pack_text(pack *, const char *);         /* may be NULL */

typedef struct unpack {
    const char *at, *end;
} unpack;
unpack unpack_of(const void *bytes, size_t n_bytes);
void unpack_bytes(unpack *, void *data, size_t n_bytes);
int64_t unpack_int(unpack *);
char *unpack_text(unpack *);                  /* or NULL; caller frees */

#endif
