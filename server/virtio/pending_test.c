/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of requests to the virtio-iommu that are pending, because a device still uses what they
 * take away; and of what goes on in another process.
 */
#include "virtio/test_iommu.h"

#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <viommu/device.h>
#include <viommu/iommu.h>
#include <viommu/window.h>

#include "save/stream.h"

/* ---- pending ---- */

static struct viommu_window *window;

static void revoke(void *opaque)
{
    (void)opaque;
}

static void pin(void)
{
    const struct viommu_range range = {.first = IOVA, .last = IOVA + 7};
    const struct viommu_window_request wanted = {
        .ranges = &range, .count = 1, .perm = VIOMMU_WRITE, .revoke = revoke};
    struct iovec iov[1];
    size_t count = 1;

    assert_int_equal(viommu_device_pin(test.device, NULL, &wanted, iov, &count, &window), 0);
}

static void release(void)
{
    viommu_window_release(window);
    virtio_iommu_process(&test.iommu);
}

/* An UNMAP that waits for a window. */
static uint16_t begin_pending(void)
{
    uint16_t head;

    test_begin_mapping();
    pin();
    head = test_request_offer(&test_unmap_all, 28, 4);
    test_notify(&test.driver, REQUESTS);
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_came_back(head), -1);
    assert_int_equal(test.iommu.pending_count, 1);
    return head;
}

static void a_request_that_is_pending(void **state)
{
    uint16_t head = begin_pending(), next;

    (void)state;
    next = test_request_offer(&test_unmap_all, 28, 4); /* behind it, and in its turn */
    test_notify(&test.driver, REQUESTS);
    assert_int_equal(test_came_back(next), -1);
    test_get(&test.driver, TEST_ISR, 1);
    release();
    assert_int_equal(test_came_back(head), VIRTIO_IOMMU_S_OK);
    assert_int_equal(test_came_back(next), VIRTIO_IOMMU_S_OK);
    assert_int_equal(test_get(&test.driver, TEST_ISR, 1), 1);
    assert_int_equal(test.iommu.pended, 2);
    assert_int_equal(test.iommu.pending_count, 0);
}

static void what_was_pending_has_its_answer_in_pieces(void **state)
{
    const uint64_t table = test_descriptors(REQUESTS);
    uint32_t head, length;

    (void)state;
    test_begin_mapping();
    pin();
    memcpy(test_at(&test.driver, TEST_DATA), &test_unmap_all, 28);
    memset(test_at(&test.driver, TEST_DATA + 0x40), 0xee, 0x40);
    test_descriptor(&test.driver, table, 0, TEST_DATA, 28, VRING_DESC_F_NEXT, 1);
    for (unsigned i = 1; i <= 5; i++) {
        test_descriptor(&test.driver, table, i, TEST_DATA + 0x40 + 8 * i, 1,
                        (uint16_t)(VRING_DESC_F_WRITE | (i < 5 ? VRING_DESC_F_NEXT : 0)),
                        (uint16_t)(i + 1));
    }
    test_offer(&test.driver, REQUESTS, 0);
    test_notify(&test.driver, REQUESTS);
    test_descriptor(&test.driver, table, 1, 0x1000, 1, 0, 0); /* nobody looks there again */
    release();
    assert_true(test_used(&test.driver, REQUESTS, &head, &length));
    assert_int_equal(length, 4);
    for (unsigned i = 1; i <= 4; i++) {
        assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x40 + 8 * i), "\0\xee", 2);
    }
    assert_memory_equal(test_at(&test.driver, TEST_DATA + 0x40 + 40), "\xee", 1);
}

static void an_answer_in_a_large_place(void **state)
{
    uint16_t head;
    uint32_t used, length;

    (void)state;
    test_begin_mapping();
    pin();
    head = test_request_offer(&test_unmap_all, 28, 16);
    test_notify(&test.driver, REQUESTS);
    release();
    assert_true(test_used(&test.driver, REQUESTS, &used, &length));
    assert_int_equal(length, 4);
    assert_memory_equal(test_answer(head), "\0\0\0\0\xee\xee", 6);
}

static void bus_mastering_goes_meanwhile(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_config_put(&test.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    release();
    assert_int_equal(test_came_back(head), -1);
    test_config_put(&test.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(test_came_back(head), VIRTIO_IOMMU_S_OK);
}

static void a_reset_waits(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(test_status(&test.driver), 0);
    virtio_iommu_process(&test.iommu);
    assert_int_not_equal(test_status(&test.driver), 0);
    release();
    assert_int_equal(test_status(&test.driver), 0);
    assert_int_equal(test_came_back(head), -1); /* forgotten */
    test_begin(&test.driver, ALL_FEATURES);
    assert_int_equal(test_attach(ENDPOINT), VIRTIO_IOMMU_S_OK);
}

static void the_platform_is_reset_meanwhile(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    pci_config_reset(&test.iommu.pci.function.config);
    test.iommu.pci.function.ops->reset(test.iommu.pci.function.opaque);
    assert_int_equal(test_status(&test.driver), 0);
    release();
    assert_int_equal(test_came_back(head), -1);
    test_config_put(&test.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    test_begin(&test.driver, ALL_FEATURES);
    test_begin_mapping();
    assert_true(test_dma_write(IOVA));
}

/* One chain over and over, which a driver may not do, but can, until no more are taken. */
static void fill_up(void)
{
    const uint64_t table = test_descriptors(REQUESTS);

    begin_pending();
    memcpy(test_at(&test.driver, TEST_DATA), &test_unmap_all, 28);
    for (unsigned i = 0; i < 2000; i++) {
        test_descriptor(&test.driver, table, 0, TEST_DATA, 28, VRING_DESC_F_NEXT, 1);
        test_descriptor(&test.driver, table, 1, TEST_DATA + ANSWER, 4, VRING_DESC_F_WRITE, 0);
        if ((uint16_t)(test.driver.offered[REQUESTS] - test.iommu.pci.queues[REQUESTS].ring.next) <
            TEST_SIZE) {
            test_offer(&test.driver, REQUESTS, 0);
        }
        test_notify(&test.driver, REQUESTS);
    }
}

/* More than the model takes: they stay in the queue, and come in their turn. */
static void more_than_can_be_pending(void **state)
{
    uint32_t head, length;
    unsigned answered = 0;

    (void)state;
    fill_up();
    assert_true(test.iommu.pending_count <= VIRTIO_IOMMU_PENDING_MAX);
    assert_false(test_wants_to_go_on()); /* nothing can be done now */
    assert_int_equal(
        (uint16_t)(test.driver.offered[REQUESTS] - test.iommu.pci.queues[REQUESTS].ring.next),
        TEST_SIZE);
    assert_false(test_status(&test.driver) & VIRTIO_CONFIG_S_NEEDS_RESET);
    viommu_window_release(window);
    for (unsigned i = 0; i < 100; i++) {
        virtio_iommu_process(&test.iommu);
        while (test_used(&test.driver, REQUESTS, &head, &length)) {
            answered++;
        }
    }
    assert_int_equal(test.iommu.pending_count, 0);
    assert_int_equal(test.iommu.pci.queues[REQUESTS].ring.next, test.driver.offered[REQUESTS]);
    assert_int_equal(test.iommu.pci.queues[REQUESTS].ring.returned, test.driver.offered[REQUESTS]);
    assert_true(answered > 0);
}

/* Whether the loop is asked to have the unit work. */
static bool has_work(void)
{
    struct pollfd work = {.fd = viommu_event_fd(test.iommu.unit.iommu), .events = POLLIN};

    return poll(&work, 1, 0) == 1;
}

/* The model has no room for it, either. */
static void a_reset_that_cannot_begin(void **state)
{
    (void)state;
    fill_up();
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    virtio_iommu_process(&test.iommu);
    assert_int_not_equal(test_status(&test.driver), 0);
    assert_false(test_wants_to_go_on()); /* the end of what is under way is waited for */
    assert_false(has_work());
    viommu_window_release(window);
    for (unsigned i = 0; i < 100 && has_work(); i++) {
        virtio_iommu_process(&test.iommu);
    }
    assert_int_equal(test_status(&test.driver), 0);
    test_begin(&test.driver, ALL_FEATURES);
    test_begin_mapping();
}

/* ---- in another process ---- */

static struct save_writer saved;
static struct save_section section;

static void save(void)
{
    save_writer_init(&saved, SAVE_SERVER);
    save_begin(&saved, 1, 0, 1, 0);
    saved.section = saved.size;
    assert_int_equal(virtio_iommu_save(&test.iommu, &saved), 0);
    section = (struct save_section){
        .at = saved.data + saved.section, .left = saved.size - saved.section, .version = 1};
}

/* It is another one now, made of what was saved. */
static void replace(void)
{
    const struct pci_dma_region region = {.first = TEST_RAM,
                                          .last = TEST_RAM + TEST_RAM_SIZE - 1,
                                          .readable = true,
                                          .writable = true};
    struct pci_function *function = &test.iommu.pci.function;

    test_driver_unmap(&test.driver);
    test_iommu_remove();
    test_iommu_make();
    assert_int_equal(function->memory->map(function->memory_opaque, &region, test.driver.fd,
                                           &test.driver.cookie),
                     0);
    assert_int_equal(virtio_iommu_load(&test.iommu, &section), 0);
    assert_int_equal(section.left, 0);
    save_writer_fini(&saved);
}

static void it_goes_on_in_another_process(void **state)
{
    uint16_t head;

    (void)state;
    test_begin_mapping();
    head = test_request_offer(&test_unmap_all, 28, 4); /* nobody was told of it yet */
    save();
    replace();
    assert_true(test_dma_write(IOVA));
    assert_true(test_wants_to_go_on());
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_came_back(head), VIRTIO_IOMMU_S_OK);
    assert_false(test_dma_write(IOVA));
    assert_int_equal(test_map(IOVA, PAGE), VIRTIO_IOMMU_S_OK);
}

static void what_is_pending_completes_there(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    save();
    viommu_window_release(window);
    replace();
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_came_back(head), VIRTIO_IOMMU_S_OK);
    assert_int_equal(test.iommu.pending_count, 0);
}

static void what_is_done_is_answered_there(void **state)
{
    uint16_t head = begin_pending();

    (void)state;
    test_config_put(&test.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY);
    release();
    save();
    replace();
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_came_back(head), -1);
    test_config_put(&test.driver, PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    assert_int_equal(test_came_back(head), VIRTIO_IOMMU_S_OK);
}

static void a_reset_completes_there(void **state)
{
    (void)state;
    begin_pending();
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    assert_int_not_equal(test_status(&test.driver), 0);
    save();
    viommu_window_release(window);
    replace();
    virtio_iommu_process(&test.iommu);
    assert_int_equal(test_status(&test.driver), 0);
}

/* With some bits of what is saved changed, in a byte after those of configuration space. */
static bool is_refused(size_t at, uint8_t bits)
{
    static const struct viommu_virtio_config config = {.bypass = true};
    static struct virtio_iommu other;
    uint8_t *byte = saved.data + saved.section + PCI_CONFIG_SIZE + at;
    struct save_section part = section;
    bool refused;

    assert_int_equal(virtio_iommu_init(&other, "other", &config, NULL), 0);
    *byte ^= bits;
    refused = virtio_iommu_load(&other, &part) == -EBADMSG && other.pending_count == 0;
    *byte ^= bits;
    virtio_iommu_fini(&other);
    return refused;
}

/* What no device can have saved is not taken. */
static void state_that_makes_no_sense(void **state)
{
    static const struct {
        size_t byte;
        uint8_t bits;
    } wrong[] = {
        {57, 1},     /* requests that were taken, and are neither pending nor back */
        {92, 1},     /* buffers likewise */
        {105, 0x80}, /* numbers of requests, used up */
        {106, 1},    /* a reset that is pending, and the transport knows of none */
        {114, 1},    /* one that could not begin, likewise */
        {114, 2},    /* no boolean */
        {115, 1},    /* a request that was taken and is not pending */
        {117, 1},    /* more than can be pending */
        {119, 1},    /* a request of number 0 */
        {119, 3},    /* of one that was not given yet */
        {128, 1},    /* a head that is none */
        {129, 2},    /* no boolean */
        {131, 1},    /* no piece: the rest is read askew */
        {131, 4},    /* too many pieces */
        {140, 4},    /* a piece of no bytes */
        {140, 1},    /* of more than an answer has */
    };

    (void)state;
    begin_pending();
    save();
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_true(is_refused(wrong[i].byte, wrong[i].bits));
    }
    save_writer_fini(&saved);
    test_put(&test.driver, VIRTIO_PCI_COMMON_STATUS, 1, 0);
    save();
    assert_true(is_refused(106, 0x80)); /* a reset with a number that was not given yet */
    save_writer_fini(&saved);
    release();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_iommu_setup, test_iommu_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_request_that_is_pending),
        TEST(what_was_pending_has_its_answer_in_pieces),
        TEST(an_answer_in_a_large_place),
        TEST(bus_mastering_goes_meanwhile),
        TEST(a_reset_waits),
        TEST(the_platform_is_reset_meanwhile),
        TEST(more_than_can_be_pending),
        TEST(a_reset_that_cannot_begin),
        TEST(it_goes_on_in_another_process),
        TEST(what_is_pending_completes_there),
        TEST(what_is_done_is_answered_there),
        TEST(a_reset_completes_there),
        TEST(state_that_makes_no_sense),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
