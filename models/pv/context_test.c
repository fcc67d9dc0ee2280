/* SPDX-License-Identifier: BSD-2-Clause */
/* Contexts, devices with reserved ranges, and enabling. */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct viommu_pv_config defaults;

static struct world_range pages(uint32_t context, uint64_t device_frame, uint64_t count)
{
    return (struct world_range){.context = context,
                                .of = VIOMMU_PV_SELF,
                                .device_frame = device_frame,
                                .count = count,
                                .perm = VIOMMU_PV_READ};
}

static void test_enable(void **state)
{
    struct world *world = world_create(&defaults, 0);
    struct viommu_pv_head in = WORLD_HEAD(VIOMMU_PV_ENABLE, in);
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    size_t written;
    uint32_t context;
    unsigned long steps;

    (void)state;
    assert_int_equal(world_add_vm(world, 0, false), 0);
    assert_int_equal(world_add_vm(world, 1, true), 0);
    /* Not before it is enabled; the default map is as it was. */
    assert_int_equal(world_do_map(world, 0, pages(0, 1, 1)), VIOMMU_PV_EAGAIN);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_EAGAIN);
    assert_int_equal(world->vms[0].default_left, 5);
    /* Interrupted, and given up: maps are refused, and another call goes on. */
    world->yield_every = 2;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    assert_int_equal(world->vms[0].default_left, 3);
    viommu_pv_cancel(world->pv, rest);
    assert_int_equal(world_do_map(world, 0, pages(0, 1, 1)), VIOMMU_PV_EAGAIN);
    assert_false(world_status(world, 0).enabled);
    world->flush_fails = true;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_EIO);
    assert_true(world->spaces[0].isolated);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world_do_map(world, 0, pages(0, 1, 1)), VIOMMU_PV_EAGAIN);
    world->flush_fails = false;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world->vms[0].default_left, 0);
    assert_int_equal(world_status(world, 0).isolated, 0); /* all is flushed now */
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_EALREADY);
    assert_int_equal(world_do_map(world, 0, pages(0, 1, 1)), VIOMMU_PV_OK);
    /* One that began with nothing asks for nothing. */
    steps = world->steps;
    world->flushes = 0;
    assert_int_equal(world_enable(world, 1), VIOMMU_PV_OK);
    assert_int_equal(world->steps, steps + 1); /* the privilege */
    assert_int_equal(world->flushes, 0);
    world_check(world);
    world_end(world);
}

static void test_contexts(void **state)
{
    struct world *world = world_create(&(struct viommu_pv_config){.contexts_max = 3}, 1);
    uint32_t context;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 1);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 2);
    assert_int_equal(world_free(world, 0, 0), VIOMMU_PV_EBADF);
    assert_int_equal(world_free(world, 0, 3), VIOMMU_PV_EBADF);
    assert_int_equal(world_do_map(world, 0, pages(1, 0, 20)), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 2), 0);
    assert_int_equal(world_move(world, 0, 2, 1), VIOMMU_PV_OK);
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_ENOTEMPTY);
    assert_int_equal(world_move(world, 0, 2, 2), VIOMMU_PV_OK);
    world->yield_every = 1;
    world->flush_fails = true;
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_EIO);
    assert_int_equal(world->pages[0].refs, 1);
    world->flush_fails = false;
    /* It stays, as one that is isolated. */
    assert_int_equal(world_do_map(world, 0, pages(1, 30, 1)), VIOMMU_PV_EIO);
    assert_int_equal(world_do_flush(world, 0, 1), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(1, 30, 1)), VIOMMU_PV_OK);
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_OK);
    assert_int_equal(world->pages[0].refs, 0);
    assert_int_equal(world_do_map(world, 0, pages(1, 0, 1)), VIOMMU_PV_EBADF);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 1);
    world_check(world);
    world_end(world);
}

/* A call on a context that went, and came again with the same id, is over. */
static void test_another_context_of_the_same_id(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_map_call in = {.head = WORLD_HEAD(VIOMMU_PV_MAP, in),
                                    .context = 1,
                                    .vm = VIOMMU_PV_SELF,
                                    .count = 3,
                                    .perm = VIOMMU_PV_READ};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    uint32_t context;
    size_t written;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    world->yield_every = 0;
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, VIOMMU_PV_EBADF);
    assert_int_equal(out.done, 1);
    assert_int_equal(world_status(world, 0).mappings, 0);
    world_end(world);
}

/* A call that goes on finds the same VMs, or ends: other ones of the same ids are none of its. */
static void another_vm(uint32_t which, uint32_t status)
{
    struct world *world = world_create(&defaults, 2);
    struct viommu_pv_map_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_MAP, in), .vm = 1, .count = 3, .perm = VIOMMU_PV_READ};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    size_t written;

    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    world->yield_every = 0;
    assert_int_equal(world_destroy_vm(world, which), 0);
    assert_int_equal(world_add_vm(world, which, true), 0);
    assert_int_equal(which == 0 ? world_enable(world, 0) : VIOMMU_PV_OK, VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, status);
    assert_int_equal(out.done, 1);
    assert_int_equal(world_status(world, 1).mapped, 0);
    world_check(world);
    world_end(world);
}

static void test_another_vm_of_the_same_id(void **state)
{
    (void)state;
    another_vm(0, VIOMMU_PV_ESHUTDOWN);
    another_vm(1, VIOMMU_PV_ESHUTDOWN);
}

/* A context's freeing yields, another call ends it, and there is a new one of that id. */
static void test_another_context_is_not_freed(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_free_call in = {.head = WORLD_HEAD(VIOMMU_PV_CONTEXT_FREE, in), .context = 1};
    struct viommu_pv_call *rest = NULL;
    struct viommu_pv_answer out;
    uint32_t context;
    size_t written;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, pages(1, 1, 3)), VIOMMU_PV_OK);
    world->yield_every = 1;
    assert_int_equal(
        viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
        VIOMMU_PENDING);
    world->yield_every = 0;
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(context, 1);
    assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.status, VIOMMU_PV_EBADF);
    assert_int_equal(world_do_map(world, 0, pages(1, 1, 3)), VIOMMU_PV_OK);
    world_end(world);
}

static struct viommu_pv_reserved reserved(struct world *world, uint32_t device, uint32_t room,
                                          struct viommu_pv_frames *frames)
{
    struct viommu_pv_reserved_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_RESERVED, struct viommu_pv_reserved_call),
        .device = device,
        .room = room};
    struct {
        struct viommu_pv_reserved head;
        struct viommu_pv_frames frames[8];
    } out = {.head = {.count = 0}};

    (void)world_call(world, 0, &in, sizeof(in), &out, sizeof(out));
    memcpy(frames, out.frames, sizeof(out.frames));
    return out.head;
}

static void test_reserved_ranges(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_frames frames[8];
    uint64_t generation;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 8, frames).count, 0);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    generation = reserved(world, VIOMMU_PV_ALL, 8, frames).generation;
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 2), 0);
    assert_true(reserved(world, VIOMMU_PV_ALL, 8, frames).generation != generation);
    generation = reserved(world, VIOMMU_PV_ALL, 8, frames).generation;
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 2), -EEXIST);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 0, frames).generation, generation);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 8, frames).answer.done, 3);
    assert_int_equal(frames[0].first, 64);
    assert_int_equal(frames[1].first, 80);
    assert_int_equal(frames[2].first, 128);
    assert_int_equal(frames[2].last, 129);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 2, frames).answer.done, 0);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 2, frames).count, 3);
    assert_int_equal(reserved(world, VIOMMU_PV_ALL, 3, frames).answer.done, 3);
    assert_int_equal(reserved(world, 1, 2, frames).count, 2);
    assert_int_equal(reserved(world, 9, 2, frames).answer.status, VIOMMU_PV_ENODEV);
    /* At each frame of a range, in each context; the first one that is refused has done nothing. */
    assert_int_equal(world_do_map(world, 0, pages(0, 64, 1)), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(world_do_map(world, 0, pages(0, 60, 5)), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(world_do_map(world, 0, pages(0, 66, 63)), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(world_status(world, 0).mappings, 0);
    assert_int_equal(world_do_map(world, 0, pages(0, 66, 14)), VIOMMU_PV_OK);
    assert_int_equal(world_do_unmap(world, 0, pages(0, 64, 1)), VIOMMU_PV_ENXIO);
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 2), 0);
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 2), -ENODEV);
    assert_true(reserved(world, VIOMMU_PV_ALL, 8, frames).generation != generation);
    assert_int_equal(world_do_map(world, 0, pages(0, 128, 1)), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 2), -EADDRNOTAVAIL);
    assert_int_equal(world->spaces[0].identities, 2);
    world_check(world);
    world_end(world);
}

static uint64_t reserved_generation(struct world *world)
{
    struct viommu_pv_frames frames[8];

    return reserved(world, VIOMMU_PV_ALL, 0, frames).generation;
}

/* Device 7 has very many. */
static unsigned very_many;
static uint64_t many_from = 1000;

static int many_reserved(void *opaque, uint32_t vm, uint32_t device, struct viommu_pv_range *ranges,
                         size_t room, size_t *count)
{
    if (device != 7) {
        return world_reserved(opaque, vm, device, ranges, room, count);
    }
    *count = very_many;
    for (size_t i = 0; i < very_many && i < room; i++) {
        ranges[i] = (struct viommu_pv_range){many_from + i, many_from + i};
    }
    return 0;
}

static int no_identity(void *opaque, void *space, uint64_t first, uint64_t last, bool mapped)
{
    (void)opaque, (void)space, (void)first, (void)last, (void)mapped;
    return 0;
}

static int no_attach(void *opaque, uint32_t device, void *from, void *to)
{
    (void)opaque, (void)device, (void)from, (void)to;
    return 0;
}

/*
 * More ranges than are copied at a time: the call yields in between, and goes on; when they have
 * changed meanwhile it begins anew, so that it tells those of one generation.
 */
static void test_many_reserved_ranges(void **state)
{
    enum { MOST = 2500 };
    struct viommu_pv_ops ops = world_ops;
    struct viommu_pv_reserved_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_RESERVED, in), .device = VIOMMU_PV_ALL, .room = MOST + 2};
    static struct {
        struct viommu_pv_reserved head;
        struct viommu_pv_frames frames[MOST + 2];
    } out;
    struct viommu_pv_call *rest;
    struct world *world;
    size_t written;

    (void)state;
    ops.reserved = many_reserved;
    ops.identity = no_identity;
    ops.attach = no_attach;
    for (very_many = MOST - 2; very_many <= MOST; very_many++) {
        unsigned yields = 0;

        world = world_create(&(struct viommu_pv_config){.ops = &ops}, 1);
        assert_int_equal(viommu_pv_device_add(world->pv, 0, 7), 0);
        in.device = very_many & 1 ? 7 : VIOMMU_PV_ALL;
        world->yield_every = 1;
        assert_int_equal(
            viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
            VIOMMU_PENDING);
        if (in.device == VIOMMU_PV_ALL) {
            assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0); /* 64 to 65, 80 to 81 */
        }
        while (viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written) == VIOMMU_PENDING) {
            yields++;
        }
        assert_int_equal(yields, in.device == VIOMMU_PV_ALL ? 2 : 1);
        assert_int_equal(out.head.answer.status, VIOMMU_PV_OK);
        assert_int_equal(out.head.count, very_many + (in.device == VIOMMU_PV_ALL ? 2 : 0));
        assert_int_equal(out.head.answer.done, out.head.count);
        assert_int_equal(written, sizeof(out.head) + out.head.count * sizeof(out.frames[0]));
        for (unsigned i = 0; i < very_many; i++) {
            uint64_t at = out.head.count - very_many + i;

            assert_int_equal(out.frames[at].first, 1000 + i);
            assert_int_equal(out.frames[at].last, 1000 + i);
        }
        assert_int_equal(out.head.generation, reserved_generation(world));
        /* It goes and comes while they are told, and has others, as many. */
        in.device = 7;
        assert_int_equal(
            viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
            VIOMMU_PENDING);
        assert_int_equal(viommu_pv_device_remove(world->pv, 0, 7), 0);
        many_from = 1001;
        assert_int_equal(viommu_pv_device_add(world->pv, 0, 7), 0);
        many_from = 1000;
        while (viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written) == VIOMMU_PENDING) {
        }
        for (unsigned i = 0; i < very_many; i++) {
            assert_int_equal(out.frames[i].first, 1001 + i);
        }
        /* It goes while they are told: there are none of it. */
        assert_int_equal(
            viommu_pv_call(world->pv, 0, &in, sizeof(in), &out, sizeof(out), &written, &rest),
            VIOMMU_PENDING);
        assert_int_equal(viommu_pv_device_remove(world->pv, 0, 7), 0);
        assert_int_equal(viommu_pv_resume(world->pv, rest, &out, sizeof(out), &written), 0);
        assert_int_equal(out.head.answer.status, VIOMMU_PV_ENODEV);
        assert_int_equal(out.head.answer.done, 0);
        assert_int_equal(out.head.count, 0);
        assert_int_equal(written, sizeof(out.head));
        world_end(world);
    }
}

/* Two devices that need the same ranges have them mapped once, until both are gone. */
static void test_shared_ranges(void **state)
{
    struct world *world = world_create(&defaults, 1);
    uint32_t context;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 9), 0);
    assert_int_equal(world->spaces[0].identities, 2);
    world_check(world);
    assert_int_equal(world_move(world, 0, 9, 1), VIOMMU_PV_OK);
    assert_int_equal(world->spaces[0].identities, 2);
    assert_int_equal(world->spaces[1].identities, 2);
    assert_int_equal(world_move(world, 0, 1, 1), VIOMMU_PV_OK);
    assert_int_equal(world->spaces[0].identities, 0);
    assert_int_equal(world->spaces[1].identities, 2);
    world_check(world);
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 1), 0);
    assert_int_equal(world->spaces[1].identities, 2);
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 9), 0);
    assert_int_equal(world->spaces[1].identities, 0);
    world_end(world);
}

/* A range that goes is flushed; when that fails the context is isolated. */
static void test_a_range_that_is_not_flushed(void **state)
{
    struct world *world = world_create(&defaults, 1);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0);
    world->flush_fails = true;
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 1), 0);
    assert_true(world->spaces[0].isolated);
    assert_int_equal(world_status(world, 0).isolated, 1);
    world->flush_fails = false;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).isolated, 0);
    world_end(world);
}

static void fail_a_flush(struct world *world)
{
    world->flush_fails = true;
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    world->flush_fails = false;
}

/* A flush that succeeds ends an isolation, but not one that came while it ran. */
static void test_a_flush_fails_while_another_runs(void **state)
{
    struct world *world = world_create(&defaults, 1);
    struct world_range range = pages(0, 1, 1);

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 0, range), VIOMMU_PV_OK);
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    world->intrude = fail_a_flush;
    world->intrude_at = world->steps + 2; /* the first one is the privilege */
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).isolated, 1);
    assert_int_equal(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    assert_int_equal(world_status(world, 0).isolated, 0);
    world_check(world);
    world_end(world);
}

static void test_attach(void **state)
{
    struct world *world = world_create(&defaults, 1);
    uint32_t context;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 3), 0);
    assert_int_equal(world_move(world, 0, 4, 1), VIOMMU_PV_ENODEV);
    assert_int_equal(world_move(world, 0, 3, 2), VIOMMU_PV_EBADF);
    /* Each step that fails leaves it where it was; the world checks that ranges are never absent.
     */
    for (unsigned i = 2;; i++) {
        uint32_t status;

        world->failed = false;
        world->fail_at = world->steps + i;
        status = world_move(world, 0, 3, 1);
        world_check(world);
        if (status == VIOMMU_PV_OK) {
            break;
        }
        assert_true(status == VIOMMU_PV_ENOSPC || status == VIOMMU_PV_ENODEV);
        assert_int_equal(world->spaces[0].devices, 1);
        assert_int_equal(world->spaces[0].identities, 2);
        assert_int_equal(world->spaces[1].identities, 0);
    }
    world->fail_at = 0;
    assert_int_equal(world->spaces[1].devices, 1);
    assert_int_equal(world->spaces[1].identities, 2);
    assert_int_equal(world->spaces[0].identities, 0);
    assert_int_equal(world_move(world, 0, 3, 1), VIOMMU_PV_OK);
    world_end(world);
}

/* Where the functions 4, 5 and 6 are, all of them; asserts that they are together. */
static const struct world_space *together(const struct world *world)
{
    assert_ptr_equal(world->device_at[4], world->device_at[5]);
    assert_ptr_equal(world->device_at[4], world->device_at[6]);
    return world->device_at[4];
}

static void test_functions(void **state)
{
    static const uint32_t three[] = {4, 5, 6};
    static const uint32_t twice[] = {4, 5, 4};
    static const uint32_t more[] = {7, 6};
    struct world *world = world_create(&defaults, 1);
    struct viommu_pv_frames frames[8];
    uint32_t context;

    (void)state;
    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add_functions(world->pv, 0, three, 0), -EINVAL);
    assert_int_equal(
        viommu_pv_device_add_functions(world->pv, 0, three, VIOMMU_PV_FUNCTIONS_MAX + 1), -EINVAL);
    assert_int_equal(viommu_pv_device_add_functions(world->pv, 0, twice, 3), -EINVAL);
    /* Each step of coming fails: none is there. */
    for (unsigned i = 1;; i++) {
        int error;

        world->fail_at = world->steps + i;
        error = viommu_pv_device_add_functions(world->pv, 0, three, 3);
        world_check(world);
        if (!error) {
            break;
        }
        assert_true(error == -ENODEV || error == -ENOMEM);
        assert_null(together(world));
        assert_int_equal(world->spaces[0].identities, 0);
        assert_int_equal(reserved(world, VIOMMU_PV_ALL, 8, frames).count, 0);
    }
    world->fail_at = 0;
    assert_ptr_equal(together(world), &world->spaces[0]);
    assert_int_equal(viommu_pv_device_add_functions(world->pv, 0, more, 2), -EEXIST);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 5), -EEXIST);
    /* What one needs, all need: 4 and 6 have a range each, 5 two. */
    assert_int_equal(reserved(world, 6, 8, frames).answer.done, 4);
    assert_int_equal(world->spaces[0].identities, 4);
    world_end(world);
}

/* Each step of a move fails, and `more` steps after it; whichever function is named. */
static void move_functions(unsigned more)
{
    static const uint32_t three[] = {4, 5, 6};
    struct world *world = world_create(&defaults, 1);
    uint32_t context;
    bool was_cut_off = false;

    assert_int_equal(world_enable(world, 0), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add_functions(world->pv, 0, three, 3), 0);
    for (unsigned i = 2;; i++) {
        uint32_t status;

        world->failed = false;
        world->fail_at = world->steps + i;
        world->fail_more = more;
        status = world_move(world, 0, 4 + i % 3, 1);
        world->fail_at = 0;
        world_check(world);
        if (status == VIOMMU_PV_OK) {
            break;
        }
        assert_true(status == VIOMMU_PV_ENOSPC || status == VIOMMU_PV_ENODEV);
        assert_int_equal(world->spaces[0].identities, 4);
        assert_int_equal(world->spaces[1].identities, 0);
        /* The flush of a range that goes again may have failed, too. */
        assert_int_equal(world_do_flush(world, 0, 1), VIOMMU_PV_OK);
        if (!together(world)) {
            was_cut_off = true;
            assert_int_equal(world_move(world, 0, 5, 0), VIOMMU_PV_OK);
        }
        assert_ptr_equal(together(world), &world->spaces[0]);
    }
    assert_int_equal(was_cut_off, more > 0);
    assert_ptr_equal(together(world), &world->spaces[1]);
    assert_int_equal(world->spaces[0].identities, 0);
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_ENOTEMPTY);
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 6), 0);
    assert_null(together(world));
    assert_int_equal(viommu_pv_device_remove(world->pv, 0, 4), -ENODEV);
    assert_int_equal(world_free(world, 0, 1), VIOMMU_PV_OK);
    world_end(world);
}

static void test_functions_move_together(void **state)
{
    (void)state;
    move_functions(0);
    move_functions(1);
    move_functions(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_enable),
        cmocka_unit_test(test_contexts),
        cmocka_unit_test(test_another_context_of_the_same_id),
        cmocka_unit_test(test_reserved_ranges),
        cmocka_unit_test(test_many_reserved_ranges),
        cmocka_unit_test(test_another_vm_of_the_same_id),
        cmocka_unit_test(test_another_context_is_not_freed),
        cmocka_unit_test(test_shared_ranges),
        cmocka_unit_test(test_a_range_that_is_not_flushed),
        cmocka_unit_test(test_a_flush_fails_while_another_runs),
        cmocka_unit_test(test_attach),
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_functions_move_together),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
