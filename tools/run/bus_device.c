/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices and registers of units on the bus; see space.h.
 *
 * A device's region goes before its device does, by itself, so that a scenario may take the device
 * away whenever it likes: the region then leads nowhere.
 */
#include "space.h"

#include <viommu/device_region.h>

/* It waits for CPUs, and this thread runs them: they stop meanwhile. */
void bus_device_destroy(struct bus_thing *gone)
{
    struct bus_thing *things = gone->room->things;

    for (struct bus_thing *thing = things; thing; thing = thing->next) {
        for (unsigned i = 0; i < thing->begun; i++) {
            viommu_cpu_end(thing->cpu);
        }
    }
    (void)viommu_device_region_destroy(gone->region);
    bus_thing_forget(gone);
    for (struct bus_thing *thing = things; thing; thing = thing->next) {
        for (unsigned i = 0; i < thing->begun; i++) {
            (void)viommu_cpu_begin(thing->cpu);
        }
    }
}

void spaces_leave(struct run *run, const struct viommu_device *device)
{
    struct bus_thing *thing = run->space ? run->space->things : NULL;

    for (; thing; thing = thing->next) {
        if (thing->device && (!device || thing->device == device)) {
            bus_device_destroy(thing);
        }
    }
}

static void do_device_region(struct run *run)
{
    struct device *device = arg_device(run, "dev");
    struct bus_thing *into = device ? arg_bus_space(run, "into") : NULL;
    struct bus_thing *thing = into ? bus_thing_add(run, "") : NULL;
    int error;

    if (!thing) {
        return;
    }
    thing->device = device_handle(device);
    error = viommu_device_region_create(thing->device, thing->room->bus, thing->name, into->space,
                                        &thing->region);
    result_errno(&run->result, error);
    if (error) {
        bus_thing_forget(thing);
    }
}

static void do_registers_region(struct run *run)
{
    struct unit *unit = run_unit(run);
    struct bus_thing *thing = unit ? bus_thing_add(run, "") : NULL;
    uint64_t size = 4096;
    int error;

    if (!thing || !arg_number(run, "size", &size)) {
        return;
    }
    error = viommu_registers_region_create(unit->iommu, thing->room->bus, thing->name, size,
                                           &thing->region);
    result_errno(&run->result, error);
    if (error) {
        bus_thing_forget(thing);
    }
}

static void do_stats(struct run *run)
{
    struct space_room *room = space_room(run);
    struct viommu_bus_stats stats;

    if (room) {
        viommu_bus_stats(room->bus, &stats, sizeof(stats));
        result_decimal(&run->result, "reentries", stats.reentries);
    }
}

const struct command bus_device_commands[] = {
    {"region device", "name dev into",
     "Makes a region that translates as a device's unit does, and leads into a space.",
     do_device_region},
    {"region registers", "name [size]", "Makes a region of the unit's registers.",
     do_registers_region},
    {"space stats", "", "How often an access was refused as it came back to itself.", do_stats},
    {0},
};
