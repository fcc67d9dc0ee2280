/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every unit that is served has, whatever the guest programs it by: an instance (struct
 * viommu), the guest's memory, which is what the client of the unit's own connection maps, and the
 * way of interrupt messages to that client.
 *
 * Messages of the unit, and those of the devices behind it, go to the client as writes to
 * 0xFEExxxxx over that connection. They are lost, and counted, while there is none.
 *
 * What the server's own thread brings about for the unit to do makes it *due*: that thread looks
 * after each event of its loop, and no descriptor has to tell it. Work that another thread brings,
 * a worker of a device, makes work_fd readable too.
 *
 * Threads: the server's one thread, which is the one that calls unit_init.
 */
#ifndef VIOMMU_SERVER_UNIT_H
#define VIOMMU_SERVER_UNIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <viommu/device.h>
#include <viommu/iommu.h>
#include <viommu/memory.h>

#include "device_dma.h"
#include "pci_function.h"

struct leaving_region;

struct unit {
    const struct pci_function *function; /* by which the guest reaches it */
    struct viommu *iommu;
    struct viommu_memory *memory;
    pthread_t thread; /* the server's */
    _Atomic bool due; /* there is work */
    int work_fd;      /* readable when another thread brought it */
    struct leaving_region *leaving; /* unmapped, and still in use */
    unsigned leaving_count;
    uint64_t messages_sent;
    uint64_t messages_lost;
    uint64_t losses_logged;
    uint64_t events; /* that the unit reported */
};

/*
 * Makes the memory, and a configuration with which to create unit->iommu: with what `caches` says
 * of caches and of time (NULL: the defaults), callbacks, and the unit as their opaque. Returns 0 or
 * a negative errno; either way _fini gives all back.
 */
int unit_init(struct unit *unit, const struct pci_function *function,
              const struct viommu_config *caches, struct viommu_config *config);

/* Nobody serves the function any more; the devices behind it were removed. */
void unit_fini(struct unit *unit);

/* There is work: unit_process, or who calls that, is to come. On the server's thread. */
void unit_go_on_later(struct unit *unit);

static inline bool unit_is_due(const struct unit *unit)
{
    return atomic_load(&unit->due);
}

/* Do the unit's pending work, a bounded amount: it is due, or its event fd, the memory's or work_fd
 * was readable. It is due afterwards when there is more. */
void unit_process(struct unit *unit);

/* Tell people what went wrong since the last call: memory that a client took away. */
void unit_report(struct unit *unit);

/* For pci_function.memory, with the unit as its opaque. */
extern const struct pci_memory_ops unit_memory_ops;

/* What a device needs to do its DMA through the unit: opaque is a struct viommu_device. Defined in
 * unit_dma.c. */
extern const struct device_dma unit_dma;

#endif
