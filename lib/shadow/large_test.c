/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of blocks of 1 GiB: pages of that size that come, go, change, and become tables or were
 * some.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

#define PAGES_1G UINT64_C(262144)

static void test_1g(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    begin();
    world_sync(&world, SIZE_1G + 0x5000, SIZE_1G + 0x5fff);
    told("+40000000-7fffffff>80000000rw");
    expect_counts(1, 0, 0, PAGES_1G, 0, 0);
    sync();
    told("");
    counted = model_stats(&world.model);
    world_sync(&world, SIZE_1G, SIZE_1G + 0xfff);
    expect_counts(1, PAGES_1G, 0, 0, 0, 0);
    world_map_at(&world, SIZE_1G, BIG, 2, RO);
    world_sync(&world, SIZE_1G, SIZE_1G + 0xfff);
    told("-40000000-7fffffff +40000000-7fffffff>80000000r");
    expect_counts(1, 0, 0, 0, 0, PAGES_1G);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->first, SIZE_1G);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->last, 2 * SIZE_1G - 1);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->from_perm, RW);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->to_perm, RO);
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_sync(&world, SIZE_1G + SIZE_2M, SIZE_1G + SIZE_2M + 0xfff);
    told("-40000000-7fffffff");
    expect_counts(1, 0, 0, 0, PAGES_1G, 0);
    assert_int_equal(model_stats(&world.model).shadow_pages, 0);
}

/* 1 GiB becomes a table of 2 MiB pages of which one leads elsewhere, or nowhere. */
static void split_1g(uint64_t entry)
{
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    for (unsigned i = 0; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    *world_entry(&world, SIZE_1G + 3 * SIZE_2M, 1) = entry;
    begin();
    sync();
    assert_int_equal(m->mapped_count, 511 + (entry != 0));
    assert_int_equal(model_stats(&world.model).shadow_pages, PAGES_1G - (entry ? 0 : 512));
    begin();
    sync();
    told("");
}

static void test_1g_loses_2m(void **state)
{
    (void)state;
    split_1g(0);
}

static void test_1g_gets_other_2m(void **state)
{
    (void)state;
    split_1g((BIG + SIZE_2M) | RO | MODEL_LARGE);
    /* One page of 1 GiB again: what is there already stays. */
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    told("-40600000-407fffff +40600000-407fffff>80600000rw");
    assert_int_equal(model_stats(&world.model).pages_rewritten[CAUSE], 512 * 2);
}

/* Its blocks are looked at as a whole, where the guest maps them by one entry. */
static void test_1g_blocks_are_whole(void **state)
{
    (void)state;
    split_1g((BIG + SIZE_2M) | RO | MODEL_LARGE);
    counted = model_stats(&world.model);
    world_sync(&world, SIZE_1G + 0x1000, SIZE_1G + 0x1fff);
    expect_counts(1, 512, 0, 0, 0, 0);
    *world_entry(&world, SIZE_1G, 1) = 0;
    world_map(&world, SIZE_1G, 512, BIG, RW);
    world_sync(&world, SIZE_1G + 0x1000, SIZE_1G + 0x1fff);
    expect_counts(1, 512, 0, 0, 0, 0); /* it was */
    world_sync(&world, SIZE_1G + 0x1000, SIZE_1G + 0x1fff);
    expect_counts(1, 1, 0, 0, 0, 0);
}

/*
 * A block in which each page is a mapping of its own, and the others as they are: one page of 1 GiB
 * says the same, and nothing is told; it does not when a single page led elsewhere.
 */
static void test_1g_from_pages(void **state)
{
    uint64_t table;

    (void)state;
    for (unsigned i = 1; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    for (unsigned i = 0; i < 512; i += 2) {
        world_map(&world, SIZE_1G + i * 4096, 1, BIG + i * 4096, RW);
    }
    sync();
    for (unsigned i = 1; i < 512; i += 2) {
        world_map(&world, SIZE_1G + i * 4096, 1, BIG + i * 4096, RW);
    }
    sync();
    table = *world_entry(&world, SIZE_1G, 2);
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    begin();
    world_sync(&world, SIZE_1G, SIZE_1G + 0xfff);
    told("");
    expect_counts(1, PAGES_1G, 0, 0, 0, 0);
    assert_int_equal(m->mapped_count, 512 + 511);

    *world_entry(&world, SIZE_1G, 2) = table;
    world_map(&world, SIZE_1G + 511 * 4096, 1, BIG, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    begin();
    sync();
    told("-401ff000-401fffff +401ff000-401fffff>801ff000rw");
}

/* A table of pages in it is no whole block, though it says what the page of 1 GiB said. */
static void test_1g_with_a_table(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_map(&world, SIZE_1G, 512, BIG, RW);
    sync();
    assert_int_equal(m->mapped_count, 1);
    begin();
    world_sync(&world, SIZE_1G + 0x1000, SIZE_1G + 0x1fff);
    told("");
    expect_counts(1, 1, 0, 0, 0, 0);
}

/* A block of it leads to what is no memory. */
static void test_1g_not_mapped(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    for (unsigned i = 0; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    world_map_at(&world, SIZE_1G + 5 * SIZE_2M, 0x7000000000, 1, RW);
    begin();
    sync();
    assert_int_equal(m->mapped_count, 511);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_NOT_MAPPED)->first, SIZE_1G + 5 * SIZE_2M);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_NOT_MAPPED)->last,
                     SIZE_1G + 6 * SIZE_2M - 1);
}

/* A table of tables that are all empty. */
static void test_1g_becomes_empty(void **state)
{
    uint64_t empty = world_table(&world);

    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    for (unsigned i = 0; i < 512; i++) {
        *world_entry(&world, SIZE_1G + i * SIZE_2M, 1) = empty | RW;
    }
    begin();
    sync();
    told("-40000000-7fffffff");
    assert_int_equal(model_stats(&world.model).pages_gone[CAUSE], PAGES_1G);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* Its entry gets a reserved bit. */
static void test_1g_becomes_bad(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    world_map_at(&world, SIZE_1G, BIG, 2, RW | MODEL_RESERVED);
    begin();
    sync();
    told("-40000000-7fffffff");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_BAD_ENTRY)->first, SIZE_1G);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_BAD_ENTRY)->last, 2 * SIZE_1G - 1);
}

/* The mirror goes while such a block is made. */
static void test_1g_and_no_mirror(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_map(&world, SIZE_1G, 1, BIG, RW);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, CAUSE);
    while (!world_follow(&world)->cutting || world_follow(&world)->cut_at < 3) {
        assert_int_equal(viommu_process(&world.model.iommu, 1), VIOMMU_PENDING);
    }
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* One page of 1 GiB, said by a table of 2 MiB pages: nothing is touched. */
static void test_1g_the_same(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    for (unsigned i = 0; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    begin();
    world_sync(&world, SIZE_1G, 2 * SIZE_1G - 1);
    told("");
    expect_counts(512, PAGES_1G, 0, 0, 0, 0);
}

/* A leaf table under what was 1 GiB: the rest is compared block by block. */
static void test_1g_gets_a_leaf(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    *world_entry(&world, SIZE_1G, 2) = 0;
    world_map(&world, SIZE_1G, 512, BIG, RW);
    for (unsigned i = 1; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    begin();
    world_sync(&world, SIZE_1G, SIZE_1G + SIZE_2M - 1);
    told("");
    world_sync(&world, SIZE_1G, 2 * SIZE_1G - 1);
    told("");
    assert_int_equal(model_stats(&world.model).pages_gone[CAUSE], 0);
    world_map(&world, SIZE_1G + 0x1000, 1, BIG, RO);
    world_sync(&world, SIZE_1G + 0x1000, SIZE_1G + 0x1fff);
    assert_int_equal(m->mapped_count, 511 + 3);
    assert_int_equal(model_stats(&world.model).pages_rewritten[CAUSE], 1);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->first, SIZE_1G + 0x1000);
}

/* Blocks that are 1 GiB become a page of 1 GiB: nothing is touched, of each form. */
static void test_1g_from_2m(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 512; i++) {
        world_map_at(&world, SIZE_1G + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    sync();
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    begin();
    sync();
    told("");
    assert_int_equal(m->subscriber->mirror->odd.count, 0); /* nor is it remembered otherwise */
    *world_entry(&world, SIZE_1G, 2) = 0;
    sync();
    assert_int_equal(m->mapped_count, 0);
}

static void test_policy_fence_large(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_1G, BIG, 2, RW);
    sync();
    world_map_at(&world, SIZE_1G, BIG, 2, RO);
    begin();
    sync();
    told("!");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_1g, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_loses_2m, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_gets_other_2m, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_blocks_are_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_with_a_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_from_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_not_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_becomes_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_becomes_bad, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_and_no_mirror, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_the_same, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_gets_a_leaf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_1g_from_2m, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_fence_large, setup_fence, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
