/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nodes under a range map, and the changes of their structure. Private to this room.
 *
 * Leaves hold runs; above them *inner* nodes hold their children, in the same layout: the last
 * address of each entry, and then for each entry the first, and two words (a run's target and tag;
 * a child and its gap). So a parent knows where each child begins and ends. Levels are counted from
 * the leaves, which are level 0.
 *
 * Sizes are measured ones. A leaf is small, since runs are shifted in it at every change; an inner
 * node is wide, since it seldom changes, and saves levels. Both are whole cache lines, with the
 * last addresses in front. A search looks at every eighth of those, then at the seven before it,
 * without a branch on what it sees: unused entries have UINT64_MAX there.
 *
 * Gaps. The free addresses between two entries of a node belong to that node, so each gap between
 * runs belongs to one. Beside a child stands the largest gap that it can have inside: never less
 * than the truth, but it may be more. An insertion, which makes a gap smaller, leaves it as it is;
 * the search for a gap that was led astray puts it right. So an insertion pays nothing, and a
 * search is led astray once a level for each insertion at most.
 *
 * Invariants:
 * - Every node but the root has at least tree_least() entries, an inner root two, a root leaf
 *   one; an empty map has no node.
 * - Entries are in order and do not overlap. A parent's first and last are those of the child,
 *   its gap at least the child's.
 * - Right after it was split, merged or balanced a node has at most tree_fill() entries. So a
 *   node splits once in capacity - fill + 1 insertions at most: the reservation counts on it.
 *
 * Suspended only within tree_insert and tree_remove, and by their callers between a change of a
 * run's borders and tree_refresh.
 */
#ifndef VIOMMU_RANGE_TREE_H
#define VIOMMU_RANGE_TREE_H

#include "base/epoch.h"
#include "range/range_map.h"

/* Entries of a leaf and of an inner node: multiples of 8, less one; from 15. */
#ifndef RANGE_LEAF
#define RANGE_LEAF 31
#endif
#ifndef RANGE_INNER
#define RANGE_INNER 71
#endif

_Static_assert(RANGE_LEAF % 8 == 7 && RANGE_INNER % 8 == 7, "tree_search looks at eighths");

#define TREE_LINE 64 /* bytes of a cache line */

struct range_entry {
    uint64_t first;
    union {
        uint64_t target;
        struct range_node *child;
    };
    union {
        uint64_t tag;
        uint64_t gap;
    };
};

struct range_node {
    union {
        uint64_t count;
        struct range_node *next; /* of a spare one */
    };
    uint64_t last[]; /* as many as the capacity; then as many entries */
};

static inline unsigned tree_capacity(unsigned level)
{
    return level ? RANGE_INNER : RANGE_LEAF;
}

/* The fewest entries of a node that is not the root. */
static inline unsigned tree_least(unsigned level)
{
    return (tree_capacity(level) + 1) / 3;
}

/* The most entries of a node that was just made or mended. */
static inline unsigned tree_fill(unsigned level)
{
    return tree_capacity(level) + 1 - tree_least(level);
}

static inline size_t tree_node_size(unsigned level)
{
    size_t size = sizeof(uint64_t) +
                  tree_capacity(level) * (sizeof(uint64_t) + sizeof(struct range_entry));

    return (size + TREE_LINE - 1) & ~(size_t)(TREE_LINE - 1);
}

static inline struct range_entry *tree_entries(struct range_node *node, unsigned level)
{
    return (struct range_entry *)(node->last + tree_capacity(level));
}

static inline struct range_run tree_run(struct range_node *leaf, unsigned index)
{
    const struct range_entry *entry = &tree_entries(leaf, 0)[index];

    return (struct range_run){entry->first, leaf->last[index], entry->target, entry->tag};
}

/* The free addresses before an entry, which is not the first of its node. */
static inline uint64_t tree_gap_before(struct range_node *node, unsigned level, unsigned index)
{
    return tree_entries(node, level)[index].first - node->last[index - 1] - 1;
}

/* Keeps the compiler from making one chain of additions of two that can run side by side. */
static inline void tree_apart(unsigned *a, unsigned *b)
{
    __asm__("" : "+r"(*a), "+r"(*b));
}

/* The first entry that ends at the address or above; the count when there is none. */
static inline unsigned tree_search(const struct range_node *node, unsigned level, uint64_t address)
{
    unsigned capacity = tree_capacity(level);
    unsigned sums[3] = {0, 0, 0};
    const uint64_t *last = node->last + 7;
    unsigned at;

    for (unsigned i = 7; i < capacity; i += 24, last += 24) {
        sums[0] += last[0] < address;
        sums[1] += i + 8 < capacity && last[8] < address;
        sums[2] += i + 16 < capacity && last[16] < address;
        tree_apart(&sums[0], &sums[1]);
    }
    at = (sums[0] + sums[1] + sums[2]) * 8;
    last = &node->last[at];
    sums[0] = (last[0] < address) + (last[1] < address) + (last[2] < address);
    sums[1] = (last[3] < address) + (last[4] < address);
    sums[2] = (last[5] < address) + (last[6] < address);
    tree_apart(&sums[0], &sums[1]);
    return at + sums[0] + sums[1] + sums[2];
}

/*
 * Keeps stores in their order, and loads in theirs: x86 does so by itself, and ThreadSanitizer
 * knows no fences.
 */
static inline void tree_order(void)
{
#if defined(__x86_64__) || EPOCH_STORE_IS_FENCE
    atomic_signal_fence(memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_acq_rel);
#endif
}

/*
 * A tree of so many leaves does not fit into near caches. All lines of a leaf are asked for before
 * it is searched, of the inner node above it those of the entries: so each of the two is waited for
 * once. In a smaller tree that would cost more than it saves.
 */
#define TREE_PREFETCH_LEAVES 512

static inline void tree_prefetch(const void *memory, size_t size)
{
    for (size_t at = 0; at < size; at += TREE_LINE) {
        __builtin_prefetch((const char *)memory + at);
    }
}

/*
 * The way to the first run that ends at the address or above. Where there is none, index[0] is the
 * count of the last leaf. An empty map has no way.
 */
static inline void tree_seek(const struct range_map *map, uint64_t address, struct range_path *path)
{
    bool far = map->nodes[0] >= TREE_PREFETCH_LEAVES;
    struct range_node *node = map->root;

    if (!map->height) {
        return;
    }
    for (unsigned level = map->height - 1; level; level--) {
        unsigned index;

        if (far && level == 1) {
            tree_prefetch(tree_entries(node, 1), RANGE_INNER * sizeof(struct range_entry));
        }
        index = tree_search(node, 1, address);
        if (index == node->count) {
            index--; /* past everything: the way along the right border */
        }
        path->node[level] = node;
        path->index[level] = index;
        node = tree_entries(node, 1)[index].child;
    }
    if (far) {
        tree_prefetch(node, tree_node_size(0));
    }
    path->node[0] = node;
    path->index[0] = tree_search(node, 0, address);
}

/* Around each change that range_map_peek must not see in parts. */
static inline void tree_change_begin(struct range_map *map)
{
    uint64_t version = atomic_load_explicit(&map->version, memory_order_relaxed);

    atomic_store_explicit(&map->version, version + 1, memory_order_relaxed);
    tree_order();
}

static inline void tree_change_end(struct range_map *map)
{
    uint64_t version = atomic_load_explicit(&map->version, memory_order_relaxed);

    atomic_store_explicit(&map->version, version + 1, memory_order_release);
}

#ifdef VIOMMU_TESTING
/*
 * For tests, or NULL: called before each load of range_map_peek, and once at its end. So a test
 * does what another thread would do just then.
 */
extern void (*tree_peek_step)(void);
#endif

/* Whether a seek found a run. */
static inline bool tree_at_run(const struct range_map *map, const struct range_path *path)
{
    return map->height && path->index[0] < path->node[0]->count;
}

/* The part of tree_prepare for a leaf without room. */
int tree_prepare_splits(struct range_map *map, const struct range_path *path);

/* Makes sure that one insertion at the path cannot fail. Returns 0 or -ENOMEM. */
static inline int tree_prepare(struct range_map *map, const struct range_path *path)
{
    return map->height && path->node[0]->count < RANGE_LEAF ? 0 : tree_prepare_splits(map, path);
}

/* Inserts before the path's place. It must have been prepared. The path is of no use afterwards. */
void tree_insert(struct range_map *map, struct range_path *path, const struct range_run *run);

/* Removes the run at the path, which is of no use afterwards. */
void tree_remove(struct range_map *map, struct range_path *path);

/* The same for so many of its leaf, from the path's on. A leaf that is empty then goes at once. */
void tree_remove_some(struct range_map *map, struct range_path *path, unsigned count);

/* Tells the levels above after the borders of the path's run were changed in place. */
void tree_refresh(struct range_map *map, const struct range_path *path);

/* The largest gap inside a node, as far as it is known. */
uint64_t tree_node_gap(struct range_node *node, unsigned level);

/* Frees spare nodes that are not kept. */
void tree_trim(struct range_map *map);

#ifdef VIOMMU_TESTING
/* Counts a change, and checks the map when its turn has come. */
void tree_changed(struct range_map *map);
/* Aborts unless those who peek can see that the map is being changed. */
void tree_is_changing(const struct range_map *map);
#else
static inline void tree_changed(struct range_map *map)
{
    (void)map;
}

static inline void tree_is_changing(const struct range_map *map)
{
    (void)map;
}
#endif

#endif
