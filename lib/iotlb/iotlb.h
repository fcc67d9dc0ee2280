/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The translation cache: direct-mapped, read without locks, shared by the devices of a domain.
 *
 * Vocabulary. A *tag* stands for everything besides the address that chooses a translation: domain,
 * table root, levels, kind. Its *id* is a small number that enters the cache; giving a tag a new id
 * drops all that was cached for it at once. A *page* is a 4 KiB piece: larger pages are cached
 * piece by piece. A *frame word* is the translated page with what it allows in the low bits.
 *
 * A slot is two words: `frame`, and `check` = key XOR (frame * secret). The key is the tag id and
 * the upper bits of the page number; the lower ones are given by the slot's place, because the
 * index hash can be inverted. A reader that sees halves of two entries computes a key that nobody
 * has, and that a guest cannot aim at without the secret: it is a miss.
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
/* Addresses from here on are not cached: no table has so many levels. */
#define IOTLB_ADDRESS_BITS 57

/* Low bits of a frame word: enum viommu_perm. */
#define IOTLB_PERM_MASK 3ULL
/* Set in every frame word, so that none is zero. */
#define IOTLB_VALID 4ULL
/* The size of the page that this is a piece of: 0 for 4 KiB, 1 for 2 MiB, 2 for 1 GiB. */
#define IOTLB_LEVEL_SHIFT 3
#define IOTLB_LEVEL_MASK 3ULL

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

struct iotlb {
    struct epoch *epoch;
    struct iotlb_slot *slots;
    uint64_t mask;         /* slots - 1 */
    uint64_t secret;       /* odd */
    unsigned index_bits;   /* log2 of slots */
    unsigned key_shift;    /* where the tag id begins in a key */
    uint64_t id_next;
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

static inline uint8_t iotlb_frame_level(uint64_t frame)
{
    return (uint8_t)(frame >> IOTLB_LEVEL_SHIFT & IOTLB_LEVEL_MASK);
}

static inline uint64_t iotlb_upper(const struct iotlb *iotlb, uint64_t iova)
{
    return iova >> IOTLB_PAGE_SHIFT >> iotlb->index_bits;
}

static inline uint64_t iotlb_entry_key(const struct iotlb *iotlb, uint64_t id, uint64_t iova)
{
    return id << iotlb->key_shift | iotlb_upper(iotlb, iova);
}

/*
 * The place of a page: its low bits, moved by the bits above them and by a hash of the id. The
 * multiplication does not wait for the address, which may have come out of the last look-up.
 */
static inline struct iotlb_slot *iotlb_slot(const struct iotlb *iotlb, uint64_t id, uint64_t iova)
{
    uint64_t move = iotlb_upper(iotlb, iova) ^ id * 0x9e3779b97f4a7c15ULL >> 40;

    return &iotlb->slots[(iova >> IOTLB_PAGE_SHIFT ^ move) & iotlb->mask];
}

/* The frame word of a page, or 0. */
static inline uint64_t iotlb_find(const struct iotlb *iotlb, uint64_t id, uint64_t iova)
{
    uint64_t key = iotlb_entry_key(iotlb, id, iova);
    struct iotlb_slot *slot = iotlb_slot(iotlb, id, iova);
    uint64_t check = atomic_load_explicit(&slot->check, memory_order_relaxed);
    uint64_t frame = atomic_load_explicit(&slot->frame, memory_order_acquire);

    if (iova >> IOTLB_ADDRESS_BITS || (check ^ frame * iotlb->secret) != key) {
        return 0;
    }
    return frame;
}

/*
 * Caches one page. `id` is what the tag's id was before the walk began; `size_level` is 0 for a 4
 * KiB page, 1 for 2 MiB, 2 for 1 GiB.
 */
static inline void iotlb_fill(struct iotlb *iotlb, struct iotlb_tag *tag, uint64_t id,
                              uint64_t iova, uint64_t frame, unsigned size_level)
{
    uint64_t key = iotlb_entry_key(iotlb, id, iova);
    struct iotlb_slot *slot = iotlb_slot(iotlb, id, iova);

    if (!id || iova >> IOTLB_ADDRESS_BITS) {
        return;
    }
    if (size_level) {
        atomic_fetch_or_explicit(&tag->super_pages, 1u << size_level, memory_order_relaxed);
    }
    atomic_store_explicit(&slot->check, key ^ frame * iotlb->secret, memory_order_relaxed);
    atomic_store_explicit(&slot->frame, frame, memory_order_release);
}

#endif
