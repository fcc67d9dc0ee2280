/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages are asked back, and taken by force; VMs die. At any point of anything: steps_test.c. */
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

static struct world_range pages(uint32_t of, uint64_t frame, uint64_t device_frame, uint64_t count)
{
    return (struct world_range){
        .of = of, .frame = frame, .device_frame = device_frame, .count = count, .perm = RW};
}

static uint32_t unmap(struct world *world, uint32_t vm, struct world_range range)
{
    return world_do_unmap(world, vm, range);
}

static uint64_t acknowledge(struct world *world, uint32_t vm, uint32_t of, uint64_t frame,
                            uint32_t expected)
{
    struct viommu_pv_acknowledge_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, struct viommu_pv_acknowledge_call),
        .vm = of,
        .frame = frame};
    struct viommu_pv_acknowledged out = {.remaining = 0};

    assert_int_equal(world_call(world, vm, &in, sizeof(in), &out, sizeof(out)), expected);
    return out.remaining;
}

static int destroy(struct world *world, uint32_t vm)
{
    return world_destroy_vm(world, vm);
}

static void test_give_back(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 5, 5, 2)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 2, pages(0, 7, 7, 1)), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 8), 0); /* nobody has it */
    assert_int_equal(world->told, 0);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), VIOMMU_PENDING);
    assert_int_equal(world->told, 1);
    assert_int_equal(world->told_mapper, 1);
    assert_int_equal(world->told_device_frame, 6);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), VIOMMU_PENDING);
    assert_int_equal(world->told, 1); /* once */
    assert_int_equal(world_do_map(world, 2, pages(0, 6, 6, 1)), VIOMMU_PV_ENOENT);
    assert_int_equal(acknowledge(world, 1, 0, 5, VIOMMU_PV_ENOENT), 0);
    assert_int_equal(acknowledge(world, 1, 0, 6, VIOMMU_PV_OK), 1);
    struct world_range range = pages(0, 6, 6, 1);
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(unmap(world, 1, range), VIOMMU_PV_OK);
    assert_int_equal(acknowledge(world, 1, 0, 6, VIOMMU_PV_OK), 1); /* not flushed */
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), VIOMMU_PENDING);
    assert_int_equal(world_do_flush(world, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(acknowledge(world, 1, 0, 6, VIOMMU_PV_OK), 0);
    assert_int_equal(world->acknowledged, 3);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), 0);
    assert_true(world_release_frame(world, 0, 6));
    assert_int_equal(viommu_pv_page_settle(world->pv, 0, 6), 0);
    assert_int_equal(viommu_pv_page_settle(world->pv, 0, 6), -ENOENT);
    world_check(world);
    world_end(world);
}

/* Which pages are about to go is not for everybody. */
static void test_who_may_acknowledge(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 5, 5, 1)), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), 0);
    world->refuse_use[1] = 1u << 0;
    world->refuse_use[2] = 1u << 0;
    /* It learns nothing: neither that a frame goes nor that it does not. */
    (void)acknowledge(world, 2, 0, 5, VIOMMU_PV_EPERM);
    (void)acknowledge(world, 2, 0, 7, VIOMMU_PV_EPERM);
    (void)acknowledge(world, 1, 0, 6, VIOMMU_PV_EPERM);
    (void)acknowledge(world, 2, 0, 2 * WORLD_FRAMES, VIOMMU_PV_ERANGE);
    (void)acknowledge(world, 2, 3, 5, VIOMMU_PV_ESRCH);
    assert_int_equal(world->acknowledged, 0);
    /* It maps it, whatever it may map from now on; and what is its own is its own. */
    assert_int_equal(acknowledge(world, 1, 0, 5, VIOMMU_PV_OK), 1);
    assert_int_equal(acknowledge(world, 0, 0, 6, VIOMMU_PV_OK), 0);
    assert_int_equal(world->acknowledged, 2);
    world->refuse_use[2] = 0;
    assert_int_equal(acknowledge(world, 2, 0, 5, VIOMMU_PV_OK), 0);
    (void)acknowledge(world, 2, 0, 7, VIOMMU_PV_ENOENT);
    world_check(world);
    world_end(world);
}

static void test_revoke(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_lookup_call look = {
        .head = WORLD_HEAD(VIOMMU_PV_LOOKUP, struct viommu_pv_lookup_call), .device_frame = 6};
    struct viommu_pv_lookup found;
    struct world_range range;

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 5, 5, 3)), VIOMMU_PV_OK);
    range = pages(0, 512, 512, 1);
    range.order = 9;
    assert_int_equal(world_do_map(world, 2, range), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 6), -EINVAL);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 6), VIOMMU_PENDING);
    world->flush_fails = true;
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 6), -EIO);
    assert_int_equal(world->pages[6].refs, 1);
    world->flush_fails = false;
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 6), 0);
    assert_int_equal(world->pages[6].refs, 0);
    assert_int_equal(world->pages[5].refs, 1);
    assert_int_equal(world_status(world, 1).revoked, 1);
    assert_true(world_release_frame(world, 0, 6));
    assert_int_equal(world_do_map(world, 1, pages(1, 9, 9, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 1, 0), VIOMMU_PV_OK);
    /* The slot says so until it is unmapped, which puts nothing. */
    assert_int_equal(world_call(world, 1, &look, sizeof(look), &found, sizeof(found)),
                     VIOMMU_PV_ESTALE);
    assert_int_equal(world_do_map(world, 1, pages(1, 6, 6, 1)), VIOMMU_PV_EEXIST);
    assert_int_equal(unmap(world, 1, pages(0, 7, 6, 1)), VIOMMU_PV_ESTALE);
    assert_int_equal(unmap(world, 1, pages(0, 6, 6, 1)), VIOMMU_PV_OK);
    assert_int_equal(unmap(world, 1, pages(0, 6, 6, 1)), VIOMMU_PV_ENXIO);
    /* A frame inside a large page takes the page whole. */
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 700), VIOMMU_PENDING);
    assert_int_equal(world->told_mapper, 2);
    assert_int_equal(world->told_device_frame, 700);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 700), 0);
    assert_int_equal(world->pages[512].refs, 0);
    assert_int_equal(unmap(world, 2, range), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 2, range), VIOMMU_PV_ENOENT); /* 700 is to go */
    world_check(world);
    world_end(world);
}

/* The mapper unmaps while it is revoked, and before the flush. */
static void test_unmap_of_what_is_being_revoked(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 5, 5, 1)), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), VIOMMU_PENDING);
    world->flush_fails = true;
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 5), -EIO);
    assert_int_equal(unmap(world, 1, pages(0, 5, 5, 1)), VIOMMU_PV_EIO);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(world->pages[5].refs, 0);
    assert_int_equal(world_status(world, 1).mappings, 0);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 5), 0);
    world_check(world);
    world_end(world);
}

static void test_the_owner_dies(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 0, 0, 200)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(0, 0, 0, 200)), VIOMMU_PV_OK);
    /* A page that VM 2 has as its own, and that is VM 0's. */
    world->vms[2].frames[9].machine = world->vms[0].frames[9].machine;
    assert_int_equal(world_do_map(world, 1, pages(2, 9, 300, 1)), VIOMMU_PV_OK);
    world->yield_every = 3;
    assert_int_equal(destroy(world, 0), 0);
    assert_int_equal(world_status(world, 1).revoked, 201);
    assert_int_equal(world_do_map(world, 1, pages(0, 300, 301, 1)), VIOMMU_PV_ESRCH);
    world_check(world);
    /* Also when another VM has its id by then. */
    assert_int_equal(world_add_vm(world, 0, true), 0);
    assert_int_equal(unmap(world, 1, (struct world_range){.count = 200}), VIOMMU_PV_OK);
    assert_int_equal(world->pages[0].refs, 0);
    assert_int_equal(world_status(world, 1).mappings, 1);
    world_check(world);
    world_end(world);
}

static void test_one_context_fails_and_others_do_not_wait(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 0, 0, 1)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 2, pages(0, 1, 0, 100)), VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(unmap(world, 1, pages(0, 0, 0, 1)), VIOMMU_PV_EIO);
    world->flush_fails = false;
    world->fail_at = 0;
    world->yield_every = 1;
    /* Its flush fails again; all that VM 2 maps is gone, and VM 0 is not. */
    assert_int_equal(viommu_pv_vm_destroy(world->pv, 0), VIOMMU_PENDING);
    while (world_status(world, 2).revoked < 100) {
        assert_int_equal(viommu_pv_vm_destroy(world->pv, 0), VIOMMU_PENDING);
    }
    world->flush_fails = true;
    assert_int_equal(destroy(world, 0), -EIO);
    assert_int_equal(world->pages[0].refs, 1);
    world->flush_fails = false;
    assert_int_equal(destroy(world, 0), 0);
    world_check(world);
    world_end(world);
}

static void test_calls_of_the_dying(void **state)
{
    struct world *world = begin(&defaults);
    struct viommu_pv_map_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_MAP, in), .vm = 0, .count = 3, .perm = RW};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_call *own = NULL;
    struct viommu_pv_answer out;
    size_t written;

    (void)state;
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 1, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &own),
        VIOMMU_PENDING);
    world->flush_fails = true;
    while (viommu_pv_vm_destroy(world->pv, 0) != -EIO) {
    }
    assert_int_equal(viommu_pv_resume(world->pv, own, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, VIOMMU_PV_ESHUTDOWN);
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, VIOMMU_PV_ESHUTDOWN);
    assert_int_equal(out.done, 1);
    assert_int_equal(world_do_map(world, 2, pages(0, 5, 5, 1)), VIOMMU_PV_ESHUTDOWN);
    assert_int_equal(world_do_map(world, 0, pages(0, 5, 5, 1)), VIOMMU_PV_ESHUTDOWN);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), -ESHUTDOWN);
    world->flush_fails = false;
    assert_int_equal(destroy(world, 0), 0);
    assert_int_equal(viommu_pv_vm_destroy(world->pv, 0), -ENOENT);
    world_end(world);
}

static void dies(struct world *world)
{
    assert_int_equal(viommu_pv_vm_destroy(world->pv, 1), VIOMMU_PENDING);
}

/* A long call ends, too, wherever it is: what it has begun is done, and it begins nothing more. */
static void test_a_long_call_of_the_dying(void **state)
{
    (void)state;
    for (unsigned operation = VIOMMU_PV_MAP; operation <= VIOMMU_PV_UNMAP; operation++) {
        for (unsigned n = 3; n < 60; n++) {
            struct world *world = begin(&defaults);
            struct world_range range = pages(0, 0, 0, 400);
            struct viommu_pv_answer answer;

            if (operation == VIOMMU_PV_UNMAP) {
                assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
            }
            world->intrude = dies;
            world->intrude_at = world->steps + n;
            assert_int_equal(world_ranged(world, 1, operation, &range, &answer),
                             VIOMMU_PV_ESHUTDOWN);
            assert_in_range(answer.done, 0, 64);
            assert_int_equal(answer.stopped, answer.done);
            assert_int_equal(world_destroy_vm(world, 1), 0);
            world_check(world);
            world_end(world);
        }
    }
}

static bool taken;

/* Two frames of one large page: each is asked for. */
static void test_each_frame_is_asked_for(void **state)
{
    struct world *world = begin(&defaults);
    struct world_range range = pages(0, 512, 512, 1);

    (void)state;
    range.order = 9;
    assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 600), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 601), VIOMMU_PENDING);
    assert_int_equal(world->told, 2);
    assert_int_equal(world->told_device_frame, 601);
    assert_int_equal(viommu_pv_page_settle(world->pv, 0, 600), 0);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 601), VIOMMU_PENDING);
    assert_int_equal(world->told, 2);
    world_end(world);
}

static void remove_once(struct world *world)
{
    taken = true;
    (void)viommu_pv_page_remove(world->pv, 0, 3);
}

/* It is asked for, once, whenever the removal began: while it was being mapped, too. */
static void asked_while_it_is_mapped(enum viommu_pv_page_state page)
{
    unsigned asked = 0;

    for (unsigned long n = 1; n < 20; n++) {
        struct world *world = begin(&defaults);

        world->vms[0].frames[3].state = page;
        world->intrude = remove_once;
        world->intrude_at = world->steps + n;
        taken = false;
        if (world_do_map(world, 1, pages(0, 3, 3, 1)) == VIOMMU_PV_OK && taken) {
            assert_int_equal(world->told, 1);
            assert_int_equal(viommu_pv_page_remove(world->pv, 0, 3), VIOMMU_PENDING);
            assert_int_equal(world->told, 1);
            asked++;
        }
        world_end(world);
    }
    assert_true(asked);
}

static void test_asked_while_it_is_mapped(void **state)
{
    (void)state;
    asked_while_it_is_mapped(VIOMMU_PV_PAGE_RAM);
    asked_while_it_is_mapped(VIOMMU_PV_PAGE_DIRTY_LOGGED);
    asked_while_it_is_mapped(VIOMMU_PV_PAGE_SHARED);
}

/* A removal that was called off is forgotten: the next one asks again. */
static void test_asked_again(void **state)
{
    struct world *world = begin(&defaults);

    (void)state;
    assert_int_equal(world_do_map(world, 1, pages(0, 5, 5, 1)), VIOMMU_PV_OK);
    for (unsigned i = 1; i <= 2; i++) {
        assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), VIOMMU_PENDING);
        assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), VIOMMU_PENDING);
        assert_int_equal(world->told, i);
        assert_int_equal(viommu_pv_page_settle(world->pv, 0, 5), 0);
    }
    world_end(world);
}

/* What was to be revoked when a flush failed goes with its context, at once. */
static void test_a_context_goes_while_a_page_is_revoked(void **state)
{
    struct world *world = begin(&defaults);
    struct world_range range = pages(0, 5, 5, 1);
    uint32_t context;

    (void)state;
    assert_int_equal(world_alloc(world, 1, &context), VIOMMU_PV_OK);
    range.context = context;
    assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), VIOMMU_PENDING);
    world->flush_fails = true;
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 5), -EIO);
    world->flush_fails = false;
    assert_int_equal(world_status(world, 1).pending, 1);
    assert_int_equal(world_free(world, 1, context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 5), 0);
    world_check(world);
    world_end(world);
}

/* An owner that dies yields; meanwhile the mapper takes its mappings away itself. */
static void test_aliases_go_while_their_owner_dies(void **state)
{
    enum {
        COUNT = 200,
    };

    (void)state;
    for (uint64_t kept = 0; kept < COUNT; kept += 33) {
        struct world *world = begin(&(struct viommu_pv_config){.deferred_max = 16});

        for (uint64_t i = 0; i < COUNT; i++) {
            world->pages[i].owner = 2; /* VM 0 has it at frame i */
        }
        assert_int_equal(world_do_map(world, 1, pages(0, 0, 0, COUNT)), VIOMMU_PV_OK);
        assert_int_equal(world_status(world, 2).mapped, COUNT);
        world->yield_every = 1;
        assert_int_equal(viommu_pv_vm_destroy(world->pv, 2), VIOMMU_PENDING);
        assert_true(world_status(world, 2).mapped > 0);
        world->yield_every = 0;
        /* The others, from either end: those that are revoked by then are cleared. */
        assert_int_equal(unmap(world, 1, pages(0, kept, kept, COUNT - kept)), VIOMMU_PV_OK);
        assert_true(world_status(world, 2).mapped <= kept);
        world_check(world);
        assert_int_equal(destroy(world, 2), 0);
        world_check(world);
        world_end(world);
    }
}

static void settle_inside(struct world *world)
{
    (void)viommu_pv_page_settle(world->pv, 0, 3);
}

static void revoke_inside(struct world *world)
{
    (void)viommu_pv_page_revoke(world->pv, 0, 3);
}

/* A page that was settled is not gone on with, whatever happened inside what. */
static void test_nothing_is_remembered_of_what_was_settled(void **state)
{
    static void (*const inside[])(struct world * world) = {settle_inside, revoke_inside};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned long n = 1; n < 12; n++) {
            struct world *world = begin(&defaults);
            const struct pv_vm *vm;

            assert_int_equal(world_do_map(world, 1, pages(0, 3, 3, 1)), VIOMMU_PV_OK);
            assert_int_equal(world_do_map(world, 2, pages(0, 3, 3, 1)), VIOMMU_PV_OK);
            assert_int_equal(viommu_pv_page_remove(world->pv, 0, 3), VIOMMU_PENDING);
            world->yield_every = 1;
            world->intrude = inside[i];
            world->intrude_at = world->steps + n;
            (void)viommu_pv_page_revoke(world->pv, 0, 3);
            (void)viommu_pv_page_settle(world->pv, 0, 3);
            vm = pv_vm_find(world->pv, 0);
            assert_null(vm->index.walks);
            for (unsigned at = 0; at < PV_REVOKING; at++) {
                assert_false(vm->revoking[at].there);
            }
            world_check(world);
            world_end(world);
        }
    }
}

/* What VM 1 has of VM 0's: pages side by side, and some that are not. */
static const struct world_range dropped[] = {
    {.of = 0, .frame = 5, .device_frame = 5, .count = 3, .perm = RW, .flags = VIOMMU_PV_DEFER},
    {.of = 0, .frame = 40, .device_frame = 8, .count = 1, .perm = RW, .flags = VIOMMU_PV_DEFER},
    {.of = 0, .frame = 20, .device_frame = 30, .count = 4, .perm = RW, .flags = VIOMMU_PV_DEFER},
};

static unsigned references(const struct world *world, uint64_t frame)
{
    return world->pages[world->vms[0].frames[frame].machine].refs;
}

/* A page has drained when all its references have been dropped, not before. */
static void pages_drain(struct world *world)
{
    for (uint64_t frame = 0; frame < 64; frame++) {
        if (viommu_pv_page_remove(world->pv, 0, frame) == 0) {
            assert_int_equal(references(world, frame), 0);
        }
        assert_int_equal(viommu_pv_page_settle(world->pv, 0, frame), 0);
    }
}

/* So does a VM: it goes then. */
static void owner_goes(struct world *world)
{
    taken = viommu_pv_vm_destroy(world->pv, 0) == 0;
    for (uint64_t frame = 0; taken && frame < 64; frame++) {
        assert_int_equal(references(world, frame), 0);
    }
    if (taken) {
        world_forget_vm(world, 0);
    }
}

static void test_what_is_being_dropped_is_held(void **state)
{
    static void (*const inside[])(struct world * world) = {pages_drain, owner_goes};
    enum { RANGES = sizeof(dropped) / sizeof(dropped[0]) };

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned long n = 1, steps = 1; n <= steps; n++) {
            struct world *world = begin(&defaults);
            unsigned long start;

            for (unsigned j = 0; j < RANGES; j++) {
                struct world_range range = dropped[j];

                range.flags = 0;
                assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
                assert_int_equal(unmap(world, 1, dropped[j]), VIOMMU_PV_OK);
            }
            start = world->steps;
            world->intrude = inside[i];
            world->intrude_at = start + n;
            (void)world_do_flush(world, 1, 0);
            steps = world->steps - start;
            assert_in_range(steps, 16, 40); /* two for each of eight pages */
            world_check(world);
            world_end(world);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_remembered_of_what_was_settled),
        cmocka_unit_test(test_give_back),
        cmocka_unit_test(test_who_may_acknowledge),
        cmocka_unit_test(test_revoke),
        cmocka_unit_test(test_unmap_of_what_is_being_revoked),
        cmocka_unit_test(test_a_context_goes_while_a_page_is_revoked),
        cmocka_unit_test(test_asked_again),
        cmocka_unit_test(test_aliases_go_while_their_owner_dies),
        cmocka_unit_test(test_each_frame_is_asked_for),
        cmocka_unit_test(test_asked_while_it_is_mapped),
        cmocka_unit_test(test_the_owner_dies),
        cmocka_unit_test(test_one_context_fails_and_others_do_not_wait),
        cmocka_unit_test(test_calls_of_the_dying),
        cmocka_unit_test(test_a_long_call_of_the_dying),
        cmocka_unit_test(test_what_is_being_dropped_is_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
