/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: an IOVA space that holds so many mappings loses one and gets another, again and again. In
 * `iova-map-*` the caller says where, in `iova-alloc-*` the space finds a place.
 *
 * A mapping has one to sixteen pages, by its number. Numbers are taken in no useful order: the
 * mapping of a number goes, and comes again; by `map` in another of the number's two places, by
 * `alloc` wherever there is room. The space has limits twice as large as all mappings, and the
 * interrupt window is reserved.
 *
 * The baseline is the way common systems write it: a GTree, which is an AVL tree, of all intervals
 * that are taken, reservations too; what overlaps is equal to its comparison, and it is asked
 * before each insertion. To find a place it walks the tree: from the lowest interval on (*first
 * fit*, which finds the place that the library finds), or from where it was last, and around (*next
 * fit*). The library keeps two maps, one of the mappings with their owners and one of all that is
 * taken, in which gaps are known.
 */
#include "bench.h"

#include <viommu/viommu.h>

#include <errno.h>
#include <glib.h>
#include <stdlib.h>

#define PAGE        UINT64_C(0x1000)
#define BASE        (UINT64_C(1) << 32)
#define PLACE_SHIFT 16 /* sixteen pages */

struct interval {
    uint64_t first;
    uint64_t last;
};

/* Whose mappings these are: the space's, or a tree's. */
struct side_state {
    uint64_t *first; /* of each number */
    uint64_t next;   /* number */
};

struct spaces {
    uint64_t mappings;
    uint64_t stride;
    struct viommu_range limits;
    struct viommu_iova *space;
    struct viommu_iova_owner *owner;
    GTree *trees[2]; /* first fit, or where the caller says; next fit */
    uint64_t last_fit;
    struct side_state sides[3];
};

static uint64_t size_of(uint64_t number)
{
    return (1 + (number * 0x9e3779b97f4a7c15ULL >> 60)) * PAGE;
}

static struct viommu_range range_at(const struct side_state *side, uint64_t number)
{
    return (struct viommu_range){side->first[number], side->first[number] + size_of(number) - 1};
}

/* The number's other place. */
static uint64_t other_place(uint64_t first)
{
    return BASE + ((first - BASE) ^ UINT64_C(1) << PLACE_SHIFT);
}

/* The number whose turn it is. */
static uint64_t take_turn(struct spaces *s, struct side_state *side)
{
    uint64_t number = side->next;

    side->next = (number + s->stride) % s->mappings;
    return number;
}

/* ---- the library ---- */

static bool space_step(struct spaces *s, bool finds)
{
    struct side_state *side = &s->sides[0];
    uint64_t number = take_turn(s, side);
    struct viommu_range old = range_at(side, number);
    struct viommu_range new;

    if (viommu_iova_unmap(s->owner, &old)) {
        return false;
    }
    if (finds) {
        return !viommu_iova_alloc(s->owner, size_of(number), 0, &s->limits, &side->first[number]);
    }
    side->first[number] = other_place(old.first);
    new = range_at(side, number);
    return !viommu_iova_map(s->owner, &new, NULL);
}

static bool space_map(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = space_step(state, false);
    }
    return ok;
}

static bool space_alloc(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = space_step(state, true);
    }
    return ok;
}

/* Each mapping is there: nothing can be mapped where it is. */
static bool space_check(void *state)
{
    struct spaces *s = state;
    bool ok = true;

    for (uint64_t i = 0; ok && i < s->mappings; i += 1 + s->mappings / 256) {
        struct viommu_range range = range_at(&s->sides[0], i);
        struct viommu_iova_conflict conflict;

        ok = viommu_iova_map(s->owner, &range, &conflict) == -EEXIST &&
             conflict.holder.range.first == range.first && conflict.holder.range.last == range.last;
    }
    return ok;
}

/* ---- the baseline ---- */

static gint compare(gconstpointer a, gconstpointer b, gpointer data)
{
    const struct interval *x = a;
    const struct interval *y = b;

    (void)data;
    return x->last < y->first ? -1 : x->first > y->last;
}

static bool tree_insert(GTree *tree, uint64_t first, uint64_t last, struct spaces *owner)
{
    struct interval *key = g_new(struct interval, 1);

    *key = (struct interval){first, last};
    if (g_tree_lookup(tree, key)) {
        g_free(key);
        return false;
    }
    g_tree_insert(tree, key, owner);
    return true;
}

/* A search for a place: what is free begins at `first`. */
struct search {
    uint64_t first;
    uint64_t size;
    bool found;
};

/* Stops where the gap before the interval is large enough. */
static bool search_visit(struct search *search, const struct interval *interval)
{
    if (interval->last < search->first) {
        return false;
    }
    search->found =
        interval->first > search->first && interval->first - search->first >= search->size;
    if (!search->found) {
        search->first = interval->last + 1;
    }
    return search->found;
}

static gboolean first_fit_visit(gpointer key, gpointer value, gpointer data)
{
    (void)value;
    return search_visit(data, key);
}

static bool first_fit(struct spaces *s, uint64_t size, uint64_t *first)
{
    struct search search = {s->limits.first, size, false};

    g_tree_foreach(s->trees[0], first_fit_visit, &search);
    *first = search.first;
    return search.found || s->limits.last - search.first >= size - 1;
}

/* From an address to the end of the limits. */
static bool fit_from(struct spaces *s, uint64_t from, uint64_t size, uint64_t *first)
{
    struct interval at = {from, from};
    struct search search = {from, size, false};
    GTreeNode *node = g_tree_lower_bound(s->trees[1], &at);

    while (node && !search_visit(&search, g_tree_node_key(node))) {
        node = g_tree_node_next(node);
    }
    *first = search.first;
    return search.found ||
           (search.first <= s->limits.last && s->limits.last - search.first >= size - 1);
}

static bool next_fit(struct spaces *s, uint64_t size, uint64_t *first)
{
    bool found = fit_from(s, s->last_fit, size, first) || fit_from(s, s->limits.first, size, first);

    s->last_fit = *first;
    return found;
}

static bool tree_step(struct spaces *s, unsigned which, bool finds)
{
    struct side_state *side = &s->sides[1 + which];
    uint64_t number = take_turn(s, side);
    struct viommu_range old = range_at(side, number);
    struct interval key = {old.first, old.last};
    struct viommu_range new;
    uint64_t first = other_place(old.first);

    if (!g_tree_remove(s->trees[which], &key) ||
        (finds && !(which ? next_fit : first_fit)(s, size_of(number), &first))) {
        return false;
    }
    side->first[number] = first;
    new = range_at(side, number);
    return tree_insert(s->trees[which], new.first, new.last, s);
}

static bool tree_steps(struct spaces *s, uint64_t count, unsigned which, bool finds)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = tree_step(s, which, finds);
    }
    return ok;
}

static bool tree_map(void *state, uint64_t count)
{
    return tree_steps(state, count, 0, false);
}

static bool tree_first_fit(void *state, uint64_t count)
{
    return tree_steps(state, count, 0, true);
}

static bool tree_next_fit(void *state, uint64_t count)
{
    return tree_steps(state, count, 1, true);
}

static bool tree_check(const struct spaces *s, unsigned which)
{
    bool ok = (uint64_t)g_tree_nnodes(s->trees[which]) == s->mappings + 1;

    for (uint64_t i = 0; ok && i < s->mappings; i += 1 + s->mappings / 256) {
        struct viommu_range range = range_at(&s->sides[1 + which], i);
        struct interval key = {range.first, range.last};
        gpointer found = NULL;

        ok = g_tree_lookup_extended(s->trees[which], &key, &found, NULL) &&
             ((struct interval *)found)->first == range.first &&
             ((struct interval *)found)->last == range.last;
    }
    return ok;
}

static bool first_tree_check(void *state)
{
    return tree_check(state, 0);
}

static bool second_tree_check(void *state)
{
    return tree_check(state, 1);
}

/* ---- rows ---- */

static void teardown(void *state)
{
    struct spaces *s = state;

    viommu_iova_destroy(s->space);
    for (unsigned i = 0; i < 2; i++) {
        if (s->trees[i]) {
            g_tree_destroy(s->trees[i]);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        free(s->sides[i].first);
    }
    free(s);
}

static bool fill(struct spaces *s)
{
    const struct viommu_iova_config config = {0};
    const struct viommu_iova_request window = {VIOMMU_IOVA_MSI, .range = {0xfee00000, 0xfeefffff}};
    struct viommu_iova_reservation *reservation;
    bool ok = !viommu_iova_create(&config, &s->space) &&
              !viommu_iova_owner_create(s->space, "host", &s->owner) &&
              !viommu_iova_limit(s->owner, &s->limits, 1, NULL) &&
              !viommu_iova_reserve(s->owner, &window, 1, &reservation, NULL);

    for (unsigned i = 0; i < 2; i++) {
        s->trees[i] = g_tree_new_full(compare, NULL, g_free, NULL);
        ok = ok && tree_insert(s->trees[i], window.range.first, window.range.last, s);
    }
    for (uint64_t number = 0; ok && number < s->mappings; number++) {
        uint64_t first = BASE + (number << (PLACE_SHIFT + 1));
        struct viommu_range range;

        for (unsigned i = 0; i < 3; i++) {
            s->sides[i].first[number] = first;
        }
        range = range_at(&s->sides[0], number);
        ok = !viommu_iova_map(s->owner, &range, NULL) &&
             tree_insert(s->trees[0], range.first, range.last, s) &&
             tree_insert(s->trees[1], range.first, range.last, s);
    }
    return ok;
}

static void *setup(uint64_t mappings)
{
    struct spaces *s = calloc(1, sizeof(*s));
    bool ok = s != NULL;

    if (!ok) {
        return NULL;
    }
    s->mappings = mappings;
    s->stride = (uint64_t)((double)mappings * 0.618) |
                1; /* no divisor in common: all numbers have a turn */
    s->stride += s->stride % 5 ? 0 : 2;
    s->limits = (struct viommu_range){BASE, BASE + (mappings << (PLACE_SHIFT + 1)) - 1};
    s->last_fit = s->limits.first;
    for (unsigned i = 0; i < 3; i++) {
        s->sides[i].first = calloc(mappings, sizeof(uint64_t));
        ok = ok && s->sides[i].first;
    }
    if (!ok || !fill(s)) {
        teardown(s);
        return NULL;
    }
    return s;
}

static void *setup_1k(bool quick)
{
    (void)quick;
    return setup(1000);
}

static void *setup_100k(bool quick)
{
    return setup(quick ? 2000 : 100000);
}

static void *setup_1m(bool quick)
{
    return setup(quick ? 5000 : 1000000);
}

#define MAP_ROW(ROW_NAME, ROW_TEXT, SETUP)                                                         \
    {                                                                                              \
        .name = ROW_NAME, .text = ROW_TEXT, .unit = "pair", .setup = SETUP, .teardown = teardown,  \
        .side_count = 2, .ratio_count = 1,                                                         \
        .sides = {{.name = "IOVA space", .run = space_map, .check = space_check},                  \
                  {.name = "GTree", .run = tree_map, .check = first_tree_check}},                  \
        .ratios = {{0, 1, RATIO_SPEEDUP, 4}},                                                      \
    }

#define ALLOC_ROW(ROW_NAME, ROW_TEXT, SETUP)                                                       \
    {                                                                                              \
        .name = ROW_NAME, .text = ROW_TEXT, .unit = "pair", .setup = SETUP, .teardown = teardown,  \
        .side_count = 3, .ratio_count = 2,                                                         \
        .sides = {{.name = "IOVA space", .run = space_alloc, .check = space_check},                \
                  {.name = "GTree, first fit", .run = tree_first_fit, .check = first_tree_check},  \
                  {.name = "GTree, next fit", .run = tree_next_fit, .check = second_tree_check}},  \
        .ratios = {{0, 1, RATIO_SPEEDUP, 4}, {0, 2, RATIO_SPEEDUP, 0}},                            \
    }

static const struct row rows[] = {
    MAP_ROW("iova-map-1k", "unmap and map in an IOVA space, 1,000 mappings", setup_1k),
    MAP_ROW("iova-map-100k", "unmap and map in an IOVA space, 100,000 mappings", setup_100k),
    MAP_ROW("iova-map-1m", "unmap and map in an IOVA space, 1,000,000 mappings", setup_1m),
    ALLOC_ROW("iova-alloc-1k", "free and allocate in an IOVA space, 1,000 mappings", setup_1k),
    ALLOC_ROW("iova-alloc-100k", "free and allocate in an IOVA space, 100,000 mappings",
              setup_100k),
    ALLOC_ROW("iova-alloc-1m", "free and allocate in an IOVA space, 1,000,000 mappings", setup_1m),
};

const struct row_list iova_rows = {rows, sizeof(rows) / sizeof(rows[0])};
