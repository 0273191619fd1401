/* pack_text.h: packed text for a fuzz target. */
#ifndef PACK_TEXT_H
#define PACK_TEXT_H

#include <stddef.h>

/* The ones that this build has no library for pack nothing. */
typedef enum {
    FUZZ_PLAIN,
    FUZZ_ZSTD,
    FUZZ_ZSTD_TWO,
    FUZZ_GZIP,
    FUZZ_GZIP_TWO,
    FUZZ_XZ,
    FUZZ_LZMA,
    FUZZ_BZIP2,
    FUZZ_PACKINGS
} fuzz_packing;
/* n bytes of text into `to`, which has the room; how many they take. */
size_t fuzz_pack(fuzz_packing, const void *text, size_t n, void *to, size_t room);

#endif
