/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pointers into a page are not used any more once an invalidation of its translation has completed,
 * or the memory it lies in is reported gone.
 *
 * Device threads pin windows, of a page or of several, use them, lend them to a finisher (another
 * thread, as a kernel that carries a transfer out), and release them: soon, when they are asked,
 * or, now and then, too late; then `fence` stops them. A guest's driver unmaps a page, invalidates,
 * waits, and uses the page for itself: fills it with a poison, and looks whether anybody touches
 * it. It also takes a slot of memory away, and does the same with that when it is gone.
 *
 * Each window is of a part of the pages that no other one has, which its holder writes and reads by
 * ordinary instructions: whatever the library leaves unordered is a data race that ThreadSanitizer
 * sees.
 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define DEVICES 3
#define SLOTS 4 /* windows that a thread has at once */
#define RAM_PAGES 5
#define PAGES 8 /* the last ones lie in the slot that comes and goes */
#define EXTRA 0x10000000ull
#define PART 256u
#define DOMAIN 7
#define POISON 0xa5
#define CLEAN 0x11
#define TIMEOUT_MS 10

enum state { FREE, MINE, LENT };

/* One window, and who has it. */
struct slot {
    struct viommu_window *window;
    struct iovec iov[PAGES];
    size_t count;
    pthread_mutex_t lock; /* held while the pointers are used; guards `stopped` */
    bool stopped;
    _Atomic bool revoked;
    _Atomic enum state state;
    bool lazy; /* does not hear revoke */
};

struct world {
    struct guest guest;
    struct crew crew;
    struct viommu_device *devices[DEVICES];
    struct slot slots[DEVICES][SLOTS];
    uint64_t table;
    uint64_t entries[PAGES];
    uint64_t pages[PAGES];
    bool mapped[PAGES];
    uint8_t *extra;
    _Atomic bool gone; /* a removal is complete */
    _Atomic uint64_t pinned;
    _Atomic uint64_t used;
    _Atomic uint64_t late;
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
    return page < RAM_PAGES ? guest_host(&world->guest, world->pages[page])
                            : world->extra + (page - RAM_PAGES) * GUEST_PAGE;
}

static void on_revoke(void *opaque)
{
    struct slot *slot = opaque;

    atomic_store(&slot->revoked, true);
}

/* Waits for whoever uses the pointers at this moment: afterwards nobody does. */
static int on_fence(void *opaque)
{
    struct slot *slot = opaque;

    pthread_mutex_lock(&slot->lock);
    slot->stopped = true;
    pthread_mutex_unlock(&slot->lock);
    return 0;
}

/* Through the pointers, slowly. */
static void use(struct world *world, struct slot *slot, struct random *random)
{
    uint8_t *host;

    pthread_mutex_lock(&slot->lock);
    host = slot->iov[random_below(random, (unsigned)slot->count)].iov_base;
    if (!slot->stopped && random_percent(random, 50)) {
        memset(host, CLEAN + 1, PART / 2);
        if (random_percent(random, 5)) {
            sched_yield();
        }
        memset(host + PART / 2, CLEAN + 1, PART / 2);
    } else if (!slot->stopped) {
        for (unsigned i = 0; i < PART; i++) {
            if (host[i] == POISON) {
                guest_die("a window showed a page after its invalidation had completed");
            }
        }
    }
    pthread_mutex_unlock(&slot->lock);
    atomic_fetch_add_explicit(&world->used, 1, memory_order_relaxed);
}

static void release(struct slot *slot)
{
    viommu_window_release(slot->window);
    slot->window = NULL;
    atomic_store(&slot->state, FREE);
}

/* The slot's part of some pages. */
static void pin(struct worker *worker, struct slot *slot)
{
    struct world *world = worker->world;
    size_t part = (size_t)(slot - &world->slots[0][0]) * PART;
    struct viommu_range ranges[PAGES];
    struct viommu_window_request request = {
        .ranges = ranges,
        .count = 1 + random_below(&worker->random, 3),
        .perm = VIOMMU_READ | VIOMMU_WRITE,
        .revoke = on_revoke,
        .fence = on_fence,
        .opaque = slot,
    };
    int error;

    for (size_t i = 0; i < request.count; i++) {
        ranges[i].first = iova_of(random_below(&worker->random, PAGES)) + part;
        ranges[i].last = ranges[i].first + PART - 1;
    }
    slot->stopped = false;
    atomic_store(&slot->revoked, false);
    slot->lazy = random_percent(&worker->random, 1);
    slot->count = PAGES;
    error = viommu_device_pin(world->devices[worker->number], NULL, &request, slot->iov,
                              &slot->count, &slot->window);
    if (!error) {
        atomic_store(&slot->state, MINE);
        atomic_fetch_add_explicit(&world->pinned, 1, memory_order_relaxed);
    } else if (error == -EPERM) {
        atomic_fetch_add_explicit(&world->late, 1, memory_order_relaxed);
        guest_ok(viommu_device_reset(world->devices[worker->number]), "reset");
    } else if (error != -EFAULT && error != -ENXIO) {
        guest_die("pin: %d", error);
    }
}

/* Whether the holder has had enough. */
static bool is_over(struct slot *slot, struct random *random)
{
    if (slot->lazy) {
        pthread_mutex_lock(&slot->lock);
        slot->lazy = !slot->stopped;
        pthread_mutex_unlock(&slot->lock);
        return false;
    }
    return atomic_load(&slot->revoked) || random_percent(random, 20);
}

static void *work(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;
    struct slot *slots = world->slots[worker->number];

    while (crew_working(&world->crew)) {
        for (unsigned i = 0; i < SLOTS; i++) {
            struct slot *slot = &slots[i];

            if (atomic_load(&slot->state) == FREE) {
                /* Seldom enough that a device has often none. */
                if (random_percent(&worker->random, 5)) {
                    pin(worker, slot);
                }
            } else if (atomic_load(&slot->state) != MINE) {
                continue;
            } else if (is_over(slot, &worker->random)) {
                release(slot);
            } else if (random_percent(&worker->random, 20)) {
                atomic_store(&slot->state, LENT);
            } else {
                use(world, slot, &worker->random);
            }
        }
        if (random_percent(&worker->random, 10)) {
            crew_sleep(20);
        }
    }
    return NULL;
}

/* Has windows of everybody. */
static void *finish(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;

    while (crew_working(&world->crew)) {
        for (unsigned i = 0; i < DEVICES * SLOTS; i++) {
            struct slot *slot = &world->slots[i / SLOTS][i % SLOTS];

            if (atomic_load(&slot->state) != LENT) {
                continue;
            }
            use(world, slot, &worker->random);
            if (is_over(slot, &worker->random)) {
                release(slot);
            }
        }
        sched_yield();
    }
    return NULL;
}

/* The driver has the page to itself, or memory is gone. */
static void use_page(struct world *world, struct random *random, unsigned page)
{
    uint8_t *host = host_of(world, page);

    memset(host, POISON, GUEST_PAGE);
    if (random_percent(random, 30)) {
        crew_sleep(random_below(random, 100));
    }
    crew_check_page(host, POISON, "a window wrote into a page that it had lost");
}

static void unmap(struct world *world, struct random *random, unsigned page)
{
    static const enum spec_granularity kinds[] = {SPEC_SELECTIVE, SPEC_SELECTIVE, SPEC_DOMAIN,
                                                  SPEC_GLOBAL};
    enum spec_granularity kind = kinds[random_below(random, 4)];

    guest_store(&world->guest, world->entries[page], 0);
    guest_queue_put(&world->guest,
                    spec_iotlb_invalidate(kind, DOMAIN, iova_of(page), 0, false));
    guest_queue_wait(&world->guest);
    world->mapped[page] = false;
    use_page(world, random, page);
}

static void map(struct world *world, unsigned page)
{
    memset(host_of(world, page), CLEAN, GUEST_PAGE);
    guest_store(&world->guest, world->entries[page], world->pages[page] | SPEC_R | SPEC_W);
    world->mapped[page] = true;
}

static void on_gone(void *opaque)
{
    struct world *world = opaque;

    atomic_store(&world->gone, true);
}

static void change_extra(struct world *world, bool add)
{
    struct viommu_memory_slot slot = {
        .first = EXTRA,
        .last = EXTRA + (PAGES - RAM_PAGES) * GUEST_PAGE - 1,
        .host = world->extra,
        .fd = -1,
    };
    struct viommu_memory_batch *batch;
    int ret;

    guest_ok(viommu_memory_batch_begin(world->guest.memory, &batch), "batch");
    if (add) {
        guest_ok(viommu_memory_batch_add(batch, &slot), "slot");
    } else {
        guest_ok(viommu_memory_batch_remove(batch, slot.first, slot.last), "removal");
    }
    atomic_store(&world->gone, false);
    ret = viommu_memory_batch_commit(batch, on_gone, world);
    while (ret == VIOMMU_PENDING && !atomic_load(&world->gone)) {
        if (!world->guest.processed_elsewhere) {
            guest_process(&world->guest);
        }
        viommu_memory_process(world->guest.memory);
    }
    guest_ok(ret == VIOMMU_PENDING ? 0 : ret, "commit");
}

static void unplug(struct world *world, struct random *random)
{
    change_extra(world, false);
    for (unsigned page = RAM_PAGES; page < PAGES; page++) {
        use_page(world, random, page);
    }
    for (unsigned page = RAM_PAGES; page < PAGES; page++) {
        if (world->mapped[page]) {
            memset(host_of(world, page), CLEAN, GUEST_PAGE);
        }
    }
    change_extra(world, true);
}

static void prepare(struct world *world, enum viommu_cache_mode mode)
{
    struct guest *guest = &world->guest;
    struct guest_config config = {
        .iotlb_entries = 256, .ack_timeout_ms = TIMEOUT_MS, .cache_mode = mode};
    size_t size = (PAGES - RAM_PAGES) * GUEST_PAGE;

    guest_ok(guest_init(guest, &config), "guest");
    world->extra = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    guest_ok(world->extra == MAP_FAILED ? -errno : 0, "mmap");
    change_extra(world, true);
    world->table = crew_pages(guest, PAGES, iova_of(0), world->pages, world->entries);
    for (unsigned i = RAM_PAGES; i < PAGES; i++) {
        world->pages[i] = EXTRA + (i - RAM_PAGES) * GUEST_PAGE;
    }
    guest_set_root(guest);
    for (unsigned i = 0; i < DEVICES; i++) {
        struct viommu_device_config device = {.requester = (uint16_t)(8 + i)};

        guest_ok(viommu_device_add(guest->iommu, &device, &world->devices[i]), "device");
        guest_attach(guest, device.requester, DOMAIN, world->table, 4, SPEC_TT_UNTRANSLATED);
        for (unsigned j = 0; j < SLOTS; j++) {
            pthread_mutex_init(&world->slots[i][j].lock, NULL);
        }
    }
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
}

static bool shows_something(struct world *world)
{
    struct viommu_stats stats;

    guest_ok(viommu_stats_get(world->guest.iommu, &stats, sizeof(stats)), "statistics");
    return world->pinned && stats.windows_revoked;
}

static void drive(struct world *world, uint64_t seed)
{
    struct random random = {seed};
    struct crew_time time = crew_begin();
    unsigned rounds = 0;
    unsigned removals = 0;

    while (crew_more(&time, shows_something(world))) {
        unsigned page = random_below(&random, PAGES);

        rounds++;
        if (random_percent(&random, 3)) {
            unplug(world, &random);
            removals++;
        } else if (!world->mapped[page]) {
            map(world, page);
        } else {
            unmap(world, &random, page);
        }
        guest_write(&world->guest, SPEC_FSTS, 4, SPEC_PFO);
    }
    printf("%u rounds, %u removals, ", rounds, removals);
}

static void finish_world(struct world *world)
{
    for (unsigned i = 0; i < DEVICES * SLOTS; i++) {
        struct slot *slot = &world->slots[i / SLOTS][i % SLOTS];

        if (atomic_load(&slot->state) != FREE) {
            release(slot);
        }
        pthread_mutex_destroy(&slot->lock);
    }
    guest_fini(&world->guest);
    munmap(world->extra, (PAGES - RAM_PAGES) * GUEST_PAGE);
}

static void run(bool elsewhere, enum viommu_cache_mode mode)
{
    static struct world world;
    struct worker workers[DEVICES + 1];
    struct crew_processor processor = {&world.crew, &world.guest, 1, 0};
    struct viommu_stats stats;

    memset(&world, 0, sizeof(world));
    prepare(&world, mode);
    for (unsigned i = 0; i <= DEVICES; i++) {
        workers[i] = (struct worker){&world, i, {i + 100}};
        crew_start(&world.crew, i < DEVICES ? work : finish, &workers[i]);
    }
    if (elsewhere) {
        world.guest.processed_elsewhere = true;
        crew_start(&world.crew, crew_process, &processor);
    }
    drive(&world, elsewhere);
    crew_stop(&world.crew);
    viommu_stats_get(world.guest.iommu, &stats, sizeof(stats));
    printf("%llu windows, %llu uses, %llu asked back, %llu overdue\n",
           (unsigned long long)world.pinned, (unsigned long long)world.used,
           (unsigned long long)stats.windows_revoked, (unsigned long long)stats.windows_overdue);
    if (!shows_something(&world) || stats.windows_pinned != world.pinned) {
        guest_die("nothing was pinned, or asked back: the test shows nothing");
    }
    finish_world(&world);
}

int main(void)
{
    run(false, VIOMMU_CACHE_NORMAL);
    run(true, VIOMMU_CACHE_NORMAL);
    run(true, VIOMMU_CACHE_FAITHFUL);
    run(true, VIOMMU_CACHE_HOSTILE);
    printf("windows: ok\n");
    return 0;
}
