/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Random walks: tables, views and guest memory of a few pages change at random, and mirrors of each
 * kind hold, after each change, page for page what the tables, read by hand, say.
 *
 * Besides what test_mirror.h checks, nothing may be taken away and be made again just as it was,
 * and where calls fail what was not mapped is told to be missing.
 */
#include "shadow/test_mirror.h"

#include <errno.h>

#define ID 0x28
#define WINDOW_PAGES 16u
#define WINDOW (BIG + SIZE_2M - 8 * PAGE) /* across the border of a block */
#define MEMORY_PAGES 4u                   /* of a slot; there are four */
#define STEPS 150u
#define SEEDS 12u

enum fault {
    NO_FAULTS,
    MAPS_FAIL,
    ALL_PENDING,
};

static struct world world;
static struct test_mirror *m;
static struct shadow_view tables[2];
static bool slots[WINDOW_PAGES / MEMORY_PAGES];
static struct shadow_extent before[MAPPED_MAX];
static unsigned before_count;
static unsigned unmapped_first; /* of the told text: where a step begins */
static uint32_t seed;

static unsigned random_below(unsigned n)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % n;
}

static void slot_toggle(unsigned i)
{
    uint64_t first = WINDOW + i * MEMORY_PAGES * PAGE;
    uint64_t last = first + MEMORY_PAGES * PAGE - 1;

    slots[i] = !slots[i];
    if (slots[i]) {
        world_add(&world, first, last, i == 2 ? VIOMMU_MEMORY_READONLY : 0);
    } else {
        (void)world_remove(&world, first, last);
    }
}

static void begin(uint32_t kinds, enum viommu_form form, bool spans, uint64_t max)
{
    world = (struct world){.budget = random_below(2)};
    world.backing = mmap(NULL, BACKING, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         -1, 0);
    assert_ptr_not_equal(world.backing, MAP_FAILED);
    world.next_table = PAGE;
    model_create(&world.model);
    model_add_ram(&world.model, 0, MODEL_RAM - 1, 0);
    memset(slots, 0, sizeof(slots));
    for (unsigned i = 0; i < 3; i++) {
        slot_toggle(i);
    }
    tables[0] = world_tables(&world);
    tables[1] = world_tables(&world);
    tables[1].domain = DOMAIN + 1;
    world.model.view = tables[0];
    assert_int_equal(viommu_start(&world.model.iommu), 0);
    m = mirror_create(&world, ID);
    m->what.kinds |= kinds;
    m->what.form = form;
    m->what.unmap_spans = spans;
    m->what.mappings_max = max;
    m->what.range = (struct viommu_range){MODEL_RAM, UINT64_MAX};
    assert_int_equal(mirror_subscribe(m), 0);
    world_process(&world);
}

static uint64_t address(unsigned page)
{
    return WINDOW + page * PAGE;
}

/* What a page of the view should lead to; 0: nothing. */
static uint64_t expected(unsigned page)
{
    uint64_t value = 0;
    uint64_t gpa;

    if (world.model.view.kind == VIEW_IDENTITY) {
        value = address(page) | RW;
    } else if (world.model.view.kind == VIEW_TABLES) {
        world.tables = world.model.view;
        value = *world_entry(&world, address(page), 0);
    }
    gpa = value & PAGETABLE_ADDRESS;
    if (!(value & RW) || (value & MODEL_RESERVED) || gpa < WINDOW ||
        gpa >= WINDOW + WINDOW_PAGES * PAGE || !slots[(gpa - WINDOW) / PAGE / MEMORY_PAGES]) {
        return 0;
    }
    if ((gpa - WINDOW) / PAGE / MEMORY_PAGES == 2) {
        value &= ~UINT64_C(2);
    }
    return value & RW ? gpa | (value & RW) : 0;
}

static uint64_t held(uint64_t iova)
{
    for (unsigned i = 0; i < m->mapped_count; i++) {
        const struct shadow_extent *mapping = &m->mapped[i];

        if (mapping->first <= iova && mapping->last >= iova) {
            return (mapping->gpa + (iova - mapping->first)) | mapping->perm;
        }
    }
    return 0;
}

static uint64_t missed(uint64_t iova)
{
    struct range_run run;

    if (!range_map_find(&m->subscriber->mirror->missing, iova, &run)) {
        return 0;
    }
    return (run.target + (iova - run.first)) | run.tag;
}

static void check_pages(void)
{
    for (unsigned i = 0; i < WINDOW_PAGES; i++) {
        uint64_t missing = missed(address(i));

        assert_true(!missing || !held(address(i)));
        assert_int_equal(held(address(i)) | missing, expected(i));
    }
}

/* What is held as it was before was not touched. */
static void check_untouched(void)
{
    for (unsigned i = 0; i < before_count; i++) {
        char text[64];

        if (!mirror_holds(m, &before[i])) {
            continue;
        }
        snprintf(text, sizeof(text), "-%llx-", (unsigned long long)before[i].first);
        assert_null(strstr(m->told + unmapped_first, text));
    }
}

static void step_begin(void)
{
    if (m->told_length > TOLD_MAX / 2) {
        m->told_length = 0;
        m->told[0] = 0;
    }
    unmapped_first = (unsigned)m->told_length;
    before_count = m->mapped_count;
    memcpy(before, m->mapped, sizeof(before));
}

/* To the end, with answers that come late. */
static void finish(void)
{
    for (unsigned i = 0; i < 1000; i++) {
        world_run(&world);
        if (m->pending) {
            mirror_complete(m, 0);
        } else if (world.model.iommu.follow.phase == FOLLOW_IDLE && !world_follow(&world)->wanted &&
                   !world_follow(&world)->notes && !viommu_memory_process(world.model.memory)) {
            break;
        }
    }
    world_process(&world);
}

/* Changes some entries of one of the tables, and has all of it looked at. */
static void change_tables(void)
{
    unsigned which = random_below(2);
    unsigned changes = 1 + random_below(6);

    world.tables = tables[which];
    while (changes--) {
        unsigned page = random_below(WINDOW_PAGES);
        unsigned count = 1 + random_below(5);
        unsigned target = random_below(3) ? page : random_below(WINDOW_PAGES);
        uint64_t flags = random_below(4) ? RW : random_below(4);

        for (unsigned i = 0; i < count && page + i < WINDOW_PAGES; i++) {
            *world_entry(&world, address(page + i), 0) =
                flags ? (address(target + i) | flags) : 0;
        }
    }
    (void)world_ask(&world, tables[which].domain, WINDOW, WINDOW + WINDOW_PAGES * PAGE - 1,
                    VIOMMU_CAUSE_PAGES);
}

static void change_view(void)
{
    switch (random_below(4)) {
    case 0:
        world_show(&world, (struct shadow_view){0});
        break;
    case 1:
        world_show(&world, world_identity());
        break;
    default:
        world_show(&world, tables[random_below(2)]);
        break;
    }
}

static void run(uint32_t kinds, enum viommu_form form, bool spans, uint64_t max, enum fault fault)
{
    for (uint32_t number = 1; number <= SEEDS; number++) {
        seed = number * 7919;
        begin(kinds, form, spans, max);
        for (unsigned i = 0; i < STEPS; i++) {
            step_begin();
            if (fault == ALL_PENDING) {
                mirror_answers(m, 1, VIOMMU_PENDING, true, 0);
            } else if (fault == MAPS_FAIL) {
                mirror_answers(m, 1 + random_below(4), -EBUSY, random_below(2), VIOMMU_CHANGE_MAP);
            }
            switch (random_below(6)) {
            case 0:
                slot_toggle(random_below(WINDOW_PAGES / MEMORY_PAGES));
                break;
            case 1:
            case 2:
                change_view();
                break;
            default:
                change_tables();
                break;
            }
            finish();
            assert_false(m->subscriber->fenced);
            check_pages();
            if (fault != MAPS_FAIL && form == VIOMMU_FORM_RANGE && !max) {
                check_untouched();
            }
        }
        world_destroy(&world);
    }
}

static void test_ranges(void **state)
{
    (void)state;
    run(0, VIOMMU_FORM_RANGE, false, 0, NO_FAULTS);
}

static void test_spans(void **state)
{
    (void)state;
    run(0, VIOMMU_FORM_RANGE, true, 0, NO_FAULTS);
}

static void test_replace(void **state)
{
    (void)state;
    run(VIOMMU_CHANGE_REPLACE | VIOMMU_CHANGE_SKIPPED, VIOMMU_FORM_RANGE, false, 0, NO_FAULTS);
}

static void test_blocks(void **state)
{
    (void)state;
    run(VIOMMU_CHANGE_REPLACE, VIOMMU_FORM_POW2, false, 0, NO_FAULTS);
}

static void test_limit(void **state)
{
    (void)state;
    run(0, VIOMMU_FORM_RANGE, true, 5, NO_FAULTS);
}

static void test_failures(void **state)
{
    (void)state;
    run(0, VIOMMU_FORM_RANGE, true, 0, MAPS_FAIL);
    run(VIOMMU_CHANGE_REPLACE, VIOMMU_FORM_POW2, false, 0, MAPS_FAIL);
}

static void test_pending(void **state)
{
    (void)state;
    run(VIOMMU_CHANGE_REPLACE, VIOMMU_FORM_RANGE, false, 0, ALL_PENDING);
    run(0, VIOMMU_FORM_POW2, false, 6, ALL_PENDING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges),  cmocka_unit_test(test_spans),
        cmocka_unit_test(test_replace), cmocka_unit_test(test_blocks),
        cmocka_unit_test(test_limit),   cmocka_unit_test(test_failures),
        cmocka_unit_test(test_pending),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
