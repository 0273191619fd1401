/* unpack.c: see unpack.h.  zstd is always there; zlib, liblzma and bzip2 are as the Makefile finds them. */
#include "io/text/unpack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>
#include <zstd_errors.h>
#ifdef MOAI_GZIP
#include <zlib.h>
#endif
#ifdef MOAI_XZ
#include <lzma.h>
#endif
#ifdef MOAI_BZIP2
#include <bzlib.h>
#endif

enum { PIECE = 1 << 18 };                     /* bytes read at a time */

/* A file says how far back its copies reach, and libraries allocate that at once: 2 GiB, zstd's --long=31 and more than
 * xz makes (1.5 GiB), and not the 4 GiB and more that sixty bytes can claim. */
enum { LONGEST_WINDOW_LOG = 31 };
static const char too_wide[] = "needs more memory than it gets"; /* what a step says then */

struct unpacker {
    int fd, copy; /* copy: gets what is read; -1: there is none */
    const char *name, *copy_name;
    packing packing;
    unsigned char *in;                        /* PIECE bytes, [at, end) of them read and not yet taken */
    size_t at, end;
    bool at_eof;                              /* nothing is left to read behind `end` */
    bool inside;                              /* of a member: its end is still to come */
    int64_t n_read, n_members;
    int64_t n_needed; /* bytes, where a step says too_wide; 0: more than there are */
    void *state;
};

/* What a step has to write to, and has written. */
typedef struct output {
    unsigned char *data;
    size_t room, n;
} output;

/* A packing's open returns false where memory is short.  A step takes some input, gives some output, keeps `inside`,
 * and returns NULL or what is wrong; with nothing to take it still gives what it holds back. */
typedef struct codec {
    const char *name;
    const char *(*step)(unpacker *, output *);
    bool (*open)(unpacker *);
    void (*close)(unpacker *);
} codec;

static const char *step_plain(unpacker *u, output *o)
{
    const size_t have = u->end - u->at;

    o->n = have < o->room ? have : o->room;
    memcpy(o->data, u->in + u->at, o->n);
    u->at += o->n;
    return NULL;
}

static bool open_zstd(unpacker *u)
{
    u->state = ZSTD_createDStream();
    if (u->state) ZSTD_DCtx_setParameter(u->state, ZSTD_d_windowLogMax, LONGEST_WINDOW_LOG);
    return u->state != NULL;
}

static void close_zstd(unpacker *u) { ZSTD_freeDStream(u->state); }

static const char *step_zstd(unpacker *u, output *o)
{
    ZSTD_inBuffer in = {u->in, u->end, u->at};
    ZSTD_outBuffer out = {o->data, o->room, 0};
    const size_t left = ZSTD_decompressStream(u->state, &out, &in);

    u->at = in.pos;
    o->n = out.pos;
    u->inside = left != 0;
    if (ZSTD_getErrorCode(left) == ZSTD_error_frameParameter_windowTooLarge) return too_wide;
    if (ZSTD_getErrorCode(left) == ZSTD_error_prefix_unknown) return "something else follows the zstd data";
    return ZSTD_isError(left) ? ZSTD_getErrorName(left) : NULL;
}

#ifdef MOAI_GZIP
static bool open_gzip(unpacker *u)
{
    u->state = xmalloc(sizeof(z_stream));
    return inflateInit2(u->state, 15 + 16) == Z_OK;           /* gzip's header and no other */
}

static void close_gzip(unpacker *u)
{
    inflateEnd(u->state);
    free(u->state);
}

static const char *step_gzip(unpacker *u, output *o)
{
    z_stream *z = u->state;

    while (!u->inside && u->n_members > 0 && u->at < u->end && u->in[u->at] == 0) u->at++;
    if (!u->inside) {
        if (u->at == u->end) return NULL;
        if (u->in[u->at] != 0x1f) return "something else follows the gzip data";
        inflateReset(z);
        u->inside = true;
    }
    z->next_in = u->in + u->at, z->avail_in = (unsigned)(u->end - u->at);
    z->next_out = o->data, z->avail_out = (unsigned)o->room;
    const int status = inflate(z, Z_NO_FLUSH);
    u->at = u->end - z->avail_in;
    o->n = o->room - z->avail_out;
    if (status == Z_STREAM_END) {
        u->inside = false;
        u->n_members++;
    }
    if (status == Z_DATA_ERROR && u->n_members > 0 && z->total_out == 0) return "something else follows the gzip data";
    return status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR ? NULL : z->msg ? z->msg : zError(status);
}
#define GZIP                                                                                                           \
    {                                                                                                                  \
        "gzip", step_gzip, open_gzip, close_gzip                                                                       \
    }
#else
#define GZIP                                                                                                           \
    {                                                                                                                  \
        .name = "gzip"                                                                                                 \
    }
#endif

#ifdef MOAI_BZIP2
static bool open_bzip2(unpacker *u)
{
    u->state = xmalloc(sizeof(bz_stream));
    return true;
}

static void close_bzip2(unpacker *u)
{
    if (u->inside) BZ2_bzDecompressEnd(u->state);
    free(u->state);
}

static const char *step_bzip2(unpacker *u, output *o)
{
    bz_stream *z = u->state;

    if (!u->inside) {
        if (u->at == u->end) return NULL;
        *z = (bz_stream){0};
        if (BZ2_bzDecompressInit(z, 0, 0) != BZ_OK) return "out of host memory";
        u->inside = true;
    }
    z->next_in = (char *)u->in + u->at, z->avail_in = (unsigned)(u->end - u->at);
    z->next_out = (char *)o->data, z->avail_out = (unsigned)o->room;
    const int status = BZ2_bzDecompress(z);
    u->at = u->end - z->avail_in;
    o->n = o->room - z->avail_out;
    if (status == BZ_STREAM_END) {
        BZ2_bzDecompressEnd(z);
        u->inside = false;
        u->n_members++;
    }
    if (status == BZ_DATA_ERROR_MAGIC && u->n_members > 0) return "something else follows the bzip2 data";
    return status == BZ_OK || status == BZ_STREAM_END ? NULL
           : status == BZ_MEM_ERROR                   ? "out of host memory"
           : status == BZ_DATA_ERROR_MAGIC            ? "not bzip2"
                                                      : "a checksum or code is wrong";
}
#define BZIP2                                                                                                          \
    {                                                                                                                  \
        "bzip2", step_bzip2, open_bzip2, close_bzip2                                                                   \
    }
#else
#define BZIP2                                                                                                          \
    {                                                                                                                  \
        .name = "bzip2"                                                                                                \
    }
#endif

#ifdef MOAI_XZ
/* Before each stream. */
static bool start_xz(unpacker *u)
{
    const uint64_t most = ((uint64_t)1 << LONGEST_WINDOW_LOG) + (1 << 20); /* and the decoder itself */
    lzma_stream *z = u->state;

    u->inside = true;
    return (u->packing == PACKED_XZ ? lzma_stream_decoder(z, most, 0) : lzma_alone_decoder(z, most)) == LZMA_OK;
}

static bool open_xz(unpacker *u)
{
    static const lzma_stream empty = LZMA_STREAM_INIT;

    u->state = xmalloc(sizeof empty);
    *(lzma_stream *)u->state = empty;
    return start_xz(u);
}

static void close_xz(unpacker *u)
{
    lzma_end(u->state);
    free(u->state);
}

static const char *step_xz(unpacker *u, output *o)
{
    lzma_stream *z = u->state;

    if (!u->inside) { /* xz has zeros between streams, and streams */
        while (u->packing == PACKED_XZ && u->at < u->end && u->in[u->at] == 0) u->at++;
        if (u->at == u->end) return NULL;
        if (u->packing == PACKED_LZMA) return "something else follows the lzma data";
        if (u->in[u->at] != 0xfd) return "something else follows the xz data";
        if (!start_xz(u)) return "out of host memory";
    }
    z->next_in = u->in + u->at, z->avail_in = u->end - u->at;
    z->next_out = o->data, z->avail_out = o->room;
    const lzma_ret status = lzma_code(z, u->at_eof ? LZMA_FINISH : LZMA_RUN);
    u->at = u->end - z->avail_in;
    o->n = o->room - z->avail_out;
    if (status == LZMA_STREAM_END) u->inside = false;
    if (status == LZMA_MEMLIMIT_ERROR) {
        u->n_needed = (int64_t)lzma_memusage(z);
        return too_wide;
    }
    switch (status) {
    case LZMA_OK:
    case LZMA_STREAM_END:
    case LZMA_BUF_ERROR: return NULL;
    case LZMA_MEM_ERROR: return "out of host memory";
    case LZMA_FORMAT_ERROR: return "something else follows the xz data";
    case LZMA_OPTIONS_ERROR: return "made with options unknown here";
    default: return "a checksum or code is wrong";
    }
}
#define XZ                                                                                                             \
    {                                                                                                                  \
        "xz", step_xz, open_xz, close_xz                                                                               \
    }
#define LZMA                                                                                                           \
    {                                                                                                                  \
        "lzma", step_xz, open_xz, close_xz                                                                             \
    }
#else
#define XZ                                                                                                             \
    {                                                                                                                  \
        .name = "xz"                                                                                                   \
    }
#define LZMA                                                                                                           \
    {                                                                                                                  \
        .name = "lzma"                                                                                                 \
    }
#endif

static const codec codecs[] = {
    [PACKED_NOT] = {"plain", step_plain, NULL, NULL},
    [PACKED_GZIP] = GZIP,
    [PACKED_ZSTD] = {"zstd", step_zstd, open_zstd, close_zstd},
    [PACKED_XZ] = XZ,
    [PACKED_LZMA] = LZMA,
    [PACKED_BZIP2] = BZIP2,
};

const char *packing_name(packing p) { return codecs[p].name; }

packing packing_of(const void *head, size_t n)
{
    static const unsigned char full[8] = {255, 255, 255, 255, 255, 255, 255, 255};
    const unsigned char *h = head;

    if (n >= 3 && memcmp(h, "\x1f\x8b\x08", 3) == 0) return PACKED_GZIP;
    if (n >= 4 && memcmp(h, "\x28\xb5\x2f\xfd", 4) == 0) return PACKED_ZSTD;
    if (n >= 4 && (h[0] & 0xF0) == 0x50 && memcmp(h + 1, "\x2a\x4d\x18", 3) == 0) return PACKED_ZSTD; /* skippable */
    if (n >= 6 && memcmp(h,
                         "\xfd"
                         "7zXZ",
                         6) == 0)
        return PACKED_XZ;
    if (n >= 10 && memcmp(h, "BZh", 3) == 0 && h[3] >= '1' && h[3] <= '9' &&
        (memcmp(h + 4, "\x31\x41\x59\x26\x53\x59", 6) == 0 || memcmp(h + 4, "\x17\x72\x45\x38\x50\x90", 6) == 0))
        return PACKED_BZIP2;
    /* no magic number: the usual properties, a dictionary of 64 KiB or more, a size unknown or below 2^40 */
    if (n >= 13 && memcmp(h, "\x5d\0\0", 3) == 0 && (memcmp(h + 5, full, 8) == 0 || (h[10] | h[11] | h[12]) == 0))
        return PACKED_LZMA;
    return PACKED_NOT;
}

static int copy_bytes(const unpacker *u, const unsigned char *data, size_t n, moai_error *err)
{
    ssize_t put;

    for (size_t done = 0; u->copy >= 0 && done < n; done += (size_t)max_i64(put, 0)) {
        put = write(u->copy, data + done, n - done);
        if (put < 0 && errno != EINTR) return error_set(err, "%s: cannot write: %s", u->copy_name, strerror(errno));
    }
    return 0;
}

int unpacker_copy_to(unpacker *u, int out, const char *to, moai_error *err)
{
    u->copy = out;
    u->copy_name = to;
    return copy_bytes(u, u->in, u->end, err);
}

/* One read; at_eof where nothing comes. */
static int refill(unpacker *u, moai_error *err)
{
    ssize_t got;

    if (u->at == u->end) u->at = u->end = 0;
    do got = read(u->fd, u->in + u->end, PIECE - u->end);
    while (got < 0 && errno == EINTR);
    if (got < 0) return error_set(err, "%s: %s", u->name, strerror(errno));
    u->end += (size_t)got;
    u->n_read += got;
    u->at_eof = got == 0;
    return copy_bytes(u, u->in + u->end - got, (size_t)got, err);
}

int unpacker_pass(unpacker *u, moai_error *err)
{
    int status = 0;

    while (status == 0 && !u->at_eof) {
        u->at = u->end;
        status = refill(u, err);
    }
    return status;
}

unpacker *unpacker_open(int fd, const char *name, moai_error *err)
{
    unpacker *u = xmalloc(sizeof *u);
    int status = 0;

    *u = (unpacker){.fd = fd, .copy = -1, .name = name, .in = xmalloc(PIECE)};
    while (status == 0 && u->end < PACKING_HEAD && !u->at_eof) status = refill(u, err);
    u->packing = packing_of(u->in, u->end);
    const codec *c = &codecs[u->packing];
    if (status == 0 && !c->step)
        status =
            error_config(err, "%s: %s, which this build does not read (`make info` says what was found): decompress it",
                         name, c->name);
    if (status == 0 && c->open && !c->open(u)) status = error_set(err, "%s: out of host memory for %s", name, c->name);
    if (status == 0) return u;
    unpacker_close(u);
    return NULL;
}

void unpacker_close(unpacker *u)
{
    if (!u) return;
    if (u->state) codecs[u->packing].close(u);
    free(u->in);
    free(u);
}

packing unpacker_packing(const unpacker *u) { return u->packing; }
int64_t unpacker_position(const unpacker *u) { return u->n_read; }

static int refuse_wide(const unpacker *u, moai_error *err)
{
    const char *name = codecs[u->packing].name;
    char *needed = u->n_needed ? xasprintf("%lld", (long long)(u->n_needed >> 20)) : xstrdup("more than 2048");

    error_config(
        err,
        "%s: the %s data needs %s MiB of memory to unpack, and gets 2048 at most: unpack it by %s and give the "
        "text (--input - reads a pipe), or pack it anew",
        u->name, name, needed, name);
    free(needed);
    return -1;
}

int unpacker_read(unpacker *u, void *dst, size_t room, size_t *n, moai_error *err)
{
    const codec *c = &codecs[u->packing];

    for (*n = 0; *n == 0;) {
        if (u->at == u->end && !u->at_eof && refill(u, err) != 0) return -1;
        if (u->at == u->end && u->at_eof && !u->inside) return 0;
        output o = {dst, room < PIECE ? room : PIECE, 0};
        const size_t before = u->at;
        const char *wrong = c->step(u, &o);
        if (wrong == too_wide) return refuse_wide(u, err);
        if (wrong)
            return error_set(err, "%s: damaged %s data: %s (byte %lld of the file, or a little before)", u->name,
                             c->name, wrong, (long long)u->n_read - (long long)(u->end - u->at));
        if (o.n == 0 && u->at == before && u->inside)
            return error_set(err, "%s: the %s data is truncated", u->name, c->name);
        *n = o.n;
    }
    return 0;
}
