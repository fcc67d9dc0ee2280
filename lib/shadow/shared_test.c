/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of shadows with several mirrors: what they share, that one being late or failing is no
 * concern of the others, and devices that trade their tables.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

static void test_shared(void **state)
{
    struct test_mirror *n;
    uint64_t bytes;

    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    told("+1000-2fff>80000000rw");
    bytes = model_stats(&world.model).shadow_bytes;
    assert_true(bytes > 0);
    n = mirror_create(&world, OTHER);
    assert_int_equal(mirror_subscribe(n), 0);
    world_process(&world);
    mirror_told(n, "+1000-2fff>80000000rw");
    told("");
    assert_int_equal(model_stats(&world.model).shadow_bytes, bytes);
    assert_int_equal(model_stats(&world.model).shadow_pages, 2);
    assert_int_equal(world_follow(&world)->shadows->users, 2);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-2fff +2000-2fff>80001000rw");
    mirror_told(n, "-1000-2fff +2000-2fff>80001000rw");
    assert_int_equal(model_stats(&world.model).pages_gone[VIOMMU_CAUSE_PAGES], 1); /* not two */
    assert_int_equal(viommu_subscriber_destroy(n->subscriber), 0);
    n->subscriber = NULL;
    assert_int_equal(world_follow(&world)->shadows->users, 1);
    world_unmap(&world, 0x2000, 1);
    sync();
    told("-2000-2fff");
    mirror_told(n, "");
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
    assert_null(world_follow(&world)->shadows);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* Two domains may have the same tables: an invalidation of either syncs them for both. */
/* Two devices trade their tables, which change at the same time: nobody follows those he leaves. */
static void test_trade(void **state)
{
    struct test_mirror *n = mirror_create(&world, OTHER);
    struct shadow_view a = world.tables;
    struct shadow_view b;

    (void)state;
    other_view = world_tables(&world);
    b = other_view;
    world.model.view_of = view_of;
    world_map(&world, 0x1000, 1, BIG, RW);
    world.tables = b;
    world_map(&world, 0x1000, 1, BIG + 0x1000, RW);
    assert_int_equal(mirror_subscribe(n), 0);
    (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
    world_process(&world);
    told("+1000-1fff>80000000rw");
    mirror_told(n, "+1000-1fff>80001000rw");
    world_map(&world, 0x1000, 1, BIG + 0x2000, RW);
    world.tables = a;
    world_map(&world, 0x1000, 1, BIG + 0x3000, RW);
    world.model.view = b;
    other_view = a;
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
    world_process(&world);
    assert_null(strstr(m->told, ">80003000"));
    assert_null(strstr(n->told, ">80002000"));
    assert_int_equal(m->mapped[0].gpa, BIG + 0x2000);
    assert_int_equal(n->mapped[0].gpa, BIG + 0x3000);
}

static void test_shared_by_domains(void **state)
{
    struct test_mirror *n = mirror_create(&world, OTHER);

    (void)state;
    other_view = world.tables;
    other_view.domain = DOMAIN + 1;
    world.model.view_of = view_of;
    assert_int_equal(mirror_subscribe(n), 0);
    world_process(&world);
    assert_null(world_follow(&world)->shadows->next);
    world_map(&world, 0x1000, 1, BIG, RW);
    (void)world_ask(&world, DOMAIN + 1, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    world_process(&world);
    told("+1000-1fff>80000000rw");
    mirror_told(n, "+1000-1fff>80000000rw");
}

/* Mirrors do not wait for each other, but for what comes next all have to be ready. */
static void test_one_is_late(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, 0);

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    world_map(&world, SIZE_2M, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    world_run(&world);
    told("+1000-1fff>80000000rw&");
    mirror_told(n, "+1000-1fff>80000000rw +3000-3fff>80000000rw");
    mirror_complete(m, 0);
    world_run(&world);
    mirror_complete(m, 0);
    told("+3000-3fff>80000000rw&");
    mirror_told(n, "");
    world_run(&world);
    told("+200000-200fff>80000000rw&");
    mirror_told(n, "+200000-200fff>80000000rw");
    mirror_complete(m, 0);
    world_process(&world);
}

/* Both are late; the second one answers first. */
static void test_both_are_late(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, 0);

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    mirror_answers(n, 1, VIOMMU_PENDING, true, 0);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    world_run(&world);
    mirror_complete(n, 0);
    world_run(&world);
    mirror_complete(m, 0);
    world_process(&world);
    told("+1000-1fff>80000000rw&");
    mirror_told(n, "+1000-1fff>80000000rw&");
}

/* One fails in the middle of a patch: the others go on. */
static void test_one_fails(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, 0);

    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    world_map(&world, SIZE_2M, 1, BIG, RW);
    sync();
    forget();
    mirror_told(n, n->told);
    world_unmap(&world, 0x1000, 1);
    world_unmap(&world, SIZE_2M, 1);
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    sync();
    told("-1000-2fff? !");
    mirror_told(n, "-1000-2fff +2000-2fff>80001000rw -200000-200fff");
    assert_int_equal(world_follow(&world)->shadows->users, 1);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    told("+2000-2fff>80001000rw");
    mirror_told(n, "");
}

/* All fail: the tables are forgotten, the patch with them. */
static void test_all_fail(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, 0);

    (void)state;
    world_map(&world, 0x1000, 20, BIG, RW);
    sync();
    for (unsigned i = 0; i < 20; i += 2) {
        world_map(&world, 0x1000 + i * PAGE, 1, BIG, RO);
    }
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    mirror_answers(n, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    sync();
    assert_true(mirror_status(m).fenced && mirror_status(n).fenced);
    assert_null(world_follow(&world)->shadows);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FENCED), 2);
}

/* The quota fences all mirrors of the tables that need too much, and nobody else. */
static void test_quota_of_one(void **state)
{
    struct test_mirror *n = mirror_create(&world, OTHER);
    struct shadow_view first = world.tables;

    (void)state;
    other_view = world_tables(&world);
    world.model.view_of = view_of;
    assert_int_equal(mirror_subscribe(n), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    world_follow(&world)->quota = follow_bytes(&world.model.iommu) + 100;
    world.tables = other_view;
    for (unsigned i = 0; i < 100; i++) {
        world_map(&world, 2 * i * PAGE, 1, BIG, RW);
    }
    (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
    world_process(&world);
    assert_false(mirror_status(m).fenced);
    assert_true(mirror_status(n).fenced);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_QUOTA)->requester, OTHER);
    world.tables = first;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_trade, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_by_domains, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_is_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_both_are_late, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all_fail, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quota_of_one, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
