/* SPDX-License-Identifier: BSD-2-Clause */
/* Many runs taken out of a range map at once. */
#include "range/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define RUNS UINT64_C(100000)

/* A run in every second page. */
static void fill(struct range_map *map)
{
    range_map_init(map);
    for (uint64_t i = 0; i < RUNS; i++) {
        struct range_run run = {i * 2 * PAGE, i * 2 * PAGE + PAGE - 1, i * PAGE, 3};

        assert_int_equal(range_map_insert(map, &run), 0);
    }
}

/* They go by leaves: whoever has a lock meanwhile has it for a short time. */
static void test_by_leaves(void **state)
{
    struct range_erased erased;
    struct range_map map;
    uint64_t version;
    size_t leaves;

    (void)state;
    fill(&map);
    leaves = map.nodes[0];
    version = map.version;
    assert_int_equal(
        range_map_erase_inside(&map, 10 * PAGE, (2 * RUNS - 10) * PAGE - 1, &erased), 0);
    assert_int_equal(erased.count, RUNS - 10);
    assert_int_equal(erased.first, 10 * PAGE);
    assert_int_equal(erased.last, (2 * RUNS - 11) * PAGE - 1);
    assert_int_equal(map.count, 10);
    /* A change for each leaf, and few for those at the ends, which are mended. */
    assert_true((map.version - version) / 2 <= leaves + 4);
    range_map_check(&map);
    range_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_leaves),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
