/* SPDX-License-Identifier: BSD-2-Clause */
/* See test_driver.h. */
#include "virtio/test_driver.h"

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static void message(void *opaque, unsigned vector)
{
    struct test_driver *driver = opaque;

    assert_true(vector < TEST_VECTORS);
    driver->messages[vector]++;
}

static void line(void *opaque, bool level)
{
    ((struct test_driver *)opaque)->line = level;
}

static int write_message(void *opaque, uint64_t address, uint32_t data)
{
    (void)opaque;
    (void)address;
    (void)data;
    return 0;
}

static const struct pci_bus_ops bus = {
    .message_interrupt = message,
    .line_interrupt = line,
    .write_message = write_message,
};

void test_driver_open(struct test_driver *driver)
{
    memset(driver, 0, sizeof(*driver));
    driver->fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(driver->fd, TEST_RAM_SIZE), 0);
    driver->ram = mmap(NULL, TEST_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, driver->fd, 0);
    assert_ptr_not_equal(driver->ram, MAP_FAILED);
}

void test_driver_attach(struct test_driver *driver, struct pci_function *function)
{
    const struct pci_dma_region region = {
        .first = TEST_RAM,
        .last = TEST_RAM + TEST_RAM_SIZE - 1,
        .readable = true,
        .writable = true,
    };

    driver->function = function;
    function->bus = &bus;
    function->bus_opaque = driver;
    if (function->memory) {
        assert_int_equal(
            function->memory->map(function->memory_opaque, &region, driver->fd, &driver->cookie),
            0);
    }
    test_config_put(driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
}

void test_driver_unmap(struct test_driver *driver)
{
    struct pci_function *function = driver->function;

    function->memory->unmap(function->memory_opaque, TEST_RAM, TEST_RAM + TEST_RAM_SIZE - 1,
                            driver->cookie);
    driver->cookie = NULL;
}

void test_driver_close(struct test_driver *driver)
{
    if (driver->cookie) {
        test_driver_unmap(driver);
    }
    munmap(driver->ram, TEST_RAM_SIZE);
    close(driver->fd);
}

void *test_at(const struct test_driver *driver, uint64_t gpa)
{
    assert_true(gpa >= TEST_RAM && gpa < TEST_RAM + TEST_RAM_SIZE);
    return driver->ram + (gpa - TEST_RAM);
}

uint64_t test_get(const struct test_driver *driver, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    driver->function->ops->bar_read(driver->function->opaque, 0, offset, &value, size);
    return value;
}

void test_put(const struct test_driver *driver, uint64_t offset, unsigned size, uint64_t value)
{
    driver->function->ops->bar_write(driver->function->opaque, 0, offset, &value, size);
}

uint64_t test_config_get(const struct test_driver *driver, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    if (driver->function->ops->config_reading) {
        driver->function->ops->config_reading(driver->function->opaque, offset, size);
    }
    pci_config_read(&driver->function->config, offset, &value, size);
    return value;
}

void test_config_put(const struct test_driver *driver, uint64_t offset, unsigned size,
                     uint64_t value)
{
    pci_config_write(&driver->function->config, offset, &value, size);
    if (driver->function->ops->config_written) {
        driver->function->ops->config_written(driver->function->opaque, offset, size);
    }
}

unsigned test_capability(const struct test_driver *driver, uint8_t id, unsigned n)
{
    unsigned at = (unsigned)test_config_get(driver, PCI_CAPABILITY_LIST, 1);

    while (at && (test_config_get(driver, at, 1) != id || n-- > 0)) {
        at = (unsigned)test_config_get(driver, at + 1, 1);
    }
    return at;
}

void test_status_add(const struct test_driver *driver, uint8_t bits)
{
    test_put(driver, VIRTIO_PCI_COMMON_STATUS, 1, test_status(driver) | bits);
}

uint8_t test_status(const struct test_driver *driver)
{
    return (uint8_t)test_get(driver, VIRTIO_PCI_COMMON_STATUS, 1);
}

void test_features(const struct test_driver *driver, uint64_t features)
{
    for (unsigned half = 0; half < 2; half++) {
        test_put(driver, VIRTIO_PCI_COMMON_GFSELECT, 4, half);
        test_put(driver, VIRTIO_PCI_COMMON_GF, 4, (uint32_t)(features >> (32 * half)));
    }
}

void test_queue(struct test_driver *driver, unsigned queue, uint16_t size)
{
    uint64_t more = (uint64_t)queue * TEST_QUEUE_STRIDE;

    memset(test_at(driver, TEST_DESCRIPTORS + more), 0, TEST_QUEUE_STRIDE);
    driver->size[queue] = size;
    driver->offered[queue] = driver->seen[queue] = 0;
    test_put(driver, VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
    test_put(driver, VIRTIO_PCI_COMMON_Q_SIZE, 2, size);
    test_put(driver, VIRTIO_PCI_COMMON_Q_DESCLO, 4, TEST_DESCRIPTORS + more);
    test_put(driver, VIRTIO_PCI_COMMON_Q_DESCHI, 4, 0);
    test_put(driver, VIRTIO_PCI_COMMON_Q_AVAILLO, 4, TEST_AVAILABLE + more);
    test_put(driver, VIRTIO_PCI_COMMON_Q_AVAILHI, 4, 0);
    test_put(driver, VIRTIO_PCI_COMMON_Q_USEDLO, 4, TEST_USED + more);
    test_put(driver, VIRTIO_PCI_COMMON_Q_USEDHI, 4, 0);
    test_put(driver, VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1);
}

void test_begin(struct test_driver *driver, uint64_t features)
{
    test_put(driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_status_add(driver, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    test_features(driver, features | TEST_VERSION_1);
    test_status_add(driver, VIRTIO_CONFIG_S_FEATURES_OK);
    assert_true(test_status(driver) & VIRTIO_CONFIG_S_FEATURES_OK);
    for (unsigned i = 0; i < TEST_QUEUES; i++) {
        test_queue(driver, i, TEST_SIZE);
    }
    test_status_add(driver, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_true(test_status(driver) & VIRTIO_CONFIG_S_DRIVER_OK);
}

void test_descriptor(const struct test_driver *driver, uint64_t table, unsigned at, uint64_t gpa,
                     uint32_t length, uint16_t flags, uint16_t next)
{
    const struct vring_desc descriptor = {.addr = gpa, .len = length, .flags = flags, .next = next};

    memcpy(test_at(driver, table + sizeof(descriptor) * at), &descriptor, sizeof(descriptor));
}

uint64_t test_descriptors(unsigned queue)
{
    return TEST_DESCRIPTORS + (uint64_t)queue * TEST_QUEUE_STRIDE;
}

static uint16_t entries(const struct test_driver *driver, unsigned queue)
{
    return driver->size[queue] ? driver->size[queue] : TEST_SIZE;
}

void test_offer(struct test_driver *driver, unsigned queue, uint16_t head)
{
    uint16_t *available = test_at(driver, TEST_AVAILABLE + (uint64_t)queue * TEST_QUEUE_STRIDE);

    available[2 + driver->offered[queue]++ % entries(driver, queue)] = head;
    available[1] = driver->offered[queue];
}

void test_notify(const struct test_driver *driver, unsigned queue)
{
    test_put(driver, TEST_NOTIFY + 4 * queue, 2, queue);
}

bool test_used(struct test_driver *driver, unsigned queue, uint32_t *head, uint32_t *length)
{
    const uint8_t *used = test_at(driver, TEST_USED + (uint64_t)queue * TEST_QUEUE_STRIDE);
    struct vring_used_elem element;
    uint16_t index;

    memcpy(&index, used + 2, sizeof(index));
    if (index == driver->seen[queue]) {
        return false;
    }
    memcpy(&element, used + 4 + 8 * (driver->seen[queue]++ % entries(driver, queue)),
           sizeof(element));
    *head = element.id;
    *length = element.len;
    return true;
}
