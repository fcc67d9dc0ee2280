/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random numbers for tests: small, fast, and the same on every machine for one seed (splitmix64).
 */
#ifndef VIOMMU_SUPPORT_RANDOM_H
#define VIOMMU_SUPPORT_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_u64(struct random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15ull;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* A number from 0 to bound - 1. */
static inline unsigned random_below(struct random *random, unsigned bound)
{
    return (unsigned)((random_u64(random) >> 32) * bound >> 32);
}

/* True in `percent` of 100 cases. */
static inline bool random_percent(struct random *random, unsigned percent)
{
    return random_below(random, 100) < percent;
}

#endif
