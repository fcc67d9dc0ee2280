/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading reserved regions and bridges: recorded ones, and ones that make no sense. */
#include <viommu/iova_source.h>

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "sources/test_recorded.h"

static int read_regions(const char *text, struct viommu_iova_request *requests, size_t *count)
{
    return viommu_iova_read_reserved_regions(text, strlen(text), requests, count);
}

/* Of an Intel machine's graphics device, as Linux 6.1 printed it. */
static void test_regions_of_intel(void **state)
{
    static const char text[] = "0x000000007c800000 0x000000007effffff direct-relaxable\n"
                               "0x00000000fee00000 0x00000000feefffff msi\n";
    struct viommu_iova_request requests[2];
    size_t count = 2;

    (void)state;
    assert_int_equal(read_regions(text, requests, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(requests[0].type, VIOMMU_IOVA_DIRECT_RELAXABLE);
    assert_int_equal(requests[0].range.first, 0x7c800000);
    assert_int_equal(requests[0].range.last, 0x7effffff);
    assert_int_equal(requests[1].type, VIOMMU_IOVA_MSI);
    assert_false(requests[1].movable);
    count = 1;
    assert_int_equal(read_regions(text, requests, &count), -ENOSPC);
    assert_int_equal(count, 2);
}

static void test_regions_that_make_no_sense(void **state)
{
    static const char *const bad[] = {
        "0x1000", "0x1000 0x1fff", "0x1000 0x1fff\n", "1000 0x1fff msi\n", "0x 0x1fff msi\n",
        "0x2000 0x1fff msi\n", "0x1000 0x11112222333344445 msi\n", "msi\n", "0x1000-0x1fff msi\n",
    };
    struct viommu_iova_request requests[2];
    size_t count = 2;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        count = 2;
        assert_int_equal(read_regions(bad[i], requests, &count), -EIO);
    }
    assert_int_equal(read_regions("", requests, &count), 0);
    assert_int_equal(count, 0);
    count = 2;
    assert_int_equal(read_regions("\n0x0 0xffffffffffffffff of-tomorrow", requests, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(requests[0].type, VIOMMU_IOVA_RESERVED);
    assert_int_equal(requests[0].range.last, UINT64_MAX);
}

/* Of a PC, shortened. */
static void test_iomem(void **state)
{
    static const char text[] = "00000000-00000fff : Reserved\n"
                               "00001000-0009fbff : System RAM\n"
                               "000a0000-000bffff : PCI Bus 0000:00\n"
                               "80000000-febfffff : PCI Bus 0000:00\n"
                               "  fe000000-fe1fffff : PCI Bus 0000:01\n"
                               "    fe000000-fe003fff : 0000:01:00.0\n"
                               "fee00000-fee00fff : Local APIC\n"
                               "100000000-17fffffff : System RAM\n"
                               "8000000000-ffffffffff : PCI Bus 0000:00";
    static const char hidden[] = "00000000-00000000 : Reserved\n"
                                 "00000000-00000000 : PCI Bus 0000:00\n";
    static const char *const bad[] = {"x", "0-1", "0-1 System RAM", "2-1 : PCI Bus 0000:00",
                                      "0-11112222333344445 : x", "-1 : x"};
    struct viommu_iova_request requests[3];
    size_t count = 3;

    (void)state;
    assert_int_equal(viommu_iova_read_iomem(text, strlen(text), requests, &count), 0);
    assert_int_equal(count, 3);
    assert_int_equal(requests[0].type, VIOMMU_IOVA_P2P);
    assert_int_equal(requests[0].range.first, 0xa0000);
    assert_int_equal(requests[1].range.last, 0xfebfffff);
    assert_int_equal(requests[2].range.first, 0x8000000000);
    assert_int_equal(requests[2].range.last, 0xffffffffff);
    count = 2;
    assert_int_equal(viommu_iova_read_iomem(text, strlen(text), requests, &count), -ENOSPC);
    assert_int_equal(count, 3);
    assert_int_equal(viommu_iova_read_iomem(hidden, strlen(hidden), requests, &count), -EACCES);
    assert_int_equal(viommu_iova_read_iomem("", 0, requests, &count), 0);
    assert_int_equal(count, 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        count = 3;
        assert_int_equal(viommu_iova_read_iomem(bad[i], strlen(bad[i]), requests, &count), -EIO);
    }
}

/* A window inside something else, inside a window, and beside one. */
static void test_iomem_nested(void **state)
{
    static const char text[] = "00000000-000fffff : Reserved\n"
                               "  000a0000-000bffff : PCI Bus 0000:00\n"
                               "  000c0000-000cffff : PCI Bus 0000:00\n"
                               "    000c0000-000c0fff : PCI Bus 0000:01\n"
                               "20000000-afffffff : PCI Bus 0000:00\n"
                               "  20000000-2fffffff : Reserved\n"
                               "    20000000-21ffffff : PCI Bus 0000:02\n"
                               "  b0000000-bfffffff : PCI Bus 0000:03\n"
                               "c0000000-cfffffff : Reserved\n"
                               "  c0000000-cfffffff : Reserved\n"
                               "    c0000000-cfffffff : PCI Bus 0001:00\n";
    struct viommu_iova_request requests[8];
    size_t count = 8;

    (void)state;
    assert_int_equal(viommu_iova_read_iomem(text, strlen(text), requests, &count), 0);
    assert_int_equal(count, 4);
    assert_int_equal(requests[0].range.first, 0xa0000);
    assert_int_equal(requests[1].range.first, 0xc0000);
    assert_int_equal(requests[1].range.last, 0xcffff);
    assert_int_equal(requests[2].range.last, 0xafffffff);
    assert_int_equal(requests[3].range.first, 0xc0000000);
}

static void test_recorded_texts(void **state)
{
    static const struct viommu_range windows[] = {
        {0xa0000, 0xbffff}, {0x20000000, 0xafffffff}, {0xc0000000, 0xfebfffff},
        {0xff00000000, 0xffffffffff},
    };
    struct viommu_iova_request requests[8];
    size_t count = 8;

    (void)state;
    assert_int_equal(viommu_iova_read_iomem(recorded_iomem, strlen(recorded_iomem), requests,
                                            &count), 0);
    assert_int_equal(count, 4);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(requests[i].range.first, windows[i].first);
        assert_int_equal(requests[i].range.last, windows[i].last);
    }
    count = 8;
    assert_int_equal(read_regions(recorded_regions_0, requests, &count), 0);
    assert_int_equal(count, 2);
    assert_int_equal(requests[0].type, VIOMMU_IOVA_DIRECT_RELAXABLE);
    assert_int_equal(requests[0].range.last, 0xffffff);
    count = 8;
    assert_int_equal(read_regions(recorded_regions_1, requests, &count), 0);
    assert_int_equal(count, 1);
    assert_int_equal(requests[0].type, VIOMMU_IOVA_MSI);
    assert_int_equal(requests[0].range.first, 0xfee00000);
    assert_int_equal(requests[0].range.last, 0xfeefffff);
}

/* Two root ports, of which the second has a switch below it. */
static void test_recorded_bridges(void **state)
{
    static const struct viommu_pci_bridge bridges[] = {
        {1, 1, {{0xfc800000, 0xfe7fffff}, {0xff00000000, 0xff3fffffff}}, 2, true, false},
        {2, 4, {{0xfe800000, 0xfe9fffff}, {0xff40000000, 0xff401fffff}}, 2, true, false},
        {3, 4, {{0xfe800000, 0xfe9fffff}, {0xff40000000, 0xff401fffff}}, 2, false, true},
        {4, 4, {{0xfe800000, 0xfe9fffff}, {0xff40000000, 0xff401fffff}}, 2, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(bridges) / sizeof(bridges[0]); i++) {
        const struct recorded_bridge *recorded = &recorded_bridges[i];
        struct viommu_pci_bridge bridge;
        uint8_t config[4096] = {0};

        for (size_t j = 0; j < recorded->count; j++) {
            memcpy(config + recorded->rows[j].at, recorded->rows[j].bytes, 16);
        }
        assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
        assert_int_equal(bridge.secondary, bridges[i].secondary);
        assert_int_equal(bridge.subordinate, bridges[i].subordinate);
        assert_int_equal(bridge.window_count, bridges[i].window_count);
        assert_memory_equal(bridge.windows, bridges[i].windows, sizeof(bridge.windows));
        assert_int_equal(bridge.redirects, bridges[i].redirects);
        assert_int_equal(bridge.upstream, bridges[i].upstream);
    }
}

static void put16(uint8_t *config, size_t at, uint16_t value)
{
    config[at] = (uint8_t)value;
    config[at + 1] = (uint8_t)(value >> 8);
}

/* A root port: bus 1 below it, 32-bit memory 0xfe400000-0xfe5fffff, prefetchable 64-bit memory
   0x800000000-0x8000fffff... */
static void make_port(uint8_t config[4096], uint16_t acs_control)
{
    memset(config, 0, 4096);
    put16(config, 0x04, 0x0507);
    config[0x0e] = 0x81;
    config[0x19] = 1;
    config[0x1a] = 3;
    put16(config, 0x20, 0xfe40);
    put16(config, 0x22, 0xfe50);
    put16(config, 0x24, 0x0001);
    put16(config, 0x26, 0xfff1);
    config[0x28] = 8;
    config[0x2c] = 8;
    put16(config, 0x100, 0x0001); /* error reporting, then ACS at 0x148 */
    put16(config, 0x102, 0x1482);
    put16(config, 0x148, 0x000d);
    put16(config, 0x14a, 0x0001);
    put16(config, 0x14c, 0x001f);
    put16(config, 0x14e, acs_control);
}

static void test_bridge(void **state)
{
    uint8_t config[4096];
    struct viommu_pci_bridge bridge;

    (void)state;
    make_port(config, 0x1d);
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_int_equal(bridge.secondary, 1);
    assert_int_equal(bridge.subordinate, 3);
    assert_int_equal(bridge.window_count, 2);
    assert_int_equal(bridge.windows[0].first, 0xfe400000);
    assert_int_equal(bridge.windows[0].last, 0xfe5fffff);
    assert_int_equal(bridge.windows[1].first, 0x800000000);
    assert_int_equal(bridge.windows[1].last, 0x8ffffffff);
    assert_true(bridge.redirects);
    /* Both bits are needed; without the extended space nothing is known. */
    make_port(config, 0x04);
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_false(bridge.redirects);
    make_port(config, 0x10);
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_false(bridge.redirects);
    make_port(config, 0x1d);
    assert_int_equal(viommu_pci_bridge_read(config, 256, &bridge), 0);
    assert_false(bridge.redirects);
    assert_int_equal(bridge.window_count, 2);
}

static void test_windows(void **state)
{
    uint8_t config[4096];
    struct viommu_pci_bridge bridge;

    (void)state;
    make_port(config, 0);
    put16(config, 0x24, 0xfff1); /* the base above the limit: no window */
    config[0x28] = 9;
    assert_int_equal(viommu_pci_bridge_read(config, 64, &bridge), 0);
    assert_int_equal(bridge.window_count, 1);
    put16(config, 0x24, 0xd000); /* 32 bits: the upper registers are not there */
    put16(config, 0x26, 0xdff0);
    assert_int_equal(viommu_pci_bridge_read(config, 64, &bridge), 0);
    assert_int_equal(bridge.window_count, 2);
    assert_int_equal(bridge.windows[1].first, 0xd0000000);
    assert_int_equal(bridge.windows[1].last, 0xdfffffff);
    put16(config, 0x24, 0); /* it has none: the guest's first MiB is not in its way */
    put16(config, 0x26, 0);
    assert_int_equal(viommu_pci_bridge_read(config, 64, &bridge), 0);
    assert_int_equal(bridge.window_count, 1);
    put16(config, 0x04, 0x0005); /* memory is off */
    assert_int_equal(viommu_pci_bridge_read(config, 64, &bridge), 0);
    assert_int_equal(bridge.window_count, 0);
}

static void test_upstream_port(void **state)
{
    uint8_t config[4096];
    struct viommu_pci_bridge bridge;

    (void)state;
    make_port(config, 0);
    put16(config, 0x06, 0x0010);
    config[0x34] = 0x50;
    put16(config, 0x50, 0x8001); /* power management, then PCI Express */
    put16(config, 0x80, 0x0010);
    put16(config, 0x82, 0x0052);
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_true(bridge.upstream);
    put16(config, 0x82, 0x0062); /* a downstream port */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_false(bridge.upstream);
    put16(config, 0x50, 0x5001); /* leads to itself */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    put16(config, 0x50, 0x2001); /* into the header */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    assert_int_equal(viommu_pci_bridge_read(config, 64, &bridge), 0);
    assert_false(bridge.upstream);
    put16(config, 0x50, 0x0001);
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
}

static void test_bridges_that_make_no_sense(void **state)
{
    uint8_t config[4096];
    struct viommu_pci_bridge bridge;

    (void)state;
    make_port(config, 0);
    assert_int_equal(viommu_pci_bridge_read(config, 63, &bridge), -EIO);
    config[0x0e] = 0;
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -ENODEV);
    memset(config, 0xff, sizeof(config)); /* asleep, or pulled out */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    make_port(config, 0);
    put16(config, 0x102, 0x1002); /* leads to itself */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    put16(config, 0x102, 0x0402); /* into the header */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    put16(config, 0x102, 0x1492); /* not aligned */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    put16(config, 0x102, 0xffc2); /* the last four bytes: no room for what it has */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), -EIO);
    put16(config, 0x102, 0x0002); /* nothing more */
    assert_int_equal(viommu_pci_bridge_read(config, sizeof(config), &bridge), 0);
    assert_false(bridge.redirects);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regions_of_intel),
        cmocka_unit_test(test_regions_that_make_no_sense),
        cmocka_unit_test(test_iomem),
        cmocka_unit_test(test_iomem_nested),
        cmocka_unit_test(test_recorded_texts),
        cmocka_unit_test(test_recorded_bridges),
        cmocka_unit_test(test_bridge),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_upstream_port),
        cmocka_unit_test(test_bridges_that_make_no_sense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
