/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every operation of guests and of the hypervisor, in a world that has something of everything:
 * pages of every state, large ones, pages of another VM, mappings that wait for their flush or were
 * revoked, a VM that is not enabled, devices of one function and of several. Each is made to fail,
 * to yield and to meet every other event, at each of its steps; what must hold is checked
 * afterwards, and that nothing is left when all VMs have died.
 */
#include "pv/test_random.h"
#include "pv/test_snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    STEPS_MAX = 4000, /* of an operation, at the very most */
};

/* ---- the world ---- */

static struct world_range pages(uint64_t frame, uint64_t device_frame, uint64_t count,
                                uint32_t perm)
{
    return (struct world_range){
        .frame = frame, .device_frame = device_frame, .count = count, .perm = perm};
}

static struct world_range large(uint64_t device_frame)
{
    struct world_range range = pages(512, device_frame, 1, RW);

    range.order = 9;
    return range;
}

static struct world_range in(uint32_t context, struct world_range range)
{
    range.context = context;
    return range;
}

static struct world_range with(uint32_t flags, struct world_range range)
{
    range.flags = flags;
    return range;
}

/* VM 1 has pages of VM 0 in two contexts, and devices in two; so have VMs 0 and 2 some. */
static struct world *begin(void)
{
    static const struct viommu_pv_config config = {.deferred_max = 3, .items_max = 16};
    static const uint32_t three[] = {4, 5, 6};
    struct world *world = world_create(&config, 3);
    uint32_t context;

    assert_int_equal(world_add_vm(world, 3, false), 0);
    world_give_states(world);
    for (unsigned vm = 0; vm < 3; vm++) {
        assert_int_equal(world_enable(world, vm), VIOMMU_PV_OK);
        assert_int_equal(world_do_map(world, vm, pages(10, 10, 3, RW)), VIOMMU_PV_OK);
        assert_int_equal(world_do_map(world, vm, large(1024)), vm == 2 ? VIOMMU_PV_OK : 0);
    }
    assert_int_equal(world_alloc(world, 1, &context), VIOMMU_PV_OK);
    assert_int_equal(world_alloc(world, 1, &context), VIOMMU_PV_OK);
    assert_int_equal(viommu_pv_device_add(world->pv, 1, 3), 0);
    assert_int_equal(viommu_pv_device_add_functions(world->pv, 1, three, 3), 0);
    assert_int_equal(world_move(world, 1, 5, 2), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, in(1, pages(10, 40, 1, RW))), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, in(1, pages(2, 41, 1, RW))), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, pages(2, 20, 1, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, with(VIOMMU_PV_MMIO, pages(6, 21, 1, RW))), 0);
    assert_int_equal(world_do_map(world, 1, pages(7, 22, 1, RW)), VIOMMU_PV_OK);
    assert_int_equal(world_do_map(world, 1, pages(30, 23, 3, VIOMMU_PV_READ)), VIOMMU_PV_OK);
    /* Of frames 30 to 32 one stays mapped, one is revoked, and one waits for its flush. */
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 31), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 31), 0);
    assert_int_equal(viommu_pv_page_settle(world->pv, 0, 31), 0);
    assert_int_equal(world_do_unmap(world, 1, with(VIOMMU_PV_DEFER, pages(32, 25, 1, 0))), 0);
    world_check(world);
    return world;
}

/* ---- operations ---- */

static uint64_t ranged(struct world *world, uint32_t vm, unsigned operation,
                       struct world_range range)
{
    struct viommu_pv_answer answer = {.done = 0};

    (void)world_ranged(world, vm, operation, &range, &answer);
    return random_answer(0, &answer);
}

static uint64_t map(struct world *world, struct world_range range)
{
    return ranged(world, 1, VIOMMU_PV_MAP, range);
}

static uint64_t unmap(struct world *world, struct world_range range)
{
    return ranged(world, 1, VIOMMU_PV_UNMAP, range);
}

static uint64_t enables(struct world *world)
{
    return world_enable(world, 3);
}

/* A page of each state, one after another. */
static uint64_t maps_each(struct world *world)
{
    uint64_t sum = 0;

    for (uint64_t frame = 0; frame < 10; frame++) {
        sum = random_mix(sum, map(world, with(frame == 6, pages(frame, 50 + frame, 1, RW))));
    }
    return sum;
}

static uint64_t maps_a_range(struct world *world)
{
    return map(world, with(VIOMMU_PV_MMIO, pages(2, 50, 6, VIOMMU_PV_READ)));
}

static uint64_t maps_plain_pages(struct world *world)
{
    return map(world, pages(13, 507, 10, RW)); /* in two tables */
}

static uint64_t maps_a_large_page(struct world *world)
{
    return map(world, large(1536));
}

/* Where another one waits for its flush. */
static uint64_t maps_over(struct world *world)
{
    return random_mix(map(world, pages(5, 25, 1, RW)), map(world, pages(5, 24, 1, RW)));
}

static uint64_t foreign(struct world *world, uint32_t flags)
{
    struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[10];
    } call = {.call = {.head = {VIOMMU_PV_VERSION, VIOMMU_PV_MAP_FOREIGN, sizeof(call)},
                       .device_frame_max = 300,
                       .perm = RW,
                       .flags = flags,
                       .count = 10},
              .frames = {13, 3, 4, 5, 6, 7, 8, 9, 2, 4000}};
    struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[10];
    } out = {.answer = {.status = 0}};
    uint64_t sum;

    (void)world_call(world, 1, &call, sizeof(call), &out, sizeof(out));
    sum = random_answer(0, &out.answer);
    for (unsigned i = 0; i < 10 && out.answer.size > sizeof(out.answer); i++) {
        sum = random_mix(random_mix(sum, out.items[i].status), out.items[i].device_frame);
    }
    return sum;
}

static uint64_t maps_foreign(struct world *world)
{
    return random_mix(foreign(world, 0), foreign(world, VIOMMU_PV_MMIO));
}

static uint64_t unmaps(struct world *world)
{
    uint64_t sum = unmap(world, pages(10, 10, 3, 0));
    struct world_range range = large(1024);

    range.perm = 0;
    for (uint64_t at = 20; at < 26; at++) { /* logged, MMIO, VM 2's, read-only; revoked, waiting */
        static const uint64_t frames[] = {2, 6, 7, 30, 31, 32};

        sum = random_mix(sum, unmap(world, pages(frames[at - 20], at, 1, 0)));
    }
    return random_mix(sum, unmap(world, range));
}

static uint64_t defers(struct world *world)
{
    uint64_t sum = unmap(world, with(VIOMMU_PV_DEFER, pages(10, 10, 3, 0)));
    struct world_range range = with(VIOMMU_PV_DEFER, large(1024));

    range.perm = 0;
    sum = random_mix(sum, unmap(world, range));
    for (uint64_t at = 20; at < 23; at++) {
        sum = random_mix(
            sum, unmap(world, with(VIOMMU_PV_DEFER, pages(at == 20 ? 2 : at - 15, at, 1, 0))));
    }
    return sum;
}

static uint64_t flushes(struct world *world)
{
    struct viommu_pv_flush_call call = {
        .head = WORLD_HEAD(VIOMMU_PV_FLUSH, struct viommu_pv_flush_call), .first = 20, .last = 30};
    struct viommu_pv_answer out = {.done = 0};

    (void)world_call(world, 1, &call, sizeof(call), &out, sizeof(out));
    return random_mix(random_answer(0, &out), world_do_flush(world, 1, 0));
}

static uint64_t allocates(struct world *world)
{
    uint32_t context = 0;
    uint64_t sum = world_alloc(world, 1, &context);

    sum = random_mix(sum, map(world, in(context, pages(2, 90, 2, RW))));
    return random_mix(sum, world_free(world, 1, context));
}

static uint64_t frees(struct world *world)
{
    return random_mix(world_free(world, 1, 1), world_free(world, 1, 2)); /* that has devices */
}

static uint64_t moves(struct world *world)
{
    uint64_t sum = world_move(world, 1, 3, 2);

    sum = random_mix(sum, world_move(world, 1, 6, 0));
    return random_mix(sum, world_move(world, 1, 4, 0)); /* where it is */
}

static uint64_t has_devices(struct world *world)
{
    static const uint32_t two[] = {9, 2};
    uint64_t sum = (uint64_t)viommu_pv_device_remove(world->pv, 1, 3);

    sum = random_mix(sum, (uint64_t)viommu_pv_device_add_functions(world->pv, 1, two, 2));
    return random_mix(sum, (uint64_t)viommu_pv_device_remove(world->pv, 1, 5));
}

static int revoke(struct world *world, uint64_t frame)
{
    int ret;

    do {
        ret = viommu_pv_page_revoke(world->pv, 0, frame);
    } while (ret == VIOMMU_PENDING && world_between(world));
    return ret;
}

static uint64_t revokes(struct world *world)
{
    static const uint64_t frames[] = {10, 2, 6, 600, 7, 32};
    uint64_t sum = 0;

    for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
        sum = random_mix(sum, (uint64_t)viommu_pv_page_remove(world->pv, 0, frames[i]));
        sum = random_mix(sum, (uint64_t)revoke(world, frames[i]));
        sum = random_mix(sum, (uint64_t)viommu_pv_page_settle(world->pv, 0, frames[i]));
    }
    return sum;
}

static uint64_t acknowledge(struct world *world, uint32_t vm, uint64_t frame)
{
    struct viommu_pv_acknowledge_call call = {
        .head = WORLD_HEAD(VIOMMU_PV_ACKNOWLEDGE, struct viommu_pv_acknowledge_call),
        .frame = frame};
    struct viommu_pv_acknowledged out = {.remaining = 0};

    (void)world_call(world, vm, &call, sizeof(call), &out, sizeof(out));
    return random_mix(random_answer(0, &out.answer), out.remaining);
}

/* Two mappers are asked for a page, and give it back. */
static uint64_t gives_back(struct world *world)
{
    uint64_t sum = (uint64_t)viommu_pv_page_remove(world->pv, 0, 11);

    for (uint32_t vm = 0; vm < 3; vm++) {
        sum = random_mix(sum, acknowledge(world, vm, 11));
        sum = random_mix(sum, ranged(world, vm, VIOMMU_PV_UNMAP, pages(11, 11, 1, 0)));
        sum = random_mix(sum, acknowledge(world, vm, 11));
    }
    sum = random_mix(sum, (uint64_t)viommu_pv_page_remove(world->pv, 0, 11));
    return random_mix(sum, (uint64_t)viommu_pv_page_settle(world->pv, 0, 11));
}

static uint64_t asks(struct world *world)
{
    static const uint8_t bytes[8] = {0, 0, 0, 10, 0, 24, 0, 1};
    struct viommu_pv_reserved_call call = {
        .head = WORLD_HEAD(VIOMMU_PV_RESERVED, struct viommu_pv_reserved_call),
        .device = VIOMMU_PV_ALL,
        .room = 8};
    struct {
        struct viommu_pv_reserved head;
        struct viommu_pv_frames frames[8];
    } out = {.head = {.count = 0}};
    uint64_t sum = random_find(world, 1, bytes);

    (void)world_call(world, 1, &call, sizeof(call), &out, sizeof(out));
    sum = random_mix(random_answer(sum, &out.head.answer), out.head.count);
    return random_mix(sum, out.frames[3].first);
}

static uint64_t dies_0(struct world *world)
{
    return (uint64_t)world_destroy_vm(world, 0);
}

static uint64_t dies_1(struct world *world)
{
    return (uint64_t)world_destroy_vm(world, 1);
}

static uint64_t dies_2(struct world *world)
{
    return (uint64_t)world_destroy_vm(world, 2);
}

static const struct operation {
    const char *name;
    uint64_t (*run)(struct world *world);
    bool forces; /* takes away what others have mapped: their contexts are in use meanwhile */
} operations[] = {
    {"enable", enables, false},
    {"map, each state", maps_each, false},
    {"map, a range", maps_a_range, false},
    {"map, plain pages", maps_plain_pages, false},
    {"map, a large page", maps_a_large_page, false},
    {"map, over what waits", maps_over, false},
    {"map_foreign", maps_foreign, false},
    {"unmap", unmaps, false},
    {"unmap, deferred", defers, false},
    {"flush", flushes, false},
    {"context_alloc", allocates, false},
    {"context_free", frees, false},
    {"attach", moves, false},
    {"devices", has_devices, false},
    {"revoke", revokes, true},
    {"give back", gives_back, false},
    {"look-ups", asks, false},
    {"the owner dies", dies_0, true},
    {"the mapper dies", dies_1, false},
    {"another dies", dies_2, true},
};

enum {
    OPERATIONS = sizeof(operations) / sizeof(operations[0]),
};

/* ---- afterwards ---- */

/* What began to die does; then all that must hold does, and in the end nothing is left. */
static void end(struct world *world)
{
    world->intrude_at = 0;
    world->fail_at = 0;
    world->flush_fails = false;
    world->yield_every = 0;
    for (uint32_t vm = 0; vm < WORLD_VMS; vm++) {
        if (world_status(world, vm).dying) {
            assert_int_equal(world_destroy_vm(world, vm), 0);
        }
    }
    world_check(world);
    world_end(world);
}

static void tell(const char *what, const struct operation *operation, unsigned long n,
                 const char *wrong)
{
    if (wrong) {
        fprintf(stderr, "%s: %s, %lu: %s\n", operation->name, what, n, wrong);
        abort();
    }
}

/* ---- it fails ---- */

/* Steps from the n-th on fail; then it is asked for again, and nothing does. */
static bool fails_at(const struct operation *operation, unsigned long n, unsigned more)
{
    struct world *world = begin();
    bool failed;

    world->fail_at = world->steps + n;
    world->fail_more = more;
    world->yield_every = n & 1;
    (void)operation->run(world);
    failed = world->failed;
    world->fail_at = 0;
    world_check(world);
    (void)operation->run(world);
    end(world);
    return failed;
}

static void test_each_step_fails(void **state)
{
    static const unsigned more[] = {0, 1, 2, 20, STEPS_MAX};

    (void)state;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        for (size_t j = 0; j < sizeof(more) / sizeof(more[0]); j++) {
            unsigned long n = 1;

            while (fails_at(&operations[i], n, more[j])) {
                n++;
            }
            assert_in_range(n, 2, STEPS_MAX);
        }
    }
}

static void test_each_allocation_fails(void **state)
{
    (void)state;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        bool failed = true;

        for (unsigned n = 1; failed; n++) {
            struct world *world = begin();

            world->yield_every = n & 1;
            base_alloc_fail_at(n / 2 + 1);
            (void)operations[i].run(world);
            failed = base_alloc_failed() || n < 2;
            base_alloc_fail_at(0);
            world_check(world);
            (void)operations[i].run(world);
            end(world);
        }
    }
}

/* ---- it yields ---- */

/* It yields when it is asked for the n-th time, and so on; true when it was asked so often. */
static bool yields_at(const struct operation *operation, uint64_t expected,
                      const struct snapshot *without, unsigned n)
{
    struct world *world = begin();
    struct snapshot *after;
    bool asked;

    world->yield_every = n;
    world->asked = 0;
    if (operation->run(world) != expected) {
        tell("it yields", operation, n, "another answer");
    }
    asked = world->asked >= n;
    after = snapshot_take(world);
    tell("it yields", operation, n, snapshot_differs(without, after));
    tell("it yields", operation, n, snapshot_differs(after, without));
    free(after);
    end(world);
    return asked;
}

/* Whenever it yields, it comes to the same answers and leaves the same. */
static void test_yielding_changes_nothing(void **state)
{
    unsigned most = 0;

    (void)state;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        struct world *world = begin();
        uint64_t expected = operations[i].run(world);
        struct snapshot *without = snapshot_take(world);
        unsigned n = 1;

        end(world);
        while (yields_at(&operations[i], expected, without, n)) {
            n++;
        }
        most = n > most ? n : most;
        free(without);
    }
    assert_in_range(most, 10, STEPS_MAX);
}

/* ---- something else happens meanwhile ---- */

static void kill_vm(struct world *world, uint32_t vm)
{
    if (viommu_pv_vm_destroy(world->pv, vm) == 0) {
        world_forget_vm(world, vm);
    }
}

static void kill_0(struct world *world)
{
    kill_vm(world, 0);
}

static void kill_1(struct world *world)
{
    kill_vm(world, 1);
}

static void kill_2(struct world *world)
{
    kill_vm(world, 2);
}

static void kill_3(struct world *world)
{
    kill_vm(world, 3);
}

static void some_pages_go(struct world *world)
{
    (void)revokes(world);
}

/* It is not settled: the page has to be free when it was said to be. */
static const uint64_t gone[] = {2, 3, 4, 5, 6, 7, 10, 13, 512};
static bool going;

static void pages_are_to_go(struct world *world)
{
    going = true;
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        (void)viommu_pv_page_remove(world->pv, 0, gone[i]);
        (void)viommu_pv_page_revoke(world->pv, 0, gone[i]);
    }
}

static void a_flush_fails(struct world *world)
{
    world->flush_fails = true;
    (void)world_do_unmap(world, 1, pages(12, 12, 1, 0));
    (void)world_do_flush(world, 1, 1);
    world->flush_fails = false;
}

static void comes_and_goes(struct world *world)
{
    if (viommu_pv_device_add(world->pv, 1, 1) == 0) {
        (void)world_move(world, 1, 1, 1);
    }
    (void)has_devices(world);
}

static void other_calls(struct world *world)
{
    (void)maps_each(world);
    (void)defers(world);
    (void)maps_over(world);
    (void)flushes(world);
}

static void more_calls(struct world *world)
{
    (void)unmaps(world);
    (void)maps_foreign(world);
    (void)allocates(world);
    (void)frees(world);
    (void)moves(world);
    (void)enables(world);
}

static const struct operation *running;

/*
 * Whatever VM 1 is at, another VM's pages are mapped and unmapped, and its flushes are done at
 * once: it waits for nobody else's.
 */
static void another_works(struct world *world)
{
    struct world_range range = pages(40, 60, 2, RW);
    const struct world_page *page = &world->pages[world->vms[2].frames[41].machine];

    if (running->forces || world_status(world, 2).dying || !world->vms[2].there) {
        return;
    }
    range.of = VIOMMU_PV_SELF;
    for (unsigned deferred = 0; deferred < 2; deferred++) {
        assert_int_equal(world_do_map(world, 2, range), VIOMMU_PV_OK);
        assert_int_equal(page->refs, 1);
        range.flags = deferred ? VIOMMU_PV_DEFER : 0;
        assert_int_equal(world_do_unmap(world, 2, range), VIOMMU_PV_OK);
        assert_int_equal(page->refs, deferred);
        range.flags = 0;
    }
    assert_int_equal(world_do_flush(world, 2, 0), VIOMMU_PV_OK);
    assert_int_equal(page->refs, 0);
}

static void (*const events[])(struct world *world) = {
    kill_0,        kill_1,        kill_2,         kill_3,      some_pages_go, pages_are_to_go,
    a_flush_fails, another_works, comes_and_goes, other_calls, more_calls,
};

static void (*event)(struct world *world);
static bool happened;

/* What happens does not yield: there is nobody to wait. */
static void happen(struct world *world)
{
    unsigned yield_every = world->yield_every;

    world->yield_every = 0;
    event(world);
    world->yield_every = yield_every;
    happened = true;
}

/* Pages that were to go can be taken now, and nobody is left who could reach them. */
static void take_pages(struct world *world)
{
    for (size_t i = 0; going && world->vms[0].there && i < sizeof(gone) / sizeof(gone[0]); i++) {
        int machine = world->vms[0].frames[gone[i]].machine;
        int ret = viommu_pv_page_remove(world->pv, 0, gone[i]);

        assert_true(ret == 0 || ret == VIOMMU_PENDING);
        assert_int_equal(revoke(world, gone[i]), 0);
        assert_int_equal(viommu_pv_page_remove(world->pv, 0, gone[i]), 0);
        if (machine >= 0 && world->pages[machine].owner == 0) {
            assert_int_equal(world->pages[machine].refs, 0);
        }
    }
}

static bool happens_at(const struct operation *operation, unsigned long n, unsigned yield_every)
{
    struct world *world = begin();

    happened = false;
    going = false;
    running = operation;
    world->intrude = happen;
    world->intrude_at = world->steps + n;
    world->yield_every = yield_every;
    (void)operation->run(world);
    world->intrude_at = 0;
    world->yield_every = 0;
    for (uint32_t vm = 0; vm < WORLD_VMS; vm++) {
        if (world_status(world, vm).dying) {
            assert_int_equal(world_destroy_vm(world, vm), 0);
        }
    }
    world_check(world);
    take_pages(world);
    end(world);
    return happened;
}

static void test_anything_meanwhile(void **state)
{
    (void)state;
    for (unsigned i = 0; i < OPERATIONS; i++) {
        for (size_t j = 0; j < sizeof(events) / sizeof(events[0]); j++) {
            unsigned long n = 1;

            event = events[j];

            /* It yields for every second of the steps. */
            while (happens_at(&operations[i], n, (n + j) & 1)) {
                n++;
            }
            assert_in_range(n, 2, STEPS_MAX);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_step_fails),
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_yielding_changes_nothing),
        cmocka_unit_test(test_anything_meanwhile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
