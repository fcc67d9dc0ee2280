/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the files of a sync share: how guest tables read, one block of them, and what is counted and
 * told of it. Private to sync.c, large.c, compare.c, tell.c and adopt.c.
 */
#ifndef VIOMMU_SHADOW_SYNC_H
#define VIOMMU_SHADOW_SYNC_H

#include "iommu/iommu.h"

enum region_kind {
    REGION_ABSENT,
    REGION_BAD,  /* a table that cannot be read, or an entry with reserved bits */
    REGION_PAGE, /* one entry maps it */
    REGION_LEAF, /* a table of 4 KiB pages */
};

struct region {
    enum region_kind kind;
    uint64_t first;
    uint64_t last;
    uint64_t value;               /* PAGE: of `first`, without SHADOW_START */
    uint32_t allowed;             /* LEAF: by the levels above */
    const _Atomic uint64_t *leaf; /* LEAF: 512 entries */
    const void *next_leaf; /* LEAF: perhaps the table that follows, to be fetched; or NULL */
};

/* What a step looks at. */
struct block {
    uint64_t first;  /* 2 MiB */
    uint64_t last;
    unsigned low;    /* pages of it that are looked at */
    unsigned high;
    uint64_t bad_first; /* it lies in a region that cannot be read; bad_last 0: it does not */
    uint64_t bad_last;
    unsigned from; /* pages whose value or extent changed lie in here */
    unsigned to;
    uint64_t old[SHADOW_PAGES];
    uint64_t new[SHADOW_PAGES];
};

enum verdict {
    SAME,
    CHANGED, /* follow.patch is made */
    AGAIN,   /* more is to be looked at first */
    STOPPED, /* the shadow lost its mirrors */
};

static inline bool same_value(uint64_t old, uint64_t new)
{
    return !((old ^ new) & ~SHADOW_START);
}

static inline bool goes_on(uint64_t before, uint64_t value)
{
    return (value & SHADOW_PERM) && (value & ~SHADOW_START) == (before & ~SHADOW_START) + 4096;
}

static inline uint64_t page_address(const struct block *block, unsigned index)
{
    return block->first + index * 4096ULL;
}

/*
 * An entry of a guest's table, read once. Acquire: whoever is told of the page then sees what the
 * guest had put there before it wrote the entry.
 */
static inline uint64_t entry_load(const _Atomic uint64_t *entry)
{
    return le64toh(atomic_load_explicit(entry, memory_order_acquire));
}

/* ---- sync.c ---- */

/* Stands for a slot where there is no node. */
extern const struct shadow_slot empty_slot;

const struct shadow_slot *slot_at(const struct shadow *shadow, unsigned level, uint64_t address);

/* How the guest's tables read at an address, as far as `last`. In a section. */
struct region region_find(const struct viommu *iommu, const struct shadow *shadow,
                          uint64_t address, uint64_t last);

/* Counts a leaf table; false when the sync has looked at too many. */
bool tables_left(const struct viommu *iommu, struct shadow *shadow, const struct region *region);

void tables_count(struct viommu *iommu);

/* The block of an address, and the pages of it that [first, last] asks for. */
void block_begin(struct block *block, const struct shadow_slot *slot, uint64_t first,
                 uint64_t last);

/* Reads the new values of the pages that are asked for; `old` is there. Whether some differ. */
bool block_read(const struct viommu *iommu, const struct region *region, struct block *block);

/* Counts, tells and judges a block's changes, and makes its new slot: CHANGED, or STOPPED. */
enum verdict block_build(struct viommu *iommu, struct shadow *shadow, struct block *block,
                         bool whole, struct shadow_slot *slot);

/* Puts the patch together: CHANGED, or STOPPED. The slot is owned by it, or freed. */
enum verdict patch_make(struct viommu *iommu, struct shadow *shadow, unsigned level,
                        uint64_t address, struct shadow_slot *slot);

/* ---- large.c ---- */

/* A block of 1 GiB that is mapped by one entry now. */
enum verdict large_page_step(struct viommu *iommu, struct shadow *shadow, uint64_t value,
                             uint64_t address);

/* One that is not mapped any more. */
enum verdict large_remove(struct viommu *iommu, struct shadow *shadow, const struct region *region,
                          uint64_t address);

/* Whether a block that was mapped by one entry is a table now. */
bool large_is_cut(const struct shadow *shadow, const struct region *region, uint64_t address);

/* Begins to look at such a block; then each step looks at a part of it. */
enum verdict large_cut_begin(struct viommu *iommu, struct shadow *shadow, uint64_t address);
enum verdict large_cut_step(struct viommu *iommu, struct shadow *shadow, uint64_t *first,
                            uint64_t *last);

/* ---- compare.c ---- */

/* The value of a leaf entry, read once. */
uint64_t entry_value(const struct pagetable_format *format, const struct region *region,
                     unsigned index);

/*
 * Whether entries [low, high] of a leaf table may differ from a slot of level 1. `next` is the slot
 * that follows it, or NULL.
 */
bool slot_differs(const struct pagetable_format *format, const struct region *region,
                  const struct shadow_slot *slot, const struct shadow_slot *next, unsigned low,
                  unsigned high);

/* Whether 512 blocks lead where one page of 1 GiB does. */
bool blocks_are(const struct shadow_slot *node, uint64_t value);

/* Pages [low, high] of a slot of level 1 that lead somewhere. */
unsigned slot_present(const struct shadow_slot *slot, unsigned low, unsigned high);

/*
 * Marks where the new extents of a block begin. Extents in which nothing changed stay as they are.
 * Of the others, and of what is new, contiguous pages are one; `grow` lets them take in neighbours.
 */
void mark_starts(struct block *block, bool grow);

/* ---- adopt.c ---- */

/*
 * Marks new extents where mirrors that are to be adopted into the shadow have borders: what they
 * hold are then pieces of their layout, and costs no memory of its own. It has no members yet.
 */
void adopted_mark_starts(const struct viommu *iommu, const struct shadow *shadow,
                         struct block *block);

/* ---- tell.c ---- */

/* Whether a mirror of the shadow nears its limit: mappings then grow together. */
bool is_crowded(const struct viommu *iommu, const struct shadow *shadow);

/* Fences all its mirrors; with the last one the shadow goes. Returns STOPPED. */
enum verdict stop(struct viommu *iommu, struct shadow *shadow, int error, bool deny,
                  const char *text);
enum verdict stop_for_quota(struct viommu *iommu, struct shadow *shadow, uint64_t first,
                            uint64_t last);

void count_same(struct viommu *iommu, uint64_t present, uint64_t absent);

/* Counts a block's changes. Returns whether live entries were rewritten. */
bool count_changes(struct viommu *iommu, const struct block *block);

void tell_bad(struct viommu *iommu, const struct shadow *shadow, uint64_t first, uint64_t last);
void tell_newly_bad(struct viommu *iommu, const struct shadow *shadow, const struct block *block);
void tell_rewritten(struct viommu *iommu, const struct shadow *shadow, const struct block *block);
/* A stretch that was rewritten as a whole. */
void tell_rewritten_stretch(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                            uint64_t last, uint64_t from, uint64_t to);

/* Applies the policy for live entries that were rewritten. Returns whether to go on. */
bool policy_lets(struct viommu *iommu, struct shadow *shadow, uint64_t first, uint64_t last);

/* What mirrors will not be given, of a stretch that leads to `value`, or of a block's changes. The
   patch is made. */
void tell_stretch_unreachable(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                              uint64_t last, uint64_t value);
void tell_unreachable(struct viommu *iommu, const struct shadow *shadow,
                      const struct block *block);

#endif
