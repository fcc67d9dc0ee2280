/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of differences: mappings that failed are remembered and tried again, after pauses (the
 * clock is the test's), in syncs, and when there may be room.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

static uint64_t deadline(void)
{
    return follow_deadline(&world.model.iommu);
}

static void test_differs_and_follows(void **state)
{
    const struct viommu_event *event;

    (void)state;
    map_pages(3);
    mirror_answers(m, 2, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    told("+1000-1fff>80000000rw +3000-3fff>80000000rw? +5000-5fff>80000000rw?");
    event = world_event(&world, VIOMMU_EVENT_DIFFERS); /* once */
    assert_int_equal(event->error, -EBUSY);
    assert_int_equal(event->first, 0x3000);
    assert_int_equal(event->last, 0x3fff);
    assert_int_equal(event->requester, ID);
    assert_int_equal(mirror_status(m).differences, 2);
    assert_int_equal(mirror_status(m).mappings, 1);
    assert_false(mirror_status(m).fenced);
    assert_false(mirror_status(m).behind);
    assert_int_equal(dma(), 0); /* no reason to deny it */
    mirror_answers(m, 0, 0, false, 0);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_RETRY);
    told("+3000-3fff>80000000rw +5000-5fff>80000000rw");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FOLLOWS)->requester, ID);
    assert_int_equal(deadline(), 0);
    assert_int_equal(stats().retries, 2);
    assert_int_equal(stats().calls_failed, 2);
    assert_int_equal(stats().calls_map, 5);
}

/* 10 ms, and twice as long each time, up to a second. */
static void test_pauses(void **state)
{
    static const uint64_t pauses[] = {10, 20, 40, 80, 160, 320, 640, 1000, 1000};
    unsigned calls;

    (void)state;
    map_pages(1);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    for (unsigned i = 0; i < 9; i++) {
        calls = m->calls;
        assert_int_equal(deadline(), world.model.now + pauses[i] * MODEL_MS);
        world.model.now += pauses[i] * MODEL_MS - 1;
        world_process(&world);
        assert_int_equal(m->calls, calls);
        world.model.now += 1;
        world_process(&world);
        assert_int_equal(m->calls, calls + 1);
    }
    assert_int_equal(stats().retries, 9);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DIFFERS), 1);
}

/* When some succeed the rest is tried soon again. */
static void test_pause_after_success(void **state)
{
    (void)state;
    map_pages(3);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    assert_int_equal(deadline(), world.model.now + 20 * MODEL_MS);
    mirror_answers(m, 2, -EBUSY, true, VIOMMU_CHANGE_MAP);
    mirror_told(m, m->told);
    world.model.now += 20 * MODEL_MS;
    world_process(&world);
    told("+1000-1fff>80000000rw +3000-3fff>80000000rw? +5000-5fff>80000000rw?");
    assert_int_equal(deadline(), world.model.now + 10 * MODEL_MS);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FOLLOWS), 0);
}

/* A second difference does not put the first one's time off. */
static void test_pause_is_not_begun_anew(void **state)
{
    uint64_t first;

    (void)state;
    map_pages(1);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    first = deadline();
    world.model.now += 5 * MODEL_MS;
    world_map(&world, 0x9000, 1, BIG, RW);
    world_sync(&world, 0x9000, 0x9fff);
    assert_int_equal(mirror_status(m).differences, 2);
    assert_int_equal(deadline(), first);
}

/* After 16 failures in a row an attempt is over. */
static void test_many_failures(void **state)
{
    unsigned calls;

    (void)state;
    map_pages(20);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    assert_int_equal(m->calls, 20);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    assert_int_equal(m->calls, 36);
    mirror_answers(m, 11, -EBUSY, true, VIOMMU_CHANGE_MAP);
    calls = m->calls;
    world.model.now += 20 * MODEL_MS;
    world_process(&world);
    assert_int_equal(m->calls - calls, 20); /* 10 that succeed, 10 that do not */
    assert_int_equal(mirror_status(m).differences, 10);
}

/* A sync that covers what is missing tries it again, and no other. */
static void test_tried_again_in_syncs(void **state)
{
    (void)state;
    map_pages(2);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    told("+1000-1fff>80000000rw? +3000-3fff>80000000rw?"); /* but not in the sync that failed */
    world_sync(&world, 0x5000, 0x5fff);
    told("");
    world_sync(&world, 0x2000, 0x2fff);
    told("");
    world_sync(&world, 0x3000, 0x3fff);
    told("+1000-1fff>80000000rw? +3000-3fff>80000000rw?");
    mirror_answers(m, 0, 0, false, 0);
    world_sync_all(&world);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_RETRY);
    told("+1000-1fff>80000000rw +3000-3fff>80000000rw");
    assert_int_equal(deadline(), 0);
}

/* When something goes there may be room. */
static void test_tried_again_after_unmap(void **state)
{
    (void)state;
    map_pages(2);
    mirror_answers(m, 2, -ENOSPC, false, VIOMMU_CHANGE_MAP);
    sync();
    mirror_told(m, m->told);
    world_unmap(&world, 0x1000, 1);
    world_sync(&world, 0x1000, 0x1fff);
    told("-1000-1fff +3000-3fff>80000000rw");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FOLLOWS), 1);
    assert_int_equal(stats().retries, 1);
}

/* What is not wanted any more is not missing any more, and nothing is told of it. */
static void test_missing_goes(void **state)
{
    (void)state;
    map_pages(2);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    mirror_told(m, m->told);
    world_unmap(&world, 0x1000, 3);
    sync();
    told("");
    assert_int_equal(mirror_status(m).differences, 0);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FOLLOWS), 1);
    assert_int_equal(stats().calls_unmap, 0);
    assert_int_equal(deadline(), 0);
}

/* One that is missing becomes another one. */
static void test_missing_changes(void **state)
{
    (void)state;
    map_pages(1);
    mirror_answers(m, 1, -EBUSY, false, VIOMMU_CHANGE_MAP);
    sync();
    world_map(&world, 0x1000, 1, BIG + 0x9000, RW);
    sync();
    told("+1000-1fff>80000000rw? +1000-1fff>80009000rw");
    assert_int_equal(stats().windows, 0);
    assert_int_equal(stats().pages_interrupted, 0);
}

static void test_too_many_differences(void **state)
{
    (void)state;
    m->subscriber->what.differences_max = 2;
    map_pages(3);
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    sync();
    told("+1000-1fff>80000000rw? +3000-3fff>80000000rw? +5000-5fff>80000000rw? !");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -EBUSY);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->first, 0x5000);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 1);
    assert_true(mirror_status(m).fenced);
    assert_int_equal(deadline(), 0);
}

static void test_no_memory_for_differences(void **state)
{
    (void)state;
    map_pages(1);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    mirror_answers(m, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_MAP);
    world_run(&world);
    base_alloc_fail_at(1);
    mirror_complete(m, -EBUSY);
    world_process(&world);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -ENOMEM);
    assert_int_equal(m->fences, 1);
}

/* Past the limit a MAP fails without a call, and is made as soon as something goes. */
static void test_limit(void **state)
{
    (void)state;
    m->subscriber->what.mappings_max = 2;
    map_pages(3);
    sync();
    told("+1000-1fff>80000000rw +3000-3fff>80000000rw");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_DIFFERS)->error, -ENOSPC);
    assert_int_equal(stats().calls_map, 2);
    assert_int_equal(stats().calls_failed, 0);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    told("");
    assert_int_equal(stats().retries, 0); /* there is still no room */
    assert_int_equal(deadline(), world.model.now + 20 * MODEL_MS);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-1fff +5000-5fff>80000000rw");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FOLLOWS), 1);
}

/* ---- the last address ------------------------------------------------------------------------ */

static unsigned top_calls;

static int top_change(void *opaque, const struct viommu_change *change)
{
    (void)opaque;
    assert_int_equal(change->last, UINT64_MAX);
    assert_int_equal(change->kind, VIOMMU_CHANGE_MAP);
    return ++top_calls < 3 ? -EBUSY : 0;
}

/* A difference at the end of the space is tried once, and nothing wraps. */
static void test_top_of_the_space(void **state)
{
    struct viommu_memory_slot slot = {
        .first = UINT64_MAX - 0xfff, .last = UINT64_MAX, .host = world.backing, .fd = -1};
    struct viommu_memory_batch *batch;

    (void)state;
    assert_int_equal(viommu_memory_batch_begin(world.model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), 0);
    m->what.change = top_change;
    m->what.range = (struct viommu_range){1ULL << 48, UINT64_MAX};
    top_calls = 0;
    world.model.view = (struct shadow_view){.kind = VIEW_IDENTITY, .last = UINT64_MAX};
    assert_int_equal(mirror_subscribe(m), 0);
    world_run(&world);
    assert_int_equal(top_calls, 1);
    world.model.now += 10 * MODEL_MS;
    world_run(&world);
    assert_int_equal(top_calls, 2);
    world.model.now += 20 * MODEL_MS;
    world_run(&world);
    assert_int_equal(top_calls, 3);
    assert_int_equal(mirror_status(m).differences, 0);
    assert_int_equal(mirror_status(m).mappings, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_differs_and_follows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pauses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_after_success, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pause_is_not_begun_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_failures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tried_again_in_syncs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tried_again_after_unmap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_too_many_differences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_differences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_top_of_the_space, setup_unsubscribed, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
