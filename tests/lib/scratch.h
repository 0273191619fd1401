/* scratch.h: files that tests write by the thousand, without the fsync that the product's do. */
#ifndef SCRATCH_H
#define SCRATCH_H

#include "src/base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static inline void scratch_write(const char *path, const void *data, size_t n_bytes)
{
    remove(path);                             /* ext4 flushes a file that is truncated and written again */
    FILE *f = fopen(path, "wb");

    CHECK(f && fwrite(data, 1, n_bytes, f) == n_bytes && fclose(f) == 0, "%s: %s", path, strerror(errno));
}

#endif
