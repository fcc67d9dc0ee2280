/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding free addresses: down the tree, past children whose largest gap is too small.
 *
 * A child that is entered seems to have a gap of the size. What can be wrong with that: it was so
 * once (what is known of the child is put right on the way back), it lies outside the range (only
 * along the two borders of that), or it lies badly for the alignment: a *miss*. A gap of size +
 * align - 1 has a place however it lies.
 */
#include "range/tree.h"

#include <errno.h>

struct search {
    uint64_t first;
    uint64_t last;
    uint64_t size;
    uint64_t align;
    uint64_t least; /* gaps smaller than this are not looked at */
    uint64_t tries; /* misses until the search is given up */
    uint64_t found;
};

/* Whether [first, last], which is free, has a place. */
static bool look_at(struct search *search, uint64_t first, uint64_t last)
{
    uint64_t low = first > search->first ? first : search->first;
    uint64_t high = last < search->last ? last : search->last;
    uint64_t place = (low + search->align - 1) & ~(search->align - 1);

    if (low > high || high - low < search->size - 1) {
        return false;
    }
    /* Below `low`: rounded up past the top of the address space. */
    if (place < low || place > high || high - place < search->size - 1) {
        search->tries -= search->tries > 0;
        return false;
    }
    search->found = place;
    return true;
}

/* The gap before an entry, unless it is the node's first: that gap is the parent's. */
static bool look_before(struct search *search, struct range_node *node, unsigned level,
                        unsigned index)
{
    return index && tree_gap_before(node, level, index) >= search->least &&
           look_at(search, node->last[index - 1] + 1, tree_entries(node, level)[index].first - 1);
}

/* Searches the gaps inside a node. */
static bool look_inside(struct search *search, struct range_node *node, unsigned level)
{
    unsigned i = tree_search(node, level, search->first);

    for (; i < node->count && search->tries; i++) {
        struct range_entry *entry = &tree_entries(node, level)[i];

        if (look_before(search, node, level, i)) {
            return true;
        }
        if (entry->first > search->last) {
            return false;
        }
        if (level && entry->gap >= search->least) {
            if (look_inside(search, entry->child, level - 1)) {
                return true;
            }
            entry->gap = tree_node_gap(entry->child, level - 1);
        }
    }
    return false;
}

static bool look(struct search *search, struct range_map *map, uint64_t least, uint64_t tries)
{
    struct range_node *root = map->root;
    uint64_t first;
    uint64_t last;

    search->least = least;
    search->tries = tries;
    if (!map->height) {
        return look_at(search, 0, UINT64_MAX);
    }
    first = tree_entries(root, map->height - 1)[0].first;
    last = root->last[root->count - 1];
    return (first && look_at(search, 0, first - 1)) ||
           look_inside(search, root, map->height - 1) ||
           (last != UINT64_MAX && search->tries && look_at(search, last + 1, UINT64_MAX));
}

int range_map_find_gap(struct range_map *map, uint64_t first, uint64_t last, uint64_t size,
                       uint64_t align, uint64_t *found)
{
    struct search search = {.first = first, .last = last, .size = size, .align = align};
    uint64_t roomy = size + align - 1;

    if (first > last || !size || !align || align & (align - 1)) {
        return -EINVAL;
    }
    if (!look(&search, map, size, RANGE_GAP_TRIES) &&
        (search.tries || ((roomy < size || !look(&search, map, roomy, UINT64_MAX)) &&
                          !look(&search, map, size, UINT64_MAX)))) {
        return -ENOSPC;
    }
    *found = search.found;
    return 0;
}
