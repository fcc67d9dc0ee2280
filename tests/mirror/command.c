/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The mirrors' model test changes the view of devices: translation on and off, root tables, resets,
 * renumbering; and lets time pass.
 */
#include "world.h"

#include <errno.h>

#define QUEUE (200 * WORLD_PAGE) /* in the main slot */
#define STATUS (201 * WORLD_PAGE)

static bool translation_is_on(struct world *world)
{
    return guest_read(&world->guest, SPEC_GSTS, 4) & SPEC_TE;
}

static bool translation_is_off(struct world *world)
{
    return !translation_is_on(world);
}

static bool root_is_set(struct world *world)
{
    return guest_read(&world->guest, SPEC_GSTS, 4) & SPEC_SRTP;
}

static void command(struct world *world, uint32_t bit, bool on)
{
    uint32_t status = (uint32_t)guest_read(&world->guest, SPEC_GSTS, 4) & SPEC_GSTS_STICKY;

    guest_write(&world->guest, SPEC_GCMD, 4, on ? status | bit : status & ~bit);
}

/* Every view is looked at anew. */
static void views_synced(struct world *world)
{
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        model_view_synced(world, world->time, i);
    }
}

static void set_translation(struct world *world, bool on)
{
    world_note(world, "translation %s", on ? "on" : "off");
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT);
    command(world, SPEC_TE, on);
    world_finish(world, on ? translation_is_on : translation_is_off, "translation on or off");
    world->translating = on;
    views_synced(world);
    world_end(world);
}

void command_translation(struct world *world)
{
    set_translation(world, !world->translating);
    if (!world->translating && world_percent(world, 60)) {
        if (world_percent(world, 50)) {
            tables_edit(world);
        }
        set_translation(world, true);
    }
}

static void set_root(struct world *world, unsigned root)
{
    world_note(world, "root table %u", root);
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT);
    guest_write(&world->guest, SPEC_RTADDR, 8, (1 + root) * WORLD_PAGE);
    command(world, SPEC_SRTP, true);
    world_finish(world, root_is_set, "a new root table");
    world->root = root;
    world->dirty = true;
    model_refresh(world);
    views_synced(world);
    world_end(world);
}

void command_root(struct world *world)
{
    /* Without it a second command cannot be told from the first. */
    unsigned root = world_percent(world, 70) ? !world->root : world->root;

    if (world_percent(world, 50)) {
        context_edit(world);
    }
    set_root(world, root);
}

/* Those that were fenced hear again. */
static void let_in(struct world *world, unsigned device)
{
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        struct mirror *mirror = &world->mirrors[i];

        if (mirror->subscriber && mirror->device == device && mirror->recorder.fenced) {
            mirror->recorder.fenced = false;
            mirror->expect_fence = false;
        }
    }
}

void command_device(struct world *world)
{
    unsigned device = world_below(world, WORLD_DEVICES);

    world_note(world, "reset of device %u", device);
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT | 1u << VIOMMU_CAUSE_REPLAY);
    let_in(world, device);
    world_ok(world, viommu_device_reset(world->devices[device].device), "device reset");
    world_end(world);
}

void command_renumber(struct world *world)
{
    unsigned number = world_below(world, WORLD_DEVICES);
    struct device *device = &world->devices[number];
    uint16_t requester = device->requester ^ 0x80;
    int error;

    world_note(world, "device %u: %04x becomes %04x", number, device->requester, requester);
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT | 1u << VIOMMU_CAUSE_REPLAY);
    for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
        if (world->mirrors[i].subscriber && world->mirrors[i].device == number) {
            world->mirrors[i].recorder.requester = requester;
        }
    }
    error = viommu_device_set_requester(device->device, requester);
    if (error == -ENOMEM && world->trouble.alloc) {
        for (unsigned i = 0; i < WORLD_MIRRORS; i++) {
            if (world->mirrors[i].device == number) {
                world->mirrors[i].recorder.requester = device->requester;
            }
        }
        return;
    }
    world_ok(world, error, "renumber");
    device->requester = requester;
    world->dirty = true;
    model_refresh(world);
    model_view_synced(world, world->time, number);
    world_end(world);
}

void command_time(struct world *world)
{
    world_begin(world, 0);
    world->clock += world_below(world, 3000) * 1000000ull;
    world_end(world);
}

static bool queue_is_on(struct world *world)
{
    return guest_read(&world->guest, SPEC_GSTS, 4) & SPEC_QIE;
}

static bool queue_is_off(struct world *world)
{
    return !queue_is_on(world);
}

void command_queue(struct world *world)
{
    struct guest *guest = &world->guest;

    world->queue_on = !world->queue_on;
    world_note(world, "queue %s", world->queue_on ? "on" : "off");
    world_begin(world, 0);
    if (world->queue_on) {
        guest->queue = QUEUE;
        guest->status = STATUS;
        guest->queue_entries = 256;
        guest->queue_tail = 0;
        guest_write(guest, SPEC_IQT, 8, 0);
        guest_write(guest, SPEC_IQA, 8, guest->queue);
    }
    command(world, SPEC_QIE, world->queue_on);
    world_finish(world, world->queue_on ? queue_is_on : queue_is_off, "queue on or off");
    world_end(world);
}

void command_start(struct world *world)
{
    bool healing = world->healing;

    world->healing = true;
    set_root(world, world->root);
    world->queue_on = false;
    command_queue(world);
    set_translation(world, true);
    world->healing = healing;
}

void command_reset(struct world *world)
{
    world_note(world, "reset");
    model_refresh(world);
    world_begin(world, 1u << VIOMMU_CAUSE_CONTEXT | 1u << VIOMMU_CAUSE_REPLAY);
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        let_in(world, i);
        world_ok(world, viommu_device_reset(world->devices[i].device), "device reset");
    }
    world_ok(world, viommu_reset(world->guest.iommu), "reset");
    world->translating = false;
    views_synced(world);
    world_end(world);
    command_start(world);
}
