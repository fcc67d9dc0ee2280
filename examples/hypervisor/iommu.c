/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machine's IOMMU and the device. See iommu.h.
 *
 * Machine pages: 0 is left alone, then root table, context table, queue, status, and four tables
 * a space: of each level one, so a space is as large as the last one, 512 frames. Layouts: VT-d
 * specification. The driver is called by one thread; the device's thread calls nothing of it.
 */
#include "iommu.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include <viommu/viommu.h>

#include "wire.h"

enum {
    ROOT_TABLE = 1 * PAGE,
    CONTEXT_TABLE = 2 * PAGE,
    QUEUE = 3 * PAGE,
    STATUS = 4 * PAGE,
    TABLES = 8 * PAGE,
    LEVELS = 4,
    SPACES = (IOMMU_PAGES - TABLES / PAGE) / LEVELS,
    KNOWN = 64, /* device frames that the device remembers */
};

enum vtd_register {
    GCMD = 0x18,
    GSTS = 0x1c,
    RTADDR = 0x20,
    IQT = 0x88,
    IQA = 0x90,
};

#define GCMD_TRANSLATION (1u << 31)
#define GCMD_ROOT        (1u << 30)
#define GCMD_QUEUE       (1u << 26)
#define GSTS_KEPT        0x96ffffffu /* what a driver keeps of GSTS when it gives one command */

struct space {
    bool there;
    uint64_t domain;
    uint64_t top; /* its tables, the last one at `leaf` */
    uint64_t leaf;
};

static uint8_t *ram;
static struct viommu_memory *memory;
static struct viommu *unit;
static struct viommu_device *device;
static struct space spaces[SPACES];

/* ---- the unit ---- */

/* Tables are read by the device's thread while they change. */
static void store(uint64_t at, uint64_t value)
{
    __atomic_store_n((uint64_t *)(void *)(ram + at), value, __ATOMIC_RELEASE);
}

static uint64_t load(uint64_t at)
{
    return __atomic_load_n((uint64_t *)(void *)(ram + at), __ATOMIC_ACQUIRE);
}

static bool write_register(uint64_t offset, unsigned size, uint64_t value)
{
    return viommu_mmio_write(unit, offset, size, value) == 0;
}

static uint64_t read_register(uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    (void)viommu_mmio_read(unit, offset, size, &value);
    return value;
}

/* Lets the unit work until a bit of GSTS, or (0) the status word, is set. */
static bool finish(uint32_t bit)
{
    time_t end = time(NULL) + PATIENCE;

    while (time(NULL) < end) {
        (void)viommu_process(unit, 0);
        if (bit ? (read_register(GSTS, 4) & bit) != 0 : load(STATUS) == 1) {
            return true;
        }
        sched_yield(); /* the device is in the middle of a request */
    }
    return false;
}

static bool command(uint32_t bit)
{
    return write_register(GCMD, 4, (read_register(GSTS, 4) & GSTS_KEPT) | bit) && finish(bit);
}

static uint64_t queue(uint64_t tail, uint64_t low, uint64_t high)
{
    store(QUEUE + tail, low);
    store(QUEUE + tail + 8, high);
    return (tail + 16) % PAGE;
}

/* Invalidates cached translations of a domain, and (`contexts`) where all devices are; waits. */
static bool invalidate(uint64_t domain, bool contexts)
{
    uint64_t tail = read_register(IQT, 8);

    store(STATUS, 0);
    if (contexts) {
        tail = queue(tail, 0x1 | 1 << 4, 0);
    }
    tail = queue(tail, 0x2 | 2 << 4 | 1 << 6 | 1 << 7 | domain << 16, 0);
    tail = queue(tail, 0x5 | 1 << 5 | UINT64_C(1) << 32, STATUS);
    return write_register(IQT, 8, tail) && finish(0);
}

static bool make_unit(uint64_t size)
{
    const struct viommu_memory_slot slot = {.last = size - 1, .host = ram, .fd = -1};
    const struct viommu_device_config where = {.requester = viommu_requester(0, 5, 0)};
    const struct viommu_vtd_config vtd = {0};
    struct viommu_config config = {0};
    struct viommu_memory_batch *batch;

    if (viommu_memory_create(&memory) || viommu_memory_batch_begin(memory, &batch) ||
        viommu_memory_batch_add(batch, &slot) || viommu_memory_batch_commit(batch, NULL, NULL)) {
        return false;
    }
    config.memory = memory;
    return !viommu_vtd_create(&config, &vtd, &unit) && !viommu_start(unit) &&
           !viommu_device_add(unit, &where, &device);
}

bool iommu_create(uint8_t *machine, uint64_t size)
{
    ram = machine;
    if (!make_unit(size)) {
        return false;
    }
    for (uint64_t i = 0; i < SPACES; i++) {
        uint64_t top = TABLES + i * LEVELS * PAGE;

        spaces[i] = (struct space){
            .domain = i + 1, .top = top, .leaf = top + (uint64_t)(LEVELS - 1) * PAGE};
    }
    store(ROOT_TABLE, CONTEXT_TABLE | 1);
    return write_register(RTADDR, 8, ROOT_TABLE) && command(GCMD_ROOT) &&
           write_register(IQT, 8, 0) && write_register(IQA, 8, QUEUE) && command(GCMD_QUEUE) &&
           command(GCMD_TRANSLATION);
}

void iommu_destroy(void)
{
    viommu_destroy(unit);
    viommu_memory_destroy(memory);
}

/* ---- spaces ---- */

struct space *space_create(void)
{
    for (unsigned i = 0; i < SPACES; i++) {
        struct space *space = &spaces[i];

        if (!space->there) {
            space->there = true;
            memset(ram + space->top, 0, LEVELS * PAGE);
            for (uint64_t level = 0; level < LEVELS - 1; level++) {
                store(space->top + level * PAGE,
                      (space->top + (level + 1) * PAGE) | VIOMMU_READ | VIOMMU_WRITE);
            }
            return space;
        }
    }
    return NULL;
}

void space_destroy(struct space *space)
{
    space->there = false;
}

bool space_attach(struct space *space)
{
    const uint64_t entry = CONTEXT_TABLE + viommu_requester(0, 5, 0) * 16u;
    uint64_t before = load(entry + 8) >> 8;

    store(entry, 0);
    if (before && !invalidate(before, true)) {
        return false;
    }
    if (space) {
        store(entry + 8, space->domain << 8 | 2);
        store(entry, space->top | 1);
        return invalidate(space->domain, true);
    }
    return true;
}

void space_map(struct space *space, uint64_t device_frame, uint64_t machine_frame, uint32_t perm)
{
    store(space->leaf + device_frame * 8, machine_frame * PAGE | perm);
}

void space_unmap(struct space *space, uint64_t device_frame)
{
    store(space->leaf + device_frame * 8, 0);
}

bool space_flush(struct space *space)
{
    return invalidate(space->domain, false);
}

/* ---- the device ---- */

static pthread_t thread;
static bool started;
static atomic_bool stopping;
static _Atomic uint64_t rounds_done;
static _Atomic uint64_t refusals;
static uint64_t ring_at;

/* What the device knows: all device frames that were in its ring once. */
struct known {
    uint64_t device_frames[KNOWN];
    size_t count;
};

static void learn(struct known *known, uint64_t device_frame)
{
    for (size_t i = 0; i < known->count; i++) {
        if (known->device_frames[i] == device_frame) {
            return;
        }
    }
    if (known->count < KNOWN) {
        known->device_frames[known->count++] = device_frame;
    }
}

static bool read_ring(struct known *known)
{
    struct ring ring;

    if (viommu_device_read(device, NULL, ring_at * PAGE, &ring, sizeof(ring))) {
        return false;
    }
    for (uint64_t i = 0; i < ring.count && i < GUEST_PAGES; i++) {
        learn(known, ring.device_frames[i]);
    }
    return true;
}

/* Answers the guest's word in one page. */
static bool work(uint64_t device_frame, uint64_t round)
{
    uint64_t at = device_frame * PAGE;
    uint64_t word = 0;
    bool was_read = viommu_device_read(device, NULL, at + WORD_IN, &word, sizeof(word)) == 0;

    word += round;
    return viommu_device_write(device, NULL, at + WORD_OUT, &word, sizeof(word)) == 0 && was_read;
}

static void *run(void *opaque)
{
    struct known known = {.count = 0};

    (void)opaque;
    for (uint64_t round = 1; !atomic_load(&stopping); round++) {
        uint64_t refused = !read_ring(&known);

        for (size_t i = 0; i < known.count; i++) {
            refused += !work(known.device_frames[i], round);
        }
        atomic_fetch_add(&refusals, refused);
        atomic_store(&rounds_done, round);
        if (round % 64 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

bool device_start(uint64_t ring)
{
    if (started) {
        return false;
    }
    ring_at = ring;
    started = pthread_create(&thread, NULL, run, NULL) == 0;
    return started;
}

bool device_wait(uint64_t rounds)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    uint64_t target = atomic_load(&rounds_done) + rounds + 1; /* one is under way */
    time_t end = time(NULL) + PATIENCE;

    while (started && time(NULL) < end) {
        if (atomic_load(&rounds_done) >= target) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
    return false;
}

uint64_t device_refused(void)
{
    return atomic_load(&refusals);
}

void device_stop(void)
{
    if (started) {
        atomic_store(&stopping, true);
        (void)pthread_join(thread, NULL);
        started = false;
    }
}
