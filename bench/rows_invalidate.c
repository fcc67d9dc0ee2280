/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Rows: a page-selective invalidation of one page with its drain, nothing in flight, while sixteen
 * idle threads are known to the library because they had a section once.
 *
 * From the inside out: the drain alone; what an invalidation does to the cache (drop, drain, and
 * both once more, under the lock); and the whole way through the registers, as a guest's driver
 * asks and the embedder calls: one page by register, one page by queue, and sixteen pages in one go
 * by queue. In the row `invalidate` the embedder has the event fd, which is written and read; in
 * `invalidate-woken` it is called back.
 *
 * Each side in its turn must have made the unit see a changed table entry.
 */
#include "bench.h"
#include "fence.h"
#include "world.h"

#include "iommu/iommu.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#define PAGES 4096
#define IDLE_THREADS 16
#define BATCH 16

struct invalidate {
    struct world world;
    bool called_back;
    pthread_t idle[IDLE_THREADS];
    unsigned idle_count;
    sem_t known; /* an idle thread had its section */
    sem_t leave;
    uint64_t page;    /* the next to be invalidated */
    uint64_t changed; /* the page whose entry was changed before the last run */
};

static void *idle_main(void *opaque)
{
    struct invalidate *inv = opaque;

    if (!viommu_dma_begin(inv->world.guest.iommu)) {
        viommu_dma_end(inv->world.guest.iommu);
    }
    sem_post(&inv->known);
    sem_wait(&inv->leave);
    return NULL;
}

static void teardown(void *state)
{
    struct invalidate *inv = state;

    for (unsigned i = 0; i < inv->idle_count; i++) {
        sem_post(&inv->leave);
    }
    for (unsigned i = 0; i < inv->idle_count; i++) {
        pthread_join(inv->idle[i], NULL);
    }
    sem_destroy(&inv->known);
    sem_destroy(&inv->leave);
    world_fini(&inv->world);
    free(inv);
}

static void *make(bool called_back)
{
    struct invalidate *inv = calloc(1, sizeof(*inv));

    if (!inv) {
        return NULL;
    }
    inv->called_back = called_back;
    sem_init(&inv->known, 0, 0);
    sem_init(&inv->leave, 0, 0);
    if (called_back) {
        world_init_woken(&inv->world, PAGES);
    } else {
        world_init(&inv->world, PAGES);
    }
    while (inv->idle_count < IDLE_THREADS &&
           !pthread_create(&inv->idle[inv->idle_count], NULL, idle_main, inv)) {
        inv->idle_count++;
    }
    for (unsigned i = 0; i < inv->idle_count; i++) {
        sem_wait(&inv->known);
    }
    if (inv->idle_count < IDLE_THREADS || !world_touch(&inv->world, inv->world.devices[0])) {
        teardown(inv);
        return NULL;
    }
    return inv;
}

static void *setup(bool quick)
{
    (void)quick;
    return make(false);
}

static void *setup_woken(bool quick)
{
    (void)quick;
    return make(true);
}

/* Processes, if told to: it is told by the callback before the write to the register returns. */
static void process(struct invalidate *inv)
{
    if (!inv->called_back || inv->world.woken) {
        inv->world.woken = false;
        viommu_process(inv->world.guest.iommu, 0);
    }
}

/* The iova of the next page. */
static uint64_t next_iova(struct invalidate *inv)
{
    inv->page = (inv->page + 1) % PAGES;
    return world_iova(inv->page);
}

static uint64_t gpa_seen(struct invalidate *inv, uint64_t page)
{
    struct viommu_translation t;

    if (viommu_device_translate(inv->world.devices[0], NULL, world_iova(page), VIOMMU_READ, &t)) {
        return 0;
    }
    return t.gpa;
}

/* Points the first page of the coming run elsewhere, and has the old translation cached. */
static void begin(void *state)
{
    struct invalidate *inv = state;
    uint64_t page = (inv->page + 1) % PAGES;
    uint64_t entry = world_entry(&inv->world, page); /* as it was made */

    (void)gpa_seen(inv, page);
    guest_store(&inv->world.guest, entry, (WORLD_GPA << 1) | SPEC_R | SPEC_W);
    inv->changed = page;
}

static bool check(void *state)
{
    struct invalidate *inv = state;
    uint64_t seen = gpa_seen(inv, inv->changed);

    /* As it was, and no trace of the other in the cache. */
    (void)world_entry(&inv->world, inv->changed);
    guest_flush_iotlb(&inv->world.guest, SPEC_DOMAIN, WORLD_DOMAIN, 0, 0);
    return seen == WORLD_GPA << 1;
}

static bool fence(void *state, uint64_t count)
{
    (void)state;
    return fence_run(count);
}

static bool drain_once(struct epoch *epoch)
{
    return epoch_drained(epoch, epoch_begin_drain(epoch));
}

static bool drain(void *state, uint64_t count)
{
    struct invalidate *inv = state;
    struct epoch *epoch = inv->world.guest.iommu->epoch;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = drain_once(epoch);
    }
    return ok;
}

static bool core(void *state, uint64_t count)
{
    struct invalidate *inv = state;
    struct viommu *iommu = inv->world.guest.iommu;
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        uint64_t iova = next_iova(inv);

        iommu_lock(iommu);
        (void)iotlb_drop_range(&iommu->iotlb, WORLD_DOMAIN, iova, iova | 0xfff);
        ok = drain_once(iommu->epoch);
        (void)iotlb_drop_range(&iommu->iotlb, WORLD_DOMAIN, iova, iova | 0xfff);
        ok = drain_once(iommu->epoch) && ok;
        iommu_unlock(iommu);
    }
    return ok;
}

static bool by_register(void *state, uint64_t count)
{
    struct invalidate *inv = state;
    struct viommu *iommu = inv->world.guest.iommu;
    uint64_t offset = inv->world.guest.iotlb_offset;
    uint64_t command = 1ULL << 63 | (uint64_t)SPEC_SELECTIVE << 60 | (uint64_t)WORLD_DOMAIN << 32;
    uint64_t value = 0;

    for (uint64_t i = 0; !(value >> 63) && i < count; i++) {
        viommu_mmio_write(iommu, offset, 8, next_iova(inv));
        viommu_mmio_write(iommu, offset + 8, 8, command);
        process(inv);
        viommu_mmio_read(iommu, offset + 8, 8, &value);
    }
    return !(value >> 63);
}

static void queue_on(void *state)
{
    struct invalidate *inv = state;

    begin(inv);
    guest_queue_on(&inv->world.guest);
}

static void queue_off(void *state)
{
    struct invalidate *inv = state;

    guest_queue_off(&inv->world.guest);
}

/* Invalidates so many pages with one write of the tail. Whether the head has followed. */
static bool queue_pages(struct invalidate *inv, uint64_t count)
{
    struct guest *guest = &inv->world.guest;
    uint64_t head;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t iova = next_iova(inv);

        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN, iova, 0, true));
    }
    viommu_mmio_write(guest->iommu, SPEC_IQT, 8, guest->queue_tail * 16ULL);
    process(inv);
    viommu_mmio_read(guest->iommu, SPEC_IQH, 8, &head);
    return head == guest->queue_tail * 16ULL;
}

static bool by_queue(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i++) {
        ok = queue_pages(state, 1);
    }
    return ok;
}

static bool by_queue_batched(void *state, uint64_t count)
{
    bool ok = true;

    for (uint64_t i = 0; ok && i < count; i += BATCH) {
        ok = queue_pages(state, BATCH);
    }
    return ok;
}

static const struct row rows[] = {
    {
        .name = "invalidate",
        .text = "page-selective invalidation with drain, nothing in flight, 16 idle threads",
        .unit = "page",
        .step = BATCH,
        .setup = setup,
        .teardown = teardown,
        .sides =
            {
                {.name = "drain alone", .run = drain},
                {.name = "drop, drain, drop, drain", .begin = begin, .run = core, .check = check},
                {.name = "by register", .begin = begin, .run = by_register, .check = check},
                {.name = "by queue, one page",
                 .begin = queue_on,
                 .run = by_queue,
                 .end = queue_off,
                 .check = check},
                {.name = "by queue, of 16 pages",
                 .begin = queue_on,
                 .run = by_queue_batched,
                 .end = queue_off,
                 .check = check},
                {.name = "one full fence", .run = fence},
            },
        .side_count = 6,
        .ratios =
            {
                {0, 5, RATIO_COST, 0},
                {1, 5, RATIO_COST, 40},
                {2, 5, RATIO_COST, 0},
                {3, 5, RATIO_COST, 40},
                {4, 5, RATIO_COST, 40},
            },
        .ratio_count = 5,
    },
    {
        .name = "invalidate-woken",
        .text = "the same through the unit, where a callback tells the embedder of work",
        .unit = "page",
        .step = BATCH,
        .setup = setup_woken,
        .teardown = teardown,
        .sides =
            {
                {.name = "by register", .begin = begin, .run = by_register, .check = check},
                {.name = "by queue, one page",
                 .begin = queue_on,
                 .run = by_queue,
                 .end = queue_off,
                 .check = check},
                {.name = "by queue, of 16 pages",
                 .begin = queue_on,
                 .run = by_queue_batched,
                 .end = queue_off,
                 .check = check},
                {.name = "one full fence", .run = fence},
            },
        .side_count = 4,
        .ratios =
            {
                {0, 3, RATIO_COST, 0},
                {1, 3, RATIO_COST, 40},
                {2, 3, RATIO_COST, 40},
            },
        .ratio_count = 3,
    },
};

const struct row_list invalidate_rows = {rows, sizeof(rows) / sizeof(rows[0])};
