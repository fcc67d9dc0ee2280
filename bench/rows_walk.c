/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Row: a translation that misses: four levels, leaf tables of 256 MiB, the context known.
 *
 * Each side keeps its place in the tour from run to run, and they begin far from each other: a page
 * is not asked for again before the caches have forgotten it.
 */
#include "bench.h"
#include "tours.h"

#include <stdlib.h>

#define PAGES (1ULL << 25)
#define PAGES_QUICK (1ULL << 15)

enum walker {
    WALK_VIOMMU,
    WALK_BARE,
    WALK_CAPPED,
    WALK_UNBOUNDED,
    WALKERS,
};

struct walk {
    struct world world;
    struct baseline unbounded;
    struct baseline capped;
    struct tour tours[WALKERS];
    struct tour *last; /* of the last run */
    uint64_t walks;    /* that the library counted before it */
};

static void teardown(void *state)
{
    struct walk *w = state;

    baseline_fini(&w->unbounded);
    baseline_fini(&w->capped);
    world_fini(&w->world);
    free(w);
}

static void *setup(bool quick)
{
    struct walk *w = calloc(1, sizeof(*w));

    if (!w) {
        return NULL;
    }
    world_init(&w->world, quick ? PAGES_QUICK : PAGES);
    baseline_init(&w->unbounded, 0, w->world.guest.ram, w->world.table, WORLD_LEVELS);
    baseline_init(&w->capped, BASELINE_CAP, w->world.guest.ram, w->world.table, WORLD_LEVELS);
    for (unsigned i = 0; i < WALKERS; i++) {
        w->tours[i].page = i * (w->world.pages / WALKERS + 12345) & (w->world.pages - 1);
    }
    return w;
}

static uint64_t walks_of(struct walk *w)
{
    struct viommu_stats stats;

    viommu_stats_get(w->world.guest.iommu, &stats, sizeof(stats));
    return stats.walks;
}

static void begin_viommu(void *state)
{
    struct walk *w = state;

    w->walks = walks_of(w);
}

/* The unbounded table would grow for ever: each run begins with an empty one. */
static void begin_unbounded(void *state)
{
    struct walk *w = state;

    baseline_reset(&w->unbounded);
}

static bool run_viommu(void *state, uint64_t count)
{
    struct walk *w = state;

    w->last = &w->tours[WALK_VIOMMU];
    return chain_viommu(&w->world, w->world.devices[0], w->last, count);
}

static bool run_capped(void *state, uint64_t count)
{
    struct walk *w = state;

    w->last = &w->tours[WALK_CAPPED];
    return chain_baseline(&w->capped, w->last, count);
}

static bool run_unbounded(void *state, uint64_t count)
{
    struct walk *w = state;

    w->last = &w->tours[WALK_UNBOUNDED];
    return chain_baseline(&w->unbounded, w->last, count);
}

static bool run_bare(void *state, uint64_t count)
{
    struct walk *w = state;
    const uint8_t *ram = w->world.guest.ram;
    uint64_t root = w->world.table;
    uint64_t sum = 0;
    uint64_t iova;

    w->last = &w->tours[WALK_BARE];
    iova = world_iova(w->last->page);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t gpa = baseline_bare_walk(ram, root, WORLD_LEVELS, iova);

        sum += gpa;
        iova = gpa - WORLD_GPA + WORLD_IOVA;
    }
    tour_set(w->last, count, sum, iova);
    return true;
}

static bool check(void *state)
{
    struct walk *w = state;

    return world_tour_ok(&w->world, w->last);
}

/* In the full row nearly nothing may have been answered from the cache. */
static bool check_viommu(void *state)
{
    struct walk *w = state;
    uint64_t walked = walks_of(w) - w->walks;

    return check(w) && (w->world.pages != PAGES || walked >= w->last->count / 100 * 99);
}

static const struct row rows[] = {
    {
        .name = "walk",
        .text = "translations that miss, 256 MiB of leaf tables, each address from the last",
        .unit = "translation",
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                [WALK_VIOMMU] = {.name = "viommu, a section of 4,096",
                                 .begin = begin_viommu,
                                 .run = run_viommu,
                                 .check = check_viommu},
                [WALK_BARE] = {.name = "four dependent loads", .run = run_bare, .check = check},
                [WALK_CAPPED] = {.name = "GLib, capped", .run = run_capped, .check = check},
                [WALK_UNBOUNDED] = {.name = "GLib, unbounded",
                                    .begin = begin_unbounded,
                                    .run = run_unbounded,
                                    .check = check},
            },
        .side_count = WALKERS,
        .ratios =
            {
                {WALK_VIOMMU, WALK_CAPPED, RATIO_SPEEDUP, 2},
                {WALK_VIOMMU, WALK_UNBOUNDED, RATIO_SPEEDUP, 2},
                {WALK_VIOMMU, WALK_BARE, RATIO_COST, 1.2},
                /* What no walk can beat. */
                {WALK_BARE, WALK_CAPPED, RATIO_SPEEDUP, 0},
            },
        .ratio_count = 4,
    },
};

const struct row_list walk_rows = {rows, 1};
