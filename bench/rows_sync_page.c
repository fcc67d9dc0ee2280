/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: page-selective invalidations, one page each, where a mirror holds 1 Mi pages; pages out of
 * all of them, or out of 4,096 (what a driver used lately).
 *
 * The subject is the whole way through the queue: one page a write of the tail, sixteen, as Linux
 * sends them when it flushes lazily, and half a queue. Sides without a mirror tell what of that the
 * mirror is: the rest is two drains, the queue, and waking the embedder.
 *
 * The baseline (baseline_tree.h) is a call of a function: no queue, no drain, nobody to wake.
 */
#include "bench.h"
#include "baseline_tree.h"
#include "mirrored.h"

#include <stdlib.h>

#define TABLES 2048
#define TABLES_QUICK 8
#define NEAR_PAGES 4096
#define BATCH 16
#define BATCH_LARGE 128 /* half of the queue */
#define LAST ((1ULL << 48) - 1)

struct sync_page {
    struct mirrored mirrored;
    struct mirrored bare; /* without a subscriber */
    struct mirrored *last;
    struct tree_baseline tree;
    uint64_t window; /* the first pages of all: those that are invalidated */
    uint64_t page;   /* of the last invalidation */
    uint64_t calls;  /* of mirrors, before the last run */
    uint64_t present;
    uint64_t expected_calls;
    uint64_t expected_present;
};

static void teardown(void *state)
{
    struct sync_page *s = state;

    tree_baseline_fini(&s->tree);
    mirrored_fini(&s->mirrored);
    mirrored_fini(&s->bare);
    free(s);
}

static struct sync_page *setup(bool quick)
{
    struct sync_page *s = calloc(1, sizeof(*s));
    const struct mirrored_layout layout = {
        .tables = quick ? TABLES_QUICK : TABLES,
        .per_table = MIRRORED_ENTRIES,
        .scattered = true,
        .devices = 1,
    };

    if (!s) {
        return NULL;
    }
    mirrored_init(&s->mirrored, &layout);
    mirrored_init(&s->bare, &layout);
    tree_baseline_init(&s->tree, s->mirrored.guest.ram, s->mirrored.root, MIRRORED_LEVELS);
    tree_baseline_sync(&s->tree, 0, LAST);
    if (!mirrored_subscribe(&s->mirrored) || !mirrored_hold(&s->mirrored, s->mirrored.pages)) {
        teardown(s);
        return NULL;
    }
    s->window = s->mirrored.pages;
    return s;
}

static void *setup_all(bool quick)
{
    return setup(quick);
}

static void *setup_near(bool quick)
{
    struct sync_page *s = setup(quick);

    if (s) {
        s->window = NEAR_PAGES;
    }
    return s;
}

static uint64_t next_page(struct sync_page *s)
{
    s->page = mirrored_next(s->page, s->window);
    return s->page;
}

/* ---- the library ---- */

static void begin(struct sync_page *s, struct mirrored *m)
{
    s->last = m;
    s->calls = mirrored_calls(m);
    s->present = mirrored_stats(m).pages_present[VIOMMU_CAUSE_PAGES];
    s->expected_calls = 0;
    s->expected_present = 0;
    guest_queue_on(&m->guest);
}

static void begin_mirrored(void *state)
{
    struct sync_page *s = state;

    begin(s, &s->mirrored);
}

static void begin_bare(void *state)
{
    struct sync_page *s = state;

    begin(s, &s->bare);
}

static void end(void *state)
{
    struct sync_page *s = state;

    guest_queue_off(&s->last->guest);
}

static bool invalidate(struct sync_page *s, uint64_t count, unsigned batch)
{
    uint64_t pages[BATCH_LARGE];
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += batch) {
        for (unsigned j = 0; j < batch; j++) {
            pages[j] = next_page(s);
        }
        ok = mirrored_sync_pages(s->last, pages, batch);
    }
    s->expected_present = s->last == &s->mirrored ? count : 0;
    return ok;
}

static bool run_singly(void *state, uint64_t count)
{
    return invalidate(state, count, 1);
}

static bool run_batches(void *state, uint64_t count)
{
    return invalidate(state, count, BATCH);
}

static bool run_large_batches(void *state, uint64_t count)
{
    return invalidate(state, count, BATCH_LARGE);
}

/* Sixteen pages go, then come back. */
static bool change_batch(struct sync_page *s)
{
    struct mirrored *m = s->last;
    uint64_t pages[BATCH];
    bool ok;

    for (unsigned j = 0; j < BATCH; j++) {
        pages[j] = next_page(s);
        mirrored_clear(m, pages[j]);
    }
    ok = mirrored_sync_pages(m, pages, BATCH);
    for (unsigned j = 0; j < BATCH; j++) {
        mirrored_restore(m, pages[j]);
    }
    return mirrored_sync_pages(m, pages, BATCH) && ok;
}

static bool run_changes(void *state, uint64_t count)
{
    struct sync_page *s = state;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += 2 * BATCH) {
        ok = change_batch(s);
    }
    s->expected_calls = count;
    return ok;
}

/* Every page was compared, and the mirror was told what changed. */
static bool check(void *state)
{
    struct sync_page *s = state;
    struct mirrored *m = s->last;
    uint64_t present = mirrored_stats(m).pages_present[VIOMMU_CAUSE_PAGES] - s->present;

    return mirrored_calls(m) == s->calls + s->expected_calls && present >= s->expected_present &&
           mirrored_hold(m, m == &s->mirrored ? m->pages : 0);
}

/* ---- the baseline ---- */

static void tree_sync_page(struct sync_page *s, uint64_t page)
{
    uint64_t iova = mirrored_iova(&s->mirrored, page);

    tree_baseline_sync(&s->tree, iova, iova + GUEST_PAGE - 1);
}

static bool run_tree(void *state, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        tree_sync_page(state, next_page(state));
    }
    return true;
}

static void tree_change_batch(struct sync_page *s)
{
    uint64_t pages[BATCH];

    for (unsigned j = 0; j < BATCH; j++) {
        pages[j] = next_page(s);
        mirrored_clear(&s->mirrored, pages[j]);
    }
    for (unsigned j = 0; j < BATCH; j++) {
        tree_sync_page(s, pages[j]);
    }
    for (unsigned j = 0; j < BATCH; j++) {
        mirrored_restore(&s->mirrored, pages[j]);
    }
    for (unsigned j = 0; j < BATCH; j++) {
        tree_sync_page(s, pages[j]);
    }
}

static bool tree_changes(void *state, uint64_t count)
{
    for (uint64_t i = 0; i < count; i += 2 * BATCH) {
        tree_change_batch(state);
    }
    return true;
}

static bool check_tree(void *state)
{
    struct sync_page *s = state;
    uint64_t pages = s->mirrored.pages;

    return tree_baseline_pages(&s->tree) == pages && s->tree.maps - s->tree.unmaps == pages;
}

/* ---- rows ---- */

#define SIDES                                                                                      \
    .unit = "page", .step = BATCH_LARGE, .teardown = teardown, .side_count = 8, .ratio_count = 6,  \
    .sides =                                                                                       \
        {                                                                                          \
            {.name = "viommu, one page at a time",                                                 \
             .begin = begin_mirrored,                                                              \
             .run = run_singly,                                                                    \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "viommu, of 16 pages",                                                        \
             .begin = begin_mirrored,                                                              \
             .run = run_batches,                                                                   \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "viommu, of 128 pages",                                                       \
             .begin = begin_mirrored,                                                              \
             .run = run_large_batches,                                                             \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "viommu, of 16 changed",                                                      \
             .begin = begin_mirrored,                                                              \
             .run = run_changes,                                                                   \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "no mirror, of 16 pages",                                                     \
             .begin = begin_bare,                                                                  \
             .run = run_batches,                                                                   \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "no mirror, of 128 pages",                                                    \
             .begin = begin_bare,                                                                  \
             .run = run_large_batches,                                                             \
             .end = end,                                                                           \
             .check = check},                                                                      \
            {.name = "GTree", .run = run_tree, .check = check_tree},                               \
            {.name = "GTree, changed", .run = tree_changes, .check = check_tree},                  \
    },                                                                                             \
    .ratios = {                                                                                    \
        {1, 6, RATIO_SPEEDUP, 40},                                                                 \
        {2, 6, RATIO_SPEEDUP, 0},                                                                  \
        {0, 6, RATIO_SPEEDUP, 0},                                                                  \
        {3, 7, RATIO_SPEEDUP, 0},                                                                  \
        {1, 4, RATIO_COST, 0},                                                                     \
        {2, 5, RATIO_COST, 0},                                                                     \
    }

static const struct row rows[] = {
    {
        .name = "sync-page",
        .text = "page-selective invalidation with a mirror, pages out of 1 Mi",
        .setup = setup_all,
        SIDES,
    },
    {
        .name = "sync-page-near",
        .text = "page-selective invalidation with a mirror of 1 Mi pages, pages out of 4,096",
        .setup = setup_near,
        SIDES,
    },
};

const struct row_list sync_page_rows = {rows, sizeof(rows) / sizeof(rows[0])};
