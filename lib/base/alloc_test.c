/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of allocation: zeroing, overflow, alignment, and the failure on demand. */
#include "base/alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_zeroed(const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(bytes[i], 0);
    }
}

/* Dirties the heap, so that memory that is zero only by luck is found. */
static void make_dirt(void)
{
    void *blocks[16];

    for (size_t i = 0; i < 16; i++) {
        blocks[i] = base_alloc(256);
        assert_non_null(blocks[i]);
        memset(blocks[i], 0xa5, 256);
    }
    for (size_t i = 0; i < 16; i++) {
        base_free(blocks[i]);
    }
}

static void test_memory_is_zeroed(void **state)
{
    void *ptr;

    (void)state;
    make_dirt();
    ptr = base_alloc(256);
    assert_non_null(ptr);
    assert_zeroed(ptr, 256);
    base_free(ptr);

    make_dirt();
    ptr = base_alloc_array(16, 16);
    assert_non_null(ptr);
    assert_zeroed(ptr, 256);
    base_free(ptr);

    make_dirt();
    ptr = base_alloc_aligned(64, 250);
    assert_non_null(ptr);
    assert_zeroed(ptr, 256); /* the rounded size is ours */
    base_free(ptr);
}

static void test_overflow_is_refused(void **state)
{
    void *volatile old;

    (void)state;
    assert_null(base_alloc_array(SIZE_MAX / 8 + 1, 8));
    assert_null(base_alloc_aligned(4096, SIZE_MAX - 7));
    old = base_alloc_array(4, 8);
    assert_non_null(old);
    assert_null(base_realloc_array(old, SIZE_MAX / 8 + 1, 8));
    assert_zeroed(old, 32);
    base_free(old);
}

static void test_alignment(void **state)
{
    (void)state;
    for (size_t align = 1; align <= 65536; align *= 2) {
        void *ptr = base_alloc_aligned(align, 3);

        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % align, 0);
        assert_zeroed(ptr, 3);
        base_free(ptr);
    }
}

static void test_realloc_keeps_content(void **state)
{
    uint32_t *array = base_realloc_array(NULL, 2, sizeof(*array));
    uint32_t *grown;

    (void)state;
    assert_non_null(array);
    array[0] = 1;
    array[1] = 2;
    grown = base_realloc_array(array, 1000, sizeof(*array));
    assert_non_null(grown);
    assert_int_equal(grown[0], 1);
    assert_int_equal(grown[1], 2);
    grown = base_realloc_array(grown, 1, sizeof(*array));
    assert_non_null(grown);
    assert_int_equal(grown[0], 1);
    base_free(grown);
}

/* To nothing is a size as any other: what comes back is there to be freed. */
static void test_realloc_to_nothing(void **state)
{
    void *array = base_alloc_array(4, 8);
    void *empty;

    (void)state;
    assert_non_null(array);
    empty = base_realloc_array(array, 0, 8);
    assert_non_null(empty);
    base_free(empty);
}

static void test_free_accepts_null(void **state)
{
    (void)state;
    base_free(NULL);
}

static void test_failure_comes_at_its_turn_once(void **state)
{
    void *first;
    void *third;

    (void)state;
    base_alloc_fail_at(2);
    first = base_alloc(8);
    assert_non_null(first);
    assert_false(base_alloc_failed());
    assert_null(base_alloc(8));
    assert_true(base_alloc_failed());
    third = base_alloc(8);
    assert_non_null(third);
    base_free(first);
    base_free(third);

    base_alloc_fail_at(0);
    assert_false(base_alloc_failed());
    first = base_alloc(8);
    assert_non_null(first);
    base_free(first);
}

static void test_every_kind_can_fail(void **state)
{
    void *old = base_alloc(8);

    (void)state;
    assert_non_null(old);
    base_alloc_fail_at(1);
    assert_null(base_alloc(8));
    base_alloc_fail_at(1);
    assert_null(base_alloc_array(1, 8));
    base_alloc_fail_at(1);
    assert_null(base_alloc_aligned(64, 8));
    base_alloc_fail_at(1);
    assert_null(base_realloc_array(old, 2, 8));
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_zeroed(old, 8); /* still ours */
    base_free(old);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_zeroed),
        cmocka_unit_test(test_overflow_is_refused),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_realloc_keeps_content),
        cmocka_unit_test(test_realloc_to_nothing),
        cmocka_unit_test(test_free_accepts_null),
        cmocka_unit_test(test_failure_comes_at_its_turn_once),
        cmocka_unit_test(test_every_kind_can_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
