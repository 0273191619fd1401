/* piece_read.c: reading pieces back; see piece_file.h */
#include "io/checkpoint/piece_file.h"
#include "src/base/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files hold little-endian fp32 as it lies in memory");

int64_t piece_block_elem = 1 << 22;

void piece_file_free(piece_file *f)
{
    for (int i = 0; i < f->n; i++) {
        free(f->list[i].name);
        free(f->list[i].blocks);
    }
    free(f->list);
    free(f->name);
    *f = (piece_file){0};
}

int piece_file_open(const char *dir, const piece_file *f, moai_error *err)
{
    struct stat st;
    char *path = xasprintf("%s/%s", dir, f->name);
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = fd;

    if (fd < 0 || fstat(fd, &st) != 0)
        rc = error_set(err, "%s: %s", path, strerror(errno));
    if (fd < 0 && file_is_lost(dir, path)) {
        error_set(err, "%s: missing, though the manifest names it", path);
        rc = CHECKPOINT_DAMAGED;
    }
    if (rc >= 0 && st.st_size != f->bytes) {
        error_set(err, "%s: %lld bytes, the manifest says %lld", path, (long long)st.st_size, (long long)f->bytes);
        rc = CHECKPOINT_DAMAGED;
    }
    if (fd >= 0 && rc < 0) close(fd);
    free(path);
    return rc;
}

int64_t piece_n_blocks(const piece *p)
{
    return p->block_rows ? (p->at.n_rows + p->block_rows - 1) / p->block_rows : 0;
}

XXH3_state_t *hash_begin(void)
{
    XXH3_state_t *hash = XXH3_createState();

    CHECK(hash, "out of host memory");
    XXH3_128bits_reset(hash);
    return hash;
}

void hash_both(XXH3_state_t *one, XXH3_state_t *other, const void *data, size_t n_bytes)
{
    enum { NEAR = 1 << 16 };

    for (size_t at = 0; at < n_bytes; at += NEAR) {
        const size_t n = n_bytes - at < NEAR ? n_bytes - at : NEAR;
        if (one) XXH3_128bits_update(one, (const char *)data + at, n);
        if (other) XXH3_128bits_update(other, (const char *)data + at, n);
    }
}

void hash_hex(const XXH3_state_t *hash, char hex[33])
{
    XXH128_canonical_t c;

    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(hash));
    for (int i = 0; i < 16; i++) {
        hex[2 * i] = "0123456789abcdef"[c.digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[c.digest[i] & 15];
    }
    hex[32] = 0;
}

/* An exponent of ones is an infinity or a NaN; nothing here branches, so that it costs a pass over memory. */
bool floats_are_finite(const float *x, int64_t n)
{
    uint32_t carry = 0;

    #pragma omp simd reduction(| : carry)
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        carry |= (bits & 0x7FFFFFFF) + 0x00800000;
    }
    return carry < 0x80000000;
}

int piece_check_finite(const char *path, const piece *p, rect rows, const float *x, moai_error *err)
{
    int64_t i = 0;

    if (floats_are_finite(x, rect_n_elem(rows))) return 0;
    while (floats_are_finite(x + i, 1)) i++;
    error_set(err, "%s: %s of %s is %g at row %lld, column %lld: no run can go on from it", path,
              adamw_states.list[p->state].name, p->name, (double)x[i], (long long)(rows.row0 + i / rows.n_cols),
              (long long)(rows.col0 + i % rows.n_cols));
    return CHECKPOINT_NOT_FINITE;
}

/* `block` NULL: of the whole. */
static int check_hash(const char *path, const piece *p, const rect *block, XXH3_state_t *hash, const char *says,
                      moai_error *err)
{
    char hex[33], rows[64] = "";

    hash_hex(hash, hex);
    if (strcmp(hex, says) == 0) return 0;
    if (block)
        snprintf(rows, sizeof rows, "rows %lld to %lld are ", (long long)block->row0,
                 (long long)(block->row0 + block->n_rows - 1));
    error_set(err, "%s: /%s/%s/%d: %sdamaged: XXH3 is %s, the manifest says %s", path, adamw_states.list[p->state].name,
              p->name, p->index, rows, hex, says);
    return CHECKPOINT_DAMAGED;
}

/* Reads rows [row, row + n_rows) of the piece into x, feeds them to `whole` and checks the block's own hash. */
static int read_block(int fd, const char *path, const piece *p, int64_t row, int64_t n_rows, float *x,
                      XXH3_state_t *whole, XXH3_state_t *own, moai_error *err)
{
    const rect block = {p->at.row0 + row, n_rows, p->at.col0, p->at.n_cols};
    const int64_t offset = row * p->at.n_cols * (int64_t)sizeof *x;
    const size_t n_bytes = (size_t)rect_n_elem(block) * sizeof *x;

    if (p->address >= 0 && file_read_at(fd, path, x, n_bytes, p->address + offset, err) != 0) return -1;
    if (own) XXH3_128bits_reset(own);
    hash_both(whole, own, x, n_bytes);
    return own ? check_hash(path, p, &block, own, p->blocks[row / p->block_rows], err) : 0;
}

int piece_scan(int fd, const char *dir, const piece_file *f, const piece *p, piece_wants wants, piece_each each,
               void *to, moai_error *err)
{
    const int64_t w = p->at.n_cols, step = p->blocks ? p->block_rows : max_i64(piece_block_elem / w, 1);
    char *path = xasprintf("%s/%s", dir, f->name);
    float *x = xmalloc((size_t)(min_i64(step, p->at.n_rows) * w) * sizeof *x);
    XXH3_state_t *own = p->blocks ? hash_begin() : NULL, *whole = own && wants ? NULL : hash_begin();
    moai_error not_finite;
    bool finite = true;
    int rc = 0;

    for (int64_t row = 0; rc == 0 && row < p->at.n_rows; row += step) {
        const rect block = {p->at.row0 + row, min_i64(step, p->at.n_rows - row), p->at.col0, w};
        if (!whole && !wants(to, p, block)) continue;
        rc = read_block(fd, path, p, row, block.n_rows, x, whole, own, err);
        if (rc != 0) break;
        if (finite) finite = piece_check_finite(path, p, block, x, &not_finite) == 0;
        if (each) each(to, p, block, x);
    }
    if (rc == 0 && whole) rc = check_hash(path, p, NULL, whole, p->xxh3, err);
    if (rc == 0 && !finite) {
        *err = not_finite;
        rc = CHECKPOINT_DAMAGED;
    }
    XXH3_freeState(whole);
    XXH3_freeState(own);
    free(x);
    free(path);
    return rc;
}

static int by_address(const void *a, const void *b)
{
    const int64_t x = (*(const piece *const *)a)->address, y = (*(const piece *const *)b)->address;
    return (x > y) - (x < y);
}

static int hash_range(int fd, const char *path, XXH3_state_t *hash, int64_t begin, int64_t end, moai_error *err)
{
    enum { ROOM = 1 << 16 };
    char *buffer = xmalloc(ROOM);
    int rc = 0;

    for (int64_t at = begin; rc == 0 && at < end; at += ROOM) {
        const size_t n = (size_t)min_i64(ROOM, end - at);
        rc = file_read_at(fd, path, buffer, n, at, err);
        if (rc == 0) XXH3_128bits_update(hash, buffer, n);
    }
    free(buffer);
    return rc;
}

byte_range *piece_file_structure(const piece_file *f, int *n)
{
    const piece **sorted = xmalloc((size_t)f->n * sizeof *sorted);
    byte_range *ranges = xmalloc((size_t)(f->n + 1) * sizeof *ranges);
    int n_sorted = 0;
    int64_t at = 0;

    for (int i = 0; i < f->n; i++)
        if (f->list[i].address >= 0) sorted[n_sorted++] = &f->list[i];
    qsort(sorted, (size_t)n_sorted, sizeof *sorted, by_address);
    *n = 0;
    for (int i = 0; i < n_sorted; i++) {
        if (at < sorted[i]->address) ranges[(*n)++] = (byte_range){at, sorted[i]->address};
        at = sorted[i]->address + rect_n_elem(sorted[i]->at) * (int64_t)sizeof(float);
    }
    if (at < f->bytes) ranges[(*n)++] = (byte_range){at, f->bytes};
    free(sorted);
    return ranges;
}

int piece_file_hash_structure(int fd, const char *path, const piece_file *f, char hex[33], moai_error *err)
{
    XXH3_state_t *hash = hash_begin();
    int n, rc = 0;
    byte_range *ranges = piece_file_structure(f, &n);

    for (int i = 0; rc == 0 && i < n; i++) rc = hash_range(fd, path, hash, ranges[i].begin, ranges[i].end, err);
    hash_hex(hash, hex);
    XXH3_freeState(hash);
    free(ranges);
    return rc;
}

int piece_file_check_structure(int fd, const char *dir, const piece_file *f, moai_error *err)
{
    char *path = xasprintf("%s/%s", dir, f->name), hex[33];
    int rc = piece_file_hash_structure(fd, path, f, hex, err);

    if (rc == 0 && strcmp(hex, f->structure_xxh3) != 0) {
        error_set(err, "%s: damaged outside the pieces: XXH3 is %s, the manifest says %s", path, hex,
                  f->structure_xxh3);
        rc = CHECKPOINT_DAMAGED;
    }
    free(path);
    return rc;
}
