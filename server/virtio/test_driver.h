/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A driver of a virtio device, for tests: it does what a guest does to the PCI function and to
 * memory, right or wrong. It is the function's bus, too, and counts interrupts. Only for tests.
 *
 * Memory is 1 MiB at TEST_RAM. Each queue has its rings in pages of their own.
 */
#ifndef VIOMMU_SERVER_VIRTIO_TEST_DRIVER_H
#define VIOMMU_SERVER_VIRTIO_TEST_DRIVER_H

#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pci_function.h"

enum {
    TEST_RAM = 0x100000,
    TEST_RAM_SIZE = 0x100000,
    TEST_DESCRIPTORS = TEST_RAM, /* of queue 0; those of the next are TEST_QUEUE_STRIDE behind */
    TEST_AVAILABLE = TEST_RAM + 0x1000,
    TEST_USED = TEST_RAM + 0x2000,
    TEST_QUEUE_STRIDE = 0x4000,
    TEST_TABLE = TEST_RAM + 0x10000, /* for indirect descriptors */
    TEST_DATA = TEST_RAM + 0x20000,
    TEST_SIZE = 8, /* entries of a queue */
    TEST_QUEUES = 2,
    TEST_VECTORS = 4,

    /* BAR0 */
    TEST_ISR = 0x1000,
    TEST_CONFIG = 0x2000,
    TEST_NOTIFY = 0x3000,
};

#define TEST_VERSION_1   (UINT64_C(1) << 32)
#define TEST_INDIRECT    (UINT64_C(1) << 28)
#define TEST_EVENT_INDEX (UINT64_C(1) << 29)

struct test_driver {
    struct pci_function *function;
    void *cookie;
    int fd;
    uint8_t *ram;
    uint16_t size[TEST_QUEUES];    /* entries; 0: TEST_SIZE */
    uint16_t offered[TEST_QUEUES]; /* available index */
    uint16_t seen[TEST_QUEUES];    /* used index */
    unsigned messages[TEST_VECTORS];
    bool line;
};

/* Makes memory; test_driver_attach gives it to a function that wants it. */
void test_driver_open(struct test_driver *driver);
void test_driver_attach(struct test_driver *driver, struct pci_function *function);
void test_driver_unmap(struct test_driver *driver); /* the function loses its memory */
void test_driver_close(struct test_driver *driver);

/* A place in memory. */
void *test_at(const struct test_driver *driver, uint64_t gpa);

/* Registers of BAR0, and configuration space. */
uint64_t test_get(const struct test_driver *driver, uint64_t offset, unsigned size);
void test_put(const struct test_driver *driver, uint64_t offset, unsigned size, uint64_t value);
uint64_t test_config_get(const struct test_driver *driver, uint64_t offset, unsigned size);
void test_config_put(const struct test_driver *driver, uint64_t offset, unsigned size,
                     uint64_t value);
/* Where the n-th capability of an id is, from 0; 0: there is none. */
unsigned test_capability(const struct test_driver *driver, uint8_t id, unsigned n);

/* What a driver does at its start; _begin is all of it, with queues of TEST_SIZE, MSI-X off. */
void test_status_add(const struct test_driver *driver, uint8_t bits);
uint8_t test_status(const struct test_driver *driver);
void test_features(const struct test_driver *driver, uint64_t features);
void test_queue(struct test_driver *driver, unsigned queue, uint16_t size);
void test_begin(struct test_driver *driver, uint64_t features);

/* The rings. */
void test_descriptor(const struct test_driver *driver, uint64_t table, unsigned at, uint64_t gpa,
                     uint32_t length, uint16_t flags, uint16_t next);
uint64_t test_descriptors(unsigned queue);
void test_offer(struct test_driver *driver, unsigned queue, uint16_t head); /* without a word */
void test_notify(const struct test_driver *driver, unsigned queue);
/* The next chain that came back. */
bool test_used(struct test_driver *driver, unsigned queue, uint32_t *head, uint32_t *length);

#endif
