/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The baseline: a translation cache the way common systems write it.
 *
 * A GHashTable under a mutex. Keys and values are allocated one by one; a look-up probes once for
 * each page size until it hits, smallest first; a miss walks the guest's tables and inserts. With a
 * cap, a full table is emptied before the next insertion.
 *
 * It is kept as fast as that design allows: the hash is one multiplication, a 4 KiB page hits with
 * the first probe, and the walk is plain loads from one block of memory, without any look-up of
 * where guest memory lies and without checks of reserved bits.
 */
#ifndef VIOMMU_BENCH_BASELINE_H
#define VIOMMU_BENCH_BASELINE_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define BASELINE_CAP 1024

struct baseline {
    GMutex lock;
    GHashTable *table;
    unsigned cap; /* entries; 0: no limit */
    const uint8_t *ram;
    uint64_t root;
    unsigned levels;
};

void baseline_init(struct baseline *baseline, unsigned cap, const uint8_t *ram, uint64_t root,
                   unsigned levels);
void baseline_fini(struct baseline *baseline);

/* Drops everything. */
void baseline_reset(struct baseline *baseline);

/*
 * The guest address of a device address, for an access that needs the entry bits of `perm`. False:
 * refused.
 */
bool baseline_translate(struct baseline *baseline, uint16_t domain, uint64_t iova, uint64_t perm,
                        uint64_t *gpa);

/*
 * The loads of a walk and nothing else, when every page is 4 KiB: what no walk that reads the
 * tables can beat.
 */
static inline uint64_t baseline_bare_walk(const uint8_t *ram, uint64_t root, unsigned levels,
                                          uint64_t iova)
{
    uint64_t table = root;

    for (unsigned level = levels; level-- > 0;) {
        uint64_t slot = table + (iova >> (12 + 9 * level) & 511) * 8;

        table = *(const volatile uint64_t *)(ram + slot) & 0x000ffffffffff000ULL;
    }
    return table | (iova & 0xfff);
}

#endif
