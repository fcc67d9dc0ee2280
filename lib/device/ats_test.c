/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of translation requests: runs of entries and where they end, and calls that are refused. */
#include "iommu/test_model.h"

#include <errno.h>

#define ALL 16

static struct test_model model;
static struct viommu_device *device;
static struct viommu_ats_entry entries[ALL + 1];

static int setup(void **state)
{
    (void)state;
    memset(entries, 0xee, sizeof(entries));
    model_init(&model);
    device = model_device(&model, 0x28);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    model_fini(&model);
    return 0;
}

static int ask(uint64_t iova, uint64_t len, unsigned count)
{
    return viommu_device_ats_translate(device, NULL, iova, len, false, entries, count);
}

static void test_run(void **state)
{
    (void)state;
    model.offset = 0x100000;
    assert_int_equal(ask(0x1000, 0x5000, ALL), 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(entries[i].iova, 0x1000 + i * 0x1000);
        assert_int_equal(entries[i].gpa, 0x101000 + i * 0x1000);
        assert_int_equal(entries[i].mask, 0xfff);
        assert_int_equal(entries[i].perm, VIOMMU_READ | VIOMMU_WRITE);
    }
    assert_int_equal(model_stats(&model).translations, 1);
}

/* Pages are counted as the range touches them. */
static void test_lengths(void **state)
{
    static const struct {
        uint64_t iova;
        uint64_t len;
        int pages;
    } cases[] = {
        {0, 1, 1}, {0xfff, 1, 1}, {0xfff, 2, 2}, {0, 0x1000, 1}, {0, 0x1001, 2}, {0x800, 0x1000, 2},
        {UINT64_MAX, 1, 1}, {UINT64_MAX - 0x1000, 0x1001, 2}, {0, UINT64_MAX, ALL},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        assert_int_equal(ask(cases[i].iova, cases[i].len, ALL), cases[i].pages);
    }
}

static void test_count_is_kept(void **state)
{
    struct viommu_ats_entry untouched;

    (void)state;
    memset(&untouched, 0xee, sizeof(untouched));
    for (unsigned count = 1; count <= ALL; count++) {
        memset(entries, 0xee, sizeof(entries));
        assert_int_equal(ask(0, 0x100000, count), count);
        assert_memory_equal(&entries[count], &untouched, sizeof(untouched));
    }
}

/* The first refusal is the answer; a later one ends the run. */
static void test_refusal(void **state)
{
    (void)state;
    model.last = 0x2fff;
    assert_int_equal(ask(0x1000, 0x5000, ALL), 2);
    assert_int_equal(ask(0x3000, 0x1000, ALL), -EFAULT);
    assert_int_equal(model_stats(&model).refused, 1);
}

static void test_large_pages(void **state)
{
    (void)state;
    model.mask = 0x1fffff;
    assert_int_equal(ask(0x212345, 0x200000, ALL), 2);
    assert_int_equal(entries[0].iova, 0x200000);
    assert_int_equal(entries[1].iova, 0x400000);
}

static void test_refused_calls(void **state)
{
    struct viommu_dma_attrs attrs = {.alias = 3};
    struct viommu_device_config config = {.requester = 9};
    struct viommu_device *plain;

    (void)state;
    assert_int_equal(ask(0, 0, 1), -EINVAL);
    assert_int_equal(ask(0, 1, 0), -EINVAL);
    assert_int_equal(ask(1, UINT64_MAX, 1), 1);
    assert_int_equal(ask(2, UINT64_MAX, 1), -EINVAL);
    assert_int_equal(ask(UINT64_MAX, 2, 1), -EINVAL);
    assert_int_equal(viommu_device_ats_translate(device, &attrs, 0, 1, false, entries, 1), -EINVAL);
    assert_int_equal(viommu_device_add(&model.iommu, &config, &plain), 0);
    assert_int_equal(viommu_device_ats_translate(plain, NULL, 0, 1, false, entries, 1), -ENOTSUP);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_run, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_count_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_large_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_calls, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
