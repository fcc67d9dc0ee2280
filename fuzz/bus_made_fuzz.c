/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes what a bus is made of: CPUs, regions, MPCs and buses of configurations that are wrong in
 * any way; memory protection controllers whose memory goes before their registers; spaces whose
 * numbers are used again; trees that are too high. Allocations fail.
 *
 * Held: what is wrong is refused with -EINVAL, what is right is made; what is made can be used.
 */
#include "bytes.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <viommu/cpu_tlb.h>
#include <viommu/space.h>
#include <viommu/tzmpc.h>

#define SPACES    4u
#define RAM_SIZE  0x4000u
#define TREES_MAX 8u /* each may take a million steps */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
    struct viommu_bus *bus;
    struct viommu_bus *other;
    struct viommu_region *roots[SPACES];
    struct viommu_space *spaces[SPACES]; /* the last is the other bus's */
    uint8_t ram[RAM_SIZE];
    unsigned trees; /* how many there were */
};

static void die(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)attrs;
    *value = 0;
    return 0;
}

static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)attrs;
    (void)value;
    return 0;
}

static unsigned on_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)opaque;
    (void)attrs;
    return 0;
}

static void on_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    (void)opaque;
    (void)address;
    (void)index;
    (void)hop;
}

static struct viommu_region *add(struct viommu_bus *bus, const struct viommu_region_config *config)
{
    struct viommu_region *region;

    if (viommu_region_create(bus, config, &region)) {
        die("no memory");
    }
    return region;
}

static void begin(struct bed *bed)
{
    const struct viommu_region_config all = {.last = UINT64_MAX};

    memset(bed, 0, sizeof(*bed));
    if (viommu_bus_create(&bed->bus) || viommu_bus_create(&bed->other)) {
        die("no memory");
    }
    for (unsigned i = 0; i < SPACES; i++) {
        bed->roots[i] = add(i == SPACES - 1 ? bed->other : bed->bus, &all);
        if (viommu_space_create(bed->roots[i], &bed->spaces[i])) {
            die("no memory");
        }
    }
}

static uint64_t any_address(struct fuzz_input *input)
{
    uint64_t small = fuzz_number(input, 2);

    return (small & 0x1f) == 0x1f ? -small : small;
}

/* A CPU of any configuration is made, or refused. */
static void make_cpu(struct bed *bed, struct fuzz_input *input)
{
    struct viommu_cpu_config config = {.indexes = fuzz_byte(input) % 20,
                                       .page_bits = fuzz_byte(input) % 20,
                                       .entries = (unsigned)fuzz_number(input, 2),
                                       .notifiers = (unsigned)fuzz_number(input, 2)};
    struct viommu_cpu *cpu = NULL;
    bool valid;
    int error;

    config.entries <<= config.entries & 1 ? 10 : 0; /* too many, too */
    error = viommu_cpu_create(bed->bus, &config, &cpu);
    valid = config.indexes <= 16 &&
            (!config.page_bits || (config.page_bits >= 10 && config.page_bits <= 16)) &&
            (!config.entries || (config.entries >= 16 && config.entries <= 1u << 20)) &&
            !(config.entries & (config.entries - 1)) && config.notifiers <= 4096;
    if ((error != -EINVAL) != valid || (error == 0) != (cpu != NULL)) {
        die("a CPU of a wrong configuration, or none of a good one");
    }
    viommu_cpu_destroy(cpu);
}

/* A region of any configuration, put where it does not belong. */
static void make_region(struct bed *bed, struct fuzz_input *input)
{
    static const struct viommu_region_ops ops[] = {
        {.write = on_write},
        {.read = on_read},
        {.read = on_read, .write = on_write, .max_size = 16},
        {.read = on_read, .write = on_write, .max_size = 3},
        {.read = on_read, .write = on_write, .max_size = 8},
    };
    static const struct viommu_region_iommu_ops iommus[] = {
        {.index_count = 1, .translate = on_translate},
        {.index_count = 1, .index_of = on_index},
        {.index_of = on_index, .translate = on_translate},
        {.index_count = 17, .index_of = on_index, .translate = on_translate},
        {.index_count = 16, .index_of = on_index, .translate = on_translate},
    };
    uint8_t kind = fuzz_byte(input);
    uint8_t which = fuzz_byte(input);
    struct viommu_region_config config = {
        .name = which & 0x40 ? "x" : NULL,
        .kind = (enum viommu_region_kind)(kind & 7),
        .last = any_address(input),
        .host = which & 1 ? NULL : bed->ram,
        .ops = which % 6 == 5 ? NULL : &ops[which % 6],
        .iommu = which % 6 == 5 ? NULL : &iommus[which % 6],
        .target = which & 1 ? NULL : bed->roots[which >> 1 & 3],
        .offset = any_address(input),
    };
    struct viommu_region *region = NULL;
    int error;

    if (config.kind != VIOMMU_REGION_ALIAS && config.kind != VIOMMU_REGION_CONTAINER &&
        config.last <= UINT64_MAX - (uintptr_t)bed->ram) {
        config.last %= RAM_SIZE; /* what is there */
    }
    error = viommu_region_create(bed->bus, &config, &region);
    if (error && error != -EINVAL && error != -ENOMEM) {
        die("a region is refused in a way of its own");
    }
    if (region) {
        error = viommu_region_add(bed->roots[kind >> 3 & 3], region, config.offset, kind >> 5);
        if (!error && viommu_region_remove(region)) {
            die("a region cannot be taken out");
        }
        if (strcmp(viommu_region_name(region), config.name ? config.name : "")) {
            die("another name");
        }
    }
    viommu_region_destroy(region);
}

/* An MPC of any configuration; its memory may go before its registers do. */
static void make_mpc(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_tzmpc_config config = {
        .block_bits = kind & 31,
        .size = fuzz_number(input, 3) << (kind & 31),
        .space = kind & 0x40 ? NULL : bed->spaces[kind & 0x80 ? 3 : 2],
        .address = any_address(input),
    };
    uint8_t odd = fuzz_byte(input);
    struct viommu_bus_attrs attrs = {.secure = true};
    struct viommu_tzmpc *mpc = NULL;
    uint32_t value = fuzz_byte(input) * 0x01010101u;
    int error;

    config.size <<= odd & 4 ? 3 : 0; /* more blocks than there may be */
    config.size += odd & 1;
    error = viommu_tzmpc_create(bed->bus, &config, &mpc);
    if (error && error != -EINVAL && error != -ENOMEM) {
        die("an MPC is refused in a way of its own");
    }
    if (error || viommu_region_add(bed->roots[0], viommu_tzmpc_registers(mpc), 0x10000, 9)) {
        viommu_tzmpc_destroy(mpc);
        return;
    }
    (void)viommu_bus_commit(bed->bus);
    if (odd & 2) {
        viommu_region_destroy(viommu_tzmpc_memory(mpc));
        (void)viommu_bus_commit(bed->bus);
    }
    for (unsigned offset = 0; offset < 0x40; offset += 4) {
        (void)viommu_space_write(bed->spaces[0], 0x10000 + offset, &value, 4, &attrs);
    }
    if (odd & 2) {
        viommu_region_destroy(viommu_tzmpc_registers(mpc));
    } else {
        viommu_tzmpc_destroy(mpc);
    }
    (void)viommu_bus_commit(bed->bus);
}

/* A space may be shown yet, or not. */
static void look(struct viommu_space *space)
{
    struct viommu_bus_attrs attrs = {0};
    struct viommu_route route;
    size_t count = 1;
    uint8_t byte;

    if (viommu_space_read(space, 0, &byte, 1, &attrs) != -ENXIO ||
        viommu_space_resolve(space, 0, &attrs, &route) || route.region ||
        viommu_space_ranges(space, &route, &count) || count) {
        die("there is something in an empty space");
    }
}

/* Another bus, with a space whose number is used again. */
static void make_bus(struct fuzz_input *input)
{
    const struct viommu_region_config all = {.last = UINT64_MAX};
    uint8_t kind = fuzz_byte(input);
    struct viommu_region *root;
    struct viommu_bus *bus = NULL;

    if (viommu_bus_create(&bus) || viommu_region_create(bus, &all, &root)) {
        viommu_bus_destroy(bus);
        return;
    }
    for (unsigned i = 0; i < (kind & 7u); i++) {
        struct viommu_space *space = NULL;

        if (!viommu_space_create(root, &space)) {
            look(space);
        }
        if (kind >> 3 & 1) {
            (void)viommu_bus_commit(bus);
        }
        if (kind >> 4 & 1) {
            viommu_space_destroy(space);
        }
    }
    (void)viommu_bus_commit(bus); /* some are gone */
    if (kind & 0x40) { /* with its root, while the bus has others */
        viommu_region_destroy(root);
        (void)viommu_bus_commit(bus);
        (void)viommu_bus_wait(bus);
    }
    if (kind == 0xbf) { /* until there are no more numbers */
        struct viommu_space *space;
        unsigned count = 0;

        while (!viommu_space_create(root, &space)) {
            count++;
        }
        if (count > 4096) {
            die("spaces without end");
        }
    }
    viommu_bus_destroy(bus);
}

/*
 * A tree in which each container is seen twice in the next: a view of it takes very many steps, or
 * is too deep. kind: how high, and where the two lie; odd: what is at the bottom, where registers
 * lie over each other, for a test build's map looks at all of itself at each change.
 */
static void make_tree(struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned high = kind & 31;
    uint8_t odd = fuzz_byte(input);
    static const struct viommu_region_ops ops = {.read = on_read, .write = on_write};
    const struct viommu_region_config leaf = {
        .kind = odd & 1 ? VIOMMU_REGION_MMIO : VIOMMU_REGION_CONTAINER, .ops = &ops};
    struct viommu_region_config box = {.last = odd & 2 ? 0 : UINT32_MAX};
    struct viommu_region *last;
    struct viommu_space *space;
    struct viommu_bus *bus;
    int error;

    base_alloc_fail_at(0);
    if (viommu_bus_create(&bus)) {
        die("no memory");
    }
    last = add(bus, &leaf);
    for (unsigned i = 0; i < high; i++) {
        struct viommu_region *next = add(bus, &box);
        struct viommu_region_config alias = {
            .kind = VIOMMU_REGION_ALIAS, .target = last, .last = kind & 0x20 ? 0 : box.last};

        for (unsigned j = 0; j < 2 + (i == high - 1 ? odd >> 2 & 7 : 0); j++) {
            (void)viommu_region_add(next, add(bus, &alias),
                                    kind & 0x40 ? 1
                                    : odd & 1   ? 0
                                                : (uint64_t)j << i,
                                    0);
        }
        last = next;
    }
    if (viommu_space_create(last, &space)) {
        die("no memory");
    }
    for (unsigned i = 0; i < 3; i++) {
        error = viommu_bus_commit(bus);
        if (error && error != -E2BIG && error != -ELOOP) {
            die("a tree is refused in a way of its own");
        }
        viommu_region_enable(last, i & 1);
    }
    viommu_bus_destroy(bus);
}

static void make(struct bed *bed, struct fuzz_input *input)
{
    switch (fuzz_byte(input) & 3) {
    case 0:
        make_bus(input);
        break;
    case 1:
        make_mpc(bed, input);
        break;
    default:
        if (bed->trees++ < TREES_MAX) {
            make_tree(input);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size, 0};
    static struct bed bed;

    begin(&bed);
    while (fuzz_more(&input)) {
        uint8_t operation = fuzz_byte(&input);

        base_alloc_fail_at(operation >> 3); /* 0: none */
        switch (operation & 7) {
        case 4:
            make_cpu(&bed, &input);
            break;
        case 5:
            make_region(&bed, &input);
            break;
        default:
            make(&bed, &input);
            break;
        }
        base_alloc_fail_at(0);
    }
    viommu_bus_destroy(bed.bus);
    viommu_bus_destroy(bed.other);
    return 0;
}
