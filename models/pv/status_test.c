/* SPDX-License-Identifier: BSD-2-Clause */
/* Each status there is, for its reason, from each call that can come to it. */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    NO_CONTEXT = 9,
    NO_VM = 77,
    DYING = 3,
};

static struct world *world;
static uint64_t seen[4]; /* statuses, as bits */

/* VM 0 calls; VM 2 is not enabled; VM 3 is dying, and cannot, as a flush fails. */
static void begin(void)
{
    static const struct viommu_pv_config config = {
        .mappings_max = 20, .tables_max = 6, .contexts_max = 3, .items_max = 8, .count_max = 100};
    struct world_frame *frames;
    uint32_t context;

    world = world_create(&config, 4);
    frames = world->vms[1].frames;
    frames[1].state = VIOMMU_PV_PAGE_READ_ONLY;
    frames[3].state = VIOMMU_PV_PAGE_PAGED_OUT;
    frames[6].state = VIOMMU_PV_PAGE_MMIO;
    frames[7].machine = world->vms[2].frames[7].machine; /* VM 2's page */
    frames[8].machine = -1;
    world->pages[frames[9].machine].other_type = true;
    frames[10].machine = world->vms[DYING].frames[7].machine;
    for (uint32_t vm = 0; vm <= DYING; vm += vm ? 2 : 1) {
        assert_int_equal(world_enable(world, vm), VIOMMU_PV_OK);
    }
    assert_int_equal(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 0, 1), 0); /* 64 to 65, 80 to 81 */
    assert_int_equal(viommu_pv_device_add(world->pv, 2, 2), 0);
    assert_int_equal(
        world_do_map(world, DYING,
                     (struct world_range){.of = VIOMMU_PV_SELF, .count = 1, .perm = RW}),
        VIOMMU_PV_OK);
    world->flush_fails = true;
    assert_int_equal(viommu_pv_vm_destroy(world->pv, DYING), -EIO);
    world->flush_fails = false;
}

static void end(void)
{
    world->refuse_call = 0;
    world->flush_fails = false;
    world->intrude_at = 0;
    world->fail_at = 0;
    world_check(world);
    world_end(world);
}

static void is(uint32_t status, uint32_t expected)
{
    assert_int_equal(status, expected);
    seen[expected / 64] |= UINT64_C(1) << expected % 64;
}

/* ---- calls ---- */

static struct world_range page(uint64_t frame, uint64_t device_frame)
{
    return (struct world_range){
        .of = 1, .frame = frame, .device_frame = device_frame, .count = 1, .perm = RW};
}

static uint32_t map(uint64_t frame, uint64_t device_frame)
{
    return world_do_map(world, 0, page(frame, device_frame));
}

static uint32_t unmap(uint64_t frame, uint64_t device_frame)
{
    return world_do_unmap(world, 0, page(frame, device_frame));
}

static uint32_t look(uint32_t context, uint64_t device_frame)
{
    struct viommu_pv_lookup_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_LOOKUP, in), .context = context, .device_frame = device_frame};
    struct viommu_pv_lookup out;

    return world_call(world, 0, &in, sizeof(in), &out, sizeof(out));
}

static uint32_t find(uint32_t vm, uint64_t frame, uint32_t room)
{
    struct viommu_pv_find_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_FIND, in), .vm = vm, .room = room, .frame = frame};
    uint8_t out[256];

    return world_call(world, 0, &in, sizeof(in), out, sizeof(out));
}

static uint32_t acknowledge(uint32_t vm, uint64_t frame)
{
    struct viommu_pv_acknowledge_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, in), .vm = vm, .frame = frame};
    struct viommu_pv_acknowledged out;

    return world_call(world, 0, &in, sizeof(in), &out, sizeof(out));
}

static uint32_t reserved(uint32_t device, uint32_t room)
{
    struct viommu_pv_reserved_call in = {
        .head = WORLD_HEAD(VIOMMU_PV_RESERVED, in), .device = device, .room = room};
    uint8_t out[256];

    return world_call(world, 0, &in, sizeof(in), out, sizeof(out));
}

/* That of the call, or of its only item. */
static uint32_t foreign(uint32_t caller, uint32_t context, uint32_t vm, uint64_t frame,
                        uint64_t most)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frame;
    } in = {.call = {.head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN, sizeof(in)},
                     .context = context,
                     .vm = vm,
                     .device_frame_max = most,
                     .perm = RW,
                     .count = 1},
            .frame = frame};
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item item;
    } out = {.answer = {.status = 0}};
    uint32_t status = world_call(world, caller, &in, sizeof(in), &out, sizeof(out));

    return status ? status : out.item.status;
}

/* ---- who and what there is ---- */

static void test_who_and_what(void **state)
{
    struct world_range range = page(20, 20);
    struct world_range other = page(20, 20);
    uint32_t context;

    (void)state;
    begin();
    is(map(20, 20), VIOMMU_PV_OK);
    is(unmap(20, 20), VIOMMU_PV_OK);
    /* ESRCH: there is no such VM. ESHUTDOWN: there is, but not for long; as caller, as the one that
       is named, as the one whose page it really is. */
    range.of = NO_VM;
    is(world_do_map(world, 0, range), VIOMMU_PV_ESRCH);
    is(foreign(0, 0, NO_VM, 20, 99), VIOMMU_PV_ESRCH);
    is(find(NO_VM, 20, 0), VIOMMU_PV_ESRCH);
    is(acknowledge(NO_VM, 20), VIOMMU_PV_ESRCH);
    range.of = DYING;
    is(world_do_map(world, 0, range), VIOMMU_PV_ESHUTDOWN);
    is(foreign(0, 0, DYING, 20, 99), VIOMMU_PV_ESHUTDOWN);
    is(find(DYING, 20, 0), VIOMMU_PV_ESHUTDOWN);
    is(acknowledge(DYING, 20), VIOMMU_PV_ESHUTDOWN);
    is(map(10, 20), VIOMMU_PV_ESHUTDOWN);
    is(world_do_map(world, DYING, page(20, 20)), VIOMMU_PV_ESHUTDOWN);
    is(world_do_unmap(world, DYING, page(20, 20)), VIOMMU_PV_ESHUTDOWN);
    is(world_do_flush(world, DYING, 0), VIOMMU_PV_ESHUTDOWN);
    is(world_alloc(world, DYING, &context), VIOMMU_PV_ESHUTDOWN);
    /* EBADF: no such context, or the one that cannot be freed. */
    other.context = NO_CONTEXT;
    is(world_do_map(world, 0, other), VIOMMU_PV_EBADF);
    is(world_do_unmap(world, 0, other), VIOMMU_PV_EBADF);
    is(foreign(0, NO_CONTEXT, 1, 20, 99), VIOMMU_PV_EBADF);
    is(world_do_flush(world, 0, NO_CONTEXT), VIOMMU_PV_EBADF);
    is(look(NO_CONTEXT, 20), VIOMMU_PV_EBADF);
    is(world_free(world, 0, NO_CONTEXT), VIOMMU_PV_EBADF);
    is(world_free(world, 0, 0), VIOMMU_PV_EBADF);
    is(world_move(world, 0, 1, NO_CONTEXT), VIOMMU_PV_EBADF);
    /* ENODEV: no such device of that VM's; or it cannot be attached. ENOTEMPTY. */
    is(world_move(world, 0, 2, 1), VIOMMU_PV_ENODEV);
    is(reserved(2, 8), VIOMMU_PV_ENODEV);
    world->fail_at = world->steps + 4; /* the privilege, two ranges, the device */
    is(world_move(world, 0, 1, 1), VIOMMU_PV_ENODEV);
    world->fail_at = 0;
    is(world_move(world, 0, 1, 1), VIOMMU_PV_OK);
    is(world_free(world, 0, 1), VIOMMU_PV_ENOTEMPTY);
    /* ENOENT: no page, or it is to go; or nobody asks for it back. */
    is(map(8, 20), VIOMMU_PV_ENOENT);
    is(foreign(0, 0, 1, 8, 99), VIOMMU_PV_ENOENT);
    assert_int_equal(viommu_pv_page_remove(world->pv, 1, 21), 0);
    is(map(21, 20), VIOMMU_PV_ENOENT);
    is(acknowledge(1, 22), VIOMMU_PV_ENOENT);
    is(acknowledge(1, 21), VIOMMU_PV_OK);
    /* EPERM: for the call; over the named VM; over the one that the page belongs to. */
    world->refuse_use[0] = 1u << 2;
    is(map(7, 20), VIOMMU_PV_EPERM);
    world->refuse_use[0] = 1u << 1;
    is(map(20, 20), VIOMMU_PV_EPERM);
    is(foreign(0, 0, 1, 20, 99), VIOMMU_PV_EPERM);
    is(acknowledge(1, 21), VIOMMU_PV_EPERM);
    world->refuse_use[0] = 0;
    world->refuse_call = UINT64_MAX;
    is(look(0, 20), VIOMMU_PV_EPERM);
    end();
}

/* ---- pages and slots ---- */

static void unmap_the_same(struct world *it)
{
    (void)it;
    is(unmap(20, 20), VIOMMU_PV_EAGAIN);
}

static void map_the_same(struct world *it)
{
    (void)it;
    is(map(21, 20), VIOMMU_PV_EAGAIN);
}

static void enable_the_same(struct world *it)
{
    is(world_enable(it, 1), VIOMMU_PV_EAGAIN);
}

static void test_pages_and_slots(void **state)
{
    struct world_range range = page(6, 23);
    uint32_t context;

    (void)state;
    begin();
    /* EACCES, EBUSY, EOPNOTSUPP: what the page is. */
    is(map(1, 20), VIOMMU_PV_EACCES);
    is(foreign(0, 0, 1, 1, 99), VIOMMU_PV_EACCES);
    is(map(9, 20), VIOMMU_PV_EBUSY);
    is(foreign(0, 0, 1, 9, 99), VIOMMU_PV_EBUSY);
    is(world_do_map(world, 0, range), VIOMMU_PV_EOPNOTSUPP);
    is(foreign(0, 0, 1, 6, 99), VIOMMU_PV_EOPNOTSUPP);
    /* EAGAIN: it is not ready; the interface is not enabled; another call is at it. */
    is(map(3, 20), VIOMMU_PV_EAGAIN);
    is(world_do_map(world, 2, page(20, 20)), VIOMMU_PV_EAGAIN);
    is(foreign(2, 0, 1, 20, 99), VIOMMU_PV_EAGAIN);
    is(world_alloc(world, 2, &context), VIOMMU_PV_EAGAIN);
    is(world_free(world, 2, 1), VIOMMU_PV_EAGAIN);
    is(world_move(world, 2, 2, 0), VIOMMU_PV_EAGAIN);
    is(map(20, 20), VIOMMU_PV_OK);
    world->intrude = unmap_the_same;
    world->intrude_at = world->steps + 2;
    is(unmap(20, 20), VIOMMU_PV_OK);
    is(map(20, 20), VIOMMU_PV_OK);
    world->intrude = map_the_same;
    world->intrude_at = world->steps + 2;
    is(unmap(20, 20), VIOMMU_PV_OK);
    assert_int_equal(world_destroy_vm(world, 2), 0);
    assert_int_equal(world_destroy_vm(world, 1), 0);
    assert_int_equal(world_add_vm(world, 1, false), 0);
    world->intrude = enable_the_same;
    world->intrude_at = world->steps + 2;
    is(world_enable(world, 1), VIOMMU_PV_OK);
    is(world_enable(world, 1), VIOMMU_PV_EALREADY);
    /* EEXIST: in use, were it only by what says REVOKED. ESTALE: something else, or that. ENXIO:
       nothing is. */
    is(map(20, 20), VIOMMU_PV_OK);
    is(map(22, 20), VIOMMU_PV_EEXIST);
    is(unmap(21, 20), VIOMMU_PV_ESTALE);
    range = page(20, 20);
    range.of = VIOMMU_PV_SELF;
    is(world_do_unmap(world, 0, range), VIOMMU_PV_ESTALE);
    is(find(1, 20, 1), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_page_remove(world->pv, 1, 20), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 1, 20), 0);
    is(map(22, 20), VIOMMU_PV_EEXIST);
    is(look(0, 20), VIOMMU_PV_ESTALE);
    is(unmap(20, 20), VIOMMU_PV_OK);
    is(unmap(20, 20), VIOMMU_PV_ENXIO);
    is(look(0, 20), VIOMMU_PV_ENXIO);
    is(find(1, 20, 1), VIOMMU_PV_ENXIO);
    /* EADDRNOTAVAIL: reserved. */
    is(map(22, 65), VIOMMU_PV_EADDRNOTAVAIL);
    end();
}

/* ---- numbers, quotas, and what fails ---- */

static void test_numbers_and_quotas(void **state)
{
    struct world_range range;
    uint32_t context;

    (void)state;
    begin();
    /* ERANGE: past the largest that there is, of each number. */
    is(map(20, WORLD_DEVICE), VIOMMU_PV_ERANGE);
    is(unmap(20, WORLD_DEVICE), VIOMMU_PV_ERANGE);
    is(map(2 * WORLD_FRAMES, 20), VIOMMU_PV_ERANGE);
    range = page(0, 20);
    range.count = 101;
    is(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    range.count = 1;
    range.order = 1;
    is(world_do_map(world, 0, range), VIOMMU_PV_ERANGE);
    range.order = 64;
    is(world_do_unmap(world, 0, range), VIOMMU_PV_ERANGE);
    is(look(0, WORLD_DEVICE), VIOMMU_PV_ERANGE);
    is(find(1, 2 * WORLD_FRAMES, 0), VIOMMU_PV_ERANGE);
    is(find(1, 0, 9), VIOMMU_PV_ERANGE);
    is(foreign(0, 0, 1, 20, WORLD_DEVICE), VIOMMU_PV_ERANGE);
    is(foreign(0, 0, 1, 2 * WORLD_FRAMES, 99), VIOMMU_PV_ERANGE);
    is(acknowledge(1, 2 * WORLD_FRAMES), VIOMMU_PV_ERANGE);
    is(reserved(VIOMMU_PV_ALL, 65537), VIOMMU_PV_ERANGE);
    /* EINVAL: malformed; see call_test.c for each field. */
    range = page(512, 20);
    range.order = 9;
    is(world_do_map(world, 0, range), VIOMMU_PV_EINVAL);
    range = page(20, 20);
    range.flags = 2;
    is(world_do_map(world, 0, range), VIOMMU_PV_EINVAL);
    range.flags = 0;
    range.perm = 4;
    is(world_do_map(world, 0, range), VIOMMU_PV_EINVAL);
    range.perm = 0;
    is(world_do_map(world, 0, range), VIOMMU_PV_EINVAL);
    /* ENOSPC: mappings, tables, contexts; or no device frame is left. */
    range = page(100, 100);
    range.count = 21;
    is(world_do_map(world, 0, range), VIOMMU_PV_ENOSPC);
    is(foreign(0, 0, 1, 20, 99), VIOMMU_PV_ENOSPC);
    range.count = 20;
    is(world_do_unmap(world, 0, range), VIOMMU_PV_OK);
    is(map(20, 0), VIOMMU_PV_OK);
    is(foreign(0, 0, 1, 20, 0), VIOMMU_PV_ENOSPC);
    is(map(20, 1024), VIOMMU_PV_OK);
    is(map(20, 2048), VIOMMU_PV_OK);
    is(map(20, 3072), VIOMMU_PV_OK);
    is(map(20, 512), VIOMMU_PV_ENOSPC);
    is(world_alloc(world, 0, &context), VIOMMU_PV_OK);
    is(world_alloc(world, 0, &context), VIOMMU_PV_ENOSPC);
    /* EIO: a flush fails; what is isolated then does nothing. */
    world->flush_fails = true;
    is(unmap(20, 0), VIOMMU_PV_EIO);
    is(world_do_flush(world, 0, 0), VIOMMU_PV_EIO);
    world->flush_fails = false;
    is(map(20, 30), VIOMMU_PV_EIO);
    is(unmap(20, 1024), VIOMMU_PV_EIO);
    is(foreign(0, 0, 1, 20, 99), VIOMMU_PV_EIO);
    is(world_move(world, 0, 1, 0), VIOMMU_PV_EIO);
    is(world_do_flush(world, 0, 0), VIOMMU_PV_OK);
    is(map(20, 30), VIOMMU_PV_OK);
    end();
}

/* None is left that no test above has come to. */
static void test_all_were_seen(void **state)
{
    static const uint32_t statuses[] = {
        VIOMMU_PV_OK,         VIOMMU_PV_EPERM,     VIOMMU_PV_ENOENT,        VIOMMU_PV_ESRCH,
        VIOMMU_PV_EIO,        VIOMMU_PV_ENXIO,     VIOMMU_PV_EBADF,         VIOMMU_PV_EAGAIN,
        VIOMMU_PV_EACCES,     VIOMMU_PV_EBUSY,     VIOMMU_PV_EEXIST,        VIOMMU_PV_ENODEV,
        VIOMMU_PV_EINVAL,     VIOMMU_PV_ENOSPC,    VIOMMU_PV_ERANGE,        VIOMMU_PV_ENOTEMPTY,
        VIOMMU_PV_EOPNOTSUPP, VIOMMU_PV_ESHUTDOWN, VIOMMU_PV_EADDRNOTAVAIL, VIOMMU_PV_EALREADY,
        VIOMMU_PV_ESTALE,
    };
    uint64_t all[4] = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        all[statuses[i] / 64] |= UINT64_C(1) << statuses[i] % 64;
    }
    assert_memory_equal(all, seen, sizeof(all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_and_what),
        cmocka_unit_test(test_pages_and_slots),
        cmocka_unit_test(test_numbers_and_quotas),
        cmocka_unit_test(test_all_were_seen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
