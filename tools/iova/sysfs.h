/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What sysfs says of the addresses that PCI devices can use, put into an IOVA space.
 *
 * For each device: the reserved regions of its IOMMU group, and the windows of bridges that its
 * requests can be turned into before they reach the IOMMU. Those are, for each root or downstream
 * port on its way up that does not redirect requests (and each conventional bridge), the windows of
 * this port and of the bridges beside it. Devices beside a port, which are no bridges, are not
 * looked at.
 */
#ifndef VIOMMU_TOOLS_IOVA_SYSFS_H
#define VIOMMU_TOOLS_IOVA_SYSFS_H

#include <viommu/iova.h>

/*
 * Adds an owner for the device, "0000:01:00.0", and one for each bridge in its way that is not in
 * the space yet; `root` is where sysfs is mounted. False after a failure, which is said on stderr.
 */
bool sysfs_add_device(struct viommu_iova *space, const char *root, const char *device);

/* Adds an owner "host bridges" with their windows, as a copy of /proc/iomem has them. */
bool sysfs_add_host_bridges(struct viommu_iova *space, const char *path);

#endif
