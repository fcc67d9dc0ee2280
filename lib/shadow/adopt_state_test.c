/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of what a state says of mirrors: what is refused, and what a lack of memory does.
 */
#include "shadow/test_adopt.h"

#include <errno.h>

/* ---- what is refused ------------------------------------------------------------------------- */

/* A state with one mirror whose part is written by hand. */
struct hand {
    uint8_t form;
    uint8_t fenced;
    struct viommu_range range;
    uint64_t given_count;
    struct shadow_extent given[3];
    uint64_t missing_count;
    struct shadow_extent missing[2];
    unsigned more; /* bytes behind it */
};

static void hand_write(const struct hand *hand)
{
    struct save_reader reader;
    struct save_section section;
    struct save_writer writer;
    void *data;

    assert_int_equal(save_open(&reader, SAVE_INSTANCE, state.data, state.size), 0);
    save_writer_init(&writer, SAVE_INSTANCE);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(save_next(&reader, &section));
        save_begin(&writer, section.kind, section.instance, section.version, section.flags);
        save_put_bytes(&writer, section.at, section.left);
        save_end(&writer);
    }
    assert_true(save_next(&reader, &section));
    save_begin(&writer, section.kind, section.instance, section.version, section.flags);
    save_put32(&writer, 0);
    save_put8(&writer, hand->form);
    save_put8(&writer, hand->fenced);
    save_put64(&writer, hand->range.first);
    save_put64(&writer, hand->range.last);
    save_put64(&writer, hand->given_count);
    for (unsigned i = 0; i < 3 && i < hand->given_count; i++) {
        save_put64(&writer, hand->given[i].first);
        save_put64(&writer, hand->given[i].last);
        save_put64(&writer, hand->given[i].gpa);
        save_put8(&writer, (uint8_t)hand->given[i].perm);
    }
    save_put64(&writer, hand->missing_count);
    for (unsigned i = 0; i < 2 && i < hand->missing_count; i++) {
        save_put64(&writer, hand->missing[i].first);
        save_put64(&writer, hand->missing[i].last);
        save_put64(&writer, hand->missing[i].gpa);
        save_put8(&writer, (uint8_t)hand->missing[i].perm);
    }
    for (unsigned i = 0; i < hand->more; i++) {
        save_put8(&writer, 0);
    }
    save_end(&writer);
    viommu_save_free(state.data);
    assert_int_equal(save_finish(&writer, &data, &state.size), 0);
    state.data = data;
}

#define ALL {0, UINT64_MAX}
#define RANGE VIOMMU_FORM_RANGE
#define POW2 VIOMMU_FORM_POW2

struct state_case {
    struct hand hand;
    int ret;
};

/* Loads each; an instance that refuses one goes on as if nothing had been. */
static void try_states(const struct state_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        m->what.adopt = false;
        save();
        hand_write(&cases[i].hand);
        restart();
        assert_int_equal(load(), cases[i].ret);
        if (cases[i].ret) {
            assert_int_equal(viommu_start(&world.model.iommu), -EBUSY);
            assert_false(m->subscriber->mirror->adopting);
            assert_int_equal(m->subscriber->mirror->odd.count, 0);
            assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
            m->what.adopt = false;
            assert_int_equal(mirror_subscribe(m), 0);
            assert_int_equal(viommu_start(&world.model.iommu), 0);
        } else {
            expect_same();
        }
    }
    /* What was loaded last was not true: nothing is told. */
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
}

static void test_states_that_cannot_be(void **unused)
{
    static const struct state_case cases[] = {
        {{RANGE, 0, ALL, 0, {{0}}, 0, {{0}}, 0}, 0},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 0, {{0}}, 0}, 0},
        {{RANGE, 0, ALL, 1, {{0, UINT64_MAX, 0, RW}}, 0, {{0}}, 0}, 0},
        {{RANGE, 0, ALL, 2, {{0x1000, 0x1fff, BIG, RW}, {0x2000, 0x2fff, BIG, RO}}, 1,
          {{0x1000, 0x1fff, BIG, RW}}, 0}, 0},
        {{2, 0, ALL, 0, {{0}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 2, ALL, 0, {{0}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 0, {{0}}, 0, {{0}}, 1}, -EBADMSG},
        {{POW2, 0, ALL, 0, {{0}}, 0, {{0}}, 0}, -EINVAL},
        {{RANGE, 0, {0x1000, UINT64_MAX}, 0, {{0}}, 0, {{0}}, 0}, -EINVAL},
        {{RANGE, 0, {0, 0xffff}, 0, {{0}}, 0, {{0}}, 0}, -EINVAL},
        {{RANGE, 1, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 0, {{0}}, 0}, -EBADMSG},
        /* More than there are bytes for. */
        {{RANGE, 0, ALL, 4, {{0x1000, 0x1fff, BIG, RW}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, UINT64_MAX, {{0x1000, 0x1fff, BIG, RW}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 0, {{0}}, 3, {{0}}, 0}, -EBADMSG},
        /* Mappings that are none, or that meet. */
        {{RANGE, 0, ALL, 1, {{0x2000, 0x1fff, BIG, RW}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, 0}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, 4}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x2fff, UINT64_MAX - 0x1ffe, RW}}, 0, {{0}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 2, {{0x1000, 0x2fff, BIG, RW}, {0x2000, 0x2fff, BIG, RW}}, 0, {{0}}, 0},
         -EBADMSG},
        /* In another order than that of addresses. */
        {{RANGE, 0, ALL, 2, {{0x2000, 0x2fff, BIG, RW}, {0x1000, 0x1fff, BIG, RW}}, 0, {{0}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 2, {{0x1000, 0x1fff, BIG, RW}, {0x2000, 0x2fff, BIG, RW}}, 2,
          {{0x2000, 0x2fff, BIG, RW}, {0x1000, 0x1fff, BIG, RW}}, 0}, -EBADMSG},
        /* Differences of what was not given, or was given otherwise. */
        {{RANGE, 0, ALL, 0, {{0}}, 1, {{0x1000, 0x1fff, BIG, RW}}, 0}, -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 1, {{0x1000, 0x1fff, BIG, RO}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 1, {{0x1000, 0x1fff, BIG + 1, RW}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x2fff, BIG, RW}}, 1, {{0x1000, 0x1fff, BIG, RW}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x2fff, BIG, RW}}, 1, {{0x2000, 0x2fff, BIG + PAGE, RW}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 1, {{0x1000, 0x2fff, BIG, RW}}, 0},
         -EBADMSG},
        {{RANGE, 0, ALL, 1, {{0x1000, 0x1fff, BIG, RW}}, 2,
          {{0x1000, 0x1fff, BIG, RW}, {0x1000, 0x1fff, BIG, RW}}, 0}, -EBADMSG},
    };

    (void)unused;
    lay_out();
    try_states(cases, sizeof(cases) / sizeof(*cases));
}

/* A mirror of a part of the space. */
static void test_outside_of_the_range(void **unused)
{
    static const struct shadow_extent outside[] = {
        {0x0000, 0x1fff, BIG, RW}, {0x8000, 0x9fff, BIG, RW}, {0xa000, 0xafff, BIG, RW},
    };

    (void)unused;
    m->what.range = (struct viommu_range){0x1000, 0x8fff};
    assert_int_equal(mirror_subscribe(m), 0);
    for (unsigned i = 0; i < 3; i++) {
        struct hand hand = {RANGE, 0, {0x1000, 0x8fff}, 1, {outside[i]}, 0, {{0}}, 0};

        m->what.adopt = false;
        save();
        hand_write(&hand);
        restart();
        assert_int_equal(load(), -EBADMSG);
        assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
        m->what.adopt = false;
        assert_int_equal(mirror_subscribe(m), 0);
        assert_int_equal(viommu_start(&world.model.iommu), 0);
    }
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
}

/* A mirror's part that ends anywhere, in a frame that is right. */
static void test_short_part(void **unused)
{
    struct save_reader reader;
    struct save_section sections[4];
    struct save_writer writer;
    struct stream whole;
    void *data;

    (void)unused;
    mirror_answers(m, 2, -ENOSPC, false, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
    save();
    restart();
    whole = state;
    state.data = NULL;
    assert_int_equal(save_open(&reader, SAVE_INSTANCE, whole.data, whole.size), 0);
    for (unsigned i = 0; i < 4; i++) {
        assert_true(save_next(&reader, &sections[i]));
    }
    for (unsigned version = 0; version < 3; version += 2) {
        save_writer_init(&writer, SAVE_INSTANCE);
        for (unsigned i = 0; i < 4; i++) {
            save_begin(&writer, sections[i].kind, 0, i < 3 ? 1 : (uint16_t)version, 0);
            save_put_bytes(&writer, sections[i].at, sections[i].left);
            save_end(&writer);
        }
        assert_int_equal(save_finish(&writer, &data, &state.size), 0);
        state.data = data;
        assert_int_equal(load(), version ? -ENOTSUP : -EBADMSG);
        viommu_save_free(state.data);
    }
    for (size_t left = 0; left < sections[3].left; left++) {
        save_writer_init(&writer, SAVE_INSTANCE);
        for (unsigned i = 0; i < 4; i++) {
            save_begin(&writer, sections[i].kind, 0, 1, 0);
            save_put_bytes(&writer, sections[i].at, i == 3 ? left : sections[i].left);
            save_end(&writer);
        }
        assert_int_equal(save_finish(&writer, &data, &state.size), 0);
        state.data = data;
        assert_int_equal(load(), -EBADMSG);
        viommu_save_free(state.data);
    }
    state = whole;
    assert_int_equal(load(), 0);
    expect_same();
    world_process(&world);
    assert_int_equal(mirror_status(m).differences, 1);
}

static void test_blocks_that_cannot_be(void **unused)
{
    static const struct state_case cases[] = {
        {{POW2, 0, ALL, 1, {{0x1000, 0x3fff, BIG + PAGE, RW}}, 1,
          {{0x2000, 0x3fff, BIG + 2 * PAGE, RW}}, 0}, 0},
        {{POW2, 0, ALL, 1, {{0x1000, 0x3fff, BIG + PAGE, RW}}, 2,
          {{0x1000, 0x1fff, BIG + PAGE, RW}, {0x2000, 0x3fff, BIG + 2 * PAGE, RW}}, 0}, 0},
        {{POW2, 0, ALL, 1, {{0, UINT64_MAX, 0, RW}}, 1, {{0, UINT64_MAX, 0, RW}}, 0}, 0},
        /* A part of a block, several, or one that is not one. */
        {{POW2, 0, ALL, 1, {{0x1000, 0x3fff, BIG + PAGE, RW}}, 1,
          {{0x2000, 0x2fff, BIG + 2 * PAGE, RW}}, 0}, -EBADMSG},
        {{POW2, 0, ALL, 1, {{0x1000, 0x3fff, BIG + PAGE, RW}}, 1,
          {{0x3000, 0x3fff, BIG + 3 * PAGE, RW}}, 0}, -EBADMSG},
        {{POW2, 0, ALL, 1, {{0x1000, 0x3fff, BIG + PAGE, RW}}, 1,
          {{0x1000, 0x3fff, BIG + PAGE, RW}}, 0}, -EBADMSG},
        {{POW2, 0, ALL, 1, {{0x4000, 0x5fff, BIG + PAGE, RW}}, 1,
          {{0x4000, 0x5fff, BIG + PAGE, RW}}, 0}, -EBADMSG},
        {{POW2, 0, ALL, 1, {{0x4000, 0x7fff, BIG + 2 * PAGE, RW}}, 1,
          {{0x6000, 0x7fff, BIG + 4 * PAGE, RW}}, 0}, 0},
        {{POW2, 0, ALL, 1, {{0x4000, 0x7fff, BIG + 2 * PAGE, RW}}, 1,
          {{0x6000, 0x7fff, BIG + 4 * PAGE, RO}}, 0}, -EBADMSG},
        /* So many blocks that they would take for ever. */
        {{POW2, 0, ALL, 1, {{0, 1ULL << 62, PAGE, RW}}, 0, {{0}}, 0}, -EBADMSG},
        {{POW2, 0, ALL, 1, {{0, 0xfffffff, 1, RW}}, 0, {{0}}, 0}, -EBADMSG},
    };

    (void)unused;
    m->what.form = POW2;
    assert_int_equal(mirror_subscribe(m), 0);
    try_states(cases, sizeof(cases) / sizeof(*cases));
}

/* ---- no memory ------------------------------------------------------------------------------- */

static void test_no_memory_to_load(void **unused)
{
    int ret = -ENOMEM;
    unsigned failures = 0;

    (void)unused;
    mirror_answers(m, 3, -ENOSPC, true, VIOMMU_CHANGE_MAP);
    lay_out();
    save();
    forget();
    restart();
    for (unsigned long n = 1; ret; n++) {
        base_alloc_fail_at(n);
        ret = load();
        failures += ret == -ENOMEM;
        assert_true(!ret || ret == -ENOMEM);
        base_alloc_fail_at(0);
    }
    assert_true(failures >= 6);
    expect_same();
    world_process(&world);
    told("");
    assert_int_equal(mirror_status(m).differences, 3);
}

/* Where it fails later the mirror is fenced, or follows all the same. */
static void test_no_memory_to_adopt(void **unused)
{
    unsigned fenced = 0;
    bool failed = true;

    (void)unused;
    for (unsigned long n = 1; failed; n++) {
        lay_out();
        save();
        restart();
        assert_int_equal(load(), 0);
        base_alloc_fail_at(n);
        for (unsigned i = 0; i < 4; i++) {
            int ret = viommu_process(&world.model.iommu, 0);

            assert_true(ret >= 0 || ret == -ENOMEM);
        }
        failed = base_alloc_failed();
        base_alloc_fail_at(0);
        world_process(&world);
        fenced += mirror_status(m).fenced;
        if (mirror_status(m).fenced) {
            assert_int_equal(m->mapped_count, 0);
            assert_int_equal(viommu_device_reset(m->device), 0);
            world_process(&world);
        }
        assert_int_equal(mirror_status(m).mappings, m->mapped_count);
        forget();
    }
    assert_true(fenced > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_states_that_cannot_be, setup, end),
        cmocka_unit_test_setup_teardown(test_outside_of_the_range, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_short_part, setup, end),
        cmocka_unit_test_setup_teardown(test_blocks_that_cannot_be, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_no_memory_to_load, setup, end),
        cmocka_unit_test_setup_teardown(test_no_memory_to_adopt, setup, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
