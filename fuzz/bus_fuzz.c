/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes buses whose IOMMUs, registers and CPUs do what an embedder's may not, or nobody expects.
 *
 * The IOMMUs of a bus answer what the input says: nothing, another bus's space, pages of any size,
 * an attribute index that they do not have; refusals are taken back, forever too. Registers fail
 * with any number and access others. CPUs have page tables of the input's, nest, and stand beside
 * each other on one thread; allocations fail. Held: an access comes to an end, with an error of an
 * access, inside the memory there is (a sanitizer sees what does not).
 */
#include "bytes.h"

#include "base/alloc.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <viommu/cpu_tlb.h>
#include <viommu/space.h>

#define SPACES     4u
#define IOMMUS     6u  /* two in each space of the bus */
#define CHAIN      18u /* registers that each access the next: more than callbacks may nest */
#define CPUS       3u  /* the last is the other bus's */
#define RAM_SIZE   0x4000u
#define RAM_AT     0x8000u
#define ROM_AT     0xc000u
#define CHAIN_AT   0xe000u
#define CHAIN_SIZE 0x10u
#define RANGES     8u
#define FILLER     66u /* more than a CPU remembers to be asked for */
#define THREADS    32u /* that are started: on a busy machine each is waited for long */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed;

/* An IOMMU, and what it will say. */
struct iommu {
    struct bed *bed;
    unsigned number;
    struct viommu_hop answer;
    unsigned index;
    int refused;
};

struct link {
    struct bed *bed;
    unsigned number;
    int error;
};

struct bed {
    struct viommu_bus *bus;
    struct viommu_bus *other;
    struct viommu_region *roots[SPACES];
    struct viommu_space *spaces[SPACES];   /* the last is the other bus's */
    struct viommu_region *regions[IOMMUS]; /* NULL: gone */
    struct viommu_region *far;             /* an IOMMU of the other bus */
    struct iommu iommus[IOMMUS];
    struct link chain[CHAIN];
    struct viommu_cpu *cpus[CPUS];
    unsigned depth[CPUS]; /* times that each runs */
    struct viommu_cpu_walk walk;
    int walk_error;
    struct viommu_bus_ticket ticket;
    unsigned threads;
    uint8_t *ram;
};

static atomic_bool kicked;
static atomic_bool running;

static void die(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

/* The region of an IOMMU, or one that is none when that is gone. */
static struct viommu_region *region_of(struct bed *bed, unsigned number)
{
    return bed->regions[number] ? bed->regions[number] : bed->roots[0];
}

/* ---- what the input says of IOMMUs, registers, page tables ---- */

static unsigned on_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    const struct iommu *iommu = opaque;

    return attrs->secure ? 1 : iommu->index;
}

static void on_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    const struct iommu *iommu = opaque;

    if (index > 1) {
        die("an index that the IOMMU does not have");
    }
    *hop = iommu->answer;
    hop->address += hop->page ? address & (hop->page - 1) : address;
}

static int on_refused(void *opaque, uint64_t address, uint32_t perm, unsigned index,
                      const struct viommu_bus_attrs *attrs)
{
    struct iommu *iommu = opaque;
    int error = iommu->refused;

    (void)address;
    (void)perm;
    (void)index;
    (void)attrs;
    if (error == -EINTR) { /* allowed from now on; its CPUs hear of it */
        iommu->answer.perm = VIOMMU_READ | VIOMMU_WRITE;
        viommu_region_iommu_changed(region_of(iommu->bed, iommu->number), VIOMMU_INDEX_ALL, 0,
                                    UINT64_MAX);
        return -EAGAIN;
    }
    if (error == -EXDEV) { /* by way of itself */
        uint8_t byte;

        return viommu_space_read(iommu->bed->spaces[0], address, &byte, 1, attrs);
    }
    return error;
}

/* An IOMMU changes, or all: the access waits for CPUs when it is over. */
static void change(struct bed *bed, uint64_t value)
{
    struct viommu_bus_ticket ticket;

    for (unsigned i = 0; i < IOMMUS; i++) {
        if (value == UINT32_MAX || value % IOMMUS == i) {
            viommu_region_iommu_changed(region_of(bed, i), VIOMMU_INDEX_ALL, 0, 0xfff);
        }
    }
    viommu_region_iommu_changed(bed->far, VIOMMU_INDEX_ALL, 0, UINT64_MAX);
    viommu_bus_wait_begin(bed->bus, &ticket);
    if (viommu_bus_wait_end(bed->bus, &ticket) != VIOMMU_PENDING ||
        viommu_bus_wait_end(bed->bus, &ticket) != VIOMMU_PENDING ||
        viommu_bus_wait(bed->bus) != -EDEADLK) {
        die("a callback waits, or is not waited for");
    }
}

/* A CPU that is on its way here does nothing more; another may. */
static void reach_back(struct bed *bed)
{
    uint32_t word = 0;

    for (unsigned i = 0; i < CPUS; i++) {
        if (bed->depth[i]) {
            viommu_cpu_honour(bed->cpus[i]);
            (void)viommu_cpu_access(bed->cpus[i], 0, RAM_AT, &word, 4, VIOMMU_CPU_READ);
            (void)viommu_cpu_fill(bed->cpus[i], 0, RAM_AT);
        }
    }
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct link *link = opaque;
    struct bed *bed = link->bed;
    unsigned next = link->number + 1;

    (void)size;
    if (offset == 8) { /* the next one, and so on */
        next = next < CHAIN ? next : 0;
        return viommu_space_write(bed->spaces[0], CHAIN_AT + CHAIN_SIZE * next + 8, &value, 4,
                                  attrs);
    }
    if (offset == 4) {
        change(bed, value);
    }
    if (offset == 12) {
        reach_back(bed);
    }
    return link->error;
}

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    const struct link *link = opaque;

    (void)attrs;
    if (offset % size) {
        die("a piece that is not aligned");
    }
    *value = UINT64_MAX;
    return link->error;
}

static int on_walk(void *opaque, unsigned index, uint64_t address, enum viommu_cpu_use use,
                   struct viommu_cpu_walk *walk)
{
    const struct bed *bed = opaque;
    uint64_t plain = address;

    (void)index;
    (void)use;
    *walk = bed->walk;
    walk->address += plain;
    return bed->walk_error;
}

static void on_kick(void *opaque)
{
    (void)opaque;
    atomic_store(&kicked, true);
}

/* ---- the bed ---- */

static const struct viommu_region_iommu_ops iommu_ops[2] = {
    {.index_count = 2, .index_of = on_index, .translate = on_translate, .refused = on_refused},
    {.index_count = 2, .index_of = on_index, .translate = on_translate},
};

static const struct viommu_region_ops register_ops[2] = {
    {.read = on_read, .write = on_write},
    {.read = on_read, .write = on_write, .max_size = 2},
};

static struct viommu_region *add(struct viommu_bus *bus, struct viommu_region *root, uint64_t at,
                                 const struct viommu_region_config *config)
{
    struct viommu_region *region;

    if (viommu_region_create(bus, config, &region) ||
        (root && viommu_region_add(root, region, at, 0))) {
        die("no memory");
    }
    return region;
}

static void begin_spaces(struct bed *bed)
{
    const struct viommu_region_config all = {.last = UINT64_MAX};

    for (unsigned i = 0; i < SPACES; i++) {
        struct viommu_bus *bus = i == SPACES - 1 ? bed->other : bed->bus;
        struct viommu_region_config ram = {
            .kind = VIOMMU_REGION_RAM, .last = RAM_SIZE - 1, .host = bed->ram};
        struct viommu_region_config rom = {
            .kind = VIOMMU_REGION_ROM, .last = 0xfff, .host = bed->ram + RAM_SIZE};

        bed->roots[i] = add(bus, NULL, 0, &all);
        if (viommu_space_create(bed->roots[i], &bed->spaces[i])) {
            die("no memory");
        }
        (void)add(bus, bed->roots[i], RAM_AT, &ram);
        (void)add(bus, bed->roots[i], ROM_AT, &rom);
    }
}

static void begin_regions(struct bed *bed)
{
    for (unsigned i = 0; i < IOMMUS; i++) {
        struct viommu_region_config config = {.kind = VIOMMU_REGION_IOMMU,
                                              .last = 0x1fff,
                                              .iommu = &iommu_ops[i == 3],
                                              .opaque = &bed->iommus[i],
                                              .owner = i == 1 ? bed : NULL};

        bed->iommus[i] =
            (struct iommu){.bed = bed,
                           .number = i,
                           .answer = {.space = bed->spaces[(i ? i - 1 : 1) % (SPACES - 1)],
                                      .address = RAM_AT,
                                      .page = 0x1000,
                                      .perm = VIOMMU_READ | VIOMMU_WRITE}};
        bed->regions[i] = add(bed->bus, bed->roots[i / 2], 0x2000 * (i & 1), &config);
    }
    bed->far = add(bed->other, bed->roots[SPACES - 1], 0,
                   &(struct viommu_region_config){.kind = VIOMMU_REGION_IOMMU,
                                                  .last = 0x1fff,
                                                  .iommu = &iommu_ops[0],
                                                  .opaque = &bed->iommus[0]});
    for (unsigned i = 0; i < CHAIN; i++) {
        struct viommu_region_config config = {.kind = VIOMMU_REGION_MMIO,
                                              .last = CHAIN_SIZE - 1,
                                              .ops = &register_ops[i & 1],
                                              .opaque = &bed->chain[i],
                                              .owner = i == 3 ? bed : NULL};

        bed->chain[i] = (struct link){.bed = bed, .number = i};
        (void)add(bed->bus, bed->roots[0], CHAIN_AT + CHAIN_SIZE * i, &config);
    }
}

static void begin_cpus(struct bed *bed, uint8_t kind)
{
    for (unsigned i = 0; i < CPUS; i++) {
        struct viommu_cpu_config config = {.indexes = 2,
                                           .page_bits = kind & 1 ? 10 : 0,
                                           .entries = kind & 2 ? 16 : 0,
                                           .notifiers = kind & 4 ? 1 : 0,
                                           .opaque = bed,
                                           .walk = i == 1 ? on_walk : NULL,
                                           .kick = i ? on_kick : NULL};

        if (viommu_cpu_create(i == 2 ? bed->other : bed->bus, &config, &bed->cpus[i])) {
            die("no memory");
        }
    }
    bed->walk = (struct viommu_cpu_walk){.perm = VIOMMU_READ | VIOMMU_WRITE | VIOMMU_EXEC};
}

static void begin(struct bed *bed, uint8_t kind)
{
    *bed = (struct bed){.ram = calloc(1, RAM_SIZE + 0x1000)};
    if (!bed->ram || viommu_bus_create(&bed->bus) || viommu_bus_create(&bed->other)) {
        die("no memory");
    }
    begin_spaces(bed);
    begin_regions(bed);
    begin_cpus(bed, kind);
    if (viommu_bus_commit(bed->bus) || viommu_bus_commit(bed->other)) {
        die("no memory");
    }
    viommu_bus_wait_begin(bed->bus, &bed->ticket);
}

static void end(struct bed *bed)
{
    base_alloc_fail_at(0);
    for (unsigned i = 0; i < CPUS; i++) {
        while (bed->depth[i]) {
            viommu_cpu_end(bed->cpus[i]);
            bed->depth[i]--;
        }
    }
    viommu_cpu_destroy(bed->cpus[0]); /* not in the order in which they were made */
    viommu_cpu_destroy(bed->cpus[2]);
    if (viommu_bus_wait(bed->bus)) {
        die("nobody is there, but it waits");
    }
    viommu_bus_destroy(bed->bus);
    viommu_bus_destroy(bed->other);
    free(bed->ram);
}

/* ---- operations ---- */

static int any_error(uint8_t number)
{
    static const int errors[] = {0, -EIO, -EAGAIN, 5, -EINTR, -EXDEV, -EDEADLK, INT32_MIN};

    return errors[number % (sizeof(errors) / sizeof(errors[0]))];
}

/* An IOMMU says something else, and tells whom it likes, or nobody. */
static void answer(struct bed *bed, struct fuzz_input *input)
{
    uint8_t which = fuzz_byte(input);
    uint8_t kind = fuzz_byte(input);
    uint64_t first = fuzz_number(input, 2);
    uint64_t last = fuzz_number(input, 2);
    unsigned number = (which & 7) % IOMMUS;
    struct iommu *iommu = &bed->iommus[number];
    unsigned bits = kind & 63;

    iommu->answer = (struct viommu_hop){.space = which & 0x80 ? NULL : bed->spaces[which >> 5 & 3],
                                        .address = fuzz_number(input, 2) << 8,
                                        .page = bits == 63 ? 0 : UINT64_C(1) << bits,
                                        .perm = kind >> 6};
    iommu->index = which & 0x10 ? last & 3 : 0;
    iommu->refused = any_error(fuzz_byte(input));
    viommu_region_iommu_changed(which & 8 ? bed->roots[0] : region_of(bed, number),
                                which & 0x10 ? 1 : VIOMMU_INDEX_ALL, first, last);
}

/* Positive numbers, and -EAGAIN of an IOMMU or of registers, never reach who accesses. */
static void check_access(int error)
{
    if (error > 0 || error == -EAGAIN) {
        die("an access ends in a way of its own");
    }
}

static uint64_t any_address(struct fuzz_input *input)
{
    uint64_t small = fuzz_number(input, 2);

    return (small & 0x1f) == 0x1f ? -small : small;
}

static void use_space(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_bus_attrs attrs = {.secure = kind & 8, .privileged = kind & 16};
    struct viommu_route routes[RANGES];
    uint64_t address = any_address(input);
    size_t length = fuzz_byte(input);
    uint8_t *bytes = malloc(length + 1);
    size_t count = kind >> 4 & 7;
    struct viommu_space *space = bed->spaces[kind & 3];

    memset(bytes, (int)length, length + 1);
    switch (kind >> 5 & 3) {
    case 0:
        check_access(viommu_space_read(space, address, bytes, length, &attrs));
        break;
    case 1:
        check_access(viommu_space_write(space, address, bytes, length, &attrs));
        break;
    case 2:
        (void)viommu_space_resolve(space, address, &attrs, &routes[0]);
        break;
    default:
        (void)viommu_space_ranges(space, kind & 0x80 ? NULL : routes, &count);
        break;
    }
    free(bytes);
}

static void use_cpu(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned number = (kind & 3) % CPUS;
    struct viommu_cpu *cpu = bed->cpus[number];
    unsigned index = kind >> 2 & 3;
    struct viommu_bus_attrs attrs = {.secure = kind & 0x80};
    struct viommu_cpu_stats stats;
    uint64_t address = any_address(input);
    uint8_t bytes[64] = {0};
    uint8_t more = fuzz_byte(input);
    int error;

    switch (kind >> 4 & 7) {
    case 0:
        bed->depth[number] += !viommu_cpu_begin(cpu);
        break;
    case 1:
        if (bed->depth[number]) {
            bed->depth[number]--;
            viommu_cpu_end(cpu);
        }
        break;
    case 2:
        (void)viommu_cpu_set_space(cpu, index, more & 4 ? NULL : bed->spaces[more & 3], &attrs);
        break;
    case 3:
        error = viommu_cpu_access(cpu, index, address, bytes, more >> 2,
                                  (enum viommu_cpu_use)(more & 3));
        if (error > 0 || (bed->walk_error != -EAGAIN && error == -EAGAIN)) {
            die("a CPU's access ends in a way of its own");
        }
        if ((!bed->depth[number] || index > 1 || (more & 3) > 2) && error != -EINVAL) {
            die("a CPU that does not run accesses");
        }
        break;
    case 4:
        if (bed->depth[number]) {
            viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
        }
        break;
    case 5:
        error = viommu_cpu_fill(cpu, index, address);
        if (!bed->depth[number] && error != -EINVAL) {
            die("a CPU that does not run has entries");
        }
        break;
    case 6:
        viommu_cpu_flush_page(cpu, index, address);
        break;
    default:
        for (unsigned i = 0; i < (more & 1 ? 1100u : 1u); i++) {
            viommu_cpu_flush(cpu); /* generations come to their end */
        }
        viommu_cpu_stats(cpu, &stats);
        break;
    }
}

static void set_walk(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);

    bed->walk_error = any_error(kind >> 4);
    bed->walk = (struct viommu_cpu_walk){.address = any_address(input),
                                         .perm = kind & 7,
                                         .has_attrs = kind & 8,
                                         .attrs = {.secure = kind & 0x80}};
    viommu_cpu_flush(bed->cpus[1]);
}

static void *another(void *opaque)
{
    struct bed *bed = opaque;
    struct viommu_bus_attrs attrs = {.secure = true};
    struct viommu_route route;
    size_t count = 0;
    uint8_t byte;

    (void)viommu_space_ranges(bed->spaces[0], NULL, &count);
    (void)viommu_space_resolve(bed->spaces[0], RAM_AT, &attrs, &route);
    (void)viommu_space_read(bed->spaces[0], RAM_AT, &byte, 1, &attrs);
    return NULL;
}

/*
 * There is no memory for what a thread needs, unless one that ended has left it: then another one
 * tries, until nothing is left over.
 */
static void *poor(void *opaque)
{
    struct bed *bed = opaque;
    pthread_t next;
    struct viommu_bus_attrs attrs = {.secure = true};
    struct viommu_route route;
    size_t count = 0;
    uint8_t byte;
    int errors[4];

    base_alloc_fail_at(1);
    errors[0] = viommu_space_ranges(bed->spaces[0], NULL, &count);
    base_alloc_fail_at(1);
    errors[1] = viommu_space_resolve(bed->spaces[0], RAM_AT, &attrs, &route);
    base_alloc_fail_at(1);
    errors[2] = viommu_space_read(bed->spaces[0], RAM_AT, &byte, 1, &attrs);
    base_alloc_fail_at(1);
    errors[3] = bed->depth[0] ? errors[0] : viommu_cpu_begin(bed->cpus[0]);
    base_alloc_fail_at(0);
    if (!bed->depth[0] && !errors[3]) {
        viommu_cpu_end(bed->cpus[0]);
    }
    if (errors[2] == -ENXIO && !errors[1] && !route.region) {
        errors[2] = 0; /* the root is off: nothing is there */
    }
    for (unsigned i = 0; i < 4; i++) {
        if (errors[i] && errors[i] != -ENOMEM) {
            die("a thread fails in a way of its own");
        }
    }
    if (!errors[0] && !pthread_create(&next, NULL, poor, bed)) {
        (void)pthread_join(next, NULL);
    }
    return NULL;
}

static void *waits(void *opaque)
{
    struct bed *bed = opaque;

    if (viommu_bus_wait(bed->bus)) {
        die("a thread that is nowhere cannot wait");
    }
    return NULL;
}

/* Another thread runs a CPU until it is kicked. */
static void *runs(void *opaque)
{
    struct bed *bed = opaque;

    if (!viommu_cpu_begin(bed->cpus[1])) {
        atomic_store(&kicked, false);
        atomic_store(&running, true);
        while (!atomic_load(&kicked)) {
            sched_yield();
        }
        viommu_cpu_end(bed->cpus[1]);
    }
    atomic_store(&running, true);
    return NULL;
}

/* A write to registers changes an IOMMU, and waits for that CPU. */
static void change_beside(struct bed *bed)
{
    const struct viommu_bus_attrs attrs = {0};
    uint32_t value = UINT32_MAX;
    pthread_t thread;

    if (bed->depth[0] || bed->depth[1] || bed->depth[2]) {
        return;
    }
    base_alloc_fail_at(0);
    atomic_store(&running, false);
    if (pthread_create(&thread, NULL, runs, bed)) {
        die("no thread");
    }
    while (!atomic_load(&running)) {
        sched_yield();
    }
    (void)viommu_space_write(bed->spaces[0], CHAIN_AT + 4, &value, 4, &attrs);
    viommu_bus_wait(bed->bus);
    (void)pthread_join(thread, NULL);
}

/* A new thread accesses, or waits for a CPU that runs here. */
static void thread(struct bed *bed, void *(*run)(void *))
{
    static const struct timespec some = {.tv_nsec = 300000};
    bool wait = run == waits;
    pthread_t thread;

    if (wait && (bed->depth[0] || bed->depth[1] || bed->depth[2])) {
        return;
    }
    if (wait && viommu_cpu_begin(bed->cpus[1])) {
        return;
    }
    atomic_store(&kicked, false);
    if (pthread_create(&thread, NULL, run, bed)) {
        die("no thread");
    }
    while (wait && !atomic_load(&kicked)) {
        sched_yield();
    }
    if (wait) {
        nanosleep(&some, NULL);
        viommu_cpu_end(bed->cpus[1]);
    }
    (void)pthread_join(thread, NULL);
}

static void wait_for(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_bus_stats stats;

    switch (kind & 7) {
    case 0:
        if (viommu_bus_wait(bed->bus) !=
            (bed->depth[0] || bed->depth[1] || bed->depth[2] ? -EDEADLK : 0)) {
            die("waiting is refused where it need not, or not where it must");
        }
        break;
    case 1:
        if (!viommu_bus_wait_end(bed->bus, &bed->ticket)) {
            viommu_bus_wait_begin(bed->bus, &bed->ticket);
        }
        break;
    case 2:
        viommu_bus_wait_begin(bed->bus, &bed->ticket);
        break;
    case 3:
        viommu_bus_stats(bed->bus, &stats, kind & 8 ? 4 : sizeof(stats));
        break;
    case 4:
        if (kind & 0x80) {
            viommu_region_destroy(bed->regions[kind >> 3 & 3]);
            bed->regions[kind >> 3 & 3] = NULL;
        } else {
            viommu_region_enable(region_of(bed, kind >> 3 & 3), kind >> 5 & 1);
        }
        (void)viommu_bus_commit(bed->bus);
        break;
    case 5:
        if (bed->threads++ >= THREADS) {
            break;
        }
        if (kind & 32) {
            change_beside(bed);
        } else {
            thread(bed, kind & 16 ? poor : kind & 8 ? waits : another);
        }
        break;
    case 6:
        for (unsigned i = 0; i < FILLER; i++) {
            viommu_region_iommu_changed(region_of(bed, kind >> 3 & 3), VIOMMU_INDEX_ALL, i, i + 1);
        }
        break;
    default:
        bed->chain[kind >> 3 & 3].error = any_error(kind >> 5);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct bed bed;

    begin(&bed, fuzz_byte(&input));
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        base_alloc_fail_at(operation >> 3); /* 0: none */
        switch (operation & 7) {
        case 0:
            answer(&bed, &input);
            break;
        case 1:
            use_space(&bed, &input);
            break;
        case 2:
            use_cpu(&bed, &input);
            break;
        case 3:
            set_walk(&bed, &input);
            break;
        default:
            wait_for(&bed, &input);
            break;
        }
    }
    end(&bed);
    return 0;
}
