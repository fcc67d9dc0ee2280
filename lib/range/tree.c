/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Insertion and removal in the tree, and the memory of its nodes.
 *
 * Both go up the path from the leaf. An insertion that meets a full node splits it and inserts the
 * new half above; a removal that leaves too few entries merges the node with a sibling and removes
 * above, or takes some of the sibling's. Most do neither, and then look above only when the leaf
 * begins or ends elsewhere, or has a larger gap.
 */
#include "range/tree.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

/* Spare nodes of each kind that are kept anyway: a map at a border splits and merges in turns. */
#define SPARE_KEEP 4

/* ---- spare nodes ---- */

static struct range_node *spare_take(struct range_map *map, unsigned level)
{
    struct range_spare *spare = &map->spare[level > 0];
    struct range_node *node = spare->nodes;

    spare->nodes = node->next;
    spare->count--;
    map->nodes[level > 0]++;
    node->count = 0;
    memset(node->last, 0xff, tree_capacity(level) * sizeof(node->last[0]));
    return node;
}

static void spare_put(struct range_spare *spare, struct range_node *node)
{
    node->next = spare->nodes;
    spare->nodes = node;
    spare->count++;
}

static void trim(struct range_spare *spare, size_t keep)
{
    while (spare->count > keep) {
        struct range_node *node = spare->nodes;

        spare->nodes = node->next;
        spare->count--;
        base_free(node);
    }
}

void tree_trim(struct range_map *map)
{
    trim(&map->spare[0], map->spare_keep);
    trim(&map->spare[1], map->spare_keep);
}

static void node_free(struct range_map *map, struct range_node *node, unsigned level)
{
    spare_put(&map->spare[level > 0], node);
    map->nodes[level > 0]--;
    tree_trim(map);
}

/* Makes sure that as many leaves and inner nodes are spare. Returns 0 or -ENOMEM. */
static int ensure(struct range_map *map, const size_t nodes[2])
{
    for (unsigned kind = 0; kind < 2; kind++) {
        while (map->spare[kind].count < nodes[kind]) {
            struct range_node *node = base_alloc_aligned(TREE_LINE, tree_node_size(kind));

            if (!node) {
                tree_trim(map);
                return -ENOMEM;
            }
            spare_put(&map->spare[kind], node);
        }
    }
    return 0;
}

int tree_prepare_splits(struct range_map *map, const struct range_path *path)
{
    size_t needed[2] = {0, 0};
    unsigned level = 0;

    while (level < map->height && path->node[level]->count == tree_capacity(level)) {
        needed[level > 0]++;
        level++;
    }
    if (level == map->height) {
        needed[level > 0]++; /* a root, of an empty map or above the present one */
    }
    return ensure(map, needed);
}

/*
 * How many nodes so many insertions can take. On each level there are at most as many splits as
 * insertions; and as a node that was just made has room, at most one of each node that is there and
 * one for each so many insertions. Removals between them only make room, and what they free is
 * kept. Every split inserts one entry above; levels that are not there yet begin with a root.
 */
static void nodes_for(const struct range_map *map, size_t insertions, size_t needed[2])
{
    size_t nodes = map->count;

    needed[0] = 0;
    needed[1] = 0;
    for (unsigned level = 0; insertions; level++) {
        size_t room = tree_capacity(level) - tree_fill(level);
        size_t splits;

        nodes = level < map->height ? nodes / tree_least(level) + 1 : 0;
        splits = (room * nodes + insertions) / (room + 1);
        splits = splits < insertions ? splits : insertions;
        needed[level > 0] += splits + (level >= map->height);
        insertions = splits;
    }
}

int range_map_reserve(struct range_map *map, size_t operations)
{
    size_t keep = map->spare_keep;
    size_t needed[2];
    int error;

    if (operations > SIZE_MAX / tree_node_size(1)) {
        return -ENOMEM;
    }
    nodes_for(map, operations, needed);
    error = ensure(map, needed);
    map->spare_keep = error ? keep : SIZE_MAX;
    return error;
}

void range_map_release(struct range_map *map)
{
    map->spare_keep = SPARE_KEEP;
    tree_trim(map);
}

/* ---- nodes ---- */

/*
 * Opens a place at the index. A loop and no memmove, whose branches on the size are mispredicted.
 */
static inline void node_insert(struct range_node *node, unsigned level, unsigned index,
                               uint64_t last, const struct range_entry *entry)
{
    struct range_entry *entries = tree_entries(node, level);

    for (size_t i = node->count; i > index; i--) {
        node->last[i] = node->last[i - 1];
        entries[i] = entries[i - 1];
    }
    node->last[index] = last;
    entries[index] = *entry;
    node->count++;
}

static inline void node_remove(struct range_node *node, unsigned level, unsigned index)
{
    struct range_entry *entries = tree_entries(node, level);

    node->count--;
    for (size_t i = index; i < node->count; i++) {
        node->last[i] = node->last[i + 1];
        entries[i] = entries[i + 1];
        __asm__("" ::: "memory"); /* the compiler would make two calls of memmove of it */
    }
    node->last[node->count] = UINT64_MAX;
}

/* Moves the first `count` entries of `right` to the end of `left`. */
static void move_left(struct range_node *left, struct range_node *right, unsigned level,
                      size_t count)
{
    struct range_entry *from = tree_entries(right, level);
    size_t stay = right->count - count;

    memcpy(&left->last[left->count], right->last, count * sizeof(left->last[0]));
    memcpy(&tree_entries(left, level)[left->count], from, count * sizeof(*from));
    memmove(right->last, &right->last[count], stay * sizeof(right->last[0]));
    memmove(from, &from[count], stay * sizeof(*from));
    memset(&right->last[stay], 0xff, count * sizeof(right->last[0]));
    left->count += count;
    right->count = stay;
}

/* Moves the last `count` entries of `left` to the beginning of `right`. */
static void move_right(struct range_node *left, struct range_node *right, unsigned level,
                       size_t count)
{
    struct range_entry *to = tree_entries(right, level);
    size_t stay = left->count - count;

    memmove(&right->last[count], right->last, right->count * sizeof(right->last[0]));
    memmove(&to[count], to, right->count * sizeof(*to));
    memcpy(right->last, &left->last[stay], count * sizeof(right->last[0]));
    memcpy(to, &tree_entries(left, level)[stay], count * sizeof(*to));
    memset(&left->last[stay], 0xff, count * sizeof(left->last[0]));
    left->count = stay;
    right->count += count;
}

uint64_t tree_node_gap(struct range_node *node, unsigned level)
{
    const struct range_entry *entries = tree_entries(node, level);
    uint64_t largest = 0;

    for (unsigned i = 0; i < node->count; i++) {
        uint64_t before = i ? tree_gap_before(node, level, i) : 0;
        uint64_t inside = level ? entries[i].gap : 0;

        largest = before > largest ? before : largest;
        largest = inside > largest ? inside : largest;
    }
    return largest;
}

/* ---- what the levels above know ---- */

/* The entry for a node of the level in its parent. */
static struct range_entry entry_for(struct range_node *node, unsigned level)
{
    return (struct range_entry){
        .first = tree_entries(node, level)[0].first,
        .child = node,
        .gap = tree_node_gap(node, level),
    };
}

/* Writes the entry of a child of the level anew. */
static void refresh_entry(struct range_node *parent, unsigned index, unsigned level)
{
    struct range_entry *entry = &tree_entries(parent, level + 1)[index];
    struct range_node *child = entry->child;

    *entry = entry_for(child, level);
    parent->last[index] = child->last[child->count - 1];
}

/* Inside the path's node of the level there is a gap as large as this now. */
static void gap_grew(struct range_map *map, const struct range_path *path, unsigned level,
                     uint64_t gap)
{
    while (++level < map->height) {
        struct range_entry *entry = &tree_entries(path->node[level], level)[path->index[level]];

        if (entry->gap >= gap) {
            break;
        }
        entry->gap = gap;
    }
}

/* The larger one of the gaps beside an entry, inside its node. */
static uint64_t gap_beside(struct range_node *node, unsigned level, unsigned index)
{
    uint64_t before = index ? tree_gap_before(node, level, index) : 0;
    uint64_t after = index + 1 < node->count ? tree_gap_before(node, level, index + 1) : 0;

    return before > after ? before : after;
}

/* Tells the levels above where the path's node of the level begins and ends. */
static void refresh_borders(struct range_map *map, const struct range_path *path, unsigned level)
{
    for (; level + 1 < map->height; level++) {
        struct range_node *child = path->node[level];
        struct range_node *parent = path->node[level + 1];
        unsigned index = path->index[level + 1];
        struct range_entry *entry = &tree_entries(parent, level + 1)[index];
        uint64_t first = tree_entries(child, level)[0].first;
        uint64_t last = child->last[child->count - 1];

        if (entry->first == first && parent->last[index] == last) {
            break;
        }
        entry->first = first;
        parent->last[index] = last;
        gap_grew(map, path, level + 1, gap_beside(parent, level + 1, index));
    }
}

/* Tells them all, after entries of the node of the level came, went or were mended. */
static void refresh_node(struct range_map *map, const struct range_path *path, unsigned level)
{
    gap_grew(map, path, level, tree_node_gap(path->node[level], level));
    refresh_borders(map, path, level);
}

void tree_refresh(struct range_map *map, const struct range_path *path)
{
    gap_grew(map, path, 0, gap_beside(path->node[0], 0, path->index[0]));
    refresh_borders(map, path, 0);
}

/* ---- insertion ---- */

/*
 * Splits a full node of the level and inserts the entry into one half; returns the new, right one.
 * Near an end the entry and few others get a half of their own: runs that come in order fill their
 * nodes.
 */
static struct range_node *split_insert(struct range_map *map, struct range_node *left,
                                       unsigned level, unsigned index, uint64_t last,
                                       const struct range_entry *entry)
{
    struct range_node *right = spare_take(map, level);
    unsigned capacity = tree_capacity(level);
    unsigned fill = tree_fill(level);
    unsigned stay = index + 1 >= capacity ? fill : index <= 1 ? capacity - fill : capacity / 2;

    move_right(left, right, level, capacity - stay);
    if (index <= stay) {
        node_insert(left, level, index, last, entry);
    } else {
        node_insert(right, level, index - stay, last, entry);
    }
    return right;
}

/* A root above the present one, whose entry is to come. */
static void grow(struct range_map *map, struct range_path *path)
{
    struct range_node *root = spare_take(map, map->height);

    root->count = 1;
    tree_entries(root, map->height)[0].child = map->root;
    path->node[map->height] = root;
    path->index[map->height] = 0;
    map->root = root;
    map->height++;
}

/* Inserts into a full leaf. */
static void insert_splitting(struct range_map *map, struct range_path *path, uint64_t last,
                             struct range_entry entry)
{
    unsigned level = 0;
    unsigned index = path->index[0];

    do {
        struct range_node *right = split_insert(map, path->node[level], level, index, last, &entry);

        if (level + 1 == map->height) {
            grow(map, path);
        }
        refresh_entry(path->node[level + 1], path->index[level + 1], level);
        last = right->last[right->count - 1];
        entry = entry_for(right, level);
        level++;
        index = path->index[level] + 1;
    } while (path->node[level]->count == tree_capacity(level));
    node_insert(path->node[level], level, index, last, &entry);
    refresh_node(map, path, level);
}

void tree_insert(struct range_map *map, struct range_path *path, const struct range_run *run)
{
    struct range_entry entry = {.first = run->first, .target = run->target, .tag = run->tag};
    unsigned index;

    tree_is_changing(map);
    if (!map->height) {
        map->root = spare_take(map, 0);
        map->height = 1;
        path->node[0] = map->root;
        path->index[0] = 0;
    }
    map->count++;
    if (path->node[0]->count == RANGE_LEAF) {
        insert_splitting(map, path, run->last, entry);
        return;
    }
    index = path->index[0];
    node_insert(path->node[0], 0, index, run->last, &entry);
    if (!index || index + 1 == path->node[0]->count) {
        tree_refresh(map, path); /* the gap beside it has become the leaf's */
    }
}

/* ---- removal ---- */

/*
 * Gives the child of the level more entries, from a sibling. Returns true when the two were merged
 * and the parent has one entry less.
 */
static bool mend(struct range_map *map, struct range_node *parent, unsigned index, unsigned level)
{
    unsigned left_index = index ? index - 1 : 0;
    struct range_node *left = tree_entries(parent, level + 1)[left_index].child;
    struct range_node *right = tree_entries(parent, level + 1)[left_index + 1].child;
    size_t half = (left->count + right->count) / 2;
    bool merged = left->count + right->count <= tree_fill(level);

    if (merged) {
        move_left(left, right, level, right->count);
        node_free(map, right, level);
        node_remove(parent, level + 1, left_index + 1);
    } else if (left->count < half) {
        move_left(left, right, level, half - left->count);
    } else {
        move_right(left, right, level, left->count - half);
    }
    refresh_entry(parent, left_index, level);
    if (!merged) {
        refresh_entry(parent, left_index + 1, level);
    }
    return merged;
}

/*
 * Mends the path's node of the level, then what has too few entries above it. Returns the last
 * level changed.
 */
static unsigned mend_from(struct range_map *map, struct range_path *path, unsigned level)
{
    bool merged = true;

    while (merged && level + 1 < map->height && path->node[level]->count < tree_least(level)) {
        merged = mend(map, path->node[level + 1], path->index[level + 1], level);
        level++;
    }
    return level;
}

/* A root with one child is not needed, an empty leaf neither. */
static void shrink(struct range_map *map)
{
    struct range_node *root = map->root;

    if (map->height > 1 && root->count == 1) {
        map->root = tree_entries(root, 1)[0].child;
    } else if (!root->count) {
        map->root = NULL;
    } else {
        return;
    }
    map->height--;
    node_free(map, root, map->height);
}

void tree_remove(struct range_map *map, struct range_path *path)
{
    struct range_node *leaf = path->node[0];
    unsigned index = path->index[0];

    tree_is_changing(map);
    map->count--;
    node_remove(leaf, 0, index);
    if (map->height == 1) {
        shrink(map);
    } else if (leaf->count < tree_least(0)) {
        refresh_node(map, path, mend_from(map, path, 0));
        shrink(map);
    } else if (index && index < leaf->count) {
        gap_grew(map, path, 0, tree_gap_before(leaf, 0, index));
    } else {
        refresh_borders(map, path, 0);
    }
}

/* The path's leaf is empty. */
static void remove_leaf(struct range_map *map, struct range_path *path)
{
    node_free(map, path->node[0], 0);
    node_remove(path->node[1], 1, path->index[1]);
    refresh_node(map, path, mend_from(map, path, 1));
    shrink(map);
}

void tree_remove_some(struct range_map *map, struct range_path *path, unsigned count)
{
    struct range_node *leaf = path->node[0];
    struct range_entry *entries = tree_entries(leaf, 0);
    unsigned index = path->index[0];
    size_t behind = leaf->count - index - count;

    tree_is_changing(map);
    map->count -= count;
    memmove(&leaf->last[index], &leaf->last[index + count], behind * sizeof(leaf->last[0]));
    memmove(&entries[index], &entries[index + count], behind * sizeof(entries[0]));
    memset(&leaf->last[index + behind], 0xff, count * sizeof(leaf->last[0]));
    leaf->count -= count;
    if (map->height == 1) {
        shrink(map);
    } else if (!leaf->count) {
        remove_leaf(map, path);
    } else {
        refresh_node(map, path, mend_from(map, path, 0));
        shrink(map);
    }
}

/* ---- all of it ---- */

static void free_below(struct range_node *node, unsigned level)
{
    for (unsigned i = 0; level && i < node->count; i++) {
        free_below(tree_entries(node, level)[i].child, level - 1);
    }
    base_free(node);
}

void range_map_init(struct range_map *map)
{
    *map = (struct range_map){.spare_keep = SPARE_KEEP};
}

void range_map_fini(struct range_map *map)
{
    if (map->height) {
        free_below(map->root, map->height - 1);
    }
    map->spare_keep = 0;
    tree_trim(map);
    range_map_init(map);
}

void range_map_keep(struct range_map *map)
{
    map->spare_keep = SIZE_MAX;
}

void range_map_trim(struct range_map *map)
{
    trim(&map->spare[0], SPARE_KEEP);
    trim(&map->spare[1], SPARE_KEEP);
}

size_t range_map_memory(const struct range_map *map)
{
    return (map->nodes[0] + map->spare[0].count) * tree_node_size(0) +
           (map->nodes[1] + map->spare[1].count) * tree_node_size(1);
}
