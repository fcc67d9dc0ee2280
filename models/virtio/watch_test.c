/* SPDX-License-Identifier: BSD-2-Clause */
/* Who watches is told of each step of the driver's, once and in order, and of the ids there are. */
#include "virtio/test_virtio.h"

#include <viommu/watch.h>

static const struct viommu_virtio_config defaults;

static struct {
    struct viommu_observation all[64];
    uint8_t bytes[64][80];
    unsigned count;
    unsigned next;
} seen;

static void observe(void *opaque, const struct viommu_observation *observation)
{
    (void)opaque;
    assert_true(seen.count < 64);
    if (observation->bytes) {
        assert_true(observation->slot <= sizeof(seen.bytes[0]));
        memcpy(seen.bytes[seen.count], observation->bytes, observation->slot);
    }
    seen.all[seen.count++] = *observation;
}

static void watch(struct bed *bed)
{
    struct viommu_watcher watcher = {.observe = observe};

    memset(&seen, 0, sizeof(seen));
    assert_int_equal(viommu_watch(bed->iommu, &watcher), 0);
}

static const struct viommu_observation *next(enum viommu_observed kind)
{
    const struct viommu_observation *got = &seen.all[seen.next];

    assert_true(seen.next < seen.count);
    assert_int_equal(got->kind, kind);
    assert_int_equal(got->index, ++seen.next);
    return got;
}

static void expect_requester(uint16_t id, bool present)
{
    const struct viommu_observation *got = next(VIOMMU_OBSERVED_REQUESTER);

    assert_int_equal(got->requester, id);
    assert_int_equal(got->value, present);
}

static void expect_request(uint64_t number, const struct spec_virtio_request *request,
                           uint64_t room)
{
    unsigned at = seen.next;
    const struct viommu_observation *got = next(VIOMMU_OBSERVED_REQUEST);

    assert_int_equal(got->number, number);
    assert_int_equal(got->size, request->size);
    assert_int_equal(got->slot, request->size < 36 ? request->size : 36);
    assert_int_equal(got->room, room);
    assert_memory_equal(seen.bytes[at], request->bytes, got->slot);
}

static void expect_answered(uint64_t number, uint32_t status, uint32_t written)
{
    const struct viommu_observation *got = next(VIOMMU_OBSERVED_ANSWERED);

    assert_int_equal(got->number, number);
    assert_int_equal(got->status, status);
    assert_int_equal(got->size, written);
}

static void expect_nothing(void)
{
    assert_int_equal(seen.next, seen.count);
}

static void test_requests(void **state)
{
    struct spec_virtio_request attach = spec_virtio_attach(1, 8, 0);
    struct spec_virtio_request map = spec_virtio_map(1, 0x1000, 0x1fff, 0x3000, 3);
    struct spec_virtio_request unmap = spec_virtio_unmap(1, 0x1000, 0x1fff);
    struct spec_virtio_request odd = {.bytes = {77}, .size = 10};
    const struct viommu_observation *got;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    watch(&bed);
    assert_int_equal(seen.count, 3);
    for (uint16_t i = 0; i < 3; i++) {
        assert_int_equal(seen.all[i].kind, VIOMMU_OBSERVED_REQUESTER);
        assert_int_equal(seen.all[i].value, 1);
    }
    seen.next = 3;
    assert_int_equal(viommu_virtio_accept(bed.iommu, 0x77), 0);
    assert_int_equal(next(VIOMMU_OBSERVED_ACCEPTED)->value, 0x77);
    assert_int_equal(bed_request(&bed, attach), SPEC_S_OK);
    expect_request(1, &attach, 4);
    expect_answered(1, 0, 4);
    assert_int_equal(bed_request(&bed, map), SPEC_S_OK);
    assert_int_equal(bed_request(&bed, map), SPEC_S_INVAL);
    expect_request(2, &map, 4);
    expect_answered(2, 0, 4);
    expect_request(3, &map, 4);
    expect_answered(3, SPEC_S_INVAL, 4);
    assert_int_equal(bed_request(&bed, odd), BED_SILENT);
    expect_request(4, &odd, 4);
    expect_answered(4, VIOMMU_OBSERVED_SILENCE, 0);
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 1), 0);
    got = next(VIOMMU_OBSERVED_WRITE);
    assert_int_equal(got->offset, SPEC_CONFIG_BYPASS);
    assert_int_equal(got->value, 1);
    bed_process(&bed);
    expect_nothing();
    /* Pending: told when it is complete, each in its turn. */
    assert_int_equal(viommu_dma_begin(bed.iommu), 0);
    assert_int_equal(bed_request(&bed, unmap), BED_PENDING);
    assert_int_equal(bed_request(&bed, map), BED_PENDING);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 9), VIOMMU_PENDING);
    expect_request(5, &unmap, 4);
    expect_request(6, &map, 4);
    assert_int_equal(next(VIOMMU_OBSERVED_RESTART)->number, 7);
    bed_process(&bed);
    expect_nothing();
    viommu_dma_end(bed.iommu);
    bed_process(&bed);
    expect_answered(5, 0, 4);
    expect_answered(6, 0, 4);
    expect_answered(7, 0, 0);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 10), 0);
    assert_int_equal(next(VIOMMU_OBSERVED_RESTART)->number, 8);
    expect_answered(8, 0, 0);
    expect_nothing();
    /* What is not taken is not told. */
    assert_int_equal(viommu_virtio_accept(bed.iommu, 8), -EINVAL);
    expect_nothing();
    assert_int_equal(viommu_watch(bed.iommu, NULL), 0);
    assert_int_equal(bed_request(&bed, attach), SPEC_S_OK);
    expect_nothing();
    bed_fini(&bed);
}

static void test_requesters(void **state)
{
    struct viommu_device_config config = {.requester = 50, .shared = true};
    struct viommu_device *devices[2];
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    watch(&bed);
    seen.next = 3;
    assert_int_equal(viommu_device_add(bed.iommu, &config, &devices[0]), 0);
    expect_requester(50, true);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &devices[1]), 0);
    expect_nothing(); /* the id was there */
    assert_int_equal(viommu_device_add_alias(bed.devices[0], 60), 1);
    expect_requester(60, true);
    assert_int_equal(viommu_device_set_requester(bed.devices[1], 61), 0);
    expect_requester(61, true);
    expect_requester(9, false);
    assert_int_equal(viommu_device_remove(devices[0]), 0);
    expect_nothing();
    assert_int_equal(viommu_device_remove(devices[1]), 0);
    expect_requester(50, false);
    assert_int_equal(viommu_device_remove_aliases(bed.devices[0]), 0);
    expect_requester(60, false);
    expect_nothing();
    assert_int_equal(viommu_watch(bed.iommu, NULL), 0);
    bed_fini(&bed);
}

static void test_faults(void **state)
{
    const struct viommu_observation *got;
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.faults_max = 1});
    watch(&bed);
    seen.next = 3;
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(bed_read(&bed, 0, 0x1008), -EFAULT);
        got = next(VIOMMU_OBSERVED_FAULT);
        assert_int_equal(got->requester, 8);
        assert_int_equal(got->iova, 0x1008);
        assert_int_equal(got->reason, SPEC_FAULT_R_DOMAIN);
        assert_int_equal(got->error, i ? -ENOSPC : 0);
        assert_int_equal(next(VIOMMU_OBSERVED_MISS)->error, -EFAULT);
    }
    assert_int_equal(bed_status(&bed).features, 0x77);
    assert_int_equal(viommu_watch(bed.iommu, NULL), 0);
    bed_fini(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_requesters),
        cmocka_unit_test(test_faults),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
