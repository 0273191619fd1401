/* rng.h: counter-based random numbers: pure functions of (key, counter), so every rank of every layout draws the same
 * value for the same element.  Philox4x32-10 (Salmon et al., SC'11, doi 10.1145/2063384.2063405). */
#ifndef MOAI_RNG_H
#define MOAI_RNG_H

#include "src/base/base.h"

void philox4x32(uint32_t out[4], uint64_t key, uint64_t counter);
uint64_t rng_key(uint64_t seed, const char *name); /* mixes a seed and a name (a tensor's, a stream's) into a key */
float rng_normal(uint64_t key, uint64_t index);    /* N(0,1): Box-Muller on lanes of philox(key, index / 2) */
/* A bit that is true with the probability below / 2^32: lanes of philox(key, index / 4). */
bool rng_below(uint64_t key, uint64_t index, uint32_t below);
double rng_uniform(uint64_t key, uint64_t index);  /* [0, 1) with 53 bits */

/* A permutation of [0, n) that needs no table: a keyed 6-round Feistel network on the next even power of two, walked
 * until it lands below n (Black & Rogaway 2002).  i in [0, n). */
uint64_t rng_permute(uint64_t key, uint64_t n, uint64_t i);

#endif
