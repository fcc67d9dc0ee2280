/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What tests of adopted mirrors share: an instance is saved, goes, and another one comes in the
 * same world (test_fixture.h), which adopts its mirrors.
 */
#ifndef VIOMMU_SHADOW_TEST_ADOPT_H
#define VIOMMU_SHADOW_TEST_ADOPT_H

#include "shadow/test_fixture.h"

#include <viommu/save.h>

struct stream {
    unsigned char *data;
    size_t size;
};

static struct stream state;

static inline void save(void)
{
    void *data;

    viommu_save_free(state.data);
    assert_int_equal(viommu_save(&world.model.iommu, &data, &state.size), 0);
    state.data = data;
}

/* The instance goes, and another one comes that is not started. Its mirrors wait to be adopted. */
static inline void restart(void)
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

static inline int load(void)
{
    return viommu_load(&world.model.iommu, state.data, state.size);
}

/* What is given to the instance that goes on is what was saved. */
static inline void expect_same(void)
{
    struct stream before = {malloc(state.size), state.size};

    assert_non_null(before.data);
    memcpy(before.data, state.data, state.size);
    save();
    assert_int_equal(state.size, before.size);
    assert_memory_equal(state.data, before.data, before.size);
    free(before.data);
}

static inline void take_over(void)
{
    save();
    restart();
    assert_int_equal(load(), 0);
    expect_same();
    world_process(&world);
}

static inline int end(void **unused)
{
    viommu_save_free(state.data);
    state.data = NULL;
    return teardown(unused);
}

/* Pages that came one by one, super pages, holes; nothing has changed. */
static inline void lay_out(void)
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

#endif
