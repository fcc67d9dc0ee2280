/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The model test gives the unit commands, serves its faults, changes devices and memory, and
 * resets.
 */
#include "world.h"

#include <errno.h>
#include <string.h>

static void process(void *opaque)
{
    guest_process(&((struct world *)opaque)->guest);
}

/* Called while a removal is pending. */
static void process_and_end(void *opaque)
{
    struct world *world = opaque;

    if (world->section) {
        viommu_dma_end(world->guest.iommu);
        world->section = false;
    }
    process(world);
}

void world_memory(struct world *world)
{
    unsigned slot = 1 + world_below(world, RAM_SLOTS - 1);
    bool present = !world->ram.slots[slot].present;

    world->section = !present && world_percent(world, 30);
    world_note(world, "%s memory at %#llx%s", present ? "add" : "remove",
               (unsigned long long)world->ram.slots[slot].first,
               world->section ? ", with DMA under way" : "");
    if (world->section) {
        guest_ok(viommu_dma_begin(world->guest.iommu), "section");
    }
    world_ok(world, ram_set_present(&world->ram, slot, present, process_and_end, world),
             "memory change");
    if (world->section) {
        world_fail(world, "memory was removed while DMA was under way");
    }
    world->dirty = true;
    world_refresh(world);
}

/* Devices */

int world_on_change(void *opaque, const struct viommu_change *change)
{
    struct world_device *device = opaque;
    struct world *world = device->world;

    if (change->kind != VIOMMU_CHANGE_DEVICE_TLB || change->first > change->last) {
        world_fail(world, "a change of kind %d, [%#llx, %#llx]", change->kind,
                   (unsigned long long)change->first, (unsigned long long)change->last);
    }
    device->heard = true;
    device->heard_first = change->first;
    device->heard_last = change->last;
    device->token = change->token;
    switch (device->answer) {
    case WORLD_ANSWER_NOW:
        return 0;
    case WORLD_ANSWER_FAIL:
        return -EIO;
    default:
        return VIOMMU_PENDING;
    }
}

static bool requester_taken(const struct world *world, uint16_t requester)
{
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        const struct world_device *device = &world->devices[i];

        if (!device->device) {
            continue;
        }
        if (device->requester == requester) {
            return true;
        }
        for (unsigned j = 0; j < device->alias_count; j++) {
            if (device->aliases[j] == requester) {
                return true;
            }
        }
    }
    return false;
}

static void add_device(struct world *world, struct world_device *device)
{
    struct viommu_device_config config = {
        .requester = world_any_requester(world),
        .ats = world->vtd.device_tlb && world_percent(world, 70),
    };
    bool taken = requester_taken(world, config.requester);
    int error = viommu_device_add(world->guest.iommu, &config, &device->device);

    world_note(world, "add device %04x%s", config.requester, config.ats ? " ats" : "");
    if (error != (taken ? -EEXIST : 0)) {
        world_fail(world, "adding device %04x: %d", config.requester, error);
    }
    if (error) {
        device->device = NULL;
        return;
    }
    device->requester = config.requester;
    device->ats = config.ats;
    device->alias_count = 0;
    device->denied = false;
    device->subscriber = NULL;
    if (config.ats) {
        struct viommu_subscription what = {
            .kinds = VIOMMU_CHANGE_DEVICE_TLB,
            .change = world_on_change,
            .opaque = device,
        };

        device->answer = WORLD_ANSWER_NOW;
        world_ok(world, viommu_device_subscribe(device->device, &what, &device->subscriber),
                 "subscribe");
    }
}

static void renumber(struct world *world, struct world_device *device)
{
    uint16_t requester = world_any_requester(world);
    bool taken = requester_taken(world, requester) && requester != device->requester;
    int error = viommu_device_set_requester(device->device, requester);

    world_note(world, "device %04x becomes %04x", device->requester, requester);
    if (error != (taken ? -EEXIST : 0)) {
        world_fail(world, "renumbering %04x to %04x: %d", device->requester, requester, error);
    }
    if (!error) {
        device->requester = requester;
    }
}

static void change_aliases(struct world *world, struct world_device *device)
{
    uint16_t alias = world_any_requester(world);
    int result;

    if (device->alias_count == WORLD_ALIASES) {
        world_note(world, "device %04x loses its aliases", device->requester);
        world_ok(world, viommu_device_remove_aliases(device->device), "remove aliases");
        device->alias_count = 0;
        return;
    }
    if (requester_taken(world, alias)) {
        return;
    }
    world_note(world, "device %04x gets alias %04x", device->requester, alias);
    result = viommu_device_add_alias(device->device, alias);
    if (result != (int)device->alias_count + 1) {
        world_fail(world, "alias %04x: %d", alias, result);
    }
    device->aliases[device->alias_count++] = alias;
}

void world_device(struct world *world)
{
    struct world_device *device = &world->devices[world_below(world, WORLD_DEVICES)];
    unsigned what = world_below(world, 10);

    if (!device->device) {
        add_device(world, device);
    } else if (device->denied || what < 2) {
        world_note(world, "reset device %04x", device->requester);
        world_ok(world, viommu_device_reset(device->device), "device reset");
        device->denied = false;
    } else if (what < 5) {
        renumber(world, device);
    } else if (what < 8) {
        change_aliases(world, device);
    } else {
        world_note(world, "remove device %04x", device->requester);
        if (device->subscriber && world_percent(world, 50)) {
            world_ok(world, viommu_subscriber_destroy(device->subscriber), "unsubscribe");
        }
        world_ok(world, viommu_device_remove(device->device), "remove device");
        device->device = NULL;
    }
    world_drain(world);
}

/* Commands */

void world_set_root(struct world *world, uint64_t root)
{
    world_note(world, "set root pointer %#llx", (unsigned long long)root);
    guest_write(&world->guest, SPEC_RTADDR, 8, root);
    guest_command(&world->guest, SPEC_SRTP, true);
    world->history.root = root;
    history_refresh(&world->history);
    world->dirty = false;
    if (world->guest.cap >> 63) { /* the unit invalidates everything by itself */
        uint64_t time = history_submit(&world->history);

        history_invalidate_context(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
        history_invalidate_iotlb(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
    }
}

static void change_root(struct world *world)
{
    uint64_t root = world_page(WORLD_ROOTS + (world_percent(world, 80) ? 0 : 1));

    switch (world_below(world, 20)) {
    case 0:
        root = 0x5000000; /* no memory there */
        break;
    case 1:
        root |= 1 << 10;
        break;
    case 2:
        root |= 3 << 10;
        break;
    default:
        break;
    }
    if (world_percent(world, 80)) {
        world_set_root(world, root);
    } else { /* has no effect until the root pointer is set */
        world_note(world, "root-table register = %#llx", (unsigned long long)root);
        guest_write(&world->guest, SPEC_RTADDR, 8, root);
    }
}

static void switch_translation(struct world *world)
{
    world->translating = !world->translating;
    world_note(world, "translation %s", world->translating ? "on" : "off");
    guest_command(&world->guest, SPEC_TE, world->translating);
    if (!world->translating) {
        faults_translation_off(&world->faults);
    }
}

static void switch_queue(struct world *world)
{
    if (world->vtd.no_queued_invalidation) {
        return;
    }
    world->queue_on = !world->queue_on;
    world_note(world, "queue %s", world->queue_on ? "on" : "off");
    if (world->queue_on) {
        guest_queue_on(&world->guest);
    } else {
        guest_queue_off(&world->guest);
        if (guest_read(&world->guest, SPEC_IQH, 8)) {
            world_fail(world, "the queue's head is not 0 after the queue went off");
        }
    }
}

void world_command(struct world *world)
{
    unsigned what = world_below(world, 10);

    world_refresh(world);
    if (what < 3) {
        change_root(world);
    } else if (what < 6 || !world->translating) {
        if (!world->translating || world_percent(world, 30)) {
            switch_translation(world);
        }
    } else {
        switch_queue(world);
    }
    world_drain(world);
}

/* Faults */

static void clear_records(struct world *world)
{
    for (unsigned i = 0; i < world->faults.count; i++) {
        uint64_t at = world->guest.fault_offset + 16 * i;

        if (!(world->faults.records[i].hi & SPEC_F) || world_percent(world, 20)) {
            continue;
        }
        if (world_percent(world, 50)) {
            guest_write(&world->guest, at + 12, 4, SPEC_F >> 32);
        } else {
            guest_write(&world->guest, at + 8, 8, SPEC_F);
        }
        faults_clear_record(&world->faults, i);
    }
}

static void serve_waits(struct world *world)
{
    if (world->vtd.no_queued_invalidation) {
        return;
    }
    if (world_percent(world, 50)) {
        world_note(world, "clear IWC");
        guest_write(&world->guest, SPEC_ICS, 4, SPEC_IWC);
        world->wait_complete = false;
        world->wait_pending = false;
    }
    if (world_percent(world, 50)) {
        world->wait_masked = world_percent(world, 40);
        world_note(world, "IECTL.IM = %d", world->wait_masked);
        guest_write(&world->guest, SPEC_IECTL, 4, world->wait_masked ? SPEC_IM : 0);
        if (!world->wait_masked && world->wait_pending) {
            world->wait_pending = false;
            world->wait_messages++;
        }
    }
}

void world_clear_faults(struct world *world)
{
    world_drain(world);
    if (world_percent(world, 80)) {
        world_note(world, "clear fault records");
        clear_records(world);
    }
    if (world_percent(world, 70)) {
        uint32_t value = world_percent(world, 80) ? SPEC_PFO : SPEC_PPF | 0xff00;

        world_note(world, "FSTS = %#x", value);
        guest_write(&world->guest, SPEC_FSTS, 4, value);
        faults_write_status(&world->faults, value);
    }
    if (world_percent(world, 30)) {
        bool masked = world_percent(world, 40);

        world_note(world, "FECTL.IM = %d", masked);
        guest_write(&world->guest, SPEC_FECTL, 4, masked ? SPEC_IM : 0);
        faults_mask(&world->faults, masked);
    }
    serve_waits(world);
    if (!world_faults_equal(world, &world->faults)) {
        world_fail(world, "fault registers after clearing: FSTS %#llx, not %#x",
                   (unsigned long long)guest_read(&world->guest, SPEC_FSTS, 4),
                   faults_status(&world->faults));
    }
    world_drain(world);
}

void world_reset(struct world *world)
{
    uint64_t fault_messages = world->faults.messages;
    uint64_t time;

    world_drain(world); /* messages that are due are dropped by a reset */
    world_note(world, "platform reset");
    world_refresh(world);
    world_ok(world, viommu_reset(world->guest.iommu), "reset");
    guest_process(&world->guest);
    world->translating = false;
    world->queue_on = false;
    world->history.root = 0;
    world->dirty = true;
    faults_init(&world->faults, world->vtd.fault_records);
    world->faults.messages = fault_messages;
    world->wait_complete = false;
    world->wait_pending = false;
    world->wait_masked = true;
    world_refresh(world);
    time = history_submit(&world->history);
    history_invalidate_context(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
    history_invalidate_iotlb(&world->history, time, SPEC_GLOBAL, 0, 0, 0);
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        world->devices[i].denied = false;
    }
    guest_write(&world->guest, SPEC_FEDATA, 4, WORLD_FAULT_DATA);
    guest_write(&world->guest, SPEC_FEADDR, 4, 0xfee00000);
    guest_write(&world->guest, SPEC_IEDATA, 4, WORLD_WAIT_DATA);
    guest_write(&world->guest, SPEC_IEADDR, 4, 0xfee01000);
    if (!world_faults_equal(world, &world->faults) ||
        guest_read(&world->guest, SPEC_GSTS, 4) != 0) {
        world_fail(world, "a reset leaves FSTS %#llx, GSTS %#llx",
                   (unsigned long long)guest_read(&world->guest, SPEC_FSTS, 4),
                   (unsigned long long)guest_read(&world->guest, SPEC_GSTS, 4));
    }
    world_drain(world);
}
