/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The look-up beside changes.
 *
 * Whoever changes the map writes its nodes with ordinary stores. So what is read here may be torn,
 * or of a node that was taken out and is used for something else by now. It is used for nothing
 * before the version has been seen to be the one that the look-up began with: until then the nodes
 * that are read are those of that version, and they are kept. A count or an index out of what is
 * torn is bounded first. Each word is read once.
 *
 * ThreadSanitizer is not shown these loads: that they race is their nature. It sees the load of the
 * version with which the look-up begins, and so what was done before the change that it names.
 */
#include "range/tree.h"

#define UNSEEN __attribute__((no_sanitize("thread")))

#ifdef VIOMMU_TESTING
void (*tree_peek_step)(void);

static void step(void)
{
    if (tree_peek_step) {
        tree_peek_step();
    }
}
#else
static inline void step(void)
{
}
#endif

static inline UNSEEN uint64_t word(const uint64_t *at)
{
    step();
    return *(const volatile uint64_t *)at;
}

static inline UNSEEN const struct range_node *node_at(struct range_node *const *at)
{
    step();
    return *(struct range_node *const volatile *)at;
}

static inline UNSEEN unsigned height_of(const struct range_map *map)
{
    step();
    return *(const volatile unsigned *)&map->height;
}

/* Whether all that was read so far is of this version. */
static inline UNSEEN bool is_same(const struct range_map *map, uint64_t version)
{
    tree_order();
    step();
    return *(const volatile uint64_t *)(const void *)&map->version == version;
}

/* As tree_search. */
static inline UNSEEN unsigned place_of(const struct range_node *node, unsigned level,
                                       uint64_t address)
{
    unsigned capacity = tree_capacity(level);
    unsigned at = 0;
    unsigned sum = 0;

    for (unsigned i = 7; i < capacity; i += 8) {
        at += word(&node->last[i]) < address;
    }
    at *= 8;
    for (unsigned i = 0; i < 7; i++) {
        sum += word(&node->last[at + i]) < address;
    }
    return at + sum;
}

/* The entry of a node that ends at the address or above, or NULL. */
static inline UNSEEN const struct range_entry *entry_of(const struct range_node *node,
                                                        unsigned level, uint64_t address,
                                                        unsigned *index)
{
    *index = place_of(node, level, address);
    return *index < word(&node->count) && *index < tree_capacity(level)
               ? &((const struct range_entry *)(node->last + tree_capacity(level)))[*index]
               : NULL;
}

/* The leaf in which the address is, if it is in any run; *known: whether that is sure. */
static inline UNSEEN const struct range_node *leaf_of(const struct range_map *map, uint64_t address,
                                                      uint64_t version, bool *known)
{
    const struct range_node *node = node_at(&map->root);
    unsigned height = height_of(map);
    bool far = *(const volatile size_t *)&map->nodes[0] >= TREE_PREFETCH_LEAVES;

    *known = is_same(map, version);
    if (!*known || !height) {
        return NULL;
    }
    for (unsigned level = height - 1; level; level--) {
        const struct range_entry *entry;
        unsigned index;

        if (far && level == 1) {
            tree_prefetch(node->last + RANGE_INNER, RANGE_INNER * sizeof(struct range_entry));
        }
        entry = entry_of(node, 1, address, &index);
        node = entry ? node_at(&entry->child) : NULL;
        *known = is_same(map, version);
        if (!*known || !entry) {
            return NULL;
        }
    }
    if (far) {
        tree_prefetch(node, tree_node_size(0));
    }
    return node;
}

static UNSEEN enum range_peek peek(const struct range_map *map, uint64_t address, uint64_t version,
                                   struct range_run *run)
{
    const struct range_entry *entry;
    const struct range_node *leaf;
    unsigned index;
    bool known;

    leaf = leaf_of(map, address, version, &known);
    if (!leaf) {
        return known ? RANGE_FREE : RANGE_CHANGES;
    }
    entry = entry_of(leaf, 0, address, &index);
    if (entry) {
        run->first = word(&entry->first);
        run->last = word(&leaf->last[index]);
        run->target = word(&entry->target);
        run->tag = word(&entry->tag);
    }
    if (!is_same(map, version)) {
        return RANGE_CHANGES;
    }
    return entry && run->first <= address ? RANGE_FOUND : RANGE_FREE;
}

enum range_peek range_map_peek(const struct range_map *map, uint64_t address, struct range_run *run,
                               uint64_t *version)
{
    enum range_peek found;

    step();
    *version = atomic_load_explicit(&map->version, memory_order_acquire);
    found = *version & 1 ? RANGE_CHANGES : peek(map, address, *version, run);
    step();
    return found;
}
