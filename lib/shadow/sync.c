/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Syncs: guest tables compared with the map, block by block.
 *
 * One step finds, from where the sync stands, how the guest's tables read there (a *region*: what
 * one entry, or one leaf table, says), compares that with the block in the map, and either passes
 * over it or makes a patch: the block's new slot, built aside. Members walk to the patch; then it
 * is put into the map (follow.c).
 *
 * Each entry that differs is read once more, atomically, and that value is what is decoded, applied
 * and remembered. Whatever the tables are, a step looks at one block of one table, and a sync at so
 * many tables at most.
 *
 * Only pages in the range that was asked for are looked at, except that what the guest maps, or
 * mapped, by one entry is looked at as a whole, as hardware caches and drops it.
 */
#include "shadow/sync.h"

#include <errno.h>
#include <string.h>

/* Leaf tables that one sync may look at besides as many as guest memory has pages. */
#define TABLES_MAX (1u << 20)
/* Blocks that one step may look at, in one section. */
#define BLOCKS_MAX 16

static void region_span(struct region *region, unsigned level, uint64_t address)
{
    uint64_t mask = (1ULL << shadow_shift(level)) - 1;

    region->first = address & ~mask;
    region->last = address | mask;
}

static struct region region_absent(unsigned level, uint64_t address, enum region_kind kind)
{
    struct region region = {.kind = kind};

    region_span(&region, level, address);
    return region;
}

/* Takes in the entries that follow in the same table and are empty, too, as far as is asked for. */
static void region_extend(struct region *region, const struct memory_snapshot *memory,
                          uint64_t table, unsigned level, uint64_t last)
{
    const _Atomic uint64_t *entries = memory_host(memory, table, SHADOW_PAGES * 8, false);
    uint64_t mask = (1ULL << shadow_shift(level)) - 1;

    while (entries && region->last < last) {
        unsigned next = (unsigned)((region->last >> shadow_shift(level)) & 511) + 1;

        if (next == SHADOW_PAGES || (entry_load(&entries[next]) & SHADOW_PERM)) {
            return;
        }
        region->last += mask + 1;
    }
}

/* The leaf table that the next entry of its table leads to: a hint, so nothing is checked. */
static const void *next_leaf(const struct memory_snapshot *memory, uint64_t table, uint64_t address)
{
    uint64_t index = (address >> shadow_shift(1) & 511) + 1;
    uint64_t entry;

    if (index > 511 || !memory_load64(memory, table + index * 8, &entry)) {
        return NULL;
    }
    return memory_host(memory, entry & PAGETABLE_ADDRESS, SHADOW_PAGES * 8, false);
}

struct region region_find(const struct viommu *iommu, const struct shadow *shadow,
                          uint64_t address, uint64_t last)
{
    const struct pagetable_format *format = iommu->model->format(iommu);
    const struct memory_snapshot *memory = memory_snapshot(iommu->memory);
    struct region region = {.allowed = VIOMMU_READ | VIOMMU_WRITE};
    uint64_t table = shadow->root;
    unsigned level = shadow->map.levels;
    uint64_t entry;

    while (--level > 0) {
        if (!memory_load64(memory, table + (address >> shadow_shift(level) & 511) * 8, &entry)) {
            return region_absent(level + 1, address, REGION_BAD);
        }
        region.allowed &= (uint32_t)(entry & SHADOW_PERM);
        if (!region.allowed) {
            region = region_absent(level, address, REGION_ABSENT);
            region_extend(&region, memory, table, level, last);
            return region;
        }
        if (pagetable_reserved(format, level, entry)) {
            return region_absent(level, address, REGION_BAD);
        }
        if (level == 1 && last - address >= 1ULL << shadow_shift(1)) {
            region.next_leaf = next_leaf(memory, table, address);
        }
        table = entry & PAGETABLE_ADDRESS;
        if (pagetable_is_page(format, level, entry)) {
            region.kind = REGION_PAGE;
            region_span(&region, level, address);
            region.value = table | region.allowed;
            return region;
        }
    }
    region.leaf = memory_host(memory, table, SHADOW_PAGES * 8, false);
    region_span(&region, 1, address);
    region.kind = region.leaf ? REGION_LEAF : REGION_BAD;
    return region;
}

const struct shadow_slot empty_slot;

const struct shadow_slot *slot_at(const struct shadow *shadow, unsigned level, uint64_t address)
{
    const struct shadow_slot *slot = shadow_map_slot(&shadow->map, level, address);

    return slot ? slot : &empty_slot;
}

enum verdict patch_make(struct viommu *iommu, struct shadow *shadow, unsigned level,
                        uint64_t address, struct shadow_slot *slot)
{
    struct shadow_patch *patch = &iommu->follow.patch;
    uint64_t mask = (1ULL << shadow_shift(level)) - 1;
    uint64_t before = shadow->map.bytes;

    if (slot->kind != SHADOW_EMPTY &&
        follow_bytes(iommu) + shadow_slot_bytes(slot) > follow_quota(iommu)) {
        shadow_slot_free(slot);
        return stop_for_quota(iommu, shadow, address & ~mask, address | mask);
    }
    if (slot->kind != SHADOW_EMPTY && shadow_map_reserve(&shadow->map, level, address)) {
        shadow_slot_free(slot);
        return stop(iommu, shadow, -ENOMEM, true, "no memory to follow the guest's tables");
    }
    iommu->follow.map_bytes += shadow->map.bytes - before;
    *patch = (struct shadow_patch){
        .first = address & ~mask,
        .last = address | mask,
        .level = (uint8_t)level,
        .slot = *slot,
    };
    iommu->follow.changed = (struct viommu_range){patch->first, patch->last};
    iommu->follow.patched = true;
    return CHANGED;
}

enum verdict block_build(struct viommu *iommu, struct shadow *shadow, struct block *block,
                         bool whole, struct shadow_slot *slot)
{
    if (count_changes(iommu, block)) {
        tell_rewritten(iommu, shadow, block);
        if (!policy_lets(iommu, shadow, block->first, block->last)) {
            return STOPPED;
        }
    }
    tell_newly_bad(iommu, shadow, block);
    mark_starts(block, is_crowded(iommu, shadow));
    if (shadow->fill) {
        adopted_mark_starts(iommu, shadow, block);
    }
    if (shadow_slot_build(block->new, whole, slot)) {
        return stop(iommu, shadow, -ENOMEM, true, "no memory to follow the guest's tables");
    }
    return CHANGED;
}

bool block_read(const struct viommu *iommu, const struct region *region, struct block *block)
{
    const struct pagetable_format *format = iommu->model->format(iommu);
    uint64_t value = 0;
    bool differs = false;

    memcpy(block->new, block->old, sizeof(block->new));
    for (unsigned i = block->low; i <= block->high; i++) {
        uint64_t address = page_address(block, i);

        switch (region->kind) {
        case REGION_LEAF:
            value = entry_value(format, region, i);
            break;
        case REGION_PAGE:
            value = region->value + (address - region->first);
            break;
        case REGION_ABSENT:
            value = 0;
            break;
        case REGION_BAD:
            value = address == region->first ? SHADOW_BAD : 0;
            break;
        }
        if (!same_value(value, block->old[i])) {
            block->new[i] = value;
            differs = true;
        }
    }
    if (differs && region->kind == REGION_BAD) {
        block->bad_first = region->first;
        block->bad_last = region->last;
    }
    return differs;
}

void block_begin(struct block *block, const struct shadow_slot *slot, uint64_t first,
                 uint64_t last)
{
    uint64_t mask = (1ULL << shadow_shift(1)) - 1;

    block->first = first & ~mask;
    block->last = first | mask;
    block->bad_last = 0;
    block->from = 0;
    block->to = SHADOW_PAGES - 1;
    block->low = slot->whole ? 0 : (unsigned)((first & mask) >> 12);
    block->high = slot->whole || last > block->last ? SHADOW_PAGES - 1
                                                    : (unsigned)((last & mask) >> 12);
}

void tables_count(struct viommu *iommu)
{
    iommu->stats.tables_compared[iommu->follow.cause_now]++;
}

/* Makes the patch of a block whose new values are known. */
static enum verdict block_patch(struct viommu *iommu, struct shadow *shadow, struct block *block,
                                bool whole)
{
    struct shadow_slot slot;
    enum verdict verdict = block_build(iommu, shadow, block, whole, &slot);

    if (verdict == CHANGED) {
        verdict = patch_make(iommu, shadow, 1, block->first, &slot);
    }
    if (verdict == CHANGED) {
        iommu->follow.changed = (struct viommu_range){
            page_address(block, block->from),
            page_address(block, block->to) | 0xfff,
        };
        tell_unreachable(iommu, shadow, block);
    }
    return verdict;
}

/* The slot of level 1 after one that holds an address, or NULL. */
static const struct shadow_slot *slot_after(const struct shadow_slot *slot, uint64_t address)
{
    bool ends = (address >> shadow_shift(1) & (SHADOW_PAGES - 1)) == SHADOW_PAGES - 1;

    return slot == &empty_slot || ends ? NULL : slot + 1;
}

static enum verdict leaf_step(struct viommu *iommu, struct shadow *shadow,
                              const struct region *region, uint64_t first, uint64_t *last)
{
    const struct shadow_slot *slot = slot_at(shadow, 1, first);
    struct block block;
    unsigned present;

    block_begin(&block, slot, first, *last);
    *last = page_address(&block, block.high) | 0xfff;
    tables_count(iommu);
    if (slot_differs(iommu->model->format(iommu), region, slot, slot_after(slot, first), block.low,
                     block.high)) {
        shadow_slot_expand(slot, block.old);
        if (block_read(iommu, region, &block)) {
            return block_patch(iommu, shadow, &block, false);
        }
    }
    if (slot->whole) {
        shadow_map_set_whole(&shadow->map, first, false);
    }
    present = slot_present(slot, block.low, block.high);
    count_same(iommu, present, block.high - block.low + 1 - present);
    return SAME;
}

/* A block of 2 MiB that is mapped by one entry. */
static enum verdict page_2m_step(struct viommu *iommu, struct shadow *shadow,
                                 const struct region *region, uint64_t address)
{
    struct block block;

    tables_count(iommu);
    block_begin(&block, &empty_slot, address, UINT64_MAX);
    shadow_slot_expand(slot_at(shadow, 1, address), block.old);
    if (block_read(iommu, region, &block)) {
        return block_patch(iommu, shadow, &block, true);
    }
    shadow_map_set_whole(&shadow->map, address, true);
    count_same(iommu, SHADOW_PAGES, 0);
    return SAME;
}

static enum verdict page_step(struct viommu *iommu, struct shadow *shadow,
                              const struct region *region, uint64_t first, uint64_t *last)
{
    unsigned level = region->last - region->first > 1ULL << shadow_shift(1) ? 2 : 1;
    uint64_t mask = (1ULL << shadow_shift(level)) - 1;
    uint64_t address = first & ~mask;

    *last = address | mask;
    return level == 2 ? large_page_step(iommu, shadow,
                                        region->value + (address - region->first), address)
                      : page_2m_step(iommu, shadow, region, address);
}

/* What is in a block of 2 MiB goes. */
static enum verdict remove_2m(struct viommu *iommu, struct shadow *shadow,
                              const struct region *region, uint64_t first, uint64_t *last)
{
    const struct shadow_slot *slot = slot_at(shadow, 1, first);
    struct block block;

    block_begin(&block, slot, first, *last);
    *last = page_address(&block, block.high) | 0xfff;
    tables_count(iommu);
    shadow_slot_expand(slot, block.old);
    if (block_read(iommu, region, &block)) {
        return block_patch(iommu, shadow, &block, false);
    }
    count_same(iommu, 0, block.high - block.low + 1);
    return SAME;
}

/*
 * Nothing is mapped by the guest: what is in the map goes, as much of it as can go at once. A
 * region that cannot be read keeps a mark at its beginning: it is told of once.
 */
static enum verdict absent_step(struct viommu *iommu, struct shadow *shadow,
                                const struct region *region, uint64_t first, uint64_t *last)
{
    uint64_t mask_1g = (1ULL << shadow_shift(2)) - 1;
    const struct shadow_slot *slot = slot_at(shadow, 2, first);
    bool marked = region->kind == REGION_BAD && first == region->first;
    bool all_1g = region->last >= (first | mask_1g) && region->first <= (first & ~mask_1g);
    uint64_t used;

    *last = *last < region->last ? *last : region->last;
    if (slot->kind == SHADOW_RUN ||
        (slot->kind == SHADOW_NODE && !marked && all_1g && !(first & mask_1g) &&
         *last >= (first | mask_1g))) {
        *last = first | mask_1g;
        return large_remove(iommu, shadow, region, first);
    }
    if (marked) {
        return remove_2m(iommu, shadow, region, first, last);
    }
    if (!shadow_map_used(&shadow->map, first, *last, &used)) {
        used = *last + 1; /* no table has addresses that wrap */
    }
    if (used > first) {
        *last = used - 1;
        count_same(iommu, 0, ((*last - first) >> 12) + 1);
        return SAME;
    }
    return remove_2m(iommu, shadow, region, first, last);
}

bool tables_left(const struct viommu *iommu, struct shadow *shadow, const struct region *region)
{
    return region->kind != REGION_LEAF ||
           ++shadow->tables <= TABLES_MAX + iommu->follow.memory->pages;
}

/* Looks at what lies at `first`; *last is how far at most, then how far it looked. */
static enum verdict look(struct viommu *iommu, struct shadow *shadow, uint64_t first,
                         uint64_t *last)
{
    struct region region = region_find(iommu, shadow, first, *last);

    if (!tables_left(iommu, shadow, &region)) {
        return stop_for_quota(iommu, shadow, first, *last);
    }
    if (large_is_cut(shadow, &region, first)) {
        return large_cut_begin(iommu, shadow, first);
    }
    switch (region.kind) {
    case REGION_LEAF:
        return leaf_step(iommu, shadow, &region, first, last);
    case REGION_PAGE:
        return page_step(iommu, shadow, &region, first, last);
    default:
        return absent_step(iommu, shadow, &region, first, last);
    }
}

/* The next stretch to look at. */
static bool next_range(const struct viommu *iommu, const struct shadow *shadow, uint64_t *first,
                       uint64_t *last)
{
    uint64_t end = (1ULL << (12 + 9 * shadow->map.levels)) - 1;
    struct range_run run;

    *first = iommu->follow.sync_at;
    *last = end;
    if (*first > end) {
        return false;
    }
    if (shadow->fill || shadow->all) {
        return true;
    }
    if (!range_map_from(&shadow->ranges.map, *first, &run) || run.first > end) {
        return false;
    }
    *first = *first > run.first ? *first : run.first;
    *last = run.last < end ? run.last : end;
    return true;
}

static bool wants_skipped(const struct mirror *mirror)
{
    return (mirror->subscriber->what.kinds & VIOMMU_CHANGE_SKIPPED) != 0;
}

static void member_walk(struct viommu *iommu, struct mirror *mirror, bool patched, uint64_t first,
                        uint64_t last)
{
    struct layout from = mirror_layout(iommu, mirror);
    struct layout to = from;

    if (patched) {
        to.patch = &iommu->follow.patch;
    }
    walk_begin(mirror, &from, &to, first, last, iommu->follow.cause_now);
    mirror_activate(iommu, mirror);
}

/*
 * Lets a shadow's members walk over what was looked at: to the patch, or to tell that all is as it
 * was. Who does not want to know of what is as it was walks over what changed only.
 */
static void members_walk(struct viommu *iommu, const struct shadow *shadow, bool patched,
                         uint64_t first, uint64_t last)
{
    const struct follow *follow = &iommu->follow;

    for (struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (m->shadow != shadow) {
            continue;
        }
        if (wants_skipped(m)) {
            member_walk(iommu, m, patched, patched ? follow->patch.first : first,
                        patched ? follow->patch.last : last);
        } else if (patched) {
            member_walk(iommu, m, true, follow->changed.first, follow->changed.last);
        }
        walk_limit_skips(m, first, last);
    }
}

static bool nobody_wants_skipped(const struct viommu *iommu, const struct shadow *shadow)
{
    for (const struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        if (m->shadow == shadow && wants_skipped(m)) {
            return false;
        }
    }
    return true;
}

/*
 * Looks from *first to *last, over what is the same and nobody is to be told of. Then they are what
 * was looked at last.
 */
static enum verdict look_on(struct viommu *iommu, struct shadow *shadow, unsigned *budget,
                            uint64_t *first, uint64_t *last)
{
    bool quiet = nobody_wants_skipped(iommu, shadow);
    uint64_t end = *last;
    unsigned blocks = 1;
    enum verdict verdict;

    for (;;) {
        verdict = look(iommu, shadow, *first, last);
        if (verdict != SAME || !quiet || *last >= end || blocks == BLOCKS_MAX || *budget < 2) {
            break;
        }
        blocks++;
        (*budget)--;
        *first = *last + 1;
        *last = end;
    }
    if (verdict == AGAIN) {
        iommu->follow.sync_at = *first;
    }
    return verdict;
}

bool sync_step(struct viommu *iommu, struct shadow *shadow, unsigned *budget)
{
    enum verdict verdict;
    uint64_t first;
    uint64_t last;

    if (!next_range(iommu, shadow, &first, &last)) {
        return false;
    }
    (void)epoch_enter(iommu->epoch); /* cannot fail in viommu_process */
    if (iommu->follow.cutting) {
        verdict = large_cut_step(iommu, shadow, &first, &last);
    } else {
        verdict = look_on(iommu, shadow, budget, &first, &last);
    }
    epoch_leave(iommu->epoch);
    if (verdict == SAME || verdict == CHANGED) {
        members_walk(iommu, shadow, verdict == CHANGED, first, last);
        iommu->follow.sync_at = last + 1;
    }
    return true;
}
