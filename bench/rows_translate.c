/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: translations that the cache answers, one thread, 4,096 pages.
 *
 * The capped baseline cannot hold so many pages: it walks and inserts again and again.
 */
#include "bench.h"
#include "tours.h"

#include <stdlib.h>

#define PAGES 4096

struct translate {
    struct world world;
    struct baseline unbounded;
    struct baseline capped;
    uint64_t *order;
    struct tour tour; /* of the last run */
};

static void teardown(void *state)
{
    struct translate *t = state;

    baseline_fini(&t->unbounded);
    baseline_fini(&t->capped);
    world_fini(&t->world);
    free(t->order);
    free(t);
}

static void *setup(bool quick)
{
    struct translate *t = calloc(1, sizeof(*t));
    struct guest *guest = &t->world.guest;

    (void)quick;
    if (!t) {
        return NULL;
    }
    world_init(&t->world, PAGES);
    baseline_init(&t->unbounded, 0, guest->ram, t->world.table, WORLD_LEVELS);
    baseline_init(&t->capped, BASELINE_CAP, guest->ram, t->world.table, WORLD_LEVELS);
    t->order = stream_order(&t->world);
    if (!t->order || !world_touch(&t->world, t->world.devices[0])) {
        teardown(t);
        return NULL;
    }
    return t;
}

static bool check(void *state)
{
    struct translate *t = state;

    return world_tour_ok(&t->world, &t->tour);
}

static bool dependent(void *state, uint64_t count)
{
    struct translate *t = state;

    return chain_viommu(&t->world, t->world.devices[0], &t->tour, count);
}

static bool dependent_each(void *state, uint64_t count)
{
    struct translate *t = state;

    return chain_viommu_each(&t->world, t->world.devices[0], &t->tour, count);
}

static bool dependent_unbounded(void *state, uint64_t count)
{
    struct translate *t = state;

    return chain_baseline(&t->unbounded, &t->tour, count);
}

static bool dependent_capped(void *state, uint64_t count)
{
    struct translate *t = state;

    return chain_baseline(&t->capped, &t->tour, count);
}

static bool independent(void *state, uint64_t count)
{
    struct translate *t = state;

    return stream_viommu(&t->world, t->world.devices[0], t->order, &t->tour, count);
}

static bool independent_each(void *state, uint64_t count)
{
    struct translate *t = state;

    return stream_viommu_each(&t->world, t->world.devices[0], t->order, &t->tour, count);
}

static bool independent_many(void *state, uint64_t count)
{
    struct translate *t = state;

    return stream_viommu_many(&t->world, t->world.devices[0], t->order, &t->tour, count);
}

static bool independent_unbounded(void *state, uint64_t count)
{
    struct translate *t = state;

    return stream_baseline(&t->unbounded, &t->world, t->order, &t->tour, count);
}

static bool independent_capped(void *state, uint64_t count)
{
    struct translate *t = state;

    return stream_baseline(&t->capped, &t->world, t->order, &t->tour, count);
}

static const struct row rows[] = {
    {
        .name = "translate-dependent",
        .text = "cached look-ups, 4,096 pages, each address out of the last answer",
        .unit = "translation",
        .step = PAGES,
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "viommu, a section of 4,096", .run = dependent, .check = check},
                {.name = "viommu, a section each", .run = dependent_each, .check = check},
                {.name = "GLib, unbounded", .run = dependent_unbounded, .check = check},
                {.name = "GLib, capped", .run = dependent_capped, .check = check},
            },
        .side_count = 4,
        .ratios =
            {
                {.subject = 0, .baseline = 2, .kind = RATIO_SPEEDUP, .goal = 4},
                {.subject = 1, .baseline = 2, .kind = RATIO_SPEEDUP},
                {.subject = 0, .baseline = 3, .kind = RATIO_SPEEDUP},
                {.subject = 1, .baseline = 3, .kind = RATIO_SPEEDUP},
            },
        .ratio_count = 4,
    },
    {
        .name = "translate-independent",
        .text = "cached look-ups, 4,096 pages, addresses known beforehand",
        .unit = "translation",
        .step = PAGES,
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "viommu, a section of 4,096", .run = independent, .check = check},
                {.name = "viommu, a section each", .run = independent_each, .check = check},
                {.name = "GLib, unbounded", .run = independent_unbounded, .check = check},
                {.name = "GLib, capped", .run = independent_capped, .check = check},
                {.name = "viommu, lists of 256", .run = independent_many, .check = check},
            },
        .side_count = 5,
        .ratios =
            {
                {.subject = 4, .baseline = 2, .kind = RATIO_SPEEDUP, .goal = 10},
                {.subject = 0, .baseline = 2, .kind = RATIO_SPEEDUP},
                {.subject = 1, .baseline = 2, .kind = RATIO_SPEEDUP},
                {.subject = 0, .baseline = 3, .kind = RATIO_SPEEDUP},
                {.subject = 1, .baseline = 3, .kind = RATIO_SPEEDUP},
            },
        .ratio_count = 5,
    },
};

const struct row_list translate_rows = {rows, sizeof(rows) / sizeof(rows[0])};
