/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of each order that there is, 0, 9 and 18, together: what is over and under them, what may
 * await a flush, which references they hold. The hypervisor here has all frames, as large pages as
 * one likes, and remembers what it was asked for.
 */
#include "pv/test_calls.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    MOST = 256, /* mappings, live or remembered */
};

#define HUGE (UINT64_C(1) << 18)

struct mapping {
    uint64_t device_frame;
    uint64_t handle;
    unsigned order;
    uint32_t perm;
    bool stale; /* unmapped, and not flushed */
};

static struct {
    struct viommu_pv *pv;
    struct mapping mappings[MOST];
    unsigned count;
    struct mapping pages[MOST]; /* references: handle and order, once each */
    unsigned page_count;
    unsigned types;
    uint64_t limit; /* frames that may await a flush */
    uint64_t told_device_frame;
    unsigned told;
    unsigned flushes;
} machine;

static uint64_t frames_of(unsigned order)
{
    return UINT64_C(1) << order;
}

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    (void)opaque;
    WORLD_CHECK(frame % frames_of(order) == 0);
    *page = (struct viommu_pv_page){.handle = frame, .owner = vm};
    return 0;
}

static int op_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    (void)opaque, (void)vm, (void)frame, (void)order, (void)write;
    return -EAGAIN;
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    (void)opaque, (void)vm;
    WORLD_CHECK(machine.page_count < MOST && frame == handle);
    machine.pages[machine.page_count++] = (struct mapping){.handle = handle, .order = order};
    return 0;
}

/* Of exactly that page, and while no device can reach it by this mapping. */
static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    unsigned mapped = 0;
    unsigned held = 0;
    unsigned last = MOST;

    (void)opaque;
    for (unsigned i = 0; i < machine.count; i++) {
        mapped += machine.mappings[i].handle == handle && machine.mappings[i].order == order;
    }
    for (unsigned i = 0; i < machine.page_count; i++) {
        if (machine.pages[i].handle == handle && machine.pages[i].order == order) {
            held++;
            last = i;
        }
    }
    WORLD_CHECK(held > mapped);
    machine.pages[last] = machine.pages[--machine.page_count];
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
    machine.types++;
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
    WORLD_CHECK(machine.types-- > 0);
}

static void op_mark_dirty(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
}

static bool op_may_call(void *opaque, uint32_t vm, unsigned operation)
{
    (void)opaque, (void)vm, (void)operation;
    return true;
}

static bool op_may_use(void *opaque, uint32_t vm, uint32_t other, uint32_t perm)
{
    (void)opaque, (void)vm, (void)other, (void)perm;
    return true;
}

/* A device needs the first frame of the second page of order 18. */
static int op_reserved(void *opaque, uint32_t vm, uint32_t device, struct viommu_pv_range *ranges,
                       size_t room, size_t *count)
{
    (void)opaque, (void)vm, (void)device;
    *count = 1;
    if (room) {
        ranges[0] = (struct viommu_pv_range){HUGE, HUGE};
    }
    return 0;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    (void)opaque, (void)vm, (void)context;
    *space = &machine;
    return 0;
}

static void op_context_destroy(void *opaque, void *space)
{
    (void)opaque, (void)space;
    WORLD_CHECK(machine.count == 0);
}

static int op_attach(void *opaque, uint32_t device, void *from, void *to)
{
    (void)opaque, (void)device, (void)from, (void)to;
    return 0;
}

static int op_identity(void *opaque, void *space, uint64_t first, uint64_t last, bool mapped)
{
    (void)opaque, (void)space, (void)first, (void)last, (void)mapped;
    return 0;
}

static bool meets(const struct mapping *a, uint64_t first, uint64_t last)
{
    return a->device_frame <= last && a->device_frame + frames_of(a->order) > first;
}

static int op_map(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
                  uint32_t perm)
{
    (void)opaque, (void)space;
    WORLD_CHECK(machine.count < MOST && device_frame % frames_of(order) == 0);
    for (unsigned i = 0; i < machine.count; i++) {
        WORLD_CHECK(
            !meets(&machine.mappings[i], device_frame, device_frame + frames_of(order) - 1));
    }
    machine.mappings[machine.count++] = (struct mapping){device_frame, handle, order, perm, false};
    return 0;
}

static int op_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    uint64_t waiting = 0;
    struct mapping *it = NULL;

    (void)opaque, (void)space;
    for (unsigned i = 0; i < machine.count; i++) {
        struct mapping *at = &machine.mappings[i];

        waiting += at->stale ? frames_of(at->order) : 0;
        if (!at->stale && at->device_frame == device_frame && at->order == order) {
            it = at;
        }
    }
    WORLD_CHECK(it);
    /* No more than the limit; one that is larger waits alone. */
    WORLD_CHECK(waiting == 0 || waiting + frames_of(order) <= machine.limit);
    it->stale = true;
    return 0;
}

static int op_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    unsigned kept = 0;

    (void)opaque, (void)space;
    machine.flushes++;
    for (unsigned i = 0; i < machine.count; i++) {
        const struct mapping at = machine.mappings[i];

        if (!at.stale || at.device_frame < first ||
            at.device_frame + frames_of(at.order) - 1 > last) {
            machine.mappings[kept++] = at;
        }
    }
    machine.count = kept;
    return 0;
}

static void op_isolate(void *opaque, void *space)
{
    (void)opaque, (void)space;
    WORLD_CHECK(false);
}

static int op_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    (void)opaque, (void)vm, (void)space, (void)cursor;
    return 0;
}

static bool op_yield(void *opaque)
{
    (void)opaque;
    return false;
}

static void op_give_back(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                         uint32_t vm, uint64_t frame)
{
    (void)opaque, (void)mapper, (void)context, (void)vm, (void)frame;
    machine.told++;
    machine.told_device_frame = device_frame;
}

static void op_acknowledged(void *opaque, uint32_t mapper, uint32_t vm, uint64_t frame,
                            uint64_t remaining)
{
    (void)opaque, (void)mapper, (void)vm, (void)frame, (void)remaining;
}

static const struct viommu_pv_ops ops = {
    .lookup = op_lookup,
    .prepare = op_prepare,
    .get_page = op_get_page,
    .put_page = op_put_page,
    .get_type = op_get_type,
    .put_type = op_put_type,
    .mark_dirty = op_mark_dirty,
    .may_call = op_may_call,
    .may_use = op_may_use,
    .reserved = op_reserved,
    .context_create = op_context_create,
    .context_destroy = op_context_destroy,
    .attach = op_attach,
    .identity = op_identity,
    .map = op_map,
    .unmap = op_unmap,
    .flush = op_flush,
    .isolate = op_isolate,
    .drop_default = op_drop_default,
    .yield = op_yield,
    .give_back = op_give_back,
    .acknowledged = op_acknowledged,
};

static uint32_t call(const void *in, size_t size, void *out, size_t room)
{
    size_t written;

    WORLD_CHECK(viommu_pv_call(machine.pv, 0, in, size, out, room, &written, NULL) == 0);
    return ((struct viommu_pv_answer *)out)->status;
}

static void begin(uint32_t deferred)
{
    const struct viommu_pv_config config = {.ops = &ops, .deferred_max = deferred};
    struct viommu_pv_head in = WORLD_HEAD(VIOMMU_PV_ENABLE, in);
    struct viommu_pv_answer out;

    memset(&machine, 0, sizeof(machine));
    machine.limit = deferred;
    assert_int_equal(viommu_pv_create(&config, &machine.pv), 0);
    assert_int_equal(viommu_pv_vm_add(machine.pv, 0, true), 0);
    assert_int_equal(call(&in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
}

static void end(void)
{
    assert_int_equal(viommu_pv_vm_destroy(machine.pv, 0), 0);
    assert_int_equal(viommu_pv_destroy(machine.pv), 0);
    assert_int_equal(machine.count, 0);
    assert_int_equal(machine.page_count, 0);
    assert_int_equal(machine.types, 0);
}

static uint32_t ranged(uint16_t operation, uint64_t frame, uint64_t device_frame, uint64_t count,
                       uint32_t order, uint32_t perm, uint32_t flags)
{
    struct viommu_pv_map_call in = {.head = {VIOMMU_PV_VERSION, operation, sizeof(in)},
                                    .vm = VIOMMU_PV_SELF,
                                    .frame = frame,
                                    .device_frame = device_frame,
                                    .count = count,
                                    .order = order,
                                    .perm = perm,
                                    .flags = flags};
    struct viommu_pv_answer out;
    uint32_t status = call(&in, sizeof(in), &out, sizeof(out));

    assert_null(pv_check(machine.pv));
    return status;
}

static uint32_t map(uint64_t frame, uint64_t device_frame, uint64_t count, uint32_t order)
{
    return ranged(VIOMMU_PV_MAP, frame, device_frame, count, order, RW, 0);
}

static uint32_t unmap(uint64_t frame, uint64_t device_frame, uint64_t count, uint32_t order,
                      uint32_t flags)
{
    return ranged(VIOMMU_PV_UNMAP, frame, device_frame, count, order, 0, flags);
}

static struct viommu_pv_lookup look(uint64_t device_frame)
{
    struct viommu_pv_lookup_call in = {.head = WORLD_HEAD(VIOMMU_PV_LOOKUP, in),
                                       .device_frame = device_frame};
    struct viommu_pv_lookup out;

    (void)call(&in, sizeof(in), &out, sizeof(out));
    return out;
}

/* ---- */

static void test_largest_pages(void **state)
{
    (void)state;
    begin(65536);
    assert_int_equal(map(512, 0, 1, 18), VIOMMU_PV_EINVAL);
    assert_int_equal(map(0, 512, 1, 18), VIOMMU_PV_EINVAL);
    assert_int_equal(map(3 * HUGE, 2 * HUGE, 2, 18), VIOMMU_PV_OK);
    assert_int_equal(machine.count, 2);
    assert_int_equal(machine.page_count, 2); /* one reference each, of that order */
    assert_int_equal(machine.types, 2);
    assert_int_equal(look(3 * HUGE + 70000).frame, 4 * HUGE + 70000);
    assert_int_equal(look(3 * HUGE + 70000).order, 18);
    assert_int_equal(look(4 * HUGE).answer.status, VIOMMU_PV_ENXIO);
    /* Nothing else comes to be in it, and it not over something else. */
    assert_int_equal(map(0, 3 * HUGE + 5, 1, 0), VIOMMU_PV_EEXIST);
    assert_int_equal(map(0, 4 * HUGE - 512, 1, 9), VIOMMU_PV_EEXIST);
    assert_int_equal(map(0, 2 * HUGE, 1, 18), VIOMMU_PV_EEXIST);
    assert_int_equal(map(0, 5 * HUGE + 77777, 1, 0), VIOMMU_PV_OK);
    assert_int_equal(map(0, 5 * HUGE, 1, 18), VIOMMU_PV_EEXIST);
    assert_int_equal(map(512, 6 * HUGE + 512, 1, 9), VIOMMU_PV_OK);
    assert_int_equal(map(0, 6 * HUGE, 1, 18), VIOMMU_PV_EEXIST);
    /* It is unmapped as what it is, or not. */
    assert_int_equal(unmap(3 * HUGE, 2 * HUGE, 1, 0, 0), VIOMMU_PV_ESTALE);
    assert_int_equal(unmap(3 * HUGE, 2 * HUGE, 1, 9, 0), VIOMMU_PV_ESTALE);
    assert_int_equal(unmap(4 * HUGE, 2 * HUGE, 1, 18, 0), VIOMMU_PV_ESTALE);
    assert_int_equal(unmap(3 * HUGE, 2 * HUGE, 1, 18, 0), VIOMMU_PV_OK);
    assert_int_equal(unmap(3 * HUGE, 2 * HUGE, 1, 18, 0), VIOMMU_PV_ENXIO);
    assert_int_equal(machine.page_count, 3);
    /* A frame in the middle of it is asked for, and takes all of it along. */
    assert_int_equal(viommu_pv_page_remove(machine.pv, 0, 4 * HUGE + 9), VIOMMU_PENDING);
    assert_int_equal(machine.told, 1);
    assert_int_equal(machine.told_device_frame, 3 * HUGE + 9);
    assert_int_equal(map(4 * HUGE, 8 * HUGE, 1, 18), VIOMMU_PV_ENOENT);
    assert_int_equal(viommu_pv_page_revoke(machine.pv, 0, 4 * HUGE + 9), 0);
    assert_int_equal(machine.page_count, 2);
    assert_int_equal(look(3 * HUGE + 70000).answer.status, VIOMMU_PV_ESTALE);
    assert_int_equal(unmap(4 * HUGE, 3 * HUGE, 1, 18, 0), VIOMMU_PV_OK);
    /* Every frame of it is held against what is reserved. */
    assert_int_equal(viommu_pv_device_add(machine.pv, 0, 1), 0);
    assert_int_equal(map(0, HUGE, 1, 18), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(map(0, 0, 2, 18), VIOMMU_PV_EADDRNOTAVAIL);
    assert_int_equal(map(0, 0, 1, 18), VIOMMU_PV_OK);
    end();
}

/* It waits alone, for no time: it is larger than what may be deferred. What waited goes before. */
static void test_deferred_among_others(void **state)
{
    static const uint32_t limits[] = {1, 3, 511, 512, 600, 1024, 65536};
    static const unsigned orders[] = {0, 9, 0, 18, 0, 0, 9, 9, 18, 18, 9, 0};

    (void)state;
    for (size_t l = 0; l < sizeof(limits) / sizeof(limits[0]); l++) {
        uint64_t waits = 0;

        begin(limits[l]);
        for (unsigned i = 0; i < 12; i++) {
            assert_int_equal(map((i + 2) * HUGE, (i + 2) * HUGE, 1, orders[i]), VIOMMU_PV_OK);
        }
        for (unsigned i = 0; i < 12; i++) {
            uint64_t frames = frames_of(orders[i]);
            unsigned flushes = machine.flushes;
            struct viommu_pv_vm_status status;
            bool alone = frames > limits[l];

            assert_int_equal(unmap((i + 2) * HUGE, (i + 2) * HUGE, 1, orders[i], VIOMMU_PV_DEFER),
                             VIOMMU_PV_OK);
            /* As late as can be, and as early as must be: */
            assert_int_equal(machine.flushes - flushes,
                             alone + (waits > 0 && waits + frames > limits[l]));
            waits = alone ? 0 : waits + frames > limits[l] ? frames : waits + frames;
            assert_int_equal(viommu_pv_vm_status(machine.pv, 0, &status, sizeof(status)), 0);
            assert_int_equal(status.pending > 0, waits > 0);
        }
        end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_largest_pages),
        cmocka_unit_test(test_deferred_among_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
