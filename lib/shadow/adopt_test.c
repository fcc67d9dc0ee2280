/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tests of mirrors that another instance adopts: what they are told, and which states are refused.
 */
#include "shadow/test_fixture.h"

#include <errno.h>
#include <viommu/save.h>

struct stream {
    unsigned char *data;
    size_t size;
};

static struct stream state;

static void save(void)
{
    void *data;

    viommu_save_free(state.data);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &state.size), 0);
    state.data = data;
}

/* The instance goes, and another one comes that is not started. Its mirrors wait to be adopted. */
static void restart(void)
{
    viommu_destroy(&world.model.iommu);
    model_begin(&world.model);
    for (unsigned i = 0; i < world.mirror_count; i++) {
        struct test_mirror *mirror = world.mirrors[i];

        mirror->device = model_device(&world.model, i ? OTHER : ID);
        mirror->what.adopt = true;
        assert_int_equal(mirror_subscribe(mirror), 0);
    }
}

static int load(void)
{
    return viommu_load(&world.model.iommu, state.data, state.size);
}

/* What is given to the instance that goes on is what was saved. */
static void expect_same(void)
{
    struct stream before = {malloc(state.size), state.size};

    assert_non_null(before.data);
    memcpy(before.data, state.data, state.size);
    save();
    assert_int_equal(state.size, before.size);
    assert_memory_equal(state.data, before.data, before.size);
    free(before.data);
}

static void take_over(void)
{
    save();
    restart();
    assert_int_equal(load(), 0);
    expect_same();
    world_process(&world);
}

static int end(void **unused)
{
    viommu_save_free(state.data);
    state.data = NULL;
    return teardown(unused);
}

/* ---- what is told ---------------------------------------------------------------------------- */

/* Pages that came one by one, super pages, holes; nothing has changed. */
static void lay_out(void)
{
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    world_map(&world, 0x2000, 1, BIG + PAGE, RW);
    sync();
    world_map(&world, 0x5000, 7, BIG + 3 * PAGE, RO);
    world_map_at(&world, 0x400000, BIG, 1, RW);
    world_map_at(&world, 0x40000000, BIG, 2, RW);
    sync();
}

static void expect_silence(void)
{
    unsigned mappings = m->mapped_count;
    uint64_t odd;

    forget();
    take_over();
    told("");
    assert_int_equal(m->mapped_count, mappings);
    assert_int_equal(mirror_status(m).mappings, mappings);
    assert_false(mirror_status(m).behind);
    /* Again, and again: nothing piles up. */
    odd = world_follow(&world)->odd_bytes;
    take_over();
    sync();
    told("");
    assert_int_equal(world_follow(&world)->odd_bytes, odd);
}

static void test_nothing_changed(void **unused)
{
    (void)unused;
    lay_out();
    expect_silence();
    world_unmap(&world, 0x2000, 1);
    sync();
    told("-2000-2fff");
}

static void test_nothing_changed_in_blocks(void **unused)
{
    (void)unused;
    m->what.form = VIOMMU_FORM_POW2;
    assert_int_equal(mirror_subscribe(m), 0);
    lay_out();
    expect_silence();
    world_unmap(&world, 0x5000, 1);
    sync();
    assert_int_equal(mirror_status(m).mappings, m->mapped_count);
}

static void test_tables_changed(void **unused)
{
    (void)unused;
    lay_out();
    save();
    forget();
    world_unmap(&world, 0x6000, 1);                     /* in the middle of a mapping */
    world_map(&world, 0x2000, 1, BIG + 0x10000, RW);    /* elsewhere */
    world_map(&world, 0x20000, 2, BIG + 0x20000, RW);   /* new */
    world_map_at(&world, 0x40000000, BIG, 2, RO);       /* other permissions */
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-2000-2fff +2000-2fff>80010000rw -5000-bfff +5000-5fff>80003000r +7000-bfff>80005000r "
         "+20000-21fff>80020000rw -40000000-7fffffff +40000000-7fffffff>80000000r");
    sync();
    told("");
}

static void test_replaced(void **unused)
{
    (void)unused;
    m->what.kinds |= VIOMMU_CHANGE_REPLACE;
    assert_int_equal(mirror_subscribe(m), 0);
    lay_out();
    save();
    forget();
    world_map(&world, 0x2000, 1, BIG + 0x10000, RW);
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("=2000-2fff>80010000rw");
}

/* Whole pieces are kept whatever the borders are now; what cannot be kept goes whole. */
static void test_other_borders(void **unused)
{
    (void)unused;
    world_map(&world, 0x200000, 512, BIG, RW);
    sync();
    forget();
    world_unmap(&world, 0x200000, 512);
    *world_entry(&world, 0x200000, 1) = 0;
    world_map_at(&world, 0x200000, BIG, 1, RW);
    take_over();
    told("");
    *world_entry(&world, 0x200000, 1) = 0;
    sync();
    told("-200000-3fffff");
}

static void test_other_view(void **unused)
{
    (void)unused;
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, BIG, 1, BIG, RW);
    sync();
    forget();
    /* Nothing. */
    save();
    world.model.view = (struct shadow_view){.kind = VIEW_NONE};
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-1000-1fff -80000000-80000fff");
    /* One to one: what was given so is kept. */
    world_show(&world, world.tables);
    world_process(&world);
    forget();
    save();
    world.model.view = world_identity();
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-1000-1fff +0-3ffff>0rw +80001000-bfffffff>80001000rw");
    save();
    restart();
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
    world_show(&world, world.tables);
    world_process(&world);
    told("-0-3ffff +1000-1fff>80000000rw -80001000-bfffffff");
}

/* Two devices with the same tables, of which one has another id of its own. */
static void test_two_mirrors(void **unused)
{
    struct test_mirror *other = mirror_follows(&world, OTHER, 0);

    (void)unused;
    lay_out();
    forget();
    mirror_told(other, other->told);
    take_over();
    told("");
    mirror_told(other, "");
    assert_int_equal(world_follow(&world)->shadows->users, 2);
    world_unmap(&world, 0x1000, 1);
    sync();
    told("-1000-1fff");
    mirror_told(other, "-1000-1fff");
}

static void test_differences(void **unused)
{
    (void)unused;
    mirror_answers(m, 1, -ENOSPC, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 1, BIG, RW);
    sync();
    forget();
    take_over();
    told("");
    assert_int_equal(mirror_status(m).differences, 2);
    assert_int_equal(mirror_status(m).mappings, 0);
    /* One that goes while it is missing is not unmapped. */
    world_unmap(&world, 0x1000, 1);
    mirror_answers(m, 0, 0, false, 0);
    sync();
    told("+3000-3fff>80000000rw");
    assert_int_equal(mirror_status(m).differences, 0);
}

static void test_differences_are_tried_again(void **unused)
{
    (void)unused;
    m->what.form = VIOMMU_FORM_POW2;
    assert_int_equal(mirror_subscribe(m), 0);
    mirror_answers(m, 2, -ENOSPC, true, VIOMMU_CHANGE_MAP);
    world_map(&world, 0x1000, 3, BIG + PAGE, RW);
    sync();
    forget();
    take_over();
    told("");
    assert_int_equal(mirror_status(m).differences, 1);
    mirror_answers(m, 0, 0, false, 0);
    world.model.now += 10 * MODEL_MS;
    world_process(&world);
    told("+2000-3fff>80002000rw");
    assert_int_equal(mirror_status(m).mappings, 2);
}

static void test_fenced(void **unused)
{
    (void)unused;
    world_map(&world, 0x1000, 1, BIG, RW);
    sync();
    mirror_answers(m, 1, -EIO, false, VIOMMU_CHANGE_UNMAP);
    world_unmap(&world, 0x1000, 1);
    sync();
    assert_true(mirror_status(m).fenced);
    forget();
    world_map(&world, 0x1000, 1, BIG, RW);
    take_over();
    told("");
    assert_true(mirror_status(m).fenced);
    assert_int_equal(dma(), -EPERM);
    assert_int_equal(viommu_device_reset(m->device), 0);
    world_process(&world);
    told("+1000-1fff>80000000rw");
}

/* A limit counts what comes besides. */
static void test_limit(void **unused)
{
    (void)unused;
    map_pages(6);
    sync();
    m->what.mappings_max = 2;
    take_over();
    forget();
    map_pages(9);
    sync();
    assert_int_equal(mirror_status(m).mappings, 8);
    assert_int_equal(mirror_status(m).differences, 1);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* What leads to memory that is not there any more goes. */
static void test_memory_is_gone(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 2, BIG + SIZE_1G, RW);
    sync();
    save();
    forget();
    viommu_destroy(&world.model.iommu);
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), 0);
    model_begin(&world.model);
    m->device = model_device(&world.model, ID);
    m->what.adopt = true;
    assert_int_equal(mirror_subscribe(m), 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("-3000-4fff");
}

/* Memory came and went between subscribing and loading. */
static void test_memory_before_the_load(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    lay_out();
    save();
    forget();
    restart();
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), 0);
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_add(&world, BIG + SIZE_1G + 0x10000, BIG + SIZE_1G + 0x1ffff, 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
}

/* Memory is to go when nothing has been done yet: it goes when the mirror has let go of it. */
static void test_memory_goes_at_once(void **unused)
{
    (void)unused;
    world_add(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    world_map(&world, 0x3000, 2, BIG + SIZE_1G, RW);
    sync();
    save();
    forget();
    restart();
    assert_int_equal(load(), 0);
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    assert_int_equal(world_remove(&world, BIG + SIZE_1G, BIG + SIZE_1G + 0xffff), VIOMMU_PENDING);
    world_run(&world);
    told("-3000-4fff&");
    assert_int_equal(viommu_memory_process(world.model.memory), VIOMMU_PENDING);
    mirror_complete(m, 0);
    world_process(&world);
    assert_int_equal(viommu_memory_process(world.model.memory), 0);
    told("");
}

/* What an adopted mirror holds does not count, though it is kept twice for a while. */
static void test_quota(void **unused)
{
    uint64_t before;

    (void)unused;
    for (unsigned i = 0; i < 500; i++) {
        world_map(&world, 0x200000 + i * PAGE, 1, BIG + i * PAGE, RW);
        world_sync(&world, 0x200000 + i * PAGE, 0x200fff + i * PAGE);
    }
    before = follow_bytes(&world.model.iommu);
    world.model.shadow_quota = before + 6000; /* and a block */
    forget();
    take_over();
    told("");
    assert_false(mirror_status(m).fenced);
    assert_true(follow_bytes(&world.model.iommu) <= before);
    world_unmap(&world, 0x200000, 2);
    sync();
    told("-200000-200fff -201000-201fff");
}

/* ---- when it is adopted ---------------------------------------------------------------------- */

static void test_nothing_before_the_load(void **unused)
{
    (void)unused;
    lay_out();
    save();
    forget();
    restart();
    assert_int_equal(viommu_start(&world.model.iommu), -EBUSY);
    assert_int_equal(viommu_device_set_requester(m->device, ID + 1), 0);
    assert_int_equal(load(), -ENODEV);
    assert_int_equal(viommu_device_set_requester(m->device, ID), 0);
    assert_int_equal(viommu_device_reset(m->device), 0);
    assert_int_equal(load(), 0);
    world_process(&world);
    told("");
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    assert_int_equal(mirror_subscribe(m), -EALREADY);
    m->what.adopt = false;
    m->mapped_count = 0;
    assert_int_equal(mirror_subscribe(m), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, 4);
}

static void test_busy(void **unused)
{
    void *data;
    size_t size;

    (void)unused;
    mirror_answers(m, 1, VIOMMU_PENDING, false, 0);
    world_map(&world, 0x1000, 1, BIG, RW);
    (void)world_ask(&world, DOMAIN, 0, UINT64_MAX, VIOMMU_CAUSE_PAGES);
    world_run(&world);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    mirror_complete(m, 0);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    world_process(&world);
    save();
    /* One that is to be fenced, too. */
    iommu_lock(&world.model.iommu);
    mirror_fence_for(&world.model.iommu, m->subscriber->mirror, -EIO, true, "test");
    iommu_unlock(&world.model.iommu);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &size), -EBUSY);
    world_process(&world);
    save();
}

/* Mirrors that were not saved, or that nobody adopts. */
static void test_keys(void **unused)
{
    (void)unused;
    lay_out();
    save();
    restart();
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->what.key = 1;
    assert_int_equal(mirror_subscribe(m), 0);
    assert_int_equal(load(), -ENODEV);
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->what.adopt = false;
    m->mapped_count = 0;
    assert_int_equal(mirror_subscribe(m), 0);
    forget();
    assert_int_equal(load(), 0);
    world_process(&world);
    assert_int_equal(m->mapped_count, 4);
}

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

static void test_states_that_cannot_be(void **unused)
{
    static const struct {
        struct hand hand;
        int ret;
    } cases[] = {
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
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
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
    static const struct {
        struct hand hand;
        int ret;
    } cases[] = {
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
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        m->what.adopt = false;
        save();
        hand_write(&cases[i].hand);
        restart();
        assert_int_equal(load(), cases[i].ret);
        if (cases[i].ret) {
            assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
            m->what.adopt = false;
            assert_int_equal(mirror_subscribe(m), 0);
            assert_int_equal(viommu_start(&world.model.iommu), 0);
        } else {
            expect_same();
        }
    }
    assert_int_equal(viommu_subscriber_destroy(m->subscriber), 0);
    m->subscriber = NULL;
    world_process(&world);
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
        cmocka_unit_test_setup_teardown(test_nothing_changed, setup, end),
        cmocka_unit_test_setup_teardown(test_nothing_changed_in_blocks, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_tables_changed, setup, end),
        cmocka_unit_test_setup_teardown(test_replaced, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_other_borders, setup, end),
        cmocka_unit_test_setup_teardown(test_other_view, setup, end),
        cmocka_unit_test_setup_teardown(test_two_mirrors, setup, end),
        cmocka_unit_test_setup_teardown(test_differences, setup, end),
        cmocka_unit_test_setup_teardown(test_differences_are_tried_again, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_fenced, setup, end),
        cmocka_unit_test_setup_teardown(test_limit, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_is_gone, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_before_the_load, setup, end),
        cmocka_unit_test_setup_teardown(test_memory_goes_at_once, setup, end),
        cmocka_unit_test_setup_teardown(test_quota, setup, end),
        cmocka_unit_test_setup_teardown(test_nothing_before_the_load, setup, end),
        cmocka_unit_test_setup_teardown(test_busy, setup, end),
        cmocka_unit_test_setup_teardown(test_keys, setup, end),
        cmocka_unit_test_setup_teardown(test_states_that_cannot_be, setup, end),
        cmocka_unit_test_setup_teardown(test_outside_of_the_range, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_short_part, setup, end),
        cmocka_unit_test_setup_teardown(test_blocks_that_cannot_be, setup_unsubscribed, end),
        cmocka_unit_test_setup_teardown(test_no_memory_to_load, setup, end),
        cmocka_unit_test_setup_teardown(test_no_memory_to_adopt, setup, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
