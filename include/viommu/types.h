/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Words every other header uses.
 *
 * Addresses are bytes, ranges are inclusive [first, last], so the whole 64-bit space is one range
 * and no length can overflow. Functions return 0 or a negative errno; the few that can also answer
 * VIOMMU_PENDING say so.
 */
#ifndef VIOMMU_TYPES_H
#define VIOMMU_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a request may do, or a translation allows. */
enum viommu_perm {
    VIOMMU_READ = 1,
    VIOMMU_WRITE = 2,
    VIOMMU_EXEC = 4, /* of CPUs only: see viommu/space.h */
};

/* Accepted, and finished later: a success that is not complete yet. */
#define VIOMMU_PENDING 1

/* Bytes [first, last] of some address space. */
struct viommu_range {
    uint64_t first;
    uint64_t last;
};

/* The requester id (PCI source id) of a function: 8 bits of bus, 5 of device, 3 of function. */
static inline uint16_t viommu_requester(unsigned bus, unsigned device, unsigned function)
{
    return (uint16_t)((bus & 0xff) << 8 | (device & 0x1f) << 3 | (function & 7));
}

#ifdef __cplusplus
}
#endif

#endif
