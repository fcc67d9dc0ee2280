/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of what is understood of a far server's answers, right and wrong. */
#include "far_info.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

enum { SIZE = 0x10000 };

static struct far_info info;
static uint8_t answer[FAR_REGION_ANSWER_MAX + 64];

static int setup(void **state)
{
    (void)state;
    far_info_init(&info);
    memset(answer, 0, sizeof(answer));
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    far_info_fini(&info);
    return 0;
}

static void put(size_t at, const void *data, size_t size)
{
    memcpy(answer + at, data, size);
}

static void put_region(uint32_t argsz, uint32_t flags, uint32_t cap_offset)
{
    const struct vfio_region_info region = {
        .argsz = argsz,
        .flags = flags | VFIO_REGION_INFO_FLAG_READ,
        .cap_offset = cap_offset,
        .size = SIZE,
    };

    put(0, &region, sizeof(region));
}

static void put_cap(size_t at, uint16_t id, uint32_t next, uint32_t areas)
{
    const struct vfio_region_info_cap_sparse_mmap cap = {
        .header = {.id = id, .version = 1, .next = next},
        .nr_areas = areas,
    };

    put(at, &cap, sizeof(cap));
}

static void put_area(size_t at, uint64_t offset, uint64_t size)
{
    const struct vfio_region_sparse_mmap_area area = {.offset = offset, .size = size};

    put(at, &area, sizeof(area));
}

/* Takes the answer in with a file; returns the error, and whether it can be mapped. */
static int take(size_t size, bool *mapped)
{
    int fd = memfd_create("bar", MFD_CLOEXEC), kept = fd;
    int ret = far_info_region(&info, 0, answer, size, &fd, 1, true);

    *mapped = info.regions[0].flags & VFIO_REGION_INFO_FLAG_MMAP;
    assert_int_equal(fd, *mapped ? -1 : kept);
    assert_int_equal(info.regions[0].fd, *mapped ? kept : -1);
    if (!*mapped) {
        assert_int_equal(info.regions[0].area_count, 0);
        close(fd);
    }
    return ret;
}

static void devices(void **state)
{
    struct vfio_user_device_info device = {
        .argsz = sizeof(device),
        .flags = UINT32_MAX,
        .num_regions = UINT32_MAX,
        .num_irqs = UINT32_MAX,
    };

    (void)state;
    assert_int_equal(far_info_device(&info, &device, sizeof(device)), 0);
    assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
    assert_int_equal(info.region_count, VFIO_PCI_NUM_REGIONS);
    assert_int_equal(info.irq_count, VFIO_PCI_NUM_IRQS);
    assert_int_equal(far_info_device(&info, &device, sizeof(device) - 1), -EPROTO);
    assert_int_equal(far_info_device(&info, &device, 0), -EPROTO);
    device.num_regions = VFIO_PCI_CONFIG_REGION_INDEX;
    assert_int_equal(far_info_device(&info, &device, sizeof(device)), -EPROTO);
    device.num_regions = VFIO_PCI_CONFIG_REGION_INDEX + 1;
    device.num_irqs = 0;
    assert_int_equal(far_info_device(&info, &device, sizeof(device)), 0);
    assert_int_equal(info.region_count, VFIO_PCI_CONFIG_REGION_INDEX + 1);
    device.flags = VFIO_DEVICE_FLAGS_RESET;
    assert_int_equal(far_info_device(&info, &device, sizeof(device)), -EPROTO);
}

static void interrupts(void **state)
{
    struct vfio_irq_info irqs = {.argsz = sizeof(irqs), .index = 2, .count = FAR_VECTORS_MAX};

    (void)state;
    assert_int_equal(far_info_irqs(&info, 2, &irqs, sizeof(irqs)), 0);
    assert_int_equal(info.irqs[2].count, FAR_VECTORS_MAX);
    assert_int_equal(far_info_irqs(&info, 1, &irqs, sizeof(irqs)), -EPROTO);
    assert_int_equal(far_info_irqs(&info, 2, &irqs, sizeof(irqs) - 1), -EPROTO);
    irqs.count++;
    assert_int_equal(far_info_irqs(&info, 2, &irqs, sizeof(irqs)), -EPROTO);
}

static void regions_without_files(void **state)
{
    struct vfio_region_info region = {.index = 3, .size = 0, .flags = UINT32_MAX};
    int fd = 0, no_file;

    (void)state;
    assert_int_equal(far_info_region(&info, 3, &region, sizeof(region), &fd, 1, true), 0);
    assert_int_equal(info.regions[3].flags, 0);
    assert_int_equal(fd, 0);
    region.size = UINT64_MAX;
    assert_int_equal(far_info_region(&info, 3, &region, sizeof(region), NULL, 0, true), 0);
    assert_int_equal(info.regions[3].flags,
                     VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    assert_int_equal(info.regions[3].size, UINT64_MAX);
    region.flags = VFIO_REGION_INFO_FLAG_MMAP;
    assert_int_equal(far_info_region(&info, 3, &region, sizeof(region), &fd, 1, false), 0);
    assert_int_equal(info.regions[3].flags, 0);
    assert_int_equal(fd, 0);
    fd = no_file = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(far_info_region(&info, 3, &region, sizeof(region), &fd, 1, true), 0);
    assert_int_equal(info.regions[3].flags, 0);
    assert_int_equal(fd, no_file);
    close(fd);
    assert_int_equal(far_info_region(&info, 2, &region, sizeof(region), NULL, 0, true), -EPROTO);
    assert_int_equal(far_info_region(&info, 3, &region, sizeof(region) - 1, NULL, 0, true),
                     -EPROTO);
}

static void files(void **state)
{
    const uint32_t with_caps = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
    bool mapped;

    (void)state;
    put_region(32, VFIO_REGION_INFO_FLAG_MMAP, 0);
    assert_int_equal(take(32, &mapped), 0);
    assert_true(mapped);
    put_region(33, VFIO_REGION_INFO_FLAG_MMAP, 0); /* there would be more */
    assert_int_equal(take(32, &mapped), 0);
    assert_false(mapped);
    put_region(32, with_caps, 0);
    assert_int_equal(take(32, &mapped), 0);
    assert_true(mapped);

    /* A capability that is none of ours, and then areas. */
    put_region(96, with_caps, 32);
    put_cap(32, 99, 48, 7);
    put_cap(48, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, 2);
    put_area(64, 0, 0x1000);
    put_area(80, 0xf000, 0x1000);
    assert_int_equal(take(96, &mapped), 0);
    assert_true(mapped);
    assert_int_equal(info.regions[0].area_count, 2);
    assert_int_equal(take(95, &mapped), 0); /* argsz says more than came */
    assert_false(mapped);
}

static void capabilities_that_cannot_be(void **state)
{
    const uint32_t with_caps = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS;
    static const uint32_t firsts[] = {1, 31, 89, 96, 97, 0x7fffffff, UINT32_MAX};
    static const struct vfio_region_sparse_mmap_area areas[] = {
        {0, 0},
        {0, 0x11000},
        {0xf000, 0x2000},
        {0x10000, 0x1000},
        {1, 0x1000},
        {0, 0x1001},
        {UINT64_MAX, 0x1000},
        {0x1000, UINT64_MAX},
        {0, 0x800},
        {UINT64_MAX - 0xfff, 0x1000},
    };
    bool mapped;

    (void)state;
    for (unsigned i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        put_region(96, with_caps, firsts[i]);
        assert_int_equal(take(96, &mapped), -EPROTO);
        assert_false(mapped);
    }
    put_region(96, with_caps, 32);
    put_cap(32, 99, 32, 0); /* leads to itself */
    assert_int_equal(take(96, &mapped), -EPROTO);
    put_cap(32, 99, 48, 0);
    put_cap(48, 99, 32, 0); /* and back */
    assert_int_equal(take(96, &mapped), -EPROTO);
    put_cap(32, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, 4); /* three have room */
    assert_int_equal(take(96, &mapped), -EPROTO);
    put_cap(32, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, UINT32_MAX);
    assert_int_equal(take(96, &mapped), -EPROTO);
    put_region(96, with_caps, 84);
    put_cap(84, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, 0); /* ends before its own end */
    assert_int_equal(take(96, &mapped), -EPROTO);
    for (unsigned i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
        put_region(64, with_caps, 32);
        put_cap(32, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, 1);
        put_area(48, areas[i].offset, areas[i].size);
        assert_int_equal(take(64, &mapped), -EPROTO);
        assert_false(mapped);
    }
    /* None, or more than are kept: it is not mapped, and no mistake. */
    put_cap(32, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, 0);
    assert_int_equal(take(64, &mapped), 0);
    assert_false(mapped);
    put_region(48 + 16 * (FAR_AREAS_MAX + 1), with_caps, 32);
    put_cap(32, VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0, FAR_AREAS_MAX + 1);
    assert_int_equal(take(48 + 16 * (FAR_AREAS_MAX + 1), &mapped), 0);
    assert_false(mapped);
}

static void differences(void **state)
{
    struct far_info other;

    (void)state;
    far_info_init(&other);
    info.region_count = other.region_count = VFIO_PCI_NUM_REGIONS;
    info.irq_count = other.irq_count = VFIO_PCI_NUM_IRQS;
    assert_null(far_info_difference(&info, &other));
    other.regions[8].size = 1;
    assert_non_null(far_info_difference(&info, &other));
    other.regions[8].size = 0;
    other.irqs[4].count = 1;
    assert_non_null(far_info_difference(&info, &other));
    other.irqs[4].count = 0;
    info.regions[0].area_count = other.regions[0].area_count = 1;
    other.regions[0].areas[0].size = 0x1000;
    assert_non_null(far_info_difference(&info, &other));
    info.regions[0].areas[0].size = 0x1000;
    assert_null(far_info_difference(&info, &other));
    other.flags = 2;
    assert_non_null(far_info_difference(&info, &other));
}

/* A client would go on with what it was told. */
static void each_difference_by_itself(void **state)
{
    int one = memfd_create("bar", MFD_CLOEXEC), another = memfd_create("bar", MFD_CLOEXEC);
    struct far_info other;

    (void)state;
    info.region_count = VFIO_PCI_NUM_REGIONS;
    info.irq_count = VFIO_PCI_NUM_IRQS;
    for (unsigned i = 0; i < 9; i++) {
        other = info;
        assert_null(far_info_difference(&info, &other));
        other.region_count -= i == 0;
        other.irq_count -= i == 1;
        other.irqs[VFIO_PCI_NUM_IRQS - 1].flags = i == 2;
        other.irqs[0].count = i == 3;
        other.regions[0].flags = i == 4 ? VFIO_REGION_INFO_FLAG_READ : 0;
        other.regions[VFIO_PCI_NUM_REGIONS - 1].offset = i == 5 ? 0x1000 : 0;
        other.regions[1].area_count = i == 6;
        other.regions[1].size = i == 7;
        other.flags = i == 8 ? VFIO_DEVICE_FLAGS_RESET : 0;
        assert_non_null(far_info_difference(&info, &other));
    }
    /* The file of registers that can be mapped. */
    info.regions[0].flags = VFIO_REGION_INFO_FLAG_MMAP;
    info.regions[0].fd = one;
    other = info;
    assert_null(far_info_difference(&info, &other));
    other.regions[0].fd = another;
    assert_non_null(far_info_difference(&info, &other));
    close(another);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(devices),
        TEST(interrupts),
        TEST(regions_without_files),
        TEST(files),
        TEST(capabilities_that_cannot_be),
        TEST(differences),
        TEST(each_difference_by_itself),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
