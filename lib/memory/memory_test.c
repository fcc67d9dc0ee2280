/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of the memory object: slots, what batches are refused for, accesses, and want of memory. */
#include "memory/test_memory.h"

#include "base/alloc.h"

#include <errno.h>
#include <string.h>

#define TOP UINT64_MAX

static int setup(void **state)
{
    memset(host_bytes, 0, sizeof(host_bytes));
    return viommu_memory_create((struct viommu_memory **)state);
}

static int teardown(void **state)
{
    viommu_memory_destroy(*state);
    return 0;
}

/* How many slots there are; they must be in order and apart. */
static size_t slot_count(struct viommu_memory *memory)
{
    const struct memory_snapshot *snapshot;
    size_t count;

    assert_true(epoch_enter(memory_epoch(memory)));
    snapshot = memory_snapshot(memory);
    count = snapshot->count;
    for (size_t i = 0; i < count; i++) {
        assert_true(snapshot->slots[i].first <= snapshot->slots[i].last);
        assert_true(i == 0 || snapshot->slots[i - 1].last < snapshot->slots[i].first);
    }
    epoch_leave(memory_epoch(memory));
    return count;
}

static void test_empty_memory(void **state)
{
    unsigned char byte = 7;

    assert_int_equal(slot_count(*state), 0);
    assert_int_equal(viommu_memory_read(*state, 0, &byte, 1), -ENXIO);
    assert_int_equal(viommu_memory_write(*state, TOP, &byte, 1), -ENXIO);
    assert_int_equal(byte, 7);
    assert_int_equal(viommu_memory_process(*state), 0);
    assert_true(viommu_memory_event_fd(*state) >= 0);
    assert_false(test_readable(*state, 0));
}

static void test_destroy_accepts_null(void **state)
{
    (void)state;
    viommu_memory_destroy(NULL);
    viommu_memory_batch_abort(NULL);
}

static void test_slots_that_cannot_be(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    struct viommu_memory_slot good = test_slot(PAGE, 2, 0);
    struct viommu_memory_slot bad;

    bad = good, bad.first = good.last + 1;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.first++;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.first += 2048;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.last++;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.last = TOP - 1;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.host = NULL;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.host = (char *)good.host + 4; /* table entries could not be loaded whole */
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.first = 0, bad.last = TOP; /* runs out of host addresses */
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    bad = good, bad.flags = 0x80;
    assert_int_equal(viommu_memory_batch_add(batch, &bad), -EINVAL);
    assert_int_equal(viommu_memory_batch_remove(batch, PAGE, PAGE - 1), -EINVAL);
    assert_int_equal(viommu_memory_batch_add(batch, &good), 0); /* the batch is none the worse */
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 1);
}

static void test_batch_is_seen_at_its_commit(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);

    test_add(batch, 5 * PAGE, 1, 2);
    test_add(batch, 1 * PAGE, 1, 0);
    test_add(batch, 3 * PAGE, 1, 1);
    assert_int_equal(slot_count(*state), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 3);
    assert_true(test_present(*state, 1 * PAGE));
    assert_false(test_present(*state, 2 * PAGE));
    assert_true(test_present(*state, 6 * PAGE - 1));
}

static void test_abort_changes_nothing(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);

    test_add(batch, 0, 1, 0);
    test_remove(batch, 0, 1);
    viommu_memory_batch_abort(batch);
    assert_int_equal(slot_count(*state), 0);
}

static void test_empty_batch(void **state)
{
    assert_int_equal(viommu_memory_batch_commit(test_begin(*state), NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 0);
}

static void test_many_slots(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);

    for (uint64_t i = 0; i < 1000; i++) { /* in no order */
        test_add(batch, (i * 379 % 1000) * 2 * PAGE, 1, i % HOST_PAGES);
    }
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 1000);
    for (uint64_t i = 0; i < 2000; i++) {
        assert_int_equal(test_present(*state, i * PAGE + 17), i % 2 == 0);
    }
    batch = test_begin(*state);
    for (uint64_t i = 0; i < 1000; i += 2) {
        test_remove(batch, i * 2 * PAGE, 1);
    }
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 500);
    assert_int_equal(test_remove_one(*state, 0, 2000), 0); /* all that is left, with one range */
    assert_int_equal(slot_count(*state), 0);
}

static void test_overlap_is_refused(void **state)
{
    static const uint64_t over[][2] = {{4, 4}, {3, 2}, {7, 2}, {5, 1}, {0, 16}, {7, 1}, {4, 1}};
    struct viommu_memory_batch *batch;

    assert_int_equal(test_add_one(*state, 4 * PAGE, 4, 0), 0);
    for (size_t i = 0; i < sizeof(over) / sizeof(over[0]); i++) {
        assert_int_equal(test_add_one(*state, over[i][0] * PAGE, over[i][1], 0), -EEXIST);
    }
    batch = test_begin(*state);
    test_add(batch, 16 * PAGE, 4, 0); /* with itself */
    test_add(batch, 19 * PAGE, 4, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -EEXIST);
    batch = test_begin(*state);
    test_add(batch, 16 * PAGE, 1, 0);
    test_add(batch, 16 * PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -EEXIST);
    assert_int_equal(slot_count(*state), 1);
    assert_int_equal(test_add_one(*state, 3 * PAGE, 1, 0), 0); /* touching is not overlap */
    assert_int_equal(test_add_one(*state, 8 * PAGE, 1, 0), 0);
    assert_int_equal(slot_count(*state), 3);
}

static void test_removals_that_cannot_be(void **state)
{
    struct viommu_memory_batch *batch;

    assert_int_equal(test_remove_one(*state, 0, 16), -ENOENT);
    assert_int_equal(test_add_one(*state, 4 * PAGE, 4, 0), 0);
    assert_int_equal(test_remove_one(*state, 0, 4), -ENOENT);
    assert_int_equal(test_remove_one(*state, 8 * PAGE, 4), -ENOENT);
    assert_int_equal(test_remove_one(*state, 4 * PAGE, 3), -EINVAL);
    assert_int_equal(test_remove_one(*state, 5 * PAGE, 3), -EINVAL);
    assert_int_equal(test_remove_one(*state, 5 * PAGE, 1), -EINVAL);
    assert_int_equal(test_remove_one(*state, 0, 5), -EINVAL);
    assert_int_equal(test_remove_one(*state, 7 * PAGE, 5), -EINVAL);
    batch = test_begin(*state);
    assert_int_equal(viommu_memory_batch_remove(batch, 4 * PAGE, 8 * PAGE - 2), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -EINVAL);
    batch = test_begin(*state);
    test_remove(batch, 4 * PAGE, 4); /* good, but the other is not: nothing happens */
    test_remove(batch, 20 * PAGE, 1);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -ENOENT);
    assert_true(test_present(*state, 4 * PAGE));
    /* A removal never takes away what its own batch adds. */
    batch = test_begin(*state);
    test_add(batch, 20 * PAGE, 1, 0);
    test_remove(batch, 20 * PAGE, 1);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), -ENOENT);
    assert_int_equal(slot_count(*state), 1);
}

static void test_removal_by_any_range_around(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);

    test_add(batch, 4 * PAGE, 2, 0);
    test_add(batch, 6 * PAGE, 2, 2);
    test_add(batch, 9 * PAGE, 1, 4);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(test_remove_one(*state, 6 * PAGE, 2), 0); /* touching slots are two */
    assert_int_equal(slot_count(*state), 2);
    batch = test_begin(*state);
    test_remove(batch, 4 * PAGE, 2);
    test_remove(batch, 3 * PAGE, 4); /* the same again: each range has something to remove */
    assert_int_equal(viommu_memory_batch_remove(batch, 0, TOP), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 0);
}

static void test_replacement_in_one_batch(void **state)
{
    struct viommu_memory_batch *batch;
    unsigned char byte = 0;

    host_bytes[0] = 1;
    host_bytes[8 * PAGE] = 2;
    assert_int_equal(test_add_one(*state, 4 * PAGE, 4, 0), 0);
    batch = test_begin(*state);
    test_add(batch, 4 * PAGE, 2, 8); /* first the addition: the order of calls does not matter */
    test_add(batch, 6 * PAGE, 3, 0);
    test_remove(batch, 4 * PAGE, 4);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 2);
    assert_int_equal(viommu_memory_read(*state, 4 * PAGE, &byte, 1), 0);
    assert_int_equal(byte, 2);
    assert_int_equal(viommu_memory_read(*state, 6 * PAGE, &byte, 1), 0);
    assert_int_equal(byte, 1);
    assert_true(test_present(*state, 9 * PAGE - 1));
}

static void test_top_of_the_address_space(void **state)
{
    unsigned char bytes[4] = {1, 2, 3, 4};
    unsigned char back[4] = {0};
    uint64_t first = TOP - 2 * PAGE + 1;

    assert_int_equal(test_add_one(*state, first, 2, 0), 0);
    assert_int_equal(test_add_one(*state, first + PAGE, 1, 0), -EEXIST);
    assert_int_equal(viommu_memory_write(*state, TOP - 3, bytes, 4), 0);
    assert_memory_equal(host_bytes + 2 * PAGE - 4, bytes, 4);
    assert_int_equal(viommu_memory_read(*state, TOP - 3, back, 4), 0);
    assert_memory_equal(back, bytes, 4);
    assert_int_equal(viommu_memory_read(*state, TOP - 2, back, 4), -EINVAL);
    assert_int_equal(viommu_memory_write(*state, TOP, back, 2), -EINVAL);
    assert_int_equal(viommu_memory_read(*state, first - 1, back, 2), -ENXIO);
    assert_int_equal(viommu_memory_read(*state, 16, back, SIZE_MAX), -EINVAL);
    assert_int_equal(viommu_memory_read(*state, 1, back, SIZE_MAX), -ENXIO);
    assert_int_equal(test_add_one(*state, 0, 1, 4), 0); /* not a neighbour of the top */
    assert_int_equal(test_remove_one(*state, first, 2), 0);
    assert_false(test_present(*state, TOP));
    assert_true(test_present(*state, 0));
}

static void test_access_spans_slots(void **state)
{
    static unsigned char out[6 * 4096];
    static unsigned char back[6 * 4096];
    struct viommu_memory_batch *batch = test_begin(*state);

    test_add(batch, 4 * PAGE, 2, 10);
    test_add(batch, 6 * PAGE, 1, 30);
    test_add(batch, 7 * PAGE, 3, 20);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    for (size_t i = 0; i < sizeof(out); i++) {
        out[i] = (unsigned char)(i * 7 + i / 256);
    }
    assert_int_equal(viommu_memory_write(*state, 4 * PAGE, out, sizeof(out)), 0);
    assert_memory_equal(host_bytes + 10 * PAGE, out, 2 * PAGE);
    assert_memory_equal(host_bytes + 30 * PAGE, out + 2 * PAGE, PAGE);
    assert_memory_equal(host_bytes + 20 * PAGE, out + 3 * PAGE, 3 * PAGE);
    assert_int_equal(viommu_memory_read(*state, 4 * PAGE + 5, back, sizeof(back) - 5), 0);
    assert_memory_equal(back, out + 5, sizeof(back) - 5);
    assert_int_equal(viommu_memory_read(*state, 6 * PAGE - 1, back, 2), 0);
    assert_memory_equal(back, out + 2 * PAGE - 1, 2);
}

static void test_access_is_checked_whole(void **state)
{
    static unsigned char bytes[4 * 4096];
    struct viommu_memory_batch *batch = test_begin(*state);
    struct viommu_memory_slot rom = test_slot(5 * PAGE, 1, 1);

    rom.flags = VIOMMU_MEMORY_READONLY;
    test_add(batch, 4 * PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_add(batch, &rom), 0);
    test_add(batch, 6 * PAGE, 1, 2);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    memset(bytes, 0xee, sizeof(bytes));
    assert_int_equal(viommu_memory_write(*state, 4 * PAGE, bytes, 3 * PAGE), -EROFS);
    assert_int_equal(viommu_memory_write(*state, 5 * PAGE, bytes, 1), -EROFS);
    assert_int_equal(viommu_memory_write(*state, 6 * PAGE, bytes, PAGE + 1), -ENXIO);
    assert_int_equal(viommu_memory_write(*state, 4 * PAGE, bytes, 4 * PAGE), -ENXIO);
    for (size_t i = 0; i < 3 * PAGE; i++) {
        assert_int_equal(host_bytes[i], 0);
    }
    assert_int_equal(viommu_memory_read(*state, 4 * PAGE, bytes, 4 * PAGE), -ENXIO);
    assert_int_equal(bytes[0], 0xee);
    assert_int_equal(viommu_memory_read(*state, 4 * PAGE, bytes, 3 * PAGE), 0);
    assert_int_equal(bytes[0], 0);
}

static void test_words(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    struct viommu_memory_slot rom = test_slot(5 * PAGE, 1, 1);
    uint16_t value = 0;

    rom.flags = VIOMMU_MEMORY_READONLY;
    test_add(batch, 4 * PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_add(batch, &rom), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(viommu_memory_store16(*state, 4 * PAGE + 6, 0x1234), 0);
    assert_memory_equal(host_bytes + 6, "\x34\x12\0", 3);
    assert_int_equal(viommu_memory_load16(*state, 4 * PAGE + 6, &value), 0);
    assert_int_equal(value, 0x1234);
    assert_int_equal(viommu_memory_store16(*state, 5 * PAGE - 2, 0x5678), 0);
    assert_int_equal(viommu_memory_load16(*state, 5 * PAGE, &value), 0);
    assert_int_equal(value, 0);
    assert_int_equal(viommu_memory_store16(*state, 5 * PAGE, 1), -EROFS);
    assert_int_equal(viommu_memory_store16(*state, 4 * PAGE + 7, 1), -EINVAL);
    assert_int_equal(viommu_memory_load16(*state, 4 * PAGE + 7, &value), -EINVAL);
    assert_int_equal(viommu_memory_store16(*state, 6 * PAGE, 1), -ENXIO);
    assert_int_equal(viommu_memory_load16(*state, TOP - 1, &value), -ENXIO);
    assert_int_equal(value, 0);
}

static void test_access_of_nothing(void **state)
{
    assert_int_equal(viommu_memory_read(*state, 0, NULL, 0), 0);
    assert_int_equal(viommu_memory_write(*state, TOP, NULL, 0), 0);
}

static void check_single_slot_access(const struct memory_snapshot *snapshot)
{
    uint64_t value = 0;

    assert_null(memory_find(snapshot, 4 * PAGE - 1));
    assert_ptr_equal(memory_find(snapshot, 5 * PAGE - 1), &snapshot->slots[0]);
    assert_ptr_equal(memory_find(snapshot, 5 * PAGE), &snapshot->slots[1]);
    assert_null(memory_find(snapshot, 6 * PAGE));
    assert_ptr_equal(memory_host(snapshot, 4 * PAGE + 8, PAGE - 8, true), host_bytes + 8);
    assert_null(memory_host(snapshot, 4 * PAGE + 8, PAGE - 7, false)); /* two slots */
    assert_null(memory_host(snapshot, 5 * PAGE, 1, true));             /* ROM */
    assert_non_null(memory_host(snapshot, 5 * PAGE, 1, false));
    assert_null(memory_host(snapshot, 4 * PAGE, SIZE_MAX, false));
    assert_true(memory_load64(snapshot, 4 * PAGE + 8, &value));
    assert_true(value == UINT64_C(0x0807060504030201));
    assert_true(memory_load64(snapshot, 6 * PAGE - 8, &value));
    assert_false(memory_load64(snapshot, 6 * PAGE, &value));
}

static void test_single_slot_access(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    struct viommu_memory_slot rom = test_slot(5 * PAGE, 1, 1);

    rom.flags = VIOMMU_MEMORY_READONLY;
    test_add(batch, 4 * PAGE, 1, 0);
    assert_int_equal(viommu_memory_batch_add(batch, &rom), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    for (unsigned char i = 0; i < 8; i++) {
        host_bytes[8 + i] = (unsigned char)(i + 1);
    }
    assert_true(epoch_enter(memory_epoch(*state)));
    check_single_slot_access(memory_snapshot(*state));
    epoch_leave(memory_epoch(*state));
}

static void test_holders_keep_it_alive(void **state)
{
    struct viommu_memory *memory;

    (void)state;
    assert_int_equal(viommu_memory_create(&memory), 0);
    assert_int_equal(test_add_one(memory, 0, 1, 0), 0);
    memory_get(memory);
    memory_get(memory);
    viommu_memory_destroy(memory);
    assert_true(test_present(memory, 0));
    memory_put(memory);
    assert_int_equal(test_remove_one(memory, 0, 1), 0);
    memory_put(memory); /* the leak checker sees whether this was the end */
}

static void test_no_memory_to_create(void **state)
{
    struct viommu_memory *memory = NULL;
    unsigned long n;
    int error = -ENOMEM;

    (void)state;
    for (n = 1; error; n++) {
        base_alloc_fail_at(n);
        error = viommu_memory_create(&memory);
        assert_int_equal(error != 0, base_alloc_failed());
        assert_true(error == 0 || error == -ENOMEM);
    }
    base_alloc_fail_at(0);
    assert_true(n > 2);
    viommu_memory_destroy(memory);
}

/* Replaces a slot and adds more, as far as memory goes. What the first failure was, or 0. */
static int replace_slots(struct viommu_memory *memory)
{
    struct viommu_memory_batch *batch;
    int error = viommu_memory_batch_begin(memory, &batch);

    if (error) {
        return error;
    }
    error = viommu_memory_batch_remove(batch, 0, 8 * PAGE - 1);
    for (size_t i = 0; i < 20 && !error; i++) {
        struct viommu_memory_slot slot = test_slot((4 + i) * PAGE, 1, i);

        error = viommu_memory_batch_add(batch, &slot);
    }
    if (error) {
        viommu_memory_batch_abort(batch);
        return error;
    }
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

static void test_no_memory_for_a_batch(void **state)
{
    unsigned long n;
    int error = -ENOMEM;

    assert_int_equal(test_add_one(*state, 0, 4, 0), 0);
    for (n = 1; error; n++) {
        base_alloc_fail_at(n);
        error = replace_slots(*state);
        assert_int_equal(error != 0, base_alloc_failed());
        base_alloc_fail_at(0);
        if (error) {
            assert_int_equal(error, -ENOMEM);
            assert_int_equal(slot_count(*state), 1);
            assert_true(test_present(*state, 4 * PAGE - 1));
            assert_false(test_present(*state, 4 * PAGE));
        }
    }
    assert_true(n > 6);
    assert_int_equal(slot_count(*state), 20);
    assert_false(test_present(*state, 4 * PAGE - 1));
}

static void test_add_that_failed_can_be_repeated(void **state)
{
    struct viommu_memory_batch *batch = test_begin(*state);
    struct viommu_memory_slot slot = test_slot(PAGE, 1, 0);

    base_alloc_fail_at(1);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), -ENOMEM);
    base_alloc_fail_at(1);
    assert_int_equal(viommu_memory_batch_remove(batch, 0, TOP), -ENOMEM);
    base_alloc_fail_at(0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    assert_int_equal(slot_count(*state), 1);
}

int main(void)
{
#define MEMORY_TEST(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        MEMORY_TEST(test_empty_memory),
        cmocka_unit_test(test_destroy_accepts_null),
        MEMORY_TEST(test_slots_that_cannot_be),
        MEMORY_TEST(test_batch_is_seen_at_its_commit),
        MEMORY_TEST(test_abort_changes_nothing),
        MEMORY_TEST(test_empty_batch),
        MEMORY_TEST(test_many_slots),
        MEMORY_TEST(test_overlap_is_refused),
        MEMORY_TEST(test_removals_that_cannot_be),
        MEMORY_TEST(test_removal_by_any_range_around),
        MEMORY_TEST(test_replacement_in_one_batch),
        MEMORY_TEST(test_top_of_the_address_space),
        MEMORY_TEST(test_access_spans_slots),
        MEMORY_TEST(test_access_is_checked_whole),
        MEMORY_TEST(test_words),
        MEMORY_TEST(test_access_of_nothing),
        MEMORY_TEST(test_single_slot_access),
        cmocka_unit_test(test_holders_keep_it_alive),
        cmocka_unit_test(test_no_memory_to_create),
        MEMORY_TEST(test_no_memory_for_a_batch),
        MEMORY_TEST(test_add_that_failed_can_be_repeated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
