/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of the shadow map: from each form of a block to each, extents at borders, runs of level 2,
 * patches, memory that is short, and freeing piece by piece.
 */
#include "shadow/test_model.h"

#include "viommu/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define SIZE_2M (512 * PAGE)
#define SIZE_1G (512 * SIZE_2M)
#define NODE sizeof(struct shadow_node)
#define RW (VIOMMU_READ | VIOMMU_WRITE)
#define START SHADOW_START

static struct model model; /* too large for a stack */

/* ---- helpers -------------------------------------------------------------------------------- */

static struct shadow_slot build(const uint64_t *values)
{
    struct shadow_slot slot;
    uint64_t back[SHADOW_PAGES];

    assert_int_equal(shadow_slot_build(values, true, &slot), 0);
    assert_int_equal(slot.whole, slot.kind != SHADOW_EMPTY);
    shadow_slot_expand(&slot, back);
    assert_memory_equal(back, values, sizeof(back));
    return slot;
}

static void put(struct shadow_map *map, uint64_t address, const uint64_t *values)
{
    struct shadow_slot slot = build(values);

    assert_int_equal(shadow_map_reserve(map, 1, address), 0);
    shadow_map_replace(map, 1, address, &slot);
    shadow_map_check(map);
}

/* Maps one page, its block has no other then. */
static void put_page(struct shadow_map *map, uint64_t address, uint64_t gpa)
{
    uint64_t values[SHADOW_PAGES] = {0};

    values[address / PAGE % SHADOW_PAGES] = gpa | RW | START;
    put(map, address, values);
}

static void put_empty(struct shadow_map *map, unsigned level, uint64_t address)
{
    static const struct shadow_slot empty;

    shadow_map_replace(map, level, address, &empty);
    shadow_map_check(map);
}

static struct shadow_slot run_of_1g(uint64_t gpa)
{
    return (struct shadow_slot){
        .value = gpa | RW | START,
        .kind = SHADOW_RUN,
        .whole = true,
        .last = SHADOW_PAGES - 1,
    };
}

static void put_run_of_1g(struct shadow_map *map, uint64_t address, uint64_t gpa)
{
    struct shadow_slot slot = run_of_1g(gpa);

    assert_int_equal(shadow_map_reserve(map, 2, address), 0);
    shadow_map_replace(map, 2, address, &slot);
    shadow_map_check(map);
}

static void assert_next_with(const struct shadow_map *map, const struct shadow_patch *patch,
                             uint64_t from, uint64_t last, struct shadow_extent expected)
{
    struct shadow_extent extent;

    assert_true(shadow_map_next(map, patch, from, last, &extent));
    assert_int_equal(extent.first, expected.first);
    assert_int_equal(extent.last, expected.last);
    assert_int_equal(extent.gpa, expected.gpa);
    assert_int_equal(extent.perm, expected.perm);
}

static void assert_next(const struct shadow_map *map, uint64_t from, uint64_t last,
                        uint64_t first, uint64_t end, uint64_t gpa)
{
    assert_next_with(map, NULL, from, last, (struct shadow_extent){first, end, gpa, RW});
}

static void assert_none(const struct shadow_map *map, uint64_t from, uint64_t last)
{
    struct shadow_extent extent;

    assert_false(shadow_map_next(map, NULL, from, last, &extent));
}

static void free_map(struct shadow_map *map)
{
    while (!shadow_map_free_some(map, 3)) {
    }
    assert_int_equal(map->bytes, 0);
    assert_int_equal(map->pages, 0);
    shadow_map_check(map);
}

/* ---- values --------------------------------------------------------------------------------- */

/* The highest guest page is followed by none. */
static void test_targets_do_not_wrap(void **state)
{
    struct shadow_map map;
    uint64_t values[SHADOW_PAGES] = {0};

    (void)state;
    shadow_map_init(&map, 3);
    model_shape(values, MODEL_LINEAR, 10, 4, SHADOW_TARGET - PAGE, RW);
    put(&map, 0, values);
    assert_int_equal(shadow_map_slot(&map, 1, 0)->kind, SHADOW_SPARSE);
    assert_next(&map, 0, UINT64_MAX, 10 * PAGE, 12 * PAGE - 1, SHADOW_TARGET - PAGE);
    assert_next(&map, 12 * PAGE, UINT64_MAX, 12 * PAGE, 14 * PAGE - 1, 0);
    model_shape(values, MODEL_CLEAR, 12, 2, 0, 0);
    put(&map, 0, values);
    assert_int_equal(shadow_map_slot(&map, 1, 0)->kind, SHADOW_RUN);
    /* Nor is it by the entry after next, in an array of entries. */
    model_shape(values, MODEL_LINEAR, 13, 1, 0, RW);
    put(&map, 0, values);
    assert_next(&map, 11 * PAGE, UINT64_MAX, 10 * PAGE, 12 * PAGE - 1, SHADOW_TARGET - PAGE);
    assert_next(&map, 12 * PAGE, UINT64_MAX, 13 * PAGE, 14 * PAGE - 1, 0);
    free_map(&map);
}

static void test_bad_entries(void **state)
{
    struct shadow_map map;
    uint64_t values[SHADOW_PAGES] = {0};
    uint64_t found;

    (void)state;
    shadow_map_init(&map, 4);
    /* Bad ones alone never make a run; they are in use, but lead nowhere. */
    model_shape(values, MODEL_BAD, 3, 1, 0, 0);
    put(&map, SIZE_1G, values);
    assert_int_equal(shadow_map_slot(&map, 1, SIZE_1G)->kind, SHADOW_SPARSE);
    assert_int_equal(map.pages, 0);
    assert_none(&map, 0, UINT64_MAX);
    assert_true(shadow_map_used(&map, 0, UINT64_MAX, &found));
    assert_int_equal(found, SIZE_1G);
    model_shape(values, MODEL_BAD, 0, SHADOW_PAGES, 0, 0);
    put(&map, SIZE_1G, values);
    assert_int_equal(shadow_map_slot(&map, 1, SIZE_1G)->kind, SHADOW_FULL);
    assert_int_equal(shadow_map_slot(&map, 1, SIZE_1G)->count, SHADOW_PAGES);
    assert_none(&map, 0, UINT64_MAX);
    /* They end extents. */
    model_shape(values, MODEL_LINEAR, 8, 400, PAGE, RW);
    model_shape(values, MODEL_BAD, 100, 1, 0, 0);
    put(&map, SIZE_1G, values);
    assert_int_equal(map.pages, 399);
    assert_next(&map, 0, UINT64_MAX, SIZE_1G + 8 * PAGE, SIZE_1G + 100 * PAGE - 1, PAGE);
    assert_next(&map, SIZE_1G + 100 * PAGE, UINT64_MAX, SIZE_1G + 101 * PAGE,
                SIZE_1G + 408 * PAGE - 1, 94 * PAGE);
    assert_none(&map, SIZE_1G + 408 * PAGE, UINT64_MAX);
    free_map(&map);
}

/* From each form to each, another of the same too; bytes and pages are those of the last. */
static void test_transitions(void **state)
{
    static const unsigned pages[] = {0, 300, 50, 512};
    static const unsigned bytes[] = {0, 0, 52 * 8, 4096};
    struct shadow_map map;
    uint64_t values[SHADOW_PAGES];

    (void)state;
    shadow_map_init(&map, 4);
    for (unsigned from = SHADOW_EMPTY; from <= SHADOW_FULL; from++) {
        for (unsigned to = SHADOW_EMPTY; to <= SHADOW_FULL; to++) {
            model_form(values, from, 1);
            put(&map, 5 * SIZE_2M, values);
            model_form(values, to, 0);
            put(&map, 5 * SIZE_2M, values);
            assert_int_equal(map.pages, pages[to]);
            assert_int_equal(map.bytes, bytes[to] + (to == SHADOW_EMPTY ? 0 : 3 * NODE));
        }
    }
    free_map(&map);
}

/* ---- look-ups ------------------------------------------------------------------------------- */

static void test_nothing(void **state)
{
    (void)state;
    for (unsigned levels = 2; levels <= 5; levels++) {
        uint64_t top = 1ULL << shadow_shift(levels);
        struct shadow_map map;
        uint64_t found;

        shadow_map_init(&map, levels);
        shadow_map_check(&map);
        assert_none(&map, 0, UINT64_MAX);
        assert_none(&map, UINT64_MAX, UINT64_MAX);
        assert_none(&map, top, 0);
        assert_false(shadow_map_used(&map, 0, UINT64_MAX, &found));
        assert_false(shadow_map_used(&map, UINT64_MAX, UINT64_MAX, &found));
        assert_null(shadow_map_slot(&map, 1, 0));
        assert_null(shadow_map_slot(&map, 1, top));
        assert_null(shadow_map_slot(&map, 2, UINT64_MAX));
        assert_int_equal(shadow_map_reserve(&map, 1, top), -EINVAL);
        assert_int_equal(shadow_map_reserve(&map, 1, UINT64_MAX), -EINVAL);
        put_empty(&map, 1, 0);
        put_empty(&map, 2, 0);
        put_empty(&map, 1, UINT64_MAX);
        assert_true(shadow_map_free_some(&map, 1));
        assert_int_equal(map.bytes, 0);
    }
}

static void test_first_and_last_pages(void **state)
{
    (void)state;
    for (unsigned levels = 2; levels <= 5; levels++) {
        uint64_t top = 1ULL << shadow_shift(levels);
        struct shadow_map map;
        uint64_t found;

        shadow_map_init(&map, levels);
        put_page(&map, top - PAGE, 5 * PAGE);
        assert_next(&map, 0, UINT64_MAX, top - PAGE, top - 1, 5 * PAGE);
        assert_int_equal(map.bytes, (levels - 1) * NODE);
        put_page(&map, 0, 6 * PAGE);
        assert_next(&map, 0, 0, 0, PAGE - 1, 6 * PAGE);
        assert_next(&map, PAGE, UINT64_MAX, top - PAGE, top - 1, 5 * PAGE);
        assert_next(&map, top - 1, top - 1, top - PAGE, top - 1, 5 * PAGE);
        assert_none(&map, PAGE, top - PAGE - 1);
        assert_none(&map, top, UINT64_MAX);
        assert_true(shadow_map_used(&map, SIZE_2M, UINT64_MAX, &found));
        assert_int_equal(found, top - SIZE_2M);
        assert_true(shadow_map_used(&map, SIZE_2M - 1, UINT64_MAX, &found));
        assert_int_equal(found, SIZE_2M - 1);
        assert_false(shadow_map_used(&map, SIZE_2M, top - SIZE_2M - 1, &found));
        assert_false(shadow_map_used(&map, top, UINT64_MAX, &found));
        assert_null(shadow_map_slot(&map, 1, top));
        assert_non_null(shadow_map_slot(&map, 1, top - 1));
        /* Nothing above is taken for something below. */
        put_empty(&map, 1, top);
        put_empty(&map, 2, top);
        assert_int_equal(map.pages, 2);
        put_empty(&map, 1, 0);
        put_empty(&map, 1, top - 1);
        assert_int_equal(map.bytes, 0);
    }
}

/* What follows on across the border of a block is an extent of its own. */
static void test_extents_end_at_borders(void **state)
{
    struct shadow_map map;
    uint64_t values[SHADOW_PAGES] = {0};

    (void)state;
    shadow_map_init(&map, 4);
    model_shape(values, MODEL_LINEAR, 0, SHADOW_PAGES, SIZE_1G, RW);
    put(&map, 0, values);
    model_shape(values, MODEL_LINEAR, 0, SHADOW_PAGES, SIZE_1G + SIZE_2M, RW);
    put(&map, SIZE_2M, values);
    assert_next(&map, 77, UINT64_MAX, 0, SIZE_2M - 1, SIZE_1G);
    assert_next(&map, SIZE_2M, UINT64_MAX, SIZE_2M, 2 * SIZE_2M - 1, SIZE_1G + SIZE_2M);
    assert_next(&map, 2 * SIZE_2M - 1, UINT64_MAX, SIZE_2M, 2 * SIZE_2M - 1, SIZE_1G + SIZE_2M);
    assert_none(&map, 2 * SIZE_2M, UINT64_MAX);
    assert_int_equal(map.pages, 2 * SHADOW_PAGES);
    /* An extent is told of whole, wherever in it one asks. */
    model_shape(values, MODEL_CLEAR, 0, SHADOW_PAGES, 0, 0);
    model_shape(values, MODEL_REVERSED, 0, 70, SIZE_1G, RW);
    model_shape(values, MODEL_LINEAR, 100, 50, PAGE, RW);
    put(&map, SIZE_2M, values);
    assert_next(&map, SIZE_2M + 149 * PAGE + 5, SIZE_2M + 149 * PAGE + 5, SIZE_2M + 100 * PAGE,
                SIZE_2M + 150 * PAGE - 1, PAGE);
    assert_next(&map, SIZE_2M + 70 * PAGE, SIZE_2M + 100 * PAGE, SIZE_2M + 100 * PAGE,
                SIZE_2M + 150 * PAGE - 1, PAGE);
    assert_none(&map, SIZE_2M + 70 * PAGE, SIZE_2M + 100 * PAGE - 1);
    free_map(&map);
}

/* ---- runs of level 2 ------------------------------------------------------------------------ */

static void test_run_of_level_2(void **state)
{
    struct shadow_map map;
    uint64_t found;

    (void)state;
    shadow_map_init(&map, 4);
    put_run_of_1g(&map, 3 * SIZE_1G, 8 * SIZE_1G);
    assert_int_equal(map.pages, 262144);
    assert_int_equal(map.bytes, 2 * NODE);
    assert_next(&map, 0, UINT64_MAX, 3 * SIZE_1G, 4 * SIZE_1G - 1, 8 * SIZE_1G);
    assert_next(&map, 4 * SIZE_1G - 1, UINT64_MAX, 3 * SIZE_1G, 4 * SIZE_1G - 1, 8 * SIZE_1G);
    assert_none(&map, 4 * SIZE_1G, UINT64_MAX);
    assert_none(&map, 0, 3 * SIZE_1G - 1);
    assert_true(shadow_map_used(&map, 3 * SIZE_1G + 5, UINT64_MAX, &found));
    assert_int_equal(found, 3 * SIZE_1G + 5);
    assert_true(shadow_map_used(&map, 0, 3 * SIZE_1G, &found));
    assert_int_equal(found, 3 * SIZE_1G);
    assert_null(shadow_map_slot(&map, 1, 3 * SIZE_1G));
    assert_int_equal(shadow_map_slot(&map, 2, 4 * SIZE_1G - 1)->kind, SHADOW_RUN);
    /* Nothing goes under it. */
    assert_int_equal(shadow_map_reserve(&map, 1, 3 * SIZE_1G), -EINVAL);
    put_empty(&map, 1, 3 * SIZE_1G);
    assert_int_equal(map.pages, 262144);
    put_empty(&map, 2, 3 * SIZE_1G);
    assert_int_equal(map.bytes, 0);
}

static void test_break(void **state)
{
    struct shadow_map map;
    struct shadow_slot broken;

    (void)state;
    shadow_map_init(&map, 3);
    put_run_of_1g(&map, SIZE_1G, 8 * SIZE_1G);
    base_alloc_fail_at(1);
    assert_int_equal(shadow_slot_break(shadow_map_slot(&map, 2, SIZE_1G), &broken), -ENOMEM);
    assert_int_equal(shadow_slot_break(shadow_map_slot(&map, 2, SIZE_1G), &broken), 0);
    assert_int_equal(shadow_slot_bytes(&broken), NODE);
    shadow_map_replace(&map, 2, SIZE_1G, &broken);
    shadow_map_check(&map);
    assert_int_equal(map.pages, 262144);
    assert_int_equal(map.bytes, 2 * NODE);
    for (uint64_t i = 0; i < SHADOW_PAGES; i++) {
        assert_next(&map, SIZE_1G + i * SIZE_2M + 9, UINT64_MAX, SIZE_1G + i * SIZE_2M,
                    SIZE_1G + (i + 1) * SIZE_2M - 1, 8 * SIZE_1G + i * SIZE_2M);
    }
    assert_true(shadow_map_slot(&map, 1, SIZE_1G)->whole);
    put_page(&map, SIZE_1G + SIZE_2M + PAGE, 0);
    assert_int_equal(map.pages, 262144 - 511);
    /* A run takes the place of the node and of all below it. */
    put_run_of_1g(&map, SIZE_1G, 9 * SIZE_1G);
    assert_int_equal(map.pages, 262144);
    assert_int_equal(map.bytes, NODE);
    free_map(&map);
}

/* ---- nodes ---------------------------------------------------------------------------------- */

static void test_nodes_are_pruned(void **state)
{
    uint64_t near = 5 * SIZE_1G;
    uint64_t far = 700 * SIZE_1G;
    struct shadow_map map;

    (void)state;
    shadow_map_init(&map, 5);
    put_page(&map, near, PAGE);
    put_page(&map, near + SIZE_2M, PAGE);
    put_page(&map, near + SIZE_1G, PAGE);
    put_page(&map, far, PAGE);
    /* One of levels 5 and 4, two of level 3, three of level 2. */
    assert_int_equal(map.bytes, 7 * NODE);
    put_empty(&map, 1, near);
    assert_int_equal(map.bytes, 7 * NODE);
    put_empty(&map, 1, near + SIZE_2M);
    assert_int_equal(map.bytes, 6 * NODE);
    put_empty(&map, 1, near);
    put_empty(&map, 2, near + SIZE_1G);
    assert_int_equal(map.bytes, 4 * NODE);
    assert_next(&map, 0, UINT64_MAX, far, far + PAGE - 1, PAGE);
    put_empty(&map, 1, far);
    assert_int_equal(map.bytes, 0);
}

static void test_reserve(void **state)
{
    struct shadow_map map;

    (void)state;
    for (unsigned level = 1; level <= 2; level++) {
        shadow_map_init(&map, 5);
        for (unsigned long n = 1; n <= 5 - level; n++) {
            base_alloc_fail_at(n);
            assert_int_equal(shadow_map_reserve(&map, level, SIZE_1G), -ENOMEM);
            assert_int_equal(map.bytes, 0);
            shadow_map_check(&map);
        }
        base_alloc_fail_at(6 - level);
        assert_int_equal(shadow_map_reserve(&map, level, SIZE_1G), 0);
        assert_int_equal(shadow_map_reserve(&map, level, SIZE_1G), 0);
        assert_false(base_alloc_failed());
        base_alloc_fail_at(0);
        assert_int_equal(map.bytes, (5 - level) * NODE);
        /* The way is there, and nothing on it. */
        assert_none(&map, 0, UINT64_MAX);
        assert_int_equal(shadow_map_slot(&map, level, SIZE_1G)->kind, SHADOW_EMPTY);
        put_empty(&map, level, SIZE_1G);
        assert_int_equal(map.bytes, 0);
    }
    /* Beside something, only what was made is taken away. */
    put_page(&map, 0, PAGE);
    assert_int_equal(shadow_map_reserve(&map, 1, SIZE_1G), 0);
    assert_int_equal(map.bytes, 5 * NODE);
    put_empty(&map, 1, SIZE_1G);
    assert_int_equal(map.bytes, 4 * NODE);
    /* A way that nothing used is freed with the map. */
    assert_int_equal(shadow_map_reserve(&map, 1, 1000 * SIZE_1G), 0);
    free_map(&map);
}

static void test_free_some(void **state)
{
    uint64_t values[SHADOW_PAGES];

    (void)state;
    for (unsigned slots = 1; slots <= 50; slots += 7) {
        model_reset(&model, 4);
        for (unsigned i = 0; i < 30; i++) {
            model_form(values, i % 4, 0);
            assert_int_equal(model_put_block(&model, i % 3, i * 17, values, false), 0);
        }
        assert_int_equal(model_put_region(&model, 3, SIZE_1G, RW), 0);
        model_free(&model, slots);
    }
}

/* ---- patches -------------------------------------------------------------------------------- */

static struct shadow_patch patch_of(unsigned level, uint64_t first)
{
    return (struct shadow_patch){
        .first = first,
        .last = first + (1ULL << shadow_shift(level)) - 1,
        .level = (uint8_t)level,
    };
}

static void test_patch(void **state)
{
    struct shadow_patch patch = patch_of(1, SIZE_2M);
    struct shadow_map map;
    struct shadow_extent extent;
    uint64_t values[SHADOW_PAGES] = {0};

    (void)state;
    shadow_map_init(&map, 4);
    values[9] = 4 * PAGE | RW | START;
    values[11] = 7 * PAGE | RW | START;
    patch.slot = build(values);
    /* Over nothing. */
    assert_next_with(&map, &patch, 0, UINT64_MAX,
                     (struct shadow_extent){SIZE_2M + 9 * PAGE, SIZE_2M + 10 * PAGE - 1, 4 * PAGE,
                                            RW});
    assert_false(shadow_map_next(&map, &patch, 0, SIZE_2M - 1, &extent));
    assert_false(shadow_map_next(&map, &patch, SIZE_2M + 12 * PAGE, UINT64_MAX, &extent));
    assert_false(shadow_map_next(&map, &patch, 1ULL << 48, UINT64_MAX, &extent));
    /* Over something, and between. */
    put_page(&map, 0, PAGE);
    put_page(&map, SIZE_2M, 2 * PAGE);
    put_page(&map, 2 * SIZE_2M, 3 * PAGE);
    assert_next_with(&map, &patch, 0, UINT64_MAX, (struct shadow_extent){0, PAGE - 1, PAGE, RW});
    assert_next_with(&map, &patch, PAGE, UINT64_MAX,
                     (struct shadow_extent){SIZE_2M + 9 * PAGE, SIZE_2M + 10 * PAGE - 1, 4 * PAGE,
                                            RW});
    assert_next_with(&map, &patch, SIZE_2M + 10 * PAGE, UINT64_MAX,
                     (struct shadow_extent){SIZE_2M + 11 * PAGE, SIZE_2M + 12 * PAGE - 1, 7 * PAGE,
                                            RW});
    assert_next_with(&map, &patch, SIZE_2M + 12 * PAGE, UINT64_MAX,
                     (struct shadow_extent){2 * SIZE_2M, 2 * SIZE_2M + PAGE - 1, 3 * PAGE, RW});
    assert_false(shadow_map_next(&map, &patch, PAGE, SIZE_2M + 9 * PAGE - 1, &extent));
    shadow_slot_free(&patch.slot);
    /* An empty one hides what is there. */
    assert_next_with(&map, &patch, PAGE, UINT64_MAX,
                     (struct shadow_extent){2 * SIZE_2M, 2 * SIZE_2M + PAGE - 1, 3 * PAGE, RW});
    assert_false(shadow_map_next(&map, &patch, PAGE, 2 * SIZE_2M - 1, &extent));
    /* Not asked for, neither the patch nor what lies before it. */
    put_page(&map, 9 * PAGE, PAGE);
    assert_false(shadow_map_next(&map, &patch, 0, 9 * PAGE - 1, &extent));
    free_map(&map);
}

static void test_patch_of_level_2(void **state)
{
    struct shadow_slot run = run_of_1g(8 * SIZE_1G);
    struct shadow_patch patch = patch_of(2, SIZE_1G);
    struct shadow_map map;

    (void)state;
    shadow_map_init(&map, 3);
    put_page(&map, SIZE_1G + SIZE_2M, PAGE);
    put_page(&map, 2 * SIZE_1G, 2 * PAGE);
    patch.slot = run;
    assert_next_with(&map, &patch, 0, UINT64_MAX,
                     (struct shadow_extent){SIZE_1G, 2 * SIZE_1G - 1, 8 * SIZE_1G, RW});
    assert_next_with(&map, &patch, 2 * SIZE_1G, UINT64_MAX,
                     (struct shadow_extent){2 * SIZE_1G, 2 * SIZE_1G + PAGE - 1, 2 * PAGE, RW});
    assert_int_equal(shadow_slot_break(&run, &patch.slot), 0);
    assert_next_with(&map, &patch, SIZE_1G + SIZE_2M + 5, UINT64_MAX,
                     (struct shadow_extent){SIZE_1G + SIZE_2M, SIZE_1G + 2 * SIZE_2M - 1,
                                            8 * SIZE_1G + SIZE_2M, RW});
    assert_next_with(&map, &patch, 2 * SIZE_1G, UINT64_MAX,
                     (struct shadow_extent){2 * SIZE_1G, 2 * SIZE_1G + PAGE - 1, 2 * PAGE, RW});
    shadow_slot_free(&patch.slot);
    assert_next_with(&map, &patch, 0, UINT64_MAX,
                     (struct shadow_extent){2 * SIZE_1G, 2 * SIZE_1G + PAGE - 1, 2 * PAGE, RW});
    free_map(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_targets_do_not_wrap),
        cmocka_unit_test(test_bad_entries),
        cmocka_unit_test(test_transitions),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_first_and_last_pages),
        cmocka_unit_test(test_extents_end_at_borders),
        cmocka_unit_test(test_run_of_level_2),
        cmocka_unit_test(test_break),
        cmocka_unit_test(test_nodes_are_pruned),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_free_some),
        cmocka_unit_test(test_patch),
        cmocka_unit_test(test_patch_of_level_2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
