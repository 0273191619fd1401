/* shard_file.h: what the two halves of shard.h share. */
#ifndef MOAI_SHARD_FILE_H
#define MOAI_SHARD_FILE_H

#include "io/data/shard.h"

#define SHARD_FORMAT "moai-tokens"
enum {
    SHARD_VERSION = 1, SHARD_MARKED = 2,
    SHARD_CHUNK = 32768,         /* tokens: 64 or 128 KiB are summed at once, and a sample of 4096 mostly lies in one */
    SHARD_DOCUMENT_CHUNK = 4096, /* offsets */
};

static inline int shard_width(int64_t vocab_size) { return vocab_size <= 65536 ? 2 : 4; }

#endif
