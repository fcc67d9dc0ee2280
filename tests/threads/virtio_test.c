/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page is never touched once the request that took it away is complete.
 *
 * Device threads read, write and translate without pause, cached and not. A driver maps pages,
 * takes them away again (by UNMAP of one or several, DETACH, ATTACH to another domain, or the field
 * `bypass`), waits for the completion, and then uses them for itself: fills them with a poison, and
 * looks whether anybody writes into them or reads the poison. Bytes are shared by ordinary loads
 * and stores: what the library leaves unordered is a data race that ThreadSanitizer sees. Another
 * thread does the instance's work.
 *
 * The same with mirrors: hardware threads access pages by what mirrors hold, as behind a host's
 * IOMMU, beside the device threads; mirrors answer late now and then.
 *
 * In the end memory has not grown: what was mapped, attached and given up a hundred thousand times
 * was freed.
 */
#include "crew.h"

#include "../support/virtio_spec.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES 3
#define PAGES 6
#define PART 512u /* bytes of a page that a device thread has */
#define POISON 0xa5
#define CLEAN 0x11
#define FIRST_PAGE 16u /* in bypass these are not reached by what devices ask for */
#define RAM_PAGES 64u

/* What a host's IOMMU would hold for a device. */
struct mirror {
    struct world *world;
    unsigned number;
    pthread_mutex_t lock; /* an access, or a change: an UNMAP waits for accesses */
    uint64_t held[PAGES]; /* guest addresses where the driver's pages lead; 0: nowhere */
    struct random random; /* of who calls `change` */
    struct viommu_change late; /* not answered yet: */
    _Atomic bool is_late;
};

struct world {
    bool mirrored;
    struct mirror mirrors[DEVICES];
    _Atomic uint64_t hardware; /* accesses */
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *devices[DEVICES];
    uint8_t *ram;
    struct crew crew;
    uint64_t sent;
    _Atomic uint64_t completed;
    bool mapped[PAGES];
    _Atomic uint64_t accesses;
    _Atomic uint64_t refused;
};

struct worker {
    struct world *world;
    unsigned number;
    struct random random;
};

static uint64_t iova_of(unsigned page)
{
    return 0x40000000 + page * GUEST_PAGE;
}

static uint8_t *host_of(struct world *world, unsigned page)
{
    return world->ram + (FIRST_PAGE + page) * GUEST_PAGE;
}

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct world *world = opaque;

    guest_ok(status, "a request that was pending");
    atomic_store(&world->completed, token);
}

/* ---- mirrors ---- */

static void mirror_apply(struct mirror *mirror, const struct viommu_change *change)
{
    pthread_mutex_lock(&mirror->lock);
    for (unsigned page = 0; page < PAGES; page++) {
        uint64_t iova = iova_of(page);

        if (iova >= change->first && iova <= change->last) {
            mirror->held[page] = change->kind == VIOMMU_CHANGE_MAP
                                     ? change->gpa + (iova - change->first)
                                     : 0;
        }
    }
    pthread_mutex_unlock(&mirror->lock);
}

static int on_change(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;

    if (random_percent(&mirror->random, 5)) {
        mirror->late = *change;
        atomic_store(&mirror->is_late, true);
        return VIOMMU_PENDING;
    }
    mirror_apply(mirror, change);
    return 0;
}

static int on_fence(void *opaque)
{
    (void)opaque;
    guest_die("a mirror was fenced");
}

/* Does and acknowledges what a mirror left for later. */
static void *answer(void *arg)
{
    struct world *world = arg;

    while (crew_working(&world->crew)) {
        for (unsigned i = 0; i < DEVICES; i++) {
            struct mirror *mirror = &world->mirrors[i];
            uint64_t token;

            if (atomic_load(&mirror->is_late)) {
                token = mirror->late.token;
                mirror_apply(mirror, &mirror->late);
                atomic_store(&mirror->is_late, false);
                guest_ok(viommu_change_complete(world->iommu, token, 0), "complete");
            }
        }
        crew_sleep(3);
    }
    return NULL;
}

/* Accesses what a mirror holds. */
static void *access_pages(void *arg)
{
    struct mirror *mirror = arg;
    struct world *world = mirror->world;
    struct random random = {mirror->number + 70};

    while (crew_working(&world->crew)) {
        unsigned page = random_below(&random, PAGES);
        uint64_t gpa;

        pthread_mutex_lock(&mirror->lock);
        gpa = mirror->held[page];
        if (gpa) {
            memset(world->ram + gpa + mirror->number * PART + PART / 2, CLEAN + 1, 64);
            atomic_fetch_add_explicit(&world->hardware, 1, memory_order_relaxed);
        }
        pthread_mutex_unlock(&mirror->lock);
        if (random_percent(&random, 10)) {
            sched_yield(); /* the lock is not fair */
        }
    }
    return NULL;
}

static void subscribe(struct world *world)
{
    for (unsigned i = 0; i < DEVICES; i++) {
        struct mirror *mirror = &world->mirrors[i];
        struct viommu_subscription what = {
            .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
            .form = i ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
            .role = VIOMMU_ROLE_MIRROR,
            .change = on_change,
            .fence = on_fence,
            .opaque = mirror,
        };
        struct viommu_subscriber *subscriber;

        mirror->world = world;
        mirror->number = i;
        mirror->random = (struct random){i + 40};
        pthread_mutex_init(&mirror->lock, NULL);
        guest_ok(viommu_device_subscribe(world->devices[i], &what, &subscriber), "subscribe");
    }
}

/* ---- devices ---- */

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;

    while (crew_working(&world->crew)) {
        uint64_t iova =
            iova_of(random_below(&worker->random, PAGES)) + worker->number * PART;
        struct viommu_device *device = world->devices[worker->number];
        bool write = random_percent(&worker->random, 50);
        struct viommu_translation out;
        uint8_t buf[64];
        int error;

        memset(buf, CLEAN + 1, sizeof(buf));
        if (random_percent(&worker->random, 40)) {
            guest_ok(viommu_dma_begin(world->iommu), "section");
            error = viommu_device_translate(device, NULL, iova, write ? VIOMMU_WRITE : VIOMMU_READ,
                                            &out);
            if (!error && out.gpa >= RAM_PAGES * GUEST_PAGE) {
                error = -ENXIO; /* bypass */
            }
            if (!error && random_percent(&worker->random, 5)) {
                sched_yield();
            }
            if (!error && write) {
                memset(world->ram + out.gpa, CLEAN + 1, sizeof(buf));
            } else if (!error) {
                memcpy(buf, world->ram + out.gpa, sizeof(buf));
            }
            viommu_dma_end(world->iommu);
        } else {
            error = write ? viommu_device_write(device, NULL, iova, buf, sizeof(buf))
                          : viommu_device_read(device, NULL, iova, buf, sizeof(buf));
        }
        /* In bypass there is no memory at these addresses. */
        if (error && error != -EFAULT && error != -ENXIO) {
            guest_die("DMA: %d", error);
        }
        for (size_t i = 0; !error && !write && i < sizeof(buf); i++) {
            if (buf[i] == POISON) {
                guest_die("a device read a page after it was taken away");
            }
        }
        atomic_fetch_add_explicit(&world->accesses, 1, memory_order_relaxed);
        if (error) {
            atomic_fetch_add_explicit(&world->refused, 1, memory_order_relaxed);
        }
    }
    return NULL;
}

/* Works when the event descriptor says so. */
static void *process(void *arg)
{
    struct world *world = arg;
    struct pollfd descriptor = {.fd = viommu_event_fd(world->iommu), .events = POLLIN};
    uint8_t fault[24];

    while (crew_working(&world->crew)) {
        (void)poll(&descriptor, 1, 1);
        while (viommu_process(world->iommu, 0) == VIOMMU_PENDING) {
        }
        while (viommu_virtio_fault(world->iommu, fault, sizeof(fault)) > 0) {
        }
    }
    return NULL;
}

static void wait_for(struct world *world, uint64_t token)
{
    for (unsigned i = 0; atomic_load(&world->completed) < token; i++) {
        if (i > 2000000) {
            guest_die("a request does not complete");
        }
        crew_sleep(5);
    }
}

/* Sends a request that succeeds, and waits until it is complete. */
static void request(struct world *world, struct spec_virtio_request request)
{
    uint8_t out[4];
    size_t written;
    int ret = viommu_virtio_request(world->iommu, request.bytes, request.size, out, sizeof(out),
                                    ++world->sent, &written);

    if (ret == VIOMMU_PENDING) {
        wait_for(world, world->sent);
    } else if (ret || written != 4 || out[0]) {
        guest_die("request %u: %d, status %u", request.bytes[0], ret, out[0]);
    }
}

static void map(struct world *world, unsigned page)
{
    memset(host_of(world, page), CLEAN, GUEST_PAGE);
    request(world, spec_virtio_map(1, iova_of(page), iova_of(page) + 0xfff,
                                   (FIRST_PAGE + page) * GUEST_PAGE, SPEC_MAP_RW));
    world->mapped[page] = true;
}

static void expect(const uint8_t *bytes, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != value) {
            guest_die("a device wrote %#x into a page after it was taken away", bytes[i]);
        }
    }
}

/* The pages are the driver's now. */
static void use(struct world *world, struct random *random, unsigned first, unsigned last)
{
    for (unsigned page = first; page <= last; page++) {
        memset(host_of(world, page), POISON, GUEST_PAGE);
        world->mapped[page] = false;
    }
    if (random_percent(random, 30)) {
        crew_sleep(random_below(random, 60));
    }
    for (unsigned page = first; page <= last; page++) {
        expect(host_of(world, page), GUEST_PAGE, POISON);
    }
}

static void unmap(struct world *world, struct random *random)
{
    unsigned first = random_below(random, PAGES);
    unsigned last = first + random_below(random, PAGES - first);

    request(world, spec_virtio_unmap(1, iova_of(first), iova_of(last) + 0xfff));
    use(world, random, first, last);
}

/* One device goes elsewhere: its part of every page is the driver's. */
static void move(struct world *world, struct random *random)
{
    unsigned device = random_below(random, DEVICES);
    bool detach = random_percent(random, 50);

    if (detach) {
        request(world, spec_virtio_detach(1, 8 + device));
    } else {
        request(world, spec_virtio_attach(2, 8 + device, random_below(random, 2)));
    }
    for (unsigned page = 0; page < PAGES; page++) {
        memset(host_of(world, page) + device * PART, POISON, PART);
        expect(host_of(world, page) + device * PART, PART, POISON);
        memset(host_of(world, page) + device * PART, CLEAN, PART);
    }
    if (random_percent(random, 30)) {
        guest_ok(viommu_mmio_write(world->iommu, SPEC_CONFIG_BYPASS, 1, random_below(random, 2)),
                 "bypass");
    }
    request(world, spec_virtio_attach(1, 8 + device, 0));
}

static void prepare(struct world *world)
{
    struct viommu_memory_slot slot = {.last = RAM_PAGES * GUEST_PAGE - 1, .fd = -1};
    /* Who answers for mirrors may be late: what that leads to is not what is tested here. */
    struct viommu_config config = {
        .opaque = world, .iotlb_entries = 256, .ack_timeout_ms = 60000};
    struct viommu_virtio_config virtio = {.completed = on_completed};
    struct viommu_memory_batch *batch;

    world->ram = aligned_alloc(GUEST_PAGE, RAM_PAGES * GUEST_PAGE);
    if (!world->ram) {
        guest_die("no memory");
    }
    memset(world->ram, CLEAN, RAM_PAGES * GUEST_PAGE);
    slot.host = world->ram;
    guest_ok(viommu_memory_create(&world->memory), "memory");
    guest_ok(viommu_memory_batch_begin(world->memory, &batch), "batch");
    guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    config.memory = world->memory;
    guest_ok(viommu_virtio_create(&config, &virtio, &world->iommu), "create");
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(world->iommu, &device, &world->devices[i]), "device");
    }
    if (world->mirrored) {
        subscribe(world);
    }
    guest_ok(viommu_start(world->iommu), "start");
    guest_ok(viommu_virtio_accept(world->iommu, viommu_virtio_features(world->iommu)), "accept");
    if (world->mirrored) {
        crew_start(&world->crew, answer, world);
    }
    crew_start(&world->crew, process, world);
    for (unsigned i = 0; i < DEVICES; i++) {
        request(world, spec_virtio_attach(1, 8 + i, 0));
    }
}

static void finish(struct world *world)
{
    crew_stop(&world->crew);
    viommu_destroy(world->iommu);
    viommu_memory_destroy(world->memory);
    free(world->ram);
    free(world);
}

static size_t memory_in_use(void)
{
    return mallinfo2().uordblks;
}

/* Each round makes and gives up a domain, a context, and mappings. */
static void storm(struct world *world, unsigned rounds)
{
    struct viommu_translation out;

    for (unsigned i = 0; i < rounds; i++) {
        request(world, spec_virtio_attach(3, 8, 0));
        for (unsigned page = 0; page < 4; page++) {
            request(world, spec_virtio_map(3, page * 2 * GUEST_PAGE, page * 2 * GUEST_PAGE + 0xfff,
                                           0, SPEC_MAP_RW));
        }
        (void)viommu_device_translate(world->devices[0], NULL, 0, VIOMMU_READ, &out);
        request(world, spec_virtio_unmap(3, 0, 0xffff));
        request(world, spec_virtio_detach(3, 8));
    }
}

static void test_storm(bool mirrored)
{
    struct world *world = calloc(1, sizeof(*world));
    size_t before;
    size_t after;

    world->mirrored = mirrored;
    prepare(world);
    storm(world, 100);
    before = memory_in_use();
    storm(world, mirrored ? 1000 : 20000);
    after = memory_in_use();
    if (after > before + 65536) {
        guest_die("memory grew from %zu to %zu bytes", before, after);
    }
    finish(world);
}

/* Accesses are counted before those that were refused. */
static bool shows_something(struct world *world, unsigned rounds)
{
    uint64_t accesses = world->accesses, refused = world->refused;

    return refused && accesses > refused && rounds >= 100 && (!world->mirrored || world->hardware);
}

static void test_revoke(bool mirrored)
{
    struct world *world = calloc(1, sizeof(*world));
    struct worker workers[DEVICES];
    struct random random = {7};
    struct crew_time time;
    unsigned rounds = 0;

    world->mirrored = mirrored;
    prepare(world);
    for (unsigned i = 0; i < DEVICES; i++) {
        workers[i] = (struct worker){world, i, {i + 1}};
        crew_start(&world->crew, work, &workers[i]);
        if (mirrored) {
            crew_start(&world->crew, access_pages, &world->mirrors[i]);
        }
    }
    time = crew_begin();
    while (crew_more(&time, shows_something(world, rounds))) {
        unsigned page = random_below(&random, PAGES);

        rounds++;
        if (!world->mapped[page]) {
            map(world, page);
            if (random_percent(&random, 30)) {
                crew_sleep(20);
            }
        } else if (random_percent(&random, 15)) {
            move(world, &random);
        } else {
            unmap(world, &random);
        }
    }
    printf("%u rounds, %llu accesses, %llu refused, %llu by mirrors\n", rounds,
           (unsigned long long)world->accesses, (unsigned long long)world->refused,
           (unsigned long long)world->hardware);
    if (!shows_something(world, rounds)) {
        guest_die("the threads did not meet");
    }
    finish(world);
}

int main(void)
{
    test_storm(false);
    test_storm(true);
    test_revoke(false);
    test_revoke(true);
    return 0;
}
