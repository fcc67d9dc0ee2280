/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The caches of the modes that test drivers: a hash table under a lock, in place of the fast cache.
 *
 * Vocabulary. A *page* is what one walk of the tables found: a page of any size, kept whole, or
 * (where the model allows it) that there is none, or a fault. It is known by its domain and its
 * first address, as hardware knows it: which table it came from does not count, so a guest that
 * gives a domain other tables and does not say so meets the old ones. *Keeping* is to put a page
 * in. A *ticket* is the number of drops so far.
 *
 * Faithful: a page stays until it is dropped. When there is no more room, further pages are not
 * kept, and the caller is told so once, until something is dropped.
 *
 * Hostile: by a seeded sequence of numbers a page is lost when it is asked for; or passed over once
 * and then, perhaps, not replaced, so that old and new take turns. When there is no more room
 * another page is lost. Hardware may do all of this.
 *
 * Invariants:
 * - A page is in one bucket; there are at most `quota` of them. No two have the same domain, level
 *   and first address.
 * - A page that was looked up before a drop is not kept after it: its ticket is too old. So what a
 *   drop took does not come back from a walk under way.
 *
 * Locking: `lock`, inside of each function; the IOMMU's lock may be held by the caller, a section
 * may be open. Nothing is called with it held.
 */
#ifndef VIOMMU_IOTLB_KEPT_H
#define VIOMMU_IOTLB_KEPT_H

#include <pthread.h>
#include <stdatomic.h>
#include <viommu/iommu.h>

struct kept_page {
    uint64_t iova;   /* first address */
    uint64_t gpa;    /* of that */
    uint64_t entry;  /* the model's: the last entry that was read */
    uint16_t domain;
    uint8_t level;   /* 0: 4 KiB, 1: 2 MiB, 2: 1 GiB */
    uint8_t perm;    /* enum viommu_perm; 0: there is no page */
    uint8_t reason;  /* the model's: a fault */
};

struct kept_node;

struct kept {
    pthread_mutex_t lock;
    enum viommu_cache_mode mode;
    uint64_t random;
    uint32_t quota;
    uint32_t count;
    uint32_t buckets; /* a power of two */
    bool full_told;
    _Atomic uint64_t drops;
    struct kept_node **table;
};

/* What becomes of something cached that is asked for. */
enum kept_chance {
    KEPT_USE,
    KEPT_PASS_OVER, /* this time */
    KEPT_LOSE,
};

/* The cache of a mode that is not normal. Returns 0 or -ENOMEM. */
int kept_create(enum viommu_cache_mode mode, uint64_t seed, uint32_t quota, struct kept **out);
/* NULL is accepted. */
void kept_destroy(struct kept *kept);

static inline uint64_t kept_ticket(const struct kept *kept)
{
    return atomic_load_explicit(&kept->drops, memory_order_acquire);
}

/*
 * The page of a domain that an address lies in, the smallest first. Returns whether there is one,
 * and it is to be used this time.
 */
bool kept_find(struct kept *kept, uint16_t domain, uint64_t iova, struct kept_page *out);

/*
 * Keeps a page whose ticket was taken before its walk, and before anything else that the walk went
 * by. Returns 0; -ENOSPC for the first page that is not kept for want of room.
 */
int kept_add(struct kept *kept, const struct kept_page *page, uint64_t ticket);

void kept_drop_all(struct kept *kept);
void kept_drop_domain(struct kept *kept, uint16_t domain);
/* Every page of the domain that meets [first, last], whole. */
void kept_drop_range(struct kept *kept, uint16_t domain, uint64_t first, uint64_t last);

/* Hostile: what becomes of something that is cached. Faithful: it is used. */
enum kept_chance kept_chance(struct kept *kept);
/* Hostile: a number below `bound`. Faithful: 0. */
unsigned kept_below(struct kept *kept, unsigned bound);

#endif
