/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tree of a shadow map (shadow/map.h): look-ups, the order of its slots, and changes.
 *
 * A map of `levels` levels hangs on one slot of that level, `top`, which spans all its addresses;
 * the slots of a node on a slot of level n are of level n - 1. So every slot of level 1 or 2, that
 * of a patch too, is read as a tree of its own.
 */
#include "shadow/map.h"

#include "base/alloc.h"
#include "shadow/slot.h"

#include <errno.h>
#include <string.h>

#define LEVELS_MAX 5u

static const struct shadow_slot empty_slot;

static unsigned index_at(uint64_t address, unsigned level)
{
    return (unsigned)(address >> shadow_shift(level)) & (SHADOW_PAGES - 1);
}

/* The highest address. */
static uint64_t map_last(const struct shadow_map *map)
{
    return (1ULL << shadow_shift(map->levels)) - 1;
}

/* ---- look-ups ------------------------------------------------------------------------------- */

void shadow_map_init(struct shadow_map *map, unsigned levels)
{
    *map = (struct shadow_map){.levels = (uint8_t)levels};
}

const struct shadow_slot *shadow_map_slot(const struct shadow_map *map, unsigned level,
                                          uint64_t address)
{
    const struct shadow_slot *slot = &map->top;

    if (address > map_last(map)) {
        return NULL;
    }
    for (unsigned at = map->levels; at > level;) {
        if (slot->kind != SHADOW_NODE) {
            return NULL;
        }
        at--;
        slot = &slot->node->slots[index_at(address, at)];
    }
    return slot;
}

void shadow_map_set_whole(struct shadow_map *map, uint64_t address, bool whole)
{
    struct shadow_slot *slot = (struct shadow_slot *)shadow_map_slot(map, 1, address);

    if (slot && slot->kind != SHADOW_EMPTY) {
        slot->whole = whole;
    }
}

/* The first address after the slots of a node without use that follow on that of an address; no
   further than the slot of `last`. */
static uint64_t skip_empty(const struct shadow_node *node, unsigned level, uint64_t address,
                           uint64_t last)
{
    unsigned shift = shadow_shift(level);
    uint64_t block = address >> shift;
    uint64_t left = (last >> shift) - block;
    unsigned at = index_at(address, level);
    unsigned end = left < SHADOW_PAGES - 1 - at ? at + (unsigned)left + 1 : SHADOW_PAGES;
    unsigned next = at + 1;

    while (next < end && node->slots[next].kind == SHADOW_EMPTY) {
        next++;
    }
    return (block + (next - at)) << shift;
}

/*
 * The first slot in use, no NODE, that spans *address or addresses above, up to `last`; below a
 * root of a level. `last` lies in the root. Says the slot's level; *address becomes the first one
 * that is in it.
 */
static const struct shadow_slot *find_used(const struct shadow_slot *root, unsigned root_level,
                                           uint64_t last, uint64_t *address, unsigned *level)
{
    while (*address <= last) {
        const struct shadow_slot *slot = root;
        const struct shadow_node *node = NULL;
        unsigned at = root_level;

        while (slot->kind == SHADOW_NODE) {
            at--;
            node = slot->node;
            slot = &node->slots[index_at(*address, at)];
        }
        if (slot->kind != SHADOW_EMPTY) {
            *level = at;
            return slot;
        }
        if (!node) {
            return NULL;
        }
        *address = skip_empty(node, at, *address, last);
    }
    return NULL;
}

bool shadow_map_used(const struct shadow_map *map, uint64_t from, uint64_t last, uint64_t *found)
{
    uint64_t end = map_last(map);
    unsigned level;

    *found = from;
    return find_used(&map->top, map->levels, last < end ? last : end, found, &level) != NULL;
}

static bool next_below(const struct shadow_slot *root, unsigned root_level, uint64_t from,
                       uint64_t last, struct shadow_extent *extent)
{
    const struct shadow_slot *slot;
    unsigned level;

    while ((slot = find_used(root, root_level, last, &from, &level))) {
        uint64_t span = 1ULL << shadow_shift(level);
        uint64_t base = from & ~(span - 1);

        if (shadow_slot_next(slot, level, base, from, extent)) {
            return extent->first <= last;
        }
        from = base + span;
    }
    return false;
}

bool shadow_map_next(const struct shadow_map *map, const struct shadow_patch *patch, uint64_t from,
                     uint64_t last, struct shadow_extent *extent)
{
    uint64_t end = map_last(map);

    last = last < end ? last : end;
    if (!patch || from > patch->last || last < patch->first) {
        return next_below(&map->top, map->levels, from, last, extent);
    }
    /* No extent crosses the patch's borders: below it, in it, above it. */
    if (from < patch->first) {
        if (next_below(&map->top, map->levels, from, patch->first - 1, extent)) {
            return true;
        }
        from = patch->first;
    }
    if (next_below(&patch->slot, patch->level, from, last < patch->last ? last : patch->last,
                   extent)) {
        return true;
    }
    return last > patch->last &&
           next_below(&map->top, map->levels, patch->last + 1, last, extent);
}

/* ---- changes -------------------------------------------------------------------------------- */

/* The slots that lead to one of a level: way[n] is of level n. From the top down, as far as there
   are nodes; returns the level of the last. */
static unsigned find_way(struct shadow_map *map, unsigned level, uint64_t address,
                         struct shadow_slot **way)
{
    unsigned at = map->levels;

    way[at] = &map->top;
    while (at > level && way[at]->kind == SHADOW_NODE) {
        struct shadow_node *node = way[at]->node;

        at--;
        way[at] = &node->slots[index_at(address, at)];
    }
    return at;
}

static void free_nodes(struct shadow_node **nodes, unsigned count)
{
    while (count) {
        base_free(nodes[--count]);
    }
}

static int make_nodes(struct shadow_node **nodes, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        nodes[i] = base_alloc(sizeof(*nodes[i]));
        if (!nodes[i]) {
            free_nodes(nodes, i);
            return -ENOMEM;
        }
    }
    return 0;
}

int shadow_map_reserve(struct shadow_map *map, unsigned level, uint64_t address)
{
    struct shadow_slot *way[LEVELS_MAX + 1];
    struct shadow_node *nodes[LEVELS_MAX];
    unsigned at = find_way(map, level, address, way);
    unsigned missing = at - level;

    if (address > map_last(map) || (missing && way[at]->kind != SHADOW_EMPTY)) {
        return -EINVAL;
    }
    if (make_nodes(nodes, missing)) {
        return -ENOMEM;
    }
    map->bytes += missing * sizeof(**nodes);
    for (; at > level; at--) {
        struct shadow_node *node = nodes[at - level - 1];

        *way[at] = (struct shadow_slot){.node = node, .kind = SHADOW_NODE};
        if (at < map->levels) {
            way[at + 1]->count++;
        }
        way[at - 1] = &node->slots[index_at(address, at - 1)];
    }
    return 0;
}

/* Frees the nodes of a way that have become unused; the lowest is on the slot of `level`. */
static void prune(struct shadow_map *map, struct shadow_slot **way, unsigned level)
{
    while (level <= map->levels && !way[level]->count) {
        base_free(way[level]->node);
        *way[level] = empty_slot;
        map->bytes -= sizeof(struct shadow_node);
        level++;
        if (level <= map->levels) {
            way[level]->count--;
        }
    }
}

void shadow_map_replace(struct shadow_map *map, unsigned level, uint64_t address,
                        const struct shadow_slot *slot)
{
    struct shadow_slot *way[LEVELS_MAX + 1];
    struct shadow_measure old;
    struct shadow_measure new;
    unsigned was;

    /* Without a way there, nothing is there: as an EMPTY slot would have it. */
    if (address > map_last(map) || find_way(map, level, address, way) != level) {
        return;
    }
    old = shadow_slot_measure(way[level], level);
    new = shadow_slot_measure(slot, level);
    was = way[level]->kind != SHADOW_EMPTY;
    shadow_slot_free(way[level]);
    *way[level] = *slot;
    map->bytes += new.bytes - old.bytes;
    map->pages += new.pages - old.pages;
    if (level < map->levels) {
        way[level + 1]->count = (uint16_t)(way[level + 1]->count - was +
                                           (slot->kind != SHADOW_EMPTY));
        prune(map, way, level + 1);
    }
}

/* ---- freeing -------------------------------------------------------------------------------- */

/* Frees a slot of level 1, or a RUN. */
static void free_leaf(struct shadow_map *map, struct shadow_slot *slot, unsigned level,
                      unsigned *slots)
{
    struct shadow_measure measure = shadow_slot_measure(slot, level);

    map->bytes -= measure.bytes;
    map->pages -= measure.pages;
    *slots -= measure.bytes != 0;
    shadow_slot_free(slot);
}

/* Frees what is below a slot from its end, while *slots last; the slot is EMPTY when all is. */
static void free_below(struct shadow_map *map, struct shadow_slot *slot, unsigned level,
                       unsigned *slots)
{
    if (slot->kind != SHADOW_NODE) {
        free_leaf(map, slot, level, slots);
        return;
    }
    for (unsigned i = SHADOW_PAGES; i && slot->count && *slots; i--) {
        struct shadow_slot *below = &slot->node->slots[i - 1];

        if (below->kind != SHADOW_EMPTY) {
            free_below(map, below, level - 1, slots);
            slot->count = (uint16_t)(slot->count - (below->kind == SHADOW_EMPTY));
        }
    }
    if (!slot->count && *slots) {
        base_free(slot->node);
        *slot = empty_slot;
        map->bytes -= sizeof(struct shadow_node);
        (*slots)--;
    }
}

bool shadow_map_free_some(struct shadow_map *map, unsigned slots)
{
    free_below(map, &map->top, map->levels, &slots);
    return map->top.kind == SHADOW_EMPTY;
}
