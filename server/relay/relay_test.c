/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the relay: what a client asks of a device in another process, and far servers that die,
 * hang, and talk nonsense at any moment.
 */
#include "relay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "log.h"
#include "test_far.h"
#include "vfio_user/test_client.h"

static struct test_relay test;
static uint32_t value;

static int setup(void **state)
{
    (void)state;
    test_relay_open(&test, false);
    return 0;
}

static int setup_attached(void **state)
{
    setup(state);
    test_relay_attach(&test);
    return 0;
}

static int setup_isolated(void **state)
{
    (void)state;
    test_relay_open(&test, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_relay_close(&test);
    return 0;
}

static int set_eventfds(uint32_t index, uint32_t start, uint32_t count, const int *fds,
                        unsigned n_fds)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = index,
        .start = start,
        .count = count,
    };
    struct test_answer answer;
    uint64_t end = clock_ms() + 10000;

    test_relay_send(&test, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), fds, n_fds);
    while (!test_relay_receive(&test, &answer)) {
        test_relay_step(&test);
        assert_true(clock_ms() < end);
    }
    return answer.error;
}

static int set_irqs(uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
                    const char *data, size_t size)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = flags,
        .index = index,
        .start = start,
        .count = count,
    };
    char message[128];

    memcpy(message, &set, sizeof(set));
    memcpy(message + sizeof(set), data, size);
    return test_relay_command(&test, VFIO_USER_DEVICE_SET_IRQS, message, sizeof(set) + size, NULL);
}

/* ---- all is well ----------------------------------------------------------------------------- */

static void registers_are_the_far_servers(void **state)
{
    (void)state;
    test.far.bar[0x10] = 0x77;
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    assert_int_equal(value, 0x77);
    assert_int_equal(test_relay_write32(&test, 0, 0x20, 0x12345678), 0);
    assert_memory_equal(test.far.bar + 0x20, "\x78\x56\x34\x12", 4);
    assert_int_equal(test_relay_write32(&test, VFIO_PCI_CONFIG_REGION_INDEX, 4, 6), 0);
    assert_int_equal(test.far.config[4], 6);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_int_equal(test_relay_read32(&test, 0, 0x20, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_RESET], 2); /* one of joining */
}

static void posted_writes_keep_their_order(void **state)
{
    struct {
        struct vfio_user_region_access access;
        uint32_t value;
    } data = {{.offset = 0x30, .count = 4}, 0};

    (void)state;
    for (uint32_t i = 1; i <= 100; i++) {
        data.value = i;
        test_relay_send(&test, VFIO_USER_REGION_WRITE, VFIO_USER_NO_REPLY, &data, 20, NULL, 0);
    }
    assert_int_equal(test_relay_read32(&test, 0, 0x30, &value), 0);
    assert_int_equal(value, 100);
    assert_int_equal(test.far.count[VFIO_USER_REGION_WRITE], 100);
}

/* No more is taken in than is bounded, and nothing is lost. */
static void a_slow_far_server_slows_its_client(void **state)
{
    struct {
        struct vfio_user_region_access access;
        uint32_t value;
    } data = {{.offset = 0x30, .count = 4}, 0};

    (void)state;
    test.far.hold = true;
    for (uint32_t i = 1; i <= 100; i++) {
        data.value = i;
        test_relay_send(&test, VFIO_USER_REGION_WRITE, VFIO_USER_NO_REPLY, &data, 20, NULL, 0);
    }
    test_relay_for(&test, 10);
    assert_int_equal(test.relay.command_count, RELAY_COMMANDS_MAX);
    test.far.hold = false;
    assert_int_equal(test_relay_read32(&test, 0, 0x30, &value), 0);
    assert_int_equal(value, 100);
    assert_int_equal(test.relay.command_count, 0);
    assert_int_equal(test.relay.command_bytes, 0);
}

static void what_the_device_has_is_told(void **state)
{
    struct vfio_user_device_info device = {.argsz = sizeof(device)};
    struct vfio_region_info region = {.argsz = sizeof(region)};
    struct vfio_irq_info irqs = {.argsz = sizeof(irqs), .index = VFIO_PCI_MSIX_IRQ_INDEX};
    struct test_answer answer;

    (void)state;
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device),
                                        &answer),
                     0);
    memcpy(&device, answer.data, sizeof(device));
    assert_int_equal(device.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
    assert_int_equal(device.num_regions, VFIO_PCI_NUM_REGIONS); /* it says two more */
    assert_int_equal(device.num_irqs, VFIO_PCI_NUM_IRQS);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region,
                                        sizeof(region), &answer),
                     0);
    assert_int_equal(answer.size, sizeof(region));
    assert_int_equal(answer.fd, -1);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(region.size, TEST_BAR_SIZE);
    assert_int_equal(region.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs),
                                        &answer),
                     0);
    memcpy(&irqs, answer.data, sizeof(irqs));
    assert_int_equal(irqs.count, TEST_VECTORS);
    assert_int_equal(irqs.index, VFIO_PCI_MSIX_IRQ_INDEX);
    region.index = VFIO_PCI_NUM_REGIONS;
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region,
                                        sizeof(region), NULL),
                     -EINVAL);
    irqs.index = VFIO_PCI_NUM_IRQS;
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs),
                                        NULL),
                     -EINVAL);
    region = (struct vfio_region_info){.argsz = sizeof(region) - 1};
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region,
                                        sizeof(region), NULL),
                     -EINVAL);
}

static void ask_for_bar(uint32_t argsz, struct test_answer *answer)
{
    struct vfio_region_info region = {.argsz = argsz};

    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region,
                                        sizeof(region), answer),
                     0);
}

static void registers_that_can_be_mapped(void **state)
{
    struct vfio_region_info_cap_sparse_mmap cap;
    struct vfio_region_sparse_mmap_area areas[2];
    struct vfio_region_info region;
    struct test_answer answer;
    struct stat ours, theirs;
    int file = memfd_create("bar", MFD_CLOEXEC);

    (void)state;
    test.far.file = file;
    test.far.areas = 2;
    test_relay_attach(&test);
    ask_for_bar(sizeof(region), &answer);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(answer.size, sizeof(region));
    assert_int_equal(region.argsz, sizeof(region) + sizeof(cap) + sizeof(areas));
    assert_int_equal(region.cap_offset, 0);
    assert_true(answer.fd >= 0);
    close(answer.fd);
    ask_for_bar(region.argsz, &answer);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(answer.size, region.argsz);
    assert_int_equal(region.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
                                       VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS);
    assert_int_equal(region.offset, 0x1000);
    memcpy(&cap, answer.data + region.cap_offset, sizeof(cap));
    assert_int_equal(cap.header.id, VFIO_REGION_INFO_CAP_SPARSE_MMAP);
    assert_int_equal(cap.nr_areas, 2);
    memcpy(areas, answer.data + region.cap_offset + sizeof(cap), sizeof(areas));
    assert_int_equal(areas[1].offset, 0x1000);
    assert_int_equal(areas[1].size, 0x1000);
    assert_int_equal(fstat(file, &ours), 0);
    assert_int_equal(fstat(answer.fd, &theirs), 0);
    assert_int_equal(ours.st_ino, theirs.st_ino);
    close(answer.fd);
    test.far.file = -1;
    close(file);
}

static void isolated_nothing_is_passed(void **state)
{
    struct vfio_user_region_io_fds io = {.argsz = sizeof(io)};
    struct vfio_region_info region;
    struct test_answer answer;

    (void)state;
    test.far.file = memfd_create("bar", MFD_CLOEXEC);
    test_relay_map(&test, 16);
    test_relay_attach(&test);
    assert_true(test.far.count[VFIO_USER_DMA_MAP] > 0);
    assert_int_equal(test.far.mapped_files, 0);
    ask_for_bar(sizeof(region), &answer);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(region.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    assert_int_equal(answer.fd, -1);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io),
                                        NULL),
                     -ENOTSUP);
    close(test.far.file);
    test.far.file = -1;
}

static void io_fds_are_passed(void **state)
{
    struct vfio_user_region_io_fds io = {.argsz = sizeof(io)};
    struct test_answer answer;

    (void)state;
    test.far.file = memfd_create("io", MFD_CLOEXEC);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io),
                                        &answer),
                     0);
    assert_int_equal(answer.size, sizeof(io));
    assert_true(answer.fd >= 0);
    close(answer.fd);
    close(test.far.file);
    test.far.file = -1;
    /* They cannot be replaced, so this client's device cannot come back. */
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_for(&test, 400);
    assert_int_equal(test.relay.state, RELAY_DOWN);
    test_relay_detach(&test);
    test_relay_attach(&test);
}

static void eventfds_go_to_the_far_server(void **state)
{
    int fds[3];

    (void)state;
    test_open_eventfds(fds, 3);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 5, 3, fds, 3), 0);
    assert_int_equal(eventfd_write(test.far.eventfds[6], 1), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 6, 1, NULL, 0), 0);
    assert_int_equal(test.far.eventfds[6], -1);
    assert_true(test.far.eventfds[5] >= 0 && test.far.eventfds[7] >= 0);
    /* Mask and trigger go on as they are. */
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK, 0, 0, 1, "", 0),
                     0);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER, 2, 38, 2,
                              "\1\0", 2),
                     0);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_SET_IRQS], 4);
    test_close_all(fds, 3);
}

/* ---- what a client may not ask --------------------------------------------------------------- */

static void accesses_that_cannot_be(void **state)
{
    static const struct {
        struct vfio_user_region_access access;
        size_t more; /* bytes that follow */
    } cases[] = {
        {{.offset = TEST_BAR_SIZE - 3, .count = 4}, 4},
        {{.offset = TEST_BAR_SIZE + 1, .count = 0}, 0},
        {{.offset = UINT64_MAX, .count = 4}, 4},
        {{.offset = 0, .region = 1, .count = 4}, 4},
        {{.offset = 0, .region = VFIO_PCI_NUM_REGIONS, .count = 4}, 4},
        {{.offset = 0, .region = UINT32_MAX, .count = 4}, 4},
        {{.offset = 0, .count = UINT32_MAX}, 4},
        {{.offset = 0, .region = VFIO_PCI_ROM_REGION_INDEX, .count = 4}, 4}, /* a write */
        {{.offset = 0, .count = 4}, 3},
        {{.offset = 0, .count = 4}, 5},
    };
    const struct vfio_user_region_access nothing = {.offset = TEST_BAR_SIZE};
    const int fd = 0;
    unsigned sent;

    (void)state;
    sent = test.far.log_count;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t data[32] = {0};

        memcpy(data, &cases[i].access, sizeof(cases[i].access));
        assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_WRITE, data, 16 + cases[i].more,
                                            NULL),
                         -EINVAL);
        if (i < 7) {
            assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, data, 16, NULL),
                             -EINVAL);
        }
    }
    assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, cases, 20, NULL), -EINVAL);
    assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, &nothing, 16, NULL), 0);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, cases, 1, NULL), -EINVAL);
    assert_int_equal(test_relay_command(&test, 14, NULL, 0, NULL), -ENOTSUP);
    test_relay_send(&test, VFIO_USER_DEVICE_RESET, VFIO_USER_NO_REPLY, NULL, 0, &fd, 1);
    test_relay_for(&test, 5);
    assert_int_equal(test.far.log_count, sent); /* nothing of this went there */
}

static void interrupts_that_cannot_be(void **state)
{
    const uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
    const uint32_t trigger = VFIO_IRQ_SET_ACTION_TRIGGER;
    unsigned sent = test.far.log_count;
    int fds[2];

    (void)state;
    test_open_eventfds(fds, 2);
    assert_int_equal(set_eventfds(msix, TEST_VECTORS - 1, 2, fds, 2), -EINVAL);
    assert_int_equal(set_eventfds(msix, UINT32_MAX, 2, fds, 2), -EINVAL);
    assert_int_equal(set_eventfds(msix, 2, UINT32_MAX, fds, 2), -EINVAL);
    assert_int_equal(set_eventfds(msix, 0, 3, fds, 2), -EINVAL);
    assert_int_equal(set_eventfds(msix, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(set_eventfds(VFIO_PCI_NUM_IRQS, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(set_eventfds(UINT32_MAX, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, 0, 1, "",
                              0),
                     -ENOTSUP);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_BOOL | trigger, msix, 0, 2, "\1", 1), -EINVAL);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | trigger, msix, 0, 1,
                              "\1", 1),
                     -EINVAL);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE, msix, 0, 1, "", 0), -EINVAL);
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE | trigger | 0x100, msix, 0, 1, "", 0), -EINVAL);
    assert_int_equal(test.far.log_count, sent);
    test_close_all(fds, 2);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void the_far_server_hears_of_memory(void **state)
{
    const struct vfio_user_dma_map map = {
        .argsz = sizeof(map),
        .flags = VFIO_DMA_MAP_FLAG_READ,
        .address = 0x100000,
        .size = 0x1000,
    };
    const struct vfio_user_dma_unmap unmap = {
        .argsz = sizeof(unmap),
        .address = 0x100000,
        .size = 0x1000,
    };
    unsigned maps;

    (void)state;
    test_relay_map(&test, 16);
    test_relay_for(&test, 20);
    assert_true(test.far.count[VFIO_USER_DMA_MAP] > 0);
    assert_int_equal(test.far.mapped_files, test.far.count[VFIO_USER_DMA_MAP]);
    /* What the client offers on this connection is nobody's. */
    maps = test.far.count[VFIO_USER_DMA_MAP];
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_MAP, &map, sizeof(map), NULL), 0);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_MAP, &map, sizeof(map), NULL), -EEXIST);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), NULL), 0);
    assert_int_equal(test.far.count[VFIO_USER_DMA_MAP], maps);
    assert_int_equal(test.far.count[VFIO_USER_DMA_UNMAP], 0);
    test_relay_unmap(&test);
    test_relay_for(&test, 20);
    assert_int_equal(test.far.count[VFIO_USER_DMA_UNMAP], test.far.count[VFIO_USER_DMA_MAP]);
    assert_false(unit_memory_ops.unmapping(&test.vtd.unit));
}

/* Memory leaves though the far server does not say that it let go. */
static void memory_leaves_a_server_that_hangs(void **state)
{
    uint64_t end = clock_ms() + 5000;

    (void)state;
    test_relay_map(&test, 16);
    test_relay_for(&test, 20);
    test.far.hold = true;
    test_relay_unmap(&test);
    test_relay_step(&test);
    assert_true(unit_memory_ops.unmapping(&test.vtd.unit));
    while (unit_memory_ops.unmapping(&test.vtd.unit)) {
        assert_true(clock_ms() < end);
        test_relay_step(&test);
    }
    assert_true(test.relay.losses == 1);
}

/* ---- far servers that fail ------------------------------------------------------------------- */

static const uint16_t steps[] = {
    VFIO_USER_VERSION,
    VFIO_USER_DEVICE_GET_INFO,
    VFIO_USER_DEVICE_GET_REGION_INFO,
    VFIO_USER_DEVICE_GET_IRQ_INFO,
    VFIO_USER_DEVICE_RESET,
};

enum { STEPS = sizeof(steps) / sizeof(steps[0]) };

/* Whatever goes wrong in whatever step: nothing hangs, and when it is right again it is there. */
static void joining_can_fail_anywhere(void **state)
{
    (void)state;
    test_relay_until(&test, RELAY_UP);
    for (unsigned i = 0; i < STEPS; i++) {
        for (enum test_odd odd = TEST_ODD_SILENT; odd <= TEST_ODD_REFUSE; odd++) {
            /* What comes of what is not looked at, or may be longer, is no mistake. */
            if ((steps[i] == VFIO_USER_DEVICE_RESET && odd >= TEST_ODD_SHORT &&
                 odd <= TEST_ODD_OTHER) ||
                odd == TEST_ODD_LONG) {
                continue;
            }
            test.far.odd_command = steps[i];
            test.far.odd = odd;
            test_far_leave(&test.far);
            test_far_listen(&test.far);
            test_relay_until(&test, RELAY_DOWN);
            test_relay_until(&test, RELAY_JOINING);
            test_relay_until(&test, RELAY_DOWN);
            assert_int_equal(test.relay.command_count, 0);
            test.far.odd = TEST_ODD_NONE;
            test.relay.pause_ms = 1;
            test_relay_until(&test, RELAY_UP);
            test.relay.pause_ms = 1;
        }
    }
}

static void what_is_under_way_when_it_dies(void **state)
{
    struct vfio_user_region_access access = {.offset = 8, .count = 4};
    struct vfio_user_region_io_fds io = {.argsz = sizeof(io)};
    struct test_answer answer;

    (void)state;
    test.far.odd = TEST_ODD_LEAVE;
    test.far.odd_command = VFIO_USER_REGION_READ;
    assert_int_equal(test_relay_read32(&test, 0, 0, &value), 0);
    assert_int_equal(value, UINT32_MAX);
    test_relay_until(&test, RELAY_UP);

    test.far.odd_command = VFIO_USER_REGION_WRITE;
    assert_int_equal(test_relay_write32(&test, 0, 0, 1), 0);
    test_relay_until(&test, RELAY_UP);

    test.far.odd_command = VFIO_USER_DEVICE_GET_REGION_IO_FDS;
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io),
                                        NULL),
                     -EIO);
    test_relay_until(&test, RELAY_UP);

    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    assert_int_equal(set_irqs(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 2, 0, 0, "", 0),
                     0);
    test_relay_until(&test, RELAY_UP);

    /* A reset brings it back, with the answer. */
    test.far.odd_command = VFIO_USER_DEVICE_RESET;
    test.far.odd_skip = 0;
    test_relay_send(&test, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    test_relay_until(&test, RELAY_JOINING);
    test.far.odd = TEST_ODD_NONE;
    test_relay_until(&test, RELAY_UP);
    assert_true(test_relay_receive(&test, &answer));
    assert_int_equal(answer.error, 0);

    /* Several at once, and the last answer of a server that goes. */
    test.far.odd = TEST_ODD_LEAVE;
    test.far.odd_command = VFIO_USER_REGION_READ;
    test.far.odd_skip = 2;
    test.far.bar[8] = 9;
    for (int i = 0; i < 6; i++) {
        test_relay_send(&test, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL, 0);
    }
    test_relay_for(&test, 30);
    for (int i = 0; i < 6; i++) {
        assert_true(test_relay_receive(&test, &answer));
        assert_int_equal(answer.data[16], i < 2 ? 9 : 0xff);
    }
    assert_false(test_relay_receive(&test, &answer));
}

static void nonsense_is_as_good_as_death(void **state)
{
    (void)state;
    for (enum test_odd odd = TEST_ODD_SILENT; odd <= TEST_ODD_NUMBER; odd++) {
        test.far.odd = odd;
        test.far.odd_command = VFIO_USER_REGION_READ;
        assert_int_equal(test_relay_read32(&test, 0, 0, &value), 0);
        assert_int_equal(value, UINT32_MAX);
        assert_int_not_equal(test.relay.state, RELAY_UP);
        test_relay_until(&test, RELAY_UP);
        test.far.odd_command = VFIO_USER_REGION_WRITE;
        test.relay.pause_ms = 1;
        assert_int_equal(test_relay_write32(&test, 0, 0, 1), 0);
        assert_int_not_equal(test.relay.state, RELAY_UP);
        test_relay_until(&test, RELAY_UP);
        test.relay.pause_ms = 1;
    }
}

static void a_refusal_is_passed_on(void **state)
{
    int fd;

    (void)state;
    test.far.odd = TEST_ODD_REFUSE;
    test.far.odd_command = VFIO_USER_REGION_READ;
    assert_int_equal(test_relay_read32(&test, 0, 0, &value), -EBUSY);
    test.far.odd_command = VFIO_USER_DEVICE_RESET;
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EBUSY);
    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    test_open_eventfds(&fd, 1);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd, 1), -EBUSY);
    assert_int_equal(test.relay.vectors.fds[VFIO_PCI_MSIX_IRQ_INDEX][0], -1);
    assert_int_equal(test.relay.state, RELAY_UP);
    close(fd);
}

static void down_and_back(void **state)
{
    const struct vfio_user_region_access access = {.offset = 0x10, .count = 4};
    struct test_answer answer;
    int fds[3];
    uint32_t maps;

    (void)state;
    test_relay_map(&test, 16);
    test_open_eventfds(fds, 3);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 5, 3, fds, 3), 0);
    test_relay_for(&test, 20);
    maps = test.far.count[VFIO_USER_DMA_MAP];
    assert_true(maps > 0);
    test.far.bar[0x10] = 0x77;
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);

    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    assert_int_equal(value, UINT32_MAX);
    assert_int_equal(test_relay_read32(&test, VFIO_PCI_CONFIG_REGION_INDEX, 0, &value), 0);
    assert_int_equal(value, UINT32_MAX);
    assert_int_equal(test_relay_write32(&test, 0, 0x10, 1), 0);
    assert_int_equal(test_relay_read32(&test, 0, TEST_BAR_SIZE, &value), -EINVAL);
    ask_for_bar(sizeof(struct vfio_region_info), &answer);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    /* Interrupts are still set up. */
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 6, 1, NULL, 0), 0);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 9, 1, fds, 1), 0);

    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_int_equal(test.relay.state, RELAY_UP);
    assert_true(test.far.eventfds[5] >= 0 && test.far.eventfds[6] < 0 && test.far.eventfds[7] >= 0);
    assert_int_equal(eventfd_write(test.far.eventfds[9], 1), 0);
    assert_int_equal(test_eventfd_count(fds[0]), 1);
    /* It has heard of memory before the client has its answer, and was reset before that. */
    assert_int_equal(test.far.count[VFIO_USER_DMA_MAP], maps);
    for (unsigned i = 0, was_reset = 0; i < test.far.log_count; i++) {
        was_reset |= test.far.log[i] == VFIO_USER_DEVICE_RESET;
        assert_true(was_reset || (test.far.log[i] != VFIO_USER_DEVICE_SET_IRQS &&
                                  test.far.log[i] != VFIO_USER_DMA_MAP));
    }
    test_relay_send(&test, VFIO_USER_REGION_READ, 0, &access, sizeof(access), NULL, 0);
    test_relay_for(&test, 5);
    assert_true(test_relay_receive(&test, &answer));
    assert_int_equal(answer.data[16], 0);
    test_close_all(fds, 3);
}

static void it_comes_back_by_itself(void **state)
{
    (void)state;
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_for(&test, 120);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    assert_int_equal(value, 0);
}

/* A server that accepts and says nothing more must not make each register access slow. */
static void one_that_hangs_while_it_is_down(void **state)
{
    uint64_t begin;

    (void)state;
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_far_listen(&test.far);
    test.far.hold = true;
    test_relay_until(&test, RELAY_JOINING);
    begin = clock_ms();
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    assert_int_equal(value, UINT32_MAX);
    assert_true(clock_ms() - begin < TEST_ANSWER_MS / 2);
    /* A reset waits, and ends. */
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    test.far.hold = false;
    test_relay_until(&test, RELAY_UP);
}

static void another_device_is_no_replacement(void **state)
{
    struct vfio_irq_info irqs = {.argsz = sizeof(irqs), .index = VFIO_PCI_MSIX_IRQ_INDEX};
    struct test_answer answer;

    (void)state;
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0); /* it is known */
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test.far.vectors = TEST_VECTORS - 1;
    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    test_relay_for(&test, 300);
    assert_int_equal(test.relay.state, RELAY_DOWN);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_RESET], 0);
    /* The next client does not know the one before. */
    test_relay_detach(&test);
    test_relay_attach(&test);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs),
                                        &answer),
                     0);
    memcpy(&irqs, answer.data, sizeof(irqs));
    assert_int_equal(irqs.count, TEST_VECTORS - 1);
}

static void mapped_registers_cannot_be_replaced(void **state)
{
    int file = memfd_create("bar", MFD_CLOEXEC), other = memfd_create("bar", MFD_CLOEXEC);
    struct test_answer answer;

    (void)state;
    test.far.file = file;
    test_relay_attach(&test);
    ask_for_bar(sizeof(struct vfio_region_info), &answer);
    close(answer.fd);
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_until(&test, RELAY_UP); /* the same file */
    test.far.file = other;
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_for(&test, 400);
    assert_int_equal(test.relay.state, RELAY_DOWN);
    test.far.file = -1;
    close(file);
    close(other);
}

/* ---- clients that come and go ---------------------------------------------------------------- */

static void each_client_has_a_connection_of_its_own(void **state)
{
    int fd;

    (void)state;
    test_open_eventfds(&fd, 1);
    assert_int_equal(set_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, 5, 1, &fd, 1), 0);
    close(fd);
    test_relay_send(&test, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    test.far.hold = true;
    test_relay_for(&test, 5);
    test_relay_detach(&test); /* in the middle of it */
    test.far.hold = false;
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(test.far.connections, 2);
    assert_int_equal(test.far.eventfds[5], -1);
    test_relay_attach(&test);
    assert_int_equal(test.far.connections, 2);
    assert_int_equal(test_relay_write32(&test, 0, 0x10, 1), 0);
}

static void a_client_that_finds_no_far_server(void **state)
{
    struct vfio_user_device_info device = {.argsz = sizeof(device)};

    (void)state;
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_attach(&test);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device),
                                        NULL),
                     -EIO);
    assert_int_equal(test_relay_read32(&test, 0, 0, &value), -EIO);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device),
                                        NULL),
                     0);
}

static void nobody_there_at_the_start(void **state)
{
    struct relay_config config = {.name = "relay", .path = "/nowhere/far", .device = test.device};
    struct relay relay;

    (void)state;
    assert_int_equal(relay_open(&relay, &test.loop, &config), -ENOENT);
    config.path = "";
    assert_int_equal(relay_open(&relay, &test.loop, &config), -ENOENT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_ATTACHED(name) cmocka_unit_test_setup_teardown(name, setup_attached, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_ATTACHED(registers_are_the_far_servers),
        TEST_ATTACHED(posted_writes_keep_their_order),
        TEST_ATTACHED(a_slow_far_server_slows_its_client),
        TEST_ATTACHED(what_the_device_has_is_told),
        TEST(registers_that_can_be_mapped),
        cmocka_unit_test_setup_teardown(isolated_nothing_is_passed, setup_isolated, teardown),
        TEST_ATTACHED(io_fds_are_passed),
        TEST_ATTACHED(eventfds_go_to_the_far_server),
        TEST_ATTACHED(accesses_that_cannot_be),
        TEST_ATTACHED(interrupts_that_cannot_be),
        TEST_ATTACHED(the_far_server_hears_of_memory),
        TEST_ATTACHED(memory_leaves_a_server_that_hangs),
        TEST(joining_can_fail_anywhere),
        TEST_ATTACHED(what_is_under_way_when_it_dies),
        TEST_ATTACHED(nonsense_is_as_good_as_death),
        TEST_ATTACHED(a_refusal_is_passed_on),
        TEST_ATTACHED(down_and_back),
        TEST_ATTACHED(it_comes_back_by_itself),
        TEST_ATTACHED(one_that_hangs_while_it_is_down),
        TEST_ATTACHED(another_device_is_no_replacement),
        TEST(mapped_registers_cannot_be_replaced),
        TEST_ATTACHED(each_client_has_a_connection_of_its_own),
        TEST(a_client_that_finds_no_far_server),
        TEST(nobody_there_at_the_start),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
