/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What happens while an operation of the hypervisor runs, which is when the engine's lock is not
 * held: pages change, VMs die, contexts are isolated, other calls come.
 */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    ANSWERED = 7, /* where map_unknown() is known to have mapped */
};

/* Called once, by the operation of the table below that a test has chosen. */
static void (*happens)(struct world *world);

static void happen(void *opaque)
{
    void (*now)(struct world * world) = happens;

    happens = NULL;
    if (now) {
        now(opaque);
    }
}

static int flush_and_happen(void *opaque, void *space, uint64_t first, uint64_t last)
{
    int error = world_flush(opaque, space, first, last);

    happen(opaque);
    return error;
}

static int happen_and_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    happen(opaque);
    return world_unmap(opaque, space, device_frame, order);
}

static int prepare_in_vain(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    (void)vm;
    (void)frame;
    (void)order;
    (void)write;
    happen(opaque);
    return -EAGAIN;
}

/* It says that the page is ready, which it is not. */
static int prepare_nothing(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    (void)opaque;
    (void)vm;
    (void)frame;
    (void)order;
    (void)write;
    return 0;
}

static int unmap_in_vain(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    happen(opaque);
    (void)space;
    (void)device_frame;
    (void)order;
    return -EIO;
}

static void happen_and_isolate(void *opaque, void *space)
{
    happen(opaque);
    world_isolate(opaque, space);
}

/* As an IOMMU that did not answer in time: it was mapped, or will be. */
static int map_unknown(void *opaque, void *space, uint64_t device_frame, unsigned order,
                       uint64_t handle, uint32_t perm)
{
    (void)world_map(opaque, space, device_frame, order, handle, perm);
    return device_frame == ANSWERED ? 0 : -EIO;
}

static struct world *begin(const struct viommu_pv_ops *ops)
{
    struct world *world = world_create(&(struct viommu_pv_config){.ops = ops}, 3);

    happens = NULL;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(world_enable(world, i), VIOMMU_PV_OK);
    }
    return world;
}

static struct world_range pages(uint32_t of, uint64_t frame, uint64_t device_frame, uint64_t count)
{
    return (struct world_range){
        .of = of, .frame = frame, .device_frame = device_frame, .count = count, .perm = RW};
}

static uint32_t defer(struct world *world, uint32_t vm, struct world_range range)
{
    range.flags = VIOMMU_PV_DEFER;
    return world_do_unmap(world, vm, range);
}

/* ---- the page changes while the slot that it is to be mapped at is flushed ---- */

static void becomes_read_only(struct world *world)
{
    world->vms[1].frames[2].state = VIOMMU_PV_PAGE_READ_ONLY;
}

static void becomes_shared(struct world *world)
{
    world->vms[1].frames[2].state = VIOMMU_PV_PAGE_SHARED;
}

static void becomes_mmio(struct world *world)
{
    world->vms[1].frames[2].state = VIOMMU_PV_PAGE_MMIO;
}

static void becomes_anothers(struct world *world)
{
    world->pages[world->vms[1].frames[2].machine].owner = 2;
}

static void goes(struct world *world)
{
    world->vms[1].frames[2].machine = -1;
}

static void comes_from_elsewhere(struct world *world)
{
    world->vms[1].frames[2].machine = world->vms[1].frames[9].machine;
}

static void test_the_page_changes_during_the_flush(void **state)
{
    static const struct {
        void (*what)(struct world *world);
        uint32_t expected;
    } changes[] = {
        {becomes_read_only, VIOMMU_PV_EACCES},
        {becomes_shared, VIOMMU_PV_OK},
        {becomes_mmio, VIOMMU_PV_EOPNOTSUPP},
        {becomes_anothers, VIOMMU_PV_EPERM},
        {goes, VIOMMU_PV_ENOENT},
        {comes_from_elsewhere, VIOMMU_PV_OK},
    };
    struct viommu_pv_ops ops = world_ops;

    (void)state;
    ops.flush = flush_and_happen;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct world *world = begin(&ops);

        world->refuse_use[0] = 1u << 2;
        assert_int_equal(world_do_map(world, 0, pages(1, 1, 10, 1)), VIOMMU_PV_OK);
        assert_int_equal(defer(world, 0, pages(1, 1, 10, 1)), VIOMMU_PV_OK);
        happens = changes[i].what;
        assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), changes[i].expected);
        assert_null(happens);
        assert_int_equal(world->prepared, changes[i].what == becomes_shared);
        assert_int_equal(world->vms[1].frames[2].state == VIOMMU_PV_PAGE_SHARED, 0);
        world_check(world);
        world_end(world);
    }
}

static unsigned looks_left;

static int happen_and_look(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                           struct viommu_pv_page *page)
{
    if (looks_left && --looks_left == 0) {
        happen(opaque);
    }
    return world_lookup(opaque, vm, frame, order, page);
}

static void becomes_ram(struct world *world)
{
    world->vms[1].frames[2].state = VIOMMU_PV_PAGE_RAM;
}

/* MMIO has no reference that would fail when it is MMIO no more: what is RAM by then is mapped with
   one, or not at all. */
static void test_mmio_that_is_none_any_more(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    unsigned refused = 0;

    (void)state;
    ops.lookup = happen_and_look;
    for (unsigned look = 1; look < 5; look++) {
        struct world *world = begin(&ops);
        struct world_range range = pages(1, 2, 10, 1);
        uint32_t status;

        world->vms[1].frames[2].state = VIOMMU_PV_PAGE_MMIO;
        range.flags = VIOMMU_PV_MMIO;
        happens = becomes_ram;
        looks_left = look;
        status = world_do_map(world, 0, range);
        if (!happens) {
            assert_true(status == VIOMMU_PV_OK || status == VIOMMU_PV_ENOENT);
            assert_int_equal(world->pages[WORLD_FRAMES + 2].refs, status == VIOMMU_PV_OK);
            refused += status != VIOMMU_PV_OK;
        }
        world_check(world);
        world_end(world);
    }
    assert_true(refused);
}

/* ---- a VM dies ---- */

static uint32_t victim;

static void dies(struct world *world)
{
    assert_int_equal(viommu_pv_vm_destroy(world->pv, victim), VIOMMU_PENDING);
}

/* Nothing is populated for a VM that is dying, nor in one. */
static void test_a_vm_dies_during_the_flush(void **state)
{
    struct viommu_pv_ops ops = world_ops;

    (void)state;
    ops.flush = flush_and_happen;
    for (victim = 0; victim < 2; victim++) {
        struct world *world = begin(&ops);

        world->vms[1].frames[2] = (struct world_frame){-1, VIOMMU_PV_PAGE_ON_DEMAND};
        assert_int_equal(world_do_map(world, 0, pages(1, 1, 10, 1)), VIOMMU_PV_OK);
        assert_int_equal(defer(world, 0, pages(1, 1, 10, 1)), VIOMMU_PV_OK);
        happens = dies;
        assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_ESHUTDOWN);
        assert_int_equal(world->prepared, 0);
        assert_int_equal(world->vms[1].frames[2].machine, -1);
        world_check(world);
        world_end(world);
    }
}

/* That the page is not ready is no answer for a VM that is dying: it never will be. */
static void test_a_vm_dies_while_its_page_is_prepared(void **state)
{
    struct viommu_pv_ops ops = world_ops;

    (void)state;
    ops.prepare = prepare_in_vain;
    for (victim = 0; victim < 3; victim++) {
        struct world *world = begin(&ops);

        world->vms[1].frames[2].state = VIOMMU_PV_PAGE_PAGED_OUT;
        world->pages[world->vms[1].frames[2].machine].owner = 2;
        assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_EAGAIN);
        happens = dies;
        assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_ESHUTDOWN);
        world_check(world);
        world_end(world);
    }
}

static void dies_and_goes(struct world *world)
{
    dies(world);
    goes(world);
}

/* Nor is that it has no pages any more. */
static void test_a_vm_dies_while_its_page_is_looked_up(void **state)
{
    struct viommu_pv_ops ops = world_ops;

    (void)state;
    ops.lookup = happen_and_look;
    for (victim = 0; victim < 2; victim++) {
        for (uint64_t first = 1; first <= 2; first++) {
            struct world *world = begin(&ops);

            happens = dies_and_goes;
            looks_left = (unsigned)(3 - first); /* that of page 2 */
            assert_int_equal(world_do_map(world, 0, pages(1, first, 10, 2)), VIOMMU_PV_ESHUTDOWN);
            assert_null(happens);
            world_check(world);
            world_end(world);
        }
    }
}

/* It may go again as soon as it came: what counts is what it is when it is looked at again. */
static void test_a_page_that_is_not_ready_after_all(void **state)
{
    static const enum viommu_pv_page_state states[] = {
        VIOMMU_PV_PAGE_PAGED_OUT, VIOMMU_PV_PAGE_SHARED, VIOMMU_PV_PAGE_ON_DEMAND};
    struct viommu_pv_ops ops = world_ops;

    (void)state;
    ops.prepare = prepare_nothing;
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
        struct world *world = begin(&ops);

        world->vms[1].frames[2].state = states[i];
        assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_EAGAIN);
        assert_int_equal(world_status(world, 0).mappings, 0);
        world_check(world);
        world_end(world);
    }
}

/* ---- a mapping that may have been made, or may be there still ---- */

/* The device may have written to it until it was flushed. */
static void test_what_may_have_been_mapped_is_logged(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;
    const struct world_page *page;

    (void)state;
    ops.map = map_unknown;
    world = begin(&ops);
    world->vms[0].frames[2].state = VIOMMU_PV_PAGE_DIRTY_LOGGED;
    page = &world->pages[world->vms[0].frames[2].machine];
    world->flush_fails = true;
    assert_int_equal(world_do_map(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_int_equal(page->dirty, 1);
    assert_int_equal(page->refs, 1);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(page->dirty, 2);
    assert_int_equal(page->refs, 0);
    world_check(world);
    world_end(world);
}

static int map_third_unknown(void *opaque, void *space, uint64_t device_frame, unsigned order,
                             uint64_t handle, uint32_t perm)
{
    (void)world_map(opaque, space, device_frame, order, handle, perm);
    return device_frame % 8 == 2 ? -EIO : 0;
}

/* The third of five: those before it stay, of those after it nothing is left, and it waits. */
static void third_of_five(bool flush_fails)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;
    const struct world_page *page;
    struct world_range range = pages(0, 8, 8, 5);
    struct viommu_pv_answer answer;

    ops.map = map_third_unknown;
    world = begin(&ops);
    page = &world->pages[8];
    world->flush_fails = flush_fails;
    assert_int_equal(world_ranged(world, 0, VIOMMU_PV_MAP, &range, &answer), VIOMMU_PV_EIO);
    assert_int_equal(answer.done, 2);
    assert_int_equal(answer.stopped, 10);
    assert_int_equal(page[0].refs + page[1].refs, 2);
    assert_int_equal(page[2].refs, flush_fails);
    assert_int_equal(page[2].types, flush_fails);
    assert_int_equal(page[3].refs + page[4].refs, 0);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world_status(world, 0).mappings, 2 + flush_fails);
    world_check(world);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(page[2].refs, 0);
    range.count = 2;
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    world_check(world);
    world_end(world);
}

static void test_one_of_several_may_have_been_mapped(void **state)
{
    (void)state;
    third_of_five(false);
    third_of_five(true);
}

static void maps_another(struct world *world)
{
    assert_int_equal(world_do_map(world, 0, pages(0, 7, ANSWERED, 1)), VIOMMU_PV_EIO);
}

/* Its context is isolated before anything else is done about it. */
static void test_nobody_maps_where_a_map_failed(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;

    (void)state;
    ops.map = map_unknown;
    ops.unmap = happen_and_unmap;
    world = begin(&ops);
    happens = maps_another;
    assert_int_equal(world_do_map(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_null(happens);
    assert_int_equal(world_status(world, 0).mappings, 0);
    assert_int_equal(world_status(world, 0).isolated, 1);
    world_check(world);
    world_end(world);
}

/* An unmapping that fails counts as a flush that does: the slot is as it was, and cut off. */
static void test_an_unmap_that_fails(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;

    (void)state;
    world = begin(&ops);
    assert_int_equal(world_do_map(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_OK);
    ops.unmap = unmap_in_vain;
    assert_int_equal(world_do_unmap(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_true(world->spaces[0].isolated);
    assert_int_equal(world->pages[2].refs, 1);
    world_check(world);
    ops.unmap = world_unmap;
    assert_int_equal(world_do_unmap(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_OK);
    assert_int_equal(world->pages[2].refs, 0);
    world_end(world);
}

static void is_wanted_back(struct world *world)
{
    assert_int_equal(viommu_pv_page_remove(world->pv, 1, 2), VIOMMU_PENDING);
}

/* What was just being unmapped when a page was wanted back, and stays, is asked for after all; that
   it was asked for another time, which is over, does not count. */
static void test_a_page_is_wanted_during_an_unmap_that_fails(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world = begin(&ops);

    (void)state;
    assert_int_equal(world_do_map(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_OK);
    is_wanted_back(world);
    assert_int_equal(world->told, 1);
    assert_int_equal(viommu_pv_page_settle(world->pv, 1, 2), 0);
    ops.unmap = unmap_in_vain;
    happens = is_wanted_back;
    assert_int_equal(world_do_unmap(world, 0, pages(1, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_null(happens);
    assert_int_equal(world->told, 1);
    is_wanted_back(world);
    is_wanted_back(world);
    assert_int_equal(world->told, 2);
    ops.unmap = world_unmap;
    world_end(world);
}

/* ---- isolation ---- */

static void flushes_all(struct world *world)
{
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(0, 7, 7, 1)), VIOMMU_PV_EIO);
}

/* Isolation does not end while devices are just being cut off: they would be afterwards, too. */
static void test_a_flush_while_devices_are_cut_off(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;

    (void)state;
    ops.isolate = happen_and_isolate;
    world = begin(&ops);
    assert_int_equal(world_do_map(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_OK);
    world->flush_fails = true;
    happens = flushes_all;
    assert_int_equal(world_do_unmap(world, 0, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    assert_null(happens);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world_do_map(world, 0, pages(0, 7, 7, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).isolated, 0);
    assert_int_equal(world_do_map(world, 0, pages(0, 7, 7, 1)), VIOMMU_PV_OK);
    world_check(world);
    world_end(world);
}

static unsigned isolations;

static void count_isolation(void *opaque, void *space)
{
    isolations++;
    world_isolate(opaque, space);
}

static int happen_and_attach(void *opaque, uint32_t device, void *from, void *to)
{
    happen(opaque);
    return world_attach(opaque, device, from, to);
}

static void fails_a_flush(struct world *world)
{
    world->flush_fails = true;
    assert_int_equal(world_do_flush(world, 0, 1), VIOMMU_PV_EIO);
    world->flush_fails = false;
}

/* Whoever cuts devices off does not see the one that is about to come: that is cut off, too. */
static void test_a_flush_fails_while_a_device_comes(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;
    uint32_t context;

    (void)state;
    ops.isolate = count_isolation;
    ops.attach = happen_and_attach;
    world = begin(&ops);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 1);
    assert_int_equal(world_do_map(world, 0, (struct world_range){1, 0, 2, 10, 1, 0, RW, 0}),
                     VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, (struct world_range){1, 0, 2, 10, 1, 0, 0, 1}),
                     VIOMMU_PV_OK);
    isolations = 0;
    happens = fails_a_flush;
    assert_int_equal(world_move(world, 0, 1, 1), VIOMMU_PV_OK);
    assert_null(happens);
    assert_int_equal(isolations, 2);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world_move(world, 0, 1, 1), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 1), VIOMMU_PV_OK);
    assert_int_equal(world_move(world, 0, 1, 1), VIOMMU_PV_OK);
    world_check(world);
    world_end(world);
}

/* Its VM has to know that devices were cut off: what the engine flushes does not end that. */
static void test_only_the_vm_ends_its_isolation(void **state)
{
    struct world *world = begin(&world_ops);
    struct viommu_pv_flush_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_FLUSH, in), .first = 1, .last = WORLD_DEVICE - 1};
    struct viommu_pv_answer out;

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 2, 10, 2)), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(world_do_unmap(world, 1, pages(0, 2, 10, 1)), VIOMMU_PV_EIO);
    world->flush_fails = false;
    assert_int_equal(viommu_pv_device_add(world->pv, 1, 1), -EIO);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 2), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 2), 0);
    assert_int_equal(world_status(world, 1).isolated, 1);
    assert_int_equal(world_do_map(world, 1, pages(0, 7, 7, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_call(world, 1, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 1).isolated, 1); /* not whole */
    in.first = 0;
    assert_int_equal(world_call(world, 1, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 1).isolated, 0);
    assert_int_equal(viommu_pv_device_add(world->pv, 1, 1), 0);
    world_check(world);
    world_end(world);
}

/* ---- the queue goes round during the flush ---- */

static void queue_goes_round(struct world *world)
{
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    for (unsigned i = 4; i < 8; i++) {
        assert_int_equal(defer(world, 0, pages(0, i, i, 1)), VIOMMU_PV_OK);
    }
}

/* Its places have others in them then, which were unmapped after the flush. */
static void test_the_queue_goes_round_during_the_flush(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;

    (void)state;
    ops.flush = flush_and_happen;
    world = world_create(&(struct viommu_pv_config){.ops = &ops, .deferred_max = 4}, 1);
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(0, 0, 0, 8)), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(defer(world, 0, pages(0, i, i, 1)), VIOMMU_PV_OK);
    }
    happens = queue_goes_round;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 4);
    assert_int_equal(world->pages[3].refs, 0);
    assert_int_equal(world->pages[4].refs, 1);
    world_check(world);
    world_end(world);
}

/* ---- the lock ---- */

static void steps_begin(void)
{
    pv_held.before = pv_steps;
    pv_held.most = 0;
}

/* However much awaits its flush, little is done without giving the lock up. */
static void test_a_long_queue(void **state)
{
    enum { QUEUE = 900, HELD = 200, LARGE = 3072 };
    static const struct viommu_pv_config config = {.deferred_max = 1000};
    struct viommu_pv_flush_call in = {.head = WORLD_HEAD(VIOMMU_PV_FLUSH, in)};
    struct viommu_pv_answer out;
    struct world *world = world_create(&config, 2);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(world_do_map(world, 0, pages(0, 0, 512 * i, 500)), VIOMMU_PV_OK);
    }
    assert_int_equal(world_do_map(world, 0, pages(0, 0, LARGE, 100)), VIOMMU_PV_OK);
    for (unsigned i = 0; i < QUEUE; i++) {
        struct world_range range = pages(0, i % 450, 512 * (i / 450) + i % 450, 1);

        range.flags = VIOMMU_PV_DEFER;
        assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    }
    assert_int_equal(world_status(world, 0).pending, QUEUE);
    steps_begin();
    /* One behind all of them. */
    assert_int_equal(world_do_unmap(world, 0, pages(0, 7, 1024 + 7, 1)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, QUEUE);
    /* One in the middle. */
    in.first = in.last = 449;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, QUEUE - 1);
    /* All but the first. */
    in.first = 1;
    in.last = WORLD_DEVICE - 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 1);
    assert_int_equal(world->pages[1].refs, 3);
    /* That one: the head goes past all of them. */
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 0);
    assert_in_range(pv_held.most, 1, HELD);
    world_check(world);
    /* A large page over many that wait, and one that does not. */
    for (unsigned i = 0; i < 100; i++) {
        struct world_range range = pages(0, i, LARGE + i, 1);

        range.flags = VIOMMU_PV_DEFER;
        assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    }
    assert_int_equal(world_do_map(world, 0, pages(0, 9, LARGE + 300, 1)), VIOMMU_PV_OK);
    steps_begin();
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 0, 512, LARGE, 1, 9, RW, 0}),
                     VIOMMU_PV_EEXIST);
    assert_int_equal(world_do_unmap(world, 0, pages(0, 9, LARGE + 300, 1)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 0, 512, LARGE, 1, 9, RW, 0}),
                     VIOMMU_PV_OK);
    assert_in_range(pv_held.most, 1, HELD);
    world_check(world);
    world_end(world);
}

static unsigned long looked; /* steps */

static void asks_for_a_page(struct world *world)
{
    unsigned long before = pv_steps;

    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 3), VIOMMU_PENDING);
    looked = pv_steps - before;
}

/* Whether a page is mapped is known at once, however many others are just being dropped. */
static void test_many_are_dropped(void **state)
{
    struct world *world = world_create(&(struct viommu_pv_config){.ops = NULL}, 1);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(0, 3, 300, 1)), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 64; i++) {
        assert_int_equal(world_do_map(world, 0, pages(0, 8 * i, 2 * i, 1)), VIOMMU_PV_OK);
        assert_int_equal(defer(world, 0, pages(0, 8 * i, 2 * i, 1)), VIOMMU_PV_OK);
    }
    looked = 0;
    world->intrude = asks_for_a_page;
    world->intrude_at = world->steps + 3; /* the privilege, the flush, the first reference */
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_in_range(looked, 1, 32);
    world_check(world);
    world_end(world);
}

/* Of pages side by side those are dropped that were flushed, and no others. */
static void test_a_part_is_flushed(void **state)
{
    struct viommu_pv_flush_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_FLUSH, in), .first = 2, .last = 4};
    struct world *world = world_create(&(struct viommu_pv_config){.ops = NULL}, 1);
    struct viommu_pv_answer out;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(0, 0, 0, 12)), VIOMMU_PV_OK);
    assert_int_equal(defer(world, 0, pages(0, 0, 0, 8)), VIOMMU_PV_OK);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(world->pages[i].refs, i < 2 || i > 4);
    }
    world_check(world);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    /* What is between them stays mapped. */
    assert_int_equal(defer(world, 0, pages(0, 8, 8, 2)), VIOMMU_PV_OK);
    assert_int_equal(defer(world, 0, pages(0, 11, 11, 1)), VIOMMU_PV_OK);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    for (unsigned i = 0; i < 12; i++) {
        assert_int_equal(world->pages[i].refs, i == 10);
    }
    world_check(world);
    world_end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_page_changes_during_the_flush),
        cmocka_unit_test(test_mmio_that_is_none_any_more),
        cmocka_unit_test(test_a_vm_dies_during_the_flush),
        cmocka_unit_test(test_a_vm_dies_while_its_page_is_prepared),
        cmocka_unit_test(test_a_vm_dies_while_its_page_is_looked_up),
        cmocka_unit_test(test_a_page_that_is_not_ready_after_all),
        cmocka_unit_test(test_an_unmap_that_fails),
        cmocka_unit_test(test_a_page_is_wanted_during_an_unmap_that_fails),
        cmocka_unit_test(test_what_may_have_been_mapped_is_logged),
        cmocka_unit_test(test_one_of_several_may_have_been_mapped),
        cmocka_unit_test(test_nobody_maps_where_a_map_failed),
        cmocka_unit_test(test_a_flush_while_devices_are_cut_off),
        cmocka_unit_test(test_a_flush_fails_while_a_device_comes),
        cmocka_unit_test(test_only_the_vm_ends_its_isolation),
        cmocka_unit_test(test_the_queue_goes_round_during_the_flush),
        cmocka_unit_test(test_a_long_queue),
        cmocka_unit_test(test_many_are_dropped),
        cmocka_unit_test(test_a_part_is_flushed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
