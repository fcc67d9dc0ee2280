/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of memory without a unit where a client gives no file: copies, and pins that are memory of
 * our own; beside regions with a file; and clients that refuse, are silent or go.
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

#include "clock.h"
#include "edu.h"
#include "log.h"
#include "vfio_user/test_client.h"
#include "vfio_user/test_twin.h"

enum {
    PAGE = 4096,
    /* By message, with a file, by message again; and one to read, one to write. */
    LOW = TEST_TWIN_BASE,
    FILE_AT = LOW + 4 * PAGE,
    HIGH = FILE_AT + PAGE,
    ROM = LOW + 16 * PAGE,
    SINK = LOW + 18 * PAGE,
    HUGE_AT = 0x40000000, /* the twin refuses it */
    RW = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
};

static struct direct_memory memory;
static struct device_dma dma;
static struct edu edu;
static struct vfio_user_endpoint endpoint;
static struct test_client client;
static struct test_twin twin;
static int file;
static uint8_t *mapped;
static unsigned revokes;

static void map_all(void)
{
    assert_int_equal(test_client_map(&client, LOW, 4 * PAGE, 0, RW, -1), 0);
    assert_int_equal(test_client_map(&client, FILE_AT, PAGE, 0, RW, file), 0);
    assert_int_equal(test_client_map(&client, HIGH, 4 * PAGE, 0, RW, -1), 0);
    assert_int_equal(test_client_map(&client, ROM, PAGE, 0, VFIO_DMA_MAP_FLAG_READ, -1), 0);
    assert_int_equal(test_client_map(&client, SINK, PAGE, 0, VFIO_DMA_MAP_FLAG_WRITE, -1), 0);
    assert_int_equal(test_client_map(&client, HUGE_AT, UINT64_C(1) << 40, 0, RW, -1), 0);
}

static void connect_client(const char *text)
{
    int fd;

    test_client_open(&client, &endpoint, &edu.function);
    fd = test_twin_negotiate(&client, text);
    if (fd >= 0) {
        test_twin_start(&twin, fd);
    }
    map_all();
}

static void disconnect_client(void)
{
    if (endpoint.client_dma.open) {
        test_twin_stop(&twin);
    }
    test_client_close(&client);
}

static void setup_memory(void)
{
    server_log_to(NULL);
    file = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(file, PAGE), 0);
    mapped = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_ptr_not_equal(mapped, MAP_FAILED);
    memset(mapped, 0xf1, PAGE);
    assert_int_equal(direct_memory_init(&memory), 0);
    dma = direct_memory_dma;
    dma.opaque = &memory;
    edu_init(&edu, "edu", &dma);
    direct_memory_attach(&memory, &edu.function);
    revokes = 0;
}

static int setup(void **state)
{
    (void)state;
    setup_memory();
    connect_client(TEST_TWIN_WANTED);
    return 0;
}

static int setup_without_twin(void **state)
{
    (void)state;
    setup_memory();
    connect_client("{}");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    disconnect_client();
    assert_null(memory.leaving);
    assert_null(memory.pins);
    assert_int_equal(memory.count, 0);
    assert_int_equal(memory.bounced, 0);
    direct_memory_fini(&memory);
    munmap(mapped, PAGE);
    close(file);
    return 0;
}

static void wanted_back(void *opaque)
{
    (void)opaque;
    revokes++;
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

/* From the end of one, through the one with a file, into the next. */
static void copies_across(void **state)
{
    uint8_t data[PAGE + 32];

    (void)state;
    assert_int_equal(dma.read(dma.opaque, FILE_AT - 16, data, sizeof(data)), 0);
    assert_memory_equal(data, twin.memory + 4 * PAGE - 16, 16);
    assert_int_equal(data[16], 0xf1);
    assert_int_equal(data[PAGE + 15], 0xf1);
    assert_memory_equal(data + PAGE + 16, twin.memory + 5 * PAGE, 16);
    memset(data, 0x33, sizeof(data));
    assert_int_equal(dma.write(dma.opaque, FILE_AT - 16, data, sizeof(data)), 0);
    assert_memory_equal(twin.memory + 4 * PAGE - 16, data, 16);
    assert_memory_equal(mapped, data, PAGE);
    assert_memory_equal(twin.memory + 5 * PAGE, data, 16);
    assert_int_equal(twin.reads, 2);
    assert_int_equal(twin.writes, 2);
}

/* Nothing is asked for that is not mapped, or not so. */
static void refusals_ask_nothing(void **state)
{
    uint8_t data[32] = {0};
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(dma.read(dma.opaque, LOW - 1, data, 2), -ENXIO);
    assert_int_equal(dma.write(dma.opaque, ROM, data, 1), -EROFS);
    assert_int_equal(dma.read(dma.opaque, SINK, data, 1), -EACCES);
    assert_int_equal(dma.write(dma.opaque, ROM - 1, data, 2), -ENXIO);
    assert_int_equal(dma.read(dma.opaque, ROM + PAGE - 1, data, 2), -ENXIO);
    assert_int_equal(pin(SINK, 8, false, iov, &count, &one), -EACCES);
    assert_int_equal(pin(ROM, 8, true, iov, &count, &one), -EROFS);
    assert_int_equal(pin(HIGH + 4 * PAGE - 1, 2, false, iov, &count, &one), -ENXIO);
    assert_int_equal(twin.reads + twin.writes, 0);
    assert_int_equal(dma.read(dma.opaque, ROM, data, 1), 0);
    assert_int_equal(dma.write(dma.opaque, SINK, data, 1), 0);
}

/* A region with a file that may only be written is one, too: drivers map buffers so. */
static void file_that_is_only_written(void **state)
{
    uint32_t value = 0x77777777;

    (void)state;
    assert_int_equal(
        test_client_map(&client, SINK + PAGE, PAGE, 0, VFIO_DMA_MAP_FLAG_WRITE, file), 0);
    assert_int_equal(dma.write(dma.opaque, SINK + PAGE, &value, 4), 0);
    assert_int_equal(mapped[3], 0x77);
    assert_int_equal(dma.read(dma.opaque, SINK + PAGE, &value, 4), -EACCES);
}

static void pins_to_read_are_filled(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(FILE_AT - 16, PAGE + 32, false, iov, &count, &one), 0);
    assert_int_equal(count, 3);
    assert_memory_equal(iov[0].iov_base, twin.memory + 4 * PAGE - 16, 16);
    assert_memory_equal(iov[1].iov_base, mapped, PAGE);
    assert_memory_equal(iov[2].iov_base, twin.memory + 5 * PAGE, 16);
    assert_int_equal(memory.bounced, 32);
    assert_int_equal(twin.reads, 2);
    dma.unpin(dma.opaque, one);
    assert_int_equal(twin.writes, 0);
}

static void pins_to_write_are_committed(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;
    uint8_t before[32];

    (void)state;
    memcpy(before, twin.memory, 32);
    assert_int_equal(pin(LOW, 32, true, iov, &count, &one), 0);
    assert_int_equal(count, 1);
    memset(iov[0].iov_base, 0x66, 32);
    dma.unpin(dma.opaque, one); /* never committed: it did not end well */
    assert_int_equal(twin.reads + twin.writes, 0);
    assert_memory_equal(twin.memory, before, 32);

    count = 4;
    assert_int_equal(pin(FILE_AT - 16, PAGE + 32, true, iov, &count, &one), 0);
    for (size_t i = 0; i < count; i++) {
        memset(iov[i].iov_base, 0x44 + (int)i, iov[i].iov_len);
    }
    assert_int_equal(dma.commit(dma.opaque, one), 0);
    dma.unpin(dma.opaque, one);
    assert_int_equal(twin.writes, 2);
    assert_int_equal(twin.memory[4 * PAGE - 1], 0x44);
    assert_int_equal(mapped[PAGE - 1], 0x45);
    assert_int_equal(twin.memory[5 * PAGE + 15], 0x46);
    assert_int_equal(twin.memory[5 * PAGE + 16], (uint8_t)((5 * PAGE + 16) ^ 5));
}

/* Scattered ranges are side by side in memory of our own. */
static void pins_of_many_ranges(void **state)
{
    const struct device_dma_range ranges[] = {{HIGH, PAGE}, {LOW, 8}, {LOW + PAGE, 8}};
    const struct device_dma_request request = {.ranges = ranges, .count = 3, .revoke = wanted_back};
    struct iovec iov[1];
    size_t count = 1;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(dma.pin(dma.opaque, &request, iov, &count, &one), 0);
    assert_int_equal(iov[0].iov_len, PAGE + 16);
    assert_memory_equal(iov[0].iov_base, twin.memory + 5 * PAGE, PAGE);
    assert_memory_equal((uint8_t *)iov[0].iov_base + PAGE + 8, twin.memory + PAGE, 8);
    dma.unpin(dma.opaque, one);
}

static void unmapped_pins_lead_nowhere(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(FILE_AT - 16, 8, true, iov, &count, &one), 0);
    /* It is not the client's memory, so its unmap waits for nobody. */
    assert_int_equal(test_client_unmap(&client, LOW, 4 * PAGE, 0), 0);
    assert_int_equal(revokes, 0);
    assert_int_equal(test_client_map(&client, LOW, 4 * PAGE, 0, RW, -1), 0);
    memset(iov[0].iov_base, 0x66, 8);
    assert_int_equal(dma.commit(dma.opaque, one), -EFAULT);
    assert_int_equal(twin.writes, 0);
    dma.unpin(dma.opaque, one);
}

static void pins_outlive_their_client(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    assert_int_equal(pin(LOW, 8, true, iov, &count, &one), 0);
    disconnect_client();
    assert_int_equal(dma.commit(dma.opaque, one), -EFAULT);
    /* The next one has memory in the same place, and this is none of it. */
    connect_client(TEST_TWIN_WANTED);
    assert_int_equal(dma.commit(dma.opaque, one), -EFAULT);
    assert_int_equal(twin.writes, 0);
    dma.unpin(dma.opaque, one);
}

static void own_memory_is_bounded(void **state)
{
    struct iovec iov[4];
    size_t count = 4, count2 = 4;
    struct device_dma_pin *one, *two;

    (void)state;
    assert_int_equal(pin(HUGE_AT, DIRECT_MEMORY_BOUNCE_MAX + 1u, true, iov, &count, &one),
                     -ENOBUFS);
    assert_int_equal(pin(HUGE_AT, UINT64_C(1) << 40, true, iov, &count, &one), -ENOBUFS);
    assert_int_equal(pin(HUGE_AT, DIRECT_MEMORY_BOUNCE_MAX, true, iov, &count, &one), 0);
    assert_int_equal(pin(LOW, 1, true, iov + 2, &count2, &two), -ENOBUFS);
    assert_int_equal(pin(FILE_AT, PAGE, true, iov + 2, &count2, &two), 0);
    dma.unpin(dma.opaque, two);
    dma.unpin(dma.opaque, one);
    count2 = 4;
    assert_int_equal(pin(LOW, 1, true, iov, &count2, &two), 0);
    dma.unpin(dma.opaque, two);
}

/* Bytes that the device did not write are zero, not what was in our memory before. */
static void own_memory_is_clean(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;

    (void)state;
    for (int i = 0; i < 4; i++) {
        count = 4;
        assert_int_equal(pin(LOW, 4 * PAGE, true, iov, &count, &one), 0);
        for (size_t byte = 0; byte < 4 * PAGE; byte++) {
            assert_int_equal(((uint8_t *)iov[0].iov_base)[byte], 0);
        }
        memset(iov[0].iov_base, 0xcc, 4 * PAGE);
        dma.unpin(dma.opaque, one);
    }
}

static void client_refuses(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;
    uint32_t value;

    (void)state;
    assert_int_equal(dma.read(dma.opaque, HUGE_AT, &value, 4), -EFAULT);
    assert_int_equal(pin(HUGE_AT, 4, false, iov, &count, &one), -EFAULT);
    assert_int_equal(memory.pinned, 0);
    assert_int_equal(pin(HUGE_AT, 4, true, iov, &count, &one), 0);
    assert_int_equal(dma.commit(dma.opaque, one), -EFAULT);
    dma.unpin(dma.opaque, one);
    /* And goes on. */
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
}

static void client_is_silent(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;
    uint64_t begin = clock_ms();
    uint32_t value;

    (void)state;
    twin.how = TWIN_SILENT;
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), -ETIMEDOUT);
    assert_true(clock_ms() - begin >= DIRECT_MEMORY_ANSWER_MS);
    assert_true(clock_ms() - begin < 20 * DIRECT_MEMORY_ANSWER_MS);
    /* Once is enough. */
    begin = clock_ms();
    for (int i = 0; i < 100; i++) {
        assert_int_equal(dma.write(dma.opaque, LOW, &value, 4), -ETIMEDOUT);
        assert_int_equal(pin(LOW, 4, false, iov, &count, &one), -ETIMEDOUT);
    }
    assert_true(clock_ms() - begin < DIRECT_MEMORY_ANSWER_MS);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), -ETIMEDOUT);
}

static void client_that_cannot_be_asked(void **state)
{
    struct iovec iov[4];
    size_t count = 4;
    struct device_dma_pin *one;
    uint32_t value;

    (void)state;
    assert_int_equal(dma.read(dma.opaque, LOW, &value, 4), -ENOTSUP);
    assert_int_equal(pin(LOW, 4, false, iov, &count, &one), -ENOTSUP);
    assert_int_equal(dma.read(dma.opaque, FILE_AT, &value, 4), 0);
    assert_true(endpoint.told_no_twin);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
}

/* The device asks in the middle of the client's command, which has its answer afterwards. */
static void edu_asks(void **state)
{
    const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    const uint64_t in[] = {HIGH + 8, EDU_BUFFER, 8, EDU_DMA_START};
    const uint64_t out[] = {EDU_BUFFER, LOW + 100, 8, EDU_DMA_START | EDU_DMA_TO_MEMORY};

    (void)state;
    test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command, 2);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(test_client_write(&client, 0, EDU_REG_DMA_SOURCE + 8 * i, &in[i], 8), 0);
    }
    assert_int_equal(edu.transfers, 1);
    assert_memory_equal(edu.buffer, twin.memory + 5 * PAGE + 8, 8);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(test_client_write(&client, 0, EDU_REG_DMA_SOURCE + 8 * i, &out[i], 8), 0);
    }
    assert_memory_equal(twin.memory + 100, edu.buffer, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(copies_across, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_ask_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(file_that_is_only_written, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_to_read_are_filled, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_to_write_are_committed, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_of_many_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(unmapped_pins_lead_nowhere, setup, teardown),
        cmocka_unit_test_setup_teardown(pins_outlive_their_client, setup, teardown),
        cmocka_unit_test_setup_teardown(own_memory_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(own_memory_is_clean, setup, teardown),
        cmocka_unit_test_setup_teardown(client_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(client_is_silent, setup, teardown),
        cmocka_unit_test_setup_teardown(client_that_cannot_be_asked, setup_without_twin, teardown),
        cmocka_unit_test_setup_teardown(edu_asks, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
