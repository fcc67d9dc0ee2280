/* SPDX-License-Identifier: BSD-2-Clause */
/* What devices reach, and the faults that they leave. */
#include "virtio/test_virtio.h"

#include "base/alloc.h"
#include "range/tree.h"

enum {
    READ_AT = SPEC_FAULT_READ | SPEC_FAULT_ADDRESS,
    WRITE_AT = SPEC_FAULT_WRITE | SPEC_FAULT_ADDRESS,
};

static const struct viommu_virtio_config defaults;

static void test_mapped(void **state)
{
    struct viommu_translation out;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, READ_AT, 8, 0x1000);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1008), -EFAULT);
    bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8, 0x1008);
    assert_int_equal(bed_map(&bed, 1, 0x10000, 0x13fff, 0x5000, SPEC_MAP_RW), SPEC_S_OK);
    for (unsigned round = 0; round < 3; round++) {
        for (unsigned i = 0; i < 4; i++) {
            assert_int_equal(bed_read(&bed, 0, 0x10000 + i * PAGE), 5 + i);
        }
    }
    assert_true(bed_stats(&bed).iotlb_hits >= 8);
    assert_int_equal(bed_stats(&bed).walks, 5);
    assert_int_equal(bed_read(&bed, 0, 0xfff8), -EFAULT);
    bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8, 0xfff8);
    assert_int_equal(bed_write(&bed, 0, 0x14000), -EFAULT);
    bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, WRITE_AT, 8, 0x14000);
    assert_int_equal(bed_read(&bed, 1, 0x10000), -EFAULT);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, READ_AT, 9, 0x10000);
    /* The block that a translation holds for: aligned on both sides, inside the mapping. */
    assert_int_equal(bed_map(&bed, 1, 0x200000, 0x3fffff, 0x600000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x345678, VIOMMU_WRITE, &out),
                     0);
    assert_int_equal(out.gpa, 0x745678);
    assert_int_equal(out.mask, 0x1fffff);
    assert_int_equal(bed_map(&bed, 1, 0x400000, 0x5fffff, 0x1000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x402000, VIOMMU_WRITE, &out),
                     0);
    assert_int_equal(out.gpa, 0x3000);
    assert_int_equal(out.mask, 0xfff);
    assert_false(out.interrupt);
    bed_expect_no_fault(&bed);
    bed_fini(&bed);
}

static void test_permissions(void **state)
{
    struct viommu_translation out;
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x1000, SPEC_MAP_READ), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x2000, 0x2fff, 0x2000, SPEC_MAP_WRITE), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x3000, 0x3fff, 0x3000, 0), SPEC_S_OK);
    for (unsigned round = 0; round < 2; round++) {
        assert_int_equal(bed_read(&bed, 0, 0x1000), 1);
        assert_int_equal(bed_write(&bed, 0, 0x1000), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, WRITE_AT, 8, 0x1000);
        assert_int_equal(bed_write(&bed, 0, 0x2000), 0);
        assert_int_equal(bed_read(&bed, 0, 0x2000), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8, 0x2000);
        assert_int_equal(bed_read(&bed, 0, 0x3000), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8, 0x3000);
        /* A zero-length read needs some permission, whichever. */
        assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x2000, 0, &out), 0);
        assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x3000, 0, &out), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8, 0x3000);
        assert_int_equal(viommu_device_translate(bed.devices[0], NULL, 0x1000,
                                                 VIOMMU_READ | VIOMMU_WRITE, &out), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT | WRITE_AT, 8, 0x1000);
    }
    bed_fini(&bed);
}

/* Domains do not see one another's mappings, and an endpoint takes none along. */
static void test_domains(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 2, 9, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x3000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 2, 0x1000, 0x1fff, 0x4000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    assert_int_equal(bed_read(&bed, 1, 0x1000), 4);
    assert_int_equal(bed_attach(&bed, 2, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 4);
    /* The id again, another domain. */
    assert_int_equal(bed_attach(&bed, 1, 10, 0), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 2, 0x1000), -EFAULT);
    assert_int_equal(bed_unmap(&bed, 2, 0, 0xffff), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_read(&bed, 1, 0x1000), -EFAULT);
    assert_int_equal(bed_map(&bed, 2, 0x1000, 0x1fff, 0x5000, SPEC_MAP_READ), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 5);
    assert_int_equal(bed_detach(&bed, 2, 8), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_read(&bed, 1, 0x1000), 5);
    bed_fini(&bed);
}

static void test_bypass(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.bypass = true});
    assert_int_equal(bed_read(&bed, 0, 0x7000), 7);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x7000), -EFAULT);
    assert_int_equal(bed_attach(&bed, 2, 9, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    for (unsigned i = 0; i < 4; i++) {
        /* The field concerns those that are not attached. */
        assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, i & 1), 0);
        assert_int_equal(bed_read(&bed, 0, 0x7000), -EFAULT);
        assert_int_equal(bed_read(&bed, 1, 0x7000), 7);
        assert_int_equal(bed_read(&bed, 2, 0x7000), i & 1 ? 7 : -EFAULT);
        bed_process(&bed);
    }
    assert_int_equal(bed_detach(&bed, 1, 8), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x7000), 7);
    /* A reset of the device keeps the field, one of the platform does not. */
    assert_int_equal(viommu_mmio_write(bed.iommu, SPEC_CONFIG_BYPASS, 1, 0), 0);
    bed_process(&bed);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 1), 0);
    assert_int_equal(bed_read(&bed, 0, 0x7000), -EFAULT);
    assert_int_equal(bed_read(&bed, 1, 0x7000), -EFAULT);
    assert_int_equal(viommu_reset(bed.iommu), 0);
    assert_int_equal(bed_read(&bed, 1, 0x7000), 7);
    bed_fini(&bed);
}

/* The feature that BYPASS_CONFIG replaced. */
static void test_old_bypass(void **state)
{
    struct viommu_virtio_config config = {
        .features = VIOMMU_VIRTIO_MAP_UNMAP | VIOMMU_VIRTIO_BYPASS, .bypass = true};
    struct bed bed;

    (void)state;
    bed_init(&bed, &config);
    assert_int_equal(bed_read(&bed, 0, 0x7000), 7);
    assert_int_equal(viommu_virtio_accept(bed.iommu, VIOMMU_VIRTIO_MAP_UNMAP), 0);
    assert_int_equal(bed_read(&bed, 0, 0x7000), -EFAULT);
    bed_process(&bed);
    assert_int_equal(bed_attach(&bed, 1, 8, SPEC_ATTACH_BYPASS), SPEC_S_INVAL);
    bed_fini(&bed);
}

static void test_interrupts(void **state)
{
    static const struct viommu_range region = {0x8000, 0x8fff};
    struct viommu_virtio_config config = {.bypass = true};
    uint32_t word = 0;
    struct bed bed;

    (void)state;
    bed_space(&bed, &region, 1);
    bed_begin(&bed, &config);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(viommu_device_write(bed.devices[i], NULL, 0xfee01000, &word, 4), 0);
        assert_int_equal(bed.interrupts, i + 1);
        assert_int_equal(viommu_device_read(bed.devices[i], NULL, 0xfee01000, &word, 4), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8 + i, 0xfee01000);
        assert_int_equal(viommu_device_write(bed.devices[i], NULL, 0xfee01000, &word, 2), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, WRITE_AT, 8 + i, 0xfee01000);
        /* What is reserved is nobody's, in bypass mode either. */
        assert_int_equal(bed_read(&bed, i, 0x8000), -EFAULT);
        bed_expect_fault(&bed, SPEC_FAULT_R_MAPPING, READ_AT, 8 + i, 0x8000);
    }
    assert_int_equal(bed_read(&bed, 1, 0x7000), 7);
    bed_fini(&bed);
}

static void test_faults(void **state)
{
    uint8_t bytes[24];
    struct bed bed;

    (void)state;
    bed_init(&bed, &(struct viommu_virtio_config){.faults_max = 3});
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(bed_read(&bed, 0, i * PAGE), -EFAULT);
    }
    bed_process(&bed);
    assert_int_equal(bed.faulted, 1);
    assert_int_equal(bed_stats(&bed).faults_recorded, 3);
    assert_int_equal(bed_stats(&bed).faults_lost, 2);
    assert_int_equal(viommu_virtio_fault(bed.iommu, bytes, 23), -ENOSPC);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, READ_AT, 8, 0);
    assert_int_equal(bed_write(&bed, 1, 0x9000), -EFAULT);
    bed_process(&bed);
    assert_int_equal(bed.faulted, 1);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, READ_AT, 8, 0x1000);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, READ_AT, 8, 0x2000);
    bed_expect_fault(&bed, SPEC_FAULT_R_DOMAIN, WRITE_AT, 9, 0x9000);
    bed_expect_no_fault(&bed);
    assert_int_equal(viommu_virtio_fault(bed.iommu, bytes, 0), 0);
    assert_int_equal(bed_write(&bed, 1, 0x9000), -EFAULT);
    bed_process(&bed);
    assert_int_equal(bed.faulted, 2);
    assert_int_equal(bed_status(&bed).faults_waiting, 1);
    assert_int_equal(viommu_virtio_reset(bed.iommu, 1), 0);
    bed_expect_no_fault(&bed);
    bed_fini(&bed);
}

/* Devices that come and go, and change their ids. */
static void test_devices(void **state)
{
    struct viommu_device_config config = {.requester = 8};
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x3000, SPEC_MAP_RW), SPEC_S_OK);
    assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
    assert_int_equal(viommu_device_add_alias(bed.devices[0], 77), 1);
    assert_int_equal(bed_attach(&bed, 1, 77, 0), SPEC_S_OK);
    assert_int_equal(viommu_device_set_requester(bed.devices[0], 11), 0);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    assert_int_equal(bed_status(&bed).endpoints, 1);
    assert_int_equal(bed_detach(&bed, 1, 8), SPEC_S_NOENT);
    assert_int_equal(viommu_device_remove_aliases(bed.devices[0]), 0);
    assert_int_equal(bed_status(&bed).domains, 0);
    assert_int_equal(bed_status(&bed).mappings, 0);
    assert_int_equal(viommu_device_remove(bed.devices[0]), 0);
    assert_int_equal(viommu_device_add(bed.iommu, &config, &bed.devices[0]), 0);
    assert_int_equal(bed_read(&bed, 0, 0x1000), -EFAULT);
    /* What it has not. */
    config = (struct viommu_device_config){.requester = 99, .ats = true};
    assert_int_equal(viommu_device_add(bed.iommu, &config, &bed.devices[0]), -ENOTSUP);
    bed_fini(&bed);
}

/* Without memory to remember a requester it is slow, and right. */
static void test_no_memory(void **state)
{
    struct bed bed;

    (void)state;
    bed_init(&bed, &defaults);
    assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
    assert_int_equal(bed_attach(&bed, 2, 9, SPEC_ATTACH_BYPASS), SPEC_S_OK);
    assert_int_equal(bed_map(&bed, 1, 0x1000, 0x1fff, 0x3000, SPEC_MAP_RW), SPEC_S_OK);
    for (unsigned long n = 1; n < 3; n++) {
        base_alloc_fail_at(n);
        assert_int_equal(bed_read(&bed, 0, 0x1000), 3);
        bed_process(&bed);
        assert_int_equal(bed.events, n);
        assert_int_equal(bed.event.kind, VIOMMU_EVENT_HOST_FAILURE);
    }
    base_alloc_fail_at(1);
    assert_int_equal(bed_read(&bed, 1, 0x1000), 1);
    base_alloc_fail_at(0);
    bed_fini(&bed);
}

/* ---- a change while DMA looks without the lock ---- */

static struct {
    struct bed *bed;
    unsigned step; /* of the look-up */
    unsigned when; /* the driver makes its request */
    struct spec_virtio_request request;
    uint8_t status;
} meanwhile;

static void at_step(void)
{
    if (meanwhile.step++ == meanwhile.when) {
        meanwhile.status = bed_request(meanwhile.bed, meanwhile.request);
    }
}

/* The answer may be the old one until it is over; what is remembered is the new one. */
static void unmap_meanwhile(const struct spec_virtio_request *request, int64_t after)
{
    int64_t read;

    for (meanwhile.when = 0;; meanwhile.when++) {
        struct bed bed;

        bed_init(&bed, &defaults);
        assert_int_equal(bed_attach(&bed, 1, 8, 0), SPEC_S_OK);
        for (uint64_t i = 1; i < 200; i++) {
            assert_int_equal(bed_map(&bed, 1, i * PAGE, i * PAGE + 0xfff, 0x3000, SPEC_MAP_RW),
                             SPEC_S_OK);
        }
        assert_int_equal(bed_read(&bed, 0, 0x1000), 3); /* so that it has a context */
        meanwhile.bed = &bed;
        meanwhile.step = 0;
        meanwhile.request = *request;
        meanwhile.status = BED_SILENT;
        tree_peek_step = at_step;
        read = bed_read(&bed, 0, 0x9000);
        tree_peek_step = NULL;
        bed_process(&bed);
        assert_true(read == 3 || read == after);
        if (meanwhile.status != BED_SILENT) {
            assert_int_equal(meanwhile.status, BED_PENDING); /* the read is a section */
            assert_int_equal(bed.done_count, 1);
            assert_int_equal(bed.done[0].status, SPEC_S_OK);
            assert_int_equal(bed_read(&bed, 0, 0x9000), after);
        }
        bed_fini(&bed);
        if (meanwhile.status == BED_SILENT) {
            break;
        }
    }
    assert_true(meanwhile.when > 20);
}

static void test_meanwhile(void **state)
{
    struct spec_virtio_request unmap = spec_virtio_unmap(1, 0x9000, 0x9fff);
    struct spec_virtio_request unmap_all = spec_virtio_unmap(1, 0, UINT64_MAX);
    struct spec_virtio_request detach = spec_virtio_detach(1, 8);
    struct spec_virtio_request attach = spec_virtio_attach(2, 8, SPEC_ATTACH_BYPASS);

    (void)state;
    unmap_meanwhile(&unmap, -EFAULT);
    unmap_meanwhile(&unmap_all, -EFAULT);
    unmap_meanwhile(&detach, -EFAULT);
    unmap_meanwhile(&attach, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mapped),     cmocka_unit_test(test_permissions),
        cmocka_unit_test(test_domains),    cmocka_unit_test(test_bypass),
        cmocka_unit_test(test_old_bypass), cmocka_unit_test(test_interrupts),
        cmocka_unit_test(test_faults),     cmocka_unit_test(test_devices),
        cmocka_unit_test(test_no_memory),  cmocka_unit_test(test_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
