/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of guest memory that comes and goes under mirrors: nothing goes before they have let go of
 * it, whatever they answer; and track that was lost is found again.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

#define SLOT UINT64_C(0x200000000) /* a second slot, of 64 KiB */
#define SLOT_LAST (SLOT + 0xffff)

/* The mirror follows from the start on with two slots, BIG and SLOT. */
static int setup_with_slot(void **state)
{
    (void)state;
    world = (struct world){0};
    world_create(&world);
    world_add(&world, SLOT, SLOT_LAST, 0);
    m = mirror_follows(&world, ID, 0);
    return 0;
}

static void show(struct shadow_view view)
{
    world_show(&world, view);
    world_process(&world);
    mirror_told(m, m->told);
}

/* A page of SLOT at 0x1000, one of BIG at 0x3000. */
static void map_in_both(void)
{
    world_map(&world, 0x1000, 1, SLOT, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
}

/* Whether readers find memory there. */
static bool present(uint64_t gpa)
{
    char byte;

    return viommu_memory_read(world.model.memory, gpa, &byte, 1) == 0;
}

static void test_removed_and_added(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, SLOT, RW);
    world_map(&world, 0x4000, 1, BIG, RW);
    sync();
    told("+1000-2fff>200000000rw +4000-4fff>80000000rw");
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    assert_true(present(SLOT)); /* the mirror has not let go */
    told("");
    world_process(&world);
    assert_false(present(SLOT));
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_MEMORY);
    told("-1000-2fff");
    assert_int_equal(viommu_memory_process(world.model.memory), 0);
    world_add(&world, SLOT, SLOT_LAST, 0);
    world_process(&world);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_MEMORY);
    told("+1000-2fff>200000000rw");
    world_add(&world, 0x300000000, 0x300000fff, 0);
    world_process(&world);
    told("");
    assert_int_equal(model_stats(&world.model).windows, 0);
}

/* Part of an extent goes: what is left is mapped again at once. */
static void test_part_of_an_extent(void **state)
{
    (void)state;
    world_add(&world, SLOT + 0x10000, SLOT + 0x10fff, 0);
    world_add(&world, SLOT + 0x20000, SLOT + 0x20fff, 0);
    world_process(&world);
    world_map(&world, 0x1000, 4, SLOT + 0xe000, RW); /* two of SLOT, one, one that is not there */
    sync();
    told("+1000-2fff>20000e000rw +3000-3fff>200010000rw");
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_process(&world);
    told("-1000-2fff");
    assert_int_equal(world_remove(&world, SLOT + 0x20000, SLOT + 0x20fff), VIOMMU_PENDING);
    world_process(&world);
    told("");
    world_add(&world, SLOT + 0x11000, SLOT + 0x11fff, VIOMMU_MEMORY_READONLY);
    world_process(&world);
    told("+4000-4fff>200011000r");
}

/* The same memory, made anew, with other flags: it goes and comes. */
static void test_replaced_slot(void **state)
{
    struct viommu_memory_slot slot = {.first = SLOT,
                                      .last = SLOT_LAST,
                                      .host = world.backing + SLOT,
                                      .fd = -1,
                                      .flags = VIOMMU_MEMORY_READONLY};
    struct viommu_memory_batch *batch;

    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    assert_int_equal(viommu_memory_batch_begin(world.model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, SLOT, SLOT_LAST), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    assert_int_equal(viommu_memory_batch_commit(batch, NULL, NULL), VIOMMU_PENDING);
    world_process(&world);
    told("+1000-1fff>200000000rw -1000-1fff +1000-1fff>200000000r");
}

static void test_identity(void **state)
{
    (void)state;
    show(world_identity());
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_process(&world);
    told("-200000000-20000ffff");
    world_add(&world, 0x100000000, 0x100000fff, 0); /* between others */
    world_process(&world);
    told("+100000000-100000fff>100000000rw");
    world_add(&world, 0xfe000000, 0xffffffff, 0); /* around the interrupt range */
    world_process(&world);
    told("+fe000000-fedfffff>fe000000rw +fef00000-ffffffff>fef00000rw");
    world_map(&world, 0x1000, 1, 0xfee00000, RW);
    world_map(&world, 0x2000, 2, 0xfedff000, RW);
    world_map(&world, 0x5000, 2, 0xfeeff000, RW);
    show(world.tables);
    assert_int_equal(m->mapped_count, 2); /* nothing of the range itself */
    show(world_identity());
    assert_int_equal(world_remove(&world, 0xfe000000, 0xffffffff), VIOMMU_PENDING);
    world_process(&world);
    told("-fe000000-fedfffff -fef00000-ffffffff");
}

/* The file's offset above the interrupt range. */
static void test_file_of_a_cut_slot(void **state)
{
    (void)state;
    world.fd = 9;
    world_add(&world, 0xfe000000, 0xffffffff, 0);
    world.fd = 0;
    world_process(&world);
    world_map(&world, 0x1000, 1, 0xfef01000, RW);
    m->what.change = NULL;
    world.fd = 9; /* what mirror_check expects of calls */
    sync();
    told("+1000-1fff>fef01000rw");
    world.fd = 0;
}

/* A slot goes in which an odd mapping lies: nothing else is touched, and the rest stays odd. */
static void test_odd(void **state)
{
    (void)state;
    world_map(&world, SLOT + 0x1000, 1, SLOT + 0x1000, RW);
    world_map(&world, BIG + 0x1000, 1, BIG + 0x1000, RW);
    sync();
    show(world_identity());
    assert_int_equal(m->subscriber->mirror->odd.count, 2);
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_process(&world);
    told("-200000000-200000fff -200001000-200001fff -200002000-20000ffff");
    show(world.tables);
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
    assert_int_equal(m->mapped_count, 1);
    assert_int_equal(m->mapped[0].first, BIG + 0x1000);
}

/* ---- late and failing answers ---------------------------------------------------------------- */

static void test_late_answer(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_run(&world);
    world_run(&world);
    told("+1000-1fff>200000000rw -1000-1fff&");
    assert_true(present(SLOT));
    mirror_complete(m, 0);
    world_process(&world);
    assert_false(present(SLOT));
}

/* In the middle of a batch: it is in the next one, and still goes before memory does. */
static void test_in_a_batch(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_run(&world);
    assert_true(present(SLOT));
    mirror_complete(m, 0);
    world_process(&world);
    told("+1000-1fff>200000000rw& -1000-1fff");
    assert_false(present(SLOT));
}

static void test_fenced_by_time(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_run(&world);
    world.model.now += 100 * MODEL_MS;
    world_process(&world);
    told("+1000-1fff>200000000rw -1000-1fff& !");
    assert_false(present(SLOT));
}

/* Missing mappings in a slot that goes are not missing any more; when it comes they are made. */
static void test_missing(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    mirror_answers(m, 1, -EBUSY, false, 0);
    sync();
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    world_process(&world);
    told("+1000-1fff>200000000rw?");
    assert_int_equal(mirror_status(m).differences, 0);
    world_add(&world, SLOT, SLOT_LAST, 0);
    world_process(&world);
    told("+1000-1fff>200000000rw");
}

/* One that is fenced holds nothing: memory does not wait for it. */
static void test_fenced(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    world_unmap(&world, 0x1000, 1);
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    sync();
    mirror_told(m, m->told);
    (void)world_remove(&world, SLOT, SLOT_LAST);
    world_process(&world);
    assert_false(present(SLOT));
    told("");
}

/* Nor is it told of what is as it was. */
static void test_fenced_with_skips(void **state)
{
    struct test_mirror *n = mirror_follows(&world, OTHER, VIOMMU_CHANGE_SKIPPED);

    (void)state;
    iommu_lock(&world.model.iommu);
    mirror_fence_for(&world.model.iommu, n->subscriber->mirror, -EIO, true, "a test");
    iommu_unlock(&world.model.iommu);
    world_process(&world);
    mirror_told(n, "!");
    (void)world_remove(&world, SLOT, SLOT_LAST);
    world_process(&world);
    mirror_told(n, "");
}

static bool fence_before_memory;

static int fence_looks(void *opaque)
{
    fence_before_memory = world_follow(&world)->notes != NULL;
    return mirror_on_fence(opaque);
}

/* Memory is not told to go on before a mirror that failed to let go has been fenced. */
static void test_fence_before_memory(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    m->subscriber->what.fence = fence_looks;
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    fence_before_memory = false;
    world_process(&world);
    assert_true(fence_before_memory);
    assert_false(present(SLOT));
}

/* The instance goes while memory waits for its mirrors. */
static void test_destroyed_meanwhile(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    sync();
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    viommu_memory_process(world.model.memory);
    assert_true(present(SLOT));
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world); /* without mirrors there is nothing to wait for */
    assert_false(present(SLOT));
}

/* ---- several changes ------------------------------------------------------------------------- */

static void test_queued(void **state)
{
    (void)state;
    world_add(&world, 0x300000000, 0x300000fff, 0);
    world_process(&world);
    world_map(&world, 0x1000, 1, SLOT, RW);
    world_map(&world, 0x3000, 1, 0x300000000, RW);
    world_map(&world, 0x5000, 1, 0x400000, RW);
    sync();
    told("+1000-1fff>200000000rw +3000-3fff>300000000rw");
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    assert_int_equal(world_remove(&world, 0x300000000, 0x300000fff), VIOMMU_PENDING);
    assert_int_equal(world_add_slot(&world, 0x400000, 0x400fff, 0), VIOMMU_PENDING);
    world_process(&world);
    world_process(&world);
    told("-1000-1fff -3000-3fff +5000-5fff>400000rw");
    assert_false(present(SLOT));
    assert_false(present(0x300000000));
    assert_true(present(0x400000));
    assert_int_equal(viommu_memory_process(world.model.memory), 0);
}

/* A subscriber that comes while a removal is under way. */
static void test_mirror_comes_meanwhile(void **state)
{
    struct test_mirror *n = mirror_create(&world, OTHER);

    (void)state;
    map_in_both();
    told("+1000-1fff>200000000rw +3000-3fff>80000000rw");
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    assert_int_equal(mirror_subscribe(n), 0);
    world_process(&world);
    told("-1000-1fff");
    mirror_told(n, "+3000-3fff>80000000rw");
}

/* ---- lost track ------------------------------------------------------------------------------ */

/* No memory to note what goes: all are fenced, and memory waits for the fence functions. */
static void test_no_memory_for_a_removal(void **state)
{
    (void)state;
    map_in_both();
    mirror_told(m, m->told);
    world_follow(&world)->memory_stale = true; /* as if there had been no memory */
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    assert_true(mirror_status(m).fenced);
    assert_true(present(SLOT));
    assert_int_equal(m->fences, 0);
    world_process(&world);
    told("!");
    assert_false(present(SLOT));
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -ENOMEM);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    told("+3000-3fff>80000000rw");
    world_add(&world, SLOT, SLOT_LAST, 0);
    world_process(&world);
    told("+1000-1fff>200000000rw");
}

/* Let in again while a removal is under way it is told of no memory before that is over. */
static void test_caught_up_later(void **state)
{
    (void)state;
    map_in_both();
    mirror_told(m, m->told);
    world_follow(&world)->memory_stale = true;
    assert_int_equal(world_remove(&world, SLOT, SLOT_LAST), VIOMMU_PENDING);
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_int_equal(viommu_process(&world.model.iommu, 0), 0);
    told("!");
    assert_int_equal(m->mapped_count, 0);
    world_process(&world); /* memory goes on */
    assert_false(present(SLOT));
    told("+3000-3fff>80000000rw");
}

/* Removes SLOT, or adds it, and the n-th allocation of the commit fails; says what that said. */
static int change_slot(unsigned long n, bool removal)
{
    struct viommu_memory_slot slot = {
        .first = SLOT, .last = SLOT_LAST, .host = world.backing + SLOT, .fd = -1};
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(world.model.memory, &batch), 0);
    if (removal) {
        assert_int_equal(viommu_memory_batch_remove(batch, SLOT, SLOT_LAST), 0);
    } else {
        assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    }
    base_alloc_fail_at(n);
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

/* Each allocation of a change of memory fails once. Returns whether there were so many. */
static bool change_with_failure(unsigned long n, bool removal)
{
    bool failed;

    world = (struct world){0};
    world_create(&world);
    if (removal) {
        world_add(&world, SLOT, SLOT_LAST, 0);
    }
    m = mirror_follows(&world, ID, 0);
    map_in_both();
    failed = change_slot(n, removal) == -ENOMEM;
    if (failed) {
        (void)change_slot(0, removal);
    }
    world_process(&world);
    failed |= base_alloc_failed();
    base_alloc_fail_at(0);
    assert_int_equal(present(SLOT), !removal);
    assert_int_equal(m->fences, mirror_status(m).fenced);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, removal ? 1 : 2);
    assert_false(world_follow(&world)->memory_stale);
    world_destroy(&world);
    return failed;
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        unsigned long n = 1;

        while (change_with_failure(n, i == 0)) {
            n++;
        }
        assert_true(n >= 4); /* the memory's own, the note, the list */
    }
}

/* Track is lost at the end of a removal, with the memory of that removal on its way. */
static void test_lost_while_walking(void **state)
{
    unsigned long n = 1;

    (void)state;
    map_in_both();
    mirror_told(m, m->told);
    mirror_answers(m, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_MAP);
    world_add(&world, 0x300000000, 0x300000fff, 0);
    world_map(&world, 0x5000, 1, 0x300000000, RW);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    assert_true(m->pending);
    while (change_slot(n, true) == -ENOMEM) {
        n++; /* the memory's own come first, then the note */
    }
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_true(mirror_status(m).fenced);
    world_process(&world);
    assert_false(present(SLOT));
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, 2);
}

/* Track is lost while mirrors walk to memory that came: what they walked to does not count. */
static void test_lost_in_a_memory_walk(void **state)
{
    unsigned long n = 1;

    (void)state;
    world_map(&world, 0x1000, 1, SLOT, RW);
    world_map(&world, 0x3000, 1, 0x300000000, RW);
    sync();
    mirror_told(m, m->told);
    mirror_answers(m, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_MAP);
    world_add(&world, 0x300000000, 0x300000fff, 0);
    assert_int_equal(viommu_process(&world.model.iommu, 0), 0);
    told("+3000-3fff>300000000rw&");
    assert_non_null(world_follow(&world)->memory_next);
    while (change_slot(n, true) == -ENOMEM) {
        n++;
    }
    assert_true(mirror_status(m).fenced);
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_int_equal(viommu_process(&world.model.iommu, 0), 0);
    told("!");
    assert_int_equal(m->mapped_count, 0); /* nobody can tell what is there */
    world_process(&world);
    told("+3000-3fff>300000000rw");
    assert_false(present(SLOT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_removed_and_added, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_part_of_an_extent, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_replaced_slot, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_file_of_a_cut_slot, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_odd, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_late_answer, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_in_a_batch, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_fenced_by_time, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_missing, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_fenced, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_destroyed_meanwhile, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_fenced_with_skips, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_fence_before_memory, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_lost_in_a_memory_walk, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_queued, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_mirror_comes_meanwhile, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_a_removal, setup_with_slot, teardown),
        cmocka_unit_test_setup_teardown(test_caught_up_later, setup_with_slot, teardown),
        cmocka_unit_test(test_every_allocation_fails),
        cmocka_unit_test_setup_teardown(test_lost_while_walking, setup_with_slot, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
