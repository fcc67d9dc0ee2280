/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of memory without a unit: what reaches what, pins that outlive their regions, and a client
 * whose unmap is answered when they have ended.
 */
#include "direct_memory.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "client_memory.h"
#include "edu.h"
#include "log.h"
#include "vfio_user/test_client.h"

enum {
    PAGE = 4096,
    RAM_SIZE = 16 * PAGE,
    /* Two regions that lie side by side in the guest, and not in the file; and one for reading. */
    LOW = 0x10000,
    MIDDLE = 0x14000,
    ROM = 0x40000,
};

static struct direct_memory memory;
static struct device_dma dma;
static struct edu edu;
static struct vfio_user_endpoint endpoint;
static struct test_client client;
static int ram_fd;
static uint8_t *ram;
static unsigned revokes;
static struct device_dma_pin *give_back; /* when it is wanted back */

static void map_all(void)
{
    const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;

    assert_int_equal(test_client_map(&client, LOW, 4 * PAGE, 8 * PAGE, rw, ram_fd), 0);
    assert_int_equal(test_client_map(&client, MIDDLE, 4 * PAGE, 0, rw, ram_fd), 0);
    assert_int_equal(
        test_client_map(&client, ROM, PAGE, 15 * PAGE, VFIO_DMA_MAP_FLAG_READ, ram_fd), 0);
}

static int setup(void **state)
{
    (void)state;
    server_log_to(NULL);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(ram_fd, RAM_SIZE), 0);
    ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram_fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    for (size_t i = 0; i < RAM_SIZE; i++) {
        ram[i] = (uint8_t)(i / PAGE);
    }
    assert_int_equal(direct_memory_init(&memory), 0);
    dma = direct_memory_dma;
    dma.opaque = &memory;
    edu_init(&edu, "edu", &dma);
    edu.function.memory = &direct_memory_ops;
    edu.function.memory_opaque = &memory;
    test_client_open(&client, &endpoint, &edu.function);
    test_client_negotiate(&client);
    map_all();
    revokes = 0;
    give_back = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_client_close(&client);
    assert_null(memory.leaving);
    assert_null(memory.pins);
    assert_int_equal(memory.count, 0);
    direct_memory_fini(&memory);
    munmap(ram, RAM_SIZE);
    close(ram_fd);
    return 0;
}

static void wanted_back(void *opaque)
{
    (void)opaque;
    revokes++;
    if (give_back) {
        dma.unpin(dma.opaque, give_back);
        give_back = NULL;
    }
}

static int pin(uint64_t iova, size_t size, bool to_memory, struct iovec *iov, size_t *count,
               struct device_dma_pin **out)
{
    const struct device_dma_range range = {.iova = iova, .size = size};
    const struct device_dma_request request = {
        .ranges = &range,
        .count = 1,
        .to_memory = to_memory,
        .revoke = wanted_back,
    };

    return dma.pin(dma.opaque, &request, iov, count, out);
}

static void copies(void **state)
{
    uint8_t data[2 * PAGE];

    (void)state;
    assert_int_equal(dma.read(dma.opaque, MIDDLE - PAGE, data, 2 * PAGE), 0);
    assert_int_equal(data[0], 11); /* the last page of the low region */
    assert_int_equal(data[PAGE], 0);
    memset(data, 0x5a, sizeof(data));
    assert_int_equal(dma.write(dma.opaque, MIDDLE - 4, data, 8), 0);
    assert_int_equal(ram[12 * PAGE - 1], 0x5a);
    assert_int_equal(ram[3], 0x5a);
    assert_int_equal(ram[4], 0);
    assert_int_equal(dma.read(dma.opaque, ROM, data, 1), 0);
    assert_int_equal(data[0], 15);
}

static void refusals(void **state)
{
    uint8_t data[2 * PAGE] = {0};

    (void)state;
    assert_int_equal(dma.read(dma.opaque, 0, data, 1), -ENXIO);
    assert_int_equal(dma.read(dma.opaque, LOW - 1, data, 2), -ENXIO);
    assert_int_equal(dma.write(dma.opaque, ROM, data, 1), -EROFS);
    assert_int_equal(dma.read(dma.opaque, UINT64_MAX, data, 2), -EINVAL);
    /* Past the end of the last region: nothing of it is done. */
    assert_int_equal(dma.write(dma.opaque, MIDDLE + 3 * PAGE, data, 2 * PAGE), -ENXIO);
    assert_int_equal(ram[3 * PAGE], 3);
}

static void pins_are_pointers(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(MIDDLE - 16, 32, true, iov, &count, &one), 0);
    assert_int_equal(count, 2);
    assert_int_equal(iov[0].iov_len, 16);
    assert_int_equal(iov[1].iov_len, 16);
    memset(iov[0].iov_base, 0x77, 16);
    memset(iov[1].iov_base, 0x78, 16);
    assert_int_equal(ram[12 * PAGE - 1], 0x77);
    assert_int_equal(ram[0], 0x78);
    dma.unpin(dma.opaque, one);
    assert_int_equal(memory.pinned, 1);
}

static void pins_join_neighbours(void **state)
{
    const struct device_dma_range ranges[] = {{LOW, PAGE}, {LOW + PAGE, 8}, {LOW, 8}};
    const struct device_dma_request request = {.ranges = ranges, .count = 3, .revoke = wanted_back};
    struct iovec iov[2];
    size_t count = 2;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(dma.pin(dma.opaque, &request, iov, &count, &one), 0);
    assert_int_equal(count, 2);
    assert_int_equal(iov[0].iov_len, PAGE + 8);
    dma.unpin(dma.opaque, one);
    count = 1;
    assert_int_equal(dma.pin(dma.opaque, &request, iov, &count, &one), -ENOSPC);
}

static void pins_refused(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(ROM, 8, true, iov, &count, &one), -EROFS);
    assert_int_equal(pin(ROM, PAGE + 1, false, iov, &count, &one), -ENXIO);
    assert_int_equal(pin(MIDDLE, UINT64_MAX, false, iov, &count, &one), -EINVAL);
    count = 1;
    assert_int_equal(pin(MIDDLE - 16, 32, true, iov, &count, &one), -ENOSPC);
    assert_int_equal(memory.pinned, 0);
}

/* Ask for an unmap; returns whether it was answered. */
static bool ask_unmap(uint64_t address, uint64_t size)
{
    const struct vfio_user_dma_unmap unmap = {
        .argsz = sizeof(unmap),
        .address = address,
        .size = size,
    };

    test_client_send(&client, VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof(unmap), NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    return test_client_receive(&client) == 1;
}

static void unmap_waits_for_pins(void **state)
{
    struct iovec iov[4];
    size_t count = 4, count2 = 4;
    struct device_dma_pin *one, *two;
    uint32_t value;

    (void)state;
    assert_int_equal(pin(LOW, 16, true, iov, &count, &one), 0);
    assert_int_equal(pin(MIDDLE - 16, 32, true, iov + 2, &count2, &two), 0);
    assert_false(ask_unmap(LOW, 4 * PAGE));
    assert_int_equal(revokes, 2);
    assert_int_equal(memory.revoked, 2);
    /* It is not reached any more, but by those who have it. */
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), -ENXIO);
    memset(iov[0].iov_base, 0x99, 16);
    assert_int_equal(ram[8 * PAGE], 0x99);
    /* A command that comes meanwhile is answered after it. */
    test_client_send(&client, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 0);
    assert_false(vfio_user_endpoint_events(&endpoint) & 1 /* POLLIN */);

    dma.unpin(dma.opaque, one);
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 0);
    dma.unpin(dma.opaque, two);
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, VFIO_USER_DMA_UNMAP);
    assert_int_equal(client.header.flags, VFIO_USER_TYPE_REPLY);
    assert_int_equal(client.payload_size, sizeof(struct vfio_user_dma_unmap));
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, VFIO_USER_DEVICE_RESET);
}

static void owner_gives_back_at_once(void **state)
{
    struct iovec iov[4];
    size_t count = 4;

    (void)state;
    assert_int_equal(pin(LOW, 16, true, iov, &count, &give_back), 0);
    assert_true(ask_unmap(LOW, 4 * PAGE));
    assert_int_equal(revokes, 1);
    assert_null(memory.leaving);
}

static void other_regions_do_not_wait(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(LOW, 16, true, iov, &count, &one), 0);
    assert_true(ask_unmap(MIDDLE, 4 * PAGE));
    assert_int_equal(revokes, 0);
    dma.unpin(dma.opaque, one);
}

static void who_keeps_a_pin_is_denied(void **state)
{
    struct iovec iov[4];
    size_t count = 4, count2 = 4;
    struct device_dma_pin *one, *two;
    uint32_t value;

    (void)state;
    assert_int_equal(pin(LOW, 16, true, iov, &count, &one), 0);
    assert_false(ask_unmap(LOW, 4 * PAGE));
    assert_int_equal(dma.read(dma.opaque, MIDDLE, &value, 4), 0);
    usleep((DIRECT_MEMORY_PATIENCE_MS + 20) * 1000);
    assert_int_equal(dma.read(dma.opaque, MIDDLE, &value, 4), -EPERM);
    assert_int_equal(pin(MIDDLE, 16, true, iov, &count2, &two), -EPERM);
    dma.unpin(dma.opaque, one);
    assert_int_equal(dma.read(dma.opaque, MIDDLE, &value, 4), -EPERM);
    dma.reset(dma.opaque);
    assert_int_equal(dma.read(dma.opaque, MIDDLE, &value, 4), 0);
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 1);
}

static void client_leaves_with_pins(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;
    uint32_t value;

    (void)state;
    assert_int_equal(pin(LOW, 16, true, iov, &count, &one), 0);
    test_client_close(&client);
    assert_int_equal(revokes, 1);
    assert_int_equal(dma.read(dma.opaque, MIDDLE, &value, 4), -ENXIO);
    memset(iov[0].iov_base, 0x42, 16);
    assert_int_equal(ram[8 * PAGE], 0x42);
    /* The next one comes, with memory in the same place. */
    test_client_open(&client, &endpoint, &edu.function);
    test_client_negotiate(&client);
    map_all();
    dma.unpin(dma.opaque, one);
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), 0);
    assert_int_equal(value, 0x42424242);
}

static void memory_that_is_cut_short(void **state)
{
    uint32_t value = 1;

    (void)state;
    assert_int_equal(client_memory_guard(), 0); /* again: cmocka has put its own handler there */
    assert_int_equal(ftruncate(ram_fd, 8 * PAGE), 0);
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), 0);
    assert_int_equal(value, 0);
    assert_int_equal(ftruncate(ram_fd, RAM_SIZE), 0);
}

/* A client behind an IOMMU maps page by page. All of one file: a page here, a page there. */
static void thousands_of_regions(void **state)
{
    const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    const uint64_t base = UINT64_C(1) << 40;
    unsigned place = 0;
    uint8_t value;

    (void)state;
    for (unsigned i = 0; i < CLIENT_MAPPINGS_MAX - 3; i++) {
        /* In no order. */
        place = i * 7919 % 16411 + 1; /* a prime: each once */
        assert_int_equal(test_client_map(&client, base + 2 * PAGE * (uint64_t)place, PAGE,
                                         PAGE * (i % 16), rw, ram_fd), 0);
        assert_int_equal(dma.read(dma.opaque, base + 2 * PAGE * (uint64_t)place, &value, 1), 0);
        assert_int_equal(value, i % 16);
    }
    assert_int_equal(test_client_map(&client, base, PAGE, 0, rw, ram_fd), -ENOSPC);
    assert_int_equal(dma.read(dma.opaque, base + 2 * PAGE * (uint64_t)place + PAGE, &value, 1),
                     -ENXIO);
    assert_int_equal(test_client_unmap(&client, base + 2 * PAGE * (uint64_t)place, PAGE, 0), 0);
    assert_int_equal(test_client_map(&client, base, PAGE, 0, rw, ram_fd), 0);
    assert_int_equal(test_client_unmap(&client, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL), 0);
    assert_int_equal(memory.count, 0);
}

static void edu_writes(void **state)
{
    const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    const uint64_t values[] = {MIDDLE + 8, EDU_BUFFER, 8, EDU_DMA_START};

    (void)state;
    test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command, 2);
    memset(ram + 8, 0x31, 8);
    for (unsigned i = 0; i < 4; i++) {
        test_client_write(&client, 0, EDU_REG_DMA_SOURCE + 8 * i, &values[i], 8);
    }
    assert_int_equal(edu.transfers, 1);
    assert_int_equal(edu.buffer[7], 0x31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(copies, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_are_pointers, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_join_neighbours, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(unmap_waits_for_pins, setup, teardown),
        cmocka_unit_test_setup_teardown(owner_gives_back_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(other_regions_do_not_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(who_keeps_a_pin_is_denied, setup, teardown),
        cmocka_unit_test_setup_teardown(client_leaves_with_pins, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_is_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(thousands_of_regions, setup, teardown),
        cmocka_unit_test_setup_teardown(edu_writes, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
