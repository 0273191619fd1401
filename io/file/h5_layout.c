/* h5_layout.c: what a data set's header says of its chunks, as it lies in the file; see h5.h
 *
 * HDF5 1.10 divides by the extents of a chunk as soon as it opens a data set, and one of 0 ends the process.  So they
 * are looked at before, in the messages of the object header (HDF5 File Format Specification, IV.A: both versions of
 * the header, versions 1 to 4 of the data layout message).  What the library refuses by itself is left to it. */
#include "io/file/h5.h"
#include "src/base/files.h"

#include <stdlib.h>
#include <string.h>

enum { CONTINUATION = 0x10, LAYOUT = 0x08, LAYOUT_CHUNKED = 2, MOST_BLOCKS = 64, MOST_BYTES = 1 << 20 };

/* A block of messages: the header's first, and those that it is continued in. */
typedef struct block {
    uint64_t address, n_bytes;
} block;

typedef struct header {
    int version;                              /* 1 or 2 */
    bool ordered;                             /* version 2: a message has its number of creation */
    block blocks[MOST_BLOCKS];
    int n_blocks;
} header;

static uint64_t number(const unsigned char *p, int n_bytes)
{
    uint64_t x = 0;

    while (n_bytes > 0) x = x << 8 | p[--n_bytes];
    return x;
}

/* The first block; false: neither version's beginning. */
static bool read_prefix(header *h, int fd, uint64_t address)
{
    unsigned char p[64] = {0};
    moai_error unused;
    size_t n = sizeof p;

    while (n > 16 && file_read_at(fd, "", p, n, (int64_t)address, &unused) != 0) n--;      /* near the file's end */
    if (memcmp(p, "OHDR", 4) == 0 && p[4] == 2) {
        const int flags = p[5], width = 1 << (flags & 3), at = 6 + (flags & 0x20 ? 16 : 0) + (flags & 0x10 ? 4 : 0);
        h->version = 2;
        h->ordered = flags & 4;
        h->blocks[0] = (block){address + (uint64_t)(at + width), number(p + at, width)};
    } else if (p[0] == 1) {
        h->version = 1;
        h->blocks[0] = (block){address + 16, number(p + 8, 4)};
    } else
        return false;
    h->n_blocks = 1;
    return true;
}

/* Is an extent of a chunk 0? */
static bool has_zero_extent(const unsigned char *p, size_t n)
{
    size_t first, n_extents, width = 4;

    if (n < 12) return false;
    const bool old = p[0] < 3;                /* 1 and 2: dimensionality, class; 3 and 4: class first */
    if (p[old ? 2 : 1] != LAYOUT_CHUNKED) return false;
    n_extents = p[0] == 4 ? p[3] : p[old ? 1 : 2];
    first = old ? 16 : p[0] == 3 ? 11 : 5;    /* behind an address of 8 bytes, but for version 4 */
    if (p[0] == 4) width = p[4];
    for (size_t i = 0; i < n_extents && width >= 1 && width <= 8 && first + (i + 1) * width <= n; i++)
        if (number(p + first + i * width, (int)width) == 0) return true;
    return false;
}

static bool look_at(header *h, unsigned type, const unsigned char *p, size_t n)
{
    if (type == CONTINUATION && n >= 16 && h->n_blocks < MOST_BLOCKS) {
        block b = {number(p, 8), number(p + 8, 8)};
        if (h->version == 2) b.address += 4, b.n_bytes -= 8;               /* "OCHK" and the checksum */
        h->blocks[h->n_blocks++] = b;
    }
    return type == LAYOUT && has_zero_extent(p, n);
}

static bool look_through(header *h, const unsigned char *p, size_t n)
{
    const size_t head = h->version == 1 ? 8 : h->ordered ? 6 : 4;

    for (size_t at = 0; at + head <= n;) {
        const unsigned type = h->version == 1 ? (unsigned)number(p + at, 2) : p[at];
        const size_t size = number(p + at + (h->version == 1 ? 2 : 1), 2);
        if (size > n - at - head) break;
        if (look_at(h, type, p + at + head, size)) return true;
        at += head + size;
    }
    return false;
}

static bool zero_chunk_at(int fd, uint64_t address)
{
    header h = {0};
    bool found = false;

    if (!read_prefix(&h, fd, address)) return false;
    for (int i = 0; i < h.n_blocks && !found; i++) {
        moai_error unused;
        const block b = h.blocks[i];
        if (b.n_bytes > MOST_BYTES) continue;
        unsigned char *data = xmalloc((size_t)b.n_bytes);
        if (file_read_at(fd, "", data, (size_t)b.n_bytes, (int64_t)b.address, &unused) == 0)
            found = look_through(&h, data, (size_t)b.n_bytes);
        free(data);
    }
    return found;
}

#if H5_VERSION_GE(1, 12, 0)
typedef H5O_info1_t object_info;
#else
typedef H5O_info_t object_info;
#endif

const char *h5_dataset_trap(hid_t file, int fd, const char *name)
{
    object_info object;
    H5L_info_t link;

    if (H5Lget_info(file, name, &link, H5P_DEFAULT) < 0) return NULL;
    if (link.type != H5L_TYPE_HARD) return "is a link to elsewhere";
    if (H5Oget_info_by_name2(file, name, &object, H5O_INFO_BASIC, H5P_DEFAULT) < 0) return NULL;
    return zero_chunk_at(fd, object.addr) ? "is in chunks of 0" : NULL;
}
