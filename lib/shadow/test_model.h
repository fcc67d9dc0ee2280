/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A plain model of the shadow map, for its tests and its fuzz target: a few *regions* of 1 GiB, far
 * apart, each an array of values. An extent is what begins at SHADOW_START and goes on up to the
 * next one or to a page without a permission.
 *
 * The model has a map beside it. What changes both compares them, and aborts where they differ: how
 * the map reads around the change, with the slot as a patch and then in place, its invariants, and
 * that it is as it was when memory was short.
 */
#ifndef VIOMMU_SHADOW_TEST_MODEL_H
#define VIOMMU_SHADOW_TEST_MODEL_H

#include "base/alloc.h"
#include "shadow/map.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MODEL_REGIONS 4u
#define MODEL_BLOCKS SHADOW_PAGES
#define MODEL_PAGES (MODEL_BLOCKS * SHADOW_PAGES)
#define MODEL_BLOCK_SIZE (1ULL << 21)
#define MODEL_REGION_SIZE (1ULL << 30)
/* No more extents than this are compared at once. */
#define MODEL_READ_MAX 5000u

struct model {
    struct shadow_map map;
    unsigned regions;
    uint64_t base[MODEL_REGIONS]; /* ascending */
    bool run[MODEL_REGIONS];      /* one extent, a RUN of level 2 */
    bool used[MODEL_REGIONS][MODEL_BLOCKS]; /* has a value that is not 0 */
    uint64_t values[MODEL_REGIONS][MODEL_PAGES];
};

static inline void model_expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "shadow map and model differ: %s\n", what);
        abort();
    }
}

/* Of a stretch that is changed at random. */
enum model_shape {
    MODEL_LINEAR,    /* mapped to consecutive pages */
    MODEL_SCATTERED, /* every other page mapped */
    MODEL_REVERSED,  /* mapped to pages that descend */
    MODEL_BAD,
    MODEL_CLEAR,
    MODEL_CUT,  /* each page an extent of its own */
    MODEL_JOIN, /* extents as large as they can be */
    MODEL_SHAPES,
};

/* ---- values --------------------------------------------------------------------------------- */

static inline uint64_t model_block_base(const struct model *model, unsigned region, unsigned block)
{
    return model->base[region] + block * MODEL_BLOCK_SIZE;
}

static inline uint64_t *model_block(struct model *model, unsigned region, unsigned block)
{
    return &model->values[region][(size_t)block * SHADOW_PAGES];
}

static inline uint64_t model_shaped(enum model_shape shape, uint64_t value, unsigned i,
                                    uint64_t gpa, uint64_t perm)
{
    uint64_t step = i * 4096ULL;

    switch (shape) {
    case MODEL_LINEAR:
        return ((gpa + step) & SHADOW_TARGET) | perm;
    case MODEL_SCATTERED:
        return i & 1 ? value : ((gpa + step) & SHADOW_TARGET) | perm;
    case MODEL_REVERSED:
        return ((gpa - step) & SHADOW_TARGET) | perm;
    case MODEL_BAD:
        return SHADOW_BAD;
    case MODEL_CUT:
        return value & SHADOW_PERM ? value | SHADOW_START : value;
    case MODEL_JOIN:
        return value & ~SHADOW_START;
    default:
        return 0;
    }
}

/* Puts SHADOW_START wherever it has to be. */
static inline void model_start(uint64_t *values)
{
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        uint64_t before = i ? values[i - 1] : 0;

        if (values[i] & SHADOW_PERM &&
            ((before & SHADOW_PERM) != (values[i] & SHADOW_PERM) ||
             (before & SHADOW_TARGET) + 4096 != (values[i] & SHADOW_TARGET))) {
            values[i] |= SHADOW_START;
        }
    }
}

/* Changes `count` values of a block, or those up to its end. `perm` is 1 to 3. */
static inline void model_shape(uint64_t *values, enum model_shape shape, unsigned at,
                               unsigned count, uint64_t gpa, uint64_t perm)
{
    for (unsigned i = 0; i < count && at + i < SHADOW_PAGES; i++) {
        values[at + i] = model_shaped(shape, values[at + i], i, gpa, perm);
    }
    model_start(values);
}

/* A pattern of one of the forms; `variant` makes another of it. */
static inline void model_form(uint64_t *values, unsigned form, unsigned variant)
{
    uint64_t gpa = (1 + variant) * MODEL_REGION_SIZE;

    memset(values, 0, SHADOW_PAGES * sizeof(*values));
    switch (form) {
    case SHADOW_RUN:
        model_shape(values, MODEL_LINEAR, variant * 100, 300, gpa, 3);
        break;
    case SHADOW_SPARSE:
        model_shape(values, MODEL_SCATTERED, variant, 100 + variant, gpa, 3);
        model_shape(values, MODEL_BAD, 500, 2, 0, 0);
        break;
    case SHADOW_FULL:
        model_shape(values, MODEL_REVERSED, 0, SHADOW_PAGES - variant, gpa, 1);
        break;
    default:
        break;
    }
}

/* ---- look-ups ------------------------------------------------------------------------------- */

/* The extent that a page with a permission is in. */
static inline void model_extent(const struct model *model, unsigned region, unsigned page,
                                struct shadow_extent *extent)
{
    const uint64_t *values = model->values[region];
    unsigned first = page;
    unsigned last = page;

    while (!(values[first] & SHADOW_START)) {
        first--;
    }
    while (last + 1 < MODEL_PAGES && values[last + 1] & SHADOW_PERM &&
           !(values[last + 1] & SHADOW_START)) {
        last++;
    }
    extent->first = model->base[region] + first * 4096ULL;
    extent->last = model->base[region] + last * 4096ULL + 4095;
    extent->gpa = values[first] & SHADOW_TARGET;
    extent->perm = values[first] & SHADOW_PERM;
}

static inline bool model_next(const struct model *model, uint64_t from, uint64_t last,
                              struct shadow_extent *extent)
{
    for (unsigned region = 0; region < model->regions; region++) {
        uint64_t base = model->base[region];
        unsigned page = 0;

        if (from > base + (MODEL_REGION_SIZE - 1)) {
            continue;
        }
        if (from > base) {
            page = (unsigned)((from - base) >> 12);
        }
        for (; page < MODEL_PAGES && base + page * 4096ULL <= last; page++) {
            if (!model->used[region][page / SHADOW_PAGES]) {
                page |= SHADOW_PAGES - 1;
            } else if (model->values[region][page] & SHADOW_PERM) {
                model_extent(model, region, page, extent);
                return true;
            }
        }
    }
    return false;
}

static inline bool model_used(const struct model *model, uint64_t from, uint64_t last,
                              uint64_t *found)
{
    for (unsigned region = 0; region < model->regions; region++) {
        unsigned block = from > model->base[region] + (MODEL_REGION_SIZE - 1) ? MODEL_BLOCKS : 0;

        for (; block < MODEL_BLOCKS; block++) {
            uint64_t base = model_block_base(model, region, block);

            if (model->used[region][block] && from <= base + (MODEL_BLOCK_SIZE - 1) &&
                base <= last && from <= last) {
                *found = from > base ? from : base;
                return true;
            }
        }
    }
    return false;
}

static inline bool model_same_extent(const struct shadow_extent *a, const struct shadow_extent *b)
{
    return a->first == b->first && a->last == b->last && a->gpa == b->gpa && a->perm == b->perm;
}

/* Compares one answer. */
static inline void model_look(const struct model *model, uint64_t from, uint64_t last)
{
    struct shadow_extent extent;
    struct shadow_extent expected;
    uint64_t found = 0;
    uint64_t lowest = 0;
    bool is = from <= last && model_next(model, from, last, &expected);

    model_expect(shadow_map_next(&model->map, NULL, from, last, &extent) == is, "is there a next");
    model_expect(!is || model_same_extent(&extent, &expected), "the next extent");
    is = model_used(model, from, last, &lowest);
    model_expect(shadow_map_used(&model->map, from, last, &found) == is, "is anything used");
    model_expect(!is || found == lowest, "the lowest that is used");
}

/* Compares all extents from one address to another. */
static inline void model_compare(const struct model *model, uint64_t from, uint64_t last)
{
    struct shadow_extent extent;
    unsigned count = 0;

    while (model_next(model, from, last, &extent) && count++ < MODEL_READ_MAX) {
        model_look(model, from, last);
        if (extent.last >= last) {
            return;
        }
        from = extent.last + 1;
    }
    model_look(model, from, last);
}

/* Compares a block's slot with its values. */
static inline void model_compare_block(struct model *model, unsigned region, unsigned block)
{
    uint64_t address = model_block_base(model, region, block);
    const struct shadow_slot *slot = shadow_map_slot(&model->map, 1, address + block);
    uint64_t values[SHADOW_PAGES];

    if (model->run[region]) {
        model_expect(!slot, "a level-1 slot in a run");
        slot = shadow_map_slot(&model->map, 2, address);
        model_expect(slot && slot->kind == SHADOW_RUN, "a run of level 2");
        return;
    }
    model_expect(slot || !model->used[region][block], "a missing slot");
    if (slot) {
        shadow_slot_expand(slot, values);
        model_expect(!memcmp(values, model_block(model, region, block), sizeof(values)),
                     "a block's values");
    }
}

/* ---- changes -------------------------------------------------------------------------------- */

static inline void model_reset(struct model *model, unsigned levels)
{
    uint64_t top = 1ULL << shadow_shift(levels);

    for (unsigned region = 0; region < MODEL_REGIONS; region++) {
        for (unsigned block = 0; block < MODEL_BLOCKS; block++) {
            if (model->used[region][block]) {
                model->used[region][block] = false;
                memset(model_block(model, region, block), 0, SHADOW_PAGES * sizeof(uint64_t));
            }
        }
        model->run[region] = false;
    }
    shadow_map_init(&model->map, levels);
    /* Two beside one another, and the ends of the halves. */
    model->regions = levels > 2 ? MODEL_REGIONS : 1;
    model->base[0] = 0;
    model->base[1] = MODEL_REGION_SIZE;
    model->base[2] = top / 2 - MODEL_REGION_SIZE;
    model->base[3] = top - MODEL_REGION_SIZE;
}

/* What the extents around a block are, as one number. */
static inline uint64_t model_read(const struct shadow_map *map, const struct shadow_patch *patch,
                                  uint64_t first, uint64_t last)
{
    uint64_t from = first > MODEL_BLOCK_SIZE ? first - MODEL_BLOCK_SIZE + 4096 : 0;
    uint64_t sum = 0;
    struct shadow_extent extent;

    last += MODEL_BLOCK_SIZE;
    while (shadow_map_next(map, patch, from, last, &extent)) {
        sum = sum * 31 + extent.first;
        sum = sum * 31 + extent.last;
        sum = sum * 31 + (extent.gpa | extent.perm);
        from = extent.last + 1;
    }
    return sum;
}

/* Puts a slot into the map; it is freed where that fails. */
static inline int model_put_slot(struct model *model, unsigned level, uint64_t address,
                                 struct shadow_slot *slot)
{
    struct shadow_patch patch = {
        .first = address,
        .last = address + (1ULL << shadow_shift(level)) - 1,
        .level = (uint8_t)level,
        .slot = *slot,
    };
    struct shadow_map *map = &model->map;
    uint64_t before = model_read(map, NULL, patch.first, patch.last);
    uint64_t patched = model_read(map, &patch, patch.first, patch.last);
    uint64_t bytes = map->bytes;
    uint64_t pages = map->pages;
    int error = slot->kind == SHADOW_EMPTY ? 0 : shadow_map_reserve(map, level, address);

    if (error) {
        shadow_slot_free(slot);
    } else {
        shadow_map_replace(map, level, address, slot);
    }
    model_expect(!error || (map->bytes == bytes && map->pages == pages), "a failure changes a map");
    model_expect(model_read(map, NULL, patch.first, patch.last) == (error ? before : patched),
                 "a patched map and a changed one");
    shadow_map_check(map);
    return error;
}

/* Breaks the region's run. */
static inline int model_break(struct model *model, unsigned region)
{
    struct shadow_slot slot;
    int error = shadow_slot_break(shadow_map_slot(&model->map, 2, model->base[region]), &slot);

    error = error ? error : model_put_slot(model, 2, model->base[region], &slot);
    if (error) {
        return error;
    }
    model->run[region] = false;
    for (unsigned block = 0; block < MODEL_BLOCKS; block++) {
        *model_block(model, region, block) |= SHADOW_START;
    }
    return 0;
}

/* New values for a block. */
static inline int model_put_block(struct model *model, unsigned region, unsigned block,
                                  const uint64_t *values, bool whole)
{
    uint64_t address = model_block_base(model, region, block);
    struct shadow_slot slot;
    int error = model->run[region] ? model_break(model, region) : 0;

    error = error ? error : shadow_slot_build(values, whole, &slot);
    error = error ? error : model_put_slot(model, 1, address, &slot);
    if (error) {
        return error;
    }
    model->used[region][block] = false;
    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        model_block(model, region, block)[i] = values[i];
        model->used[region][block] |= values[i] != 0;
    }
    return 0;
}

/* Makes a region one run, or EMPTY where perm is 0. */
static inline int model_put_region(struct model *model, unsigned region, uint64_t gpa,
                                   uint64_t perm)
{
    struct shadow_slot slot = {.kind = SHADOW_EMPTY};
    int error;

    gpa &= SHADOW_TARGET & ~(MODEL_REGION_SIZE - 1);
    if (perm) {
        slot.kind = SHADOW_RUN;
        slot.value = gpa | perm | SHADOW_START;
        slot.last = SHADOW_PAGES - 1;
        slot.whole = true;
    }
    error = model_put_slot(model, 2, model->base[region], &slot);
    if (error) {
        return error;
    }
    model->run[region] = perm != 0;
    for (unsigned page = 0; page < MODEL_PAGES; page++) {
        model->values[region][page] = perm ? (gpa + page * 4096ULL) | perm : 0;
        model->used[region][page / SHADOW_PAGES] = perm != 0;
    }
    model->values[region][0] |= perm ? SHADOW_START : 0;
    return 0;
}

/* Frees the map, so many slots at a time. */
static inline void model_free(struct model *model, unsigned slots)
{
    uint64_t bytes = model->map.bytes;

    while (!shadow_map_free_some(&model->map, slots)) {
        model_expect(model->map.bytes < bytes, "freeing goes on");
        model_expect(bytes - model->map.bytes <= slots * sizeof(struct shadow_node),
                     "not too much is freed at once");
        bytes = model->map.bytes;
    }
    model_expect(!model->map.bytes && !model->map.pages, "all is freed");
    shadow_map_check(&model->map);
}

#endif
