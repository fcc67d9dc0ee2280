/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on several VMs, contexts and page states. After each all that must hold is
 * checked (test_world.h). Steps and allocations fail now and then; a world that yields at every
 * step goes beside one that never does, and answers the same.
 */
#include "pv/test_random.h"
#include "pv/test_snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    SEEDS = 25,
    OPERATIONS = 400,
};

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static const struct viommu_pv_config small = {.deferred_max = 8,
                                              .contexts_max = RANDOM_CONTEXTS + 1,
                                              .mappings_max = 100,
                                              .tables_max = 24,
                                              .items_max = 16};

static void begin(struct world *world)
{
    for (unsigned i = 0; i < WORLD_VMS; i++) {
        assert_int_equal(world_enable(world, i), VIOMMU_PV_OK);
    }
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= SEEDS; n++) {
        struct world *world = world_create(&small, WORLD_VMS);
        uint64_t seed = n * UINT64_C(0x9e3779b97f4a7c15);

        begin(world);
        for (unsigned i = 0; i < OPERATIONS; i++) {
            uint64_t bytes = next(&seed);
            uint64_t how = next(&seed);

            world->fail_at = how % 5 == 0 ? world->steps + 1 + (how >> 8) % 30 : 0;
            world->yield_every = (how >> 16) % 4;
            world->flush_fails = how % 31 == 7;
            base_alloc_fail_at(how % 7 == 0 ? 1 + (how >> 24) % 8 : 0);
            (void)random_operate(world, (const uint8_t *)&bytes);
            base_alloc_fail_at(0);
            world->flush_fails = false;
            world_check(world);
        }
        world_end(world);
    }
}

static void test_yielding_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= SEEDS; n++) {
        struct world *one = world_create(&small, WORLD_VMS);
        struct world *other = world_create(&small, WORLD_VMS);
        uint64_t seed = n * UINT64_C(0xbf58476d1ce4e5b9);

        begin(one);
        begin(other);
        other->yield_every = 1;
        for (unsigned i = 0; i < OPERATIONS; i++) {
            uint64_t bytes = next(&seed);

            assert_int_equal(random_operate(one, (const uint8_t *)&bytes),
                             random_operate(other, (const uint8_t *)&bytes));
            world_check(other);
            for (unsigned v = 0; v < WORLD_VMS; v++) {
                assert_int_equal(world_status(one, v).mappings, world_status(other, v).mappings);
                assert_int_equal(world_status(one, v).pending, world_status(other, v).pending);
            }
        }
        assert_memory_equal(one->pages, other->pages, sizeof(one->pages));
        world_end(one);
        world_end(other);
    }
}

/* See steps_test.c, which does it one by one. A page may have been made ready. */
static void test_a_failed_map_changes_nothing(void **state)
{
    struct world *world = world_create(&small, WORLD_VMS);
    uint64_t seed = 99;
    unsigned failures = 0;

    (void)state;
    begin(world);
    for (unsigned i = 0; i < 2000; i++) {
        uint64_t bytes = next(&seed);
        struct world_range range = random_range((const uint8_t *)&bytes);
        struct snapshot *before;
        uint32_t vm = bytes >> 60 & 3;

        if (i % 3 == 2) {
            (void)random_operate(world, (const uint8_t *)&bytes);
            continue;
        }
        for (unsigned v = 0; v < WORLD_VMS; v++) {
            (void)world_do_flush(world, v, range.context); /* or mapping again may flush */
        }
        before = snapshot_take(world);
        range.count = 1;
        world->fail_at = bytes & 1 ? world->steps + 1 + (bytes >> 8) % 9 : 0;
        base_alloc_fail_at(bytes & 2 ? 1 + (bytes >> 16) % 3 : 0);
        if (world_do_map(world, vm, range) != VIOMMU_PV_OK) {
            struct snapshot *after = snapshot_take(world);

            assert_null(snapshot_differs(before, after));
            failures++;
            free(after);
        }
        base_alloc_fail_at(0);
        world->fail_at = 0;
        free(before);
        world_check(world);
    }
    assert_true(failures > 500);
    world_end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_yielding_changes_nothing),
        cmocka_unit_test(test_a_failed_map_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
