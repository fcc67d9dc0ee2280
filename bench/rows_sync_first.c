/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: the first sync of a mirror, and what remembering costs.
 *
 * sync-first-*: mirrors subscribe to a domain with 1 Mi pages and are told of all of them; between
 * runs they leave, and the unit forgets. The baseline walks the tables into an empty tree, a node
 * and a callback a page. Figures say how many calls the library made.
 *
 * sync-memory: no times, only bytes a page, from the library's own statistics, for 2,048 leaf
 * tables that are full, sparse, or linear.
 */
#include "bench.h"
#include "baseline_tree.h"
#include "mirrored.h"

#include <stdio.h>
#include <stdlib.h>

#define TABLES 2048
#define TABLES_QUICK 8
#define LAST ((1ULL << 48) - 1)

/* ---- the first sync ---- */

struct first {
    struct mirrored one;
    struct mirrored eight;
    struct mirrored *last;
    struct tree_baseline tree;
    uint64_t calls; /* before the last run */
};

static void teardown(void *state)
{
    struct first *f = state;

    tree_baseline_fini(&f->tree);
    mirrored_fini(&f->one);
    mirrored_fini(&f->eight);
    free(f);
}

static void *setup(bool quick, bool scattered)
{
    struct first *f = calloc(1, sizeof(*f));
    struct mirrored_layout layout = {
        .tables = quick ? TABLES_QUICK : TABLES,
        .per_table = MIRRORED_ENTRIES,
        .scattered = scattered,
        .devices = 1,
    };

    if (!f) {
        return NULL;
    }
    mirrored_init(&f->one, &layout);
    layout.devices = MIRRORED_DEVICES;
    mirrored_init(&f->eight, &layout);
    tree_baseline_init(&f->tree, f->one.guest.ram, f->one.root, MIRRORED_LEVELS);
    return f;
}

static void *setup_contiguous(bool quick)
{
    return setup(quick, false);
}

static void *setup_scattered(bool quick)
{
    return setup(quick, true);
}

static uint64_t pages_of(void *state)
{
    struct first *f = state;

    return f->one.pages;
}

static void begin_one(void *state)
{
    struct first *f = state;

    f->last = &f->one;
    f->calls = mirrored_calls(f->last);
}

static void begin_eight(void *state)
{
    struct first *f = state;

    f->last = &f->eight;
    f->calls = mirrored_calls(f->last);
}

static bool run_first(void *state, uint64_t count)
{
    struct first *f = state;

    (void)count; /* one step */
    return mirrored_subscribe(f->last);
}

static uint64_t calls_expected(const struct mirrored *m)
{
    return (m->layout.scattered ? m->pages : m->layout.tables) * m->layout.devices;
}

/* They have left by then, and nothing is remembered. */
static bool check_first(void *state)
{
    struct first *f = state;
    struct mirrored *m = f->last;

    return mirrored_hold(m, m->pages) && mirrored_calls(m) - f->calls == calls_expected(m) &&
           mirrored_stats(m).shadow_pages == 0;
}

static void end_first(void *state)
{
    struct first *f = state;

    mirrored_unsubscribe(f->last);
}

static void begin_tree(void *state)
{
    struct first *f = state;

    tree_baseline_reset(&f->tree);
    f->tree.maps = 0;
}

static bool run_tree(void *state, uint64_t count)
{
    struct first *f = state;

    (void)count;
    tree_baseline_sync(&f->tree, 0, LAST);
    return true;
}

static bool check_tree(void *state)
{
    struct first *f = state;

    return f->tree.maps == f->one.pages && tree_baseline_pages(&f->tree) == f->one.pages;
}

static void figure(struct figure *figure, const char *name, double value, const char *unit,
                   double goal)
{
    snprintf(figure->name, sizeof(figure->name), "%s", name);
    figure->value = value;
    figure->unit = unit;
    figure->goal = goal;
}

static int call_figures(void *state, struct figure *figures)
{
    struct first *f = state;
    struct mirrored *m = &f->one;
    uint64_t before = mirrored_calls(m);

    if (!mirrored_subscribe(m)) {
        return -1;
    }
    figure(&figures[0], "pages", (double)m->pages, "pages", 0);
    figure(&figures[1], "calls of one mirror", (double)(mirrored_calls(m) - before), "calls", 0);
    mirrored_unsubscribe(m);
    return 2;
}

/* ---- memory ---- */

struct shape {
    const char *name;
    struct mirrored_layout layout;
    double goal;
};

static const struct shape shapes[] = {
    {"full, one device", {0, 512, true, 1}, 8.5},
    {"full, eight devices", {0, 512, true, 8}, 8.5},
    {"128 a table, one device", {0, 128, true, 1}, 0},
    {"sparse, 64 a table, one device", {0, 64, true, 1}, 12},
    {"sparse, 64 a table, eight devices", {0, 64, true, 8}, 12},
    {"sparse, 16 a table, one device", {0, 16, true, 1}, 12},
    {"sparse, 4 a table, one device", {0, 4, true, 1}, 12},
    {"one a table, one device", {0, 1, true, 1}, 0},
    {"linear, one device", {0, 512, false, 1}, 0.1},
    {"linear, eight devices", {0, 512, false, 8}, 0.1},
};
#define SHAPES ((int)(sizeof(shapes) / sizeof(shapes[0])))

struct memory {
    uint64_t tables;
};

static void *memory_setup(bool quick)
{
    struct memory *memory = calloc(1, sizeof(*memory));

    if (memory) {
        memory->tables = quick ? TABLES_QUICK : TABLES;
    }
    return memory;
}

/* Bytes a page; 0: something was wrong. */
static double bytes_a_page(const struct mirrored_layout *layout)
{
    struct mirrored m;
    struct viommu_stats stats;
    double bytes = 0;

    mirrored_init(&m, layout);
    if (mirrored_subscribe(&m)) {
        stats = mirrored_stats(&m);
        if (mirrored_hold(&m, m.pages) && stats.shadow_pages == m.pages) {
            bytes = (double)stats.shadow_bytes / (double)stats.shadow_pages;
        }
    }
    mirrored_fini(&m);
    return bytes;
}

static int memory_figures(void *state, struct figure *figures)
{
    struct memory *memory = state;

    for (int i = 0; i < SHAPES; i++) {
        struct mirrored_layout layout = shapes[i].layout;
        double bytes;

        layout.tables = memory->tables;
        bytes = bytes_a_page(&layout);
        if (bytes == 0) {
            return -1;
        }
        figure(&figures[i], shapes[i].name, bytes, "bytes a page", shapes[i].goal);
    }
    return SHAPES;
}

/* ---- rows ---- */

#define SIDES                                                                                      \
    .unit = "page", .single = true, .rounds = 9, .teardown = teardown, .step_of = pages_of,        \
    .figures = call_figures, .side_count = 3, .ratio_count = 2,                                    \
    .sides =                                                                                       \
        {                                                                                          \
            {.name = "viommu, one device",                                                         \
             .begin = begin_one,                                                                   \
             .run = run_first,                                                                     \
             .end = end_first,                                                                     \
             .check = check_first},                                                                \
            {.name = "viommu, eight devices",                                                      \
             .begin = begin_eight,                                                                 \
             .run = run_first,                                                                     \
             .end = end_first,                                                                     \
             .check = check_first},                                                                \
            {.name = "GTree, a node a page",                                                       \
             .begin = begin_tree,                                                                  \
             .run = run_tree,                                                                      \
             .check = check_tree},                                                                 \
    },                                                                                             \
    .ratios = {{0, 2, RATIO_SPEEDUP, 0}, {1, 0, RATIO_COST, 0}}

static const struct row rows[] = {
    {
        .name = "sync-first-contiguous",
        .text = "first sync of 1 Mi pages of 4 KiB that follow one another in memory",
        .setup = setup_contiguous,
        SIDES,
    },
    {
        .name = "sync-first-scattered",
        .text = "first sync of 1 Mi pages of 4 KiB scattered over memory",
        .setup = setup_scattered,
        SIDES,
    },
    {
        .name = "sync-memory",
        .text = "memory to remember what mirrors hold",
        .unit = "page",
        .setup = memory_setup,
        .teardown = free,
        .figures = memory_figures,
    },
};

const struct row_list sync_first_rows = {rows, sizeof(rows) / sizeof(rows[0])};
