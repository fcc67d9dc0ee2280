/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a shadow map asks of its slots, beside what map.h says of slots that are in no map. Private
 * to map.c and slot.c.
 *
 * The unit of a slot is what its `first` and `last` count: a page at level 1, a block of 2 MiB at
 * level 2.
 */
#ifndef VIOMMU_SHADOW_SLOT_H
#define VIOMMU_SHADOW_SLOT_H

#include "shadow/map.h"

#define SHADOW_PAGE 4096ULL
/* From one entry of a SPARSE slot to the next where one stretch goes on. */
#define SHADOW_SPARSE_STEP (SHADOW_PAGE | 1ULL << SHADOW_INDEX_SHIFT)

/* What hangs on a slot. */
struct shadow_measure {
    uint64_t bytes;
    uint64_t pages; /* with a permission */
};

/* Whether a value is of the same extent as the one a page (or an entry: a step) before it. */
static inline bool shadow_goes_on(uint64_t before, uint64_t value, uint64_t step)
{
    return value == (before & ~SHADOW_START) + step;
}

/* `level` is that of the slot, 1 or 2. */
struct shadow_measure shadow_slot_measure(const struct shadow_slot *slot, unsigned level);

/*
 * The first extent of a slot that is no NODE and that begins at `base` which ends at `from` or
 * above; `from` lies in the slot. False: there is none.
 */
bool shadow_slot_next(const struct shadow_slot *slot, unsigned level, uint64_t base, uint64_t from,
                      struct shadow_extent *extent);

#endif
