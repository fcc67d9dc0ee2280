/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Addresses that a device may not use, because the IOVA space that it is in says so.
 *
 * A device goes by a list of what it may use, a copy of the space's (iova/tenant.h); a requester by
 * what is *closed* to it: what one of the devices that use its id may not use, without the range of
 * interrupts. When the space's lists are to change, both are made anew, aside; models and mirrors
 * say whether they can live with them; then they take the place of the old ones, or go.
 *
 * Locking: the IOMMU's. A requester's list is read by DMA inside a section: it is published
 * atomically, and freed by epoch_defer.
 */
#ifndef VIOMMU_DEVICE_RESERVED_H
#define VIOMMU_DEVICE_RESERVED_H

#include "base/epoch.h"
#include "iova/tenant.h"

struct requester;
struct viommu;
struct viommu_device;

/* In order, none touching another; immutable. */
struct closed {
    struct epoch_deferred deferred;
    size_t count;
    struct viommu_range ranges[];
};

/* Whether some of [first, last] is closed. NULL: nothing is. */
bool closed_meets(const struct closed *closed, uint64_t first, uint64_t last);

/*
 * A requester has one more device, or one less: what is closed to it is made anew, and goes by the
 * model. Returns 0; what the model says (iommu.h, closing); -ENOMEM. Under the lock.
 */
int requester_close(struct viommu_device *device, struct requester *requester);
/* Tells a watcher what is closed. */
void requester_watch_closed(struct viommu *iommu, const struct requester *requester);
void requester_reopen(struct viommu *iommu, struct requester *requester);

/* A device that is not added yet enters a space. Returns 0, -EINVAL (identity) or -ENOMEM. */
int device_reserved_init(struct viommu_device *device, struct viommu_iova *space);
/* It has been added, or has failed to be. Without the lock. */
void device_enter_space(struct viommu_device *device, struct viommu_iova *space);
/* It leaves, and what its mirrors brought into the space goes. Without the lock. */
void device_leave_space(struct viommu_device *device);
void device_reserved_fini(struct viommu_device *device);

/*
 * What a mirror is allowed becomes limits in the device's space. Where the device has none, and its
 * model answers for what is closed, it gets one of its own. *out is NULL where there is no need.
 * Returns 0, or as viommu_iova_limit. Without the lock.
 */
int device_limit(struct viommu_device *device, const struct viommu_range *allowed, size_t count,
                 struct viommu_iova_owner **out);
void device_unlimit(struct viommu_device *device, struct viommu_iova_owner *limits);

/*
 * A guest that is not told what is closed must at least do without addresses above the last one.
 * Returns 0 or -ERANGE. Under the lock.
 */
int device_fits(const struct viommu_device *device);

/* The last address that it may use. */
uint64_t device_usable_last(const struct viommu_device *device);

#endif
