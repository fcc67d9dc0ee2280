/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the VIOT builder: every byte of tables, and each way to refuse a value. The bytes are
 * the specification's, written by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <viommu/viot.h>

static const struct viommu_viot_iommu iommu = {.function = 0x20};
static const struct viommu_viot_range range = {.first = 0x28, .last = 0x28};
static const struct viommu_viot one = {
    .iommus = &iommu, .iommu_count = 1, .ranges = &range, .range_count = 1,
};

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t total = 0;

    for (size_t i = 0; i < count; i++) {
        total = (uint8_t)(total + bytes[i]);
    }
    return total;
}

static void test_one(void **state)
{
    static const uint8_t body[] = {
        2, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* nodes, where they begin */
        3, 0, 16, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 24, 0, 0x28, 0, 0, 0, 0, 0, 0, 0, 0x28, 0, 0x28, 0, 48, 0, 0, 0, 0, 0, 0, 0,
    };
    uint8_t table[128];
    int64_t length = viommu_viot_build(&one, table, sizeof(table));

    (void)state;
    assert_int_equal(length, 88);
    assert_memory_equal(table, "VIOT", 4);
    assert_int_equal(table[4] | table[5] << 8 | table[6] << 16 | table[7] << 24, 88);
    assert_int_equal(table[8], 0);
    assert_memory_equal(table + 36, body, sizeof(body));
    assert_int_equal(sum(table, 88), 0);
}

/* Two virtio-iommus; ranges of two segments, the widest among them. */
static void test_many(void **state)
{
    static const uint8_t body[] = {
        5, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 16, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        3, 0, 16, 0, 0x34, 0x12, 0x02, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 24, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 1, 64, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 24, 0, 0, 0, 0, 0, 0x35, 0x12, 0x35, 0x12, 0, 0, 0xff, 0xff, 64, 0, 0, 0, 0, 0, 0, 0,
        1, 0, 24, 0, 0x21, 0, 0, 0, 0, 0, 0, 0, 0x21, 0, 0xff, 0, 48, 0, 0, 0, 0, 0, 0, 0,
    };
    static const struct viommu_viot_iommu iommus[] = {
        {.function = 0x20}, {.segment = 0x1234, .function = 0xfe02},
    };
    static const struct viommu_viot_range ranges[] = {
        {.first = 0x100, .last = 0x1ff, .iommu = 1},
        {.segment = 0x1235, .first = 0, .last = 0xffff, .iommu = 1},
        {.first = 0x21, .last = 0xff, .iommu = 0},
    };
    static const struct viommu_viot viot = {
        .iommus = iommus, .iommu_count = 2, .ranges = ranges, .range_count = 3,
    };
    uint8_t table[256];
    int64_t length = viommu_viot_build(&viot, table, sizeof(table));

    (void)state;
    assert_int_equal(length, 36 + sizeof(body));
    assert_memory_equal(table + 36, body, sizeof(body));
    assert_int_equal(sum(table, (size_t)length), 0);
}

static void test_room(void **state)
{
    static const struct viommu_viot none = {0};
    uint8_t table[89];

    (void)state;
    assert_int_equal(viommu_viot_build(&none, NULL, 0), 48);
    assert_int_equal(viommu_viot_build(&one, NULL, 0), 88);
    memset(table, 0xaa, sizeof(table));
    assert_int_equal(viommu_viot_build(&one, table, 88), 88);
    assert_int_equal(table[88], 0xaa);
    memset(table, 0xaa, sizeof(table));
    assert_int_equal(viommu_viot_build(&one, table, 87), -ENOSPC);
    assert_int_equal(table[87], 0xaa);
    assert_int_equal(viommu_viot_build(&one, table, 0), -ENOSPC);
}

static int64_t build(struct viommu_viot_range first, struct viommu_viot_range second)
{
    struct viommu_viot_range ranges[2] = {first, second};
    struct viommu_viot viot = one;

    viot.ranges = ranges;
    viot.range_count = 2;
    return viommu_viot_build(&viot, NULL, 0);
}

static void test_wrong_ranges(void **state)
{
    struct viommu_viot_range other = {.first = 0x30, .last = 0x37};

    (void)state;
    assert_int_equal(build(range, other), 112);
    other.iommu = 1;
    assert_int_equal(build(range, other), -EINVAL);
    other.iommu = 0;
    other.last = 0x2f;
    assert_int_equal(build(range, other), -EINVAL);
    /* Overlapping, at either end and the other way round. */
    other = (struct viommu_viot_range){.first = 0x28, .last = 0x30};
    assert_int_equal(build(range, other), -EINVAL);
    assert_int_equal(build(other, range), -EINVAL);
    other = (struct viommu_viot_range){.first = 0x21, .last = 0x28};
    assert_int_equal(build(range, other), -EINVAL);
    other.last = 0x27;
    assert_int_equal(build(range, other), 112);
    /* The virtio-iommu itself is behind none. */
    other.first = 0x20;
    assert_int_equal(build(range, other), -EINVAL);
    other = (struct viommu_viot_range){.first = 0x18, .last = 0x20};
    assert_int_equal(build(range, other), -EINVAL);
    other.last = 0x1f;
    assert_int_equal(build(range, other), 112);
    /* In another segment all is free. */
    other = (struct viommu_viot_range){.segment = 1, .first = 0, .last = 0xffff};
    assert_int_equal(build(range, other), 112);
}

static void test_wrong_lists(void **state)
{
    static const struct viommu_viot_iommu twice[] = {{.function = 8}, {.function = 8}};
    static const struct viommu_viot_iommu apart[] = {{.function = 8},
                                                     {.segment = 1, .function = 8}};
    struct viommu_viot viot = one;

    (void)state;
    viot.iommus = NULL;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -EINVAL);
    viot = one;
    viot.ranges = NULL;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -EINVAL);
    viot = one;
    viot.iommu_count = 2;
    viot.iommus = twice;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -EINVAL);
    viot.iommus = apart;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), 104);
}

/* The place of a virtio-iommu has 16 bits, and so has the number of nodes. */
static void test_too_many(void **state)
{
    enum { IOMMUS = 4093, RANGES = 65535 - 1 };
    struct viommu_viot_iommu *iommus = calloc(IOMMUS + 1, sizeof(*iommus));
    struct viommu_viot_range *ranges = calloc(RANGES + 1, sizeof(*ranges));
    struct viommu_viot viot = {.iommus = iommus, .ranges = ranges};

    (void)state;
    assert_true(iommus && ranges);
    for (unsigned i = 0; i <= IOMMUS; i++) {
        iommus[i].function = (uint16_t)i;
    }
    viot.iommu_count = IOMMUS;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), 48 + 16 * IOMMUS);
    viot.iommu_count = IOMMUS + 1;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -E2BIG);
    /* Refused before anything is compared. */
    viot.iommu_count = 1;
    viot.range_count = RANGES + 1;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -E2BIG);
    viot.range_count = SIZE_MAX;
    assert_int_equal(viommu_viot_build(&viot, NULL, 0), -E2BIG);
    free(iommus);
    free(ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_wrong_ranges),
        cmocka_unit_test(test_wrong_lists),
        cmocka_unit_test(test_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
