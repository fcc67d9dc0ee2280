/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the argument of --cache-mode. */
#include "cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void test_what_is_said(void **state)
{
    static const struct {
        const char *text;
        enum viommu_cache_mode mode;
        uint32_t quota;
        uint64_t seed;
    } cases[] = {
        {"normal", VIOMMU_CACHE_NORMAL, 0, 0},
        {"faithful", VIOMMU_CACHE_FAITHFUL, 0, 0},
        {"faithful,quota=1", VIOMMU_CACHE_FAITHFUL, 1, 0},
        {"faithful,quota=16m", VIOMMU_CACHE_FAITHFUL, 1 << 24, 0},
        {"hostile,seed=0", VIOMMU_CACHE_HOSTILE, 0, 0},
        {"hostile,seed=0xffffffffffffffff", VIOMMU_CACHE_HOSTILE, 0, UINT64_MAX},
        {"hostile,seed=7,quota=9", VIOMMU_CACHE_HOSTILE, 9, 7},
        {"hostile,quota=9,seed=7", VIOMMU_CACHE_HOSTILE, 9, 7},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct viommu_config config = {.iotlb_entries = 256};

        assert_true(cache_mode_parse(cases[i].text, &config));
        assert_int_equal(config.cache_mode, cases[i].mode);
        assert_int_equal(config.cache_quota, cases[i].quota);
        assert_int_equal(config.cache_seed, cases[i].seed);
        assert_int_equal(config.iotlb_entries, 256);
    }
}

static void test_what_is_wrong(void **state)
{
    static const char *const wrong[] = {
        "", ",", "Faithful", "faith", "faithfully", "faithful,", "faithful,,seed=1",
        "faithful,seed", "faithful,seed=", "faithful,=1", "faithful,seed=x", "faithful,quota=0",
        "faithful,quota=16777217", "faithful,quota=0x100000001", "faithful,seeds=1",
        "hostile,seed=18446744073709551616", "hostile,seed=00000000000000000000000000000000001",
        "seed=1", "faithful seed=1",
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct viommu_config config = {0};

        assert_false(cache_mode_parse(wrong[i], &config));
        assert_int_equal(config.cache_mode, 0);
        assert_int_equal(config.cache_quota, 0);
        assert_int_equal(config.cache_seed, 0);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_said),
        cmocka_unit_test(test_what_is_wrong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
