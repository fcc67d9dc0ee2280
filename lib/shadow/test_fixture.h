/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The fixture of tests of one mirror: a world (test_mirror.h), the mirror `m` of the device ID in
 * it, and short names for what such tests do all the time. They are a test program's own: each has
 * one world, made anew for each test.
 *
 * `setup` and `teardown` are for cmocka; a setup_* that is named otherwise leaves something out or
 * adds it. A test that needs more of its world makes its own setup of set_up or setup_unsubscribed.
 */
#ifndef VIOMMU_SHADOW_TEST_FIXTURE_H
#define VIOMMU_SHADOW_TEST_FIXTURE_H

#include "shadow/test_mirror.h"

#define ID 0x28
#define OTHER 0x30 /* a second device, of tests that need one */
#define CAUSE VIOMMU_CAUSE_PAGES /* of the counters that are looked at */

static struct world world;
static struct test_mirror *m;

/* ---- before and after a test ----------------------------------------------------------------- */

/* The mirror is not subscribed yet. */
static inline int setup_unsubscribed(void **state)
{
    (void)state;
    world = (struct world){0};
    world_create(&world);
    m = mirror_create(&world, ID);
    return 0;
}

/* A quota of 0 is the library's own. */
static inline int set_up(enum viommu_rewrite_policy policy, uint64_t quota)
{
    world = (struct world){0};
    world.model.rewrite_policy = policy;
    world.model.shadow_quota = quota;
    world_create(&world);
    m = mirror_follows(&world, ID, 0);
    return 0;
}

/* The mirror follows, and has nothing mapped. */
static inline int setup(void **state)
{
    (void)state;
    return set_up(VIOMMU_REWRITE_CONTINUE, 0);
}

/* The same, with the policy that fences mirrors. */
static inline int setup_fence(void **state)
{
    (void)state;
    return set_up(VIOMMU_REWRITE_FENCE, 0);
}

static inline int teardown(void **state)
{
    (void)state;
    world_destroy(&world);
    return 0;
}

/* ---- what is done ---------------------------------------------------------------------------- */

/* Of all addresses, as pages. */
static inline void sync(void)
{
    world_sync(&world, 0, UINT64_MAX);
}

/* Every other page from 0x1000 on, each a mapping. */
static inline void map_pages(unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        world_map(&world, 0x1000 + 2 * i * PAGE, 1, BIG, RW);
    }
}

/* What a read of the device's gets. */
static inline int dma(void)
{
    uint64_t value;

    return viommu_device_read(m->device, NULL, 0x1000, &value, sizeof(value));
}

/* The view of OTHER, where the model asks view_of. */
static struct shadow_view other_view;

static inline void view_of(struct test_model *model, uint16_t requester, struct shadow_view *out)
{
    (void)model;
    if (requester == OTHER) {
        *out = other_view;
    }
}

/* ---- what came of it ------------------------------------------------------------------------- */

/* What `m` was told since the last time. */
static inline void told(const char *expected)
{
    mirror_told(m, expected);
}

/* Forgets what was told and said until now. */
static inline void forget(void)
{
    mirror_told(m, m->told);
    world_forget_events(&world);
}

static inline struct viommu_stats stats(void)
{
    return model_stats(&world.model);
}

/* The sums when pages were counted the last time. */
static struct viommu_stats counted;

/* Forgets what was counted, told and said until now. */
static inline void begin(void)
{
    counted = stats();
    forget();
}

/* The counters of CAUSE since the last time, in the order of struct viommu_stats. */
static inline void expect_counts(uint64_t tables, uint64_t present, uint64_t absent,
                                 uint64_t appeared, uint64_t gone, uint64_t rewritten)
{
    struct viommu_stats now = stats();

    assert_int_equal(now.tables_compared[CAUSE] - counted.tables_compared[CAUSE], tables);
    assert_int_equal(now.pages_present[CAUSE] - counted.pages_present[CAUSE], present);
    assert_int_equal(now.pages_absent[CAUSE] - counted.pages_absent[CAUSE], absent);
    assert_int_equal(now.pages_appeared[CAUSE] - counted.pages_appeared[CAUSE], appeared);
    assert_int_equal(now.pages_gone[CAUSE] - counted.pages_gone[CAUSE], gone);
    assert_int_equal(now.pages_rewritten[CAUSE] - counted.pages_rewritten[CAUSE], rewritten);
    counted = now;
}

#endif
