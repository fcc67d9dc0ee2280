/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of syncs: what is looked at, what differs, how it is counted and told, policies and quotas;
 * with tables of every shape: pages of all sizes, tables that are no memory, reserved bits.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

static int setup_stop(void **state)
{
    (void)state;
    return set_up(VIOMMU_REWRITE_STOP, 0);
}

/* Room for the nodes on the way to one block, and little else. */
static int setup_quota(void **state)
{
    (void)state;
    return set_up(VIOMMU_REWRITE_CONTINUE, 2 * 8192 + 4096 + 100);
}

/* ---- counts ---------------------------------------------------------------------------------- */

static void test_counts(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 4, BIG, RW);
    begin();
    world_sync(&world, 0x1000, 0x5fff);
    expect_counts(1, 0, 1, 4, 0, 0);
    world_sync(&world, 0x1000, 0x5fff);
    expect_counts(1, 4, 1, 0, 0, 0);
    world_unmap(&world, 0x1000, 1);
    world_map(&world, 0x2000, 1, BIG, RO);
    world_map(&world, 0x5000, 1, BIG, RO);
    world_sync(&world, 0x1000, 0x7fff);
    expect_counts(1, 2, 2, 1, 1, 1);
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 4, 508, 0, 0, 0);
    world_sync(&world, 0x2000, 0x2fff);
    expect_counts(1, 1, 0, 0, 0, 0);
    world_sync(&world, 0x0000, 0x0fff);
    expect_counts(1, 0, 1, 0, 0, 0);
    assert_int_equal(model_stats(&world.model).shadow_pages, 4);
}

/* Each form of a block: one stretch, a few pages, many; and parts of it are counted. */
static void test_counts_of_forms(void **state)
{
    (void)state;
    world_map(&world, 0, 512, BIG, RW);
    begin();
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 0, 0, 512, 0, 0);
    told("+0-1fffff>80000000rw");
    world_sync(&world, 0x3000, 0x12fff);
    expect_counts(1, 16, 0, 0, 0, 0);
    for (unsigned i = 0; i < 512; i += 2) {
        world_map(&world, i * PAGE, 1, BIG + SIZE_2M + i * PAGE, RW);
    }
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 256, 0, 0, 0, 256);
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 512, 0, 0, 0, 0);
    world_sync(&world, 0x3000, 0x12fff);
    expect_counts(1, 16, 0, 0, 0, 0);
    world_unmap(&world, 0x10000, 496); /* 8 and 8 are left */
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 16, 0, 0, 496, 0);
    world_sync(&world, 0xc000, 0x13fff);
    expect_counts(1, 4, 4, 0, 0, 0);
    world_unmap(&world, 0, 16);
    world_sync(&world, 0, SIZE_2M - 1);
    expect_counts(1, 0, 496, 0, 16, 0);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* A stretch of pages inside of what is looked at, and looked at in part. */
static void test_counts_of_a_stretch(void **state)
{
    (void)state;
    world_map(&world, 0x4000, 4, BIG, RW);
    sync();
    begin();
    world_sync(&world, 0x2000, 0x5fff);
    expect_counts(1, 2, 2, 0, 0, 0);
    world_sync(&world, 0x6000, 0x9fff);
    expect_counts(1, 2, 2, 0, 0, 0);
    world_sync(&world, 0x1000, 0x3fff);
    expect_counts(1, 0, 3, 0, 0, 0);
    world_sync(&world, 0x8000, 0x9fff);
    expect_counts(1, 0, 2, 0, 0, 0);
}

/* Nothing outside the range is looked at. */
static void test_only_what_was_asked_for(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 4, BIG, RW);
    begin();
    world_sync(&world, 0x2000, 0x2fff);
    told("+2000-2fff>80001000rw");
    world_sync(&world, 0x3abc, 0x3abc); /* a page that it meets */
    told("+3000-3fff>80002000rw");
    world_unmap(&world, 0x1000, 4);
    world_sync(&world, 0x3000, 0x3fff);
    told("-3000-3fff");
    world_sync(&world, 0x0, 0xfff);
    told("");
    sync();
    told("-2000-2fff");
}

/* Several ranges in one batch, that meet or do not. */
static void test_ranges_of_a_batch(void **state)
{
    struct wait waits[3];

    (void)state;
    world_map(&world, 0x1000, 8, BIG, RW);
    begin();
    waits[0] = world_ask(&world, DOMAIN, 0x1000, 0x1fff, CAUSE);
    waits[1] = world_ask(&world, DOMAIN, 0x2000, 0x2fff, CAUSE);
    waits[2] = world_ask(&world, DOMAIN, 0x6000, 0x6fff, CAUSE);
    world_process(&world);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(world_over(&world, &waits[i]));
    }
    told("+1000-2fff>80000000rw +6000-6fff>80005000rw");
    expect_counts(2, 0, 0, 3, 0, 0);
}

/* The widest cause of a batch is the one that is told and counted. */
static void test_causes(void **state)
{
    struct viommu_stats stats;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    begin();
    (void)world_ask(&world, DOMAIN, 0x1000, 0x1fff, VIOMMU_CAUSE_DOMAIN);
    (void)world_ask(&world, FOLLOW_ANY_DOMAIN, 0x1000, 0x1fff, VIOMMU_CAUSE_GLOBAL);
    (void)world_ask(&world, DOMAIN, 0x1000, 0x1fff, VIOMMU_CAUSE_PAGES);
    world_process(&world);
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_GLOBAL);
    told("+1000-1fff>80000000rw");
    stats = model_stats(&world.model);
    assert_int_equal(stats.pages_appeared[VIOMMU_CAUSE_GLOBAL], 1);
    world_unmap(&world, 0x1000, 1);
    sync();
    assert_int_equal(m->causes, 1u << VIOMMU_CAUSE_PAGES);
    told("-1000-1fff");
}

/* ---- large pages ----------------------------------------------------------------------------- */

static void test_2m(void **state)
{
    (void)state;
    world_map_at(&world, SIZE_2M, BIG + SIZE_2M, 1, RW);
    begin();
    world_sync(&world, SIZE_2M + 0x5000, SIZE_2M + 0x5fff); /* one entry: looked at as a whole */
    told("+200000-3fffff>80200000rw");
    expect_counts(1, 0, 0, 512, 0, 0);
    world_sync(&world, SIZE_2M + 0x5000, SIZE_2M + 0x5fff);
    told("");
    expect_counts(1, 512, 0, 0, 0, 0);
    world_map_at(&world, SIZE_2M, BIG + SIZE_2M, 1, RO);
    world_sync(&world, SIZE_2M, SIZE_2M + 0xfff);
    told("-200000-3fffff +200000-3fffff>80200000r");
    expect_counts(1, 0, 0, 0, 0, 512);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->last, 2 * SIZE_2M - 1);
    *world_entry(&world, SIZE_2M, 1) = 0;
    world_sync(&world, SIZE_2M + 0x8000, SIZE_2M + 0x8fff);
    told("-200000-3fffff");
    expect_counts(1, 0, 0, 0, 512, 0);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* A page that becomes a table of the same, and back: nothing is touched. */
static void test_2m_split_and_joined(void **state)
{
    uint64_t *entry = world_entry(&world, SIZE_2M, 1);
    uint64_t table;

    (void)state;
    world_map_at(&world, SIZE_2M, BIG + SIZE_2M, 1, RW);
    sync();
    *entry = 0;
    world_map(&world, SIZE_2M, 512, BIG + SIZE_2M, RW);
    table = *entry;
    begin();
    world_sync(&world, SIZE_2M, SIZE_2M + 0xfff);
    told("");
    expect_counts(1, 512, 0, 0, 0, 0); /* it was one, and is looked at as one */
    world_sync(&world, SIZE_2M, SIZE_2M + 0xfff);
    expect_counts(1, 1, 0, 0, 0, 0); /* but not any more */
    world_map_at(&world, SIZE_2M, BIG + SIZE_2M, 1, RW);
    sync();
    told("");
    *entry = table;
    world_unmap(&world, SIZE_2M + 0x4000, 1);
    world_sync(&world, SIZE_2M, SIZE_2M + 0xfff);
    told("-200000-3fffff +200000-203fff>80200000rw +205000-3fffff>80205000rw");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REWRITTEN), 0);
    assert_int_equal(model_stats(&world.model).pages_interrupted, 511);
}

/* Pages and a table that became one page later, partly with another target. */
static void test_2m_from_pages(void **state)
{
    uint64_t *entry = world_entry(&world, SIZE_2M, 1);

    (void)state;
    world_map(&world, SIZE_2M, 2, BIG + SIZE_2M, RW);
    world_map(&world, SIZE_2M + 0x2000, 1, BIG, RW);
    sync();
    *entry = 0;
    world_map_at(&world, SIZE_2M, BIG + SIZE_2M, 1, RW);
    begin();
    sync();
    told("-202000-202fff +202000-3fffff>80202000rw");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->first, SIZE_2M + 0x2000);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->last, SIZE_2M + 0x2fff);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->from_gpa, BIG);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_REWRITTEN)->to_gpa, BIG + SIZE_2M + 0x2000);
}

/* A page of 1 GiB or 2 MiB under levels that allow less. */
static void test_levels_allow(void **state)
{
    uint64_t *entry = world_entry(&world, SIZE_2M, 2);

    (void)state;
    world_map_at(&world, SIZE_2M, BIG, 1, RW);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x2000, 1, BIG, 2);
    *entry = (*entry & ~UINT64_C(3)) | RO;
    sync();
    told("+1000-1fff>80000000r +200000-3fffff>80000000r");
    *entry = (*entry & ~UINT64_C(3)) | 2;
    sync();
    told("-1000-1fff +1000-1fff>80000000w +2000-2fff>80000000w "
         "-200000-3fffff +200000-3fffff>80000000w");
    *entry &= ~UINT64_C(3);
    sync();
    told("-1000-1fff -2000-2fff -200000-3fffff");
}

/* ---- tables that cannot be used -------------------------------------------------------------- */

static void test_bad_entry(void **state)
{
    const struct viommu_event *event;

    (void)state;
    world_map(&world, 0x1000, 4, BIG, RW);
    sync();
    world_map(&world, 0x2000, 2, BIG + 0x1000, RW | MODEL_RESERVED);
    begin();
    sync();
    told("-1000-4fff +1000-1fff>80000000rw +4000-4fff>80003000rw");
    event = world_event(&world, VIOMMU_EVENT_BAD_ENTRY);
    assert_int_equal(event->first, 0x2000);
    assert_int_equal(event->last, 0x3fff);
    assert_int_equal(event->requester, ID);
    sync();
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 1); /* once */
    told("");
    world_map(&world, 0x2000, 1, BIG + 0x1000, RW);
    sync();
    told("+2000-2fff>80001000rw");
    world_map(&world, 0x2000, 1, BIG + 0x1000, RW | MODEL_RESERVED);
    sync();
    told("-2000-2fff");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 2);
}

/* A reserved bit of an entry that allows nothing does not count. */
static void test_reserved_but_absent(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, MODEL_RESERVED);
    *world_entry(&world, SIZE_2M, 1) = MODEL_RESERVED;
    begin();
    sync();
    told("");
    world_map(&world, 0x3000, 1, BIG, RW); /* something else changes there */
    sync();
    told("+3000-3fff>80000000rw");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 0);
}

/* A table, or a large page, with reserved bits: all below is gone, and that is told once. */
static void test_bad_table(void **state)
{
    uint64_t *entry = world_entry(&world, 0, 1);
    uint64_t good;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map_at(&world, SIZE_2M, BIG, 1, RW);
    sync();
    good = *entry;
    *entry |= MODEL_RESERVED;
    begin();
    sync();
    told("-1000-1fff");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_BAD_ENTRY)->first, 0);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_BAD_ENTRY)->last, SIZE_2M - 1);
    assert_true(model_stats(&world.model).shadow_bytes < 2 * 8192 + 100); /* one mark */
    sync();
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 1);
    *entry = good;
    world_map_at(&world, SIZE_2M, BIG + 0x1000, 1, RW); /* not aligned */
    sync();
    told("+1000-1fff>80000000rw -200000-3fffff");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 2);
}

/* A table that is no memory: at each level, and the root. */
static void test_unreadable_tables(void **state)
{
    uint64_t outside = UINT64_C(0x7f00000000) | RW;

    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, SIZE_1G, 1, BIG, RW);
    sync();
    begin();
    *world_entry(&world, 0, 1) = outside;
    sync();
    told("-1000-1fff");
    *world_entry(&world, SIZE_1G, 2) = outside;
    sync();
    told("-40000000-40000fff");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 2);
    sync();
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 2);
    world.model.view.root = 0x7f00000000;
    (void)world_ask_review(&world, VIOMMU_CAUSE_CONTEXT);
    world_process(&world);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_BAD_ENTRY), 3);
    told("");
}

/* Tables that lead to themselves say a lot: more than the quota. */
static void test_tables_in_a_circle(void **state)
{
    uint64_t *root = (uint64_t *)(world.model.ram + world.tables.root);

    (void)state;
    for (unsigned i = 0; i < 512; i++) {
        root[i] = world.tables.root | RW;
    }
    sync();
    assert_true(mirror_status(m).fenced);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_QUOTA), 1);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 0);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* One sync looks at as many tables as memory has pages, and 2^20; another one at so many again. */
static void test_tables_of_a_sync(void **state)
{
    uint64_t most = (1u << 20) + (SIZE_1G + MODEL_RAM) / PAGE;

    (void)state;
    world_map(&world, 0, 1, BIG, RW);
    world_map(&world, SIZE_2M, 1, BIG, RW);
    sync();
    told("+0-fff>80000000rw +200000-200fff>80000000rw");
    world_follow(&world)->shadows->tables = most;
    sync();
    assert_false(mirror_status(m).fenced);
    assert_int_equal(world_follow(&world)->shadows->tables, 2);
    for (unsigned i = 0; i < 2; i++) {
        assert_false(mirror_status(m).fenced);
        (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, CAUSE);
        while (!world_follow(&world)->syncing) {
            assert_int_equal(viommu_process(&world.model.iommu, 1), VIOMMU_PENDING);
        }
        world_follow(&world)->shadows->tables = most - 1 + i; /* and there is one more */
        world_process(&world);
    }
    assert_true(mirror_status(m).fenced);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_QUOTA)->first, SIZE_2M);
}

/* ---- what is not mapped ---------------------------------------------------------------------- */

static void test_not_mapped(void **state)
{
    const struct viommu_event *event;

    (void)state;
    world_add(&world, 0x200000000, 0x200003fff, VIOMMU_MEMORY_READONLY);
    world_process(&world);
    begin();
    world_map(&world, 0x1000, 4, 0x1ffffe000, RW); /* two before memory, two of ROM */
    sync();
    told("+3000-4fff>200000000r");
    assert_int_equal(world_events(&world, VIOMMU_EVENT_NOT_MAPPED), 2);
    event = &world.model.events[0];
    assert_int_equal(event->kind, VIOMMU_EVENT_NOT_MAPPED);
    assert_int_equal(event->first, 0x1000);
    assert_int_equal(event->last, 0x2fff);
    assert_int_equal(event->to_gpa, 0x1ffffe000);
    assert_int_equal(event->to_perm, RW);
    event = &world.model.events[1];
    assert_int_equal(event->first, 0x3000);
    assert_int_equal(event->last, 0x4fff);
    assert_int_equal(event->to_gpa, 0x200000000);
    world_forget_events(&world);
    sync();
    assert_int_equal(world.model.event_count, 0);
    world_map(&world, 0x5000, 1, 0x200002000, RO); /* ROM that is only read is all right */
    world_map(&world, 0x6000, 2, 0x200003000, RO); /* up to its end, and past it */
    sync();
    event = world_event(&world, VIOMMU_EVENT_NOT_MAPPED);
    assert_int_equal(event->first, 0x7000);
    assert_int_equal(event->last, 0x7fff);
    assert_int_equal(event->to_gpa, 0x200004000);
}

/* The sentence of one stretch is not that of the one before it. */
static void test_not_mapped_texts(void **state)
{
    (void)state;
    world_add(&world, 0x200000000, 0x200000fff, VIOMMU_MEMORY_READONLY);
    world_process(&world);
    begin();
    world_map(&world, 0x1000, 3, 0x1fffff000, RW);
    sync();
    assert_int_equal(world.model.event_count, 3);
    assert_non_null(strstr(world.model.events[1].text, "read-only"));
    assert_string_equal(world.model.events[0].text, world.model.events[2].text);
    assert_string_not_equal(world.model.events[0].text, world.model.events[1].text);
}

/* ---- rewritten entries ----------------------------------------------------------------------- */

static void test_rewritten(void **state)
{
    const struct viommu_event *event;

    (void)state;
    world_map(&world, 0x1000, 4, BIG, RW);
    sync();
    begin();
    world_map(&world, 0x2000, 2, BIG + 0x10000, RO);
    sync();
    event = world_event(&world, VIOMMU_EVENT_REWRITTEN);
    assert_int_equal(event->first, 0x2000);
    assert_int_equal(event->last, 0x3fff);
    assert_int_equal(event->from_gpa, BIG + 0x1000);
    assert_int_equal(event->from_perm, RW);
    assert_int_equal(event->to_gpa, BIG + 0x10000);
    assert_int_equal(event->to_perm, RO);
    assert_int_equal(event->requester, ID);
    expect_counts(model_stats(&world.model).tables_compared[CAUSE] -
                      counted.tables_compared[CAUSE],
                  2, model_stats(&world.model).pages_absent[CAUSE] - counted.pages_absent[CAUSE],
                  0, 0, 2);
    world_forget_events(&world);
    world_unmap(&world, 0x2000, 1);
    sync();
    world_map(&world, 0x2000, 1, BIG + 0x50000, RW); /* gone in between */
    sync();
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REWRITTEN), 0);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_STOP), 0);
}

/* What led to different places and leads to one stretch is told apart. */
static void test_rewritten_stretches(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG + 0x10000, RW);
    world_map(&world, 0x2000, 1, BIG + 0x20000, RW);
    world_map(&world, 0x3000, 1, BIG + 0x21000, RW);
    sync();
    begin();
    world_map(&world, 0x1000, 3, BIG, RW);
    sync();
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REWRITTEN), 2);
    assert_int_equal(world.model.events[0].last, 0x1fff);
    assert_int_equal(world.model.events[1].first, 0x2000);
    assert_int_equal(world.model.events[1].last, 0x3fff);
}

static void test_policy_fence(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
    begin();
    world_map(&world, 0x2000, 1, BIG + 0x9000, RW);
    sync();
    told("!");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -EPERM);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 1);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REWRITTEN), 1);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    told("+1000-1fff>80000000rw +2000-2fff>80009000rw +3000-3fff>80000000rw");
}

static void test_policy_stop(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    begin();
    world_map(&world, 0x1000, 1, BIG + 0x9000, RW);
    sync();
    told("-1000-1fff +1000-1fff>80009000rw");
    assert_int_equal(world_event(&world, VIOMMU_EVENT_STOP)->first, 0);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_STOP)->last, SIZE_2M - 1);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_REWRITTEN), 1);
}

/* ---- quota and memory ------------------------------------------------------------------------ */

static void test_quota(void **state)
{
    const struct viommu_event *event;

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        world_map(&world, i * 2 * PAGE, 1, BIG + i * PAGE, RW);
    }
    world_map(&world, SIZE_1G, 1, BIG, RW);
    world_map(&world, 2 * SIZE_1G, 1, BIG, RW);
    sync();
    event = world_event(&world, VIOMMU_EVENT_QUOTA);
    assert_int_equal(event->error, -EDQUOT);
    assert_int_equal(event->requester, ID);
    assert_int_equal(world_event(&world, VIOMMU_EVENT_FENCED)->error, -EDQUOT);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_DENIED), 0); /* fenced only */
    assert_int_equal(m->fences, 1);
    assert_true(mirror_status(m).fenced);
    assert_int_equal(model_stats(&world.model).shadow_bytes, 0);
}

/* 1 % of memory and 16 MiB, unless something else is said. */
static void test_quota_by_default(void **state)
{
    (void)state;
    assert_int_equal(follow_quota(&world.model.iommu),
                     (SIZE_1G + MODEL_RAM) / 100 + (16 << 20));
    world.model.iommu.follow.quota = 5;
    assert_int_equal(follow_quota(&world.model.iommu), 5);
}

/* Every allocation of a sync fails once: the mirror is fenced, or all is as it should be. */
static void test_no_memory(void **state)
{
    bool failed = true;
    unsigned fences = 0;

    (void)state;
    for (unsigned long n = 1; failed; n++) {
        world_map(&world, 0x1000, 100, BIG + n * PAGE, RW);
        for (unsigned i = 0; i < 20; i++) {
            world_map(&world, SIZE_1G + 2 * i * PAGE, 1, BIG + n * PAGE, RW);
        }
        base_alloc_fail_at(n);
        sync();
        failed = base_alloc_failed();
        base_alloc_fail_at(0);
        if (mirror_status(m).fenced) {
            fences++;
            assert_int_equal(viommu_device_reset(m->device), 0);
            world_process(&world);
        }
        assert_int_equal(m->mapped_count, 21);
        world_unmap(&world, 0x1000, 100);
        for (unsigned i = 0; i < 20; i++) {
            world_unmap(&world, SIZE_1G + 2 * i * PAGE, 1);
        }
        sync();
        assert_int_equal(m->mapped_count, 0);
        mirror_told(m, m->told);
    }
    assert_true(fences >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counts_of_forms, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_was_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ranges_of_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_causes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_2m, setup, teardown),
        cmocka_unit_test_setup_teardown(test_2m_split_and_joined, setup, teardown),
        cmocka_unit_test_setup_teardown(test_2m_from_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_counts_of_a_stretch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rewritten_stretches, setup, teardown),
        cmocka_unit_test_setup_teardown(test_levels_allow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_entry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reserved_but_absent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_table, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables_in_a_circle, setup_quota, teardown),
        cmocka_unit_test_setup_teardown(test_tables_of_a_sync, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_mapped_texts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rewritten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policy_fence, setup_fence, teardown),
        cmocka_unit_test_setup_teardown(test_policy_stop, setup_stop, teardown),
        cmocka_unit_test_setup_teardown(test_quota, setup_quota, teardown),
        cmocka_unit_test_setup_teardown(test_quota_by_default, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
