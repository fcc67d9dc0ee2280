/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Two units in a chain against brute force: what a device reads and writes, and a CPU that keeps
 * what it found, with pages that come, go and change in both units, each change invalidated at
 * once.
 *
 *     device -> inner unit -> between: PEER, else the outer unit -> physical: RAM, PORTS, nothing
 *
 * The model is two arrays of pages and copies of all that can be written. After each step
 * everything is compared.
 *
 *     chain_model_test [--seed N] [--steps N]
 */
#include "../support/guest.h"
#include "../support/random.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGES 16u          /* of a level */
#define RAM_PAGES 10u      /* pages of what is physical: RAM, then ports, then nothing */
#define PORT_PAGES 3u
#define ALL_PAGES 16u
#define PEER_PAGE 14u      /* between */
#define STORE_PAGES (RAM_PAGES + PORT_PAGES + 1) /* the last one is the peer's */
#define PEER_STORE (RAM_PAGES + PORT_PAGES)
#define FIRST_IOVA 0x80000000ull
#define BETWEEN 0x40000000ull
#define REQUESTER 0x0010
#define DOMAIN 3

struct level {
    struct guest guest;
    struct viommu_device *device;
    struct viommu_region *region;
    uint64_t entries[PAGES];
    uint64_t first;
    uint64_t to;
    /* The model's. */
    unsigned page[PAGES];
    uint32_t perm[PAGES]; /* 0: not there */
};

struct world {
    struct random random;
    struct viommu_bus *bus;
    struct viommu_space *between;
    struct viommu_space *master;
    struct viommu_cpu *cpu;
    struct level inner;
    struct level outer;
    uint8_t *store; /* RAM, ports, peer */
    uint8_t model[STORE_PAGES * GUEST_PAGE];
    unsigned done;
    unsigned refused;
    unsigned elsewhere; /* nothing was there */
};

/* ---- what is on the bus ---- */

/* `opaque` is where its bytes lie. */
static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)attrs;
    memcpy(value, (uint8_t *)opaque + offset, size);
    return 0;
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    (void)attrs;
    memcpy((uint8_t *)opaque + offset, &value, size);
    return 0;
}

static const struct viommu_region_ops port_ops = {.read = on_read, .write = on_write};

static struct viommu_region *region(struct world *world, enum viommu_region_kind kind,
                                    uint64_t pages, uint8_t *bytes)
{
    struct viommu_region_config config = {.kind = kind,
                                          .last = pages * GUEST_PAGE - 1,
                                          .host = kind == VIOMMU_REGION_RAM ? bytes : NULL,
                                          .ops = &port_ops,
                                          .opaque = bytes};
    struct viommu_region *made;

    guest_ok(viommu_region_create(world->bus, &config, &made), "region");
    return made;
}

static void level_init(struct world *world, struct level *level, uint64_t first, uint64_t to,
                       struct viommu_space *into, struct viommu_space *elsewhere)
{
    /* Nobody is late, however long this process does not run. */
    struct guest_config config = {
        .space = elsewhere, .iotlb_entries = 256, .ack_timeout_ms = 600000};
    struct viommu_device_config device = {.requester = REQUESTER};
    struct guest *guest = &level->guest;
    uint64_t table;

    level->first = first;
    level->to = to;
    guest_ok(guest_init(guest, &config), "guest");
    table = guest_page(guest);
    for (unsigned i = 0; i < PAGES; i++) {
        level->entries[i] = guest_map(guest, table, 4, first + i * GUEST_PAGE, 0, 1, 0);
    }
    guest_ok(viommu_device_add(guest->iommu, &device, &level->device), "device");
    guest_attach(guest, REQUESTER, DOMAIN, table, 4, SPEC_TT_UNTRANSLATED);
    guest_set_root(guest);
    guest_queue_on(guest);
    guest_command(guest, SPEC_TE, true);
    guest_ok(viommu_device_region_create(level->device, world->bus, "", into, &level->region),
             "region");
}

/* The guest waits: its CPU comes to a safe point now and then. */
static void meanwhile(void *opaque)
{
    struct world *world = opaque;

    viommu_cpu_safe_point(world->cpu, viommu_cpu_tlb(world->cpu));
}

static void prepare(struct world *world)
{
    static const struct viommu_bus_attrs attrs = {.requester = REQUESTER};
    struct viommu_cpu_config config = {.entries = 16};
    struct viommu_region *physical;
    struct viommu_region *middle;
    struct viommu_space *into;
    uint8_t *store;

    store = world->store = aligned_alloc(GUEST_PAGE, sizeof(world->model));
    if (!store) {
        guest_die("no memory");
    }
    memset(store, 0, sizeof(world->model));
    guest_ok(viommu_bus_create(&world->bus), "bus");
    physical = region(world, VIOMMU_REGION_CONTAINER, UINT64_MAX / GUEST_PAGE, NULL);
    guest_ok(viommu_region_add(physical, region(world, VIOMMU_REGION_RAM, RAM_PAGES, store), 0, 0),
             "ram");
    guest_ok(viommu_region_add(physical,
                               region(world, VIOMMU_REGION_MMIO, PORT_PAGES,
                                      store + RAM_PAGES * GUEST_PAGE),
                               RAM_PAGES * GUEST_PAGE, 0), "ports");
    guest_ok(viommu_space_create(physical, &into), "space");
    middle = region(world, VIOMMU_REGION_CONTAINER, UINT64_MAX / GUEST_PAGE, NULL);
    guest_ok(viommu_space_create(middle, &world->between), "space");
    level_init(world, &world->outer, BETWEEN, 0, into, NULL);
    guest_ok(viommu_region_add(middle, world->outer.region, 0, 0), "outer");
    guest_ok(viommu_region_add(middle,
                               region(world, VIOMMU_REGION_MMIO, 1,
                                      store + PEER_STORE * GUEST_PAGE),
                               BETWEEN + PEER_PAGE * GUEST_PAGE, 1), "peer");
    level_init(world, &world->inner, FIRST_IOVA, BETWEEN, world->between, world->between);
    guest_ok(viommu_space_create(world->inner.region, &world->master), "space");
    guest_ok(viommu_bus_commit(world->bus), "commit");
    guest_ok(viommu_cpu_create(world->bus, &config, &world->cpu), "cpu");
    guest_ok(viommu_cpu_set_space(world->cpu, 0, world->master, &attrs), "look");
    guest_ok(viommu_cpu_begin(world->cpu), "begin");
    world->inner.guest.meanwhile = meanwhile;
    world->inner.guest.opaque = world;
    world->outer.guest.meanwhile = meanwhile;
    world->outer.guest.opaque = world;
}

static void finish(struct world *world)
{
    viommu_cpu_end(world->cpu);
    guest_ok(viommu_device_region_destroy(world->inner.region), "region");
    guest_ok(viommu_device_region_destroy(world->outer.region), "region");
    guest_fini(&world->inner.guest);
    guest_fini(&world->outer.guest);
    viommu_bus_destroy(world->bus);
    free(world->store);
}

/* ---- the model ---- */

static int cross(const struct level *level, unsigned page, uint32_t need, unsigned *to)
{
    if (page >= PAGES || (level->perm[page] & need) != need) {
        return -EFAULT;
    }
    *to = level->page[page];
    return 0;
}

/* Where a page of the device is kept. */
static int find(const struct world *world, unsigned page, uint32_t need, unsigned *store)
{
    unsigned at;
    int error = cross(&world->inner, page, need, &at);

    if (error) {
        return error;
    }
    if (at == PEER_PAGE) {
        *store = PEER_STORE;
        return 0;
    }
    error = cross(&world->outer, at, need, store);
    if (error) {
        return error;
    }
    return *store < RAM_PAGES + PORT_PAGES ? 0 : -ENXIO;
}

/* Page by page; the first error ends it. */
static int access_model(struct world *world, uint64_t at, uint8_t *bytes, size_t len, uint32_t need)
{
    while (len) {
        size_t in_page = GUEST_PAGE - at % GUEST_PAGE;
        size_t piece = len < in_page ? len : in_page;
        unsigned store;
        int error = find(world, (unsigned)(at / GUEST_PAGE), need, &store);
        uint8_t *place;

        if (error) {
            return error;
        }
        place = world->model + store * GUEST_PAGE + at % GUEST_PAGE;
        memcpy(need == VIOMMU_WRITE ? place : bytes, need == VIOMMU_WRITE ? bytes : place, piece);
        at += piece;
        bytes += piece;
        len -= piece;
    }
    return 0;
}

/* ---- steps ---- */

static void change(struct world *world, struct level *level)
{
    struct random *random = &world->random;
    unsigned page = random_below(random, PAGES);
    bool whole = random_percent(random, 20);

    level->perm[page] = random_percent(random, 30) ? 0 : 1 + random_below(random, 3);
    level->page[page] = random_below(random, ALL_PAGES);
    guest_store(&level->guest, level->entries[page],
                level->perm[page] ? (level->to + level->page[page] * GUEST_PAGE) | level->perm[page]
                                  : 0);
    guest_queue_put(&level->guest,
                    spec_iotlb_invalidate(whole ? SPEC_DOMAIN : SPEC_SELECTIVE, DOMAIN,
                                          whole ? 0 : level->first + page * GUEST_PAGE, 0, false));
    guest_queue_wait(&level->guest);
}

/* One of the ways in which an access is made. */
static int access_real(struct world *world, uint64_t iova, uint8_t *bytes, size_t len, bool write)
{
    static const struct viommu_bus_attrs attrs = {.requester = REQUESTER};
    const struct viommu_cpu_tlb *tlb = viommu_cpu_tlb(world->cpu);
    uint64_t value = 0;
    int error;

    if (len == 8 && iova % 8 == 0) {
        memcpy(&value, bytes, 8);
        error = write ? viommu_cpu_store(world->cpu, tlb, 0, iova, 8, value)
                      : viommu_cpu_load(world->cpu, tlb, 0, iova, 8, VIOMMU_CPU_READ, &value);
        memcpy(bytes, &value, 8);
        return error;
    }
    if (random_percent(&world->random, 50)) {
        return write ? viommu_device_write(world->inner.device, NULL, iova, bytes, len)
                     : viommu_device_read(world->inner.device, NULL, iova, bytes, len);
    }
    return write ? viommu_space_write(world->master, iova, bytes, len, &attrs)
                 : viommu_space_read(world->master, iova, bytes, len, &attrs);
}

static void access_both(struct world *world)
{
    struct random *random = &world->random;
    bool by_cpu = random_percent(random, 60);
    uint64_t at = random_below(random, (PAGES + 1) * GUEST_PAGE / 8) * 8;
    size_t len = by_cpu ? 8 : 1 + random_below(random, random_percent(random, 20) ? 9000 : 40);
    bool write = random_percent(random, 50);
    static uint8_t real[9000];
    static uint8_t model[9000];
    int expected;
    int error;

    if (!by_cpu) {
        at += random_below(random, 8);
    }
    for (size_t i = 0; i < len; i++) {
        real[i] = model[i] = (uint8_t)random_u64(random);
    }
    expected = access_model(world, at, model, len, write ? VIOMMU_WRITE : VIOMMU_READ);
    error = access_real(world, FIRST_IOVA + at, real, len, write);
    if (error != expected) {
        guest_die("%s of %zu bytes at page %llu: %d, not %d", write ? "write" : "read", len,
                  (unsigned long long)(at / GUEST_PAGE), error, expected);
    }
    if (!error && !write && memcmp(real, model, len)) {
        guest_die("something else was read");
    }
    world->done += !error;
    world->refused += error == -EFAULT;
    world->elsewhere += error == -ENXIO;
}

static void step(struct world *world)
{
    if (random_percent(&world->random, 15)) {
        change(world, random_percent(&world->random, 50) ? &world->inner : &world->outer);
    } else {
        access_both(world);
    }
    if (memcmp(world->store, world->model, sizeof(world->model))) {
        guest_die("something else was written");
    }
}

int main(int argc, char **argv)
{
    static struct world world;
    struct viommu_cpu_stats stats;
    unsigned long steps = 30000;

    world.random.state = 1;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed")) {
            world.random.state = strtoull(argv[i + 1], NULL, 0);
        } else if (!strcmp(argv[i], "--steps")) {
            steps = strtoul(argv[i + 1], NULL, 0);
        }
    }
    prepare(&world);
    for (unsigned long i = 0; i < steps; i++) {
        step(&world);
    }
    viommu_cpu_stats(world.cpu, &stats);
    printf("chain: %u done, %u refused, %u led nowhere; %llu pages cached, %llu of them dropped\n",
           world.done, world.refused, world.elsewhere, (unsigned long long)stats.fills,
           (unsigned long long)stats.entries_dropped);
    if (!world.done || !world.refused || !world.elsewhere || !stats.entries_dropped) {
        guest_die("something never happened");
    }
    finish(&world);
    printf("chain: ok\n");
    return 0;
}
