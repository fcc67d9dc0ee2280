/* SPDX-License-Identifier: BSD-2-Clause */
/* Map, unmap, flush and look-ups: each rule, and each status for its one reason. */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
};

static const struct viommu_pv_config defaults;

static struct world *begin(const struct viommu_pv_config *config)
{
    struct world *world = world_create(config, 3);

    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(world_enable(world, i), VIOMMU_PV_OK);
    }
    return world;
}

static struct world_range one(uint64_t frame, uint64_t device_frame, uint32_t perm)
{
    return (struct world_range){.of = VIOMMU_PV_SELF,
                                .frame = frame,
                                .device_frame = device_frame,
                                .count = 1,
                                .perm = perm};
}

static struct world_range of(struct world_range range, uint32_t vm)
{
    range.of = vm;
    return range;
}

static struct world_range many(struct world_range range, uint64_t count)
{
    range.count = count;
    return range;
}

static struct world_range with(struct world_range range, uint32_t flags)
{
    range.flags = flags;
    return range;
}

static struct world_range large(struct world_range range)
{
    range.order = 9;
    return range;
}

static const struct world_page *page(const struct world *world, uint32_t vm, uint64_t frame)
{
    return &world->pages[world->vms[vm].frames[frame].machine];
}

static struct viommu_pv_lookup look(struct world *world, uint32_t vm, uint64_t device_frame)
{
    struct viommu_pv_lookup_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call),
        .device_frame = device_frame};
    struct viommu_pv_lookup out = {.frame = 0};

    (void)world_call(world, vm, &in, sizeof(in), &out, sizeof(out));
    return out;
}

static void test_references(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 0, one(1, 10, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(1, 11, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, of(one(1, 11, VIOMMU_PV_WRITE), 0)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 1)->refs, 3);
    assert_int_equal(page(world, 0, 1)->types, 2);
    world_check(world);
    /* Only what it is; twice puts once. */
    assert_int_equal(world_do_unmap(world, 0, one(2, 10, 0)), VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_unmap(world, 0, of(one(1, 10, 0), 1)), VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_unmap(world, 0, one(1, 12, 0)), VIOMMU_PV_ENXIO);
    assert_int_equal(world_do_unmap(world, 1, one(1, 10, 0)), VIOMMU_PV_ENXIO);
    assert_int_equal(world_do_unmap(world, 0, one(1, 10, 0)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, one(1, 10, 0)), VIOMMU_PV_ENXIO);
    assert_int_equal(page(world, 0, 1)->refs, 2);
    assert_int_equal(page(world, 0, 1)->types, 1);
    world_end(world);
}

static void test_numbers(void **state)
{
    struct world *world = begin(&(struct viommu_pv_config){.count_max = 100});
    struct world_range range = one(0, 0, RW);

    (void)state;
    assert_int_equal(world_do_map(world, 0, one(2 * WORLD_FRAMES, 0, RW)), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, one(0, WORLD_DEVICE, RW)), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 101)), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, many(one(0, WORLD_DEVICE - 2, RW), 3)),
                     VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, one(UINT64_MAX, 0, RW)), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, many(one(0, UINT64_MAX, RW), 2)), VIOMMU_PV_ERANGE);
    range.order = 3;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    range.order = 64;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, large(one(512, 1, RW))), VIOMMU_PV_EINVAL);
    assert_int_equal(world_do_map(world, 0, large(one(1, 512, RW))), VIOMMU_PV_EINVAL);
    /* Counted in frames, whatever the order; the last one is one. */
    range = many(large(one(512, WORLD_DEVICE - 512, RW)), 2);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    range = many(large(one(2 * WORLD_FRAMES - 512, 512, RW)), 2);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_map(world, 0, one(2 * WORLD_FRAMES - 1, 0, RW)), VIOMMU_PV_ENOENT);
    assert_int_equal(world_do_map(world, 0, many(one(0, WORLD_DEVICE - 2, RW), 2)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, many(one(0, WORLD_DEVICE - 2, 0), 3)),
                     VIOMMU_PV_ERANGE);
    assert_int_equal(world_do_unmap(world, 0, many(one(0, WORLD_DEVICE - 2, 0), 2)), VIOMMU_PV_OK);
    range = one(0, 0, RW);
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 0)), VIOMMU_PV_OK);
    range = one(0, 0, RW);
    range.context = 3;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_EBADF);
    range.context = UINT32_MAX;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_EBADF);
    assert_int_equal(world_do_map(world, 0, of(one(0, 0, RW), 3)), VIOMMU_PV_ESRCH);
    assert_int_equal(world_status(world, 0).mappings, 0);
    world_end(world);
}

static void test_page_states(void **state)
{
    struct world *world = begin(&defaults);
    struct world_frame *frames = world->vms[0].frames;

    (void)state;
    frames[0].machine = -1;
    frames[1].state = VIOMMU_PV_PAGE_READ_ONLY;
    frames[2].state = VIOMMU_PV_PAGE_DIRTY_LOGGED;
    frames[3].state = VIOMMU_PV_PAGE_PAGED_OUT;
    frames[4].state = VIOMMU_PV_PAGE_SHARED;
    frames[5].state = VIOMMU_PV_PAGE_ON_DEMAND;
    frames[5].machine = -1;
    frames[6].state = VIOMMU_PV_PAGE_MMIO;
    world->pages[7].other_type = true;
    assert_int_equal(world_do_map(world, 0, one(0, 10, RW)), VIOMMU_PV_ENOENT);
    assert_int_equal(world_do_map(world, 0, one(1, 11, RW)), VIOMMU_PV_EACCES);
    assert_int_equal(world_do_map(world, 0, one(1, 11, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(2, 12, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 2)->dirty, 0);
    assert_int_equal(world_do_map(world, 0, one(2, 22, RW)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 2)->dirty, 1);
    assert_int_equal(world_do_unmap(world, 0, one(2, 22, 0)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 2)->dirty, 2); /* it could write until now */
    assert_int_equal(world_do_map(world, 0, one(3, 13, RW)), VIOMMU_PV_EAGAIN);
    assert_int_equal(world_do_map(world, 0, one(3, 13, RW)), VIOMMU_PV_OK);
    assert_int_equal(world->prepared, 1);
    assert_int_equal(world_do_map(world, 0, one(4, 14, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    assert_int_equal(frames[4].state, VIOMMU_PV_PAGE_SHARED);
    assert_int_equal(world_do_map(world, 0, one(4, 24, RW)), VIOMMU_PV_OK);
    assert_int_equal(frames[4].state, VIOMMU_PV_PAGE_RAM);
    assert_int_equal(world_do_map(world, 0, one(5, 15, RW)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 5)->refs, 1);
    assert_int_equal(world_do_map(world, 0, one(6, 16, RW)), VIOMMU_PV_EOPNOTSUPP);
    assert_int_equal(world_do_map(world, 0, with(one(6, 16, RW), VIOMMU_PV_MMIO)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, one(6, 16, 0)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(7, 17, RW)), VIOMMU_PV_EBUSY);
    assert_int_equal(world_do_map(world, 0, one(7, 17, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    world_check(world);
    world_end(world);
}

static void test_privileges_come_before_side_effects(void **state)
{
    struct world *world = begin(&defaults);
    struct world_range range = of(one(5, 15, RW), 1);

    (void)state;
    world->vms[1].frames[5] = (struct world_frame){-1, VIOMMU_PV_PAGE_ON_DEMAND};
    world->refuse_call = 1u << VIOMMU_PV_MAP;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_EPERM);
    world->refuse_call = 0;
    world->refuse_use[0] = 1u << 1;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_EPERM);
    assert_int_equal(world->vms[1].frames[5].machine, -1);
    /* The page is another VM's than the one that was named. */
    world->refuse_use[0] = 1u << 2;
    world->vms[1].frames[6] =
        (struct world_frame){world->vms[2].frames[6].machine, VIOMMU_PV_PAGE_SHARED};
    assert_int_equal(world_do_map(world, 0, of(one(6, 16, RW), 1)), VIOMMU_PV_EPERM);
    assert_int_equal(world->vms[1].frames[6].state, VIOMMU_PV_PAGE_SHARED);
    assert_int_equal(world->prepared, 0);
    world->refuse_use[0] = 0;
    assert_int_equal(world_do_map(world, 0, of(one(6, 16, RW), 1)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    world_end(world);
}

/* What can be wrong with one map, in the order in which it is looked at. */
enum wrong {
    WRONG_CALLER,
    WRONG_NOT_ENABLED,
    WRONG_CONTEXT,
    WRONG_RANGE,
    WRONG_RESERVED,
    WRONG_VM,
    WRONG_NAMED,
    WRONG_PAGE,
    WRONG_OWNER,
    WRONG_STATE,
    WRONG_TYPE,
    WRONG_SLOT,
    WRONGS,
};

static const uint32_t statuses[WRONGS] = {
    [WRONG_CALLER] = VIOMMU_PV_EPERM,
    [WRONG_NOT_ENABLED] = VIOMMU_PV_EAGAIN,
    [WRONG_CONTEXT] = VIOMMU_PV_EBADF,
    [WRONG_RANGE] = VIOMMU_PV_ERANGE,
    [WRONG_RESERVED] = VIOMMU_PV_EADDRNOTAVAIL,
    [WRONG_VM] = VIOMMU_PV_ESRCH,
    [WRONG_NAMED] = VIOMMU_PV_EPERM,
    [WRONG_PAGE] = VIOMMU_PV_ENOENT,
    [WRONG_OWNER] = VIOMMU_PV_EPERM,
    [WRONG_STATE] = VIOMMU_PV_EACCES,
    [WRONG_TYPE] = VIOMMU_PV_EBUSY,
    [WRONG_SLOT] = VIOMMU_PV_EEXIST,
};

/* A map of VM 0, of a page that VM 1 has, with these things wrong (bit n: enum wrong n). */
static uint32_t map_wrongly(unsigned wrong)
{
    struct world *world = world_create(&(struct viommu_pv_config){.count_max = 1}, 3);
    struct world_range range = of(one(5, 60, RW), 1);
    struct world_frame *at = &world->vms[1].frames[5];
    uint32_t status;

    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0); /* reserves 64 to 65 */
    if (!(wrong & 1u << WRONG_NOT_ENABLED)) {
        assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
        if (wrong & 1u << WRONG_SLOT) {
            assert_int_equal(world_do_map(world, 0, of(one(9, 60, RW), 1)), VIOMMU_PV_OK);
        }
    }
    world->refuse_call = wrong & 1u << WRONG_CALLER ? 1u << VIOMMU_PV_MAP : 0;
    range.context = wrong & 1u << WRONG_CONTEXT ? 9 : 0;
    range.count = wrong & 1u << WRONG_RANGE ? 2 : 1;
    range.device_frame = wrong & 1u << WRONG_RESERVED ? 65 : 60;
    range.of = wrong & 1u << WRONG_VM ? 3 : 1;
    world->refuse_use[0] |= wrong & 1u << WRONG_NAMED ? 1u << 1 : 0;
    world->refuse_use[0] |= wrong & 1u << WRONG_OWNER ? 1u << 2 : 0;
    world->pages[at->machine].owner = wrong & 1u << WRONG_OWNER ? 2 : 1;
    world->pages[at->machine].other_type = wrong >> WRONG_TYPE & 1;
    at->state = wrong & 1u << WRONG_STATE ? VIOMMU_PV_PAGE_READ_ONLY : VIOMMU_PV_PAGE_RAM;
    at->machine = wrong & 1u << WRONG_PAGE ? -1 : at->machine;
    status = world_do_map(world, 0, range);
    world_check(world);
    world_end(world);
    return status;
}

/* Of two things that are wrong the status says the one that is looked at first. */
static void test_the_order_of_checks(void **state)
{
    (void)state;
    assert_int_equal(map_wrongly(0), VIOMMU_PV_OK);
    for (unsigned first = 0; first < WRONGS; first++) {
        for (unsigned then = first; then < WRONGS; then++) {
            assert_int_equal(map_wrongly(1u << first | 1u << then), statuses[first]);
        }
        assert_int_equal(map_wrongly(((1u << WRONGS) - 1) & ~((1u << first) - 1)), statuses[first]);
    }
}

static void test_in_use(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_answer answer;
    struct world_range range = many(one(0, 8, RW), 5);

    (void)state;
    assert_int_equal(world_do_map(world, 0, one(1, 10, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(2, 10, RW)), VIOMMU_PV_EEXIST);
    assert_int_equal(look(world, 0, 10).frame, 1);
    assert_int_equal(look(world, 0, 10).perm, VIOMMU_PV_READ);
    assert_int_equal(world_ranged(world, 0, VIOMMU_PV_MAP, &range, &answer), VIOMMU_PV_EEXIST);
    assert_int_equal(answer.done, 2);
    assert_int_equal(answer.stopped, 10);
    assert_int_equal(look(world, 0, 9).frame, 1);
    assert_int_equal(look(world, 0, 11).answer.status, VIOMMU_PV_ENXIO);
    /* What is under a large page, and over it. */
    assert_int_equal(world_do_map(world, 0, large(one(512, 0, RW))), VIOMMU_PV_EEXIST);
    assert_int_equal(world_do_map(world, 0, large(one(512, 512, RW))), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(0, 600, RW)), VIOMMU_PV_EEXIST);
    assert_int_equal(world_do_unmap(world, 0, one(600, 600, 0)), VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_unmap(world, 0, one(512, 512, 0)), VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_map(world, 0, one(512, 1024, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, large(one(512, 1024, 0))), VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_unmap(world, 0, one(512, 1024, 0)), VIOMMU_PV_OK);
    assert_int_equal(look(world, 0, 600).frame, 600);
    assert_int_equal(page(world, 0, 1000)->refs, 1);
    assert_int_equal(world_do_unmap(world, 0, large(one(512, 512, 0))), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 1000)->refs, 0);
    range = many(one(0, 8, 0), 9);
    assert_int_equal(world_ranged(world, 0, VIOMMU_PV_UNMAP, &range, &answer), VIOMMU_PV_ESTALE);
    assert_int_equal(answer.done, 2);
    world_check(world);
    world_end(world);
}

static void test_references_wait_for_the_flush(void **state)
{
    struct world *world = begin(&(struct viommu_pv_config){.deferred_max = 4});
    struct world_range range = many(one(0, 0, RW), 10);

    (void)state;
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, with(many(range, 3), VIOMMU_PV_DEFER)), 0);
    assert_int_equal(world->flushes, 0);
    assert_int_equal(page(world, 0, 0)->refs, 1);
    assert_int_equal(page(world, 0, 0)->types, 1);
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_ENXIO);
    /* Another VM's flush does not wait for these, nor they for it. */
    assert_int_equal(world_do_map(world, 1, one(0, 0, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 1, one(0, 0, 0)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 1, 0)->refs, 0);
    assert_int_equal(page(world, 0, 0)->refs, 1);
    /* Mapping a slot again that waits flushes it first: the page is another. */
    assert_int_equal(world_do_map(world, 0, one(20, 1, RW)), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 1)->refs, 0);
    assert_int_equal(page(world, 0, 0)->refs, 1);
    /* Past the limit it flushes itself. */
    range = with(many(one(3, 3, 0), 7), VIOMMU_PV_DEFER);
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    assert_true(world_status(world, 0).pending <= 4);
    assert_int_equal(page(world, 0, 0)->refs, 0);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 0);
    /* A page of more frames than may wait does not wait. */
    assert_int_equal(world_do_map(world, 0, large(one(512, 512, RW))), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, with(large(one(512, 512, 0)), VIOMMU_PV_DEFER)),
                     VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 512)->refs, 0);
    world_check(world);
    world_end(world);
}

static void test_a_flush_of_a_range(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_flush_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_FLUSH, in), .first = 3, .last = 4};
    struct viommu_pv_answer out;

    (void)state;
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 10)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, with(many(one(0, 0, 0), 10), VIOMMU_PV_DEFER)),
                     VIOMMU_PV_OK);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 8);
    assert_int_equal(page(world, 0, 3)->refs, 0);
    assert_int_equal(page(world, 0, 2)->refs, 1);
    world_check(world);
    in.last = WORLD_DEVICE;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_ERANGE);
    world_end(world);
}

static void unmap_another(struct world *world)
{
    assert_int_equal(world_do_unmap(world, 0, with(many(one(1, 1, 0), 2), VIOMMU_PV_DEFER)),
                     VIOMMU_PV_OK);
}

/* What is unmapped while a flush is under way waits for the next one. */
static void test_an_unmap_during_a_flush(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 4)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, with(one(0, 0, 0), VIOMMU_PV_DEFER)), VIOMMU_PV_OK);
    world->intrude = unmap_another;
    world->intrude_at = world->steps + 2; /* after the privilege: the flush */
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 0)->refs, 0);
    assert_int_equal(page(world, 0, 1)->refs, 1);
    assert_int_equal(page(world, 0, 2)->refs, 1);
    assert_int_equal(world_status(world, 0).pending, 2);
    world_check(world);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 1)->refs, 0);
    world_end(world);
}

static void test_a_flush_that_fails(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 4)), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(world_do_unmap(world, 0, many(one(0, 0, 0), 2)), VIOMMU_PV_EIO);
    assert_int_equal(page(world, 0, 0)->refs, 1);
    assert_int_equal(world_status(world, 0).pending, 2);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_true(world->spaces[0].isolated);
    assert_int_equal(world_do_map(world, 0, one(9, 9, RW)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_unmap(world, 0, one(2, 2, 0)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    /* The VM does not go while a device may reach what it mapped. */
    assert_int_equal(world_do_map(world, 1, one(0, 0, RW)), VIOMMU_PV_OK);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(page(world, 0, 0)->refs, 0);
    assert_int_equal(world_status(world, 0).isolated, 0);
    assert_int_equal(world_do_map(world, 0, one(9, 9, RW)), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(world_destroy_vm(world, 0), -EIO);
    assert_int_equal(page(world, 0, 9)->refs, 1);
    world_check(world);
    world->flush_fails = false;
    assert_int_equal(world_destroy_vm(world, 0), 0);
    world_end(world);
}

static void test_quotas(void **state)
{
    struct world *world =
        begin(&(struct viommu_pv_config){.mappings_max = 8, .tables_max = 5, .contexts_max = 2});
    struct viommu_pv_answer answer;
    struct world_range range = many(one(0, 0, RW), 10);
    uint32_t context;

    (void)state;
    assert_int_equal(world_ranged(world, 0, VIOMMU_PV_MAP, &range, &answer), VIOMMU_PV_ENOSPC);
    assert_int_equal(answer.done, 8);
    /* What waits for its flush counts; another VM's do not. */
    assert_int_equal(world_do_unmap(world, 0, with(one(0, 0, 0), VIOMMU_PV_DEFER)), 0);
    assert_int_equal(world_do_map(world, 0, one(0, 20, RW)), VIOMMU_PV_ENOSPC);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, one(0, 20, RW)), VIOMMU_PV_OK);
    /* Two tables above, three with mappings. */
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(world_do_map(world, 1, one(i, 512 * i, RW)), VIOMMU_PV_OK);
    }
    assert_int_equal(world_do_map(world, 1, one(9, 512 * 4, RW)), VIOMMU_PV_ENOSPC);
    assert_int_equal(world_status(world, 1).tables, 5);
    assert_int_equal(world_do_unmap(world, 1, one(0, 0, 0)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, one(9, 512 * 4, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 1);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_ENOSPC);
    world_end(world);
}

static void test_find(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_find_call in = {.head = WORLD_HEAD(VIOMMU_PV_FIND, in), .vm = 1, .frame = 600};
    struct {
        struct viommu_pv_find find;
        struct viommu_pv_place places[4];
    } out;

    (void)state;
    in.room = 4;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_ENXIO);
    assert_int_equal(world_do_map(world, 0, of(one(600, 3, VIOMMU_PV_READ), 1)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, large(of(one(512, 512, RW), 1))), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 2, of(one(600, 5, RW), 1)), VIOMMU_PV_OK);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.find.count, 2);
    assert_int_equal(out.find.answer.done, 2);
    assert_int_equal(out.places[0].device_frame, 3);
    assert_int_equal(out.places[0].perm, VIOMMU_PV_READ);
    assert_int_equal(out.places[1].device_frame, 600);
    in.room = 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.find.count, 2);
    assert_int_equal(out.find.answer.done, 1);
    in.vm = 77;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_ESRCH);
    world_end(world);
}

static void refuse_foreign(struct world *world)
{
    world->refuse_call = 1u << VIOMMU_PV_MAP_FOREIGN;
}

static void test_map_foreign(void **state)
{
    struct world *world = begin(&defaults);
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[4];
    } in = {.call = {.head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN, sizeof(in)},
                     .vm = 1,
                     .device_frame_max = 66,
                     .perm = RW,
                     .count = 4},
            .frames = {1, 2, 9999, 3}};
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[4];
    } out;

    (void)state;
    world->vms[1].frames[2].state = VIOMMU_PV_PAGE_READ_ONLY;
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0); /* reserves 64 to 65, 80 to 81 */
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 63)), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.answer.done, 2);
    assert_int_equal(out.items[0].status, VIOMMU_PV_OK);
    assert_int_equal(out.items[0].device_frame, 63);
    assert_int_equal(out.items[1].status, VIOMMU_PV_EACCES);
    assert_int_equal(out.items[2].status, VIOMMU_PV_ERANGE);
    assert_int_equal(out.items[3].status, VIOMMU_PV_OK);
    assert_int_equal(out.items[3].device_frame, 66);
    assert_int_equal(look(world, 0, 66).vm, 1);
    assert_int_equal(look(world, 0, 66).frame, 3);
    /* There is no more room below; but what waits for its flush becomes room. */
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.answer.done, 0);
    assert_int_equal(out.items[0].status, VIOMMU_PV_ENOSPC);
    assert_int_equal(world_do_unmap(world, 0, with(one(7, 7, 0), VIOMMU_PV_DEFER)), 0);
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.items[0].device_frame, 7);
    /* The call's own status is that of each item. */
    in.call.vm = 3;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_ESRCH);
    assert_int_equal(out.items[3].status, VIOMMU_PV_ESRCH);
    /* Also when it is refused before it begins. */
    world->refuse_call = 1u << VIOMMU_PV_MAP_FOREIGN;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_EPERM);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(out.items[i].status, VIOMMU_PV_EPERM);
    }
    world->refuse_call = 0;
    world->intrude = refuse_foreign;
    world->intrude_at = world->steps + 5; /* it yields after the first page */
    in.call.device_frame_max = WORLD_DEVICE - 1;
    in.call.vm = 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_EPERM);
    assert_true(out.answer.done >= 1);
    assert_int_equal(out.items[0].status, VIOMMU_PV_OK);
    assert_int_equal(out.items[3].status, VIOMMU_PV_EPERM);
    assert_int_equal(world_do_unmap(world, 0, of(one(1, out.items[0].device_frame, 0), 1)), 0);
    world->refuse_call = 0;
    /* Nor may it map pages of that VM; nor is there such a device frame. */
    in.call.vm = 1;
    world->refuse_use[0] = 1u << 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_EPERM);
    assert_int_equal(out.items[0].status, VIOMMU_PV_EPERM);
    world->refuse_use[0] = 0;
    in.call.device_frame_max = WORLD_DEVICE;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_ERANGE);
    in.call.device_frame_max = WORLD_DEVICE - 1;
    assert_int_equal(world_call(world, 0, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.answer.done, 2);
    world_check(world);
    world_end(world);
}

/* Several pages that belong to another VM than has them: they come off its list in any order. */
static void test_aliases(void **state)
{
    static const uint64_t order[] = {3, 1, 2, 0, 4};
    struct world *world = world_create(&(struct viommu_pv_config){.deferred_max = 64}, 3);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    for (uint64_t i = 0; i < 5; i++) {
        world->pages[WORLD_FRAMES + i].owner = 2; /* VM 1 has it at frame i */
    }
    assert_int_equal(world_do_map(world, 0, (struct world_range){0, 1, 0, 0, 5, 0, 1, 0}),
                     VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 2).mapped, 5);
    for (unsigned i = 0; i < 5; i++) {
        const struct world_range one = {0, 1, order[i], order[i], 1, 0, 0, 0};

        assert_int_equal(world_do_unmap(world, 0, one), VIOMMU_PV_OK);
        assert_int_equal(world_status(world, 2).mapped, 4 - i);
        world_check(world);
    }
    world_end(world);
}

/* A page larger than what may be deferred is flushed at once; that this fails is told at once. */
static void test_a_large_page_that_is_not_flushed(void **state)
{
    struct world *world = world_create(&(struct viommu_pv_config){.deferred_max = 8}, 1);
    const struct world_range page = {0, VIOMMU_PV_SELF, 512, 1024, 1, 9, 1, 0};
    struct world_range unmapped = page;

    (void)state;
    unmapped.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, page), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(world_do_unmap(world, 0, unmapped), VIOMMU_PV_EIO);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, page), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, unmapped), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 0);
    world_check(world);
    world_end(world);
}

static void defer_one_more(struct world *world)
{
    const struct world_range other = {0, VIOMMU_PV_SELF, 4, 4, 1, 0, 0, VIOMMU_PV_DEFER};

    assert_int_equal(world_do_unmap(world, 0, other), VIOMMU_PV_OK);
}

/* What may be deferred is counted in places of the queue, those on their way included, and in
   frames. */
static void test_the_limit_of_what_is_deferred(void **state)
{
    struct world *world = world_create(&(struct viommu_pv_config){.deferred_max = 4}, 1);
    struct viommu_pv_flush_call flush = {
        .head = WORLD_HEAD(VIOMMU_PV_FLUSH, flush), .first = 1, .last = 2};
    struct viommu_pv_answer out;
    struct world_range range = {0, VIOMMU_PV_SELF, 0, 0, 5, 0, 1, 0};

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    range.count = 3;
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    assert_int_equal(world_call(world, 0, &flush, sizeof(flush), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 1); /* of three places that are taken */
    range = (struct world_range){0, VIOMMU_PV_SELF, 3, 3, 1, 0, 0, VIOMMU_PV_DEFER};
    world->intrude = defer_one_more;
    world->intrude_at = world->steps + 2; /* while it is unmapped in the IOMMU */
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    world_check(world);
    assert_int_equal(world_status(world, 0).mappings, 2);
    world_end(world);

    world = world_create(&(struct viommu_pv_config){.deferred_max = 1023}, 1);
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    for (uint64_t at = 1024; at < 2048; at += 512) {
        range = (struct world_range){0, VIOMMU_PV_SELF, 512, at, 1, 9, 1, 0};
        assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    }
    for (uint64_t at = 1024; at < 2048; at += 512) {
        range = (struct world_range){0, VIOMMU_PV_SELF, 512, at, 1, 9, 0, VIOMMU_PV_DEFER};
        assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
        assert_int_equal(world_status(world, 0).pending, 1);
        world_check(world);
    }
    /* Many small ones after a large one: the world looks at each whether they are too many. */
    range = (struct world_range){0, VIOMMU_PV_SELF, 0, 2048, 600, 0, 1, 0};
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    range = (struct world_range){0, VIOMMU_PV_SELF, 512, 1536, 1, 9, 1, 0};
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    /* A flush of a part of a page flushes it whole. */
    flush.first = flush.last = 1600;
    assert_int_equal(world_call(world, 0, &flush, sizeof(flush), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).pending, 0);
    world_end(world);
}

/* As an IOMMU that did not answer in time: it was mapped, or will be. */
static int map_unknown(void *opaque, void *space, uint64_t device_frame, unsigned order,
                       uint64_t handle, uint32_t perm)
{
    (void)world_map(opaque, space, device_frame, order, handle, perm);
    return -EIO;
}

static void test_a_map_that_may_have_been_made(void **state)
{
    struct viommu_pv_ops ops = world_ops;
    struct world *world;

    (void)state;
    ops.map = map_unknown;
    world = begin(&(struct viommu_pv_config){.ops = &ops});
    world->flush_fails = true;
    assert_int_equal(world_do_map(world, 0, one(5, 5, RW)), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[5].refs, 1); /* a device may reach it */
    assert_int_equal(world->pages[5].types, 1);
    world_check(world);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(world_status(world, 0).mappings, 0);
    world_check(world);
    world_end(world);
}

/* The privilege goes while an unmapping has yielded: what was unmapped is flushed all the same. */
static void test_an_unmap_that_must_not_go_on(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_map_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_UNMAP, in), .vm = VIOMMU_PV_SELF, .count = 3};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    size_t written;

    (void)state;
    assert_int_equal(world_do_map(world, 0, many(one(0, 0, RW), 3)), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    world->refuse_call = 1u << VIOMMU_PV_UNMAP;
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, VIOMMU_PV_EPERM);
    assert_int_equal(out.done, 1);
    assert_int_equal(world_status(world, 0).pending, 0);
    assert_int_equal(world->pages[0].refs, 0);
    world->refuse_call = 0;
    world_end(world);
}

/* A call that may not be made at all stopped at its first page, however many it is about. */
static void test_where_a_refused_call_stopped(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_answer answer;

    (void)state;
    world->refuse_call = 1u << VIOMMU_PV_MAP | 1u << VIOMMU_PV_UNMAP;
    for (uint64_t count = 1; count <= 3; count++) {
        struct world_range range = many(one(5, 15, RW), count);

        assert_int_equal(world_ranged(world, 0, VIOMMU_PV_MAP, &range, &answer), VIOMMU_PV_EPERM);
        assert_int_equal(answer.done, 0);
        assert_int_equal(answer.stopped, 15);
        range.flags = VIOMMU_PV_DEFER;
        assert_int_equal(world_ranged(world, 0, VIOMMU_PV_UNMAP, &range, &answer), VIOMMU_PV_EPERM);
        assert_int_equal(answer.stopped, 15);
    }
    world->refuse_call = 0;
    world_end(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_where_a_refused_call_stopped),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_page_states),
        cmocka_unit_test(test_privileges_come_before_side_effects),
        cmocka_unit_test(test_the_order_of_checks),
        cmocka_unit_test(test_in_use),
        cmocka_unit_test(test_references_wait_for_the_flush),
        cmocka_unit_test(test_a_flush_of_a_range),
        cmocka_unit_test(test_an_unmap_during_a_flush),
        cmocka_unit_test(test_a_flush_that_fails),
        cmocka_unit_test(test_quotas),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_map_foreign),
        cmocka_unit_test(test_aliases),
        cmocka_unit_test(test_a_map_that_may_have_been_made),
        cmocka_unit_test(test_an_unmap_that_must_not_go_on),
        cmocka_unit_test(test_the_limit_of_what_is_deferred),
        cmocka_unit_test(test_a_large_page_that_is_not_flushed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
