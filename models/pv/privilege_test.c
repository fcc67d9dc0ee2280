/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a VM may not do has no effect: of each call that is refused, whole or for the pages it is
 * about, nothing is seen by anybody, while it is under way neither. And when a page counts as
 * nobody's does not depend on what others do with other pages.
 */
#include "pv/test_random.h"
#include "pv/test_snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
};

static const struct viommu_pv_config defaults;

static struct world *begin(void)
{
    struct world *world = world_create(&defaults, 3);
    struct world_frame *frames = world->vms[0].frames;
    uint32_t context;

    frames[1].state = VIOMMU_PV_PAGE_READ_ONLY;
    frames[2].state = VIOMMU_PV_PAGE_DIRTY_LOGGED;
    frames[3].state = VIOMMU_PV_PAGE_PAGED_OUT;
    frames[4].state = VIOMMU_PV_PAGE_SHARED;
    frames[5] = (struct world_frame){-1, VIOMMU_PV_PAGE_ON_DEMAND};
    frames[6].state = VIOMMU_PV_PAGE_MMIO;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_enable(world, 1), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 1, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 1, 1), 0);
    assert_int_equal(
        world_do_map(world, 1,
                     (struct world_range){.frame = 10, .device_frame = 10, .count = 4, .perm = RW}),
        VIOMMU_PV_OK);
    assert_int_equal(
        world_do_map(world, 1,
                     (struct world_range){
                         .frame = 512, .device_frame = 1024, .count = 1, .order = 9, .perm = RW}),
        VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 13), VIOMMU_PENDING);
    return world;
}

/* A page of VM 0's that nobody maps: it goes at once. */
static void removes_another(struct world *world)
{
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 100), 0);
    assert_int_equal(viommu_pv_page_settle(world->pv, 0, 100), 0);
}

/* ---- calls ---- */

/* One of each kind that would be carried out, of VM 1. */
static const union {
    struct viommu_pv_head head;
    struct viommu_pv_reserved_call reserved;
    struct viommu_pv_alloc_call alloc;
    struct viommu_pv_free_call free;
    struct viommu_pv_attach_call attach;
    struct viommu_pv_map_call map;
    struct viommu_pv_flush_call flush;
    struct viommu_pv_lookup_call lookup;
    struct viommu_pv_find_call find;
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[2];
    } foreign;
    struct viommu_pv_acknowledge_call acknowledge;
} calls[] = {
    {.head = WORLD_HEAD(VIOMMU_PV_CAPS, struct viommu_pv_head)},
    {.reserved = {.head = WORLD_HEAD(VIOMMU_PV_RESERVED, struct viommu_pv_reserved_call),
                  .device = 1,
                  .room = 4}},
    {.head = WORLD_HEAD(VIOMMU_PV_ENABLE, struct viommu_pv_head)}, /* of VM 2 */
    {.alloc = {.head = WORLD_HEAD(VIOMMU_PV_CONTEXT_ALLOC, struct viommu_pv_alloc_call)}},
    {.free = {.head = WORLD_HEAD(VIOMMU_PV_CONTEXT_FREE, struct viommu_pv_free_call),
              .context = 1}},
    {.attach = {.head = WORLD_HEAD(VIOMMU_PV_ATTACH, struct viommu_pv_attach_call),
                .device = 1,
                .context = 1}},
    {.map = {.head = WORLD_HEAD(VIOMMU_PV_MAP, struct viommu_pv_map_call),
             .frame = 20,
             .device_frame = 20,
             .count = 1,
             .perm = RW}},
    {.map = {.head = WORLD_HEAD(VIOMMU_PV_MAP, struct viommu_pv_map_call),
             .frame = 2,
             .device_frame = 20,
             .count = 4,
             .perm = RW}},
    {.map = {.head = WORLD_HEAD(VIOMMU_PV_MAP, struct viommu_pv_map_call),
             .frame = 512,
             .device_frame = 512,
             .count = 1,
             .order = 9,
             .perm = VIOMMU_PV_READ}},
    {.map = {.head = WORLD_HEAD(VIOMMU_PV_UNMAP, struct viommu_pv_map_call),
             .frame = 10,
             .device_frame = 10,
             .count = 1}},
    {.map = {.head = WORLD_HEAD(VIOMMU_PV_UNMAP, struct viommu_pv_map_call),
             .frame = 10,
             .device_frame = 10,
             .count = 3}},
    {.flush = {.head = WORLD_HEAD(VIOMMU_PV_FLUSH, struct viommu_pv_flush_call),
               .flags = VIOMMU_PV_WHOLE}},
    {.lookup = {.head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call),
                .device_frame = 10}},
    {.find = {.head = WORLD_HEAD(VIOMMU_PV_FIND, struct viommu_pv_find_call), .frame = 10}},
    {.foreign = {{.head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN,
                           sizeof(struct viommu_pv_foreign_call) + 16},
                  .device_frame_max = 99,
                  .perm = RW,
                  .count = 2},
                 {3, 5}}},
    {.acknowledge = {.head = WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, struct viommu_pv_acknowledge_call),
                     .frame = 13}},
};

static uint32_t make(struct world *world, size_t i)
{
    uint8_t out[256];

    return world_call(world, calls[i].head.operation == VIOMMU_PV_ENABLE ? 2 : 1, &calls[i],
                      calls[i].head.size, out, sizeof(out));
}

/* None may be made: the privilege is asked for, and nothing else is. */
static void test_calls_that_may_not_be_made(void **state)
{
    uint64_t made = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct world *world = begin();
        unsigned long told = world->told;
        struct snapshot *before;
        struct snapshot *after;
        unsigned long steps;

        assert_int_equal(world_do_unmap(world, 1,
                                        (struct world_range){.frame = 12,
                                                             .device_frame = 12,
                                                             .count = 1,
                                                             .flags = VIOMMU_PV_DEFER}),
                         VIOMMU_PV_OK);
        world->refuse_call = UINT64_MAX;
        world->intrude = removes_another;
        world->intrude_at = world->steps + 1;
        before = snapshot_take(world);
        steps = world->steps;
        assert_int_equal(make(world, i), VIOMMU_PV_EPERM);
        assert_int_equal(world->steps, steps + 1);
        after = snapshot_take(world);
        assert_null(snapshot_differs(before, after));
        assert_int_equal(before->prepared, after->prepared);
        assert_int_equal(before->flushes, after->flushes);
        assert_int_equal(world->told, told);
        assert_int_equal(world->acknowledged, 0);
        free(before);
        free(after);
        /* It would have been carried out: */
        world->refuse_call = ~(UINT64_C(1) << calls[i].head.operation);
        assert_true(make(world, i) != VIOMMU_PV_EPERM);
        made |= UINT64_C(1) << calls[i].head.operation;
        world->refuse_call = 0;
        world_check(world);
        world_end(world);
    }
    assert_int_equal(made, (UINT64_C(2) << VIOMMU_PV_ACKNOWLEDGE) - 2); /* all there are */
}

/* ---- pages of others ---- */

/* Without the privilege over the VM that is named no page is even looked at; over the VM that it
   belongs to, it is looked at, and that is all. */
static void refused(uint64_t frame, uint32_t perm, bool named, bool write_only)
{
    struct world *world = begin();
    struct world_frame *at = &world->vms[0].frames[frame];
    struct world_range range = {.frame = frame,
                                .device_frame = 20,
                                .count = 1,
                                .perm = perm,
                                .flags = frame == 6 ? VIOMMU_PV_MMIO : 0};
    uint64_t *which = write_only ? &world->refuse_write[1] : &world->refuse_use[1];
    struct snapshot *before;
    struct snapshot *after;
    unsigned long steps;

    if (!named && at->machine >= 0) {
        world->pages[at->machine].owner = 2;
    }
    *which = UINT64_C(1) << (named ? 0 : 2);
    before = snapshot_take(world);
    steps = world->steps;
    assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_EPERM);
    /* The privilege for the call, over the named VM; the page is looked at, and its VM. One that is
       not plain is looked at again. */
    assert_in_range(world->steps - steps, 2, named ? 2 : 5);
    after = snapshot_take(world);
    assert_null(snapshot_differs(before, after));
    assert_int_equal(before->prepared, after->prepared);
    free(before);
    free(after);
    *which = 0;
    assert_true(world_do_map(world, 1, range) != VIOMMU_PV_EPERM);
    world_check(world);
    world_end(world);
}

static void test_pages_that_may_not_be_used(void **state)
{
    static const uint64_t frames[] = {1, 2, 3, 4, 5, 6, 20};

    (void)state;
    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        for (uint32_t perm = VIOMMU_PV_READ; perm <= RW; perm++) {
            for (unsigned named = 0; named < 2; named++) {
                if (named || frames[i] != 5) { /* which has no page yet, and so no other owner */
                    refused(frames[i], perm, named, false);
                    if (perm & VIOMMU_PV_WRITE) {
                        refused(frames[i], perm, named, true);
                    }
                }
            }
        }
    }
}

/* Who may only read another VM's pages maps them so; whatever way the call takes. */
static void test_reading_alone(void **state)
{
    (void)state;
    for (uint64_t count = 1; count <= 3; count++) {
        struct world *world = begin();
        struct world_range range = {
            .frame = 20, .device_frame = 20, .count = count, .perm = VIOMMU_PV_READ};

        world->refuse_write[1] = 1u << 0;
        assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
        range.device_frame = 30;
        range.perm = RW;
        assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_EPERM);
        range.perm = VIOMMU_PV_WRITE;
        assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_EPERM);
        world_end(world);
    }
}

/* ---- when a page is nobody's ---- */

/* Whatever a call does with pages of a VM, at each of its steps another page of that VM goes at
   once if nobody maps it. */
static void test_a_page_waits_for_nobody_elses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        bool happened = true;

        for (unsigned long n = 1; happened; n++) {
            struct world *world = begin();

            world->intrude = removes_another;
            world->intrude_at = world->steps + n;
            (void)make(world, i);
            happened = world->steps >= world->intrude_at;
            world->intrude_at = 0;
            world_check(world);
            world_end(world);
        }
    }
}

static bool drained;
static uint64_t frame_going;

static void is_it_drained(struct world *world)
{
    drained = viommu_pv_page_remove(world->pv, 0, frame_going) == 0;
}

/* At which steps of a call a page of VM 0's counts as nobody's: bit n - 1 is the n-th. */
static uint64_t when_drained(uint64_t frame, unsigned operation, const struct world_range *range)
{
    uint64_t when = 0;

    frame_going = frame;
    for (unsigned n = 1; n <= 40; n++) {
        struct world *world = begin();

        drained = false;
        world->intrude = is_it_drained;
        world->intrude_at = world->steps + n;
        (void)world_ranged(world, 1, operation, range, NULL);
        world->intrude_at = 0;
        when |= (uint64_t)drained << (n - 1);
        world_check(world);
        world_end(world);
    }
    return when;
}

/*
 * A page that a call is about to refer to, or drops, is not nobody's until that is over: mapping
 * asks whether it may be called, then over the VM, looks the page up, refers to it, maps; unmapping
 * ends with the type reference and the page's.
 */
static void test_a_page_that_is_referred_to(void **state)
{
    struct world_range range = {.frame = 20, .device_frame = 20, .count = 1, .perm = RW};

    (void)state;
    for (range.count = 1; range.count <= 3; range.count++) {
        for (uint64_t i = 0; i < range.count; i++) {
            assert_int_equal(when_drained(20 + i, VIOMMU_PV_MAP, &range) & 0x1c, 0);
        }
        assert_true(when_drained(200, VIOMMU_PV_MAP, &range) & 0x1c);
    }
    /* One that is unshared first: nothing is held while it is made ready; then it is. */
    range.frame = 4;
    range.count = 1;
    assert_int_equal(when_drained(4, VIOMMU_PV_MAP, &range) & 0x1f8, 0x38);
    range = (struct world_range){.frame = 10, .device_frame = 10};
    for (range.count = 1; range.count <= 3; range.count++) {
        /* The call, each unmapping, the flush, each page's two references: */
        uint64_t all = (UINT64_C(1) << (2 + 3 * range.count)) - 1;

        assert_int_equal(when_drained(10, VIOMMU_PV_UNMAP, &range) & (all >> 2 * (range.count - 1)),
                         0);
        assert_int_equal(when_drained(200, VIOMMU_PV_UNMAP, &range), all);
    }
    /* A frame in a large page: of that, and of what is around it. */
    range = (struct world_range){.frame = 512, .device_frame = 1024, .count = 1, .order = 9};
    assert_int_equal(when_drained(700, VIOMMU_PV_UNMAP, &range), 0);
    assert_int_equal(when_drained(511, VIOMMU_PV_UNMAP, &range), 0x1f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_that_may_not_be_made),
        cmocka_unit_test(test_pages_that_may_not_be_used),
        cmocka_unit_test(test_reading_alone),
        cmocka_unit_test(test_a_page_waits_for_nobody_elses),
        cmocka_unit_test(test_a_page_that_is_referred_to),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
