/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the virtio-iommu as a PCI function: a driver offers requests by the rings, and an edu
 * behind it does DMA that goes where the requests say. Those that are pending: pending_test.c.
 */
#include "support/fds.h"
#include "virtio/test_iommu.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include <viommu/device.h>
#include <viommu/iommu.h>

static void requests_say_where_dma_goes(void **state)
{
    (void)state;
    assert_true(test_dma_write(PAGE)); /* bypass */
    assert_int_equal(test_attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
    assert_false(test_dma_write(IOVA));
    assert_int_equal(test_map(IOVA, PAGE + 0x1000), VIRTIO_IOMMU_S_OK);
    assert_true(test_dma_write(IOVA + 8));
    assert_memory_equal(test_at(&test.driver, PAGE + 0x1008), "DATA", 4);
    assert_int_equal(test_map(IOVA, PAGE), VIRTIO_IOMMU_S_INVAL);
    assert_int_equal(test_unmap(), VIRTIO_IOMMU_S_OK);
    assert_false(test_dma_write(IOVA));
    assert_int_equal(test_attach(ENDPOINT + 1), VIRTIO_IOMMU_S_NOENT);
    assert_int_equal(test.iommu.requests, 5);
    assert_int_equal(test.iommu.malformed, 0);
}

static void indirect_requests(void **state)
{
    const struct virtio_iommu_req_attach bytes = {
        .head.type = VIRTIO_IOMMU_T_ATTACH, .domain = DOMAIN, .endpoint = ENDPOINT};
    uint32_t head, length;

    (void)state;
    memcpy(test_at(&test.driver, TEST_DATA), &bytes, 20);
    test_descriptor(&test.driver, TEST_TABLE, 0, TEST_DATA, 3, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, TEST_TABLE, 1, TEST_DATA + 3, 17, VRING_DESC_F_NEXT, 2);
    test_descriptor(&test.driver, TEST_TABLE, 2, TEST_DATA + 64, 1,
                    VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
    test_descriptor(&test.driver, TEST_TABLE, 3, TEST_DATA + 80, 3, VRING_DESC_F_WRITE, 0);
    test_descriptor(&test.driver, test_descriptors(REQUESTS), 5, TEST_TABLE, 64,
                    VRING_DESC_F_INDIRECT, 0);
    memset(test_at(&test.driver, TEST_DATA + 64), 0xee, 32);
    test_offer(&test.driver, REQUESTS, 5);
    test_notify(&test.driver, REQUESTS);
    assert_true(test_used(&test.driver, REQUESTS, &head, &length));
    assert_int_equal(head, 5);
    assert_int_equal(length, 4);
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 64), "\0\xee", 2);
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 80), "\0\0\0\xee", 4);
}

/* A chain came back, with this length. */
static void expect_length(uint16_t wanted, uint32_t length_wanted)
{
    uint32_t head, length;

    test_notify(&test.driver, REQUESTS);
    assert_true(test_used(&test.driver, REQUESTS, &head, &length));
    assert_int_equal(head, wanted);
    assert_int_equal(length, length_wanted);
    assert_false(test_used(&test.driver, REQUESTS, &head, &length));
}

static void all_are_answered(void **state)
{
    const uint64_t table = test_descriptors(REQUESTS);
    uint8_t bytes[SLOT] = {99};

    (void)state;
    expect_length(test_request_offer(bytes, 4, 4), 0); /* of an unknown type */
    bytes[0] = VIRTIO_IOMMU_T_ATTACH;
    expect_length(test_request_offer(bytes, 20, 0), 0); /* no room for an answer */
    expect_length(test_request_offer(bytes, 20, 3), 0);
    expect_length(test_request_offer(bytes, 2, 4), 0);  /* not even a type */
    expect_length(test_request_offer(bytes, 19, 4), 4); /* too short for its type */
    assert_int_equal(test.iommu.malformed, 0);
    test_descriptor(&test.driver, table, 0, TEST_DATA, 4, VRING_DESC_F_NEXT, 0);
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 0); /* a loop */
    assert_int_equal(test.iommu.malformed, 1);
    test_descriptor(&test.driver, table, 0, 0x1000, 20, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, table, 1, TEST_DATA, 4, VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 0); /* where no memory is */
    assert_int_equal(test.iommu.malformed, 2);
    test_descriptor(&test.driver, table, 0, TEST_DATA, 20, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, table, 1, 0x1000, 4, VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 0);
    assert_int_equal(test.iommu.malformed, 3);
    test_descriptor(&test.driver, table, 0, TEST_DATA, UINT32_MAX, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, table, 1, TEST_DATA + SLOT, UINT32_MAX, VRING_DESC_F_WRITE, 0);
    memset(test_at(&test.driver, TEST_DATA), 0, 64);
    *(uint8_t *)test_at(&test.driver, TEST_DATA) = VIRTIO_IOMMU_T_PROBE;
    *(uint8_t *)test_at(&test.driver, TEST_DATA + 4) = ENDPOINT;
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 512 + 4); /* what is too much nobody looks at */
    test_offer(&test.driver, REQUESTS, 9);
    test_notify(&test.driver, REQUESTS);
    assert_true(test_status(&test.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void probe_tells(void **state)
{
    const struct virtio_iommu_req_probe bytes = {.head.type = VIRTIO_IOMMU_T_PROBE,
                                                 .endpoint = ENDPOINT};
    const uint64_t table = test_descriptors(REQUESTS);

    (void)state;
    memcpy(test_at(&test.driver, TEST_DATA), &bytes, 72);
    memset(test_at(&test.driver, TEST_DATA + 0x1000), 0xee, 1024);
    test_descriptor(&test.driver, table, 0, TEST_DATA, 72, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, table, 1, TEST_DATA + 0x1000, 512 + 4, VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 512 + 4);
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x1000), "\1\0\24\0\1", 5);
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x1000 + 512), "\0\0\0\0\xee", 5);
}

/* Nothing of the host's memory, or of another answer, is in an answer. */
static void answers_hold_nothing_else(void **state)
{
    static const uint8_t zeroes[512];
    const struct virtio_iommu_req_probe bytes = {.head.type = VIRTIO_IOMMU_T_PROBE,
                                                 .endpoint = ENDPOINT + 1};
    const uint64_t table = test_descriptors(REQUESTS);

    (void)state;
    memset(test.iommu.answer, 0x5a, test.iommu.answer_size);
    memcpy(test_at(&test.driver, TEST_DATA), &bytes, 72);
    test_descriptor(&test.driver, table, 0, TEST_DATA, 72, VRING_DESC_F_NEXT, 1);
    test_descriptor(&test.driver, table, 1, TEST_DATA + 0x1000, 512 + 4, VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, REQUESTS, 0);
    expect_length(0, 512 + 4);
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x1000), zeroes, sizeof(zeroes));
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x1000 + 512), "\6\0\0\0", 4);
}

static void a_bounded_number_at_a_time(void **state)
{
    uint32_t head, length;
    unsigned at_once = 0, all;

    (void)state;
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_status_add(&test.driver, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    test_features(&test.driver, TEST_VERSION_1);
    test_status_add(&test.driver, VIRTIO_CONFIG_S_FEATURES_OK);
    test_queue(&test.driver, REQUESTS, VIRTIO_RING_SIZE_MAX);
    for (unsigned i = 0; i < VIRTIO_RING_SIZE_MAX; i++) {
        test_offer(&test.driver, REQUESTS, (uint16_t)i);
    }
    virtio_iommu_process(&test.iommu); /* the reset */
    assert_false(test_wants_to_go_on());
    test_status_add(&test.driver, VIRTIO_CONFIG_S_DRIVER_OK);
    while (test_used(&test.driver, REQUESTS, &head, &length)) {
        at_once++;
    }
    assert_true(at_once > 0 && at_once < VIRTIO_RING_SIZE_MAX);
    all = at_once;
    while (test_wants_to_go_on()) {
        virtio_iommu_process(&test.iommu);
    }
    while (test_used(&test.driver, REQUESTS, &head, &length)) {
        all++;
    }
    assert_int_equal(all, VIRTIO_RING_SIZE_MAX);
}

/* ---- faults ---- */

static void offer_buffer(unsigned at, uint32_t size)
{
    test_descriptor(&test.driver, test_descriptors(FAULTS), at, TEST_DATA + 0x2000 + at * 64u, size,
                    VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, FAULTS, (uint16_t)at);
}

static void expect_fault(uint32_t at, uint64_t address)
{
    struct virtio_iommu_fault fault;
    uint32_t head, length;

    assert_true(test_used(&test.driver, FAULTS, &head, &length));
    assert_int_equal(head, at);
    assert_int_equal(length, sizeof(fault));
    memcpy(&fault, test_at(&test.driver, TEST_DATA + 0x2000 + at * 64u), sizeof(fault));
    assert_int_equal(fault.endpoint, ENDPOINT);
    assert_int_equal(fault.address, address);
    assert_int_equal(fault.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
    assert_true(fault.flags & VIRTIO_IOMMU_FAULT_F_WRITE);
}

static void faults_go_into_buffers(void **state)
{
    uint32_t head, length;

    (void)state;
    test_begin_mapping();
    offer_buffer(0, 24);
    offer_buffer(1, 64);
    test_notify(&test.driver, FAULTS);
    assert_false(test_used(&test.driver, FAULTS, &head, &length));
    test_get(&test.driver, TEST_ISR, 1);
    assert_false(test_dma_write(0x9000));
    virtio_iommu_process(&test.iommu);
    expect_fault(0, 0x9000);
    assert_int_equal(test_get(&test.driver, TEST_ISR, 1), 1);
    assert_false(test_dma_write(0xa000));
    assert_false(test_dma_write(0xb000)); /* waits for a buffer */
    virtio_iommu_process(&test.iommu);
    expect_fault(1, 0xa000);
    assert_false(test_used(&test.driver, FAULTS, &head, &length));
    offer_buffer(0, 24);
    test_notify(&test.driver, FAULTS);
    expect_fault(0, 0xb000);
    assert_int_equal(test.iommu.faults_told, 3);
}

static void buffers_that_are_none(void **state)
{
    uint32_t head, length;

    (void)state;
    test_begin_mapping();
    assert_false(test_dma_write(0x9000));
    offer_buffer(0, 23);
    offer_buffer(1, 0);
    test_descriptor(&test.driver, test_descriptors(FAULTS), 2, TEST_DATA, 24, 0, 0); /* to read */
    test_offer(&test.driver, FAULTS, 2);
    offer_buffer(3, 24);
    test_notify(&test.driver, FAULTS);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(test_used(&test.driver, FAULTS, &head, &length));
        assert_int_equal(head, i);
        assert_int_equal(length, 0);
    }
    assert_int_equal(test.iommu.buffers_refused, 3);
    expect_fault(3, 0x9000);
    assert_false(test_dma_write(0x9000));
    test_descriptor(&test.driver, test_descriptors(FAULTS), 0, 0x1000, 24, VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, FAULTS, 0);
    test_notify(&test.driver, FAULTS);
    assert_true(test_used(&test.driver, FAULTS, &head, &length));
    assert_int_equal(length, 0);
    assert_int_equal(test.iommu.faults_dropped, 1);
}

static void floods_of_faults_are_bounded(void **state)
{
    struct viommu_stats stats;

    (void)state;
    test_begin_mapping();
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(test_dma_write(0x9000));
    }
    virtio_iommu_process(&test.iommu);
    viommu_stats_get(test.iommu.unit.iommu, &stats, sizeof(stats));
    assert_int_equal(stats.faults_recorded, 256);
    assert_int_equal(stats.faults_lost, 1000 - 256);
    for (unsigned i = 0; i < 256; i++) {
        offer_buffer(i % TEST_SIZE, 24);
        test_notify(&test.driver, FAULTS);
        expect_fault(i % TEST_SIZE, 0x9000);
    }
    offer_buffer(0, 24);
    test_notify(&test.driver, FAULTS);
    assert_int_equal(test.iommu.faults_told, 256);
}

/* ---- memory, resets, configuration ---- */

static void memory_goes(void **state)
{
    (void)state;
    test_begin_mapping();
    test_driver_unmap(&test.driver);
    test_notify(&test.driver, REQUESTS);
    assert_true(test_status(&test.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    virtio_iommu_process(&test.iommu);
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_status(&test.driver), 0);
    test_driver_attach(&test.driver, &test.iommu.pci.function);
    test_begin(&test.driver, ALL_FEATURES);
    test_begin_mapping();
    assert_true(test_dma_write(IOVA));
}

/* There are too few descriptors: no device, and none is lost. */
static void descriptors_are_used_up(void **state)
{
    static const struct viommu_virtio_config config = {.probe_size = 64};
    static struct virtio_iommu other;
    struct rlimit whole, little;
    unsigned before = support_open_fds();
    rlim_t spare = 0;
    int ret, next = dup(0);

    (void)state;
    assert_true(next >= 0);
    close(next);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &whole), 0);
    for (little = whole, ret = -EMFILE; ret < 0; spare++) {
        little.rlim_cur = (rlim_t)next + spare;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &little), 0);
        ret = virtio_iommu_init(&other, "other", &config, NULL);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &whole), 0);
        assert_true(ret == 0 || ret == -EMFILE);
        assert_true(ret == 0 || support_open_fds() == before);
    }
    assert_true(spare > 6); /* memory, unit, and our own */
    assert_true(other.unit.work_fd >= 0);
    virtio_iommu_fini(&other);
    assert_int_equal(support_open_fds(), before);
}

static void resets(void **state)
{
    (void)state;
    test_begin_mapping();
    assert_int_equal(test_get(&test.driver, BYPASS, 1), 1);
    test_put(&test.driver, BYPASS, 1, 0);
    assert_int_equal(test_get(&test.driver, BYPASS, 1), 0);
    assert_int_equal(test_get(&test.driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1,
             0); /* the driver's: domains go, this stays */
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_status(&test.driver), 0);
    assert_int_equal(test_get(&test.driver, BYPASS, 1), 0);
    assert_false(test_dma_write(IOVA));
    assert_false(test_dma_write(PAGE));
    pci_config_reset(&test.iommu.pci.function.config);
    test.iommu.pci.function.ops->reset(test.iommu.pci.function.opaque); /* the platform's */
    assert_int_equal(test_get(&test.driver, BYPASS, 1), 1);
    assert_true(test_dma_write(PAGE));
}

static void bypass_needs_its_feature(void **state)
{
    (void)state;
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_begin(&test.driver, ALL_FEATURES & ~UINT64_C(0x40));
    test_put(&test.driver, BYPASS, 1, 0);
    assert_int_equal(test_get(&test.driver, BYPASS, 1), 1);
    assert_int_equal(test_get(&test.driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_iommu_setup, test_iommu_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(requests_say_where_dma_goes),
        TEST(indirect_requests),
        TEST(all_are_answered),
        TEST(probe_tells),
        TEST(answers_hold_nothing_else),
        TEST(a_bounded_number_at_a_time),
        TEST(faults_go_into_buffers),
        TEST(buffers_that_are_none),
        TEST(floods_of_faults_are_bounded),
        TEST(memory_goes),
        TEST(descriptors_are_used_up),
        TEST(resets),
        TEST(bypass_needs_its_feature),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
