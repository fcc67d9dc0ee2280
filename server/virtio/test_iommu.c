/* SPDX-License-Identifier: BSD-2-Clause */
/* See test_iommu.h. */
#include "virtio/test_iommu.h"

#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <viommu/device.h>

struct test_iommu test;

void test_iommu_make(void)
{
    static const struct viommu_virtio_config config = {.bypass = true};
    const struct viommu_device_config device_config = {.requester = ENDPOINT};
    struct device_dma dma = unit_dma;
    uint16_t command = PCI_COMMAND_MASTER;

    assert_int_equal(virtio_iommu_init(&test.iommu, "virtio", &config, NULL), 0);
    assert_int_equal(viommu_device_add(test.iommu.unit.iommu, &device_config, &test.device), 0);
    dma.opaque = test.device;
    edu_init(&test.edu, "edu", &dma);
    pci_config_write(&test.edu.function.config, PCI_COMMAND, &command, sizeof(command));
}

void test_iommu_remove(void)
{
    virtio_iommu_process(&test.iommu);
    viommu_device_remove(test.device);
    virtio_iommu_fini(&test.iommu);
}

int test_iommu_setup(void **state)
{
    (void)state;
    memset(&test, 0, sizeof(test));
    test_iommu_make();
    assert_int_equal(viommu_start(test.iommu.unit.iommu), 0);
    test_driver_open(&test.driver);
    test_driver_attach(&test.driver, &test.iommu.pci.function);
    test_begin(&test.driver, ALL_FEATURES | TEST_INDIRECT);
    return 0;
}

int test_iommu_teardown(void **state)
{
    (void)state;
    test_driver_close(&test.driver);
    test_iommu_remove();
    return 0;
}

/* Offers a request with room for an answer; returns its head. Its answer begins with 0xee. */
uint16_t test_request_offer(const void *request, uint32_t size, uint32_t room)
{
    unsigned slot = test.slots++ % 4;
    uint64_t gpa = TEST_DATA + (uint64_t)slot * SLOT;

    memset(test_at(&test.driver, gpa), 0xee, SLOT);
    memcpy(test_at(&test.driver, gpa), request, size);
    test_descriptor(&test.driver, test_descriptors(REQUESTS), 2 * slot, gpa, size,
                    room ? VRING_DESC_F_NEXT : 0, (uint16_t)(2 * slot + 1));
    test_descriptor(&test.driver, test_descriptors(REQUESTS), 2 * slot + 1, gpa + ANSWER, room,
                    VRING_DESC_F_WRITE, 0);
    test_offer(&test.driver, REQUESTS, (uint16_t)(2 * slot));
    return (uint16_t)(2 * slot);
}

const uint8_t *test_answer(uint16_t head)
{
    return test_at(&test.driver, TEST_DATA + head / 2u * SLOT + ANSWER);
}

/* The status of a request that has come back; -1 when none has. */
int test_came_back(uint16_t wanted)
{
    uint32_t head, length;

    if (!test_used(&test.driver, REQUESTS, &head, &length)) {
        return -1;
    }
    assert_int_equal(head, wanted);
    assert_int_equal(length, 4);
    assert_memory_equal(test_answer(wanted) + 1, "\0\0\0", 3);
    return test_answer(wanted)[0];
}

/* Has a request carried out; its status. */
int test_request(const void *bytes, uint32_t size)
{
    uint16_t head = test_request_offer(bytes, size, 4);

    test_notify(&test.driver, REQUESTS);
    virtio_iommu_process(&test.iommu);
    return test_came_back(head);
}

int test_attach(uint32_t endpoint)
{
    const struct virtio_iommu_req_attach bytes = {
        .head.type = VIRTIO_IOMMU_T_ATTACH, .domain = DOMAIN, .endpoint = endpoint};

    return test_request(&bytes, 20);
}

int test_map(uint64_t first, uint64_t gpa)
{
    const struct virtio_iommu_req_map bytes = {
        .head.type = VIRTIO_IOMMU_T_MAP,
        .domain = DOMAIN,
        .virt_start = first,
        .virt_end = first + 0xfff,
        .phys_start = gpa,
        .flags = VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE,
    };

    return test_request(&bytes, 36);
}

const struct virtio_iommu_req_unmap test_unmap_all = {
    .head.type = VIRTIO_IOMMU_T_UNMAP,
    .domain = DOMAIN,
    .virt_end = UINT64_MAX >> 16,
};

int test_unmap(void)
{
    return test_request(&test_unmap_all, 28);
}

void test_begin_mapping(void)
{
    assert_int_equal(test_attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
    assert_int_equal(test_map(IOVA, PAGE), VIRTIO_IOMMU_S_OK);
}

/* The edu writes 4 bytes to an address. Returns whether they got anywhere. */
bool test_dma_write(uint64_t iova)
{
    const uint64_t values[][2] = {
        {EDU_REG_DMA_SOURCE, EDU_BUFFER},
        {EDU_REG_DMA_DESTINATION, iova},
        {EDU_REG_DMA_COUNT, 4},
        {EDU_REG_DMA_COMMAND, EDU_DMA_START | EDU_DMA_TO_MEMORY},
    };
    uint64_t before = test.edu.transfers;

    memcpy(test.edu.buffer, "DATA", 4);
    for (unsigned i = 0; i < 4; i++) {
        test.edu.function.ops->bar_write(&test.edu, 0, values[i][0], &values[i][1], 8);
    }
    return test.edu.transfers > before;
}

bool test_wants_to_go_on(void)
{
    return unit_is_due(&test.iommu.unit);
}
