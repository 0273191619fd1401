/* Philox4x32-10 against a text of the algorithm that passes the authors' known answers; the streams made from it. */
#include "src/base/rng.h"
#include "tests/lib/tap.h"

#include <stdlib.h>
#include <string.h>

/* Salmon et al., SC'11: all 128 bits of counter and 64 of key, one round at a time. */
static void philox_reference(uint32_t x[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t even = 0xD2511F53ull * x[0], odd = 0xCD9E8D57ull * x[2];
        uint32_t y[4] = {(uint32_t)(odd >> 32) ^ x[1] ^ k0, (uint32_t)odd, (uint32_t)(even >> 32) ^ x[3] ^ k1,
                         (uint32_t)even};
        memcpy(x, y, sizeof y);
    }
}

/* kat_vectors of Random123 1.14: philox4x32 10 */
static void check_known_answers(void)
{
    static const struct { uint32_t counter[4], key[2], out[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    uint32_t out[4];
    int differ = 0;

    for (int i = 0; i < 3; i++) {
        memcpy(out, known[i].counter, sizeof out);
        philox_reference(out, known[i].key[0], known[i].key[1]);
        ok(memcmp(out, known[i].out, sizeof out) == 0, "the reference gives known answer %d: %08x", i, out[0]);
    }
    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t key = i * 0x9E3779B97F4A7C15u, counter = i * 0xD1342543DE82EF95u;
        uint32_t expected[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
        philox_reference(expected, (uint32_t)key, (uint32_t)(key >> 32));
        philox4x32(out, key, counter);
        differ += memcmp(out, expected, sizeof out) != 0;
    }
    philox4x32(out, 0, 0);
    ok(memcmp(out, known[0].out, sizeof out) == 0, "philox4x32(0, 0) is the known answer");
    ok(differ == 0, "philox4x32 is the reference for 10000 keys and counters (%d differ)", differ);
}

static void check_moments(void)
{
    enum { N = 1000000 };
    uint64_t key = rng_key(1, "moments");
    double sum = 0.0, squares = 0.0, fourth = 0.0, neighbours = 0.0, flat = 0.0, before = 0.0;

    for (uint64_t i = 0; i < N; i++) {
        double z = rng_normal(key, i), u = rng_uniform(key, i);
        sum += z, squares += z * z, fourth += z * z * z * z, neighbours += z * before, flat += u;
        before = z;
        if (u < 0.0 || u >= 1.0) ok(false, "rng_uniform left [0, 1): %g", u);
    }
    ok(fabs(sum / N) < 0.005, "normal: mean %.5f", sum / N);
    ok(fabs(squares / N - 1.0) < 0.007, "normal: variance %.5f", squares / N);
    ok(fabs(fourth / N - 3.0) < 0.05, "normal: fourth moment %.4f", fourth / N);
    ok(fabs(neighbours / N) < 0.005, "normal: neighbours are uncorrelated (%.5f)", neighbours / N);
    ok(fabs(flat / N - 0.5) < 0.0015, "uniform: mean %.5f", flat / N);
}

static void check_keys(void)
{
    ok(rng_key(1, "a") != rng_key(1, "b") && rng_key(1, "a") != rng_key(2, "a"), "keys differ by name and by seed");
    ok(rng_key(1, "a") == rng_key(1, "a"), "a key is a pure function");
    ok(rng_normal(5, 10) != rng_normal(5, 11) && rng_normal(5, 10) != rng_normal(6, 10),
       "draws differ by index and by key");
}

static void check_permutation(uint64_t n)
{
    bool *seen = xmalloc(n);
    uint64_t key = rng_key(3, "permutation"), outside = 0, repeated = 0, in_place = 0;

    for (uint64_t i = 0; i < n; i++) {
        uint64_t to = rng_permute(key, n, i);
        if (to >= n) {
            outside++;
            continue;
        }
        repeated += seen[to];
        seen[to] = true;
        in_place += to == i;
    }
    ok(outside == 0 && repeated == 0, "permutation of %llu: %llu outside, %llu repeated", (unsigned long long)n,
       (unsigned long long)outside, (unsigned long long)repeated);
    if (n >= 1000)
        ok(in_place < 12, "permutation of %llu: %llu in place (1 expected)", (unsigned long long)n,
           (unsigned long long)in_place);
    free(seen);
}

int main(void)
{
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 17, 1000, 4096, 65537};

    check_known_answers();
    check_moments();
    check_keys();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_permutation(sizes[i]);
    uint64_t big = (1ull << 40) + 12345;
    ok(rng_permute(9, big, 77) < big && rng_permute(9, big, 77) != rng_permute(9, big, 78),
       "permutation of 2^40 + 12345");
    return tap_done();
}
