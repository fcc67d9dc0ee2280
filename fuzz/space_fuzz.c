/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Fuzzes layouts of regions, an MPC's registers, and what a guest maps in a virtio-iommu whose
 * device is on the bus, with a CPU that has cached what it could.
 *
 * Regions of every kind are made, added, removed, switched and destroyed in any order, in
 * containers that may contain themselves; allocations fail when the input says so. Held after every
 * commit: a view is sorted, without overlaps, and each range lies in its region; what was refused
 * has changed nothing. Held after every access: it stays inside the memory there is (a sanitizer
 * sees what does not), and the CPU, which comes to a safe point first, gets what an access without
 * a TLB gets.
 */
#include "bytes.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <viommu/cpu_tlb.h>
#include <viommu/device_region.h>
#include <viommu/tzmpc.h>
#include <viommu/virtio.h>

#include "../tests/support/virtio_spec.h"

#define SLOTS 16u
#define SPACES 3u
#define MPCS 2u
#define RAM_SIZE 0x3000u
#define RANGES 512u
#define FAILURES_MAX 8u /* of commits: each may take a million steps */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bed {
    struct viommu_bus *bus;
    struct viommu_region *roots[SPACES];
    struct viommu_space *spaces[SPACES];
    struct viommu_region *regions[SLOTS];
    struct viommu_tzmpc *mpcs[MPCS];
    struct viommu_cpu *cpu;
    const struct viommu_cpu_tlb *tlb;
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *device;
    struct viommu_region *device_region; /* below all else in space 1, into space 2; or NULL */
    uint8_t *ram;
    unsigned failures;
    bool interrupt[MPCS];
};

static const struct viommu_bus_attrs attributes[3] = {
    {.secure = true, .requester = 1}, {0}, {.unspecified = true}};

static void die(const char *text)
{
    fprintf(stderr, "%s\n", text);
    abort();
}

static int on_read(void *opaque, uint64_t offset, unsigned size,
                   const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)opaque;
    (void)attrs;
    if (offset % size || offset > UINT64_MAX - size) {
        die("a piece that is not aligned");
    }
    *value = offset * 0x0101010101010101;
    return offset & 0x80 ? -EIO : 0;
}

/* Passes on what it is told: by another region, or by itself. */
static int on_write(void *opaque, uint64_t offset, unsigned size,
                    const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct bed *bed = opaque;

    (void)viommu_space_write(bed->spaces[value % SPACES], value >> 8 & 0xffff, &offset, size,
                             attrs);
    return 0;
}

/* A line changes its level each time that it is told of. */
static void on_interrupt(void *opaque, bool level)
{
    bool *line = opaque;

    if (level == *line) {
        die("an interrupt line that is told of, and did not change");
    }
    *line = level;
}

static const struct viommu_region_ops ops = {.read = on_read, .write = on_write, .max_size = 4};

static struct viommu_region *make(struct bed *bed, struct viommu_region_config config)
{
    struct viommu_region *region = NULL;

    config.opaque = bed;
    (void)viommu_region_create(bed->bus, &config, &region);
    return region;
}

static void request(struct bed *bed, const struct spec_virtio_request *request)
{
    uint8_t answer[4];
    size_t written;

    (void)viommu_virtio_request(bed->iommu, request->bytes, request->size, answer, sizeof(answer),
                                0, &written);
    while (viommu_process(bed->iommu, 0) == VIOMMU_PENDING) {
        /* it ends: the input gives it no new work */
    }
}

static void begin_device(struct bed *bed)
{
    struct viommu_config config = {.ack_timeout_ms = 60000};
    struct viommu_virtio_config virtio = {0};
    struct viommu_device_config device = {.requester = 8};
    struct spec_virtio_request attach = spec_virtio_attach(1, 8, 0);

    if (viommu_memory_create(&bed->memory)) {
        die("no memory");
    }
    config.memory = bed->memory;
    config.space = bed->spaces[2];
    if (viommu_virtio_create(&config, &virtio, &bed->iommu) || viommu_start(bed->iommu) ||
        viommu_device_add(bed->iommu, &device, &bed->device)) {
        die("no memory");
    }
    if (viommu_virtio_accept(bed->iommu, viommu_virtio_features(bed->iommu))) {
        die("the features that are offered are refused");
    }
    request(bed, &attach);
}

/* It comes, or goes. */
static void move_device(struct bed *bed)
{
    if (bed->device_region) {
        if (viommu_device_region_destroy(bed->device_region)) {
            die("a device's region cannot go");
        }
        bed->device_region = NULL;
    } else if (!viommu_device_region_create(bed->device, bed->bus, "device", bed->spaces[2],
                                            &bed->device_region)) {
        (void)viommu_region_add(bed->roots[1], bed->device_region, 0, -100);
    }
}

/* The guest maps or unmaps some pages, and the device is admitted if it was denied. */
static void map(struct bed *bed, uint8_t kind, struct fuzz_input *input)
{
    uint64_t where = fuzz_number(input, 2);
    uint64_t first = (where & 15) * 4096;
    uint64_t last = first + (where >> 4 & 3) * 4096 + 4095;
    struct spec_virtio_request made =
        kind & 0x10 ? spec_virtio_map(1, first, last, (where >> 8 & 15) * 4096, where >> 12 & 3)
                    : spec_virtio_unmap(1, first, last);

    request(bed, &made);
    (void)viommu_device_reset(bed->device);
}

static void begin(struct bed *bed, uint8_t kind)
{
    struct viommu_cpu_config cpu = {
        .indexes = 2, .page_bits = 10 + (kind & 3), .entries = 16,
        .notifiers = 1 + (kind >> 2 & 3)};

    *bed = (struct bed){.ram = malloc(RAM_SIZE)};
    if (!bed->ram || viommu_bus_create(&bed->bus)) {
        die("no memory");
    }
    memset(bed->ram, 0x5a, RAM_SIZE);
    for (unsigned i = 0; i < SPACES; i++) {
        bed->roots[i] = make(bed, (struct viommu_region_config){.last = UINT64_MAX});
        if (!bed->roots[i] || viommu_space_create(bed->roots[i], &bed->spaces[i])) {
            die("no memory");
        }
    }
    for (unsigned i = 0; i < MPCS; i++) {
        struct viommu_tzmpc_config config = {.size = 0x4000,
                                             .block_bits = i ? 12 : 6 + (kind >> 4 & 7),
                                             .space = bed->spaces[i + 1],
                                             .interrupt = on_interrupt,
                                             .opaque = &bed->interrupt[i]};

        if (viommu_tzmpc_create(bed->bus, &config, &bed->mpcs[i]) ||
            viommu_region_add(bed->roots[0], viommu_tzmpc_registers(bed->mpcs[i]),
                              0xf000 - 0x1000 * i, 3) ||
            viommu_region_add(bed->roots[i], viommu_tzmpc_memory(bed->mpcs[i]), 0x8000, 1)) {
            die("no memory");
        }
    }
    begin_device(bed);
    move_device(bed);
    if (viommu_bus_commit(bed->bus) || viommu_cpu_create(bed->bus, &cpu, &bed->cpu)) {
        die("no memory");
    }
    bed->tlb = viommu_cpu_tlb(bed->cpu);
    for (unsigned i = 0; i < 2; i++) {
        (void)viommu_cpu_set_space(bed->cpu, i, bed->spaces[0], &attributes[i]);
    }
    if (viommu_cpu_begin(bed->cpu)) {
        die("no memory");
    }
}

static void end(struct bed *bed)
{
    base_alloc_fail_at(0);
    viommu_cpu_end(bed->cpu);
    viommu_tzmpc_destroy(bed->mpcs[0]);
    if (bed->device_region) {
        move_device(bed);
    }
    viommu_bus_destroy(bed->bus);
    viommu_destroy(bed->iommu);
    viommu_memory_destroy(bed->memory);
    free(bed->ram);
}

/* An address of a space, or an offset: small, or next to the top. */
static uint64_t any_address(struct fuzz_input *input)
{
    uint64_t small = fuzz_number(input, 2);

    return (small & 0x1f) == 0x1f ? -small : small;
}

static void create(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned slot = kind & 15;
    struct viommu_region_config config = {
        .kind = (enum viommu_region_kind)(kind >> 4), .last = any_address(input)};
    struct viommu_region *last;
    uint8_t target;

    switch (config.kind) {
    case VIOMMU_REGION_RAM:
    case VIOMMU_REGION_ROM:
        config.last %= RAM_SIZE;
        config.host = bed->ram + RAM_SIZE - 1 - config.last;
        break;
    case VIOMMU_REGION_MMIO:
        config.ops = &ops;
        break;
    case VIOMMU_REGION_ALIAS:
        target = fuzz_byte(input);
        config.target = target & 0x80 ? bed->roots[target % SPACES] : bed->regions[target % SLOTS];
        config.offset = any_address(input);
        break;
    default:
        break;
    }
    last = bed->regions[slot]; /* which the new one may be an alias of */
    bed->regions[slot] = make(bed, config);
    viommu_region_destroy(last);
}

static void arrange(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint8_t where = fuzz_byte(input);
    struct viommu_region *region = bed->regions[kind & 15];
    struct viommu_region *container =
        where & 0x80 ? bed->regions[where & 15] : bed->roots[where % SPACES];

    if (!region || !container) {
        return;
    }
    switch (kind >> 4 & 3) {
    case 0:
    case 1:
        (void)viommu_region_add(container, region, any_address(input), (int8_t)(where << 1) >> 5);
        break;
    case 2:
        (void)viommu_region_remove(region);
        break;
    default:
        viommu_region_enable(region, where & 1);
        break;
    }
}

static void check_view(struct viommu_space *space)
{
    static struct viommu_route routes[RANGES];
    size_t count = RANGES;
    int error = viommu_space_ranges(space, routes, &count);

    if (error && error != -ENOSPC) {
        die("the ranges cannot be listed");
    }
    for (size_t i = 0; i < count && i < RANGES; i++) {
        struct viommu_route route;

        if (routes[i].first > routes[i].last || (i && routes[i].first <= routes[i - 1].last)) {
            die("ranges that are not in order");
        }
        if (viommu_region_kind(routes[i].region) == VIOMMU_REGION_IOMMU) {
            continue;
        }
        if (viommu_space_resolve(space, routes[i].last, &attributes[0], &route) || route.hops ||
            route.region != routes[i].region || route.first != routes[i].first ||
            route.offset - routes[i].offset != routes[i].last - routes[i].first) {
            die("a range is not found where it is");
        }
    }
}

static void commit(struct bed *bed)
{
    int error;

    if (bed->failures >= FAILURES_MAX) {
        return;
    }
    error = viommu_bus_commit(bed->bus);
    bed->failures += error && error != -ENOMEM;
    if (error && error != -ENOMEM && error != -ELOOP && error != -E2BIG) {
        die("a commit fails in a way of its own");
    }
    for (unsigned i = 0; i < SPACES; i++) {
        check_view(bed->spaces[i]);
    }
}

/* The CPU and the space say the same, of what is memory. */
static void compare(struct bed *bed, struct fuzz_input *input)
{
    uint64_t address = any_address(input);
    uint8_t kind = fuzz_byte(input);
    unsigned index = kind & 1;
    unsigned size = 1u << (kind >> 1 & 3);
    struct viommu_route route;
    uint64_t value = 0;
    uint64_t plain = 0;
    int error;
    int expected;

    if (viommu_space_resolve(bed->spaces[0], address, &attributes[index], &route) ||
        !route.region || viommu_region_kind(route.region) == VIOMMU_REGION_MMIO ||
        route.last - address < size - 1) {
        return;
    }
    viommu_cpu_safe_point(bed->cpu, bed->tlb);
    expected = viommu_space_read(bed->spaces[0], address, &plain, size, &attributes[index]);
    error = viommu_cpu_load(bed->cpu, bed->tlb, index, address, size, VIOMMU_CPU_READ, &value);
    if (error != expected || value != plain) {
        die("the CPU reads something else");
    }
    error = viommu_cpu_store(bed->cpu, bed->tlb, index, address, size, ~value);
    if (!error && (viommu_space_read(bed->spaces[0], address, &plain, size, &attributes[index]) ||
                   (plain ^ ~value) << (64 - 8 * size))) {
        /* A write that was ignored reads as zero. */
        if (plain << (64 - 8 * size)) {
            die("the CPU writes something else");
        }
    }
}

static void access_any(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    uint64_t address = any_address(input);
    size_t length = fuzz_byte(input);
    uint8_t *bytes = malloc(length + 1);

    memset(bytes, (int)length, length + 1);
    switch (kind & 3) {
    case 0:
        (void)viommu_space_read(bed->spaces[kind >> 2 & 1], address, bytes, length,
                                &attributes[kind >> 4 == 15 ? 2 : kind >> 3 & 1]);
        break;
    case 1:
        (void)viommu_space_write(bed->spaces[kind >> 2 & 1], address, bytes, length,
                                 &attributes[kind >> 3 & 1]);
        break;
    default:
        (void)viommu_cpu_access(bed->cpu, kind >> 3 & 1, address, bytes, length,
                                (enum viommu_cpu_use)(kind >> 4 & 3));
        break;
    }
    free(bytes);
}

/* A register of the MPC, nearly always as software does it. */
static void use_registers(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    unsigned offset = fuzz_byte(input) & 0x3f;
    unsigned size = 1u << (kind & 3);
    uint64_t address = 0xf000 - 0x1000 * (kind >> 2 & 1) + offset;
    const struct viommu_bus_attrs *attrs =
        &attributes[kind >> 4 == 15 ? 2 : (kind >> 4 & 7) == 7];
    uint64_t value = fuzz_number(input, 4);

    if (kind & 8) {
        (void)viommu_space_read(bed->spaces[0], address, &value, size, attrs);
    } else {
        (void)viommu_space_write(bed->spaces[0], address, &value, size, attrs);
    }
}

static void live(struct bed *bed, struct fuzz_input *input)
{
    uint8_t kind = fuzz_byte(input);
    struct viommu_bus_ticket ticket;

    switch (kind & 7) {
    case 0:
        viommu_region_destroy(bed->regions[kind >> 4]);
        bed->regions[kind >> 4] = NULL;
        break;
    case 1:
        viommu_tzmpc_reset(bed->mpcs[kind >> 4 & 1]);
        break;
    case 2:
        viommu_cpu_flush_page(bed->cpu, kind >> 4 & 1, any_address(input));
        break;
    case 3:
        viommu_cpu_end(bed->cpu);
        viommu_bus_wait_begin(bed->bus, &ticket);
        if (viommu_bus_wait_end(bed->bus, &ticket) || viommu_cpu_begin(bed->cpu)) {
            die("nobody is there, but it waits");
        }
        break;
    case 4:
        (void)viommu_cpu_set_space(bed->cpu, kind >> 4 & 1, bed->spaces[(kind >> 5) % SPACES],
                                   &attributes[kind >> 4 & 1]);
        (void)viommu_cpu_set_space(bed->cpu, kind >> 4 & 1, bed->spaces[0],
                                   &attributes[kind >> 4 & 1]);
        break;
    case 5:
        if (kind & 0x80) {
            viommu_cpu_end(bed->cpu);
            move_device(bed);
            if (viommu_cpu_begin(bed->cpu)) {
                die("a thread that ran a CPU cannot again");
            }
        } else {
            uint64_t address = any_address(input);
            uint64_t value = kind;

            if (kind & 0x40) {
                (void)viommu_device_read(bed->device, NULL, address, &value, sizeof(value));
            } else {
                (void)viommu_device_write(bed->device, NULL, address, &value, sizeof(value));
            }
        }
        break;
    case 6:
        map(bed, kind, input);
        break;
    default:
        (void)viommu_cpu_fill(bed->cpu, kind >> 4 & 1, any_address(input));
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

        base_alloc_fail_at(operation >> 3 & 7); /* 0: none */
        switch (operation & 7) {
        case 0:
            create(&bed, &input);
            break;
        case 1:
            arrange(&bed, &input);
            break;
        case 2:
            commit(&bed);
            break;
        case 3:
            access_any(&bed, &input);
            break;
        case 4:
            use_registers(&bed, &input);
            break;
        case 5:
            live(&bed, &input);
            break;
        default:
            base_alloc_fail_at(0);
            compare(&bed, &input);
            break;
        }
    }
    end(&bed);
    return 0;
}
