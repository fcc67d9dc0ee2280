/* SPDX-License-Identifier: BSD-2-Clause */
/* The translation cache: tags and their ids, invalidation, renewal of ids. */
#include "iotlb/iotlb.h"

#include "base/alloc.h"

#include <errno.h>
#include <sys/random.h>

/* Pages dropped one by one in one call, all tags together: more would cost more than new ids. */
#define DROP_PAGES_MAX 1024
#define CACHE_LINE 64

_Static_assert(sizeof(struct iotlb_slot) == 1 << IOTLB_SLOT_SHIFT &&
                   offsetof(struct iotlb_slot, check) == 0,
               "places are offsets in bytes");

int iotlb_init(struct iotlb *iotlb, struct epoch *epoch, uint32_t entries)
{
    uint64_t secret;

    *iotlb = (struct iotlb){.epoch = epoch, .mask = entries - 1, .id_next = 1};
    iotlb->table.offset_mask = iotlb->mask << IOTLB_SLOT_SHIFT;
    iotlb->table.upper_shift =
        IOTLB_PAGE_SHIFT - IOTLB_SLOT_SHIFT + (unsigned)__builtin_ctz(entries);
    iotlb->id_last = ((1ULL << IOTLB_LEVEL_SHIFT) - 1) >> iotlb_id_shift(&iotlb->table);
    if (getrandom(&secret, sizeof(secret), GRND_NONBLOCK) != (ssize_t)sizeof(secret)) {
        /* Early at boot: a weaker secret still makes torn entries miss. */
        secret = (uint64_t)(uintptr_t)iotlb * 0x9e3779b97f4a7c15ULL;
    }
    iotlb->table.secret = secret | 1;
    iotlb->table.slots = base_alloc_aligned(CACHE_LINE, entries * sizeof(*iotlb->table.slots));
    if (!iotlb->table.slots) {
        return -ENOMEM;
    }
    iotlb->table.frames = (const char *)&iotlb->table.slots[0].frame;
    return 0;
}

void iotlb_fini(struct iotlb *iotlb)
{
    while (iotlb->tags) {
        struct iotlb_tag *next = iotlb->tags->next;

        base_free(iotlb->tags);
        iotlb->tags = next;
    }
    base_free(iotlb->table.slots);
}

/* A zero check and a zero frame give key 0, and nothing is found under id 0. */
static void slot_clear(struct iotlb_slot *slot)
{
    atomic_store_explicit(&slot->check, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->frame, 0, memory_order_release);
}

/* Ids ran out: nothing is cached until those who may hold one have left. */
static void renewal_begin(struct iotlb *iotlb)
{
    for (struct iotlb_tag *tag = iotlb->tags; tag; tag = tag->next) {
        atomic_store(&tag->id, 0);
    }
    iotlb->renew_target = epoch_begin_drain(iotlb->epoch);
}

static uint64_t id_new(struct iotlb *iotlb)
{
    if (iotlb->renew_target) {
        return 0;
    }
    if (iotlb->id_next > iotlb->id_last) {
        renewal_begin(iotlb);
        return 0;
    }
    return iotlb_id(&iotlb->table, iotlb->id_next++);
}

bool iotlb_renew(struct iotlb *iotlb)
{
    if (!iotlb->renew_target) {
        return false;
    }
    if (!epoch_drained(iotlb->epoch, iotlb->renew_target)) {
        return true;
    }
    for (uint64_t i = 0; i <= iotlb->mask; i++) {
        slot_clear(&iotlb->table.slots[i]);
    }
    iotlb->renew_target = 0;
    iotlb->id_next = 1;
    iotlb_drop_all(iotlb);
    return iotlb->renew_target != 0;
}

static bool key_equal(const struct iotlb_key *a, const struct iotlb_key *b)
{
    return a->root == b->root && a->domain == b->domain && a->levels == b->levels;
}

struct iotlb_tag *iotlb_tag_get(struct iotlb *iotlb, const struct iotlb_key *key)
{
    struct iotlb_tag *tag;

    for (tag = iotlb->tags; tag; tag = tag->next) {
        if (key_equal(&tag->key, key)) {
            tag->users++;
            return tag;
        }
    }
    tag = base_alloc(sizeof(*tag));
    if (!tag) {
        return NULL;
    }
    tag->key = *key;
    tag->users = 1;
    atomic_init(&tag->id, id_new(iotlb));
    tag->next = iotlb->tags;
    iotlb->tags = tag;
    return tag;
}

static void tag_free(struct epoch_deferred *deferred)
{
    base_free((char *)deferred - offsetof(struct iotlb_tag, deferred));
}

void iotlb_tag_put(struct iotlb *iotlb, struct iotlb_tag *tag)
{
    struct iotlb_tag **link = &iotlb->tags;

    if (--tag->users) {
        return;
    }
    while (*link != tag) {
        link = &(*link)->next;
    }
    *link = tag->next;
    epoch_defer(iotlb->epoch, &tag->deferred, tag_free);
}

void iotlb_drop_tag(struct iotlb *iotlb, struct iotlb_tag *tag)
{
    /*
     * No piece of a larger page is cached under the new id. A fill that is under way with the old
     * one may set a bit again: that only makes later drops wider.
     */
    atomic_store_explicit(&tag->super_pages, 0, memory_order_relaxed);
    atomic_store(&tag->id, id_new(iotlb));
}

void iotlb_drop_all(struct iotlb *iotlb)
{
    for (struct iotlb_tag *tag = iotlb->tags; tag; tag = tag->next) {
        iotlb_drop_tag(iotlb, tag);
    }
}

void iotlb_drop_domain(struct iotlb *iotlb, uint16_t domain)
{
    for (struct iotlb_tag *tag = iotlb->tags; tag; tag = tag->next) {
        if (tag->key.domain == domain) {
            iotlb_drop_tag(iotlb, tag);
        }
    }
}

static void drop_pages(struct iotlb *iotlb, uint64_t id, uint64_t first, uint64_t last)
{
    const struct iotlb_table *table = &iotlb->table;

    for (uint64_t page = first >> IOTLB_PAGE_SHIFT; page <= last >> IOTLB_PAGE_SHIFT; page++) {
        uint64_t iova = page << IOTLB_PAGE_SHIFT;
        uint64_t frame;

        if (!(iotlb_probe(table, id, iova, &frame) & iotlb_wanted(0))) {
            slot_clear(iotlb_slot(table, iotlb_entry_key(table, id, iova), iova));
        }
    }
}

/* Drops a range of one tag. Returns true when it was done page by page, taken from *pages_left. */
static bool drop_tag_range(struct iotlb *iotlb, struct iotlb_tag *tag, uint64_t first,
                           uint64_t last, uint64_t *pages_left)
{
    uint32_t super_pages = atomic_load_explicit(&tag->super_pages, memory_order_relaxed);
    uint64_t id = atomic_load(&tag->id);
    unsigned shift = super_pages >> 2 ? 30 : super_pages ? 21 : IOTLB_PAGE_SHIFT;
    uint64_t low = first >> shift << shift;
    uint64_t high = last | ((1ULL << shift) - 1);

    if ((high - low) >> IOTLB_PAGE_SHIFT >= *pages_left) {
        iotlb_drop_tag(iotlb, tag);
        return false;
    }
    *pages_left -= ((high - low) >> IOTLB_PAGE_SHIFT) + 1;
    drop_pages(iotlb, id, low, high);
    return true;
}

bool iotlb_drop_range(struct iotlb *iotlb, uint16_t domain, uint64_t first, uint64_t last)
{
    uint64_t pages_left = DROP_PAGES_MAX;
    bool again = false;

    for (struct iotlb_tag *tag = iotlb->tags; tag; tag = tag->next) {
        if (tag->key.domain == domain) {
            again |= drop_tag_range(iotlb, tag, first, last, &pages_left);
        }
    }
    return again;
}
