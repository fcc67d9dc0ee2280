/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the virtio-iommu as a PCI function: a driver offers requests by the rings, and an edu
 * behind it does DMA that goes where the requests say.
 */
#include "virtio/iommu.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <viommu/device.h>
#include <viommu/window.h>

#include "edu.h"
#include "save/stream.h"
#include "virtio/test_driver.h"

enum {
    REQUESTS = 0,
    FAULTS = 1,
    ENDPOINT = 0x28, /* 00:05.0 */
    DOMAIN = 7,
    IOVA = 0x7000,
    PAGE = TEST_RAM + 0x80000, /* what it leads to */
    ANSWER = 0x80,             /* where in a slot of TEST_DATA the answer goes */
    SLOT = 0x100,
    BYPASS = TEST_CONFIG + 36,
    ALL_FEATURES = 0x77, /* of the device: all but BYPASS */
};

static struct virtio_iommu iommu;
static struct test_driver driver;
static struct viommu_device *device;
static struct edu edu;
static unsigned slots; /* used since the last start */

static void make(struct virtio_iommu *of, struct viommu_device **its)
{
    static const struct viommu_virtio_config config = {.bypass = true};
    const struct viommu_device_config device_config = {.requester = ENDPOINT};

    assert_int_equal(virtio_iommu_init(of, "virtio", &config, NULL), 0);
    assert_int_equal(viommu_device_add(of->unit.iommu, &device_config, its), 0);
}

static void make_edu(struct viommu_device *its)
{
    struct device_dma dma = unit_dma;
    uint16_t command = PCI_COMMAND_MASTER;

    dma.opaque = its;
    edu_init(&edu, "edu", &dma);
    pci_config_write(&edu.function.config, PCI_COMMAND, &command, sizeof(command));
}

static int setup(void **state)
{
    (void)state;
    make(&iommu, &device);
    assert_int_equal(viommu_start(iommu.unit.iommu), 0);
    make_edu(device);
    test_driver_open(&driver);
    test_driver_attach(&driver, &iommu.pci.function);
    test_begin(&driver, ALL_FEATURES | TEST_INDIRECT);
    slots = 0;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_driver_close(&driver);
    virtio_iommu_process(&iommu);
    viommu_device_remove(device);
    virtio_iommu_fini(&iommu);
    return 0;
}

/* ---- requests ---- */

/* Offers a request with room for an answer; returns its head. Its answer begins with 0xee. */
static uint16_t offer(const void *request, uint32_t size, uint32_t room)
{
    unsigned slot = slots++ % 4;
    uint64_t gpa = TEST_DATA + (uint64_t)slot * SLOT;

    memset(test_at(&driver, gpa), 0xee, SLOT);
    memcpy(test_at(&driver, gpa), request, size);
    test_descriptor(&driver, test_descriptors(REQUESTS), 2 * slot, gpa, size,
                    room ? VRING_DESC_F_NEXT : 0, (uint16_t)(2 * slot + 1));
    test_descriptor(&driver, test_descriptors(REQUESTS), 2 * slot + 1, gpa + ANSWER, room,
                    VRING_DESC_F_WRITE, 0);
    test_offer(&driver, REQUESTS, (uint16_t)(2 * slot));
    return (uint16_t)(2 * slot);
}

static const uint8_t *answer_of(uint16_t head)
{
    return test_at(&driver, TEST_DATA + head / 2u * SLOT + ANSWER);
}

/* The status of a request that has come back; -1 when none has. */
static int came_back(uint16_t wanted)
{
    uint32_t head, length;

    if (!test_used(&driver, REQUESTS, &head, &length)) {
        return -1;
    }
    assert_int_equal(head, wanted);
    assert_int_equal(length, 4);
    assert_memory_equal(answer_of(wanted) + 1, "\0\0\0", 3);
    return answer_of(wanted)[0];
}

/* Has a request carried out; its status. */
static int request(const void *bytes, uint32_t size)
{
    uint16_t head = offer(bytes, size, 4);

    test_notify(&driver, REQUESTS);
    virtio_iommu_process(&iommu);
    return came_back(head);
}

static int attach(uint32_t endpoint)
{
    const struct virtio_iommu_req_attach bytes = {
        .head.type = VIRTIO_IOMMU_T_ATTACH, .domain = DOMAIN, .endpoint = endpoint};

    return request(&bytes, 20);
}

static int map(uint64_t first, uint64_t gpa)
{
    const struct virtio_iommu_req_map bytes = {
        .head.type = VIRTIO_IOMMU_T_MAP,
        .domain = DOMAIN,
        .virt_start = first,
        .virt_end = first + 0xfff,
        .phys_start = gpa,
        .flags = VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE,
    };

    return request(&bytes, 36);
}

static const struct virtio_iommu_req_unmap unmap_all = {
    .head.type = VIRTIO_IOMMU_T_UNMAP,
    .domain = DOMAIN,
    .virt_end = UINT64_MAX >> 16,
};

static int unmap(void)
{
    return request(&unmap_all, 28);
}

static void begin_mapping(void)
{
    assert_int_equal(attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
    assert_int_equal(map(IOVA, PAGE), VIRTIO_IOMMU_S_OK);
}

/* The edu writes 4 bytes to an address. Returns whether they got anywhere. */
static bool dma_write(uint64_t iova)
{
    const uint64_t values[][2] = {
        {EDU_REG_DMA_SOURCE, EDU_BUFFER},
        {EDU_REG_DMA_DESTINATION, iova},
        {EDU_REG_DMA_COUNT, 4},
        {EDU_REG_DMA_COMMAND, EDU_DMA_START | EDU_DMA_TO_MEMORY},
    };
    uint64_t before = edu.transfers;

    memcpy(edu.buffer, "DATA", 4);
    for (unsigned i = 0; i < 4; i++) {
        edu.function.ops->bar_write(&edu, 0, values[i][0], &values[i][1], 8);
    }
    return edu.transfers > before;
}

static void requests_say_where_dma_goes(void **state)
{
    (void)state;
    assert_true(dma_write(PAGE)); /* bypass */
    assert_int_equal(attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
    assert_false(dma_write(IOVA));
    assert_int_equal(map(IOVA, PAGE + 0x1000), VIRTIO_IOMMU_S_OK);
    assert_true(dma_write(IOVA + 8));
    assert_memory_equal(test_at(&driver, PAGE + 0x1008), "DATA", 4);
    assert_int_equal(map(IOVA, PAGE), VIRTIO_IOMMU_S_INVAL);
    assert_int_equal(unmap(), VIRTIO_IOMMU_S_OK);
    assert_false(dma_write(IOVA));
    assert_int_equal(attach(ENDPOINT + 1), VIRTIO_IOMMU_S_NOENT);
    assert_int_equal(iommu.requests, 5);
    assert_int_equal(iommu.malformed, 0);
}

static void indirect_requests(void **state)
{
    const struct virtio_iommu_req_attach bytes = {
        .head.type = VIRTIO_IOMMU_T_ATTACH, .domain = DOMAIN, .endpoint = ENDPOINT};
    uint32_t head, length;

    (void)state;
    memcpy(test_at(&driver, TEST_DATA), &bytes, 20);
    test_descriptor(&driver, TEST_TABLE, 0, TEST_DATA, 3, VRING_DESC_F_NEXT, 1);
    test_descriptor(&driver, TEST_TABLE, 1, TEST_DATA + 3, 17, VRING_DESC_F_NEXT, 2);
    test_descriptor(&driver, TEST_TABLE, 2, TEST_DATA + 64, 1,
                    VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
    test_descriptor(&driver, TEST_TABLE, 3, TEST_DATA + 80, 3, VRING_DESC_F_WRITE, 0);
    test_descriptor(&driver, test_descriptors(REQUESTS), 5, TEST_TABLE, 64, VRING_DESC_F_INDIRECT,
                    0);
    memset(test_at(&driver, TEST_DATA + 64), 0xee, 32);
    test_offer(&driver, REQUESTS, 5);
    test_notify(&driver, REQUESTS);
    assert_true(test_used(&driver, REQUESTS, &head, &length));
    assert_int_equal(head, 5);
    assert_int_equal(length, 4);
    assert_memory_equal(test_at(&driver, TEST_DATA + 64), "\0\xee", 2);
    assert_memory_equal(test_at(&driver, TEST_DATA + 80), "\0\0\0\xee", 4);
}

/* A chain came back, with this length. */
static void expect_length(uint16_t wanted, uint32_t length_wanted)
{
    uint32_t head, length;

    test_notify(&driver, REQUESTS);
    assert_true(test_used(&driver, REQUESTS, &head, &length));
    assert_int_equal(head, wanted);
    assert_int_equal(length, length_wanted);
    assert_false(test_used(&driver, REQUESTS, &head, &length));
}

static void all_are_answered(void **state)
{
    const uint64_t table = test_descriptors(REQUESTS);
    uint8_t bytes[SLOT] = {99};

    (void)state;
    expect_length(offer(bytes, 4, 4), 0); /* of an unknown type */
    bytes[0] = VIRTIO_IOMMU_T_ATTACH;
    expect_length(offer(bytes, 20, 0), 0); /* no room for an answer */
    expect_length(offer(bytes, 20, 3), 0);
    expect_length(offer(bytes, 2, 4), 0);  /* not even a type */
    expect_length(offer(bytes, 19, 4), 4); /* too short for its type */
    assert_int_equal(iommu.malformed, 0);
    test_descriptor(&driver, table, 0, TEST_DATA, 4, VRING_DESC_F_NEXT, 0);
    test_offer(&driver, REQUESTS, 0);
    expect_length(0, 0); /* a loop */
    assert_int_equal(iommu.malformed, 1);
    test_descriptor(&driver, table, 0, 0x1000, 20, VRING_DESC_F_NEXT, 1);
    test_descriptor(&driver, table, 1, TEST_DATA, 4, VRING_DESC_F_WRITE, 0);
    test_offer(&driver, REQUESTS, 0);
    expect_length(0, 0); /* where no memory is */
    assert_int_equal(iommu.malformed, 2);
    test_descriptor(&driver, table, 0, TEST_DATA, 20, VRING_DESC_F_NEXT, 1);
    test_descriptor(&driver, table, 1, 0x1000, 4, VRING_DESC_F_WRITE, 0);
    test_offer(&driver, REQUESTS, 0);
    expect_length(0, 0);
    assert_int_equal(iommu.malformed, 3);
    test_descriptor(&driver, table, 0, TEST_DATA, UINT32_MAX, VRING_DESC_F_NEXT, 1);
    test_descriptor(&driver, table, 1, TEST_DATA + SLOT, UINT32_MAX, VRING_DESC_F_WRITE, 0);
    memset(test_at(&driver, TEST_DATA), 0, 64);
    *(uint8_t *)test_at(&driver, TEST_DATA) = VIRTIO_IOMMU_T_PROBE;
    *(uint8_t *)test_at(&driver, TEST_DATA + 4) = ENDPOINT;
    test_offer(&driver, REQUESTS, 0);
    expect_length(0, 512 + 4); /* what is too much nobody looks at */
    test_offer(&driver, REQUESTS, 9);
    test_notify(&driver, REQUESTS);
    assert_true(test_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static void probe_tells(void **state)
{
    const struct virtio_iommu_req_probe bytes = {.head.type = VIRTIO_IOMMU_T_PROBE,
                                                 .endpoint = ENDPOINT};
    const uint64_t table = test_descriptors(REQUESTS);

    (void)state;
    memcpy(test_at(&driver, TEST_DATA), &bytes, 72);
    memset(test_at(&driver, TEST_DATA + 0x1000), 0xee, 1024);
    test_descriptor(&driver, table, 0, TEST_DATA, 72, VRING_DESC_F_NEXT, 1);
    test_descriptor(&driver, table, 1, TEST_DATA + 0x1000, 512 + 4, VRING_DESC_F_WRITE, 0);
    test_offer(&driver, REQUESTS, 0);
    expect_length(0, 512 + 4);
    assert_memory_equal(test_at(&driver, TEST_DATA + 0x1000), "\1\0\24\0\1", 5);
    assert_memory_equal(test_at(&driver, TEST_DATA + 0x1000 + 512), "\0\0\0\0\xee", 5);
}

static bool wants_to_go_on(void)
{
    struct pollfd work = {.fd = iommu.work_fd, .events = POLLIN};

    return poll(&work, 1, 0) == 1;
}

static void a_bounded_number_at_a_time(void **state)
{
    uint32_t head, length;
    unsigned at_once = 0, all;

    (void)state;
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_status_add(&driver, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    test_features(&driver, TEST_VERSION_1);
    test_status_add(&driver, VIRTIO_CONFIG_S_FEATURES_OK);
    test_queue(&driver, REQUESTS, VIRTIO_RING_SIZE_MAX);
    for (unsigned i = 0; i < VIRTIO_RING_SIZE_MAX; i++) {
        test_offer(&driver, REQUESTS, (uint16_t)i);
    }
    assert_false(wants_to_go_on());
    test_status_add(&driver, VIRTIO_CONFIG_S_DRIVER_OK);
    while (test_used(&driver, REQUESTS, &head, &length)) {
        at_once++;
    }
    assert_true(at_once > 0 && at_once < VIRTIO_RING_SIZE_MAX);
    all = at_once;
    while (wants_to_go_on()) {
        virtio_iommu_process(&iommu);
    }
    while (test_used(&driver, REQUESTS, &head, &length)) {
        all++;
    }
    assert_int_equal(all, VIRTIO_RING_SIZE_MAX);
}

/* ---- pending ---- */

static struct viommu_window *window;

static void revoke(void *opaque)
{
    (void)opaque;
}

static void pin(void)
{
    const struct viommu_range range = {.first = IOVA, .last = IOVA + 7};
    const struct viommu_window_request wanted = {
        .ranges = &range, .count = 1, .perm = VIOMMU_WRITE, .revoke = revoke};
    struct iovec iov[1];
    size_t count = 1;

    assert_int_equal(viommu_device_pin(device, NULL, &wanted, iov, &count, &window), 0);
}

static void release(void)
{
    viommu_window_release(window);
    virtio_iommu_process(&iommu);
}

/* An UNMAP that waits for a window. */
static uint16_t begin_pending(void)
{
    uint16_t head;

    begin_mapping();
    pin();
    head = offer(&unmap_all, 28, 4);
    test_notify(&driver, REQUESTS);
    virtio_iommu_process(&iommu);
    assert_int_equal(came_back(head), -1);
    assert_int_equal(iommu.pending_count, 1);
    return head;
}

static void a_request_that_is_pending(void **state)
{
    uint16_t head = begin_pending(), next;

    (void)state;
    next = offer(&unmap_all, 28, 4); /* behind it, and in its turn */
    test_notify(&driver, REQUESTS);
    assert_int_equal(came_back(next), -1);
    test_get(&driver, TEST_ISR, 1);
    release();
    assert_int_equal(came_back(head), VIRTIO_IOMMU_S_OK);
    assert_int_equal(came_back(next), VIRTIO_IOMMU_S_OK);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 1);
    assert_int_equal(iommu.pended, 2);
    assert_int_equal(iommu.pending_count, 0);
}

static void what_was_pending_has_its_answer_in_pieces(void **state)
{
    const uint64_t table = test_descriptors(REQUESTS);
    uint32_t head, length;

    (void)state;
    begin_mapping();
    pin();
    memcpy(test_at(&driver, TEST_DATA), &unmap_all, 28);
    memset(test_at(&driver, TEST_DATA + 0x40), 0xee, 0x40);
    test_descriptor(&driver, table, 0, TEST_DATA, 28, VRING_DESC_F_NEXT, 1);
    for (unsigned i = 1; i <= 5; i++) {
        test_descriptor(&driver, table, i, TEST_DATA + 0x40 + 8 * i, 1,
                        (uint16_t)(VRING_DESC_F_WRITE | (i < 5 ? VRING_DESC_F_NEXT : 0)),
                        (uint16_t)(i + 1));
    }
    test_offer(&driver, REQUESTS, 0);
    test_notify(&driver, REQUESTS);
    test_descriptor(&driver, table, 1, 0x1000, 1, 0, 0); /* nobody looks there again */
    release();
    assert_true(test_used(&driver, REQUESTS, &head, &length));
    assert_int_equal(length, 4);
    for (unsigned i = 1; i <= 4; i++) {
        assert_memory_equal(test_at(&driver, TEST_DATA + 0x40 + 8 * i), "\0\xee", 2);
    }
    assert_memory_equal(test_at(&driver, TEST_DATA + 0x40 + 40), "\xee", 1);
}

static void bus_mastering_goes_meanwhile(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_config_put(&driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    release();
    assert_int_equal(came_back(head), -1);
    test_config_put(&driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(came_back(head), VIRTIO_IOMMU_S_OK);
}

static void a_reset_waits(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(test_status(&driver), 0);
    virtio_iommu_process(&iommu);
    assert_int_not_equal(test_status(&driver), 0);
    release();
    assert_int_equal(test_status(&driver), 0);
    assert_int_equal(came_back(head), -1); /* forgotten */
    test_begin(&driver, ALL_FEATURES);
    assert_int_equal(attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
}

static void the_platform_is_reset_meanwhile(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    pci_config_reset(&iommu.pci.function.config);
    iommu.pci.function.ops->reset(iommu.pci.function.opaque);
    assert_int_equal(test_status(&driver), 0);
    release();
    assert_int_equal(came_back(head), -1);
    test_config_put(&driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    test_begin(&driver, ALL_FEATURES);
    begin_mapping();
    assert_true(dma_write(IOVA));
}

/* More than the model takes: they stay in the queue, and come in their turn. */
static void more_than_can_be_pending(void **state)
{
    uint32_t head, length;
    unsigned answered = 0;

    (void)state;
    begin_pending();
    memcpy(test_at(&driver, TEST_DATA), &unmap_all, 28);
    for (unsigned i = 0; i < 2000; i++) { /* one chain over and over: a driver may not, but can */
        test_descriptor(&driver, test_descriptors(REQUESTS), 0, TEST_DATA, 28, VRING_DESC_F_NEXT,
                        1);
        test_descriptor(&driver, test_descriptors(REQUESTS), 1, TEST_DATA + ANSWER, 4,
                        VRING_DESC_F_WRITE, 0);
        if ((uint16_t)(driver.offered[REQUESTS] - iommu.pci.queues[REQUESTS].ring.next) <
            TEST_SIZE) {
            test_offer(&driver, REQUESTS, 0);
        }
        test_notify(&driver, REQUESTS);
    }
    assert_true(iommu.pending_count <= VIRTIO_IOMMU_PENDING_MAX);
    assert_int_equal((uint16_t)(driver.offered[REQUESTS] - iommu.pci.queues[REQUESTS].ring.next),
                     TEST_SIZE);
    assert_false(test_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    viommu_window_release(window);
    for (unsigned i = 0; i < 100; i++) {
        virtio_iommu_process(&iommu);
        while (test_used(&driver, REQUESTS, &head, &length)) {
            answered++;
        }
    }
    assert_int_equal(iommu.pending_count, 0);
    assert_int_equal(iommu.pci.queues[REQUESTS].ring.next, driver.offered[REQUESTS]);
    assert_int_equal(iommu.pci.queues[REQUESTS].ring.returned, driver.offered[REQUESTS]);
    assert_true(answered > 0);
}

/* ---- faults ---- */

static void offer_buffer(unsigned at, uint32_t size)
{
    test_descriptor(&driver, test_descriptors(FAULTS), at, TEST_DATA + 0x2000 + at * 64u, size,
                    VRING_DESC_F_WRITE, 0);
    test_offer(&driver, FAULTS, (uint16_t)at);
}

static void expect_fault(uint32_t at, uint64_t address)
{
    struct virtio_iommu_fault fault;
    uint32_t head, length;

    assert_true(test_used(&driver, FAULTS, &head, &length));
    assert_int_equal(head, at);
    assert_int_equal(length, sizeof(fault));
    memcpy(&fault, test_at(&driver, TEST_DATA + 0x2000 + at * 64u), sizeof(fault));
    assert_int_equal(fault.endpoint, ENDPOINT);
    assert_int_equal(fault.address, address);
    assert_int_equal(fault.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
    assert_true(fault.flags & VIRTIO_IOMMU_FAULT_F_WRITE);
}

static void faults_go_into_buffers(void **state)
{
    uint32_t head, length;

    (void)state;
    begin_mapping();
    offer_buffer(0, 24);
    offer_buffer(1, 64);
    test_notify(&driver, FAULTS);
    assert_false(test_used(&driver, FAULTS, &head, &length));
    test_get(&driver, TEST_ISR, 1);
    assert_false(dma_write(0x9000));
    virtio_iommu_process(&iommu);
    expect_fault(0, 0x9000);
    assert_int_equal(test_get(&driver, TEST_ISR, 1), 1);
    assert_false(dma_write(0xa000));
    assert_false(dma_write(0xb000)); /* waits for a buffer */
    virtio_iommu_process(&iommu);
    expect_fault(1, 0xa000);
    assert_false(test_used(&driver, FAULTS, &head, &length));
    offer_buffer(0, 24);
    test_notify(&driver, FAULTS);
    expect_fault(0, 0xb000);
    assert_int_equal(iommu.faults_told, 3);
}

static void buffers_that_are_none(void **state)
{
    uint32_t head, length;

    (void)state;
    begin_mapping();
    assert_false(dma_write(0x9000));
    offer_buffer(0, 23);
    offer_buffer(1, 0);
    test_descriptor(&driver, test_descriptors(FAULTS), 2, TEST_DATA, 24, 0, 0); /* to read */
    test_offer(&driver, FAULTS, 2);
    offer_buffer(3, 24);
    test_notify(&driver, FAULTS);
    for (uint32_t i = 0; i < 3; i++) {
        assert_true(test_used(&driver, FAULTS, &head, &length));
        assert_int_equal(head, i);
        assert_int_equal(length, 0);
    }
    assert_int_equal(iommu.buffers_refused, 3);
    expect_fault(3, 0x9000);
    assert_false(dma_write(0x9000));
    test_descriptor(&driver, test_descriptors(FAULTS), 0, 0x1000, 24, VRING_DESC_F_WRITE, 0);
    test_offer(&driver, FAULTS, 0);
    test_notify(&driver, FAULTS);
    assert_true(test_used(&driver, FAULTS, &head, &length));
    assert_int_equal(length, 0);
    assert_int_equal(iommu.faults_dropped, 1);
}

static void floods_of_faults_are_bounded(void **state)
{
    struct viommu_stats stats;

    (void)state;
    begin_mapping();
    for (unsigned i = 0; i < 1000; i++) {
        assert_false(dma_write(0x9000));
    }
    virtio_iommu_process(&iommu);
    viommu_stats_get(iommu.unit.iommu, &stats, sizeof(stats));
    assert_int_equal(stats.faults_recorded, 256);
    assert_int_equal(stats.faults_lost, 1000 - 256);
    for (unsigned i = 0; i < 256; i++) {
        offer_buffer(i % TEST_SIZE, 24);
        test_notify(&driver, FAULTS);
        expect_fault(i % TEST_SIZE, 0x9000);
    }
    offer_buffer(0, 24);
    test_notify(&driver, FAULTS);
    assert_int_equal(iommu.faults_told, 256);
}

/* ---- memory, resets, configuration ---- */

static void memory_goes(void **state)
{
    (void)state;
    begin_mapping();
    test_driver_unmap(&driver);
    test_notify(&driver, REQUESTS);
    assert_true(test_status(&driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    virtio_iommu_process(&iommu);
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    virtio_iommu_process(&iommu);
    assert_int_equal(test_status(&driver), 0);
    test_driver_attach(&driver, &iommu.pci.function);
    test_begin(&driver, ALL_FEATURES);
    begin_mapping();
    assert_true(dma_write(IOVA));
}

static void resets(void **state)
{
    (void)state;
    begin_mapping();
    assert_int_equal(test_get(&driver, BYPASS, 1), 1);
    test_put(&driver, BYPASS, 1, 0);
    assert_int_equal(test_get(&driver, BYPASS, 1), 0);
    assert_int_equal(test_get(&driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 1);
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0); /* the driver's: domains go, this stays */
    virtio_iommu_process(&iommu);
    assert_int_equal(test_status(&driver), 0);
    assert_int_equal(test_get(&driver, BYPASS, 1), 0);
    assert_false(dma_write(IOVA));
    assert_false(dma_write(PAGE));
    pci_config_reset(&iommu.pci.function.config);
    iommu.pci.function.ops->reset(iommu.pci.function.opaque); /* the platform's */
    assert_int_equal(test_get(&driver, BYPASS, 1), 1);
    assert_true(dma_write(PAGE));
}

static void bypass_needs_its_feature(void **state)
{
    (void)state;
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_begin(&driver, ALL_FEATURES & ~UINT64_C(0x40));
    test_put(&driver, BYPASS, 1, 0);
    assert_int_equal(test_get(&driver, BYPASS, 1), 1);
    assert_int_equal(test_get(&driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1), 0);
}

/* ---- in another process ---- */

static struct save_writer saved;
static struct save_section section;

static void save(void)
{
    save_writer_init(&saved, SAVE_SERVER);
    save_begin(&saved, 1, 0, 1, 0);
    saved.section = saved.size;
    assert_int_equal(virtio_iommu_save(&iommu, &saved), 0);
    section = (struct save_section){
        .at = saved.data + saved.section, .left = saved.size - saved.section, .version = 1};
}

/* It is another one now, made of what was saved. */
static void replace(void)
{
    struct virtio_iommu *old = &iommu;
    struct pci_function *function = &iommu.pci.function;

    test_driver_unmap(&driver);
    viommu_device_remove(device);
    virtio_iommu_fini(old);
    make(&iommu, &device);
    make_edu(device);
    function->memory->map(function->memory_opaque,
                          &(struct pci_dma_region){.first = TEST_RAM,
                                                   .last = TEST_RAM + TEST_RAM_SIZE - 1,
                                                   .readable = true,
                                                   .writable = true},
                          driver.fd, &driver.cookie);
    assert_int_equal(virtio_iommu_load(&iommu, &section), 0);
    assert_int_equal(section.left, 0);
    save_writer_fini(&saved);
}

static void it_goes_on_in_another_process(void **state)
{
    uint16_t head;

    (void)state;
    begin_mapping();
    head = offer(&unmap_all, 28, 4); /* nobody was told of it yet */
    save();
    replace();
    assert_true(dma_write(IOVA));
    assert_true(wants_to_go_on());
    virtio_iommu_process(&iommu);
    assert_int_equal(came_back(head), VIRTIO_IOMMU_S_OK);
    assert_false(dma_write(IOVA));
    assert_int_equal(map(IOVA, PAGE), VIRTIO_IOMMU_S_OK);
}

static void what_is_pending_completes_there(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    save();
    viommu_window_release(window);
    replace();
    virtio_iommu_process(&iommu);
    assert_int_equal(came_back(head), VIRTIO_IOMMU_S_OK);
    assert_int_equal(iommu.pending_count, 0);
}

static void a_reset_completes_there(void **state)
{
    (void)state;
    begin_pending();
    test_put(&driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(test_status(&driver), 0);
    save();
    viommu_window_release(window);
    replace();
    virtio_iommu_process(&iommu);
    assert_int_equal(test_status(&driver), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_say_where_dma_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(indirect_requests, setup, teardown),
        cmocka_unit_test_setup_teardown(all_are_answered, setup, teardown),
        cmocka_unit_test_setup_teardown(probe_tells, setup, teardown),
        cmocka_unit_test_setup_teardown(a_bounded_number_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(a_request_that_is_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_pending_has_its_answer_in_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(bus_mastering_goes_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(the_platform_is_reset_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(more_than_can_be_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(faults_go_into_buffers, setup, teardown),
        cmocka_unit_test_setup_teardown(buffers_that_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(floods_of_faults_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(resets, setup, teardown),
        cmocka_unit_test_setup_teardown(bypass_needs_its_feature, setup, teardown),
        cmocka_unit_test_setup_teardown(it_goes_on_in_another_process, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_pending_completes_there, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_completes_there, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
