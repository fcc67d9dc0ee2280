/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the range map: each operation by example, random ones against the model of test_model.h,
 * every allocation failing, and reservations at their worst.
 *
 * The map checks its invariants by itself after every change in test builds.
 */
#include "range/test_model.h"

#include "base/alloc.h"
#include "range/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)

static struct model model; /* too large for a stack */

static uint64_t random_state;

static uint64_t random_number(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state * UINT64_C(0x2545f4914f6cdd1d);
}

static uint64_t random_below(uint64_t end)
{
    return (random_number() >> 16) % end;
}

static struct range_run run_of(uint64_t first, uint64_t last, uint64_t target, uint64_t tag)
{
    return (struct range_run){first, last, target, tag};
}

static int put(struct range_map *map, uint64_t first, uint64_t last)
{
    struct range_run run = run_of(first, last, first, 1);

    return range_map_insert(map, &run);
}

static void assert_run(const struct range_run *run, uint64_t first, uint64_t last, uint64_t target,
                       uint64_t tag)
{
    assert_int_equal(run->first, first);
    assert_int_equal(run->last, last);
    assert_int_equal(run->target, target);
    assert_int_equal(run->tag, tag);
}

/* Runs of a page with a page between them. */
static void fill(struct range_map *map, size_t runs)
{
    for (size_t i = 0; i < runs; i++) {
        assert_int_equal(put(map, i * 2 * PAGE, i * 2 * PAGE + PAGE - 1), 0);
    }
}

static void test_empty(void **state)
{
    struct range_map map;
    struct range_run run;
    struct range_cursor cursor;

    (void)state;
    range_map_init(&map);
    assert_false(range_map_find(&map, 0, &run));
    assert_false(range_map_from(&map, 0, &run));
    assert_false(range_map_before(&map, UINT64_MAX, &run));
    range_cursor_seek(&cursor, &map, 0);
    assert_false(range_cursor_next(&cursor, UINT64_MAX, &run));
    assert_int_equal(range_map_erase(&map, 0, 0, NULL), -ENOENT);
    assert_int_equal(range_map_cut(&map, 0, UINT64_MAX), 0);
    assert_int_equal(range_map_split(&map, 0), -ENOENT);
    assert_false(range_map_merge(&map, 0));
    assert_int_equal(range_map_memory(&map), 0);
    range_map_fini(&map);
}

static void test_whole_space_is_one_run(void **state)
{
    struct range_map map;
    struct range_run run = run_of(0, UINT64_MAX, 0, 3);
    struct range_run found;

    (void)state;
    range_map_init(&map);
    assert_int_equal(range_map_insert(&map, &run), 0);
    assert_true(range_map_find(&map, 0, &found));
    assert_run(&found, 0, UINT64_MAX, 0, 3);
    assert_true(range_map_find(&map, UINT64_MAX, &found));
    assert_int_equal(range_run_target(&found, UINT64_MAX), UINT64_MAX);
    assert_false(range_map_before(&map, UINT64_MAX, &found));
    assert_int_equal(put(&map, UINT64_MAX, UINT64_MAX), -EEXIST);

    /* Its last address alone, whose target is the last one too. */
    assert_int_equal(range_map_split(&map, UINT64_MAX), 0);
    assert_true(range_map_find(&map, UINT64_MAX, &found));
    assert_run(&found, UINT64_MAX, UINT64_MAX, UINT64_MAX, 3);
    assert_true(range_map_before(&map, UINT64_MAX, &found));
    assert_run(&found, 0, UINT64_MAX - 1, 0, 3);
    assert_true(range_map_merge(&map, UINT64_MAX));
    assert_int_equal(range_map_erase(&map, 0, UINT64_MAX, &found), 0);
    assert_run(&found, 0, UINT64_MAX, 0, 3);
    range_map_fini(&map);
}

static void test_insert_refuses(void **state)
{
    struct range_map map;
    struct range_run backwards = run_of(5, 4, 0, 0);
    struct range_run wraps = run_of(0, PAGE, UINT64_MAX - PAGE + 1, 0);
    struct range_run nowhere = run_of(0, PAGE, UINT64_MAX, RANGE_NO_TARGET | 7);

    (void)state;
    range_map_init(&map);
    assert_int_equal(range_map_insert(&map, &backwards), -EINVAL);
    assert_int_equal(range_map_insert(&map, &wraps), -EINVAL);
    assert_int_equal(range_map_insert(&map, &nowhere), 0);
    assert_true(range_map_find(&map, PAGE, &nowhere));
    assert_run(&nowhere, 0, PAGE, 0, RANGE_NO_TARGET | 7);
    assert_int_equal(range_run_target(&nowhere, PAGE), 0);

    assert_int_equal(put(&map, 0, 0), -EEXIST);
    assert_int_equal(put(&map, PAGE, PAGE * 2), -EEXIST);
    assert_int_equal(put(&map, 0, UINT64_MAX), -EEXIST);
    assert_int_equal(put(&map, PAGE + 1, PAGE + 1), 0);
    assert_int_equal(map.count, 2);
    range_map_fini(&map);
}

static void test_erase_is_exact(void **state)
{
    struct range_map map;

    (void)state;
    range_map_init(&map);
    fill(&map, 3);
    assert_int_equal(range_map_erase(&map, 2 * PAGE, 3 * PAGE, NULL), -ENOENT);
    assert_int_equal(range_map_erase(&map, 2 * PAGE, 3 * PAGE - 2, NULL), -ENOENT);
    assert_int_equal(range_map_erase(&map, 2 * PAGE + 1, 3 * PAGE - 1, NULL), -ENOENT);
    assert_int_equal(range_map_erase(&map, PAGE, 3 * PAGE - 1, NULL), -ENOENT);
    assert_int_equal(range_map_erase(&map, 2 * PAGE, 3 * PAGE - 1, NULL), 0);
    assert_int_equal(range_map_erase(&map, 2 * PAGE, 3 * PAGE - 1, NULL), -ENOENT);
    assert_int_equal(map.count, 2);
    range_map_fini(&map);
}

/* Exactly the run that is asked for, in all that it has. */
static void test_erase_run_is_exact(void **state)
{
    const struct range_run run = {2 * PAGE, 3 * PAGE - 1, 0x5000, 3};
    struct range_run others[] = {run, run, run, run, run};
    struct range_map map;

    (void)state;
    range_map_init(&map);
    assert_int_equal(range_map_erase_run(&map, &run), -ENOENT);
    assert_int_equal(range_map_insert(&map, &run), 0);
    assert_int_equal(put(&map, 8 * PAGE, 9 * PAGE - 1), 0);
    others[0].first++;
    others[1].last--;
    others[2].target++;
    others[3].tag++;
    others[4].first = others[4].last = UINT64_MAX;
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(range_map_erase_run(&map, &others[i]), -ENOENT);
    }
    assert_int_equal(map.count, 2);
    assert_int_equal(range_map_erase_run(&map, &run), 0);
    assert_int_equal(range_map_erase_run(&map, &run), -ENOENT);
    assert_int_equal(map.count, 1);
    range_map_fini(&map);
}

static void test_cursor_keeps_to_its_range(void **state)
{
    struct range_map map;
    struct range_cursor cursor;
    struct range_run run;

    (void)state;
    range_map_init(&map);
    fill(&map, 1000);
    for (size_t first = 0; first < 1000; first += 37) {
        size_t at = first;

        /* From inside a run to the first address of another. */
        range_cursor_seek(&cursor, &map, first * 2 * PAGE + PAGE - 1);
        while (range_cursor_next(&cursor, (first + 100) * 2 * PAGE, &run)) {
            assert_int_equal(run.first, at * 2 * PAGE);
            at++;
        }
        assert_int_equal(at, first + 101 < 1000 ? first + 101 : 1000);
    }
    range_cursor_seek(&cursor, &map, PAGE); /* a gap */
    assert_false(range_cursor_next(&cursor, 2 * PAGE - 1, &run));
    range_map_fini(&map);
}

static void test_cut(void **state)
{
    struct range_map map;
    struct range_run run = run_of(0, 10 * PAGE - 1, 100 * PAGE, 3);

    (void)state;
    range_map_init(&map);
    assert_int_equal(range_map_insert(&map, &run), 0);
    assert_int_equal(range_map_cut(&map, 5, 4), -EINVAL);

    assert_int_equal(range_map_cut(&map, 0, PAGE - 1), 0); /* front */
    assert_true(range_map_from(&map, 0, &run));
    assert_run(&run, PAGE, 10 * PAGE - 1, 101 * PAGE, 3);

    assert_int_equal(range_map_cut(&map, 9 * PAGE, UINT64_MAX), 0); /* back */
    assert_true(range_map_from(&map, 0, &run));
    assert_run(&run, PAGE, 9 * PAGE - 1, 101 * PAGE, 3);

    assert_int_equal(range_map_cut(&map, 4 * PAGE, 5 * PAGE - 1), 0); /* middle */
    assert_true(range_map_from(&map, 0, &run));
    assert_run(&run, PAGE, 4 * PAGE - 1, 101 * PAGE, 3);
    assert_true(range_map_from(&map, 4 * PAGE, &run));
    assert_run(&run, 5 * PAGE, 9 * PAGE - 1, 105 * PAGE, 3);

    assert_int_equal(range_map_cut(&map, 2 * PAGE, 6 * PAGE - 1), 0); /* parts of two */
    assert_int_equal(map.count, 2);
    assert_true(range_map_from(&map, 2 * PAGE, &run));
    assert_run(&run, 6 * PAGE, 9 * PAGE - 1, 106 * PAGE, 3);

    assert_int_equal(range_map_cut(&map, 3 * PAGE, 4 * PAGE), 0); /* nothing */
    assert_int_equal(map.count, 2);
    assert_int_equal(range_map_cut(&map, 0, UINT64_MAX), 0); /* all */
    assert_int_equal(map.count, 0);
    range_map_fini(&map);
}

static void test_split_and_merge(void **state)
{
    struct range_map map;
    struct range_run run = run_of(PAGE, 5 * PAGE - 1, 0, 3);

    (void)state;
    range_map_init(&map);
    assert_int_equal(range_map_insert(&map, &run), 0);
    assert_int_equal(range_map_split(&map, 0), -ENOENT);
    assert_int_equal(range_map_split(&map, 5 * PAGE), -ENOENT);
    assert_int_equal(range_map_split(&map, PAGE), 0);
    assert_int_equal(map.count, 1);
    assert_int_equal(range_map_split(&map, 2 * PAGE), 0);
    assert_int_equal(range_map_split(&map, 3 * PAGE), 0);
    assert_int_equal(map.count, 3);
    assert_true(range_map_find(&map, 2 * PAGE, &run));
    assert_run(&run, 2 * PAGE, 3 * PAGE - 1, PAGE, 3);
    assert_true(range_map_merge(&map, 2 * PAGE)); /* both neighbours */
    assert_false(range_map_merge(&map, 2 * PAGE));
    assert_true(range_map_find(&map, 4 * PAGE, &run));
    assert_run(&run, PAGE, 5 * PAGE - 1, 0, 3);
    range_map_fini(&map);
}

static void test_merge_refuses(void **state)
{
    /* Neighbours that differ in one thing: tag, target, a gap; a target that would have to wrap. */
    static const struct range_run pairs[][2] = {
        {{0, 9, 0, 1}, {10, 19, 10, 2}},
        {{0, 9, 0, 1}, {10, 19, 11, 1}},
        {{0, 9, 0, 1}, {11, 19, 11, 1}},
        {{0, 9, 0, 1}, {10, 19, 0, RANGE_NO_TARGET | 1}},
        {{0, 9, UINT64_MAX - 9, 1}, {10, 19, 0, 1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct range_map map;

        range_map_init(&map);
        assert_int_equal(range_map_insert(&map, &pairs[i][0]), 0);
        assert_int_equal(range_map_insert(&map, &pairs[i][1]), 0);
        assert_false(range_map_merge(&map, 0));
        assert_false(range_map_merge(&map, 19));
        assert_int_equal(map.count, 2);
        range_map_fini(&map);
    }
}

static void test_clip_moves_the_target(void **state)
{
    struct range_run run = run_of(PAGE, 10 * PAGE - 1, 100 * PAGE, 1);
    struct range_run nowhere = run_of(0, UINT64_MAX, 0, RANGE_NO_TARGET);

    (void)state;
    range_run_clip(&run, 0, UINT64_MAX);
    assert_run(&run, PAGE, 10 * PAGE - 1, 100 * PAGE, 1);
    range_run_clip(&run, 3 * PAGE, 4 * PAGE - 1);
    assert_run(&run, 3 * PAGE, 4 * PAGE - 1, 102 * PAGE, 1);
    range_run_clip(&nowhere, 5, 5);
    assert_run(&nowhere, 5, 5, 0, RANGE_NO_TARGET);
}

static void assert_gap(struct range_map *map, uint64_t first, uint64_t last, uint64_t size,
                       uint64_t align, uint64_t expected)
{
    uint64_t found = ~expected;

    assert_int_equal(range_map_find_gap(map, first, last, size, align, &found), 0);
    assert_int_equal(found, expected);
}

static void assert_no_gap(struct range_map *map, uint64_t first, uint64_t last, uint64_t size,
                          uint64_t align)
{
    uint64_t found;

    assert_int_equal(range_map_find_gap(map, first, last, size, align, &found), -ENOSPC);
}

static void test_gap(void **state)
{
    struct range_map map;
    uint64_t found;

    (void)state;
    range_map_init(&map);
    assert_gap(&map, 0, UINT64_MAX, UINT64_MAX, 1, 0);
    assert_gap(&map, 5, UINT64_MAX, 1, UINT64_C(1) << 63, UINT64_C(1) << 63);
    assert_int_equal(range_map_find_gap(&map, 1, 0, 1, 1, &found), -EINVAL);
    assert_int_equal(range_map_find_gap(&map, 0, 1, 0, 1, &found), -EINVAL);
    assert_int_equal(range_map_find_gap(&map, 0, 1, 1, 0, &found), -EINVAL);
    assert_int_equal(range_map_find_gap(&map, 0, 1, 1, 3, &found), -EINVAL);

    fill(&map, 1000);
    assert_gap(&map, 0, UINT64_MAX, PAGE, PAGE, PAGE);
    assert_gap(&map, 50 * PAGE, UINT64_MAX, PAGE, PAGE, 51 * PAGE);
    assert_gap(&map, 51 * PAGE + 1, UINT64_MAX, PAGE, PAGE, 53 * PAGE);
    assert_gap(&map, 51 * PAGE + 1, UINT64_MAX, PAGE - 1, 1, 51 * PAGE + 1);
    assert_gap(&map, 0, UINT64_MAX, PAGE + 1, PAGE, 1999 * PAGE);
    assert_no_gap(&map, 0, 1999 * PAGE - 1, PAGE + 1, 1);
    assert_no_gap(&map, 51 * PAGE, 52 * PAGE - 2, PAGE, 1);
    /* Every gap begins at an odd page. */
    assert_gap(&map, 0, UINT64_MAX, 1, 2 * PAGE, 2000 * PAGE);
    assert_no_gap(&map, 0, 1999 * PAGE - 1, 1, 2 * PAGE);
    range_map_fini(&map);
}

static void test_gap_at_the_top(void **state)
{
    struct range_map map;

    (void)state;
    range_map_init(&map);
    assert_int_equal(put(&map, 0, UINT64_MAX - PAGE - 1), 0);
    assert_gap(&map, 0, UINT64_MAX, PAGE, PAGE, UINT64_MAX - PAGE + 1);
    assert_no_gap(&map, 0, UINT64_MAX - 1, PAGE, PAGE);
    assert_no_gap(&map, 0, UINT64_MAX, PAGE + 2, 1);
    /* Rounding up goes past the top. */
    assert_no_gap(&map, 0, UINT64_MAX, 1, 2 * PAGE);
    assert_no_gap(&map, UINT64_MAX, UINT64_MAX, 1, 2);
    assert_int_equal(put(&map, UINT64_MAX - PAGE, UINT64_MAX), 0);
    assert_no_gap(&map, 0, UINT64_MAX, 1, 1);
    range_map_fini(&map);
}

/* Many gaps that are large enough lie badly: the one that fits anyhow is found behind them. */
static void test_gap_behind_misses(void **state)
{
    struct range_map map;
    uint64_t found;

    (void)state;
    range_map_init(&map);
    fill(&map, 1000);
    /* Behind the tries, where only looking at all of them finds it: 2 pages at an even page. */
    assert_int_equal(range_map_cut(&map, 1000 * PAGE, 1000 * PAGE + PAGE - 1), 0);
    assert_int_equal(put(&map, 999 * PAGE, 1000 * PAGE - 1), 0);
    assert_int_equal(put(&map, 1999 * PAGE, UINT64_MAX), 0);
    assert_gap(&map, 0, UINT64_MAX, PAGE, 2 * PAGE, 1000 * PAGE);
    /* One that has room enough wins after that many tries, though it lies higher. */
    assert_int_equal(range_map_cut(&map, 1800 * PAGE, 1800 * PAGE + PAGE - 1), 0);
    assert_int_equal(range_map_find_gap(&map, 0, UINT64_MAX, PAGE, 2 * PAGE, &found), 0);
    assert_int_equal(found, 1800 * PAGE);
    /* Nearer than the tries it is the lowest. */
    assert_gap(&map, 950 * PAGE, UINT64_MAX, PAGE, 2 * PAGE, 1000 * PAGE);
    range_map_fini(&map);
}

/* A search that was led astray by a gap which has become smaller puts right what is known of it. */
static void test_gap_learns(void **state)
{
    struct range_map map;
    struct range_entry *entries;

    (void)state;
    range_map_init(&map);
    fill(&map, 3 * RANGE_LEAF);
    assert_int_equal(range_map_erase(&map, 4 * PAGE, 5 * PAGE - 1, NULL), 0);
    assert_int_equal(put(&map, 4 * PAGE, 5 * PAGE - 1), 0);
    entries = tree_entries(map.root, map.height - 1);
    assert_true(entries[0].gap >= 3 * PAGE);
    assert_no_gap(&map, 0, 5 * RANGE_LEAF * PAGE, 2 * PAGE, PAGE);
    assert_int_equal(entries[0].gap, PAGE);
    range_map_fini(&map);
}

/* Runs that come in order leave nodes three quarters full or more, in both directions. */
static void test_runs_in_order_fill_nodes(void **state)
{
    struct range_map map;

    (void)state;
    range_map_init(&map);
    fill(&map, 20000);
    assert_true(map.nodes[0] < 20000 / tree_fill(0) * 12 / 10);
    range_map_fini(&map);
    for (size_t i = 20000; i-- > 0;) {
        assert_int_equal(put(&map, i * 2 * PAGE, i * 2 * PAGE + PAGE - 1), 0);
    }
    assert_true(map.nodes[0] < 20000 / tree_fill(0) * 12 / 10);
    range_map_fini(&map);
}

/* ---- against the model ---- */

/* Where addresses of a test lie: few, so that they meet, in all corners of the space. */
static uint64_t some_address(uint64_t spread)
{
    uint64_t offset = random_below(spread);

    switch (random_below(8)) {
    case 0:
        return UINT64_MAX - offset % 64;
    case 1:
        return (UINT64_C(1) << 63) - 32 + offset % 64;
    default:
        return offset;
    }
}

static struct range_run some_run(uint64_t spread)
{
    uint64_t first = some_address(spread);
    uint64_t last = first + (random_below(4) ? random_below(8) : random_below(spread));
    /* Contiguous with others as often as not. */
    uint64_t target = random_below(3) ? first : random_number();
    uint64_t tag = random_below(3) | (random_below(4) ? 0 : RANGE_NO_TARGET);

    return run_of(first, last, target, tag);
}

/* The address of a run of the model, or any. */
static uint64_t known_address(uint64_t spread)
{
    const struct range_run *run;

    if (!model.count || !random_below(4)) {
        return some_address(spread);
    }
    run = &model.runs[random_below(model.count)];
    return run->first + random_below(run->last - run->first + 1 ? run->last - run->first + 1 : 1);
}

static void random_erase(struct range_map *map, uint64_t spread)
{
    struct range_run known = {0};
    struct range_run erased;

    if (!model.count) {
        return;
    }
    known = model.runs[random_below(model.count)];
    if (!random_below(8)) {
        known.last += random_below(spread);
    }
    if (model_erase(&model, known.first, known.last)) {
        assert_int_equal(range_map_erase(map, known.first, known.last, &erased), -ENOENT);
    } else {
        assert_int_equal(range_map_erase(map, known.first, known.last, &erased), 0);
        assert_true(model_same_run(&erased, &known));
    }
}

/* A range that begins and ends with runs, mostly, or one that reaches into some. */
static void random_erase_inside(struct range_map *map, uint64_t spread)
{
    uint64_t first = known_address(spread);
    uint64_t last = first + random_below(random_below(2) ? 16 : spread / 4 + 1);
    size_t at = model_from(&model, first);
    struct range_erased expected;
    struct range_erased erased;
    size_t end;
    int error;

    if (at < model.count && random_below(4)) {
        size_t most = random_below(16) ? 6 : 300;

        end = at + random_below(model.count - at < most ? model.count - at : most);
        first = model.runs[at].first;
        last = model.runs[end].last;
    }
    error = model_erase_inside(&model, first, last, &expected);
    assert_int_equal(range_map_erase_inside(map, first, last, &erased), error);
    assert_int_equal(erased.count, expected.count);
    assert_int_equal(erased.first, expected.first);
    assert_int_equal(erased.last, expected.last);
}

static void random_gap(struct range_map *map, uint64_t spread)
{
    uint64_t first = some_address(spread);
    uint64_t last = random_below(2) ? UINT64_MAX : some_address(spread);
    uint64_t size = 1 + random_below(12);
    uint64_t align = UINT64_C(1) << random_below(6);
    uint64_t expected = 0;
    uint64_t found = 0;
    int error = model_find_gap(&model, first, last, size, align, &expected);

    if (first > last) {
        return;
    }
    assert_int_equal(range_map_find_gap(map, first, last, size, align, &found), error);
    if (!error && found != expected) {
        /* Not the lowest: it must be a place all the same, and there must have been misses. */
        assert_true(found > expected && found <= last && last - found >= size - 1);
        assert_int_equal(found % align, 0);
        assert_int_equal(model_from(&model, found), model_from(&model, found + (size - 1)));
        assert_true(align > 1 && model.count > RANGE_GAP_TRIES);
    }
}

static void random_step(struct range_map *map, uint64_t spread, unsigned growth)
{
    struct range_run run = some_run(spread);
    uint64_t address = known_address(spread);
    uint64_t end = address + random_below(random_below(16) ? 8 : spread);

    switch (random_below(8 + growth)) {
    case 0:
    case 1:
        random_erase(map, spread);
        break;
    case 2:
        random_erase_inside(map, spread);
        break;
    case 3:
        assert_int_equal(range_map_cut(map, address, end), model_cut(&model, address, end));
        break;
    case 4:
        assert_int_equal(range_map_split(map, address), model_split(&model, address));
        break;
    case 5:
        assert_int_equal(range_map_merge(map, address), model_merge(&model, address));
        break;
    case 6:
        random_gap(map, spread);
        break;
    default:
        assert_int_equal(range_map_insert(map, &run), model_insert(&model, run));
        break;
    }
    assert_true(model_looks_same(&model, map, address));
    assert_true(model_looks_same(&model, map, end));
    assert_true(model_peeks_same(&model, map, address));
    assert_true(model_peeks_same(&model, map, end));
}

static void test_random(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 24; seed++) {
        uint64_t spread = UINT64_C(64) << seed % 8;
        struct range_map map;

        random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        model.count = 0;
        range_map_init(&map);
        for (unsigned i = 0; i < 4000; i++) {
            /* It grows, and shrinks again. */
            random_step(&map, spread, i % 2000 < 1200 ? 8 : 0);
            if (i % 16 == 0) {
                assert_true(model_is(&model, &map));
            }
        }
        range_map_fini(&map);
    }
}

/* ---- memory ---- */

/* Random changes, each with its first allocation failing: nothing must have changed then. */
static void test_every_allocation_failing(void **state)
{
    struct range_map map;
    unsigned failures = 0;

    (void)state;
    random_state = 99;
    model.count = 0;
    range_map_init(&map);
    for (unsigned i = 0; i < 6000; i++) {
        struct range_run run = some_run(4096);
        uint64_t address = known_address(4096);
        unsigned kind = (unsigned)random_below(6);
        int error = -ENOMEM;

        for (unsigned long n = 1; error == -ENOMEM; n++) {
            base_alloc_fail_at(n);
            error = kind == 0   ? range_map_cut(&map, address, address)
                    : kind == 1 ? range_map_split(&map, address)
                                : range_map_insert(&map, &run);
            failures += error == -ENOMEM;
            assert_int_equal(error == -ENOMEM, base_alloc_failed());
            base_alloc_fail_at(0);
            range_map_check(&map);
            assert_true(error != -ENOMEM || model_is(&model, &map));
        }
        assert_int_equal(error, kind == 0   ? model_cut(&model, address, address)
                                : kind == 1 ? model_split(&model, address)
                                            : model_insert(&model, run));
    }
    assert_true(model_is(&model, &map));
    assert_true(failures > 50);
    range_map_fini(&map);
}

/* With a reservation, as many operations as asked for succeed while every allocation fails. */
static void reserved_operations(struct range_map *map, size_t operations, uint64_t spread)
{
    assert_int_equal(range_map_reserve(map, operations), 0);
    while (operations) {
        struct range_run run = some_run(spread);
        uint64_t address = known_address(spread);

        base_alloc_fail_at(1);
        switch (random_below(4)) {
        case 0:
            random_erase(map, spread);
            break;
        case 1:
            assert_int_equal(range_map_cut(map, address, address),
                             model_cut(&model, address, address));
            operations--;
            break;
        default:
            assert_int_equal(range_map_insert(map, &run), model_insert(&model, run));
            operations--;
            break;
        }
        assert_false(base_alloc_failed());
    }
    base_alloc_fail_at(0);
    assert_true(model_is(&model, map));
    range_map_release(map);
}

static void test_reservation(void **state)
{
    struct range_map map;

    (void)state;
    random_state = 7;
    model.count = 0;
    range_map_init(&map);
    for (size_t operations = 1; operations < 2000; operations += 1 + operations / 4) {
        reserved_operations(&map, operations, 1 << 16);
    }
    range_map_fini(&map);
}

/* Leaves as full as they get: runs in order leave tree_fill() in each, then each gets the rest. */
static void fill_to_the_brim(struct range_map *map, size_t leaves)
{
    size_t per_leaf = tree_fill(0);

    fill(map, leaves * per_leaf);
    for (size_t leaf = 0; leaf < leaves; leaf++) {
        uint64_t gap = leaf * per_leaf * 2 * PAGE + PAGE; /* after its first run */

        for (size_t i = 0; i < RANGE_LEAF - per_leaf; i++) {
            assert_int_equal(put(map, gap + 2 * i, gap + 2 * i), 0);
        }
    }
    assert_int_equal(map->nodes[0], leaves);
}

static void test_reservation_of_full_leaves(void **state)
{
    (void)state;
    for (size_t leaves = 1; leaves < 400; leaves += 1 + leaves / 4) {
        struct range_map map;

        range_map_init(&map);
        fill_to_the_brim(&map, leaves);
        assert_int_equal(range_map_reserve(&map, leaves), 0);
        base_alloc_fail_at(1);
        for (size_t leaf = 0; leaf < leaves; leaf++) {
            uint64_t end = leaf * tree_fill(0) * 2 * PAGE + 2 * PAGE - 1;

            assert_int_equal(put(&map, end, end), 0);
        }
        assert_false(base_alloc_failed());
        base_alloc_fail_at(0);
        assert_int_equal(map.nodes[0], 2 * leaves);
        range_map_fini(&map);
    }
}

/* Spread insertions; then again after a collapse. */
static void test_reservation_outlives_a_collapse(void **state)
{
    for (size_t runs = 0; runs < 3000; runs += 1 + runs / 3) {
        struct range_map map;

        (void)state;
        range_map_init(&map);
        fill(&map, runs);
        assert_int_equal(range_map_reserve(&map, runs + 500), 0);
        base_alloc_fail_at(1);
        for (size_t i = 0; i < runs; i++) {
            size_t at = i * 13 % runs; /* spread over the leaves */

            (void)put(&map, at * 2 * PAGE + PAGE, at * 2 * PAGE + PAGE);
        }
        assert_int_equal(range_map_cut(&map, 0, UINT64_MAX), 0);
        for (size_t i = 0; i < 500; i++) {
            assert_int_equal(put(&map, i * 7919 % 500 * 2, i * 7919 % 500 * 2), 0);
        }
        assert_false(base_alloc_failed());
        base_alloc_fail_at(0);
        range_map_fini(&map);
    }
}

static void test_reservation_fails_whole(void **state)
{
    struct range_map map;

    (void)state;
    range_map_init(&map);
    fill(&map, 100);
    for (unsigned long n = 1;; n++) {
        size_t memory = range_map_memory(&map);
        int error;

        base_alloc_fail_at(n);
        error = range_map_reserve(&map, 1000);
        base_alloc_fail_at(0);
        if (!error) {
            break;
        }
        assert_int_equal(error, -ENOMEM);
        /* A few spare nodes may stay. */
        assert_true(range_map_memory(&map) <= memory + 4 * (tree_node_size(0) + tree_node_size(1)));
    }
    assert_int_equal(range_map_reserve(&map, SIZE_MAX), -ENOMEM);
    range_map_release(&map);
    assert_true(range_map_memory(&map) <= (map.nodes[0] + 4) * tree_node_size(0) +
                                              (map.nodes[1] + 4) * tree_node_size(1));
    range_map_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_whole_space_is_one_run),
        cmocka_unit_test(test_insert_refuses),
        cmocka_unit_test(test_erase_is_exact),
        cmocka_unit_test(test_erase_run_is_exact),
        cmocka_unit_test(test_cursor_keeps_to_its_range),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_split_and_merge),
        cmocka_unit_test(test_merge_refuses),
        cmocka_unit_test(test_clip_moves_the_target),
        cmocka_unit_test(test_gap),
        cmocka_unit_test(test_gap_at_the_top),
        cmocka_unit_test(test_gap_behind_misses),
        cmocka_unit_test(test_gap_learns),
        cmocka_unit_test(test_runs_in_order_fill_nodes),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_every_allocation_failing),
        cmocka_unit_test(test_reservation),
        cmocka_unit_test(test_reservation_of_full_leaves),
        cmocka_unit_test(test_reservation_outlives_a_collapse),
        cmocka_unit_test(test_reservation_fails_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
