/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A watcher that comes and goes while devices do DMA and a guest invalidates: it is told one thing
 * at a time, in order, and nothing any more once it was taken away.
 */
#include "crew.h"

#include <errno.h>
#include <stdio.h>

#define DEVICES 3
#define PAGES 64
#define IOVA 0x100000ull

struct watch {
    struct guest guest;
    struct crew crew;
    struct viommu_device *devices[DEVICES];
    bool watching;    /* plain: only the instance's lock orders what is told */
    uint64_t last;    /* the index told last */
    uint64_t told[VIOMMU_OBSERVED_EVENT + 1];
};

struct worker {
    struct watch *watch;
    unsigned number;
};

static void observe(void *opaque, const struct viommu_observation *observation)
{
    struct watch *watch = opaque;

    if (!watch->watching) {
        guest_die("a watcher was told after it had been taken away");
    }
    if (observation->index != ++watch->last) {
        guest_die("observation %llu came after %llu", (unsigned long long)observation->index,
                  (unsigned long long)watch->last - 1);
    }
    watch->told[observation->kind]++;
}

/* Misses and faults, as many as it can: every second page is not mapped. */
static void *work(void *arg)
{
    struct worker *worker = arg;
    struct watch *watch = worker->watch;
    struct random random = {worker->number};

    while (crew_working(&watch->crew)) {
        uint64_t page = random_below(&random, 2 * PAGES);
        uint64_t value;
        int error = viommu_device_read(watch->devices[worker->number], NULL,
                                       IOVA + page * GUEST_PAGE, &value, sizeof(value));

        if (error != (page < PAGES ? 0 : -EFAULT)) {
            guest_die("DMA: %d", error);
        }
    }
    return NULL;
}

static void prepare(struct watch *watch)
{
    struct guest *guest = &watch->guest;
    struct guest_config config = {.iotlb_entries = 256};
    uint64_t table;

    guest_ok(guest_init(guest, &config), "guest");
    table = guest_page(guest);
    for (unsigned i = 0; i < PAGES; i++) {
        guest_map(guest, table, 3, IOVA + i * GUEST_PAGE, 0x1000, 1, SPEC_R);
    }
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(i * 8)};

        guest_ok(viommu_device_add(guest->iommu, &device, &watch->devices[i]), "device");
        guest_attach(guest, device.requester, 1, table, 3, SPEC_TT_UNTRANSLATED);
    }
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

/* What was told, before and after the watcher is set, is only looked at by this thread. */
static void set_watcher(struct watch *watch, bool on)
{
    struct viommu_watcher watcher = {.observe = observe, .opaque = watch};

    if (on) {
        watch->last = 0;
        watch->watching = true;
    }
    guest_ok(viommu_watch(watch->guest.iommu, on ? &watcher : NULL), "watch");
    if (!on) {
        watch->watching = false;
    }
}

/* While nobody watches. */
static bool shows_something(const struct watch *watch)
{
    return watch->told[VIOMMU_OBSERVED_MISS] && watch->told[VIOMMU_OBSERVED_FAULT];
}

int main(void)
{
    static struct watch watch;
    struct worker workers[DEVICES];
    struct crew_time time;
    unsigned rounds = 0;

    prepare(&watch);
    for (unsigned i = 0; i < DEVICES; i++) {
        workers[i] = (struct worker){&watch, i};
        crew_start(&watch.crew, work, &workers[i]);
    }
    time = crew_begin();
    while (crew_more(&time, shows_something(&watch))) {
        set_watcher(&watch, true);
        guest_queue_put(&watch.guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_wait(&watch.guest);
        crew_sleep(100);
        set_watcher(&watch, false);
        guest_queue_put(&watch.guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_wait(&watch.guest);
        rounds++;
    }
    crew_stop(&watch.crew);
    printf("watch: %u rounds, %llu misses, %llu faults told\n", rounds,
           (unsigned long long)watch.told[VIOMMU_OBSERVED_MISS],
           (unsigned long long)watch.told[VIOMMU_OBSERVED_FAULT]);
    if (watch.told[VIOMMU_OBSERVED_RETIRED] != 2ull * rounds || !shows_something(&watch)) {
        guest_die("the test shows nothing");
    }
    guest_fini(&watch.guest);
    printf("watch: ok\n");
    return 0;
}
