/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the iommufd backend where no kernel is needed: what it asks for, in what order, and what
 * it makes of refusals. The kernel is played: test_kernel.h. (The real one is met by the tests with
 * guests.)
 */
#include <viommu/iommufd.h>

#include "base/alloc.h"
#include "iommufd/test_kernel.h"

static int setup(void **state)
{
    (void)state;
    kernel_begin();
    return 0;
}

static int try_create(struct viommu_iommufd **iommufd)
{
    struct viommu_iommufd_config config = {.fd = FD, .ioas = IOAS};

    return viommu_iommufd_create(&config, iommufd);
}

static struct viommu_iommufd *create(struct viommu_subscription *what, bool with_cut_off)
{
    struct viommu_iommufd_config config = {
        .fd = FD,
        .ioas = IOAS,
        .mappings_max = 50,
        .cut_off = with_cut_off ? cut_off : NULL,
        .opaque = &space,
    };
    struct viommu_iommufd *iommufd;

    assert_int_equal(viommu_iommufd_create(&config, &iommufd), 0);
    viommu_iommufd_subscription(iommufd, what);
    return iommufd;
}

static void test_subscription(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd = create(&what, false);

    (void)state;
    expect_usual_mirror(&what);
    assert_false(what.unmap_spans);
    assert_int_equal(what.mappings_max, 50);
    assert_int_equal(viommu_iommufd_destroy(iommufd), 0);
    assert_int_equal(viommu_iommufd_destroy(NULL), 0);
}

static void test_many_ranges(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd;

    (void)state;
    for (unsigned i = 0; i < RANGES; i++) {
        kernel.ranges[i] = (struct iommufd_range){i << 20, (i << 20) + 0x7ffff};
    }
    kernel.range_count = RANGES;
    iommufd = create(&what, false);
    assert_int_equal(kernel.asks, 2);
    assert_int_equal(what.allowed_count, RANGES);
    assert_int_equal(what.allowed[RANGES - 1].first, (RANGES - 1) << 20);
    viommu_iommufd_destroy(iommufd);
}

static void test_bad_answers(void **state)
{
    struct viommu_iommufd *iommufd;

    (void)state;
    kernel.always_more = true;
    assert_int_equal(try_create(&iommufd), -EIO);
    assert_true(kernel.asks < 100);
    kernel.always_more = false;
    kernel.range_count = 0; /* nothing may be mapped: not the same as everything */
    assert_int_equal(try_create(&iommufd), -ERANGE);
    kernel.range_count = 2;
    kernel.ranges[1].last = 0;
    assert_int_equal(try_create(&iommufd), -EIO);
    kernel.ask_error = EMSGSIZE; /* though there is room */
    assert_int_equal(try_create(&iommufd), -EIO);
    kernel.ask_error = ENOTTY; /* a file of another kind */
    assert_int_equal(try_create(&iommufd), -ENOTTY);
}

static void test_alignment(void **state)
{
    const struct {
        uint64_t alignment;
        uint64_t page_sizes;
    } cases[] = {{0, 0}, {1, UINT64_MAX}, {0x10000, ~UINT64_C(0xffff)}};

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct viommu_subscription what;
        struct viommu_iommufd *iommufd;

        kernel.alignment = cases[i].alignment;
        iommufd = create(&what, false);
        assert_int_equal(what.page_sizes, cases[i].page_sizes);
        viommu_iommufd_destroy(iommufd);
    }
}

static void test_bad_arguments(void **state)
{
    struct viommu_iommufd_config config = {.fd = -1, .ioas = IOAS};
    struct viommu_iommufd *iommufd;

    (void)state;
    assert_int_equal(viommu_iommufd_create(&config, &iommufd), -EINVAL);
    assert_int_equal(viommu_iommufd_create(NULL, &iommufd), -EINVAL);
    config.fd = FD;
    assert_int_equal(viommu_iommufd_create(&config, NULL), -EINVAL);
    config.ioas = IOAS + 1;
    assert_int_equal(viommu_iommufd_create(&config, &iommufd), -ENOENT);
}

static void test_map_and_unmap(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd = create(&what, false);

    (void)state;
    assert_int_equal(map(&what, 0x1000, 0x2fff, VIOMMU_READ | VIOMMU_WRITE), 0);
    assert_int_equal(kernel.map.flags, IOMMUFD_MAP_FIXED | IOMMUFD_MAP_READ | IOMMUFD_MAP_WRITE);
    assert_int_equal(kernel.map.iova, 0x1000);
    assert_int_equal(kernel.map.length, 0x2000);
    assert_int_equal(kernel.map.address, 0x70001000);
    assert_int_equal(map(&what, 0x3000, 0x3fff, VIOMMU_WRITE), 0);
    assert_int_equal(kernel.map.flags, IOMMUFD_MAP_FIXED | IOMMUFD_MAP_WRITE);
    assert_int_equal(map(&what, 0, 0xfff, VIOMMU_READ), 0);
    assert_int_equal(kernel.map.flags, IOMMUFD_MAP_FIXED | IOMMUFD_MAP_READ);
    assert_int_equal(unmap(&what, 0x1000, 0x2fff), 0);
    assert_int_equal(unmap(&what, 0, 0xfff), 0);
    assert_int_equal(space.count, 1);
    assert_int_equal(viommu_iommufd_destroy(iommufd), 0);
    assert_int_equal(space.count, 0);
}

static void test_refusals(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd = create(&what, false);

    (void)state;
    for (unsigned i = 0; i < MAPPINGS; i++) {
        assert_int_equal(map(&what, i << 16, (i << 16) + 0xfff, VIOMMU_READ), 0);
    }
    assert_int_equal(map(&what, 0x10000, 0x10fff, VIOMMU_READ), -EEXIST);
    assert_int_equal(map(&what, 0x900000, 0x900fff, VIOMMU_READ), -ENOMEM);
    assert_int_equal(map(&what, 0x900000, 0x900fff, 0), -EINVAL);
    assert_int_equal(unmap(&what, 0x800000, 0x800fff), -ENOENT);
    space.unmap_less = 0x800;
    assert_int_equal(unmap(&what, 0x10000, 0x10fff), -EIO);
    space.unmap_error = EBUSY;
    assert_int_equal(unmap(&what, 0x20000, 0x20fff), -EBUSY);
    expect_no_replace(&what);
    assert_int_equal(viommu_iommufd_destroy(iommufd), -EBUSY);
}

static void test_fence(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd = create(&what, true);

    (void)state;
    map(&what, 0x1000, 0x2fff, VIOMMU_READ);
    map(&what, 0x8000, 0x8fff, VIOMMU_READ);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(space.count, 0);
    assert_int_equal(space.unmaps, 1);
    assert_int_equal(space.cut_offs, 0);
    /* Some kernels say that there was nothing. */
    space.unmap_error = ENOENT;
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(viommu_iommufd_destroy(iommufd), 0);
}

static void test_fence_that_fails(void **state)
{
    struct viommu_subscription what;
    struct viommu_iommufd *iommufd = create(&what, true);

    (void)state;
    expect_fence_that_fails(&what, EDEADLK);
    assert_int_equal(viommu_iommufd_destroy(iommufd), 0);
    /* With nobody to cut it off. */
    iommufd = create(&what, false);
    space.unmap_error = EDEADLK;
    assert_int_equal(what.fence(what.opaque), -EDEADLK);
    assert_int_equal(viommu_iommufd_destroy(iommufd), -EDEADLK);
}

static void test_no_memory(void **state)
{
    struct viommu_iommufd *iommufd;
    int ret = -ENOMEM;

    (void)state;
    for (unsigned n = 1; ret == -ENOMEM; n++) {
        base_alloc_fail_at(n);
        ret = try_create(&iommufd);
        assert_true(base_alloc_failed() ? ret == -ENOMEM : ret == 0);
    }
    base_alloc_fail_at(0);
    viommu_iommufd_destroy(iommufd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_subscription, setup),
        cmocka_unit_test_setup(test_many_ranges, setup),
        cmocka_unit_test_setup(test_bad_answers, setup),
        cmocka_unit_test_setup(test_alignment, setup),
        cmocka_unit_test_setup(test_bad_arguments, setup),
        cmocka_unit_test_setup(test_map_and_unmap, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_fence, setup),
        cmocka_unit_test_setup(test_fence_that_fails, setup),
        cmocka_unit_test_setup(test_no_memory, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
