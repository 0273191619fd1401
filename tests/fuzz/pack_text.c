/* pack_text.c: see pack_text.h */
#include "tests/fuzz/pack_text.h"

#include "src/base/base.h"

#include <string.h>
#include <zstd.h>
#ifdef MOAI_GZIP
#include <zlib.h>
#endif
#ifdef MOAI_XZ
#include <lzma.h>
#endif
#ifdef MOAI_BZIP2
#include <bzlib.h>
#endif

static size_t gzip(const void *text, size_t n, void *to, size_t room)
{
#ifdef MOAI_GZIP
    z_stream z = {
        .next_in = (void *)(uintptr_t)text, .avail_in = (unsigned)n, .next_out = to, .avail_out = (unsigned)room};
    CHECK(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK &&
              deflate(&z, Z_FINISH) == Z_STREAM_END,
          "gzip");
    n = z.total_out;
    deflateEnd(&z);
    return n;
#else
    return (void)text, (void)n, (void)to, (void)room, 0;
#endif
}

static size_t xz(bool alone, const void *text, size_t n, void *to, size_t room)
{
#ifdef MOAI_XZ
    lzma_stream z = LZMA_STREAM_INIT;
    lzma_options_lzma how;
    lzma_lzma_preset(&how, 0);
    how.dict_size = 4096;
    lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &how}, {LZMA_VLI_UNKNOWN, NULL}};
    z.next_in = text, z.avail_in = n, z.next_out = to, z.avail_out = room;
    CHECK((alone ? lzma_alone_encoder(&z, &how) : lzma_stream_encoder(&z, filters, LZMA_CHECK_CRC32)) == LZMA_OK, "xz");
    CHECK(lzma_code(&z, LZMA_FINISH) == LZMA_STREAM_END, "xz");
    n = z.total_out;
    lzma_end(&z);
    return n;
#else
    return (void)alone, (void)text, (void)n, (void)to, (void)room, 0;
#endif
}

static size_t bzip2(const void *text, size_t n, void *to, size_t room)
{
#ifdef MOAI_BZIP2
    unsigned got = (unsigned)room;
    CHECK(BZ2_bzBuffToBuffCompress(to, &got, (char *)(uintptr_t)text, (unsigned)n, 1, 0, 0) == BZ_OK, "bzip2");
    return got;
#else
    return (void)text, (void)n, (void)to, (void)room, 0;
#endif
}

static size_t pack_one(fuzz_packing p, const void *text, size_t n, void *to, size_t room)
{
    switch (p) {
    case FUZZ_ZSTD:
    case FUZZ_ZSTD_TWO: return ZSTD_compress(to, room, text, n, 1);
    case FUZZ_GZIP:
    case FUZZ_GZIP_TWO: return gzip(text, n, to, room);
    case FUZZ_XZ:
    case FUZZ_LZMA: return xz(p == FUZZ_LZMA, text, n, to, room);
    case FUZZ_BZIP2: return bzip2(text, n, to, room);
    default: memcpy(to, text, n); return n;
    }
}

size_t fuzz_pack(fuzz_packing p, const void *text, size_t n, void *to, size_t room)
{
    if (p != FUZZ_ZSTD_TWO && p != FUZZ_GZIP_TWO) return pack_one(p, text, n, to, room);
    const size_t first = pack_one(p, text, n / 2, to, room);
    return first + pack_one(p, (const char *)text + n / 2, n - n / 2, (char *)to + first, room - first);
}
