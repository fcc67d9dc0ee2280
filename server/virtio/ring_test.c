/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the split virtqueue: what a right driver does, and all that a wrong one may. */
#include "virtio/ring.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include <viommu/memory.h>

#include "virtio/test_driver.h"

static struct test_driver driver;
static struct viommu_memory *memory;
static struct virtio_ring ring;
static struct virtio_chain chain;

static void change_memory(uint64_t first, uint64_t last, uint32_t flags, bool add)
{
    struct viommu_memory_slot slot = {
        .first = first, .last = last, .host = test_at(&driver, first), .fd = -1, .flags = flags};
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
    assert_int_equal(add ? viommu_memory_batch_add(batch, &slot)
                         : viommu_memory_batch_remove(batch, first, last),
                     0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

static int setup(void **state)
{
    (void)state;
    test_driver_open(&driver);
    assert_int_equal(viommu_memory_create(&memory), 0);
    for (uint64_t gpa = TEST_RAM; gpa < TEST_RAM + TEST_RAM_SIZE; gpa += 0x1000) {
        change_memory(gpa, gpa + 0xfff, 0, true); /* so that one page can go */
    }
    ring = (struct virtio_ring){.memory = memory};
    virtio_ring_reset(&ring, TEST_SIZE);
    ring.descriptors = TEST_DESCRIPTORS;
    ring.available = TEST_AVAILABLE;
    ring.used = TEST_USED;
    ring.indirect = true;
    ring.enabled = true;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    viommu_memory_destroy(memory);
    test_driver_close(&driver);
    return 0;
}

static void describe(unsigned at, uint64_t gpa, uint32_t length, uint16_t flags, uint16_t next)
{
    test_descriptor(&driver, TEST_DESCRIPTORS, at, gpa, length, flags, next);
}

static void describe_inside(unsigned at, uint64_t gpa, uint32_t length, uint16_t flags,
                            uint16_t next)
{
    test_descriptor(&driver, TEST_TABLE, at, gpa, length, flags, next);
}

/* A right chain: 16 bytes to read at TEST_DATA, 8 to write behind them. */
static void describe_pair(unsigned at)
{
    describe(at, TEST_DATA, 16, VRING_DESC_F_NEXT, (uint16_t)(at + 1));
    describe(at + 1, TEST_DATA + 16, 8, VRING_DESC_F_WRITE, 0);
}

/* Whether the chain that begins there is taken for one that makes no sense. It goes back. */
static bool is_spoilt(uint16_t head)
{
    uint32_t used, length;

    test_offer(&driver, 0, head);
    memset(&chain, 0x55, sizeof(chain));
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    assert_int_equal(chain.head, head);
    if (chain.spoilt) {
        assert_int_equal(chain.count, 0);
        assert_int_equal(chain.readable, 0);
        assert_int_equal(chain.readable_bytes, 0);
        assert_int_equal(chain.writable_bytes, 0);
    }
    virtio_ring_take(&ring);
    assert_int_equal(virtio_ring_return(&ring, head, 0), 0);
    assert_true(test_used(&driver, 0, &used, &length));
    assert_int_equal(used, head);
    assert_int_equal(length, 0);
    return chain.spoilt;
}

static void a_chain_goes_there_and_back(void **state)
{
    uint8_t bytes[17];
    uint32_t head, length;

    (void)state;
    assert_int_equal(virtio_ring_peek(&ring, &chain), 0);
    describe_pair(3);
    memcpy(test_at(&driver, TEST_DATA), "what to read 123", 16);
    test_offer(&driver, 0, 3);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1); /* the same again */
    virtio_ring_take(&ring);
    assert_int_equal(virtio_ring_peek(&ring, &chain) + chain.head, 3); /* there is no other */
    assert_false(chain.spoilt);
    assert_int_equal(chain.readable, 1);
    assert_int_equal(chain.count, 2);
    assert_int_equal(chain.readable_bytes, 16);
    assert_int_equal(chain.writable_bytes, 8);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 16), 0);
    assert_memory_equal(bytes, "what to read 123", 16);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 17), -EINVAL);
    assert_int_equal(virtio_chain_write(&ring, &chain, "answered!", 9), -EINVAL);
    assert_int_equal(virtio_chain_write(&ring, &chain, "answered", 8), 0);
    assert_memory_equal(test_at(&driver, TEST_DATA + 16), "answered", 8);
    assert_false(test_used(&driver, 0, &head, &length));
    assert_int_equal(virtio_ring_return(&ring, chain.head, 8), 0);
    assert_true(test_used(&driver, 0, &head, &length));
    assert_int_equal(head, 3);
    assert_int_equal(length, 8);
}

static void indices_wrap(void **state)
{
    (void)state;
    describe_pair(0);
    for (unsigned i = 0; i < 70000; i++) {
        assert_false(is_spoilt(0));
    }
    assert_int_equal(virtio_ring_peek(&ring, &chain), 0);
}

static void pieces_of_any_size(void **state)
{
    uint8_t bytes[6];

    (void)state;
    memcpy(test_at(&driver, TEST_DATA), "abcdef", 6);
    describe(0, TEST_DATA, 1, VRING_DESC_F_NEXT, 1);
    describe(1, UINT64_MAX, 0, VRING_DESC_F_NEXT, 2); /* of no length: nobody looks there */
    describe(2, TEST_DATA + 1, 5, VRING_DESC_F_NEXT, 3);
    describe(3, TEST_DATA + 0xffe, 2, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 4);
    describe(4, 0, 0, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 5);
    describe(5, TEST_DATA + 0x1000, 3, VRING_DESC_F_WRITE, 9);
    assert_false(is_spoilt(0));
    assert_int_equal(chain.count, 4);
    assert_int_equal(chain.readable, 2);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 6), 0);
    assert_memory_equal(bytes, "abcdef", 6);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 0), 0);
    assert_int_equal(virtio_chain_write(&ring, &chain, "12345", 5), 0);
    assert_memory_equal(test_at(&driver, TEST_DATA + 0xffe), "12345", 5);
    describe(6, 0, 0, 0, 0);
    assert_false(is_spoilt(6));
    assert_int_equal(chain.count, 0);
}

static void lengths_that_overflow(void **state)
{
    uint8_t byte;

    (void)state;
    for (unsigned i = 0; i < TEST_SIZE; i++) {
        describe(i, UINT64_MAX - 1, UINT32_MAX, i < TEST_SIZE - 1 ? VRING_DESC_F_NEXT : 0,
                 (uint16_t)(i + 1));
    }
    assert_false(is_spoilt(0));
    assert_int_equal(chain.readable_bytes, UINT64_C(8) * UINT32_MAX);
    assert_true(virtio_chain_read(&ring, &chain, &byte, 1) < 0);
}

static void as_long_as_the_queue(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TEST_SIZE; i++) {
        describe(i, TEST_DATA, 1, i < TEST_SIZE - 1 ? VRING_DESC_F_NEXT : 0, (uint16_t)(i + 1));
    }
    assert_false(is_spoilt(0));
    assert_int_equal(chain.count, TEST_SIZE);
}

static void loops(void **state)
{
    (void)state;
    describe(0, TEST_DATA, 4, VRING_DESC_F_NEXT, 0); /* to itself */
    assert_true(is_spoilt(0));
    describe(0, TEST_DATA, 4, VRING_DESC_F_NEXT, 1);
    describe(1, TEST_DATA, 4, VRING_DESC_F_NEXT, 0); /* to one before */
    assert_true(is_spoilt(0));
    describe(0, 0, 0, VRING_DESC_F_NEXT, 0); /* of nothing */
    assert_true(is_spoilt(0));
}

static void outside_of_the_table(void **state)
{
    (void)state;
    describe(0, TEST_DATA, 4, VRING_DESC_F_NEXT, TEST_SIZE);
    describe(TEST_SIZE, TEST_DATA, 4, 0, 0);
    assert_true(is_spoilt(0));
    describe(0, TEST_DATA, 4, VRING_DESC_F_NEXT, UINT16_MAX);
    assert_true(is_spoilt(0));
}

static void to_read_after_to_write(void **state)
{
    (void)state;
    describe(0, TEST_DATA, 4, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
    describe(1, TEST_DATA, 4, 0, 0);
    assert_true(is_spoilt(0));
}

static void indirect(void **state)
{
    uint8_t bytes[4];

    (void)state;
    memcpy(test_at(&driver, TEST_DATA), "abcd", 4);
    describe_inside(0, TEST_DATA, 4, VRING_DESC_F_NEXT, 2);
    describe_inside(2, TEST_DATA + 8, 4, VRING_DESC_F_WRITE, 0);
    describe(5, TEST_TABLE, 3 * 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 77);
    assert_false(is_spoilt(5)); /* WRITE of the one that leads there says nothing */
    assert_int_equal(chain.count, 2);
    assert_int_equal(chain.readable, 1);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 4), 0);
    assert_memory_equal(bytes, "abcd", 4);
    describe(1, TEST_DATA, 2, VRING_DESC_F_NEXT, 5); /* the last of a chain may be one */
    assert_false(is_spoilt(1));
    assert_int_equal(chain.count, 3);
    ring.indirect = false; /* not negotiated */
    assert_true(is_spoilt(5));
}

static void indirect_as_long_as_the_queue(void **state)
{
    (void)state;
    for (unsigned i = 0; i <= TEST_SIZE; i++) {
        describe_inside(i, TEST_DATA, 1, i < TEST_SIZE - 1 ? VRING_DESC_F_NEXT : 0,
                        (uint16_t)(i + 1));
    }
    describe(0, TEST_TABLE, 16 * TEST_SIZE, VRING_DESC_F_INDIRECT, 0);
    assert_false(is_spoilt(0));
    assert_int_equal(chain.count, TEST_SIZE);
    describe_inside(TEST_SIZE - 1, TEST_DATA, 1, VRING_DESC_F_NEXT, TEST_SIZE);
    describe(0, TEST_TABLE, 16 * 64, VRING_DESC_F_INDIRECT, 0);
    assert_true(is_spoilt(0)); /* one longer */
    describe_inside(TEST_SIZE - 1, TEST_DATA, 1, 0, 0);
    describe(1, TEST_DATA, 1, VRING_DESC_F_NEXT, 0);
    assert_true(is_spoilt(1)); /* with the one before */
}

static void indirect_tables_that_make_no_sense(void **state)
{
    static const uint32_t lengths[] = {0, 1, 15, 17, UINT32_MAX};

    (void)state;
    describe_inside(0, TEST_DATA, 4, 0, 0);
    for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        describe(0, TEST_TABLE, lengths[i], VRING_DESC_F_INDIRECT, 0);
        assert_true(is_spoilt(0));
    }
    describe(0, TEST_TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1);
    describe(1, TEST_DATA, 4, 0, 0);
    assert_true(is_spoilt(0)); /* something follows */
    describe(0, TEST_TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    describe_inside(0, TEST_TABLE + 32, 16, VRING_DESC_F_INDIRECT, 0);
    describe_inside(2, TEST_DATA, 4, 0, 0);
    assert_true(is_spoilt(0)); /* one in the other */
    describe_inside(0, TEST_TABLE, 16, VRING_DESC_F_INDIRECT, 0);
    assert_true(is_spoilt(0)); /* in itself */
    describe_inside(0, TEST_DATA, 4, VRING_DESC_F_NEXT, 1);
    describe_inside(1, TEST_DATA, 4, 0, 0);
    assert_true(is_spoilt(0)); /* past its end */
    describe(0, 0x5000, 16, VRING_DESC_F_INDIRECT, 0);
    assert_true(is_spoilt(0)); /* where no memory is */
    describe(0, UINT64_MAX - 15, 0xfffffff0, VRING_DESC_F_INDIRECT, 0);
    assert_true(is_spoilt(0)); /* at the top, and over it */
    describe(0, TEST_RAM + TEST_RAM_SIZE - 16, 32, VRING_DESC_F_INDIRECT, 0);
    test_descriptor(&driver, TEST_RAM + TEST_RAM_SIZE - 16, 0, TEST_DATA, 1, VRING_DESC_F_NEXT, 1);
    assert_true(is_spoilt(0)); /* its second half is not there */
}

static void an_index_that_runs_ahead(void **state)
{
    uint16_t *available = test_at(&driver, TEST_AVAILABLE);

    (void)state;
    available[1] = TEST_SIZE;
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    available[1] = TEST_SIZE + 1;
    assert_int_equal(virtio_ring_peek(&ring, &chain), -EBADMSG);
    available[1] = UINT16_MAX; /* back */
    assert_int_equal(virtio_ring_peek(&ring, &chain), -EBADMSG);
}

static void a_head_that_is_none(void **state)
{
    (void)state;
    test_offer(&driver, 0, TEST_SIZE);
    assert_int_equal(virtio_ring_peek(&ring, &chain), -EBADMSG);
}

static void memory_that_goes(void **state)
{
    uint8_t bytes[16];
    uint32_t head, length;

    (void)state;
    describe_pair(0);
    test_offer(&driver, 0, 0);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    virtio_ring_take(&ring);
    change_memory(TEST_DATA, TEST_DATA + 0xfff, 0, false);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 16), -ENXIO);
    assert_int_equal(virtio_chain_write(&ring, &chain, bytes, 8), -ENXIO);
    change_memory(TEST_DESCRIPTORS, TEST_DESCRIPTORS + 0xfff, 0, false);
    assert_true(is_spoilt(0)); /* the descriptor is not there */
    assert_int_equal(driver.offered[0], 2);
    change_memory(TEST_USED, TEST_USED + 0xfff, 0, false);
    assert_int_equal(virtio_ring_return(&ring, 0, 0), -ENXIO);
    change_memory(TEST_USED, TEST_USED + 0xfff, VIOMMU_MEMORY_READONLY, true);
    assert_int_equal(virtio_ring_return(&ring, 0, 0), -EROFS);
    assert_false(test_used(&driver, 0, &head, &length));
    change_memory(TEST_AVAILABLE, TEST_AVAILABLE + 0xfff, 0, false);
    assert_int_equal(virtio_ring_peek(&ring, &chain), -ENXIO);
    ring.told = (uint16_t)(ring.returned - 1);
    assert_int_equal(virtio_ring_wants_interrupt(&ring), -ENXIO);
}

/* The last of a ring are behind the end of memory. */
static void a_ring_that_memory_ends_in(void **state)
{
    (void)state;
    change_memory(TEST_AVAILABLE + 0x1000, TEST_AVAILABLE + 0x1fff, 0, false);
    ring.used = TEST_DATA;
    ring.available = TEST_AVAILABLE + 0x1000 - 4; /* flags and index are there */
    ((uint16_t *)test_at(&driver, ring.available))[1] = 1;
    assert_int_equal(virtio_ring_peek(&ring, &chain), -ENXIO);
    ring.available = TEST_AVAILABLE + 0x1000 - 4 - 2 * TEST_SIZE; /* all but the event index */
    ((uint16_t *)test_at(&driver, ring.available))[1] = 1;
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    virtio_ring_take(&ring);
    assert_int_equal(virtio_ring_return(&ring, 0, 0), 0);
    ring.event_index = true;
    assert_int_equal(virtio_ring_wants_interrupt(&ring), -ENXIO);
}

static void add_memory(uint64_t first, uint64_t host)
{
    const struct viommu_memory_slot slot = {
        .first = first, .last = first + 0xfff, .host = test_at(&driver, host), .fd = -1};
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
}

/* A table does not go on at address 0, though there is memory. */
static void a_table_at_the_end_of_the_address_space(void **state)
{
    const uint64_t last_page = UINT64_MAX - 0xfff;

    (void)state;
    add_memory(last_page, TEST_TABLE);
    add_memory(0, TEST_TABLE);
    describe_inside(0, TEST_DATA, 4, VRING_DESC_F_WRITE, 0);
    describe_inside(255, TEST_DATA, 4, VRING_DESC_F_NEXT, 1);
    describe(0, last_page + 0xff0, 32, VRING_DESC_F_INDIRECT, 0);
    assert_true(is_spoilt(0));
    describe_inside(255, TEST_DATA, 4, 0, 0);
    describe(0, last_page + 0xff0, 16, VRING_DESC_F_INDIRECT, 0);
    assert_false(is_spoilt(0));
}

static void what_was_read_holds(void **state)
{
    uint8_t bytes[16];

    (void)state;
    describe_pair(0);
    memcpy(test_at(&driver, TEST_DATA), "0123456789abcdef", 16);
    test_offer(&driver, 0, 0);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    describe(0, 0x1000, 1, VRING_DESC_F_WRITE, 0);
    memset(test_at(&driver, TEST_AVAILABLE), 0xff, 64);
    assert_int_equal(virtio_chain_read(&ring, &chain, bytes, 16), 0);
    assert_memory_equal(bytes, "0123456789abcdef", 16);
}

/* Returns n chains, and tells whether the driver wants to hear of it. */
static int after(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(virtio_ring_return(&ring, 0, 0), 0);
    }
    return virtio_ring_wants_interrupt(&ring);
}

static void interrupts_by_the_flag(void **state)
{
    uint16_t *available = test_at(&driver, TEST_AVAILABLE);

    (void)state;
    assert_int_equal(after(0), 0); /* nothing came back */
    assert_int_equal(after(1), 1);
    assert_int_equal(after(0), 0);
    available[0] = VRING_AVAIL_F_NO_INTERRUPT;
    assert_int_equal(after(1), 0);
    available[0] = 0;
    assert_int_equal(after(2), 1);
}

static void interrupts_by_the_index(void **state)
{
    uint16_t *available = test_at(&driver, TEST_AVAILABLE);
    uint16_t *wanted = available + 2 + TEST_SIZE;

    (void)state;
    ring.event_index = true;
    available[0] = VRING_AVAIL_F_NO_INTERRUPT; /* says nothing now */
    assert_int_equal(after(1), 1);
    *wanted = 3; /* when the fourth is back */
    assert_int_equal(after(1), 0);
    assert_int_equal(after(1), 0);
    assert_int_equal(after(1), 1);
    assert_int_equal(after(1), 0);
    *wanted = 6;
    assert_int_equal(after(5), 1); /* over it */
    ring.returned = ring.told = UINT16_MAX;
    *wanted = UINT16_MAX;
    assert_int_equal(after(1), 1);
}

static void the_driver_is_asked_to_notify(void **state)
{
    uint16_t *asked = test_at(&driver, TEST_USED + 4 + 8 * TEST_SIZE);

    (void)state;
    *asked = 0x5555;
    assert_int_equal(virtio_ring_peek(&ring, &chain), 0);
    assert_int_equal(*asked, 0x5555); /* not without the feature */
    ring.event_index = true;
    describe_pair(0);
    test_offer(&driver, 0, 0);
    test_offer(&driver, 0, 0);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 1);
    assert_int_equal(*asked, 0x5555); /* not while there is more */
    virtio_ring_take(&ring);
    virtio_ring_take(&ring);
    assert_int_equal(virtio_ring_peek(&ring, &chain), 0);
    assert_int_equal(*asked, 2);
    change_memory(TEST_USED, TEST_USED + 0xfff, 0, false);
    assert_int_equal(virtio_ring_peek(&ring, &chain), -ENXIO);
}

static void places_that_cannot_be(void **state)
{
    struct virtio_ring other;

    (void)state;
    assert_true(virtio_ring_is_sound(&ring));
    other = ring, other.size = VIRTIO_RING_SIZE_MAX;
    assert_true(virtio_ring_is_sound(&other));
    other = ring, other.descriptors += 8;
    assert_false(virtio_ring_is_sound(&other));
    other = ring, other.available += 1;
    assert_false(virtio_ring_is_sound(&other));
    other = ring, other.used += 2;
    assert_false(virtio_ring_is_sound(&other));
    other = ring, other.descriptors = UINT64_MAX - 127;
    assert_false(virtio_ring_is_sound(&other));
    other = ring, other.available = UINT64_MAX - 5;
    assert_false(virtio_ring_is_sound(&other));
    other = ring, other.used = UINT64_MAX - 7;
    assert_false(virtio_ring_is_sound(&other));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_chain_goes_there_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(indices_wrap, setup, teardown),
        cmocka_unit_test_setup_teardown(pieces_of_any_size, setup, teardown),
        cmocka_unit_test_setup_teardown(lengths_that_overflow, setup, teardown),
        cmocka_unit_test_setup_teardown(as_long_as_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(loops, setup, teardown),
        cmocka_unit_test_setup_teardown(outside_of_the_table, setup, teardown),
        cmocka_unit_test_setup_teardown(to_read_after_to_write, setup, teardown),
        cmocka_unit_test_setup_teardown(indirect, setup, teardown),
        cmocka_unit_test_setup_teardown(indirect_as_long_as_the_queue, setup, teardown),
        cmocka_unit_test_setup_teardown(indirect_tables_that_make_no_sense, setup, teardown),
        cmocka_unit_test_setup_teardown(an_index_that_runs_ahead, setup, teardown),
        cmocka_unit_test_setup_teardown(a_head_that_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_that_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_ring_that_memory_ends_in, setup, teardown),
        cmocka_unit_test_setup_teardown(a_table_at_the_end_of_the_address_space, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_read_holds, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_by_the_flag, setup, teardown),
        cmocka_unit_test_setup_teardown(interrupts_by_the_index, setup, teardown),
        cmocka_unit_test_setup_teardown(the_driver_is_asked_to_notify, setup, teardown),
        cmocka_unit_test_setup_teardown(places_that_cannot_be, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
