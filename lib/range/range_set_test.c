/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the range set: by example, random ones against an array of flags, every allocation
 * failing.
 *
 * The flags stand for places at the bottom, in the middle and at the top of the address space, so
 * that runs reach both of its ends.
 */
#include "range/range_set.h"

#include "base/alloc.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define PLACES 384u
#define THIRD (PLACES / 3)

struct flags {
    bool in[PLACES];
};

/*
 * The place's first and last address. Those at the borders of the thirds are wide: together they
 * cover the whole space.
 */
static uint64_t place_first(unsigned place)
{
    return place < THIRD       ? place
           : place < 2 * THIRD ? (UINT64_C(1) << 63) + (place - THIRD)
                               : UINT64_MAX - (PLACES - 1 - place);
}

static uint64_t place_last(unsigned place)
{
    return place + 1 == PLACES ? UINT64_MAX : place_first(place + 1) - 1;
}

/* Whether the set is what the flags say, and its runs are as few as can be. */
static bool is_flags(const struct range_set *set, const struct flags *flags)
{
    struct range_cursor cursor;
    struct range_run run;
    unsigned place = 0;

    range_cursor_seek(&cursor, &set->map, 0);
    while (range_cursor_next(&cursor, UINT64_MAX, &run)) {
        while (place < PLACES && !flags->in[place]) {
            place++;
        }
        if (place == PLACES || run.first != place_first(place) || run.tag != RANGE_NO_TARGET) {
            return false;
        }
        while (place + 1 < PLACES && flags->in[place + 1]) {
            place++;
        }
        if (run.last != place_last(place++)) {
            return false;
        }
    }
    while (place < PLACES && !flags->in[place]) {
        place++;
    }
    return place == PLACES;
}

static unsigned random_below(unsigned end)
{
    return (unsigned)rand() % end;
}

/* Two places in order, near each other more often than not. */
static void some_places(unsigned *first, unsigned *last)
{
    *first = random_below(PLACES);
    *last = *first + random_below(random_below(8) ? 6 : PLACES);
    *last = *last < PLACES ? *last : PLACES - 1;
}

static void assert_asks_same(const struct range_set *set, const struct flags *flags, unsigned first,
                             unsigned last)
{
    bool all = true;
    bool some = false;

    for (unsigned i = first; i <= last; i++) {
        all = all && flags->in[i];
        some = some || flags->in[i];
    }
    assert_int_equal(range_set_contains(set, place_first(first), place_last(last)), all);
    assert_int_equal(range_set_meets(set, place_first(first), place_last(last)), some);
}

static int change(struct range_set *set, bool add, unsigned first, unsigned last)
{
    return add ? range_set_add(set, place_first(first), place_last(last))
               : range_set_subtract(set, place_first(first), place_last(last));
}

static void random_change(struct range_set *set, struct flags *flags)
{
    bool add = random_below(2);
    unsigned first;
    unsigned last;

    some_places(&first, &last);
    assert_int_equal(change(set, add, first, last), 0);
    memset(&flags->in[first], add, last - first + 1);
    some_places(&first, &last);
    assert_asks_same(set, flags, first, last);
}

static void test_examples(void **state)
{
    struct range_set set;

    (void)state;
    range_set_init(&set);
    assert_int_equal(range_set_add(&set, 5, 4), -EINVAL);
    assert_int_equal(range_set_subtract(&set, 5, 4), -EINVAL);
    assert_false(range_set_contains(&set, 0, 0));
    assert_false(range_set_meets(&set, 0, UINT64_MAX));

    /* Neighbours and overlaps become one. */
    assert_int_equal(range_set_add(&set, 10, 19), 0);
    assert_int_equal(range_set_add(&set, 30, 39), 0);
    assert_int_equal(set.map.count, 2);
    assert_int_equal(range_set_add(&set, 20, 29), 0);
    assert_int_equal(set.map.count, 1);
    assert_true(range_set_contains(&set, 10, 39));
    assert_false(range_set_contains(&set, 9, 39));
    assert_false(range_set_contains(&set, 10, 40));
    assert_true(range_set_meets(&set, 39, 100));
    assert_false(range_set_meets(&set, 40, UINT64_MAX));

    /* The whole space, and what is left without one address. */
    assert_int_equal(range_set_add(&set, 0, UINT64_MAX), 0);
    assert_int_equal(set.map.count, 1);
    assert_int_equal(range_set_subtract(&set, UINT64_MAX, UINT64_MAX), 0);
    assert_int_equal(range_set_subtract(&set, 0, 0), 0);
    assert_true(range_set_contains(&set, 1, UINT64_MAX - 1));
    assert_int_equal(range_set_add(&set, UINT64_MAX, UINT64_MAX), 0);
    assert_true(range_set_contains(&set, 1, UINT64_MAX));
    assert_int_equal(set.map.count, 1);
    range_set_fini(&set);
}

static void test_clipped_iteration(void **state)
{
    static const uint64_t expected[][2] = {{15, 19}, {30, 39}, {50, 55}};
    struct range_set set;
    struct range_cursor cursor;
    struct range_run run;
    unsigned count = 0;

    (void)state;
    range_set_init(&set);
    for (uint64_t i = 0; i < 10; i++) {
        assert_int_equal(range_set_add(&set, 20 * i + 10, 20 * i + 19), 0);
    }
    range_cursor_seek(&cursor, &set.map, 15);
    while (range_set_next_clipped(&cursor, 15, 55, &run)) {
        assert_true(count < 3);
        assert_int_equal(run.first, expected[count][0]);
        assert_int_equal(run.last, expected[count][1]);
        count++;
    }
    assert_int_equal(count, 3);
    range_set_fini(&set);
}

static void test_random(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        struct range_set set;
        struct flags flags = {{false}};

        srand(seed);
        range_set_init(&set);
        for (unsigned i = 0; i < 1000; i++) {
            random_change(&set, &flags);
            assert_true(is_flags(&set, &flags));
        }
        range_set_fini(&set);
    }
}

enum with_set { ADD_SET, SUBTRACT_SET, INTERSECT_SET };

static int change_by_set(struct range_set *set, enum with_set how, const struct range_set *other)
{
    return how == ADD_SET        ? range_set_add_set(set, other)
           : how == SUBTRACT_SET ? range_set_subtract_set(set, other)
                                 : range_set_intersect_set(set, other);
}

static void change_flags(struct flags *flags, enum with_set how, const struct flags *other)
{
    for (unsigned i = 0; i < PLACES; i++) {
        flags->in[i] = how == ADD_SET        ? flags->in[i] || other->in[i]
                       : how == SUBTRACT_SET ? flags->in[i] && !other->in[i]
                                             : flags->in[i] && other->in[i];
    }
}

/* Whole-set operations, each with its first, second, ... allocation failing until it succeeds. */
static void test_sets_and_failing_allocations(void **state)
{
    unsigned failures = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 90; seed++) {
        struct range_set sets[2];
        struct flags flags[2] = {{{false}}, {{false}}};
        enum with_set how = seed % 3;
        int error = -ENOMEM;

        srand(seed);
        range_set_init(&sets[0]);
        range_set_init(&sets[1]);
        for (unsigned i = 0; i < 2 * seed; i++) {
            random_change(&sets[i & 1], &flags[i & 1]);
        }
        for (unsigned long n = 1; error; n++) {
            assert_int_equal(error, -ENOMEM);
            assert_true(is_flags(&sets[0], &flags[0]));
            base_alloc_fail_at(n);
            error = change_by_set(&sets[0], how, &sets[1]);
            failures += !!error;
            base_alloc_fail_at(0);
        }
        change_flags(&flags[0], how, &flags[1]);
        assert_true(is_flags(&sets[0], &flags[0]));
        assert_true(is_flags(&sets[1], &flags[1]));
        range_set_fini(&sets[0]);
        range_set_fini(&sets[1]);
    }
    assert_true(failures > 30);
}

static void test_a_set_with_itself(void **state)
{
    struct range_set set;
    struct flags flags = {{false}};
    struct flags none = {{false}};

    (void)state;
    srand(1);
    range_set_init(&set);
    for (unsigned i = 0; i < 100; i++) {
        random_change(&set, &flags);
    }
    assert_int_equal(range_set_add_set(&set, &set), 0);
    assert_int_equal(range_set_intersect_set(&set, &set), 0);
    assert_true(is_flags(&set, &flags));
    assert_int_equal(range_set_subtract_set(&set, &set), 0);
    assert_true(is_flags(&set, &none));
    range_set_fini(&set);
}

static void test_single_changes_failing(void **state)
{
    struct range_set set;
    struct flags flags = {{false}};
    unsigned failures = 0;

    (void)state;
    srand(3);
    range_set_init(&set);
    for (unsigned i = 0; i < 3000; i++) {
        bool add = random_below(2);
        unsigned first;
        unsigned last;
        int error;

        some_places(&first, &last);
        base_alloc_fail_at(1);
        error = change(&set, add, first, last);
        base_alloc_fail_at(0);
        assert_true(!error || error == -ENOMEM);
        if (error) {
            failures++;
            assert_true(is_flags(&set, &flags));
            error = change(&set, add, first, last);
        }
        assert_int_equal(error, 0);
        memset(&flags.in[first], add, last - first + 1);
    }
    assert_true(is_flags(&set, &flags));
    assert_true(failures > 0);
    range_set_fini(&set);
}

/* A reservation of the owner outlives the set's own. */
static void test_reservation_is_kept(void **state)
{
    struct range_set set;

    (void)state;
    range_set_init(&set);
    assert_int_equal(range_map_reserve(&set.map, 1000), 0);
    base_alloc_fail_at(1);
    for (uint64_t i = 0; i < 1000; i++) {
        assert_int_equal(range_set_add(&set, i * 7 % 1000 * 2, i * 7 % 1000 * 2), 0);
    }
    assert_false(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_int_equal(set.map.count, 1000);
    range_map_release(&set.map);
    range_set_fini(&set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_clipped_iteration),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_sets_and_failing_allocations),
        cmocka_unit_test(test_a_set_with_itself),
        cmocka_unit_test(test_single_changes_failing),
        cmocka_unit_test(test_reservation_is_kept),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
