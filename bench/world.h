/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the rows work on: a guest with a VT-d unit, two devices of one domain, and many mapped
 * pages.
 *
 * Page i of the device addresses, at WORLD_IOVA + i * 4 KiB, leads to WORLD_GPA + world_next(i) * 4
 * KiB, where world_next is one cycle through all pages that visits them in no useful order. So the
 * answer to a look-up says which page is asked for next: a chain of look-ups that depend on each
 * other. A *tour* is a stretch of that chain; where it ends and the sum of the addresses seen can
 * be computed without any look-up.
 */
#ifndef VIOMMU_BENCH_WORLD_H
#define VIOMMU_BENCH_WORLD_H

#include "guest.h"

#define WORLD_IOVA (1ULL << 40)
#define WORLD_GPA (1ULL << 44)
#define WORLD_DOMAIN 7
#define WORLD_LEVELS 4
#define WORLD_DEVICES 2

struct world {
    struct guest guest;
    struct viommu_device *devices[WORLD_DEVICES];
    uint64_t table; /* the root of the domain's page tables */
    uint64_t pages; /* a power of two from 512 */
    bool woken;     /* by the callback, where there is one */
};

struct tour {
    uint64_t start; /* the first page of the last run */
    uint64_t page;  /* the next one */
    uint64_t count;
    uint64_t sum; /* of the guest addresses that it saw */
};

/* Dies (guest_die) when it cannot be made. */
void world_init(struct world *world, uint64_t pages);
/* The same, told of work by a callback instead of the event fd: it sets `woken`. */
void world_init_woken(struct world *world, uint64_t pages);
void world_fini(struct world *world);

/* Every page once, so that what fits is cached. False: a translation failed. */
bool world_touch(struct world *world, struct viommu_device *device);

/* Whether the tour ended where it should, having seen what it should. */
bool world_tour_ok(const struct world *world, const struct tour *tour);

/* Where the page's entry lies, in guest memory. */
uint64_t world_entry(struct world *world, uint64_t page);

static inline uint64_t world_next(const struct world *world, uint64_t page)
{
    /* A linear congruential generator of full period. */
    return (page * 0xd1342543de82ef95ULL + 0x2545f4914f6cdd1dULL) & (world->pages - 1);
}

static inline uint64_t world_iova(uint64_t page)
{
    return WORLD_IOVA + (page << 12);
}

static inline uint64_t world_gpa(const struct world *world, uint64_t page)
{
    return WORLD_GPA + (world_next(world, page) << 12);
}

#endif
