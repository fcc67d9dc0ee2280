/* SPDX-License-Identifier: BSD-2-Clause */
/* The caches of the modes that test drivers: see kept.h. */
#include "iotlb/kept.h"

#include "base/alloc.h"

#include <errno.h>

#define LEVELS 3
#define PAGE_SHIFT 12
#define BUCKETS_MIN 64u
/* Buckets looked at for a page to lose. */
#define LOSE_TRIES 64

struct kept_node {
    struct kept_node *next;
    struct kept_page page;
};

static unsigned shift_of(unsigned level)
{
    return PAGE_SHIFT + 9 * level;
}

static uint64_t mask_of(unsigned level)
{
    return (1ULL << shift_of(level)) - 1;
}

/* Mixes all bits of a number into all of the result (splitmix64's last step). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static struct kept_node **bucket_of(struct kept *kept, uint16_t domain, uint64_t iova,
                                    unsigned level)
{
    uint64_t key = iova >> shift_of(level) ^ (uint64_t)domain << 48 ^ (uint64_t)level << 46;

    return &kept->table[mix(key) & (kept->buckets - 1)];
}

/* The link that points to a page, or to NULL at the end of its bucket. */
static struct kept_node **link_of(struct kept *kept, uint16_t domain, uint64_t iova,
                                  unsigned level)
{
    struct kept_node **link = bucket_of(kept, domain, iova, level);
    uint64_t first = iova & ~mask_of(level);

    while (*link && ((*link)->page.domain != domain || (*link)->page.level != level ||
                     (*link)->page.iova != first)) {
        link = &(*link)->next;
    }
    return link;
}

static void lose(struct kept *kept, struct kept_node **link)
{
    struct kept_node *node = *link;

    *link = node->next;
    base_free(node);
    kept->count--;
    kept->full_told = false;
}

/* The next number of the sequence (splitmix64). Under the lock. */
static uint64_t next_random(struct kept *kept)
{
    kept->random += 0x9e3779b97f4a7c15ULL;
    return mix(kept->random);
}

int kept_create(enum viommu_cache_mode mode, uint64_t seed, uint32_t quota, struct kept **out)
{
    struct kept *kept = base_alloc(sizeof(*kept));

    if (!kept) {
        return -ENOMEM;
    }
    kept->mode = mode;
    kept->random = seed;
    kept->quota = quota;
    kept->buckets = BUCKETS_MIN;
    while (kept->buckets < quota && kept->buckets < 1u << 16) {
        kept->buckets *= 2;
    }
    kept->table = base_alloc(kept->buckets * sizeof(struct kept_node *));
    if (!kept->table) {
        base_free(kept);
        return -ENOMEM;
    }
    pthread_mutex_init(&kept->lock, NULL);
    *out = kept;
    return 0;
}

void kept_destroy(struct kept *kept)
{
    if (!kept) {
        return;
    }
    kept_drop_all(kept);
    pthread_mutex_destroy(&kept->lock);
    base_free(kept->table);
    base_free(kept);
}

static enum kept_chance chance(struct kept *kept)
{
    unsigned dice;

    if (kept->mode != VIOMMU_CACHE_HOSTILE) {
        return KEPT_USE;
    }
    dice = next_random(kept) >> 60;
    return dice < 2 ? KEPT_LOSE : dice < 5 ? KEPT_PASS_OVER : KEPT_USE;
}

enum kept_chance kept_chance(struct kept *kept)
{
    enum kept_chance result;

    pthread_mutex_lock(&kept->lock);
    result = chance(kept);
    pthread_mutex_unlock(&kept->lock);
    return result;
}

unsigned kept_below(struct kept *kept, unsigned bound)
{
    unsigned result = 0;

    if (kept->mode == VIOMMU_CACHE_HOSTILE) {
        pthread_mutex_lock(&kept->lock);
        result = (unsigned)((next_random(kept) >> 32) * bound >> 32);
        pthread_mutex_unlock(&kept->lock);
    }
    return result;
}

static bool find(struct kept *kept, uint16_t domain, uint64_t iova, struct kept_page *out)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        struct kept_node **link = link_of(kept, domain, iova, level);

        if (!*link) {
            continue;
        }
        switch (chance(kept)) {
        case KEPT_LOSE:
            lose(kept, link);
            return false;
        case KEPT_PASS_OVER:
            return false;
        case KEPT_USE:
            *out = (*link)->page;
            return true;
        }
    }
    return false;
}

bool kept_find(struct kept *kept, uint16_t domain, uint64_t iova, struct kept_page *out)
{
    bool found;

    pthread_mutex_lock(&kept->lock);
    found = find(kept, domain, iova, out);
    pthread_mutex_unlock(&kept->lock);
    return found;
}

/* Hostile, and full: some page goes, if one is found soon. */
static void lose_any(struct kept *kept)
{
    for (unsigned i = 0; i < LOSE_TRIES; i++) {
        struct kept_node **link = &kept->table[next_random(kept) & (kept->buckets - 1)];

        if (*link) {
            lose(kept, link);
            return;
        }
    }
}

/* No room. Returns -ENOSPC when nobody has been told yet. */
static int no_room(struct kept *kept)
{
    if (kept->full_told || kept->mode == VIOMMU_CACHE_HOSTILE) {
        return 0;
    }
    kept->full_told = true;
    return -ENOSPC;
}

static int add(struct kept *kept, const struct kept_page *page)
{
    struct kept_node **link = link_of(kept, page->domain, page->iova, page->level);
    struct kept_node *node;

    if (*link) {
        /* Another thread kept it, or it was passed over. */
        if (kept->mode == VIOMMU_CACHE_HOSTILE && next_random(kept) >> 63) {
            (*link)->page = *page;
        }
        return 0;
    }
    if (kept->count >= kept->quota && kept->mode == VIOMMU_CACHE_HOSTILE) {
        lose_any(kept);
    }
    node = kept->count < kept->quota ? base_alloc(sizeof(*node)) : NULL;
    if (!node) {
        return no_room(kept);
    }
    /* The page that was lost may have been the one that `link` is in. */
    link = bucket_of(kept, page->domain, page->iova, page->level);
    node->page = *page;
    node->next = *link;
    *link = node;
    kept->count++;
    return 0;
}

int kept_add(struct kept *kept, const struct kept_page *page, uint64_t ticket)
{
    int ret = 0;

    pthread_mutex_lock(&kept->lock);
    if (ticket == atomic_load(&kept->drops)) {
        ret = add(kept, page);
    }
    pthread_mutex_unlock(&kept->lock);
    return ret;
}

struct drop {
    bool all;
    uint16_t domain;
    uint64_t first;
    uint64_t last;
};

static bool concerns(const struct drop *drop, const struct kept_page *page)
{
    return drop->all || (page->domain == drop->domain && page->iova <= drop->last &&
                         (page->iova | mask_of(page->level)) >= drop->first);
}

static void drop_everywhere(struct kept *kept, const struct drop *drop)
{
    for (uint32_t i = 0; i < kept->buckets && kept->count; i++) {
        struct kept_node **link = &kept->table[i];

        while (*link) {
            if (concerns(drop, &(*link)->page)) {
                lose(kept, link);
            } else {
                link = &(*link)->next;
            }
        }
    }
}

/* Looks each page of the range up, of each size. */
static void drop_one_by_one(struct kept *kept, const struct drop *drop)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        uint64_t last = drop->last >> shift_of(level);

        for (uint64_t n = drop->first >> shift_of(level); n <= last; n++) {
            struct kept_node **link = link_of(kept, drop->domain, n << shift_of(level), level);

            if (*link) {
                lose(kept, link);
            }
        }
    }
}

static void drop(struct kept *kept, const struct drop *drop)
{
    uint64_t pages = (drop->last >> PAGE_SHIFT) - (drop->first >> PAGE_SHIFT);

    pthread_mutex_lock(&kept->lock);
    atomic_fetch_add(&kept->drops, 1);
    if (drop->all || pages >= kept->buckets / LEVELS) {
        drop_everywhere(kept, drop);
    } else {
        drop_one_by_one(kept, drop);
    }
    pthread_mutex_unlock(&kept->lock);
}

void kept_drop_all(struct kept *kept)
{
    drop(kept, &(struct drop){.all = true});
}

void kept_drop_domain(struct kept *kept, uint16_t domain)
{
    drop(kept, &(struct drop){.domain = domain, .last = UINT64_MAX});
}

void kept_drop_range(struct kept *kept, uint16_t domain, uint64_t first, uint64_t last)
{
    drop(kept, &(struct drop){.domain = domain, .first = first, .last = last});
}
