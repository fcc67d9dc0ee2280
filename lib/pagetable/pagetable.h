/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walking a guest's page tables.
 *
 * A table has 512 entries of 8 bytes; level 0 is the table whose entries map 4 KiB pages, and the
 * walk starts at level `levels - 1`. How entries read is a struct pagetable_format, made once from
 * a unit's configuration; the walker is inline, so that nothing is called through a pointer.
 *
 * Every entry is read once, atomically, and only that copy is decoded. The walk is bounded by the
 * number of levels, whatever the tables say.
 */
#ifndef VIOMMU_PAGETABLE_PAGETABLE_H
#define VIOMMU_PAGETABLE_PAGETABLE_H

#include "memory/memory.h"

#define PAGETABLE_ADDRESS 0x000ffffffffff000ULL /* the address bits of an entry */

/* How entries of one format read. */
struct pagetable_format {
    uint64_t read;           /* the bit that allows reads */
    uint64_t write;          /* and writes */
    uint64_t large;          /* the bit that makes an entry above level 0 a page */
    uint64_t reserved_table; /* bits that must be clear in an entry that points to a table */
    uint64_t reserved_page;  /* and in one that maps a page, besides those below its size */
    uint8_t large_levels;    /* bit n: an entry of level n (1 or more) may map a page */
};

enum pagetable_status {
    PAGETABLE_OK = 0,
    PAGETABLE_NOT_PRESENT, /* an entry allows nothing */
    PAGETABLE_RESERVED,    /* an entry that allows something has a reserved bit set */
    PAGETABLE_UNREADABLE,  /* a table does not lie in memory */
};

struct pagetable_walk {
    uint64_t gpa;   /* of the byte asked for */
    uint64_t mask;  /* size of the page - 1 */
    uint64_t entry; /* the last entry read */
    uint32_t perm;  /* enum viommu_perm: what all levels allow; may be nothing */
    uint8_t level;  /* of the last entry, or of the table that could not be read */
};

/* Address bits that one entry of a level spans. */
static inline unsigned pagetable_shift(unsigned level)
{
    return 12 + 9 * level;
}

/* Whether an entry, not empty, of a level maps a page and not a table. */
static inline bool pagetable_is_page(const struct pagetable_format *format, unsigned level,
                                     uint64_t entry)
{
    return level == 0 || ((format->large_levels >> level & 1) && (entry & format->large));
}

/* Bits that are set in an entry though they must not be. */
static inline uint64_t pagetable_reserved(const struct pagetable_format *format, unsigned level,
                                          uint64_t entry)
{
    uint64_t below_page = (1ULL << pagetable_shift(level)) - 1;

    if (pagetable_is_page(format, level, entry)) {
        return entry & (format->reserved_page | (below_page & PAGETABLE_ADDRESS));
    }
    return entry & (format->reserved_table | format->large);
}

/*
 * Walks from the table at `root`. With PAGETABLE_OK all of *walk is set, otherwise `entry` and
 * `level` tell where it ended. The caller has checked that the address has no more bits than the
 * levels translate, and is inside a section.
 */
static inline enum pagetable_status
pagetable_walk(const struct pagetable_format *format, const struct memory_snapshot *memory,
               uint64_t root, unsigned levels, uint64_t iova, struct pagetable_walk *walk)
{
    const struct viommu_memory_slot *slot = NULL;
    uint64_t table = root;
    uint64_t allowed = format->read | format->write;
    uint64_t entry;
    unsigned level = levels;

    do {
        level--;
        walk->level = (uint8_t)level;
        if (!memory_load64_near(memory, &slot, table + (iova >> pagetable_shift(level) & 511) * 8,
                                &entry)) {
            return PAGETABLE_UNREADABLE;
        }
        walk->entry = entry;
        if (!(entry & (format->read | format->write))) {
            return PAGETABLE_NOT_PRESENT;
        }
        if (pagetable_reserved(format, level, entry)) {
            return PAGETABLE_RESERVED;
        }
        allowed &= entry;
        table = entry & PAGETABLE_ADDRESS;
    } while (!pagetable_is_page(format, level, entry));

    walk->mask = (1ULL << pagetable_shift(level)) - 1;
    walk->gpa = (table & ~walk->mask) | (iova & walk->mask);
    walk->perm = (allowed & format->read ? VIOMMU_READ : 0u) |
                 (allowed & format->write ? VIOMMU_WRITE : 0u);
    return PAGETABLE_OK;
}

#endif
