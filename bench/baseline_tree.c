/* SPDX-License-Identifier: BSD-2-Clause */
/* The baseline of baseline_tree.h. */
#include "baseline_tree.h"

#define ENTRY_ADDRESS 0x000ffffffffff000ULL
#define ENTRY_PERM 3ULL
#define ENTRY_LARGE (1ULL << 7)

/* A node of the tree: key and value. */
struct mapping {
    uint64_t first;
    uint64_t last;
    uint64_t gpa;
    uint32_t perm;
};

/* Called for each page, and for each entry that leads nowhere (perm 0). */
typedef void page_hook(struct tree_baseline *baseline, const struct mapping *page);

static gint compare(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct mapping *x = a;
    const struct mapping *y = b;

    (void)data;
    return x->last < y->first ? -1 : x->first > y->last;
}

/* The backend: it costs nothing. */
static int change_nothing(void *opaque, const struct viommu_change *change)
{
    struct tree_baseline *baseline = opaque;

    if (change->kind == VIOMMU_CHANGE_MAP) {
        baseline->maps++;
    } else {
        baseline->unmaps++;
    }
    return 0;
}

void tree_baseline_init(struct tree_baseline *baseline, const uint8_t *ram, uint64_t root,
                        unsigned levels)
{
    *baseline = (struct tree_baseline){
        .tree = g_tree_new_full(compare, NULL, g_free, NULL),
        .ram = ram,
        .root = root,
        .levels = levels,
        .change = change_nothing,
    };
}

void tree_baseline_fini(struct tree_baseline *baseline)
{
    if (baseline->tree) {
        g_tree_destroy(baseline->tree);
    }
}

void tree_baseline_reset(struct tree_baseline *baseline)
{
    g_tree_destroy(baseline->tree);
    baseline->tree = g_tree_new_full(compare, NULL, g_free, NULL);
}

uint64_t tree_baseline_pages(const struct tree_baseline *baseline)
{
    return (uint64_t)g_tree_nnodes(baseline->tree);
}

/* ---- what is done for a page ---- */

static void tell(struct tree_baseline *baseline, enum viommu_change_kind kind,
                 const struct mapping *mapping)
{
    struct viommu_change change = {
        .kind = kind,
        .first = mapping->first,
        .last = mapping->last,
        .gpa = mapping->gpa,
        .perm = mapping->perm,
        .host = (void *)(uintptr_t)(baseline->ram + mapping->gpa),
        .fd = -1,
    };

    (void)baseline->change(baseline, &change);
}

static void map(struct tree_baseline *baseline, const struct mapping *page)
{
    struct mapping *mapping = g_new(struct mapping, 1);

    *mapping = *page;
    g_tree_insert(baseline->tree, mapping, mapping);
    tell(baseline, VIOMMU_CHANGE_MAP, mapping);
}

static void unmap_overlaps(struct tree_baseline *baseline, const struct mapping *page)
{
    const struct mapping *found;

    while ((found = g_tree_lookup(baseline->tree, page))) {
        struct mapping gone = *found;

        tell(baseline, VIOMMU_CHANGE_UNMAP, &gone);
        g_tree_remove(baseline->tree, &gone);
    }
}

static void follow_page(struct tree_baseline *baseline, const struct mapping *page)
{
    const struct mapping *found;

    if (page->perm) {
        found = g_tree_lookup(baseline->tree, page);
        if (found && found->first == page->first && found->last == page->last &&
            found->gpa == page->gpa && found->perm == page->perm) {
            return;
        }
    }
    unmap_overlaps(baseline, page);
    if (page->perm) {
        map(baseline, page);
    }
}

static void map_page(struct tree_baseline *baseline, const struct mapping *page)
{
    if (page->perm) {
        map(baseline, page);
    }
}

/* ---- the walk ---- */

struct walk {
    struct tree_baseline *baseline;
    page_hook *hook;
    uint64_t first;
    uint64_t last;
};

static void walk_table(const struct walk *walk, uint64_t table, unsigned level, uint64_t base,
                       uint32_t perm);

static void walk_entry(const struct walk *walk, uint64_t entry, unsigned level, uint64_t base,
                       uint32_t perm)
{
    struct mapping page = {
        .first = base,
        .last = base + ((1ULL << (12 + 9 * level)) - 1),
        .perm = perm & (uint32_t)(entry & ENTRY_PERM),
    };

    if (page.perm && level && !(entry & ENTRY_LARGE)) {
        walk_table(walk, entry & ENTRY_ADDRESS, level - 1, base, page.perm);
        return;
    }
    page.gpa = page.perm ? entry & ENTRY_ADDRESS : 0;
    walk->hook(walk->baseline, &page);
}

/* `level` 0 has 4 KiB pages; `base` is the device address of the table's first entry. */
static void walk_table(const struct walk *walk, uint64_t table, unsigned level, uint64_t base,
                       uint32_t perm)
{
    const volatile uint64_t *entries = (const volatile uint64_t *)(walk->baseline->ram + table);
    unsigned shift = 12 + 9 * level;
    uint64_t from = walk->first > base ? (walk->first - base) >> shift : 0;
    uint64_t to = (walk->last - base) >> shift;

    for (uint64_t i = from; i < 512 && i <= to; i++) {
        walk_entry(walk, entries[i], level, base + (i << shift), perm);
    }
}

static void walk_range(struct tree_baseline *baseline, page_hook *hook, uint64_t first,
                       uint64_t last)
{
    struct walk walk = {.baseline = baseline, .hook = hook, .first = first, .last = last};

    walk_table(&walk, baseline->root, baseline->levels - 1, 0, ENTRY_PERM);
}

void tree_baseline_sync(struct tree_baseline *baseline, uint64_t first, uint64_t last)
{
    walk_range(baseline, follow_page, first, last);
}

static gboolean tell_unmap(gpointer key, gpointer value, gpointer data)
{
    (void)key;
    tell(data, VIOMMU_CHANGE_UNMAP, value);
    return FALSE;
}

void tree_baseline_anew(struct tree_baseline *baseline)
{
    g_tree_foreach(baseline->tree, tell_unmap, baseline);
    tree_baseline_reset(baseline);
    walk_range(baseline, map_page, 0, (1ULL << (12 + 9 * baseline->levels)) - 1);
}
