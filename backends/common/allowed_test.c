/* SPDX-License-Identifier: BSD-2-Clause */
/* Tests of ranges as a kernel reports them: order, overlaps, ends of the space, parts of pages. */
#include "common/allowed.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void check(const struct viommu_range *in, size_t in_count, const struct viommu_range *out,
                  size_t out_count)
{
    struct viommu_range ranges[16];
    size_t count = in_count;

    assert_true(in_count <= COUNT(ranges));
    for (size_t i = 0; i < in_count; i++) {
        ranges[i] = in[i];
    }
    assert_int_equal(allowed_normalise(ranges, &count), 0);
    assert_int_equal(count, out_count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(ranges[i].first, out[i].first);
        assert_int_equal(ranges[i].last, out[i].last);
    }
}

static void test_as_it_is(void **state)
{
    const struct viommu_range usual[] = {{0, 0xfedfffff}, {0xfef00000, 0x7fffffffff}};
    const struct viommu_range all[] = {{0, UINT64_MAX}};

    (void)state;
    check(usual, COUNT(usual), usual, COUNT(usual));
    check(all, COUNT(all), all, COUNT(all));
    check(NULL, 0, NULL, 0);
}

static void test_sorted_and_joined(void **state)
{
    const struct viommu_range in[] = {
        {0x9000, 0x9fff}, {0x1000, 0x4fff}, {0x2000, 0x2fff},         {0x5000, 0x5fff},
        {0x7000, 0x8fff}, {0x3000, 0x5fff}, {UINT64_MAX - 0xfff, UINT64_MAX},
    };
    const struct viommu_range out[] = {
        {0x1000, 0x5fff}, {0x7000, 0x9fff}, {UINT64_MAX - 0xfff, UINT64_MAX}};

    (void)state;
    check(in, COUNT(in), out, COUNT(out));
}

static void test_end_of_the_space(void **state)
{
    const struct viommu_range in[] = {
        {0x2000, 0x2fff}, {0x1000, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}};
    const struct viommu_range out[] = {{0x1000, UINT64_MAX}};

    (void)state;
    check(in, COUNT(in), out, COUNT(out));
}

static void test_parts_of_pages(void **state)
{
    const struct viommu_range in[] = {
        {0x0001, 0x1fff},  /* its second page */
        {0x3000, 0x3ffe},  /* none */
        {0x4001, 0x5ffe},  /* none: two halves */
        {0x7800, 0x87ff},  /* none: a page's size, but across a border */
        {0x9800, 0xa7ff},  /* together with the next one: */
        {0xa800, 0xb800},  /* one page */
        {UINT64_MAX - 0xffe, UINT64_MAX}, /* none */
    };
    const struct viommu_range out[] = {{0x1000, 0x1fff}, {0xa000, 0xafff}};

    (void)state;
    check(in, COUNT(in), out, COUNT(out));
}

static void test_backwards(void **state)
{
    struct viommu_range ranges[] = {{0, 0xfff}, {0x3000, 0x2fff}};
    size_t count = COUNT(ranges);

    (void)state;
    assert_int_equal(allowed_normalise(ranges, &count), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_it_is),
        cmocka_unit_test(test_sorted_and_joined),
        cmocka_unit_test(test_end_of_the_space),
        cmocka_unit_test(test_parts_of_pages),
        cmocka_unit_test(test_backwards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
