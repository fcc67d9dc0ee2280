/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirrors' model test goes on with another instance: what mirrors hold stays, and they are
 * adopted. Between operations that is done with and without edits before; and it comes in the
 * middle of others, as soon as no mirror is being told something.
 */
#include "world.h"

#include <errno.h>

/* Mappings that its host still has room for; what cannot be said with 0 is said with 1. */
static uint64_t room(const struct recorder *recorder)
{
    uint64_t most = recorder->what.mappings_max;

    if (!most) {
        return 0;
    }
    return recorder->mapped.count < most ? most - recorder->mapped.count : 1;
}

/* The second instance, with everything that the first has. */
static int second_create(struct world *world, struct viommu **second,
                         struct viommu_device **devices, struct viommu_subscriber **subscribers)
{
    int error = guest_second(&world->guest, second);

    for (unsigned i = 0; !error && i < WORLD_DEVICES; i++) {
        struct viommu_device_config config = {.requester = world->devices[i].requester};

        error = viommu_device_add(*second, &config, &devices[i]);
    }
    for (unsigned i = 0; !error && i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[i];
        struct viommu_subscription what = mirror->recorder.what;

        if (mirror->subscriber) {
            what.adopt = true;
            what.mappings_max = room(&mirror->recorder);
            error = viommu_device_subscribe(devices[mirror->device], &what, &subscribers[i]);
        }
    }
    return error;
}

static void change_place(struct world *world, struct viommu *second,
                         struct viommu_device **devices, struct viommu_subscriber **subscribers)
{
    guest_take_over(&world->guest, second);
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        world->devices[i].device = devices[i];
    }
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[i];
        struct recorder *recorder = &mirror->recorder;

        if (mirror->subscriber) {
            mirror->subscriber = subscribers[i];
            recorder->what.mappings_max =
                recorder->what.mappings_max ? recorder->mapped.count + room(recorder) : 0;
        }
    }
    world->one_sync = false;
    world->taken_over = true;
    world->causes |= 1u << VIOMMU_CAUSE_REPLAY;
    world->takeovers++;
}

/* Returns whether it was done. */
static bool try_takeover(struct world *world)
{
    struct viommu_device *devices[WORLD_DEVICES] = {0};
    struct viommu_subscriber *subscribers[WORLD_MIRRORS] = {0};
    struct viommu *second = NULL;
    void *data = NULL;
    size_t size = 0;
    int error = viommu_save(world->guest.iommu, &data, &size);

    if (error == -EBUSY) {
        return false;
    }
    if (!error) {
        error = second_create(world, &second, devices, subscribers);
    }
    if (!error) {
        error = viommu_load(second, data, size);
    }
    viommu_save_free(data);
    if (error == -ENOMEM && world->trouble.alloc) {
        viommu_destroy(second);
        return false;
    }
    world_ok(world, error, "save and load");
    world_note(world, "saved and loaded: %zu bytes", size);
    change_place(world, second, devices, subscribers);
    return true;
}

static bool nobody_is_behind(struct world *world)
{
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct viommu_subscriber_status status = {0};

        if (world->mirrors[i].subscriber) {
            viommu_subscriber_status(world->mirrors[i].subscriber, &status, sizeof(status));
        }
        if (status.behind) {
            return false;
        }
    }
    return true;
}

/* What a mirror holds is as the tables and contexts are now. */
static void adopted(struct world *world, uint64_t time)
{
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        model_view_synced(world, time, i);
    }
    model_pages_synced(world, time, SPEC_GLOBAL, 0, 0, UINT64_MAX);
}

void takeover(struct world *world)
{
    bool edits = world_percent(world, 60);
    uint64_t before[WORLD_MIRRORS];
    bool exact[WORLD_MIRRORS];
    uint64_t time;

    if (!edits) {
        invalidate_all(world);
    }
    for (unsigned i = 0; edits && i < world_below(world, 4); i++) {
        if (world_percent(world, 85)) {
            tables_edit(world);
        } else {
            context_edit(world);
        }
    }
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_REPLAY);
    time = model_submit(world);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        before[i] = world->mirrors[i].recorder.call_count;
        exact[i] = world->mirrors[i].subscriber && !world->mirrors[i].differs &&
                   !world->mirrors[i].recorder.fenced;
    }
    if (try_takeover(world)) {
        world_finish(world, nobody_is_behind, "the adoption of mirrors");
        adopted(world, time);
    }
    world_end(world);
    for (unsigned i = 0; !edits && i < WORLD_MIRRORS; i++) {
        if (exact[i] && world->mirrors[i].recorder.call_count != before[i]) {
            world_fail(world, "mirror %u: %llu calls though it was adopted", i,
                       (unsigned long long)(world->mirrors[i].recorder.call_count - before[i]));
        }
    }
}

void takeover_sometimes(struct world *world)
{
    /* A removal of memory waits for an answer of the old instance. */
    if (!(world->causes & 1u << VIOMMU_CAUSE_MEMORY) && world_percent(world, 1)) {
        (void)try_takeover(world);
    }
}
