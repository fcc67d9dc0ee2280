/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A quick look at a leaf table: whether its 512 entries certainly read as they did.
 *
 * "No" only means: look closer. "Yes" is exact, since every part of an entry that counts is
 * compared: the target and the permissions that the levels above leave. Nothing is decoded from
 * what is read here; who looks closer reads each entry again, once and atomically.
 *
 * Most of a sync's time is spent here, and most of that in waiting for memory. So the loop has no
 * branches and works on two entries at once (vectors of 16 bytes: compilers do not make them of
 * atomic loads; the halves of such a load are never torn on the processors that there are). And
 * what the next look will need is fetched meanwhile: at the border of a page processors do not do
 * that by themselves.
 */
#ifndef VIOMMU_SHADOW_GLANCE_H
#define VIOMMU_SHADOW_GLANCE_H

#include "shadow/map.h"

#include <stdatomic.h>

struct glance {
    const _Atomic uint64_t *leaf; /* 512 entries in guest memory, 8-byte aligned */
    uint64_t allowed;             /* permissions that the levels above leave */
    uint64_t reserved;            /* bits that must not be set in an entry */
    /* What comes next, 4 KiB each: only a hint; NULL for nothing. */
    const void *next_leaf;
    const void *next_values;
};

/* Whether the entries say what 512 values do. */
bool glance_values(const struct glance *glance, const uint64_t *values);

/* The same for values that follow one another from the first (0: nothing is there at all). */
bool glance_run(const struct glance *glance, uint64_t first);

#endif
