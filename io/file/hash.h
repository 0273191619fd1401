/* hash.h: hashes of whole files. */
#ifndef MOAI_HASH_H
#define MOAI_HASH_H

#include "src/base/base.h"

/* XXH3-128 of a whole file as 32 hex digits; SHA-256 (FIPS 180-4) as 64. */
int file_xxh3(const char *path, char hex[33], int64_t *n_bytes, moai_error *err);
int file_sha256(const char *path, char hex[65], moai_error *err);
void bytes_sha256(const void *data, size_t n_bytes, char hex[65]);

#endif
