/* SPDX-License-Identifier: BSD-2-Clause */
/* Devices in IOVA spaces: what is told, refused and followed, with several devices, and without
   memory. */
#include "virtio/test_mirror.h"

#include "base/alloc.h"
#include "device/requester.h"

#include <stdio.h>

static struct bed bed;

/* What PROBE tells of an endpoint besides the interrupt window, as text. */
static const char *probed(uint32_t endpoint)
{
    static char text[512];
    struct spec_virtio_request request = spec_virtio_probe(endpoint);
    uint8_t out[1024];
    size_t written;
    size_t used = 0;

    text[0] = 0;
    assert_int_equal(viommu_virtio_request(bed.iommu, request.bytes, request.size, out,
                                           sizeof(out), ++bed.token, &written), 0);
    assert_int_equal(spec_virtio_get(out + 4, 1), 1);
    for (const uint8_t *at = out + 24; spec_virtio_get(at, 2) == 1; at += 24) {
        assert_int_equal(spec_virtio_get(at + 4, 1), 0);
        used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%llx-%llx", used ? " " : "",
                                 (unsigned long long)spec_virtio_get(at + 8, 8),
                                 (unsigned long long)spec_virtio_get(at + 16, 8));
    }
    return text;
}

static int setup(void **state)
{
    static const struct viommu_range region = {0x8000, 0x9fff};

    (void)state;
    bed_space(&bed, &region, 1);
    bed_begin(&bed, &(struct viommu_virtio_config){.input = {0, 0xffffffff}, .probe_size = 96});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bed_fini(&bed);
    return 0;
}

/* Devices of one id: what is closed to any of them is closed to the endpoint. */
static void test_shared_id(void **state)
{
    struct viommu_device_config config = {.requester = 77, .shared = true};
    struct viommu_iova_conflict conflict;
    struct viommu_iova_reservation *r;
    struct viommu_device *plain;
    struct viommu_device *one;
    struct viommu_device *two;
    struct bed second;

    (void)state;
    bed_space(&second, NULL, 0);
    assert_int_equal(bed_reserve(&second, VIOMMU_IOVA_P2P, 0xa000, 0xafff, &r, NULL), 0);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &plain), 0);
    assert_string_equal(probed(77), "");
    config.space = bed.space;
    assert_int_equal(viommu_device_add(bed.iommu, &config, &one), 0);
    assert_string_equal(probed(77), "8000-9fff");
    config.space = second.space;
    /* Not over what the guest has mapped for the others. */
    assert_int_equal(bed_attach(&bed, 1, 77, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0xa000, 0xafff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &two), -EEXIST);
    assert_string_equal(probed(77), "8000-9fff");
    assert_int_equal(bed_unmap(&bed, 1, 0xa000, 0xafff), SPEC_S_OK);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &two), 0);
    assert_string_equal(probed(77), "8000-afff");
    assert_int_equal(bed_map(&bed, 1, 0xa000, 0xafff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    assert_int_equal(viommu_device_remove(one), 0);
    assert_string_equal(probed(77), "a000-afff");
    assert_int_equal(bed_map(&bed, 1, 0x8000, 0x8fff, 0, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_reserve(&second, VIOMMU_IOVA_MSI, 0x8fff, 0x8fff, &r, &conflict), -EEXIST);
    assert_string_equal(conflict.holder.owner, "domain 1 of 00:09.5");
    assert_int_equal(viommu_device_remove(two), 0);
    assert_string_equal(probed(77), "");
    viommu_iova_destroy(second.space);
    /* Aliases and new ids have what the device has. */
    assert_int_equal(viommu_device_add_alias(bed.devices[0], 80), 1);
    assert_string_equal(probed(80), "8000-9fff");
    assert_int_equal(viommu_device_set_requester(bed.devices[0], 81), 0);
    assert_string_equal(probed(81), "8000-9fff");
    /* A space that goes leaves devices with what they know. */
    viommu_iova_destroy(bed.space);
    bed.space = NULL;
    assert_string_equal(probed(81), "8000-9fff");
}

/* 96 bytes are four regions: the window, and three. */
static void test_room(void **state)
{
    struct viommu_iova_reservation *r[3];
    const struct viommu_range limits = {0x2000, UINT64_MAX};
    const struct viommu_iova_config config = {.identity = true};
    struct viommu_device_config device = {.requester = 99};
    struct viommu_device *added;
    uint64_t generation;

    (void)state;
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x10000, 0x10001, &r[0], NULL), 0);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_DIRECT, 0x20000, 0x20fff, &r[1], NULL), 0);
    assert_string_equal(probed(8), "8000-9fff 10000-10fff 20000-20fff");
    generation = viommu_iova_generation(bed.space);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x30000, 0x30fff, &r[2], NULL),
                     -ENOSPC);
    assert_int_equal(viommu_iova_limit(bed.host, &limits, 1, NULL), -ENOSPC);
    assert_int_equal(viommu_iova_generation(bed.space), generation);
    assert_string_equal(probed(8), "8000-9fff 10000-10fff 20000-20fff");
    /* What lies beyond the input range, or joins them, takes no room. */
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 1ull << 32, UINT64_MAX, &r[2], NULL),
                     0);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0xa000, 0xffff, &r[2], NULL), 0);
    assert_string_equal(probed(8), "8000-10fff 20000-20fff");
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x30000, 0x30fff, &r[0], NULL), 0);
    /* Given back, it would be two: with no room for them more stays closed than has to be. */
    viommu_iova_release(r[2]);
    assert_string_equal(probed(8), "8000-10fff 20000-20fff 30000-30fff");
    viommu_iova_release(r[1]);
    assert_string_equal(probed(8), "8000-9fff 10000-10fff 30000-30fff");
    /* An identity space is none for devices behind an IOMMU. */
    assert_int_equal(viommu_iova_create(&config, &device.space), 0);
    assert_int_equal(viommu_device_add(bed.iommu, &device, &added), -EINVAL);
    viommu_iova_destroy(device.space);
}

static void on_revoke(void *opaque)
{
    ++*(unsigned *)opaque;
}

/* What is closed while a device in bypass mode has it: windows go, and what comes later waits. */
static void test_bypass(void **state)
{
    unsigned revoked = 0;
    struct viommu_range range = {0x4000, 0x4fff};
    struct viommu_window_request request = {
        .ranges = &range, .count = 1, .perm = VIOMMU_READ, .revoke = on_revoke,
        .opaque = &revoked};
    struct viommu_iova_reservation *r;
    struct viommu_window *window;
    struct iovec iov;
    size_t count = 1;

    (void)state;
    assert_int_equal(bed_attach(&bed, 1, 9, 0), SPEC_S_OK);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    bed_process(&bed);
    assert_int_equal(viommu_device_pin(bed.devices[0], NULL, &request, &iov, &count, &window), 0);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x20000, 0x20fff, &r, NULL), 0);
    bed_process(&bed);
    assert_int_equal(revoked, 0);
    viommu_iova_release(r);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x4000, 0x4fff, &r, NULL), 0);
    bed_process(&bed);
    assert_int_equal(revoked, 1);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0, SPEC_MAP_RW), BED_PENDING);
    viommu_window_release(window);
    bed_process(&bed);
    assert_int_equal(bed.done_count, 1);
    /* What is given back takes nothing from anybody. */
    viommu_iova_release(r);
    assert_int_equal(bed_map(&bed, 1, 0x2000, 0x2fff, 0, SPEC_MAP_RW), SPEC_S_OK);
}

static bool closed_early;

/* What is closed to an id is known before the device has it. */
static void observe_closed(void *opaque, const struct viommu_observation *observation)
{
    const struct viommu_device *device = bed.devices[0];

    (void)opaque;
    if (observation->kind == VIOMMU_OBSERVED_CLOSED && observation->requester == 81) {
        closed_early = atomic_load(&device->requesters[0])->id == 8;
    }
}

static void test_new_id(void **state)
{
    struct viommu_watcher watcher = {.observe = observe_closed};

    (void)state;
    assert_int_equal(viommu_watch(bed.iommu, &watcher), 0);
    assert_int_equal(viommu_device_set_requester(bed.devices[0], 81), 0);
    assert_true(closed_early);
    assert_string_equal(probed(81), "8000-9fff");
}

/* Each allocation fails once: all is as it was, or as it should be. */
static void test_no_memory(void **state)
{
    struct viommu_device_config config = {.requester = 99, .space = bed.space};
    struct viommu_iova_reservation *r;
    struct viommu_device *device;
    unsigned n = 0;
    int ret;

    (void)state;
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 1, 9, 0), SPEC_S_OK);
    do {
        base_alloc_fail_at(++n);
        ret = bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x20000, 0x20fff, &r, NULL);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
        for (uint32_t id = 8; id < 11; id++) {
            assert_string_equal(probed(id), ret ? "8000-9fff" : "8000-9fff 20000-20fff");
        }
        if (ret) {
            assert_int_equal(bed_map(&bed, 1, 0x20000, 0x20fff, 0, SPEC_MAP_RW), SPEC_S_OK);
            assert_int_equal(bed_unmap(&bed, 1, 0x20000, 0x20fff), SPEC_S_OK);
        }
    } while (ret);
    assert_true(n > 10);
    assert_int_equal(bed_map(&bed, 1, 0x20000, 0x20fff, 0, SPEC_MAP_RW), SPEC_S_INVAL);
    n = 0;
    do {
        base_alloc_fail_at(++n);
        ret = viommu_device_add(bed.iommu, &config, &device);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
    } while (ret);
    assert_string_equal(probed(99), "8000-9fff 20000-20fff");
    /* What is given back without memory is given back later. */
    base_alloc_fail_at(1);
    viommu_iova_release(r);
    base_alloc_fail_at(0);
    assert_int_equal(bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x30000, 0x30fff, &r, NULL), 0);
    assert_string_equal(probed(8), "8000-9fff 30000-30fff");
    assert_int_equal(bed_map(&bed, 1, 0x20000, 0x20fff, 0, SPEC_MAP_RW), SPEC_S_OK);
}

/* The same where devices have mirrors: none is narrower than its device, or wider. */
static void test_no_memory_for_mirrors(void **state)
{
    static const struct viommu_range allowed[] = {{0, 0x7fff}, {0x10000, UINT64_MAX}};
    struct viommu_device_config config = {.requester = 99};
    struct viommu_iova_reservation *r;
    struct mirror_bed limited;
    struct mirror_bed mirror;
    unsigned n = 0;
    int ret;

    (void)state;
    mirror_begin(&bed, 0, &mirror);
    assert_int_equal(bed_finish(&bed, bed_attach(&bed, 1, 8, 0)), SPEC_S_OK);
    do {
        base_alloc_fail_at(++n);
        ret = bed_reserve(&bed, VIOMMU_IOVA_RESERVED, 0x20000, 0x20fff, &r, NULL);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
        assert_string_equal(probed(8), ret ? "8000-9fff" : "8000-9fff 20000-20fff");
        assert_int_equal(bed_finish(&bed, bed_map(&bed, 1, 0x20000, 0x20fff, 0, SPEC_MAP_RW)),
                         ret ? SPEC_S_OK : SPEC_S_INVAL);
        assert_int_equal(mirror.count, ret ? 1 : 0);
        (void)bed_finish(&bed, bed_unmap(&bed, 1, 0x20000, 0x20fff));
        assert_int_equal(mirror.count, 0);
    } while (ret);
    /* A device in no space: what its mirror is allowed makes one. */
    assert_int_equal(viommu_device_remove(bed.devices[2]), 0);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &bed.devices[2]), 0);
    mirror_prepare(&limited);
    limited.what.allowed = allowed;
    limited.what.allowed_count = 2;
    n = 0;
    do {
        base_alloc_fail_at(++n);
        ret = mirror_subscribe(&bed, 2, &limited);
        base_alloc_fail_at(0);
        assert_true(!ret || ret == -ENOMEM);
        assert_string_equal(probed(99), ret ? "" : "8000-ffff");
    } while (ret);
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shared_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bypass, setup, teardown),
        cmocka_unit_test_setup_teardown(test_new_id, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_mirrors, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
