/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The shadow map: what the pages of a set of guest tables led to when they were last looked at.
 *
 * Vocabulary. A *page* is 4 KiB of device addresses, whatever page sizes the guest used. Its
 * *value* is one word: the guest-physical page, what all levels allow (enum viommu_perm), and
 * flags. A page that leads nowhere has value 0. An *extent* is a stretch of pages that follow one
 * another in device address and target with one permission, and that mirrors were given as one
 * mapping: its first page carries SHADOW_START. A *block* is what one slot spans: 2 MiB (level 1)
 * or 1 GiB (level 2).
 *
 * Structure. A radix tree by device address, nine bits a level; it need not have the shape of the
 * guest's tables. A *node* has 512 slots of 16 bytes. A slot of level 1 is
 *   EMPTY   nothing
 *   RUN     one extent, anywhere in the block: 16 bytes for up to 512 pages
 *   SPARSE  a sorted array of up to 64 pages, 8 bytes each
 *   FULL    512 values
 * and a slot of level 2 is EMPTY, a NODE of level-1 slots, or a RUN that spans all of its 1 GiB
 * (one extent). Slots above are EMPTY or a NODE.
 *
 * Invariants:
 * - A block is in the smallest form that can say it: EMPTY, then RUN, then SPARSE, then FULL.
 * - No extent crosses the border of a 2 MiB block, but for the RUN of level 2.
 * - No node but the root is without a slot in use.
 * - `bytes` is all memory that hangs on the map, `pages` the pages with a permission.
 *
 * Changes are made aside: shadow_slot_build makes a slot, shadow_map_reserve the way to its place,
 * and shadow_map_replace, which cannot fail, swaps it in. Between the two a *patch* lets the map be
 * read as if the slot was there already.
 *
 * Locking: the owner's (the IOMMU's lock).
 */
#ifndef VIOMMU_SHADOW_MAP_H
#define VIOMMU_SHADOW_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHADOW_PAGES 512u /* of a level-1 block; also slots of a node */
#define SHADOW_SPARSE_MAX 64u

/* A value: bits 12 to 51 are the guest-physical page. */
#define SHADOW_PERM 3ULL  /* enum viommu_perm */
#define SHADOW_START 4ULL /* the first page of an extent; only with a permission */
#define SHADOW_BAD 8ULL   /* alone: an entry that cannot be used, and that was told of */
#define SHADOW_TARGET 0x000ffffffffff000ULL
/* In a SPARSE entry: the page's number in its block, above the target. */
#define SHADOW_INDEX_SHIFT 52

enum shadow_kind {
    SHADOW_EMPTY = 0,
    SHADOW_RUN,
    SHADOW_SPARSE,
    SHADOW_FULL,
    SHADOW_NODE,
};

struct shadow_node;

struct shadow_slot {
    union {
        uint64_t value;           /* RUN: of its first page, with SHADOW_START */
        uint64_t *values;         /* SPARSE: `count` entries, sorted; FULL: 512 values */
        struct shadow_node *node; /* NODE */
    };
    uint8_t kind;     /* enum shadow_kind */
    bool whole;       /* the guest mapped the block by one entry: it is looked at as one */
    uint16_t first;   /* RUN: index of its first page or, at level 2, 0 */
    uint16_t last;    /* RUN: and last; at level 2, 511 */
    uint16_t count;   /* SPARSE, FULL: pages with a permission or SHADOW_BAD; NODE: slots in use */
};

struct shadow_node {
    struct shadow_slot slots[SHADOW_PAGES];
};

struct shadow_map {
    struct shadow_slot top; /* EMPTY or a NODE; it is of level `levels` */
    uint8_t levels; /* of the guest's tables, 2 to 5: addresses have 12 + 9 * levels bits */
    uint64_t bytes;
    uint64_t pages;
};

/* One extent: a stretch with one target and permission. */
struct shadow_extent {
    uint64_t first;
    uint64_t last;
    uint64_t gpa; /* where `first` leads */
    uint32_t perm;
};

/* A slot that is to be in the map soon; the map is read with it in its place. */
struct shadow_patch {
    uint64_t first; /* of the block */
    uint64_t last;
    uint8_t level;  /* 1 or 2 */
    struct shadow_slot slot;
};

/* Addresses that a slot of a level spans: 2 MiB at level 1. */
static inline unsigned shadow_shift(unsigned level)
{
    return 12 + 9 * level;
}

/* An empty map; needs no memory. */
void shadow_map_init(struct shadow_map *map, unsigned levels);

/*
 * Frees some of the map, from its end, up to `slots` slots that own memory; true when nothing is
 * left. The map is not read meanwhile. (A large map is freed piece by piece.)
 */
bool shadow_map_free_some(struct shadow_map *map, unsigned slots);

/*
 * The slot of a level (1 or 2) that holds an address, or NULL where there is no node with such
 * slots there: nothing is mapped then, or, asked for level 1, a RUN of level 2 may be.
 */
const struct shadow_slot *shadow_map_slot(const struct shadow_map *map, unsigned level,
                                          uint64_t address);

/*
 * The lowest address from `from` up to `last` that lies in a slot in use (a level-1 slot that is
 * not EMPTY, or a level-2 RUN): `from` itself or the first address of a block. False: there is
 * none.
 */
bool shadow_map_used(const struct shadow_map *map, uint64_t from, uint64_t last, uint64_t *found);

/*
 * The first extent that ends at `from` or above and begins at `last` or below, whole. `patch` may
 * be NULL; where it is not, it is read in place of what it covers. A patch of level 1 does not lie
 * in a RUN of level 2.
 */
bool shadow_map_next(const struct shadow_map *map, const struct shadow_patch *patch, uint64_t from,
                     uint64_t last, struct shadow_extent *extent);

/*
 * Says of a level-1 block in use whether the guest maps it by one entry now; it leads where it did.
 */
void shadow_map_set_whole(struct shadow_map *map, uint64_t address, bool whole);

/* The values of a level-1 block, 512 of them. */
void shadow_slot_expand(const struct shadow_slot *slot, uint64_t *values);

/*
 * Makes a level-1 slot of 512 values, in the smallest form. SHADOW_START is where the caller put
 * it: at least at the first page of each stretch. An EMPTY slot is not `whole`. Returns 0 or
 * -ENOMEM; the slot is EMPTY then.
 */
int shadow_slot_build(const uint64_t *values, bool whole, struct shadow_slot *slot);

/*
 * The level-2 slot of 512 blocks that are parts of one RUN of level 2, each a RUN of its own, and
 * `whole` where that was: what is mapped is the same, the extents are smaller. Returns 0 or
 * -ENOMEM; the slot is EMPTY then.
 */
int shadow_slot_break(const struct shadow_slot *run, struct shadow_slot *slot);

/* Frees what a slot that is in no map owns, all at once (at most a node of level-1 slots). */
void shadow_slot_free(struct shadow_slot *slot);

/* Memory that hangs on a slot that is in no map. */
size_t shadow_slot_bytes(const struct shadow_slot *slot);

/*
 * Makes the nodes on the way to a slot of a level (1 or 2), so that replacing it cannot fail. At
 * level 1 the level-2 slot on the way is no RUN. Nodes that then stay unused are freed by replacing
 * the slot, by an EMPTY one too. Returns 0, -ENOMEM, or -EINVAL (the address is above the map's, or
 * under a RUN); nothing changed where it fails.
 */
int shadow_map_reserve(struct shadow_map *map, unsigned level, uint64_t address);

/*
 * Puts a slot in place of another, which is freed; reserve came before, unless the slot is EMPTY.
 * The slot is the map's from then on.
 */
void shadow_map_replace(struct shadow_map *map, unsigned level, uint64_t address,
                        const struct shadow_slot *slot);

#ifdef VIOMMU_TESTING
/* Aborts where an invariant does not hold, bytes and pages counted anew. */
void shadow_map_check(const struct shadow_map *map);
#endif

#endif
