/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the VFIO backend where no kernel is needed: what it asks for, in what order, and what it
 * makes of refusals. The kernel is played: test_kernel.h. (The real one is met by the tests with
 * guests.)
 */
#include <viommu/vfio.h>

#include "base/alloc.h"
#include "vfio/test_kernel.h"

static int setup(void **state)
{
    (void)state;
    kernel_begin();
    return 0;
}

static int try_create(struct viommu_vfio **vfio, uint64_t mappings_max)
{
    struct viommu_vfio_config config = {.container = CONTAINER, .mappings_max = mappings_max};

    return viommu_vfio_create(&config, vfio);
}

static struct viommu_vfio *create(struct viommu_subscription *what, bool with_cut_off)
{
    struct viommu_vfio_config config = {
        .container = CONTAINER,
        .cut_off = with_cut_off ? cut_off : NULL,
        .opaque = &space,
    };
    struct viommu_vfio *vfio;

    assert_int_equal(viommu_vfio_create(&config, &vfio), 0);
    viommu_vfio_subscription(vfio, what);
    return vfio;
}

static void test_subscription(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio = create(&what, false);

    (void)state;
    assert_int_equal(kernel.infos, 2); /* too little room, then enough */
    expect_usual_mirror(&what);
    assert_true(what.unmap_spans);
    assert_int_equal(what.mappings_max, 1000);
    assert_int_equal(viommu_vfio_destroy(vfio), 0);
    assert_int_equal(viommu_vfio_destroy(NULL), 0);
}

static uint64_t limit(uint64_t wanted)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio;

    assert_int_equal(try_create(&vfio, wanted), 0);
    viommu_vfio_subscription(vfio, &what);
    viommu_vfio_destroy(vfio);
    return what.mappings_max;
}

static void test_limits(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio;

    (void)state;
    assert_int_equal(limit(10), 10);
    assert_int_equal(limit(5000), 1000);
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_PGSIZES, 0x1000);
    assert_int_equal(limit(0), 65535);
    assert_int_equal(limit(100000), 100000);
    vfio = create(&what, false);
    assert_null(what.allowed);
    viommu_vfio_destroy(vfio);
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS, 0);
    answer_add_available(&kernel.answer, 0);
    assert_int_equal(try_create(&vfio, 0), -ENOSPC);
}

/* A container that is full already: what comes besides is the kernel's to refuse. */
static void test_adopted(void **state)
{
    struct viommu_vfio_config config = {.container = CONTAINER, .adopt = true};
    struct viommu_subscription what;
    struct viommu_vfio *vfio;

    (void)state;
    assert_int_equal(viommu_vfio_create(&config, &vfio), 0);
    viommu_vfio_subscription(vfio, &what);
    assert_true(what.adopt);
    assert_int_equal(what.mappings_max, 1000);
    viommu_vfio_destroy(vfio);
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS, 0);
    answer_add_available(&kernel.answer, 0);
    assert_int_equal(viommu_vfio_create(&config, &vfio), 0);
    viommu_vfio_subscription(vfio, &what);
    assert_int_equal(what.mappings_max, 1);
    viommu_vfio_destroy(vfio);
}

static void test_no_container(void **state)
{
    struct viommu_vfio_config config = {.container = -1};
    struct viommu_vfio *vfio;

    (void)state;
    assert_int_equal(viommu_vfio_create(&config, &vfio), -EINVAL);
    config.container = CONTAINER + 1;
    assert_int_equal(viommu_vfio_create(&config, &vfio), -EINVAL);
    assert_int_equal(viommu_vfio_create(NULL, &vfio), -EINVAL);
    kernel.type1_v2 = false;
    assert_int_equal(try_create(&vfio, 0), -EINVAL);
    kernel.type1_v2 = true;
    kernel.api_version = 1;
    assert_int_equal(try_create(&vfio, 0), -EINVAL);
    kernel.api_version = 0;
    kernel.info_error = EPERM;
    assert_int_equal(try_create(&vfio, 0), -EPERM);
}

static void test_answers_that_grow(void **state)
{
    struct viommu_vfio *vfio;

    (void)state;
    kernel.grows = 3;
    assert_int_equal(try_create(&vfio, 0), 0);
    viommu_vfio_destroy(vfio);
    kernel.grows = UINT32_MAX;
    kernel.infos = 0;
    assert_int_equal(try_create(&vfio, 0), -EIO);
    assert_true(kernel.infos < 100);
    kernel.grows = 0;
    kernel.answer.size = UINT32_MAX;
    assert_int_equal(try_create(&vfio, 0), -EIO);
    answer_begin(&kernel.answer, VFIO_IOMMU_INFO_CAPS, 0);
    answer_add_ranges(&kernel.answer, NULL, 0);
    assert_int_equal(try_create(&vfio, 0), -ERANGE);
}

static void test_map_and_unmap(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio = create(&what, false);

    (void)state;
    assert_int_equal(map(&what, 0x1000, 0x2fff, VIOMMU_READ | VIOMMU_WRITE), 0);
    assert_int_equal(kernel.map.flags, VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE);
    assert_int_equal(kernel.map.iova, 0x1000);
    assert_int_equal(kernel.map.size, 0x2000);
    assert_int_equal(kernel.map.vaddr, 0x70001000);
    assert_int_equal(map(&what, 0x3000, 0x3fff, VIOMMU_WRITE), 0);
    assert_int_equal(kernel.map.flags, VFIO_DMA_MAP_FLAG_WRITE);
    assert_int_equal(map(&what, 0x4000, 0x4fff, VIOMMU_READ), 0);
    assert_int_equal(kernel.map.flags, VFIO_DMA_MAP_FLAG_READ);
    assert_int_equal(unmap(&what, 0x4000, 0x4fff), 0);
    assert_int_equal(kernel.unmap_flags, 0);
    assert_int_equal(unmap(&what, 0x1000, 0x3fff), 0); /* two in one call */
    assert_int_equal(space.count, 0);
    assert_int_equal(viommu_vfio_destroy(vfio), 0);
}

static void test_refusals(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio = create(&what, false);

    (void)state;
    assert_int_equal(map(&what, 0x1000, 0x2fff, VIOMMU_READ), 0);
    assert_int_equal(map(&what, 0x2000, 0x3fff, VIOMMU_READ), -EEXIST);
    assert_int_equal(map(&what, 0x8000, 0x8fff, 0), -EINVAL);
    assert_int_equal(unmap(&what, 0x1000, 0x1fff), -EINVAL); /* a part */
    assert_int_equal(unmap(&what, 0, UINT64_MAX), -EINVAL);  /* no size says that */
    for (unsigned i = 1; i < MAPPINGS; i++) {
        assert_int_equal(map(&what, i << 16, (i << 16) + 0xfff, VIOMMU_READ), 0);
    }
    assert_int_equal(map(&what, 0x900000, 0x900fff, VIOMMU_READ), -ENOSPC);
    assert_int_equal(space.count, MAPPINGS);
    /* Less than asked for: nothing there, a gap, or what the kernel says. */
    assert_int_equal(unmap(&what, 0x800000, 0x800fff), -EIO);
    assert_int_equal(unmap(&what, 0x1000, 0x3fff), -EIO);
    space.unmap_less = 0x1000;
    assert_int_equal(unmap(&what, 0x10000, 0x10fff), -EIO);
    space.unmap_error = ENODEV;
    assert_int_equal(unmap(&what, 0x20000, 0x20fff), -ENODEV);
    expect_no_replace(&what);
    assert_int_equal(viommu_vfio_destroy(vfio), -ENODEV);
}

static void test_fence(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio = create(&what, true);

    (void)state;
    map(&what, 0x1000, 0x2fff, VIOMMU_READ);
    map(&what, UINT64_MAX - 0xfff, UINT64_MAX, VIOMMU_READ);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(space.unmaps, 1);
    assert_int_equal(kernel.unmap_flags, VFIO_DMA_UNMAP_FLAG_ALL);
    assert_int_equal(space.count, 0);
    assert_int_equal(space.cut_offs, 0);
    assert_int_equal(viommu_vfio_destroy(vfio), 0);
}

static void test_fence_in_halves(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio;

    (void)state;
    kernel.unmap_all = false;
    vfio = create(&what, false);
    map(&what, 0x1000, 0x2fff, VIOMMU_READ);
    map(&what, UINT64_MAX - 0xfff, UINT64_MAX, VIOMMU_READ);
    assert_int_equal(what.fence(what.opaque), 0);
    assert_int_equal(space.unmaps, 2);
    assert_int_equal(space.count, 0);
    map(&what, 0x1000, 0x2fff, VIOMMU_READ);
    assert_int_equal(viommu_vfio_destroy(vfio), 0);
    assert_int_equal(space.count, 0);
}

static void test_fence_that_fails(void **state)
{
    struct viommu_subscription what;
    struct viommu_vfio *vfio = create(&what, true);

    (void)state;
    expect_fence_that_fails(&what, EBUSY);
    assert_int_equal(viommu_vfio_destroy(vfio), 0);
    /* With nobody to cut it off. */
    vfio = create(&what, false);
    space.unmap_error = EBUSY;
    assert_int_equal(what.fence(what.opaque), -EBUSY);
    assert_int_equal(viommu_vfio_destroy(vfio), -EBUSY);
}

static void test_no_memory(void **state)
{
    struct viommu_vfio *vfio;
    int ret = -ENOMEM;

    (void)state;
    for (unsigned n = 1; ret == -ENOMEM; n++) {
        base_alloc_fail_at(n);
        ret = try_create(&vfio, 0);
        assert_true(base_alloc_failed() ? ret == -ENOMEM : ret == 0);
    }
    base_alloc_fail_at(0);
    viommu_vfio_destroy(vfio);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_subscription, setup),
        cmocka_unit_test_setup(test_limits, setup),
        cmocka_unit_test_setup(test_adopted, setup),
        cmocka_unit_test_setup(test_no_container, setup),
        cmocka_unit_test_setup(test_answers_that_grow, setup),
        cmocka_unit_test_setup(test_map_and_unmap, setup),
        cmocka_unit_test_setup(test_refusals, setup),
        cmocka_unit_test_setup(test_fence, setup),
        cmocka_unit_test_setup(test_fence_in_halves, setup),
        cmocka_unit_test_setup(test_fence_that_fails, setup),
        cmocka_unit_test_setup(test_no_memory, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
