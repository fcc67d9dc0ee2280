/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the client: versions, commands and answers, DMA by message, and servers that do wrong.
 */
#include "vfio_user/test_far.h"

static struct test_world world;

static int setup(void **state)
{
    (void)state;
    test_world_open(&world, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    test_world_close(&world);
    return 0;
}

static void mirrors_what_the_tables_say(void **state)
{
    const struct test_region *region;

    (void)state;
    assert_int_equal(world.ready, 1);
    test_world_map(&world, 0x10000, 0x80000, 4, SPEC_R | SPEC_W);
    test_world_subscribe(&world);
    assert_int_equal(world.far.region_count, 1);
    region = test_far_find(&world.far, 0x10000);
    assert_non_null(region);
    assert_true(region->file);
    assert_int_equal(region->map.size, 0x4000);
    assert_int_equal(region->map.offset, 0x90000);
    assert_int_equal(region->map.flags, 3);

    world.far.hold = true;
    test_world_unmap(&world, 0x10000, 4);
    test_world_invalidate(&world);
    test_world_settle(&world);
    assert_int_equal(world.far.region_count, 0);
    assert_false(test_world_invalidated(&world));
    test_far_release(&world.far);
    test_world_settle(&world);
    assert_true(test_world_invalidated(&world));
    assert_int_equal(test_world_statistics(&world).mappings, 0);
}

static void dma_by_message(void **state)
{
    uint8_t data[5000];

    (void)state;
    test_world_map(&world, 0x10000, 0x80000, 4, SPEC_R | SPEC_W);
    memset((uint8_t *)world.ram + 0x80000, 0x5a, 0x4000);
    assert_int_equal(test_world_read(&world, world.far.fd, 0x10004, data, sizeof(data)), 0);
    assert_int_equal(data[0], 0x5a);
    assert_int_equal(data[4999], 0x5a);
    memset(data, 0x11, sizeof(data));
    assert_int_equal(test_world_write(&world, world.far.fd, 0x10004, data, sizeof(data)), 0);
    assert_int_equal(((uint8_t *)world.ram)[0x80003], 0x5a);
    assert_int_equal(((uint8_t *)world.ram)[0x80004], 0x11);
    assert_int_equal(((uint8_t *)world.ram)[0x80004 + 5000], 0x5a);
    assert_int_equal(test_world_read(&world, world.far.fd, 0x14000, data, 1), -EFAULT);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(mirrors_what_the_tables_say),
        TEST(dma_by_message),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
