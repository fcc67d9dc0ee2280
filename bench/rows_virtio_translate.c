/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: translations of a virtio-iommu where so many pages are mapped, in no useful order; by one
 * thread, and by two with a device each.
 *
 * Once with a translation cache that holds all of them, once with the smallest one there is (256
 * entries), in which nearly none is found. An operation is one translation, by whichever thread.
 */
#include "bench.h"
#include "pin.h"
#include "virtio_world.h"

#include <pthread.h>
#include <stdlib.h>

#define SECTION 4096
#define UNCACHED_ENTRIES 256

struct translations;

struct worker {
    struct translations *all;
    pthread_t thread;
    unsigned number;
    struct virtio_world *world; /* whose mappings it asks for */
    bool baseline;
    uint64_t place; /* the next one */
    uint64_t first; /* the first one of the last run */
    uint64_t count; /* of the last run */
    uint64_t sum;   /* of the addresses that it saw */
    bool ok;
    /* What a worker writes must not be on a line with another's. */
    _Alignas(128) char end[1];
};

struct translations {
    struct virtio_world cached;
    struct virtio_world uncached;
    struct worker workers[VIRTIO_DEVICES];
    unsigned used; /* workers in the last run */
};

static void teardown(void *state)
{
    struct translations *t = state;

    virtio_world_fini(&t->cached);
    virtio_world_fini(&t->uncached);
    free(t);
}

/* The place after this one that is mapped: the window does not move here. */
static uint64_t follow(const struct virtio_world *world, uint64_t place)
{
    place = virtio_next(world, place);
    return place == world->window.next ? world->window.oldest : place;
}

static bool translate(struct worker *w)
{
    struct virtio_world *world = w->world;
    struct viommu_device *device = world->devices[w->number];
    bool ok = true;

    for (uint64_t done = 0; ok && done < w->count;) {
        uint64_t end = w->count - done < SECTION ? w->count : done + SECTION;

        ok = !viommu_dma_begin(world->iommu);
        for (; ok && done < end; done++) {
            struct viommu_translation out;

            ok = !viommu_device_translate(device, NULL, virtio_iova(w->place), VIOMMU_READ, &out);
            w->sum += out.gpa;
            w->place = follow(world, w->place);
        }
        viommu_dma_end(world->iommu);
    }
    return ok;
}

static bool translate_baseline(struct worker *w)
{
    struct virtio_world *world = w->world;
    bool ok = true;

    for (uint64_t i = 0; ok && i < w->count; i++) {
        uint64_t gpa = 0;

        ok = baseline_virtio_translate(&world->baseline, VIRTIO_ENDPOINT + w->number,
                                       virtio_iova(w->place), VIOMMU_READ, &gpa);
        w->sum += gpa;
        w->place = follow(world, w->place);
    }
    return ok;
}

static void work(struct worker *w)
{
    w->first = w->place;
    w->sum = 0;
    w->ok = w->baseline ? translate_baseline(w) : translate(w);
}

static void *worker_main(void *opaque)
{
    struct worker *worker = opaque;

    pin(worker->number);
    work(worker);
    return NULL;
}

static void *setup(uint64_t mappings)
{
    struct translations *t = aligned_alloc(128, sizeof(*t));
    uint32_t entries = UNCACHED_ENTRIES;

    if (!t) {
        return NULL;
    }
    *t = (struct translations){.used = 0};
    while (entries < 4 * mappings) {
        entries *= 2;
    }
    virtio_world_init(&t->cached, mappings, entries);
    virtio_world_init(&t->uncached, mappings, UNCACHED_ENTRIES);
    for (unsigned i = 0; i < VIRTIO_DEVICES; i++) {
        t->workers[i] =
            (struct worker){.all = t, .number = i, .world = &t->cached, .count = mappings};
        if (!translate(&t->workers[i])) {
            teardown(t);
            return NULL;
        }
    }
    return t;
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

static bool one(struct translations *t, struct virtio_world *world, bool baseline, uint64_t count)
{
    struct worker *w = &t->workers[0];

    t->used = 1;
    w->world = world;
    w->baseline = baseline;
    w->count = count;
    work(w);
    return w->ok;
}

/* Starting the threads is timed, too: microseconds in a run of milliseconds. */
static bool both(struct translations *t, struct virtio_world *world, bool baseline, uint64_t count)
{
    unsigned started = 0;
    bool ok = true;

    t->used = VIRTIO_DEVICES;
    for (unsigned i = 0; i < VIRTIO_DEVICES; i++) {
        t->workers[i].world = world;
        t->workers[i].baseline = baseline;
        t->workers[i].count = count / VIRTIO_DEVICES;
    }
    while (started < VIRTIO_DEVICES && !pthread_create(&t->workers[started].thread, NULL,
                                                       worker_main, &t->workers[started])) {
        started++;
    }
    for (unsigned i = 0; i < started; i++) {
        pthread_join(t->workers[i].thread, NULL);
        ok = ok && t->workers[i].ok;
    }
    return ok && started == VIRTIO_DEVICES;
}

static bool check(void *state)
{
    struct translations *t = state;
    bool ok = true;

    for (unsigned i = 0; i < t->used; i++) {
        const struct worker *w = &t->workers[i];
        uint64_t place = w->first;
        uint64_t sum = 0;

        for (uint64_t j = 0; j < w->count; j++) {
            sum += virtio_gpa(place);
            place = follow(w->world, place);
        }
        ok = ok && sum == w->sum && place == w->place;
    }
    return ok;
}

static bool one_cached(void *state, uint64_t count)
{
    struct translations *t = state;

    return one(t, &t->cached, false, count);
}

static bool one_uncached(void *state, uint64_t count)
{
    struct translations *t = state;

    return one(t, &t->uncached, false, count);
}

static bool one_baseline(void *state, uint64_t count)
{
    struct translations *t = state;

    return one(t, &t->uncached, true, count);
}

static bool both_cached(void *state, uint64_t count)
{
    struct translations *t = state;

    return both(t, &t->cached, false, count);
}

static bool both_uncached(void *state, uint64_t count)
{
    struct translations *t = state;

    return both(t, &t->uncached, false, count);
}

static bool both_baseline(void *state, uint64_t count)
{
    struct translations *t = state;

    return both(t, &t->uncached, true, count);
}

#define ROW(ROW_NAME, ROW_TEXT, SETUP, WALL, CACHED, UNCACHED, BASELINE)                           \
    {                                                                                              \
        .name = ROW_NAME, .text = ROW_TEXT, .unit = "translation", .step = VIRTIO_DEVICES,         \
        .wall = WALL, .setup = SETUP, .teardown = teardown, .side_count = 3, .ratio_count = 2,     \
        .sides = {{.name = "viommu, cached", .run = CACHED, .check = check},                       \
                  {.name = "viommu, not cached", .run = UNCACHED, .check = check},                 \
                  {.name = "GTree", .run = BASELINE, .check = check}},                             \
        .ratios = {{0, 2, RATIO_SPEEDUP, 4}, {1, 2, RATIO_SPEEDUP, 4}},                            \
    }

static const struct row rows[] = {
    ROW("virtio-translate-1k", "translations, 1,000 mappings of a page", setup_1k, false,
        one_cached, one_uncached, one_baseline),
    ROW("virtio-translate-100k", "translations, 100,000 mappings of a page", setup_100k, false,
        one_cached, one_uncached, one_baseline),
    ROW("virtio-translate-1m", "translations, 1,000,000 mappings of a page", setup_1m, false,
        one_cached, one_uncached, one_baseline),
    ROW("virtio-threads-1k", "virtio-translate-1k by two threads, in sum", setup_1k, true,
        both_cached, both_uncached, both_baseline),
    ROW("virtio-threads-1m", "virtio-translate-1m by two threads, in sum", setup_1m, true,
        both_cached, both_uncached, both_baseline),
};

const struct row_list virtio_translate_rows = {rows, sizeof(rows) / sizeof(rows[0])};
