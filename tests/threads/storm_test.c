/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Everything at once: processors of a guest that write registers against each other, a queue that
 * is filled, turned off and on, DMA, devices that come and go and answer late, memory that comes
 * and goes, windows that are pinned, asked back and left behind by their device, two threads that
 * do the unit's work, resets, states that are saved; and all that in each cache mode. Nothing
 * sensible can be expected, but that nothing crashes, hangs or races, that no holder is called
 * about a window that it has released, that afterwards, after a reset, the unit works, and that
 * every state is one that another instance can go on from.
 *
 * What the DMA threads reach is theirs alone: each has a page. Tables and queue change by atomic
 * stores.
 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define DMA_THREADS 2
#define IOVA 0x10000ull
#define QUEUE_ENTRIES 256
#define TOKENS 32
#define WINDOWS 8

/* A window of the thread that pins. */
struct held {
    struct viommu_window *window; /* NULL: none */
    struct storm *storm;
    _Atomic bool open;
    _Atomic bool asked;
};

struct storm {
    struct guest guest;
    struct crew crew;
    uint64_t entries[DMA_THREADS];
    uint64_t pages[DMA_THREADS];
    struct viommu_device *devices[DMA_THREADS];
    pthread_mutex_t lock;
    uint64_t tokens[TOKENS]; /* changes to be answered. Under the lock */
    unsigned token_count;
    _Atomic uint64_t done;
    _Atomic uint64_t saved;
    struct held held[WINDOWS];
    _Atomic uint64_t pinned;
    _Atomic uint64_t revoked;
    _Atomic unsigned numbers; /* gives each thread one */
};

static void may_fail(int result, const char *what)
{
    if (result < 0 && result != -EFAULT && result != -ENXIO && result != -EPERM) {
        guest_die("%s: %d", what, result);
    }
}

static struct random start_random(struct storm *storm)
{
    return (struct random){atomic_fetch_add(&storm->numbers, 1)};
}

static struct spec_descriptor any_descriptor(struct random *random)
{
    uint64_t word = random_u64(random);

    switch (random_below(random, 6)) {
    case 0:
        return spec_context_invalidate(1 + word % 3, word >> 8 & 3, 8, word >> 16 & 3);
    case 1:
        return spec_iotlb_invalidate(1 + word % 3, word >> 8 & 3, IOVA, word >> 16 & 15, false);
    case 2:
        if (!(word & 0x38)) { /* takes its time */
            return spec_device_tlb_invalidate(0x0100, IOVA, word & 7);
        }
        return spec_iotlb_invalidate(SPEC_DOMAIN, 1, 0, 0, false);
    case 3:
        return spec_interrupt_cache_invalidate(word & 1, 0, 0);
    case 4:
        if (!(word & 63)) { /* it stops the queue: seldom */
            return (struct spec_descriptor){word >> 8, 0};
        }
        return spec_context_invalidate(SPEC_GLOBAL, 0, 0, 0);
    default:
        return spec_wait((unsigned)(word & 0x70), 0, (uint32_t)word); /* status to page 0 */
    }
}

/* A processor of the guest. */
static void *poke(void *arg)
{
    static const uint16_t offsets[] = {0x18, 0x20, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x80,
                                       0x88, 0x9c, 0xa0, 0xa4, 0xa8, 0xb0, 0x00, 0x08};
    struct storm *storm = arg;
    struct guest *guest = &storm->guest;
    struct random random = start_random(storm);

    while (crew_working(&storm->crew)) {
        uint64_t value = random_u64(&random);
        unsigned slot = random_below(&random, QUEUE_ENTRIES);
        struct spec_descriptor descriptor = any_descriptor(&random);

        switch (random_below(&random, 12)) {
        case 0:
            guest_write(guest, SPEC_GCMD, 4,
                        (value & 3 ? SPEC_TE : 0) | (value & 12 ? SPEC_QIE : 0) |
                            (value & 16 ? SPEC_SRTP : 0));
            break;
        case 1:
            guest_write(guest, SPEC_RTADDR, 8, guest->root);
            guest_write(guest, SPEC_IQA, 8, guest->queue);
            break;
        case 2:
        case 3:
            guest_store(guest, guest->queue + slot * 16 + 8, descriptor.hi);
            guest_store(guest, guest->queue + slot * 16, descriptor.lo);
            break;
        case 4:
            guest_write(guest, SPEC_IQT, 8, slot * 16);
            break;
        case 5:
            guest_write(guest, SPEC_FSTS, 4, 0x71);
            guest_write(guest, guest->fault_offset + 16 * (value & 7) + 12, 4, 1u << 31);
            break;
        case 6:
            guest_write(guest, SPEC_CCMD, 8, 1ull << 63 | (value & 3) << 61 | 8u << 16 | 1);
            break;
        case 7:
            guest_write(guest, guest->iotlb_offset, 8, IOVA | (value & 3));
            guest_write(guest, guest->iotlb_offset + 8, 8,
                        1ull << 63 | (value & 3) << 60 | 1ull << 32);
            break;
        case 8: {
            unsigned page = value % DMA_THREADS;

            guest_store(guest, storm->entries[page], storm->pages[page] | (value >> 8 & 3));
            break;
        }
        case 9:
            guest_write(guest, offsets[value % 17], 1 + (value >> 8 & 7), value >> 16 & 0xff);
            break;
        default:
            guest_read(guest, offsets[value % 17], 1 + (value >> 8 & 7));
            guest_read(guest, guest->fault_offset + (value >> 16 & 0x7f), 8);
            break;
        }
    }
    return NULL;
}

static void *dma(void *arg)
{
    struct storm *storm = arg;
    struct random random = start_random(storm);
    unsigned number = (unsigned)random.state % DMA_THREADS;
    uint64_t iova = IOVA + number * GUEST_PAGE;

    while (crew_working(&storm->crew)) {
        struct viommu_translation translation;
        uint8_t buf[64] = {0};
        int result;

        if (random_percent(&random, 40)) {
            result = viommu_device_write(storm->devices[number], NULL, iova, buf, sizeof(buf));
        } else if (random_percent(&random, 60)) {
            result = viommu_device_read(storm->devices[number], NULL, iova, buf, sizeof(buf));
        } else {
            guest_ok(viommu_dma_begin(storm->guest.iommu), "section");
            result = viommu_device_translate(storm->devices[number], NULL, iova, VIOMMU_READ,
                                             &translation);
            viommu_dma_end(storm->guest.iommu);
        }
        may_fail(result, "DMA");
        if (!result) {
            atomic_fetch_add_explicit(&storm->done, 1, memory_order_relaxed);
        }
    }
    return NULL;
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct storm *storm = opaque;
    int answer = 0;

    pthread_mutex_lock(&storm->lock);
    if (storm->token_count < TOKENS && change->token % 3) {
        storm->tokens[storm->token_count++] = change->token;
        answer = VIOMMU_PENDING;
    }
    pthread_mutex_unlock(&storm->lock);
    return answer;
}

static void answer_one(struct storm *storm)
{
    uint64_t token = 0;
    int result;

    pthread_mutex_lock(&storm->lock);
    if (storm->token_count) {
        token = storm->tokens[--storm->token_count];
    }
    pthread_mutex_unlock(&storm->lock);
    if (token) {
        result = viommu_change_complete(storm->guest.iommu, token, 0);
        if (result && result != -ENOENT) {
            guest_die("complete: %d", result);
        }
    }
}

/* Devices with device-TLBs come and go, and answer. */
static void *churn(void *arg)
{
    struct storm *storm = arg;
    struct random random = start_random(storm);
    struct viommu_device_config config = {.requester = 0x0100, .ats = true};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .change = on_change,
        .opaque = storm,
    };

    while (crew_working(&storm->crew)) {
        struct viommu_subscriber *subscriber;
        struct viommu_ats_entry entry;
        struct viommu_device *device;

        guest_ok(viommu_device_add(storm->guest.iommu, &config, &device), "add");
        guest_ok(viommu_device_subscribe(device, &what, &subscriber), "subscribe");
        for (unsigned i = random_below(&random, 200); i; i--) {
            answer_one(storm);
            may_fail(viommu_device_ats_translate(device, NULL, IOVA, GUEST_PAGE, false, &entry, 1),
                     "ATS");
        }
        if (random_percent(&random, 50)) {
            guest_ok(viommu_device_reset(device), "device reset");
            guest_ok(viommu_subscriber_destroy(subscriber), "unsubscribe");
        }
        guest_ok(viommu_device_remove(device), "remove");
    }
    return NULL;
}

static void on_revoke(void *opaque)
{
    struct held *held = opaque;

    atomic_store(&held->asked, true);
    atomic_fetch_add(&held->storm->revoked, 1);
    crew_sleep(30); /* others reset and release meanwhile */
    if (!atomic_load(&held->open)) {
        guest_die("a holder is asked for a window that it has released");
    }
}

static int on_fence(void *opaque)
{
    on_revoke(opaque);
    return 0;
}

static void pin(struct storm *storm, struct viommu_device *device, struct held *held)
{
    struct viommu_range range = {IOVA, IOVA + DMA_THREADS * GUEST_PAGE - 1};
    struct viommu_window_request request = {
        .ranges = &range,
        .count = 1,
        .perm = VIOMMU_READ,
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = held,
    };
    struct iovec iov[DMA_THREADS];
    size_t count = DMA_THREADS;
    int result;

    held->storm = storm;
    atomic_store(&held->asked, false);
    atomic_store(&held->open, true);
    result = viommu_device_pin(device, NULL, &request, iov, &count, &held->window);
    may_fail(result, "pin");
    atomic_fetch_add(&storm->pinned, !result);
}

static void release(struct held *held)
{
    viommu_window_release(held->window);
    held->window = NULL;
    atomic_store(&held->open, false);
}

/* Windows of a device that comes and goes; they stay for a while when it is gone. */
static void *hold(void *arg)
{
    struct storm *storm = arg;
    struct random random = start_random(storm);
    struct viommu_device_config config = {.requester = 8 + DMA_THREADS};
    struct viommu_device *device;

    guest_ok(viommu_device_add(storm->guest.iommu, &config, &device), "add");
    while (crew_working(&storm->crew)) {
        struct held *held = &storm->held[random_below(&random, WINDOWS)];

        if (!held->window) {
            pin(storm, device, held);
        } else if (random_percent(&random, atomic_load(&held->asked) ? 20 : 1)) {
            release(held);
        }
        if (random_percent(&random, 5)) {
            crew_sleep(20);
            guest_ok(viommu_device_reset(device), "device reset");
        }
        if (!random_below(&random, 2000)) {
            guest_ok(viommu_device_remove(device), "remove");
            guest_ok(viommu_device_add(storm->guest.iommu, &config, &device), "add");
        }
    }
    for (unsigned i = 0; i < WINDOWS; i++) {
        release(&storm->held[i]);
    }
    return NULL;
}

/* Memory that nobody uses comes and goes: every access meets other snapshots. */
static void *replug(void *arg)
{
    static uint8_t extra[GUEST_PAGE] __attribute__((aligned(4096)));
    struct storm *storm = arg;
    struct viommu_memory *memory = storm->guest.memory;
    struct viommu_memory_slot slot = {
        .first = 0x80000000,
        .last = 0x80000fff,
        .host = extra,
        .fd = -1,
    };
    bool there = false;

    while (crew_working(&storm->crew) || there) {
        struct viommu_memory_batch *batch;
        int result;

        guest_ok(viommu_memory_batch_begin(memory, &batch), "batch");
        if (there) {
            guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "remove");
        } else {
            guest_ok(viommu_memory_batch_add(batch, &slot), "add");
        }
        result = viommu_memory_batch_commit(batch, NULL, NULL);
        if (result < 0) {
            guest_die("commit: %d", result);
        }
        while (viommu_memory_process(memory) == VIOMMU_PENDING) {
            crew_sleep(1);
        }
        there = !there;
        crew_sleep(50);
    }
    return NULL;
}

static void *reset(void *arg)
{
    struct storm *storm = arg;
    struct viommu_stats stats;

    while (crew_working(&storm->crew)) {
        crew_sleep(20000);
        guest_ok(viommu_reset(storm->guest.iommu), "reset");
        for (unsigned i = 0; i < DMA_THREADS; i++) {
            guest_ok(viommu_device_reset(storm->devices[i]), "device reset");
        }
        guest_ok(viommu_stats_get(storm->guest.iommu, &stats, sizeof(stats)), "statistics");
    }
    return NULL;
}

/* How many devices a state has: the second number of its first section. */
static unsigned devices_of(const uint8_t *state)
{
    return state[60] | state[61] << 8u;
}

/*
 * Whenever a state is saved another instance makes sense of it: it is refused at the end only, when
 * it comes to the devices, which are not those.
 */
static void *save(void *arg)
{
    struct storm *storm = arg;

    while (crew_working(&storm->crew)) {
        struct viommu *second;
        void *data;
        size_t size;
        int result;

        guest_ok(viommu_save(storm->guest.iommu, &data, &size), "save");
        guest_ok(guest_second(&storm->guest, &second), "second instance");
        for (unsigned i = 0; i < devices_of(data); i++) {
            struct viommu_device_config config = {.requester = (uint16_t)(0x4000 + i)};
            struct viommu_device *device;

            guest_ok(viommu_device_add(second, &config, &device), "device of the second");
        }
        result = viommu_load(second, data, size);
        if (result != -ENODEV) {
            guest_die("a state that was saved is refused: %d", result);
        }
        viommu_destroy(second);
        viommu_save_free(data);
        atomic_fetch_add_explicit(&storm->saved, 1, memory_order_relaxed);
        crew_sleep(500);
    }
    return NULL;
}

static void prepare(struct storm *storm, enum viommu_cache_mode mode)
{
    struct guest *guest = &storm->guest;
    struct guest_config config = {
        .vtd = {.device_tlb = true},
        .iotlb_entries = 256,
        .ack_timeout_ms = 5,
        .cache_mode = mode,
    };
    uint64_t table;

    pthread_mutex_init(&storm->lock, NULL);
    guest_ok(guest_init(guest, &config), "guest");
    table = guest_page(guest);
    guest_set_root(guest);
    for (unsigned i = 0; i < DMA_THREADS; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        storm->pages[i] = guest_page(guest);
        storm->entries[i] =
            guest_map(guest, table, 4, IOVA + i * GUEST_PAGE, storm->pages[i], 1, 3);
        guest_ok(viommu_device_add(guest->iommu, &device, &storm->devices[i]), "device");
        guest_attach(guest, device.requester, 1, table, 4, SPEC_TT_UNTRANSLATED);
    }
    guest_attach(guest, 8 + DMA_THREADS, 1, table, 4, SPEC_TT_UNTRANSLATED);
    guest_attach(guest, 0x0100, 2, table, 4, SPEC_TT_ALL);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

/* After a reset everything is as on the first day. */
static void check_works(struct storm *storm)
{
    struct guest *guest = &storm->guest;
    uint64_t value = 0x1234;
    uint64_t back = 0;

    guest_ok(viommu_reset(guest->iommu), "reset");
    guest_process(guest);
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
    for (unsigned i = 0; i < DMA_THREADS; i++) {
        guest_store(guest, storm->entries[i], storm->pages[i] | 3);
        guest_queue_put(guest, spec_iotlb_invalidate(SPEC_GLOBAL, 0, 0, 0, false));
        guest_queue_wait(guest);
        guest_ok(viommu_device_write(storm->devices[i], NULL, IOVA + i * GUEST_PAGE, &value, 8),
                 "write after the storm");
        guest_ok(viommu_device_read(storm->devices[i], NULL, IOVA + i * GUEST_PAGE, &back, 8),
                 "read after the storm");
    }
    if (back != value) {
        guest_die("read %#llx after the storm", (unsigned long long)back);
    }
}

static bool shows_something(struct storm *storm)
{
    return storm->done && storm->pinned && storm->revoked;
}

static void run(enum viommu_cache_mode mode)
{
    static struct storm storm;
    struct crew_processor processor = {&storm.crew, &storm.guest, 7, 0};
    struct viommu_stats stats;
    struct crew_time time;

    memset(&storm, 0, sizeof(storm));
    prepare(&storm, mode);
    for (unsigned i = 0; i < DMA_THREADS; i++) {
        crew_start(&storm.crew, dma, &storm); /* the first threads have numbers from 0 */
        while (atomic_load(&storm.numbers) <= i) {
            crew_sleep(10);
        }
    }
    crew_start(&storm.crew, poke, &storm);
    crew_start(&storm.crew, poke, &storm);
    crew_start(&storm.crew, crew_process, &processor);
    crew_start(&storm.crew, crew_process, &processor);
    crew_start(&storm.crew, churn, &storm);
    crew_start(&storm.crew, hold, &storm);
    crew_start(&storm.crew, replug, &storm);
    crew_start(&storm.crew, reset, &storm);
    crew_start(&storm.crew, save, &storm);
    time = crew_begin();
    while (crew_more(&time, shows_something(&storm))) {
        crew_sleep(10000);
    }
    crew_stop(&storm.crew);
    check_works(&storm);
    guest_ok(viommu_stats_get(storm.guest.iommu, &stats, sizeof(stats)), "statistics");
    printf(
        "storm: %llu accesses, %llu refused, %llu waits, %llu queue errors, %llu timed out, %llu "
        "states, %llu windows, %llu asked back\n",
        (unsigned long long)storm.done, (unsigned long long)stats.refused,
        (unsigned long long)stats.waits_completed, (unsigned long long)stats.queue_errors,
        (unsigned long long)stats.acks_timed_out, (unsigned long long)storm.saved,
        (unsigned long long)storm.pinned, (unsigned long long)storm.revoked);
    if (!shows_something(&storm)) {
        guest_die("no access was done, or nothing pinned and asked back: the test shows nothing");
    }
    guest_fini(&storm.guest);
}

int main(void)
{
    run(VIOMMU_CACHE_NORMAL);
    run(VIOMMU_CACHE_FAITHFUL);
    run(VIOMMU_CACHE_HOSTILE);
    printf("storm: ok\n");
    return 0;
}
