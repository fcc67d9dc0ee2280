/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the kernel's VFIO and iommufd say of the addresses that devices can use: asked as a backend
 * asks (viommu/vfio.h, viommu/iommufd.h), with nothing mapped, and all given back again.
 *
 * It takes devices that are bound to VFIO's driver, that nobody else has open, and the right to
 * open them. What goes wrong is said on stderr.
 */
#ifndef VIOMMU_TOOLS_IOVA_KERNEL_H
#define VIOMMU_TOOLS_IOVA_KERNEL_H

#include <viommu/iova.h>

struct kernel_paths {
    const char *sysfs; /* "/sys" */
    const char *dev;   /* "/dev" */
};

struct kernel_answer {
    char who[VIOMMU_IOVA_NAME_MAX]; /* "VFIO group 7", "iommufd 0000:01:00.0" */
    struct viommu_range *ranges;    /* which addresses; free() it */
    size_t count;                   /* one at least */
};

/* The IOMMU group of a PCI device, "0000:01:00.0". */
bool kernel_find_group(const struct kernel_paths *paths, const char *device, unsigned *group);

/* By a container of VFIO's with this group in it. */
bool kernel_ask_vfio(const struct kernel_paths *paths, unsigned group,
                     struct kernel_answer *answer);

/* By an address space of iommufd's with this device attached to it. */
bool kernel_ask_iommufd(const struct kernel_paths *paths, const char *device,
                        struct kernel_answer *answer);

#endif
