/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device with a device-TLB: it keeps translations, uses them in translated requests, and drops
 * them when told, some time later and from another thread. The wait descriptor waits for that;
 * afterwards the page is the guest's. The unit's work is done by a thread that waits for the event
 * fd.
 */
#include "crew.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define PAGES 4
#define REQUESTER 0x0010
#define DOMAIN 3
#define FIRST_IOVA 0x80000000ull
#define POISON 0xa5

struct unit {
    struct guest guest;
    struct crew crew;
    struct viommu_device *device;
    uint64_t pages[PAGES];
    uint64_t entries[PAGES];

    pthread_mutex_t lock;
    struct viommu_ats_entry cached[PAGES]; /* perm 0: not cached. Under the lock */
    struct viommu_change change;           /* what the device was told. Under the lock */
    bool told;
    _Atomic uint64_t accesses;
};

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct unit *unit = opaque;

    pthread_mutex_lock(&unit->lock);
    if (unit->told) {
        guest_die("a second change, while the guest has one invalidation at a time");
    }
    unit->change = *change;
    unit->told = true;
    pthread_mutex_unlock(&unit->lock);
    return VIOMMU_PENDING;
}

/* Drops what it was told to, and says so. */
static void *drop(void *arg)
{
    struct unit *unit = arg;

    while (crew_working(&unit->crew)) {
        uint64_t token = 0;

        pthread_mutex_lock(&unit->lock);
        if (unit->told) {
            for (unsigned i = 0; i < PAGES; i++) {
                uint64_t iova = FIRST_IOVA + i * GUEST_PAGE;

                if (iova <= unit->change.last && iova + GUEST_PAGE - 1 >= unit->change.first) {
                    unit->cached[i].perm = 0;
                }
            }
            token = unit->change.token;
            unit->told = false;
        }
        pthread_mutex_unlock(&unit->lock);
        if (token) {
            guest_ok(viommu_change_complete(unit->guest.iommu, token, 0), "complete");
        }
        crew_sleep(10);
    }
    return NULL;
}

static void *work(void *arg)
{
    struct unit *unit = arg;
    struct random random = {5};

    while (crew_working(&unit->crew)) {
        struct viommu_dma_attrs attrs = {.type = VIOMMU_DMA_TRANSLATED};
        unsigned page = random_below(&random, PAGES);
        struct viommu_ats_entry *entry = &unit->cached[page];
        uint8_t buf[32];
        int result;

        pthread_mutex_lock(&unit->lock);
        if (!entry->perm) {
            result = viommu_device_ats_translate(unit->device, NULL,
                                                 FIRST_IOVA + page * GUEST_PAGE, GUEST_PAGE,
                                                 false, entry, 1);
            if (result != 1) {
                guest_die("ATS request: %d", result);
            }
        }
        if (entry->perm & VIOMMU_READ) {
            guest_ok(viommu_device_read(unit->device, &attrs, entry->gpa, buf, sizeof(buf)),
                     "translated read");
            for (unsigned i = 0; i < sizeof(buf); i++) {
                if (buf[i] == POISON) {
                    guest_die("a device read by a translation that had been invalidated");
                }
            }
            memset(buf, 2, sizeof(buf));
            guest_ok(viommu_device_write(unit->device, &attrs, entry->gpa, buf, sizeof(buf)),
                     "translated write");
            atomic_fetch_add_explicit(&unit->accesses, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&unit->lock);
        crew_sleep(1);
    }
    return NULL;
}

static void prepare(struct unit *unit)
{
    struct guest *guest = &unit->guest;
    struct guest_config config = {.vtd = {.device_tlb = true}, .ack_timeout_ms = 20000};
    struct viommu_device_config device = {.requester = REQUESTER, .ats = true};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .change = on_change,
        .opaque = unit,
    };
    struct viommu_subscriber *subscriber;
    uint64_t table;

    pthread_mutex_init(&unit->lock, NULL);
    guest_ok(guest_init(guest, &config), "guest");
    table = crew_pages(guest, PAGES, FIRST_IOVA, unit->pages, unit->entries);
    guest_ok(viommu_device_add(guest->iommu, &device, &unit->device), "device");
    guest_ok(viommu_device_subscribe(unit->device, &what, &subscriber), "subscribe");
    guest_attach(guest, REQUESTER, DOMAIN, table, 4, SPEC_TT_ALL);
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

static void one_round(struct unit *unit, struct random *random)
{
    unsigned page = random_below(random, PAGES);
    uint64_t iova = FIRST_IOVA + page * GUEST_PAGE;
    uint8_t *host = guest_host(&unit->guest, unit->pages[page]);
    unsigned order = random_below(random, 3);

    memset(host, 1, GUEST_PAGE);
    guest_store(&unit->guest, unit->entries[page], unit->pages[page] | 3);
    crew_sleep(random_below(random, 300));
    guest_store(&unit->guest, unit->entries[page], 0);
    guest_queue_put(&unit->guest, spec_iotlb_invalidate(SPEC_SELECTIVE, DOMAIN, iova, 0, false));
    guest_queue_put(&unit->guest, spec_device_tlb_invalidate(REQUESTER, iova, order));
    guest_queue_wait(&unit->guest);
    memset(host, POISON, GUEST_PAGE);
    crew_sleep(random_below(random, 50));
    crew_check_page(host, POISON, "a device wrote by a translation that had been invalidated");
}

int main(void)
{
    static struct unit unit;
    struct random random = {1};
    struct crew_processor processor = {&unit.crew, &unit.guest, 1, 0};
    struct crew_time time;
    struct pollfd poll_fd;
    unsigned rounds = 0;

    prepare(&unit);
    unit.guest.processed_elsewhere = true;
    crew_start(&unit.crew, crew_process, &processor);
    crew_start(&unit.crew, drop, &unit);
    crew_start(&unit.crew, work, &unit);
    time = crew_begin();
    while (crew_more(&time, unit.accesses)) {
        one_round(&unit, &random);
        rounds++;
    }
    crew_stop(&unit.crew);
    unit.guest.processed_elsewhere = false;
    guest_process(&unit.guest);
    poll_fd = (struct pollfd){.fd = viommu_event_fd(unit.guest.iommu), .events = POLLIN};
    if (poll(&poll_fd, 1, 0) != 0) {
        guest_die("the event fd is readable though there is no work");
    }
    printf("device-TLB: %u rounds, %llu accesses, %llu calls of viommu_process\n", rounds,
           (unsigned long long)unit.accesses, (unsigned long long)processor.rounds);
    if (!unit.accesses || processor.rounds > rounds * 100ull + 1000) {
        guest_die("no access, or the event fd is readable for nothing");
    }
    guest_fini(&unit.guest);
    printf("device-TLB: ok\n");
    return 0;
}
