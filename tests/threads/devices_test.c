/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices that come, go, change ids and are reset while others do DMA; and faults from many threads
 * at once, which the guest's driver serves meanwhile as a kernel does.
 *
 * Each churning thread has ids of its own. Its ids lead to memory under one number and to nothing
 * under another, so that a translation kept from the old id would be seen.
 */
#include "crew.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define THREADS 4
#define IOVA 0x200000ull
#define HOLE 0x400000ull

struct churn {
    struct guest guest;
    struct crew crew;
    uint64_t pages[THREADS];
    _Atomic uint64_t rounds;
    _Atomic uint64_t refused;
    _Atomic uint64_t messages;
};

struct worker {
    struct churn *churn;
    unsigned number;
};

/* Even ids are attached, odd ones are not. */
static uint16_t good_id(unsigned number)
{
    return (uint16_t)(number << 8);
}

static uint16_t bad_id(unsigned number)
{
    return (uint16_t)(number << 8 | 1);
}

static void expect(int result, int expected, const char *what)
{
    if (result != expected) {
        guest_die("%s: %d, not %d", what, result, expected);
    }
}

static void refused(struct churn *churn, struct viommu_device *device, uint64_t iova,
                    const struct viommu_dma_attrs *attrs)
{
    uint8_t byte;

    expect(viommu_device_read(device, attrs, iova, &byte, 1), -EFAULT, "read without a mapping");
    atomic_fetch_add(&churn->refused, 1);
}

static void use(struct worker *worker, struct viommu_device *device,
                const struct viommu_dma_attrs *attrs, uint64_t value)
{
    struct churn *churn = worker->churn;
    uint64_t back = 0;

    expect(viommu_device_write(device, attrs, IOVA + worker->number * GUEST_PAGE, &value, 8), 0,
           "write");
    expect(viommu_device_read(device, attrs, IOVA + worker->number * GUEST_PAGE, &back, 8), 0,
           "read");
    if (back != value) {
        guest_die("read %#llx, wrote %#llx", (unsigned long long)back, (unsigned long long)value);
    }
    refused(churn, device, HOLE, attrs);
}

static void *churn_work(void *arg)
{
    struct worker *worker = arg;
    struct churn *churn = worker->churn;
    uint64_t round = 0;

    while (crew_working(&churn->crew)) {
        struct viommu_device_config config = {.requester = good_id(worker->number)};
        struct viommu_dma_attrs alias = {.alias = 1};
        struct viommu_device *device;

        expect(viommu_device_add(churn->guest.iommu, &config, &device), 0, "add");
        use(worker, device, NULL, ++round);
        expect(viommu_device_set_requester(device, bad_id(worker->number)), 0, "renumber");
        refused(churn, device, IOVA + worker->number * GUEST_PAGE, NULL);
        expect(viommu_device_add_alias(device, good_id(worker->number)), 1, "alias");
        use(worker, device, &alias, ++round);
        expect(viommu_device_reset(device), 0, "reset");
        if (round & 2) {
            expect(viommu_device_remove_aliases(device), 0, "remove aliases");
            expect(viommu_device_translate(device, &alias, IOVA, VIOMMU_READ,
                                           &(struct viommu_translation){0}),
                   -EINVAL, "a removed alias");
        }
        expect(viommu_device_remove(device), 0, "remove");
        atomic_fetch_add_explicit(&churn->rounds, 1, memory_order_relaxed);
    }
    return NULL;
}

static void on_interrupt(void *opaque, const struct viommu_interrupt *interrupt)
{
    struct churn *churn = opaque;

    if (!interrupt->from_unit || interrupt->data != 0x77) {
        guest_die("an interrupt that nobody programmed");
    }
    atomic_fetch_add(&churn->messages, 1);
}

/* One record, as a driver reads and clears it. Returns whether there was one. */
static bool serve_record(struct guest *guest, unsigned index)
{
    uint64_t at = guest->fault_offset + 16 * index;
    uint32_t top = (uint32_t)guest_read(guest, at + 12, 4);
    uint32_t middle;
    uint64_t address;
    unsigned reason = top & 0xff;
    unsigned function;

    if (!(top >> 31)) {
        return false;
    }
    middle = (uint32_t)guest_read(guest, at + 8, 4);
    address = guest_read(guest, at, 8);
    function = middle & 0xff;
    if ((middle & 0xffff) >> 8 >= THREADS || function > 1 ||
        reason != (function ? SPEC_CONTEXT_NOT_PRESENT : SPEC_READ) || !(top >> 30 & 1) ||
        (function == 0 && address != HOLE) ||
        (function == 1 && address != IOVA + ((middle & 0xffff) >> 8) * GUEST_PAGE)) {
        guest_die("a fault record that nobody caused: %#x %#x %#llx", top, middle,
                  (unsigned long long)address);
    }
    guest_write(guest, at + 12, 4, 1u << 31);
    return true;
}

static uint64_t serve_faults(struct guest *guest)
{
    uint32_t status = (uint32_t)guest_read(guest, SPEC_FSTS, 4);
    uint64_t served = 0;
    unsigned index = status >> 8 & 0xff;

    if (status & SPEC_PPF) {
        while (serve_record(guest, index)) {
            served++;
            index = (index + 1) % guest->fault_count;
        }
    }
    if (status & SPEC_PFO) {
        guest_write(guest, SPEC_FSTS, 4, SPEC_PFO);
    }
    return served;
}

static void prepare(struct churn *churn)
{
    struct guest *guest = &churn->guest;
    struct guest_config config = {
        .callbacks = {.interrupt = on_interrupt},
        .opaque = churn,
        .iotlb_entries = 256,
        .vtd = {.fault_records = 8},
    };

    guest_ok(guest_init(guest, &config), "guest");
    guest_set_root(guest);
    for (unsigned i = 0; i < THREADS; i++) {
        uint64_t table = guest_page(guest);

        churn->pages[i] = guest_page(guest);
        guest_map(guest, table, 4, IOVA + i * GUEST_PAGE, churn->pages[i], 1, 3);
        guest_attach(guest, good_id(i), (uint16_t)(i + 1), table, 4, SPEC_TT_UNTRANSLATED);
    }
    guest_write(guest, SPEC_FEDATA, 4, 0x77);
    guest_write(guest, SPEC_FEADDR, 4, 0xfee00000);
    guest_write(guest, SPEC_FECTL, 4, 0);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

int main(void)
{
    static struct churn churn;
    struct worker workers[THREADS];
    struct viommu_stats stats;
    struct crew_time time;
    uint64_t served = 0;
    uint64_t rounds = 0;

    prepare(&churn);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){&churn, i};
        crew_start(&churn.crew, churn_work, &workers[i]);
    }
    time = crew_begin();
    while (crew_more(&time, churn.messages)) {
        served += serve_faults(&churn.guest);
        guest_process(&churn.guest);
        if (++rounds % 16 == 0) {
            guest_queue_put(&churn.guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
            guest_queue_put(&churn.guest, spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0));
            guest_queue_wait(&churn.guest);
        }
    }
    crew_stop(&churn.crew);
    for (unsigned i = 0; i < 3; i++) {
        served += serve_faults(&churn.guest);
        guest_process(&churn.guest);
    }
    guest_ok(viommu_stats_get(churn.guest.iommu, &stats, sizeof(stats)), "stats");
    printf("devices: %llu rounds, %llu refused, %llu recorded, %llu lost, %llu served, "
           "%llu messages\n",
           (unsigned long long)churn.rounds, (unsigned long long)churn.refused,
           (unsigned long long)stats.faults_recorded, (unsigned long long)stats.faults_lost,
           (unsigned long long)served, (unsigned long long)churn.messages);
    if (stats.faults_recorded != served ||
        stats.faults_recorded + stats.faults_lost != churn.refused ||
        stats.refused != churn.refused) {
        guest_die("faults do not add up (stats.refused %llu)", (unsigned long long)stats.refused);
    }
    if (!churn.messages || guest_read(&churn.guest, SPEC_FSTS, 4) & 0xff) {
        guest_die("no fault message, or FSTS is not clear: %#llx",
                  (unsigned long long)guest_read(&churn.guest, SPEC_FSTS, 4));
    }
    guest_fini(&churn.guest);
    printf("devices: ok\n");
    return 0;
}
