/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Blocks of 1 GiB that are looked at as one: mapped by one entry, now or before, or gone.
 *
 * Where a page of 1 GiB is a table now, its block is *cut*: a node of 512 blocks is made of it
 * aside, one block a step, each as the tables have it. Members walk to the whole of it at once, so
 * that what changed goes and comes only once.
 */
#include "shadow/sync.h"

#include <errno.h>

#define MASK_1G ((1ULL << shadow_shift(2)) - 1)
#define PAGES_1G ((uint64_t)SHADOW_PAGES * SHADOW_PAGES)

/* Counts and tells what a page of 1 GiB changes. Returns whether live entries were rewritten. */
static bool count_1g(struct viommu *iommu, const struct shadow *shadow,
                     const struct shadow_slot *old, uint64_t address, uint64_t value)
{
    enum viommu_cause cause = iommu->follow.cause_now;
    struct block block;
    bool rewritten = false;

    if (old->kind == SHADOW_EMPTY) {
        iommu->stats.pages_appeared[cause] += PAGES_1G;
        return false;
    }
    if (old->kind == SHADOW_RUN) {
        iommu->stats.pages_rewritten[cause] += PAGES_1G;
        tell_rewritten_stretch(iommu, shadow, address, address | MASK_1G,
                               old->value, value);
        return true;
    }
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        block_begin(&block, &empty_slot, address + ((uint64_t)i << shadow_shift(1)), UINT64_MAX);
        shadow_slot_expand(&old->node->slots[i], block.old);
        for (unsigned j = 0; j < SHADOW_PAGES; j++) {
            block.new[j] = value;
            value += 4096;
        }
        if (count_changes(iommu, &block)) {
            tell_rewritten(iommu, shadow, &block);
            rewritten = true;
        }
    }
    return rewritten;
}

enum verdict large_page_step(struct viommu *iommu, struct shadow *shadow, uint64_t value,
                             uint64_t address)
{
    const struct shadow_slot *old = slot_at(shadow, 2, address);
    struct shadow_slot slot = {
        .value = value | SHADOW_START,
        .kind = SHADOW_RUN,
        .whole = true,
        .last = SHADOW_PAGES - 1,
    };
    uint64_t last = address | MASK_1G;
    enum verdict verdict;

    tables_count(iommu);
    if ((old->kind == SHADOW_RUN && same_value(old->value, value)) ||
        (old->kind == SHADOW_NODE && blocks_are(old, value))) {
        count_same(iommu, PAGES_1G, 0);
        return SAME;
    }
    if (count_1g(iommu, shadow, old, address, value) &&
        !policy_lets(iommu, shadow, address, last)) {
        return STOPPED;
    }
    verdict = patch_make(iommu, shadow, 2, address, &slot);
    if (verdict == CHANGED) {
        tell_stretch_unreachable(iommu, shadow, address, last, value);
    }
    return verdict;
}

/* Pages of a level-2 slot that go. */
static void count_gone_1g(struct viommu *iommu, const struct shadow_slot *slot)
{
    uint64_t gone = 0;

    for (unsigned i = 0; slot->kind == SHADOW_NODE && i < SHADOW_PAGES; i++) {
        gone += slot_present(&slot->node->slots[i], 0, SHADOW_PAGES - 1);
    }
    if (slot->kind == SHADOW_RUN) {
        gone = PAGES_1G;
    }
    iommu->stats.pages_gone[iommu->follow.cause_now] += gone;
}

enum verdict large_remove(struct viommu *iommu, struct shadow *shadow, const struct region *region,
                          uint64_t address)
{
    struct shadow_slot nothing = {0};

    address &= ~MASK_1G;
    tables_count(iommu);
    if (region->kind == REGION_BAD) {
        tell_bad(iommu, shadow, region->first, region->last);
    }
    count_gone_1g(iommu, slot_at(shadow, 2, address));
    return patch_make(iommu, shadow, 2, address, &nothing);
}

bool large_is_cut(const struct shadow *shadow, const struct region *region, uint64_t address)
{
    return slot_at(shadow, 2, address)->kind == SHADOW_RUN &&
           (region->first > (address & ~MASK_1G) || region->last < (address | MASK_1G));
}

enum verdict large_cut_begin(struct viommu *iommu, struct shadow *shadow, uint64_t address)
{
    struct shadow_patch *patch = &iommu->follow.patch;

    *patch = (struct shadow_patch){
        .first = address & ~MASK_1G,
        .last = address | MASK_1G,
        .level = 2,
    };
    if (shadow_slot_break(slot_at(shadow, 2, address), &patch->slot)) {
        return stop(iommu, shadow, -ENOMEM, true, "no memory to follow the guest's tables");
    }
    iommu->follow.cutting = true;
    iommu->follow.cut_at = 0;
    iommu->follow.cut_differs = false;
    return AGAIN;
}

/* Puts a block's new slot into the node that is made. */
static void node_set(struct shadow_slot *node, unsigned index, const struct shadow_slot *slot)
{
    shadow_slot_free(&node->node->slots[index]);
    node->node->slots[index] = *slot;
    node->count -= slot->kind == SHADOW_EMPTY;
}

/* One of its 512 blocks. */
static enum verdict cut_block(struct viommu *iommu, struct shadow *shadow, unsigned index)
{
    struct shadow_patch *patch = &iommu->follow.patch;
    uint64_t address = patch->first + ((uint64_t)index << shadow_shift(1));
    struct region region =
        region_find(iommu, shadow, address, address | ((1ULL << shadow_shift(1)) - 1));
    struct shadow_slot slot;
    enum verdict verdict;
    struct block block;

    if (!tables_left(iommu, shadow, &region)) {
        return stop_for_quota(iommu, shadow, patch->first, patch->last);
    }
    tables_count(iommu);
    block_begin(&block, &empty_slot, address, UINT64_MAX);
    shadow_slot_expand(&patch->slot.node->slots[index], block.old);
    if (!block_read(iommu, &region, &block)) {
        patch->slot.node->slots[index].whole = region.kind == REGION_PAGE;
        count_same(iommu, SHADOW_PAGES, 0);
        return AGAIN;
    }
    verdict = block_build(iommu, shadow, &block, region.kind == REGION_PAGE, &slot);
    if (verdict != CHANGED) {
        return verdict;
    }
    iommu->follow.cut_differs = true;
    node_set(&patch->slot, index, &slot);
    tell_unreachable(iommu, shadow, &block);
    return AGAIN;
}

/* All blocks are made. */
static enum verdict cut_end(struct viommu *iommu, struct shadow *shadow)
{
    struct shadow_slot slot = iommu->follow.patch.slot;

    iommu->follow.cutting = false;
    if (!iommu->follow.cut_differs) {
        shadow_slot_free(&slot);
        return SAME;
    }
    if (!slot.count) {
        shadow_slot_free(&slot);
        slot = empty_slot;
    }
    return patch_make(iommu, shadow, 2, iommu->follow.patch.first, &slot);
}

enum verdict large_cut_step(struct viommu *iommu, struct shadow *shadow, uint64_t *first,
                            uint64_t *last)
{
    *first = iommu->follow.patch.first;
    *last = iommu->follow.patch.last;
    if (iommu->follow.cut_at < SHADOW_PAGES) {
        return cut_block(iommu, shadow, iommu->follow.cut_at++);
    }
    return cut_end(iommu, shadow);
}
