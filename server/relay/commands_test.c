/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of what a client may ask of a device in another process, and of what it may not. */
#include "commands.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "log.h"
#include "support/fds.h"
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

static bool is_full(const struct test_relay *what)
{
    return what->relay.command_count == RELAY_COMMANDS_MAX;
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

static unsigned maps_heard;

static int refuse_to_let_go(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    maps_heard += change->kind == VIOMMU_CHANGE_MAP;
    return change->kind == VIOMMU_CHANGE_UNMAP ? -EIO : 0;
}

static bool has_heard(const struct test_relay *what)
{
    (void)what;
    return maps_heard > 0;
}

static int has_no_fence(void *opaque)
{
    (void)opaque;
    return -EIO;
}

static bool is_denied(const struct test_relay *what)
{
    return viommu_device_read(what->device, NULL, 0, &value, 4) == -EPERM;
}

/* Denied for somebody else's sake: the far server is there all the time. */
static void a_reset_lets_a_denied_device_in(void **state)
{
    const struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = refuse_to_let_go,
        .fence = has_no_fence,
        .page_sizes = ~UINT64_C(0xfff),
    };
    struct viommu_subscriber *other;

    (void)state;
    maps_heard = 0;
    assert_int_equal(viommu_device_subscribe(test.device, &what, &other), 0);
    test_relay_map(&test, 16);
    test_relay_wait(&test, has_heard);
    test_relay_unmap(&test);
    test_relay_wait(&test, is_denied);
    assert_int_equal(viommu_subscriber_destroy(other), 0);
    test_relay_map(&test, 16);
    test_relay_for(&test, 20);
    assert_true(is_denied(&test));
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_int_equal(viommu_device_read(test.device, NULL, 0, &value, 4), 0);
    assert_int_equal(test.relay.losses, 0);
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
    test_relay_wait(&test, is_full);
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
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_INFO, &device, sizeof(device), &answer), 0);
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
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs), &answer), 0);
    memcpy(&irqs, answer.data, sizeof(irqs));
    assert_int_equal(irqs.count, TEST_VECTORS);
    assert_int_equal(irqs.index, VFIO_PCI_MSIX_IRQ_INDEX);
    region.index = VFIO_PCI_NUM_REGIONS;
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region, sizeof(region), NULL),
        -EINVAL);
    irqs.index = VFIO_PCI_NUM_IRQS;
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_IRQ_INFO, &irqs, sizeof(irqs), NULL),
        -EINVAL);
    region = (struct vfio_region_info){.argsz = sizeof(region) - 1};
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_INFO, &region, sizeof(region), NULL),
        -EINVAL);
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
    test_relay_ask_for_bar(&test, sizeof(region), &answer);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(answer.size, sizeof(region));
    assert_int_equal(region.argsz, sizeof(region) + sizeof(cap) + sizeof(areas));
    assert_int_equal(region.cap_offset, 0);
    assert_true(answer.fd >= 0);
    close(answer.fd);
    test_relay_ask_for_bar(&test, region.argsz, &answer);
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
    test_relay_ask_for_bar(&test, sizeof(region), &answer);
    memcpy(&region, answer.data, sizeof(region));
    assert_int_equal(region.flags, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE);
    assert_int_equal(answer.fd, -1);
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL),
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
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), &answer), 0);
    assert_int_equal(answer.size, sizeof(io));
    assert_true(answer.fd >= 0);
    close(answer.fd);
    close(test.far.file);
    test.far.file = -1;
    /* They cannot be replaced, so this client's device cannot come back. */
    test_far_leave(&test.far);
    test_far_listen(&test.far);
    test_relay_stays_away(&test);
    test_relay_detach(&test);
    test_relay_attach(&test);
}

/* Who closes such a one may wait. */
static void io_fds_that_are_not_passed(void **state)
{
    struct vfio_user_region_io_fds io = {.argsz = sizeof(io)};
    socklen_t size = sizeof(int);
    int domain, end;

    (void)state;
    test.far.file = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(
        test_relay_command(&test, VFIO_USER_DEVICE_GET_REGION_IO_FDS, &io, sizeof(io), NULL), -EIO);
    assert_int_equal(test.relay.state, RELAY_DOWN);
    test.far.file = -1;
    end = dup(STDERR_FILENO) + 64;
    for (int fd = 3; fd < end; fd++) { /* what it sent, and what was put aside */
        if (fd == end - 64 ||
            (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_INET)) {
            close(fd);
        }
    }
}

static void eventfds_go_to_the_far_server(void **state)
{
    int fds[3];

    (void)state;
    test_open_eventfds(fds, 3);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 5, 3, fds, 3), 0);
    assert_int_equal(eventfd_write(test.far.eventfds[6], 1), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 6, 1, NULL, 0), 0);
    assert_int_equal(test.far.eventfds[6], -1);
    assert_true(test.far.eventfds[5] >= 0 && test.far.eventfds[7] >= 0);
    /* Mask and trigger go on as they are. */
    assert_int_equal(test_relay_set_irqs(&test, VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
                                         0, 0, 1, "", 0),
                     0);
    assert_int_equal(test_relay_set_irqs(&test,
                                         VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER, 2,
                                         38, 2, "\1\0", 2),
                     0);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_SET_IRQS], 4);
    test_close_all(fds, 3);
}

/* ---- eventfds -------------------------------------------------------------------------------- */

/* The far server leaves, and another one comes, which takes so many descriptors with a message. */
static void another_one(unsigned max_fds)
{
    if (test.relay.state == RELAY_UP) {
        assert_int_equal(test_relay_read32(&test, 0, 0, &value), 0); /* it is known to the client */
    }
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test.far.max_fds = max_fds;
    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
}

/* It takes three, and eight are given. */
static void eventfds_go_in_parts(void **state)
{
    const uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
    int fds[8];

    (void)state;
    another_one(3);
    test_open_eventfds(fds, 8);
    assert_int_equal(test_relay_set_eventfds(&test, msix, 10, 8, fds, 8), 0);
    assert_int_equal(test.far.count[VFIO_USER_DEVICE_SET_IRQS], 3);
    assert_int_equal(test.relay.command_count, 0);
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(eventfd_write(test.far.eventfds[10 + i], 1), 0);
        assert_int_equal(test_eventfd_count(fds[i]), 1);
    }
    /* One of three is refused: so is all of it. */
    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    for (unsigned i = 0; i < 3; i++) {
        test.far.odd = TEST_ODD_REFUSE;
        test.far.odd_skip = i;
        test.far.odd_times = 1;
        assert_int_equal(test_relay_set_eventfds(&test, msix, 20, 8, fds, 8), -EBUSY);
        assert_int_equal(test.relay.vectors.fds[msix][20], -1);
        assert_int_equal(test.relay.vectors.fds[msix][27], -1);
        assert_true(test.relay.vectors.fds[msix][10] >= 0);
        assert_int_equal(test.relay.command_count, 0);
    }
    /* It leaves in the middle: the next one is given all of them. */
    test.far.odd = TEST_ODD_LEAVE;
    test.far.odd_skip = 1;
    assert_int_equal(test_relay_set_eventfds(&test, msix, 20, 8, fds, 8), 0);
    assert_int_equal(test.relay.command_count, 0);
    test.far.odd = TEST_ODD_NONE;
    another_one(1);
    for (unsigned i = 0; i < 8; i++) {
        assert_true(test.far.eventfds[10 + i] >= 0);
        assert_true(test.far.eventfds[20 + i] >= 0);
    }
    test_close_all(fds, 8);
}

/* That is said, and nothing is sent that it would not take. */
static void one_that_takes_no_descriptors(void **state)
{
    int fd;

    (void)state;
    another_one(0);
    test_open_eventfds(&fd, 1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &fd, 1),
                     -ENOTSUP);
    assert_int_equal(test.relay.vectors.fds[VFIO_PCI_MSIX_IRQ_INDEX][1], -1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, NULL, 0), 0);
    assert_int_equal(test.relay.state, RELAY_UP);
    /* A client that has interrupts of the last one cannot go on with it. */
    another_one(1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &fd, 1), 0);
    test_far_leave(&test.far);
    test_relay_until(&test, RELAY_DOWN);
    test.far.max_fds = 0;
    test_far_listen(&test.far);
    test_relay_stays_away(&test);
    assert_int_equal(test.relay.told_error, -ENOTSUP);
    assert_int_equal(test.far.eventfds[1], -1);
    close(fd);
}

static void only_eventfds_are_eventfds(void **state)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    (void)state;
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 1, 1, &fd, 1),
                     -EINVAL);
    close(fd);
}

/* It has none of the client's; and one that was cut off, and lives, none of the next one's. */
static void isolated_eventfds_are_others(void **state)
{
    const uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
    int fds[2], old;
    unsigned open;

    (void)state;
    test_relay_attach(&test);
    test_open_eventfds(fds, 2);
    assert_int_equal(test_relay_set_eventfds(&test, msix, 5, 2, fds, 2), 0);
    old = dup(test.far.eventfds[6]);
    assert_int_equal(fcntl(old, F_SETFL, 0), 0);
    assert_true(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
    assert_int_equal(eventfd_write(old, 1), 0);
    assert_int_equal(test_eventfd_count(fds[1]), 0);
    test_relay_step(&test);
    assert_int_equal(test_eventfd_count(fds[1]), 1);
    assert_int_equal(test_eventfd_count(fds[0]), 0);
    /* The client has another one in mind. */
    assert_int_equal(test_relay_set_eventfds(&test, msix, 6, 1, fds, 1), 0);
    assert_int_equal(eventfd_write(old, 1), 0);
    test_relay_step(&test);
    assert_int_equal(test_eventfd_count(fds[0]), 1);

    another_one(8);
    assert_int_equal(eventfd_write(old, 1), 0);
    test_relay_step(&test);
    assert_int_equal(test_eventfd_count(fds[0]), 0);
    assert_int_equal(eventfd_write(test.far.eventfds[6], 3), 0);
    assert_int_equal(eventfd_write(test.far.eventfds[5], 1), 0);
    test_relay_step(&test);
    assert_int_equal(test_eventfd_count(fds[0]), 2); /* of each, one */
    close(old);
    /* None any more: what it has is not heard. */
    old = dup(test.far.eventfds[6]);
    open = support_open_fds();
    assert_int_equal(test_relay_set_eventfds(&test, msix, 6, 1, NULL, 0), 0);
    assert_int_equal(support_open_fds(), open - 3); /* its own, ours, and the client's */
    assert_int_equal(eventfd_write(old, 1), 0);
    test_relay_step(&test);
    assert_int_equal(test_eventfd_count(fds[0]), 0);
    close(old);
    test_close_all(fds, 2);
}

/* It left, and we are the last to hear: not of its interrupt, though. */
static void isolated_last_words(void **state)
{
    int fd, old;

    (void)state;
    test_relay_attach(&test);
    test_open_eventfds(&fd, 1);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 5, 1, &fd, 1), 0);
    old = dup(test.far.eventfds[5]);
    test_far_leave(&test.far);
    assert_int_equal(eventfd_write(old, 1), 0);
    test_relay_until(&test, RELAY_DOWN);
    assert_int_equal(test_eventfd_count(fd), 1);
    assert_int_equal(eventfd_write(old, 1), 0);
    test_far_listen(&test.far);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, NULL, 0, NULL), 0);
    assert_int_equal(test_eventfd_count(fd), 0);
    close(old);
    close(fd);
}

/* What comes behind eventfds has to wait for them, and no longer than for any answer. */
static void eventfds_that_are_not_answered(void **state)
{
    int fds[8];

    (void)state;
    another_one(3);
    test_open_eventfds(fds, 8);
    test.far.odd_command = VFIO_USER_DEVICE_SET_IRQS;
    for (unsigned i = 0; i < 3; i++) {
        test.far.odd = TEST_ODD_SILENT;
        test.far.odd_skip = i;
        assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 20, 8, fds, 8), 0);
        assert_false(test.relay.giving);
        assert_int_equal(test.relay.command_count, 0);
        assert_int_equal(test_relay_read32(&test, 0, 0, &value), 0);
        assert_int_equal(value, UINT32_MAX);
        test.far.odd = TEST_ODD_NONE;
        test.far.odd_skip = 0;
        test_relay_until(&test, RELAY_UP);
        assert_int_equal(eventfd_write(test.far.eventfds[27], 1), 0);
        assert_int_equal(test_eventfd_count(fds[7]), 1);
    }
    test_close_all(fds, 8);
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
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1, &fd, 1), -EBUSY);
    assert_int_equal(test.relay.vectors.fds[VFIO_PCI_MSIX_IRQ_INDEX][0], -1);
    assert_int_equal(test.relay.state, RELAY_UP);
    close(fd);
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
    const struct vfio_user_region_access around = {.offset = UINT64_MAX - 1, .count = 4};
    const int fd = 0;
    unsigned sent;

    (void)state;
    sent = test.far.log_count;
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t data[32] = {0};

        memcpy(data, &cases[i].access, sizeof(cases[i].access));
        assert_int_equal(
            test_relay_command(&test, VFIO_USER_REGION_WRITE, data, 16 + cases[i].more, NULL),
            -EINVAL);
        if (i < 7) {
            assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, data, 16, NULL),
                             -EINVAL);
        }
    }
    assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, cases, 20, NULL), -EINVAL);
    /* Of a region that is as large as can be said, past its end and around. */
    test.relay.info.regions[0].size = UINT64_MAX;
    assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, &around, 16, NULL), -EINVAL);
    test.relay.info.regions[0].size = TEST_BAR_SIZE;
    assert_int_equal(test_relay_command(&test, VFIO_USER_REGION_READ, &nothing, 16, NULL), 0);
    assert_int_equal(test_relay_command(&test, VFIO_USER_DEVICE_RESET, cases, 1, NULL), -EINVAL);
    assert_int_equal(test_relay_command(&test, 14, NULL, 0, NULL), -ENOTSUP);
    test_relay_send(&test, VFIO_USER_DEVICE_RESET, VFIO_USER_NO_REPLY, NULL, 0, &fd, 1);
    assert_int_equal(test_relay_command(&test, 14, NULL, 0, NULL), -ENOTSUP);
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
    assert_int_equal(test_relay_set_eventfds(&test, msix, TEST_VECTORS - 1, 2, fds, 2), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, msix, UINT32_MAX, 2, fds, 2), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, msix, 2, UINT32_MAX, fds, 2), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, msix, 0, 3, fds, 2), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, msix, 0, 0, NULL, 0), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, VFIO_PCI_NUM_IRQS, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(test_relay_set_eventfds(&test, UINT32_MAX, 0, 1, fds, 1), -EINVAL);
    assert_int_equal(test_relay_set_irqs(&test,
                                         VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0,
                                         0, 1, "", 0),
                     -ENOTSUP);
    assert_int_equal(
        test_relay_set_irqs(&test, VFIO_IRQ_SET_DATA_BOOL | trigger, msix, 0, 2, "\1", 1), -EINVAL);
    assert_int_equal(test_relay_set_irqs(&test,
                                         VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_DATA_BOOL | trigger,
                                         msix, 0, 1, "\1", 1),
                     -EINVAL);
    assert_int_equal(test_relay_set_irqs(&test, VFIO_IRQ_SET_DATA_NONE, msix, 0, 1, "", 0),
                     -EINVAL);
    assert_int_equal(
        test_relay_set_irqs(&test, VFIO_IRQ_SET_DATA_NONE | trigger | 0x100, msix, 0, 1, "", 0),
        -EINVAL);
    assert_int_equal(test.far.log_count, sent);
    test_close_all(fds, 2);
}

#define TEST(name)          cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_ATTACHED(name) cmocka_unit_test_setup_teardown(name, setup_attached, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_ATTACHED(registers_are_the_far_servers),
        TEST_ATTACHED(a_reset_lets_a_denied_device_in),
        TEST_ATTACHED(posted_writes_keep_their_order),
        TEST_ATTACHED(a_slow_far_server_slows_its_client),
        TEST_ATTACHED(what_the_device_has_is_told),
        TEST(registers_that_can_be_mapped),
        cmocka_unit_test_setup_teardown(isolated_nothing_is_passed, setup_isolated, teardown),
        TEST_ATTACHED(io_fds_are_passed),
        TEST_ATTACHED(io_fds_that_are_not_passed),
        TEST_ATTACHED(eventfds_go_to_the_far_server),
        TEST_ATTACHED(eventfds_go_in_parts),
        TEST_ATTACHED(eventfds_that_are_not_answered),
        TEST_ATTACHED(one_that_takes_no_descriptors),
        TEST_ATTACHED(only_eventfds_are_eventfds),
        cmocka_unit_test_setup_teardown(isolated_eventfds_are_others, setup_isolated, teardown),
        cmocka_unit_test_setup_teardown(isolated_last_words, setup_isolated, teardown),
        TEST_ATTACHED(accesses_that_cannot_be),
        TEST_ATTACHED(interrupts_that_cannot_be),
        TEST_ATTACHED(a_refusal_is_passed_on),
    };

    server_log_to(NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
