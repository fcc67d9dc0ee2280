/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * At any point: each step of the hypervisor's and each allocation fails, VMs die and pages go at
 * each, with pages of every state, and with calls that yield or do not.
 */
#include "pv/test_snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum {
    RW = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
    DEVICE_FRAME = 20,
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

/* ---- one page ---- */

/* A page that VM 1 maps at DEVICE_FRAME, and the world around it. */
struct kind {
    const char *name;
    void (*arrange)(struct world *world); /* or NULL */
    uint32_t of;
    uint64_t frame;
    uint32_t order;
    uint32_t perm;
    uint32_t flags;
    uint32_t expected; /* when nothing fails */
    bool prepared;     /* the page may have been made ready when it fails */
    bool flushes;      /* the slot waits for its flush */
};

static void arrange_none_free(struct world *world)
{
    for (unsigned i = WORLD_VMS * WORLD_FRAMES; i < WORLD_MACHINE; i++) {
        world->pages[i].free = false;
    }
}

static void arrange_waiting(struct world *world)
{
    struct world_range range = pages(0, 30, DEVICE_FRAME, 1);

    assert_int_equal(world_do_map(world, 1, range), VIOMMU_PV_OK);
    range.flags = VIOMMU_PV_DEFER;
    assert_int_equal(world_do_unmap(world, 1, range), VIOMMU_PV_OK);
}

static void arrange_in_use(struct world *world)
{
    assert_int_equal(world_do_map(world, 1, pages(0, 30, DEVICE_FRAME, 1)), VIOMMU_PV_OK);
}

static void arrange_revoked(struct world *world)
{
    arrange_in_use(world);
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 30), VIOMMU_PENDING);
    assert_int_equal(viommu_pv_page_revoke(world->pv, 0, 30), 0);
}

static void arrange_going(struct world *world)
{
    for (uint64_t frame = 0; frame < 10; frame++) {
        assert_int_equal(viommu_pv_page_remove(world->pv, 0, frame), 0);
    }
    assert_int_equal(viommu_pv_page_remove(world->pv, 0, 600), 0);
}

static void arrange_not_that_vm(struct world *world)
{
    world->refuse_use[1] = 1u << 0;
}

static void arrange_not_that_owner(struct world *world)
{
    world->refuse_use[1] = 1u << 2;
    world->vms[0].frames[7].state = VIOMMU_PV_PAGE_SHARED;
}

static void arrange_no_call(struct world *world)
{
    world->refuse_call = 1u << VIOMMU_PV_MAP;
}

static void arrange_isolated(struct world *world)
{
    arrange_waiting(world);
    world->flush_fails = true;
    assert_int_equal(world_do_flush(world, 1, 0), VIOMMU_PV_EIO);
    world->flush_fails = false;
}

/* Its quota of mappings, which is 2, is used up. */
static void arrange_full(struct world *world)
{
    assert_int_equal(world_do_map(world, 1, pages(0, 30, 1, 2)), VIOMMU_PV_OK);
}

/* So is that of tables, which is 3. */
static void arrange_tables(struct world *world)
{
    assert_int_equal(world_do_map(world, 1, pages(0, 30, 1024, 1)), VIOMMU_PV_OK);
}

static const struct kind kinds[] = {
    {"RAM", NULL, 0, 0, 0, RW, 0, VIOMMU_PV_OK, false, false},
    {"RAM, read", NULL, 0, 0, 0, VIOMMU_PV_READ, 0, VIOMMU_PV_OK, false, false},
    {"a large page", NULL, 0, 512, 9, RW, 0, VIOMMU_PV_OK, false, false},
    {"read-only", NULL, 0, 1, 0, RW, 0, VIOMMU_PV_EACCES, false, false},
    {"read-only, read", NULL, 0, 1, 0, VIOMMU_PV_READ, 0, VIOMMU_PV_OK, false, false},
    {"logged", NULL, 0, 2, 0, RW, 0, VIOMMU_PV_OK, false, false},
    {"logged, read", NULL, 0, 2, 0, VIOMMU_PV_READ, 0, VIOMMU_PV_OK, false, false},
    {"paged out", NULL, 0, 3, 0, RW, 0, VIOMMU_PV_EAGAIN, true, false},
    {"shared", NULL, 0, 4, 0, RW, 0, VIOMMU_PV_OK, true, false},
    {"shared, read", NULL, 0, 4, 0, VIOMMU_PV_READ, 0, VIOMMU_PV_OK, false, false},
    {"on demand", NULL, 0, 5, 0, RW, 0, VIOMMU_PV_OK, true, false},
    {"on demand, read", NULL, 0, 5, 0, VIOMMU_PV_READ, 0, VIOMMU_PV_OK, true, false},
    {"on demand, none left", arrange_none_free, 0, 5, 0, RW, 0, VIOMMU_PV_ENOSPC, true, false},
    {"MMIO", NULL, 0, 6, 0, RW, VIOMMU_PV_MMIO, VIOMMU_PV_OK, false, false},
    {"MMIO, not wanted", NULL, 0, 6, 0, RW, 0, VIOMMU_PV_EOPNOTSUPP, false, false},
    {"another's page", NULL, 0, 7, 0, RW, 0, VIOMMU_PV_OK, false, false},
    {"no page", NULL, 0, 8, 0, RW, 0, VIOMMU_PV_ENOENT, false, false},
    {"another type", NULL, 0, 9, 0, RW, 0, VIOMMU_PV_EBUSY, false, false},
    {"waits", arrange_waiting, 0, 0, 0, RW, 0, VIOMMU_PV_OK, false, true},
    {"waits, on demand", arrange_waiting, 0, 5, 0, RW, 0, VIOMMU_PV_OK, true, true},
    {"waits, logged", arrange_waiting, 0, 2, 0, RW, 0, VIOMMU_PV_OK, false, true},
    {"waits, MMIO", arrange_waiting, 0, 6, 0, RW, VIOMMU_PV_MMIO, VIOMMU_PV_OK, false, true},
    /* What is known beforehand is known before the page is touched. */
    {"in use", arrange_in_use, 0, 5, 0, RW, 0, VIOMMU_PV_EEXIST, false, false},
    {"in use, shared", arrange_in_use, 0, 4, 0, RW, 0, VIOMMU_PV_EEXIST, false, false},
    {"revoked", arrange_revoked, 0, 5, 0, RW, 0, VIOMMU_PV_EEXIST, false, false},
    {"going", arrange_going, 0, 5, 0, RW, 0, VIOMMU_PV_ENOENT, false, false},
    {"going, large", arrange_going, 0, 512, 9, RW, 0, VIOMMU_PV_ENOENT, false, false},
    {"not that VM", arrange_not_that_vm, 0, 5, 0, RW, 0, VIOMMU_PV_EPERM, false, false},
    {"not that owner", arrange_not_that_owner, 0, 7, 0, RW, 0, VIOMMU_PV_EPERM, false, false},
    {"no such call", arrange_no_call, 0, 5, 0, RW, 0, VIOMMU_PV_EPERM, false, false},
    {"isolated", arrange_isolated, 0, 5, 0, RW, 0, VIOMMU_PV_EIO, false, false},
    {"quota", arrange_full, 0, 5, 0, RW, 0, VIOMMU_PV_ENOSPC, false, false},
    {"no VM", NULL, 3, 5, 0, RW, 0, VIOMMU_PV_ESRCH, false, false},
};

static struct world *world_of(const struct kind *kind)
{
    struct world *world = begin(&(struct viommu_pv_config){.mappings_max = 2});

    world_give_states(world);
    if (kind->arrange) {
        kind->arrange(world);
    }
    return world;
}

static struct world_range range_of(const struct kind *kind)
{
    return (struct world_range){.of = kind->of,
                                .frame = kind->frame,
                                .device_frame = kind->order ? 512 : DEVICE_FRAME,
                                .count = 1,
                                .order = kind->order,
                                .perm = kind->perm,
                                .flags = kind->flags};
}

static void expect(const struct kind *kind, const char *wrong, const char *how, unsigned long at)
{
    if (wrong) {
        fprintf(stderr, "%s: %s %lu fails: not as before: %s\n", kind->name, how, at, wrong);
        abort();
    }
}

/* What a map that has failed may have changed: nothing; or the flush was made that it waits for. */
static void check_failed(const struct kind *kind, const struct snapshot *before,
                         const struct snapshot *flushed, const struct world *world, uint32_t status,
                         const char *how, unsigned long at)
{
    struct snapshot *after = snapshot_take(world);

    assert_true(kind->prepared || after->prepared == before->prepared);
    if (status == VIOMMU_PV_EIO && kind->flushes) {
        expect(kind, snapshot_pages(before, after), how, at); /* isolated, with all it had */
    } else if (after->flushes != before->flushes) {
        assert_true(kind->flushes);
        expect(kind, snapshot_differs(flushed, after), how, at);
    } else {
        expect(kind, snapshot_differs(before, after), how, at);
    }
    free(after);
}

/* Maps; true when something failed on the way. */
static bool map_once(const struct kind *kind, const struct snapshot *flushed, unsigned long step,
                     unsigned allocation)
{
    struct world *world = world_of(kind);
    struct snapshot *before = snapshot_take(world);
    uint32_t status;
    bool failed;

    world->fail_at = step ? world->steps + step : 0;
    base_alloc_fail_at(allocation);
    status = world_do_map(world, 1, range_of(kind));
    failed = world->failed || base_alloc_failed();
    base_alloc_fail_at(0);
    world->fail_at = 0;
    if (!failed) {
        assert_int_equal(status, kind->expected);
    }
    if (status != VIOMMU_PV_OK) {
        check_failed(kind, before, flushed, world, status, step ? "step" : "allocation",
                     step ? step : allocation);
    }
    free(before);
    world_check(world);
    world_end(world);
    return failed;
}

static struct snapshot *flushed_of(const struct kind *kind)
{
    struct world *world = world_of(kind);
    struct snapshot *it;

    (void)world_do_flush(world, 1, 0);
    it = snapshot_take(world);
    world_end(world);
    return it;
}

static void test_a_failed_map_changes_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct snapshot *flushed = flushed_of(&kinds[i]);
        unsigned long n = 1;

        assert_false(map_once(&kinds[i], flushed, 0, 0));
        while (map_once(&kinds[i], flushed, n, 0)) {
            n++;
        }
        assert_true(n > 1);
        for (n = 1; map_once(&kinds[i], flushed, 0, (unsigned)n); n++) {
        }
        free(flushed);
    }
}

static struct world *prepared(unsigned yield_every)
{
    struct world *world = begin(&(struct viommu_pv_config){.deferred_max = 3});

    world_give_states(world);
    world->yield_every = yield_every;
    return world;
}

/* Maps pages, as far as that goes when a step or an allocation fails; true when one did. */
static bool map_range(struct world_range range, unsigned long step, unsigned allocation)
{
    struct world *world = prepared(step & 1);
    struct world *other = prepared(0);
    struct viommu_pv_answer answer;
    struct snapshot *as_it_is;
    struct snapshot *as_told;
    bool failed;

    world->fail_at = step ? world->steps + step : 0;
    base_alloc_fail_at(allocation);
    (void)world_ranged(world, 1, VIOMMU_PV_MAP, &range, &answer);
    failed = world->failed || base_alloc_failed();
    base_alloc_fail_at(0);
    assert_true(failed || answer.status == VIOMMU_PV_OK);
    if (answer.status != VIOMMU_PV_OK) {
        assert_int_equal(answer.stopped, range.device_frame + answer.done);
    }
    range.count = answer.done;
    assert_int_equal(world_do_map(other, 1, range), VIOMMU_PV_OK);
    as_it_is = snapshot_take(world);
    as_told = snapshot_take(other);
    expect(&kinds[0], snapshot_differs(as_told, as_it_is),
           step ? "range, step" : "range, allocation", step ? step : allocation);
    free(as_it_is);
    free(as_told);
    world_end(world);
    world_end(other);
    return failed;
}

/* Of a range there is what the answer says, and nothing else: as if no more had been asked for. */
static void test_a_range_that_fails(void **state)
{
    const struct world_range ranges[] = {
        pages(0, 10, 10, 6),
        pages(0, 12, 509, 5), /* in two tables */
        {.of = 0, .frame = 0, .device_frame = 10, .count = 3, .perm = VIOMMU_PV_READ},
        {.of = 0, .frame = 9, .device_frame = 10, .count = 1, .perm = VIOMMU_PV_READ},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        unsigned long n = 1;

        while (map_range(ranges[i], n, 0)) {
            n++;
        }
        for (n = 1; map_range(ranges[i], 0, (unsigned)n); n++) {
        }
    }
}

/* The tables are full: what else would fit does not take any. */
static void test_a_map_without_tables(void **state)
{
    struct world *world = begin(&(struct viommu_pv_config){.tables_max = 3});
    struct snapshot *before;
    struct snapshot *after;

    (void)state;
    world_give_states(world);
    arrange_tables(world);
    before = snapshot_take(world);
    assert_int_equal(world_do_map(world, 1, pages(0, 0, 0, 1)), VIOMMU_PV_ENOSPC);
    assert_int_equal(world_do_map(world, 1, pages(0, 2, 0, 1)), VIOMMU_PV_ENOSPC);
    after = snapshot_take(world);
    assert_null(snapshot_differs(before, after));
    free(before);
    free(after);
    world_end(world);
}

/* ---- a little of everything ---- */

static uint32_t victim;
static uint64_t mapped_then; /* of its frames, when it began to die */
static uint64_t frame_taken;
static bool taken;

static void kill_victim(struct world *world)
{
    int ret = viommu_pv_vm_destroy(world->pv, victim);

    assert_true(ret == VIOMMU_PENDING || ret == 0);
    mapped_then = world_status(world, victim).mapped;
    if (ret == 0) {
        world_forget_vm(world, victim);
    }
}

static void take_page(struct world *world)
{
    int ret = viommu_pv_page_remove(world->pv, 0, frame_taken);

    taken = true;
    assert_true(ret == 0 || ret == VIOMMU_PENDING);
    (void)viommu_pv_page_revoke(world->pv, 0, frame_taken);
}

/* Whether a device may reach what has no references. */
static bool reaches_mmio(const struct world *world, uint64_t frame)
{
    for (unsigned s = 0; s < WORLD_SPACES; s++) {
        const struct world_space *space = &world->spaces[s];

        for (unsigned i = 0; space->there && i < WORLD_DEVICE; i++) {
            if (space->live[i].there && space->live[i].handle == WORLD_MACHINE + frame) {
                return true;
            }
        }
        for (unsigned i = 0; space->there && i < space->stale_count; i++) {
            if (space->stale[i].handle == WORLD_MACHINE + frame) {
                return true;
            }
        }
    }
    return false;
}

/* A page that drained, by what the engine says, is nobody's: it can be reused at once. */
static void take_drained_page(struct world *world)
{
    if (viommu_pv_page_remove(world->pv, 0, frame_taken) == 0) {
        assert_false(reaches_mmio(world, frame_taken));
        assert_true(world_release_frame(world, 0, frame_taken));
        assert_int_equal(viommu_pv_page_settle(world->pv, 0, frame_taken), 0);
    }
}

static void test_a_page_drains_at_every_step(void **state)
{
    (void)state;
    for (frame_taken = 0; frame_taken < 8; frame_taken++) {
        for (unsigned long n = 1; n < 20; n++) {
            for (unsigned failing = 0; failing < 20; failing++) {
                struct world *world = begin(&defaults);
                struct world_range range = pages(0, frame_taken, 3, 1);

                world_give_states(world);
                range.perm = frame_taken == 1 ? VIOMMU_PV_READ : RW;
                range.flags = frame_taken == 6 ? VIOMMU_PV_MMIO : 0;
                world->intrude = take_drained_page;
                world->intrude_at = world->steps + n;
                world->fail_at = failing ? world->steps + failing : 0;
                (void)world_do_map(world, 1, range);
                world_check(world);
                world_end(world);
            }
        }
    }
}

/* By VM 1 on pages of VM 0 of every state, one of which belongs to VM 2. */
static void work(struct world *world)
{
    struct world_range deferred = pages(0, 0, 1, 4);
    struct world_range big = pages(0, 512, 1024, 1);
    struct world_range mmio = pages(0, 6, 6, 1);
    uint32_t context = 0;

    deferred.flags = VIOMMU_PV_DEFER;
    big.order = 9;
    mmio.flags = VIOMMU_PV_MMIO;
    (void)world_do_map(world, 1, pages(0, 10, 11, 3));
    (void)world_do_map(world, 1, pages(0, 2, 2, 2)); /* logged; paged out */
    (void)world_do_map(world, 1, pages(0, 3, 3, 3)); /* back again; shared; on demand */
    (void)world_do_map(world, 1, mmio);
    (void)world_do_map(world, 1, pages(0, 7, 7, 1)); /* VM 2's */
    (void)world_do_map(world, 1, big);
    deferred.frame = deferred.device_frame = 2;
    (void)world_do_unmap(world, 1, deferred);
    (void)world_do_map(world, 1, pages(0, 13, 3, 1)); /* over what waits */
    (void)world_alloc(world, 1, &context);
    (void)viommu_pv_device_add(world->pv, 1, 3);
    (void)world_move(world, 1, 3, context);
    (void)world_do_flush(world, 1, 0);
    (void)world_do_unmap(world, 1, big);
    mmio.flags = 0;
    (void)world_do_unmap(world, 1, mmio);
    (void)world_move(world, 1, 3, 0);
    (void)world_free(world, 1, context);
}

/* Steps that the work takes when nothing intrudes. */
static unsigned long steps_of_work(unsigned yield_every)
{
    struct world *world = prepared(yield_every);
    unsigned long start = world->steps;
    unsigned long steps;

    work(world);
    steps = world->steps - start;
    /* All of it was done: */
    assert_int_equal(world->prepared, 3);
    assert_int_equal(world->pages[10].refs, 1);
    assert_int_equal(world->pages[13].refs, 1);
    assert_int_equal(world->pages[2].refs, 0);
    assert_int_equal(world->pages[2].dirty, 2);
    world_check(world);
    world_end(world);
    assert_true(steps > 100);
    return steps;
}

static void test_death_at_every_step(void **state)
{
    (void)state;
    for (unsigned yield_every = 0; yield_every < 2; yield_every++) {
        unsigned long last = steps_of_work(yield_every);

        for (victim = 0; victim < 3; victim++) {
            for (unsigned long n = 1; n <= last; n++) {
                struct world *world = prepared(yield_every);

                world->intrude = kill_victim;
                world->intrude_at = world->steps + n;
                work(world);
                assert_true(world_status(world, victim).mapped <= mapped_then);
                (void)world_destroy_vm(world, victim);
                world_check(world);
                world_end(world);
            }
        }
    }
}

static void page_goes(unsigned yield_every, unsigned long n)
{
    struct world *world = prepared(yield_every);
    int ret;

    taken = false;
    world->intrude = take_page;
    world->intrude_at = world->steps + n;
    work(world);
    if (taken) {
        do {
            ret = viommu_pv_page_revoke(world->pv, 0, frame_taken);
        } while (ret == VIOMMU_PENDING);
        assert_int_equal(ret, 0);
        assert_false(reaches_mmio(world, frame_taken));
        assert_true(world_release_frame(world, 0, frame_taken));
    }
    world_check(world);
    world_end(world);
}

static void test_a_page_goes_at_every_step(void **state)
{
    static const uint64_t frames[] = {2, 3, 4, 5, 6, 10, 600};

    (void)state;
    for (unsigned yield_every = 0; yield_every < 2; yield_every++) {
        unsigned long last = steps_of_work(yield_every);

        for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
            frame_taken = frames[i];
            for (unsigned long n = 1; n <= last; n++) {
                page_goes(yield_every, n);
            }
        }
    }
}

static int came;

static void device_comes(struct world *world)
{
    came = viommu_pv_device_add(world->pv, 1, 1); /* reserves 64 to 65, 80 to 81 */
    assert_true(came == 0 || came == -EADDRNOTAVAIL);
}

/* What it reserves is never mapped as well; a map that began before stops there, at the n-th page.
 */
static void a_device_comes(struct world_range range, uint64_t stops)
{
    unsigned stopped = 0;

    for (unsigned n = 1; n < 100; n++) {
        for (unsigned yield_every = 0; yield_every < 2; yield_every++) {
            struct world *world = prepared(yield_every);
            struct viommu_pv_answer answer;
            uint32_t status;

            came = 1;
            world->intrude = device_comes;
            world->intrude_at = world->steps + n;
            status = world_ranged(world, 1, VIOMMU_PV_MAP, &range, &answer);
            if (came == 0) {
                assert_int_equal(status, VIOMMU_PV_EADDRNOTAVAIL);
                assert_true(answer.done <= stops);
                assert_int_equal(answer.stopped, range.device_frame + answer.done);
                stopped++;
            } else {
                assert_int_equal(status, VIOMMU_PV_OK);
            }
            world_check(world);
            world_end(world);
        }
    }
    assert_true(stopped > 3);
}

static void test_a_device_comes_at_every_step(void **state)
{
    struct world_range large = pages(0, 512, 0, 1);

    (void)state;
    a_device_comes(pages(0, 10, 60, 10), 4);
    a_device_comes(pages(0, 10, 65, 1), 0);
    large.order = 9;
    a_device_comes(large, 0);
}

static void test_every_step_fails(void **state)
{
    (void)state;
    for (unsigned more = 0; more < 4; more++) {
        unsigned long last = steps_of_work(more & 1);

        for (unsigned long n = 1; n <= last; n++) {
            struct world *world = prepared(more & 1);

            world->fail_at = world->steps + n;
            world->fail_more = more;
            work(world);
            assert_true(world->failed);
            world_check(world);
            world_end(world);
        }
    }
}

static void test_every_allocation_fails(void **state)
{
    (void)state;
    for (unsigned long n = 1;; n++) {
        struct world *world = prepared(n & 1);
        int failed;

        base_alloc_fail_at(n / 2 + 1);
        work(world);
        failed = base_alloc_failed();
        base_alloc_fail_at(0);
        world_check(world);
        world_end(world);
        if (!failed) {
            assert_true(n > 8);
            return;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failed_map_changes_nothing),
        cmocka_unit_test(test_a_range_that_fails),
        cmocka_unit_test(test_a_map_without_tables),
        cmocka_unit_test(test_death_at_every_step),
        cmocka_unit_test(test_a_page_goes_at_every_step),
        cmocka_unit_test(test_a_page_drains_at_every_step),
        cmocka_unit_test(test_a_device_comes_at_every_step),
        cmocka_unit_test(test_every_step_fails),
        cmocka_unit_test(test_every_allocation_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
