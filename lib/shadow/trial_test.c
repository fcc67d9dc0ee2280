/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Trials: mappings that come and go, and views that mirrors may refuse; what is in the map, what
 * DMA finds there, and what a layout shows meanwhile.
 */
#include "shadow/test_mirror.h"

#include <errno.h>

static struct world world;
static struct mappings *mappings;
static struct test_mirror *mirror;
static struct test_mirror *other; /* of another device; it has the same */

static struct mappings *mappings_create(void)
{
    struct mappings *created = base_alloc(sizeof(*created));

    assert_non_null(created);
    mappings_init(created, world.model.iommu.epoch);
    return created;
}

static struct shadow_view view_of(struct mappings *of)
{
    return (struct shadow_view){.kind = VIEW_MAPPINGS, .last = UINT64_MAX, .mappings = of};
}

static void insert(uint64_t first, uint64_t last, uint64_t gpa)
{
    struct range_run run = {first, last, gpa, RW};

    assert_int_equal(range_map_insert(&mappings->map, &run), 0);
}

static int setup(void **state)
{
    (void)state;
    world_create(&world);
    mappings = mappings_create();
    mirror = mirror_follows(&world, 8, 0);
    other = mirror_follows(&world, 16, 0);
    world_show(&world, view_of(mappings));
    world_process(&world);
    assert_int_equal(mappings->users, 3);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mappings_put(mappings);
    world_destroy(&world);
    return 0;
}

static void add(uint64_t first, uint64_t last, uint64_t gpa)
{
    insert(first, last, gpa);
    iommu_lock(&world.model.iommu);
    assert_true(follow_shares(&world.model.iommu, mappings));
    follow_add(&world.model.iommu, NULL, mappings, first, last);
    iommu_unlock(&world.model.iommu);
}

static void take(uint64_t first, uint64_t last)
{
    iommu_lock(&world.model.iommu);
    follow_remove(&world.model.iommu, NULL, mappings, first, last);
    iommu_unlock(&world.model.iommu);
}

static void move(const struct shadow_view *view)
{
    iommu_lock(&world.model.iommu);
    follow_move(&world.model.iommu, NULL, 8, view);
    iommu_unlock(&world.model.iommu);
}

static void cancel(void)
{
    iommu_lock(&world.model.iommu);
    follow_cancel(&world.model.iommu);
    iommu_unlock(&world.model.iommu);
}

static void expect_tried(unsigned count, int error)
{
    assert_int_equal(world.model.tried, count);
    assert_int_equal(world.model.tried_error, error);
}

static bool dma_finds(uint64_t address)
{
    struct range_run run;

    return mappings_find(mappings, address, &run);
}

/* Runs in a trial are hidden from DMA, and from layouts on one side. */
static void test_next(void **state)
{
    struct range_run run;

    (void)state;
    insert(0x1000, 0x1fff, BIG);
    insert(0x2000, 0x3fff, BIG);
    insert(0x5000, UINT64_MAX, 0x5000);
    mappings->changes = true;
    mappings->range = (struct viommu_range){0x2000, 0x3fff};
    for (unsigned adds = 0; adds < 2; adds++) {
        mappings->adds = adds;
        assert_true(dma_finds(0x1fff));
        assert_false(dma_finds(0x2000));
        assert_false(dma_finds(0x3fff));
        assert_true(dma_finds(0x5000));
        assert_true(mappings_next(mappings, adds, 0x2000, UINT64_MAX, &run));
        assert_int_equal(run.first, 0x2000);
        assert_true(mappings_next(mappings, !adds, 0x2000, UINT64_MAX, &run));
        assert_int_equal(run.first, 0x5000);
        assert_false(mappings_next(mappings, !adds, 0x2000, 0x4fff, &run));
        assert_false(mappings_next(mappings, !adds, 0x2000, 0x3000, &run));
        assert_true(mappings_next(mappings, !adds, 0, UINT64_MAX, &run));
        assert_int_equal(run.first, 0x1000);
        assert_false(mappings_next(mappings, adds, 0, 0xfff, &run));
    }
    mappings->range = (struct viommu_range){0x5000, UINT64_MAX};
    assert_false(mappings_next(mappings, false, 0x5000, UINT64_MAX, &run));
    mappings->changes = false;
}

static void test_add_and_remove(void **state)
{
    (void)state;
    add(0x1000, 0x400fff, BIG);
    assert_false(dma_finds(0x1000));
    world_process(&world);
    expect_tried(1, 0);
    assert_true(dma_finds(0x1000));
    mirror_told(mirror, "+1000-400fff>80000000rw"); /* one, past 2 MiB */
    mirror_told(other, "+1000-400fff>80000000rw");
    add(0x401000, 0x401fff, BIG + 0x400000); /* contiguous: another one */
    world_process(&world);
    mirror_told(mirror, "+401000-401fff>80400000rw");
    take(0, 0x500000);
    assert_false(dma_finds(0x1000));
    assert_int_equal(mappings->map.count, 2);
    world_process(&world);
    expect_tried(3, 0);
    mirror_told(mirror, "-1000-400fff -401000-401fff");
    assert_int_equal(mappings->map.count, 0);
    assert_int_equal(mappings->users, 3);
}

/* The first of two fails, or the second, at once or late. */
static void test_add_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct test_mirror *failing = i & 1 ? mirror : other;

        mirror_answers(failing, 1, i & 2 ? VIOMMU_PENDING : -ENOSPC, false, VIOMMU_CHANGE_MAP);
        add(0x1000, 0x1fff, BIG);
        world_run(&world);
        if (i & 2) {
            expect_tried(i, -ENOSPC);
            mirror_complete(failing, -ENOSPC);
        }
        world_process(&world);
        expect_tried(i + 1, -ENOSPC);
        assert_int_equal(mirror->mapped_count, 0);
        assert_int_equal(other->mapped_count, 0);
        assert_int_equal(mappings->map.count, 0);
        assert_int_equal(mirror_status(failing).differences, 0);
    }
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DIFFERS), 0);
}

/* One that is fenced has failed; one that cannot unmap does not keep a REMOVE up. */
static void test_fenced(void **state)
{
    (void)state;
    mirror_answers(mirror, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_MAP);
    add(0x1000, 0x1fff, BIG);
    world_run(&world);
    atomic_store(&world.model.now, atomic_load(&world.model.now) + 1000000000);
    world_process(&world);
    expect_tried(1, -ETIMEDOUT);
    assert_int_equal(mirror->fences, 1);
    assert_int_equal(other->mapped_count, 0);
    assert_int_equal(mappings->users, 2);
    add(0x1000, 0x1fff, BIG);
    world_process(&world);
    expect_tried(2, 0);
    mirror_answers(other, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    take(0x1000, 0x1fff);
    world_process(&world);
    expect_tried(3, 0);
    assert_int_equal(other->fences, 1);
    assert_int_equal(mappings->map.count, 0);
    assert_int_equal(mappings->users, 1);
    assert_false(follow_shares(&world.model.iommu, mappings));
}

static void test_cancel(void **state)
{
    (void)state;
    add(0x1000, 0x1fff, BIG);
    cancel(); /* before it has begun */
    world_process(&world);
    expect_tried(1, -ECANCELED);
    mirror_told(mirror, "");
    mirror_answers(mirror, 1, VIOMMU_PENDING, false, VIOMMU_CHANGE_MAP);
    add(0x1000, 0x1fff, BIG);
    world_run(&world);
    cancel();
    world_run(&world);
    expect_tried(1, -ECANCELED);
    mirror_complete(mirror, 0);
    world_process(&world);
    expect_tried(2, -ECANCELED);
    mirror_told(mirror, "+1000-1fff>80000000rw& -1000-1fff");
    assert_int_equal(mappings->map.count, 0);
    /* What goes cannot be kept. */
    add(0x1000, 0x1fff, BIG);
    world_process(&world);
    take(0x1000, 0x1fff);
    cancel();
    world_process(&world);
    expect_tried(4, 0);
    assert_int_equal(mirror->mapped_count, 0);
    cancel(); /* there is none */
}

static void test_view(void **state)
{
    struct mappings *second = mappings_create();
    struct range_run run = {0x1000, 0x1fff, BIG, RW};
    struct shadow_view view = view_of(second);
    struct shadow_view identity = world_identity();

    (void)state;
    add(0x1000, 0x2fff, BIG);
    world_process(&world);
    assert_int_equal(range_map_insert(&second->map, &run), 0);
    run = (struct range_run){0x8000, 0x8fff, BIG, RW};
    assert_int_equal(range_map_insert(&second->map, &run), 0);
    mirror_told(mirror, "+1000-2fff>80000000rw");
    other->told_length = 0;
    mirror_answers(mirror, 2, -EIO, false, VIOMMU_CHANGE_MAP);
    move(&view);
    world_process(&world);
    expect_tried(2, -EIO);
    /* What leads where it did before is not touched again. */
    mirror_told(mirror, "-1000-2fff +1000-1fff>80000000rw +8000-8fff>80000000rw? "
                        "+2000-2fff>80001000rw");
    assert_int_equal(second->users, 1);
    /* It does not stay unless the model says so, too. */
    move(&view);
    world_process(&world);
    expect_tried(3, 0);
    assert_int_equal(second->users, 2);
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    world_process(&world);
    assert_int_equal(second->users, 1);
    assert_int_equal(mirror->mapped_count, 2);
    mirror->told_length = 0;
    mirror_answers(mirror, 1, -EIO, false, VIOMMU_CHANGE_MAP);
    move(&identity);
    world_process(&world);
    expect_tried(4, -EIO);
    assert_int_equal(mirror->mapped_count, 1);
    assert_string_equal(other->told, "+1000-2fff>80000000rw");
    mappings_put(second);
}

/* Mappings live as long as a mirror has them. */
static void test_users(void **state)
{
    struct mappings *second = mappings_create();

    (void)state;
    world_show(&world, view_of(second));
    world_run(&world);
    assert_int_equal(mappings->users, 1);
    assert_int_equal(second->users, 3);
    mappings_put(second);
    world_show(&world, (struct shadow_view){.kind = VIEW_NONE});
    world_process(&world);
    mappings_put(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_next),   TEST(test_add_and_remove), TEST(test_add_fails), TEST(test_fenced),
        TEST(test_cancel), TEST(test_view),           TEST(test_users),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
