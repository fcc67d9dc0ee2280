/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the relay's states: memory that the far server hears of; far servers that die, hang, and
 * talk nonsense at any moment; clients that come and go.
 */
#include "relay.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "log.h"
#include "test_far.h"
#include "vfio_user/test_client.h"

enum { UNIT_ACK_MS = 500 }; /* what the unit waits for, at least */

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

static int teardown(void **state)
{
    (void)state;
    test_relay_close(&test);
    return 0;
}

/* ---- what a test waits for --------------------------------------------------------------------
 */

static bool is_mapped(const struct test_relay *what)
{
    struct viommu_vfio_user_statistics statistics = {.mappings = 0};

    if (what->relay.far) {
        viommu_vfio_user_statistics(what->relay.far, &statistics, sizeof(statistics));
    }
    return statistics.mappings > 0;
}

static bool memory_has_left(const struct test_relay *what)
{
    return !unit_memory_ops.unmapping((void *)&what->vtd.unit);
}

static bool is_replaying(const struct test_relay *what)
{
    return what->relay.state == RELAY_JOINING && what->relay.step == RELAY_STEP_VECTORS;
}

static bool is_being_told(const struct test_relay *what)
{
    return what->relay.state == RELAY_JOINING && what->relay.step == RELAY_STEP_MEMORY;
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
    test_relay_wait(&test, is_mapped);
    assert_true(test.far.count[VFIO_USER_DMA_MAP] > 0);
    assert_int_equal(test.far.mapped_files, test.far.count[VFIO_USER_DMA_MAP]);
    /* What the client offers on this connection is nobody's. */
    maps = test.far.count[VFIO_USER_DMA_MAP];
    /* A reset leaves it as it is. */
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    test_relay_for(&test, 10);
    assert_int_equal(test.far.count[VFIO_USER_DMA_MAP], maps);
    assert_int_equal(test.far.count[VFIO_USER_DMA_UNMAP], 0);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_MAP, &map, sizeof(map), NULL), 0);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_MAP, &map, sizeof(map), NULL),
                     -EEXIST);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), NULL),
                     0);
    assert_int_equal(test.far.count[VFIO_USER_DMA_MAP], maps);
    assert_int_equal(test.far.count[VFIO_USER_DMA_UNMAP], 0);
    test_relay_unmap(&test);
    test_relay_wait(&test, memory_has_left);
    assert_int_equal(test.far.count[VFIO_USER_DMA_UNMAP], test.far.count[VFIO_USER_DMA_MAP]);
}

/* Memory leaves though the far server does not say that it let go: the device is denied, and let in
 * again with the server that comes back. */
static void memory_leaves_a_server_that_hangs(void **state)
{
    uint64_t begin;

    (void)state;
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
    test.far.hold = true;
    begin = clock_ms();
    test_relay_unmap(&test);
    test_relay_step(&test);
    assert_true(unit_memory_ops.unmapping(&test.vtd.unit) || clock_ms() - begin >= UNIT_ACK_MS);
    test_relay_wait(&test, memory_has_left);
    test_relay_until(&test, RELAY_DOWN);
    assert_int_equal(test.relay.losses, 1);
    assert_int_equal(viommu_device_read(test.device, NULL, 0, &value, 4), -EPERM);
    test.far.hold = false;
    test_relay_until(&test, RELAY_UP);
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
    assert_int_equal(viommu_device_read(test.device, NULL, 0, &value, 4), 0);
}

static bool is_lost(const struct test_relay *what)
{
    return what->relay.losses == 1;
}

/* It lets go, but too late: it is left all the same, for it is told nothing more. The device comes
 * back by itself. */
static void memory_leaves_a_server_that_is_slow(void **state)
{
    (void)state;
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
    test.far.hold = true;
    test_relay_unmap(&test);
    test_relay_wait(&test, memory_has_left);
    test.far.hold = false;
    test_relay_wait(&test, is_lost);
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(test.far.connections, 2);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_RESET], 1);
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
    assert_int_equal(viommu_device_read(test.device, NULL, 0, &value, 4), 0);
}

/* One that does not let go when it is told is left. */
static void memory_leaves_a_server_that_refuses(void **state)
{
    (void)state;
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
    test.far.odd = TEST_ODD_REFUSE;
    test.far.odd_command = VFIO_USER_DMA_UNMAP;
    test_relay_unmap(&test);
    test_relay_wait(&test, memory_has_left);
    test_relay_until(&test, RELAY_DOWN);
    test.far.odd = TEST_ODD_NONE;
    test_relay_until(&test, RELAY_UP);
    test_relay_map(&test, 16);
    test_relay_wait(&test, is_mapped);
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

/* It is left because of this error, and not for being late. */
static void is_left_for(int error)
{
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_until(&test, RELAY_JOINING);
    test_relay_until(&test, RELAY_DOWN);
    assert_int_equal(test.relay.told_error, error);
    test.relay.pause_ms = 1;
}

static void one_that_refuses_a_reset(void **state)
{
    (void)state;
    test_relay_until(&test, RELAY_UP);
    test.far.odd_command = VFIO_USER_DEVICE_RESET;
    test.far.odd = TEST_ODD_REFUSE;
    is_left_for(-EBUSY);
    test.far.odd = TEST_ODD_NONE;
    test_relay_until(&test, RELAY_UP);
}

/* The guest's pages are smaller. */
static void one_that_has_large_pages(void **state)
{
    (void)state;
    test_relay_until(&test, RELAY_UP);
    test.far.capabilities = ",\"pgsizes\":65536";
    is_left_for(-ENOTSUP);
    test.far.capabilities = NULL;
    test_relay_until(&test, RELAY_UP);
}

/* Pauses grow while it comes and goes; not for one that stayed long. */
static void pauses_grow(void **state)
{
    (void)state;
    test_relay_until(&test, RELAY_UP);
    for (unsigned i = 0; i < 3; i++) {
        test_far_leave(&test.far);
        test_far_listen(&test.far);
        test_relay_until(&test, RELAY_DOWN);
        assert_int_equal(test.relay.pause_ms, 200u << i);
        test_relay_until(&test, RELAY_UP);
    }
    test.relay.up_since -= 10000;
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    assert_int_equal(test.relay.pause_ms, 200);
}

/* One that does not say that it has mapped what it was told of does not hold the device up. */
static void mappings_take_too_long(void **state)
{
    (void)state;
    test_relay_map(&test, 16);
    test_relay_until(&test, RELAY_UP);
    test.far.odd_command = VFIO_USER_DMA_MAP;
    test.far.odd = TEST_ODD_SILENT;
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_wait(&test, is_being_told);
    test_relay_for(&test, 20);
    assert_int_equal(test.relay.state, RELAY_JOINING);
    test.relay.deadline = clock_ms();
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(test.relay.joins, 2);
    test.far.odd = TEST_ODD_NONE;
}

/* There are too few descriptors: it is tried again, and none is lost. */
static void descriptors_are_used_up(void **state)
{
    struct rlimit whole, little;
    rlim_t spare = 0;

    (void)state;
    test_relay_until(&test, RELAY_UP);
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &whole), 0);
    for (little = whole; test.relay.state == RELAY_DOWN; spare++) {
        int next = dup(0);

        assert_true(next >= 0);
        close(next);
        little.rlim_cur = (rlim_t)next + spare;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &little), 0);
        relay_join_now(&test.relay);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &whole), 0);
        if (test.relay.state == RELAY_DOWN) {
            assert_int_equal(test.relay.told_error, -EMFILE);
            assert_null(test.relay.far);
        }
    }
    assert_true(spare > 3); /* a socket, and what tells of work */
    test_relay_until(&test, RELAY_UP);
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
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL), -EIO);
    test_relay_until(&test, RELAY_UP);
    test.far.odd = TEST_ODD_SHORT;
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL), -EIO);
    assert_int_equal(test.relay.told_error, -EPROTO);
    test_relay_until(&test, RELAY_UP);
    test.far.odd = TEST_ODD_LEAVE;

    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    assert_int_equal(test_relay_set_irqs(&test,
                                         VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER, 2, 0,
                                         0, "", 0),
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
    test_relay_until(&test, RELAY_DOWN);
    for (int i = 0; i < 6; i++) {
        while (!test_relay_receive(&test, &answer)) {
            test_relay_step(&test);
        }
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

static void down_and_back(void **state)
{
    struct test_answer answer;
    int fds[3];
    uint32_t maps;

    (void)state;
    test_relay_map(&test, 16);
    test_open_eventfds(fds, 3);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 5, 3, fds, 3), 0);
    test_relay_wait(&test, is_mapped);
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
    test_relay_ask_for_bar(&test, sizeof(struct vfio_region_info), &answer);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    /* Interrupts are still set up. */
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 6, 1, NULL, 0), 0);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 9, 1, fds, 1), 0);

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
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    assert_int_equal(value, 0);
    test_close_all(fds, 3);
}

/* It has left, and we are the last to hear: the client's eventfds are not forgotten for that. */
static void interrupts_for_one_that_just_left(void **state)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = VFIO_PCI_MSIX_IRQ_INDEX,
        .start = 4,
        .count = 1,
    };
    struct test_answer answer;
    int fd;

    (void)state;
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    test_open_eventfds(&fd, 1);
    test_far_leave(&test.far);
    test_relay_send(&test, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), &fd, 1);
    assert_int_equal(vfio_user_endpoint_ready(&test.endpoint), 0);
    assert_int_equal(test.relay.state, RELAY_UP);
    assert_true(test_relay_receive(&test, &answer));
    assert_int_equal(answer.error, 0);
    test_relay_until(&test, RELAY_DOWN);
    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_true(test.far.eventfds[4] >= 0);
    test_close_all(&fd, 1);
}

/* One of two commands for the same interrupt is refused: what the other brought is not forgotten
 * for that. */
static void interrupts_that_are_refused_once(void **state)
{
    const struct vfio_irq_set set = {
        .argsz = sizeof(set),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = VFIO_PCI_MSIX_IRQ_INDEX,
        .start = 4,
        .count = 1,
    };
    struct test_answer answer;
    int fds[2];

    (void)state;
    assert_int_equal(test_relay_read32(&test, 0, 0x10, &value), 0);
    test_open_eventfds(fds, 2);
    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    test.far.odd = TEST_ODD_REFUSE;
    test.far.odd_times = 1;
    for (unsigned i = 0; i < 2; i++) {
        test_relay_send(&test, VFIO_USER_DEVICE_SET_IRQS, 0, &set, sizeof(set), &fds[i], 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        while (!test_relay_receive(&test, &answer)) {
            test_relay_step(&test);
        }
        assert_int_equal(answer.error, i == 0 ? -EBUSY : 0);
    }
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_true(test.far.eventfds[4] >= 0);
    assert_int_equal(eventfd_write(test.far.eventfds[4], 1), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    test_close_all(fds, 2);
}

/* What the client asks while the far server is given what there is waits for that. */
static void nothing_changes_while_it_is_set_up(void **state)
{
    struct test_answer answer;
    int fds[2];

    (void)state;
    test_relay_map(&test, 16);
    test_open_eventfds(fds, 2);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 5, 1, fds, 1), 0);
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_far_listen(&test.far);
    test_relay_wait(&test, is_replaying);
    test.far.hold = true;
    test_relay_send(&test, VFIO_USER_DEVICE_SET_IRQS, 0,
                    &(struct vfio_irq_set){
                        .argsz = sizeof(struct vfio_irq_set),
                        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                        .index = VFIO_PCI_MSIX_IRQ_INDEX,
                        .start = 3,
                        .count = 2,
                    },
                    sizeof(struct vfio_irq_set), fds, 2);
    test_relay_for(&test, 20);
    assert_false(test_relay_receive(&test, &answer));
    test.far.hold = false;
    test_relay_wait(&test, is_being_told);
    test.far.hold = true; /* it does not say that it has mapped */
    test_relay_for(&test, 50);
    assert_int_equal(test.relay.state, RELAY_JOINING);
    test.far.hold = false;
    while (!test_relay_receive(&test, &answer)) {
        test_relay_step(&test);
    }
    assert_int_equal(answer.error, 0);
    assert_int_equal(test.relay.state, RELAY_UP);
    assert_true(test.far.eventfds[3] >= 0 && test.far.eventfds[4] >= 0 &&
                test.far.eventfds[5] >= 0);
    test_close_all(fds, 2);
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
    assert_true(clock_ms() - begin < TEST_ANSWER_MS - 100);
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
    test_relay_stays_away(&test);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_RESET], 0);
    /* The next client does not know the one before. */
    test_relay_detach(&test);
    test_relay_attach(&test);
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs), &answer), 0);
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
    test_relay_ask_for_bar(&test, sizeof(struct vfio_region_info), &answer);
    close(answer.fd);
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_until(&test, RELAY_UP); /* the same file */
    test.far.file = other;
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test_relay_stays_away(&test);
    test.far.file = -1;
    close(file);
    close(other);
}

/* ---- clients that come and go ---------------------------------------------------------------- */

static void each_client_has_a_connection_of_its_own(void **state)
{
    const struct vfio_irq_set none = {
        .argsz = sizeof(none),
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = VFIO_PCI_MSIX_IRQ_INDEX,
        .count = 1,
    };
    int fd;

    (void)state;
    test_open_eventfds(&fd, 1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 5, 1, &fd, 1), 0);
    close(fd);
    test_relay_send(&test, VFIO_USER_DEVICE_RESET, 0, NULL, 0, NULL, 0);
    test_relay_send(&test, VFIO_USER_DEVICE_SET_IRQS, 0, &none, sizeof(none), NULL, 0);
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
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device), NULL), -EIO);
    assert_int_equal(test_relay_read32(&test, 0, 0, &value), -EIO);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), -EIO);
    test_far_listen(&test.far);
    test_relay_until(&test, RELAY_UP);
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device), NULL), 0);
}

static void nobody_there_at_the_start(void **state)
{
    struct relay_config config = {.name = "relay", .path = "/nowhere/far", .device = test.device};
    struct relay relay;

    (void)state;
    assert_int_equal(relay_open(&relay, &test.loop, &config), -ENOENT);
    assert_int_equal(relay.config.answer_ms, RELAY_ANSWER_MS);
    assert_int_equal(relay.config.join_ms, RELAY_JOIN_MS);
    assert_int_equal(test.relay.config.answer_ms, TEST_ANSWER_MS);
    assert_int_equal(test.relay.config.join_ms, TEST_JOIN_MS);
    config.path = "";
    assert_int_equal(relay_open(&relay, &test.loop, &config), -ENOENT);
}

#define TEST(name)          cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_ATTACHED(name) cmocka_unit_test_setup_teardown(name, setup_attached, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_ATTACHED(the_far_server_hears_of_memory),
        TEST_ATTACHED(memory_leaves_a_server_that_hangs),
        TEST_ATTACHED(memory_leaves_a_server_that_is_slow),
        TEST_ATTACHED(memory_leaves_a_server_that_refuses),
        TEST(joining_can_fail_anywhere),
        TEST(one_that_refuses_a_reset),
        TEST(one_that_has_large_pages),
        TEST(pauses_grow),
        TEST(mappings_take_too_long),
        TEST(descriptors_are_used_up),
        TEST_ATTACHED(what_is_under_way_when_it_dies),
        TEST_ATTACHED(nonsense_is_as_good_as_death),
        TEST_ATTACHED(down_and_back),
        TEST_ATTACHED(interrupts_for_one_that_just_left),
        TEST_ATTACHED(interrupts_that_are_refused_once),
        TEST_ATTACHED(nothing_changes_while_it_is_set_up),
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
