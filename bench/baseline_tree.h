/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The baseline for mirrors: how common systems make a backend follow a guest's tables.
 *
 * A GTree (an AVL tree) with a node a page, allocated one by one, ordered by device address with a
 * comparison to which what overlaps is equal. An invalidation walks the guest's tables over its
 * range and calls a function for every page that it finds; that function looks the page up in the
 * tree, does nothing when the same is there, and otherwise tells the backend and changes the tree.
 * Where an entry is not present, what the tree holds there is unmapped. The other usual way is
 * anew(): unmap everything, page by page, then walk and map every page.
 *
 * It is kept as fast as that design allows: entries are plain loads from one block of memory,
 * without any look-up of where guest memory lies; key and value are one allocation; the tables
 * above are read once a table, not once a page; no lock is taken and no register decoded. Each
 * device has a tree and a walk of its own in such systems; this is one device.
 */
#ifndef VIOMMU_BENCH_BASELINE_TREE_H
#define VIOMMU_BENCH_BASELINE_TREE_H

#include <viommu/notify.h>

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

struct tree_baseline {
    GTree *tree;
    const uint8_t *ram;
    uint64_t root;
    unsigned levels;
    int (*change)(void *opaque, const struct viommu_change *change);
    uint64_t maps; /* told to the backend */
    uint64_t unmaps;
};

/* The tree is empty. */
void tree_baseline_init(struct tree_baseline *baseline, const uint8_t *ram, uint64_t root,
                        unsigned levels);
void tree_baseline_fini(struct tree_baseline *baseline);

/* Forgets everything, telling nobody. */
void tree_baseline_reset(struct tree_baseline *baseline);

/* An invalidation of a range. */
void tree_baseline_sync(struct tree_baseline *baseline, uint64_t first, uint64_t last);

/* Unmaps everything and maps it anew. */
void tree_baseline_anew(struct tree_baseline *baseline);

/* Pages that the tree holds. */
uint64_t tree_baseline_pages(const struct tree_baseline *baseline);

#endif
