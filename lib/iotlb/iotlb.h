/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The translation cache: direct-mapped, read without locks, shared by the devices of a domain.
 *
 * Vocabulary. A *tag* stands for everything besides the address that chooses a translation: domain,
 * table root, levels, kind. Its *id* is a word that enters the cache: a small number in its upper
 * bits, and below it a hash of that number. Giving a tag a new id drops all that was cached for it
 * at once. A *page* is a 4 KiB piece: larger pages are cached piece by piece. Its *frame* is the
 * address of the page that it is translated to.
 *
 * A slot is two words: `frame`, and `check` = key XOR (frame * secret) XOR *marks* in the four
 * highest bits: what the page does not allow, and its size. No key reaches into them. The key is
 * the tag's id XOR the upper bits of the address, which are as many as the hash has: the number
 * above them tells the hash, so a key tells both. A page's place is its low bits XOR those of its
 * key: from key and place the page follows. A reader that sees halves of two entries computes a key
 * that nobody has, and that a guest cannot aim at without the secret: it is a miss. Two entries of
 * one page and one frame differ in their marks only: their halves make one or the other of them.
 *
 * Invariants:
 * - An id is never used again while an entry with it may be in the cache. When ids run out every
 *   tag becomes id 0 (not cached), those who may hold an old id are drained, the slots are cleared,
 *   and numbering starts again.
 * - A fill that began before an invalidation does not survive it: either it is made under an id
 *   that nobody asks for any more; or its page is dropped once more after a drain, and what could
 *   be found in between is drained too (the caller's part).
 *
 * Locking: find and fill by anyone inside a section of the memory's epoch; everything else under
 * the IOMMU's lock.
 */
#ifndef VIOMMU_IOTLB_IOTLB_H
#define VIOMMU_IOTLB_IOTLB_H

#include "base/epoch.h"

#include <stdatomic.h>
#include <viommu/types.h>

#define IOTLB_PAGE_SHIFT 12
#define IOTLB_SLOT_SHIFT 4 /* log2 of a slot's size */

/* Marks of a check word: where enum viommu_perm begins, denied, and the page's size below it. */
#define IOTLB_PERM_SHIFT 62
#define IOTLB_LEVEL_SHIFT 60
#define IOTLB_LEVEL_MASK 3u

struct iotlb_slot {
    _Atomic uint64_t check;
    _Atomic uint64_t frame;
};

/* What besides the address chooses a translation. */
struct iotlb_key {
    uint64_t root;
    uint16_t domain;
    uint8_t levels;
};

struct iotlb_tag {
    struct epoch_deferred deferred;
    struct iotlb_tag *next;
    struct iotlb_key key;
    unsigned users;
    _Atomic uint64_t id; /* 0: do not cache */
    /* Bit n: a page of 4 KiB << 9n was cached in pieces under this id; n is 1 or more. */
    _Atomic uint32_t super_pages;
};

/* What readers need; constant. */
struct iotlb_table {
    struct iotlb_slot *slots;
    const char *frames;   /* the first slot's frame: see iotlb_probe */
    uint64_t offset_mask; /* the bits of a slot's offset in bytes */
    uint64_t secret;      /* odd */
    unsigned upper_shift; /* where the upper bits of an address begin */
};

struct iotlb {
    struct epoch *epoch;
    struct iotlb_table table;
    uint64_t mask;         /* slots - 1 */
    uint64_t id_next;      /* numbers of ids */
    uint64_t id_last;      /* tests make it small */
    uint64_t renew_target; /* the drain that a renewal waits for; 0: no renewal */
    struct iotlb_tag *tags;
};

/* `entries` is a power of two from 256. Returns 0 or -ENOMEM. */
int iotlb_init(struct iotlb *iotlb, struct epoch *epoch, uint32_t entries);
void iotlb_fini(struct iotlb *iotlb);

/* The tag of a key, held once more, or NULL without memory. */
struct iotlb_tag *iotlb_tag_get(struct iotlb *iotlb, const struct iotlb_key *key);
void iotlb_tag_put(struct iotlb *iotlb, struct iotlb_tag *tag);

/* Drops everything cached for a tag, or for all: in-flight fills are lost too. */
void iotlb_drop_tag(struct iotlb *iotlb, struct iotlb_tag *tag);
void iotlb_drop_all(struct iotlb *iotlb);
void iotlb_drop_domain(struct iotlb *iotlb, uint16_t domain);

/*
 * Drops [first, last] of every tag of a domain, and the whole of each larger page that touches it.
 * The work is bounded, whatever the range and however many tags: past the bound tags get new ids.
 * Returns true when fills under way may bring some of it back: drain, call it again, and drain
 * again, for those who found it in between.
 */
bool iotlb_drop_range(struct iotlb *iotlb, uint16_t domain, uint64_t first, uint64_t last);

/* Ends a renewal of ids when its drain is over. Returns true while one is under way. */
bool iotlb_renew(struct iotlb *iotlb);

/* Where the number begins in an id: above as many bits as an address has upper ones. */
static inline unsigned iotlb_id_shift(const struct iotlb_table *table)
{
    return 64 - table->upper_shift;
}

/* The id of a number. The hash moves the pages of a tag away from those of others. */
static inline uint64_t iotlb_id(const struct iotlb_table *table, uint64_t number)
{
    uint64_t hash = number * 0x9e3779b97f4a7c15ULL >> 36;

    return number << iotlb_id_shift(table) | (hash & ((1ULL << iotlb_id_shift(table)) - 1));
}

static inline uint64_t iotlb_entry_key(const struct iotlb_table *table, uint64_t id, uint64_t iova)
{
    return id ^ iova >> table->upper_shift;
}

/*
 * Where the slot of a page is, in bytes. The address may have come out of the last look-up, so
 * every step counts: these are two shifts side by side and three more, and nothing is left to do
 * before the load.
 */
static inline uint64_t iotlb_offset(const struct iotlb_table *table, uint64_t key, uint64_t iova)
{
    return (iova >> (IOTLB_PAGE_SHIFT - IOTLB_SLOT_SHIFT) ^ key) & table->offset_mask;
}

static inline struct iotlb_slot *iotlb_slot(const struct iotlb_table *table, uint64_t key,
                                            uint64_t iova)
{
    return (struct iotlb_slot *)((char *)table->slots + iotlb_offset(table, key, iova));
}

/*
 * What a slot says of a page. The id is not 0: an empty slot looks like an entry of that.
 * Returns a word that is 0 but in its marks when the page is cached. So one question answers
 * whether it is and what it allows: whether the word is 0 in iotlb_wanted(perm).
 */
static inline uint64_t iotlb_probe(const struct iotlb_table *table, uint64_t id, uint64_t iova,
                                   uint64_t *frame)
{
    uint64_t key = iotlb_entry_key(table, id, iova);
    uint64_t offset = iotlb_offset(table, key, iova);
    /* Both words by an address of their own, so that a load adds it up by the way. */
    const char *at = (const char *)table->slots + offset;
    const char *frame_at = table->frames + offset;
    uint64_t check = atomic_load_explicit((const _Atomic uint64_t *)at, memory_order_acquire);

    *frame = atomic_load_explicit((const _Atomic uint64_t *)frame_at, memory_order_acquire);
    return check ^ *frame * table->secret ^ key;
}

/* For an access that needs `perm`, which may be nothing. */
static inline uint64_t iotlb_wanted(uint32_t perm)
{
    return (uint64_t)perm << IOTLB_PERM_SHIFT | ((1ULL << IOTLB_LEVEL_SHIFT) - 1);
}

/* What the page allows, after a hit. */
static inline uint32_t iotlb_perm(uint64_t probed)
{
    return (uint32_t)(probed >> IOTLB_PERM_SHIFT) ^ (VIOMMU_READ | VIOMMU_WRITE);
}

/* The size of the page that this is a piece of, after a hit: as iotlb_fill was told. */
static inline uint8_t iotlb_level(uint64_t probed)
{
    return (uint8_t)(probed >> IOTLB_LEVEL_SHIFT & IOTLB_LEVEL_MASK);
}

/* What an address of the page translates to. */
static inline uint64_t iotlb_gpa(uint64_t frame, uint64_t iova)
{
    return frame | (iova & ((1ULL << IOTLB_PAGE_SHIFT) - 1));
}

/*
 * Caches one page: where it leads (any address in it), and what of enum viommu_perm it allows. `id`
 * is what the tag's id was before the walk began; `size_level` is 0 for a 4 KiB page, 1 for 2 MiB,
 * 2 for 1 GiB.
 */
static inline void iotlb_fill(struct iotlb *iotlb, struct iotlb_tag *tag, uint64_t id,
                              uint64_t iova, uint64_t gpa, uint32_t perm, unsigned size_level)
{
    const struct iotlb_table *table = &iotlb->table;
    uint64_t key = iotlb_entry_key(table, id, iova);
    struct iotlb_slot *slot = iotlb_slot(table, key, iova);
    uint64_t frame = gpa >> IOTLB_PAGE_SHIFT << IOTLB_PAGE_SHIFT;
    uint64_t marks = (uint64_t)~perm << IOTLB_PERM_SHIFT |
                     (uint64_t)(size_level & IOTLB_LEVEL_MASK) << IOTLB_LEVEL_SHIFT;

    if (!id) {
        return;
    }
    if (size_level) {
        atomic_fetch_or_explicit(&tag->super_pages, 1u << size_level, memory_order_relaxed);
    }
    /*
     * Both release: whoever hits has seen what the walk saw. A page that was dropped and is cached
     * again finds its old frame word in the slot, and then only the other one is new.
     */
    atomic_store_explicit(&slot->check, key ^ frame * table->secret ^ marks, memory_order_release);
    atomic_store_explicit(&slot->frame, frame, memory_order_release);
}

#endif
