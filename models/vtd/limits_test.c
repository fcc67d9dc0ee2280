/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what a VT-d unit's configuration and its mirrors want of each other: caching mode, and
 * address width and page sizes that all of them can map.
 */
#include "vtd/unit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <viommu/viommu.h>

#include <cmocka.h>

#define WIDTH_39 ((1ull << 39) - 1)
#define WIDTH_48 ((1ull << 48) - 1)
#define WIDTH_57 ((1ull << 57) - 1)

static const struct viommu_vtd_config caching = {.caching_mode = true};

static int on_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    (void)change;
    return 0;
}

static int on_fence(void *opaque)
{
    (void)opaque;
    return 0;
}

/* An instance that is not started, with one device. */
struct unstarted {
    struct viommu_memory *memory;
    struct viommu *iommu;
    struct viommu_device *device;
    struct viommu_subscriber *subscriber;
};

static struct unstarted un;

static void un_create(const struct viommu_vtd_config *vtd)
{
    struct viommu_config config = {0};
    struct viommu_device_config device = {.requester = 0x28};

    assert_int_equal(viommu_memory_create(&un.memory), 0);
    config.memory = un.memory;
    assert_int_equal(viommu_vtd_create(&config, vtd, &un.iommu), 0);
    assert_int_equal(viommu_device_add(un.iommu, &device, &un.device), 0);
}

static void un_destroy(void)
{
    viommu_destroy(un.iommu);
    viommu_memory_destroy(un.memory);
}

/* Subscribes with an end of what is allowed (0: everything), and page sizes. */
static int un_subscribe(uint64_t last, uint64_t page_sizes)
{
    struct viommu_range allowed = {0, last};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = on_change,
        .fence = on_fence,
    };

    if (last) {
        what.allowed = &allowed;
        what.allowed_count = 1;
    }
    what.page_sizes = page_sizes;
    return viommu_device_subscribe(un.device, &what, &un.subscriber);
}

static uint64_t un_cap(void)
{
    return vtd_of(un.iommu)->cap;
}

static unsigned width(void)
{
    return (unsigned)(un_cap() >> 16 & 0x3f) + 1;
}

static unsigned adjusted_widths(void)
{
    return (unsigned)(un_cap() >> 8 & 0x1f);
}

static unsigned super_pages(void)
{
    return (unsigned)(un_cap() >> 34 & 0xf);
}

static void test_caching_mode_is_needed(void **state)
{
    struct viommu_vtd_config config = {0};

    (void)state;
    un_create(&config);
    assert_int_equal(un_subscribe(0, 0), -ENOTSUP);
    config.caching_mode = true;
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(un_subscribe(0, 0), 0);
    config.caching_mode = false;
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), -EBUSY);
    assert_int_equal(vtd_of(un.iommu)->config.caching_mode, true);
    config.caching_mode = true;
    config.fault_records = 3;
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(vtd_of(un.iommu)->config.fault_records, 3);
    assert_int_equal(viommu_subscriber_destroy(un.subscriber), 0);
    config.caching_mode = false;
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    un_destroy();
}

static void test_address_width(void **state)
{
    (void)state;
    un_create(&caching);
    assert_int_equal(width(), 48);
    assert_int_equal(adjusted_widths(), 1 << 1 | 1 << 2);
    assert_int_equal(un_subscribe(WIDTH_48, 0), 0);
    assert_int_equal(width(), 48);
    assert_int_equal(un_subscribe(WIDTH_39 - 1, 0), -ERANGE);
    assert_int_equal(un_subscribe(0xffff, 0), -ERANGE);
    assert_int_equal(width(), 48);
    assert_int_equal(un_subscribe(WIDTH_48 - 1, 0), 0);
    assert_int_equal(width(), 39);
    assert_int_equal(adjusted_widths(), 1 << 1);
    un_destroy();
}

static void test_address_width_of_57(void **state)
{
    struct viommu_vtd_config config = {.caching_mode = true, .address_width = 57};

    (void)state;
    un_create(&config);
    assert_int_equal(width(), 57);
    assert_int_equal(adjusted_widths(), 1 << 1 | 1 << 2 | 1 << 3);
    assert_int_equal(un_subscribe(WIDTH_57, 0), 0);
    assert_int_equal(width(), 57);
    assert_int_equal(un_subscribe(WIDTH_57 - 1, 0), 0);
    assert_int_equal(width(), 48);
    assert_int_equal(adjusted_widths(), 1 << 1 | 1 << 2);
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(width(), 48);
    assert_int_equal(un_subscribe(WIDTH_48 - 1, 0), 0);
    assert_int_equal(width(), 39);
    assert_int_equal(un_subscribe(WIDTH_48, 0), 0); /* does not widen it */
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(width(), 39);
    un_destroy();
    un_create(&config);
    assert_int_equal(un_subscribe(WIDTH_39, 0), 0);
    assert_int_equal(width(), 39);
    /* One that limits something else leaves the narrower width. */
    assert_int_equal(un_subscribe(WIDTH_48, 4096), 0);
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(width(), 39);
    un_destroy();
    un_create(&config);
    assert_int_equal(viommu_start(un.iommu), 0);
    assert_int_equal(un_subscribe(WIDTH_57 - 1, 0), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_48, 0), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_57, 0), 0);
    un_destroy();
}

static void test_narrowest(void **state)
{
    struct viommu_vtd_config config = caching;

    (void)state;
    un_create(&caching);
    assert_int_equal(un_subscribe(WIDTH_39, 0), 0);
    assert_int_equal(width(), 39);
    assert_int_equal(un_subscribe(UINT64_MAX, 0), 0); /* does not widen it */
    assert_int_equal(width(), 39);
    config.address_width = 48;
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0); /* at most what can be mapped */
    assert_int_equal(width(), 39);
    un_destroy();
}

static void test_page_sizes(void **state)
{
    struct viommu_vtd_config config = caching;

    (void)state;
    un_create(&caching);
    assert_int_equal(super_pages(), 3);
    assert_int_equal(un_subscribe(0, 4096 | 1 << 21 | 1 << 30), 0);
    assert_int_equal(super_pages(), 3);
    assert_int_equal(un_subscribe(0, 1 << 21), -ENOTSUP);
    assert_int_equal(un_subscribe(0, 4096 | 1 << 21), 0);
    assert_int_equal(super_pages(), 1);
    assert_int_equal(vtd_of(un.iommu)->format.large_levels, 1 << 1);
    assert_int_equal(un_subscribe(0, 4096 | 1 << 30), 0);
    assert_int_equal(super_pages(), 0);
    assert_int_equal(vtd_of(un.iommu)->format.large_levels, 0);
    assert_int_equal(width(), 48);
    assert_int_equal(viommu_vtd_configure(un.iommu, &config), 0);
    assert_int_equal(super_pages(), 0); /* still */
    un_destroy();
}

/* Each of two mirrors takes something away. */
static void test_page_sizes_of_two(void **state)
{
    (void)state;
    un_create(&caching);
    assert_int_equal(un_subscribe(0, 4096 | 1 << 30), 0);
    assert_int_equal(super_pages(), 2);
    assert_int_equal(un_subscribe(0, 4096 | 1 << 21), 0);
    assert_int_equal(super_pages(), 0);
    un_destroy();
}

/* A unit that offers none needs none. */
static void test_page_sizes_not_offered(void **state)
{
    struct viommu_vtd_config config = {.caching_mode = true, .no_super_pages = true,
                                       .address_width = 39};

    (void)state;
    un_create(&config);
    assert_int_equal(viommu_start(un.iommu), 0);
    assert_int_equal(un_subscribe(WIDTH_39, 4096), 0);
    assert_int_equal(un_subscribe(WIDTH_39 - 1, 4096), -ERANGE);
    un_destroy();
}

/* Once started the guest knows what it may use. */
static void test_after_the_start(void **state)
{
    (void)state;
    un_create(&caching);
    assert_int_equal(viommu_start(un.iommu), 0);
    assert_int_equal(un_subscribe(WIDTH_48 - 1, 0), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_39, 0), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_48, 4096), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_48, 4096 | 1 << 21), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_48, 4096 | 1 << 30), -ERANGE);
    assert_int_equal(un_subscribe(WIDTH_48, 4096 | 1 << 21 | 1 << 30), 0);
    assert_int_equal(un_subscribe(0, 0), 0);
    assert_int_equal(width(), 48);
    assert_int_equal(super_pages(), 3);
    assert_int_equal(viommu_vtd_configure(un.iommu, &caching), -EBUSY);
    un_destroy();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_caching_mode_is_needed),
        cmocka_unit_test(test_address_width),
        cmocka_unit_test(test_address_width_of_57),
        cmocka_unit_test(test_narrowest),
        cmocka_unit_test(test_page_sizes),
        cmocka_unit_test(test_page_sizes_of_two),
        cmocka_unit_test(test_page_sizes_not_offered),
        cmocka_unit_test(test_after_the_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
