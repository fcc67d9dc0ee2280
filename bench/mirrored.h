/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the rows about mirrors work on: a guest with a VT-d unit in caching mode, devices that share
 * one domain, and a mirror a device.
 *
 * Page i of the layout lies in leaf table i / per_table, whose entries in use are evenly spread. It
 * leads to target i, or, scattered, to target next(i): a permutation in which no two neighbours
 * stay neighbours. All targets are memory. Which leaf table comes where in guest memory follows no
 * order either, as in a guest that has run for a while.
 *
 * The mirrors' callback only counts; it stands for a backend that costs nothing.
 */
#ifndef VIOMMU_BENCH_MIRRORED_H
#define VIOMMU_BENCH_MIRRORED_H

#include "guest.h"

#define MIRRORED_IOVA (1ULL << 40)
#define MIRRORED_DOMAIN 9
#define MIRRORED_LEVELS 4
#define MIRRORED_DEVICES 8
#define MIRRORED_ENTRIES 512 /* of a table */

struct mirrored_layout {
    uint64_t tables;    /* leaf tables, a power of two */
    unsigned per_table; /* pages in each, a power of two up to 512 */
    bool scattered;
    unsigned devices; /* 1 to MIRRORED_DEVICES */
};

/* What a mirror was told. */
struct mirror {
    struct viommu_device *device;
    struct viommu_subscriber *subscriber;
    uint64_t maps;
    uint64_t unmaps;
    uint64_t others;
    uint64_t mapped; /* pages, less those unmapped */
    uint64_t fences;
};

struct mirrored {
    struct guest guest;
    struct mirrored_layout layout;
    uint64_t pages;
    uint64_t root;    /* of the domain's page tables */
    uint64_t targets; /* guest address of target 0 */
    uint64_t **tables; /* the leaf tables in host memory, in the order of device addresses */
    struct mirror mirrors[MIRRORED_DEVICES];
};

/* Nobody is subscribed yet. Dies (guest_die) when it cannot be made. */
void mirrored_init(struct mirrored *m, const struct mirrored_layout *layout);
void mirrored_fini(struct mirrored *m);

/* Subscribes every device's mirror and waits until they follow. False: it went wrong. */
bool mirrored_subscribe(struct mirrored *m);

/* Ends the subscriptions, and lets the unit forget what was mapped. */
void mirrored_unsubscribe(struct mirrored *m);

/* Whether every mirror holds so many pages and none failed. */
bool mirrored_hold(const struct mirrored *m, uint64_t pages);

/* Calls of mirrors so far, all together. */
uint64_t mirrored_calls(const struct mirrored *m);

/* A domain-selective invalidation by register, done when this returns. */
bool mirrored_sync(struct mirrored *m);

/* Page-selective invalidations, one write of the queue's tail; the queue must be on. */
bool mirrored_sync_pages(struct mirrored *m, const uint64_t *pages, unsigned count);

struct viommu_stats mirrored_stats(struct mirrored *m);

uint64_t mirrored_iova(const struct mirrored *m, uint64_t page);
uint64_t mirrored_gpa(const struct mirrored *m, uint64_t page);

/* The guest removes a page from its tables, or puts it back; it does not invalidate. */
void mirrored_clear(struct mirrored *m, uint64_t page);
void mirrored_restore(struct mirrored *m, uint64_t page);

/* The next page of a cycle through the first `window` pages (a power of two) in no useful order. */
static inline uint64_t mirrored_next(uint64_t page, uint64_t window)
{
    return (page * 0xd1342543de82ef95ULL + 0x2545f4914f6cdd1dULL) & (window - 1);
}

#endif
