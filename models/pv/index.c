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
    BLOCK_BITS = 3,
    BLOCK = 1 << BLOCK_BITS,
    SPARES_MAX = 128, /* as many as 1,024 frames in a row need */
};

/* Orders of pages, largest last. */
static const unsigned orders[] = {0, 9, 18};
enum {
    ORDERS = sizeof(orders) / sizeof(orders[0]),
};

struct pv_block {
    struct pv_block *next;
    uint64_t key; /* pages before its first one, divided by BLOCK */
    uint32_t chain;
    uint8_t order;
    uint8_t used;
    struct pv_slot *pages[BLOCK]; /* the slot that maps it, or the head of a group, or NULL */
};

/* What stands for the slots of one page: a slot that is none, and their list. */
struct pv_group {
    struct pv_slot head; /* PV_SLOT_GROUP */
    struct pv_slot *first;
};

void pv_index_init(struct pv_index *index, uint64_t seed)
{
    *index = (struct pv_index){.seed = seed};
}

/* Frees all memory; nothing is in it. */
static void release(struct pv_index *index)
{
    for (size_t i = 0; i < index->segment_room; i++) {
        base_free(index->segments[i]);
    }
    base_free(index->segments);
    index->segments = NULL;
    index->segment_room = 0;
    index->chains = 0;
    while (index->spare) {
        struct pv_block *next = index->spare->next;

        base_free(index->spare);
        index->spare = next;
    }
    index->spare_count = 0;
}

void pv_index_fini(struct pv_index *index)
{
    release(index);
}

/* ---- chains ---- */

static struct pv_block **head(const struct pv_index *index, uint64_t chain)
{
    return &index->segments[chain >> SEGMENT_BITS][chain & (SEGMENT - 1)];
}

static uint64_t key_of(uint64_t frame, unsigned order)
{
    return frame >> order >> BLOCK_BITS;
}

static uint64_t chain_of(const struct pv_index *index, uint64_t key, unsigned order)
{
    uint64_t mixed = (key ^ index->seed ^ (uint64_t)order << 56) * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t chain;

    mixed ^= mixed >> 29;
    mixed *= UINT64_C(0xbf58476d1ce4e5b9);
    mixed ^= mixed >> 32;
    chain = mixed & (2 * index->mask + 1);
    return chain < index->chains ? chain : mixed & index->mask;
}

/* Makes the segment that a chain is in. */
static int segment_for(struct pv_index *index, uint64_t chain)
{
    size_t segment = (size_t)(chain >> SEGMENT_BITS);

    if (segment >= index->segment_room) {
        size_t room = index->segment_room ? index->segment_room * 2 : 1;
        struct pv_block ***segments = base_realloc_array(index->segments, room, sizeof(*segments));

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
    struct pv_block **at;
    struct pv_block *block;

    if (segment_for(index, fresh)) {
        return;
    }
    if (fresh == 2 * (index->mask + 1)) {
        index->mask = fresh - 1;
    }
    at = head(index, fresh & index->mask);
    index->chains++;
    while ((block = *at)) {
        pv_step();
        if (chain_of(index, block->key, block->order) == fresh) {
            *at = block->next;
            block->chain = (uint32_t)fresh;
            block->next = *head(index, fresh);
            *head(index, fresh) = block;
        } else {
            at = &block->next;
        }
    }
}

/* ---- blocks ---- */

static struct pv_block *block_search(const struct pv_index *index, uint64_t key, unsigned order)
{
    struct pv_block *block;

    if (index->chains == 0) {
        return NULL;
    }
    block = *head(index, chain_of(index, key, order));
    while (block && (block->key != key || block->order != order)) {
        pv_step();
        block = block->next;
    }
    return block;
}

static inline struct pv_block *block_find(const struct pv_index *index, uint64_t frame,
                                          unsigned order)
{
    uint64_t key = key_of(frame, order);
    struct pv_block *block = index->recent;

    return block && block->key == key && block->order == order ? block
                                                               : block_search(index, key, order);
}

static int prepare_chain(struct pv_index *index)
{
    if (index->chains == 0) {
        if (segment_for(index, 0)) {
            return -ENOMEM;
        }
        index->chains = CHAINS_MIN;
        index->mask = CHAINS_MIN - 1;
    } else if (index->blocks >= index->chains) {
        grow(index);
    }
    return 0;
}

static struct pv_block *block_create(struct pv_index *index, uint64_t frame, unsigned order)
{
    struct pv_block *block = index->spare;
    struct pv_block **at;

    if (prepare_chain(index)) {
        return NULL;
    }
    if (block) {
        index->spare = block->next;
        index->spare_count--;
    } else {
        block = base_alloc(sizeof(*block));
        if (!block) {
            return NULL;
        }
    }
    block->key = key_of(frame, order);
    block->order = (uint8_t)order;
    block->chain = (uint32_t)chain_of(index, block->key, order);
    at = head(index, block->chain);
    block->next = *at;
    *at = block;
    index->blocks++;
    return block;
}

/* Walks that are at a block which goes stand at the next one. */
static void walks_leave_block(const struct pv_index *index, const struct pv_block *block)
{
    for (struct pv_walk *walk = index->walks; walk; walk = walk->next) {
        pv_step();
        if (walk->block == block) {
            walk->block = block->next;
            walk->place = 0;
            walk->chain += !block->next;
        }
    }
}

/* Takes an empty block out. */
static void block_drop(struct pv_index *index, struct pv_block *block)
{
    struct pv_block **at = head(index, block->chain);

    while (*at != block) {
        pv_step();
        at = &(*at)->next;
    }
    walks_leave_block(index, block);
    *at = block->next;
    index->blocks--;
    if (index->recent == block) {
        index->recent = NULL;
    }
    if (index->spare_count < SPARES_MAX) {
        block->next = index->spare;
        index->spare = block;
        index->spare_count++;
    } else {
        base_free(block);
    }
}

/* ---- slots ---- */

static struct pv_slot **page_of(struct pv_block *block, uint64_t frame)
{
    return &block->pages[frame >> block->order & (BLOCK - 1)];
}

static bool is_group(const struct pv_slot *page)
{
    return page->state == PV_SLOT_GROUP;
}

static struct pv_group *group_of(struct pv_slot *page)
{
    return (struct pv_group *)(void *)((char *)page - offsetof(struct pv_group, head));
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

/* One more slot of a page that is mapped. */
static int join(struct pv_slot **page, struct pv_slot *slot)
{
    if (!is_group(*page)) {
        struct pv_group *group = base_alloc(sizeof(*group));

        if (!group) {
            return -ENOMEM;
        }
        group->head.state = PV_SLOT_GROUP;
        link_in(&group->first, *page);
        *page = &group->head;
    }
    link_in(&group_of(*page)->first, slot);
    return 0;
}

int pv_index_add(struct pv_index *index, struct pv_slot *slot)
{
    struct pv_block *block = block_find(index, slot->frame, slot->order);
    struct pv_slot **page;

    if (!block) {
        block = block_create(index, slot->frame, slot->order);
        if (!block) {
            return -ENOMEM;
        }
    }
    page = page_of(block, slot->frame);
    if (!*page) {
        *page = slot;
        block->used++;
    } else if (join(page, slot)) {
        return -ENOMEM;
    }
    index->recent = block;
    index->count++;
    index->large += slot->order != 0;
    return 0;
}

/* Walks that are at a slot which goes stand at the next one of the page. */
static void walks_leave_slot(const struct pv_index *index, const struct pv_slot *slot)
{
    for (struct pv_walk *walk = index->walks; walk; walk = walk->next) {
        pv_step();
        if (walk->slot == slot) {
            walk->slot = slot->next;
        }
    }
}

void pv_index_remove(struct pv_index *index, struct pv_slot *slot)
{
    struct pv_block *block = block_find(index, slot->frame, slot->order);
    struct pv_slot **page = page_of(block, slot->frame);

    if (index->walks) {
        walks_leave_slot(index, slot);
    }
    index->recent = block;
    index->count--;
    index->large -= slot->order != 0;
    if (slot->at) {
        struct pv_group *group = group_of(*page);

        link_out(slot);
        if (group->first) {
            return;
        }
        base_free(group);
    }
    *page = NULL;
    if (--block->used == 0) {
        block_drop(index, block);
    }
    if (index->count == 0 && index->chains > SEGMENT) {
        release(index);
    }
}

/* No walk stands at a slot that is alone. */
void pv_index_remove_run(struct pv_index *index, const struct pv_slot *slots, unsigned count)
{
    uint64_t frame = slots->frame;
    uint64_t end = frame + count;

    index->count -= count;
    while (frame < end) {
        struct pv_block *block = block_find(index, frame, 0);
        unsigned place = (unsigned)frame & (BLOCK - 1);
        unsigned some = BLOCK - place < end - frame ? BLOCK - place : (unsigned)(end - frame);

        for (unsigned i = 0; i < some; i++) {
            block->pages[place + i] = NULL;
        }
        block->used = (uint8_t)(block->used - some);
        index->recent = block;
        if (block->used == 0) {
            block_drop(index, block);
        }
        frame += some;
    }
    if (index->count == 0 && index->chains > SEGMENT) {
        release(index);
    }
}

void pv_index_prefetch(const struct pv_index *index, uint64_t frame, unsigned count)
{
    uint64_t end = index->chains ? frame + count : frame;

    for (; frame < end; frame = (frame | (BLOCK - 1)) + 1) {
        struct pv_block *block = *head(index, chain_of(index, key_of(frame, 0), 0));

        if (block) {
            __builtin_prefetch(block, 1);
            __builtin_prefetch(&block->pages[frame & (BLOCK - 1)], 1);
        }
    }
}

/* ---- going through them ---- */

/* The first slot of the page of an order that has the frame in it. */
static struct pv_slot *first_of(const struct pv_index *index, uint64_t frame, unsigned order)
{
    struct pv_block *block = block_find(index, frame, order);
    struct pv_slot *page = block ? *page_of(block, frame) : NULL;

    return page && is_group(page) ? group_of(page)->first : page;
}

bool pv_index_has(const struct pv_index *index, uint64_t frame)
{
    for (unsigned i = 0; i < ORDERS; i++) {
        if ((i == 0 || index->large) && first_of(index, frame, orders[i])) {
            return true;
        }
    }
    return false;
}

static void walk_register(struct pv_index *index, struct pv_walk *walk)
{
    walk->next = index->walks;
    index->walks = walk;
}

void pv_walk_begin(struct pv_index *index, struct pv_walk *walk, uint64_t frame)
{
    *walk = (struct pv_walk){.frame = frame};
    walk_register(index, walk);
}

void pv_walk_end(struct pv_index *index, struct pv_walk *walk)
{
    struct pv_walk **at = &index->walks;

    while (*at != walk) {
        at = &(*at)->next;
    }
    *at = walk->next;
}

struct pv_slot *pv_walk_next(const struct pv_index *index, struct pv_walk *walk)
{
    struct pv_slot *slot = walk->slot;

    while (!slot && walk->order < ORDERS) {
        if (walk->order == 0 || index->large) {
            slot = first_of(index, walk->frame, orders[walk->order]);
        }
        walk->order++;
    }
    pv_step();
    walk->slot = slot ? slot->next : NULL;
    return slot;
}

void pv_walk_all_begin(struct pv_index *index, struct pv_walk *walk)
{
    *walk = (struct pv_walk){.chain = 0};
    walk_register(index, walk);
}

/* The block that a walk is at, or NULL at its end. */
static struct pv_block *walk_block(const struct pv_index *index, struct pv_walk *walk)
{
    while (!walk->block && walk->chain < index->chains) {
        walk->block = *head(index, walk->chain);
        walk->place = 0;
        walk->chain += !walk->block;
    }
    return walk->block;
}

struct pv_slot *pv_walk_all_next(const struct pv_index *index, struct pv_walk *walk)
{
    struct pv_slot *slot = walk->slot;

    while (!slot && walk_block(index, walk)) {
        struct pv_slot *page = walk->block->pages[walk->place];

        pv_step();
        slot = page && is_group(page) ? group_of(page)->first : page;
        if (++walk->place == BLOCK) {
            walk->block = walk->block->next;
            walk->place = 0;
            walk->chain += !walk->block;
        }
    }
    pv_step();
    walk->slot = slot ? slot->next : NULL;
    return slot;
}

#ifdef VIOMMU_TESTING

static const char *check_slot(const struct pv_block *block, unsigned place,
                              const struct pv_slot *slot, uint32_t vm)
{
    if (slot->vm != vm || slot->order != block->order ||
        slot->frame >> slot->order != block->key * BLOCK + place) {
        return "a slot is in another place of the index than it belongs to";
    }
    return slot->state == PV_SLOT_FREE || slot->state == PV_SLOT_REVOKED
               ? "a slot is in the index, and maps nothing"
               : NULL;
}

static const char *check_page(const struct pv_block *block, unsigned place, uint32_t vm,
                              uint64_t *count)
{
    struct pv_slot *page = block->pages[place];
    const char *wrong = NULL;

    if (!is_group(page)) {
        ++*count;
        return page->at || page->next ? "a slot that is alone is in a list"
                                      : check_slot(block, place, page, vm);
    }
    if (!group_of(page)->first) {
        return "an empty group";
    }
    for (struct pv_slot **at = &group_of(page)->first; *at && !wrong; at = &(*at)->next) {
        ++*count;
        wrong = (*at)->at != at ? "a group is broken" : check_slot(block, place, *at, vm);
    }
    return wrong;
}

static const char *check_block(const struct pv_block *block, uint32_t vm, uint64_t *count)
{
    unsigned used = 0;
    const char *wrong = NULL;

    for (unsigned place = 0; place < BLOCK && !wrong; place++) {
        if (block->pages[place]) {
            used++;
            wrong = check_page(block, place, vm, count);
        }
    }
    if (!wrong && (used == 0 || used != block->used)) {
        wrong = "a block's count is wrong";
    }
    return wrong;
}

const char *pv_index_check(const struct pv_index *index, uint32_t vm)
{
    uint64_t count = 0;
    uint64_t blocks = 0;
    unsigned spares = 0;
    const char *wrong = NULL;

    for (uint64_t chain = 0; chain < index->chains; chain++) {
        for (const struct pv_block *block = *head(index, chain); block && !wrong;
             block = block->next) {
            blocks++;
            wrong = chain_of(index, block->key, block->order) != chain || block->chain != chain
                        ? "a block is in another chain than it belongs to"
                        : check_block(block, vm, &count);
        }
    }
    for (const struct pv_block *block = index->spare; block; block = block->next) {
        spares++;
    }
    if (!wrong && (count != index->count || blocks != index->blocks ||
                   spares != index->spare_count || index->large > count)) {
        wrong = "the index's count is wrong";
    }
    return wrong;
}

#endif
