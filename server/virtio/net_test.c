/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the virtio-net function: what its driver sees, and what the far process is asked for.
 * The conversation with that is the library's: its functions are the test's own here, and write
 * down what they are called for.
 */
#include "virtio/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include <viommu/notify.h>
#include <viommu/vhost.h>

#include "clock.h"
#include "log.h"
#include "loop.h"
#include "shared_eventfd.h"
#include "support/fds.h"
#include "unix_socket.h"
#include "virtio/pci.h"
#include "virtio/test_iommu.h"
#include "virtio/test_net.h"
#include "virtio/test_vhost.h"

#define OWN   (UINT64_C(1) << VIRTIO_NET_F_MAC | UINT64_C(1) << VIRTIO_NET_F_STATUS)
#define MERGE (UINT64_C(1) << VIRTIO_NET_F_MRG_RXBUF)
#define LEAST (ACCESS_PLATFORM | TEST_VERSION_1 | OWN)

enum {
    LINK = TEST_CONFIG + 6,
};

static uint64_t offered(void)
{
    uint64_t features = 0;

    for (unsigned half = 0; half < 2; half++) {
        test_put(&all.driver, VIRTIO_PCI_COMMON_DFSELECT, 4, half);
        features |= test_get(&all.driver, VIRTIO_PCI_COMMON_DF, 4) << (32 * half);
    }
    return features;
}

static bool kicked(unsigned queue)
{
    uint64_t count;

    return read(far.rings[queue].setup.kick, &count, sizeof(count)) == sizeof(count);
}

static void call(unsigned queue)
{
    uint64_t one = 1;

    assert_int_equal(write(far.rings[queue].setup.call, &one, sizeof(one)), sizeof(one));
    step();
}

static bool link_is_up(void)
{
    return test_get(&all.driver, LINK, 2) == VIRTIO_NET_S_LINK_UP;
}

static bool both_run(void)
{
    return far.rings[0].runs && far.rings[1].runs;
}

static bool none_runs(void)
{
    return !far.rings[0].runs && !far.rings[1].runs;
}

/* All is well: a driver, and a far process that works on its rings. */
static void begin(void)
{
    far_is_ready(MERGE);
    test_begin(&all.driver, LEAST | MERGE);
    assert_true(both_run());
}

static void use_msix(void)
{
    test_config_put(&all.driver, test_capability(&all.driver, PCI_CAP_ID_MSIX, 0) + PCI_MSIX_FLAGS,
                    2, PCI_MSIX_FLAGS_ENABLE);
    test_put(&all.driver, VIRTIO_PCI_COMMON_MSIX, 2, 0);
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        test_put(&all.driver, VIRTIO_PCI_COMMON_Q_SELECT, 2, i);
        test_put(&all.driver, VIRTIO_PCI_COMMON_Q_MSIX, 2, i + 1);
    }
}

/* ---- what the driver sees ---- */

static void it_is_a_network_device(void **state)
{
    (void)state;
    assert_int_equal(test_config_get(&all.driver, PCI_VENDOR_ID, 4), 0x10411af4);
    assert_int_equal(test_config_get(&all.driver, PCI_CLASS_REVISION, 4), 0x02000001);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(test_get(&all.driver, TEST_CONFIG + i, 1), 2 * i + 2);
    }
    test_put(&all.driver, TEST_CONFIG, 1, 0xff);
    assert_int_equal(test_get(&all.driver, TEST_CONFIG, 1), 2);
}

static void what_is_offered(void **state)
{
    (void)state;
    assert_int_equal(far.config.rings, 2);
    assert_ptr_equal(far.config.device, test.device);
    assert_ptr_equal(far.config.memory, test.iommu.unit.memory);
    assert_int_equal(offered(), LEAST); /* nobody is there yet */
    far_is_ready(UINT64_MAX);
    assert_int_equal(offered(), far.config.features | LEAST);
    assert_true(offered() & MERGE);
    assert_true(offered() & TEST_EVENT_INDEX);
    assert_true(offered() & TEST_INDIRECT);
    assert_false(offered() & UINT64_C(1) << VIRTIO_NET_F_CTRL_VQ);
    assert_false(offered() & UINT64_C(1) << VIRTIO_NET_F_MQ);
    assert_false(offered() & UINT64_C(1) << VIRTIO_NET_F_MTU);
    assert_false(offered() & UINT64_C(1) << VIRTIO_F_RING_PACKED);
}

static bool accepts(uint64_t features)
{
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    test_status_add(&all.driver, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
    test_features(&all.driver, features);
    test_status_add(&all.driver, VIRTIO_CONFIG_S_FEATURES_OK);
    return test_status(&all.driver) & VIRTIO_CONFIG_S_FEATURES_OK;
}

static void a_driver_has_to_use_the_iommu(void **state)
{
    (void)state;
    far_is_ready(MERGE);
    assert_false(accepts(TEST_VERSION_1 | OWN | MERGE));
    assert_false(accepts(ACCESS_PLATFORM | OWN | MERGE));
    assert_false(accepts(LEAST | UINT64_C(1) << VIRTIO_NET_F_MQ));
    assert_true(accepts(TEST_VERSION_1 | ACCESS_PLATFORM));
    assert_true(accepts(LEAST | MERGE));
}

/* ---- rings ---- */

static void check_setup(unsigned queue, uint16_t next)
{
    const struct viommu_vhost_ring *setup = &far.rings[queue].setup;

    assert_int_equal(setup->size, TEST_SIZE);
    assert_int_equal(setup->next, next);
    assert_int_equal(setup->descriptors, TEST_DESCRIPTORS + queue * TEST_QUEUE_STRIDE);
    assert_int_equal(setup->available, TEST_AVAILABLE + queue * TEST_QUEUE_STRIDE);
    assert_int_equal(setup->used, TEST_USED + queue * TEST_QUEUE_STRIDE);
}

static void rings_start_with_the_driver(void **state)
{
    (void)state;
    far_is_ready(MERGE | TEST_INDIRECT);
    assert_true(accepts(LEAST | MERGE));
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        test_queue(&all.driver, i, TEST_SIZE);
    }
    assert_true(none_runs());
    test_status_add(&all.driver, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_true(both_run());
    assert_int_equal(far.accepts, 1);
    assert_int_equal(far.accepted, ACCESS_PLATFORM | TEST_VERSION_1 | MERGE);
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        check_setup(i, 0);
        assert_true(kicked(i)); /* something may be in it */
    }
}

static void rings_start_with_the_far_process(void **state)
{
    (void)state;
    assert_false(link_is_up());
    test_begin(&all.driver, LEAST);
    test_notify(&all.driver, 1);
    assert_true(none_runs());
    far_is_ready(MERGE);
    assert_true(both_run());
    assert_int_equal(far.accepted, ACCESS_PLATFORM | TEST_VERSION_1);
    assert_true(link_is_up());
}

static void notifications_are_passed_on(void **state)
{
    (void)state;
    begin();
    assert_true(kicked(0) && kicked(1));
    assert_false(kicked(1));
    test_notify(&all.driver, 1);
    assert_true(kicked(1));
    assert_false(kicked(0));
}

static void interrupts_are_passed_on(void **state)
{
    (void)state;
    begin();
    use_msix();
    call(0);
    assert_int_equal(all.driver.messages[1], 1);
    assert_int_equal(all.driver.messages[2], 0);
    call(1);
    call(1);
    assert_int_equal(all.driver.messages[2], 2);
    assert_int_equal(all.driver.messages[0], 0);
}

static void interrupts_by_the_line(void **state)
{
    (void)state;
    begin();
    call(1);
    assert_true(all.driver.line);
    assert_int_equal(test_get(&all.driver, TEST_ISR, 1), 1);
    assert_false(all.driver.line);
}

/* ---- resets ---- */

static void a_reset_waits_for_the_rings(void **state)
{
    (void)state;
    begin();
    use_msix();
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_true(far.rings[0].stopping && far.rings[1].stopping);
    assert_int_not_equal(test_status(&all.driver), 0);
    call(0);
    assert_int_equal(all.driver.messages[1], 0);
    far_stopped(1, 7);
    assert_int_not_equal(test_status(&all.driver), 0);
    far_stopped(0, 9);
    assert_int_equal(test_status(&all.driver), 0);
    assert_true(none_runs());
    test_begin(&all.driver, LEAST);
    assert_true(both_run());
    check_setup(0, 0);
    assert_int_equal(far.accepted, ACCESS_PLATFORM | TEST_VERSION_1);
}

static void a_reset_ends_when_the_far_process_leaves(void **state)
{
    (void)state;
    begin();
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    far_stopped(0, 3);
    far_failed(-ECONNRESET);
    assert_int_equal(test_status(&all.driver), 0);
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(0);
    assert_true(none_runs());
    test_begin(&all.driver, LEAST);
    check_setup(0, 0);
    check_setup(1, 0);
}

static void a_reset_without_rings_is_at_once(void **state)
{
    (void)state;
    assert_true(accepts(LEAST));
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(test_status(&all.driver), 0);
    begin();
    far_failed(-ECONNRESET);
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_equal(test_status(&all.driver), 0);
}

static void the_platform_resets_it(void **state)
{
    struct pci_function *function = virtio_net_function(all.net);

    (void)state;
    begin();
    function->ops->reset(function->opaque);
    assert_int_equal(test_status(&all.driver), 0);
    assert_true(function->ops->resetting(function->opaque));
    assert_true(far.rings[0].stopping && far.rings[1].stopping);
    test_begin(&all.driver, LEAST);
    far_stopped(0, 5);
    assert_true(none_runs());
    assert_true(test_status(&all.driver) & VIRTIO_CONFIG_S_DRIVER_OK);
    far_stopped(1, 5);
    assert_false(function->ops->resetting(function->opaque));
    assert_true(test_status(&all.driver) & VIRTIO_CONFIG_S_DRIVER_OK); /* the new driver's */
    assert_true(both_run());
    check_setup(0, 0);
    check_setup(1, 0);
}

static void the_platform_resets_it_during_a_reset(void **state)
{
    struct pci_function *function = virtio_net_function(all.net);

    (void)state;
    begin();
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    function->ops->reset(function->opaque);
    test_status_add(&all.driver, VIRTIO_CONFIG_S_ACKNOWLEDGE);
    far_stopped(0, 5);
    far_stopped(1, 5);
    assert_int_equal(test_status(&all.driver), VIRTIO_CONFIG_S_ACKNOWLEDGE);
}

static void bus_mastering_goes_and_comes(void **state)
{
    (void)state;
    begin();
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_true(far.rings[0].stopping && far.rings[1].stopping);
    far_stopped(0, 11);
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_true(far.rings[0].runs);
    far_stopped(1, 12);
    assert_true(both_run());
    check_setup(0, 11);
    check_setup(1, 12);
}

static void a_driver_gives_up(void **state)
{
    (void)state;
    begin();
    test_status_add(&all.driver, VIRTIO_CONFIG_S_FAILED);
    assert_true(far.rings[0].stopping && far.rings[1].stopping);
}

/* ---- a far process that comes and goes ---- */

static void it_leaves_and_comes_back(void **state)
{
    uint64_t generation;

    (void)state;
    begin();
    use_msix();
    assert_true(link_is_up());
    generation = test_get(&all.driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1);
    far_failed(-ECONNRESET);
    assert_false(link_is_up());
    assert_int_equal(all.driver.messages[0], 1);
    assert_int_not_equal(test_get(&all.driver, VIRTIO_PCI_COMMON_CFGGENERATION, 1), generation);
    assert_true(test_status(&all.driver) & VIRTIO_CONFIG_S_DRIVER_OK);
    test_notify(&all.driver, 0); /* goes nowhere */
    WAIT_UNTIL(far.reconnections == 1);
    assert_false(link_is_up());
    far_is_ready(MERGE | TEST_INDIRECT);
    assert_true(both_run());
    assert_int_equal(far.rings[0].starts, 1); /* it resumes by itself */
    assert_int_equal(far.accepts, 0);
    assert_true(link_is_up());
    assert_int_equal(all.driver.messages[0], 2);
    assert_true(kicked(0) && kicked(1));
}

/* The one that was cut off lives, and has what it was given: that is nobody's any more. */
static void the_last_one_has_the_old_eventfds(void **state)
{
    const uint64_t one = 1;
    unsigned said;
    int old_kick, old_call;

    (void)state;
    begin();
    use_msix();
    assert_true(kicked(0) && kicked(1));
    old_kick = dup(far.rings[1].setup.kick);
    old_call = dup(far.rings[1].setup.call);
    said = all.driver.messages[2];
    assert_int_equal(write(old_call, &one, sizeof(one)), sizeof(one));
    far_failed(-ETIMEDOUT);
    assert_int_equal(all.driver.messages[2], said + 1); /* what it said last */
    assert_int_equal(write(old_call, &one, sizeof(one)), sizeof(one));
    WAIT_UNTIL(far.reconnections == 1);
    assert_int_equal(all.driver.messages[2], said + 1);
    far_is_ready(MERGE | TEST_INDIRECT);
    assert_int_equal(all.driver.messages[2], said + 2); /* in case it said more */
    assert_true(kicked(1));
    test_notify(&all.driver, 1);
    assert_int_equal(write(old_call, &one, sizeof(one)), sizeof(one));
    assert_false(shared_eventfd_take(old_kick));
    assert_true(kicked(1));
    step();
    assert_int_equal(all.driver.messages[2], said + 2);
    call(1);
    assert_int_equal(all.driver.messages[2], said + 3);
    close(old_kick);
    close(old_call);
}

/* One that cannot go on with what the driver uses never becomes ready. */
static void it_comes_back_with_less(void **state)
{
    (void)state;
    begin();
    far_failed(-EPROTO);
    WAIT_UNTIL(far.reconnections == 1);
    far_failed(-ENOTSUP);
    assert_true(far.rings[0].cut && far.rings[1].cut);
    assert_false(link_is_up());
    WAIT_UNTIL(far.reconnections == 2);
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_false(far.rings[0].cut || far.rings[1].cut);
    assert_int_equal(offered(), LEAST);
    test_begin(&all.driver, LEAST); /* it settles anew */
    far_is_ready(0);
    assert_true(both_run());
    assert_true(link_is_up());
}

/* A driver settled on what was offered, and another far process came before its rings ran. */
static void it_comes_with_less(void **state)
{
    (void)state;
    far_is_ready(MERGE);
    assert_true(accepts(LEAST | MERGE));
    far_failed(-ECONNRESET);
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(0);
    for (unsigned i = 0; i < TEST_BOTH; i++) {
        test_queue(&all.driver, i, TEST_SIZE);
    }
    test_status_add(&all.driver, VIRTIO_CONFIG_S_DRIVER_OK);
    assert_true(none_runs());
    assert_false(link_is_up());
    assert_int_equal(offered(), LEAST);
    test_notify(&all.driver, 0);
    assert_true(none_runs());
    test_begin(&all.driver, LEAST);
    assert_true(both_run());
    assert_true(link_is_up());
}

/* The driver gives up while nobody is there: nothing goes on by itself. */
static void it_comes_back_to_a_driver_that_gave_up(void **state)
{
    (void)state;
    begin();
    far_failed(-ECONNRESET);
    test_status_add(&all.driver, VIRTIO_CONFIG_S_FAILED);
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(MERGE);
    assert_true(none_runs());
}

static void it_is_late(void **state)
{
    (void)state;
    make_net();
    assert_false(far.there);
    test_begin(&all.driver, LEAST);
    for (int i = 0; i < 20; i++) {
        pass_time();
    }
    assert_false(far.there);
    listen_there();
    WAIT_UNTIL(far.there);
    far_is_ready(0);
    assert_true(both_run());
}

static void it_leaves_for_longer(void **state)
{
    (void)state;
    begin();
    leave_there();
    far_failed(-ECONNRESET);
    for (int i = 0; i < 20; i++) {
        pass_time();
    }
    assert_int_equal(far.reconnections, 0);
    listen_there();
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(MERGE);
    assert_true(both_run());
}

enum { LAST_PAUSE_MS = 1600 }; /* after all of these */

static void come_and_go(void)
{
    for (unsigned i = 1; i <= 5; i++) {
        far_is_ready(0);
        far_failed(-EPROTO);
        WAIT_UNTIL(far.reconnections == i);
    }
}

/* One that comes and goes is not asked without end: five times the pause has doubled, from 50 ms.
 * (How long it takes on a busy machine says nothing; that it takes so long does.) */
static void pauses_grow(void **state)
{
    unsigned before;
    uint64_t since;

    (void)state;
    come_and_go();
    before = far.reconnections;
    since = clock_ms();
    far_failed(-ETIMEDOUT);
    WAIT_UNTIL(far.reconnections > before);
    assert_true(clock_ms() - since >= LAST_PAUSE_MS);
}

/* One that stayed is asked for soon. */
static void it_stayed_for_long(void **state)
{
    unsigned before;

    (void)state;
    come_and_go();
    far_is_ready(0);
    before = far.reconnections;
    ahead += 3;
    far_failed(-EPROTO);
    for (int i = 0; i < 50; i++) {
        pass_time();
    }
    assert_int_equal(far.reconnections, before + 1);
}

static void watches_are_used_up(void **state)
{
    struct virtio_net *other = NULL;
    const struct virtio_net_setup setup = {.far = all.path, .loop = &all.loop};
    unsigned before = support_open_fds();

    (void)state;
    no_watches = true;
    assert_int_equal(virtio_net_create(&setup, "other", &other), -ENOSPC);
    no_watches = false;
    assert_null(other);
    assert_int_equal(support_open_fds(), before);
    make_net();
    listen_there();
    no_watches = true;
    WAIT_UNTIL(far.creations == 1);
    assert_false(far.there);
    no_watches = false;
    WAIT_UNTIL(far.there);
    begin();
}

static void memory_is_used_up(void **state)
{
    (void)state;
    far.create_error = -ENOMEM;
    listen_there();
    make_net();
    assert_false(far.there);
    far.create_error = 0;
    WAIT_UNTIL(far.there);
    assert_int_equal(far.creations, 1);
}

static void write_used(unsigned queue, uint16_t index)
{
    memcpy(test_at(&all.driver, TEST_USED + queue * TEST_QUEUE_STRIDE + 2), &index, sizeof(index));
}

/* Rings stop, and it does not say how far it was: the used rings do. */
static void it_leaves_while_rings_stop(void **state)
{
    (void)state;
    begin();
    write_used(0, 21);
    write_used(1, 22);
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    far_failed(-ECONNRESET);
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(MERGE);
    assert_true(both_run());
    check_setup(0, 21);
    check_setup(1, 22);
}

static void rings_stop_when_it_has_left(void **state)
{
    (void)state;
    begin();
    write_used(0, 31);
    write_used(1, 32);
    far_failed(-ECONNRESET);
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    assert_false(far.rings[0].cut || far.rings[1].cut);
    test_config_put(&all.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    WAIT_UNTIL(far.reconnections == 1);
    far_is_ready(MERGE);
    assert_true(both_run());
    check_setup(0, 31);
    check_setup(1, 32);
    far_failed(-ECONNRESET);
    test_put(&all.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    WAIT_UNTIL(far.reconnections == 2);
    far_is_ready(MERGE);
    test_begin(&all.driver, LEAST | MERGE); /* and not after a reset */
    check_setup(0, 0);
}

/* It shares the eventfds' flags with us, and makes them such that we would wait. */
static void it_would_have_us_wait(void **state)
{
    const uint64_t full = UINT64_MAX - 1;

    (void)state;
    begin();
    use_msix();
    assert_true(kicked(0));
    assert_int_equal(fcntl(far.rings[0].setup.kick, F_SETFL, 0), 0);
    assert_int_equal(fcntl(far.rings[0].setup.call, F_SETFL, 0), 0);
    assert_int_equal(write(far.rings[0].setup.kick, &full, sizeof(full)), sizeof(full));
    alarm(20);
    test_notify(&all.driver, 0);
    call(0);
    assert_int_equal(all.driver.messages[1], 1);
    alarm(0);
    assert_true(kicked(0));
}

/* ---- what the far process needs of memory ---- */

static struct viommu_memory_slot seen;

static void memory_changed(void *opaque, const struct viommu_memory_change *change)
{
    (void)opaque;
    if (change->added_count == 1) {
        seen = change->added[0];
    }
}

static void memory_has_a_file(void **state)
{
    static const struct viommu_memory_listener_ops listener_ops = {.changed = memory_changed};
    struct viommu_memory_listener *listener;
    struct stat own, kept;

    (void)state;
    all.driver.function = all.iommu;
    test_driver_unmap(&all.driver);
    virtio_iommu_process(&test.iommu);
    assert_int_equal(
        viommu_memory_listener_add(test.iommu.unit.memory, &listener_ops, NULL, &listener), 0);
    test_driver_attach(&all.driver, all.iommu);
    assert_int_equal(fstat(all.driver.fd, &own), 0);
    assert_int_not_equal(seen.fd, all.driver.fd); /* a client's descriptors are closed */
    assert_int_equal(fstat(seen.fd, &kept), 0);
    assert_int_equal(kept.st_ino, own.st_ino);
    assert_int_equal(seen.fd_offset, 0);
    viommu_memory_listener_remove(listener);
}

static int refuse_to_let_go(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    return change->kind == VIOMMU_CHANGE_UNMAP ? -EIO : 0;
}

static int has_no_fence(void *opaque)
{
    (void)opaque;
    return -EIO;
}

static bool is_denied(void)
{
    char byte;

    virtio_iommu_process(&test.iommu);
    return viommu_device_read(test.device, NULL, 0, &byte, sizeof(byte)) == -EPERM;
}

/* The far process was cut off because it held on to memory: with the next one the device is let in
 * again. Here somebody else holds on, which is the same to it. */
static void a_denied_device_is_let_in(void **state)
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
    far_is_ready(MERGE);
    assert_int_equal(viommu_device_subscribe(test.device, &what, &other), 0);
    virtio_iommu_process(&test.iommu);
    all.driver.function = all.iommu;
    test_driver_unmap(&all.driver);
    WAIT_UNTIL(is_denied());
    assert_int_equal(viommu_subscriber_destroy(other), 0);
    test_driver_attach(&all.driver, all.iommu);
    assert_true(is_denied());
    far_failed(-ETIMEDOUT);
    WAIT_UNTIL(far.reconnections == 1);
    assert_false(is_denied());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_a_network_device, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_offered, setup, teardown),
        cmocka_unit_test_setup_teardown(a_driver_has_to_use_the_iommu, setup, teardown),
        cmocka_unit_test_setup_teardown(rings_start_with_the_driver, setup, teardown),
        cmocka_unit_test_setup_teardown(rings_start_with_the_far_process, setup, teardown),
        cmocka_unit_test_setup_teardown(notifications_are_passed_on, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_are_passed_on, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_by_the_line, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_waits_for_the_rings, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_ends_when_the_far_process_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(a_reset_without_rings_is_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_platform_resets_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_platform_resets_it_during_a_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(bus_mastering_goes_and_comes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_driver_gives_up, setup, teardown),
        cmocka_unit_test_setup_teardown(it_leaves_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_one_has_the_old_eventfds, setup, teardown),
        cmocka_unit_test_setup_teardown(it_comes_back_with_less, setup, teardown),
        cmocka_unit_test_setup_teardown(it_comes_with_less, setup, teardown),
        cmocka_unit_test_setup_teardown(it_comes_back_to_a_driver_that_gave_up, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_late, setup_lonely, teardown),
        cmocka_unit_test_setup_teardown(it_leaves_for_longer, setup, teardown),
        cmocka_unit_test_setup_teardown(pauses_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(it_stayed_for_long, setup, teardown),
        cmocka_unit_test_setup_teardown(watches_are_used_up, setup_lonely, teardown),
        cmocka_unit_test_setup_teardown(memory_is_used_up, setup_lonely, teardown),
        cmocka_unit_test_setup_teardown(it_leaves_while_rings_stop, setup, teardown),
        cmocka_unit_test_setup_teardown(rings_stop_when_it_has_left, setup, teardown),
        cmocka_unit_test_setup_teardown(it_would_have_us_wait, setup, teardown),
        cmocka_unit_test_setup_teardown(a_denied_device_is_let_in, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_has_a_file, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
