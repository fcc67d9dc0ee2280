/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Row: cached translations while another thread makes 100,000 page-selective invalidations a second
 * of other pages of the same domain, each by queue and seen to complete; against the same
 * translations when it rests.
 *
 * The reader's sections hold 16 translations: an invalidation waits for a section under way, so the
 * sections of a device that lives with many invalidations are short.
 *
 * The other thread keeps to its rate by the clock and catches up when it was late. The rate that it
 * reached is in the note: below the one wanted the row says less than it should.
 */
#include "bench.h"
#include "measure.h"
#include "pin.h"
#include "tours.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#define PAGES 8192 /* the lower half is read, the upper half invalidated */
#define READ_PAGES (PAGES / 2)
#define SECTION 16
#define PERIOD_NS 10000

struct disturbed {
    struct world world;
    uint64_t order[READ_PAGES];
    uint64_t sum; /* of all guest addresses of the pages that are read */
    bool right;   /* the last run's sum was */
    pthread_t thread;
    bool thread_made;
    _Atomic bool active;
    _Atomic bool resting;
    _Atomic bool leave;
    uint64_t page; /* the rest is the other thread's while it is active */
    uint64_t done;
    uint64_t time;
};

/* One page, waited for. Whoever reads is not stopped by it. */
static void invalidate(struct disturbed *d)
{
    struct guest *guest = &d->world.guest;
    uint64_t iova = world_iova(READ_PAGES + d->page++ % READ_PAGES);
    uint64_t head;

    guest_queue_put(guest,
                    spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN, iova, 0, true));
    viommu_mmio_write(guest->iommu, SPEC_IQT, 8, guest->queue_tail * 16ULL);
    do {
        viommu_process(guest->iommu, 0);
        viommu_mmio_read(guest->iommu, SPEC_IQH, 8, &head);
    } while (head != guest->queue_tail * 16ULL && !atomic_load(&d->leave));
}

static void disturb(struct disturbed *d)
{
    uint64_t start = bench_now();
    uint64_t n = 0;

    while (atomic_load(&d->active)) {
        if (bench_now() - start >= n * PERIOD_NS) {
            invalidate(d);
            n++;
        }
    }
    d->done += n;
    d->time += bench_now() - start;
}

static void *disturber_main(void *opaque)
{
    struct disturbed *d = opaque;

    pin(1);
    while (!atomic_load(&d->leave)) {
        if (atomic_load(&d->active)) {
            atomic_store(&d->resting, false);
            disturb(d);
            atomic_store(&d->resting, true);
        } else {
            /* Not asleep for good: it must be there as soon as it is asked for. */
            struct timespec pause = {.tv_nsec = 100000};

            nanosleep(&pause, NULL);
        }
    }
    return NULL;
}

static void teardown(void *state)
{
    struct disturbed *d = state;

    if (d->thread_made) {
        atomic_store(&d->leave, true);
        pthread_join(d->thread, NULL);
    }
    unpin();
    world_fini(&d->world);
    free(d);
}

static void *setup(bool quick)
{
    struct disturbed *d = calloc(1, sizeof(*d));
    uint64_t page = 0;
    unsigned n = 0;

    (void)quick;
    if (!d) {
        return NULL;
    }
    pin(0);
    atomic_store(&d->resting, true);
    world_init(&d->world, PAGES);
    for (uint64_t i = 0; i < PAGES; i++) {
        if (page < READ_PAGES) {
            d->order[n++] = world_iova(page);
            d->sum += world_gpa(&d->world, page);
        }
        page = world_next(&d->world, page);
    }
    guest_queue_on(&d->world.guest);
    d->thread_made = !pthread_create(&d->thread, NULL, disturber_main, d);
    if (!d->thread_made || !world_touch(&d->world, d->world.devices[0])) {
        teardown(d);
        return NULL;
    }
    return d;
}

static void wake(void *state)
{
    struct disturbed *d = state;

    atomic_store(&d->active, true);
    while (atomic_load(&d->resting)) {
        sched_yield();
    }
}

static void rest(void *state)
{
    struct disturbed *d = state;

    atomic_store(&d->active, false);
    while (!atomic_load(&d->resting)) {
        sched_yield();
    }
}

/* Independent look-ups, as many as a section holds. */
static bool read_section(struct disturbed *d, uint64_t at, uint64_t *sum)
{
    struct viommu *iommu = d->world.guest.iommu;
    struct viommu_translation t;
    bool ok = true;

    if (viommu_dma_begin(iommu)) {
        return false;
    }
    for (unsigned i = 0; ok && i < SECTION; i++) {
        ok = !viommu_device_translate(d->world.devices[0], NULL, d->order[(at + i) % READ_PAGES],
                                      VIOMMU_READ, &t);
        *sum += t.gpa;
    }
    viommu_dma_end(iommu);
    return ok;
}

static bool run(void *state, uint64_t count)
{
    struct disturbed *d = state;
    uint64_t sum = 0;
    bool ok = true;

    for (uint64_t at = 0; ok && at < count; at += SECTION) {
        ok = read_section(d, at, &sum);
    }
    d->right = sum == d->sum * (count / READ_PAGES);
    return ok;
}

static bool check(void *state)
{
    const struct disturbed *d = state;

    return d->right;
}

static bool note(void *state, char *text, size_t size)
{
    const struct disturbed *d = state;

    snprintf(text, size, "%.0f invalidations a second were completed",
             (double)d->done * 1e9 / (double)(d->time ? d->time : 1));
    return true;
}

static const struct row rows[] = {
    {
        .name = "translate-disturbed",
        .text = "cached look-ups, 4,096 pages, while another thread invalidates other pages",
        .unit = "translation",
        .step = READ_PAGES,
        .setup = setup,
        .teardown = teardown,
        .note = note,
        .sides =
            {
                {.name = "disturbed", .begin = wake, .run = run, .end = rest, .check = check},
                {.name = "quiet", .run = run, .check = check},
            },
        .side_count = 2,
        .ratios = {{0, 1, RATIO_COST, 1.3}},
        .ratio_count = 1,
    },
};

const struct row_list disturbed_rows = {rows, 1};
