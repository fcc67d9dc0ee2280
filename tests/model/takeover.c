/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Another instance goes on from the state of the one under test: between operations, and while the
 * guest waits for commands and invalidations. The model of what is right does not know of it.
 */
#include "world.h"

static void add_device(struct world *world, struct viommu *second, struct world_device *device)
{
    struct viommu_device_config config = {.requester = device->requester, .ats = device->ats};
    struct viommu_subscription what = {
        .kinds = VIOMMU_CHANGE_DEVICE_TLB,
        .change = world_on_change,
        .opaque = device,
    };

    world_ok(world, viommu_device_add(second, &config, &device->device), "device again");
    for (unsigned i = 0; i < device->alias_count; i++) {
        if (viommu_device_add_alias(device->device, device->aliases[i]) != (int)i + 1) {
            world_fail(world, "alias %04x again", device->aliases[i]);
        }
    }
    if (device->subscriber) {
        world_ok(world, viommu_device_subscribe(device->device, &what, &device->subscriber),
                 "subscribe again");
    }
}

/* A guest cannot tell the two instances apart. */
static void compare_registers(struct world *world, struct viommu *second)
{
    uint64_t end = world->guest.fault_offset + 16 * world->guest.fault_count;

    for (uint64_t offset = 0; offset < end; offset += 4) {
        uint64_t was;
        uint64_t is;

        world_ok(world, viommu_mmio_read(world->guest.iommu, offset, 4, &was), "register");
        world_ok(world, viommu_mmio_read(second, offset, 4, &is), "register again");
        if (was != is) {
            world_fail(world, "register %#llx is %#llx, and was %#llx before it was saved",
                       (unsigned long long)offset, (unsigned long long)is,
                       (unsigned long long)was);
        }
    }
}

void world_take_over(struct world *world)
{
    struct viommu *second;
    void *data;
    size_t size;

    world_note(world, "saved and loaded");
    world_ok(world, viommu_save(world->guest.iommu, &data, &size), "save");
    world_ok(world, guest_second(&world->guest, &second), "second instance");
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        if (world->devices[i].device) {
            add_device(world, second, &world->devices[i]);
        }
    }
    world_ok(world, viommu_load(second, data, size), "load");
    viommu_save_free(data);
    compare_registers(world, second);
    guest_take_over(&world->guest, second);
    world->takeovers++;
}

void world_take_over_sometimes(void *opaque)
{
    struct world *world = opaque;

    /* One that was told by the old instance answers to that. */
    for (unsigned i = 0; i < WORLD_DEVICES; i++) {
        if (world->devices[i].device && world->devices[i].answer != WORLD_ANSWER_NOW) {
            return;
        }
    }
    if (world_percent(world, 2)) {
        world_take_over(world);
    }
}
