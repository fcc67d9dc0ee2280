/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checker of a shadow map's invariants; in test builds only. It aborts: what it finds is a
 * mistake of ours. It reads slots in its own way, not through slot.c.
 */
#include "shadow/map.h"

#ifdef VIOMMU_TESTING

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct totals {
    uint64_t bytes;
    uint64_t pages;
};

static void expect(bool holds, const char *what, const struct shadow_slot *slot, unsigned level)
{
    if (!holds) {
        fprintf(stderr, "shadow map: slot %p of level %u: %s\n", (const void *)slot, level, what);
        abort();
    }
}

static void check_value(uint64_t value, const struct shadow_slot *slot, unsigned level)
{
    if (value & SHADOW_PERM) {
        expect(!(value & ~(SHADOW_TARGET | SHADOW_PERM | SHADOW_START)), "strange bits in a value",
               slot, level);
    } else {
        expect(value == 0 || value == SHADOW_BAD, "a value that says nothing", slot, level);
    }
}

static void check_run(const struct shadow_slot *slot, unsigned level, struct totals *totals)
{
    uint64_t units;

    expect(level <= 2, "a run too high up", slot, level);
    expect(slot->first <= slot->last && slot->last < SHADOW_PAGES, "a run outside its block", slot,
           level);
    expect(level == 1 || (!slot->first && slot->last == SHADOW_PAGES - 1), "a run of a part", slot,
           level);
    expect(slot->value & SHADOW_PERM, "a run without a permission", slot, level);
    expect(slot->value & SHADOW_START, "a run without a start", slot, level);
    check_value(slot->value, slot, level);
    units = slot->last - slot->first + 1u;
    expect((units << shadow_shift(level - 1)) - 1 <= (SHADOW_TARGET | 0xfff) -
           (slot->value & SHADOW_TARGET), "a run's target wraps", slot, level);
    totals->pages += units << 9 * (level - 1);
}

/* The 512 values of a SPARSE or FULL slot. */
static void read_values(const struct shadow_slot *slot, uint64_t *values, struct totals *totals)
{
    if (slot->kind == SHADOW_FULL) {
        memcpy(values, slot->values, SHADOW_PAGES * sizeof(*values));
        totals->bytes += SHADOW_PAGES * sizeof(*values);
        return;
    }
    memset(values, 0, SHADOW_PAGES * sizeof(*values));
    for (unsigned i = 0; i < slot->count; i++) {
        uint64_t entry = slot->values[i];
        uint64_t page = entry >> SHADOW_INDEX_SHIFT;

        expect(page < SHADOW_PAGES, "an entry outside the block", slot, 1);
        expect(!i || slot->values[i - 1] >> SHADOW_INDEX_SHIFT < page, "entries unsorted", slot, 1);
        values[page] = entry - (page << SHADOW_INDEX_SHIFT);
        expect(values[page], "an entry of nothing", slot, 1);
    }
    totals->bytes += slot->count * sizeof(*values);
}

static void check_values(const struct shadow_slot *slot, struct totals *totals)
{
    uint64_t values[SHADOW_PAGES];
    unsigned used = 0;
    unsigned mapped = 0;
    unsigned stretches = 0;

    read_values(slot, values, totals);
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        uint64_t before = i ? values[i - 1] : 0;

        check_value(values[i], slot, 1);
        used += values[i] != 0;
        if (values[i] == SHADOW_BAD) {
            stretches++;
        } else if (values[i] & SHADOW_START) {
            stretches++;
            mapped++;
        } else if (values[i]) {
            expect(before & SHADOW_PERM, "an extent without a start", slot, 1);
            expect((before & SHADOW_PERM) == (values[i] & SHADOW_PERM) &&
                   (before & SHADOW_TARGET) + 4096 == (values[i] & SHADOW_TARGET),
                   "an extent that is none", slot, 1);
            mapped++;
        }
    }
    expect(used == slot->count, "values miscounted", slot, 1);
    expect(used, "a block without use", slot, 1);
    expect(stretches > 1 || !mapped, "a block that is one run", slot, 1);
    expect((slot->kind == SHADOW_SPARSE) == (used <= SHADOW_SPARSE_MAX), "the wrong form", slot, 1);
    totals->pages += mapped;
}

static void check_slot(const struct shadow_slot *slot, unsigned level, struct totals *totals)
{
    unsigned used = 0;

    switch (slot->kind) {
    case SHADOW_EMPTY:
        return;
    case SHADOW_RUN:
        check_run(slot, level, totals);
        return;
    case SHADOW_SPARSE:
    case SHADOW_FULL:
        expect(level == 1, "values too high up", slot, level);
        check_values(slot, totals);
        return;
    case SHADOW_NODE:
        expect(level > 1, "a node too low", slot, level);
        totals->bytes += sizeof(*slot->node);
        for (unsigned i = 0; i < SHADOW_PAGES; i++) {
            used += slot->node->slots[i].kind != SHADOW_EMPTY;
            check_slot(&slot->node->slots[i], level - 1, totals);
        }
        expect(used == slot->count, "slots miscounted", slot, level);
        expect(used, "a node without use", slot, level);
        return;
    default:
        expect(false, "of no kind", slot, level);
    }
}

void shadow_map_check(const struct shadow_map *map)
{
    struct totals totals = {0, 0};

    expect(map->levels >= 2 && map->levels <= 5, "a map of strange depth", &map->top, map->levels);
    expect(map->top.kind == SHADOW_EMPTY || map->top.kind == SHADOW_NODE, "a strange top",
           &map->top, map->levels);
    check_slot(&map->top, map->levels, &totals);
    expect(totals.bytes == map->bytes, "bytes miscounted", &map->top, map->levels);
    expect(totals.pages == map->pages, "pages miscounted", &map->top, map->levels);
}

#endif
