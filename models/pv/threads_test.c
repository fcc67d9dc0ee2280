/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Calls of several VMs at once, of every kind, while pages are taken, devices come and go, and a VM
 * dies and comes again: no page loses its last reference while a device could reach it, one that
 * was taken has none, no device is without its reserved range, and in the end nothing is left.
 *
 * The hypervisor here counts, for each page, references and translations that devices may have
 * (until they are flushed); a reference that is dropped looks at the other count.
 */
#include "pv/engine.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum {
    VMS = 3,
    FRAMES = 32,
    DEVICE = 256,
    DEVICES = 4,    /* of a VM */
    RESERVED = 200, /* two device frames a device, from here on */
    QUEUE = 4096,
    ROUNDS = 3000,
};

struct space {
    pthread_mutex_t lock;
    int live[DEVICE];      /* page + 1, or 0 */
    bool identity[DEVICE]; /* reserved, and mapped one to one */
    int stale[QUEUE];
    unsigned stale_count;
};

static struct viommu_pv *pv;
static atomic_int refs[VMS * FRAMES];
static atomic_int reach[VMS * FRAMES];
static _Atomic(struct space *) where[VMS * DEVICES]; /* devices are; of one VM each */
static atomic_bool wrong;

/* An operation of the hypervisor: now and then it takes long, and others run. */
static void step(void)
{
    static atomic_uint steps;

    if (atomic_fetch_add_explicit(&steps, 1, memory_order_relaxed) % 31 == 0) {
        sched_yield();
    }
}

static void expect(bool condition)
{
    if (!condition) {
        atomic_store(&wrong, true);
    }
}

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    step();
    (void)opaque;
    if (frame >= FRAMES || order) {
        return -ENOENT;
    }
    *page = (struct viommu_pv_page){.handle = vm * FRAMES + frame, .owner = vm};
    return 0;
}

static int op_prepare(void *opaque, uint32_t vm, uint64_t frame, unsigned order, bool write)
{
    (void)opaque, (void)vm, (void)frame, (void)order, (void)write;
    return -EAGAIN;
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    step();
    (void)opaque, (void)vm, (void)frame, (void)order;
    atomic_fetch_add(&refs[handle], 1);
    return 0;
}

static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    int left;

    (void)opaque, (void)order;
    step();
    left = atomic_fetch_sub(&refs[handle], 1) - 1;
    expect(left >= 0);
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order, (void)handle;
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
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
    step();
    (void)opaque, (void)vm, (void)other, (void)perm;
    return true;
}

static int op_reserved(void *opaque, uint32_t vm, uint32_t device, struct viommu_pv_range *ranges,
                       size_t room, size_t *count)
{
    (void)opaque, (void)vm;
    *count = 1;
    if (room) {
        ranges[0].first = RESERVED + 2 * device;
        ranges[0].last = ranges[0].first + 1;
    }
    return 0;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **out)
{
    struct space *space = calloc(1, sizeof(*space));

    (void)opaque, (void)vm, (void)context;
    pthread_mutex_init(&space->lock, NULL);
    *out = space;
    return 0;
}

static void op_context_destroy(void *opaque, void *opaque_space)
{
    struct space *space = opaque_space;

    (void)opaque;
    expect(space->stale_count == 0);
    pthread_mutex_destroy(&space->lock);
    free(space);
}

/* Whether the range of a device is there; it needs none where it is in no space. */
static bool has_range(struct space *space, uint32_t device)
{
    bool there = true;

    if (space) {
        pthread_mutex_lock(&space->lock);
        there =
            space->identity[RESERVED + 2 * device] && space->identity[RESERVED + 2 * device + 1];
        pthread_mutex_unlock(&space->lock);
    }
    return there;
}

static int op_attach(void *opaque, uint32_t device, void *from, void *to)
{
    step();
    (void)opaque;
    expect(atomic_exchange(&where[device], to) == from);
    expect(has_range(from, device) && has_range(to, device));
    return 0;
}

static int op_identity(void *opaque, void *opaque_space, uint64_t first, uint64_t last, bool mapped)
{
    struct space *space = opaque_space;

    step();
    (void)opaque;
    pthread_mutex_lock(&space->lock);
    for (uint64_t at = first; at <= last; at++) {
        expect(space->identity[at] == !mapped && space->live[at] == 0);
        space->identity[at] = mapped;
    }
    pthread_mutex_unlock(&space->lock);
    return 0;
}

static int op_map(void *opaque, void *opaque_space, uint64_t device_frame, unsigned order,
                  uint64_t handle, uint32_t perm)
{
    struct space *space = opaque_space;

    step();
    (void)opaque, (void)order, (void)perm;
    pthread_mutex_lock(&space->lock);
    expect(space->live[device_frame] == 0 && !space->identity[device_frame]);
    space->live[device_frame] = (int)handle + 1;
    atomic_fetch_add(&reach[handle], 1);
    expect(atomic_load(&refs[handle]) > 0);
    pthread_mutex_unlock(&space->lock);
    return 0;
}

static int op_unmap(void *opaque, void *opaque_space, uint64_t device_frame, unsigned order)
{
    struct space *space = opaque_space;

    step();
    (void)opaque, (void)order;
    pthread_mutex_lock(&space->lock);
    expect(space->live[device_frame] != 0 && space->stale_count < QUEUE);
    space->stale[space->stale_count++] = space->live[device_frame] - 1;
    space->live[device_frame] = 0;
    pthread_mutex_unlock(&space->lock);
    return 0;
}

static int op_flush(void *opaque, void *opaque_space, uint64_t first, uint64_t last)
{
    struct space *space = opaque_space;

    step();
    (void)opaque, (void)first, (void)last; /* all of it: more than was asked for */
    pthread_mutex_lock(&space->lock);
    for (unsigned i = 0; i < space->stale_count; i++) {
        int page = space->stale[i];

        expect(atomic_load(&refs[page]) >= atomic_load(&reach[page]) ||
               atomic_load(&refs[page]) > 0);
        atomic_fetch_sub(&reach[page], 1);
    }
    space->stale_count = 0;
    pthread_mutex_unlock(&space->lock);
    return 0;
}

static void op_isolate(void *opaque, void *space)
{
    (void)opaque, (void)space;
}

static int op_drop_default(void *opaque, uint32_t vm, void *space, uint64_t *cursor)
{
    (void)opaque, (void)vm, (void)space, (void)cursor;
    return 0;
}

static bool op_yield(void *opaque)
{
    static atomic_uint asked;

    (void)opaque;
    return atomic_fetch_add(&asked, 1) % 5 == 0;
}

static void op_give_back(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                         uint32_t vm, uint64_t frame)
{
    (void)opaque, (void)mapper, (void)context, (void)device_frame, (void)vm, (void)frame;
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
    .mark_dirty = op_put_type,
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

static void call(uint32_t vm, const void *in, size_t size)
{
    struct viommu_pv_call *rest = NULL;
    uint8_t out[256];
    size_t written;
    int ret = viommu_pv_call(pv, vm, in, size, out, sizeof(out), &written, &rest);

    while (ret == VIOMMU_PENDING) {
        ret = viommu_pv_resume(pv, rest, out, sizeof(out), &written);
    }
}

static void enable(uint32_t vm)
{
    struct viommu_pv_head in = {VIOMMU_PV_VERSION, VIOMMU_PV_ENABLE, sizeof(in)};

    call(vm, &in, sizeof(in));
}

/* Two of these are each VM's processors. */
static void *guest(void *opaque)
{
    unsigned seed = (unsigned)(uintptr_t)opaque;
    uint32_t vm = seed % VMS;

    for (unsigned i = 0; i < ROUNDS; i++) {
        struct viommu_pv_map_call in = {
            .head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP, sizeof(in)},
            .vm = (uint32_t)rand_r(&seed) % VMS,
            .frame = (uint32_t)rand_r(&seed) % (FRAMES - 8),
            .device_frame = (uint32_t)rand_r(&seed) % 64,
            .count = 1 + (uint32_t)rand_r(&seed) % 8,
            .perm = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
        };
        struct viommu_pv_flush_call flush = {
            .head = {VIOMMU_PV_VERSION, VIOMMU_PV_FLUSH, sizeof(flush)}, .flags = VIOMMU_PV_WHOLE};

        in.frame = in.device_frame % (FRAMES - 8);
        call(vm, &in, sizeof(in));
        in.head.operation = VIOMMU_PV_UNMAP;
        in.perm = 0;
        in.flags = rand_r(&seed) & 1 ? VIOMMU_PV_DEFER : 0;
        call(vm, &in, sizeof(in));
        if (rand_r(&seed) % 8 == 0) {
            call(vm, &flush, sizeof(flush));
        }
    }
    return NULL;
}

/* One more processor of a VM's, which does all but map and unmap ranges. */
static void *other_calls(void *opaque)
{
    unsigned seed = 77 * (unsigned)(uintptr_t)opaque + 1;
    uint32_t vm = (uint32_t)(uintptr_t)opaque;

    for (unsigned i = 0; i < ROUNDS; i++) {
        union {
            struct viommu_pv_head head;
            struct viommu_pv_reserved_call reserved;
            struct viommu_pv_alloc_call alloc;
            struct viommu_pv_free_call free;
            struct viommu_pv_attach_call attach;
            struct viommu_pv_lookup_call lookup;
            struct viommu_pv_find_call find;
            struct {
                struct viommu_pv_foreign_call call;
                uint64_t frames[3];
            } foreign;
            struct viommu_pv_acknowledge_call acknowledge;
        } in = {.head = {.version = VIOMMU_PV_VERSION}};
        size_t size = sizeof(in.head);
        uint32_t context = (uint32_t)rand_r(&seed) % 3;
        uint64_t frame = (uint64_t)rand_r(&seed) % FRAMES;

        in.head.operation = (uint16_t)(1 + rand_r(&seed) % VIOMMU_PV_ACKNOWLEDGE);
        switch (in.head.operation) {
        case VIOMMU_PV_RESERVED:
            size = sizeof(in.reserved);
            in.reserved.device = VIOMMU_PV_ALL;
            in.reserved.room = 8;
            break;
        case VIOMMU_PV_CONTEXT_ALLOC:
            size = sizeof(in.alloc);
            break;
        case VIOMMU_PV_CONTEXT_FREE:
            size = sizeof(in.free);
            in.free.context = context;
            break;
        case VIOMMU_PV_ATTACH:
            size = sizeof(in.attach);
            in.attach.device = vm * DEVICES + (uint32_t)rand_r(&seed) % DEVICES;
            in.attach.context = context;
            break;
        case VIOMMU_PV_LOOKUP:
            size = sizeof(in.lookup);
            in.lookup.context = context;
            in.lookup.device_frame = frame;
            break;
        case VIOMMU_PV_FIND:
            size = sizeof(in.find);
            in.find.vm = (uint32_t)rand_r(&seed) % VMS;
            in.find.room = 4;
            in.find.frame = frame;
            break;
        case VIOMMU_PV_MAP_FOREIGN:
            size = sizeof(in.foreign);
            in.foreign.call.context = context;
            in.foreign.call.vm = (uint32_t)rand_r(&seed) % VMS;
            in.foreign.call.device_frame_max = DEVICE - 1;
            in.foreign.call.perm = VIOMMU_PV_READ;
            in.foreign.call.count = 3;
            in.foreign.frames[0] = in.foreign.frames[2] = frame;
            break;
        case VIOMMU_PV_ACKNOWLEDGE:
            size = sizeof(in.acknowledge);
            in.acknowledge.frame = frame;
            break;
        default:
            in.head.operation = VIOMMU_PV_CAPS;
            break;
        }
        in.head.size = (uint32_t)size;
        call(vm, &in, size);
    }
    return NULL;
}

/* Devices come and go. */
static void *plugger(void *opaque)
{
    unsigned seed = 5;

    (void)opaque;
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        uint32_t vm = (uint32_t)rand_r(&seed) % VMS;
        uint32_t device = vm * DEVICES + (uint32_t)rand_r(&seed) % DEVICES;

        if (rand_r(&seed) & 1) {
            (void)viommu_pv_device_add(pv, vm, device);
        } else {
            (void)viommu_pv_device_remove(pv, vm, device);
        }
    }
    return NULL;
}

/* Takes pages of VM 0 by force: each is nobody's then. */
static void *remover(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < ROUNDS / 4; i++) {
        uint64_t frame = i % FRAMES;
        int ret;

        (void)viommu_pv_page_remove(pv, 0, frame);
        do {
            ret = viommu_pv_page_revoke(pv, 0, frame);
        } while (ret == VIOMMU_PENDING);
        expect(ret == 0);
        expect(atomic_load(&reach[frame]) == 0);
        expect(atomic_load(&refs[frame]) == 0);
        (void)viommu_pv_page_settle(pv, 0, frame);
    }
    return NULL;
}

/* VM 2 dies, and comes again. */
static void *killer(void *opaque)
{
    (void)opaque;
    for (unsigned i = 0; i < ROUNDS / 30; i++) {
        int ret;

        do {
            ret = viommu_pv_vm_destroy(pv, 2);
        } while (ret == VIOMMU_PENDING);
        expect(ret == 0);
        for (unsigned frame = 0; frame < FRAMES; frame++) {
            expect(atomic_load(&refs[2 * FRAMES + frame]) == 0);
            expect(atomic_load(&reach[2 * FRAMES + frame]) == 0);
        }
        expect(viommu_pv_vm_add(pv, 2, true) == 0);
        enable(2);
    }
    return NULL;
}

static void test_all_at_once(void **state)
{
    struct viommu_pv_config config = {
        .ops = &ops, .device_frame_max = DEVICE - 1, .orders = 1, .deferred_max = 16};
    pthread_t threads[3 * VMS + 3];

    (void)state;
    assert_int_equal(viommu_pv_create(&config, &pv), 0);
    for (uint32_t vm = 0; vm < VMS; vm++) {
        assert_int_equal(viommu_pv_vm_add(pv, vm, true), 0);
        enable(vm);
    }
    for (uintptr_t i = 0; i < 2 * VMS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, guest, (void *)i), 0);
    }
    for (uintptr_t i = 0; i < VMS; i++) {
        assert_int_equal(pthread_create(&threads[2 * VMS + i], NULL, other_calls, (void *)i), 0);
    }
    assert_int_equal(pthread_create(&threads[3 * VMS], NULL, remover, NULL), 0);
    assert_int_equal(pthread_create(&threads[3 * VMS + 1], NULL, killer, NULL), 0);
    assert_int_equal(pthread_create(&threads[3 * VMS + 2], NULL, plugger, NULL), 0);
    for (unsigned i = 0; i < 3 * VMS + 3; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_false(atomic_load(&wrong));
    assert_null(pv_check(pv));
    for (uint32_t vm = 0; vm < VMS; vm++) {
        while (viommu_pv_vm_destroy(pv, vm) == VIOMMU_PENDING) {
        }
    }
    for (unsigned i = 0; i < VMS * FRAMES; i++) {
        assert_int_equal(atomic_load(&refs[i]), 0);
        assert_int_equal(atomic_load(&reach[i]), 0);
    }
    assert_int_equal(viommu_pv_destroy(pv), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
