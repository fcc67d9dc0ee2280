/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of layouts, without an instance: a mirror, slots, allowed ranges, and a map, made by hand.
 *
 * Besides single cases, small spaces are filled at random and every question about them is asked:
 * what pieces there are is then told page by page, by something that knows nothing of trees.
 */
#include "iommu/iommu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define PAGE UINT64_C(4096)
#define PAGES 48u /* of a small space */
#define SLOTS 8u
#define READ VIOMMU_READ
#define WRITE VIOMMU_WRITE
#define BOTH (VIOMMU_READ | VIOMMU_WRITE)

/* A mirror with what its layouts are made of. */
struct space {
    struct mirror mirror;
    struct allowed_list *allowed;
    struct memory_list *memory;
    struct shadow shadow;
    struct layout layout;
};

static struct space space;

static int setup(void **state)
{
    (void)state;
    space = (struct space){0};
    space.allowed = calloc(1, sizeof(*space.allowed) + SLOTS * sizeof(space.allowed->ranges[0]));
    assert_non_null(space.allowed);
    space.mirror.allowed = space.allowed;
    space.allowed->ranges[0].last = UINT64_MAX;
    space.allowed->count = 1;
    range_map_init(&space.mirror.odd);
    shadow_map_init(&space.shadow.map, 3);
    space.memory = calloc(1, sizeof(*space.memory) + SLOTS * sizeof(space.memory->slots[0]));
    assert_non_null(space.memory);
    space.layout = (struct layout){.shadow = &space.shadow, .memory = space.memory};
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    range_map_fini(&space.mirror.odd);
    while (!shadow_map_free_some(&space.shadow.map, 64)) {
    }
    free(space.memory);
    free(space.allowed);
    return 0;
}

static void add_slot(uint64_t first, uint64_t last, uint32_t flags)
{
    struct memory_list *list = space.memory;

    assert_true(list->count < SLOTS);
    list->slots[list->count++] =
        (struct viommu_memory_slot){.first = first, .last = last, .flags = flags};
}

/* Puts values into the map's first block; SHADOW_START is set where it has to be, and as given. */
static void fill(uint64_t *values)
{
    struct shadow_slot slot;

    for (unsigned i = 0; i < SHADOW_PAGES; i++) {
        uint64_t before = i ? values[i - 1] : 0;

        if ((values[i] & SHADOW_PERM) &&
            (!(before & SHADOW_PERM) ||
             (values[i] & ~SHADOW_START) != (before & ~SHADOW_START) + PAGE)) {
            values[i] |= SHADOW_START;
        }
    }
    assert_int_equal(shadow_slot_build(values, false, &slot), 0);
    if (slot.kind != SHADOW_EMPTY) {
        assert_int_equal(shadow_map_reserve(&space.shadow.map, 1, 0), 0);
    }
    shadow_map_replace(&space.shadow.map, 1, 0, &slot);
    space.layout.kind = VIEW_TABLES;
}

/* One extent of `pages` pages. */
static void extent(uint64_t first, unsigned pages, uint64_t gpa, uint64_t perm)
{
    static uint64_t values[SHADOW_PAGES];

    memset(values, 0, sizeof(values));
    for (unsigned i = 0; i < pages; i++) {
        values[first / PAGE + i] = (gpa + i * PAGE) | perm;
    }
    fill(values);
}

static void expect_piece(uint64_t from, uint64_t last, uint64_t piece_first, uint64_t piece_last,
                         uint64_t gpa, uint32_t perm)
{
    struct shadow_extent piece;

    assert_true(layout_piece(&space.mirror, &space.layout, from, last, &piece));
    assert_int_equal(piece.first, piece_first);
    assert_int_equal(piece.last, piece_last);
    assert_int_equal(piece.gpa, gpa);
    assert_int_equal(piece.perm, perm);
}

static void expect_none(uint64_t from, uint64_t last)
{
    struct shadow_extent piece;

    assert_false(layout_piece(&space.mirror, &space.layout, from, last, &piece));
}

static void test_nothing(void **state)
{
    (void)state;
    add_slot(0, UINT64_MAX, 0);
    space.layout.kind = VIEW_NONE;
    expect_none(0, UINT64_MAX);
}

static void test_slots_of_a_list(void **state)
{
    const struct memory_list *list = space.memory;

    (void)state;
    assert_null(memory_list_from(list, 0));
    add_slot(0x1000, 0x1fff, 0);
    add_slot(0x3000, 0x5fff, 0);
    add_slot(0x6000, 0x6fff, 0);
    assert_ptr_equal(memory_list_from(list, 0), &list->slots[0]);
    assert_ptr_equal(memory_list_from(list, 0x1000), &list->slots[0]);
    assert_ptr_equal(memory_list_from(list, 0x1fff), &list->slots[0]);
    assert_ptr_equal(memory_list_from(list, 0x2000), &list->slots[1]);
    assert_ptr_equal(memory_list_from(list, 0x5fff), &list->slots[1]);
    assert_ptr_equal(memory_list_from(list, 0x6000), &list->slots[2]);
    assert_null(memory_list_from(list, 0x7000));
}

static void test_identity(void **state)
{
    (void)state;
    space.layout.kind = VIEW_IDENTITY;
    space.layout.last = 0x9fff;
    add_slot(0x1000, 0x3fff, 0);
    add_slot(0x4000, 0x4fff, VIOMMU_MEMORY_READONLY);
    add_slot(0x8000, 0xbfff, 0);
    add_slot(0xc000, 0xcfff, 0);
    expect_piece(0, UINT64_MAX, 0x1000, 0x3fff, 0x1000, BOTH);
    expect_piece(0x2345, 0x2345, 0x1000, 0x3fff, 0x1000, BOTH);
    expect_piece(0x4000, UINT64_MAX, 0x4000, 0x4fff, 0x4000, READ);
    expect_piece(0x5000, 0x8000, 0x8000, 0x9fff, 0x8000, BOTH);
    expect_piece(0x9fff, UINT64_MAX, 0x8000, 0x9fff, 0x8000, BOTH);
    expect_none(0x5000, 0x7fff);
    expect_none(0, 0xfff);
    expect_none(0xa000, UINT64_MAX);
}

/* The whole space, up to its last address. */
static void test_identity_of_everything(void **state)
{
    (void)state;
    space.layout.kind = VIEW_IDENTITY;
    space.layout.last = UINT64_MAX;
    add_slot(0, UINT64_MAX, 0);
    expect_piece(0, UINT64_MAX, 0, UINT64_MAX, 0, BOTH);
    expect_piece(UINT64_MAX, UINT64_MAX, 0, UINT64_MAX, 0, BOTH);
    space.allowed->ranges[0] = (struct viommu_range){0x1000, UINT64_MAX - 0x1000};
    expect_piece(0, UINT64_MAX, 0x1000, UINT64_MAX - 0x1000, 0x1000, BOTH);
    expect_none(UINT64_MAX - 0xfff, UINT64_MAX);
    expect_none(0, 0xfff);
}

static void test_not_allowed(void **state)
{
    (void)state;
    space.allowed->ranges[0] = (struct viommu_range){0x2000, 0x2fff};
    space.allowed->ranges[1] = (struct viommu_range){0x5000, 0x6fff};
    space.allowed->count = 2;
    add_slot(0, 0xfffff, 0);
    extent(0x1000, 8, 0x81000, BOTH);
    expect_piece(0, UINT64_MAX, 0x2000, 0x2fff, 0x82000, BOTH);
    expect_piece(0x3000, UINT64_MAX, 0x5000, 0x6fff, 0x85000, BOTH);
    expect_piece(0x6fff, UINT64_MAX, 0x5000, 0x6fff, 0x85000, BOTH);
    expect_none(0x3000, 0x4fff);
    expect_none(0x7000, UINT64_MAX);
    expect_none(0, 0x1fff);
    space.allowed->count = 0;
    expect_none(0, UINT64_MAX);
}

/* One extent, that leads to two slots, to nothing between them, and to nothing behind them. */
static void test_slots_of_an_extent(void **state)
{
    (void)state;
    add_slot(0x81000, 0x82fff, 0);
    add_slot(0x83000, 0x83fff, 0);
    add_slot(0x86000, 0x86fff, VIOMMU_MEMORY_READONLY);
    extent(0x0000, 9, 0x80000, BOTH);
    expect_piece(0, UINT64_MAX, 0x1000, 0x2fff, 0x81000, BOTH);
    expect_piece(0x2fff, UINT64_MAX, 0x1000, 0x2fff, 0x81000, BOTH);
    expect_piece(0x3000, UINT64_MAX, 0x3000, 0x3fff, 0x83000, BOTH);
    expect_piece(0x4000, UINT64_MAX, 0x6000, 0x6fff, 0x86000, READ);
    expect_piece(0x4000, 0x6000, 0x6000, 0x6fff, 0x86000, READ);
    expect_none(0x4000, 0x5fff);
    expect_none(0x7000, UINT64_MAX);
}

/* What may only be written and leads to ROM is not there at all; what follows is. */
static void test_write_only_rom(void **state)
{
    (void)state;
    add_slot(0x80000, 0x81fff, VIOMMU_MEMORY_READONLY);
    add_slot(0x82000, 0x83fff, 0);
    extent(0x1000, 4, 0x80000, WRITE);
    expect_piece(0, UINT64_MAX, 0x3000, 0x4fff, 0x82000, WRITE);
    expect_none(0x1000, 0x2fff);
    space.memory->count = 1;
    expect_none(0, UINT64_MAX);
}

/* An extent without memory is passed over. */
static void test_next_extent(void **state)
{
    static uint64_t values[SHADOW_PAGES];

    (void)state;
    values[1] = 0x70000 | BOTH;
    values[5] = 0x80000 | READ;
    fill(values);
    memset(values, 0, sizeof(values));
    add_slot(0x80000, 0x80fff, 0);
    expect_piece(0, UINT64_MAX, 0x5000, 0x5fff, 0x80000, READ);
    expect_none(0, 0x4fff);
    expect_none(0, 0x1fff);
}

/* A patch is read in place of what it covers. */
static void test_patch(void **state)
{
    static uint64_t values[SHADOW_PAGES];
    struct shadow_patch patch = {.last = 0x1fffff, .level = 1};

    (void)state;
    add_slot(0, 0xfffff, 0);
    extent(0x1000, 2, 0x80000, BOTH);
    values[4] = 0x90000 | READ | SHADOW_START;
    assert_int_equal(shadow_slot_build(values, false, &patch.slot), 0);
    values[4] = 0;
    space.layout.patch = &patch;
    expect_piece(0, UINT64_MAX, 0x4000, 0x4fff, 0x90000, READ);
    space.layout.patch = NULL;
    expect_piece(0, UINT64_MAX, 0x1000, 0x2fff, 0x80000, BOTH);
    shadow_slot_free(&patch.slot);
}

static void add_odd(uint64_t first, uint64_t last, uint64_t gpa, uint32_t perm)
{
    struct range_run run = {first, last, gpa, perm};

    assert_int_equal(range_map_insert(&space.mirror.odd, &run), 0);
}

static void expect_given(uint64_t from, uint64_t last, uint64_t first, uint64_t given_last,
                         uint64_t gpa, uint32_t perm)
{
    struct shadow_extent given;

    assert_true(layout_given(&space.mirror, &space.layout, from, last, &given));
    assert_int_equal(given.first, first);
    assert_int_equal(given.last, given_last);
    assert_int_equal(given.gpa, gpa);
    assert_int_equal(given.perm, perm);
}

/* Odd mappings are there as they are; pieces are what they leave. */
static void test_given(void **state)
{
    struct shadow_extent given;

    (void)state;
    add_slot(0, 0xfffff, 0);
    extent(0x1000, 8, 0x81000, BOTH);
    expect_given(0, UINT64_MAX, 0x1000, 0x8fff, 0x81000, BOTH);
    add_odd(0x3000, 0x3fff, 0x83000, BOTH);
    add_odd(0x6000, 0x6fff, 0x86000, BOTH);
    expect_given(0, UINT64_MAX, 0x1000, 0x2fff, 0x81000, BOTH);
    expect_given(0x3000, UINT64_MAX, 0x3000, 0x3fff, 0x83000, BOTH);
    expect_given(0x4000, UINT64_MAX, 0x4000, 0x5fff, 0x84000, BOTH);
    expect_given(0x5000, 0x6000, 0x4000, 0x5fff, 0x84000, BOTH);
    expect_given(0x7000, UINT64_MAX, 0x7000, 0x8fff, 0x87000, BOTH);
    assert_false(layout_given(&space.mirror, &space.layout, 0x9000, UINT64_MAX, &given));
}

/* An odd mapping may lie where the layout has nothing between two pieces. */
static void test_given_only_odd(void **state)
{
    struct shadow_extent given;

    (void)state;
    space.layout.kind = VIEW_NONE;
    add_odd(0x3000, 0x3fff, 0x83000, READ);
    expect_given(0, 0x3000, 0x3000, 0x3fff, 0x83000, READ);
    expect_given(0x3fff, 0x3fff, 0x3000, 0x3fff, 0x83000, READ);
    assert_false(layout_given(&space.mirror, &space.layout, 0, 0x2fff, &given));
    assert_false(layout_given(&space.mirror, &space.layout, 0x4000, UINT64_MAX, &given));
}

static bool agrees(uint64_t first, uint64_t last, uint64_t gpa, uint32_t perm)
{
    struct shadow_extent mapping = {first, last, gpa, perm};
    uint64_t at = first;
    enum answer answer;

    do {
        answer = layout_agrees(&space.mirror, &space.layout, &mapping, &at);
    } while (answer == ANSWER_LATER);
    return answer == ANSWER_YES;
}

static void test_agrees(void **state)
{
    (void)state;
    add_slot(0x81000, 0x83fff, 0);
    add_slot(0x84000, 0x85fff, 0);
    add_slot(0x86000, 0x86fff, VIOMMU_MEMORY_READONLY);
    extent(0x1000, 8, 0x81000, BOTH);
    assert_true(agrees(0x1000, 0x3fff, 0x81000, BOTH));
    assert_true(agrees(0x2000, 0x2fff, 0x82000, BOTH));
    assert_true(agrees(0x1000, 0x5fff, 0x81000, BOTH)); /* two pieces */
    assert_true(agrees(0x3000, 0x4fff, 0x83000, BOTH));
    assert_true(agrees(0x6000, 0x6fff, 0x86000, READ));
    assert_false(agrees(0x5000, 0x6fff, 0x85000, BOTH)); /* ROM behind */
    assert_false(agrees(0x0000, 0x1fff, 0x80000, BOTH));
    assert_false(agrees(0x6000, 0x7fff, 0x86000, READ)); /* no memory behind */
    assert_false(agrees(0x1000, 0x1fff, 0x82000, BOTH));
    assert_false(agrees(0x1000, 0x1fff, 0x81000, READ));
    assert_false(agrees(0xa000, 0xafff, 0x8a000, BOTH));
}

static void test_common(void **state)
{
    struct shadow_extent a = {0x1000, 0x3fff, 0x81000, BOTH};
    struct shadow_extent b = {0x2000, 0x8fff, 0x82000, BOTH};

    (void)state;
    assert_int_equal(layout_common(&a, &a), 0x3000);
    assert_int_equal(layout_common(&a, &b), 0x2000);
    assert_int_equal(layout_common(&b, &a), 0x2000);
    b.perm = READ;
    assert_int_equal(layout_common(&a, &b), 0);
    b = (struct shadow_extent){0x2000, 0x8fff, 0x83000, BOTH};
    assert_int_equal(layout_common(&a, &b), 0);
    b = (struct shadow_extent){0x4000, 0x4fff, 0x84000, BOTH};
    assert_int_equal(layout_common(&a, &b), 0);
    b = (struct shadow_extent){0x3000, 0x3fff, 0x83000, BOTH};
    assert_int_equal(layout_common(&a, &b), 0x1000);
}

/* Every other page, to `gpa` and on from there; each one an extent. */
static void scatter(unsigned count, uint64_t gpa, unsigned step)
{
    static uint64_t values[SHADOW_PAGES];

    memset(values, 0, sizeof(values));
    for (unsigned i = 0; i < count; i++) {
        values[i * step] = (gpa + i * PAGE) | BOTH | SHADOW_START;
    }
    fill(values);
}

/* So many extents that lead to no memory are for several questions. */
static void test_looks(void **state)
{
    struct shadow_extent piece;
    uint64_t later = 0;

    (void)state;
    add_slot(0x80000 + 200 * PAGE, 0x80000 + 201 * PAGE - 1, 0);
    scatter(201, 0x80000, 2);
    assert_int_equal(layout_look(&space.mirror, &space.layout, 0, UINT64_MAX, &piece, &later),
                     ANSWER_LATER);
    assert_int_equal(later, 127 * PAGE); /* behind the 64th */
    assert_int_equal(layout_look(&space.mirror, &space.layout, 0, 127 * PAGE - 1, &piece, &later),
                     ANSWER_NO);
    assert_int_equal(layout_look(&space.mirror, &space.layout, 337 * PAGE, UINT64_MAX, &piece,
                                 &later),
                     ANSWER_YES);
    assert_int_equal(piece.first, 400 * PAGE);
    expect_piece(0, UINT64_MAX, 400 * PAGE, 401 * PAGE - 1, 0x80000 + 200 * PAGE, BOTH);
    expect_given(0, UINT64_MAX, 400 * PAGE, 401 * PAGE - 1, 0x80000 + 200 * PAGE, BOTH);
    add_odd(300 * PAGE, 301 * PAGE - 1, 0, READ);
    assert_int_equal(layout_look_given(&space.mirror, &space.layout, 0, UINT64_MAX, &piece,
                                       &later),
                     ANSWER_LATER);
    assert_int_equal(later, 127 * PAGE);
    expect_given(0, UINT64_MAX, 300 * PAGE, 301 * PAGE - 1, 0, READ);
}

static void test_looks_at_agreement(void **state)
{
    struct shadow_extent mapping = {0, 200 * PAGE - 1, 0x80000, BOTH};
    uint64_t at = 0;

    (void)state;
    add_slot(0, 0x7fffff, 0);
    scatter(200, 0x80000, 1);
    assert_int_equal(layout_agrees(&space.mirror, &space.layout, &mapping, &at), ANSWER_LATER);
    assert_int_equal(at, 64 * PAGE);
    assert_true(agrees(0, 200 * PAGE - 1, 0x80000, BOTH));
    assert_false(agrees(0, 201 * PAGE - 1, 0x80000, BOTH));
    at = 190 * PAGE;
    assert_int_equal(layout_agrees(&space.mirror, &space.layout, &mapping, &at), ANSWER_YES);
}

/* ---- every question about a small space ------------------------------------------------------ */

/* What a page is: which piece it belongs to (0: none), and where it leads. */
struct page {
    unsigned piece;
    uint64_t gpa;
    uint32_t perm;
};

static uint32_t seed;

static unsigned random_below(unsigned n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static const struct viommu_memory_slot *slot_of(uint64_t gpa)
{
    for (size_t i = 0; i < space.memory->count; i++) {
        if (gpa >= space.memory->slots[i].first && gpa <= space.memory->slots[i].last) {
            return &space.memory->slots[i];
        }
    }
    return NULL;
}

static const struct viommu_range *range_of(uint64_t address)
{
    for (size_t i = 0; i < space.allowed->count; i++) {
        if (address >= space.allowed->ranges[i].first && address <= space.allowed->ranges[i].last) {
            return &space.allowed->ranges[i];
        }
    }
    return NULL;
}

/* Extents of random length, often contiguous with the one before. */
static void random_values(uint64_t *values)
{
    uint64_t value = 0;

    memset(values, 0, SHADOW_PAGES * sizeof(*values));
    for (unsigned i = 0; i < PAGES; i++) {
        switch (random_below(8)) {
        case 0:
            value = 0;
            break;
        case 1:
            value = (uint64_t)random_below(PAGES) * PAGE | (1 + random_below(3)) | SHADOW_START;
            break;
        case 2:
            value = value ? (value + PAGE) | SHADOW_START : 0;
            break;
        default:
            value = value ? (value & ~SHADOW_START) + PAGE : 0;
        }
        values[i] = value;
    }
}

static void random_space(uint64_t *values)
{
    uint64_t at = 0;

    random_values(values);
    fill(values);
    space.memory->count = 0;
    for (unsigned i = 0; i < SLOTS && at < PAGES; i++) {
        uint64_t first = at + random_below(2) * random_below(4);
        uint64_t pages = 1 + random_below(12);

        add_slot(first * PAGE, (first + pages) * PAGE - 1,
                 random_below(4) ? 0 : VIOMMU_MEMORY_READONLY);
        at = first + pages;
    }
    at = random_below(4);
    space.allowed->count = 1 + random_below(4);
    for (unsigned i = 0; i < space.allowed->count; i++) {
        uint64_t pages = 1 + random_below(20);

        space.allowed->ranges[i] = (struct viommu_range){at * PAGE, (at + pages) * PAGE - 1};
        at += pages + 1 + random_below(3);
    }
}

/* The pages of the layout, one by one. */
static void pages_fill(struct page *pages, const uint64_t *values)
{
    const struct viommu_memory_slot *slot_before = NULL;
    const struct viommu_range *range_before = NULL;
    unsigned number = 0;

    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t gpa = values[i] & SHADOW_TARGET;
        const struct viommu_memory_slot *slot = slot_of(gpa);
        const struct viommu_range *range = range_of(i * PAGE);

        pages[i] = (struct page){0};
        if ((values[i] & SHADOW_PERM) && slot && range) {
            pages[i].gpa = gpa;
            pages[i].perm = (uint32_t)(values[i] & SHADOW_PERM);
            if (slot->flags & VIOMMU_MEMORY_READONLY) {
                pages[i].perm &= ~WRITE;
            }
        }
        if (pages[i].perm) {
            if (!i || !pages[i - 1].perm || (values[i] & SHADOW_START) || slot != slot_before ||
                range != range_before) {
                number++;
            }
            pages[i].piece = number;
        }
        slot_before = slot;
        range_before = range;
    }
}

/* Asks for the first piece in [from, last], halves of pages, both ways. */
static void ask(const struct page *pages, unsigned from, unsigned last, bool given)
{
    struct shadow_extent piece;
    uint64_t half = PAGE / 2;
    unsigned first = from / 2;
    unsigned end;
    bool (*look)(const struct mirror *, const struct layout *, uint64_t, uint64_t,
                 struct shadow_extent *) = given ? layout_given : layout_piece;
    bool found = look(&space.mirror, &space.layout, from * half, last * half, &piece);

    while (first <= last / 2 && !pages[first].piece) {
        first++;
    }
    assert_int_equal(found, first <= last / 2);
    if (!found) {
        return;
    }
    end = first;
    while (first && pages[first - 1].piece == pages[first].piece) {
        first--;
    }
    while (end + 1 < PAGES && pages[end + 1].piece == pages[end].piece) {
        end++;
    }
    assert_int_equal(piece.first, first * PAGE);
    assert_int_equal(piece.last, end * PAGE + PAGE - 1);
    assert_int_equal(piece.gpa, pages[first].gpa);
    assert_int_equal(piece.perm, pages[first].perm);
}

static void ask_everything(const struct page *pages, bool given)
{
    for (unsigned from = 0; from < PAGES * 2; from++) {
        for (unsigned last = from; last < PAGES * 2; last++) {
            ask(pages, from, last, given);
        }
    }
}

static void test_every_piece(void **state)
{
    static uint64_t values[SHADOW_PAGES];
    struct page pages[PAGES];

    (void)state;
    for (seed = 1; seed <= 60; seed++) {
        uint32_t kept = seed;

        seed *= 7919;
        random_space(values);
        pages_fill(pages, values);
        ask_everything(pages, false);
        ask_everything(pages, true);
        seed = kept;
    }
}

/* Odd mappings, that cut pieces and are cut by none. */
static void random_odd(struct page *pages)
{
    unsigned at = random_below(6);
    unsigned number = 1000;

    range_map_fini(&space.mirror.odd);
    while (at < PAGES) {
        unsigned count = 1 + random_below(4);
        uint64_t gpa = random_below(PAGES) * PAGE;
        unsigned end = at + count < PAGES ? at + count : PAGES;

        number += 2;
        add_odd(at * PAGE, end * PAGE - 1, gpa, READ);
        for (unsigned i = at; i < end; i++) {
            pages[i] = (struct page){number, gpa + (i - at) * PAGE, READ};
        }
        at = end + random_below(3) * random_below(6);
    }
}

static void test_every_given(void **state)
{
    static uint64_t values[SHADOW_PAGES];
    struct page pages[PAGES];

    (void)state;
    for (seed = 1; seed <= 60; seed++) {
        uint32_t kept = seed;

        seed *= 104729;
        random_space(values);
        pages_fill(pages, values);
        random_odd(pages);
        ask_everything(pages, true);
        seed = kept;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slots_of_a_list, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_identity_of_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_allowed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slots_of_an_extent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_only_rom, setup, teardown),
        cmocka_unit_test_setup_teardown(test_next_extent, setup, teardown),
        cmocka_unit_test_setup_teardown(test_patch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given, setup, teardown),
        cmocka_unit_test_setup_teardown(test_given_only_odd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_agrees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_common, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_looks_at_agreement, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_piece, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_given, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
