/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of mirrors that another instance adopts: what they are told, and when. States that are
 * refused: adopt_state_test.c.
 */
#include "shadow/test_adopt.h"

#include <errno.h>

/* ---- what is told ---------------------------------------------------------------------------- */

static void expect_silence(void)
{
    unsigned mappings = m->mapped_count;
    uint64_t odd;

    forget();
    take_over();
    told("");
    assert_int_equal(m->mapped_count, mappings);
    assert_int_equal(mirror_status(m).mappings, mappings);
    assert_false(mirror_status(m).behind);
    /* Again, and again: nothing piles up. */
    odd = world_follow(&world)->odd_bytes;
    take_over();
    sync();
    told("");
    assert_int_equal(world_follow(&world)->odd_bytes, odd);
}

static void test_nothing_changed(void **unused)
{
    (void)unused;
    lay_out();
    expect_silence();
    world_unmap(&world, 0x2000, 1);
    sync();
    told("-2000-2fff");
}

static void test_nothing_changed_in_blocks(void **unused)
{
    (void)unused;
    m->what.form = VIOMMU_FORM_POW2;
    assert_int_equal(mirror_subscribe(m), 0);
    lay_out();
    expect_silence();
    world_unmap(&world, 0x5000, 1);
    sync();
    assert_int_equal(mirror_status(m).mappings, m->mapped_count);
}

static void test_tables_changed(void **unused)
{
    (void)unused;
    lay_out();
    save();
    forget();
    world_unmap(&world, 0x6000, 1);                     /* in the middle of a mapping */
    world_map(&world, 0x2000, 1, BIG + 0x10000, RW);    /* elsewhere */
    world_map(&world, 0x20000, 2, BIG + 0x20000, RW);   /* new */
    world_map_at(&world, 0x40000000, BIG, 2, RO);       /* other permissions */
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-2000-2fff +2000-2fff>80010000rw -5000-bfff +5000-5fff>80003000r +7000-bfff>80005000r "
         "+20000-21fff>80020000rw -40000000-7fffffff +40000000-7fffffff>80000000r");
    sync();
    told("");
}

/* What comes beside something that is kept does not make that odd. */
static void test_neighbours(void **unused)
{
    (void)unused;
    world_map(&world, 0x3000, 1, BIG + 3 * PAGE, RW);
    sync();
    save();
    forget();
    world_map(&world, 0x2000, 1, BIG + 2 * PAGE, RW);
    world_map(&world, 0x4000, 1, BIG + 4 * PAGE, RW);
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("+2000-2fff>80002000rw +4000-4fff>80004000rw");
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
}

static void test_replaced(void **unused)
{
    (void)unused;
    m->what.kinds |= VIOMMU_CHANGE_REPLACE;
    assert_int_equal(mirror_subscribe(m), 0);
    lay_out();
    save();
    forget();
    world_map(&world, 0x2000, 1, BIG + 0x10000, RW);
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("=2000-2fff>80010000rw");
}

/* Whole pieces are kept whatever the borders are now; what cannot be kept goes whole. */
static void test_other_borders(void **unused)
{
    (void)unused;
    world_map(&world, 0x200000, 512, BIG, RW);
    sync();
    forget();
    world_unmap(&world, 0x200000, 512);
    *world_entry(&world, 0x200000, 1) = 0;
    world_map_at(&world, 0x200000, BIG, 1, RW);
    take_over();
    told("");
    *world_entry(&world, 0x200000, 1) = 0;
    sync();
    told("-200000-3fffff");
}

static void test_other_view(void **unused)
{
    (void)unused;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, BIG, 1, BIG, RW);
    sync();
    forget();
    /* Nothing. */
    save();
    world.model.view = (struct shadow_view){.kind = VIEW_NONE};
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-1000-1fff -80000000-80000fff");
    /* One to one: what was given so is kept. */
    world_show(&world, world.tables);
    world_process(&world);
    forget();
    save();
    world.model.view = world_identity();
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-1000-1fff +0-3ffff>0rw +80001000-bfffffff>80001000rw");
    save();
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
    world_show(&world, world.tables);
    world_process(&world);
    told("-0-3ffff +1000-1fff>80000000rw -80001000-bfffffff");
}

/* Two devices with the same tables, of which one has another id of its own. */
static void test_two_mirrors(void **unused)
{
    struct test_mirror *other = mirror_follows(&world, OTHER, 0);

    (void)unused;
    lay_out();
    forget();
    mirror_told(other, other->told);
    take_over();
    told("");
    mirror_told(other, "");
    assert_int_equal(world_follow(&world)->shadows->users, 2);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-1fff");
    mirror_told(other, "-1000-1fff");
}

static void test_differences(void **unused)
{
    (void)unused;
    mirror_answers(m, 1, -ENOSPC, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
    forget();
    take_over();
    told("");
    assert_int_equal(mirror_status(m).differences, 2);
    assert_int_equal(mirror_status(m).mappings, 0);
    /* One that goes while it is missing is not unmapped. */
    world_unmap(&world, 0x1000, 1);
    mirror_answers(m, 0, 0, false, 0);
    sync();
    told("+3000-3fff>80000000rw");
    assert_int_equal(mirror_status(m).differences, 0);
}

static void test_differences_are_tried_again(void **unused)
{
    (void)unused;
    m->what.form = VIOMMU_FORM_POW2;
    assert_int_equal(mirror_subscribe(m), 0);
    mirror_answers(m, 2, -ENOSPC, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 3, BIG + PAGE, RW);
    sync();
    forget();
    take_over();
    told("");
    assert_int_equal(mirror_status(m).differences, 1);
    mirror_answers(m, 0, 0, false, 0);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    told("+2000-3fff>80002000rw");
    assert_int_equal(mirror_status(m).mappings, 2);
}

static void test_fenced(void **unused)
{
    (void)unused;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    world_unmap(&world, 0x1000, 1);
    sync();
    assert_true(mirror_status(m).fenced);
    forget();
    world_map(&world, 0x1000, 1, BIG, RW);
    take_over();
    told("");
    assert_true(mirror_status(m).fenced);
    assert_int_equal(dma(), -EPERM);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    told("+1000-1fff>80000000rw");
}

/* A limit counts what comes besides. */
static void test_limit(void **unused)
{
    (void)unused;
    map_pages(6);
    sync();
    m->what.mappings_max = 2;
    take_over();
    forget();
    map_pages(9);
    sync();
    assert_int_equal(mirror_status(m).mappings, 8);
    assert_int_equal(mirror_status(m).differences, 1);
}

/* One that is as good as none stays that. */
static void test_large_limit(void **unused)
{
    (void)unused;
    map_pages(6);
    sync();
    m->what.mappings_max = UINT64_MAX - 2;
    take_over();
    forget();
    map_pages(9);
    sync();
    assert_int_equal(mirror_status(m).mappings, 9);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* What leads to memory that is not there any more goes. */
static void test_memory_is_gone(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 2, BIG + SIZE_1G, RW);
    sync();
    save();
    forget();
    viommu_destroy(&world.model.iommu);
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), 0);
    model_begin(&world.model);
    m->device = model_device(&world.model, ID);
    m->what.adopt = true;
    assert_int_equal(mirror_subscribe(m), 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-3000-4fff");
}

/* Memory came and went between subscribing and loading. */
static void test_memory_before_the_load(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    lay_out();
    save();
    forget();
    restart();
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), 0);
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_add(&world, BIG + SIZE_1G + 0x10000, BIG + SIZE_1G + 0x1ffff, 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
}

/* The same, when it only came: nobody notes it twice. */
static void test_memory_came_before_the_load(void **unused)
{
    (void)unused;
    lay_out();
    save();
    forget();
    restart();
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    assert_int_equal(load(), 0);
    assert_null(world_follow(&world)->notes);
    assert_int_equal(world_follow(&world)->memory->count, 3);
    world_process(&world);
    told("");
    assert_int_equal(world_follow(&world)->memory->count, 3);
}

/* Memory is to go when nothing has been done yet: it goes when the mirror has let go of it. */
static void test_memory_goes_at_once(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 2, BIG + SIZE_1G, RW);
    sync();
    save();
    forget();
    restart();
    assert_int_equal(load(), 0);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), VIOMMU_PENDING);
    world_run(&world);
    told("-3000-4fff&");
    assert_int_equal(viommu_memory_process(world.model.memory), VIOMMU_PENDING);
    mirror_complete(m, 0);
    world_process(&world);
    assert_int_equal(viommu_memory_process(world.model.memory), 0);
    told("");
}

/* What an adopted mirror holds does not count, though it is kept twice for a while. */
static void test_quota(void **unused)
{
    uint64_t before;

    (void)unused;
    for (unsigned i = 0; i < 500; i++) {
        world_map(&world, 0x200000 + i * PAGE, 1, BIG + i * PAGE, RW);
        world_sync(&world, 0x200000 + i * PAGE, 0x200fff + i * PAGE);
    }
    before = follow_bytes(&world.model.iommu);
    world.model.shadow_quota = before + 6000; /* and a block */
    forget();
    take_over();
    told("");
    assert_false(mirror_status(m).fenced);
    assert_true(follow_bytes(&world.model.iommu) <= before);
    world_unmap(&world, 0x200000, 2);
    sync();
    told("-200000-200fff -201000-201fff");
}

/* What stays odd costs nothing new, and is kept even where there is no more room. */
static void test_quota_of_what_is_odd(void **unused)
{
    (void)unused;
    for (unsigned i = 0; i < 512; i++) {
        world_map_at(&world, 0x40000000 + i * SIZE_2M, BIG + i * SIZE_2M, 1, RW);
    }
    sync();
    assert_int_equal(m->mapped_count, 512);
    world.model.shadow_quota = follow_bytes(&world.model.iommu) + 1000;
    forget();
    *world_entry(&world, 0x40000000, 2) = 0;
    world_map_at(&world, 0x40000000, BIG, 2, RW);
    take_over();
    told("");
    assert_int_equal(m->subscriber->mirror->odd.count, 512);
    assert_false(mirror_status(m).fenced);
}

/* ---- when it is adopted ---------------------------------------------------------------------- */

static void test_nothing_before_the_load(void **unused)
{
    (void)unused;
    lay_out();
    save();
    forget();
    restart();
    assert_int_equal(viommu_start(&world.model.iommu), -EBUSY);
    assert_int_equal(viommu_device_set_requester(m->device, ID + 1), 0);
    assert_int_equal(load(), -ENODEV);
    assert_int_equal(viommu_device_set_requester(m->device, ID), 0);
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    assert_int_equal(mirror_subscribe(m), -EALREADY);
    m->what.adopt = false;
    m->mapped_count = 0;
    assert_int_equal(mirror_subscribe(m), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, 4);
}

static void test_busy(void **unused)
{
    void *data;
    size_t size;

    (void)unused;
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    mirror_complete(m, 0);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    world_process(&world);
    save();
    /* One that is to be fenced, too. */
    iommu_lock(&world.model.iommu);
    mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EIO, true, "test");
    iommu_unlock(&world.model.iommu);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    world_process(&world);
    save();
}

/* Mirrors that were not saved, or that nobody adopts. */
static void test_keys(void **unused)
{
    (void)unused;
    lay_out();
    save();
    restart();
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->what.key = 1;
    assert_int_equal(mirror_subscribe(m), 0);
    assert_int_equal(load(), -ENODEV);
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->what.adopt = false;
    m->mapped_count = 0;
    assert_int_equal(mirror_subscribe(m), 0);
    forget();
    assert_int_equal(load(), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_changed, setup, end),
        cmocka_unit_test_setup_teardown(test_nothing_changed_in_blocks, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_tables_changed, setup, end),
        cmocka_unit_test_setup_teardown(test_neighbours, setup, end),
        cmocka_unit_test_setup_teardown(test_replaced, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_other_borders, setup, end),
        cmocka_unit_test_setup_teardown(test_other_view, setup, end),
        cmocka_unit_test_setup_teardown(test_two_mirrors, setup, end),
        cmocka_unit_test_setup_teardown(test_differences, setup, end),
        cmocka_unit_test_setup_teardown(test_differences_are_tried_again, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_fenced, setup, end),
        cmocka_unit_test_setup_teardown(test_limit, setup, end),
        cmocka_unit_test_setup_teardown(test_large_limit, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_is_gone, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_before_the_load, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_came_before_the_load, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_goes_at_once, setup, end),
        cmocka_unit_test_setup_teardown(test_quota, setup, end),
        cmocka_unit_test_setup_teardown(test_quota_of_what_is_odd, setup, end),
        cmocka_unit_test_setup_teardown(test_nothing_before_the_load, setup, end),
        cmocka_unit_test_setup_teardown(test_busy, setup, end),
        cmocka_unit_test_setup_teardown(test_keys, setup, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
