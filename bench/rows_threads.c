/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: the same by two threads at once, each with a device of its own in one domain; what they do
 * in sum. An operation is one translation by either.
 */
#include "bench.h"
#include "pin.h"
#include "tours.h"

#include <pthread.h>
#include <stdlib.h>

#define PAGES 4096
#define THREADS WORLD_DEVICES

struct threads;

struct worker {
    struct threads *all;
    pthread_t thread;
    unsigned number;
    struct viommu_device *device;
    bool (*work)(struct worker *worker);
    uint64_t count;
    bool ok;
    struct tour tour;
    /* What a worker writes must not be on a line with another's. */
    _Alignas(128) char end[1];
};

struct threads {
    struct world world;
    struct baseline baseline;
    uint64_t *order;
    struct worker workers[THREADS];
};

static void teardown(void *state)
{
    struct threads *t = state;

    baseline_fini(&t->baseline);
    world_fini(&t->world);
    free(t->order);
    free(t);
}

static void *setup(bool quick)
{
    struct threads *t = aligned_alloc(128, sizeof(*t));

    (void)quick;
    if (!t) {
        return NULL;
    }
    *t = (struct threads){.order = NULL};
    world_init(&t->world, PAGES);
    baseline_init(&t->baseline, 0, t->world.guest.ram, t->world.table, WORLD_LEVELS);
    t->order = stream_order(&t->world);
    for (unsigned i = 0; i < THREADS; i++) {
        t->workers[i].all = t;
        t->workers[i].number = i;
        t->workers[i].device = t->world.devices[i];
    }
    if (!t->order || !world_touch(&t->world, t->world.devices[0])) {
        teardown(t);
        return NULL;
    }
    return t;
}

static bool check(void *state)
{
    struct threads *t = state;
    bool ok = true;

    for (unsigned i = 0; i < THREADS; i++) {
        ok = ok && world_tour_ok(&t->world, &t->workers[i].tour);
    }
    return ok;
}

static void *worker_main(void *opaque)
{
    struct worker *worker = opaque;

    pin(worker->number);
    worker->ok = worker->work(worker);
    return NULL;
}

/* Starting the threads is timed, too: microseconds in a run of milliseconds. */
static bool run(void *state, uint64_t count, bool (*work)(struct worker *worker))
{
    struct threads *t = state;
    unsigned started = 0;
    bool ok = true;

    for (unsigned i = 0; i < THREADS; i++) {
        t->workers[i].work = work;
        t->workers[i].count = count / THREADS;
    }
    while (started < THREADS && !pthread_create(&t->workers[started].thread, NULL, worker_main,
                                                &t->workers[started])) {
        started++;
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(t->workers[i].thread, NULL);
        ok = ok && t->workers[i].ok;
    }
    return ok && started == THREADS;
}

static bool work_dependent(struct worker *w)
{
    return chain_viommu(&w->all->world, w->device, &w->tour, w->count);
}

static bool work_dependent_each(struct worker *w)
{
    return chain_viommu_each(&w->all->world, w->device, &w->tour, w->count);
}

static bool work_dependent_baseline(struct worker *w)
{
    return chain_baseline(&w->all->baseline, &w->tour, w->count);
}

static bool work_independent(struct worker *w)
{
    return stream_viommu(&w->all->world, w->device, w->all->order, &w->tour, w->count);
}

static bool work_independent_each(struct worker *w)
{
    return stream_viommu_each(&w->all->world, w->device, w->all->order, &w->tour, w->count);
}

static bool work_independent_baseline(struct worker *w)
{
    return stream_baseline(&w->all->baseline, &w->all->world, w->all->order, &w->tour, w->count);
}

static bool dependent(void *state, uint64_t count)
{
    return run(state, count, work_dependent);
}

static bool dependent_each(void *state, uint64_t count)
{
    return run(state, count, work_dependent_each);
}

static bool dependent_baseline(void *state, uint64_t count)
{
    return run(state, count, work_dependent_baseline);
}

static bool independent(void *state, uint64_t count)
{
    return run(state, count, work_independent);
}

static bool independent_each(void *state, uint64_t count)
{
    return run(state, count, work_independent_each);
}

static bool independent_baseline(void *state, uint64_t count)
{
    return run(state, count, work_independent_baseline);
}

static const struct row rows[] = {
    {
        .name = "threads-dependent",
        .text = "translate-dependent by two threads, in sum",
        .unit = "translation",
        .step = PAGES * THREADS,
        .wall = true,
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "viommu, a section of 4,096", .run = dependent, .check = check},
                {.name = "viommu, a section each", .run = dependent_each, .check = check},
                {.name = "GLib, unbounded", .run = dependent_baseline, .check = check},
            },
        .side_count = 3,
        .ratios =
            {
                {.subject = 0, .baseline = 2, .kind = RATIO_SPEEDUP},
                {.subject = 1, .baseline = 2, .kind = RATIO_SPEEDUP},
            },
        .ratio_count = 2,
    },
    {
        .name = "threads-independent",
        .text = "translate-independent by two threads, in sum",
        .unit = "translation",
        .step = PAGES * THREADS,
        .wall = true,
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "viommu, a section of 4,096", .run = independent, .check = check},
                {.name = "viommu, a section each", .run = independent_each, .check = check},
                {.name = "GLib, unbounded", .run = independent_baseline, .check = check},
            },
        .side_count = 3,
        .ratios =
            {
                {.subject = 0, .baseline = 2, .kind = RATIO_SPEEDUP},
                {.subject = 1, .baseline = 2, .kind = RATIO_SPEEDUP},
            },
        .ratio_count = 2,
    },
};

const struct row_list threads_rows = {rows, sizeof(rows) / sizeof(rows[0])};
