/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mirrors of the model test: of every kind, subscribed and unsubscribed at any time, and how they
 * answer.
 */
#include "world.h"

#include <errno.h>

#define TOP UINT64_MAX

/* How calls are answered. */

static int answer_later(struct mirror *mirror, const struct viommu_change *change)
{
    struct world *world = mirror->world;

    mirror->answer = ANSWER_DONE;
    if (world_percent(world, world->trouble.never)) {
        mirror->answer = ANSWER_NEVER;
        mirror->expect_fence = true;
        world->failures++;
    } else if (world_percent(world, world->trouble.late_fails)) {
        mirror->answer = ANSWER_FAIL;
        mirror->expect_fence |= change->kind != VIOMMU_CHANGE_MAP;
        mirror->may_fence |= mirror->recorder.what.differences_max;
        world->failures++;
    }
    return VIOMMU_PENDING;
}

static int failure(struct mirror *mirror, const struct viommu_change *change)
{
    static const int errors[] = {-EIO, -ENOSPC, -ENOMEM, -EINVAL, -EBUSY};

    mirror->world->failures++;
    mirror->expect_fence |= change->kind != VIOMMU_CHANGE_MAP;
    mirror->may_fence |= mirror->recorder.what.differences_max;
    return errors[world_below(mirror->world, 5)];
}

/* Whether this call is the one that was chosen. */
static bool chosen(struct world *world)
{
    unsigned long at = world->trouble.at;

    world->calls++;
    return at && (world->trouble.every ? world->calls % at == 0 : world->calls == at);
}

static int answer(void *opaque, const struct viommu_change *change)
{
    struct mirror *mirror = opaque;
    struct world *world = mirror->world;
    const struct trouble *trouble = &world->trouble;

    if (world->healing || change->kind == VIOMMU_CHANGE_SKIPPED) {
        return 0;
    }
    if (chosen(world)) {
        return trouble->at_is_pending ? answer_later(mirror, change) : failure(mirror, change);
    }
    if (change->kind == VIOMMU_CHANGE_MAP ? world_percent(world, trouble->map_fails)
                                          : world_below(world, 1000) < trouble->other_fails) {
        return failure(mirror, change);
    }
    return world_percent(world, trouble->pending) ? answer_later(mirror, change) : 0;
}

static int answer_fence(void *opaque)
{
    struct mirror *mirror = opaque;

    return world_percent(mirror->world, mirror->world->trouble.other_fails ? 10 : 0) ? -EIO : 0;
}

static void fail(void *opaque, const char *text)
{
    struct mirror *mirror = opaque;

    world_fail(mirror->world, "mirror %u of device %u: %s",
               (unsigned)(mirror - mirror->world->mirrors), mirror->device, text);
}

static bool excuse(void *opaque, const struct recorder_mapping *was)
{
    const struct world *world = ((struct mirror *)opaque)->world;

    for (unsigned page = 0; page < WORLD_PAGES; page++) {
        uint64_t address = tables_page_address(page);

        if (world->stale[page] && was->first <= address && address <= was->last) {
            return true;
        }
    }
    return false;
}

/* Kinds of mirrors. */

static const struct viommu_range ranges[] = {
    {0, 0},
    {0, 0},
    {0, 0},
    {0x1000, 0x3fffff},
    {0x3fffe000, 0x40003fff},
    {0x5000, 0x5fff},
    {0x200000, TOP},
    {0x3000, 0xffffffffffffe000 - 1},
};

static const struct viommu_range no_interrupts[] = {{0, 0xfedfffff}, {0xfef00000, TOP}};
static const struct viommu_range with_holes[] = {
    {0x2000, 0x1fffff},
    {0x203000, 0x2fffff},
    {0x380000, 0x4000ffff},
    {0x40011000, TOP},
};

static struct viommu_subscription any_kind(struct world *world)
{
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_MAP | VIOMMU_CHANGE_UNMAP,
        .form = world_percent(world, 60) ? VIOMMU_FORM_RANGE : VIOMMU_FORM_POW2,
        .role = VIOMMU_ROLE_MIRROR,
        .range = ranges[world_below(world, sizeof(ranges) / sizeof(ranges[0]))],
    };

    if (world_percent(world, 20)) {
        what.kinds |= VIOMMU_CHANGE_REPLACE;
    }
    if (world_percent(world, 25)) {
        what.kinds |= VIOMMU_CHANGE_SKIPPED;
    }
    if (world_percent(world, 20)) {
        what.allowed = no_interrupts;
        what.allowed_count = 2;
    } else if (world_percent(world, 25)) {
        what.allowed = with_holes;
        what.allowed_count = 4;
    }
    what.unmap_spans = what.form == VIOMMU_FORM_RANGE && world_percent(world, 40);
    if (world_percent(world, 20)) {
        what.mappings_max = 8 + world_below(world, 200);
    }
    if (world_percent(world, 10)) {
        what.differences_max = 4 + world_below(world, 100);
    }
    return what;
}

void mirrors_subscribe(struct world *world)
{
    struct mirror *mirror = &world->mirrors[world_below(world, WORLD_MIRRORS)];
    struct viommu_subscription what = any_kind(world);
    struct device *device;
    int error;

    if (mirror->subscriber) {
        return;
    }
    mirror->world = world;
    mirror->device = world_below(world, world_percent(world, 50) ? 2 : WORLD_DEVICES);
    mirror->expect_fence = false;
    /* Past its limit a mirror has differences, perhaps too many. */
    mirror->may_fence = what.mappings_max && what.differences_max;
    mirror->differs = false;
    device = &world->devices[mirror->device];
    recorder_fini(&mirror->recorder);
    what.key = (uint32_t)(mirror - world->mirrors);
    recorder_init(&mirror->recorder, &what);
    mirror->recorder.memory = &world->memory;
    mirror->recorder.requester = device->requester;
    mirror->recorder.answer = answer;
    mirror->recorder.answer_fence = answer_fence;
    mirror->recorder.excuse = excuse;
    mirror->recorder.fail = fail;
    mirror->recorder.opaque = mirror;
    world_note(world,
               "mirror %u of device %u: form %d kinds %#x range [%#llx, %#llx] allowed %zu%s, at "
               "most %llu, differences %u",
               (unsigned)(mirror - world->mirrors), mirror->device, what.form, what.kinds,
               (unsigned long long)what.range.first, (unsigned long long)what.range.last,
               what.allowed_count, what.unmap_spans ? ", spans" : "",
               (unsigned long long)what.mappings_max, what.differences_max);
    world_begin(world, 1u << VIOMMU_CAUSE_REPLAY);
    error = viommu_device_subscribe(device->device, &mirror->recorder.what, &mirror->subscriber);
    if (error == -ENOMEM && world->trouble.alloc) {
        mirror->subscriber = NULL;
        error = 0;
    }
    world_ok(world, error, "subscribe");
    /* A context entry that changed may be seen now; so may not be those of others. */
    world_end(world);
}

void mirrors_remove(struct world *world, struct mirror *mirror)
{
    world_ok(world, viommu_subscriber_destroy(mirror->subscriber), "unsubscribe");
    mirror->subscriber = NULL;
    recorder_drop(&mirror->recorder);
}

void mirrors_unsubscribe(struct world *world)
{
    struct mirror *mirror = mirrors_any(world);

    if (!mirror) {
        return;
    }
    world_note(world, "mirror %u goes", (unsigned)(mirror - world->mirrors));
    world_begin(world, 0);
    mirrors_remove(world, mirror);
    world_end(world);
}

struct mirror *mirrors_any(struct world *world)
{
    unsigned first = world_below(world, WORLD_MIRRORS);

    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[(first + i) % WORLD_MIRRORS];

        if (mirror->subscriber) {
            return mirror;
        }
    }
    return NULL;
}
