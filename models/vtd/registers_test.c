/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the register file: reset values, what can be written, accesses of every size at every
 * offset,
 * and random accesses against a model that keeps bytes.
 *
 * The model: every byte of the register space has a mask of bits that take what is written. On
 * top of it
 * are the two registers that start an invalidation, which keep their command bit until it is
 * processed.
 */
#include "support/random.h"
#include "vtd/test_unit.h"

#include <errno.h>
#include <string.h>

#define SPACE 0x2000u
#define IVA 0xf0u

/* From the specification, 11.4. */
struct expected {
    uint16_t offset;
    uint8_t size;
    uint64_t reset;
    uint64_t writable;
};

static const struct expected plain[] = {
    {0x00, 4, 0x10, 0},                            /* VER */
    {0x18, 4, 0, 0},                               /* GCMD reads 0 */
    {0x1c, 4, 0, 0},                               /* GSTS */
    {0x20, 8, 0, 0xfffffffffffffc00},              /* RTADDR: address and TTM */
    {0x28, 8, 0, 0x60000003ffffffff},              /* CCMD without ICC */
    {0x34, 4, 0, 0},                               /* FSTS */
    {0x38, 4, 0x80000000, 0x80000000},             /* FECTL */
    {0x3c, 4, 0, 0xffff},                          /* FEDATA */
    {0x40, 4, 0, 0xfffffffc},                      /* FEADDR */
    {0x44, 4, 0, 0xffffffff},                      /* FEUADDR */
    {0x64, 4, 0, 0},                               /* PMEN: no protected regions */
    {0x80, 8, 0, 0},                               /* IQH */
    {0x88, 8, 0, 0x7fff0},                         /* IQT */
    {0x90, 8, 0, 0xfffffffffffff807},              /* IQA */
    {0x9c, 4, 0, 0},                               /* ICS */
    {0xa0, 4, 0x80000000, 0x80000000},             /* IECTL */
    {0xa4, 4, 0, 0xffff},                          /* IEDATA */
    {0xa8, 4, 0, 0xfffffffc},                      /* IEADDR */
    {0xac, 4, 0, 0xffffffff},                      /* IEUADDR */
    {0xb0, 8, 0, 0},                               /* IQERCD */
    {0xb8, 8, 0, 0},                               /* IRTA: no interrupt remapping */
    {IVA, 8, 0, 0},                                /* write-only */
    {IVA + 8, 8, 0, 0x3003ffff00000000},           /* IOTLB without IVT */
};

#define PLAIN (sizeof(plain) / sizeof(*plain))

static void test_reset_values(void **state)
{
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < PLAIN; i++) {
        assert_int_equal(guest_read(&unit.guest, plain[i].offset, plain[i].size), plain[i].reset);
    }
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(guest_read(&unit.guest, unit.guest.fault_offset + 8 * i, 8), 0);
    }
    unit_fini(&unit);
}

static void test_writable_bits(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    for (unsigned i = 0; i < PLAIN; i++) {
        const struct expected *reg = &plain[i];
        uint64_t command = reg->offset == 0x28 || reg->offset == IVA + 8 ? 1ull << 63 : 0;

        if (reg->offset == 0x18) {
            continue; /* commands */
        }
        guest_write(guest, reg->offset, reg->size, ~0ull & ~command);
        assert_int_equal(guest_read(guest, reg->offset, reg->size), reg->reset | reg->writable);
        guest_write(guest, reg->offset, reg->size, 0);
        assert_int_equal(guest_read(guest, reg->offset, reg->size), reg->reset & ~reg->writable);
    }
    unit_fini(&unit);
}

/* The model: bytes, and masks of what can be written. */
struct bytes {
    uint8_t value[SPACE + 8];
    uint8_t mask[SPACE + 8];
};

static void put(uint8_t *at, uint64_t value, unsigned size)
{
    for (unsigned i = 0; i < size; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

static uint64_t get(const uint8_t *at, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++) {
        value |= (uint64_t)at[i] << 8 * i;
    }
    return value;
}

static void model_init(struct bytes *model, struct guest *guest)
{
    memset(model, 0, sizeof(*model));
    put(model->value + SPEC_CAP, guest->cap, 8);
    put(model->value + SPEC_ECAP, guest->ecap, 8);
    for (unsigned i = 0; i < PLAIN; i++) {
        put(model->value + plain[i].offset, plain[i].reset, plain[i].size);
        put(model->mask + plain[i].offset, plain[i].writable, plain[i].size);
    }
}

static void model_write(struct bytes *model, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++) {
        uint8_t *byte = &model->value[offset + i];
        uint8_t mask = model->mask[offset + i];

        *byte = (uint8_t)((*byte & ~mask) | ((uint8_t)(value >> 8 * i) & mask));
    }
}

/* Every size at every offset reads the bytes that are there. */
static void test_read_any_size_and_offset(void **state)
{
    static struct bytes model;
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.fault_records = 256});
    model_init(&model, &unit.guest);
    for (unsigned i = 0; i < PLAIN; i++) {
        uint64_t value = 0x1122334455667788 & plain[i].writable;

        if (value) {
            guest_write(&unit.guest, plain[i].offset, plain[i].size, value);
            model_write(&model, plain[i].offset, plain[i].size, value);
        }
    }
    for (unsigned offset = 0; offset < SPACE; offset++) {
        for (unsigned size = 1; size <= 8; size++) {
            assert_int_equal(guest_read(&unit.guest, offset, size),
                             get(model.value + offset, size));
        }
    }
    unit_fini(&unit);
}

static bool overlaps(uint64_t offset, unsigned size, uint64_t byte)
{
    return byte >= offset && byte < offset + size;
}

/* Writes to unit and model; does not touch what starts commands. */
static void write_both(struct unit *unit, struct bytes *model, uint64_t offset, unsigned size,
                       uint64_t value)
{
    static const struct {
        uint16_t offset;
        uint8_t bits;
    } commands[] = {{0x1b, 0xc4}, {0x2f, 0x80}, {IVA + 15, 0x80}};

    for (unsigned i = 0; i < 3; i++) {
        if (overlaps(offset, size, commands[i].offset)) {
            value &= ~((uint64_t)commands[i].bits << 8 * (commands[i].offset - offset));
        }
    }
    guest_write(&unit->guest, offset, size, value);
    model_write(model, offset, size, value);
}

static void test_random_writes(void **state)
{
    static struct bytes model;
    struct random random = {2026};
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    model_init(&model, &unit.guest);
    for (unsigned i = 0; i < 300000; i++) {
        unsigned limit = random_percent(&random, 90) ? 0x140 : SPACE;
        uint64_t offset = random_below(&random, limit);
        unsigned size = 1 + random_below(&random, 8);

        write_both(&unit, &model, offset, size, random_u64(&random));
        offset = random_below(&random, limit);
        size = 1 + random_below(&random, 8);
        assert_int_equal(guest_read(&unit.guest, offset, size), get(model.value + offset, size));
        if (i % 100 == 0) {
            guest_process(&unit.guest);
        }
    }
    assert_int_equal(unit.interrupt_count, 0);
    unit_fini(&unit);
}

/* Any access at all, with processing in between: something defined and harmless happens. */
static void test_random_commands_are_harmless(void **state)
{
    struct random random = {77};
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.device_tlb = true, .caching_mode = true});
    for (unsigned i = 0; i < guest->ram_size; i += 8) {
        guest_store(guest, i, random_u64(&random) & ~(random_u64(&random) & 0xfffff00000));
    }
    for (unsigned i = 0; i < 100000; i++) {
        uint64_t value = random_u64(&random);

        guest_write(guest, random_below(&random, 0x100), 1 + random_below(&random, 8),
                    random_percent(&random, 50) ? value & 0x3ff000 : value);
        if (random_percent(&random, 30)) {
            (void)viommu_process(guest->iommu, 1 + random_below(&random, 300));
        }
        if (random_percent(&random, 10)) {
            (void)unit_write(&unit, value & 0xffffffff);
        }
    }
    assert_int_equal(viommu_reset(guest->iommu), 0);
    guest_set_root(guest);
    unit_fini(&unit);
}

/* The top of the offsets, where sums wrap, and the end of the registers. */
static void test_outside(void **state)
{
    static const uint64_t offsets[] = {
        SPACE - 1, SPACE, 0xffffffff, 0x100000018, ~0ull - 8, ~0ull - 7, ~0ull - 3, ~0ull};
    struct unit unit;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){.fault_records = 256});
    for (unsigned i = 0; i < sizeof(offsets) / sizeof(*offsets); i++) {
        for (unsigned size = 1; size <= 8; size++) {
            guest_write(&unit.guest, offsets[i], size, ~0ull);
            assert_int_equal(guest_read(&unit.guest, offsets[i], size), 0);
        }
    }
    guest_process(&unit.guest);
    assert_int_equal(guest_read(&unit.guest, SPEC_GSTS, 4), 0);
    assert_int_equal(viommu_vtd_register_size(unit.guest.iommu) % 4096, 0);
    unit_fini(&unit);
}

static void test_bad_sizes(void **state)
{
    struct unit unit;
    uint64_t value;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    assert_int_equal(viommu_mmio_read(unit.guest.iommu, 0, 0, &value), -EINVAL);
    assert_int_equal(viommu_mmio_read(unit.guest.iommu, 0, 9, &value), -EINVAL);
    assert_int_equal(viommu_mmio_write(unit.guest.iommu, 0, 0, 0), -EINVAL);
    assert_int_equal(viommu_mmio_write(unit.guest.iommu, 0, 9, 0), -EINVAL);
    unit_fini(&unit);
}

/* Bits of the value past the access's size are nobody's. */
static void test_value_past_the_size(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    guest_write(guest, SPEC_RTADDR, 4, 0xffffffffffffffff);
    assert_int_equal(guest_read(guest, SPEC_RTADDR, 8), 0xfffffc00);
    guest_write(guest, SPEC_RTADDR + 4, 2, 0xffffffffffff1234);
    assert_int_equal(guest_read(guest, SPEC_RTADDR, 8), 0x1234fffffc00);
    unit_fini(&unit);
}

/* A register in halves, as 32-bit guests write them. */
static void test_command_fires_with_its_top_byte(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    guest_write(guest, 0x28, 4, 7);
    guest_process(guest);
    assert_int_equal(guest_read(guest, 0x28, 8), 7);
    guest_write(guest, 0x2c, 4, 0xa0000000); /* ICC, global */
    assert_int_equal(guest_read(guest, 0x2c, 4) >> 31, 1);
    guest_process(guest);
    assert_int_equal(guest_read(guest, 0x28, 8), 1ull << 61 | 1ull << 59 | 7);
    guest_write(guest, IVA + 15, 1, 0x90); /* IVT, global, as one byte */
    guest_process(guest);
    assert_int_equal(guest_read(guest, IVA + 8, 8), 1ull << 60 | 1ull << 57);
    unit_fini(&unit);
}

/* One wide store across the tail of the queue's registers does what two would. */
static void test_straddling_write(void **state)
{
    struct unit unit;
    struct guest *guest = &unit.guest;

    (void)state;
    unit_init(&unit, &(struct viommu_vtd_config){0});
    /* FEDATA's upper half, FEADDR's lower. */
    guest_write(guest, SPEC_FEDATA, 4, 0x1111);
    guest_write(guest, SPEC_FEDATA + 2, 4, 0x5678ffff);
    assert_int_equal(guest_read(guest, SPEC_FEDATA, 4), 0x1111);
    assert_int_equal(guest_read(guest, SPEC_FEADDR, 4), 0x5678);
    /* IQT and IQA. */
    guest_write(guest, SPEC_IQT + 4, 8, 0xabcde00000000000);
    assert_int_equal(guest_read(guest, SPEC_IQT, 8), 0);
    assert_int_equal(guest_read(guest, SPEC_IQA, 8), 0xabcde000);
    unit_fini(&unit);
}

static void test_no_write_before_start(void **state)
{
    struct viommu_config config = {0};
    struct viommu_vtd_config vtd = {0};
    struct viommu *iommu;
    uint64_t value;

    (void)state;
    assert_int_equal(viommu_memory_create(&config.memory), 0);
    assert_int_equal(viommu_vtd_create(&config, &vtd, &iommu), 0);
    assert_int_equal(viommu_mmio_read(iommu, 0, 4, &value), -EAGAIN);
    assert_int_equal(viommu_mmio_write(iommu, 0, 4, 0), -EAGAIN);
    viommu_destroy(iommu);
    viommu_memory_destroy(config.memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reset_values),
        cmocka_unit_test(test_writable_bits),
        cmocka_unit_test(test_read_any_size_and_offset),
        cmocka_unit_test(test_random_writes),
        cmocka_unit_test(test_random_commands_are_harmless),
        cmocka_unit_test(test_outside),
        cmocka_unit_test(test_bad_sizes),
        cmocka_unit_test(test_value_past_the_size),
        cmocka_unit_test(test_command_fires_with_its_top_byte),
        cmocka_unit_test(test_straddling_write),
        cmocka_unit_test(test_no_write_before_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
