/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A block of memory is never touched by a CPU once the write that closed it is complete; nor is
 * memory that has left the space, once that was waited for.
 *
 * CPUs run on threads of their own: they load, store and fetch through their TLBs, come to safe
 * points, stop and begin. A secure CPU closes blocks by the MPC's registers, then has them for
 * itself at once: fills them with a poison, and looks whether anybody writes into them or reads it.
 * Another thread, which is no CPU, does the same to other blocks. A third takes memory out of the
 * space and frees it, and makes and destroys CPUs meanwhile. Memory is shared by ordinary loads and
 * stores, and a CPU's are relaxed: what the library leaves unordered is a data race that
 * ThreadSanitizer sees.
 */
#include "crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <viommu/cpu_tlb.h>
#include <viommu/tzmpc.h>

#define CPUS 2
#define BLOCK 4096u
#define BLOCKS 64u /* the first word of the table is the secure CPU's, the second the device's */
#define MEMORY 0x10000000u
#define REGISTERS 0x50000000u
#define EXTRA 0x20000000u
#define POISON 0xa5
#define CLEAN 0x11
#define LUT 0x1c

struct world {
    struct crew crew;
    struct viommu_bus *bus;
    struct viommu_region *root;
    struct viommu_space *space;
    struct viommu_tzmpc *mpc;
    uint8_t *ram;
    pthread_mutex_t registers; /* BLK_IDX and BLK_LUT are used by two */
    uint32_t words[2];
    _Atomic uint64_t answered;
    _Atomic uint64_t refused;
    _Atomic uint64_t closed;
    _Atomic uint64_t removed;
};

struct worker {
    struct world *world;
    unsigned number;
    struct random random;
};

static const struct viommu_bus_attrs secure = {.secure = true};
static const struct viommu_bus_attrs normal = {.requester = 5};

static uint64_t any_address(struct world *world, struct worker *worker)
{
    uint32_t where = random_below(&worker->random, 100);

    (void)world;
    if (where < 5) {
        return EXTRA + random_below(&worker->random, 512) * 8;
    }
    return MEMORY + random_below(&worker->random, BLOCKS) * BLOCK +
           random_below(&worker->random, BLOCK / 8) * 8;
}

static void check_value(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        if ((value >> 8 * i & 0xff) == POISON) {
            guest_die("a CPU read a block after it was closed");
        }
    }
}

static void access_once(struct worker *worker, struct viommu_cpu *cpu)
{
    struct world *world = worker->world;
    const struct viommu_cpu_tlb *tlb = viommu_cpu_tlb(cpu);
    uint64_t address = any_address(world, worker);
    uint64_t value = 0x0101010101010101u * (CLEAN + 1);
    int error;

    if (random_percent(&worker->random, 40)) {
        error = viommu_cpu_store(cpu, tlb, 0, address, 8, value);
    } else {
        error = viommu_cpu_load(cpu, tlb, 0, address, 8,
                                worker->number ? VIOMMU_CPU_READ : VIOMMU_CPU_FETCH, &value);
        if (!error) {
            check_value(value);
        }
    }
    if (error && error != -EIO && error != -ENXIO) {
        guest_die("an access: %d", error);
    }
    atomic_fetch_add_explicit(error ? &world->refused : &world->answered, 1,
                              memory_order_relaxed);
}

static struct viommu_cpu *make_cpu(struct world *world, const struct viommu_bus_attrs *attrs)
{
    struct viommu_cpu_config config = {.entries = 32};
    struct viommu_cpu *cpu;

    guest_ok(viommu_cpu_create(world->bus, &config, &cpu), "cpu");
    guest_ok(viommu_cpu_set_space(cpu, 0, world->space, attrs), "space");
    return cpu;
}

static void *run_cpu(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;
    struct viommu_cpu *cpu = make_cpu(world, &normal);

    while (crew_working(&world->crew)) {
        guest_ok(viommu_cpu_begin(cpu), "begin");
        for (unsigned i = 0; i < 100; i++) {
            access_once(worker, cpu);
            if (i % 8 == 0) {
                viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
            }
        }
        viommu_cpu_end(cpu);
        sched_yield(); /* better here than while others wait for it */
        if (worker->number == 1 && random_percent(&worker->random, 10)) {
            viommu_cpu_destroy(cpu);
            cpu = make_cpu(world, &normal);
        }
    }
    viommu_cpu_destroy(cpu);
    return NULL;
}

static void write_register(struct world *world, struct viommu_cpu *cpu, unsigned offset,
                           uint32_t value)
{
    if (cpu) {
        guest_ok(viommu_cpu_store(cpu, viommu_cpu_tlb(cpu), 0, REGISTERS + offset, 4, value),
                 "register");
    } else {
        guest_ok(viommu_space_write(world->space, REGISTERS + offset, &value, 4, &secure),
                 "register");
    }
}

/* Opens or closes blocks of a word; complete when it returns. */
static void set_word(struct world *world, struct viommu_cpu *cpu, unsigned word, uint32_t value)
{
    /* Who holds the lock may wait for every CPU that runs: one that waits for the lock must not. */
    if (cpu) {
        viommu_cpu_end(cpu);
    }
    pthread_mutex_lock(&world->registers);
    if (cpu) {
        guest_ok(viommu_cpu_begin(cpu), "begin");
    }
    write_register(world, cpu, 0x18, word);
    write_register(world, cpu, LUT, value);
    pthread_mutex_unlock(&world->registers);
    world->words[word] = value;
}

/* The block is closed: it is this thread's alone. */
static void have_block(struct worker *worker, unsigned block)
{
    uint8_t *host = worker->world->ram + block * BLOCK;

    memset(host, POISON, BLOCK);
    if (random_percent(&worker->random, 50)) {
        crew_sleep(random_below(&worker->random, 500));
    }
    for (unsigned i = 0; i < BLOCK; i++) {
        if (host[i] != POISON) {
            guest_die("a CPU wrote into a block after it was closed");
        }
    }
    memset(host, CLEAN, BLOCK);
}

/* Number 0 is a secure CPU, 1 is none. */
static void *close_blocks(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;
    struct viommu_cpu *cpu = worker->number ? NULL : make_cpu(world, &secure);

    if (cpu) {
        guest_ok(viommu_cpu_begin(cpu), "begin");
    }
    while (crew_working(&world->crew)) {
        unsigned bit = random_below(&worker->random, 32);

        set_word(world, cpu, worker->number, world->words[worker->number] & ~(1u << bit));
        have_block(worker, worker->number * 32 + bit);
        set_word(world, cpu, worker->number, world->words[worker->number] | 1u << bit);
        atomic_fetch_add_explicit(&world->closed, 1, memory_order_relaxed);
    }
    if (cpu) {
        viommu_cpu_end(cpu);
        viommu_cpu_destroy(cpu);
    }
    return NULL;
}

static void *change_layout(void *arg)
{
    struct worker *worker = arg;
    struct world *world = worker->world;

    while (crew_working(&world->crew)) {
        uint8_t *host = aligned_alloc(4096, 4096);
        struct viommu_region_config config = {
            .name = "extra", .kind = VIOMMU_REGION_RAM, .last = 4095, .host = host};
        struct viommu_region *region;

        memset(host, CLEAN, 4096);
        guest_ok(viommu_region_create(world->bus, &config, &region), "region");
        guest_ok(viommu_region_add(world->root, region, EXTRA, 0), "add");
        guest_ok(viommu_bus_commit(world->bus), "commit");
        crew_sleep(random_below(&worker->random, 300));
        viommu_region_destroy(region);
        guest_ok(viommu_bus_commit(world->bus), "commit");
        guest_ok(viommu_bus_wait(world->bus), "wait");
        memset(host, POISON, 4096);
        free(host);
        atomic_fetch_add_explicit(&world->removed, 1, memory_order_relaxed);
    }
    return NULL;
}

static void init(struct world *world)
{
    struct viommu_region_config container = {.kind = VIOMMU_REGION_CONTAINER, .last = UINT64_MAX};
    struct viommu_region_config ram = {.kind = VIOMMU_REGION_RAM, .last = BLOCKS * BLOCK - 1};
    struct viommu_tzmpc_config mpc = {.size = BLOCKS * BLOCK};
    uint32_t ctrl = 0x10; /* blocked accesses get an error */
    struct viommu_region *behind;
    struct viommu_region *region;

    pthread_mutex_init(&world->registers, NULL);
    world->ram = aligned_alloc(4096, BLOCKS * BLOCK);
    memset(world->ram, CLEAN, BLOCKS * BLOCK);
    ram.host = world->ram;
    guest_ok(viommu_bus_create(&world->bus), "bus");
    guest_ok(viommu_region_create(world->bus, &container, &world->root), "root");
    guest_ok(viommu_region_create(world->bus, &container, &behind), "behind");
    guest_ok(viommu_region_create(world->bus, &ram, &region), "ram");
    guest_ok(viommu_region_add(behind, region, 0, 0), "add");
    guest_ok(viommu_space_create(world->root, &world->space), "space");
    guest_ok(viommu_space_create(behind, &mpc.space), "space");
    guest_ok(viommu_tzmpc_create(world->bus, &mpc, &world->mpc), "mpc");
    guest_ok(viommu_region_add(world->root, viommu_tzmpc_memory(world->mpc), MEMORY, 0), "add");
    guest_ok(viommu_region_add(world->root, viommu_tzmpc_registers(world->mpc), REGISTERS, 0),
             "add");
    guest_ok(viommu_bus_commit(world->bus), "commit");
    guest_ok(viommu_space_write(world->space, REGISTERS, &ctrl, 4, &secure), "ctrl");
    set_word(world, NULL, 0, UINT32_MAX);
    set_word(world, NULL, 1, UINT32_MAX);
}

static bool shows_something(struct world *world)
{
    return world->answered && world->refused && world->closed && world->removed;
}

int main(void)
{
    static struct world world;
    struct worker workers[CPUS + 3];
    struct crew_time time;

    init(&world);
    for (unsigned i = 0; i < CPUS + 3; i++) {
        workers[i] = (struct worker){
            .world = &world, .number = i < CPUS ? i : i - CPUS, .random.state = i + 1};
    }
    for (unsigned i = 0; i < CPUS; i++) {
        crew_start(&world.crew, run_cpu, &workers[i]);
    }
    crew_start(&world.crew, close_blocks, &workers[CPUS]);
    crew_start(&world.crew, close_blocks, &workers[CPUS + 1]);
    crew_start(&world.crew, change_layout, &workers[CPUS + 2]);
    time = crew_begin();
    while (crew_more(&time, shows_something(&world))) {
        crew_sleep(1000);
    }
    crew_stop(&world.crew);
    printf("%llu accesses answered, %llu refused, %llu blocks closed, memory removed %llu times\n",
           (unsigned long long)world.answered, (unsigned long long)world.refused,
           (unsigned long long)world.closed, (unsigned long long)world.removed);
    if (!shows_something(&world)) {
        guest_die("nothing happened");
    }
    viommu_tzmpc_destroy(world.mpc);
    viommu_bus_destroy(world.bus);
    free(world.ram);
    return 0;
}
