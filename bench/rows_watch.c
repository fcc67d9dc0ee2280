/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: what it costs that an instance can be watched (viommu/watch.h): while nobody watches, and
 * while somebody does who only counts. At a translation that misses, at an answer from the cache,
 * and at a page-selective invalidation through the queue; beside them, the look whether somebody
 * watches, alone.
 */
#include "bench.h"
#include "tours.h"

#include "iommu/watch.h"

#include <stdlib.h>

#define PAGES_MISS (1ULL << 22) /* less than one in a hundred is cached */
#define PAGES_HIT 4096

struct watched {
    struct world world;
    struct tour tour;
    bool misses;
    uint64_t page;  /* the next to be invalidated */
    uint64_t told;  /* to the watcher */
    uint64_t walks; /* before the run */
    bool watching;
};

static void count(void *opaque, const struct viommu_observation *observation)
{
    struct watched *w = opaque;

    (void)observation;
    w->told++;
}

static void teardown(void *state)
{
    struct watched *w = state;

    world_fini(&w->world);
    free(w);
}

static struct watched *make(uint64_t pages)
{
    struct watched *w = calloc(1, sizeof(*w));

    if (!w) {
        return NULL;
    }
    world_init(&w->world, pages);
    if (!world_touch(&w->world, w->world.devices[0])) {
        teardown(w);
        return NULL;
    }
    return w;
}

static void *setup_miss(bool quick)
{
    struct watched *w = make(PAGES_MISS);

    (void)quick;
    if (w) {
        w->misses = true;
    }
    return w;
}

static void *setup_hit(bool quick)
{
    (void)quick;
    return make(PAGES_HIT);
}

static void *setup_queue(bool quick)
{
    struct watched *w = make(PAGES_HIT);

    (void)quick;
    if (w) {
        guest_queue_on(&w->world.guest);
    }
    return w;
}

static uint64_t walks_of(struct watched *w)
{
    struct viommu_stats stats;

    viommu_stats_get(w->world.guest.iommu, &stats, sizeof(stats));
    return stats.walks;
}

static void begin_off(void *state)
{
    struct watched *w = state;

    viommu_watch(w->world.guest.iommu, NULL);
    w->watching = false;
    w->told = 0;
    w->walks = walks_of(w);
}

static void begin_on(void *state)
{
    struct watched *w = state;
    struct viommu_watcher watcher = {.observe = count, .opaque = w};

    begin_off(state);
    viommu_watch(w->world.guest.iommu, &watcher);
    w->watching = true;
}

static bool run_chain(void *state, uint64_t times)
{
    struct watched *w = state;

    return chain_viommu(&w->world, w->world.devices[0], &w->tour, times);
}

/* Every miss was told, and nothing else; in the row of misses nearly all were. */
static bool check_chain(void *state)
{
    struct watched *w = state;
    uint64_t walked = walks_of(w) - w->walks;

    return world_tour_ok(&w->world, &w->tour) && w->told == (w->watching ? walked : 0) &&
           (!w->misses || walked >= w->tour.count / 100 * 99) && (w->misses || !walked);
}

static bool run_queue(void *state, uint64_t times)
{
    struct watched *w = state;
    struct guest *guest = &w->world.guest;
    uint64_t head = 0;

    for (uint64_t i = 0; i < times; i++) {
        w->page = (w->page + 1) % PAGES_HIT;
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN,
                                                     world_iova(w->page), 0, true));
        viommu_mmio_write(guest->iommu, SPEC_IQT, 8, guest->queue_tail * 16ULL);
        viommu_process(guest->iommu, 0);
    }
    viommu_mmio_read(guest->iommu, SPEC_IQH, 8, &head);
    w->tour.count = times;
    return head == guest->queue_tail * 16ULL;
}

/* A write, a descriptor, and that it retired. */
static bool check_queue(void *state)
{
    struct watched *w = state;

    return w->told == (w->watching ? 3 * w->tour.count : 0);
}

static bool run_look(void *state, uint64_t times)
{
    struct watched *w = state;
    bool seen = false;

    for (uint64_t i = 0; i < times; i++) {
        if (watch_is_on(w->world.guest.iommu)) {
            seen = true;
        }
        __asm__ volatile("" ::: "memory");
    }
    return !seen;
}

#define SIDES(work, check_work)                                                                    \
    {                                                                                              \
        {.name = "nobody watches", .begin = begin_off, .run = work, .check = check_work},          \
            {.name = "somebody counts", .begin = begin_on, .run = work, .check = check_work},      \
            {.name = "the look alone", .begin = begin_off, .run = run_look},                       \
    }
#define RATIOS                                                                                     \
    {                                                                                              \
        {1, 0, RATIO_COST, 0}, {2, 0, RATIO_COST, 0},                                              \
    }

static const struct row rows[] = {
    {
        .name = "watch-miss",
        .text = "translations that miss, while nobody watches the instance, or somebody",
        .unit = "translation",
        .setup = setup_miss,
        .teardown = teardown,
        .sides = SIDES(run_chain, check_chain),
        .side_count = 3,
        .ratios = RATIOS,
        .ratio_count = 2,
    },
    {
        .name = "watch-hit",
        .text = "translations that are cached, likewise: they pass by no place that is watched",
        .unit = "translation",
        .setup = setup_hit,
        .teardown = teardown,
        .sides = SIDES(run_chain, check_chain),
        .side_count = 3,
        .ratios = RATIOS,
        .ratio_count = 2,
    },
    {
        .name = "watch-queue",
        .text = "page-selective invalidations through the queue, likewise: three places each",
        .unit = "page",
        .setup = setup_queue,
        .teardown = teardown,
        .sides = SIDES(run_queue, check_queue),
        .side_count = 3,
        .ratios = RATIOS,
        .ratio_count = 2,
    },
};

const struct row_list watch_rows = {rows, sizeof(rows) / sizeof(rows[0])};
