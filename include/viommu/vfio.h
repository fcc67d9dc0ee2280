/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VFIO backend: a VFIO container (type 1, version 2) that mirrors a device's translations, so
 * that an assigned device reaches what the guest's tables let it reach, and nothing else.
 *
 *     viommu_vfio_create(&config, &vfio);
 *     viommu_vfio_subscription(vfio, &what);
 *     viommu_device_subscribe(device, &what, &subscriber);
 *
 * The container's mappings belong to the backend: nobody else maps in it. A container with several
 * devices has one subscription, of a device whose tables are those of all.
 */
#ifndef VIOMMU_VFIO_H
#define VIOMMU_VFIO_H

#include <viommu/notify.h>

#ifdef __cplusplus
extern "C" {
#endif

struct viommu_vfio;

struct viommu_vfio_config {
    /* Open, with a group in it and VFIO_TYPE1v2_IOMMU set (version 1 cannot be told from it here,
       and will not do). Not closed here. */
    int container;
    /* 0: as many as the kernel says it has left (65,535 if it does not); never more than that. */
    uint64_t mappings_max;
    /*
     * Cuts the devices of the container off (bus master off, then reset) when unmapping everything
     * failed. What is mapped then may stay so: do not let them in again before viommu_vfio_destroy
     * has returned 0, or a MAP has succeeded (each first drops what was left). NULL: the failure is
     * only reported. Returns 0 or a negative errno.
     */
    int (*cut_off)(void *opaque);
    void *opaque;
    /* It has the mappings of a saved state (viommu/save.h): the subscription has `adopt`, and
       mappings_max counts those that come besides, one at least. */
    bool adopt;
};

/*
 * Reads from the kernel which addresses may be mapped, how many mappings and which page sizes; so
 * the container has its devices before. Returns 0; -EINVAL for no container, or one without the
 * type-1 version-2 IOMMU; -ERANGE when no address at all may be mapped; -ENOSPC when no mapping is
 * left; -EIO for an answer of the kernel's that makes no sense; -ENOMEM; or what its
 * VFIO_IOMMU_GET_INFO returned.
 */
int viommu_vfio_create(const struct viommu_vfio_config *config, struct viommu_vfio **out);

/* Unmaps everything and forgets the container; unsubscribe first. Not where another process adopted
   the mappings: leave the backend as it is, and end. NULL is accepted. Returns 0, or
   what the kernel returned; the backend is gone in any case. */
int viommu_vfio_destroy(struct viommu_vfio *vfio);

/* Fills in a subscription of this backend. What it points to lives as long as the backend. */
void viommu_vfio_subscription(struct viommu_vfio *vfio, struct viommu_subscription *out);

#ifdef __cplusplus
}
#endif

#endif
