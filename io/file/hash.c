/* hash.c: see hash.h.  XXH3-128 finds damage; SHA-256 (FIPS 180-4) identifies a tokenizer. */
#include "io/file/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t n_bytes;
    unsigned char block[64];
} sha256;

static inline uint32_t rotate_right(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* the first 32 bits of the fractional parts of the cube roots of the first 64 primes */
static const uint32_t sha256_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static void sha256_block(uint32_t state[8], const unsigned char *p)
{
    uint32_t w[64], s[8];

    for (int t = 0; t < 16; t++, p += 4)
        w[t] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate_right(w[t - 15], 7) ^ rotate_right(w[t - 15], 18) ^ w[t - 15] >> 3;
        uint32_t s1 = rotate_right(w[t - 2], 17) ^ rotate_right(w[t - 2], 19) ^ w[t - 2] >> 10;
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    memcpy(s, state, sizeof s);
    for (int t = 0; t < 64; t++) {                            /* s holds a b c d e f g h of the standard */
        uint32_t sum1 = rotate_right(s[4], 6) ^ rotate_right(s[4], 11) ^ rotate_right(s[4], 25);
        uint32_t t1 = s[7] + sum1 + ((s[4] & s[5]) ^ (~s[4] & s[6])) + sha256_constants[t] + w[t];
        uint32_t sum0 = rotate_right(s[0], 2) ^ rotate_right(s[0], 13) ^ rotate_right(s[0], 22);
        uint32_t t2 = sum0 + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t1;
        s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) state[i] += s[i];
}

static void sha256_update(sha256 *h, const unsigned char *p, size_t n)
{
    size_t used = h->n_bytes % 64;

    h->n_bytes += n;
    if (used) {
        size_t take = n < 64 - used ? n : 64 - used;
        memcpy(h->block + used, p, take);
        if (used + take < 64) return;
        sha256_block(h->state, h->block);
        p += take, n -= take;
    }
    for (; n >= 64; p += 64, n -= 64) sha256_block(h->state, p);
    memcpy(h->block, p, n);
}

static void sha256_finish(sha256 *h, char hex[65])
{
    static const unsigned char padding[64] = {0x80};
    uint64_t n_bits = h->n_bytes * 8;
    unsigned char length[8];

    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(n_bits >> (56 - 8 * i));
    sha256_update(h, padding, 1 + (119 - h->n_bytes % 64) % 64);          /* to 56 bytes past a multiple of 64 */
    sha256_update(h, length, 8);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", h->state[i]);
}

/* Feeds a file to `update` in pieces.  Returns its size, or -1 with err. */
static int64_t feed_file(const char *path, void (*update)(void *, const void *, size_t), void *arg, moai_error *err)
{
    enum { PIECE = 1 << 20 };
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int64_t total = 0;
    ssize_t n;

    if (fd < 0) return error_file(err, path);
    char *piece = xmalloc(PIECE);
    while ((n = read(fd, piece, PIECE)) > 0) {
        update(arg, piece, (size_t)n);
        total += n;
    }
    if (n < 0) error_set(err, "%s: read after %lld bytes: %s", path, (long long)total, strerror(errno));
    free(piece);
    close(fd);
    return n < 0 ? -1 : total;
}

static void feed_xxh3(void *state, const void *p, size_t n) { XXH3_128bits_update(state, p, n); }
static void feed_sha256(void *state, const void *p, size_t n) { sha256_update(state, p, n); }

int file_xxh3(const char *path, char hex[33], int64_t *n_bytes, moai_error *err)
{
    XXH3_state_t *state = XXH3_createState();

    CHECK(state, "out of host memory");
    XXH3_128bits_reset(state);
    int64_t size = feed_file(path, feed_xxh3, state, err);
    XXH128_hash_t hash = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    if (size < 0) return -1;
    snprintf(hex, 33, "%016llx%016llx", (unsigned long long)hash.high64, (unsigned long long)hash.low64);
    if (n_bytes) *n_bytes = size;
    return 0;
}

static const sha256 sha256_start = {
    .state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

int file_sha256(const char *path, char hex[65], moai_error *err)
{
    sha256 h = sha256_start;

    if (feed_file(path, feed_sha256, &h, err) < 0) return -1;
    sha256_finish(&h, hex);
    return 0;
}

void bytes_sha256(const void *data, size_t n_bytes, char hex[65])
{
    sha256 h = sha256_start;

    sha256_update(&h, data, n_bytes);
    sha256_finish(&h, hex);
}
