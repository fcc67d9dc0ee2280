/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions, views, chains of IOMMUs, and accesses of any size. */
#include "space/test_space.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

struct bed {
    struct viommu_bus *bus;
    struct viommu_region *root;
    struct viommu_space *space;
    struct viommu_region *ram;
    char memory[64 * 1024];
};

static int setup(void **state)
{
    struct bed *bed = calloc(1, sizeof(*bed));

    assert_int_equal(viommu_bus_create(&bed->bus), 0);
    bed->root = test_region(bed->bus, "root", VIOMMU_REGION_CONTAINER, 0, NULL);
    assert_int_equal(viommu_space_create(bed->root, &bed->space), 0);
    bed->ram = test_region(bed->bus, "ram", VIOMMU_REGION_RAM, sizeof(bed->memory), bed->memory);
    for (size_t i = 0; i < sizeof(bed->memory); i++) {
        bed->memory[i] = (char)(i * 7 + i / 256);
    }
    *state = bed;
    return 0;
}

static int teardown(void **state)
{
    struct bed *bed = *state;

    viommu_bus_destroy(bed->bus);
    free(bed);
    return 0;
}

static void add(struct bed *bed, struct viommu_region *region, uint64_t at, int32_t priority)
{
    assert_int_equal(viommu_region_add(bed->root, region, at, priority), 0);
}

static void commit(struct bed *bed)
{
    assert_int_equal(viommu_bus_commit(bed->bus), 0);
}

/* "NAME first last offset, ..." */
static void assert_view(struct viommu_space *space, const char *expected)
{
    struct viommu_route routes[32];
    size_t count = 32;
    char text[1024] = "";

    assert_int_equal(viommu_space_ranges(space, routes, &count), 0);
    for (size_t i = 0; i < count; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s %llx-%llx+%llx",
                 i ? ", " : "", viommu_region_name(routes[i].region),
                 (unsigned long long)routes[i].first, (unsigned long long)routes[i].last,
                 (unsigned long long)routes[i].offset);
    }
    assert_string_equal(text, expected);
}

static void overlaps_by_priority(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *rom =
        test_region(bed->bus, "rom", VIOMMU_REGION_ROM, 0x2000, bed->memory);
    struct viommu_region *late =
        test_region(bed->bus, "late", VIOMMU_REGION_ROM, 0x1000, bed->memory);
    struct viommu_region *box = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x4000, NULL);

    add(bed, bed->ram, 0x1000, 0);
    assert_view(bed->space, "");
    commit(bed);
    assert_view(bed->space, "ram 1000-10fff+0");
    /* A hole of a container shows what is below; what reaches out of it is cut. */
    assert_int_equal(viommu_region_add(box, rom, 0x3000, 5), 0);
    add(bed, box, 0x4000, 1);
    commit(bed);
    assert_view(bed->space, "ram 1000-6fff+0, rom 7000-7fff+0, ram 8000-10fff+7000");
    /* Of equal priority the last one added is seen, whatever is inside of the other. */
    add(bed, late, 0x7800, 1);
    commit(bed);
    assert_view(bed->space,
                "ram 1000-6fff+0, rom 7000-77ff+0, late 7800-87ff+0, ram 8800-10fff+7800");
    viommu_region_enable(late, false);
    viommu_region_enable(box, false);
    commit(bed);
    assert_view(bed->space, "ram 1000-10fff+0");
    viommu_region_enable(box, true);
    assert_int_equal(viommu_region_remove(rom), 0);
    assert_int_equal(viommu_region_remove(rom), -ENOENT);
    assert_int_equal(viommu_region_add(bed->root, rom, 0, -1), 0);
    assert_int_equal(viommu_region_add(bed->root, rom, 0, -1), -EBUSY);
    commit(bed);
    assert_view(bed->space, "rom 0-fff+0, ram 1000-10fff+0");
}

static void aliases(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *box = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x8000, NULL);
    struct viommu_region *high = test_alias(bed->bus, "high", bed->ram, 0x4000, 0x100000);
    struct viommu_region *twice = test_alias(bed->bus, "twice", box, 0x800, 0x1000);

    assert_int_equal(viommu_region_add(box, bed->ram, 0x1000, 0), 0);
    add(bed, high, UINT64_MAX - 0xfffff, 0);
    add(bed, twice, 0x20000, 0);
    commit(bed);
    assert_view(bed->space, "ram 20800-20fff+0, ram fffffffffff00000-fffffffffff0bfff+4000");
    /* Pieces of one region that follow one another are one range. */
    assert_int_equal(viommu_region_remove(twice), 0);
    viommu_region_destroy(high);
    add(bed, test_alias(bed->bus, "a", bed->ram, 0, 0x1000), 0, 0);
    add(bed, test_alias(bed->bus, "b", bed->ram, 0x1000, 0x1000), 0x1000, 0);
    commit(bed);
    assert_view(bed->space, "ram 0-1fff+0");
    /* The last byte of all. */
    add(bed, test_alias(bed->bus, "c", bed->ram, 0, 1), UINT64_MAX, 0);
    commit(bed);
    assert_view(bed->space, "ram 0-1fff+0, ram ffffffffffffffff-ffffffffffffffff+0");
}

static void regions_that_contain_themselves(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *loop = test_alias(bed->bus, "loop", bed->root, 0, 0x1000);
    struct viommu_region *boxes[64];

    add(bed, bed->ram, 0x1000, 0);
    commit(bed);
    add(bed, loop, 0, 0);
    assert_int_equal(viommu_bus_commit(bed->bus), -ELOOP);
    assert_view(bed->space, "ram 1000-10fff+0");
    assert_int_equal(viommu_region_remove(loop), 0);
    commit(bed);
    /* Doubling at every level: more steps than anybody wants to wait for. */
    boxes[0] = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x1000, NULL);
    for (unsigned i = 1; i < 28; i++) {
        boxes[i] = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x1000, NULL);
        for (unsigned j = 0; j < 2; j++) {
            struct viommu_region *alias = test_alias(bed->bus, "a", boxes[i - 1], 0, 0x1000);

            assert_int_equal(viommu_region_add(boxes[i], alias, 0, 0), 0);
        }
    }
    add(bed, boxes[27], 0, 0);
    assert_int_equal(viommu_bus_commit(bed->bus), -E2BIG);
    viommu_region_destroy(boxes[27]);
    commit(bed);
    assert_view(bed->space, "ram 1000-10fff+0");
}

static void configurations_that_make_no_sense(void **state)
{
    struct bed *bed = *state;
    static const struct viommu_region_ops half = {.max_size = 4};
    static const struct viommu_region_iommu_ops none = {.index_count = 2};
    struct viommu_region_config bad[] = {
        {.kind = VIOMMU_REGION_RAM},
        {.kind = VIOMMU_REGION_ROM, .host = (void *)-4096l, .last = 4096},
        {.kind = VIOMMU_REGION_MMIO},
        {.kind = VIOMMU_REGION_MMIO, .ops = &half},
        {.kind = VIOMMU_REGION_ALIAS},
        {.kind = VIOMMU_REGION_ALIAS, .target = bed->ram, .offset = 1, .last = UINT64_MAX},
        {.kind = VIOMMU_REGION_IOMMU},
        {.kind = VIOMMU_REGION_IOMMU, .iommu = &none},
        {.kind = (enum viommu_region_kind)77},
    };
    struct viommu_region *region;
    struct viommu_bus *other;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(viommu_region_create(bed->bus, &bad[i], &region), -EINVAL);
    }
    assert_int_equal(viommu_region_add(bed->ram, bed->root, 0, 0), -EINVAL);
    assert_int_equal(viommu_region_add(bed->root, bed->ram, UINT64_MAX, 0), -EINVAL);
    assert_int_equal(viommu_bus_create(&other), 0);
    region = test_region(other, "other", VIOMMU_REGION_CONTAINER, 0x1000, NULL);
    assert_int_equal(viommu_region_add(bed->root, region, 0, 0), -EINVAL);
    viommu_bus_destroy(other);
}

/* ---- registers ---- */

struct model {
    uint64_t offsets[16];
    unsigned sizes[16];
    unsigned count;
    uint64_t value;
    int error;
    struct bed *bed; /* an access that a write makes, of itself or of another */
    uint64_t aim;
    int aim_error;
    int wait_error;
};

static int model_read(void *opaque, uint64_t offset, unsigned size,
                      const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    struct model *model = opaque;

    assert_true(attrs == &normal);
    model->offsets[model->count % 16] = offset;
    model->sizes[model->count++ % 16] = size;
    *value = model->value;
    return model->error;
}

static int model_write(void *opaque, uint64_t offset, unsigned size,
                       const struct viommu_bus_attrs *attrs, uint64_t value)
{
    struct model *model = opaque;

    model->offsets[model->count % 16] = offset;
    model->sizes[model->count++ % 16] = size;
    model->value = value;
    if (model->bed) {
        model->aim_error = viommu_space_write(model->bed->space, model->aim, &value, 4, attrs);
        model->wait_error = viommu_bus_wait(model->bed->bus);
    }
    return model->error;
}

static struct viommu_region *model_region(struct bed *bed, struct model *model, unsigned max_size)
{
    static struct viommu_region_ops ops[9];
    struct viommu_region_config config = {.name = "model",
                                          .kind = VIOMMU_REGION_MMIO,
                                          .last = 0xfff,
                                          .ops = &ops[max_size],
                                          .opaque = model};
    struct viommu_region *region;

    ops[max_size] = (struct viommu_region_ops){model_read, model_write, max_size};
    assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
    return region;
}

static void accesses_of_any_size(void **state)
{
    struct bed *bed = *state;
    struct model model = {.value = 0x8877665544332211};
    unsigned char bytes[32] = {0};
    static const unsigned sizes[] = {1, 2, 4, 4, 2, 1};
    static const uint64_t offsets[] = {1, 2, 4, 8, 12, 14};
    uint64_t value = 0;

    add(bed, model_region(bed, &model, 4), 0x1000, 0);
    add(bed, bed->ram, 0x2000, 0);
    commit(bed);
    assert_int_equal(viommu_space_read(bed->space, 0x1001, bytes, 14, &normal), 0);
    assert_int_equal(model.count, 6);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(model.sizes[i], sizes[i]);
        assert_int_equal(model.offsets[i], offsets[i]);
    }
    assert_memory_equal(bytes, "\x11\x11\x22\x11\x22\x33\x44\x11\x22\x33\x44\x11\x22\x11", 14);
    /* Over the border of two regions. */
    model.count = 0;
    assert_int_equal(viommu_space_read(bed->space, 0x1ffc, bytes, 12, &normal), 0);
    assert_int_equal(model.count, 1);
    assert_memory_equal(bytes + 4, bed->memory, 8);
    /* What a region says, what nobody answers, what passes the end. */
    model.error = -EIO;
    assert_int_equal(viommu_space_read(bed->space, 0x1000, bytes, 1, &normal), -EIO);
    model.error = -EAGAIN; /* an error as any other: it is not asked for ever */
    assert_int_equal(viommu_space_read(bed->space, 0x1000, bytes, 1, &normal), -EIO);
    assert_int_equal(viommu_space_write(bed->space, 0xfff, bytes, 1, &normal), -ENXIO);
    assert_int_equal(viommu_space_write(bed->space, 0x11fff, "abc", 3, &normal), -ENXIO);
    assert_int_equal(bed->memory[0xffff], 'a');
    assert_int_equal(viommu_space_read(bed->space, UINT64_MAX, bytes, 2, &normal), -EINVAL);
    assert_int_equal(viommu_space_read(bed->space, UINT64_MAX, bytes, 0, &normal), 0);
    /* Unaligned in RAM. */
    assert_int_equal(viommu_space_write(bed->space, 0x2001, "\x01\x02\x03\x04\x05\x06\x07\x08", 8,
                                        &normal), 0);
    assert_int_equal(viommu_space_read(bed->space, 0x2001, &value, 8, &normal), 0);
    assert_int_equal(value, 0x0807060504030201);
}

static void rom_is_not_written(void **state)
{
    struct bed *bed = *state;
    char byte;

    add(bed, test_region(bed->bus, "rom", VIOMMU_REGION_ROM, 0x1000, bed->memory), 0, 0);
    commit(bed);
    assert_int_equal(viommu_space_read(bed->space, 5, &byte, 1, &normal), 0);
    assert_int_equal(byte, bed->memory[5]);
    assert_int_equal(viommu_space_write(bed->space, 5, "x", 1, &normal), -EROFS);
    assert_int_equal(byte, bed->memory[5]);
}

static void callbacks_do_not_come_back(void **state)
{
    struct bed *bed = *state;
    struct model self = {.bed = bed, .aim = 0x1004};
    struct model other = {.bed = NULL};
    uint32_t value = 1;

    add(bed, model_region(bed, &self, 4), 0x1000, 0);
    add(bed, model_region(bed, &other, 4), 0x2000, 0);
    commit(bed);
    assert_int_equal(viommu_space_write(bed->space, 0x1000, &value, 4, &normal), 0);
    assert_int_equal(self.aim_error, -EDEADLK);
    assert_int_equal(self.wait_error, -EDEADLK);
    assert_int_equal(self.count, 1);
    self.aim = 0x2000;
    assert_int_equal(viommu_space_write(bed->space, 0x1000, &value, 4, &normal), 0);
    assert_int_equal(self.aim_error, 0);
    assert_int_equal(other.count, 1);
    /* By way of another. */
    other.bed = bed;
    other.aim = 0x1000;
    assert_int_equal(viommu_space_write(bed->space, 0x1000, &value, 4, &normal), 0);
    assert_int_equal(other.aim_error, -EDEADLK);
    assert_int_equal(self.aim_error, 0);
}

/* ---- chains ---- */

static void permissions_of_the_whole_chain(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *second = test_region(bed->bus, "2", VIOMMU_REGION_CONTAINER, 0, NULL);
    struct viommu_region *third = test_region(bed->bus, "3", VIOMMU_REGION_CONTAINER, 0, NULL);
    struct viommu_space *spaces[2];
    struct test_iommu a;
    struct test_iommu b;
    struct viommu_route route;
    char byte;

    assert_int_equal(viommu_space_create(second, &spaces[0]), 0);
    assert_int_equal(viommu_space_create(third, &spaces[1]), 0);
    test_iommu_init(bed->bus, &a, 4096, spaces[0]);
    test_iommu_init(bed->bus, &b, 256, spaces[1]);
    add(bed, a.region, 0x100000, 0);
    assert_int_equal(viommu_region_add(second, b.region, 0, 0), 0);
    assert_int_equal(viommu_region_add(third, bed->ram, 0, 0), 0);
    commit(bed);
    assert_int_equal(viommu_space_resolve(bed->space, 0x100a10, &normal, &route), 0);
    assert_ptr_equal(route.region, bed->ram);
    assert_int_equal(route.offset, 0xa10);
    assert_int_equal(route.first, 0x100a00); /* the smallest page counts */
    assert_int_equal(route.last, 0x100aff);
    assert_int_equal(route.perm, VIOMMU_READ | VIOMMU_WRITE | VIOMMU_EXEC);
    assert_int_equal(route.hops, 2);
    b.to[1][10] = 10 * 256 | VIOMMU_READ;
    assert_int_equal(viommu_space_resolve(bed->space, 0x100a10, &normal, &route), 0);
    assert_int_equal(route.perm, VIOMMU_READ | VIOMMU_EXEC);
    a.to[1][0] = VIOMMU_WRITE;
    assert_int_equal(viommu_space_resolve(bed->space, 0x100a10, &normal, &route), 0);
    assert_int_equal(route.perm, 0);
    assert_null(route.region);
    assert_int_equal(viommu_space_resolve(bed->space, 0x100b10, &normal, &route), 0);
    assert_int_equal(route.perm, VIOMMU_WRITE);
    /* The other index is not touched. */
    assert_int_equal(viommu_space_resolve(bed->space, 0x100a10, &secure, &route), 0);
    assert_int_equal(route.perm, VIOMMU_READ | VIOMMU_WRITE | VIOMMU_EXEC);
    assert_int_equal(a.refusals + b.refusals, 0);
    /* A real access tells the one that refused, where, and why. */
    b.answer = -EIO;
    assert_int_equal(viommu_space_write(bed->space, 0x100a10, "x", 1, &normal), -EIO);
    assert_int_equal(b.refusals, 1);
    assert_int_equal(b.refused_at, 0xa10);
    assert_int_equal(b.refused_perm, VIOMMU_WRITE);
    byte = 'q';
    assert_int_equal(viommu_space_read(bed->space, 0x100a10, &byte, 1, &normal), 0);
    assert_int_equal(byte, 0); /* reads as zero */
    assert_int_equal(a.refusals, 1);
    /* Taken back for ever: it ends. */
    a.answer = -EAGAIN;
    assert_int_equal(viommu_space_read(bed->space, 0x100a10, &byte, 1, &normal), -EACCES);
}

static void chains_that_do_not_end(void **state)
{
    struct bed *bed = *state;
    struct test_iommu iommus[VIOMMU_HOPS_MAX];
    struct viommu_space *spaces[VIOMMU_HOPS_MAX];
    struct viommu_route route;
    struct test_iommu loop;
    char byte;

    test_iommu_init(bed->bus, &loop, 4096, bed->space);
    add(bed, loop.region, 0, 0);
    commit(bed);
    assert_int_equal(viommu_space_resolve(bed->space, 0, &normal, &route), -ELOOP);
    assert_int_equal(viommu_space_read(bed->space, 0, &byte, 1, &normal), -ELOOP);
    assert_int_equal(loop.refusals, 0);
    assert_int_equal(viommu_region_remove(loop.region), 0);
    /* As many as there may be. */
    add(bed, bed->ram, 0x100000, 0);
    for (unsigned i = 0; i < VIOMMU_HOPS_MAX; i++) {
        struct viommu_region *root = test_region(bed->bus, "", VIOMMU_REGION_CONTAINER, 0, NULL);

        assert_int_equal(viommu_space_create(root, &spaces[i]), 0);
        test_iommu_init(bed->bus, &iommus[i], 4096, i ? spaces[i - 1] : bed->space);
        assert_int_equal(viommu_region_add(root, iommus[i].region, 0, 0), 0);
    }
    iommus[0].to[1][0] = 0x100000 | 3;
    commit(bed);
    assert_int_equal(viommu_space_read(spaces[VIOMMU_HOPS_MAX - 1], 9, &byte, 1, &normal), 0);
    assert_int_equal(byte, bed->memory[9]);
    /* A hop that leads nowhere, or to a space of another bus, is a refusal. */
    iommus[0].space = NULL;
    assert_int_equal(viommu_space_read(spaces[3], 9, &byte, 1, &normal), 0);
    assert_int_equal(iommus[0].refusals, 1);
}

/* ---- life ---- */

static void count_release(void *opaque)
{
    ++*(unsigned *)opaque;
}

static void released_when_nobody_looks(void **state)
{
    static unsigned released; /* the last one goes with the bed */
    struct bed *bed = *state;
    struct viommu_region_config config = {.kind = VIOMMU_REGION_RAM,
                                          .last = 0xfff,
                                          .host = bed->memory,
                                          .opaque = &released,
                                          .released = count_release};
    struct viommu_region *region;
    struct viommu_region *alias;
    struct viommu_bus_ticket ticket;
    struct viommu_cpu *cpu;
    struct viommu_cpu_config none = {0};

    released = 0;
    assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
    add(bed, region, 0, 0);
    commit(bed);
    viommu_region_destroy(region);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(released, 0); /* it is still shown */
    assert_int_equal(viommu_cpu_create(bed->bus, &none, &cpu), 0);
    assert_int_equal(viommu_cpu_begin(cpu), 0);
    commit(bed);
    viommu_bus_wait_begin(bed->bus, &ticket);
    assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), VIOMMU_PENDING);
    assert_int_equal(viommu_bus_wait(bed->bus), -EDEADLK);
    assert_int_equal(released, 0);
    viommu_cpu_safe_point(cpu, viommu_cpu_tlb(cpu));
    assert_int_equal(viommu_bus_wait_end(bed->bus, &ticket), 0);
    assert_int_equal(released, 1);
    viommu_cpu_end(cpu);
    /* An alias keeps it. */
    assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
    alias = test_alias(bed->bus, "alias", region, 0, 0x1000);
    add(bed, alias, 0, 0);
    viommu_region_destroy(region);
    commit(bed);
    assert_view(bed->space, " 0-fff+0");
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(released, 1);
    /* And lets it go. */
    viommu_region_destroy(alias);
    commit(bed);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    assert_int_equal(released, 2);
}

/* ---- callbacks in callbacks ---- */

#define CHAIN 20u

struct chain {
    struct bed *bed;
    unsigned number;
    unsigned *deepest;
};

static int on_chain_read(void *opaque, uint64_t offset, unsigned size,
                         const struct viommu_bus_attrs *attrs, uint64_t *value)
{
    (void)opaque;
    (void)offset;
    (void)size;
    (void)attrs;
    *value = 0;
    return 0;
}

/* Writes the next one's register. */
static int on_chain_write(void *opaque, uint64_t offset, unsigned size,
                          const struct viommu_bus_attrs *attrs, uint64_t value)
{
    const struct chain *chain = opaque;

    (void)offset;
    *chain->deepest = chain->number;
    return chain->number + 1 == CHAIN
               ? 0
               : viommu_space_write(chain->bed->space, 0x10000 + (chain->number + 1) * 0x10, &value,
                                    size, attrs);
}

/* However many regions lead to each other, a thread's stack has an end. */
static void callbacks_nest_so_deep(void **state)
{
    static const struct viommu_region_ops ops = {.read = on_chain_read, .write = on_chain_write};
    struct bed *bed = *state;
    struct viommu_bus_stats before;
    struct viommu_bus_stats after = {.reentries = 7};
    struct chain chains[CHAIN];
    unsigned deepest = 0;
    uint32_t value = 0;

    for (unsigned i = 0; i < CHAIN; i++) {
        struct viommu_region_config config = {.kind = VIOMMU_REGION_MMIO,
                                              .last = 0xf,
                                              .ops = &ops,
                                              .opaque = &chains[i]};
        struct viommu_region *region;

        chains[i] = (struct chain){bed, i, &deepest};
        assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
        add(bed, region, 0x10000 + i * 0x10, 0);
    }
    commit(bed);
    viommu_bus_stats(bed->bus, &before, sizeof(before));
    assert_int_equal(viommu_space_write(bed->space, 0x10000, &value, 4, &normal), -EDEADLK);
    assert_int_equal(deepest, 15);
    viommu_bus_stats(bed->bus, &after, sizeof(after));
    assert_int_equal(after.reentries, before.reentries + 1);
    /* Behind its end nothing is written. */
    memset(&after, 0xff, sizeof(after));
    viommu_bus_stats(bed->bus, &after, 4);
    assert_int_equal(after.reentries >> 32, UINT32_MAX);
}

/* ---- what an embedder may not say ---- */

struct liar {
    unsigned index;
    struct viommu_hop hop;
    unsigned asked;
};

static unsigned liar_index(void *opaque, const struct viommu_bus_attrs *attrs)
{
    (void)attrs;
    return ((struct liar *)opaque)->index;
}

static void liar_translate(void *opaque, uint64_t address, unsigned index, struct viommu_hop *hop)
{
    struct liar *liar = opaque;

    (void)address;
    (void)index;
    liar->asked++;
    *hop = liar->hop;
}

static void an_iommu_that_lies_leads_nowhere(void **state)
{
    static const struct viommu_region_iommu_ops ops = {
        .index_count = 2, .index_of = liar_index, .translate = liar_translate};
    const struct viommu_region_config all = {.last = UINT64_MAX};
    struct bed *bed = *state;
    struct liar liar = {.hop = {.space = bed->space, .address = 0x4000, .perm = VIOMMU_READ}};
    struct viommu_region_config config = {
        .kind = VIOMMU_REGION_IOMMU, .last = 0xfff, .iommu = &ops, .opaque = &liar};
    struct viommu_region_config ram = {
        .kind = VIOMMU_REGION_RAM, .last = 0xfff, .host = bed->memory};
    struct viommu_region *region;
    struct viommu_region *memory;
    struct viommu_bus *other;
    uint8_t byte;

    assert_int_equal(viommu_region_create(bed->bus, &config, &region), 0);
    add(bed, region, 0, 0);
    assert_int_equal(viommu_region_create(bed->bus, &ram, &memory), 0);
    add(bed, memory, 0x4000, 0);
    commit(bed);
    assert_int_equal(viommu_space_read(bed->space, 0, &byte, 1, &normal), 0);
    liar.index = 2; /* it has no such one: it is not asked */
    liar.asked = 0;
    assert_int_equal(viommu_space_read(bed->space, 0, &byte, 1, &normal), -EACCES);
    assert_int_equal(liar.asked, 0);
    liar.index = 0;
    assert_int_equal(viommu_bus_create(&other), 0);
    assert_int_equal(viommu_region_create(other, &all, &region), 0);
    assert_int_equal(viommu_space_create(region, &liar.hop.space), 0);
    assert_int_equal(viommu_region_create(other, &ram, &memory), 0);
    assert_int_equal(viommu_region_add(region, memory, 0x4000, 0), 0);
    assert_int_equal(viommu_bus_commit(other), 0);
    assert_int_equal(viommu_space_read(bed->space, 0, &byte, 1, &normal), -EACCES);
    viommu_bus_destroy(other);
}

static void regions_that_make_no_sense(void **state)
{
    static const struct viommu_region_ops odd = {
        .read = on_chain_read, .write = on_chain_write, .max_size = 3};
    static const struct viommu_region_ops large = {
        .read = on_chain_read, .write = on_chain_write, .max_size = 16};
    static const struct viommu_region_iommu_ops many = {
        .index_count = 17, .index_of = liar_index, .translate = liar_translate};
    static const struct viommu_region_iommu_ops none = {
        .index_of = liar_index, .translate = liar_translate};
    const struct viommu_region_config configs[] = {
        {.kind = VIOMMU_REGION_MMIO, .ops = &odd},
        {.kind = VIOMMU_REGION_MMIO, .ops = &large},
        {.kind = VIOMMU_REGION_IOMMU, .iommu = &many},
        {.kind = VIOMMU_REGION_IOMMU, .iommu = &none},
    };
    struct bed *bed = *state;
    struct viommu_region *region;

    for (size_t i = 0; i < sizeof(configs) / sizeof(configs[0]); i++) {
        assert_int_equal(viommu_region_create(bed->bus, &configs[i], &region), -EINVAL);
    }
}

static void ranges_and_too_little_room(void **state)
{
    struct bed *bed = *state;
    struct viommu_region_config ram = {
        .kind = VIOMMU_REGION_RAM, .last = 0xfff, .host = bed->memory};
    struct viommu_region *region;
    struct viommu_route routes[2] = {{0}};
    size_t count = 1;

    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(viommu_region_create(bed->bus, &ram, &region), 0);
        add(bed, region, 0x2000 * i, 0);
    }
    commit(bed);
    assert_int_equal(viommu_space_ranges(bed->space, routes, &count), -ENOSPC);
    assert_int_equal(count, 2);
    assert_int_equal(routes[0].last, 0xfff);
    assert_null(routes[1].region);
    assert_int_equal(viommu_space_ranges(bed->space, NULL, &count), 0);
    assert_int_equal(count, 2);
}

static void allocations_fail(void **state)
{
    struct bed *bed = *state;
    unsigned fails = 0;

    add(bed, bed->ram, 0, 0);
    commit(bed);
    for (unsigned n = 1;; n++) {
        struct viommu_region *more = NULL;
        struct viommu_region_config config = {.kind = VIOMMU_REGION_ROM,
                                              .last = 0xfff,
                                              .host = bed->memory};
        struct viommu_cpu_config none = {0};
        struct viommu_space *space = NULL;
        struct viommu_cpu *cpu = NULL;
        int error;

        base_alloc_fail_at(n);
        error = viommu_region_create(bed->bus, &config, &more);
        error = error ? error : viommu_space_create(more, &space);
        error = error ? error : viommu_region_add(bed->root, more, 0x4000, 1);
        error = error ? error : viommu_bus_commit(bed->bus);
        error = error ? error : viommu_cpu_create(bed->bus, &none, &cpu);
        fails = n;
        if (!base_alloc_failed()) {
            base_alloc_fail_at(0);
            assert_int_equal(error, 0);
            assert_view(bed->space, "ram 0-3fff+0,  4000-4fff+0, ram 5000-ffff+5000");
            break;
        }
        assert_int_equal(error, -ENOMEM);
        base_alloc_fail_at(0);
        viommu_space_destroy(space);
        viommu_region_destroy(more);
        commit(bed);
        assert_view(bed->space, "ram 0-ffff+0");
    }
    assert_true(fails > 8);
}

static void a_root_in_the_memory_of_another(void **state)
{
    struct bed *bed = *state;
    struct viommu_region *box = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x8000, NULL);
    struct viommu_space *space;
    uintptr_t last = (uintptr_t)box;

    assert_int_equal(viommu_space_create(box, &space), 0);
    assert_int_equal(viommu_region_add(box, bed->ram, 0, 0), 0);
    commit(bed);
    assert_view(space, "ram 0-7fff+0");
    viommu_space_destroy(space);
    viommu_region_destroy(box);
    assert_int_equal(viommu_bus_wait(bed->bus), 0);
    box = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x8000, NULL);
    print_message("%s memory\n", last == (uintptr_t)box ? "the same" : "other");
    assert_int_equal(viommu_space_create(box, &space), 0);
    commit(bed);
    assert_view(space, "");
}

/* What one space shows does not build the others anew, and a number is used again. */
static void spaces_share_regions(void **state)
{
    struct bed *bed = *state;
    struct viommu_space *more;
    struct viommu_region *box = test_region(bed->bus, "box", VIOMMU_REGION_CONTAINER, 0x8000, NULL);

    add(bed, bed->ram, 0, 0);
    assert_int_equal(viommu_space_create(box, &more), 0);
    assert_int_equal(viommu_region_add(box, test_alias(bed->bus, "a", bed->ram, 0x100, 0x100), 0,
                                       0), 0);
    commit(bed);
    assert_view(more, "ram 0-ff+100");
    viommu_space_destroy(more);
    assert_int_equal(viommu_space_create(bed->root, &more), 0);
    assert_view(more, ""); /* and nothing of what the other one saw */
    commit(bed);
    assert_view(more, "ram 0-ffff+0");
    assert_view(bed->space, "ram 0-ffff+0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(overlaps_by_priority, setup, teardown),
        cmocka_unit_test_setup_teardown(aliases, setup, teardown),
        cmocka_unit_test_setup_teardown(regions_that_contain_themselves, setup, teardown),
        cmocka_unit_test_setup_teardown(configurations_that_make_no_sense, setup, teardown),
        cmocka_unit_test_setup_teardown(accesses_of_any_size, setup, teardown),
        cmocka_unit_test_setup_teardown(rom_is_not_written, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_do_not_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(permissions_of_the_whole_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(chains_that_do_not_end, setup, teardown),
        cmocka_unit_test_setup_teardown(released_when_nobody_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(callbacks_nest_so_deep, setup, teardown),
        cmocka_unit_test_setup_teardown(an_iommu_that_lies_leads_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(regions_that_make_no_sense, setup, teardown),
        cmocka_unit_test_setup_teardown(ranges_and_too_little_room, setup, teardown),
        cmocka_unit_test_setup_teardown(allocations_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(a_root_in_the_memory_of_another, setup, teardown),
        cmocka_unit_test_setup_teardown(spaces_share_regions, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
