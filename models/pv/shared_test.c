/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One page that is mapped very many times: by two VMs, in two contexts each, by its own frame and
 * by one of a VM that has another's page. Whatever is done takes steps in proportion to the
 * mappings, and few of them without giving the lock up. Steps are counted, not time.
 */
#include "pv/engine.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/alloc.h"
#include "support/pv_quiet.h"

enum {
    MAPPINGS = 100000,
    BALLOON = 10000,
    CONTEXTS = 4,
    EACH = MAPPINGS / CONTEXTS, /* of a context */
    OWNER = 0,
    OTHER = 3, /* has the owner's page as its frame */
    FRAME = 77,
    NOTHING = 1001, /* no page */
    HANDLE = 5000,
    DEFERRED = 64,
    ITEMS = 5000, /* of a call */
    STEPS = 8,    /* for a mapping */
    HELD = 200,   /* under one lock */
};

/* The hypervisor: counts. */
static struct {
    long refs;
    long types;
    long mapped; /* in the IOMMU, or not flushed */
    long unmapped;
    unsigned long told;
    unsigned yield_every;
    unsigned asked;
    void (*meanwhile)(void); /* when asked whether to yield */
    void *fails;             /* flushes of this space */
    void (*intrude)(void);   /* when the first is asked for it */
} now;

static int op_lookup(void *opaque, uint32_t vm, uint64_t frame, unsigned order,
                     struct viommu_pv_page *page)
{
    (void)opaque;
    if (order || frame == NOTHING) {
        return -ENOENT;
    }
    *page = frame == FRAME ? (struct viommu_pv_page){.handle = HANDLE, .owner = OWNER}
                           : (struct viommu_pv_page){.handle = HANDLE + frame, .owner = vm};
    return 0;
}

static int op_get_page(void *opaque, uint32_t vm, uint64_t frame, unsigned order, uint64_t handle)
{
    (void)opaque, (void)vm, (void)frame, (void)order;
    now.refs += handle == HANDLE;
    return 0;
}

static void op_put_page(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order;
    now.refs -= handle == HANDLE;
}

static int op_get_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order;
    now.types += handle == HANDLE;
    return 0;
}

static void op_put_type(void *opaque, unsigned order, uint64_t handle)
{
    (void)opaque, (void)order;
    now.types -= handle == HANDLE;
}

static int op_context_create(void *opaque, uint32_t vm, uint32_t context, void **space)
{
    (void)opaque;
    *space = (void *)(uintptr_t)(1 + vm * 16 + context);
    return 0;
}

static int op_map(void *opaque, void *space, uint64_t device_frame, unsigned order, uint64_t handle,
                  uint32_t perm)
{
    (void)opaque, (void)space, (void)device_frame, (void)order, (void)handle, (void)perm;
    now.mapped++;
    return 0;
}

static int op_unmap(void *opaque, void *space, uint64_t device_frame, unsigned order)
{
    (void)opaque, (void)space, (void)device_frame, (void)order;
    now.unmapped++;
    return 0;
}

static int op_flush(void *opaque, void *space, uint64_t first, uint64_t last)
{
    (void)opaque, (void)first, (void)last;
    return space == now.fails ? -EIO : 0;
}

static bool op_yield(void *opaque)
{
    (void)opaque;
    if (now.meanwhile) {
        now.meanwhile();
    }
    return now.yield_every && ++now.asked % now.yield_every == 0;
}

static void op_give_back(void *opaque, uint32_t mapper, uint32_t context, uint64_t device_frame,
                         uint32_t vm, uint64_t frame)
{
    (void)opaque, (void)mapper, (void)context, (void)device_frame, (void)vm, (void)frame;
    now.told++;
    if (now.told == 1 && now.intrude) {
        now.intrude();
    }
}

static struct viommu_pv_ops ops;

static void prepare_ops(void)
{
    ops = pv_quiet();
    ops.lookup = op_lookup;
    ops.get_page = op_get_page;
    ops.put_page = op_put_page;
    ops.get_type = op_get_type;
    ops.put_type = op_put_type;
    ops.context_create = op_context_create;
    ops.map = op_map;
    ops.unmap = op_unmap;
    ops.flush = op_flush;
    ops.yield = op_yield;
    ops.give_back = op_give_back;
}

/* ---- steps ---- */

static void count_steps(void)
{
    pv_steps = 0;
    pv_held.before = 0;
    pv_held.most = 0;
}

/* What was done since took no more than it may. */
static void assert_steps(void)
{
    assert_in_range(pv_steps, 0, (unsigned long)STEPS * MAPPINGS);
    assert_in_range(pv_held.most, 0, HELD);
}

/* ---- calls ---- */

static uint32_t call(struct viommu_pv *pv, uint32_t vm, const void *in, size_t in_size, void *out,
                     size_t out_size)
{
    struct viommu_pv_call *rest = NULL;
    size_t written;
    int ret = viommu_pv_call(pv, vm, in, in_size, out, out_size, &written, &rest);

    while (ret == VIOMMU_PENDING) {
        ret = viommu_pv_resume(pv, rest, out, out_size, &written);
    }
    assert_int_equal(ret, 0);
    return ((struct viommu_pv_answer *)out)->status;
}

#define HEAD(op, type)                                                                             \
    {                                                                                              \
        .version = VIOMMU_PV_VERSION, .operation = (op), .size = sizeof(type)                      \
    }

static void enable(struct viommu_pv *pv, uint32_t vm)
{
    struct viommu_pv_head head = HEAD(VIOMMU_PV_ENABLE, struct viommu_pv_head);
    struct viommu_pv_alloc_call in = {.head = HEAD(VIOMMU_PV_CONTEXT_ALLOC, in)};
    struct viommu_pv_alloc out;

    assert_int_equal(call(pv, vm, &head, sizeof(head), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(call(pv, vm, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.context, 1);
}

/* Maps the page so often; at device frames from 0 on, as there is nothing else. */
static void map(struct viommu_pv *pv, uint32_t vm, uint32_t context, uint32_t of, unsigned count)
{
    static struct {
        struct viommu_pv_foreign_call call;
        uint64_t frames[ITEMS];
    } in;
    static struct {
        struct viommu_pv_answer answer;
        struct viommu_pv_item items[ITEMS];
    } out;

    for (; count; count -= ITEMS) {
        in.call = (struct viommu_pv_foreign_call){
            .head = HEAD(VIOMMU_PV_MAP_FOREIGN, in),
            .context = context,
            .vm = of,
            .device_frame_max = MAPPINGS,
            .perm = VIOMMU_PV_READ | VIOMMU_PV_WRITE,
            .count = ITEMS,
        };
        for (unsigned i = 0; i < ITEMS; i++) {
            in.frames[i] = FRAME;
        }
        assert_int_equal(call(pv, vm, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
        assert_int_equal(out.answer.done, ITEMS);
    }
}

static uint32_t map_pages(struct viommu_pv *pv, uint64_t frame, uint64_t device_frame,
                          uint64_t count, struct viommu_pv_answer *out)
{
    struct viommu_pv_map_call in = {.head = HEAD(VIOMMU_PV_MAP, in),
                                    .vm = OWNER,
                                    .frame = frame,
                                    .device_frame = device_frame,
                                    .count = count,
                                    .perm = VIOMMU_PV_READ};

    return call(pv, 1, &in, sizeof(in), out, sizeof(*out));
}

static uint32_t unmap(struct viommu_pv *pv, uint32_t vm, uint32_t context, uint32_t of,
                      uint64_t device_frame)
{
    struct viommu_pv_map_call in = {.head = HEAD(VIOMMU_PV_UNMAP, in),
                                    .context = context,
                                    .vm = of,
                                    .frame = FRAME,
                                    .device_frame = device_frame,
                                    .count = 1,
                                    .flags = VIOMMU_PV_DEFER};
    struct viommu_pv_answer out;

    return call(pv, vm, &in, sizeof(in), &out, sizeof(out));
}

static uint32_t flush(struct viommu_pv *pv, uint32_t vm, uint32_t context)
{
    struct viommu_pv_flush_call in = {
        .head = HEAD(VIOMMU_PV_FLUSH, in), .context = context, .flags = VIOMMU_PV_WHOLE};
    struct viommu_pv_answer out;

    return call(pv, vm, &in, sizeof(in), &out, sizeof(out));
}

static uint64_t acknowledge(struct viommu_pv *pv, uint32_t vm)
{
    struct viommu_pv_acknowledge_call in = {
        .head = HEAD(VIOMMU_PV_ACKNOWLEDGE, in), .vm = OWNER, .frame = FRAME};
    struct viommu_pv_acknowledged out;

    assert_int_equal(call(pv, vm, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    return out.remaining;
}

/* ---- the world ---- */

/* The last EACH are those of OTHER's frame. */
static uint32_t named(unsigned which)
{
    return which == CONTEXTS - 1 ? OTHER : OWNER;
}

static struct viommu_pv *begin_empty(void)
{
    struct viommu_pv_config config = {
        .ops = &ops, .items_max = ITEMS, .deferred_max = DEFERRED, .contexts_max = 2};
    struct viommu_pv *pv;

    memset(&now, 0, sizeof(now));
    prepare_ops();
    assert_int_equal(viommu_pv_create(&config, &pv), 0);
    for (uint32_t vm = 0; vm <= OTHER; vm++) {
        assert_int_equal(viommu_pv_vm_add(pv, vm, true), 0);
        enable(pv, vm);
    }
    return pv;
}

static struct viommu_pv *begin(void)
{
    struct viommu_pv *pv = begin_empty();

    count_steps();
    for (unsigned i = 0; i < CONTEXTS; i++) {
        map(pv, 1 + i / 2, i % 2, named(i), EACH);
    }
    assert_steps();
    assert_int_equal(now.refs, MAPPINGS);
    assert_null(pv_check(pv));
    count_steps();
    return pv;
}

static int until_done(int (*what)(struct viommu_pv *pv, uint32_t vm), struct viommu_pv *pv,
                      uint32_t vm)
{
    int ret;

    do {
        ret = what(pv, vm);
    } while (ret == VIOMMU_PENDING);
    return ret;
}

static void end(struct viommu_pv *pv)
{
    for (uint32_t vm = 0; vm <= OTHER; vm++) {
        int ret = until_done(viommu_pv_vm_destroy, pv, vm);

        assert_true(ret == 0 || ret == -ENOENT);
    }
    assert_int_equal(now.refs, 0);
    assert_int_equal(now.types, 0);
    assert_int_equal(now.mapped, now.unmapped);
    assert_int_equal(viommu_pv_destroy(pv), 0);
}

static int revoke(struct viommu_pv *pv, uint32_t vm)
{
    return viommu_pv_page_revoke(pv, vm, FRAME);
}

/* ---- tests ---- */

static void test_unmapped(void **state)
{
    struct viommu_pv *pv = begin();

    (void)state;
    /* Neither in the order in which it was mapped, nor backwards. */
    for (unsigned i = 0; i < EACH; i++) {
        for (unsigned c = 0; c < CONTEXTS; c++) {
            assert_int_equal(unmap(pv, 1 + c / 2, c % 2, named(c), (i * 7919ul + 1) % EACH),
                             VIOMMU_PV_OK);
        }
        if (i == EACH / 2) {
            assert_null(pv_check(pv));
        }
    }
    for (unsigned c = 0; c < CONTEXTS; c++) {
        assert_int_equal(flush(pv, 1 + c / 2, c % 2), VIOMMU_PV_OK);
    }
    assert_steps();
    assert_int_equal(now.refs, 0);
    end(pv);
}

static void test_asked_for(void **state)
{
    struct viommu_pv *pv = begin();

    (void)state;
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_int_equal(now.told, MAPPINGS - EACH);
    assert_steps();
    assert_int_equal(viommu_pv_page_remove(pv, OTHER, FRAME), VIOMMU_PENDING);
    assert_int_equal(now.told, MAPPINGS);
    count_steps();
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_int_equal(now.told, MAPPINGS); /* once */
    assert_steps();
    count_steps();
    assert_int_equal(acknowledge(pv, 1), 2 * EACH);
    assert_steps();
    now.yield_every = 1;
    assert_int_equal(acknowledge(pv, 1), 2 * EACH);
    assert_steps();
    assert_true(now.asked > 2 * EACH / 100);
    now.yield_every = 0;
    count_steps();
    assert_int_equal(viommu_pv_page_settle(pv, OWNER, FRAME), 0);
    assert_steps();
    /* It stayed after all; it may be asked for anew, and then is. */
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_int_equal(now.told, 2 * MAPPINGS - EACH);
    end(pv);
}

/* Frees context 1 of VM 1 and makes another, with a few mappings. */
static void replace_context(struct viommu_pv *pv)
{
    struct viommu_pv_free_call in = {.head = HEAD(VIOMMU_PV_CONTEXT_FREE, in), .context = 1};
    struct viommu_pv_alloc_call alloc = {.head = HEAD(VIOMMU_PV_CONTEXT_ALLOC, alloc)};
    struct viommu_pv_alloc out;

    assert_int_equal(call(pv, 1, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(call(pv, 1, &alloc, sizeof(alloc), &out, sizeof(out)), VIOMMU_PV_OK);
    assert_int_equal(out.context, 1);
    map(pv, 1, 1, OWNER, ITEMS);
}

/*
 * What maps the page is looked for, and the call yields. What was found is neither found again nor
 * lost when it goes meanwhile; a context in the place of the one that was being looked at is not
 * it.
 */
static void test_found_while_it_changes(void **state)
{
    static struct {
        struct viommu_pv_find find;
        struct viommu_pv_place places[ITEMS];
    } out;
    struct viommu_pv_find_call in = {
        .head = HEAD(VIOMMU_PV_FIND, in), .vm = OWNER, .room = ITEMS, .frame = FRAME};
    struct viommu_pv_call *rest;
    struct viommu_pv *pv = begin();
    size_t written;
    uint64_t found;

    (void)state;
    now.yield_every = 1;
    assert_int_equal(viommu_pv_call(pv, 1, &in, sizeof(in), &out, sizeof(out), &written, &rest),
                     VIOMMU_PENDING);
    while (rest->search.count < EACH / 2) {
        assert_int_equal(viommu_pv_resume(pv, rest, &out, sizeof(out), &written), VIOMMU_PENDING);
    }
    now.yield_every = 0;
    assert_int_equal(unmap(pv, 1, 0, OWNER, 3), VIOMMU_PV_OK);        /* was found */
    assert_int_equal(unmap(pv, 1, 0, OWNER, EACH - 1), VIOMMU_PV_OK); /* will not be */
    now.yield_every = 1;
    while (rest->search.count < EACH + ITEMS / 2) {
        assert_int_equal(viommu_pv_resume(pv, rest, &out, sizeof(out), &written), VIOMMU_PENDING);
    }
    found = rest->search.count;
    assert_true(rest->search.context == 1 && rest->search.device_frame == found - (EACH - 1));
    now.yield_every = 0;
    replace_context(pv);
    assert_int_equal(viommu_pv_resume(pv, rest, &out, sizeof(out), &written), 0);
    assert_int_equal(out.find.answer.status, VIOMMU_PV_OK);
    assert_int_equal(out.find.count, found);
    assert_int_equal(out.find.answer.done, ITEMS);
    for (unsigned i = 0; i < ITEMS; i++) {
        assert_int_equal(out.places[i].device_frame, i);
        assert_int_equal(out.places[i].context, 0);
    }
    assert_steps();
    end(pv);
}

/* Up to so many mappings of a page, whosever they are, are looked at in another order. */
static void test_found_among_a_few(void **state)
{
    static struct {
        struct viommu_pv_find find;
        struct viommu_pv_place places[ITEMS];
    } out;
    struct viommu_pv_find_call in = {
        .head = HEAD(VIOMMU_PV_FIND, in), .vm = OWNER, .room = ITEMS, .frame = FRAME};
    static const unsigned counts[] = {1, 31, 32, 33, 1023, 1024, 1025, 1055, 1056};
    static bool seen[ITEMS];

    (void)state;
    for (unsigned i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        struct viommu_pv *pv = begin_empty();

        map(pv, 1, 0, OWNER, ITEMS);
        for (unsigned at = counts[i]; at < ITEMS; at++) {
            assert_int_equal(unmap(pv, 1, 0, OWNER, at), VIOMMU_PV_OK);
        }
        assert_int_equal(flush(pv, 1, 0), VIOMMU_PV_OK);
        now.yield_every = 1;
        count_steps();
        assert_int_equal(call(pv, 1, &in, sizeof(in), &out, sizeof(out)), VIOMMU_PV_OK);
        assert_int_equal(out.find.count, counts[i]);
        assert_int_equal(out.find.answer.done, counts[i]);
        memset(seen, 0, sizeof(seen));
        for (unsigned at = 0; at < counts[i]; at++) {
            assert_true(out.places[at].device_frame < counts[i]);
            assert_false(seen[out.places[at].device_frame]);
            seen[out.places[at].device_frame] = true;
        }
        assert_steps();
        end(pv);
    }
}

/* More pages at once than are remembered; each call about another one. */
static void test_many_taken_in_turn(void **state)
{
    enum { PAGES = 7, OFTEN = 200 };
    struct viommu_pv *pv = begin_empty();
    struct viommu_pv_answer out;
    unsigned left = PAGES;
    bool done[PAGES] = {false};

    (void)state;
    for (unsigned i = 0; i < OFTEN; i++) {
        assert_int_equal(map_pages(pv, 0, i * PAGES, PAGES, &out), VIOMMU_PV_OK);
    }
    for (uint64_t frame = 0; frame < PAGES; frame++) {
        assert_int_equal(viommu_pv_page_remove(pv, OWNER, frame), VIOMMU_PENDING);
    }
    now.yield_every = 1;
    for (unsigned round = 0; left; round++) {
        assert_true(round < OFTEN);
        for (uint64_t frame = 0; frame < PAGES; frame++) {
            int ret = done[frame] ? VIOMMU_PENDING : viommu_pv_page_revoke(pv, OWNER, frame);

            assert_true(ret == 0 || ret == VIOMMU_PENDING);
            done[frame] |= ret == 0;
            left -= ret == 0;
            assert_null(pv_check(pv));
        }
        for (unsigned i = 0; i < PV_REVOKING && round == 0; i++) {
            assert_true(pv_vm_find(pv, OWNER)->revoking[i].there);
        }
    }
    for (uint64_t frame = 0; frame < PAGES; frame++) {
        assert_int_equal(viommu_pv_page_settle(pv, OWNER, frame), 0);
    }
    end(pv);
}

/* Nothing is remembered of pages that are taken away. */
static void assert_none_taken(struct viommu_pv *pv)
{
    for (unsigned i = 0; i < PV_REVOKING; i++) {
        assert_false(pv_vm_find(pv, OWNER)->revoking[i].there);
    }
    assert_null(pv_vm_find(pv, OWNER)->index.walks);
}

/* While one is being taken away others are, and the same one, more than are remembered. */
enum { NESTED = 6 };

static struct viommu_pv *nested;
static uint64_t depth;

static void take_the_next(void)
{
    uint64_t frame = ++depth % NESTED;
    int ret;

    if (depth >= 2 * NESTED) {
        return;
    }
    ret = viommu_pv_page_revoke(nested, OWNER, frame);
    assert_true(ret == 0 || ret == VIOMMU_PENDING);
}

static void take_inside_each_other(unsigned yield_every)
{
    struct viommu_pv *pv = begin_empty();
    struct viommu_pv_answer out;
    int ret;

    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(map_pages(pv, 0, i * NESTED, NESTED, &out), VIOMMU_PV_OK);
    }
    for (uint64_t frame = 0; frame < NESTED; frame++) {
        assert_int_equal(viommu_pv_page_remove(pv, OWNER, frame), VIOMMU_PENDING);
    }
    nested = pv;
    depth = 0;
    now.meanwhile = take_the_next;
    now.yield_every = yield_every;
    for (uint64_t frame = 0; frame < NESTED; frame++) {
        do {
            ret = viommu_pv_page_revoke(pv, OWNER, frame);
        } while (ret == VIOMMU_PENDING);
        assert_int_equal(ret, 0);
    }
    assert_null(pv_check(pv));
    assert_int_equal(now.mapped, now.unmapped);
    assert_none_taken(pv);
    end(pv);
}

static void test_taken_inside_each_other(void **state)
{
    (void)state;
    take_inside_each_other(0);
    take_inside_each_other(1);
}

/* What is remembered of a page that stays after all is forgotten. */
static void test_taken_in_part(void **state)
{
    struct viommu_pv *pv = begin();

    (void)state;
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    now.yield_every = 1;
    assert_int_equal(viommu_pv_page_revoke(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_true(pv_vm_find(pv, OWNER)->revoking[0].there);
    assert_int_equal(viommu_pv_page_settle(pv, OWNER, FRAME), 0);
    assert_none_taken(pv);
    end(pv);
}

static void revoke_all(unsigned yield_every, void *fails)
{
    struct viommu_pv *pv = begin();

    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    now.yield_every = yield_every;
    now.fails = fails;
    count_steps();
    assert_int_equal(until_done(revoke, pv, OWNER), fails ? -EIO : 0);
    assert_steps();
    assert_int_equal(now.refs, fails ? 2 * EACH : EACH);
    now.fails = NULL;
    assert_int_equal(until_done(revoke, pv, OWNER), 0);
    assert_steps();
    assert_none_taken(pv);
    assert_int_equal(now.refs, EACH);
    assert_null(pv_check(pv));
    end(pv);
}

static void test_taken(void **state)
{
    (void)state;
    revoke_all(0, NULL);
    revoke_all(3, NULL);
}

/* What is in the way of one context is gone around, and tried again when it is all that is left. */
static void test_taken_where_a_flush_fails(void **state)
{
    (void)state;
    for (unsigned yield_every = 0; yield_every < 3; yield_every++) {
        revoke_all(yield_every, (void *)(uintptr_t)(1 + 16));
        revoke_all(yield_every, (void *)(uintptr_t)(1 + 2 * 16)); /* in front of the others */
    }
}

/* What was taken is no step's end; a call that never yields gives the lock up all the same. */
static void test_context_freed_of_what_was_taken(void **state)
{
    struct viommu_pv_free_call in = {
        .head = {VIOMMU_PV_VERSION, VIOMMU_PV_CONTEXT_FREE, sizeof(in)}, .context = 1};
    struct viommu_pv_answer out;
    struct viommu_pv *pv = begin();
    size_t written;

    (void)state;
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_int_equal(until_done(revoke, pv, OWNER), 0);
    count_steps();
    assert_int_equal(viommu_pv_call(pv, 1, &in, sizeof(in), &out, sizeof(out), &written, NULL), 0);
    assert_int_equal(out.status, VIOMMU_PV_OK);
    assert_steps();
    assert_null(pv_check(pv));
    end(pv);
}

static void die(uint32_t vm, unsigned yield_every, void *fails)
{
    struct viommu_pv *pv = begin();

    now.yield_every = yield_every;
    now.fails = fails;
    assert_int_equal(until_done(viommu_pv_vm_destroy, pv, vm), fails ? -EIO : 0);
    assert_steps();
    assert_null(pv_check(pv));
    count_steps();
    now.fails = NULL;
    assert_int_equal(until_done(viommu_pv_vm_destroy, pv, vm), fails ? 0 : -ENOENT);
    assert_steps();
    assert_null(pv_check(pv));
    end(pv);
}

static void test_death(void **state)
{
    void *first = (void *)(uintptr_t)(1 + 16);

    (void)state;
    for (uint32_t vm = 0; vm <= OTHER; vm++) {
        die(vm, 0, NULL);
        die(vm, 1000, NULL);
    }
    die(OWNER, 0, first);
    die(OWNER, 10, first);
    die(OWNER, 1, (void *)(uintptr_t)(1 + 2 * 16)); /* in front of the others */
    die(1, 0, first);
}

/* While its mappers are asked, the mapping that would be next goes. */
static struct viommu_pv *intruded;

static void the_next_goes(void)
{
    /* New ones are in front, and so many are asked at a time. */
    assert_int_equal(unmap(intruded, 1, 0, OWNER, ITEMS - 1 - 64), VIOMMU_PV_OK);
    assert_int_equal(flush(intruded, 1, 0), VIOMMU_PV_OK);
}

static void test_the_next_goes(void **state)
{
    struct viommu_pv *pv = begin_empty();

    (void)state;
    intruded = pv;
    map(pv, 1, 0, OWNER, ITEMS);
    now.intrude = the_next_goes;
    assert_int_equal(viommu_pv_page_remove(pv, OWNER, FRAME), VIOMMU_PENDING);
    assert_int_equal(now.told, ITEMS - 1);
    assert_null(pv_check(pv));
    end(pv);
}

/* A VM gives every second page of many back, and gets them again. */
static void test_balloon(void **state)
{
    struct viommu_pv *pv = begin();

    (void)state;
    for (uint64_t frame = 0; frame < 2 * BALLOON; frame += 2) {
        assert_int_equal(viommu_pv_page_remove(pv, 2, (frame * 7919) % (2 * BALLOON)), 0);
    }
    assert_null(pv_check(pv));
    for (uint64_t frame = 0; frame < 2 * BALLOON; frame++) {
        assert_int_equal(viommu_pv_page_settle(pv, 2, frame), frame % 2 ? -ENOENT : 0);
    }
    assert_steps();
    end(pv);
}

/* Without memory for what stands for several, a second mapping fails whole; and is tried again, by
   itself. */
static void test_without_memory(void **state)
{
    struct viommu_pv *pv = begin_empty();
    struct viommu_pv_answer out;

    (void)state;
    assert_int_equal(map_pages(pv, FRAME, 0, 1, &out), VIOMMU_PV_OK);
    base_alloc_fail_at(1);
    assert_int_equal(map_pages(pv, FRAME, 1, 1, &out), VIOMMU_PV_OK);
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_null(pv_check(pv));
    assert_int_equal(now.refs, 2);
    end(pv);
}

/* One of several has no memory in the index, and a later one has no page: that is told in its turn.
 */
static void test_two_fail(void **state)
{
    struct viommu_pv *pv = begin_empty();
    struct viommu_pv_answer out;

    (void)state;
    assert_int_equal(map_pages(pv, FRAME, 0, 1, &out), VIOMMU_PV_OK);
    base_alloc_fail_at(2);
    assert_int_equal(map_pages(pv, NOTHING - 2, 1, 3, &out), VIOMMU_PV_ENOENT);
    assert_true(base_alloc_failed());
    base_alloc_fail_at(0);
    assert_int_equal(out.done, 2);
    assert_int_equal(out.stopped, 3);
    assert_null(pv_check(pv));
    end(pv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unmapped),
        cmocka_unit_test(test_asked_for),
        cmocka_unit_test(test_found_while_it_changes),
        cmocka_unit_test(test_found_among_a_few),
        cmocka_unit_test(test_many_taken_in_turn),
        cmocka_unit_test(test_taken_inside_each_other),
        cmocka_unit_test(test_taken_in_part),
        cmocka_unit_test(test_taken),
        cmocka_unit_test(test_taken_where_a_flush_fails),
        cmocka_unit_test(test_context_freed_of_what_was_taken),
        cmocka_unit_test(test_death),
        cmocka_unit_test(test_balloon),
        cmocka_unit_test(test_the_next_goes),
        cmocka_unit_test(test_without_memory),
        cmocka_unit_test(test_two_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
