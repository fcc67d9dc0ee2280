/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A world for tests of mirrors: the fake model with page tables in its RAM, and mirrors that record
 * what they are told.
 *
 * A mirror keeps the exact set of its mappings and takes no call that breaks a rule of
 * viommu/notify.h. What it was told since it was last asked is a line of text (mirror_told):
 *
 *   +1000-1fff>81000rw   MAP      -1000-1fff           UNMAP
 *   =1000-1fff>81000r    REPLACE  ~1000-1fff>81000rw   SKIPPED; ~1000-1fff: nothing is there
 *   !                    fence
 *
 * A call that it answered with an error has a ? behind it, one that it will answer later an &.
 *
 * When all is done (world_process) what the library thinks that a mirror was given is compared with
 * what it holds, and the library's sums with what they are sums of.
 *
 * The tables are in the model's RAM, at guest address 0; other guest memory (world_add) is as large
 * as a test wants: there is nothing behind it but address space.
 */
#ifndef VIOMMU_SHADOW_TEST_MIRROR_H
#define VIOMMU_SHADOW_TEST_MIRROR_H

#include "base/alloc.h"
#include "iommu/test_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE UINT64_C(0x1000)
#define SIZE_2M UINT64_C(0x200000)
#define SIZE_1G UINT64_C(0x40000000)
#define BIG UINT64_C(0x80000000)        /* guest address of a large slot of memory, 1 GiB */
#define BACKING UINT64_C(0x400000000)   /* address space behind guest memory */
#define RW 3u
#define RO 1u
#define DOMAIN 5
#define MAPPED_MAX 4096u
#define TOLD_MAX 65536u
#define TRACKED_MIRRORS 4u

struct test_mirror {
    struct viommu_device *device;
    struct viommu_subscriber *subscriber;
    struct viommu_subscription what;
    struct world *world;

    struct shadow_extent mapped[MAPPED_MAX]; /* in the order in which they came */
    unsigned mapped_count;
    char told[TOLD_MAX];
    size_t told_length;
    unsigned calls;   /* of `change` */
    unsigned fences;
    unsigned causes;  /* 1 << enum viommu_cause, since it was last asked */
    struct viommu_change last; /* the last call */

    /* The call so many from now (1: the next) is answered with this; with `rest`, all after it. */
    unsigned answer_in;
    int answer;
    bool rest;
    enum viommu_change_kind only; /* calls of this kind only; 0: any */
    int fence_answer;
    void (*inside)(struct test_mirror *mirror, const struct viommu_change *change);

    bool pending; /* a call was answered with VIOMMU_PENDING */
    struct viommu_change outstanding;
};

struct world {
    struct test_model model; /* first */
    struct shadow_view tables; /* that the guest's functions change */
    uint64_t next_table;
    char *backing;
    unsigned budget; /* of viommu_process; 0: its own */
    int fd;          /* of memory that is added; 0: none */
    struct test_mirror *mirrors[TRACKED_MIRRORS];
    unsigned mirror_count;
};

/* ---- a mirror's side ------------------------------------------------------------------------- */

/* In a callback: cmocka would jump out of the library, which then waits for it for ever. */
static inline void mirror_expect(bool holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "a mirror was told something wrong: %s\n", what);
        abort();
    }
}

static inline void mirror_write(struct test_mirror *mirror, const char *text)
{
    size_t length = strlen(text);

    mirror_expect(mirror->told_length + length + 2 < TOLD_MAX, "the test records too little");
    if (mirror->told_length) {
        mirror->told[mirror->told_length++] = ' ';
    }
    memcpy(mirror->told + mirror->told_length, text, length + 1);
    mirror->told_length += length;
}

static inline void mirror_record(struct test_mirror *mirror, const struct viommu_change *change,
                                 int answer)
{
    char sign = change->kind == VIOMMU_CHANGE_MAP       ? '+'
                : change->kind == VIOMMU_CHANGE_UNMAP   ? '-'
                : change->kind == VIOMMU_CHANGE_REPLACE ? '='
                : change->kind == VIOMMU_CHANGE_SKIPPED ? '~'
                                                        : '@';
    char target[48] = "";
    char text[160];

    if (change->perm) {
        snprintf(target, sizeof(target), ">%llx%s%s", (unsigned long long)change->gpa,
                 change->perm & VIOMMU_READ ? "r" : "", change->perm & VIOMMU_WRITE ? "w" : "");
    }
    snprintf(text, sizeof(text), "%c%llx-%llx%s%s", sign, (unsigned long long)change->first,
             (unsigned long long)change->last, target,
             answer == VIOMMU_PENDING ? "&" : answer ? "?" : "");
    mirror_write(mirror, text);
}

static inline unsigned mirror_find(const struct test_mirror *mirror, uint64_t first)
{
    unsigned i = 0;

    while (i < mirror->mapped_count && mirror->mapped[i].first != first) {
        i++;
    }
    return i;
}

static inline void mirror_take(struct test_mirror *mirror, unsigned i)
{
    mirror->mapped[i] = mirror->mapped[--mirror->mapped_count];
}

static inline void mirror_map(struct test_mirror *mirror, const struct viommu_change *change)
{
    mirror_expect(mirror->mapped_count < MAPPED_MAX, "the test keeps too few mappings");
    mirror->mapped[mirror->mapped_count++] =
        (struct shadow_extent){change->first, change->last, change->gpa, change->perm};
}

static inline void mirror_unmap(struct test_mirror *mirror, const struct viommu_change *change)
{
    uint64_t at = change->first;
    unsigned count = 0;
    unsigned i;

    do {
        i = mirror_find(mirror, at);
        mirror_expect(i < mirror->mapped_count, "an UNMAP of what is not mapped");
        at = mirror->mapped[i].last + 1;
        mirror_expect(mirror->mapped[i].last <= change->last, "an UNMAP of a part of a mapping");
        if (++count == 1 && mirror->mapped[i].last == change->last) {
            mirror_expect(mirror->mapped[i].gpa == change->gpa, "an UNMAP of another mapping");
        }
        mirror_take(mirror, i);
    } while (at - 1 != change->last);
    mirror_expect(count == 1 || mirror->what.unmap_spans, "an UNMAP of several without leave");
    mirror_expect(count == 1 || change->gpa == 0, "a target of several");
}

/* Does what it was told. */
static inline void mirror_apply(struct test_mirror *mirror, const struct viommu_change *change)
{
    unsigned i;

    switch (change->kind) {
    case VIOMMU_CHANGE_MAP:
        mirror_map(mirror, change);
        break;
    case VIOMMU_CHANGE_UNMAP:
        mirror_unmap(mirror, change);
        break;
    case VIOMMU_CHANGE_REPLACE:
        i = mirror_find(mirror, change->first);
        mirror_expect(i < mirror->mapped_count, "a REPLACE of what is not mapped");
        mirror_expect(mirror->mapped[i].last == change->last, "a REPLACE of a part of a mapping");
        mirror_take(mirror, i);
        mirror_map(mirror, change);
        break;
    default:
        break;
    }
}

static inline void mirror_check_map(const struct test_mirror *mirror,
                                    const struct viommu_change *change)
{
    const struct world *world = mirror->world;
    const char *host = change->gpa < MODEL_RAM ? (const char *)world->model.ram : world->backing;

    mirror_expect(change->host == host + change->gpa, "the place in the host");
    mirror_expect(change->perm && change->perm <= RW, "permissions");
    if (change->gpa >= MODEL_RAM && world->fd) {
        mirror_expect(change->fd == world->fd, "the file");
        mirror_expect(change->fd_offset == change->gpa + PAGE, "the place in the file");
    } else {
        mirror_expect(change->fd == -1, "the file");
        mirror_expect(change->fd_offset == 0, "the place in the file");
    }
    mirror_expect(change->last < 0xfee00000 || change->first > 0xfeefffff,
                  "the interrupt range");
    for (unsigned i = 0; change->kind == VIOMMU_CHANGE_MAP && i < mirror->mapped_count; i++) {
        mirror_expect(mirror->mapped[i].first > change->last ||
                          mirror->mapped[i].last < change->first,
                      "a MAP over a mapping");
    }
}

/* What every call is. */
static inline void mirror_check(const struct test_mirror *mirror,
                                const struct viommu_change *change)
{
    uint64_t size = change->last - change->first; /* - 1 */

    mirror_expect(mirror->what.kinds & change->kind, "a kind that it did not ask for");
    mirror_expect(!mirror->pending, "one call at a time");
    mirror_expect(change->requester == viommu_device_requester(mirror->device), "the requester");
    mirror_expect(change->first <= change->last, "an empty range");
    mirror_expect((change->first & 0xfff) == 0, "whole pages");
    mirror_expect((change->last & 0xfff) == 0xfff, "whole pages");
    if (mirror->what.form == VIOMMU_FORM_POW2 && change->kind != VIOMMU_CHANGE_DEVICE_TLB) {
        mirror_expect((size & (size + 1)) == 0, "a block of a power of two");
        mirror_expect((change->first & size) == 0, "an aligned block");
        mirror_expect((change->gpa & size) == 0, "an aligned target");
    }
    if (change->kind == VIOMMU_CHANGE_MAP || change->kind == VIOMMU_CHANGE_REPLACE) {
        mirror_check_map(mirror, change);
    } else {
        mirror_expect(!change->host, "a place in the host");
        mirror_expect(change->kind == VIOMMU_CHANGE_SKIPPED || !change->perm, "permissions");
    }
}

static inline int mirror_on_change(void *opaque, const struct viommu_change *change)
{
    struct test_mirror *mirror = opaque;
    int answer = 0;

    mirror_check(mirror, change);
    mirror->calls++;
    mirror->causes |= 1u << change->cause;
    mirror->last = *change;
    if (mirror->answer_in && (!mirror->only || mirror->only == change->kind)) {
        if (mirror->answer_in == 1) {
            answer = mirror->answer;
        }
        if (mirror->answer_in > 1 || !mirror->rest) {
            mirror->answer_in--;
        }
    }
    mirror_record(mirror, change, answer);
    if (answer == VIOMMU_PENDING) {
        mirror->pending = true;
        mirror->outstanding = *change;
    } else if (!answer) {
        mirror_apply(mirror, change);
    }
    if (mirror->inside) {
        mirror->inside(mirror, change);
    }
    return answer;
}

static inline int mirror_on_fence(void *opaque)
{
    struct test_mirror *mirror = opaque;

    mirror->fences++;
    mirror->mapped_count = 0;
    mirror->pending = false;
    mirror_write(mirror, "!");
    return mirror->fence_answer;
}

/* The answers from now on: 0 is "as usual". */
static inline void mirror_answers(struct test_mirror *mirror, unsigned in, int answer, bool rest,
                                  enum viommu_change_kind only)
{
    mirror->answer_in = in;
    mirror->answer = answer;
    mirror->rest = rest;
    mirror->only = only;
}

/* Answers the call that is outstanding. */
static inline void mirror_complete(struct test_mirror *mirror, int status)
{
    assert_true(mirror->pending);
    mirror->pending = false;
    if (!status) {
        mirror_apply(mirror, &mirror->outstanding);
    }
    assert_int_equal(viommu_change_complete(&mirror->world->model.iommu, mirror->outstanding.token,
                                            status),
                     0);
}

/* ---- the library's side ---------------------------------------------------------------------- */

static inline struct follow *world_follow(struct world *world)
{
    return &world->model.iommu.follow;
}

static inline bool mirror_holds(const struct test_mirror *mirror, const struct shadow_extent *block)
{
    unsigned i = mirror_find(mirror, block->first);

    return i < mirror->mapped_count && mirror->mapped[i].last == block->last &&
           mirror->mapped[i].gpa == block->gpa && mirror->mapped[i].perm == block->perm;
}

/* A block of what was given is held, or missing: one of both. Returns 1 when it is held. */
static inline unsigned mirror_check_block(const struct test_mirror *test,
                                          const struct shadow_extent *block)
{
    const struct mirror *mirror = test->subscriber->mirror;
    struct range_run run;
    bool missing = range_map_find(&mirror->missing, block->first, &run);

    if (missing) {
        assert_int_equal(run.first, block->first);
        assert_int_equal(run.last, block->last);
        assert_int_equal(run.target, block->gpa);
        assert_int_equal(run.tag, block->perm);
    }
    assert_int_equal(mirror_holds(test, block), !missing);
    return !missing;
}

static inline unsigned mirror_check_given(const struct test_mirror *test,
                                          const struct shadow_extent *given)
{
    struct pow2_split split;
    struct pow2_block block;
    unsigned held = 0;

    if (test->what.form == VIOMMU_FORM_RANGE) {
        return mirror_check_block(test, given);
    }
    pow2_begin_with_target(&split, given->first, given->last, given->gpa);
    while (pow2_next(&split, &block)) {
        struct shadow_extent extent = {block.first, block.last, block.target, given->perm};

        held += mirror_check_block(test, &extent);
    }
    return held;
}

/* Between walks: what the mirror was given is what it holds, but for its differences. */
static inline void mirror_check_idle(const struct test_mirror *test)
{
    const struct mirror *mirror = test->subscriber->mirror;
    struct layout layout = mirror_layout(&test->world->model.iommu, mirror);
    struct shadow_extent given;
    unsigned held = 0;
    uint64_t at = 0;

    assert_false(mirror->walk.active);
    assert_false(mirror->busy || mirror->is_active || mirror->retrying || mirror->switching);
    assert_false(mirror->fence_due);
    assert_null(mirror->target_shadow);
    if (test->subscriber->fenced) {
        assert_int_equal(test->mapped_count, 0);
        assert_int_equal(mirror->kind, VIEW_NONE);
        assert_null(mirror->shadow);
        assert_int_equal(mirror->missing.count, 0);
    }
    while (layout_given(mirror, &layout, at, UINT64_MAX, &given)) {
        held += mirror_check_given(test, &given);
        if (given.last == UINT64_MAX) {
            break;
        }
        at = given.last + 1;
    }
    assert_int_equal(held, test->mapped_count);
    assert_int_equal(mirror->mappings, test->mapped_count);
    assert_int_equal(mirror->counted,
                     range_map_memory(&mirror->odd) + range_map_memory(&mirror->missing));
    assert_int_equal(!mirror->retry_time, !mirror->missing.count);
}

/* Nothing is under way, and the library's sums are right. */
static inline void world_check_idle(struct world *world)
{
    const struct follow *follow = world_follow(world);
    uint64_t map_bytes = 0;
    uint64_t odd_bytes = 0;
    unsigned users = 0;
    unsigned members = 0;

    assert_int_equal(follow->phase, FOLLOW_IDLE);
    assert_null(follow->active);
    assert_null(follow->syncing);
    assert_null(follow->dying);
    assert_null(follow->notes);
    assert_null(follow->memory_next);
    assert_false(follow->patched || follow->cutting || follow->wanted);
    assert_int_equal(follow->fences_due, 0);
    for (const struct shadow *shadow = follow->shadows; shadow; shadow = shadow->next) {
        shadow_map_check(&shadow->map);
        assert_true(shadow->users > 0);
        assert_false(shadow->fill || shadow->sync || shadow->all);
        assert_int_equal(shadow->ranges.map.count, 0);
        users += shadow->users;
        map_bytes += shadow->map.bytes;
    }
    for (const struct mirror *mirror = follow->mirrors; mirror; mirror = mirror->next) {
        members += mirror->shadow != NULL;
        odd_bytes += mirror->counted;
    }
    assert_int_equal(users, members);
    assert_int_equal(follow->map_bytes, map_bytes);
    assert_int_equal(follow->odd_bytes, odd_bytes);
    for (unsigned i = 0; i < world->mirror_count; i++) {
        if (world->mirrors[i]->subscriber) {
            mirror_check_idle(world->mirrors[i]);
        }
    }
}

/* As far as it goes by itself. */
static inline void world_run(struct world *world)
{
    unsigned rounds = 0;
    int ret;

    do {
        ret = viommu_process(&world->model.iommu, world->budget);
        assert_true(ret >= 0);
        assert_true(++rounds < 1000000);
    } while (ret == VIOMMU_PENDING);
    (void)viommu_memory_process(world->model.memory);
}

/* To the end: nothing is pending. */
static inline void world_process(struct world *world)
{
    for (unsigned i = 0; i < 4; i++) {
        world_run(world);
    }
    world_check_idle(world);
}

/* ---- the guest's side ------------------------------------------------------------------------ */

static inline uint64_t world_table(struct world *world)
{
    uint64_t table = world->next_table;

    assert_true(table < MODEL_RAM);
    world->next_table += PAGE;
    return table;
}

/* The entry of an address in the table of a level (0: 4 KiB pages); makes what is above it. */
static inline uint64_t *world_entry(struct world *world, uint64_t iova, unsigned level)
{
    uint64_t table = world->tables.root;
    unsigned at = world->tables.levels;
    uint64_t *entry;

    for (;;) {
        at--;
        entry = (uint64_t *)(world->model.ram + table) + (iova >> pagetable_shift(at) & 511);
        if (at == level) {
            return entry;
        }
        if (!*entry) {
            *entry = htole64(world_table(world) | RW);
        }
        table = le64toh(*entry) & PAGETABLE_ADDRESS;
    }
}

/* `flags`: permissions, MODEL_RESERVED. */
static inline void world_map_at(struct world *world, uint64_t iova, uint64_t gpa, unsigned level,
                                uint64_t flags)
{
    *world_entry(world, iova, level) = htole64(gpa | flags | (level ? MODEL_LARGE : 0));
}

/* Contiguous 4 KiB pages. */
static inline void world_map(struct world *world, uint64_t iova, unsigned pages, uint64_t gpa,
                             uint64_t flags)
{
    for (unsigned i = 0; i < pages; i++) {
        world_map_at(world, iova + i * PAGE, gpa + i * PAGE, 0, flags);
    }
}

static inline void world_unmap(struct world *world, uint64_t iova, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        *world_entry(world, iova + i * PAGE, 0) = 0;
    }
}

/* Asks for a sync, as an invalidation does. */
static inline struct wait world_ask(struct world *world, int domain, uint64_t first, uint64_t last,
                                    enum viommu_cause cause)
{
    struct wait wait = {0};

    iommu_lock(&world->model.iommu);
    follow_invalidate(&world->model.iommu, &wait, domain, first, last, cause);
    iommu_unlock(&world->model.iommu);
    return wait;
}

/* Asks for the views to be looked at. */
static inline struct wait world_ask_review(struct world *world, enum viommu_cause cause)
{
    struct wait wait = {0};

    iommu_lock(&world->model.iommu);
    follow_review(&world->model.iommu, &wait, NULL, NULL, cause);
    iommu_unlock(&world->model.iommu);
    return wait;
}

static inline bool world_over(struct world *world, const struct wait *wait)
{
    bool done;

    iommu_lock(&world->model.iommu);
    done = follow_done(&world->model.iommu, wait);
    iommu_unlock(&world->model.iommu);
    return done;
}

/* A whole sync of some addresses, or of all. */
static inline void world_sync(struct world *world, uint64_t first, uint64_t last)
{
    struct wait wait = world_ask(world, DOMAIN, first, last, VIOMMU_CAUSE_PAGES);

    world_process(world);
    assert_true(world_over(world, &wait));
}

static inline void world_sync_all(struct world *world)
{
    struct wait wait = world_ask(world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_DOMAIN);

    world_process(world);
    assert_true(world_over(world, &wait));
}

static inline void world_show(struct world *world, struct shadow_view view)
{
    world->model.view = view;
    (void)world_ask_review(world, VIOMMU_CAUSE_CONTEXT);
}

static inline struct shadow_view world_tables(struct world *world)
{
    return (struct shadow_view){
        .kind = VIEW_TABLES, .domain = DOMAIN, .levels = 3, .root = world_table(world)};
}

static inline struct shadow_view world_identity(void)
{
    return (struct shadow_view){.kind = VIEW_IDENTITY, .last = (1ULL << 48) - 1};
}

static inline int world_add_slot(struct world *world, uint64_t first, uint64_t last, uint32_t flags)
{
    struct viommu_memory_slot slot = {
        .first = first,
        .last = last,
        .host = world->backing + first,
        .fd = world->fd ? world->fd : -1,
        .fd_offset = world->fd ? first + PAGE : 0,
        .flags = flags,
    };
    struct viommu_memory_batch *batch;

    assert_true(last < BACKING);
    assert_int_equal(viommu_memory_batch_begin(world->model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_add(batch, &slot), 0);
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

static inline void world_add(struct world *world, uint64_t first, uint64_t last, uint32_t flags)
{
    assert_int_equal(world_add_slot(world, first, last, flags), 0);
}

/* Returns what the commit returned: VIOMMU_PENDING, where there are mirrors. */
static inline int world_remove(struct world *world, uint64_t first, uint64_t last)
{
    struct viommu_memory_batch *batch;

    assert_int_equal(viommu_memory_batch_begin(world->model.memory, &batch), 0);
    assert_int_equal(viommu_memory_batch_remove(batch, first, last), 0);
    return viommu_memory_batch_commit(batch, NULL, NULL);
}

/* ---- the world ------------------------------------------------------------------------------- */

/* With RAM for tables at 0, BIG, started; devices have empty tables. The model may be prepared. */
static inline void world_create(struct world *world)
{
    world->backing = mmap(NULL, BACKING, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                          -1, 0);
    assert_ptr_not_equal(world->backing, MAP_FAILED);
    world->next_table = PAGE;
    model_create(&world->model);
    model_add_ram(&world->model, 0, MODEL_RAM - 1, 0);
    world_add(world, BIG, BIG + SIZE_1G - 1, 0);
    world->tables = world_tables(world);
    world->model.view = world->tables;
    assert_int_equal(viommu_start(&world->model.iommu), 0);
}

static inline void world_destroy(struct world *world)
{
    base_alloc_fail_at(0);
    model_fini(&world->model);
    munmap(world->backing, BACKING);
    for (unsigned i = 0; i < world->mirror_count; i++) {
        free(world->mirrors[i]);
    }
    *world = (struct world){0};
}

static inline int mirror_subscribe(struct test_mirror *mirror)
{
    return viommu_device_subscribe(mirror->device, &mirror->what, &mirror->subscriber);
}

/* A mirror of a device, not subscribed yet. */
static inline struct test_mirror *mirror_create(struct world *world, uint16_t requester)
{
    struct test_mirror *mirror = calloc(1, sizeof(*mirror));

    assert_non_null(mirror);
    assert_true(world->mirror_count < TRACKED_MIRRORS);
    world->mirrors[world->mirror_count++] = mirror;
    mirror->world = world;
    mirror->device = model_device(&world->model, requester);
    mirror->what = (struct viommu_subscription){
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = VIOMMU_FORM_RANGE,
        .role = VIOMMU_ROLE_MIRROR,
        .change = mirror_on_change,
        .fence = mirror_on_fence,
        .opaque = mirror,
    };
    return mirror;
}

/* Subscribed, with these kinds besides, and what is mapped already is not told of any more. */
static inline struct test_mirror *mirror_follows(struct world *world, uint16_t requester,
                                                 uint32_t kinds)
{
    struct test_mirror *mirror = mirror_create(world, requester);

    mirror->what.kinds |= kinds;
    assert_int_equal(mirror_subscribe(mirror), 0);
    world_process(world);
    mirror->told_length = 0;
    mirror->told[0] = 0;
    mirror->causes = 0;
    return mirror;
}

/* What it was told since the last time. */
static inline void mirror_told(struct test_mirror *mirror, const char *expected)
{
    assert_string_equal(mirror->told, expected);
    mirror->told_length = 0;
    mirror->told[0] = 0;
    mirror->causes = 0;
}

static inline struct viommu_subscriber_status mirror_status(const struct test_mirror *mirror)
{
    struct viommu_subscriber_status status;

    assert_int_equal(viommu_subscriber_status(mirror->subscriber, &status, sizeof(status)), 0);
    return status;
}

/* How many events of a kind there were. */
static inline unsigned world_events(const struct world *world, enum viommu_event_kind kind)
{
    unsigned count = 0;

    for (unsigned i = 0; i < world->model.event_count && i < MODEL_RECORDS; i++) {
        count += world->model.events[i].kind == kind;
    }
    return count;
}

/* The only event of a kind. */
static inline const struct viommu_event *world_event(const struct world *world,
                                                     enum viommu_event_kind kind)
{
    const struct viommu_event *event = NULL;

    assert_int_equal(world_events(world, kind), 1);
    for (unsigned i = 0; i < world->model.event_count; i++) {
        if (world->model.events[i].kind == kind) {
            event = &world->model.events[i];
        }
    }
    return event;
}

static inline void world_forget_events(struct world *world)
{
    world->model.event_count = 0;
}

#endif
