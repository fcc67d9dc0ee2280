/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A device behind two units, each with a guest, a memory and a thread of its own. Threads do DMA
 * through both, and a CPU looks through both with a TLB, while each guest takes pages away at its
 * level and invalidates. When that has completed the page is somebody else's: nobody may touch it.
 *
 * Page n of the device is page n of what lies between the units, and page n of the RAM behind them:
 * so either guest cuts it off alone.
 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 6
#define USERS 3 /* and a CPU */
#define DOMAIN 3
#define REQUESTER 0x0010
#define FIRST_IOVA 0x80000000ull
#define BETWEEN 0x40000000ull
#define POISON 0xa5

struct world;

struct level {
    struct world *world;
    struct guest guest;
    struct crew_processor processor;
    struct viommu_device *device;
    struct viommu_region *region;
    uint64_t entries[PAGES];
    uint64_t first; /* address of its page 0, and where it leads */
    uint64_t to;
    _Atomic uint64_t rounds;
};

struct world {
    struct crew crew;      /* users and guests */
    struct crew processors;
    struct viommu_bus *bus;
    struct viommu_region *root;
    struct viommu_space *master;
    struct level outer;
    struct level inner;
    uint8_t *ram;
    pthread_mutex_t pages[PAGES]; /* who takes it away */
    _Atomic uint64_t used;
    _Atomic uint64_t refused;
};

static struct viommu_region *region(struct world *world, enum viommu_region_kind kind,
                                    uint64_t last, void *host)
{
    struct viommu_region_config config = {.kind = kind, .last = last, .host = host};
    struct viommu_region *made;

    guest_ok(viommu_region_create(world->bus, &config, &made), "region");
    return made;
}

/* A unit whose device leads into `into`. */
static void level_init(struct world *world, struct level *level, uint64_t first, uint64_t to,
                       struct viommu_space *into)
{
    struct guest_config config = {.ack_timeout_ms = 60000, .space = into};
    struct viommu_device_config device = {.requester = REQUESTER};
    struct guest *guest = &level->guest;
    uint64_t table;

    level->world = world;
    level->first = first;
    level->to = to;
    guest_ok(guest_init(guest, &config), "guest");
    table = guest_page(guest);
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t at = i * GUEST_PAGE;

        level->entries[i] = guest_map(guest, table, 4, first + at, to + at, 1, 3);
    }
    guest_ok(viommu_device_add(guest->iommu, &device, &level->device), "device");
    guest_attach(guest, REQUESTER, DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
    guest_ok(viommu_device_region_create(level->device, world->bus, "", into, &level->region),
             "region");
    guest->processed_elsewhere = true;
    level->processor = (struct crew_processor){&world->processors, guest, 4, 0};
    crew_start(&world->processors, crew_process, &level->processor);
}

static void prepare(struct world *world)
{
    struct viommu_space *physical;
    struct viommu_space *between;
    struct viommu_region *memory;

    world->ram = aligned_alloc(GUEST_PAGE, PAGES * GUEST_PAGE);
    if (!world->ram) {
        guest_die("no memory");
    }
    memset(world->ram, 1, PAGES * GUEST_PAGE);
    for (unsigned i = 0; i < PAGES; i++) {
        pthread_mutex_init(&world->pages[i], NULL);
    }
    guest_ok(viommu_bus_create(&world->bus), "bus");
    memory = region(world, VIOMMU_REGION_CONTAINER, UINT64_MAX, NULL);
    guest_ok(viommu_region_add(memory, region(world, VIOMMU_REGION_RAM, PAGES * GUEST_PAGE - 1,
                                              world->ram), 0, 0), "ram");
    guest_ok(viommu_space_create(memory, &physical), "space");
    level_init(world, &world->outer, BETWEEN, 0, physical);
    guest_ok(viommu_space_create(world->outer.region, &between), "space");
    level_init(world, &world->inner, FIRST_IOVA, BETWEEN, between);
    guest_ok(viommu_space_create(world->inner.region, &world->master), "space");
    guest_ok(viommu_bus_commit(world->bus), "commit");
}

static void check(struct world *world, int error, uint8_t value)
{
    if (error && error != -EFAULT) {
        guest_die("an access: %d", error);
    }
    if (!error && value == POISON) {
        guest_die("a page was read by a translation that had been invalidated");
    }
    atomic_fetch_add_explicit(error ? &world->refused : &world->used, 1, memory_order_relaxed);
}

static unsigned slot_of_this_thread(void)
{
    static _Atomic unsigned threads;

    return 64 * atomic_fetch_add(&threads, 1);
}

static void *use(void *arg)
{
    static const struct viommu_bus_attrs attrs = {.requester = REQUESTER};
    struct world *world = arg;
    unsigned slot = slot_of_this_thread();
    struct random random = {slot + 1};
    uint8_t buffer[64];

    while (crew_working(&world->crew)) {
        struct viommu_device *device = random_percent(&random, 50) ? world->inner.device : NULL;
        uint64_t at = FIRST_IOVA + random_below(&random, PAGES) * GUEST_PAGE + slot;
        size_t len = sizeof(buffer);
        int error;

        memset(buffer, 2, len);
        if (random_percent(&random, 50)) {
            error = device ? viommu_device_write(device, NULL, at, buffer, len)
                           : viommu_space_write(world->master, at, buffer, len, &attrs);
        } else {
            error = device ? viommu_device_read(device, NULL, at, buffer, len)
                           : viommu_space_read(world->master, at, buffer, len, &attrs);
        }
        check(world, error, buffer[random_below(&random, sizeof(buffer))]);
        if (random_percent(&random, 2)) {
            crew_sleep(1);
        }
    }
    return NULL;
}

static void *run_cpu(void *arg)
{
    static const struct viommu_bus_attrs attrs = {.requester = REQUESTER};
    struct viommu_cpu_config config = {.entries = 16};
    struct world *world = arg;
    unsigned slot = slot_of_this_thread();
    struct random random = {slot + 1};
    const struct viommu_cpu_tlb *tlb;
    struct viommu_cpu *cpu;

    guest_ok(viommu_cpu_create(world->bus, &config, &cpu), "cpu");
    guest_ok(viommu_cpu_set_space(cpu, 0, world->master, &attrs), "look");
    tlb = viommu_cpu_tlb(cpu);
    while (crew_working(&world->crew)) {
        guest_ok(viommu_cpu_begin(cpu), "begin");
        for (unsigned i = 0; i < 200; i++) {
            uint64_t at = FIRST_IOVA + random_below(&random, PAGES) * GUEST_PAGE + slot;
            uint64_t value = 2;
            int error;

            error = random_percent(&random, 50)
                        ? viommu_cpu_store(cpu, tlb, 0, at, 8, value)
                        : viommu_cpu_load(cpu, tlb, 0, at, 8, VIOMMU_CPU_READ, &value);
            check(world, error, (uint8_t)value);
            if (i % 16 == 0) {
                viommu_cpu_safe_point(cpu, tlb);
            }
        }
        viommu_cpu_end(cpu);
        crew_sleep(1);
    }
    viommu_cpu_destroy(cpu);
    return NULL;
}

/* The level's guest takes a page away, and it is used for something else meanwhile. */
static void one_round(struct level *level, struct random *random)
{
    struct world *world = level->world;
    unsigned page = random_below(random, PAGES);
    uint8_t *host = world->ram + page * GUEST_PAGE;
    bool whole = random_below(random, 4) == 0;
    uint64_t at = page * GUEST_PAGE;

    pthread_mutex_lock(&world->pages[page]);
    guest_store(&level->guest, level->entries[page], 0);
    guest_queue_put(&level->guest,
                    spec_iotlb_invalidate(whole ? SPEC_DOMAIN : SPEC_SELECTIVE, DOMAIN,
                                          whole ? 0 : level->first + at, 0, false));
    guest_queue_wait(&level->guest);
    memset(host, POISON, GUEST_PAGE);
    crew_sleep(random_below(random, 50));
    crew_check_page(host, POISON, "a page was written by a translation that had been invalidated");
    memset(host, 1, GUEST_PAGE);
    guest_store(&level->guest, level->entries[page], (level->to + at) | 3);
    pthread_mutex_unlock(&world->pages[page]);
    crew_sleep(random_below(random, 200));
    level->rounds++;
}

static void *invalidate(void *arg)
{
    struct level *level = arg;
    struct random random = {level->first + 1};

    while (crew_working(&level->world->crew)) {
        one_round(level, &random);
    }
    return NULL;
}

/* Takes the device away as an embedder does. */
static void level_fini(struct level *level)
{
    level->guest.processed_elsewhere = false;
    guest_process(&level->guest);
    guest_ok(viommu_device_region_destroy(level->region), "region");
    guest_ok(viommu_device_remove(level->device), "device");
    guest_fini(&level->guest);
}

static bool shows_something(struct world *world)
{
    return world->used && world->refused && world->inner.rounds && world->outer.rounds;
}

int main(void)
{
    static struct world world;
    struct crew_time time;

    prepare(&world);
    for (unsigned i = 0; i < USERS; i++) {
        crew_start(&world.crew, use, &world);
    }
    crew_start(&world.crew, run_cpu, &world);
    crew_start(&world.crew, invalidate, &world.inner);
    crew_start(&world.crew, invalidate, &world.outer);
    time = crew_begin();
    while (crew_more(&time, shows_something(&world))) {
        crew_sleep(1000);
    }
    crew_stop(&world.crew);
    crew_stop(&world.processors);
    printf("chain: %llu and %llu rounds, %llu accesses, %llu refused\n",
           (unsigned long long)world.inner.rounds, (unsigned long long)world.outer.rounds,
           (unsigned long long)world.used, (unsigned long long)world.refused);
    if (!shows_something(&world)) {
        guest_die("nothing was used, refused, or taken away");
    }
    level_fini(&world.inner);
    level_fini(&world.outer);
    viommu_bus_destroy(world.bus);
    free(world.ram);
    printf("chain: ok\n");
    return 0;
}
