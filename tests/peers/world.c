/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The virtual machine of world.h.
 */
#include "world.h"

#include "virtio_spec.h"

#include <viommu/virtio.h>

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define REQUESTER 0x0010
#define HIGH_GPA 0x100000000ull
#define HIGH_OFFSET 0x100000ull /* where it begins in its file */

enum { LEVELS = 3, POISON = 0xa5, WAIT_SECONDS = 30 };

uint64_t world_now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

void world_sleep(unsigned us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000l}, NULL);
}

bool world_wait(_Atomic unsigned *counter, unsigned value)
{
    uint64_t end = world_now() + WAIT_SECONDS * 1000000000ull;

    while (atomic_load(counter) < value) {
        if (world_now() > end) {
            return false;
        }
        world_sleep(200);
    }
    return true;
}

/* ---- memory ---- */

static uint8_t *make_file(int *file, uint64_t offset, uint64_t size)
{
    void *at;

    *file = memfd_create("guest", MFD_CLOEXEC);
    if (*file < 0 || ftruncate(*file, (off_t)(offset + size))) {
        guest_die("memfd: %s", strerror(errno));
    }
    at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *file, (off_t)offset);
    if (at == MAP_FAILED) {
        guest_die("mmap: %s", strerror(errno));
    }
    return at;
}

static void add_slot(struct viommu_memory_batch *batch, uint64_t gpa, uint64_t size, void *host,
                     int fd, uint64_t offset)
{
    guest_ok(viommu_memory_batch_add(batch, &(struct viommu_memory_slot){.first = gpa,
                                                                         .last = gpa + size - 1,
                                                                         .host = host,
                                                                         .fd = fd,
                                                                         .fd_offset = offset}),
             "slot");
}

static void make_memory(struct world *world)
{
    struct viommu_memory_batch *batch;
    uint64_t low = LOW_PAGES * GUEST_PAGE;
    uint64_t high = HIGH_PAGES * GUEST_PAGE;

    world->low = make_file(&world->files[0], 0, low);
    world->high = make_file(&world->files[1], HIGH_OFFSET, high);
    guest_ok(viommu_memory_create(&world->memory), "memory");
    guest_ok(viommu_memory_batch_begin(world->memory, &batch), "batch");
    add_slot(batch, 0, low, world->low, world->files[0], 0);
    add_slot(batch, HIGH_GPA, high, world->high, world->files[1], HIGH_OFFSET);
    guest_ok(viommu_memory_batch_commit(batch, NULL, NULL), "commit");
    for (unsigned i = LOW_PAGES / 2; i < LOW_PAGES; i++) {
        world_give(world, i * GUEST_PAGE);
    }
    for (unsigned i = 0; i < HIGH_PAGES; i++) {
        world_give(world, HIGH_GPA + i * GUEST_PAGE);
    }
}

uint8_t *world_host(struct world *world, uint64_t gpa)
{
    return gpa < HIGH_GPA ? world->low + gpa : world->high + (gpa - HIGH_GPA);
}

uint64_t world_take(struct world *world)
{
    uint64_t gpa;
    const uint8_t *at;

    if (!world->spare_count) {
        guest_die("no page is left");
    }
    gpa = world->spare[--world->spare_count];
    at = world_host(world, gpa);
    for (unsigned i = 0; i < GUEST_PAGE; i++) {
        if (at[i] != POISON) {
            guest_die("byte %u of page %#llx was written after it was taken away", i,
                      (unsigned long long)gpa);
        }
    }
    return gpa;
}

/* At the other end, so that it is not used again at once. */
void world_give(struct world *world, uint64_t gpa)
{
    memset(world_host(world, gpa), POISON, GUEST_PAGE);
    memmove(world->spare + 1, world->spare, world->spare_count++ * sizeof(*world->spare));
    world->spare[0] = gpa;
}

/* ---- the guest's driver of the unit ---- */

static void on_completed(void *opaque, uint64_t token, uint8_t status)
{
    struct world *world = opaque;

    guest_ok(status, "a request that was pending");
    atomic_store(&world->completed, token);
}

static void request(struct world *world, struct spec_virtio_request request)
{
    uint64_t end = world_now() + WAIT_SECONDS * 1000000000ull;
    uint64_t token = ++world->sent;
    uint8_t out[4];
    size_t written;
    int ret = viommu_virtio_request(world->iommu, request.bytes, request.size, out, sizeof(out),
                                    token, &written);

    if (ret == VIOMMU_PENDING) {
        while (atomic_load(&world->completed) < token) {
            if (world_now() > end) {
                guest_die("a request does not complete");
            }
            sched_yield();
        }
    } else if (ret || written != 4 || out[0]) {
        guest_die("request %u: %d, status %u", request.bytes[0], ret, out[0]);
    }
}

static void map_by_request(struct world *world, unsigned page, uint64_t gpa, uint8_t perm)
{
    uint64_t iova = world_iova(page);

    ledger_change(&world->ledger, page, gpa, perm);
    if (world->pages[page].perm) {
        request(world, spec_virtio_unmap(WORLD_DOMAIN, iova, iova + GUEST_PAGE - 1));
    }
    if (perm) {
        request(world, spec_virtio_map(WORLD_DOMAIN, iova, iova + GUEST_PAGE - 1, gpa, perm));
    }
    ledger_complete(&world->ledger, page);
    world->pages[page] = (struct world_page){.gpa = gpa, .perm = perm};
}

void world_map(struct world *world, unsigned page, uint64_t gpa, uint8_t perm)
{
    if (world->is_virtio) {
        map_by_request(world, page, gpa, perm);
        return;
    }
    ledger_change(&world->ledger, page, gpa, perm);
    guest_map(&world->guest, world->table, LEVELS, world_iova(page), perm ? gpa : 0, 1, perm);
    world->pages[page] = (struct world_page){.gpa = gpa, .perm = perm, .changed = true};
}

void world_flush(struct world *world, enum flush flush)
{
    unsigned queued = 0;

    if (world->is_virtio) {
        return;
    }
    for (unsigned page = 0; page < WINDOW_PAGES && flush == FLUSH_PAGES; page++) {
        if (world->pages[page].changed) {
            guest_queue_put(&world->guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN,
                                                                 world_iova(page), 0, false));
            if (++queued % 128 == 0) { /* the queue has 256 entries */
                guest_queue_wait(&world->guest);
            }
        }
    }
    if (flush == FLUSH_DOMAIN) {
        guest_queue_put(&world->guest,
                        spec_iotlb_invalidate(SPEC_DOMAIN, WORLD_DOMAIN, 0, 0, false));
    }
    guest_queue_wait(&world->guest);
    for (unsigned page = 0; page < WINDOW_PAGES; page++) {
        if (world->pages[page].changed) {
            world->pages[page].changed = false;
            ledger_complete(&world->ledger, page);
        }
    }
}

void world_flush_anyway(struct world *world, unsigned page, unsigned count)
{
    for (unsigned i = page; i < page + count; i++) {
        guest_queue_put(&world->guest, spec_iotlb_invalidate(SPEC_SELECTIVE, WORLD_DOMAIN,
                                                             world_iova(i), 0, false));
    }
    guest_queue_wait(&world->guest);
}

uint64_t world_faults(struct world *world)
{
    struct viommu_stats stats;

    guest_ok(viommu_stats_get(world->iommu, &stats, sizeof(stats)), "stats");
    return stats.faults_recorded + stats.faults_lost;
}

/* Without a monitor: while the guest waits. */
static void work_meanwhile(void *opaque)
{
    world_work(opaque);
}

static void make_vtd(struct world *world)
{
    struct guest_config config = {
        .vtd.caching_mode = true,
        .ack_timeout_ms = TIMEOUT_MS,
        .ram_pages = LOW_PAGES / 2,
        .memory = world->memory,
        .ram = world->low,
        .opaque = world,
    };

    guest_ok(guest_init(&world->guest, &config), "guest");
    world->guest.processed_elsewhere = true;
    world->guest.meanwhile = world->bare ? work_meanwhile : NULL;
    world->guest.opaque = world;
    world->iommu = world->guest.iommu;
}

static void make_virtio(struct world *world)
{
    struct viommu_config config = {
        .memory = world->memory, .opaque = world, .ack_timeout_ms = TIMEOUT_MS};
    struct viommu_virtio_config virtio = {.completed = on_completed};

    guest_ok(viommu_virtio_create(&config, &virtio, &world->iommu), "create");
    guest_ok(viommu_start(world->iommu), "start");
    guest_ok(viommu_virtio_accept(world->iommu, viommu_virtio_features(world->iommu)), "accept");
}

/* With the monitor at work. */
static void bring_up(struct world *world)
{
    if (world->is_virtio) {
        request(world, spec_virtio_attach(WORLD_DOMAIN, REQUESTER, 0));
    } else {
        world->table = guest_page(&world->guest);
        guest_attach(&world->guest, REQUESTER, WORLD_DOMAIN, world->table, LEVELS,
                     SPEC_TT_UNTRANSLATED);
        guest_set_root(&world->guest);
        guest_queue_on(&world->guest);
        guest_command(&world->guest, SPEC_TE, true);
    }
    for (unsigned page = 0; page < RING_PAGES; page++) {
        uint64_t gpa = world_take(world);

        memset(world_host(world, gpa), 0, GUEST_PAGE);
        world_map(world, page, gpa, LEDGER_READ | LEDGER_WRITE);
    }
    world_flush(world, FLUSH_PAGES);
    for (unsigned i = 0; i < 2; i++) {
        struct net_ring *ring = &world->net.rings[i];

        ring->descriptors = world_host(world, world->pages[i * 4].gpa);
        ring->available = world_host(world, world->pages[i * 4 + 1].gpa);
        ring->used = world_host(world, world->pages[i * 4 + 2].gpa);
    }
}

/* ---- the monitor ---- */

static void start_ring(struct world *world, unsigned i)
{
    const struct net_ring *ring = &world->net.rings[i];

    guest_ok(viommu_vhost_ring_start(world->vhost, i,
                                     &(struct viommu_vhost_ring){
                                         .size = NET_RING,
                                         .descriptors = world_iova(i * 4),
                                         .available = world_iova(i * 4 + 1),
                                         .used = world_iova(i * 4 + 2),
                                         .kick = ring->kick,
                                         .call = ring->call,
                                     }),
             "ring_start");
}

/* The rings are started once; a front-end that connects again goes on with them by itself. */
static void on_ready(void *opaque)
{
    struct world *world = opaque;

    if (!world->rings_started) {
        world->rings_started = true;
        guest_ok(viommu_vhost_accept(world->vhost, viommu_vhost_features(world->vhost)), "accept");
        start_ring(world, 0);
        start_ring(world, 1);
    }
    atomic_fetch_add(&world->ready, 1);
}

static void on_failed(void *opaque, int error)
{
    struct world *world = opaque;

    atomic_store(&world->error, error);
    atomic_fetch_add(&world->failed, 1);
}

static void run_call(struct world *world)
{
    uint64_t value;

    if (read(world->bell, &value, sizeof(value)) < 0 && errno != EAGAIN) {
        guest_die("eventfd: %s", strerror(errno));
    }
    pthread_mutex_lock(&world->lock);
    if (world->call) {
        world->call(world);
        world->call = NULL;
        pthread_cond_broadcast(&world->rung);
    }
    pthread_mutex_unlock(&world->lock);
}

static void fetch_faults(struct world *world)
{
    uint8_t fault[VIOMMU_VIRTIO_FAULT_SIZE];

    while (world->is_virtio && viommu_virtio_fault(world->iommu, fault, sizeof(fault)) > 0) {
    }
}

static void work(struct world *world, int timeout_ms)
{
    struct pollfd fds[3] = {
        {.fd = world->bell, .events = POLLIN},
        {.fd = viommu_event_fd(world->iommu), .events = POLLIN},
        {.fd = world->vhost ? viommu_vhost_event_fd(world->vhost) : -1, .events = POLLIN},
    };

    if (poll(fds, 3, timeout_ms) < 0 && errno != EINTR) {
        guest_die("poll: %s", strerror(errno));
    }
    if (fds[1].revents) {
        int result = viommu_process(world->iommu, 0);

        if (result < 0) {
            guest_die("viommu_process: %d", result);
        }
        fetch_faults(world);
    }
    if (fds[2].revents) {
        (void)viommu_vhost_process(world->vhost); /* `failed` has told */
    }
}

static void *monitor(void *arg)
{
    struct world *world = arg;

    while (!world->stop) {
        work(world, -1);
        run_call(world);
    }
    return NULL;
}

void world_work(struct world *world)
{
    work(world, 1);
}

/* Has the monitor do something, and waits. */
static void have_done(struct world *world, void (*call)(struct world *world))
{
    uint64_t one = 1;

    if (world->bare) {
        call(world);
        return;
    }
    pthread_mutex_lock(&world->lock);
    world->call = call;
    if (write(world->bell, &one, sizeof(one)) != sizeof(one)) {
        guest_die("eventfd: %s", strerror(errno));
    }
    while (world->call) {
        pthread_cond_wait(&world->rung, &world->lock);
    }
    pthread_mutex_unlock(&world->lock);
}

/* ---- connections ---- */

static void create_front_end(struct world *world)
{
    struct viommu_vhost_config config = {
        .device = world->device,
        .memory = world->memory,
        .fd = world->next_fd,
        .rings = 2,
        .timeout_ms = ANSWER_MS,
        .writable_is_readable = true,
        .ready = on_ready,
        .failed = on_failed,
        .opaque = world,
    };

    guest_ok(viommu_vhost_create(&config, &world->vhost), "vhost");
}

static void reconnect(struct world *world)
{
    guest_ok(viommu_vhost_reconnect(world->vhost, world->next_fd), "reconnect");
}

static void connect_by(struct world *world, void (*call)(struct world *world))
{
    unsigned ready = atomic_load(&world->ready);

    world->next_fd = far_start(&world->far);
    if (!world->bare) {
        world->next_fd = wire_open(&world->wire, &world->ledger, world->next_fd);
    }
    have_done(world, call);
    for (unsigned i = 0; world->bare && i < 10000 && atomic_load(&world->ready) == ready; i++) {
        world_work(world);
    }
    if (!world_wait(&world->ready, ready + 1)) {
        guest_die("the front-end is not ready: state %d, error %d",
                  (int)viommu_vhost_state(world->vhost), atomic_load(&world->error));
    }
}

void world_reconnect(struct world *world)
{
    far_kill(&world->far);
    if (!world->bare) {
        wire_close(&world->wire);
    }
    connect_by(world, reconnect);
}

static void copy_statistics(struct world *world)
{
    (void)world;
}

struct viommu_vhost_statistics world_statistics(struct world *world)
{
    struct viommu_vhost_statistics statistics;

    have_done(world, copy_statistics);
    viommu_vhost_statistics(world->vhost, &statistics, sizeof(statistics));
    return statistics;
}

/* ---- life ---- */

void world_init(struct world *world, const struct world_options *options)
{
    memset(world, 0, sizeof(*world));
    world->is_virtio = options->is_virtio;
    world->bare = options->bare;
    ledger_init(&world->ledger, WINDOW_FIRST, WINDOW_PAGES);
    world->ledger.writable_is_readable = true;
    far_init(&world->far, options->program, options->directory, options->log);
    net_init(&world->net);
    make_memory(world);
    if (world->is_virtio) {
        make_virtio(world);
    } else {
        make_vtd(world);
    }
    guest_ok(viommu_device_add(world->iommu,
                               &(struct viommu_device_config){.requester = REQUESTER},
                               &world->device),
             "device");
    pthread_mutex_init(&world->lock, NULL);
    pthread_cond_init(&world->rung, NULL);
    world->bell = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (!world->bare) {
        guest_ok(-pthread_create(&world->monitor, NULL, monitor, world), "pthread_create");
    }
    bring_up(world);
    connect_by(world, create_front_end);
}

static void end_monitor(struct world *world)
{
    viommu_vhost_destroy(world->vhost);
    world->vhost = NULL;
    world->stop = true;
}

void world_fini(struct world *world)
{
    have_done(world, end_monitor);
    if (!world->bare) {
        pthread_join(world->monitor, NULL);
    }
    far_kill(&world->far);
    if (!world->bare) {
        wire_close(&world->wire);
    }
    guest_ok(viommu_device_remove(world->device), "device_remove");
    if (world->is_virtio) {
        viommu_destroy(world->iommu);
    } else {
        guest_fini(&world->guest);
    }
    viommu_memory_destroy(world->memory);
    munmap(world->low, LOW_PAGES * GUEST_PAGE);
    munmap(world->high, HIGH_PAGES * GUEST_PAGE);
    close(world->files[0]);
    close(world->files[1]);
    close(world->bell);
    net_fini(&world->net);
    ledger_fini(&world->ledger);
    pthread_cond_destroy(&world->rung);
    pthread_mutex_destroy(&world->lock);
}
