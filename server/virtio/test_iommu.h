/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the tests of the virtio-iommu share: one that is driven, and an edu behind it. A request has
 * one of four slots in memory, its answer in the slot's second half. Only for tests.
 */
#ifndef VIOMMU_SERVER_VIRTIO_TEST_IOMMU_H
#define VIOMMU_SERVER_VIRTIO_TEST_IOMMU_H

#include <linux/virtio_iommu.h>

#include "edu.h"
#include "virtio/iommu.h"
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

/* All there is: one at a time. */
struct test_iommu {
    struct virtio_iommu iommu;
    struct test_driver driver;
    struct viommu_device *device;
    struct edu edu;
    unsigned slots; /* used since the start */
};

extern struct test_iommu test;

/* Makes the virtio-iommu and what is behind it; not started, and nobody drives it. */
void test_iommu_make(void);
void test_iommu_remove(void);

/* For cmocka: started, driven, with memory. */
int test_iommu_setup(void **state);
int test_iommu_teardown(void **state);

/* Offers a request with room for an answer; returns its head. Its answer begins with 0xee. */
uint16_t test_request_offer(const void *request, uint32_t size, uint32_t room);
const uint8_t *test_answer(uint16_t head);

/* The status of a request that has come back; -1 when none has. */
int test_came_back(uint16_t wanted);

/* Has a request carried out; its status. */
int test_request(const void *bytes, uint32_t size);
int test_attach(uint32_t endpoint);
int test_map(uint64_t first, uint64_t gpa);
int test_unmap(void);
extern const struct virtio_iommu_req_unmap test_unmap_all; /* 28 bytes are to read */

/* The edu is attached, and IOVA leads to PAGE. */
void test_begin_mapping(void);

/* The edu writes "DATA" to an address. Returns whether that got anywhere. */
bool test_dma_write(uint64_t iova);

/* Whether the loop is asked to go on with the queues. */
bool test_wants_to_go_on(void);

#endif
