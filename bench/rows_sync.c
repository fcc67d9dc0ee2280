/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: a domain-selective invalidation of 1 Mi pages of 4 KiB with mirrors. Nothing has changed,
 * or one page. Their targets are scattered, so that all of them must be remembered; in sync-linear
 * they follow one another.
 *
 * The subject is the whole way, as an embedder sees it: the register is written, and
 * viommu_process() called until the guest would see it done; with a mirror of one device, and of
 * eight devices of the domain.
 *
 * One baseline is the tree of baseline_tree.h. The other is the least that a sync which remembers
 * entries must do: load all 16 MiB, of the guest's tables and of a copy, and compare them (where
 * they are linear, only the guest's). It knows beforehand where the tables are.
 *
 * The tree was filled in the order of addresses, so that its nodes lie in the order in which a walk
 * comes to them: the best that can happen to it. Cold, there is another, whose pages were mapped in
 * no order.
 *
 * Cold: before each run so much other memory is read that the caches hold none of what it needs.
 */
#include "bench.h"
#include "baseline_tree.h"
#include "mirrored.h"

#include <stdlib.h>
#include <string.h>

#define TABLES 2048
#define TABLES_QUICK 8
#define FLUSH_BYTES (128ULL << 20) /* several times the last-level cache */
#define FLUSH_BYTES_QUICK (1ULL << 20)
#define LINE 64
#define LAST ((1ULL << 48) - 1)

struct sync {
    struct mirrored one;
    struct mirrored eight;
    struct mirrored *last; /* of the last run */
    struct tree_baseline tree;
    struct tree_baseline strewn; /* the same, nodes in no order; only cold */
    struct tree_baseline *last_tree;
    uint64_t *copy; /* of the leaf tables of `one` */
    uint8_t *flush;
    uint64_t flush_bytes;
    uint64_t calls;   /* of mirrors before the last run */
    uint64_t present; /* pages compared and unchanged, before it */
    uint64_t syncs;   /* that the last run did */
    uint64_t differing;
    uint64_t page; /* the next to be changed */
};

static void teardown(void *state)
{
    struct sync *s = state;

    tree_baseline_fini(&s->tree);
    tree_baseline_fini(&s->strewn);
    mirrored_fini(&s->one);
    mirrored_fini(&s->eight);
    free(s->copy);
    free(s->flush);
    free(s);
}

static void make_copy(struct sync *s)
{
    uint64_t tables = s->one.layout.tables;

    s->copy = malloc(tables * GUEST_PAGE);
    if (!s->copy) {
        guest_die("no memory for the bench");
    }
    for (uint64_t i = 0; i < tables; i++) {
        memcpy(s->copy + i * MIRRORED_ENTRIES, s->one.tables[i], GUEST_PAGE);
    }
}

static void *setup_layout(bool quick, bool scattered)
{
    struct sync *s = calloc(1, sizeof(*s));
    struct mirrored_layout layout = {
        .tables = quick ? TABLES_QUICK : TABLES,
        .per_table = MIRRORED_ENTRIES,
        .scattered = scattered,
        .devices = 1,
    };

    if (!s) {
        return NULL;
    }
    mirrored_init(&s->one, &layout);
    layout.devices = MIRRORED_DEVICES;
    mirrored_init(&s->eight, &layout);
    tree_baseline_init(&s->tree, s->one.guest.ram, s->one.root, MIRRORED_LEVELS);
    tree_baseline_sync(&s->tree, 0, LAST);
    make_copy(s);
    if (!mirrored_subscribe(&s->one) || !mirrored_subscribe(&s->eight) ||
        !mirrored_hold(&s->one, s->one.pages) || !mirrored_hold(&s->eight, s->eight.pages)) {
        teardown(s);
        return NULL;
    }
    return s;
}

static void *setup(bool quick)
{
    return setup_layout(quick, true);
}

static void *setup_linear(bool quick)
{
    return setup_layout(quick, false);
}

/* Page by page, as they were mapped over time. */
static void fill_strewn(struct sync *s)
{
    const struct mirrored *m = &s->one;
    uint64_t page = 0;

    tree_baseline_init(&s->strewn, m->guest.ram, m->root, MIRRORED_LEVELS);
    for (uint64_t i = 0; i < m->pages; i++) {
        uint64_t iova = mirrored_iova(m, page);

        tree_baseline_sync(&s->strewn, iova, iova + GUEST_PAGE - 1);
        page = mirrored_next(page, m->pages);
    }
}

static void *setup_cold(bool quick)
{
    struct sync *s = setup(quick);

    if (!s) {
        return NULL;
    }
    s->flush_bytes = quick ? FLUSH_BYTES_QUICK : FLUSH_BYTES;
    s->flush = malloc(s->flush_bytes);
    if (!s->flush) {
        teardown(s);
        return NULL;
    }
    memset(s->flush, 1, s->flush_bytes); /* memory of its own for each page */
    fill_strewn(s);
    return s;
}

static uint64_t pages_of(void *state)
{
    struct sync *s = state;

    return s->one.pages;
}

/* ---- before a run ---- */

static void flush_caches(struct sync *s)
{
    for (uint64_t i = 0; i < s->flush_bytes; i += LINE) {
        (void)((volatile uint8_t *)s->flush)[i];
    }
}

static void begin(struct sync *s, struct mirrored *m)
{
    s->last = m;
    s->syncs = 0;
    if (m) {
        s->calls = mirrored_calls(m);
        s->present = mirrored_stats(m).pages_present[VIOMMU_CAUSE_DOMAIN];
    }
    flush_caches(s);
}

static void begin_one(void *state)
{
    struct sync *s = state;

    begin(s, &s->one);
}

static void begin_eight(void *state)
{
    struct sync *s = state;

    begin(s, &s->eight);
}

static void begin_tree(void *state)
{
    struct sync *s = state;

    s->last_tree = &s->tree;
    begin(s, NULL);
}

static void begin_strewn(void *state)
{
    struct sync *s = state;

    s->last_tree = &s->strewn;
    begin(s, NULL);
}

static void begin_compare(void *state)
{
    begin(state, NULL);
}

/* ---- nothing changed ---- */

static bool run_mirrored(void *state, uint64_t count)
{
    struct sync *s = state;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += s->one.pages) {
        ok = mirrored_sync(s->last);
        s->syncs++;
    }
    return ok;
}

/* Whether a page that goes and comes back is noticed. */
static bool notices(struct mirrored *m)
{
    uint64_t page = m->pages / 3;
    bool ok;

    mirrored_clear(m, page);
    ok = mirrored_sync(m) && mirrored_hold(m, m->pages - 1);
    mirrored_restore(m, page);
    return mirrored_sync(m) && ok && mirrored_hold(m, m->pages);
}

/* Every page was compared, no mirror was told anything. */
static bool check_mirrored(void *state)
{
    struct sync *s = state;
    struct mirrored *m = s->last;
    uint64_t present = mirrored_stats(m).pages_present[VIOMMU_CAUSE_DOMAIN] - s->present;

    return mirrored_calls(m) == s->calls && present >= s->syncs * m->pages &&
           mirrored_hold(m, m->pages) && notices(m);
}

static uint64_t differing(const uint64_t *table, const uint64_t *copy)
{
    uint64_t all = 0;

    for (unsigned i = 0; i < MIRRORED_ENTRIES; i++) {
        all |= table[i] ^ copy[i];
    }
    return all;
}

/* Whether each entry is the one before and a page. */
static uint64_t differing_linear(const uint64_t *table, uint64_t first)
{
    uint64_t all = 0;

    for (uint64_t i = 0; i < MIRRORED_ENTRIES; i++) {
        all |= table[i] ^ first;
        first += GUEST_PAGE;
    }
    return all;
}

static bool run_compare_linear(void *state, uint64_t count)
{
    struct sync *s = state;
    uint64_t all = 0;

    for (uint64_t done = 0; done < count; done += s->one.pages) {
        for (uint64_t i = 0; i < s->one.layout.tables; i++) {
            all |= differing_linear(s->one.tables[i], s->copy[i * MIRRORED_ENTRIES]);
        }
        __asm__ volatile("" : "+r"(all) : : "memory");
    }
    s->differing = all;
    return true;
}

static bool run_compare(void *state, uint64_t count)
{
    struct sync *s = state;
    uint64_t all = 0;

    for (uint64_t done = 0; done < count; done += s->one.pages) {
        for (uint64_t i = 0; i < s->one.layout.tables; i++) {
            all |= differing(s->one.tables[i], s->copy + i * MIRRORED_ENTRIES);
        }
        __asm__ volatile("" : "+r"(all) : : "memory");
    }
    s->differing = all;
    return true;
}

static bool check_compare(void *state)
{
    struct sync *s = state;

    return !s->differing;
}

static bool run_tree(void *state, uint64_t count)
{
    struct sync *s = state;

    for (uint64_t done = 0; done < count; done += s->one.pages) {
        tree_baseline_sync(s->last_tree, 0, LAST);
    }
    return true;
}

static bool run_anew(void *state, uint64_t count)
{
    struct sync *s = state;

    for (uint64_t done = 0; done < count; done += s->one.pages) {
        tree_baseline_anew(s->last_tree);
    }
    return true;
}

static bool check_tree(void *state)
{
    struct sync *s = state;
    uint64_t pages = s->one.pages;

    return tree_baseline_pages(s->last_tree) == pages &&
           s->last_tree->maps - s->last_tree->unmaps == pages;
}

/* ---- one change ---- */

/* Takes pages away and puts them back, in turns; a sync after each. */
static bool change_mirrored(void *state, uint64_t count)
{
    struct sync *s = state;
    struct mirrored *m = s->last;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += 2 * m->pages) {
        mirrored_clear(m, s->page);
        ok = mirrored_sync(m);
        mirrored_restore(m, s->page);
        ok = ok && mirrored_sync(m);
        s->page = mirrored_next(s->page, m->pages);
        s->syncs += 2;
    }
    return ok;
}

static bool check_change(void *state)
{
    struct sync *s = state;
    struct mirrored *m = s->last;

    return mirrored_hold(m, m->pages) &&
           mirrored_calls(m) == s->calls + s->syncs * m->layout.devices;
}

static void change_and_sync_tree(struct sync *s)
{
    mirrored_clear(&s->one, s->page);
    tree_baseline_sync(s->last_tree, 0, LAST);
    mirrored_restore(&s->one, s->page);
    tree_baseline_sync(s->last_tree, 0, LAST);
    s->page = mirrored_next(s->page, s->one.pages);
}

static bool change_tree(void *state, uint64_t count)
{
    struct sync *s = state;

    for (uint64_t i = 0; i < count; i += 2 * s->one.pages) {
        change_and_sync_tree(s);
    }
    return true;
}

static uint64_t two_syncs(void *state)
{
    return 2 * pages_of(state);
}

/* ---- rows ---- */

#define SIDE_ONE                                                                                   \
    {.name = "viommu, one device", .begin = begin_one, .run = run_mirrored, .check = check_mirrored}
#define SIDE_EIGHT                                                                                 \
    {                                                                                              \
        .name = "viommu, eight devices", .begin = begin_eight, .run = run_mirrored,                \
        .check = check_mirrored                                                                    \
    }
#define SIDE_COMPARE                                                                               \
    {                                                                                              \
        .name = "reading entries and copy", .begin = begin_compare, .run = run_compare,           \
        .check = check_compare                                                                     \
    }
#define SIDE_TREE                                                                                  \
    {.name = "GTree, a look-up a page", .begin = begin_tree, .run = run_tree, .check = check_tree}

static const struct row rows[] = {
    {
        .name = "sync-warm",
        .text = "domain invalidation of 1 Mi pages, nothing changed, what fits is in the caches",
        .unit = "page",
        .rounds = 9,
        .setup = setup,
        .teardown = teardown,
        .step_of = pages_of,
        .sides = {SIDE_ONE, SIDE_EIGHT, SIDE_COMPARE, SIDE_TREE,
                  {.name = "GTree, all anew",
                   .begin = begin_tree,
                   .run = run_anew,
                   .check = check_tree}},
        .side_count = 5,
        .ratios =
            {
                {0, 3, RATIO_SPEEDUP, 150},
                {0, 4, RATIO_SPEEDUP, 0},
                {0, 2, RATIO_COST, 1.3},
                {1, 0, RATIO_COST, 0},
            },
        .ratio_count = 4,
    },
    {
        .name = "sync-cold",
        .text = "domain invalidation of 1 Mi pages, nothing changed, nothing in the caches",
        .unit = "page",
        .single = true,
        .setup = setup_cold,
        .teardown = teardown,
        .step_of = pages_of,
        .sides = {SIDE_ONE, SIDE_EIGHT, SIDE_COMPARE, SIDE_TREE,
                  {.name = "GTree, nodes in no order",
                   .begin = begin_strewn,
                   .run = run_tree,
                   .check = check_tree}},
        .side_count = 5,
        .ratios =
            {
                {0, 3, RATIO_SPEEDUP, 150},
                {0, 4, RATIO_SPEEDUP, 0},
                {0, 2, RATIO_COST, 1.3},
                {1, 0, RATIO_COST, 0},
            },
        .ratio_count = 4,
    },
    {
        .name = "sync-linear",
        .text = "domain invalidation of 1 Mi pages that follow one another, nothing changed, warm",
        .unit = "page",
        .rounds = 9,
        .setup = setup_linear,
        .teardown = teardown,
        .step_of = pages_of,
        .sides = {SIDE_ONE,
                  {.name = "reading entries",
                   .begin = begin_compare,
                   .run = run_compare_linear,
                   .check = check_compare},
                  SIDE_TREE},
        .side_count = 3,
        .ratios = {{0, 2, RATIO_SPEEDUP, 0}, {0, 1, RATIO_COST, 0}},
        .ratio_count = 2,
    },
    {
        .name = "sync-change",
        .text = "domain invalidation of 1 Mi pages, one of which went or came",
        .unit = "page",
        .rounds = 9,
        .setup = setup,
        .teardown = teardown,
        .step_of = two_syncs,
        .sides =
            {
                {.name = "viommu, one device",
                 .begin = begin_one,
                 .run = change_mirrored,
                 .check = check_change},
                {.name = "viommu, eight devices",
                 .begin = begin_eight,
                 .run = change_mirrored,
                 .check = check_change},
                {.name = "GTree, a look-up a page",
                 .begin = begin_tree,
                 .run = change_tree,
                 .check = check_tree},
            },
        .side_count = 3,
        .ratios = {{0, 2, RATIO_SPEEDUP, 0}, {1, 0, RATIO_COST, 0}},
        .ratio_count = 2,
    },
};

const struct row_list sync_rows = {rows, sizeof(rows) / sizeof(rows[0])};
