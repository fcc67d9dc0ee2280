/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of one mirror: what it may be told of, its answers, and its end. What becomes of mappings
 * that failed: differences_test.c.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

/* ---- where it may map ------------------------------------------------------------------------ */

static void test_interrupt_range(void **state)
{
    (void)state;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0xfedff000, 1, BIG, RW);
    world_map(&world, 0xfee00000, 1, BIG + 0x1000, RW);
    world_map(&world, 0xfeeff000, 1, BIG + 0x2000, RW);
    world_map(&world, 0xfef00000, 1, BIG + 0x3000, RW);
    sync();
    told("+fedff000-fedfffff>80000000rw +fef00000-fef00fff>80003000rw");
    world_map(&world, 0xfee00000, 1, BIG, RW);
    sync();
    told("");
}

static void test_allowed_ranges(void **state)
{
    const struct viommu_range allowed[] = {
        {0x1000, 0x3fff}, {0x5000, 0x9fff}, {0xb000, 0xfedfefff}, {0xfee80000, 0xffffffff},
        {0x200000000, UINT64_MAX},
    };

    (void)state;
    m->what.allowed = allowed;
    m->what.allowed_count = 5;
    m->what.range = (struct viommu_range){0x2000, 0x1ffffffff};
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x0000, 16, BIG, RW);
    world_map(&world, 0xfedfe000, 1, BIG, RW);
    world_map(&world, 0xfedff000, 1, BIG, RW);
    world_map(&world, 0xfeeff000, 2, BIG, RW);
    world_map(&world, 0x200000000, 1, BIG, RW);
    sync();
    told("+2000-3fff>80002000rw +5000-9fff>80005000rw +b000-ffff>8000b000rw "
         "+fedfe000-fedfefff>80000000rw +fef00000-fef00fff>80001000rw");
    assert_int_equal(m->subscriber->mirror->allowed->count, 4);
}

/* Nothing of the range is allowed. */
static void test_nothing_allowed(void **state)
{
    const struct viommu_range allowed = {0xfee00000, 0xfeefffff};

    (void)state;
    m->what.allowed = &allowed;
    m->what.allowed_count = 1;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    told("");
    assert_int_equal(m->subscriber->mirror->allowed->count, 0);
}

static void test_no_memory_to_attach(void **state)
{
    int ret = -ENOMEM;
    unsigned failures = 0;

    (void)state;
    for (unsigned long n = 1; ret; n++) {
        base_alloc_fail_at(n);
        ret = mirror_subscribe(m);
        failures += ret == -ENOMEM;
        assert_true(!ret || ret == -ENOMEM);
        base_alloc_fail_at(0);
    }
    assert_true(failures >= 4); /* subscriber, listener, its list, mirror, allowed */
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    told("+1000-1fff>80000000rw");
}

/* The file behind a mapping, at its offset. */
static void test_fd(void **state)
{
    (void)state;
    world.fd = 7;
    assert_int_equal(world_remove(&world, BIG, BIG + SIZE_1G - 1), 0);
    world_add(&world, BIG, BIG + SIZE_1G - 1, 0);
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 2, BIG + 0x5000, RW);
    world_map(&world, 0x5000, 1, 0x8000, RW); /* RAM has no file */
    sync();
    told("+1000-2fff>80005000rw +5000-5fff>8000rw");
}

/* ---- answers --------------------------------------------------------------------------------- */

static void test_answered_later(void **state)
{
    struct wait wait;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    wait = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    assert_true(mirror_status(m).behind);
    world_run(&world);
    told("+1000-1fff>80000000rw&");
    world_run(&world);
    told("");
    assert_true(mirror_status(m).behind);
    assert_int_equal(mirror_status(m).mappings, 0);
    mirror_complete(m, 0);
    assert_int_equal(viommu_change_complete(&world.model.iommu, m->outstanding.token, 0), -ENOENT);
    assert_int_equal(mirror_status(m).mappings, 1);
    assert_false(world_over(&world, &wait));
    world_run(&world);
    told("+3000-3fff>80000000rw&");
    assert_false(world_over(&world, &wait));
    mirror_complete(m, 0);
    assert_false(world_over(&world, &wait));
    world_process(&world);
    assert_true(world_over(&world, &wait));
    assert_false(mirror_status(m).behind);
    assert_int_equal(mirror_status(m).mappings, 2);
    assert_int_equal(stats().acks_pending, 2);
}

static void test_error_later(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    mirror_complete(m, -EBUSY);
    world_process(&world);
    assert_int_equal(mirror_status(m).differences, 1);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_DIFFERS)->error, -EBUSY);
    assert_int_equal(stats().calls_failed, 1);
    assert_int_equal(stats().calls_map, 1);
}

/* An answer that is no errno counts as one. */
static void test_strange_answer(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, 77, false, 0);
    sync();
    assert_int_equal(world_event(&world, VIOMMU_EVENT_DIFFERS)->error, -EPROTO);
}

static void check_fenced(int error)
{
    const struct viommu_event *event = world_event(&world, VIOMMU_EVENT_FENCED);

    assert_int_equal(event->error, error);
    assert_int_equal(event->requester, ID);
    assert_int_equal(event->first, 0x1000);
    assert_int_equal(event->last, 0x1fff);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_DENIED)->error, error);
    assert_true(mirror_status(m).fenced);
    assert_false(mirror_status(m).behind);
    assert_int_equal(mirror_status(m).mappings, 0);
    assert_int_equal(m->fences, 1);
    assert_int_equal(dma(), -EPERM);
    assert_null(world_follow(&world)->shadows);
    assert_int_equal(stats().shadow_bytes, 0);
}

static void test_time_out(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    world.model.now += 100 * MODEL_MS - 1;
    world_run(&world);
    told("+1000-1fff>80000000rw&");
    world.model.now += 1;
    world_process(&world);
    told("!");
    check_fenced(-ETIMEDOUT);
    assert_int_equal(stats().acks_timed_out, 1);
    assert_int_equal(stats().calls_failed, 1);
}

static void test_unmap_fails(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    world_unmap(&world, 0x1000, 3);
    sync();
    told("+1000-1fff>80000000rw +3000-3fff>80000000rw -1000-1fff? !");
    check_fenced(-EIO);
    assert_int_equal(stats().calls_failed, 1);
}

static void test_unmap_fails_later(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_UNMAP);
    world_unmap(&world, 0x1000, 1);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    mirror_complete(m, -EIO);
    world_process(&world);
    told("+1000-1fff>80000000rw -1000-1fff& !");
    check_fenced(-EIO);
}

static void test_replace_fails(void **state)
{
    (void)state;
    m->what.kinds |= VIOMMU_CHANGE_REPLACE;
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_REPLACE);
    world_map(&world, 0x1000, 1, BIG, RO);
    sync();
    told("+1000-1fff>80000000rw =1000-1fff>80000000r? !");
    check_fenced(-EIO);
}

/* A fence that fails is told of, and nothing more happens. */
static void test_fence_fails(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    m->fence_answer = -ENXIO;
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    world_unmap(&world, 0x1000, 1);
    sync();
    check_fenced(-EIO);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_HOST_FAILURE)->error, -ENXIO);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_HOST_FAILURE)->requester, ID);
}

/* One that is fenced hears nothing until its device is reset; then all of it. */
static void test_let_in_again(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    world_map(&world, 0x1000, 1, BIG + 0x1000, RW);
    sync();
    mirror_told(m, m->told);
    world_map(&world, 0x3000, 2, BIG, RW);
    sync();
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    world_process(&world);
    world_add(&world, 0x200000000, 0x2000fffff, 0);
    world_process(&world);
    told("");
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_false(mirror_status(m).fenced);
    assert_true(mirror_status(m).behind);
    world_process(&world);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_REPLAY);
    told("+1000-1fff>80001000rw +3000-4fff>80000000rw");
    assert_int_equal(m->fences, 1);
    assert_int_equal(dma(), 0);
}

/* One that is fenced is not fenced again; and goes before anybody called its fence function. */
static void test_fenced_twice_and_gone(void **state)
{
    (void)state;
    iommu_lock(&world.model.iommu);
    mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EIO, true, "once");
    mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EBUSY, true, "twice");
    iommu_unlock(&world.model.iommu);
    assert_true(mirror_status(m).behind); /* it may hold something */
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
    assert_int_equal(m->fences, 0);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -EIO);
}

/* ---- its end --------------------------------------------------------------------------------- */

static void test_destroyed_while_pending(void **state)
{
    struct viommu_subscriber *subscriber = m->subscriber;
    struct wait wait;

    (void)state;
    map_pages(2);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    wait = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    m->subscriber = NULL;
    assert_int_equal(viommu_subscriber_destroy(subscriber), 0);
    assert_int_equal(viommu_change_complete(&world.model.iommu, m->outstanding.token, 0), -ENOENT);
    world_process(&world);
    assert_true(world_over(&world, &wait));
    told("+1000-1fff>80000000rw&");
    assert_int_equal(m->fences, 0);
    assert_null(world_follow(&world)->shadows);
    assert_int_equal(stats().shadow_bytes, 0);
}

/* With what it misses, and before it was told of anything. */
static void test_destroyed_at_once(void **state)
{
    (void)state;
    map_pages(1);
    assert_int_equal(mirror_subscribe(m), 0);
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    assert_int_equal(mirror_subscribe(m), 0);
    mirror_answers(m, 1, -EBUSY, true, 0);
    world_process(&world);
    assert_int_equal(mirror_status(m).differences, 1);
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
    told("+1000-1fff>80000000rw?");
    assert_int_equal(world_follow(&world)->odd_bytes, 0);
}

/* The device takes another id: calls name the new one. */
static void test_another_id(void **state)
{
    (void)state;
    map_pages(1);
    sync();
    assert_int_equal(viommu_device_set_requester(m->device, 0x77), 0);
    assert_true(mirror_status(m).behind);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("+1000-1fff>80000000rw -1000-1fff"); /* mirror_check compares the id */
    assert_int_equal(m->last.requester, 0x77);
}

/* ---- every call ------------------------------------------------------------------------------ */

/* Changes of all kinds, one after the other. */
static void change(unsigned step)
{
    switch (step) {
    case 0:
        world_map(&world, 0x1000, 4, BIG, RW);
        world_map(&world, 0x8000, 2, BIG, RW);
        break;
    case 1:
        world_map(&world, 0x2000, 1, BIG + 0x8000, RO);
        world_map(&world, 0x8000, 2, BIG + 0x4000, RW);
        break;
    case 2:
        world_show(&world, world_identity());
        break;
    case 3:
        (void)world_remove(&world, BIG, BIG + SIZE_1G - 1);
        break;
    case 4:
        world_show(&world, world.tables);
        break;
    default:
        world_add(&world, BIG, BIG + SIZE_1G - 1, 0);
        break;
    }
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
}

/* Does it all with the n-th call answered like that; returns whether there were so many. */
static bool with_answer(unsigned n, int answer, int later, enum viommu_form form)
{
    m = mirror_create(&world, ID);
    m->what.kinds |= VIOMMU_CHANGE_REPLACE;
    m->what.form = form;
    assert_int_equal(mirror_subscribe(m), 0);
    mirror_answers(m, n, answer, false, 0);
    for (unsigned step = 0; step < 6; step++) {
        change(step);
        for (unsigned i = 0; i < 4; i++) {
            world_run(&world);
            if (m->pending) {
                mirror_complete(m, later);
            }
        }
        world_process(&world);
    }
    assert_int_equal(viommu_memory_process(world.model.memory), 0);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    assert_false(mirror_status(m).fenced);
    assert_int_equal(mirror_status(m).differences, 0);
    assert_int_equal(m->mapped_count, form == VIOMMU_FORM_RANGE ? 4 : 5);
    return m->calls >= n;
}

static void with_every_call(int answer, int later, unsigned budget, enum viommu_form form)
{
    bool more = true;

    for (unsigned n = 1; more; n++) {
        world = (struct world){0};
        world_create(&world);
        world.budget = budget;
        more = with_answer(n, answer, later, form);
        if (!more) {
            assert_true(n > 10);
        }
        world_destroy(&world);
    }
}

static void test_every_call_fails(void **state)
{
    (void)state;
    with_every_call(-EBUSY, 0, 0, VIOMMU_FORM_RANGE);
    with_every_call(-EBUSY, 0, 1, VIOMMU_FORM_POW2);
}

static void test_every_call_pending(void **state)
{
    (void)state;
    with_every_call(VIOMMU_PENDING, 0, 0, VIOMMU_FORM_POW2);
    with_every_call(VIOMMU_PENDING, 0, 1, VIOMMU_FORM_RANGE);
    with_every_call(VIOMMU_PENDING, -EIO, 1, VIOMMU_FORM_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_interrupt_range, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_allowed_ranges, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_allowed, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_to_attach, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_fd, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_answered_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_error_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strange_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unmap_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unmap_fails_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace_fails, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_fence_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_let_in_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fenced_twice_and_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_while_pending, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_at_once, setup_unsubscribed, teardown),
        cmocka_unit_test_setup_teardown(test_another_id, setup, teardown),
        cmocka_unit_test(test_every_call_fails),
        cmocka_unit_test(test_every_call_pending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
