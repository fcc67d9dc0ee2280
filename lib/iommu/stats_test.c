/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the counters: sums over devices that are there and that are gone, and structures of
 * other sizes.
 */
#include "iommu/test_model.h"

static struct test_model model;

static int setup(void **state)
{
    (void)state;
    model_init(&model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

/* 3 translations, 1 refused, 16 bytes read, 8 written. */
static void use(struct viommu_device *device)
{
    char buf[16] = {0};

    assert_int_equal(viommu_device_read(device, NULL, 0, buf, 16), 0);
    assert_int_equal(viommu_device_write(device, NULL, 0, buf, 8), 0);
    assert_int_equal(viommu_device_read(device, NULL, UINT64_MAX, buf, 1), -EFAULT);
}

static void test_sum_over_devices(void **state)
{
    struct viommu_device *devices[3];
    struct viommu_stats stats;

    (void)state;
    model.last = 0xffff;
    for (unsigned i = 0; i < 3; i++) {
        devices[i] = model_device(&model, (uint16_t)i);
        use(devices[i]);
    }
    /* Two go: what they did stays counted. */
    assert_int_equal(viommu_device_remove(devices[0]), 0);
    assert_int_equal(viommu_device_remove(devices[2]), 0);
    use(devices[1]);
    stats = model_stats(&model);
    assert_int_equal(stats.translations, 12);
    assert_int_equal(stats.refused, 4);
    assert_int_equal(stats.bytes_read, 64);
    assert_int_equal(stats.bytes_written, 32);
    assert_int_equal(stats.interrupts_requested, 0);
}

/* Another release's structure: what it has is filled, no byte behind it is touched. */
static void test_smaller(void **state)
{
    static const size_t sizes[] = {0, 1, 4, 8, 12, 16, sizeof(struct viommu_stats) - 1};
    unsigned char buf[sizeof(struct viommu_stats) + 8];
    struct viommu_stats stats;

    (void)state;
    model.last = 0xffff;
    use(model_device(&model, 1));
    stats = model_stats(&model);
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        memset(buf, 0xee, sizeof(buf));
        assert_int_equal(viommu_stats_get(&model.iommu, (struct viommu_stats *)(void *)buf,
                                          sizes[i]), 0);
        assert_memory_equal(buf, &stats, sizes[i]);
        assert_int_equal(buf[sizes[i]], 0xee);
    }
}

static void test_larger(void **state)
{
    struct {
        struct viommu_stats stats;
        uint64_t more[4];
        uint64_t behind;
    } large;
    struct viommu_stats stats;

    (void)state;
    model.last = 0xffff;
    use(model_device(&model, 1));
    stats = model_stats(&model);
    memset(&large, 0xee, sizeof(large));
    assert_int_equal(viommu_stats_get(&model.iommu, &large.stats,
                                      sizeof(large.stats) + sizeof(large.more)), 0);
    assert_memory_equal(&large.stats, &stats, sizeof(stats));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(large.more[i], 0);
    }
    assert_int_equal(large.behind, 0xeeeeeeeeeeeeeeee);
}

/* They count from the start on, whether or not anything is reset. */
static void test_reset_keeps_them(void **state)
{
    (void)state;
    model.last = 0xffff;
    use(model_device(&model, 1));
    assert_int_equal(viommu_reset(&model.iommu), 0);
    assert_int_equal(model_stats(&model).translations, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sum_over_devices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_smaller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_larger, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset_keeps_them, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
