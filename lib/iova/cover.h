/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How often each address is claimed: ranges are added and removed, and may overlap as they like.
 *
 * A range map without targets. Its runs are cut wherever a claim begins or ends, and nowhere else,
 * so they depend on the claims alone and not on the order in which they came. A run's tag has three
 * numbers: how many claims cover it, how many begin at its first address, and how many end at its
 * last. Neighbours at whose border no claim begins or ends any more are joined; so taking a claim
 * away never needs to cut, and never needs memory.
 *
 * What is free between runs is free of all claims: range_map_find_gap finds it.
 *
 * Limits: COVER_CLAIMS_MAX claims at one address. Locking: the owner's.
 */
#ifndef VIOMMU_IOVA_COVER_H
#define VIOMMU_IOVA_COVER_H

#include "range/range_map.h"

#define COVER_BITS 21
#define COVER_CLAIMS_MAX ((1u << COVER_BITS) - 2)

struct cover_tag {
    uint32_t claims;
    uint32_t begin;
    uint32_t end;
};

struct cover_tag cover_tag(const struct range_run *run);

/* How many operations cover_add of [first, last] needs at most (range_map_reserve). The sum for
   several ranges is enough for all of them, whichever of them overlap. */
size_t cover_need(const struct range_map *cover, uint64_t first, uint64_t last);

/* Adds a claim; its operations are reserved. */
void cover_add(struct range_map *cover, uint64_t first, uint64_t last);

/* Adds a claim where nothing is claimed. Returns 0, -EEXIST (something is) or -ENOMEM. */
int cover_add_free(struct range_map *cover, uint64_t first, uint64_t last);

/* Takes a claim away that was added. Needs no memory. */
void cover_remove(struct range_map *cover, uint64_t first, uint64_t last);

/* Whether some of [first, last] is claimed. */
bool cover_meets(const struct range_map *cover, uint64_t first, uint64_t last);

#endif
