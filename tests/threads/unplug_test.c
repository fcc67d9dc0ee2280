/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that is removed while devices use it: once the removal is reported complete, nobody
 * touches it. Its host memory is then made inaccessible, so that a touch ends the test.
 *
 * Two domains: in one the removed memory holds data, in the other also a page table that walks
 * read.
 */
#include "crew.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define DEVICES 3
#define EXTRA_FIRST 0x10000000ull
#define EXTRA_PAGES 16
#define DATA_IOVA 0x1000ull

struct unplug {
    struct guest guest;
    struct crew crew;
    struct viommu_device *devices[DEVICES];
    uint8_t *extra;
    _Atomic uint64_t done;
    _Atomic uint64_t missed;
    _Atomic bool completed;
};

struct worker {
    struct unplug *unplug;
    unsigned number;
};

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct unplug *unplug = worker->unplug;
    struct random random = {worker->number};

    while (crew_working(&unplug->crew)) {
        /* Each thread has its own page, so that only the library's order is tested. */
        uint64_t iova = DATA_IOVA + (worker->number + 1) * GUEST_PAGE;
        uint8_t buf[128];
        int error;

        if (random_percent(&random, 50)) {
            memset(buf, 1, sizeof(buf));
            error = viommu_device_write(unplug->devices[worker->number], NULL, iova, buf,
                                        sizeof(buf));
        } else {
            error = viommu_device_read(unplug->devices[worker->number], NULL, iova, buf,
                                       sizeof(buf));
        }
        if (!error) {
            atomic_fetch_add_explicit(&unplug->done, 1, memory_order_relaxed);
        } else if (error == -ENXIO || error == -EFAULT) {
            atomic_fetch_add_explicit(&unplug->missed, 1, memory_order_relaxed);
        } else {
            guest_die("DMA: %d", error);
        }
    }
    return NULL;
}

static void on_done(void *opaque)
{
    struct unplug *unplug = opaque;

    if (atomic_exchange(&unplug->completed, true)) {
        guest_die("a batch was reported complete twice");
    }
}

static void change(struct unplug *unplug, bool add)
{
    struct viommu_memory *memory = unplug->guest.memory;
    struct viommu_memory_batch *batch;
    struct viommu_memory_slot slot = {
        .first = EXTRA_FIRST,
        .last = EXTRA_FIRST + EXTRA_PAGES * GUEST_PAGE - 1,
        .host = unplug->extra,
        .fd = -1,
    };
    int result;

    atomic_store(&unplug->completed, false);
    guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
    if (add) {
        guest_ok(viommu_memory_batch_add(batch, &slot), "add");
    } else {
        guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "remove");
    }
    result = viommu_memory_batch_commit(batch, on_done, unplug);
    if (result == VIOMMU_PENDING) {
        for (unsigned tries = 0; viommu_memory_process(memory) == VIOMMU_PENDING; tries++) {
            viommu_process(unplug->guest.iommu, 0);
            if (tries > 2000000) {
                guest_die("a batch never completes");
            }
        }
        if (!atomic_load(&unplug->completed)) {
            guest_die("no batch is pending, but done was not called");
        }
    } else if (result || atomic_load(&unplug->completed)) {
        guest_die("commit: %d%s", result, unplug->completed ? ", and done was called" : "");
    }
}

/* The tables and data that the guest keeps in the extra memory. */
static void fill_extra(struct unplug *unplug)
{
    _Atomic uint64_t *table = (_Atomic uint64_t *)unplug->extra; /* its first page is a table */

    for (unsigned i = 0; i < DEVICES; i++) {
        atomic_store(&table[DATA_IOVA / GUEST_PAGE + 1 + i],
                     (EXTRA_FIRST + (4 + i) * GUEST_PAGE) | SPEC_R | SPEC_W);
    }
}

static void prepare(struct unplug *unplug)
{
    struct guest *guest = &unplug->guest;
    struct guest_config config = {.iotlb_entries = 256};
    uint64_t tables[2];

    guest_ok(guest_init(guest, &config), "guest");
    unplug->extra = mmap(NULL, EXTRA_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (unsigned i = 0; i < 2; i++) {
        tables[i] = guest_page(guest);
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        uint64_t iova = DATA_IOVA + (i + 1) * GUEST_PAGE;
        struct viommu_device_config device = {.requester = (uint16_t)(i * 8)};
        uint64_t slot;

        guest_map(guest, tables[0], 3, iova, EXTRA_FIRST + (1 + i) * GUEST_PAGE, 1, 3);
        slot = guest_map(guest, tables[1], 3, iova, 0, 2, 3);
        guest_store(guest, slot, EXTRA_FIRST | 3); /* its last level lies in the extra memory */
        guest_ok(viommu_device_add(guest->iommu, &device, &unplug->devices[i]), "device");
        guest_attach(guest, device.requester, (uint16_t)(1 + i % 2), tables[i % 2], 3,
                     SPEC_TT_UNTRANSLATED);
    }
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

int main(void)
{
    static struct unplug unplug;
    struct worker workers[DEVICES];
    struct crew_time time;
    unsigned rounds = 0;

    prepare(&unplug);
    for (unsigned i = 0; i < DEVICES; i++) {
        workers[i] = (struct worker){&unplug, i};
        crew_start(&unplug.crew, work, &workers[i]);
    }
    time = crew_begin();
    while (crew_more(&time, unplug.done && unplug.missed)) {
        fill_extra(&unplug);
        change(&unplug, true);
        crew_sleep(200);
        if (rounds % 4 == 0) { /* new walks */
            guest_queue_put(&unplug.guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
            guest_queue_wait(&unplug.guest);
        }
        change(&unplug, false);
        memset(unplug.extra, 0xa5, EXTRA_PAGES * GUEST_PAGE);
        mprotect(unplug.extra, EXTRA_PAGES * GUEST_PAGE, PROT_NONE);
        crew_sleep(50);
        mprotect(unplug.extra, EXTRA_PAGES * GUEST_PAGE, PROT_READ | PROT_WRITE);
        for (unsigned i = 0; i < EXTRA_PAGES * GUEST_PAGE; i++) {
            if (unplug.extra[i] != 0xa5) {
                guest_die("removed memory was written");
            }
        }
        rounds++;
    }
    crew_stop(&unplug.crew);
    printf("unplug: %u rounds, %llu accesses done, %llu missed\n", rounds,
           (unsigned long long)unplug.done, (unsigned long long)unplug.missed);
    if (!unplug.done || !unplug.missed) {
        guest_die("the test shows nothing");
    }
    guest_fini(&unplug.guest);
    munmap(unplug.extra, EXTRA_PAGES * GUEST_PAGE);
    printf("unplug: ok\n");
    return 0;
}
