/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A call of one page has a way of its own. Whatever happens on it - an operation of the hypervisor
 * fails, a VM dies, the page is to be removed, another call comes - it says and leaves what a call
 * does that goes the way of all: for mapping that is one with the flag that lets MMIO be mapped,
 * which says nothing of a page of RAM.
 */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    FRAME = 2,
    PLACE = 10,
    STEPS = 12, /* more operations than such a call makes */
};

/* Happens in the n-th operation from now on, before that does its work; 0: never. */
static struct {
    unsigned in;
    void (*what)(struct world *world);
    bool inside; /* operations of what happens do not count */
} happens;

static void happen(void *opaque)
{
    if (!happens.inside && happens.in && --happens.in == 0) {
        happens.inside = true;
        happens.what(opaque);
        happens.inside = false;
    }
}

static int lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                  struct viommu_pv_page *page)
{
    happen(opaque);
    return world_lookup(opaque, vm, frame, order, page);
}

static int get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    happen(opaque);
    return world_get_page(opaque, vm, frame, order, handle);
}

static void put_page(void *opaque, unsigned order, uint64_t handle)
{
    happen(opaque);
    world_put_page(opaque, order, handle);
}

static int get_type(void *opaque, unsigned order, uint64_t handle)
{
    happen(opaque);
    return world_get_type(opaque, order, handle);
}

static void put_type(void *opaque, unsigned order, uint64_t handle)
{
    happen(opaque);
    world_put_type(opaque, order, handle);
}

static bool may_call(void *opaque, uint32_t vm, unsigned operation)
{
    happen(opaque);
    return world_may_call(opaque, vm, operation);
}

static bool may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    happen(opaque);
    return world_may_use(opaque, vm, other, perm);
}

static int map(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
               uint32_t perm)
{
    happen(opaque);
    return world_map(opaque, space, device_frame, order, handle, perm);
}

static int unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    happen(opaque);
    return world_unmap(opaque, space, device_frame, order);
}

static int flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    happen(opaque);
    return world_flush(opaque, space, first, last);
}

static struct world *begin(void)
{
    static struct viommu_pv_ops ops;
    struct world *world;

    ops = world_ops;
    ops.lookup = lookup;
    ops.get_page = get_page;
    ops.put_page = put_page;
    ops.get_type = get_type;
    ops.put_type = put_type;
    ops.may_call = may_call;
    ops.may_use = may_use;
    ops.map = map;
    ops.unmap = unmap;
    ops.flush = flush;
    happens.in = 0;
    world = world_create(&(struct viommu_pv_config){.ops = &ops}, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(world_enable(world, i), VIOMMU_PV_OK);
    }
    return world;
}

static struct world_range page(uint32_t flags)
{
    return (struct world_range){
        .of = 1, .frame = FRAME, .device_frame = PLACE, .count = 1, .perm = RW, .flags = flags};
}

/* ---- what happens ---- */

static void nothing(struct world *world)
{
    (void)world;
}

static void mapper_dies(struct world *world)
{
    (void)viommu_pv_vm_destroy(world->pv, 0);
}

static void owner_dies(struct world *world)
{
    (void)viommu_pv_vm_destroy(world->pv, 1);
}

static void is_to_be_removed(struct world *world)
{
    (void)viommu_pv_page_remove(world->pv, 1, FRAME);
}

static void is_revoked(struct world *world)
{
    (void)viommu_pv_page_remove(world->pv, 1, FRAME);
    (void)viommu_pv_page_revoke(world->pv, 1, FRAME);
}

static void becomes_read_only(struct world *world)
{
    world->vms[1].frames[FRAME].state = VIOMMU_PV_PAGE_READ_ONLY;
}

static void becomes_shared(struct world *world)
{
    world->vms[1].frames[FRAME].state = VIOMMU_PV_PAGE_SHARED;
}

static void becomes_logged(struct world *world)
{
    world->vms[1].frames[FRAME].state = VIOMMU_PV_PAGE_DIRTY_LOGGED;
}

static void becomes_anothers(struct world *world)
{
    world->pages[world->vms[1].frames[FRAME].machine].owner = 2;
}

static void goes(struct world *world)
{
    world->vms[1].frames[FRAME].machine = -1;
}

static void is_mapped_there(struct world *world)
{
    struct world_range range = page(VIOMMU_PV_MMIO);

    range.frame = FRAME + 1;
    (void)world_do_map(world, 0, range);
}

static void is_mapped_there_before(struct world *world)
{
    struct world_range range = page(0);

    range.frame = FRAME + 1;
    (void)world_do_map(world, 0, range);
    (void)world_do_unmap(world, 0,
                         (struct world_range){.of = 1,
                                              .frame = FRAME + 1,
                                              .device_frame = PLACE,
                                              .count = 1,
                                              .flags = VIOMMU_PV_DEFER});
}

static void is_flushed(struct world *world)
{
    (void)world_do_flush(world, 0, 0);
}

static void is_isolated(struct world *world)
{
    world->flush_fails = true;
    (void)world_do_map(world, 0, (struct world_range){0, 1, 5, 50, 1, 0, RW, 0});
    (void)world_do_unmap(world, 0, (struct world_range){0, 1, 5, 50, 2, 0, 0, 0});
    world->flush_fails = false;
}

static void is_unmapped(struct world *world)
{
    (void)world_do_unmap(world, 0, page(0));
}

static void is_unmapped_later(struct world *world)
{
    (void)world_do_unmap(world, 0, page(VIOMMU_PV_DEFER));
}

static void may_not_call(struct world *world)
{
    world->refuse_call = 1u << VIOMMU_PV_MAP | 1u << VIOMMU_PV_UNMAP;
}

static void may_not_use(struct world *world)
{
    world->refuse_use[0] |= 1u << 1;
}

static void (*const all[])(struct world *world) = {
    may_not_call,     may_not_use,
    nothing,          mapper_dies,
    owner_dies,       is_to_be_removed,
    is_revoked,       becomes_read_only,
    becomes_shared,   becomes_logged,
    becomes_anothers, goes,
    is_mapped_there,  is_mapped_there_before,
    is_flushed,       is_isolated,
    is_unmapped,      is_unmapped_later,
};

enum {
    ALL = sizeof(all) / sizeof(all[0]),
};

/* ---- mapping ---- */

/* What is to be compared of a world. */
struct result {
    uint32_t status;
    uint64_t done;
    uint64_t stopped;
    uint64_t mappings;
    uint64_t pending;
    uint64_t isolated;
    uint32_t refs;
    uint32_t types;
    unsigned left; /* operations until what should have happened */
    unsigned long steps;
};

static struct result result_of(struct world *world, uint32_t status,
                               const struct viommu_pv_answer *answer, unsigned long steps)
{
    struct viommu_pv_vm_status now = world_status(world, 0);

    return (struct result){
        .status = status,
        .done = answer->done,
        .stopped = answer->stopped,
        .mappings = now.mappings,
        .pending = now.pending,
        .isolated = now.isolated,
        .refs = (uint32_t)world->pages[WORLD_FRAMES + FRAME].refs,
        .types = (uint32_t)world->pages[WORLD_FRAMES + FRAME].types,
        .left = happens.in,
        .steps = world->steps - steps,
    };
}

static void assert_same(const struct result *one, const struct result *other)
{
    assert_int_equal(one->status, other->status);
    assert_int_equal(one->done, other->done);
    assert_int_equal(one->stopped, other->stopped);
    assert_int_equal(one->mappings, other->mappings);
    assert_int_equal(one->pending, other->pending);
    assert_int_equal(one->isolated, other->isolated);
    assert_int_equal(one->refs, other->refs);
    assert_int_equal(one->types, other->types);
    assert_int_equal(one->left, other->left);
    assert_int_equal(one->steps, other->steps);
}

/* Maps the page with these flags; something happens in an operation, or it fails, or both. */
static struct result map_it(uint32_t flags, void (*what)(struct world *world), unsigned in,
                            unsigned fails)
{
    struct world *world = begin();
    struct world_range range = page(flags);
    struct viommu_pv_answer answer;
    struct result result;
    unsigned long steps = world->steps;
    uint32_t status;

    world->refuse_use[0] = 1u << 2;
    happens.what = what;
    happens.in = in;
    world->fail_at = fails ? steps + fails : 0;
    status = world_ranged(world, 0, VIOMMU_PV_MAP, &range, &answer);
    world->fail_at = 0;
    result = result_of(world, status, &answer, steps);
    happens.in = 0;
    world_check(world);
    world_end(world);
    return result;
}

static void test_mapping_says_the_same(void **state)
{
    unsigned mapped = 0;

    (void)state;
    for (unsigned i = 0; i < ALL; i++) {
        for (unsigned in = 1; in <= STEPS; in++) {
            struct result one = map_it(0, all[i], in, 0);
            struct result other = map_it(VIOMMU_PV_MMIO, all[i], in, 0);

            assert_same(&one, &other);
            mapped += one.status == VIOMMU_PV_OK;
        }
    }
    assert_in_range(mapped, 2 * STEPS, ALL * STEPS - 2 * STEPS);
}

static void test_mapping_fails_the_same(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (unsigned fails = 1; fails <= STEPS; fails++) {
        struct result one = map_it(0, nothing, 0, fails);
        struct result other = map_it(VIOMMU_PV_MMIO, nothing, 0, fails);

        assert_same(&one, &other);
        failed += one.status != VIOMMU_PV_OK;
        for (unsigned in = 1; in <= STEPS; in++) {
            one = map_it(0, mapper_dies, in, fails);
            other = map_it(VIOMMU_PV_MMIO, mapper_dies, in, fails);
            assert_same(&one, &other);
        }
    }
    assert_in_range(failed, 4, STEPS - 1);
}

/* ---- unmapping ---- */

/* It has been unmapped and flushed, whatever else happened; or it is there, and can be. */
static void unmap_it(uint32_t flags, void (*what)(struct world *world), unsigned in, unsigned fails)
{
    struct world *world = begin();
    struct world_range range = page(flags);
    struct viommu_pv_answer answer;
    unsigned long steps;
    uint32_t status;
    bool dies = what == mapper_dies;

    assert_int_equal(world_do_map(world, 0, page(0)), VIOMMU_PV_OK);
    happens.what = what;
    happens.in = in;
    steps = world->steps;
    world->fail_at = fails ? steps + fails : 0;
    status = world_ranged(world, 0, VIOMMU_PV_UNMAP, &range, &answer);
    world->fail_at = 0;
    happens.in = 0;
    world_check(world);
    if (status == VIOMMU_PV_OK && !dies && !(flags & VIOMMU_PV_DEFER)) {
        assert_int_equal(answer.done, 1);
        assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 0);
        assert_int_equal(world->pages[WORLD_FRAMES + FRAME].types, 0);
    }
    if (status == VIOMMU_PV_EIO) {
        assert_int_equal(answer.stopped, PLACE + answer.done);
        assert_int_equal(world_status(world, 0).isolated, 1);
    }
    world_end(world);
}

static void test_unmapping(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ALL; i++) {
        for (unsigned in = 1; in <= STEPS; in++) {
            for (unsigned fails = 0; fails <= STEPS; fails++) {
                unmap_it(0, all[i], in, fails);
                unmap_it(VIOMMU_PV_DEFER, all[i], in, fails);
            }
        }
    }
}

/* Unmapped, and the flush fails: the page waits, as after any other that fails. */
static void test_a_flush_that_fails(void **state)
{
    struct world *world = begin();
    struct world_range range = page(0);
    struct viommu_pv_answer answer;

    (void)state;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(world_ranged(world, 0, VIOMMU_PV_UNMAP, &range, &answer), VIOMMU_PV_EIO);
    assert_int_equal(answer.done, 1);
    assert_int_equal(answer.stopped, PLACE + 1);
    assert_int_equal(world_status(world, 0).pending, 1);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 1);
    world_check(world);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).mappings, 0);
    assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 0);
    world_check(world);
    world_end(world);
}

static uint32_t met;

static void another_maps(struct world *world)
{
    struct world_range range = page(0);

    range.frame = FRAME + 1;
    met = world_do_map(world, 0, range);
}

static void another_unmaps(struct world *world)
{
    met = world_do_unmap(world, 0, page(0));
}

/* Until a call that unmaps has ended the slot is its own: another is told to try again. */
static void test_another_call_meanwhile(void **state)
{
    static void (*const calls[])(struct world * world) = {another_maps, another_unmaps};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned in = 2; in <= 3; in++) { /* unmap, flush */
            struct world *world = begin();

            assert_int_equal(world_do_map(world, 0, page(0)), VIOMMU_PV_OK);
            happens.what = calls[i];
            happens.in = in;
            met = 0;
            assert_int_equal(world_do_unmap(world, 0, page(0)), VIOMMU_PV_OK);
            assert_int_equal(met, VIOMMU_PV_EAGAIN);
            assert_int_equal(world_status(world, 0).mappings, 0);
            assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 0);
            world_check(world);
            world_end(world);
        }
    }
}

/* What was unmapped and flushed is gone; that the context is isolated by then is told all the
   same. */
static void test_isolated_meanwhile(void **state)
{
    (void)state;
    for (unsigned in = 2; in <= 4; in++) { /* unmap, flush, put */
        struct world *world = begin();

        assert_int_equal(world_do_map(world, 0, page(0)), VIOMMU_PV_OK);
        happens.what = is_isolated;
        happens.in = in;
        assert_int_equal(world_do_unmap(world, 0, page(0)), VIOMMU_PV_EIO);
        assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 0);
        assert_int_equal(world_status(world, 0).isolated, 1);
        world_check(world);
        world_end(world);
    }
}

static int removed;

static void is_removed(struct world *world)
{
    removed = viommu_pv_page_remove(world->pv, 1, FRAME);
}

/* A page is not free before its last reference has been dropped, whatever it was taken for. */
static void test_not_free_while_it_is_dropped(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct world *world = begin();
        bool mapped = i < 2;

        if (mapped) {
            assert_int_equal(world_do_map(world, 0, page(0)), VIOMMU_PV_OK);
        } else {
            world->fail_at = world->steps + 6; /* the real mapping */
        }
        happens.what = is_removed;
        happens.in = (mapped ? 4 : 7) + i % 2; /* type, page */
        removed = 0;
        if (mapped) {
            assert_int_equal(world_do_unmap(world, 0, page(0)), VIOMMU_PV_OK);
        } else {
            assert_int_equal(world_do_map(world, 0, page(0)), VIOMMU_PV_ENOSPC);
        }
        world->fail_at = 0;
        assert_int_equal(happens.in, 0);
        assert_int_equal(removed, VIOMMU_PENDING);
        assert_int_equal(viommu_pv_page_remove(world->pv, 1, FRAME), 0);
        assert_int_equal(world->pages[WORLD_FRAMES + FRAME].refs, 0);
        assert_int_equal(viommu_pv_page_settle(world->pv, 1, FRAME), 0);
        world_check(world);
        world_end(world);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_free_while_it_is_dropped),
        cmocka_unit_test(test_mapping_says_the_same),
        cmocka_unit_test(test_mapping_fails_the_same),
        cmocka_unit_test(test_unmapping),
        cmocka_unit_test(test_a_flush_that_fails),
        cmocka_unit_test(test_another_call_meanwhile),
        cmocka_unit_test(test_isolated_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
