/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The forms of a block in a shadow map (shadow/map.h): made, read, broken up and freed. Nothing
 * here knows of the tree that slots are in.
 *
 * An extent goes on for as long as each value is the one before plus a page, without SHADOW_START.
 * That alone tells where extents end: 0 and SHADOW_BAD never follow on anything, nor does anything
 * on them.
 */
#include "shadow/slot.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

static const struct shadow_slot empty_slot;

static uint64_t sparse_value(uint64_t entry)
{
    return entry & ((1ULL << SHADOW_INDEX_SHIFT) - 1);
}

static unsigned sparse_index(uint64_t entry)
{
    return (unsigned)(entry >> SHADOW_INDEX_SHIFT);
}

static unsigned values_of(const struct shadow_slot *slot)
{
    return slot->kind == SHADOW_FULL ? SHADOW_PAGES : slot->count;
}

/* ---- what hangs on a slot ------------------------------------------------------------------- */

static struct shadow_measure measure_node(const struct shadow_slot *slot, unsigned level)
{
    struct shadow_measure sum = {.bytes = sizeof(*slot->node)};

    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        struct shadow_measure part = shadow_slot_measure(&slot->node->slots[i], level - 1);

        sum.bytes += part.bytes;
        sum.pages += part.pages;
    }
    return sum;
}

static struct shadow_measure measure_values(const struct shadow_slot *slot)
{
    unsigned count = values_of(slot);
    struct shadow_measure sum = {.bytes = count * sizeof(*slot->values)};

    /* As arithmetic, which compilers make vectors of. */
    for (unsigned i = 0; i < count; i++) {
        sum.pages += (slot->values[i] | slot->values[i] >> 1) & 1;
    }
    return sum;
}

struct shadow_measure shadow_slot_measure(const struct shadow_slot *slot, unsigned level)
{
    struct shadow_measure run = {0, 0};

    switch (slot->kind) {
    case SHADOW_NODE:
        return measure_node(slot, level);
    case SHADOW_SPARSE:
    case SHADOW_FULL:
        return measure_values(slot);
    case SHADOW_RUN:
        run.pages = (uint64_t)(slot->last - slot->first + 1) << 9 * (level - 1);
        return run;
    default:
        return run;
    }
}

size_t shadow_slot_bytes(const struct shadow_slot *slot)
{
    if (slot->kind == SHADOW_SPARSE || slot->kind == SHADOW_FULL) {
        return values_of(slot) * sizeof(*slot->values);
    }
    return (size_t)shadow_slot_measure(slot, slot->kind == SHADOW_NODE ? 2 : 1).bytes;
}

void shadow_slot_free(struct shadow_slot *slot)
{
    if (slot->kind == SHADOW_NODE) {
        for (unsigned i = 0; i < SHADOW_PAGES; i++) {
            shadow_slot_free(&slot->node->slots[i]);
        }
        base_free(slot->node);
    } else if (slot->kind == SHADOW_SPARSE || slot->kind == SHADOW_FULL) {
        base_free(slot->values);
    }
    *slot = empty_slot;
}

/* ---- extents -------------------------------------------------------------------------------- */

/* Tells of the units `first` to `last` of a slot, whose first value is given. */
static void tell(struct shadow_extent *extent, uint64_t base, unsigned unit, unsigned first,
                 unsigned last, uint64_t value)
{
    extent->first = base + ((uint64_t)first << unit);
    extent->last = base + ((uint64_t)(last + 1) << unit) - 1;
    extent->gpa = value & SHADOW_TARGET;
    extent->perm = (uint32_t)(value & SHADOW_PERM);
}

/* The first entry of the page or of one above. */
static unsigned sparse_from(const struct shadow_slot *slot, unsigned page)
{
    const uint64_t *entries = slot->values;
    uint64_t least = (uint64_t)page << SHADOW_INDEX_SHIFT;
    unsigned at = 0;

    /* Invariant: entries below `at` are too low, those from at + left on are not. */
    for (unsigned left = slot->count; left;) {
        unsigned half = left / 2;

        if (entries[at + half] < least) {
            at += half + 1;
            left -= half + 1;
        } else {
            left = half;
        }
    }
    return at;
}

/*
 * The first extent in an array of values, or of entries, that goes on at `at` or begins above: from
 * *first to *last.
 */
static bool scan(const uint64_t *values, unsigned count, uint64_t step, unsigned at,
                 unsigned *first, unsigned *last)
{
    unsigned end;

    while (at < count && !(values[at] & SHADOW_PERM)) {
        at++;
    }
    if (at == count) {
        return false;
    }
    end = at;
    while (end + 1 < count && shadow_goes_on(values[end], values[end + 1], step)) {
        end++;
    }
    while (at && shadow_goes_on(values[at - 1], values[at], step)) {
        at--;
    }
    *first = at;
    *last = end;
    return true;
}

static bool next_full(const struct shadow_slot *slot, uint64_t base, unsigned page,
                      struct shadow_extent *extent)
{
    unsigned first;
    unsigned last;

    if (!scan(slot->values, SHADOW_PAGES, SHADOW_PAGE, page, &first, &last)) {
        return false;
    }
    tell(extent, base, 12, first, last, slot->values[first]);
    return true;
}

static bool next_sparse(const struct shadow_slot *slot, uint64_t base, unsigned page,
                        struct shadow_extent *extent)
{
    const uint64_t *entries = slot->values;
    unsigned at = sparse_from(slot, page);
    unsigned first;
    unsigned last;

    if (!scan(entries, slot->count, SHADOW_SPARSE_STEP, at, &first, &last)) {
        return false;
    }
    tell(extent, base, 12, sparse_index(entries[first]), sparse_index(entries[last]),
         entries[first]);
    return true;
}

bool shadow_slot_next(const struct shadow_slot *slot, unsigned level, uint64_t base, uint64_t from,
                      struct shadow_extent *extent)
{
    unsigned unit = shadow_shift(level - 1);
    unsigned at = (unsigned)((from - base) >> unit);

    switch (slot->kind) {
    case SHADOW_RUN:
        if (slot->last < at) {
            return false;
        }
        tell(extent, base, unit, slot->first, slot->last, slot->value);
        return true;
    case SHADOW_SPARSE:
        return next_sparse(slot, base, at, extent);
    case SHADOW_FULL:
        return next_full(slot, base, at, extent);
    default:
        return false;
    }
}

/* ---- values --------------------------------------------------------------------------------- */

void shadow_slot_expand(const struct shadow_slot *slot, uint64_t *values)
{
    if (slot->kind == SHADOW_FULL) {
        memcpy(values, slot->values, SHADOW_PAGES * sizeof(*values));
        return;
    }
    memset(values, 0, SHADOW_PAGES * sizeof(*values));
    if (slot->kind == SHADOW_RUN) {
        uint64_t value = slot->value & ~SHADOW_START;

        for (unsigned i = slot->first; i <= slot->last; i++, value += SHADOW_PAGE) {
            values[i] = value;
        }
        values[slot->first] |= SHADOW_START;
    } else if (slot->kind == SHADOW_SPARSE) {
        for (unsigned i = 0; i < slot->count; i++) {
            values[sparse_index(slot->values[i])] = sparse_value(slot->values[i]);
        }
    }
}

static int build_sparse(const uint64_t *values, struct shadow_slot *slot)
{
    unsigned at = 0;

    slot->values = base_alloc(slot->count * sizeof(*values));
    if (!slot->values) {
        return -ENOMEM;
    }
    slot->kind = SHADOW_SPARSE;
    for (unsigned i = 0; at < slot->count; i++) {
        if (values[i]) {
            slot->values[at++] = values[i] | (uint64_t)i << SHADOW_INDEX_SHIFT;
        }
    }
    return 0;
}

static int build_full(const uint64_t *values, struct shadow_slot *slot)
{
    slot->values = base_realloc_array(NULL, SHADOW_PAGES, sizeof(*values)); /* not zeroed */
    if (!slot->values) {
        return -ENOMEM;
    }
    slot->kind = SHADOW_FULL;
    memcpy(slot->values, values, SHADOW_PAGES * sizeof(*values));
    return 0;
}

static void build_run(const uint64_t *values, unsigned count, struct shadow_slot *slot)
{
    unsigned first = 0;

    while (!values[first]) {
        first++;
    }
    slot->kind = SHADOW_RUN;
    slot->value = values[first] | SHADOW_START;
    slot->first = (uint16_t)first;
    slot->last = (uint16_t)(first + count - 1);
    slot->count = 0;
}

/* Whether the values that are not 0, so many, are one stretch. */
static bool is_one_stretch(const uint64_t *values, unsigned count)
{
    unsigned first = 0;
    unsigned i;

    while (!values[first]) {
        first++;
    }
    for (i = 1; i < count; i++) {
        if (first + i == SHADOW_PAGES ||
            !shadow_goes_on(values[first + i - 1], values[first + i], SHADOW_PAGE)) {
            return false;
        }
    }
    return true;
}

int shadow_slot_build(const uint64_t *values, bool whole, struct shadow_slot *slot)
{
    uint64_t count = 0;
    uint64_t all = 0;
    int error = 0;

    /* As arithmetic, which compilers make vectors of: the top bit of x | -x is set where x is. */
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        count += (values[i] | -values[i]) >> 63;
        all |= values[i];
    }
    *slot = empty_slot;
    if (!count) {
        return 0;
    }
    slot->whole = whole;
    slot->count = (uint16_t)count;
    if ((all & SHADOW_PERM) && is_one_stretch(values, (unsigned)count)) {
        build_run(values, (unsigned)count, slot);
    } else {
        error = count <= SHADOW_SPARSE_MAX ? build_sparse(values, slot) : build_full(values, slot);
    }
    if (error) {
        *slot = empty_slot;
    }
    return error;
}

int shadow_slot_break(const struct shadow_slot *run, struct shadow_slot *slot)
{
    struct shadow_node *node = base_alloc(sizeof(*node));

    *slot = empty_slot;
    if (!node) {
        return -ENOMEM;
    }
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        node->slots[i] = (struct shadow_slot){
            .value = run->value + ((uint64_t)i << shadow_shift(1)),
            .kind = SHADOW_RUN,
            .whole = run->whole,
            .last = SHADOW_PAGES - 1,
        };
    }
    slot->node = node;
    slot->kind = SHADOW_NODE;
    slot->count = SHADOW_PAGES;
    return 0;
}
