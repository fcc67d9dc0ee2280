/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Devices of IOMMU instances on a bus of spaces (viommu/space.h).
 *
 * A device's *region* is an IOMMU region that translates as the device's IOMMU does: what is read
 * and written through it are requests of that device, of which the guest sees the faults. It leads
 * into a space: where that shows another IOMMU region, of another instance or a model of another
 * kind, the device is behind two IOMMUs. CPUs and devices may look through it.
 *
 *     bus master -> space that shows the region -> the device's IOMMU -> space -> next IOMMU, RAM,
 *                                                                                 registers
 *
 * An invalidation by the guest completes when no access and no CPU uses an old translation any
 * more: viommu_process() sees to that, for each instance on the way by itself. An access to
 * registers (MMIO) that had begun is not waited for. A CPU that comes to no safe point within
 * `ack_timeout_ms` is treated as any subscriber that does not answer: the device is denied
 * (VIOMMU_EVENT_DENIED), and all that CPUs have cached through the region goes at their next safe
 * points.
 *
 * Errors of an access through a region, besides those of spaces: -EFAULT the guest's tables refuse
 * it, and the fault is recorded as the architecture says; -EPERM the device is denied; -EIO before
 * viommu_start.
 */
#ifndef VIOMMU_DEVICE_REGION_H
#define VIOMMU_DEVICE_REGION_H

#include <viommu/device.h>
#include <viommu/space.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Creates a device's region, of 2^64 bytes, which lies nowhere yet. Its requests are untranslated
 * ones of the device's own id. What the IOMMU makes of an address leads to the same address of
 * `space`; so do messages to the interrupt controller (writes to the interrupt address range, as
 * they are: viommu_translation.interrupt): put registers there that take them. `name` is copied;
 * NULL is "".
 *
 * The device gets a subscriber (viommu/notify.h). Returns 0; -EINVAL a space of another bus;
 * -EDEADLK from a change callback; -ENOMEM.
 */
int viommu_device_region_create(struct viommu_device *device, struct viommu_bus *bus,
                                const char *name, struct viommu_space *space,
                                struct viommu_region **out);

/*
 * Gives the region back; NULL is accepted. From now on it leads nowhere (-EIO), and is destroyed as
 * by viommu_region_destroy. Call it before the device, or the bus, goes. Waits as viommu_bus_wait
 * does: what the guest invalidates is not complete while a CPU uses it. Returns 0, or -EDEADLK from
 * a change callback, and where viommu_bus_wait may not be called: then nothing was done.
 */
int viommu_device_region_destroy(struct viommu_region *region);

/*
 * Creates a region of `size` bytes with an instance's registers (viommu_mmio_read, and _write). An
 * access that has crossed a region of one of the instance's own devices does not reach them, nor
 * does a device's own (viommu_config.space): -EDEADLK. Call viommu_process() as after any write. It
 * is given back by viommu_region_destroy; the instance outlives it. Returns 0, -EINVAL for size 0,
 * or -ENOMEM.
 */
int viommu_registers_region_create(struct viommu *iommu, struct viommu_bus *bus, const char *name,
                                   uint64_t size, struct viommu_region **out);

#ifdef __cplusplus
}
#endif

#endif
