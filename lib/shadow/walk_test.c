/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of walks: exactly which mappings go and which come when a mirror's layout changes, in which
 * order, and what is counted of it.
 */
#include "shadow/test_fixture.h"

#include <errno.h>

/* The mirror follows, with what was changed of it, and is told this of tables without a page. */
static int begin_to_follow(const char *expected)
{
    assert_int_equal(mirror_subscribe(m), 0);
    world_process(&world);
    told(expected);
    return 0;
}

static int setup_replace(void **state)
{
    (void)setup_unsubscribed(state);
    m->what.kinds |= VIOMMU_CHANGE_REPLACE;
    return begin_to_follow("");
}

static int setup_skipped(void **state)
{
    (void)setup_unsubscribed(state);
    m->what.kinds |= VIOMMU_CHANGE_SKIPPED;
    return begin_to_follow("~0-ffffffffffffffff");
}

static int setup_spans(void **state)
{
    (void)setup_unsubscribed(state);
    m->what.unmap_spans = true;
    return begin_to_follow("");
}

static int setup_pow2(void **state)
{
    (void)setup_unsubscribed(state);
    m->what.form = VIOMMU_FORM_POW2;
    return begin_to_follow("");
}

static void test_nothing(void **state)
{
    (void)state;
    told("");
    sync();
    told("");
    assert_int_equal(stats().windows, 0);
    assert_int_equal(stats().calls_map + stats().calls_unmap, 0);
}

static void test_appear_and_go(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 3, BIG, RW);
    world_map(&world, 0x5000, 1, BIG + 0x10000, RO);
    sync();
    told("+1000-3fff>80000000rw +5000-5fff>80010000r");
    sync();
    told("");
    world_unmap(&world, 0x1000, 3);
    sync();
    told("-1000-3fff");
    world_unmap(&world, 0x5000, 1);
    world_map(&world, 0x7000, 1, BIG, 2);
    sync();
    told("-5000-5fff +7000-7fff>80000000w");
    assert_int_equal(stats().windows, 0); /* nothing was away that came back */
    assert_int_equal(stats().pages_interrupted, 0);
    assert_int_equal(stats().calls_map, 3);
    assert_int_equal(stats().calls_unmap, 2);
    assert_int_equal(stats().calls_replace, 0);
}

/* What follows a mapping without a gap is another one: nothing is touched for it. */
static void test_neighbours(void **state)
{
    (void)state;
    world_map(&world, 0x2000, 1, BIG + 0x2000, RW);
    sync();
    told("+2000-2fff>80002000rw");
    world_map(&world, 0x1000, 1, BIG + 0x1000, RW);
    world_map(&world, 0x3000, 2, BIG + 0x3000, RW);
    sync();
    told("+1000-1fff>80001000rw +3000-4fff>80003000rw");
    world_unmap(&world, 0x2000, 1);
    sync();
    told("-2000-2fff");
    assert_int_equal(stats().pages_interrupted, 0);
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
}

/* A mapping is taken away whole; the rest of it comes back. */
static void test_middle_goes(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 5, BIG, RW);
    sync();
    told("+1000-5fff>80000000rw");
    world_unmap(&world, 0x3000, 1);
    sync();
    told("-1000-5fff +1000-2fff>80000000rw +4000-5fff>80003000rw");
    assert_int_equal(stats().pages_interrupted, 4);
    assert_int_equal(stats().windows, 1);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-2fff +2000-2fff>80001000rw");
    assert_int_equal(stats().pages_interrupted, 5);
    assert_int_equal(stats().windows, 2);
}

static void test_rewritten(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 3, BIG, RW);
    sync();
    told("+1000-3fff>80000000rw");
    world_map(&world, 0x2000, 1, BIG + 0x50000, RW);
    sync();
    told("-1000-3fff +1000-1fff>80000000rw +2000-2fff>80050000rw +3000-3fff>80002000rw");
    assert_int_equal(stats().pages_interrupted, 2);
    world_map(&world, 0x2000, 1, BIG + 0x50000, RO);
    sync();
    told("-2000-2fff +2000-2fff>80050000r");
    assert_int_equal(stats().pages_interrupted, 2);
    assert_int_equal(stats().windows, 2);
}

static void advance(struct test_mirror *mirror, const struct viommu_change *change)
{
    (void)change;
    world.model.now += mirror->last.kind == VIOMMU_CHANGE_UNMAP ? 1000 : 10;
}

/* How long something was away: from the first UNMAP of a cluster to its end. */
static void test_windows(void **state)
{
    (void)state;
    world.model.now = 1001;
    m->inside = advance;
    world_map(&world, 0x1000, 2, BIG, RW);
    world_map(&world, 0x8000, 2, BIG + 0x10000, RW);
    sync();
    assert_int_equal(stats().windows, 0);
    world_unmap(&world, 0x1000, 1);
    world_map(&world, 0x8000, 1, BIG, RO);
    world.model.now = 2001;
    sync();
    told("+1000-2fff>80000000rw +8000-9fff>80010000rw "
         "-1000-2fff +2000-2fff>80001000rw "
         "-8000-9fff +8000-8fff>80000000r +9000-9fff>80011000rw");
    assert_int_equal(stats().windows, 2);
    assert_int_equal(stats().window_ns, 1010 + 1020);
    assert_int_equal(stats().window_ns_max, 1020);
    assert_int_equal(stats().pages_interrupted, 2);
    world_unmap(&world, 0x9000, 1);
    sync();
    assert_int_equal(stats().windows, 2); /* nothing comes there */
    world_map(&world, 0x8000, 1, BIG, RW);
    sync();
    assert_int_equal(stats().windows, 3);
    assert_int_equal(stats().window_ns, 1010 + 1020 + 1010);
    assert_int_equal(stats().window_ns_max, 1020);
}

/* Two that become one are away from the first UNMAP on. */
static void test_window_of_two(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        world_map(&world, 0x1000 + i * PAGE, 1, BIG + i * PAGE, RW);
        sync();
    }
    m->inside = advance;
    world.model.now = 3001;
    world_map(&world, 0x1000, 2, BIG + 0x8000, RW);
    sync();
    assert_int_equal(stats().windows, 1);
    assert_int_equal(stats().window_ns, 2010);
    assert_int_equal(stats().window_ns_max, 2010);
}

/* ---- REPLACE --------------------------------------------------------------------------------- */

static void test_replace(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    world_map(&world, 0x4000, 1, BIG, RW);
    sync();
    told("+1000-2fff>80000000rw +4000-4fff>80000000rw");
    world_map(&world, 0x1000, 2, BIG + 0x10000, RW);
    world_map(&world, 0x4000, 1, BIG, RO);
    sync();
    told("=1000-2fff>80010000rw =4000-4fff>80000000r");
    assert_int_equal(stats().calls_replace, 2);
    assert_int_equal(stats().windows, 0);
    assert_int_equal(stats().pages_interrupted, 0);
    assert_int_equal(m->subscriber->mirror->mappings, 2);
}

/* Only where one mapping becomes one other in the same place. */
static void test_replace_does_not_fit(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    world_map(&world, 0x1000, 1, BIG + 0x10000, RW);
    sync();
    told("+1000-2fff>80000000rw "
         "-1000-2fff +1000-1fff>80010000rw +2000-2fff>80001000rw");
    /* two mappings become one */
    world_map(&world, 0x1000, 2, BIG + 0x20000, RW);
    sync();
    told("-1000-1fff -2000-2fff +1000-2fff>80020000rw");
    /* or none */
    world_unmap(&world, 0x1000, 2);
    sync();
    told("-1000-2fff");
    assert_int_equal(stats().calls_replace, 0);
}

/* One that is not wanted is not made. */
static void test_replace_not_asked_for(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    world_map(&world, 0x1000, 1, BIG, RO);
    sync();
    told("+1000-1fff>80000000rw -1000-1fff +1000-1fff>80000000r");
}

/* Of what is missing there is nothing to replace. */
static void test_replace_of_missing(void **state)
{
    (void)state;
    mirror_answers(m, 1, -EBUSY, false, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    told("+1000-1fff>80000000rw?");
    world_map(&world, 0x1000, 1, BIG + 0x1000, RW);
    sync();
    told("+1000-1fff>80001000rw");
    assert_int_equal(mirror_status(m).differences, 0);
    assert_int_equal(stats().windows, 0);
}

/* What is missing elsewhere is no concern of this one; and what was missing was not there. */
static void test_missing_elsewhere(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x8000, 4, BIG, RW);
    world_sync(&world, 0x8000, 0xbfff);
    world_map(&world, 0x1000, 1, BIG + 0x1000, RW);
    world_sync(&world, 0x1000, 0x1fff);
    told("+1000-1fff>80000000rw +8000-bfff>80000000rw? =1000-1fff>80001000rw");
    world_unmap(&world, 0x8000, 1);
    mirror_answers(m, 0, 0, false, 0);
    world_sync(&world, 0x8000, 0x8fff);
    told("+9000-bfff>80001000rw");
    assert_int_equal(stats().pages_interrupted, 0);
    assert_int_equal(stats().windows, 0);
}

/* ---- several at once ------------------------------------------------------------------------- */

/* Four mappings side by side, each from a sync of its own. */
static void map_in_steps(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_map(&world, 0x1000 + i * PAGE, 1, BIG + i * PAGE, RW);
        sync();
    }
    mirror_told(m, m->told);
    assert_int_equal(m->mapped_count, count);
}

static void test_spans(void **state)
{
    (void)state;
    map_in_steps(4);
    world_unmap(&world, 0x1000, 4);
    sync();
    told("-1000-4fff");
    assert_int_equal(stats().calls_unmap, 1);
    assert_int_equal(stats().pages_gone[VIOMMU_CAUSE_PAGES], 4);
    assert_int_equal(stats().pages_interrupted, 0);
    assert_int_equal(mirror_status(m).mappings, 0);
    map_in_steps(4);
    world_unmap(&world, 0x1000, 1);
    world_unmap(&world, 0x3000, 2);
    sync();
    told("-1000-1fff -3000-4fff"); /* one stays between them */
    assert_int_equal(mirror_status(m).mappings, 1);
}

/* A gap ends a span, and so does one of another extent that stays. */
static void test_spans_end(void **state)
{
    (void)state;
    map_in_steps(2);
    world_map(&world, 0x4000, 1, BIG, RW);
    sync();
    told("+4000-4fff>80000000rw");
    world_unmap(&world, 0x1000, 4);
    sync();
    told("-1000-2fff -4000-4fff");
}

/* What goes and comes again has a cluster of its own: it is not away while others go. */
static void test_spans_and_what_comes_again(void **state)
{
    (void)state;
    map_in_steps(4);
    world_unmap(&world, 0x1000, 2);
    world_map(&world, 0x3000, 1, BIG + 0x9000, RW);
    world_unmap(&world, 0x4000, 1);
    sync();
    told("-1000-2fff -3000-3fff +3000-3fff>80009000rw -4000-4fff");
}

/* Mappings that become one go with one call. */
static void test_spans_become_one(void **state)
{
    (void)state;
    map_in_steps(3);
    world_map(&world, 0x1000, 3, BIG + 0x40000, RW);
    sync();
    told("-1000-3fff +1000-3fff>80040000rw");
    assert_int_equal(mirror_status(m).mappings, 1);
    assert_int_equal(stats().windows, 1);
}

/* What is missing is in no span: nothing is there to be unmapped. */
static void test_spans_without_missing(void **state)
{
    (void)state;
    mirror_answers(m, 2, -ENOSPC, false, VIOMMU_CHANGE_MAP);
    for (unsigned i = 0; i < 4; i++) {
        world_map(&world, 0x1000 + i * PAGE, 1, BIG + i * PAGE, RW);
        world_sync(&world, 0x1000 + i * PAGE, 0x1fff + i * PAGE);
    }
    assert_int_equal(mirror_status(m).differences, 1);
    mirror_told(m, m->told);
    world_unmap(&world, 0x1000, 4);
    sync();
    told("-1000-1fff -3000-4fff");
    assert_int_equal(mirror_status(m).differences, 0);
    assert_int_equal(world_events(&world, VIOMMU_EVENT_FOLLOWS), 1);
}

/* Without leave each mapping goes by itself, and so do blocks of a power of two. */
static void test_no_spans(void **state)
{
    (void)state;
    map_in_steps(3);
    world_unmap(&world, 0x1000, 3);
    sync();
    told("-1000-1fff -2000-2fff -3000-3fff");
}

static void test_spans_need_ranges(void **state)
{
    (void)state;
    m->subscriber->what.unmap_spans = true; /* it has no meaning here */
    map_in_steps(2);
    world_unmap(&world, 0x1000, 2);
    sync();
    told("-1000-1fff -2000-2fff");
}

/* ---- SKIPPED --------------------------------------------------------------------------------- */

static void test_skipped(void **state)
{
    (void)state;
    world_map(&world, 0x2000, 2, BIG, RW);
    world_map(&world, 0x6000, 1, BIG, RO);
    world_sync(&world, 0x2000, 0x2fff);
    mirror_told(m, m->told);
    world_sync(&world, 0x1000, 0x7fff);
    mirror_told(m, m->told);
    world_sync(&world, 0x1000, 0x7fff);
    told("~1000-1fff ~2000-2fff>80000000rw ~3000-3fff>80001000rw ~4000-5fff "
         "~6000-6fff>80000000r ~7000-7fff");
    world_sync(&world, 0x2000, 0x2fff);
    told("~2000-2fff>80000000rw");
    world_unmap(&world, 0x2000, 1);
    world_sync(&world, 0x1000, 0x4fff);
    told("~1000-1fff -2000-2fff ~3000-3fff>80001000rw ~4000-4fff");
    assert_int_equal(stats().calls_unmap, 1);
    assert_int_equal(stats().calls_map, 3);
}

/* Only what was looked at, and what the mirror holds. */
static void test_skipped_parts(void **state)
{
    (void)state;
    world_map(&world, 0x2000, 4, BIG, RW);
    sync();
    mirror_told(m, m->told);
    world_sync(&world, 0x3000, 0x4fff);
    told("~3000-4fff>80001000rw");
    mirror_answers(m, 1, -EBUSY, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x8000, 1, BIG, RW);
    world_sync(&world, 0x8000, 0x8fff);
    told("+8000-8fff>80000000rw?");
    world_sync(&world, 0x7000, 0x9fff);
    told("~7000-7fff ~9000-9fff +8000-8fff>80000000rw?");
}

/* ---- POW2 ------------------------------------------------------------------------------------ */

static void test_blocks(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 4, BIG + 0x1000, RW);
    sync();
    told("+1000-1fff>80001000rw +2000-3fff>80002000rw +4000-4fff>80004000rw");
    assert_int_equal(mirror_status(m).mappings, 3);
    world_unmap(&world, 0x4000, 1);
    sync();
    told("-1000-1fff -2000-3fff -4000-4fff +1000-1fff>80001000rw +2000-3fff>80002000rw");
    world_unmap(&world, 0x1000, 3);
    sync();
    told("-1000-1fff -2000-3fff");
    world_map(&world, 0x2000, 2, BIG + 0x1000, RW); /* aligned in one of both only */
    sync();
    told("+2000-2fff>80001000rw +3000-3fff>80002000rw");
}

/* Each block is missing by itself. */
static void test_blocks_missing(void **state)
{
    (void)state;
    mirror_answers(m, 2, -ENOSPC, false, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 4, BIG + 0x1000, RW);
    world_sync(&world, 0x1000, 0x4fff);
    assert_int_equal(mirror_status(m).mappings, 2);
    assert_int_equal(mirror_status(m).differences, 1);
    mirror_told(m, m->told);
    world_unmap(&world, 0x1000, 4);
    sync();
    told("-1000-1fff -4000-4fff");
    assert_int_equal(mirror_status(m).differences, 0);
}

/* ---- views ----------------------------------------------------------------------------------- */

static void show(struct shadow_view view)
{
    world_show(&world, view);
    world_process(&world);
}

static void test_views(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    told("+1000-2fff>80000000rw");
    show((struct shadow_view){0});
    told("-1000-2fff");
    show(world_identity());
    told("+0-3ffff>0rw +80000000-bfffffff>80000000rw");
    show(world.tables);
    told("-0-3ffff +1000-2fff>80000000rw -80000000-bfffffff");
}

/* What leads where it led stays: odd mappings, and they are pieces again later. */
static void test_odd(void **state)
{
    uint64_t at = BIG + 0x10000;

    (void)state;
    world_map(&world, at, 2, at, RW);             /* one to one */
    world_map(&world, at + 0x4000, 1, at, RW);    /* not */
    world_map(&world, at + 0x6000, 1, at + 0x6000, RO);
    sync();
    told("+80010000-80011fff>80010000rw +80014000-80014fff>80010000rw "
         "+80016000-80016fff>80016000r");
    show(world_identity());
    told("+0-3ffff>0rw -80014000-80014fff -80016000-80016fff "
         "+80000000-8000ffff>80000000rw +80012000-bfffffff>80012000rw");
    assert_int_equal(m->subscriber->mirror->odd.count, 1);
    show(world_identity());
    told("");
    show(world.tables);
    told("-0-3ffff -80000000-8000ffff -80012000-bfffffff "
         "+80014000-80014fff>80010000rw +80016000-80016fff>80016000r");
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
}

/* Without memory to remember what is odd, nothing is kept there. */
static void test_no_memory_for_odd(void **state)
{
    uint64_t at = BIG + 0x10000;

    (void)state;
    world_map(&world, at, 2, at, RW);
    sync();
    told("+80010000-80011fff>80010000rw");
    base_alloc_fail_at(1);
    show(world_identity());
    assert_true(base_alloc_failed());
    told("+0-3ffff>0rw -80010000-80011fff +80000000-bfffffff>80000000rw");
    assert_int_equal(stats().pages_interrupted, 2);
    assert_int_equal(stats().windows, 1);
    show(world.tables);
    told("-0-3ffff -80000000-bfffffff +80010000-80011fff>80010000rw");
}

/* That is so for one cluster; the next one has memory again. */
static void test_no_memory_once(void **state)
{
    (void)state;
    world_map(&world, 0x20000, 1, 0x20000, RW);
    world_map(&world, BIG, 2, BIG, RW);
    sync();
    mirror_told(m, m->told);
    base_alloc_fail_at(1);
    show(world_identity());
    told("-20000-20fff +0-3ffff>0rw +80002000-bfffffff>80002000rw");
    assert_int_equal(m->subscriber->mirror->odd.count, 1);
}

/* Many extents without memory in one cluster: they are passed over in several steps. */
static void test_many_without_memory(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        world_map(&world, BIG + (2 + 2 * i) * PAGE, 1, 0x7000000000 + 2 * i * PAGE, RW);
    }
    world_map(&world, BIG, 1, BIG + 0x5000, RW);
    world_map(&world, BIG + 500 * PAGE, 1, BIG + 500 * PAGE, RW);
    sync();
    told("+80000000-80000fff>80005000rw +801f4000-801f4fff>801f4000rw");
    show(world_identity());
    told("+0-3ffff>0rw -80000000-80000fff +80000000-801f3fff>80000000rw "
         "+801f5000-bfffffff>801f5000rw");
    show(world.tables);
    told("-0-3ffff -80000000-801f3fff +80000000-80000fff>80005000rw -801f5000-bfffffff");
}

static struct shadow_view other;

/* Changes to the other tables and back. */
static void swap_tables(void)
{
    struct shadow_view tables = world.tables;

    world.tables = other;
    other = tables;
}

/* Tables that say more of the same: what is there is kept, though it would be one mapping now. */
static void test_odd_in_tables(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    told("+1000-2fff>80000000rw");
    other = world_tables(&world);
    swap_tables();
    world_map(&world, 0x1000, 4, BIG, RW);
    show(world.tables);
    told("+3000-4fff>80002000rw");
    assert_int_equal(m->subscriber->mirror->odd.count, 1);
    sync();
    told("");
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-2fff +2000-2fff>80001000rw");
    assert_int_equal(stats().pages_interrupted, 1);
    swap_tables();
    show(world.tables);
    told("+1000-1fff>80000000rw -3000-4fff");
    assert_int_equal(m->subscriber->mirror->odd.count, 1);
}

/* One that is a piece again is odd no more, though nothing is told. */
static void test_odd_is_a_piece_again(void **state)
{
    (void)state;
    world_map(&world, 0x1000, 2, BIG, RW);
    sync();
    other = world_tables(&world);
    swap_tables();
    world_map(&world, 0x1000, 4, BIG, RW);
    show(world.tables);
    swap_tables();
    show(world.tables);
    told("+1000-2fff>80000000rw +3000-4fff>80002000rw -3000-4fff");
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
    sync();
    told("");
}

/* All that was odd goes with the rest. */
static void test_odd_goes(void **state)
{
    uint64_t at = BIG + 0x10000;

    (void)state;
    world_map(&world, at, 1, at, RW);
    world_map(&world, at + 0x2000, 1, at + 0x2000, RW);
    show(world_identity());
    world_process(&world);
    mirror_told(m, m->told);
    show((struct shadow_view){0});
    told("-0-3ffff -80000000-bfffffff");
    show(world.tables);
    show(world_identity());
    mirror_told(m, m->told);
    show((struct shadow_view){0});
    told("-0-3ffff -80000000-8000ffff -80010000-80010fff -80011000-80011fff "
         "-80012000-80012fff -80013000-bfffffff");
}

/* With leave to span, a call takes what follows without a gap, odd or not. */
static void test_odd_spans(void **state)
{
    uint64_t at = BIG + 0x10000;

    (void)state;
    world_map(&world, at, 1, at, RW);
    world_map(&world, at + 0x2000, 1, at + 0x2000, RW);
    sync();
    show(world_identity());
    assert_int_equal(mirror_status(m).mappings, 6);
    mirror_told(m, m->told);
    world_unmap(&world, at + 0x2000, 1);
    show(world.tables);
    told("-0-3ffff -80000000-8000ffff -80011000-bfffffff");
    assert_int_equal(mirror_status(m).mappings, 1);
}

/* ---- near the limit -------------------------------------------------------------------------- */

/* Of 8 mappings 6 are three quarters: with the seventh, those that touch become one. */
static void test_crowded(void **state)
{
    (void)state;
    m->subscriber->what.mappings_max = 8;
    map_in_steps(7);
    world_map(&world, 0x10000, 1, BIG, RW);
    world_sync(&world, 0x10000, 0x10fff);
    told("+10000-10fff>80000000rw"); /* touches none */
    world_unmap(&world, 0x10000, 1);
    sync();
    told("-10000-10fff");
    world_map(&world, 0x8000, 1, BIG + 0x7000, RW);
    sync();
    told("-1000-1fff -2000-2fff -3000-3fff -4000-4fff -5000-5fff -6000-6fff -7000-7fff "
         "+1000-8fff>80000000rw");
    assert_int_equal(stats().pages_interrupted, 7);
    assert_int_equal(mirror_status(m).mappings, 1);
    world_map(&world, 0x9000, 1, BIG + 0x8000, RW);
    sync();
    told("+9000-9fff>80008000rw"); /* there is room again */
}

/* What lies between two changes is as far from them as anything else. */
static void test_crowded_between(void **state)
{
    (void)state;
    m->subscriber->what.mappings_max = 9;
    map_in_steps(7);
    world_map(&world, 0, 1, BIG + 0x50000, RW);
    world_map(&world, 0x10000, 1, BIG, RW);
    sync();
    told("+0-fff>80050000rw +10000-10fff>80000000rw");
    assert_int_equal(m->subscriber->mirror->odd.count, 0);
}

/* Below three quarters, and without a limit, nothing grows. */
static void test_not_crowded(void **state)
{
    (void)state;
    m->subscriber->what.mappings_max = 8;
    map_in_steps(6);
    world_map(&world, 0x7000, 1, BIG + 0x6000, RW);
    sync();
    told("+7000-7fff>80006000rw");
}

/* A switch of views is no time to grow: all would be away. */
static void test_crowded_switch(void **state)
{
    uint64_t at = BIG + 0x10000;

    (void)state;
    m->subscriber->what.mappings_max = 4;
    for (unsigned i = 0; i < 4; i++) {
        world_map(&world, at + i * PAGE, 1, at + i * PAGE, RW);
        sync();
    }
    assert_int_equal(mirror_status(m).mappings, 4);
    show(world_identity());
    assert_int_equal(m->subscriber->mirror->odd.count, 4);
    assert_int_equal(stats().calls_unmap, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_appear_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_neighbours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_middle_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rewritten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_window_of_two, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace, setup_replace, teardown),
        cmocka_unit_test_setup_teardown(test_missing_elsewhere, setup_replace, teardown),
        cmocka_unit_test_setup_teardown(test_skipped_parts, setup_skipped, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_without_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crowded_between, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace_does_not_fit, setup_replace, teardown),
        cmocka_unit_test_setup_teardown(test_replace_not_asked_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_replace_of_missing, setup_replace, teardown),
        cmocka_unit_test_setup_teardown(test_spans, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_spans_end, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_spans_and_what_comes_again, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_spans_become_one, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_spans_without_missing, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_no_spans, setup, teardown),
        cmocka_unit_test_setup_teardown(test_spans_need_ranges, setup_pow2, teardown),
        cmocka_unit_test_setup_teardown(test_skipped, setup_skipped, teardown),
        cmocka_unit_test_setup_teardown(test_blocks, setup_pow2, teardown),
        cmocka_unit_test_setup_teardown(test_blocks_missing, setup_pow2, teardown),
        cmocka_unit_test_setup_teardown(test_views, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory_for_odd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_in_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_is_a_piece_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_goes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_odd_spans, setup_spans, teardown),
        cmocka_unit_test_setup_teardown(test_crowded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_crowded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crowded_switch, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
