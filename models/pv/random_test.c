/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random operations on several VMs, contexts and page states. After each all that must hold is
 * checked (test_world.h). Steps and allocations fail now and then; a world that yields at every
 * step goes beside one that never does, and answers the same; and others are called in the middle
 * of a step, and between two, where pages and whole VMs go that the first is at. How much may await
 * a flush, what a VM may have, and which orders of pages there are depends on the seed.
 *
 * Long runs: pv_random_test --seed N --seeds N --operations N.
 */
#include "pv/test_random.h"
#include "pv/test_snapshot.h"

#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct {
    uint64_t seed;
    uint64_t seeds;
    uint64_t operations;
    bool talks;
} wanted = {.seed = 1, .seeds = 24, .operations = 400};

static uint64_t next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* The settings of a seed. Neighbours differ in what may await a flush; so do all the others, in
   time. */
static struct viommu_pv_config config_of(uint64_t n)
{
    static const uint32_t deferred[] = {8, 1000, 1, 100};
    static const uint64_t mappings[] = {100, 700, 1 << 20};
    static const uint64_t tables[] = {24, 1000, 9};
    static const uint64_t orders[] = {1 | 1 << 9, 0, 1};

    return (struct viommu_pv_config){
        .deferred_max = deferred[n % 4],
        .mappings_max = mappings[n / 4 % 3],
        .tables_max = tables[n / 2 % 3],
        .orders = orders[n / 8 % 3],
        .contexts_max = n % 5 == 4 ? 2 : RANDOM_CONTEXTS + 1,
        .items_max = 16,
    };
}

static struct world *begin(uint64_t n)
{
    const struct viommu_pv_config config = config_of(n);
    struct world *world = world_create(&config, WORLD_VMS);

    for (unsigned i = 0; i < WORLD_VMS; i++) {
        assert_int_equal(world_enable(world, i), VIOMMU_PV_OK);
    }
    if (wanted.talks) {
        print_message("seed %llu: %u may await a flush\n", (unsigned long long)n,
                      config.deferred_max);
    }
    return world;
}

/* How the next operation fails, and yields. */
static void disturb(struct world *world, uint64_t how)
{
    world->fail_at = how % 5 == 0 ? world->steps + 1 + (how >> 8) % 30 : 0;
    world->yield_every = (how >> 16) % 4;
    world->flush_fails = how % 31 == 7;
    base_alloc_fail_at(how % 7 == 0 ? 1 + (how >> 24) % 8 : 0);
}

static void disturb_no_more(struct world *world)
{
    base_alloc_fail_at(0);
    world->flush_fails = false;
}

static void test_random(void **state)
{
    (void)state;
    for (uint64_t n = wanted.seed; n < wanted.seed + wanted.seeds; n++) {
        struct world *world = begin(n);
        uint64_t seed = n * UINT64_C(0x9e3779b97f4a7c15);

        for (unsigned i = 0; i < wanted.operations; i++) {
            uint64_t bytes = next(&seed);

            disturb(world, next(&seed));
            (void)random_operate(world, (const uint8_t *)&bytes);
            disturb_no_more(world);
            world_check(world);
        }
        world_end(world);
    }
}

/* ---- others at the same time ---- */

static uint64_t others;      /* the seed of what they do */
static unsigned others_left; /* so often, at most, during one operation */

static void another(struct world *world)
{
    uint64_t bytes = next(&others);

    if (others_left) {
        others_left--;
        random_in_the_middle(world, (const uint8_t *)&bytes);
    }
}

/* A VM that began to die where that could not end. */
static void bury(struct world *world)
{
    for (unsigned vm = 0; vm < WORLD_VMS; vm++) {
        if (world_status(world, vm).dying) {
            int error = world_destroy_vm(world, vm);

            assert_true(error == 0 || error == -EIO);
        }
    }
}

static void test_interleaved(void **state)
{
    (void)state;
    for (uint64_t n = wanted.seed; n < wanted.seed + wanted.seeds; n++) {
        struct world *world = begin(n);
        uint64_t seed = n * UINT64_C(0xd6e8feb86659fd93);

        others = next(&seed);
        world->intrude = another;
        world->between = another;
        for (unsigned i = 0; i < wanted.operations; i++) {
            uint64_t bytes = next(&seed);
            uint64_t how = next(&seed);

            disturb(world, how);
            others_left = 1 + (how >> 40) % 6;
            world->intrude_at = how >> 48 & 1 ? world->steps + 1 + (how >> 49) % 60 : 0;
            (void)random_operate(world, (const uint8_t *)&bytes);
            disturb_no_more(world);
            world->intrude_at = 0;
            others_left = 0;
            bury(world);
            world_check(world);
        }
        world_end(world);
    }
}

/* ---- */

/* Slots, what waits for its flush, devices and what the IOMMU has: all of it. */
static void same(const struct world *one, const struct world *other)
{
    struct snapshot *a = snapshot_take(one);
    struct snapshot *b = snapshot_take(other);

    assert_null(snapshot_differs(a, b));
    assert_null(snapshot_differs(b, a));
    free(a);
    free(b);
}

static void test_yielding_changes_nothing(void **state)
{
    (void)state;
    for (uint64_t n = wanted.seed; n < wanted.seed + wanted.seeds; n++) {
        struct world *one = begin(n);
        struct world *other = begin(n);
        uint64_t seed = n * UINT64_C(0xbf58476d1ce4e5b9);

        other->yield_every = 1;
        for (unsigned i = 0; i < wanted.operations; i++) {
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
        same(one, other);
        world_end(one);
        world_end(other);
    }
}

/* One map that may fail; true when it did, and changed nothing. */
static bool failed_map(struct world *world, uint64_t bytes)
{
    struct world_range range = random_range((const uint8_t *)&bytes);
    struct snapshot *before;
    bool failed = false;

    for (unsigned v = 0; v < WORLD_VMS; v++) {
        (void)world_do_flush(world, v, range.context); /* or mapping again may flush */
    }
    before = snapshot_take(world);
    range.count = 1;
    world->fail_at = bytes & 1 ? world->steps + 1 + (bytes >> 8) % 9 : 0;
    base_alloc_fail_at(bytes & 2 ? 1 + (bytes >> 16) % 3 : 0);
    if (world_do_map(world, bytes >> 60 & 3, range) != VIOMMU_PV_OK) {
        struct snapshot *after = snapshot_take(world);

        assert_null(snapshot_differs(before, after));
        failed = true;
        free(after);
    }
    base_alloc_fail_at(0);
    world->fail_at = 0;
    free(before);
    return failed;
}

/* See steps_test.c, which does it one by one. A page may have been made ready. */
static void test_a_failed_map_changes_nothing(void **state)
{
    enum { SEEDS = 4, OPERATIONS = 600 };

    (void)state;
    for (uint64_t n = wanted.seed; n < wanted.seed + SEEDS; n++) {
        struct world *world = begin(n);
        uint64_t seed = n * 99;
        unsigned failures = 0;

        for (unsigned i = 0; i < OPERATIONS; i++) {
            uint64_t bytes = next(&seed);

            if (i % 3 == 2) {
                (void)random_operate(world, (const uint8_t *)&bytes);
            } else {
                failures += failed_map(world, bytes);
                world_check(world);
            }
        }
        assert_true(failures > OPERATIONS / 4);
        world_end(world);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"seed", required_argument, NULL, 's'},
                                            {"seeds", required_argument, NULL, 'n'},
                                            {"operations", required_argument, NULL, 'o'},
                                            {0}};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_interleaved),
        cmocka_unit_test(test_yielding_changes_nothing),
        cmocka_unit_test(test_a_failed_map_changes_nothing),
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 0) : 0;

        if (option == '?') {
            return 2;
        }
        *(option == 's'   ? &wanted.seed
          : option == 'n' ? &wanted.seeds
                          : &wanted.operations) = number;
        wanted.talks = true;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
