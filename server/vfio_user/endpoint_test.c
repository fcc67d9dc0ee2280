/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the vfio-user endpoint: a client of the test's own sends every command, in its right
 * forms and in wrong ones, to an endpoint that serves a recording function or an edu device. The
 * interrupt commands are in interrupts_test.c, framing in connection_test.c.
 */
#include "endpoint.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../log.h"
#include "../edu.h"
#include "test_fixture.h"

static void version_is_answered(void **state)
{
    static const char wanted[] = "{\"capabilities\":{\"max_msg_fds\":8,"
                                 "\"max_data_xfer_size\":1048576,\"pgsizes\":4096,"
                                 "\"max_dma_maps\":65535}}";

    (void)state;
    test_client_negotiate(&client);
    assert_int_equal(client.payload_size, 4 + sizeof(wanted));
    assert_memory_equal(client.payload, "\0\0\0\0", 4);
    assert_memory_equal(client.payload + 4, wanted, sizeof(wanted));
    assert_int_equal(endpoint.client.max_msg_fds, 8);
    assert_int_equal(endpoint.client.max_data_xfer_size, 1048576);
    /* Once is enough. */
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, "\0\0\0\0", 4), -EINVAL);
}

/* A function that takes few regions says so, and means it. */
static void limit_is_told_and_kept(void **state)
{
    (void)state;
    recorder.function.memory_max = 2;
    test_client_negotiate(&client);
    assert_non_null(strstr((char *)client.payload + 4, "\"max_dma_maps\":2}"));
    assert_int_equal(test_client_map(&client, 0, 4096, 0, 3, -1), 0);
    assert_int_equal(test_client_map(&client, 4096, 4096, 0, 3, -1), 0);
    assert_int_equal(test_client_map(&client, 8192, 4096, 0, 3, -1), -ENOSPC);
    assert_int_equal(recorder.maps, 2);
    assert_int_equal(test_client_unmap(&client, 0, 4096, 0), 0);
    assert_int_equal(test_client_map(&client, 8192, 4096, 0, 3, -1), 0);
}

static void version_text_may_be_odd(void **state)
{
    static const char *const texts[] = {
        "{}",
        "{\"capabilities\":7}",
        "{\"capabilities\":{\"max_msg_fds\":\"many\",\"pgsizes\":-1}}",
        "{\"capabilities\":{\"migration\":{\"pgsize\":4096},\"twin_socket\":null}}",
        "",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        for (size_t nul = 0; nul < 2; nul++) {
            char payload[128] = {0};
            size_t length = strlen(texts[i]);

            memcpy(payload + 4, texts[i], length);
            assert_int_equal(
                test_client_command(&client, VFIO_USER_VERSION, payload, 4 + length + nul), 0);
            assert_int_equal(endpoint.client.max_msg_fds, 1);
            assert_int_equal(endpoint.client.pgsizes, 4096);
            teardown(state);
            setup_raw(state);
        }
    }
}

static void version_that_cannot_be(void **state)
{
    static const char major1[4] = {1, 0, 0, 0};
    char *nested = calloc(1, 8192);

    (void)state;
    assert_non_null(nested);
    memset(nested + 4, '[', 8188);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, NULL, 0), -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, "\0\0\0", 3), -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, major1, 4), -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, "\0\0\0\0{", 5), -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, "\0\0\0\0[]", 6), -EINVAL);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, nested, 8192), -EINVAL);
    free(nested);
    nested = calloc(1, 40000);
    assert_non_null(nested);
    memset(nested + 4, ' ', 39000);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, nested, 40000), -EINVAL);
    free(nested);
    test_client_negotiate(&client);
}

static void nothing_before_version(void **state)
{
    uint8_t payload[64] = {64};

    (void)state;
    for (uint16_t command = VFIO_USER_DMA_MAP; command <= VFIO_USER_REGION_WRITE; command++) {
        if (command != VFIO_USER_DEVICE_GET_REGION_IO_FDS) {
            assert_int_equal(test_client_command(&client, command, payload, sizeof(payload)),
                             -EINVAL);
        }
    }
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), -EINVAL);
    assert_int_equal(recorder.resets + recorder.maps, 0);
    assert_int_equal(recorder.function.bus->write_message(&endpoint, 0xfee00000, 1), -ENOTCONN);
}

static void unknown_commands_are_refused(void **state)
{
    static const uint16_t unknown[] = {0, 6, 11, 12, 14, 15, 16, 17, 18, 1000, 65535};

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        assert_int_equal(test_client_command(&client, unknown[i], "x", 1), -ENOTSUP);
    }
    /* Types that are neither command nor reply. */
    for (uint32_t type = 2; type < 16; type++) {
        test_client_send(&client, VFIO_USER_DEVICE_RESET, type, NULL, 0, NULL, 0);
        assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
        assert_int_equal(test_client_receive(&client), 1);
        assert_int_equal(client.header.error, EINVAL);
    }
    assert_int_equal(recorder.resets, 0);
}

static void truncated_payloads_are_refused(void **state)
{
    static const struct {
        uint16_t command;
        size_t size;
    } fixed[] = {
        {VFIO_USER_DMA_MAP, 32},
        {VFIO_USER_DMA_UNMAP, 24},
        {VFIO_USER_DEVICE_GET_INFO, 16},
        {VFIO_USER_DEVICE_GET_REGION_INFO, 32},
        {VFIO_USER_DEVICE_GET_IRQ_INFO, 16},
        {VFIO_USER_DEVICE_SET_IRQS, 20},
        {VFIO_USER_REGION_READ, 16},
        {VFIO_USER_REGION_WRITE, 16},
    };
    uint8_t payload[32] = {32};

    (void)state;
    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        for (size_t size = 0; size < fixed[i].size; size++) {
            assert_int_equal(test_client_command(&client, fixed[i].command, payload, size),
                             -EINVAL);
        }
    }
}

static void device_info(void **state)
{
    struct vfio_user_device_info info = {.argsz = sizeof(info)};

    (void)state;
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info)),
                     0);
    assert_int_equal(client.payload_size, sizeof(info));
    memcpy(&info, client.payload, sizeof(info));
    assert_int_equal(info.argsz, 16);
    assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI);
    assert_int_equal(info.num_regions, VFIO_PCI_NUM_REGIONS);
    assert_int_equal(info.num_irqs, VFIO_PCI_NUM_IRQS);
    info.argsz = 15;
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info)),
                     -EINVAL);
}

static void region_info(void **state)
{
    static const uint64_t sizes[VFIO_PCI_NUM_REGIONS] = {[0] = RECORDER_BAR0_SIZE,
                                                         [2] = RECORDER_BAR2_SIZE,
                                                         [VFIO_PCI_CONFIG_REGION_INDEX] =
                                                             PCI_CONFIG_SIZE};
    struct vfio_region_info info;

    (void)state;
    for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS; i++) {
        info = (struct vfio_region_info){.argsz = sizeof(info), .index = i};
        assert_int_equal(
            test_client_command(&client, VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof(info)), 0);
        assert_int_equal(client.payload_size, sizeof(info));
        memcpy(&info, client.payload, sizeof(info));
        assert_int_equal(info.argsz, sizeof(info));
        assert_int_equal(info.index, i);
        assert_int_equal(info.size, sizes[i]);
        assert_int_equal(info.flags,
                         sizes[i] ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0);
        assert_int_equal(info.offset, 0);
        assert_int_equal(info.cap_offset, 0);
    }
    info = (struct vfio_region_info){.argsz = sizeof(info), .index = VFIO_PCI_NUM_REGIONS};
    assert_int_equal(
        test_client_command(&client, VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof(info)),
        -EINVAL);
    info = (struct vfio_region_info){.argsz = 31};
    assert_int_equal(
        test_client_command(&client, VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof(info)),
        -EINVAL);
}

static void config_space(void **state)
{
    uint32_t value;
    uint8_t all[PCI_CONFIG_SIZE];

    (void)state;
    assert_int_equal(test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, 0, &value, 4), 0);
    assert_int_equal(value, 0x00020001);
    value = UINT32_MAX;
    assert_int_equal(
        test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_BASE_ADDRESS_0, &value, 4), 0);
    assert_int_equal(recorder.config_writes, 1);
    assert_int_equal(test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, 0, all, sizeof(all)),
                     0);
    memcpy(&value, all + PCI_BASE_ADDRESS_0, 4);
    assert_int_equal(value, 0xfffff000);
    assert_int_equal(test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, 255, all, 1), 0);
    assert_int_equal(test_client_read(&client, VFIO_PCI_CONFIG_REGION_INDEX, 255, all, 2), -EINVAL);
    assert_int_equal(test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, 256, all, 1),
                     -EINVAL);
}

static void bar_access(void **state)
{
    uint8_t out[64], in[64];

    (void)state;
    for (unsigned i = 0; i < sizeof(out); i++) {
        out[i] = (uint8_t)(i + 1);
    }
    for (uint32_t size = 0; size <= sizeof(out); size++) {
        assert_int_equal(test_client_write(&client, 0, 7, out, size), 0);
        assert_int_equal(test_client_read(&client, 0, 7, in, size), 0);
        assert_memory_equal(in, out, size);
    }
    assert_int_equal(test_client_read(&client, 0, RECORDER_BAR0_SIZE, in, 0), 0);
    assert_int_equal(test_client_read(&client, 0, RECORDER_BAR0_SIZE, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, 0, RECORDER_BAR0_SIZE - 1, in, 2), -EINVAL);
    assert_int_equal(test_client_read(&client, 0, UINT64_MAX, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, 0, UINT64_MAX - 7, in, 8), -EINVAL);
    assert_int_equal(test_client_read(&client, 1, 0, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, 3, 0, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, VFIO_PCI_ROM_REGION_INDEX, 0, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, 9, 0, in, 1), -EINVAL);
    assert_int_equal(test_client_read(&client, UINT32_MAX, 0, in, 1), -EINVAL);
    assert_int_equal(test_client_write(&client, 0, RECORDER_BAR0_SIZE - 1, out, 2), -EINVAL);
}

static void counts_that_lie_are_refused(void **state)
{
    struct vfio_user_region_access access = {.region = 2, .count = UINT32_MAX};
    uint8_t write[sizeof(access) + 8] = {0};

    (void)state;
    assert_int_equal(test_client_command(&client, VFIO_USER_REGION_READ, &access, sizeof(access)),
                     -EINVAL);
    access.count = VFIO_USER_MAX_DATA + 1;
    assert_int_equal(test_client_command(&client, VFIO_USER_REGION_READ, &access, sizeof(access)),
                     -EINVAL);
    for (uint32_t count = 0; count < 20; count++) {
        access = (struct vfio_user_region_access){.region = 0, .count = count};
        memcpy(write, &access, sizeof(access));
        assert_int_equal(test_client_command(&client, VFIO_USER_REGION_WRITE, write, sizeof(write)),
                         count == 8 ? 0 : -EINVAL);
    }
}

static void dma_map_and_unmap(void **state)
{
    const uint32_t rw = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    int fd = memfd_create("ram", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(test_client_map(&client, 0x100000, 0x1000, 0x5000, rw, fd), 0);
    assert_int_equal(recorder.maps, 1);
    assert_int_equal(recorder.region.first, 0x100000);
    assert_int_equal(recorder.region.last, 0x100fff);
    assert_int_equal(recorder.region.file_offset, 0x5000);
    assert_true(recorder.region.readable && recorder.region.writable && recorder.with_fd);
    assert_int_equal(test_client_map(&client, 0x200000, 0x1000, 0, VFIO_DMA_MAP_FLAG_READ, -1), 0);
    assert_true(recorder.region.readable && !recorder.region.writable && !recorder.with_fd);
    /* Overlaps of every kind. */
    assert_int_equal(test_client_map(&client, 0x100000, 0x1000, 0, rw, fd), -EEXIST);
    assert_int_equal(test_client_map(&client, 0x100fff, 1, 0, rw, fd), -EEXIST);
    assert_int_equal(test_client_map(&client, 0xff000, 0x1001, 0, rw, fd), -EEXIST);
    assert_int_equal(test_client_map(&client, 0, UINT64_MAX, 0, rw, fd), -EEXIST);
    assert_int_equal(recorder.maps, 2);
    /* The top of the address space. */
    assert_int_equal(test_client_map(&client, UINT64_MAX - 0xfff, 0x1000, 0, rw, fd), 0);
    assert_int_equal(recorder.region.last, UINT64_MAX);
    assert_int_equal(test_client_map(&client, UINT64_MAX - 0xfff, 0x1001, 0, rw, fd), -EINVAL);
    /* Only exactly what was mapped can be unmapped. */
    assert_int_equal(test_client_unmap(&client, 0x100000, 0x800, 0), -ENOENT);
    assert_int_equal(test_client_unmap(&client, 0x100800, 0x800, 0), -ENOENT);
    assert_int_equal(test_client_unmap(&client, 0x100000, 0x101000, 0), -ENOENT);
    assert_int_equal(test_client_unmap(&client, 0x100000, UINT64_MAX, 0), -ENOENT);
    assert_int_equal(test_client_unmap(&client, 0x100000, 0, 0), -EINVAL);
    assert_int_equal(recorder.unmaps, 0);
    assert_int_equal(test_client_unmap(&client, 0x100000, 0x1000, 0), 0);
    assert_int_equal(recorder.unmaps, 1);
    assert_int_equal(recorder.unmapped_first, 0x100000);
    assert_int_equal(recorder.unmapped_last, 0x100fff);
    assert_ptr_equal(recorder.unmapped_cookie, (void *)0x100001);
    assert_int_equal(test_client_unmap(&client, 0x100000, 0x1000, 0), -ENOENT);
    assert_int_equal(test_client_unmap(&client, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL), 0);
    assert_int_equal(recorder.unmaps, 3);
    assert_int_equal(test_client_unmap(&client, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL), 0);
    assert_int_equal(test_client_unmap(&client, 0x1000, 0, VFIO_DMA_UNMAP_FLAG_ALL), -EINVAL);
    assert_int_equal(test_client_unmap(&client, 0, 0x1000, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP),
                     -ENOTSUP);
    assert_int_equal(test_client_map(&client, 0x100000, 0x1000, 0, rw, fd), 0);
    close(fd);
}

static void dma_maps_that_cannot_be(void **state)
{
    struct vfio_user_dma_map map = {.argsz = sizeof(map), .address = 0x1000, .size = 0x1000};
    int fds[2] = {memfd_create("a", MFD_CLOEXEC), memfd_create("b", MFD_CLOEXEC)};

    (void)state;
    assert_int_equal(test_client_map(&client, 0x1000, 0, 0, 3, fds[0]), -EINVAL);
    assert_int_equal(test_client_map(&client, 0x1000, 0x1000, 0, 4, fds[0]), -EINVAL);
    assert_int_equal(test_client_command_fds(&client, VFIO_USER_DMA_MAP, &map, sizeof(map), fds, 2),
                     -EINVAL);
    assert_int_equal(recorder.maps, 0);
    /* A map that the function refuses leaves nothing behind. */
    recorder.map_error = -ENOMEM;
    assert_int_equal(test_client_map(&client, 0x1000, 0x1000, 0, 3, fds[0]), -ENOMEM);
    recorder.map_error = 0;
    assert_int_equal(test_client_unmap(&client, 0x1000, 0x1000, 0), -ENOENT);
    assert_int_equal(test_client_map(&client, 0x1000, 0x1000, 0, 3, fds[0]), 0);
    close(fds[0]);
    close(fds[1]);
}

static void there_is_a_limit_to_dma_maps(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < VFIO_USER_MAX_DMA_REGIONS; i++) {
        /* From both ends, so that the table has to make room everywhere. */
        uint64_t page = i % 2 ? i : 2 * VFIO_USER_MAX_DMA_REGIONS - i;

        assert_int_equal(test_client_map(&client, page << 12, 0x1000, 0, 3, -1), 0);
    }
    assert_int_equal(test_client_map(&client, UINT64_C(1) << 40, 0x1000, 0, 3, -1), -ENOSPC);
    assert_int_equal(test_client_unmap(&client, 0x1000, 0x1000, 0), 0);
    assert_int_equal(test_client_map(&client, UINT64_C(1) << 40, 0x1000, 0, 3, -1), 0);
    assert_int_equal(test_client_unmap(&client, 0, 0, VFIO_DMA_UNMAP_FLAG_ALL), 0);
    assert_int_equal(recorder.unmaps, VFIO_USER_MAX_DMA_REGIONS + 1);
}

#define EVENTFD_TRIGGER (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)

static void reset_and_leave(void **state)
{
    uint16_t command = PCI_COMMAND_MEMORY;
    int fd = eventfd(0, EFD_CLOEXEC);

    assert_int_equal(
        test_client_write(&client, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command, 2), 0);
    assert_int_equal(test_client_set_irqs(&client, EVENTFD_TRIGGER, VFIO_PCI_MSI_IRQ_INDEX, 0, 1,
                                          NULL, 0, &fd, 1),
                     0);
    close(fd);
    assert_int_equal(test_client_map(&client, 0x1000, 0x1000, 0, 3, -1), 0);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    assert_int_equal(recorder.resets, 1);
    assert_false(pci_config_memory_enabled(&recorder.function.config));
    assert_int_equal(recorder.unmaps, 0);
    teardown(state);
    assert_int_equal(recorder.resets, 2);
    assert_int_equal(recorder.unmaps, 1);
    setup(state);
}

static int no_memory(void *opaque, uint64_t iova, void *data, size_t size)
{
    (void)opaque;
    (void)iova;
    (void)data;
    (void)size;
    return -EFAULT;
}

static void an_edu_behind_an_endpoint(void **state)
{
    static const struct device_dma dma = {.read = no_memory};
    struct vfio_user_endpoint edu_endpoint;
    struct test_client driver;
    struct edu edu;
    uint32_t value = 5;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    edu_init(&edu, "edu", &dma);
    test_client_open(&driver, &edu_endpoint, &edu.function);
    test_client_negotiate(&driver);
    assert_int_equal(test_client_write(&driver, 0, EDU_REG_LIVENESS, &value, 4), 0);
    assert_int_equal(test_client_read(&driver, 0, EDU_REG_LIVENESS, &value, 4), 0);
    assert_int_equal(value, ~5u);
    /* Memory maps mean nothing to it, and are accepted. */
    assert_int_equal(test_client_map(&driver, 0, 0x1000, 0, 3, -1), 0);
    assert_int_equal(test_client_set_irqs(&driver, EVENTFD_TRIGGER, VFIO_PCI_INTX_IRQ_INDEX, 0, 1,
                                          NULL, 0, &fd, 1),
                     0);
    value = 1;
    assert_int_equal(test_client_write(&driver, 0, EDU_REG_INTERRUPT_RAISE, &value, 4), 0);
    assert_int_equal(test_eventfd_count(fd), 1);
    assert_int_equal(test_client_command(&driver, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
    assert_int_equal(test_client_unmap(&driver, 0, 0x1000, 0), 0);
    test_client_close(&driver);
    close(fd);
}

static void a_reset_that_takes_time(void **state)
{
    (void)state;
    recorder.resetting = true;
    test_client_send(&client, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(recorder.resets, 1);
    assert_int_equal(test_client_receive(&client), 0);
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 0);
    recorder.resetting = false;
    vfio_user_endpoint_update(&endpoint);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, VFIO_USER_DEVICE_RESET);
    assert_int_equal(client.payload_size, 0);
    assert_int_equal(test_client_command(&client, VFIO_USER_DEVICE_RESET, NULL, 0), 0);
}

/* Everything has no address and no size. */
static void unmaps_of_everything_that_cannot_be(void **state)
{
    (void)state;
    assert_int_equal(test_client_map(&client, 0, 0x1000, 0, 3, -1), 0);
    assert_int_equal(test_client_unmap(&client, 1, 0, VFIO_DMA_UNMAP_FLAG_ALL), -EINVAL);
    assert_int_equal(test_client_unmap(&client, 0, 1, VFIO_DMA_UNMAP_FLAG_ALL), -EINVAL);
    assert_int_equal(recorder.unmaps, 0);
}

/* Nobody is told of one that wanted no answer; what comes after it waits all the same. */
static void a_reset_without_an_answer(void **state)
{
    (void)state;
    recorder.resetting = true;
    test_client_send(&client, VFIO_USER_DEVICE_RESET, VFIO_USER_NO_REPLY, NULL, 0, NULL, 0);
    test_client_send(&client, 99, 0, NULL, 0, NULL, 0);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 0);
    recorder.resetting = false;
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.command, 99);
    assert_int_equal(test_client_receive(&client), 0);
}

/* Without descriptors there is no twin socket: VERSION fails, and may be tried again. */
static void no_descriptors_for_a_twin(void **state)
{
    static const char version[] =
        "\0\0\0\0{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}";

    (void)state;
    test_client_send(&client, VFIO_USER_VERSION, 0, version, sizeof(version), NULL, 0);
    support_starve_fds(client.fd, 1);
    assert_int_equal(vfio_user_endpoint_ready(&endpoint), 0);
    support_feed_fds();
    assert_int_equal(test_client_receive(&client), 1);
    assert_int_equal(client.header.error, EMFILE);
    assert_false(endpoint.negotiated || endpoint.client_dma.open);
    assert_int_equal(test_client_command(&client, VFIO_USER_VERSION, version, sizeof(version)), 0);
    assert_true(endpoint.client_dma.open);
}

#define TEST(name)     cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_RAW(name) cmocka_unit_test_setup_teardown(name, setup_raw, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_RAW(version_is_answered),
        TEST_RAW(limit_is_told_and_kept),
        TEST_RAW(version_text_may_be_odd),
        TEST_RAW(version_that_cannot_be),
        TEST_RAW(nothing_before_version),
        TEST(unknown_commands_are_refused),
        TEST(truncated_payloads_are_refused),
        TEST(device_info),
        TEST(region_info),
        TEST(config_space),
        TEST(bar_access),
        TEST(counts_that_lie_are_refused),
        TEST(dma_map_and_unmap),
        TEST(dma_maps_that_cannot_be),
        TEST(there_is_a_limit_to_dma_maps),
        TEST(a_reset_that_takes_time),
        TEST(unmaps_of_everything_that_cannot_be),
        TEST(a_reset_without_an_answer),
        TEST_RAW(no_descriptors_for_a_twin),
        TEST(reset_and_leave),
        TEST(an_edu_behind_an_endpoint),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
