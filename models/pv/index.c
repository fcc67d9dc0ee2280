/* SPDX-License-Identifier: BSD-2-Clause */
/* The reverse index of a VM. See index.h. */
#include "pv/index.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"

enum {
    SEGMENT_BITS = 9,
    SEGMENT = 1 << SEGMENT_BITS,
    CHAINS_MIN = 64,
};

/* Orders of pages, largest last. */
static const unsigned orders[] = {0, 9, 18};
enum {
    ORDERS = sizeof(orders) / sizeof(orders[0]),
};

void pv_index_init(struct pv_index *index, uint64_t seed)
{
    *index = (struct pv_index){.seed = seed};
}

static void release(struct pv_index *index)
{
    for (size_t i = 0; i < index->segment_room; i++) {
        base_free(index->segments[i]);
    }
    base_free(index->segments);
    index->segments = NULL;
    index->segment_room = 0;
    index->chains = 0;
}

void pv_index_fini(struct pv_index *index)
{
    release(index);
}

static struct pv_slot **head(const struct pv_index *index, uint64_t chain)
{
    return &index->segments[chain >> SEGMENT_BITS][chain & (SEGMENT - 1)];
}

static uint64_t hash(const struct pv_index *index, uint64_t frame)
{
    uint64_t mixed = (frame >> 3 ^ index->seed) * UINT64_C(0x9e3779b97f4a7c15);

    mixed ^= mixed >> 29;
    mixed *= UINT64_C(0xbf58476d1ce4e5b9);
    return (mixed ^ mixed >> 32) << 3 | (frame & 7);
}

/* The largest power of two up to the number of chains. */
static uint64_t base_of(const struct pv_index *index)
{
    return UINT64_C(1) << (63 - __builtin_clzll(index->chains));
}

static uint64_t chain_of(const struct pv_index *index, uint64_t frame)
{
    uint64_t base = base_of(index);
    uint64_t value = hash(index, frame);
    uint64_t chain = value & (2 * base - 1);

    return chain < index->chains ? chain : value & (base - 1);
}

static void link_in(struct pv_slot **at, struct pv_slot *slot)
{
    slot->next = *at;
    slot->at = at;
    if (*at) {
        (*at)->at = &slot->next;
    }
    *at = slot;
}

static void link_out(struct pv_slot *slot)
{
    *slot->at = slot->next;
    if (slot->next) {
        slot->next->at = slot->at;
    }
    slot->next = NULL;
    slot->at = NULL;
}

/* Makes the segment that a chain is in. */
static int segment_for(struct pv_index *index, uint64_t chain)
{
    size_t segment = (size_t)(chain >> SEGMENT_BITS);

    if (segment >= index->segment_room) {
        size_t room = index->segment_room ? index->segment_room * 2 : 1;
        struct pv_slot ***segments = base_realloc_array(index->segments, room, sizeof(*segments));

        if (!segments) {
            return -ENOMEM;
        }
        memset(segments + index->segment_room, 0, (room - index->segment_room) * sizeof(*segments));
        index->segments = segments;
        index->segment_room = room;
    }
    if (!index->segments[segment]) {
        index->segments[segment] = base_alloc_array(SEGMENT, sizeof(**index->segments));
    }
    return index->segments[segment] ? 0 : -ENOMEM;
}

/* One chain more. Without memory for it the others get longer. */
static void grow(struct pv_index *index)
{
    uint64_t fresh = index->chains;
    struct pv_slot *slot;

    if (segment_for(index, fresh)) {
        return;
    }
    slot = *head(index, fresh & ~base_of(index));
    index->chains++;
    while (slot) {
        struct pv_slot *next = slot->next;

        if (chain_of(index, slot->frame) == fresh) {
            link_out(slot);
            link_in(head(index, fresh), slot);
        }
        slot = next;
    }
}

int pv_index_add(struct pv_index *index, struct pv_slot *slot)
{
    if (index->chains == 0) {
        if (segment_for(index, 0)) {
            return -ENOMEM;
        }
        index->chains = CHAINS_MIN;
    } else if (index->count >= index->chains) {
        grow(index);
    }
    link_in(head(index, chain_of(index, slot->frame)), slot);
    index->count++;
    return 0;
}

void pv_index_remove(struct pv_index *index, struct pv_slot *slot)
{
    link_out(slot);
    if (--index->count == 0 && index->chains > SEGMENT) {
        release(index);
    }
}

/* From `slot` on in its chain, then in those of larger orders than `which`. */
static struct pv_slot *search(const struct pv_index *index, uint64_t frame, unsigned which,
                              struct pv_slot *slot)
{
    for (;;) {
        uint64_t first = frame & ~((UINT64_C(1) << orders[which]) - 1);

        for (; slot; slot = slot->next) {
            if (slot->frame == first && slot->order == orders[which]) {
                return slot;
            }
        }
        if (++which == ORDERS) {
            return NULL;
        }
        first = frame & ~((UINT64_C(1) << orders[which]) - 1);
        slot = *head(index, chain_of(index, first));
    }
}

struct pv_slot *pv_index_find(const struct pv_index *index, uint64_t frame)
{
    return index->count ? search(index, frame, 0, *head(index, chain_of(index, frame))) : NULL;
}

struct pv_slot *pv_index_after(const struct pv_index *index, uint64_t frame,
                               const struct pv_slot *slot)
{
    unsigned which = 0;

    while (orders[which] != slot->order) {
        which++;
    }
    return search(index, frame, which, slot->next);
}

struct pv_slot *pv_index_any(const struct pv_index *index, uint64_t *position)
{
    if (index->count == 0) {
        return NULL;
    }
    for (; *position < index->chains; ++*position) {
        struct pv_slot *slot = *head(index, *position);

        if (slot) {
            return slot;
        }
    }
    return NULL;
}

#ifdef VIOMMU_TESTING

const char *pv_index_check(const struct pv_index *index, uint32_t vm)
{
    uint64_t count = 0;

    for (uint64_t chain = 0; chain < index->chains; chain++) {
        struct pv_slot **at = head(index, chain);

        for (; *at; at = &(*at)->next) {
            count++;
            if ((*at)->at != at || (*at)->vm != vm) {
                return "a chain is broken";
            }
            if (chain_of(index, (*at)->frame) != chain) {
                return "a slot is in another chain than it belongs to";
            }
        }
    }
    return count == index->count ? NULL : "the index's count is wrong";
}

#endif
