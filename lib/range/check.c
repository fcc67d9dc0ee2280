/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The checker of the tree's invariants; in test builds only. It aborts: what it finds is a mistake
 * of ours.
 */
#include "range/tree.h"

#ifdef VIOMMU_TESTING

#include <stdio.h>
#include <stdlib.h>

/* A map of more runs than this is checked once in so many thousandths of its runs. */
#define CHECKED_ALWAYS 1000

struct totals {
    size_t runs;
    size_t nodes[2];
};

static void expect(bool holds, const char *what, const struct range_node *node, unsigned level)
{
    if (!holds) {
        fprintf(stderr, "range map: node %p of level %u: %s\n", (const void *)node, level, what);
        abort();
    }
}

static void check_order(struct range_node *node, unsigned level)
{
    struct range_entry *entries = tree_entries(node, level);

    for (unsigned i = 0; i < node->count; i++) {
        expect(entries[i].first <= node->last[i], "an entry ends before it begins", node, level);
        expect(!i || node->last[i - 1] < entries[i].first, "entries overlap", node, level);
    }
    for (unsigned i = (unsigned)node->count; i < tree_capacity(level); i++) {
        expect(node->last[i] == UINT64_MAX, "an unused entry is not at the top", node, level);
    }
}

static void check_runs(struct range_node *leaf)
{
    for (unsigned i = 0; i < leaf->count; i++) {
        struct range_run run = tree_run(leaf, i);

        if (run.tag & RANGE_NO_TARGET) {
            expect(!run.target, "a run without a target has one", leaf, 0);
        } else {
            expect(range_run_target(&run, run.last) >= run.target, "a target wraps", leaf, 0);
        }
    }
}

/* Out of the runs, not out of what the nodes say. */
static uint64_t largest_gap(struct range_node *node, unsigned level)
{
    struct range_entry *entries = tree_entries(node, level);
    uint64_t gap = 0;

    for (unsigned i = 0; i < node->count; i++) {
        uint64_t inside = level ? largest_gap(entries[i].child, level - 1) : 0;
        uint64_t before = i ? entries[i].first - node->last[i - 1] - 1 : 0;

        gap = inside > gap ? inside : gap;
        gap = before > gap ? before : gap;
    }
    return gap;
}

static void check_node(struct range_node *node, unsigned level, bool root,
                       struct totals *totals)
{
    unsigned least = !root ? tree_least(level) : level ? 2 : 1;

    totals->nodes[level > 0]++;
    expect(node->count >= least, "too few entries", node, level);
    expect(node->count <= tree_capacity(level), "too many entries", node, level);
    check_order(node, level);
    if (!level) {
        check_runs(node);
        totals->runs += node->count;
        return;
    }
    for (unsigned i = 0; i < node->count; i++) {
        const struct range_entry *entry = &tree_entries(node, level)[i];
        struct range_node *child = entry->child;
        uint64_t first = tree_entries(child, level - 1)[0].first;
        uint64_t last = child->last[child->count - 1];

        check_node(child, level - 1, false, totals);
        expect(entry->first == first, "the child begins elsewhere", node, level);
        expect(node->last[i] == last, "the child ends elsewhere", node, level);
        expect(entry->gap >= largest_gap(child, level - 1), "a gap is not known", node, level);
    }
}

static void check_spare(const struct range_spare *spare)
{
    size_t count = 0;

    for (struct range_node *node = spare->nodes; node; node = node->next) {
        count++;
    }
    expect(count == spare->count, "spare nodes miscounted", NULL, 0);
}

void range_map_check(const struct range_map *map)
{
    struct totals totals = {0, {0, 0}};

    expect(!map->root == !map->height, "a root without height", map->root, 0);
    expect(map->height <= RANGE_HEIGHT_MAX, "too high", map->root, 0);
    if (map->height) {
        check_node(map->root, map->height - 1, true, &totals);
    }
    expect(totals.runs == map->count, "runs miscounted", map->root, 0);
    expect(totals.nodes[0] == map->nodes[0], "leaves miscounted", map->root, 0);
    expect(totals.nodes[1] == map->nodes[1], "inner nodes miscounted", map->root, 0);
    check_spare(&map->spare[0]);
    check_spare(&map->spare[1]);
}

void tree_changed(struct range_map *map)
{
    if (map->unchecked++ >= map->count / CHECKED_ALWAYS) {
        range_map_check(map);
        map->unchecked = 0;
    }
}

void tree_is_changing(const struct range_map *map)
{
    expect(map->version & 1, "a change that nobody sees", map->root, 0);
}

#endif
