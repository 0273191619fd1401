/* rng.c: see rng.h */
#include "src/base/rng.h"

#include <math.h>

void philox4x32(uint32_t out[4], uint64_t key, uint64_t counter)
{
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1,
                            (uint32_t)p0};
        for (int i = 0; i < 4; i++) c[i] = next[i];
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

uint64_t rng_key(uint64_t seed, const char *name)
{
    uint64_t hash = 14695981039346656037u;                    /* FNV-1a over the name */
    uint32_t out[4];

    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 1099511628211u;
    philox4x32(out, seed, hash);
    return (uint64_t)out[1] << 32 | out[0];
}

float rng_normal(uint64_t key, uint64_t index)
{
    uint32_t u[4];

    philox4x32(u, key, index / 2);
    const uint32_t *pair = u + 2 * (index % 2);
    float radius = sqrtf(-2.0f * logf(((float)(pair[0] >> 8) + 0.5f) * 0x1p-24f));
    return radius * cosf(6.28318530717958647692f * ((float)(pair[1] >> 8) * 0x1p-24f));
}

double rng_uniform(uint64_t key, uint64_t index)
{
    uint32_t u[4];

    philox4x32(u, key, index);
    return (double)(((uint64_t)u[0] << 32 | u[1]) >> 11) * 0x1p-53;
}

bool rng_below(uint64_t key, uint64_t index, uint32_t below)
{
    uint32_t u[4];

    philox4x32(u, key, index / 4);
    return u[index % 4] < below;
}

uint64_t rng_permute(uint64_t key, uint64_t n, uint64_t i)
{
    int half = 1;

    while (half < 32 && (1ull << (2 * half)) < n) half++;
    uint64_t mask = (1ull << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (int round = 0; round < 6; round++) {
            uint32_t f[4];
            philox4x32(f, key, right | (uint64_t)round << 56);
            uint64_t next = left ^ (f[0] & mask);
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
