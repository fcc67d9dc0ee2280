/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page is never touched once an invalidation of its translation has completed.
 *
 * Device threads read, write and translate without pause. A guest's driver unmaps a page (or takes
 * its write permission, or the device's whole context), invalidates in one of many ways, waits for
 * the completion, and then uses the page for itself: fills it with a poison, and looks whether
 * anybody writes into it or reads the poison. The page's bytes are shared between the driver and
 * each device thread alone (each thread has its own part of the page), by ordinary loads and
 * stores: whatever the library leaves unordered is a data race that ThreadSanitizer sees.
 *
 * The same with a faithful and with a hostile cache.
 *
 * A third of the accesses are made by the device itself through the pointer that a translation
 * gave, inside a section, slowly.
 */
#include "crew.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define DEVICES 3
#define PAGES 6
#define PART 512u /* bytes of a page that a device thread has */
#define DOMAIN 7
#define POISON 0xa5
#define CLEAN 0x11

/* How the driver invalidates. */
enum way {
    WAY_PAGE,
    WAY_BLOCK, /* page-selective with an address mask */
    WAY_DOMAIN,
    WAY_GLOBAL,
    WAYS,
};

struct revoke {
    struct guest guest;
    struct crew crew;
    struct viommu_device *devices[DEVICES];
    uint64_t table;
    uint64_t entries[PAGES]; /* guest addresses of the leaf entries */
    uint64_t pages[PAGES];
    bool mapped[PAGES];
    bool queue;
    _Atomic uint64_t accesses;
    _Atomic uint64_t refused;
};

struct worker {
    struct revoke *revoke;
    unsigned number;
    struct random random;
};

static uint64_t iova_of(unsigned page)
{
    return 0x40000000 + page * GUEST_PAGE;
}

static void check_read(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == POISON) {
            guest_die("a device read a page after its invalidation had completed");
        }
    }
}

/* The device uses a translation by itself, and takes its time. */
static int access_directly(struct revoke *revoke, struct worker *worker, uint64_t iova, bool write)
{
    struct viommu_translation translation;
    uint8_t buf[64];
    int error;

    guest_ok(viommu_dma_begin(revoke->guest.iommu), "section");
    error = viommu_device_translate(revoke->devices[worker->number], NULL, iova,
                                    write ? VIOMMU_WRITE : VIOMMU_READ, &translation);
    if (!error) {
        uint8_t *host = revoke->guest.ram + translation.gpa;

        for (unsigned i = random_below(&worker->random, 300); i; i--) {
            atomic_signal_fence(memory_order_seq_cst);
        }
        if (random_percent(&worker->random, 5)) {
            sched_yield();
        }
        if (write) {
            memset(host, CLEAN + 1, sizeof(buf));
        } else {
            memcpy(buf, host, sizeof(buf));
            check_read(buf, sizeof(buf));
        }
    }
    viommu_dma_end(revoke->guest.iommu);
    return error;
}

/* The same with a list of addresses, over all pages. */
static int access_list(struct revoke *revoke, struct worker *worker)
{
    uint64_t iovas[12];
    uint64_t gpas[12];
    size_t translated;
    size_t count = 1 + random_below(&worker->random, 12);
    bool write = random_percent(&worker->random, 50);
    uint8_t buf[64];
    int error;

    for (size_t i = 0; i < count; i++) {
        iovas[i] = iova_of(random_below(&worker->random, PAGES)) + worker->number * PART;
    }
    guest_ok(viommu_dma_begin(revoke->guest.iommu), "section");
    error = viommu_device_translate_many(revoke->devices[worker->number], NULL, iovas, count,
                                         write ? VIOMMU_WRITE : VIOMMU_READ, gpas, &translated);
    for (size_t i = 0; i < translated; i++) {
        uint8_t *host = revoke->guest.ram + gpas[i];

        if (write) {
            memset(host, CLEAN + 1, sizeof(buf));
        } else {
            memcpy(buf, host, sizeof(buf));
            check_read(buf, sizeof(buf));
        }
        if (random_percent(&worker->random, 5)) {
            sched_yield();
        }
    }
    viommu_dma_end(revoke->guest.iommu);
    return error;
}

static int access_by_library(struct revoke *revoke, struct worker *worker, uint64_t iova,
                             bool write)
{
    struct viommu_device *device = revoke->devices[worker->number];
    uint8_t buf[64];
    size_t len = 1 + random_below(&worker->random, sizeof(buf));
    int error;

    memset(buf, CLEAN + 2, sizeof(buf));
    if (write) {
        return viommu_device_write(device, NULL, iova, buf, len);
    }
    error = viommu_device_read(device, NULL, iova, buf, len);
    if (!error) {
        check_read(buf, len);
    }
    return error;
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct revoke *revoke = worker->revoke;

    while (crew_working(&revoke->crew)) {
        uint64_t iova = iova_of(random_below(&worker->random, PAGES)) + worker->number * PART;
        bool write = random_percent(&worker->random, 50);
        int error;

        if (random_percent(&worker->random, 33)) {
            error = access_directly(revoke, worker, iova, write);
        } else if (random_percent(&worker->random, 20)) {
            error = access_list(revoke, worker);
        } else {
            error = access_by_library(revoke, worker, iova, write);
        }
        if (error && error != -EFAULT) {
            guest_die("DMA: %d", error);
        }
        atomic_fetch_add_explicit(&revoke->accesses, 1, memory_order_relaxed);
        if (error) {
            atomic_fetch_add_explicit(&revoke->refused, 1, memory_order_relaxed);
        }
    }
    return NULL;
}

static void invalidate(struct revoke *revoke, struct random *random, unsigned page)
{
    struct guest *guest = &revoke->guest;
    enum way way = random_below(random, WAYS);
    enum spec_granularity granularity = way == WAY_GLOBAL   ? SPEC_GLOBAL
                                        : way == WAY_DOMAIN ? SPEC_DOMAIN
                                                            : SPEC_SELECTIVE;
    unsigned mask = way == WAY_BLOCK ? 3 : 0;
    uint64_t iova = iova_of(page) & ~((GUEST_PAGE << mask) - 1);

    if (revoke->queue) {
        guest_queue_put(guest, spec_iotlb_invalidate(granularity, DOMAIN, iova, mask, false));
        guest_queue_wait(guest);
    } else {
        guest_flush_iotlb(guest, granularity, DOMAIN, iova, mask);
    }
}

static void invalidate_device(struct revoke *revoke, uint16_t requester)
{
    struct guest *guest = &revoke->guest;

    if (revoke->queue) {
        guest_queue_put(guest, spec_context_invalidate(SPEC_SELECTIVE, DOMAIN, requester, 0));
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_DOMAIN, DOMAIN, 0, 0, false));
        guest_queue_wait(guest);
    } else {
        guest_flush_context(guest, SPEC_SELECTIVE, DOMAIN, requester, 0);
        guest_flush_iotlb(guest, SPEC_DOMAIN, DOMAIN, 0, 0);
    }
}

static void expect_bytes(const uint8_t *bytes, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != value) {
            guest_die("a device wrote %#x into a page after its invalidation had completed",
                      bytes[i]);
        }
    }
}

/* The page is the driver's now. */
static void use_page(struct revoke *revoke, struct random *random, unsigned page)
{
    uint8_t *host = guest_host(&revoke->guest, revoke->pages[page]);

    memset(host, POISON, GUEST_PAGE);
    if (random_percent(random, 30)) {
        crew_sleep(random_below(random, 100));
    }
    expect_bytes(host, GUEST_PAGE, POISON);
}

/* Empties the cache, so that many walks are under way when the next invalidation comes. */
static void provoke_walks(struct revoke *revoke)
{
    if (revoke->queue) {
        guest_queue_put(&revoke->guest, spec_iotlb_invalidate(SPEC_DOMAIN, DOMAIN, 0, 0, false));
        guest_queue_wait(&revoke->guest);
    }
}

static void unmap(struct revoke *revoke, struct random *random, unsigned page)
{
    if (random_percent(random, 20)) {
        provoke_walks(revoke);
    }
    guest_store(&revoke->guest, revoke->entries[page], 0);
    invalidate(revoke, random, page);
    revoke->mapped[page] = false;
    use_page(revoke, random, page);
}

static void map(struct revoke *revoke, unsigned page)
{
    memset(guest_host(&revoke->guest, revoke->pages[page]), CLEAN, GUEST_PAGE);
    guest_store(&revoke->guest, revoke->entries[page], revoke->pages[page] | SPEC_R | SPEC_W);
    revoke->mapped[page] = true;
}

/* Read-only from here on: readers may go on, writers may not. */
static void write_protect(struct revoke *revoke, struct random *random, unsigned page)
{
    uint8_t *host = guest_host(&revoke->guest, revoke->pages[page]);
    uint8_t copy[DEVICES * PART];

    guest_store(&revoke->guest, revoke->entries[page], revoke->pages[page] | SPEC_R);
    invalidate(revoke, random, page);
    memcpy(copy, host, sizeof(copy));
    crew_sleep(random_below(random, 50));
    if (memcmp(copy, host, sizeof(copy))) {
        guest_die("a device wrote into a page that was read-only");
    }
    guest_store(&revoke->guest, revoke->entries[page], revoke->pages[page] | SPEC_R | SPEC_W);
}

/* One device loses its context: its part of every page is the driver's. */
static void detach(struct revoke *revoke, struct random *random)
{
    unsigned number = random_below(random, DEVICES);
    uint16_t requester = viommu_device_requester(revoke->devices[number]);

    guest_context(&revoke->guest, requester, 0, 0);
    invalidate_device(revoke, requester);
    for (unsigned page = 0; page < PAGES; page++) {
        uint8_t *part =
            (uint8_t *)guest_host(&revoke->guest, revoke->pages[page]) + number * PART;

        memset(part, POISON, PART);
        expect_bytes(part, PART, POISON);
        memset(part, CLEAN, PART);
    }
    guest_attach(&revoke->guest, requester, DOMAIN, revoke->table, 4, SPEC_TT_UNTRANSLATED);
}

static void prepare(struct revoke *revoke, bool queue, bool caching_mode,
                    enum viommu_cache_mode mode)
{
    struct guest *guest = &revoke->guest;
    struct guest_config config = {
        .vtd = {.caching_mode = caching_mode},
        .iotlb_entries = 256,
        .cache_mode = mode,
        .cache_seed = queue,
    };

    guest_ok(guest_init(guest, &config), "guest");
    revoke->queue = queue;
    revoke->table = guest_page(guest);
    guest_set_root(guest);
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(guest->iommu, &device, &revoke->devices[i]), "device");
        guest_attach(guest, device.requester, DOMAIN, revoke->table, 4, SPEC_TT_UNTRANSLATED);
    }
    for (unsigned i = 0; i < PAGES; i++) {
        revoke->pages[i] = guest_page(guest);
        revoke->entries[i] =
            guest_map(guest, revoke->table, 4, iova_of(i), revoke->pages[i], 1, 0);
    }
    if (queue) {
        guest_queue_on(guest);
    }
    guest_command(guest, SPEC_TE, true);
}

/* Accesses are counted before those that were refused. */
static bool shows_something(struct revoke *revoke)
{
    uint64_t accesses = revoke->accesses;

    return accesses > revoke->refused;
}

static void drive(struct revoke *revoke, uint64_t seed)
{
    struct random random = {seed};
    struct crew_time time = crew_begin();
    unsigned rounds = 0;

    while (crew_more(&time, shows_something(revoke))) {
        unsigned page = random_below(&random, PAGES);

        rounds++;
        if (!revoke->mapped[page]) {
            map(revoke, page);
            if (random_percent(&random, 30)) {
                crew_sleep(20);
            }
        } else if (random_percent(&random, 15)) {
            write_protect(revoke, &random, page);
        } else if (random_percent(&random, 10)) {
            /* The driver's own pages have poison in every part: give them back first. */
            for (unsigned i = 0; i < PAGES; i++) {
                if (!revoke->mapped[i]) {
                    map(revoke, i);
                }
            }
            detach(revoke, &random);
        } else {
            unmap(revoke, &random, page);
        }
        if (rounds % 64 == 0) {
            /* Free the fault records, so that faults stay cheap and work. */
            guest_write(&revoke->guest, SPEC_FSTS, 4, SPEC_PFO);
        }
    }
    printf("%s: %u rounds, ", revoke->queue ? "queue" : "registers", rounds);
}

static void run(bool queue, bool elsewhere, bool caching_mode, enum viommu_cache_mode mode)
{
    static struct revoke revoke;
    struct worker workers[DEVICES];
    struct crew_processor processor = {&revoke.crew, &revoke.guest, 1, 0};

    memset(&revoke, 0, sizeof(revoke));
    prepare(&revoke, queue, caching_mode, mode);
    for (unsigned i = 0; i < DEVICES; i++) {
        workers[i] = (struct worker){&revoke, i, {i + 100}};
        crew_start(&revoke.crew, work, &workers[i]);
    }
    if (elsewhere) {
        revoke.guest.processed_elsewhere = true;
        crew_start(&revoke.crew, crew_process, &processor);
    }
    drive(&revoke, queue * 2 + elsewhere);
    crew_stop(&revoke.crew);
    printf("%llu accesses, %llu refused\n", (unsigned long long)revoke.accesses,
           (unsigned long long)revoke.refused);
    if (!shows_something(&revoke)) {
        guest_die("no access was allowed: the test shows nothing");
    }
    guest_fini(&revoke.guest);
}

int main(void)
{
    run(true, false, false, VIOMMU_CACHE_NORMAL);
    run(true, true, true, VIOMMU_CACHE_NORMAL);
    run(false, false, false, VIOMMU_CACHE_NORMAL);
    /* The driver does not invalidate when it maps: caching mode is not for these. */
    run(true, true, false, VIOMMU_CACHE_FAITHFUL);
    run(false, false, false, VIOMMU_CACHE_FAITHFUL);
    run(true, true, false, VIOMMU_CACHE_HOSTILE);
    run(false, false, false, VIOMMU_CACHE_HOSTILE);
    printf("revoke: ok\n");
    return 0;
}
