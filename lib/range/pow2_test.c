/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the power-of-two split: by example at the borders of the address space, and every range
 * of a small space, at its bottom, middle and top, against the fewest blocks that dynamic
 * programming finds.
 */
#include "range/pow2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define SPACE 64u

/* Splits, and checks all that a split promises but that it is the fewest. Returns the count. */
static uint64_t split(uint64_t first, uint64_t last, uint64_t target)
{
    struct pow2_split split;
    struct pow2_block block;
    uint64_t next = first;
    uint64_t count = 0;

    pow2_begin_with_target(&split, first, last, target);
    while (pow2_next(&split, &block)) {
        uint64_t mask = block.order == 64 ? UINT64_MAX : (UINT64_C(1) << block.order) - 1;

        assert_true(!count || next);
        assert_int_equal(block.first, next);
        assert_int_equal(block.target, target + (next - first));
        assert_int_equal(block.first & mask, 0);
        assert_int_equal(block.target & mask, 0);
        assert_int_equal(block.last, block.first + mask);
        assert_true(block.last <= last);
        next = block.last + 1;
        count++;
    }
    assert_int_equal(next - 1, last);
    assert_false(pow2_next(&split, &block));
    assert_int_equal(pow2_count_with_target(first, last, target), count);
    return count;
}

static void test_whole_space_is_one_block(void **state)
{
    struct pow2_split split;
    struct pow2_block block;

    (void)state;
    pow2_begin(&split, 0, UINT64_MAX);
    assert_true(pow2_next(&split, &block));
    assert_int_equal(block.first, 0);
    assert_int_equal(block.last, UINT64_MAX);
    assert_int_equal(block.order, 64);
    assert_false(pow2_next(&split, &block));
    assert_int_equal(pow2_count(0, UINT64_MAX), 1);
}

static void test_borders(void **state)
{
    (void)state;
    assert_int_equal(split(0, 0, 0), 1);
    assert_int_equal(split(UINT64_MAX, UINT64_MAX, UINT64_MAX), 1);
    assert_int_equal(split(0, UINT64_MAX - 1, 0), 64);
    assert_int_equal(split(1, UINT64_MAX, 1), 64);
    assert_int_equal(split(1, UINT64_MAX - 1, 1), POW2_BLOCKS_MAX);
    assert_int_equal(pow2_count(1, UINT64_MAX - 1), POW2_BLOCKS_MAX);
    assert_int_equal(split(UINT64_C(1) << 63, UINT64_MAX, 0), 1);
    assert_int_equal(split(0, UINT64_MAX >> 1, UINT64_C(1) << 63), 1);
    assert_int_equal(pow2_count_with_target(0, UINT64_MAX - 1, 1), UINT64_MAX);
    assert_int_equal(pow2_count_with_target(0, UINT64_MAX - 4096, 4096), UINT64_MAX / 4096);
}

static void test_backwards_is_nothing(void **state)
{
    struct pow2_split split;
    struct pow2_block block;

    (void)state;
    pow2_begin(&split, 1, 0);
    assert_false(pow2_next(&split, &block));
    assert_int_equal(pow2_count(1, 0), 0);
    assert_int_equal(pow2_count_with_target(1, 0, 0), 0);
}

static void test_pages(void **state)
{
    (void)state;
    /* 4 KiB to 2 MiB less a page: 4, 8, 16 ... 1,024 KiB. */
    assert_int_equal(split(0x1000, 0x1fffff, 0x1000), 9);
    /* Misaligned by a page: nothing larger than pages. */
    assert_int_equal(split(0x200000, 0x3fffff, 0x1000), 512);
    /* Misaligned by 64 KiB. */
    assert_int_equal(split(0x200000, 0x3fffff, 0x10000), 32);
    assert_int_equal(split(0x201000, 0x3fffff, 0x11000), 31 + 4);
}

/* The fewest aligned blocks from each address to `end`; target is ahead by `skew`. */
static void fewest(unsigned end, uint64_t base, uint64_t skew, unsigned best[SPACE + 1])
{
    best[end] = 0;
    for (unsigned at = end; at-- > 0;) {
        best[at] = SPACE + 1;
        for (unsigned size = 1; size <= end - at; size *= 2) {
            if ((base + at) % size == 0 && (base + at + skew) % size == 0 &&
                best[at + size] + 1 < best[at]) {
                best[at] = best[at + size] + 1;
            }
        }
    }
}

static void every_range(uint64_t base, uint64_t skew)
{
    unsigned best[SPACE + 1];

    for (unsigned end = 1; end <= SPACE; end++) {
        fewest(end, base, skew, best);
        for (unsigned at = 0; at < end; at++) {
            uint64_t first = base + at;
            uint64_t last = base + (end - 1);

            assert_int_equal(split(first, last, first + skew), best[at]);
            if (!skew) {
                assert_int_equal(pow2_count(first, last), best[at]);
            }
        }
    }
}

static void test_it_is_the_fewest(void **state)
{
    (void)state;
    for (uint64_t skew = 0; skew <= SPACE; skew = skew ? skew * 2 : 1) {
        every_range(0, skew);
        every_range((UINT64_C(1) << 63) - SPACE / 2, skew);
        every_range(UINT64_MAX - SPACE + 1, -skew); /* the target below */
    }
    every_range(0, 3);
    every_range(0, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_space_is_one_block),
        cmocka_unit_test(test_borders),
        cmocka_unit_test(test_backwards_is_nothing),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_it_is_the_fewest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
