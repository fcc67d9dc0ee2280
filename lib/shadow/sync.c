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
#include "iommu/iommu.h"

#include <errno.h>
#include <string.h>

/* Leaf tables that one sync may look at besides as many as guest memory has pages. */
#define TABLES_MAX (1u << 20)

enum region_kind {
    REGION_ABSENT,
    REGION_BAD,  /* a table that cannot be read, or an entry with reserved bits */
    REGION_PAGE, /* one entry maps it */
    REGION_LEAF, /* a table of 4 KiB pages */
};

struct region {
    enum region_kind kind;
    uint64_t first;
    uint64_t last;
    uint64_t value;               /* PAGE: of `first`, without SHADOW_START */
    uint32_t allowed;             /* LEAF: by the levels above */
    const _Atomic uint64_t *leaf; /* LEAF: 512 entries */
};

/* What a step looks at. */
struct block {
    uint64_t first;  /* 2 MiB */
    uint64_t last;
    unsigned low;    /* pages of it that are looked at */
    unsigned high;
    bool was_whole;
    uint64_t old[SHADOW_PAGES];
    uint64_t new[SHADOW_PAGES];
};

enum verdict {
    SAME,
    CHANGED, /* follow.patch is made */
    STOPPED, /* the shadow lost its mirrors */
};

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

/* How the guest's tables read at an address. In a section. */
static struct region region_find(const struct viommu *iommu, const struct shadow *shadow,
                                 uint64_t address)
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
            return region_absent(level, address, REGION_ABSENT);
        }
        if (pagetable_reserved(format, level, entry)) {
            return region_absent(level, address, REGION_BAD);
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

static uint64_t entry_load(const _Atomic uint64_t *entry)
{
    return le64toh(atomic_load_explicit(entry, memory_order_relaxed));
}

/* The value of a leaf entry. */
static uint64_t entry_value(const struct pagetable_format *format, uint64_t allowed, uint64_t entry)
{
    if (!(entry & SHADOW_PERM)) {
        return 0;
    }
    if (entry & format->reserved_page) {
        return SHADOW_BAD;
    }
    return entry & allowed ? entry & (SHADOW_TARGET | allowed) : 0;
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

static const struct shadow_slot empty_slot;

static const struct shadow_slot *slot_at(const struct shadow *shadow, unsigned level,
                                         uint64_t address)
{
    const struct shadow_slot *slot = shadow_map_slot(&shadow->map, level, address);

    return slot ? slot : &empty_slot;
}

/* The level-2 run that holds an address, or NULL. */
static const struct shadow_slot *run_of_1g(const struct shadow *shadow, uint64_t address)
{
    const struct shadow_slot *slot = slot_at(shadow, 2, address);

    return slot->kind == SHADOW_RUN ? slot : NULL;
}

/* The value that a page has by a run of level 2, without SHADOW_START. */
static uint64_t value_in_1g(const struct shadow_slot *run, uint64_t address)
{
    return (run->value & ~SHADOW_START) + (address & ((1ULL << shadow_shift(2)) - 1) & ~0xfffULL);
}

static bool slot_differs(const struct pagetable_format *format, const struct region *region,
                         const struct shadow_slot *slot, unsigned low, unsigned high)
{
    uint64_t values[SHADOW_PAGES];
    uint64_t run = slot->value & ~SHADOW_START;

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

/* Pages [low, high] of a slot that lead somewhere. */
static unsigned slot_present(const struct shadow_slot *slot, unsigned low, unsigned high)
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

static void count_same(struct viommu *iommu, uint64_t present, uint64_t absent)
{
    iommu->stats.pages_present[iommu->follow.cause_now] += present;
    iommu->stats.pages_absent[iommu->follow.cause_now] += absent;
}

/* The mirrors that a shadow's changes concern: members, and those about to be. */
static struct mirror *user_from(struct mirror *mirror, const struct shadow *shadow)
{
    while (mirror && mirror->shadow != shadow && mirror->target_shadow != shadow) {
        mirror = mirror->next;
    }
    return mirror;
}

static uint16_t requester_of(const struct mirror *mirror)
{
    return atomic_load(&mirror->subscriber->device->requesters[0])->id;
}

/* Fences every mirror of a shadow; with the last one it goes itself. */
static enum verdict stop(struct viommu *iommu, struct shadow *shadow, int error, bool deny,
                         const char *text)
{
    struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);
    struct mirror *next;

    while (mirror) {
        next = user_from(mirror->next, shadow);
        mirror_fence_for(iommu, mirror, error, deny, text);
        mirror = next;
    }
    return STOPPED;
}

static enum verdict stop_for_quota(struct viommu *iommu, struct shadow *shadow, uint64_t first,
                                   uint64_t last)
{
    const struct mirror *user = user_from(iommu->follow.mirrors, shadow);
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_QUOTA,
        .requester = user ? requester_of(user) : 0,
        .error = -EDQUOT,
        .first = first,
        .last = last,
        .text = "the guest's tables need more than the quota of its mirrors",
    };

    iommu_post_event(iommu, &event);
    return stop(iommu, shadow, -EDQUOT, false, "a mirror's tables are past their quota");
}

/* The event of a stretch of pages, for the first mirror that it concerns. */
static void tell_stretch(struct viommu *iommu, const struct shadow *shadow,
                         enum viommu_event_kind kind, uint64_t first, uint64_t last, uint64_t from,
                         uint64_t to, const char *text)
{
    const struct mirror *user = user_from(iommu->follow.mirrors, shadow);
    struct viommu_event event = {
        .kind = kind,
        .requester = user ? requester_of(user) : 0,
        .first = first,
        .last = last,
        .from_gpa = from & SHADOW_TARGET,
        .from_perm = (uint32_t)(from & SHADOW_PERM),
        .to_gpa = to & SHADOW_TARGET,
        .to_perm = (uint32_t)(to & SHADOW_PERM),
        .text = text,
    };

    if (user) {
        iommu_post_event(iommu, &event);
    }
}

static void tell_bad(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                     uint64_t last)
{
    tell_stretch(iommu, shadow, VIOMMU_EVENT_BAD_ENTRY, first, last, 0, 0,
                 "a table entry cannot be read or has reserved bits set: nothing is mapped there");
}

/* Puts the patch together. The slot is owned by it, or freed. */
static enum verdict patch_make(struct viommu *iommu, struct shadow *shadow, unsigned level,
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
    iommu->follow.patched = true;
    return CHANGED;
}

static bool same_value(uint64_t old, uint64_t new)
{
    return !((old ^ new) & ~SHADOW_START);
}

static bool goes_on(uint64_t before, uint64_t value)
{
    return (value & SHADOW_PERM) && (value & ~SHADOW_START) == (before & ~SHADOW_START) + 4096;
}

/* Whether a mirror of the shadow nears its limit: mappings then grow together. */
static bool is_crowded(const struct viommu *iommu, const struct shadow *shadow)
{
    struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);

    while (mirror && !mirror_crowded(mirror)) {
        mirror = user_from(mirror->next, shadow);
    }
    return mirror != NULL;
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
 * Marks where the new extents begin. Extents in which nothing changed stay as they are. Of the
 * others, and of what is new, contiguous pages are one; `grow` lets them take in neighbours.
 */
static void mark_starts(struct block *block, bool grow)
{
    bool fresh[SHADOW_PAGES] = {false};
    uint64_t *new = block->new;
    unsigned last;

    for (unsigned i = 0; i < SHADOW_PAGES; i = last + 1) {
        bool changed = false;

        last = (block->old[i] & SHADOW_PERM) ? old_extent_last(block->old, i) : i;
        for (unsigned j = i; j <= last; j++) {
            changed |= !same_value(block->old[j], new[j]);
        }
        for (unsigned j = i; j <= last; j++) {
            fresh[j] = changed;
        }
    }
    for (unsigned i = 0; i < SHADOW_PAGES; i = last + 1) {
        bool any = fresh[i];

        last = i;
        while (last + 1 < SHADOW_PAGES && goes_on(new[last], new[last + 1])) {
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

static uint64_t page_address(const struct block *block, unsigned index)
{
    return block->first + index * 4096ULL;
}

/* Counts the block's changes. Returns whether live entries were rewritten. */
static bool count_changes(struct viommu *iommu, const struct block *block)
{
    enum viommu_cause cause = iommu->follow.cause_now;
    struct viommu_stats *stats = &iommu->stats;
    bool rewritten = false;

    for (unsigned i = block->low; i <= block->high; i++) {
        bool was = (block->old[i] & SHADOW_PERM) != 0;
        bool is = (block->new[i] & SHADOW_PERM) != 0;

        if (same_value(block->old[i], block->new[i])) {
            count_same(iommu, was, !was);
        } else if (was && is) {
            stats->pages_rewritten[cause]++;
            rewritten = true;
        } else {
            stats->pages_gone[cause] += was;
            stats->pages_appeared[cause] += is;
        }
    }
    return rewritten;
}

/* Whether page i is of the kind that a stretch of events is about. */
static bool is_rewritten(const struct block *block, unsigned i)
{
    return !same_value(block->old[i], block->new[i]) && (block->old[i] & SHADOW_PERM) &&
           (block->new[i] & SHADOW_PERM);
}

static bool is_newly_bad(const struct block *block, unsigned i)
{
    return (block->new[i] & SHADOW_BAD) && !(block->old[i] & SHADOW_BAD);
}

static void tell_rewritten(struct viommu *iommu, const struct shadow *shadow,
                           const struct block *block)
{
    unsigned last;

    for (unsigned i = block->low; i <= block->high; i = last + 1) {
        last = i;
        if (!is_rewritten(block, i)) {
            continue;
        }
        while (last < block->high && is_rewritten(block, last + 1) &&
               goes_on(block->old[last], block->old[last + 1]) &&
               goes_on(block->new[last], block->new[last + 1])) {
            last++;
        }
        tell_stretch(iommu, shadow, VIOMMU_EVENT_REWRITTEN, page_address(block, i),
                     page_address(block, last) | 0xfff, block->old[i], block->new[i],
                     "the guest rewrote live entries");
    }
}

static void tell_newly_bad(struct viommu *iommu, const struct shadow *shadow,
                           const struct block *block)
{
    unsigned last;

    for (unsigned i = block->low; i <= block->high; i = last + 1) {
        last = i;
        if (!is_newly_bad(block, i)) {
            continue;
        }
        while (last < block->high && is_newly_bad(block, last + 1)) {
            last++;
        }
        tell_bad(iommu, shadow, page_address(block, i), page_address(block, last) | 0xfff);
    }
}

/* Applies the policy for live entries that were rewritten. Returns whether to go on. */
static bool policy_lets(struct viommu *iommu, struct shadow *shadow, uint64_t first, uint64_t last)
{
    switch (iommu->follow.policy) {
    case VIOMMU_REWRITE_FENCE:
        (void)stop(iommu, shadow, -EPERM, true, "the guest rewrote live entries: fenced by policy");
        return false;
    case VIOMMU_REWRITE_STOP:
        tell_stretch(iommu, shadow, VIOMMU_EVENT_STOP, first, last, 0, 0,
                     "the guest rewrote live entries: the machine should be stopped");
        return true;
    default:
        return true;
    }
}

/* What a mirror will not be given of [first, last], which leads to `value` now. */
static void tell_not_mapped(struct viommu *iommu, const struct mirror *mirror,
                            const struct layout *layout, uint64_t first, uint64_t last,
                            uint64_t value)
{
    struct viommu_event event = {
        .kind = VIOMMU_EVENT_NOT_MAPPED,
        .requester = requester_of(mirror),
        .to_perm = (uint32_t)(value & SHADOW_PERM),
        .text = "mapped by the guest, but not memory or not allowed",
    };
    struct shadow_extent piece;
    uint64_t at = first;
    bool found;

    for (;;) {
        found = layout_piece(mirror, layout, at, last, &piece);
        if (!found || piece.first > at) {
            event.first = at;
            event.last = found ? piece.first - 1 : last;
            event.to_gpa = (value & SHADOW_TARGET) + (at - first);
            iommu_post_event(iommu, &event);
        } else if (piece.perm != event.to_perm) {
            event.first = at;
            event.last = piece.last < last ? piece.last : last;
            event.to_gpa = (value & SHADOW_TARGET) + (at - first);
            event.text = "mapped writable by the guest, but read-only memory";
            iommu_post_event(iommu, &event);
        }
        if (!found || piece.last >= last) {
            return;
        }
        at = piece.last + 1;
    }
}

/* The same for every mirror of the shadow; the patch is made. */
static void tell_all_not_mapped(struct viommu *iommu, const struct shadow *shadow, uint64_t first,
                                uint64_t last, uint64_t value)
{
    struct layout layout = {
        .kind = VIEW_TABLES,
        .shadow = shadow,
        .patch = &iommu->follow.patch,
        .memory = iommu->follow.memory,
    };
    const struct mirror *mirror = user_from(iommu->follow.mirrors, shadow);

    for (; mirror; mirror = user_from(mirror->next, shadow)) {
        tell_not_mapped(iommu, mirror, &layout, first, last, value);
    }
}

static void tell_unreachable(struct viommu *iommu, const struct shadow *shadow,
                             const struct block *block)
{
    unsigned last;

    for (unsigned i = 0; i < SHADOW_PAGES; i = last + 1) {
        last = i;
        if (!(block->new[i] & SHADOW_PERM) || same_value(block->old[i], block->new[i])) {
            continue;
        }
        while (last + 1 < SHADOW_PAGES && goes_on(block->new[last], block->new[last + 1]) &&
               !same_value(block->old[last + 1], block->new[last + 1])) {
            last++;
        }
        tell_all_not_mapped(iommu, shadow, page_address(block, i),
                            page_address(block, last) | 0xfff, block->new[i]);
    }
}

/* Makes the patch of a block whose new values are known. */
static enum verdict block_finish(struct viommu *iommu, struct shadow *shadow, struct block *block,
                                 bool whole)
{
    struct shadow_slot slot;
    enum verdict verdict;
    bool rewritten = count_changes(iommu, block);

    if (rewritten) {
        tell_rewritten(iommu, shadow, block);
        if (!policy_lets(iommu, shadow, block->first, block->last)) {
            return STOPPED;
        }
    }
    tell_newly_bad(iommu, shadow, block);
    mark_starts(block, is_crowded(iommu, shadow));
    if (shadow_slot_build(block->new, whole, &slot)) {
        return stop(iommu, shadow, -ENOMEM, true, "no memory to follow the guest's tables");
    }
    verdict = patch_make(iommu, shadow, 1, block->first, &slot);
    if (verdict == CHANGED) {
        tell_unreachable(iommu, shadow, block);
    }
    return verdict;
}

/* The block of an address, and the pages of it that [first, last] asks for. */
static void block_begin(struct block *block, const struct shadow_slot *slot, uint64_t first,
                        uint64_t last)
{
    uint64_t mask = (1ULL << shadow_shift(1)) - 1;

    block->first = first & ~mask;
    block->last = first | mask;
    block->was_whole = slot->whole;
    block->low = slot->whole ? 0 : (unsigned)((first & mask) >> 12);
    block->high = slot->whole || last > block->last ? SHADOW_PAGES - 1
                                                    : (unsigned)((last & mask) >> 12);
}

static enum verdict run_break(struct viommu *iommu, struct shadow *shadow,
                              const struct shadow_slot *run, uint64_t address)
{
    struct shadow_slot slot;

    if (shadow_slot_break(run, &slot)) {
        return stop(iommu, shadow, -ENOMEM, true, "no memory to follow the guest's tables");
    }
    return patch_make(iommu, shadow, 2, address, &slot);
}

static void tables_count(struct viommu *iommu)
{
    iommu->stats.tables_compared[iommu->follow.cause_now]++;
}

static enum verdict leaf_step(struct viommu *iommu, struct shadow *shadow,
                              const struct region *region, uint64_t first, uint64_t *last)
{
    const struct pagetable_format *format = iommu->model->format(iommu);
    const struct shadow_slot *run = run_of_1g(shadow, first);
    const struct shadow_slot *slot = run ? &empty_slot : slot_at(shadow, 1, first);
    bool differs = false;
    struct block block;

    block_begin(&block, slot, first, *last);
    *last = page_address(&block, block.high) | 0xfff;
    tables_count(iommu);
    if (run) {
        if (leaf_differs_from_run(format, region,
                                  value_in_1g(run, page_address(&block, block.low)), block.low,
                                  block.high)) {
            return run_break(iommu, shadow, run, first);
        }
        count_same(iommu, block.high - block.low + 1, 0);
        return SAME;
    }
    if (!slot_differs(format, region, slot, block.low, block.high)) {
        unsigned present = slot_present(slot, block.low, block.high);

        count_same(iommu, present, block.high - block.low + 1 - present);
        return SAME;
    }
    shadow_slot_expand(slot, block.old);
    memcpy(block.new, block.old, sizeof(block.new));
    for (unsigned i = block.low; i <= block.high; i++) {
        uint64_t value = entry_value(format, region->allowed, entry_load(&region->leaf[i]));

        if (!same_value(value, block.old[i])) {
            block.new[i] = value;
            differs = true;
        }
    }
    return differs ? block_finish(iommu, shadow, &block, false) : SAME;
}

/* A block of 2 MiB that is mapped by one entry. */
static enum verdict page_2m_step(struct viommu *iommu, struct shadow *shadow, uint64_t value,
                                 uint64_t address)
{
    const struct shadow_slot *run = run_of_1g(shadow, address);
    const struct shadow_slot *slot;
    bool differs = false;
    struct block block;

    tables_count(iommu);
    if (run && value_in_1g(run, address) == value) {
        count_same(iommu, SHADOW_PAGES, 0);
        return SAME;
    }
    if (run) {
        return run_break(iommu, shadow, run, address);
    }
    slot = slot_at(shadow, 1, address);
    block_begin(&block, &empty_slot, address, UINT64_MAX);
    shadow_slot_expand(slot, block.old);
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        block.new[i] = value + i * 4096ULL;
        if (same_value(block.old[i], block.new[i])) {
            block.new[i] = block.old[i];
        } else {
            differs = true;
        }
    }
    if (!differs) {
        count_same(iommu, SHADOW_PAGES, 0);
        return SAME;
    }
    block.low = 0;
    return block_finish(iommu, shadow, &block, true);
}

/* Whether 512 blocks lead where one page of 1 GiB does. */
static bool blocks_are(const struct shadow_slot *node, uint64_t value)
{
    uint64_t values[SHADOW_PAGES];

    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        shadow_slot_expand(&node->node->slots[i], values);
        for (unsigned j = 0; j < SHADOW_PAGES; j++) {
            if (!same_value(values[j], value + j * 4096ULL)) {
                return false;
            }
        }
        value += SHADOW_PAGES * 4096ULL;
    }
    return true;
}

/* Counts and tells what a page of 1 GiB changes in a block of 2 MiB that was there before. */
static bool count_under_1g(struct viommu *iommu, const struct shadow *shadow,
                           const struct shadow_slot *node, uint64_t address, uint64_t value)
{
    struct block block;
    bool rewritten = false;

    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        block_begin(&block, &empty_slot, address, UINT64_MAX);
        block.low = 0;
        shadow_slot_expand(node->kind == SHADOW_NODE ? &node->node->slots[i] : &empty_slot,
                           block.old);
        for (unsigned j = 0; j < SHADOW_PAGES; j++) {
            if (node->kind == SHADOW_RUN) {
                block.old[j] = value_in_1g(node, page_address(&block, j));
            }
            block.new[j] = value + j * 4096ULL;
        }
        if (count_changes(iommu, &block)) {
            tell_rewritten(iommu, shadow, &block);
            rewritten = true;
        }
        address += SHADOW_PAGES * 4096ULL;
        value += SHADOW_PAGES * 4096ULL;
    }
    return rewritten;
}

/* A block of 1 GiB that is mapped by one entry. */
static enum verdict page_1g_step(struct viommu *iommu, struct shadow *shadow, uint64_t value,
                                 uint64_t address)
{
    const struct shadow_slot *old = slot_at(shadow, 2, address);
    struct shadow_slot slot = {
        .value = value | SHADOW_START,
        .kind = SHADOW_RUN,
        .whole = true,
        .last = SHADOW_PAGES - 1,
    };
    uint64_t last = address | ((1ULL << shadow_shift(2)) - 1);
    enum verdict verdict;

    tables_count(iommu);
    if ((old->kind == SHADOW_RUN && same_value(old->value, value)) ||
        (old->kind == SHADOW_NODE && blocks_are(old, value))) {
        count_same(iommu, SHADOW_PAGES * SHADOW_PAGES, 0);
        return SAME;
    }
    if (count_under_1g(iommu, shadow, old, address, value) &&
        !policy_lets(iommu, shadow, address, last)) {
        return STOPPED;
    }
    verdict = patch_make(iommu, shadow, 2, address, &slot);
    if (verdict == CHANGED) {
        tell_all_not_mapped(iommu, shadow, address, last, value);
    }
    return verdict;
}

static enum verdict page_step(struct viommu *iommu, struct shadow *shadow,
                              const struct region *region, uint64_t first, uint64_t *last)
{
    unsigned level = region->last - region->first > 1ULL << shadow_shift(1) ? 2 : 1;
    uint64_t mask = (1ULL << shadow_shift(level)) - 1;
    uint64_t address = first & ~mask;
    uint64_t value = region->value + (address - region->first);

    *last = address | mask;
    return level == 2 ? page_1g_step(iommu, shadow, value, address)
                      : page_2m_step(iommu, shadow, value, address);
}

/* Pages of a level-2 slot that go. */
static void count_gone_1g(struct viommu *iommu, const struct shadow_slot *slot)
{
    uint64_t gone = 0;

    for (unsigned i = 0; slot->kind == SHADOW_NODE && i < SHADOW_PAGES; i++) {
        gone += slot_present(&slot->node->slots[i], 0, SHADOW_PAGES - 1);
    }
    if (slot->kind == SHADOW_RUN) {
        gone = SHADOW_PAGES * SHADOW_PAGES;
    }
    iommu->stats.pages_gone[iommu->follow.cause_now] += gone;
}

/* Nothing is mapped by the guest: what is in the map goes, as much of it as can go at once. */
static enum verdict absent_step(struct viommu *iommu, struct shadow *shadow,
                                const struct region *region, uint64_t first, uint64_t *last)
{
    uint64_t mask_1g = (1ULL << shadow_shift(2)) - 1;
    struct shadow_slot nothing = {0};
    const struct shadow_slot *slot;
    struct block block;
    bool differs = false;
    uint64_t used;

    *last = *last < region->last ? *last : region->last;
    if (!shadow_map_used(&shadow->map, first, *last, &used) || used > first) {
        if (shadow_map_used(&shadow->map, first, *last, &used)) {
            *last = used - 1;
        }
        count_same(iommu, 0, ((*last - first) >> 12) + 1);
        return SAME;
    }
    slot = slot_at(shadow, 2, first);
    if (slot->kind == SHADOW_RUN ||
        (slot->kind == SHADOW_NODE && !(first & mask_1g) && *last >= (first | mask_1g))) {
        *last = first | mask_1g;
        tables_count(iommu);
        count_gone_1g(iommu, slot);
        return patch_make(iommu, shadow, 2, first, &nothing);
    }
    slot = slot_at(shadow, 1, first);
    block_begin(&block, slot, first, *last);
    *last = page_address(&block, block.high) | 0xfff;
    tables_count(iommu);
    shadow_slot_expand(slot, block.old);
    memcpy(block.new, block.old, sizeof(block.new));
    for (unsigned i = block.low; i <= block.high; i++) {
        differs |= block.old[i] != 0;
        block.new[i] = 0;
    }
    if (!differs) {
        count_same(iommu, 0, block.high - block.low + 1);
        return SAME;
    }
    return block_finish(iommu, shadow, &block, false);
}

/* Looks at what lies at `first`; *last is how far at most, then how far it looked. */
static enum verdict look(struct viommu *iommu, struct shadow *shadow, uint64_t first,
                         uint64_t *last)
{
    struct region region = region_find(iommu, shadow, first);

    switch (region.kind) {
    case REGION_LEAF:
        if (++shadow->tables > TABLES_MAX + iommu->follow.memory->pages) {
            return stop_for_quota(iommu, shadow, first, *last);
        }
        return leaf_step(iommu, shadow, &region, first, last);
    case REGION_PAGE:
        return page_step(iommu, shadow, &region, first, last);
    case REGION_BAD:
        tell_bad(iommu, shadow, region.first, region.last);
        return absent_step(iommu, shadow, &region, first, last);
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

/* Lets a shadow's members walk over what was looked at: to the patch, or to tell that all is as it
   was. */
static void members_walk(struct viommu *iommu, const struct shadow *shadow, bool patched,
                         uint64_t first, uint64_t last)
{
    for (struct mirror *m = iommu->follow.mirrors; m; m = m->next) {
        struct layout from = mirror_layout(iommu, m);
        struct layout to = from;

        if (m->shadow != shadow) {
            continue;
        }
        if (patched) {
            to.patch = &iommu->follow.patch;
            walk_begin(m, &from, &to, to.patch->first, to.patch->last, iommu->follow.cause_now);
            mirror_activate(iommu, m);
        } else if (m->subscriber->what.kinds & VIOMMU_CHANGE_SKIPPED) {
            walk_begin(m, &from, &to, first, last, iommu->follow.cause_now);
            mirror_activate(iommu, m);
        }
    }
}

bool sync_step(struct viommu *iommu, struct shadow *shadow)
{
    enum verdict verdict;
    uint64_t first;
    uint64_t last;

    if (!next_range(iommu, shadow, &first, &last)) {
        return false;
    }
    (void)epoch_enter(iommu->epoch); /* cannot fail in viommu_process */
    verdict = look(iommu, shadow, first, &last);
    epoch_leave(iommu->epoch);
    if (verdict == STOPPED) {
        return true;
    }
    members_walk(iommu, shadow, verdict == CHANGED, first, last);
    if (verdict == CHANGED && iommu->follow.patch.slot.kind == SHADOW_NODE) {
        return true; /* a run was broken: its blocks are looked at now */
    }
    iommu->follow.sync_at = last + 1;
    return true;
}
