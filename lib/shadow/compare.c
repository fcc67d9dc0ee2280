/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A block of guest tables compared with what is remembered of it.
 *
 * The loops over a leaf table are what a sync of many pages spends its time in: they have no
 * branches, and only say that something may differ; the entries that do are then read once more,
 * and that value counts.
 */
#include "shadow/sync.h"

#include "shadow/glance.h"

uint64_t entry_value(const struct pagetable_format *format, const struct region *region,
                     unsigned index)
{
    uint64_t entry = entry_load(&region->leaf[index]);

    if (!(entry & SHADOW_PERM)) {
        return 0;
    }
    if (entry & format->reserved_page) {
        return SHADOW_BAD;
    }
    return entry & region->allowed ? entry & (SHADOW_TARGET | region->allowed) : 0;
}

/*
 * Whether entries [low, high] may differ from values: without branches, and some that do not differ
 * are said to (those that cannot be used).
 */
static bool leaf_differs(const struct pagetable_format *format, const struct region *region,
                         const uint64_t *values, unsigned low, unsigned high)
{
    uint64_t keep = SHADOW_TARGET | region->allowed;
    uint64_t allowed = region->allowed;
    uint64_t reserved = format->reserved_page;
    uint64_t differs = 0;

    for (unsigned i = low; i <= high; i++) {
        uint64_t entry = entry_load(&region->leaf[i]);
        uint64_t there = -(uint64_t)((entry & allowed) != 0);

        differs |= (entry & keep & there) ^ (values[i] & ~SHADOW_START);
        differs |= entry & reserved & -(uint64_t)((entry & SHADOW_PERM) != 0);
    }
    return differs != 0;
}

/* The same against one stretch: `value` is that of entry `low`; 0: nothing is there. */
static bool leaf_differs_from_run(const struct pagetable_format *format,
                                  const struct region *region, uint64_t value, unsigned low,
                                  unsigned high)
{
    uint64_t keep = SHADOW_TARGET | region->allowed;
    uint64_t allowed = region->allowed;
    uint64_t reserved = format->reserved_page;
    uint64_t step = value ? 4096 : 0;
    uint64_t differs = 0;

    for (unsigned i = low; i <= high; i++) {
        uint64_t entry = entry_load(&region->leaf[i]);
        uint64_t there = -(uint64_t)((entry & allowed) != 0);

        differs |= (entry & keep & there) ^ value;
        differs |= entry & reserved & -(uint64_t)((entry & SHADOW_PERM) != 0);
        value += step;
    }
    return differs != 0;
}

/* Whether all of a leaf table certainly is as it was. */
static bool leaf_is_same(const struct pagetable_format *format, const struct region *region,
                         const struct shadow_slot *slot, const struct shadow_slot *next)
{
    const struct glance glance = {
        .leaf = region->leaf,
        .allowed = region->allowed,
        .reserved = format->reserved_page,
        .next_leaf = region->next_leaf,
        .next_values = next && next->kind == SHADOW_FULL ? next->values : NULL,
    };

    switch (slot->kind) {
    case SHADOW_EMPTY:
        return glance_run(&glance, 0);
    case SHADOW_FULL:
        return glance_values(&glance, slot->values);
    case SHADOW_RUN:
        return slot->first == 0 && slot->last == SHADOW_PAGES - 1 &&
               glance_run(&glance, slot->value & ~SHADOW_START);
    default:
        return false;
    }
}

bool slot_differs(const struct pagetable_format *format, const struct region *region,
                  const struct shadow_slot *slot, const struct shadow_slot *next, unsigned low,
                  unsigned high)
{
    uint64_t values[SHADOW_PAGES];
    uint64_t run = slot->value & ~SHADOW_START;

    if (low == 0 && high == SHADOW_PAGES - 1 && leaf_is_same(format, region, slot, next)) {
        return false;
    }

    switch (slot->kind) {
    case SHADOW_EMPTY:
        return leaf_differs_from_run(format, region, 0, low, high);
    case SHADOW_FULL:
        return leaf_differs(format, region, slot->values, low, high);
    case SHADOW_RUN:
        if (slot->first == 0 && slot->last == SHADOW_PAGES - 1) {
            return leaf_differs_from_run(format, region, run + low * 4096ULL, low, high);
        }
        break;
    }
    shadow_slot_expand(slot, values);
    return leaf_differs(format, region, values, low, high);
}

unsigned slot_present(const struct shadow_slot *slot, unsigned low, unsigned high)
{
    unsigned present = 0;

    switch (slot->kind) {
    case SHADOW_EMPTY:
        return 0;
    case SHADOW_RUN:
        low = low > slot->first ? low : slot->first;
        high = high < slot->last ? high : slot->last;
        return low <= high ? high - low + 1 : 0;
    case SHADOW_FULL:
        if (low == 0 && high == SHADOW_PAGES - 1) {
            return slot->count;
        }
        for (unsigned i = low; i <= high; i++) {
            present += (slot->values[i] & SHADOW_PERM) != 0;
        }
        return present;
    default:
        for (unsigned i = 0; i < slot->count; i++) {
            unsigned index = (unsigned)(slot->values[i] >> SHADOW_INDEX_SHIFT);

            present += index >= low && index <= high && (slot->values[i] & SHADOW_PERM);
        }
        return present;
    }
}

/* Whether a block is one stretch from a value on. */
static bool block_is(const struct shadow_slot *slot, uint64_t value)
{
    uint64_t values[SHADOW_PAGES];

    if (slot->kind == SHADOW_RUN) {
        return slot->first == 0 && slot->last == SHADOW_PAGES - 1 && same_value(slot->value, value);
    }
    if (slot->kind != SHADOW_FULL || slot->count != SHADOW_PAGES) {
        return false;
    }
    shadow_slot_expand(slot, values);
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        if (!same_value(values[i], value + i * 4096ULL)) {
            return false;
        }
    }
    return true;
}

bool blocks_are(const struct shadow_slot *node, uint64_t value)
{
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        if (!block_is(&node->node->slots[i], value + ((uint64_t)i << shadow_shift(1)))) {
            return false;
        }
    }
    return true;
}

/* The last page of the extent that begins at a page of the old values. */
static unsigned old_extent_last(const uint64_t *old, unsigned first)
{
    unsigned last = first;

    while (last + 1 < SHADOW_PAGES && !(old[last + 1] & SHADOW_START) &&
           goes_on(old[last], old[last + 1])) {
        last++;
    }
    return last;
}

/*
 * The pages whose extents may change: those of the old extents that have a page that changed and,
 * where extents grow, what is contiguous with them. False: no page changed.
 */
static bool window_find(struct block *block, bool grow)
{
    const uint64_t *old = block->old;
    const uint64_t *new = block->new;
    unsigned from = block->low;
    unsigned to = block->high;

    while (from < to && same_value(old[from], new[from])) {
        from++;
    }
    while (to > from && same_value(old[to], new[to])) {
        to--;
    }
    if (same_value(old[from], new[from])) {
        return false;
    }
    while (from && (old[from] & SHADOW_PERM) && !(old[from] & SHADOW_START)) {
        from--;
    }
    to = old_extent_last(old, to);
    while (grow && from && goes_on(new[from - 1], new[from])) {
        from--;
    }
    while (grow && to + 1 < SHADOW_PAGES && goes_on(new[to], new[to + 1])) {
        to++;
    }
    block->from = from;
    block->to = to;
    return true;
}

/* Says of the pages of the window whether something changed in the old extents they were in. */
static void fresh_find(const struct block *block, bool *fresh)
{
    unsigned last;

    for (unsigned i = block->from; i <= block->to; i = last + 1) {
        bool changed = false;

        last = (block->old[i] & SHADOW_PERM) ? old_extent_last(block->old, i) : i;
        for (unsigned j = i; j <= last; j++) {
            changed |= !same_value(block->old[j], block->new[j]);
        }
        for (unsigned j = i; j <= last; j++) {
            fresh[j] = changed;
        }
    }
}

void mark_starts(struct block *block, bool grow)
{
    bool fresh[SHADOW_PAGES]; /* in the window */
    uint64_t *new = block->new;
    unsigned last;

    if (!window_find(block, grow)) {
        return;
    }
    fresh_find(block, fresh);
    for (unsigned i = block->from; i <= block->to; i = last + 1) {
        bool any = fresh[i];

        last = i;
        while (last < block->to && goes_on(new[last], new[last + 1])) {
            any |= fresh[++last];
        }
        if (!(new[i] & SHADOW_PERM)) {
            new[i] &= ~SHADOW_START;
            continue;
        }
        for (unsigned j = i; j <= last; j++) {
            bool begins = j == i || (!(grow && any) && (fresh[j] ? !fresh[j - 1]
                                                                  : fresh[j - 1] ||
                                                                        (new[j] & SHADOW_START)));

            new[j] = begins ? new[j] | SHADOW_START : new[j] & ~SHADOW_START;
        }
    }
}
