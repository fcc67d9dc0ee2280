/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of batches: in which order things happen, who waits for what, views, and that anything may
 * happen in the middle of anything. Several mirrors of one set of tables: shared_test.c.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

/* ---- who waits for what ---------------------------------------------------------------------- */

static void test_nobody_concerned(void **state)
{
    struct wait wait;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    wait = world_ask(&world, DOMAIN + 1, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    assert_int_equal(wait.follow, 0);
    assert_true(world_over(&world, &wait));
    world_process(&world);
    told("");
    wait = world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
    assert_int_not_equal(wait.follow, 0);
    assert_false(world_over(&world, &wait));
    world_process(&world);
    assert_true(world_over(&world, &wait));
    told("+1000-1fff>80000000rw");
}

/* Without tables of the domain there is nothing to be synced. */
static void test_no_tables(void **state)
{
    struct wait wait;

    (void)state;
    world_show(&world, (struct shadow_view){.kind = VIEW_NONE, .domain = DOMAIN});
    world_process(&world);
    wait = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    assert_int_equal(wait.follow, 0);
    wait = world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    assert_int_equal(wait.follow, 0);
}

/* One that is to be looked at may be in any domain. */
static void test_while_reviewed(void **state)
{
    struct wait review = world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    struct wait wait = world_ask(&world, DOMAIN + 1, 0x1000, 0x1fff, VIOMMU_CAUSE_PAGES);

    (void)state;
    assert_int_not_equal(wait.follow, 0);
    assert_int_equal(wait.follow, review.follow);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_process(&world);
    told("+1000-1fff>80000000rw");
    assert_true(world_over(&world, &wait));
}

/* What comes while a batch runs is in the next one. */
static void test_next_batch(void **state)
{
    struct wait first;
    struct wait second;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
    first = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    world_map(&world, 0x2000, 1, BIG, RW);
    second = world_ask(&world, DOMAIN, 0x2000, 0x2fff, VIOMMU_CAUSE_PAGES);
    assert_int_equal(second.follow, first.follow + 1);
    mirror_complete(m, 0);
    world_run(&world);
    assert_true(world_over(&world, &first));
    assert_false(world_over(&world, &second));
    told("+1000-1fff>80000000rw& +2000-2fff>80000000rw&");
    mirror_complete(m, 0);
    world_process(&world);
    assert_true(world_over(&world, &second));
}

/* What is asked for of tables that a mirror is about to have. */
static void test_while_switching(void **state)
{
    struct shadow_view new;
    struct wait wait;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    new = world_tables(&world);
    new.domain = DOMAIN + 1;
    world_show(&world, new);
    world.tables = new;
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    world_run(&world);
    assert_true(m->pending && m->subscriber->mirror->switching);
    world_map(&world, 0x5000, 1, BIG, RW);
    wait = world_ask(&world, DOMAIN + 1, 0x5000, 0x5fff, VIOMMU_CAUSE_PAGES);
    assert_int_not_equal(wait.follow, 0);
    mirror_complete(m, 0);
    world_process(&world);
    assert_true(world_over(&world, &wait));
    told("+1000-1fff>80000000rw -1000-1fff& +5000-5fff>80000000rw");
}

/* One that is fenced holds what it did until its fence function was called. */
static void test_while_a_fence_is_due(void **state)
{
    struct wait sync_wait;
    struct wait review;

    (void)state;
    iommu_lock(&world.model.iommu);
    mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EIO, true, "a test");
    iommu_unlock(&world.model.iommu);
    sync_wait = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    review = world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    assert_false(world_over(&world, &sync_wait));
    assert_false(world_over(&world, &review));
    world_process(&world);
    assert_true(world_over(&world, &sync_wait));
    assert_int_equal(m->fences, 1);
    assert_int_equal(world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN).follow, 0);
    assert_int_equal(world_ask_review(&world, VIOMMU_CAUSE_CONTEXT).follow, 0);
}

/* While a batch is not complete nothing is due at a time. */
static void test_no_deadline_meanwhile(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RO);
    world_map(&world, 0x2000, 1, BIG, RW);
    mirror_answers(m, 1, -EBUSY, false, 0);
    sync();
    assert_int_not_equal(follow_deadline(&world.model.iommu), 0);
    world_map(&world, 0x8000, 1, BIG, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    (void)world_ask(&world, DOMAIN, 0x8000, 0x8fff, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    assert_int_equal(follow_deadline(&world.model.iommu), 0);
    mirror_complete(m, 0);
    world_process(&world);
    assert_int_not_equal(follow_deadline(&world.model.iommu), 0);
}

/* More ranges than are kept apart are one large one, and so are those without memory. */
static void test_many_ranges(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    for (unsigned i = 0; i < 600; i++) {
        (void)world_ask(&world, DOMAIN, SIZE_1G + 2 * i * PAGE, SIZE_1G + 2 * i * PAGE,
                        VIOMMU_CAUSE_PAGES);
    }
    world_process(&world);
    told("+1000-1fff>80000000rw");
    world_map(&world, 0x2000, 1, BIG, RW);
    for (unsigned i = 0; i < 500; i++) {
        (void)world_ask(&world, DOMAIN, SIZE_1G + 2 * i * PAGE, SIZE_1G + 2 * i * PAGE,
                        VIOMMU_CAUSE_PAGES);
    }
    world_process(&world);
    told("");
    base_alloc_fail_at(1);
    (void)world_ask(&world, DOMAIN, SIZE_1G, SIZE_1G, VIOMMU_CAUSE_PAGES);
    assert_true(base_alloc_failed());
    world_process(&world);
    told("+2000-2fff>80000000rw");
    world_map(&world, 0x4000, 1, BIG, RW);
    mirror_answers(m, 1, -EBUSY, false, 0);
    world_sync(&world, 0x4000, 0x4fff);
    base_alloc_fail_at(1);
    (void)world_ask(&world, DOMAIN, SIZE_1G, SIZE_1G, VIOMMU_CAUSE_PAGES);
    world_process(&world);
    told("+4000-4fff>80000000rw? +4000-4fff>80000000rw"); /* it covers that, too */
}

/* Of several that miss something the earliest is due. */
static void test_earliest_deadline(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, 0);
    struct test_mirror *order[2] = {m, n};
    uint64_t first;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        world_map(&world, 0x1000, 1, BIG, RW);
        mirror_answers(order[i], 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
        sync();
        first = follow_deadline(&world.model.iommu);
        assert_int_equal(first, world.model.now + 10 * MODEL_MS);
        world.model.now += 5 * MODEL_MS;
        mirror_answers(order[1 - i], 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
        world_map(&world, 0x3000, 1, BIG, RW);
        world_sync(&world, 0x3000, 0x3fff);
        assert_int_equal(mirror_status(order[1 - i]).differences, 1);
        assert_int_equal(follow_deadline(&world.model.iommu), first);
        mirror_answers(m, 0, 0, false, 0);
        mirror_answers(n, 0, 0, false, 0);
        world_unmap(&world, 0x1000, 3);
        sync();
        assert_int_equal(follow_deadline(&world.model.iommu), 0);
    }
}

/* ---- views ----------------------------------------------------------------------------------- */

static void test_before_the_start(void **state)
{
    struct world *w = &world;

    (void)state;
    *w = (struct world){0};
    w->backing = mmap(NULL, BACKING, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                      0);
    assert_ptr_not_equal(w->backing, MAP_FAILED);
    w->next_table = PAGE;
    model_create(&w->model);
    model_add_ram(&w->model, 0, MODEL_RAM - 1, 0);
    w->tables = world_tables(w);
    w->model.view = w->tables;
    m = mirror_create(w, ID);
    assert_int_equal(mirror_subscribe(m), 0);
    world_map(w, 0x1000, 1, BIG, RW);
    assert_int_equal(viommu_process(&w->model.iommu, 0), -EAGAIN);
    world_add(w, BIG, BIG + SIZE_1G - 1, 0);
    assert_int_equal(world_remove(w, BIG, BIG + SIZE_1G - 1), 0);
    world_add(w, BIG, BIG + SIZE_2M - 1, 0);
    told("");
    assert_int_equal(viommu_start(&w->model.iommu), 0);
    assert_true(mirror_status(m).behind);
    world_process(w);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_REPLAY);
    told("+1000-1fff>80000000rw");
    world_show(w, world_identity());
    world_process(w);
    told("-1000-1fff +0-3ffff>0rw +80000000-801fffff>80000000rw");
}

static void test_same_view(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    forget();
    world.model.view.domain = DOMAIN + 1;
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    world_process(&world);
    told("");
    world_unmap(&world, 0x1000, 1);
    assert_int_equal(world_ask(&world, DOMAIN, 0, UINT64_MAX, 0).follow, 0);
    assert_int_not_equal(world_ask(&world, DOMAIN + 1, 0, UINT64_MAX, 0).follow, 0);
    world_process(&world);
    told("-1000-1fff");
    world_show(&world, world_identity());
    world_process(&world);
    forget();
    world_show(&world, world_identity());
    world_process(&world);
    told("");
    world_show(&world, (struct shadow_view){.kind = VIEW_IDENTITY, .last = MODEL_RAM - 1});
    world_process(&world);
    told("-80000000-bfffffff");
    world_show(&world, (struct shadow_view){0});
    world_process(&world);
    told("-0-3ffff");
    world_show(&world, (struct shadow_view){0});
    world_process(&world);
    told("");
}

/* One table, read as the top of another number of levels, is another set of tables. */
static void test_other_levels(void **state)
{
    struct shadow_view view = world.tables;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    told("+1000-1fff>80000000rw");
    view.levels = 2;
    view.root = *world_entry(&world, 0, 2) & PAGETABLE_ADDRESS;
    world_show(&world, view);
    world_process(&world);
    told(""); /* it says the same */
    assert_int_equal(m->subscriber->mirror->shadow->map.levels, 2);
    view.levels = 3;
    world_show(&world, view);
    world_process(&world);
    told("-1000-1fff");
    assert_int_equal(m->subscriber->mirror->shadow->map.levels, 3);
}

/* The new tables are read before the old view is left, and those are not synced before that. */
static void test_moves_to_other_tables(void **state)
{
    struct shadow_view new = world_tables(&world);
    struct wait wait;

    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    forget();
    world_unmap(&world, 0x1000, 2); /* the guest takes them apart */
    world.tables = new;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x5000, 1, BIG, RW);
    world.model.view = new;
    wait = world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    world_process(&world);
    assert_true(world_over(&world, &wait));
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_CONTEXT);
    told("-1000-2fff +1000-1fff>80000000rw +5000-5fff>80000000rw");
    assert_int_equal(m->subscriber->mirror->shadow->root, new.root);
    assert_null(world_follow(&world)->shadows->next);
}

static void test_no_memory_for_tables(void **state)
{
    (void)state;
    world_show(&world, world_identity());
    world_process(&world);
    forget();
    world_show(&world, world.tables);
    base_alloc_fail_at(1);
    world_process(&world);
    assert_true(base_alloc_failed());
    told("!");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -ENOMEM);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 1);
}

/* A platform reset: views are looked at again, and all are let in. */
static void test_reset(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    world_map(&world, 0x1000, 1, BIG, RO);
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    sync();
    assert_true(mirror_status(m).fenced);
    forget();
    assert_int_equal(viommu_reset(&world.model.iommu), 0);
    world_process(&world);
    told("+1000-1fff>80000000r");
    world.model.view = (struct shadow_view){0};
    assert_int_equal(viommu_reset(&world.model.iommu), 0);
    world_process(&world);
    told("-1000-1fff");
}

/* ---- in small steps -------------------------------------------------------------------------- */

/* A shadow without users is freed piece by piece. */
static void test_freed_piece_by_piece(void **state)
{
    unsigned steps = 0;

    (void)state;
    for (unsigned i = 0; i < 20; i++) {
        world_map(&world, i * SIZE_2M, 1, BIG, RW);
        world_map(&world, i * SIZE_2M + 2 * PAGE, 1, BIG, RW);
    }
    *world_entry(&world, SIZE_1G, 2) = *world_entry(&world, 0, 2); /* many blocks, few tables */
    *world_entry(&world, 2 * SIZE_1G, 2) = *world_entry(&world, 0, 2);
    for (unsigned i = 3; i < 9; i++) {
        *world_entry(&world, i * SIZE_1G, 2) = *world_entry(&world, 0, 2);
    }
    sync();
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0); /* in use */
    assert_non_null(world_follow(&world)->dying);
    while (world_follow(&world)->dying) {
        assert_int_equal(viommu_process(&world.model.iommu, 1), VIOMMU_PENDING);
        steps++;
    }
    assert_true(steps >= 180 / 64);
    world_process(&world);
}

/* A unit of budget is a page of tables compared, or a call. */
static void test_budget(void **state)
{
    unsigned calls = 0;
    int ret;

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        world_map(&world, 2 * i * PAGE, 1, BIG, RW);
    }
    (void)world_ask(&world, DOMAIN, 0, SIZE_2M - 1, VIOMMU_CAUSE_DOMAIN);
    do {
        unsigned before = m->calls;

        ret = viommu_process(&world.model.iommu, 1);
        assert_true(m->calls <= before + 1);
        calls++;
    } while (ret == VIOMMU_PENDING);
    assert_true(calls >= 11 && calls < 100);
    assert_int_equal(m->mapped_count, 10);
}

/* ---- anything in the middle of anything ------------------------------------------------------ */

enum disturbance {
    FENCE,
    DESTROY,
    DEVICE_RESET,
    RESET,
    REVIEW,
    ANOTHER_SYNC,
    LOSE_MEMORY,
    ANOTHER_MIRROR,
    DISTURBANCES,
};

static void disturb(enum disturbance what)
{
    switch (what) {
    case FENCE:
        iommu_lock(&world.model.iommu);
        mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EIO, true, "a test");
        iommu_unlock(&world.model.iommu);
        break;
    case DESTROY:
        assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
        m->subscriber = NULL;
        break;
    case DEVICE_RESET:
        assert_int_equal(viommu_device_reset(m->device), 0);
        break;
    case RESET:
        assert_int_equal(viommu_reset(&world.model.iommu), 0);
        break;
    case REVIEW:
        (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
        break;
    case ANOTHER_SYNC:
        (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
        break;
    case LOSE_MEMORY:
        base_alloc_fail_at(1);
        break;
    default:
        (void)mirror_subscribe(mirror_create(&world, 0x99));
        break;
    }
}

/* A batch with all phases: memory, review, fill, switch, sync, retry. Returns its wait. */
static struct wait begin_all(struct test_mirror *n)
{
    struct shadow_view old = world.tables;
    struct wait wait;

    world_map(&world, 0x1000, 4, BIG, RW);
    world_map(&world, 0x7000, 1, BIG + SIZE_1G, RW); /* no memory yet */
    mirror_answers(n, 1, -EBUSY, false, VIOMMU_CHANGE_MAP);
    sync();
    forget();
    mirror_told(n, n->told);
    (void)world_remove(&world, BIG, BIG + SIZE_1G - 1);
    world_map(&world, 0x2000, 1, 0x9000, RO);
    world.tables = world_tables(&world);
    world_map(&world, 0x3000, 2, BIG + 0x2000, RW);
    world_map(&world, 0x20000, 2, 0x5000, RW);
    world.model.view_of = view_of; /* n keeps the old ones */
    other_view = old;
    world.model.view = world.tables;
    wait = world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_GLOBAL);
    return wait;
}

/* Does something after so many steps. Returns whether there were so many. */
static bool disturbed(enum disturbance what, unsigned after)
{
    struct test_mirror *n;
    struct wait wait;
    unsigned i = 0;

    world = (struct world){0};
    world_create(&world);
    m = mirror_follows(&world, ID, VIOMMU_CHANGE_SKIPPED);
    n = mirror_follows(&world, OTHER, VIOMMU_CHANGE_REPLACE);
    wait = begin_all(n);
    while (i < after && viommu_process(&world.model.iommu, 1) == VIOMMU_PENDING) {
        i++;
    }
    disturb(what);
    world_process(&world);
    base_alloc_fail_at(0);
    assert_true(world_over(&world, &wait));
    assert_int_equal(viommu_memory_process(world.model.memory), 0); /* the slot is gone */
    world_add(&world, BIG, BIG + SIZE_1G - 1, 0);
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_int_equal(viommu_device_reset(n->device), 0);
    world_process(&world);
    if (m->subscriber) {
        assert_int_equal(m->mapped_count, 2);
    }
    assert_int_equal(n->mapped_count, 3);
    world_destroy(&world);
    return i == after;
}

static void test_disturbed(void **state)
{
    (void)state;
    for (unsigned what = 0; what < DISTURBANCES; what++) {
        unsigned after = 0;

        while (disturbed(what, after)) {
            after++;
        }
        assert_true(after > 15);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nobody_concerned, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_reviewed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_next_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_switching, setup, teardown),
        cmocka_unit_test_setup_teardown(test_while_a_fence_is_due, setup, teardown),
        cmocka_unit_test_setup_teardown(test_earliest_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_deadline_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_before_the_start, NULL, teardown),
        cmocka_unit_test_setup_teardown(test_same_view, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_levels, setup, teardown),
        cmocka_unit_test_setup_teardown(test_moves_to_other_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed_piece_by_piece, setup, teardown),
        cmocka_unit_test_setup_teardown(test_budget, setup, teardown),
        cmocka_unit_test(test_disturbed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
